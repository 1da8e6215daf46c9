"""The append-only file of the embedded store: its frames, its files, and how they are read back.

A *frame* says one thing of one stream (created, records, …); a *batch* is the frames of one tick,
written with one ``os.write``. Files are ``NNNNNNNN.log``, a new one every 64 MiB:

    file    magic 8s "PENSTOCK", version u32, salt u32, number u64, previous_end u64, crc u32
    frame   salt u32, length u32, crc u32, check u32, body
    body    type u8, id length u8, id, payload

All integers are little-endian. ``salt`` is of chance, one per file and never 0: it starts each frame
so that reading can find the next whole one behind damage, it seeds the CRC-32 of the body so that
nothing that a client made us store can pass for a frame, and zeroes, which some file systems leave
after a power failure, are no frame. ``check`` (salt ^ length ^ crc) tells a head that is damaged from
one whose body was not written to its end: the first is reported, the second was never committed.
``previous_end`` is where the file before was good: what a failed write left behind it is not read.

Nothing in here knows what a stream is, waits, retries or logs.
"""

import errno
import os
import re
import secrets
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from penstock.streams.store import Record

VERSION: Final = 1

CREATED: Final = 1
"""Payload: the `StreamInfo` as JSON."""
RECORDS: Final = 2
"""Payload: first seq u64, then records (`encode_records`)."""
CLOSING: Final = 3
"""Payload: time of the close f64, first seq u64, then records, the last of which is terminal."""
KEY_RELEASED: Final = 4
"""No payload."""
DELETED: Final = 5
"""Payload: until when the id is remembered as gone, f64."""
EPOCH: Final = 6
"""Payload: epoch u32, epoch start u64."""
PROBE: Final = 7
"""Nothing: written to see whether writing works."""

TYPES: Final = frozenset({CREATED, RECORDS, CLOSING, KEY_RELEASED, DELETED, EPOCH, PROBE})

FIRST: Final = struct.Struct("<Q")
CLOSE: Final = struct.Struct("<dQ")
TIME: Final = struct.Struct("<d")
EPOCHS: Final = struct.Struct("<IQ")

_MAGIC: Final = b"PENSTOCK"
_HEADER: Final = struct.Struct("<8sIIQQ")
_CRC: Final = struct.Struct("<I")
HEADER_SIZE: Final = _HEADER.size + _CRC.size
_FRAME: Final = struct.Struct("<IIII")
FRAME_HEAD_SIZE: Final = _FRAME.size
_COUNT: Final = struct.Struct("<I")
_ONE_RECORD: Final = struct.Struct("<QIBI")
_FILE: Final = re.compile(r"([0-9]{8,})\.log")

# Made once: `struct` keeps only a hundred formats, and a batch has as many as it has record counts.
_LENGTHS: Final = tuple(struct.Struct(f"<{n}I") for n in range(33))


# --- frames -----------------------------------------------------------------------------------


class Frame(NamedTuple):
    """A whole frame at ``offset``."""

    offset: int
    type: int
    stream: str
    payload: bytes


class Damage(NamedTuple):
    """``size`` bytes at ``offset`` that should have been frames."""

    offset: int
    size: int


class Torn(NamedTuple):
    """The end of the data cuts a frame short: a write that did not finish, so was never committed."""

    offset: int
    size: int


class Header(NamedTuple):
    """What a file says of itself. ``previous_end`` is 0 when there was no file before it."""

    version: int
    salt: int
    number: int
    previous_end: int


def encode_prefix(type: int, stream: str) -> bytes:
    """Return how the body of a frame begins."""
    name = stream.encode()
    return bytes((type, len(name))) + name


def encode_records(kinds: bytes | bytearray, data: Sequence[bytes]) -> bytes:
    """Return records as stored in a frame or a segment: count u32, kinds u8…, lengths u32…, data."""
    count = len(data)
    lengths = _LENGTHS[count] if count <= 32 else struct.Struct(f"<{count}I")
    return b"".join((_COUNT.pack(count), kinds, lengths.pack(*map(len, data)), *data))


def records_overhead(count: int) -> int:
    """Return how many bytes more than their data so many records take as `encode_records` stores them."""
    return _COUNT.size + 5 * count


def encode_body(prefix: bytes, first: int, kinds: bytearray, data: Sequence[bytes]) -> bytes:
    """Return the body of a `RECORDS` frame. One record, the usual case, is packed in one go."""
    if len(data) == 1:
        (one,) = data
        return prefix + _ONE_RECORD.pack(first, 1, kinds[0], len(one)) + one
    return prefix + FIRST.pack(first) + encode_records(kinds, data)


def decode_records(encoded: bytes, first: int, offset: int = 0) -> Iterator[Record]:
    """Yield the records that `encode_records` wrote at ``offset``; the first gets the seq ``first``.

    Raises `ValueError` when they do not fill ``encoded`` to its end.
    """
    try:
        (count,) = _COUNT.unpack_from(encoded, offset)
        kinds = offset + _COUNT.size
        lengths = struct.unpack_from(f"<{count}I", encoded, kinds + count)
    except struct.error as error:
        raise ValueError("records are cut short") from error
    start = kinds + 5 * count
    if start + sum(lengths) != len(encoded):
        raise ValueError("records do not fill their frame")
    for index, length in enumerate(lengths):
        end = start + length
        yield Record(first + index, encoded[kinds + index], encoded[start:end])
        start = end


def frames(data: bytes, salt: int, *, end: int | None = None) -> Iterator[Frame | Damage | Torn]:
    """Yield what stands in a file's bytes up to ``end``, in order.

    ``end`` is given where it is known (by the next file's header): there nothing may be torn.
    """
    known_end = end is not None
    missing = max(0, end - len(data)) if end is not None else 0
    end = len(data) if end is None else min(end, len(data))
    mark = _CRC.pack(salt)
    offset = HEADER_SIZE
    while offset < end:
        found = _frame_at(data, offset, end, salt)
        if isinstance(found, Frame):
            yield found
            offset += FRAME_HEAD_SIZE + 2 + len(found.stream.encode()) + len(found.payload)
            continue
        if found == _INCOMPLETE and not known_end:
            yield Torn(offset, end - offset)
            return
        # Damage. Go on at the next whole frame, if there is one.
        at = data.find(mark, offset + 1, end)
        while at >= 0 and not isinstance(_frame_at(data, at, end, salt), Frame):
            at = data.find(mark, at + 1, end)
        yield Damage(offset, (at if at >= 0 else end) - offset)
        if at < 0:
            break
        offset = at
    if missing:
        yield Damage(len(data), missing)


_INCOMPLETE: Final = "incomplete"
_BROKEN: Final = "broken"


def _frame_at(data: bytes, offset: int, end: int, salt: int) -> Frame | str:
    if end - offset < FRAME_HEAD_SIZE:
        # A head that was cut short begins as heads do; all zeroes is what power failures leave.
        piece = data[offset:end]
        return _INCOMPLETE if _CRC.pack(salt).startswith(piece[:4]) or not any(piece) else _BROKEN
    mark, length, crc, check = _FRAME.unpack_from(data, offset)
    if mark != salt or check != salt ^ length ^ crc or length < 2:
        return _INCOMPLETE if not any(data[offset:end]) else _BROKEN
    start = offset + FRAME_HEAD_SIZE
    if start + length > end:
        return _INCOMPLETE
    body = data[start : start + length]
    named = 2 + body[1]
    if crc32(body, salt) != crc or named > length or body[0] not in TYPES:
        return _BROKEN
    try:
        return Frame(offset, body[0], body[2:named].decode(), body[named:])
    except UnicodeDecodeError:
        return _BROKEN


def read_header(data: bytes) -> Header | None:
    """Return the header at the start of a file's bytes; None when it is no whole one of ours."""
    if len(data) < HEADER_SIZE:
        return None
    magic, *fields = _HEADER.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if magic != _MAGIC or crc != crc32(data[: _HEADER.size]):
        return None
    return Header(*fields)


def journal_files(folder: Path) -> dict[int, Path]:
    """Return the journal's files by number, oldest first."""
    found = {int(m[1]): path for path in folder.iterdir() if (m := _FILE.fullmatch(path.name))}
    return dict(sorted(found.items()))


def journal_path(folder: Path, number: int) -> Path:
    """Return where the file ``number`` stands."""
    return folder / f"{number:08d}.log"


# --- writing ----------------------------------------------------------------------------------


class JournalWriter:
    """The end of the journal. A file is made when there is something to write into it."""

    def __init__(self, folder: Path, *, number: int, rotate_bytes: int) -> None:
        """``number`` is the last that was used; a file is left for the next at ``rotate_bytes``."""
        self.number = number
        self.size = 0
        self.sizes: dict[int, int] = {}  # of all files; whoever unlinks one takes it out
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        self._fd = -1
        self._salt = 0
        self._name_is_new = False
        self._dirty_end = False

    def __repr__(self) -> str:
        """Say which file, and how far."""
        return f"<JournalWriter {self.number:08d} at {self.size}>"

    @property
    def is_open(self) -> bool:
        """Whether there is a current file; its number is ``number``."""
        return self._fd >= 0

    def append(self, bodies: Sequence[bytes]) -> int:
        """Write a frame for each of ``bodies``, all with one write; return the bytes written.

        Raises `OSError`; then nothing of them is in the journal, and it can be tried again.
        """
        if self._fd < 0 or self._dirty_end or self.size >= self._rotate_bytes:
            self._rotate()
        salt = self._salt
        pack = _FRAME.pack
        parts = []
        for body in bodies:
            crc = crc32(body, salt)
            length = len(body)
            parts.append(pack(salt, length, crc, salt ^ length ^ crc))
            parts.append(body)
        batch = b"".join(parts)
        total = len(batch)
        try:
            written = os.write(self._fd, batch)
            while written < total:
                written += os.write(self._fd, batch[written:])
        except OSError:
            self._cut_back()
            raise
        self.size += total
        self.sizes[self.number] = self.size
        return total

    def sync(self) -> None:
        """Wait until what was written is on the disk. For another thread; not while `append` runs."""
        os.fdatasync(self._fd)
        if self._name_is_new:
            sync_folder(self._folder)
            self._name_is_new = False

    def undo(self, size: int) -> None:
        """Take back the last ``size`` bytes, which could not be synced.

        What the disk holds of this file after a failed sync is not known, and another sync may
        succeed without having written anything: so the next batch goes into a new file.
        """
        self.size -= size
        self._cut_back()
        self._dirty_end = True

    def retire(self) -> None:
        """Leave the current file; the next batch begins a new one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
        except OSError:  # then the next file's header says where this one ends
            self._dirty_end = True

    def _rotate(self) -> None:
        number = self.number + 1
        path = journal_path(self._folder, number)
        salt = secrets.randbits(32) or 1
        head = _HEADER.pack(_MAGIC, VERSION, salt, number, self.size)
        # An earlier try may have left its file: it holds at most a piece of a header.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, head + _CRC.pack(crc32(head))) != HEADER_SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.close(fd)
            raise
        self.retire()
        self._fd, self._salt, self.number, self.size = fd, salt, number, HEADER_SIZE
        self._name_is_new, self._dirty_end = True, False


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
