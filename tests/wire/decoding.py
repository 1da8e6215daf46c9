"""What the tests of the dialects' decoders share: run a body, compare with a vector."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from penstock.types.errors import UpstreamError
from penstock.types.events import AnyEvent, decode_line, encode_line
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
    if "input" in vector.content:
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


_STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x",
    [],
    {},
    [[]],
    [None],
    ["x"],
    {"x": 1},
    [{"x": {}}],
]


def distort(value: Any, rng: random.Random) -> Any:
    """Return JSON ``value`` with one thing in it, anywhere, put in another's place or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        rest = {key: inner for key, inner in value.items() if key != name}
        return rest if rng.random() < 0.1 else {**rest, name: distort(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], distort(value[at], rng), *value[at + 1 :]]
    return rng.choice(_STRANGE)


def check_distorted(vector: Vector, decoder: Callable[[], EventDecoder], rounds: int = 100) -> None:
    """Assert that no distortion of ``vector`` does more than change events or raise `UpstreamError`."""
    rng = random.Random(vector.name)
    lines = vector.content["input"].split("\n")
    for _ in range(rounds):
        at = rng.choice([i for i, line in enumerate(lines) if "{" in line] or [0])
        head, brace, text = lines[at].partition("{")
        try:
            line = head + json.dumps(distort(json.loads(brace + text), rng))
        except json.JSONDecodeError:
            line = lines[at][: rng.randrange(len(lines[at]) + 1)]
        body = "\n".join([*lines[:at], line, *lines[at + 1 :]]).encode()
        for number, event in enumerate(run(decoder(), [body]).events, 1):
            assert decode_line(encode_line(number, event)) == event
