"""The commit of the embedded store: one batch a tick, and what happens when it cannot be written.

At the end of the loop's tick the `Committer` writes what all logs have gathered with one write, and
only then tells their writers. Where a commit shall survive a power failure it is synced first, in a
thread, while the next batch gathers.

When writing fails:

    healthy ──a commit fails──► failing ──`commit_grace` is over──► down ──a probe succeeds──► healthy
       ▲                           │  the batch stays, tried again every `retry_interval`
       └──────a try succeeds───────┘

In *failing* and *down*, creations are refused. On the way *down* batches are given up, their writers
are told, and on a full disk the reserve is spent. While *down*, only what ends things is written
(terminal records, released keys), with each probe; and with a full disk, *healthy* again is only
who could set the reserve aside anew.

No SQLite in here: what is committed is handed to the sealer.
"""

import asyncio
import contextlib
import errno
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import structlog

from penstock.streams import journal
from penstock.streams.folder import DISK_FULL, Reserve, failure_reason
from penstock.streams.journal import JournalWriter
from penstock.streams.log import StreamLog
from penstock.streams.store import TERMINAL, OnCommit, StoreFailure
from penstock.types.buckets import Buckets
from penstock.types.errors import StorageError

logger = structlog.get_logger(__name__)


def tell(level: str, event: str, **facts: object) -> None:
    """Log ``event``. Where the disk is full the log may be, too: that must not stop anything here."""
    with contextlib.suppress(OSError):
        getattr(logger, level)(event, **facts)


Notices: TypeAlias = deque[tuple[OnCommit, int, StoreFailure | None]]
State: TypeAlias = Literal["healthy", "failing", "down", "closed"]


class CommitSettings(msgspec.Struct, frozen=True):
    """How commits are tried. Times in seconds.

    ``max_unsealed_bytes`` bounds what is committed and waits in memory for the catalogue; beyond it
    commits fail, as they do when the disk does.
    """

    commit_grace: float = 5.0
    retry_interval: float = 0.1
    probe_interval: float = 1.0
    max_unsealed_bytes: int = 256 * 1024 * 1024
    seal_records: int = 256
    seal_bytes: int = 64 * 1024


class Sealing(Protocol):
    """Who moves committed records from memory to the catalogue."""

    unsealed: int
    """Bytes of records that are committed and not sealed."""

    def pin(self, file: int) -> None:
        """Something was written into ``file`` that is not in the catalogue yet."""
        ...

    def want(self, log: StreamLog) -> None:
        """Seal what ``log`` has, and its row."""
        ...

    def rotated(self, file: int) -> None:
        """The journal goes on in ``file``."""
        ...


class Control(NamedTuple):
    """A frame that is no records. ``done`` is called with the file it is in, or with the failure.

    An ``essential`` one ends something: it is kept until it can be written, and ``done`` is told no
    failure.
    """

    body: bytes
    done: Callable[[int, StorageError | None], None]
    essential: bool = False


class Committer:
    """Writes batches. Owned by the store; all calls in the loop's thread."""

    def __init__(
        self,
        writer: JournalWriter,
        reserve: Reserve,
        settings: CommitSettings,
        call: Callable[[Callable[[], Any]], asyncio.Future[Any]],
        syncs: Executor | None,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        always: bool = True,
        commits: Buckets | None = None,
    ) -> None:
        """``call`` runs what may block in the store's thread; ``syncs`` the syncs, None for no syncs.

        ``always``: every batch is synced, and not only one with something of a stream that wants it.
        ``clock`` is monotonic, ``wall`` Unix time, in seconds. ``commits``: where their times are counted.
        """
        self.state: State = "healthy"
        self.uncommitted = 0
        self.failures = 0
        self.last_duration = 0.0
        self.committed_bytes = 0
        self._writer = writer
        self._reserve = reserve
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._call = call
        self._syncs = syncs
        self._always = always
        self._commits = commits
        self._loop = asyncio.get_running_loop()
        self._sealing: Sealing
        self._logs: list[StreamLog] = []
        self._controls: list[Control] = []
        self._scheduled = False
        self._syncing: asyncio.Future[None] | None = None
        self._file = writer.number
        self._failing_since = 0.0
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None
        self._restoring: asyncio.Future[bool] | None = None

    def __repr__(self) -> str:
        """Say how it is."""
        return f"<Committer {self.state} {self.uncommitted} bytes uncommitted>"

    def attach(self, sealing: Sealing) -> None:
        """Name who seals."""
        self._sealing = sealing

    @property
    def spares_the_disk(self) -> bool:
        """Whether what room there is on the disk is for endings alone."""
        return self.state != "healthy" and self._reason == DISK_FULL

    # --- what goes into a batch --------------------------------------------------------------

    def enlist(self, log: StreamLog) -> None:
        """Take the log's first pending record of this tick along."""
        self._logs.append(log)
        self._schedule()

    def add(self, control: Control) -> None:
        """Take a control frame along. Raises `StorageError` at once where it would be refused."""
        if self.state != "healthy" and not control.essential:
            raise StorageError
        self._controls.append(control)
        self._schedule()

    def withdraw(self, control: Control) -> bool:
        """Take a control frame back; say whether it was not too late."""
        if self._syncing is not None or control not in self._controls:
            return False
        self._controls.remove(control)
        return True

    def discard(self, log: StreamLog) -> None:
        """Leave out a log that has nothing pending any more."""
        self._logs.remove(log)

    async def wait_synced(self) -> None:
        """Wait until nothing is on its way to the disk."""
        while self._syncing is not None:
            await asyncio.wait([self._syncing])

    def leave_file(self) -> bool:
        """Leave the journal's current file, unless that is being synced; say whether it is left."""
        if self._syncing is not None:
            return False
        self._writer.retire()
        return True

    def _schedule(self) -> None:
        if self.state == "closed":
            raise StorageError
        if not self._scheduled and self._syncing is None and self.state in ("healthy", "down"):
            self._scheduled = True
            self._loop.call_soon(self._tick)

    # --- the commit ---------------------------------------------------------------------------

    def _tick(self) -> None:
        self._scheduled = False
        if self.state == "healthy":
            self.commit()
        elif self.state == "down":
            self._give_up()

    def commit(self) -> None:
        """Write what has gathered. Does nothing while a sync is on its way."""
        if self._syncing is not None or not (self._logs or self._controls):
            return
        began = self._clock()
        bodies = [control.body for control in self._controls]
        now = self._wall()
        for log in self._logs:
            data = log.pending
            log.in_flight = len(data)
            kinds = log.pending_kinds
            first = log.committed + 1
            if kinds[-1] == TERMINAL:
                log.closed_at = now
                head = log.closing_prefix + journal.CLOSE.pack(now, first)
                bodies.append(head + journal.encode_records(kinds, data))
            else:
                bodies.append(journal.encode_body(log.records_prefix, first, kinds, data))
        try:
            if self._sealing.unsealed > self._settings.max_unsealed_bytes:
                raise OSError(errno.ENOBUFS, "the catalogue is behind")
            size = self._writer.append(bodies)
        except OSError as error:
            self._failed(error)
            return
        if self._syncs is None or not self._wants_sync():
            self._notify(self._committed(size, began))
        else:
            logs, self._logs = self._logs, []
            controls, self._controls = self._controls, []
            self._syncing = self._loop.run_in_executor(self._syncs, self._writer.sync)
            self._syncing.add_done_callback(lambda done: self._synced(done, logs, controls, size, began))

    def _wants_sync(self) -> bool:
        return self._always or bool(self._controls) or any(log.durable for log in self._logs)

    def _synced(
        self,
        done: asyncio.Future[None],
        logs: list[StreamLog],
        controls: list[Control],
        size: int,
        began: float,
    ) -> None:
        self._syncing = None
        error = done.exception()
        gathered, self._logs = self._logs, logs
        later, self._controls = self._controls, controls
        notices: Notices = deque()
        if error is None:
            notices = self._committed(size, began)
            self._logs += gathered
            self._controls += later
        elif isinstance(error, OSError):
            self._writer.undo(size)
            self._logs += gathered
            self._controls += later
            self._failed(error)
        else:
            raise error
        if (self._logs or self._controls) and self.state != "closed":
            self._schedule()
        self._notify(notices)

    def _committed(self, size: int, began: float) -> Notices:
        """Move what was written on; return whom to tell."""
        logs, self._logs = self._logs, []
        controls, self._controls = self._controls, []
        settings = self._settings
        sealing = self._sealing
        file = self._writer.number
        freed = 0
        notices: Notices = deque()
        for log in logs:
            count = log.in_flight
            log.in_flight = 0
            data, kinds = log.pending, log.pending_kinds
            if count == len(data):
                log.pending, log.pending_kinds = [], bytearray()
                added = log.uncommitted
            else:  # more came while the batch was synced
                log.pending, log.pending_kinds = data[count:], kinds[count:]
                data, kinds = data[:count], kinds[:count]
                added = sum(map(len, data))
                self._logs.append(log)
            log.uncommitted -= added
            freed += added
            if not log.pins or log.pins[-1][0] != file:
                log.pins.append((file, log.committed + 1))
                sealing.pin(file)
            log.committed += count
            if log.tail:
                log.tail += data
                log.tail_kinds += kinds
            else:
                log.tail, log.tail_kinds = data, kinds
            log.tail_bytes += added
            if kinds[-1] == TERMINAL:
                log.status = log.closing
                log.changed = True
                sealing.want(log)
            elif not log.underway and (
                len(log.tail) >= settings.seal_records or log.tail_bytes >= settings.seal_bytes
            ):
                sealing.want(log)
            notices.append((log.on_commit, log.committed, None))
        sealing.unsealed += freed
        self.uncommitted -= freed
        self.committed_bytes += size
        if file != self._file:
            self._file = file
            sealing.rotated(file)
        if self.state == "failing":
            self._set_healthy()
        elif self.state == "down":
            self._look_up()
        self.last_duration = self._clock() - began
        if self._commits is not None:
            self._commits.add(self.last_duration)
        for control in controls:
            control.done(file, None)
        return notices

    def _notify(self, notices: Notices) -> None:
        try:
            while notices:
                on_commit, upto, failure = notices.popleft()
                on_commit(upto, failure)
        finally:
            if notices:  # one writer's bug must not keep the others waiting for ever
                self._loop.call_soon(self._notify, notices)

    # --- when it fails ------------------------------------------------------------------------

    def _failed(self, error: OSError) -> None:
        """Nothing of the batch is on the disk, all of it is still here."""
        now = self._clock()
        self.failures += 1
        self._reason = failure_reason(error)
        for log in self._logs:
            log.in_flight = 0
        if self.state == "healthy":
            self.state = "failing"
            self._failing_since = now
            tell("error", "store_failing", reason=self._reason, error=str(error))
        refused = [control for control in self._controls if not control.essential]
        self._controls = [control for control in self._controls if control.essential]
        if self.state == "failing" and now - self._failing_since >= self._settings.commit_grace:
            self.state = "down"
            tell("error", "store_down", reason=self._reason, error=str(error), given_up=len(self._logs))
            if self._reason == DISK_FULL:
                self._call(self._reserve.spend)
        if self.state != "closed":
            self._retry_later()
        for control in refused:
            control.done(0, StorageError())
        if self.state == "down":
            self._give_up()
        failure = StoreFailure(self._reason, final=False)
        self._notify(deque((log.on_commit, log.committed, failure) for log in self._logs))

    def _give_up(self) -> None:
        """Drop what does not end a stream, and say so to its writers."""
        failure = StoreFailure(self._reason, final=True)
        given_up = [log for log in self._logs if not log.only_ends]
        for log in given_up:
            log.drop()
        self._notify(deque((log.on_commit, log.committed, failure) for log in given_up))

    def _retry_later(self) -> None:
        if self._timer is None:
            settings = self._settings
            wait = settings.probe_interval if self.state == "down" else settings.retry_interval
            self._timer = self._loop.call_later(wait, self._retry)

    def _retry(self) -> None:
        self._timer = None
        if not (self._logs or self._controls):
            if self.state == "down" and self._reason == DISK_FULL:
                self._look_up()
                return
            self._controls.append(_PROBE)
        self.commit()

    def _look_up(self) -> None:
        """Writing works again: be healthy, with a full disk only once the reserve is there again."""
        if self._reason != DISK_FULL:
            self._set_healthy()
        elif self._restoring is None:
            self._restoring = self._call(self._reserve.restore)
            self._restoring.add_done_callback(self._restored)

    def _restored(self, done: asyncio.Future[bool]) -> None:
        self._restoring = None
        if self.state != "down":
            return
        if done.result():
            self._set_healthy()
            if self._logs or self._controls:
                self._schedule()
        else:
            self._retry_later()

    def _set_healthy(self) -> None:
        self.state = "healthy"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tell("warning", "store_healthy", after=self._clock() - self._failing_since)

    def start_down(self) -> None:
        """Begin with a disk that is full: endings only, until there is room for the reserve."""
        self.state = "down"
        self._reason = DISK_FULL
        self._failing_since = self._clock()
        tell("error", "store_down", reason=DISK_FULL)
        self._retry_later()

    async def aclose(self) -> None:
        """Commit what has gathered, with one try; what cannot be is given up. To be awaited to its end."""
        for underway in (self._syncing, self._restoring):
            if underway is not None:
                await asyncio.wait([underway])
        down = self.state == "down"
        self.state = "closed"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if down:
            self._give_up()
        self.commit()
        if underway := self._syncing:
            await asyncio.wait([underway])
        self._give_up()
        for log in list(self._logs):
            log.drop()


def _no_matter(_file: int, _error: StorageError | None) -> None:
    """Nobody waits for a probe."""


_PROBE = Control(journal.encode_prefix(journal.PROBE, ""), _no_matter, essential=True)
