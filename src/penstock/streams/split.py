"""Two stores under one roof: streams that may be on disk, and streams that may not.

Which one a stream goes to is said by its `at_rest` when it is created, and never changes. Look-ups ask
memory first, which costs a dictionary's look-up; an idempotency key is its principal's in both. Health,
epoch and secret are those of the store on disk: while that cannot commit, no stream is created.
"""

from collections.abc import Sequence

from penstock.streams.memory import MemoryStore
from penstock.streams.store import (
    Catalogue,
    Journal,
    KeyTaken,
    Log,
    OnCommit,
    Record,
    Store,
    StreamInfo,
)


class SplitStore:
    """`Store`, `Journal`, `Catalogue` and `Lease` over ``disk`` and ``memory``."""

    def __init__(self, disk: Store, memory: MemoryStore) -> None:
        """Take both over."""
        self.journal: Journal = self
        self.catalogue: Catalogue = self
        self.disk = disk
        self.memory = memory
        self.secret = b""

    def __repr__(self) -> str:
        """Show both."""
        return f"<SplitStore {self.disk!r} {self.memory!r}>"

    @property
    def healthy(self) -> bool:
        """Whether streams can be created and written, as far as is known."""
        return self.disk.healthy and self.memory.healthy

    @property
    def has_room(self) -> bool:
        """Whether the disk keeps up."""
        return self.disk.has_room

    async def wait_room(self) -> None:
        """Return once the disk keeps up."""
        await self.disk.wait_room()

    async def open(self) -> Sequence[StreamInfo]:
        """Open both; return the streams that the last writer left open on disk."""
        left_open = await self.disk.open()
        await self.memory.open()
        self.secret = self.disk.secret
        return left_open

    async def aclose(self) -> None:
        """Close both."""
        await self.memory.aclose()
        await self.disk.aclose()

    # --- the journal --------------------------------------------------------------------------

    async def create(self, info: StreamInfo, on_commit: OnCommit) -> Log:
        """Create a stream where its `at_rest` says. Raises as the stores do."""
        passing = info.at_rest in ("none", "memory")
        other = self.disk.catalogue if passing else self.memory.catalogue
        key = info.idempotency_key
        if key and (existing := await other.find_key(info.principal, key)):
            raise KeyTaken(existing)
        return await (self.memory.journal if passing else self.disk.journal).create(info, on_commit)

    async def reopen(self, info: StreamInfo, on_commit: OnCommit) -> Log:
        """Return the writer's end of a stream that has lost its writer."""
        return await self._journal(info.id).reopen(info, on_commit)

    async def read(self, stream: str, after: int, limit: int) -> Sequence[Record]:
        """Return committed records after ``after``."""
        return await self._journal(stream).read(stream, after, limit)

    async def trim(self, stream: str, upto: int) -> int:
        """Forget records up to ``upto``."""
        return await self._journal(stream).trim(stream, upto)

    # --- the catalogue ------------------------------------------------------------------------

    async def find(self, stream: str) -> StreamInfo | None:
        """Return the stream, or None when there is none."""
        return await self._catalogue(stream).find(stream)

    async def find_key(self, principal: str, key: str) -> StreamInfo | None:
        """Return the stream that ``principal`` created with the idempotency key ``key``."""
        found = await self.memory.find_key(principal, key)
        return found or await self.disk.catalogue.find_key(principal, key)

    async def list(self, principal: str, before: str, limit: int) -> Sequence[StreamInfo]:
        """Return streams of ``principal`` in both, newest first."""
        found = [
            *await self.memory.list(principal, before, limit),
            *await self.disk.catalogue.list(principal, before, limit),
        ]
        found.sort(key=lambda info: info.id, reverse=True)
        return found[:limit]

    async def was_deleted(self, stream: str) -> bool:
        """Say whether there was such a stream and it is gone, as long as that is remembered."""
        return await self.memory.was_deleted(stream) or await self.disk.catalogue.was_deleted(stream)

    async def release_key(self, stream: str) -> bool:
        """Give the idempotency key of a stream back; say whether there is such a stream."""
        return await self._catalogue(stream).release_key(stream)

    async def delete(self, stream: str) -> bool:
        """Erase a closed stream; say whether there was one."""
        return await self._catalogue(stream).delete(stream)

    # --- inner workings -----------------------------------------------------------------------

    def _journal(self, stream: str) -> Journal:
        return self.memory.journal if self.memory.holds(stream) else self.disk.journal

    def _catalogue(self, stream: str) -> Catalogue:
        return self.memory.catalogue if self.memory.holds(stream) else self.disk.catalogue
