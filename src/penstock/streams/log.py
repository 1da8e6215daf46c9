"""The writer's end of a stream in the embedded store, and what of the stream is in memory.

Records move from ``pending`` (appended) to ``tail`` (committed) to the catalogue (sealed); seqs run
on from ``sealed`` over the tail to ``committed``. Appending is the hot path of the whole gateway: a
few attributes, two list appends. Who moves records on is the committer and the sealer; nothing in
here does I/O or waits.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from penstock.streams import journal
from penstock.streams.store import TERMINAL, OnCommit, Record, StreamInfo, terminal_status
from penstock.types.events import Status

_ONLY_TERMINAL: Final = bytes((TERMINAL,))


class Batching(Protocol):
    """Who commits: the committer, as a log sees it."""

    uncommitted: int
    """Bytes appended to all logs and not committed."""

    def enlist(self, log: "StreamLog") -> None:
        """Take the log's first pending record of this tick along."""
        ...

    def discard(self, log: "StreamLog") -> None:
        """Leave out a log that has nothing pending any more."""
        ...


class StreamLog:
    """One stream that is open, or closed and not sealed yet."""

    __slots__ = (
        "_committer",
        "_next",
        "_release_key",
        "changed",
        "closed_at",
        "closing",
        "closing_prefix",
        "committed",
        "durable",
        "erased",
        "in_flight",
        "info",
        "known",
        "on_commit",
        "pending",
        "pending_kinds",
        "pins",
        "records_prefix",
        "sealed",
        "sealed_bytes",
        "status",
        "tail",
        "tail_bytes",
        "tail_kinds",
        "uncommitted",
        "underway",
    )

    def __init__(
        self,
        committer: Batching,
        info: StreamInfo,
        on_commit: OnCommit,
        release_key: Callable[["StreamLog"], None],
        *,
        known: bool,
    ) -> None:
        """``known`` is whether the catalogue has the stream's row, or is about to."""
        self.info = info
        self.on_commit = on_commit
        self.uncommitted = 0
        self.pending: list[bytes] = []
        self.pending_kinds = bytearray()
        self.in_flight = 0
        self.tail: list[bytes] = []
        self.tail_kinds = bytearray()
        self.tail_bytes = 0
        self.underway = False  # the beginning of the tail is on its way to the catalogue
        self.committed = info.tail
        self.sealed = info.tail
        self.sealed_bytes = info.bytes
        self.closing: Status | None = None  # the terminal record is appended …
        self.status: Status | None = None  # … and committed
        self.closed_at: float | None = None
        self.durable = info.at_rest == "host"
        self.erased = False
        self.known = known
        self.changed = not known  # the catalogue's row is behind
        self.pins: list[tuple[int, int]] = []  # journal file, first seq in it that is not sealed
        self.records_prefix = journal.encode_prefix(journal.RECORDS, info.id)
        self.closing_prefix = journal.encode_prefix(journal.CLOSING, info.id)
        self._committer = committer
        self._next = info.tail + 1
        self._release_key = release_key

    def __repr__(self) -> str:
        """Say where the log stands; no content."""
        return f"<StreamLog {self.info.id} sealed {self.sealed} committed {self.committed} next {self._next}>"

    def append_nowait(self, seq: int, kind: int, data: bytes) -> None:
        """Add the next record to the batch that is committed at the end of this tick.

        After a failure that is final, the next is the one after the last that was committed. Raises
        `ValueError` when ``seq`` is not the next one, or the stream is closed.
        """
        if seq != self._next:
            raise ValueError(f"seq {seq} where {self._next or 'none'} was due")
        if kind == TERMINAL:
            self.closing = terminal_status(data)
            self._next = 0
        else:
            self._next = seq + 1
        if not self.pending:
            self._committer.enlist(self)
        self.pending.append(data)
        self.pending_kinds.append(kind)
        size = len(data)
        self.uncommitted += size
        self._committer.uncommitted += size

    def release_key(self) -> None:
        """Give the stream's idempotency key back, so that a repeated request starts anew."""
        if self.info.idempotency_key and not self.erased:
            self._release_key(self)

    def current(self) -> StreamInfo:
        """Return what the catalogue shall say of the stream: where its committed records end."""
        return msgspec.structs.replace(
            self.info,
            tail=self.committed,
            bytes=self.sealed_bytes + self.tail_bytes,
            status=self.status,
            closed_at=self.closed_at if self.status else None,
        )

    def read(self, after: int, limit: int, size: int) -> list[Record]:
        """Return committed records after ``after``, which must not be before what is sealed."""
        start = after - self.sealed
        records: list[Record] = []
        for index in range(start, min(start + limit, len(self.tail))):
            data = self.tail[index]
            size -= len(data)
            if size < 0 and records:
                break
            records.append(Record(self.sealed + index + 1, self.tail_kinds[index], data))
        return records

    def take_over(self, on_commit: OnCommit) -> None:
        """Give the log to another writer; what the one before had not committed is dropped."""
        self.drop()
        self.on_commit = on_commit

    def drop(self) -> None:
        """Forget what is appended and neither committed nor on its way."""
        if self.pending and not self.in_flight:
            self._committer.discard(self)
        kept = self.pending[: self.in_flight]
        size = sum(map(len, kept))
        self._committer.uncommitted -= self.uncommitted - size
        self.pending, self.pending_kinds = kept, self.pending_kinds[: self.in_flight]
        self.uncommitted = size
        if not (kept and self.pending_kinds[-1] == TERMINAL):
            self.closing = None
            self._next = self.committed + len(kept) + 1

    @property
    def only_ends(self) -> bool:
        """Whether nothing but the terminal record is pending."""
        return self.pending_kinds == _ONLY_TERMINAL
