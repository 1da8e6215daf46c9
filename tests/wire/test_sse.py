"""The SSE framing: the shared vectors, and the decoder against a plain reading of the specification."""

import random
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.types.errors import WireError
from penstock.wire.sse import (
    HEARTBEAT,
    HEARTBEAT_WITH_IDS,
    MAX_RETRY_DIGITS,
    SseDecoder,
    SseFrame,
    encode,
    encode_text,
)
from tests.vectors import Vector, bytewise, cut_at, cuttings, each_vector, feed_all, octets

many = settings(max_examples=8 * settings().max_examples)  # cheap, and the inputs are many


class Reading(NamedTuple):
    """All that a body says: its frames, and what a reader knows after them."""

    frames: list[SseFrame]
    retry: int | None
    last_event_id: bytes


def read(pieces: list[bytes], *, lenient: bool) -> Reading:
    decoder = SseDecoder()
    frames = feed_all(decoder.feed, pieces)
    frames += decoder.flush(lenient=lenient)
    return Reading(frames, decoder.retry, decoder.last_event_id)


def read_by_the_specification(body: bytes, *, lenient: bool) -> Reading:
    """Do what WHATWG HTML 9.2.6 says, word for word, over the whole body.

    Latin-1 stands in for UTF-8: it maps every byte to a character, and all that the algorithm looks
    for is ASCII.
    """
    stream = body.decode("latin-1")
    if stream.startswith("\xef\xbb\xbf"):
        stream = stream[3:]
    lines = re.split("\r\n|\n|\r", stream)
    unfinished = lines.pop()
    if lenient:
        lines += [unfinished] if unfinished else []
    frames: list[SseFrame] = []
    retry: int | None = None
    last_event_id = ""
    data_buffer = event_type_buffer = last_event_id_buffer = ""
    for number, line in enumerate([*lines, ""]):
        if line == "":
            if number == len(lines) and not (lenient and data_buffer):
                break  # the blank line that we put there ends a block only if it may
            last_event_id = last_event_id_buffer
            if data_buffer == "":
                event_type_buffer = ""
                continue
            if data_buffer[-1] == "\n":
                data_buffer = data_buffer[:-1]
            frames.append(SseFrame(*map(latin, (event_type_buffer, data_buffer, last_event_id))))
            data_buffer = event_type_buffer = ""
        elif line[0] == ":":
            continue
        else:
            if ":" in line:
                colon = line.index(":")
                field, value = line[:colon], line[colon + 1 :]
                if value != "" and value[0] == " ":
                    value = value[1:]
            else:
                field, value = line, ""
            if field == "event":
                event_type_buffer = value
            elif field == "data":
                data_buffer += value
                data_buffer += "\n"
            elif field == "id":
                if "\0" not in value:
                    last_event_id_buffer = value
            elif field == "retry" and re.fullmatch(f"[0-9]{{1,{MAX_RETRY_DIGITS}}}", value):
                retry = int(value, 10)
    return Reading(frames, retry, latin(last_event_id))


def latin(text: str) -> bytes:
    return text.encode("latin-1")


def end_lines_with(ends: Callable[[], bytes], body: bytes) -> bytes:
    """Return ``body``, in which every line ends with LF, with other line ends.

    LF after CR would be no line end of its own: there CR LF stands in for it.
    """
    out = bytearray()
    for line in body.splitlines(keepends=True):
        out += line.removesuffix(b"\n")
        if line.endswith(b"\n"):
            end = ends()
            out += b"\r\n" if end == b"\n" and out.endswith(b"\r") else end
    return bytes(out)


def variants(vector: Vector) -> list[bytes]:
    """Return the bodies of a vector: as it stands and, where it may, with its line ends made anew."""
    body = octets(vector.content, "input")
    if vector.content["line_ends"] == "fixed":
        return [body]
    rng = random.Random(vector.name)
    mixed = [end_lines_with(lambda: rng.choice([b"\n", b"\r", b"\r\n"]), body) for _ in range(3)]
    return [body, end_lines_with(lambda: b"\r", body), end_lines_with(lambda: b"\r\n", body), *mixed]


def meaning(vector: Vector) -> Reading:
    content = vector.content
    frames = [
        SseFrame(octets(frame, "event"), octets(frame, "data"), octets(frame, "id"))
        for frame in content["frames"]
    ]
    return Reading(frames, content["retry"], octets(content, "last_event_id"))


@each_vector("sse")
def test_vector_reads_the_same_however_it_is_cut_and_its_lines_end(vector: Vector) -> None:
    lenient = {"lenient": True, "strict": False}[vector.content["end"]]
    expected = meaning(vector)
    for body in variants(vector):
        for pieces in cuttings(body):
            assert read(pieces, lenient=lenient) == expected, pieces


@each_vector("sse")
def test_vector_agrees_with_the_specification(vector: Vector) -> None:
    lenient = vector.content["end"] == "lenient"
    for body in variants(vector):
        assert read_by_the_specification(body, lenient=lenient) == meaning(vector)


@each_vector("sse")
def test_vector_whose_line_ends_may_vary_has_only_lf(vector: Vector) -> None:
    assert vector.content["line_ends"] == "fixed" or b"\r" not in octets(vector.content, "input")


TOKENS = [
    *[b"data", b"event", b"id", b"retry", b"dat", b"x"],
    *[b"data: ", b"data:", b"data: a\n\n", b"data: b\ndata: c\r\n\r\n", b"event: e\n", b"id: 1\n", b":\n"],
    *[b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\0", b"\t", b"7", b"12"],
    *[
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xbb",
        b"\xbf",
        "é".encode(),
        b"\xc3",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xff",
    ],
]
bodies = st.builds(
    lambda head, tokens: head + b"".join(tokens),
    st.sampled_from([b"", b"\xef\xbb\xbf", b"data: a\n\n", b"\n"]),
    st.lists(st.sampled_from(TOKENS), max_size=40),
)


@st.composite
def cut_bodies(draw: st.DrawFn) -> list[bytes]:
    body = draw(bodies)
    return cut_at(body, draw(st.lists(st.integers(0, len(body)), max_size=12)))


@many
@given(cut_bodies(), st.booleans())
@example([b"\n", b"data: a\n\n", b"data: \n\n", b"data: b\r\n\n", b"data: c\n\n\n", b"data: d\nx\n\n"], False)
@example([b"\r", b"data: a\n\n"], False)
@example([b"\xef\xbb", b"\xbfdata: a\r", b"\n\r", b"", b"\ndata: b\n\n"], False)
def test_decoder_reads_what_the_specification_reads(pieces: list[bytes], lenient: bool) -> None:
    assert read(pieces, lenient=lenient) == read_by_the_specification(b"".join(pieces), lenient=lenient)


@many
@given(st.lists(st.tuples(st.sampled_from([b"event: e\n", b"id: 1\n", b"id:\n", b":\n", b"", b"\r", b"x"]))))
def test_whole_frame_after_anything_reads_as_if_it_came_in_pieces(before: list[tuple[bytes]]) -> None:
    pieces = [piece for (token,) in before for piece in (token, b"data: {}\n\n")]
    assert read(pieces, lenient=False) == read(bytewise(b"".join(pieces)), lenient=False)


def run_into_limits(pieces: list[bytes], max_line: int, max_frame: int) -> tuple[list[SseFrame], bool]:
    """Return the frames that come before an error, and whether there was one."""
    decoder = SseDecoder(max_line=max_line, max_frame=max_frame)
    frames: list[SseFrame] = []
    try:
        for piece in pieces:
            frames += decoder.feed(piece)
        frames += decoder.flush(lenient=True)
    except WireError:
        return frames, True
    return frames, False


@many
@given(cut_bodies(), st.integers(0, 20), st.integers(0, 20))
def test_limits_do_not_depend_on_how_the_body_is_cut(pieces: list[bytes], line: int, frame: int) -> None:
    body = b"".join(pieces)
    outcome = run_into_limits(pieces, line, frame)
    assert outcome == run_into_limits([body], line, frame) == run_into_limits(bytewise(body), line, frame)


@pytest.mark.parametrize(
    ("body", "max_line", "max_frame", "fits"),
    [
        (b"data: abcd\n\n", 10, 99, True),
        (b"data: abcd\n\n", 9, 99, False),
        (b"data: abcd\r\n\r\n", 10, 99, True),
        (b"data: abcd\n\n", 99, 4, True),
        (b"data: abcd\n\n", 99, 3, False),
        (b"data: a\ndata: b\n\ndata: cde\n\n", 99, 3, True),
        (b"data: a\ndata: bc\n\n", 99, 3, False),
        (b"data\ndata\ndata\n\n", 99, 2, True),
        (b"data\ndata\ndata\ndata\n\n", 99, 2, False),
        (b": a comment that is long\n", 9, 99, False),
        (b"no line end in sight", 9, 99, False),
        (b"data: a\ndata: b", 99, 3, True),
        (b"data: a\ndata: bc", 99, 3, False),
    ],
)
def test_limit_is_the_largest_that_fits(body: bytes, max_line: int, max_frame: int, fits: bool) -> None:
    for pieces in cuttings(b"\n" + body):
        assert run_into_limits(pieces, max_line, max_frame)[1] is not fits


def test_frames_before_the_one_that_is_too_large_are_returned_first() -> None:
    decoder = SseDecoder(max_line=10)
    assert decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: too long") == [SseFrame(b"", b"a", b"1")]
    with pytest.raises(WireError, match="too large"):
        decoder.feed(b"")
    assert decoder.last_event_id == b"1"


def test_decoder_that_failed_stays_failed() -> None:
    decoder = SseDecoder(max_line=10)
    decoder.feed(b"data: a\n\n")
    for call in (
        lambda: decoder.feed(b"data: too long"),
        lambda: decoder.feed(b"data: a\n\n"),
        lambda: decoder.flush(lenient=True),
        lambda: decoder.flush(lenient=False),
    ):
        with pytest.raises(WireError) as caught:
            call()
        assert (caught.value.code, caught.value.status) == ("upstream_frame_too_large", 502)


def test_decoder_that_failed_holds_nothing() -> None:
    for too_long in (b"data: " + bytes(50) + b"\nmore", bytes(61)):
        decoder = SseDecoder(max_line=60, max_frame=50)
        decoder.feed(b"data: 12345\n")
        with pytest.raises(WireError):
            decoder.feed(too_long)
        assert "held=0" in repr(decoder)


def test_comments_and_unknown_lines_take_no_memory() -> None:
    decoder = SseDecoder(max_frame=16)
    for _ in range(1000):
        assert decoder.feed(b": a comment\nunknown: field\nevent: e\nid: 1\n") == []
    assert "held=0" in repr(decoder)


@pytest.mark.parametrize(("lenient", "frames"), [(True, [SseFrame(b"", b"a\nb", b"")]), (False, [])])
def test_flush_gives_or_discards_the_last_block_once(lenient: bool, frames: list[SseFrame]) -> None:
    decoder = SseDecoder()
    decoder.feed(b"data: a\ndata: b")
    assert decoder.flush(lenient=lenient) == frames
    assert decoder.flush(lenient=True) == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("size", "read_size"), [(64 * 1024 + 1, 1460), (4 * 1024 * 1024, 4)])
def test_long_line_arrives_whole_in_small_reads(size: int, read_size: int) -> None:
    """Copying what is held at each read would take minutes, so the timeout means quadratic time."""
    data = random.Random(size).randbytes(size).replace(b"\n", b"-").replace(b"\r", b"-")
    body = b"data: " + data + b"\n\n"
    assert read(cut_at(body, range(0, len(body), read_size)), lenient=False).frames == [
        SseFrame(b"", data, b"")
    ]


@pytest.mark.timeout(30)
def test_frame_of_many_lines_arrives_whole() -> None:
    """As above: copying what is held at each line would take minutes."""
    body = b"data: 1234567\n" * 1_000_000 + b"\n"
    (frame,) = read([body], lenient=False).frames
    assert frame.data == b"1234567\n" * 999_999 + b"1234567"


names = st.binary(max_size=8).filter(lambda value: not set(value) & set(b"\r\n\0"))
lines = st.binary(max_size=40).filter(lambda value: not set(value) & set(b"\r\n"))


@many
@given(st.lists(st.tuples(names, lines, names), max_size=6), st.booleans())
def test_encoded_frames_decode_to_themselves(frames: list[tuple[bytes, bytes, bytes]], whole: bool) -> None:
    expected, pieces, last = [], [], b""
    for event, data, id in frames:
        last = id or last
        expected.append(SseFrame(event, data, last))
        pieces.append(encode(data, event=event, id=id))
    assert read(pieces if whole else [b"".join(pieces)], lenient=False).frames == expected


@pytest.mark.parametrize(
    ("event", "id", "frame"),
    [
        (b"", b"", b"data: {}\n\n"),
        (b"delta", b"", b"event: delta\ndata: {}\n\n"),
        (b"", b"s~1", b"data: {}\nid: s~1\n\n"),
        (b"delta", b"s~1", b"event: delta\ndata: {}\nid: s~1\n\n"),
    ],
)
def test_fields_stand_in_the_order_event_data_id(event: bytes, id: bytes, frame: bytes) -> None:
    assert encode(b"{}", event=event, id=id) == encode_text("{}", event=event, id=id) == frame


def test_id_counts_only_once_its_event_is_whole() -> None:
    frame = encode(b"b", id=b"2")
    for position in range(len(frame)):
        reading = read([encode(b"a", id=b"1"), frame[:position]], lenient=False)
        assert (len(reading.frames), reading.last_event_id) == (1, b"1")


@pytest.mark.parametrize("bad", [b"\n", b"\r", b"a\nb", b"a\r\n"])
def test_line_end_is_refused_in_data(bad: bytes) -> None:
    with pytest.raises(ValueError, match="CR or LF"):
        encode(bad)


@pytest.mark.parametrize("bad", [b"a\nb", b"\r", b"\0", b"a\0"])
def test_line_end_and_nul_are_refused_in_event_and_id(bad: bytes) -> None:
    for fields in ({"event": bad}, {"id": bad}):
        with pytest.raises(ValueError, match="NUL"):
            encode(b"x", **fields)
        with pytest.raises(ValueError, match="NUL"):
            encode_text("x", **fields)


@many
@given(st.text(alphabet="a\r\n :é\u2028\u0085\0", max_size=20) | st.text(max_size=40))
@example("\r\n")
@example("a\n")
@example("")
def test_text_reads_as_itself_with_lf_for_every_line_end(text: str) -> None:
    (frame,) = read([encode_text(text)], lenient=False).frames
    assert frame.data.decode() == re.sub("\r\n|\r", "\n", text)


@pytest.mark.parametrize("heartbeat", [HEARTBEAT_WITH_IDS, HEARTBEAT])
def test_heartbeat_between_frames_is_no_frame(heartbeat: bytes) -> None:
    frames = [encode(b"a", id=b"1"), encode(b"b", event=b"e")]
    body = heartbeat + heartbeat.join(frames) + heartbeat
    for pieces in cuttings(body):
        assert read(pieces, lenient=True) == read(frames, lenient=True)


def test_heartbeat_beside_ids_ends_no_block() -> None:
    assert HEARTBEAT_WITH_IDS == b":\n"
