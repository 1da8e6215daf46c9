"""The store that keeps everything in RAM: for routes whose streams are to leave nothing at rest.

It behaves as the embedded one does, down to the moment: what is appended is committed at the end of
the loop's tick. It is also the store to read first: the whole contract in one file, without files,
threads or failures. What it keeps is bounded; the streams that were closed first go first.
"""

import asyncio
import heapq
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec

from penstock.streams.store import (
    TERMINAL,
    Catalogue,
    Journal,
    KeyTaken,
    OnCommit,
    Record,
    StreamInfo,
    terminal_status,
)
from penstock.types.errors import StorageError
from penstock.types.events import Status

READ_BYTES = 256 * 1024
"""About how much one read returns at most; always at least one record."""


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the store. Beyond them closed streams are dropped, those closed first first.

    When open ones alone exceed them, none is created. ``remember_gone`` is how many ids of streams
    that are gone are known as such. Times in seconds.
    """

    max_streams: int = 10_000
    max_bytes: int = 512 * 1024 * 1024
    remember_gone: int = 100_000
    sweep_interval: float = 10.0


class MemoryStatistics(msgspec.Struct, frozen=True):
    """What the store holds; bytes are those of records."""

    streams: int
    open_streams: int
    bytes: int
    uncommitted_bytes: int


class MemoryLog:
    """The writer's end of one stream, and the stream itself."""

    def __init__(self, store: "MemoryStore", info: StreamInfo, on_commit: OnCommit) -> None:
        """See `MemoryStore.create`."""
        self.info = info
        self.on_commit = on_commit
        self.uncommitted = 0
        self.records: list[Record] = []
        self.trimmed = 0  # how many records there were before these
        self.pending: list[Record] = []
        self.bytes = 0
        self.status: Status | None = None
        self.closed_at: float | None = None
        self._store = store
        self._next = 1

    def append_nowait(self, seq: int, kind: int, data: bytes) -> None:
        """Add the next record to the batch that is committed at the end of this tick.

        Raises `ValueError` when ``seq`` is not the next one, or the stream is closed.
        """
        if seq != self._next:
            raise ValueError(f"seq {seq} where {self._next or 'none'} was due")
        if kind == TERMINAL:
            terminal_status(data)
            self._next = 0
        else:
            self._next = seq + 1
        self._store.enlist(self, len(data))
        self.pending.append(Record(seq, kind, data))
        self.uncommitted += len(data)

    def release_key(self) -> None:
        """Give the stream's idempotency key back, so that a repeated request starts anew."""
        self._store.drop_claim(self)

    def commit(self, now: float) -> None:
        """Make what is pending readable."""
        self.records += self.pending
        self.bytes += self.uncommitted
        if self.pending[-1].kind == TERMINAL:
            self.status = terminal_status(self.pending[-1].data)
            self.closed_at = now
        self.pending, self.uncommitted = [], 0

    def take_over(self, on_commit: OnCommit) -> None:
        """Give the log to another writer; what the one before had not committed is dropped."""
        self.pending, self.uncommitted = [], 0
        self.on_commit = on_commit
        self._next = self.tail + 1

    def trim(self, upto: int) -> int:
        """Forget records up to ``upto``; return their bytes."""
        count = max(0, min(upto, self.tail) - self.trimmed)
        size = sum(len(record.data) for record in self.records[:count])
        del self.records[:count]
        self.trimmed += count
        self.bytes -= size
        return size

    @property
    def tail(self) -> int:
        """The seq of the last record."""
        return self.trimmed + len(self.records)

    def current(self) -> StreamInfo:
        """Return what the catalogue shall say of the stream."""
        return msgspec.structs.replace(
            self.info,
            tail=self.tail,
            bytes=self.bytes,
            status=self.status,
            closed_at=self.closed_at,
        )


class MemoryStore:
    """A store in RAM: `Store`, `Journal`, `Catalogue` and `Lease` in one."""

    def __init__(
        self, settings: MemorySettings | None = None, *, wall: Callable[[], float] = time.time
    ) -> None:
        """``wall`` is Unix time in seconds."""
        self.journal: Journal = self
        self.catalogue: Catalogue = self
        self.epoch = 0
        self.secret = secrets.token_bytes(32)
        self.healthy = False
        self.uncommitted = 0
        self._wall = wall
        self._settings = settings or MemorySettings()
        self._loop: asyncio.AbstractEventLoop
        self._streams: dict[str, MemoryLog] = {}
        self._keys: dict[tuple[str, str], MemoryLog] = {}
        self._closed: dict[str, None] = {}  # in the order in which they were closed
        self._expiry: list[tuple[float, str]] = []  # a heap
        self._gone: dict[str, None] = {}
        self._bytes = 0
        self._creating: dict[MemoryLog, asyncio.Future[None]] = {}
        self._dirty: list[MemoryLog] = []
        self._scheduled = False
        self._sweep_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Say how much it holds."""
        return f"<MemoryStore {len(self._streams)} streams, {self._bytes} bytes>"

    def statistics(self) -> MemoryStatistics:
        """Say where the store stands."""
        return MemoryStatistics(
            streams=len(self._streams),
            open_streams=len(self._streams) - len(self._closed),
            bytes=self._bytes,
            uncommitted_bytes=self.uncommitted,
        )

    def holds(self, stream: str) -> bool:
        """Say whether there is such a stream here."""
        return stream in self._streams

    async def open(self) -> Sequence[StreamInfo]:
        """Nothing is ever left from before."""
        self._loop = asyncio.get_running_loop()
        self.healthy = True
        self._sweep_timer = self._loop.call_later(self._settings.sweep_interval, self._sweep)
        return ()

    async def aclose(self) -> None:
        """Commit what is pending, then forget everything."""
        if not self.healthy:
            return
        self._commit()
        self.healthy = False
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for held in (self._streams, self._keys, self._closed, self._expiry, self._gone):
            held.clear()
        self._bytes = 0

    @property
    def has_room(self) -> bool:
        """Always: nothing is moved on here."""
        return True

    async def wait_room(self) -> None:
        """Nothing to wait for."""

    def _require_open(self) -> None:
        if not self.healthy:
            raise StorageError

    # --- the journal --------------------------------------------------------------------------

    async def create(self, info: StreamInfo, on_commit: OnCommit) -> MemoryLog:
        """Create a stream and return once that is committed.

        Raises `KeyTaken` when ``info`` has an idempotency key that its principal has used, and
        `StorageError` when open streams alone exceed the store's bounds. A cancellation leaves no
        stream behind.
        """
        self._require_open()
        if info.idempotency_key:
            while holder := self._keys.get((info.principal, info.idempotency_key)):
                if (underway := self._creating.get(holder)) is None:
                    raise KeyTaken(holder.current())
                await asyncio.wait([underway])
        self._make_room()
        if info.kept:  # no other writer will ever come
            info = msgspec.structs.replace(info, kept="")
        log = MemoryLog(self, info, on_commit)
        if info.idempotency_key:
            self._keys[info.principal, info.idempotency_key] = log
        committed = self._creating[log] = self._loop.create_future()
        self._schedule()
        try:
            await asyncio.shield(committed)
        except asyncio.CancelledError:  # nobody was told of this stream
            self._drop(log)
            raise
        return log

    async def reopen(self, info: StreamInfo, on_commit: OnCommit) -> MemoryLog:
        """Return the writer's end of an open stream whose last writer has given up.

        What that one had not committed is dropped. Raises `StorageError` when there is no such
        open stream.
        """
        self._require_open()
        log = self._streams.get(info.id)
        if log is None or log.status or (log.pending and log.pending[-1].kind == TERMINAL):
            raise StorageError("There is no such open stream.")
        self.uncommitted -= log.uncommitted
        log.take_over(on_commit)
        if info.epoch > log.info.epoch:
            log.info = msgspec.structs.replace(log.info, epoch=info.epoch, epoch_start=info.epoch_start)
        return log

    async def read(self, stream: str, after: int, limit: int) -> Sequence[Record]:
        """Return up to ``limit`` (and about 256 KiB of) committed records with ``seq > after``."""
        self._require_open()
        if (log := self._streams.get(stream)) is None:
            return ()
        size, start = 0, max(0, after - log.trimmed)
        for count, record in enumerate(log.records[start : start + limit]):
            size += len(record.data)
            if size > READ_BYTES and count:
                return log.records[start : start + count]
        return log.records[start : start + limit]

    async def trim(self, stream: str, upto: int) -> int:
        """Forget records up to ``upto``; return how many bytes they had."""
        self._require_open()
        if (log := self._streams.get(stream)) is None:
            return 0
        size = log.trim(upto)
        self._bytes -= size
        return size

    # --- the catalogue ------------------------------------------------------------------------

    async def find(self, stream: str) -> StreamInfo | None:
        """Return the stream, or None when there is none (never was, or is gone: see `was_deleted`)."""
        self._require_open()
        log = self._streams.get(stream)
        return log.current() if log else None

    async def find_key(self, principal: str, key: str) -> StreamInfo | None:
        """Return the stream that ``principal`` created with the idempotency key ``key``."""
        self._require_open()
        log = self._keys.get((principal, key))
        return log.current() if log and log not in self._creating else None

    async def list(self, principal: str, before: str, limit: int) -> Sequence[StreamInfo]:
        """Return streams of ``principal``, newest first, with ids below ``before`` (``""``: all)."""
        self._require_open()
        own = [log for log in self._streams.values() if log.info.principal == principal]
        below = [log for log in own if not before or log.info.id < before]
        below.sort(key=lambda log: log.info.id, reverse=True)
        return [log.current() for log in below[:limit]]

    async def release_key(self, stream: str) -> bool:
        """Give the idempotency key of a stream back, open or closed; say whether there is such a stream."""
        self._require_open()
        if (log := self._streams.get(stream)) is None:
            return False
        log.release_key()
        return True

    async def delete(self, stream: str) -> bool:
        """Erase a closed stream; say whether there was one. Its id is remembered as gone for a while."""
        self._require_open()
        if stream not in self._closed:
            return False
        self._drop(self._streams[stream])
        self._remember(stream)
        return True

    async def was_deleted(self, stream: str) -> bool:
        """Say whether the stream is gone: erased, or past its retention; as long as that is remembered."""
        self._require_open()
        return stream in self._gone

    async def expire(self, now: float) -> int:
        """Erase the streams whose retention has run out by ``now`` (Unix seconds); return how many."""
        self._require_open()
        return self._expire(now)

    # --- inner workings -----------------------------------------------------------------------

    def enlist(self, log: MemoryLog, size: int) -> None:
        """Take ``size`` more bytes of ``log`` along with the next commit."""
        self._require_open()
        if not log.pending:
            self._dirty.append(log)
            self._schedule()
        self.uncommitted += size

    def drop_claim(self, log: MemoryLog) -> None:
        """Give the key of a log's stream back."""
        claim = (log.info.principal, log.info.idempotency_key)
        if self._keys.get(claim) is log:
            del self._keys[claim]
        log.info = msgspec.structs.replace(log.info, idempotency_key="")

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        created, self._creating = self._creating, {}
        for log, committed in created.items():
            self._streams[log.info.id] = log
            committed.set_result(None)
        logs, self._dirty = self._dirty, []
        now = self._wall()
        notices = []
        for log in logs:
            if not log.pending:  # taken over by another writer
                continue
            self._bytes += log.uncommitted
            self.uncommitted -= log.uncommitted
            log.commit(now)
            if log.status:
                self._closed[log.info.id] = None
                heapq.heappush(self._expiry, (now + log.info.retention, log.info.id))
            notices.append((log.on_commit, log.tail))
        self._evict()
        for on_commit, upto in notices:
            on_commit(upto, None)

    def _make_room(self) -> None:
        settings = self._settings
        while len(self._streams) + len(self._creating) >= settings.max_streams and self._closed:
            self._drop_oldest()
        if (
            len(self._streams) + len(self._creating) >= settings.max_streams
            or self._bytes >= settings.max_bytes
        ):
            raise StorageError

    def _evict(self) -> None:
        while self._bytes > self._settings.max_bytes and self._closed:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        stream = next(iter(self._closed))
        self._drop(self._streams[stream])
        self._remember(stream)

    def _drop(self, log: MemoryLog) -> None:
        stream = log.info.id
        self.drop_claim(log)
        if underway := self._creating.pop(log, None):
            underway.set_result(None)
        if self._streams.pop(stream, None):
            self._bytes -= log.bytes
            self._closed.pop(stream, None)

    def _remember(self, stream: str) -> None:
        self._gone[stream] = None
        if len(self._gone) > self._settings.remember_gone:
            del self._gone[next(iter(self._gone))]

    def _expire(self, now: float) -> int:
        count = 0
        while self._expiry and self._expiry[0][0] <= now:
            _, stream = heapq.heappop(self._expiry)
            if stream in self._closed:
                self._drop(self._streams[stream])
                self._remember(stream)
                count += 1
        return count

    def _sweep(self) -> None:
        self._expire(self._wall())
        self._sweep_timer = self._loop.call_later(self._settings.sweep_interval, self._sweep)
