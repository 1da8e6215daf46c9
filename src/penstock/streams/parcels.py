"""A stream of bytes that somebody outside writes: its records, and the stream in memory.

A *parcel* is a record that holds content, at most `MAX_PARCEL` bytes of it:

    head     flags u8, end u64, length of the note u32, all little-endian
    note     what is to be known of who wrote it (JSON; the writer's own), maybe empty
    content  the rest

``end`` is how many bytes of content the stream has with this parcel, so that a reader that stands
anywhere knows how far it is without a look at what came before. What is appended at once becomes
parcels that are committed together, since a tick's records of one stream are one frame of the journal.

A *fork* begins with the entries of another stream up to one of them: it is numbered on from there, and
these are read where they are. Nothing in here knows HTTP, JSON or who may write.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.streams.state import advance
from penstock.streams.store import TERMINAL, Journal, Log, Record, StoreFailure, StreamInfo
from penstock.streams.stream import READ_ENTRIES, Stream
from penstock.types.errors import ClientError, LogDamaged
from penstock.types.events import AnyEvent, Closed, Entry, Opaque, Status, decode_line

PARCEL: Final = 2
"""The kind of a record that is a parcel."""

MAX_PARCEL: Final = 128 * 1024
"""Bytes of content in one parcel: as base64 in a line of SSE it stays under 256 KiB."""

LOOK_BACK: Final = 32
"""Entries that are read at a time, from the end on, to find out what was before a restart."""

FIRST: Final = 1
LAST: Final = 2
"""Flags: the parcel begins, or ends, something that is only to be read whole."""
COMPLETE: Final = 4
"""Flag: the note says all there is to know of the writers, not only what changed."""
MORE: Final = 8
"""Flag: what was appended at once goes on in the next parcel."""

_HEAD: Final = struct.Struct("<BQI")

OPAQUE: Final[AnyEvent] = Opaque("durable_streams", {})
"""What stands for a parcel's event: nothing that anybody but the durable streams' encoder could read."""

_encode: Final = msgspec.json.Encoder().encode


class Parcel(NamedTuple):
    """A record's parts. ``end``: bytes of content in the stream up to its last."""

    flags: int
    end: int
    note: bytes
    content: bytes


class Mark(NamedTuple):
    """A place in a stream: after so many entries, which hold so many bytes of content."""

    entries: int
    bytes: int


class Part(msgspec.Struct, frozen=True):
    """A stretch of a fork's entries, up to the number ``upto``, that are those of another stream.

    ``offset``: how many there are before that stream's first own one.
    """

    stream: str
    offset: int
    upto: int


class End(msgspec.Struct, frozen=True):
    """The terminal record of a stream of parcels: a `Closed` event, with what only such a stream has.

    ``note`` is as a parcel's; ``digest`` is what the writer says of the whole content.
    """

    status: Status
    bytes: int
    note: str = ""
    digest: str = ""
    type: str = "end"


_decode_end: Final = msgspec.json.Decoder(End).decode


def encode_parcel(flags: int, end: int, note: bytes, content: bytes) -> bytes:
    """Return a parcel's record."""
    return _HEAD.pack(flags, end, len(note)) + note + content


def decode_parcel(data: bytes) -> Parcel:
    """Return the parts of a parcel's record. Raises `ValueError`."""
    try:
        flags, end, size = _HEAD.unpack_from(data)
    except struct.error as error:
        raise ValueError("a parcel is cut short") from error
    start = _HEAD.size + size
    if start > len(data):
        raise ValueError("a parcel is cut short")
    return Parcel(flags, end, data[_HEAD.size : start], data[start:])


def decode_end(line: bytes) -> End:
    """Return a terminal record's parts. Raises `ValueError` (msgspec's own error is one)."""
    return _decode_end(line)


class Piece(NamedTuple):
    """Content of a parcel to be, and whether it begins and ends what is to be read whole."""

    content: bytes
    flags: int = FIRST | LAST


class Trimmed(ClientError):
    """What was to be read is no more: the first entry there is has the number ``earliest``."""

    def __init__(self, earliest: int) -> None:
        """410: the reader is to begin anew, at the start that there is."""
        message = "What this stream had at that offset is gone. Read from its start: offset=-1."
        super().__init__(message, code="offset_gone", status=410, param="offset")
        self.earliest = earliest


class ByteStream(Stream):
    """A stream whose entries are parcels, open for appends from outside until it is closed.

    ``tail`` is where its content ends as far as it is committed, ``end`` how many bytes are appended.
    Both, and ``appended``, have to be set by `restore` where the stream has a past.
    """

    __slots__ = ("_marks", "base", "end", "parts", "tail")

    def __init__(
        self, info: StreamInfo, journal: Journal, parts: Sequence[Part] = (), inherited: int = 0
    ) -> None:
        """``parts``: whose entries come first, oldest stream first; ``inherited``: bytes in them."""
        super().__init__(info, journal)
        self.parts = parts
        self.base = parts[-1].upto if parts else 0
        self.appended = self.committed = self.base + info.tail
        self.end = inherited
        self.tail = Mark(self.base, inherited)
        self._marks: list[Mark] = []

    # --- the writer's side -------------------------------------------------------------------

    def attach(self, log: Log) -> None:
        """Give the stream its writer's end, which counts its own entries only."""
        self._log = log
        base, append = self.base, log.append_nowait

        def numbered(seq: int, kind: int, data: bytes) -> None:
            append(seq - base, kind, data)

        self._append = numbered if base else append

    def write(self, pieces: Sequence[Piece], note: bytes = b"", *, complete: bool = False) -> Mark:
        """Append ``pieces``, the first with ``note``; return where the stream ends with them.

        They are committed together, since nothing waits in here.
        """
        if self.closing is not None:
            raise RuntimeError("append after the terminal entry")
        flag = COMPLETE if complete else 0
        last = len(pieces) - 1
        for index, (content, flags) in enumerate(pieces):
            self.appended += 1
            self.end += len(content)
            more = MORE if index < last else 0
            data = encode_parcel(flags | flag | more, self.end, note, content)
            self._pending.append(Entry(self.appended, OPAQUE, data))
            self._append(self.appended, PARCEL, data)
            note, flag = b"", 0
        mark = Mark(self.appended, self.end)
        self._marks.append(mark)
        return mark

    def finish(self, status: Status, note: str = "", digest: str = "") -> None:
        """Append the terminal entry. Only once."""
        advance(self.state, status)
        if self.closing is not None:
            raise RuntimeError("closed twice")
        line = _encode(End(status, self.end, note, digest))
        self.closing = Closed(status)
        self.appended += 1
        self._pending.append(Entry(self.appended, self.closing, line))
        self._append(self.appended, TERMINAL, line)

    def committed_to(self, upto: int, failure: StoreFailure | None) -> None:
        """As in `Stream`; the store counts the stream's own entries."""
        upto += self.base
        while self._marks and self._marks[0].entries <= upto:
            self.tail = self._marks.pop(0)
        super().committed_to(upto, failure)

    async def restore(self) -> tuple[Sequence[Parcel], End | None]:
        """Find out where the content of a stream with a past ends.

        Returns its last own parcels, oldest first and without content, from one whose note is complete
        (or from the first), and its end if it is closed. Raises `StorageError`, `LogDamaged`.
        """
        parcels: list[Parcel] = []
        end: End | None = None
        top = self.committed
        while top > self.base and not (parcels and parcels[0].flags & COMPLETE):
            start = max(self.base, top - LOOK_BACK)
            found: list[Parcel] = []
            at = start
            while at < top:
                try:
                    entries = await self.read(at, top - at)
                except Trimmed as trimmed:
                    at = trimmed.earliest - 1
                    start = self.base  # there is nothing before it
                    continue
                if not entries:
                    raise LogDamaged
                for seq, event, data in ((e.seq, e.event, e.line) for e in entries):
                    at = seq
                    if type(event) is Closed:
                        end = decode_end(data)
                    else:
                        parcel = decode_parcel(data)._replace(content=b"")
                        if parcel.flags & COMPLETE:
                            found = []
                        found.append(parcel)
                        if seq > self.tail.entries:
                            self.tail = Mark(seq, parcel.end)
            parcels[:0] = found
            top = start
        self.end = self.tail.bytes
        return parcels, end

    # --- the readers' side -------------------------------------------------------------------

    async def read(self, after: int, limit: int = READ_ENTRIES) -> list[Entry]:
        """Return committed entries after ``after``, those of another stream first where it is a fork.

        Raises `Trimmed`, `StorageError`, `LogDamaged`.
        """
        for part in self.parts:
            if after < part.upto:
                own = await self._journal.read(
                    part.stream, after - part.offset, min(limit, part.upto - after)
                )
                records = [record for record in own if record.seq + part.offset <= part.upto]
                if not records:
                    raise Trimmed(part.upto + 1)
                return _entries(records, after, part.offset)
        return _entries(await self._journal.read(self.id, after - self.base, limit), after, self.base)


def _entries(records: Sequence[Record], after: int, offset: int) -> list[Entry]:
    if records and records[0].seq + offset != after + 1:
        raise Trimmed(records[0].seq + offset)
    try:
        return [
            Entry(seq + offset, decode_line(data) if kind == TERMINAL else OPAQUE, data)
            for seq, kind, data in records
        ]
    except ValueError as error:
        raise LogDamaged from error
