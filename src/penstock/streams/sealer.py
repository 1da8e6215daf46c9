"""The way from the journal to the catalogue: segments are sealed, and journal files let go.

One transaction is on its way at a time, in the store's thread; while it runs, the next gathers.
What is committed stays in memory until its segment is in the catalogue. A journal file is *pinned*
by everything in it that is not; the oldest is unlinked once nothing pins it. So that a stream that
says little does not keep files for ever, what is older than the file before the current one is
sealed however small it is.

Erased streams leave their bytes behind in journal files and in SQLite's write-ahead log; a *scrub*
leaves the current file, waits until the ones before it are gone, and empties the write-ahead log.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from penstock.streams import catalogue
from penstock.streams.catalogue import Erase, Seal, Totals
from penstock.streams.committer import Committer, tell
from penstock.streams.database import Database
from penstock.streams.journal import JournalWriter, journal_path
from penstock.streams.log import StreamLog
from penstock.types.errors import StorageError

GATHER: Final = 0.02
"""Seconds that a transaction waits for company."""
RETRY: Final = 1.0
"""Seconds until a transaction that failed is tried again."""
MAX_CHANGES: Final = 64
MAX_BYTES: Final = 1024 * 1024
"""Bounds of one transaction, so that it takes less than about 5 ms."""
SEGMENT_RECORDS: Final = 1024
SEGMENT_BYTES: Final = 256 * 1024
"""Bounds of one segment, reached only when the catalogue is behind; one record may be larger."""


class _Erasure(NamedTuple):
    erase: Erase
    file: int
    done: Callable[[], None]


class _Sealing(NamedTuple):
    log: StreamLog
    seal: Seal
    size: int
    pins: Sequence[tuple[int, int]]  # taken off the log: what is committed meanwhile pins anew


class Sealer:
    """Owns the order in which things go into the catalogue. All calls in the loop's thread."""

    def __init__(
        self,
        database: Database,
        committer: Committer,
        writer: JournalWriter,
        folder: Path,
        live: Mapping[str, StreamLog],
        settled: Callable[[StreamLog], None],
        *,
        held: Totals,
        wall: Callable[[], float],
    ) -> None:
        """``settled`` is called with a closed log when all of it is in the catalogue.

        ``folder`` is the journal's, ``held`` what the catalogue holds; ``wall`` is Unix time.
        """
        self.unsealed = 0
        self.segments = 0
        self.failures = 0
        self.held = held
        self._db = database
        self._committer = committer
        self._writer = writer
        self._folder = folder
        self._live = live
        self._wall = wall
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[StreamLog, None] = {}
        self._erasures: list[_Erasure] = []
        self._pinned: Counter[int] = Counter()
        self._oldest = writer.number + 1  # the oldest journal file there is
        self._begun: dict[int, float] = {}  # when each file was begun
        self._running: asyncio.Future[Any] | None = None  # a transaction
        self._clearing: asyncio.Future[bool] | None = None
        self._noted = writer.number
        self._timer: asyncio.TimerHandle | None = None
        self._stained = False  # something was erased since the last scrub began …
        self._stained_journal = False  # … of which the journal may still have bytes
        self._scrubbing = False
        self._scrub_to = 0  # once the files up to this one are gone
        self._is_failing = False
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        """Say how much there is to do."""
        return f"<Sealer {len(self._wanted)} wanted, {self.unsealed} bytes unsealed, from {self._oldest:08d}>"

    @property
    def files(self) -> int:
        """How many journal files there are."""
        return self._writer.number - self._oldest + 1

    def seal_all(self) -> None:
        """Seal what is there, however little it is: too much of it waits in memory."""
        for log in self._live.values():
            if log.tail and not log.underway:
                self.want(log)

    async def progress(self) -> None:
        """Return when the next transaction has ended, well or not."""
        ended: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(ended)
        await ended

    # --- what is to be done -------------------------------------------------------------------

    def pin(self, file: int) -> None:
        """Something was written into ``file`` that is not in the catalogue yet."""
        self._pinned[file] += 1

    def want(self, log: StreamLog) -> None:
        """Seal what ``log`` has, and its row."""
        self._wanted[log] = None
        self._start_later(GATHER)

    def rotated(self, file: int) -> None:
        """The journal goes on in ``file``: hurry what is older than the file before."""
        self._begun[file] = self._wall()
        self._hurry(file - 2)
        self._let_go()

    def erase(
        self, stream: str, closed_at: float, remember: float, file: int, done: Callable[[], None]
    ) -> None:
        """Erase a stream; ``file`` holds the frame that says so. ``done`` when the catalogue has."""
        self.pin(file)
        self._erasures.append(_Erasure(Erase(stream, remember), file, done))
        self.stain(closed_at)
        self._start_later(GATHER)

    def forget(self, log: StreamLog) -> None:
        """Drop what is not sealed of a stream that is erased."""
        self._wanted.pop(log, None)
        self.unsealed -= log.tail_bytes
        self._unpin(log.pins)
        log.pins, log.tail, log.tail_kinds, log.tail_bytes = [], [], bytearray(), 0
        log.erased = True

    def stain(self, closed_at: float) -> None:
        """A stream that was closed then is erased: the next scrub is to get rid of its bytes."""
        self._stained = True
        self._stained_journal |= closed_at >= self._begun.get(self._oldest, 0.0)

    def scrub(self) -> None:
        """Begin to get rid of the bytes of erased streams; to be called now and then."""
        if self._stained_journal and not self._scrubbing and self._committer.leave_file():
            self._stained_journal = False
            self._scrub_to = self._writer.number
            self._hurry(self._scrub_to)
        if self._stained:
            self._stained, self._scrubbing = self._stained_journal, True
        if self._scrubbing:
            self._let_go()

    async def trim(self, stream: str, upto: int) -> int:
        """Erase a first part of what is sealed of a stream, in turn with what is being sealed, and return
        how many bytes that had; 0 when there is no more to erase. Raises `StorageError`."""
        while self._running is not None:
            await self.progress()
        self._stop_timer()
        trimming = self._running = self._db.write(catalogue.trim, stream, upto)
        trimming.add_done_callback(lambda done: self._trimmed(done, stream))
        await _end_of(trimming)
        if trimming.exception() is not None:
            raise StorageError
        return int(trimming.result().bytes)

    def _trimmed(self, done: asyncio.Future[catalogue.Trimmed], stream: str) -> None:
        self._running = None
        self._loop.call_soon(self._wake)
        if (error := done.exception()) is not None:
            self.failures += 1
            tell("warning", "trimming_failed", error=str(error))
        else:
            freed, self.held = done.result()
            if (log := self._live.get(stream)) is not None:
                log.sealed_bytes -= freed
        if self._wanted or self._erasures:
            self._start_later(0.0)

    def _unpin(self, pins: Sequence[tuple[int, int]]) -> None:
        for file, _ in pins:
            self._pinned[file] -= 1

    def _hurry(self, file: int) -> None:
        for log in self._live.values():
            if log.pins and log.pins[0][0] <= file:
                self.want(log)

    # --- sealing ------------------------------------------------------------------------------

    def _start_later(self, wait: float) -> None:
        if self._timer is None and self._running is None:
            self._timer = self._loop.call_later(wait, self._start)

    def _start(self) -> None:
        self._timer = None
        if not (self._wanted or self._erasures):
            return
        if self._committer.spares_the_disk:
            self._start_later(RETRY)
            return
        sealings = self._take()
        erasures, self._erasures = self._erasures[:MAX_CHANGES], self._erasures[MAX_CHANGES:]
        changes = [sealing.seal for sealing in sealings] + [erasure.erase for erasure in erasures]
        running = self._running = self._db.write(catalogue.write, changes)
        running.add_done_callback(lambda done: self._done(done, sealings, erasures))

    def _take(self) -> Sequence[_Sealing]:
        taken: list[_Sealing] = []
        size = 0
        while self._wanted and len(taken) < MAX_CHANGES and size < MAX_BYTES:
            log = next(iter(self._wanted))
            del self._wanted[log]
            sealing = _seal(log)
            log.changed, log.known, log.underway = False, True, True
            size += sealing.size
            taken.append(sealing)
        return taken

    def _done(
        self, done: asyncio.Future[Totals], sealings: Sequence[_Sealing], erasures: Sequence[_Erasure]
    ) -> None:
        self._running = None
        self._loop.call_soon(self._wake)
        try:
            self.held = done.result()
        except sqlite3.Error as error:
            self.failures += 1
            if not self._is_failing:
                tell("error", "sealing_failed", error=str(error))
            self._is_failing = True
            # Those first: a stream's seals and erasures must go in order.
            self._wanted = {s.log: None for s in sealings if not s.log.erased} | self._wanted
            for sealing in sealings:
                log = sealing.log
                log.changed, log.known, log.underway = True, sealing.seal.known, False
                if log.erased:
                    self._unpin(sealing.pins)
                else:
                    log.pins[:0] = sealing.pins
            self._erasures[:0] = erasures
            self._start_later(RETRY)
            return
        if self._is_failing:
            self._is_failing = False
            tell("warning", "sealing_works")
        for sealing in sealings:
            self._sealed(sealing)
        for erasure in erasures:
            self._pinned[erasure.file] -= 1
            erasure.done()
        self._let_go()
        if self._wanted or self._erasures:
            self._start_later(0.0)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _sealed(self, sealing: _Sealing) -> None:
        log = sealing.log
        count = len(sealing.seal.data)
        self.segments += count > 0
        self._unpin(sealing.pins)
        log.underway = False
        if log.erased:
            return
        if log.info.kept:  # the catalogue has it
            log.info = msgspec.structs.replace(log.info, kept="")
        log.sealed += count
        log.sealed_bytes += sealing.size
        log.tail_bytes -= sealing.size
        del log.tail[:count]
        del log.tail_kinds[:count]
        self.unsealed -= sealing.size
        if log.status and not (log.tail or log.changed or log.pins):
            self._settled(log)
        elif (
            log.status
            or log.changed
            or len(log.tail) >= SEGMENT_RECORDS // 4
            or log.tail_bytes >= SEGMENT_BYTES // 4
        ):
            self._wanted[log] = None  # there is company enough: `_done` goes on at once

    # --- letting go ---------------------------------------------------------------------------

    def _let_go(self) -> None:
        """Unlink the oldest files as far as nothing pins them; end a scrub that waited for it."""
        if self._clearing is not None:
            return
        last = self._writer.number
        first = self._oldest
        while first <= last and not self._pinned[first] and not (first == last and self._writer.is_open):
            first += 1
        scrub = self._scrubbing and first > self._scrub_to and not self._erasures
        if first == self._oldest and last == self._noted and not scrub:
            return
        self._clearing = self._db.write(_clear, self._folder, self._oldest, first, last, scrub)
        self._clearing.add_done_callback(lambda done: self._cleared(done, first, last, scrub))

    def _cleared(self, done: asyncio.Future[bool], first: int, last: int, scrub: bool) -> None:
        self._clearing = None
        try:
            scrubbed = done.result()
        except (OSError, sqlite3.Error) as error:  # tried again at the next occasion
            self.failures += 1
            tell("warning", "journal_not_cleared", error=str(error))
            return
        for file in range(self._oldest, first):
            self._pinned.pop(file, None)
            self._begun.pop(file, None)
            self._writer.sizes.pop(file, None)
        self._oldest, self._noted = first, last
        if scrub and scrubbed:
            self._scrubbing, self._scrub_to = False, 0

    async def aclose(self) -> bool:
        """Seal everything, with one try, and let go of the files; say whether nothing is left.

        To be awaited to its end.
        """
        for log in self._live.values():
            if log.pins or log.changed:
                self._wanted[log] = None
        failures = self.failures
        while self._running is not None or self._wanted or self._erasures:
            self._stop_timer()
            if self._running is None:
                self._start()
            if self._running is None or self.failures != failures:
                break
            await _end_of(self._running)
        self._stop_timer()
        self._writer.retire()
        if self._clearing is not None:
            await _end_of(self._clearing)
        self._let_go()
        if self._clearing is not None:
            await _end_of(self._clearing)
        return not self.files

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _end_of(future: asyncio.Future[Any]) -> None:
    """Wait until ``future`` is done and the callback that was added to it first has run."""
    await asyncio.wait([future])


def _seal(log: StreamLog) -> _Sealing:
    """Take what can be sealed of a log: all of its tail, or a segment's worth of it."""
    count = size = 0
    for data in log.tail:
        if count and (count >= SEGMENT_RECORDS or size + len(data) > SEGMENT_BYTES):
            break
        count += 1
        size += len(data)
    upto = log.sealed + count
    whole = upto == log.committed
    # A pin is covered when the next one begins within what is sealed now.
    covered = len(log.pins) if whole else sum(first <= upto + 1 for _, first in log.pins[1:])
    pins, log.pins = log.pins[:covered], log.pins[covered:]
    info = msgspec.structs.replace(
        log.info,
        tail=upto,
        bytes=log.sealed_bytes + size,
        status=log.status if whole else None,
        closed_at=log.closed_at if whole and log.status else None,
    )
    seal = Seal(info, log.known, log.sealed + 1, bytes(log.tail_kinds[:count]), log.tail[:count])
    return _Sealing(log, seal, size, pins)


def _clear(
    connection: sqlite3.Connection, folder: Path, oldest: int, first: int, last: int, scrub: bool
) -> bool:
    """Unlink the files from ``oldest`` to before ``first``; say whether the log of SQLite is empty."""
    catalogue.note_journal(connection, first, last)
    for number in range(oldest, first):
        journal_path(folder, number).unlink(missing_ok=True)
    return scrub and catalogue.empty_wal(connection)
