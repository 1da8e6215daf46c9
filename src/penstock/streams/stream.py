"""One stream in memory: what its writer appends, what is committed, and who follows the tail.

A run appends; the store commits once a tick and calls `Stream.committed_to`; only then do followers
get the entries. Entries that are committed are kept nowhere here: who is behind reads the store, so
a stream's memory does not grow with its length, and a slow reader costs nothing.

A follower is a plain function, called in the loop with each committed batch, and with an empty
batch when the stream's writer gave up without an end (`Stream.lost`). It must be quick.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

import msgspec

from penstock.streams.state import State, advance
from penstock.streams.store import ENTRY, TERMINAL, Journal, Log, StoreFailure, StreamInfo
from penstock.types.errors import LogDamaged
from penstock.types.events import AnyEvent, Closed, Entry, TextDelta, Timing, decode_line, encode_line
from penstock.types.positions import Position

Follower: TypeAlias = Callable[[Sequence[Entry]], None]

READ_ENTRIES = 256
"""How many entries a reader that is behind gets at a time."""

HASH_ENTRIES = 32
"""How many entries are hashed at a time."""


class Standing(NamedTuple):
    """Who answers, at which attempt, and where the time went so far."""

    target: str
    attempts: int
    timing: Timing


def _no_writer(seq: int, kind: int, data: bytes) -> None:
    raise RuntimeError("the stream has no writer here")


class Stream:
    """A stream, open or closed. Create it with its catalogue entry, then `attach` its log if open."""

    __slots__ = (
        "_append",
        "_digest",
        "_followers",
        "_journal",
        "_lines",
        "_log",
        "_pending",
        "_text_digest",
        "_texts",
        "appended",
        "closing",
        "committed",
        "dropped",
        "failure",
        "holders",
        "info",
        "lost",
        "on_failure",
        "standing",
        "state",
    )

    def __init__(self, info: StreamInfo, journal: Journal) -> None:
        """Make the in-memory side of the stream that ``info`` describes."""
        self.info = info
        self.state: State = info.status or "open"
        self.appended = info.tail
        self.committed = info.tail
        self.closing: Closed | None = None
        self.lost = False
        self.failure: StoreFailure | None = None
        self.on_failure: Callable[[StoreFailure | None], None] | None = None
        self.standing: Standing | None = None  # its writer's word, from the first output on
        self.holders = 0  # clients that may know one of its ids
        self.dropped: tuple[str, ...] = ()  # what of its request the provider is not told, while it runs
        self._journal = journal
        self._log: Log | None = None
        self._append: Callable[[int, int, bytes], None] = _no_writer
        self._pending: list[Entry] = []
        self._followers: tuple[Follower, ...] = ()
        self._lines: list[bytes] = []
        self._texts: list[str] = []
        self._digest = hashlib.sha256()
        self._text_digest = hashlib.sha256()

    def __repr__(self) -> str:
        """Say where the stream stands; no content."""
        return f"<Stream {self.id} {self.state} {self.committed}/{self.appended}>"

    @property
    def id(self) -> str:
        """The stream's id."""
        return self.info.id

    @property
    def is_open(self) -> bool:
        """Whether entries may still come. A stream that lost its writer stays open until it is closed."""
        return self.state == "open"

    @property
    def uncommitted(self) -> int:
        """Bytes appended and not committed yet."""
        return self._log.uncommitted if self._log else 0

    def position(self, seq: int) -> Position:
        """Return the position of a reader that has been given the entries up to ``seq``."""
        return Position(self.info.epoch, seq)

    def holds(self, position: Position) -> bool:
        """Say whether ``position`` was, or may yet be, a position of this log.

        False means that the log lost what the reader has seen (its tail went with a power failure).
        """
        epoch, entries, _ = position
        return epoch == self.info.epoch or (epoch < self.info.epoch and entries <= self.info.epoch_start)

    # --- the writer's side -------------------------------------------------------------------

    def attach(self, log: Log) -> None:
        """Give the stream its writer's end."""
        self._log = log
        self._append = log.append_nowait

    def append(self, event: AnyEvent) -> None:
        """Append ``event``; followers get it after the commit. Nothing follows a `Closed`."""
        if self.closing is not None:
            raise RuntimeError("append after the terminal entry")
        seq = self.appended + 1
        line = encode_line(seq, event)
        self.appended = seq
        self._pending.append(Entry(seq, event, line))
        self._append(seq, ENTRY, line)
        # Hashing many small pieces costs more than joining them first.
        self._lines.append(line)
        if type(event) is TextDelta and not event.index:
            self._texts.append(event.delta)
        if len(self._lines) >= HASH_ENTRIES:
            self._hash()

    def _hash(self) -> None:
        """Take what was appended since the last time into the digests."""
        if self._lines:
            self._lines.append(b"")
            self._digest.update(b"\n".join(self._lines))
            self._lines = []
        if self._texts:
            self._text_digest.update("".join(self._texts).encode())
            self._texts = []

    def close(self, closed: Closed) -> None:
        """Append the terminal entry: ``closed`` with counts and digests filled in. Only once."""
        advance(self.state, closed.status)
        if self.closing is not None:
            raise RuntimeError("closed twice")
        self._hash()
        end = msgspec.structs.replace(
            closed,
            entries=self.appended,
            sha256=self._digest.hexdigest(),
            text_sha256=self._text_digest.hexdigest(),
        )
        seq = self.appended + 1
        line = encode_line(seq, end)
        self.closing = end
        self.appended = seq
        self._pending.append(Entry(seq, end, line))
        self._append(seq, TERMINAL, line)

    def replay(self, entries: Sequence[Entry]) -> None:
        """Take the digests over entries that an earlier writer left, before going on after them."""
        for entry in entries:
            self._lines.append(entry.line)
            if type(entry.event) is TextDelta and not entry.event.index:
                self._texts.append(entry.event.delta)
        self._hash()

    def release_key(self) -> None:
        """Let the stream's idempotency key be used again."""
        if self._log is not None:
            self._log.release_key()

    def abandon(self) -> None:
        """The writer cannot go on and cannot say so in the log: cut followers off without an end."""
        self.lost = True
        self._pending = []
        for follower in self._followers:
            try:
                follower(())
            except Exception as error:  # noqa: BLE001  as in `committed_to`
                _report(error)

    # --- commits -----------------------------------------------------------------------------

    def committed_to(self, upto: int, failure: StoreFailure | None) -> None:
        """The store's word after each batch (`penstock.streams.store.OnCommit`)."""
        if failure is not None or self.failure is not None:
            self.failure = failure
            if self.on_failure is not None:
                self.on_failure(failure)
        batch = self._pending
        if not batch or upto < batch[0].seq or self.lost:
            return
        if upto == self.appended:
            self._pending = []
        else:
            count = upto - batch[0].seq + 1
            batch, self._pending = batch[:count], batch[count:]
        self.committed = upto
        if self.closing is not None and upto == self.appended:
            self.state = advance(self.state, self.closing.status)
        for follower in self._followers:
            try:
                follower(batch)
            except Exception as error:  # noqa: BLE001  one bad follower must not cost the others their entries
                _report(error)

    # --- the readers' side -------------------------------------------------------------------

    def follow(self, follower: Follower) -> None:
        """Call ``follower`` with every batch committed from now on, until `unfollow`."""
        self._followers = (*self._followers, follower)

    def unfollow(self, follower: Follower) -> None:
        """Stop calling ``follower``; nothing happens if it is not following."""
        self._followers = tuple(f for f in self._followers if f != follower)

    @property
    def followers(self) -> int:
        """How many follow the tail."""
        return len(self._followers)

    async def read(self, after: int, limit: int = READ_ENTRIES) -> list[Entry]:
        """Return up to ``limit`` committed entries after the first ``after``.

        Raises `StorageError` when the store cannot be read now, `LogDamaged` when what it holds is not
        the stream's next entries.
        """
        try:
            records = await self._journal.read(self.id, after, limit)
            if records and records[0].seq != after + 1:
                raise LogDamaged
            return [Entry(record.seq, decode_line(record.data), record.data) for record in records]
        except (ValueError, msgspec.DecodeError) as error:
            raise LogDamaged from error

    async def wait_beyond(self, after: int) -> None:
        """Return once more than ``after`` entries are committed, or the stream is closed or lost."""
        if self.committed > after or not self.is_open or self.lost:
            return
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(_: Sequence[Entry]) -> None:
            if not arrived.done() and (self.committed > after or self.lost):
                arrived.set_result(None)

        self.follow(look)
        try:
            await arrived
        finally:  # a cancellation leaves nothing behind
            self.unfollow(look)

    async def wait_beyond_for(self, after: int, seconds: float) -> None:
        """As `wait_beyond`, for so long at most."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.wait_beyond(after)

    async def wait_closed(self) -> None:
        """Return once the terminal entry is committed, or the stream is lost."""
        while self.is_open and not self.lost:
            await self.wait_beyond(self.committed)


def _report(error: Exception) -> None:
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "a follower failed", "exception": error})
