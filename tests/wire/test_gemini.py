"""The Gemini decoder, over the shared vectors."""

from penstock.wire.gemini_decoder import GenerateContentDecoder
from tests.vectors import Vector, each_vector
from tests.wire.decoding import check, check_distorted


@each_vector("gemini")
def test_vector(vector: Vector):
    check(vector, GenerateContentDecoder)


@each_vector("gemini")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, GenerateContentDecoder)
