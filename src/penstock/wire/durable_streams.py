"""The Durable Streams protocol: its headers and events, sans-I/O.

An *offset* is opaque to clients, but grows as text: the position (4 digits of epoch, 12 of entries) and
the bytes of content up to there, ``0000000000000002_0000000000000011``. Events of a live read are
``data`` and, after each of them, ``control``, which says where the reader is now; each carries the
offset as its id too, which the protocol does not ask for and which lets a bare EventSource come back
without a lost or repeated event.

Source: PROTOCOL.md of https://github.com/durable-streams/durable-streams at 82f9963.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from penstock.types.errors import ClientError
from penstock.types.positions import Position

NEXT_OFFSET: Final = "stream-next-offset"
UP_TO_DATE: Final = "stream-up-to-date"
CLOSED: Final = "stream-closed"
CURSOR: Final = "stream-cursor"
TTL: Final = "stream-ttl"
EXPIRES_AT: Final = "stream-expires-at"
KEEP: Final = "stream-keep-bytes"
"""Not in the protocol: how many bytes a stream keeps, the newest ones."""

ENCODING: Final = "stream-sse-data-encoding"

CURSOR_EPOCH: Final = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
CURSOR_SECONDS: Final = 20
MAX_JITTER: Final = 3600

Encoding: TypeAlias = Literal["text", "json", "base64"]
"""How the data of events holds content: as it is, as an array of messages, or as base64."""

_OFFSET: Final = re.compile(r"([0-9]{4})([0-9]{12})_([0-9]{16})")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")

_encode: Final = msgspec.json.Encoder().encode


class Offset(NamedTuple):
    """A place in a stream: the position, and the bytes of content up to there."""

    epoch: int
    entries: int
    bytes: int

    def __str__(self) -> str:
        """Print the offset as clients keep it."""
        return f"{self.epoch:04d}{self.entries:012d}_{self.bytes:016d}"

    @property
    def position(self) -> Position:
        """The position alone."""
        return Position(self.epoch, self.entries)


START: Final = Offset(0, 0, 0)


def parse_offset(text: str) -> Offset | None:
    """Read an offset, ``-1`` for the start or ``now``, which is None. Raises `ClientError` 400."""
    if text == "now":
        return None
    if text == "-1":
        return START
    if found := _OFFSET.fullmatch(text):
        return Offset(*map(int, found.groups()))
    raise invalid_offset("An offset is what Stream-Next-Offset said, -1 for the start, or now.")


def invalid_offset(message: str) -> ClientError:
    """Return the error for an offset that cannot be."""
    return ClientError(message, code="invalid_cursor", param="offset")


def parse_number(text: str, name: str) -> int:
    """Read a number as the protocol writes it: no sign, no leading zero. Raises `ClientError` 400."""
    if not _NUMBER.fullmatch(text):
        raise ClientError(f"{name} is a whole number, 0 or more.", code="invalid_value", param=name)
    return int(text)


def parse_time(text: str, name: str) -> float:
    """Read a time of RFC 3339 as Unix seconds. Raises `ClientError` 400."""
    try:
        time = msgspec.convert(text, datetime)
        if time.tzinfo is None:
            raise ValueError
        return time.timestamp()
    except (ValueError, OverflowError):  # msgspec's error is a ValueError
        message = f"{name} is a time with its zone, such as 2031-01-31T12:00:00Z."
        raise ClientError(message, code="invalid_value", param=name) from None


def render_time(time: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cursor(given: str, now: float, jitter: int) -> str:
    """Return what a live answer is to be told apart by, where caches join equal requests.

    It is the number of a stretch of time, and more than the ``given`` one, by ``jitter`` seconds
    (1 to `MAX_JITTER`) if need be.
    """
    current = int((now - CURSOR_EPOCH) // CURSOR_SECONDS)
    if not _NUMBER.fullmatch(given) or int(given) < current:
        return str(current)
    return str(int(given) + max(1, -(-jitter // CURSOR_SECONDS)))


def etag(stream: str, start: Offset, end: Offset, *, closed: bool) -> str:
    """Return the tag of a stretch of a stream."""
    return f'"{stream}:{start}:{end}{":c" if closed else ""}"'


def data_event(content: bytes, encoding: Encoding, offset: Offset) -> bytes:
    """Return content as an event; messages without their brackets. CR and CRLF in text become LF."""
    if encoding == "base64":
        return b"event: data\ndata:%b\nid: %b\n\n" % (base64.b64encode(content), str(offset).encode())
    if encoding == "json":
        content = b"[" + content + b"]"
    elif not content.isascii():
        content = content.decode("utf-8", "replace").encode()
    lines = _LINE_END.split(content)
    # Readers drop one space after the colon, so only a line that begins with one needs another.
    fields = b"".join((b"data: %b\n" if line[:1] == b" " else b"data:%b\n") % line for line in lines)
    return b"event: data\n%bid: %b\n\n" % (fields, str(offset).encode())


def control_event(offset: Offset, cursor: str, *, up_to_date: bool, closed: bool = False) -> bytes:
    """Return the event that says where the reader is now, and whether there is more."""
    said: dict[str, object] = {"streamNextOffset": str(offset)}
    if not closed:
        said["streamCursor"] = cursor
    if up_to_date or closed:
        said["upToDate"] = True
    if closed:
        said["streamClosed"] = True
    return b"event: control\ndata:%b\nid: %b\n\n" % (_encode(said), str(offset).encode())
