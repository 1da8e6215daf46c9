"""What a store of streams can do: three small protocols and the values that pass through them.

A store keeps *records*: ``(seq, kind, data)`` with ``seq`` from 1 without gaps, ``kind`` a small
integer whose meaning is the writer's, ``data`` bytes. It never decodes them, but for the status in a
terminal one. One writer appends to a stream (fenced by the store's lease); anyone reads what is
committed.

    Journal     create, reopen, read: the records
    Catalogue   find, find_key, list, delete, was_deleted: what streams there are
    Lease       who may write

`Log` is the writer's end of one stream. All calls are made in the loop's thread.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from penstock.types.calls import AtRest
from penstock.types.decisions import Admitted
from penstock.types.errors import PenstockError
from penstock.types.events import Status
from penstock.types.usage import Payer

ENTRY = 0
TERMINAL = 1
"""Record kinds. A `TERMINAL` record is the stream's last; committing it closes the stream. It is the
line of a `Closed` event, whose status the catalogue takes over (`terminal_status`)."""


class Record(NamedTuple):
    """One stored entry."""

    seq: int
    kind: int
    data: bytes


class _Terminal(msgspec.Struct):
    status: Status


_decode_terminal = msgspec.json.Decoder(_Terminal).decode


def terminal_status(data: bytes) -> Status:
    """Return the status that a terminal record closes its stream with; raises `ValueError`."""
    return _decode_terminal(data).status


class StreamInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the catalogue knows of a stream. Times are Unix seconds.

    ``status`` is None while the stream is open. ``tail`` is the last committed seq. ``epoch`` is the
    writer's: a position of an earlier epoch is valid up to ``epoch_start`` entries, since what
    followed it was lost. ``retention`` is in seconds from the close, ``format`` the version of the
    event vocabulary. ``at_rest`` is empty where the store has only one manner of keeping.

    ``admitted`` says how its call was let in; None where nobody said.

    ``kept`` is what another writer needs to go on with the stream, in whatever form the first one likes;
    mostly nothing. A store gives it back in `Store.open` only, and forgets it with the stream's end.
    """

    id: str
    principal: str
    created_at: float
    retention: float
    route: str = ""
    dialect: str = ""
    model: str = ""
    idempotency_key: str = ""
    body_sha256: str = ""
    metadata: dict[str, str] | None = None
    format: int = 1
    at_rest: AtRest | Literal[""] = ""
    epoch: int = 0
    epoch_start: int = 0
    status: Status | None = None
    tail: int = 0
    bytes: int = 0
    closed_at: float | None = None
    kept: str = ""
    payer: Payer = Payer()
    admitted: Admitted | None = None


class StoreFailure(NamedTuple):
    """A batch could not be committed. It is kept and tried again until ``final``."""

    reason: str
    final: bool


OnCommit: TypeAlias = Callable[[int, StoreFailure | None], None]
"""Called in the loop after each batch that held records of the log: the last seq that is now
committed, and None; or the last that was, and what went wrong. Must not raise."""


class KeyTaken(PenstockError):
    """The principal has used this idempotency key already; ``existing`` is that stream."""

    def __init__(self, existing: StreamInfo) -> None:
        """Turned by the gateway into a read of the existing stream, or into a 422."""
        super().__init__("This idempotency key is in use.", code="idempotency_key_in_use", status=422)
        self.existing = existing


class Log(Protocol):
    """The writer's end of one open stream."""

    uncommitted: int
    """Bytes appended and not yet committed."""

    def append_nowait(self, seq: int, kind: int, data: bytes) -> None:
        """Add the next record to the batch that is committed at the end of this tick."""
        ...

    def release_key(self) -> None:
        """Give the stream's idempotency key back, so that a repeated request starts anew."""
        ...


class Journal(Protocol):
    """The records of streams."""

    async def create(self, info: StreamInfo, on_commit: OnCommit) -> Log:
        """Create a stream and return once that is committed.

        Raises `KeyTaken` when ``info`` has an idempotency key that its principal has used, and
        `StorageError` when it cannot be committed.
        """
        ...

    async def reopen(self, info: StreamInfo, on_commit: OnCommit) -> Log:
        """Return the writer's end of a stream that was open when its last writer went away.

        ``info`` may carry a later epoch than the stored one; it is stored.
        """
        ...

    async def read(self, stream: str, after: int, limit: int) -> Sequence[Record]:
        """Return up to ``limit`` (and about 256 KiB of) committed records with ``seq > after``.

        A stream that was trimmed begins later: the first record returned may be beyond ``after`` + 1.
        Raises `StorageError`; an unknown stream has no records.
        """
        ...

    async def trim(self, stream: str, upto: int) -> int:
        """Forget records up to ``upto`` for good; return how many bytes they had.

        Records may be kept in groups, and only whole groups go: so some may stay. Raises `StorageError`.
        """
        ...


class Catalogue(Protocol):
    """What streams there are. Readers see a stream as soon as its creation is committed."""

    async def find(self, stream: str) -> StreamInfo | None:
        """Return the stream, or None when there is none (never was, or is gone: see `was_deleted`)."""
        ...

    async def find_key(self, principal: str, key: str) -> StreamInfo | None:
        """Return the stream that ``principal`` created with the idempotency key ``key``."""
        ...

    async def list(self, principal: str, before: str, limit: int) -> Sequence[StreamInfo]:
        """Return streams of ``principal``, newest first, with ids below ``before`` (``""``: all)."""
        ...

    async def was_deleted(self, stream: str) -> bool:
        """Say whether there was such a stream and it is gone, as long as that is remembered."""
        ...

    async def release_key(self, stream: str) -> bool:
        """Give the idempotency key of a stream back, open or closed; say whether there is such a stream."""
        ...

    async def delete(self, stream: str) -> bool:
        """Erase a closed stream; say whether there was one. Its id is remembered as gone for a while."""
        ...


class Lease(Protocol):
    """The right to write, held by one process at a time."""

    epoch: int
    """Grows by one with every writer that could have lost its predecessor's tail."""

    async def aclose(self) -> None:
        """Give it up."""
        ...


class Store(Protocol):
    """A journal and a catalogue under one lease, with the life cycle of a resource."""

    journal: Journal
    catalogue: Catalogue
    secret: bytes
    """32 random bytes, known once the store is open and the same for as long as its streams live."""

    @property
    def healthy(self) -> bool:
        """Whether the last batch could be committed."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether what is committed is moved on as fast as it comes: a writer of much should wait if not."""
        ...

    async def wait_room(self) -> None:
        """Return once there is room."""
        ...

    async def open(self) -> Sequence[StreamInfo]:
        """Take the lease and recover; return the streams that their last writer left open.

        Those that may have lost their last entries have nothing ``kept``: nobody may go on with them.
        """
        ...

    async def aclose(self) -> None:
        """Commit what is pending, release everything."""
        ...
