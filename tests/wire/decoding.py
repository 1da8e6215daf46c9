"""What the tests of the dialects' decoders share: run a body, compare with a vector."""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from penstock.types.errors import UpstreamError
from penstock.types.events import AnyEvent
from penstock.wire.dialect import EventDecoder
from tests.vectors import Vector, bytewise, octets, random_pieces

_events = msgspec.json.Decoder(list[AnyEvent])


class Outcome(NamedTuple):
    """All that a body came to."""

    events: list[AnyEvent]
    error: UpstreamError | None


def run(decoder: EventDecoder, pieces: Iterable[bytes]) -> Outcome:
    """Feed ``pieces`` as a run does: to the end, to `finished`, or to an error."""
    events: list[AnyEvent] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
            if decoder.finished:
                break
        events += decoder.flush()
    except UpstreamError as error:
        return Outcome(events, error)
    return Outcome(events, None)


def expected(vector: Vector) -> list[AnyEvent]:
    """Return the events that ``vector`` names."""
    return _events.decode(msgspec.json.encode(vector.content["events"]))


def forms(vector: Vector) -> Iterator[list[bytes]]:
    """Yield the body whole, byte by byte, with CRLF and in random pieces."""
    body = octets(vector.content, "input")
    yield [body]
    yield bytewise(body)
    yield [body.replace(b"\n", b"\r\n")]
    rng = random.Random(vector.name)
    for _ in range(20):
        yield random_pieces(body, rng)


def check(vector: Vector, decoder: Callable[[], EventDecoder]) -> None:
    """Assert that ``vector`` holds in every form of its body."""
    events = expected(vector)
    wanted: dict[str, Any] | None = vector.content.get("error")
    for pieces in forms(vector):
        outcome = run(decoder(), pieces)
        assert outcome.events == events
        if wanted is None:
            assert outcome.error is None
        else:
            assert outcome.error is not None
            assert {name: getattr(outcome.error, name) for name in wanted} == wanted
