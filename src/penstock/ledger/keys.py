"""API keys at rest: made, listed, rotated, revoked. The key itself is given once and kept nowhere.

`KeyDesk` is for the loop; the functions under it are what the command line calls as well.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from penstock.ledger.database import Database
from penstock.ledger.schema import API_KEYS
from penstock.types.errors import ClientError
from penstock.types.keys import KeyOrder, KeyRecord, NewKey, hash_key, new_key

MAX_KEYS: Final = 100_000
"""That are held; those that ended are the operator's to remove."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KeyRecord).decode


def list_keys(connection: sa.Connection) -> Sequence[KeyRecord]:
    """Return all keys, oldest first."""
    rows = connection.execute(sa.select(API_KEYS.c.record).limit(MAX_KEYS))
    return sorted((_decode(row.record) for row in rows), key=lambda record: (record.created_at, record.id))


def create_key(connection: sa.Connection, order: KeyOrder, now: float) -> NewKey:
    """Make a key. Raises `ClientError` when there are too many."""
    if connection.execute(sa.select(sa.func.count()).select_from(API_KEYS)).scalar_one() >= MAX_KEYS:
        raise ClientError("There are too many keys.", code="too_many_keys", status=409)
    key_id, key = new_key()
    record = KeyRecord(
        key_id,
        order.name,
        hash_key(key),
        team=order.team,
        admin=order.admin,
        grant=order.grant,
        created_at=now,
        expires_at=None if order.ttl is None else now + order.ttl,
    )
    connection.execute(API_KEYS.insert().values(id=key_id, name=order.name, record=_encode(record).decode()))
    return NewKey(key, record)


def rotate_key(connection: sa.Connection, key_id: str, grace: float, now: float) -> NewKey:
    """Make a key that may what ``key_id`` may, which ends after ``grace`` seconds.

    Raises `ClientError` 404 `key_not_found`, 409 `key_not_active`.
    """
    old = _found(connection, key_id)
    if old.state(now) != "active":
        message = f"The key {key_id} is {old.state(now)}: make a new one."
        raise ClientError(message, code="key_not_active", status=409)
    left = None if old.expires_at is None else old.expires_at - now
    made = create_key(connection, KeyOrder(old.name, old.team, old.admin, old.grant, left), now)
    ends = now + grace if old.expires_at is None else min(now + grace, old.expires_at)
    _store(connection, msgspec.structs.replace(old, expires_at=ends, replaced_by=made.record.id))
    return made


def revoke_key(connection: sa.Connection, key_id: str, now: float) -> KeyRecord:
    """End a key at once; again changes nothing. Raises `ClientError` 404 `key_not_found`."""
    old = _found(connection, key_id)
    if old.revoked_at is None:
        old = msgspec.structs.replace(old, revoked_at=now)
        _store(connection, old)
    return old


def _found(connection: sa.Connection, key_id: str) -> KeyRecord:
    row = connection.execute(sa.select(API_KEYS.c.record).where(API_KEYS.c.id == key_id)).one_or_none()
    if row is None:
        raise ClientError("There is no such key.", code="key_not_found", status=404)
    return _decode(row.record)


def _store(connection: sa.Connection, record: KeyRecord) -> None:
    changed = API_KEYS.update().where(API_KEYS.c.id == record.id)
    connection.execute(changed.values(record=_encode(record).decode()))


class KeyDesk:
    """The same from the loop."""

    def __init__(self, database: Database, wall: Callable[[], float]) -> None:
        """``wall`` is Unix time."""
        self._database = database
        self._wall = wall

    async def keys(self) -> Sequence[KeyRecord]:
        """See `list_keys`."""
        return await self._database.call(list_keys)

    async def create(self, order: KeyOrder) -> NewKey:
        """See `create_key`."""
        return await self._database.call(create_key, order, self._wall())

    async def rotate(self, key_id: str, grace: float) -> NewKey:
        """See `rotate_key`."""
        return await self._database.call(rotate_key, key_id, grace, self._wall())

    async def revoke(self, key_id: str) -> KeyRecord:
        """See `revoke_key`."""
        return await self._database.call(revoke_key, key_id, self._wall())
