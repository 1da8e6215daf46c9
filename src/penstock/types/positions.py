"""Cursors: where a reader is in a stream, as printed in SSE ids, URLs and headers.

A *position* is how many entries a reader has been given, with the writer's epoch; a *cursor* names
its stream as well: ``<stream>~<4 digits of epoch><12 digits of count>[.<part>]``, 47 bytes of
``[A-Za-z0-9._~-]`` (52 with a part), legal as an SSE id and in a URL, and short enough to need no
CORS preflight.
"""

import re
import secrets
import time
from typing import Final, NamedTuple

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as in the ULID spec
_STREAM_ID: Final = re.compile(r"s_[0-9a-z]{2}[0-9A-HJKMNP-TV-Z]{26}")
_POSITION: Final = re.compile(r"([0-9]{4})([0-9]{12})(?:\.([0-9]{1,4}))?")
_INTEGER: Final = re.compile(r"[0-9]{1,12}")
_DIALECT_PREFIXES: Final = ("chatcmpl-", "cmpl-", "resp_", "msg_")


class Position(NamedTuple):
    """``entries`` delivered under ``epoch``, and ``part`` frames of the next entry."""

    epoch: int
    entries: int
    part: int = 0

    def __str__(self) -> str:
        """Print the position as it stands in a cursor."""
        base = f"{self.epoch:04d}{self.entries:012d}"
        return f"{base}.{self.part}" if self.part else base


START: Final = Position(0, 0)


class Cursor(NamedTuple):
    """A position in a named stream; ``stream`` is empty when only a position was given."""

    stream: str
    position: Position | None  # None: at the tail, whatever it is (``now``)

    def __str__(self) -> str:
        """Print the cursor in the form that clients keep."""
        return f"{self.stream}~{self.position or 'now'}"


def parse_cursor(text: str) -> Cursor:
    """Read a cursor: a full one, a bare position, an integer, ``0`` or ``-1`` (start) or ``now``.

    Raises `ValueError` for anything else.
    """
    stream, separator, rest = text.rpartition("~")
    if separator and not is_stream_id(stream):
        raise ValueError("the part before '~' is not a stream id")
    if rest == "now":
        return Cursor(stream, None)
    if rest == "-1":
        return Cursor(stream, START)
    if found := _POSITION.fullmatch(rest):
        epoch, entries, part = found.groups()
        return Cursor(stream, Position(int(epoch), int(entries), int(part or 0)))
    if not separator and _INTEGER.fullmatch(rest):
        return Cursor("", Position(0, int(rest)))
    raise ValueError("not a cursor: expected <stream>~<16 digits>, an integer, -1 or now")


def new_stream_id(home: str = "00", *, now: float | None = None) -> str:
    """Make a stream id: ``s_``, two characters of home, a ULID (48 bits of time, 80 of chance)."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    return f"s_{home}" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def is_stream_id(text: str) -> bool:
    """Say whether ``text`` has the form of a stream id."""
    return _STREAM_ID.fullmatch(text) is not None


def dialect_id(prefix: str, stream: str) -> str:
    """Return the id that a dialect shows for ``stream``: ``chatcmpl-00…`` for ``s_00…``."""
    return prefix + stream[2:]


def stream_of(text: str) -> str:
    """Return the stream id behind ``text``, a stream id itself or a dialect's id; else ``""``."""
    for prefix in _DIALECT_PREFIXES:
        if text.startswith(prefix):
            text = "s_" + text[len(prefix) :]
            break
    return text if is_stream_id(text) else ""
