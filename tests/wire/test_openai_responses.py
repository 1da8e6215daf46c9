"""The Responses decoder, over the shared vectors."""

from penstock.wire.openai_responses_decoder import ResponsesDecoder
from tests.vectors import Vector, each_vector
from tests.wire.decoding import check, check_distorted


@each_vector("openai_responses")
def test_vector(vector: Vector):
    check(vector, ResponsesDecoder)


@each_vector("openai_responses")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, ResponsesDecoder)
