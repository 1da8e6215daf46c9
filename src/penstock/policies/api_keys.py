"""API keys: which are known, and who comes with one.

Those of the configuration are known from the start and never change. The others are kept at rest, by
whoever `KeySource` is; they are held in memory and read again when they may have changed: after
``freshness`` seconds, and for a key that is not known: at once, or ``NO_NEWS`` seconds after the last time,
for which its bearer waits. So guessing costs the database a few reads a second.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from penstock.types.errors import ClientError, PenstockError
from penstock.types.keys import KeyRecord, hash_key, id_of, same
from penstock.types.principals import Principal

log = structlog.get_logger(__name__)

FRESHNESS: Final = 5.0
"""Seconds after which a key that was revoked by another process no longer works here."""

PATIENCE: Final = 1.0
"""Seconds that a request waits for keys to be read; in a database that does not answer they are read by
nobody, and those that are known are good."""

PAUSE: Final = 15.0
"""Seconds after such a failure until they are read again."""

NO_NEWS: Final = 0.25
"""Seconds from one reading of the keys to the next for the sake of one that is not known."""


class KeySource(Protocol):
    """Where keys are kept."""

    async def keys(self) -> Sequence[KeyRecord]:
        """Return all keys. Raises `PenstockError` when they cannot be read now."""
        ...


class KeyRing:
    """See the module's head."""

    def __init__(
        self,
        fixed: Sequence[KeyRecord] = (),
        source: KeySource | None = None,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """``fixed`` are of the configuration, found by their hash."""
        self._fixed: Mapping[str, KeyRecord] = {}
        self.use(fixed)
        self._source = source
        self._stored: Mapping[str, KeyRecord] = {}
        self._clock = clock
        self._wall = wall
        self._read_at = float("-inf")  # when that began: what was made later may be missing
        self._begun = 0
        self._reading = asyncio.Lock()

    def __repr__(self) -> str:
        """Count them."""
        return f"<KeyRing {len(self._fixed)} configured, {len(self._stored)} stored>"

    def use(self, fixed: Sequence[KeyRecord]) -> None:
        """Know ``fixed`` as those of the configuration from now on."""
        self._fixed = {record.hashed: record for record in fixed}

    async def open(self) -> None:
        """Know the stored keys before anybody comes. Raises `PenstockError` when they cannot be read."""
        if self._source is not None:
            began = self._clock()
            self._stored = {record.id: record for record in await self._source.keys()}
            self._read_at = began

    async def aclose(self) -> None:
        """Nothing is held."""

    @property
    def any(self) -> bool:
        """Whether there is any key, without which nobody could come in."""
        return bool(self._fixed or self._stored)

    def fixed(self, key: str) -> KeyRecord | None:
        """Return the key of the configuration that this is."""
        return self._fixed.get(hash_key(key)) if self._fixed else None

    async def find(self, key: str, address: str = "") -> Principal:
        """Return who comes with ``key``. Raises `ClientError` 401 `invalid_api_key`, `expired_api_key`."""
        if record := self.fixed(key):
            return record.principal(address)
        key_id = id_of(key)
        if key_id in self._stored:
            await self.refresh(FRESHNESS)
        elif key_id:
            await self.hear()
        found = self._stored.get(key_id)
        state = found.state(self._wall()) if found else "unknown"
        if found is None or state == "revoked" or not same(found.hashed, key):
            raise unknown_key()
        if state == "expired":
            raise ClientError("This API key has expired.", code="expired_api_key", status=401)
        return found.principal(address)

    async def alive(self, key_id: str) -> bool:
        """Say whether the key called ``key_id`` is still good."""
        if any(record.id == key_id for record in self._fixed.values()):
            return True
        await self.refresh(FRESHNESS)
        found = self._stored.get(key_id)
        return found is not None and found.state(self._wall()) == "active"

    async def refresh(self, freshness: float = 0.0) -> None:
        """Read the stored keys again unless that was done in the last ``freshness`` seconds.

        While they cannot be read, those that were read last are good.
        """
        if not self._is_due(freshness):
            return
        async with self._reading:
            if self._is_due(freshness):  # nobody else did
                await self._read()

    async def hear(self) -> None:
        """Know of every key that was made before this call; waits up to ``NO_NEWS`` seconds for that."""
        begun = self._begun
        if not self._is_due(NO_NEWS):
            rest = self._read_at + NO_NEWS - self._clock()
            if self._source is None or rest > NO_NEWS:  # they cannot be read now
                return
            await asyncio.sleep(rest)
        async with self._reading:
            if self._begun == begun:
                await self._read()

    def _is_due(self, freshness: float) -> bool:
        return self._source is not None and self._clock() - self._read_at > freshness

    async def _read(self) -> None:
        if self._source is None:
            return
        self._begun += 1
        began = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                records = await self._source.keys()
        except (PenstockError, TimeoutError) as error:
            log.warning("keys_not_read", error=repr(error))
            self._read_at = self._clock() + PAUSE
        else:
            self._stored = {record.id: record for record in records}
            self._read_at = began


def unknown_key() -> ClientError:
    """Return the refusal of a key that nobody knows, or knows no more."""
    return ClientError("This API key is not known.", code="invalid_api_key", status=401)
