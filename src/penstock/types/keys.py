"""An API key as it is kept: everything about it but the key.

A key is ``pk_<id>_<secret>``: the id (10 characters) is public and finds the record; the secret is 43
characters of base64url, 256 random bits. So SHA-256 is enough to keep it by: there is nothing to guess,
and a slow hash, which protects what people think up, would only cost every request a tenth of a second.
"""

import hashlib
import hmac
import re
import secrets
from typing import Final, NamedTuple

import msgspec

from penstock.types.principals import Grant, Principal

_ALPHABET: Final = "0123456789abcdefghijkmnpqrstuvwxyz"
_KEY: Final = re.compile(r"pk_([0-9a-z]{10})_[A-Za-z0-9_-]{43}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}")
"""What a principal may be called."""


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key. ``name`` is its principal, which several may share; times are Unix seconds."""

    id: str
    name: str
    hashed: str
    team: str = ""
    admin: bool = False
    grant: Grant = Grant()
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    replaced_by: str = ""

    def __repr__(self) -> str:
        """Without the hash."""
        return f"KeyRecord({self.id}, {self.name}, {self.state(0.0)})"

    def state(self, now: float) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def principal(self, address: str = "") -> Principal:
        """Return who comes with this key."""
        grant = self.grant
        if self.expires_at is not None:
            grant = msgspec.structs.replace(grant, ends_at=self.expires_at)
        return Principal(
            self.name, key=self.id, team=self.team, admin=self.admin, grant=grant, address=address
        )


class NewKey(NamedTuple):
    """A key, for the only time that it is seen, and its record."""

    key: str
    record: KeyRecord


class KeyOrder(msgspec.Struct, frozen=True):
    """What a new key shall be; ``ttl`` in seconds."""

    name: str
    team: str = ""
    admin: bool = False
    grant: Grant = Grant()
    ttl: float | None = None


class TokenOrder(msgspec.Struct, frozen=True):
    """What a token for a page shall be good for. ``user`` names whom the page is for; ``spend`` is in
    nano-dollars, ``ttl`` in seconds; ``once``: one call."""

    user: str = ""
    models: tuple[str, ...] = ()
    preset: str = ""
    origins: tuple[str, ...] = ()
    spend: int | None = None
    ttl: float = 900.0
    once: bool = False


class Token(NamedTuple):
    """A token for a page, who comes with it, and when it ends (Unix seconds)."""

    token: str
    principal: Principal
    expires_at: float


def hash_key(key: str) -> str:
    """Return what is kept of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def same(hashed: str, key: str) -> bool:
    """Say whether ``key`` is the one that was hashed, in a time that tells nothing."""
    return hmac.compare_digest(hashed, hash_key(key))


def new_key() -> tuple[str, str]:
    """Return a key's id, and the key."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    return key_id, f"pk_{key_id}_{secrets.token_urlsafe(32)}"


def id_of(key: str) -> str:
    """Return the id in a key of ours; empty when it is none."""
    found = _KEY.fullmatch(key)
    return found[1] if found else ""
