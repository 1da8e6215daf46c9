"""AWS's event stream: what is cut anywhere is the same, and what is broken is told."""

import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import WireError
from penstock.wire.aws_eventstream import MAX_HEADERS, EventStreamFrames
from tests.vectors import cuttings, each_vector, feed_all, octets

WORKED = bytes.fromhex(
    "0000009400000057b4ab9aee0b3a6576656e742d74797065070011636f6e74656e74426c6f636b44656c74610d3a636f6e74656e"
    "742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22636f6e"
    "74656e74426c6f636b496e646578223a302c2264656c7461223a7b2274657874223a224869227d7d1f944657"
)
FRAME = (b"contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hi"}}')


def message(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    made = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return made + struct.pack(">I", crc32(made))


def test_a_known_message_is_the_same_however_it_is_cut():
    for pieces in cuttings(WORKED + WORKED):
        frames = EventStreamFrames()
        assert feed_all(frames.feed, pieces) == [FRAME, FRAME]
        assert frames.flush(lenient=True) == ()


def test_headers_of_all_types_are_passed_over():
    texts = b"\x01a\x00\x01b\x01\x01c\x02x\x01d\x03xx\x01e\x04xxxx\x01f\x05xxxxxxxx\x01g\x06\x00\x02xx"
    texts += b"\x01h\x08xxxxxxxx\x01i\x09" + b"x" * 16 + b"\x0b:event-type\x07\x00\x01t"
    assert EventStreamFrames().feed(message(texts, b"{}")) == [(b"t", b"{}")]


@pytest.mark.parametrize(
    "headers", [b"\x05ab", b"\x01a", b"\x01a\x07\x00\x09ab", b"\x01a\x63", b"\x01a\x07\x00"]
)
def test_headers_that_cannot_be_read_are_malformed(headers):
    with pytest.raises(WireError) as caught:
        EventStreamFrames().feed(message(headers, b""))
    assert caught.value.code == "upstream_malformed"


@given(at=st.integers(0, len(WORKED) - 1), bit=st.integers(0, 7))
def test_any_wrong_bit_is_noticed(at, bit):
    broken = bytearray(WORKED)
    broken[at] ^= 1 << bit
    frames = EventStreamFrames()
    assert frames.feed(WORKED + broken) == [FRAME]
    with pytest.raises(WireError):
        frames.feed(b"")


@pytest.mark.parametrize(
    ("total", "headers"), [(1 << 31, 0), (MAX_HEADERS + 17, MAX_HEADERS + 1), (15, 0), (20, 5)]
)
def test_lengths_that_cannot_be_are_not_waited_for(total, headers):
    prelude = struct.pack(">II", total, headers)
    with pytest.raises(WireError):
        EventStreamFrames().feed(prelude + struct.pack(">I", crc32(prelude)))


def test_a_body_that_ends_in_a_message_has_no_frame_of_it():
    frames = EventStreamFrames()
    assert frames.feed(WORKED[:-1]) == []
    assert frames.flush(lenient=True) == ()


@each_vector("bedrock")
def test_botocore_cuts_the_same(vector):
    theirs = EventStreamBuffer()
    body = octets(vector.content, "input")
    if vector.content.get("error", {}).get("code") in ("upstream_malformed", "upstream_frame_too_large"):
        return
    theirs.add_data(body)
    ours = EventStreamFrames().feed(body)
    assert [m.payload for m in theirs] == [data if not n.startswith(b"error/") else b"" for n, data in ours]
