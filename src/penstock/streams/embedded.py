"""The embedded store: an append-only journal for what is new, SQLite for what is to be found again.

The parts, and what each owns:

    folder      the data folder: the lock, who wrote last, the reserve
    opening     what is checked and set right before anything runs; recovery: the journal of the last run
    journal     frames and files
    committer   the tick's batch, and what happens when it cannot be written
    sealer      the way from the journal to the catalogue
    catalogue   every SQL statement; database: the threads that run them

Here they meet: streams that are open, or closed and not sealed yet, are *live* and answered from
memory; all others by the catalogue. What memory knows wins over what the catalogue says, which
follows a moment behind.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from penstock.streams import catalogue, journal
from penstock.streams.catalogue import READ_BYTES
from penstock.streams.committer import CommitSettings, Committer, Control
from penstock.streams.database import Database
from penstock.streams.folder import Durability, Folder, Reserve
from penstock.streams.journal import JournalWriter
from penstock.streams.log import StreamLog
from penstock.streams.recovery import Recovered
from penstock.streams.sealer import Sealer
from penstock.streams.store import Catalogue, Journal, KeyTaken, OnCommit, Record, StreamInfo
from penstock.streams.sweeper import Sweeper, SweepSettings
from penstock.types.buckets import Buckets
from penstock.types.errors import StorageError

MAX_ID_BYTES: Final = 255
"""A frame has one byte for the length of an id."""


class EmbeddedSettings(SweepSettings, frozen=True, kw_only=True):
    """What a store can be told, with `SweepSettings` for how much it keeps and for how long.

    ``durability`` is what committed entries survive: `process`, a killed process; `host`, a power
    failure too; `mixed`, what each stream's `at_rest` says.
    ``reserve_bytes`` is what is set aside for the endings of streams on a full disk.
    """

    durability: Durability = "process"
    commit: CommitSettings = CommitSettings()
    rotate_bytes: int = 64 * 1024 * 1024
    reserve_bytes: int = 1024 * 1024


class EmbeddedStatistics(msgspec.Struct, frozen=True):
    """Where the store stands. ``state`` is `healthy`, `failing`, `down` or `closed`.

    ``open_streams`` are being written, ``live_streams`` also counts those closed and not sealed;
    ``streams`` and ``sealed_bytes`` are what the catalogue holds. ``last_commit`` is how long the
    last commit took, in seconds.
    """

    state: str
    open_streams: int
    live_streams: int
    streams: int
    sealed_bytes: int
    sealed_segments: int
    uncommitted_bytes: int
    unsealed_bytes: int
    journal_files: int
    journal_bytes: int
    committed_bytes: int
    commit_failures: int
    seal_failures: int
    last_commit: float
    recovery: Recovered


class EmbeddedStore:
    """A store in a folder, for one process: `Store`, `Journal`, `Catalogue` and `Lease` in one."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: EmbeddedSettings | None = None,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        commits: Buckets | None = None,
    ) -> None:
        """``wall`` is Unix time, ``clock`` monotonic, both in seconds; ``commits`` is where their times are
        counted. Touches nothing before `open`."""
        self.journal: Journal = self
        self.catalogue: Catalogue = self
        self.epoch = 0
        self.secret = b""
        self._settings = settings or EmbeddedSettings()
        self._wall = wall
        self._clock = clock
        self._commits = commits
        self._folder = Folder(Path(path))
        self._is_open = False
        self._live: dict[str, StreamLog] = {}
        self._claims: dict[tuple[str, str], StreamLog | asyncio.Future[None]] = {}
        self._gone: set[str] = set()  # erased, and the catalogue does not know yet
        self._recovered: Recovered
        self._db: Database
        self._writer: JournalWriter
        self._committer: Committer
        self._sealer: Sealer
        self._sweeper: Sweeper
        self._syncs: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        """Say which folder, and how it is."""
        return f"<EmbeddedStore {self._folder.path} {self._committer.state if self._is_open else 'closed'}>"

    @property
    def healthy(self) -> bool:
        """Whether streams can be created and written, as far as is known."""
        return self._is_open and self._committer.state == "healthy"

    @property
    def has_room(self) -> bool:
        """Whether the catalogue keeps up with what is committed."""
        return self._sealer.unsealed <= self._settings.commit.max_unsealed_bytes // 4

    async def wait_room(self) -> None:
        """Return once the catalogue has caught up."""
        while not self.has_room:
            self._require_open()
            self._sealer.seal_all()
            await self._sealer.progress()

    @property
    def uncommitted(self) -> int:
        """Bytes appended to all logs and not committed."""
        return self._committer.uncommitted

    def statistics(self) -> EmbeddedStatistics:
        """Say where the store stands."""
        committer, sealer = self._committer, self._sealer
        return EmbeddedStatistics(
            state=committer.state,
            open_streams=self._count_open(),
            live_streams=len(self._live),
            streams=sealer.held.streams,
            sealed_bytes=sealer.held.bytes,
            sealed_segments=sealer.segments,
            uncommitted_bytes=committer.uncommitted,
            unsealed_bytes=sealer.unsealed,
            journal_files=sealer.files,
            journal_bytes=sum(self._writer.sizes.values()),
            committed_bytes=committer.committed_bytes,
            commit_failures=committer.failures,
            seal_failures=sealer.failures,
            last_commit=committer.last_duration,
            recovery=self._recovered,
        )

    # --- life cycle ---------------------------------------------------------------------------

    async def open(self) -> Sequence[StreamInfo]:
        """Lock the folder and recover; return the streams that the last writer left open.

        Each with the epoch that it goes on under. Raises `StoreUnusable`, and then has changed
        nothing, when the folder cannot be used.
        """
        settings = self._settings
        reserve = Reserve(self._folder.path / "reserve", settings.reserve_bytes)
        self._db = Database(self._folder, settings.durability)
        opened = await self._db.open(reserve, self._wall())
        self._recovered = opened.recovered
        self.epoch = opened.recovered.epoch
        self.secret = opened.secret
        self._writer = JournalWriter(
            self._folder.journal, number=opened.recovered.number, rotate_bytes=settings.rotate_bytes
        )
        self._syncs = ThreadPoolExecutor(1, "penstock-sync") if settings.durability != "process" else None
        self._committer = Committer(
            self._writer,
            reserve,
            settings.commit,
            self._db.call,
            self._syncs,
            clock=self._clock,
            wall=self._wall,
            always=settings.durability == "host",
            commits=self._commits,
        )
        self._sealer = Sealer(
            self._db,
            self._committer,
            self._writer,
            self._folder.journal,
            self._live,
            self._settled,
            held=opened.held,
            wall=self._wall,
        )
        self._committer.attach(self._sealer)
        self._is_open = True
        if not opened.roomy:
            self._committer.start_down()
        self._sweeper = Sweeper(
            self._db, self._committer, self._sealer, self._live, settings, clock=self._clock, wall=self._wall
        )
        return opened.recovered.open

    async def aclose(self) -> None:
        """Commit what is pending, seal everything, give the folder up. To be awaited to its end."""
        if not self._is_open:
            return
        self._is_open = False
        clean = False
        try:
            await self._sweeper.aclose()
            await self._committer.aclose()
            clean = await self._sealer.aclose()
        finally:
            self._writer.retire()
            if self._syncs is not None:
                self._syncs.shutdown(wait=False)
            await self._db.aclose(clean=clean)
            self._live.clear()
            self._claims.clear()

    def _require_open(self) -> None:
        if not self._is_open:
            raise StorageError

    # --- the journal --------------------------------------------------------------------------

    async def create(self, info: StreamInfo, on_commit: OnCommit) -> StreamLog:
        """Create a stream and return once that is committed.

        Raises `KeyTaken` when ``info`` has an idempotency key that its principal has used, and
        `StorageError` when it cannot be committed, or open streams alone exceed the store's bounds.
        A cancellation leaves no stream behind.
        """
        self._require_open()
        if not 0 < len(info.id.encode()) <= MAX_ID_BYTES:
            raise ValueError("an id has 1 to 255 bytes")
        async with self._claim(info):
            if not self._committer.state == "healthy" or self._is_full():
                raise StorageError
            log = StreamLog(self._committer, info, on_commit, self._release_key, known=False)
            committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            cancelled = False

            def done(file: int, error: StorageError | None) -> None:
                if error is None:
                    self._install(log)
                    self._pin(log, file)
                    if cancelled:
                        self._abandon(log)
                if not committed.done():
                    _settle(committed, error)

            control = Control(_frame(journal.CREATED, info.id, msgspec.json.encode(info)), done)
            self._committer.add(control)
            try:
                await committed
            except asyncio.CancelledError:
                # Nobody was told of this stream, and nobody would ever write or close it.
                cancelled = True
                if info.id in self._live:
                    self._abandon(log)
                else:
                    self._committer.withdraw(control)
                raise
        return log

    async def reopen(self, info: StreamInfo, on_commit: OnCommit) -> StreamLog:
        """Return the writer's end of an open stream whose last writer is gone, or has given up.

        What that one had not committed is dropped. An epoch in ``info`` that is later than the
        stored one is stored. Raises `StorageError` when there is no such open stream, or its epoch
        cannot be stored.
        """
        self._require_open()
        if info.id not in self._live:
            stored = await self._db.read(catalogue.find, info.id)
            if stored is None or stored.status is not None or info.id in self._gone:
                raise StorageError("There is no such open stream.")
            if info.id not in self._live:
                self._install(StreamLog(self._committer, stored, on_commit, self._release_key, known=True))
        await self._committer.wait_synced()
        log = self._live[info.id]
        if log.status or log.closing:
            raise StorageError("There is no such open stream.")
        log.take_over(on_commit)
        if info.epoch > log.info.epoch:
            epoch, start = info.epoch, info.epoch_start

            def stored_epoch(file: int) -> None:
                log.info = msgspec.structs.replace(log.info, epoch=epoch, epoch_start=start)
                log.changed = True
                self._pin(log, file)
                self._sealer.want(log)

            payload = journal.EPOCHS.pack(epoch, start)
            await self._commit(_frame(journal.EPOCH, info.id, payload), stored_epoch)
        return log

    async def read(self, stream: str, after: int, limit: int) -> Sequence[Record]:
        """Return up to ``limit`` (and about 256 KiB of) committed records with ``seq > after``.

        Raises `StorageError`; an unknown stream has no records.
        """
        self._require_open()
        log = self._live.get(stream)
        if log is not None and after >= log.sealed:
            return log.read(after, limit, READ_BYTES)
        while stream not in self._gone:
            sealed = log.sealed if log is not None else 0
            records = await self._db.read(catalogue.read, stream, after, limit)
            if records or log is None:
                return records
            if log.sealed == sealed:  # all that was sealed is trimmed
                return log.read(sealed, limit, READ_BYTES)
        return ()

    async def trim(self, stream: str, upto: int) -> int:
        """Forget records up to ``upto``, in whole segments, and return how many bytes they had.

        What is not sealed yet stays. Raises `StorageError`.
        """
        self._require_open()
        size = 0
        while freed := await self._sealer.trim(stream, upto):
            size += freed
            self._require_open()
        return size

    # --- the catalogue ------------------------------------------------------------------------

    async def find(self, stream: str) -> StreamInfo | None:
        """Return the stream, or None when there is none (never was, or is gone: see `was_deleted`)."""
        self._require_open()
        if log := self._live.get(stream):
            return log.current()
        if stream in self._gone:
            return None
        found = await self._db.read(catalogue.find, stream)
        return None if stream in self._gone else found

    async def find_key(self, principal: str, key: str) -> StreamInfo | None:
        """Return the stream that ``principal`` created with the idempotency key ``key``."""
        self._require_open()
        if not key:
            return None
        holder = self._claims.get((principal, key))
        if isinstance(holder, StreamLog):
            return holder.current()
        found = await self._db.read(catalogue.find_key, principal, key)
        if found is None or found.id in self._gone:
            return None
        if log := self._live.get(found.id):
            return log.current() if log.info.idempotency_key == key else None
        return found

    async def list(self, principal: str, before: str, limit: int) -> Sequence[StreamInfo]:
        """Return streams of ``principal``, newest first, with ids below ``before`` (``""``: all)."""
        self._require_open()
        live = [
            log
            for log in self._live.values()
            if log.info.principal == principal and (not before or log.info.id < before)
        ]
        stored = await self._db.read(catalogue.newest, principal, before, limit)
        # What became settled meanwhile may be stored as it was before: memory wins.
        found = {info.id: info for info in stored} | {log.info.id: log.current() for log in live}
        erased = self._gone | {log.info.id for log in live if log.erased}
        return [found[stream] for stream in sorted(found.keys() - erased, reverse=True)[:limit]]

    async def delete(self, stream: str) -> bool:
        """Erase a closed stream; say whether there was one. Its id is remembered as gone for a while.

        Its bytes are out of all files within about ``scrub_interval``. Raises `StorageError`.
        """
        info = await self.find(stream)
        if info is None or info.status is None:
            return False
        erased = False
        closed_at, remember = info.closed_at or 0.0, self._wall() + self._settings.remember_gone

        def erase(file: int) -> None:
            nonlocal erased
            erased = stream not in self._gone  # else another call was quicker
            if erased:
                self._erase(stream, closed_at, remember, file)

        await self._commit(_frame(journal.DELETED, stream, journal.TIME.pack(remember)), erase)
        return erased

    async def release_key(self, stream: str) -> bool:
        """Give the idempotency key of a stream back, open or closed; say whether there is such a stream.

        Raises `StorageError`.
        """
        self._require_open()
        stored = None if stream in self._live else await self._db.read(catalogue.find, stream)
        if stream in self._gone or (stream not in self._live and stored is None):
            return False

        def released(file: int) -> None:
            log = self._live.get(stream)
            if log is None and stored is not None and stream not in self._gone:
                log = StreamLog(self._committer, stored, _nobody, self._release_key, known=True)
                log.status, log.closed_at = stored.status, stored.closed_at
                self._live[stream] = log  # so that memory wins until the catalogue knows
            if log is not None:
                self._drop_claim(log)
                log.info = msgspec.structs.replace(log.info, idempotency_key="")
                log.changed = True
                self._pin(log, file)
                self._sealer.want(log)

        await self._commit(_frame(journal.KEY_RELEASED, stream), released)
        return True

    async def was_deleted(self, stream: str) -> bool:
        """Say whether the stream is gone: erased, or past its retention; as long as that is remembered."""
        self._require_open()
        return stream in self._gone or await self._db.read(catalogue.is_gone, stream)

    async def expire(self, now: float) -> int:
        """Erase the streams whose retention has run out by ``now`` (Unix seconds); return how many.

        The store does so by itself every ``sweep_interval``. Those that are not sealed yet are left
        for the next time. Raises `StorageError`.
        """
        self._require_open()
        return await self._sweeper.expire(now)

    # --- inner workings -----------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _claim(self, info: StreamInfo) -> AsyncIterator[None]:
        """Hold the stream's idempotency key until it is decided who gets it. Raises `KeyTaken`."""
        if not info.idempotency_key:
            yield
            return
        claim = (info.principal, info.idempotency_key)
        while isinstance(holder := self._claims.get(claim), asyncio.Future):
            await asyncio.wait([holder])
        if holder is not None:
            raise KeyTaken(holder.current())
        undecided = self._claims[claim] = asyncio.get_running_loop().create_future()
        try:
            existing = await self._db.read(catalogue.find_key, *claim)
            if existing is not None and existing.id not in self._gone:
                log = self._live.get(existing.id)
                if log is None or log.info.idempotency_key == info.idempotency_key:
                    raise KeyTaken(log.current() if log else existing)
            yield
        finally:
            undecided.set_result(None)
            if self._claims.get(claim) is undecided:
                del self._claims[claim]

    async def _commit(self, body: bytes, then: Callable[[int], None]) -> None:
        """Commit a frame, then call ``then`` with its file, even if the caller was cancelled."""
        self._require_open()
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(file: int, error: StorageError | None) -> None:
            if error is None:
                then(file)
            if not committed.done():
                _settle(committed, error)

        self._committer.add(Control(body, done))
        await committed

    def _install(self, log: StreamLog) -> None:
        self._live[log.info.id] = log
        if log.info.idempotency_key:
            self._claims[log.info.principal, log.info.idempotency_key] = log

    def _pin(self, log: StreamLog, file: int) -> None:
        log.pins.append((file, log.committed + 1))
        self._sealer.pin(file)

    def _settled(self, log: StreamLog) -> None:
        """All of a closed stream is in the catalogue."""
        if self._live.pop(log.info.id, None):
            self._drop_claim(log)

    def _drop_claim(self, log: StreamLog) -> None:
        claim = (log.info.principal, log.info.idempotency_key)
        if self._claims.get(claim) is log:
            del self._claims[claim]

    def _release_key(self, log: StreamLog) -> None:
        """Give a stream's key back: here at once, on the disk with the next batch."""
        self._drop_claim(log)
        log.info = msgspec.structs.replace(log.info, idempotency_key="")
        log.changed = True
        self._live.setdefault(log.info.id, log)  # so that memory wins until the catalogue knows

        def released(file: int, _: StorageError | None) -> None:
            if not log.erased:
                self._pin(log, file)
                self._sealer.want(log)

        self._committer.add(Control(_frame(journal.KEY_RELEASED, log.info.id), released, essential=True))

    def _abandon(self, log: StreamLog) -> None:
        """Erase a stream that was created for nobody; its id need not be remembered."""

        def erase(file: int, _: StorageError | None) -> None:
            self._erase(log.info.id, self._wall(), 0.0, file)

        body = _frame(journal.DELETED, log.info.id, journal.TIME.pack(0.0))
        self._committer.add(Control(body, erase, essential=True))

    def _erase(self, stream: str, closed_at: float, remember: float, file: int) -> None:
        if log := self._live.get(stream):
            self._settled(log)
            self._sealer.forget(log)
        self._gone.add(stream)
        self._sealer.erase(stream, closed_at, remember, file, lambda: self._gone.discard(stream))

    def _is_full(self) -> bool:
        settings = self._settings
        if len(self._live) >= settings.max_streams and self._count_open() >= settings.max_streams:
            return True
        if self._sealer.held.bytes + self._sealer.unsealed < settings.max_bytes:
            return False
        return sum(log.sealed_bytes + log.tail_bytes for log in self._live.values()) >= settings.max_bytes

    def _count_open(self) -> int:
        return sum(log.status is None for log in self._live.values())


def _nobody(upto: int, failure: object) -> None:
    """A closed stream has no writer that would be told."""


def _frame(type: int, stream: str, payload: bytes = b"") -> bytes:
    return journal.encode_prefix(type, stream) + payload


def _settle(future: asyncio.Future[None], error: StorageError | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
