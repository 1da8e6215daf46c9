"""The NDJSON framing: the shared vectors, limits, and the way back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.types.errors import WireError
from penstock.wire.ndjson import NdjsonDecoder, encode
from tests.vectors import Vector, bytewise, cut_at, cuttings, each_vector, feed_all, octets

many = settings(max_examples=8 * settings().max_examples)  # cheap, and the inputs are many


def read(pieces: list[bytes]) -> list[bytes]:
    decoder = NdjsonDecoder()
    return feed_all(decoder.feed, pieces) + decoder.flush()


def read_plainly(body: bytes) -> list[bytes]:
    """Read the whole body at once: split at LF, drop one CR, skip what is blank."""
    lines = [line[:-1] if line[-1:] == b"\r" else line for line in body.split(b"\n")]
    return [line for line in lines if set(line) - set(b" \t\r")]


@each_vector("ndjson")
def test_vector_reads_the_same_however_it_is_cut(vector: Vector) -> None:
    expected = [
        octets(line, "text") if isinstance(line, dict) else line.encode() for line in vector.content["lines"]
    ]
    body = octets(vector.content, "input")
    assert read_plainly(body) == expected
    for pieces in cuttings(body):
        assert read(pieces) == expected, pieces


TOKENS = [
    b"{}",
    b'"a"',
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"\t",
    b"\n\n",
    b"\0",
    "é".encode(),
    b"\xc3",
    b"\xe2\x80\xa8",
]


@st.composite
def cut_bodies(draw: st.DrawFn) -> list[bytes]:
    body = b"".join(draw(st.lists(st.sampled_from(TOKENS), max_size=30)))
    return cut_at(body, draw(st.lists(st.integers(0, len(body)), max_size=10)))


@many
@given(cut_bodies())
def test_decoder_reads_what_a_plain_reader_of_the_whole_reads(pieces: list[bytes]) -> None:
    assert read(pieces) == read_plainly(b"".join(pieces))


def run_into_limit(pieces: list[bytes], max_line: int) -> tuple[list[bytes], bool]:
    """Return the lines that come before an error, and whether there was one."""
    decoder = NdjsonDecoder(max_line=max_line)
    lines: list[bytes] = []
    try:
        for piece in pieces:
            lines += decoder.feed(piece)
        lines += decoder.flush()
    except WireError:
        return lines, True
    return lines, False


@many
@given(cut_bodies(), st.integers(0, 8))
def test_limit_does_not_depend_on_how_the_body_is_cut(pieces: list[bytes], max_line: int) -> None:
    body = b"".join(pieces)
    outcome = run_into_limit(pieces, max_line)
    assert outcome == run_into_limit([body], max_line) == run_into_limit(bytewise(body), max_line)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_limit_is_the_longest_line_that_fits(end: bytes) -> None:
    assert run_into_limit([b"12345" + end], 5) == ([b"12345"], False)
    assert run_into_limit([b"123456" + end], 5) == ([], True)


def test_lines_before_the_one_that_is_too_large_are_returned_first() -> None:
    decoder = NdjsonDecoder(max_line=5)
    assert decoder.feed(b"1\n2\n123456\n3\n") == [b"1", b"2"]
    for call in (lambda: decoder.feed(b""), lambda: decoder.feed(b"4\n"), decoder.flush):
        with pytest.raises(WireError) as caught:
            call()
        assert (caught.value.code, caught.value.status) == ("upstream_frame_too_large", 502)
    assert "held=0" in repr(decoder)


@pytest.mark.timeout(30)
def test_long_line_arrives_whole_in_small_reads() -> None:
    """Copying what is held at each read would take minutes, so the timeout means quadratic time."""
    line = random.Random(1).randbytes(4 * 1024 * 1024).replace(b"\n", b"-").replace(b"\r", b"-") + b"x"
    body = line + b"\n"
    assert read(cut_at(body, range(0, len(body), 4))) == [line]


def test_flush_gives_the_last_line_once() -> None:
    decoder = NdjsonDecoder()
    decoder.feed(b"1")
    assert (decoder.flush(), decoder.flush()) == ([b"1"], [])


@many
@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda value: not set(value) & set(b"\r\n"))))
def test_encoded_lines_decode_to_themselves(lines: list[bytes]) -> None:
    assert read([b"".join(map(encode, lines))]) == [line for line in lines if line.strip(b" \t")]


@pytest.mark.parametrize("bad", [b"\n", b"{}\n", b"{\r}"])
def test_line_end_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="CR or LF"):
        encode(bad)
