"""A stream is verified by what it says of itself."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.events import Closed, Finished, TextDelta, encode_line
from penstock.wire.verification import Verifier


def stream(texts, status="completed"):
    """Return the lines of a stream that says ``texts``."""
    events = [TextDelta(text) for text in texts] + [Finished("stop")]
    lines = [encode_line(seq, event) for seq, event in enumerate(events, 1)]
    closed = Closed(
        status,
        entries=len(lines),
        sha256=hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest(),
        text_sha256=hashlib.sha256("".join(texts).encode()).hexdigest(),
    )
    return [*lines, encode_line(len(lines) + 1, closed)]


def verdict(lines):
    verifier = Verifier()
    for line in lines:
        verifier.feed(line)
    return verifier.verdict()


@given(st.lists(st.text(min_size=1)))
def test_a_whole_stream_is_good(texts):
    found = verdict(stream(texts))
    assert found.good
    assert (found.status, found.characters) == ("completed", len("".join(texts)))


@given(st.lists(st.text(min_size=1), min_size=2), st.data())
def test_whatever_is_lost_repeated_or_swapped_is_found(texts, data):
    lines = stream(texts)
    place = data.draw(st.integers(0, len(lines) - 2))
    change = data.draw(st.sampled_from(["lose", "repeat", "swap"]))
    match change:
        case "lose":
            lines.pop(place)
        case "repeat":
            lines.insert(place, lines[place])
        case "swap":
            lines[place], lines[place + 1] = lines[place + 1], lines[place]
    assert not verdict(lines).good


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[:-1], "end is missing"),
        (lambda lines: [lines[0].replace(b"one", b"uno"), *lines[1:]], "sha256 differs"),
        (lambda lines: [*lines, lines[0]], "after the end"),
        (lambda lines: [b"{", *lines], "cannot be read"),
        (lambda lines: [b'{"n":1,"type":"text","delta":"\xff"}', *lines[1:]], "cannot be read"),
        (lambda lines: [], "end is missing"),
    ],
)
def test_a_problem_is_named(change, problem):
    found = verdict(change(stream(["one", "two"])))
    assert any(problem in said for said in found.problems)
