"""AWS's binary event stream: bytes → messages, with limits. A framing as server-sent events are one.

Owns the layout of a message (big-endian): total length u32, headers' length u32, CRC32 of these eight bytes,
headers, payload, CRC32 of all before it. Strategy: the prelude is checked before its lengths are believed;
what is whole is given before what is broken is complained about, however the bytes were cut. What a message
means is not known here.

Source: smithy.io, Amazon Event Stream; botocore 1.44, eventstream.py.
"""

import struct
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from penstock.types.errors import WireError

MAX_HEADERS: Final = 128 * 1024
"""Bytes of a message's headers; the format allows no more."""

MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes of a message's payload. The format allows 24 MiB; pieces of an answer have some hundred bytes."""

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_AROUND: Final = _PRELUDE.size + _CRC.size

_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; 6 (bytes) and 7 (text) say theirs in two more."""


class EventStreamFrames:
    """Cuts a body into messages, as `penstock.wire.decoding.Frames` wants it.

    The name of a frame is the event's type, or ``exception/<type>`` or ``error/<code>``; the data is the
    payload, of an error its message.
    """

    __slots__ = ("_broken", "_buffer", "_limit")

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        """Stand at the start of a body."""
        self._buffer = bytearray()
        self._limit = max_payload
        self._broken: WireError | None = None

    def __repr__(self) -> str:
        """Show how much waits for the rest of its message."""
        return f"EventStreamFrames({len(self._buffer)} bytes wait)"

    def feed(self, data: bytes) -> Sequence[tuple[bytes, ...]]:
        """Return the messages that ``data`` completes. Raises `WireError` for what is none."""
        if self._broken is not None:
            raise self._broken
        self._buffer += data
        found: list[tuple[bytes, ...]] = []
        start = 0
        try:
            while (end := self._whole(start)) is not None:
                found.append(_read(bytes(self._buffer[start:end])))
                start = end
        except WireError as error:
            self._broken = error
            if not found:
                raise
        del self._buffer[:start]
        return found

    def flush(self, *, lenient: bool) -> Sequence[tuple[bytes, ...]]:
        """The body ended: what is not whole is no message. Raises `WireError` as `feed` does."""
        if self._broken is not None:
            raise self._broken
        self._buffer.clear()
        return ()

    def _whole(self, start: int) -> int | None:
        """Return where the message that begins at ``start`` ends; None while it is not there."""
        if len(self._buffer) - start < _PRELUDE.size:
            return None
        total, headers, crc = _PRELUDE.unpack_from(self._buffer, start)
        if crc32(self._buffer[start : start + 8]) != crc:
            raise WireError("The provider sent a message whose checksum is wrong.")
        payload = total - headers - _AROUND
        if headers > MAX_HEADERS or payload > self._limit:
            raise WireError("The provider sent a message that is too large.", code="upstream_frame_too_large")
        if payload < 0:
            raise WireError("The provider sent a message whose lengths do not fit.")
        return start + total if len(self._buffer) - start >= total else None


def _read(message: bytes) -> tuple[bytes, ...]:
    if crc32(message[: -_CRC.size]) != _CRC.unpack_from(message, len(message) - _CRC.size)[0]:
        raise WireError("The provider sent a message whose checksum is wrong.")
    end = _PRELUDE.size + _PRELUDE.unpack_from(message)[1]
    headers = _headers(message[_PRELUDE.size : end])
    match headers.get(b":message-type"):
        case b"exception":
            return b"exception/" + headers.get(b":exception-type", b""), message[end : -_CRC.size]
        case b"error":
            return b"error/" + headers.get(b":error-code", b""), headers.get(b":error-message", b"")
    return headers.get(b":event-type", b""), message[end : -_CRC.size]


def _headers(data: bytes) -> dict[bytes, bytes]:
    """Return the headers that are texts; others are passed over. Raises `WireError` where one is cut."""
    found: dict[bytes, bytes] = {}
    at = 0
    try:
        while at < len(data):
            name = data[at + 1 : at + 1 + data[at]]
            at += 1 + data[at]
            kind = data[at]
            at += 1
            if kind in (6, 7):
                size = int.from_bytes(data[at : at + 2], "big")
                at += 2
            else:
                size = _SIZES[kind]
            if at + size > len(data):
                raise IndexError
            if kind == 7:
                found[name] = data[at : at + size]
            at += size
    except (IndexError, KeyError):
        raise WireError("The provider sent a message whose headers cannot be read.") from None
    return found
