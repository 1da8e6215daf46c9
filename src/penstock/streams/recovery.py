"""After a start: what the journal holds is brought into the catalogue, and the journal begins anew.

Everything is read back into memory (at most what was not sealed, a few files), then written in one
transaction, and only then are the files let go: a start that is killed in the middle is repeated by
the next. Damage is never passed over in silence: the file is kept aside as ``*.damaged``, and each
stream that may have lost positions goes on under a new epoch, so that none is used twice.
"""

import sqlite3
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from penstock.streams import catalogue, journal
from penstock.streams.catalogue import Change, Erase, Seal
from penstock.streams.folder import StoreUnusable
from penstock.streams.journal import Damage, Frame, Header, Torn
from penstock.streams.store import Record, StreamInfo, terminal_status

logger = structlog.get_logger(__name__)

_decode_info = msgspec.json.Decoder(StreamInfo).decode

SEGMENT_RECORDS: Final = 256
SEGMENT_BYTES: Final = 64 * 1024
"""Where a segment ends, as in the sealer."""


class Recovered(msgspec.Struct, frozen=True):
    """What was found. ``damaged`` counts damaged places, ``dropped`` records that cannot be shown
    because one before them is lost, ``torn`` bytes of a last write that was never committed."""

    open: Sequence[StreamInfo]
    epoch: int
    number: int
    frames: int = 0
    records: int = 0
    torn: int = 0
    damaged: int = 0
    dropped: int = 0


class _Found:
    """A stream as the catalogue and the journal, so far, say that it is."""

    def __init__(self, info: StreamInfo, *, known: bool) -> None:
        self.info = info
        self.known = known
        self.sealed = info.tail
        self.tail = info.tail
        self.records: list[Record] = []
        self.erase: Erase | None = None
        self.touched = not known
        self.suspect = False  # it may have lost records behind its tail

    def changes(self) -> list[Change]:
        """Return what the catalogue does not say yet."""
        if self.erase is not None:
            return [self.erase]
        changes: list[Change] = []
        size = sealed = self.info.bytes
        batch: list[Record] = []
        for record in self.records:
            batch.append(record)
            size += len(record.data)
            if len(batch) == SEGMENT_RECORDS or size - sealed >= SEGMENT_BYTES or record is self.records[-1]:
                info = msgspec.structs.replace(self.info, tail=record.seq, bytes=size)
                kinds = bytes(one.kind for one in batch)
                changes.append(Seal(info, False, batch[0].seq, kinds, [one.data for one in batch]))
                batch, sealed = [], size
        if self.touched and not changes:
            changes.append(Seal(self.info, self.known, 0, b"", ()))
        return changes


class _File(NamedTuple):
    path: Path
    header: Header | None


class Replay:
    """Follows the journal from its first frame to its last."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """The catalogue is looked up for each stream that turns up."""
        self.frames = self.records = self.torn = self.damaged = self.dropped = 0
        self._connection = connection
        self._streams: dict[str, _Found | None] = {}
        self._all_open_known = False

    def frame(self, frame: Frame) -> bool:
        """Take a frame; say whether it made sense."""
        self.frames += 1
        try:
            self._take(frame)
        except (msgspec.MsgspecError, struct.error, ValueError):
            return False
        return True

    def damage(self) -> None:
        """Something is missing here: any stream that is open now may have lost records."""
        self.damaged += 1
        for found in self.all_open():
            found.suspect = True

    def all_open(self) -> Sequence[_Found]:
        """Return the streams that are open at this point."""
        if not self._all_open_known:
            for info in catalogue.left_open(self._connection):
                self._streams.setdefault(info.id, _Found(info, known=True))
            self._all_open_known = True
        return [found for found in self._streams.values() if found and not _is_closed(found)]

    def changes(self) -> Sequence[Change]:
        """Return what the catalogue does not say yet, streams in the order in which they turned up."""
        return [change for found in self._streams.values() if found for change in found.changes()]

    def _take(self, frame: Frame) -> None:
        if frame.type == journal.PROBE:
            return
        found = self._find(frame.stream)
        if frame.type == journal.DELETED:
            (remember,) = journal.TIME.unpack(frame.payload)
            erase = Erase(frame.stream, remember)
            if found is None:
                found = _Found(_nothing(frame.stream), known=True)
                self._streams[frame.stream] = found
            found.erase = erase
        elif frame.type == journal.CREATED:
            if found is None and not catalogue.is_gone(self._connection, frame.stream):
                self._streams[frame.stream] = _Found(_decode_info(frame.payload), known=False)
        elif found is None:
            # Its creation is lost, or it was erased since.
            if frame.type in (journal.RECORDS, journal.CLOSING) and not catalogue.is_gone(
                self._connection, frame.stream
            ):
                self.dropped += len(_records(frame)[1])
        elif frame.type == journal.KEY_RELEASED:
            found.info = msgspec.structs.replace(found.info, idempotency_key="")
            found.touched = True
        elif frame.type == journal.EPOCH:
            epoch, start = journal.EPOCHS.unpack(frame.payload)
            if epoch > found.info.epoch:
                found.info = msgspec.structs.replace(found.info, epoch=epoch, epoch_start=start)
                found.touched = True
        else:
            self._take_records(found, frame)

    def _take_records(self, found: _Found, frame: Frame) -> None:
        closed_at, records = _records(frame)
        fresh = [record for record in records if record.seq > found.tail]
        if not fresh or _is_closed(found):
            return
        if fresh[0].seq != found.tail + 1:
            if not self.damaged:
                logger.error(
                    "journal_damaged", stream=found.info.id, what="records are missing", after=found.tail
                )
                self.damage()
            found.suspect = True
            self.dropped += len(fresh)
            return
        status = None if closed_at is None else terminal_status(fresh[-1].data)
        found.suspect = False  # nothing was lost before these, at least
        found.records += fresh
        found.tail = fresh[-1].seq
        self.records += len(fresh)
        if status is not None:
            found.info = msgspec.structs.replace(found.info, status=status, closed_at=closed_at)
            found.touched = True

    def _find(self, stream: str) -> _Found | None:
        if stream not in self._streams:
            info = catalogue.find(self._connection, stream)
            self._streams[stream] = _Found(info, known=True) if info else None
        return self._streams[stream]


def check_versions(folder: Path) -> None:
    """Raise `StoreUnusable` when the journal in ``folder`` is of a later version."""
    for file in _look(folder).values():
        if file.header is not None and file.header.version > journal.VERSION:
            raise StoreUnusable(
                f"{file.path} was written by a later version of Penstock (format {file.header.version})."
                " Start that version, or name another data folder."
            )


def recover(connection: sqlite3.Connection, folder: Path, *, lossy: bool) -> Recovered:
    """Bring the journal in ``folder`` into the catalogue and clear it away; return what was found.

    ``lossy`` says that its end may be missing without a trace (power failed). Raises `OSError` and
    `sqlite3.Error`; then nothing is changed.
    """
    files = _look(folder)
    noted = catalogue.facts(connection)
    replay = Replay(connection)
    damaged: list[Path] = []
    due = set() if lossy else set(range(noted.journal_first, noted.journal_last + 1))
    expected = min(due, default=0)
    for number, one in files.items():
        if any(missing in due for missing in range(expected, number)):
            logger.error("journal_damaged", file=str(one.path), what="the file before it is missing")
            replay.damage()
        expected = number + 1
        following = files.get(number + 1)
        end = following.header.previous_end or None if following and following.header else None
        if not _replay_file(replay, one, number, end, newest=number == max(files)):
            damaged.append(one.path)
    if any(missing >= expected for missing in due):
        logger.error("journal_damaged", file=str(folder), what="its last file is missing")
        replay.damage()
    open_now = replay.all_open()
    torn: list[str] = []  # what follows their tails may have been shown: nobody may go on from there
    for found in open_now:
        if lossy or found.suspect:
            info = found.info
            start = min(found.tail, info.epoch_start) if info.epoch else found.tail
            found.info = msgspec.structs.replace(info, epoch=info.epoch + 1, epoch_start=start)
            found.touched = True
            if found.suspect or info.at_rest != "host":
                torn.append(info.id)
    epoch = noted.epoch + (lossy or replay.damaged > 0)
    number = max([noted.journal_last, *files])
    with catalogue.Transaction(connection):
        catalogue.apply(connection, replay.changes())
        catalogue.note_journal(connection, number + 1, number)
        catalogue.note_epoch(connection, epoch)
        for stream in torn:
            catalogue.drop_kept(connection, stream)
    kept = catalogue.kept(connection)
    for one in files.values():
        if one.path in damaged:
            one.path.rename(one.path.with_suffix(".damaged"))
        else:
            one.path.unlink()
    return Recovered(
        open=[_as_left(found, kept) for found in open_now],
        epoch=epoch,
        number=number,
        frames=replay.frames,
        records=replay.records,
        torn=replay.torn,
        damaged=replay.damaged,
        dropped=replay.dropped,
    )


def _replay_file(replay: Replay, file: _File, number: int, end: int | None, *, newest: bool) -> bool:
    """Replay one file; say whether all of it was good."""
    data = file.path.read_bytes()
    if file.header is None or file.header.number != number:
        if newest and len(data) < journal.HEADER_SIZE:  # made, and killed before it was written
            replay.torn += len(data)
            return True
        logger.error("journal_damaged", file=str(file.path), what="its header cannot be read")
        replay.damage()
        return False
    good = True
    for found in journal.frames(data, file.header.salt, end=end):
        match found:
            case Frame():
                if not replay.frame(found):
                    logger.error(
                        "journal_damaged", file=str(file.path), offset=found.offset, what="no such frame"
                    )
                    replay.damage()
                    good = False
            case Damage(offset, size):
                logger.error("journal_damaged", file=str(file.path), offset=offset, size=size)
                replay.damage()
                good = False
            case Torn(offset, size) if newest:
                logger.info("journal_torn", file=str(file.path), offset=offset, size=size)
                replay.torn += size
            case Torn(offset, size):
                logger.error(
                    "journal_damaged", file=str(file.path), offset=offset, size=size, what="cut short"
                )
                replay.damage()
                good = False
    return good


def _look(folder: Path) -> dict[int, _File]:
    found = {}
    for number, path in journal.journal_files(folder).items():
        with path.open("rb") as file:
            found[number] = _File(path, journal.read_header(file.read(journal.HEADER_SIZE)))
    return found


def _records(frame: Frame) -> tuple[float | None, Sequence[Record]]:
    if frame.type == journal.CLOSING:
        closed_at, first = journal.CLOSE.unpack_from(frame.payload)
        return closed_at, list(journal.decode_records(frame.payload, first, journal.CLOSE.size))
    (first,) = journal.FIRST.unpack_from(frame.payload)
    return None, list(journal.decode_records(frame.payload, first, journal.FIRST.size))


def _is_closed(found: _Found) -> bool:
    return found.info.status is not None or found.erase is not None


def _nothing(stream: str) -> StreamInfo:
    return StreamInfo(id=stream, principal="", created_at=0.0, retention=0.0)


def _as_left(found: _Found, kept: Mapping[str, str]) -> StreamInfo:
    info = found.info
    size = info.bytes + sum(len(record.data) for record in found.records)
    return msgspec.structs.replace(info, tail=found.tail, bytes=size, kept=kept.get(info.id, ""))
