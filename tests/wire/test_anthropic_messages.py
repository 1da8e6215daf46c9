"""The Messages decoder, over the shared vectors."""

from penstock.wire.anthropic_messages import MessagesDecoder
from tests.vectors import Vector, each_vector
from tests.wire.decoding import check, check_distorted


@each_vector("anthropic_messages")
def test_vector(vector: Vector):
    check(vector, MessagesDecoder)


@each_vector("anthropic_messages")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, MessagesDecoder)
