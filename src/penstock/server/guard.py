"""Who may come in: keys, and what keeps web pages from spending through a gateway without keys.

Without a key configured, the server is for this machine's user alone: it takes requests for its own
names only (a page elsewhere can point its DNS name at 127.0.0.1), from its own pages or configured
origins only, and creating bodies as JSON only. With a key, every route that touches streams wants
it. Keys are kept as SHA-256 hashes.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.types.errors import ClientError
from penstock.types.principals import ANONYMOUS, Principal

LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class GuardSettings(msgspec.Struct, frozen=True):
    """``key_hashes``: SHA-256 in hex, by principal id. ``hosts`` and ``origins``: beyond our own."""

    key_hashes: Mapping[str, str] = {}
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


def hash_key(key: str) -> str:
    """Return what is kept of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def normal_origin(origin: str) -> str:
    """Return ``origin`` as browsers send it, however an operator wrote it."""
    return origin.rstrip("/").lower()


class Guard:
    """Admits requests; immutable."""

    def __init__(self, settings: GuardSettings) -> None:
        """See the module's head."""
        self._keys = {hashed: Principal(name) for name, hashed in settings.key_hashes.items()}
        self._hosts = LOCAL_NAMES | {host.lower() for host in settings.hosts}
        self._origins = frozenset(map(normal_origin, settings.origins))

    @property
    def wants_key(self) -> bool:
        """Say whether a key is configured, without which nobody comes in."""
        return bool(self._keys)

    def admit(self, headers: Mapping[str, str], *, spends: bool) -> Principal:
        """Return who is calling. ``spends``: the request may start or stop a generation.

        Raises `ClientError`: 401 `missing_api_key` or `invalid_api_key`, 403 `host_not_allowed`,
        `origin_not_allowed`, `cross_site_request` or `unasked_request`.
        """
        if not self._keys:
            self._check_host(headers.get("host", ""))
            if spends:
                self._check_asked(headers)
            if spends or not _opens_page(headers):
                self._check_origin(headers)
            return ANONYMOUS
        key = _presented_key(headers)
        if not key:
            message = "This gateway wants an API key: send it as 'Authorization: Bearer <key>'."
            raise ClientError(message, code="missing_api_key", status=401)
        hashed = hash_key(key)
        for known, principal in self._keys.items():
            if hmac.compare_digest(known, hashed):
                return principal
        raise ClientError("This API key is not known.", code="invalid_api_key", status=401)

    def admit_identified(
        self, principal: Principal | None, headers: Mapping[str, str], *, spends: bool
    ) -> Principal:
        """As `admit`, where the application around us says who is calling, maybe by a cookie.

        Raises `ClientError`: 401 `not_identified`, 403 `origin_not_allowed`, `cross_site_request` or
        `unasked_request`.
        """
        if principal is None:
            message = "This application does not know who is calling: sign in first."
            raise ClientError(message, code="not_identified", status=401)
        if spends:
            self._check_asked(headers)
        if spends or not _opens_page(headers):
            self._check_origin(headers)
        return principal

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Without keys, refuse names that are not ours, also to the bearer of a link."""
        if not self._keys:
            self._check_host(headers.get("host", ""))

    def _check_host(self, host: str) -> None:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name.lower() not in self._hosts:
            raise ClientError(
                f"This gateway has no key configured, so it answers to its local names only, not to "
                f"'{name[:100]}'. Configure a key, or add the name to allowed_hosts.",
                code="host_not_allowed",
                status=403,
            )

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin is not None:
            if not self._is_ours(origin, headers):
                raise ClientError(
                    f"Pages of '{origin[:100]}' may not use this gateway. Add it to allowed_origins "
                    f"(--allow-origin) if they should.",
                    code="origin_not_allowed",
                    status=403,
                )
            return
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise _cross_site()

    def _check_asked(self, headers: Mapping[str, str]) -> None:
        """Refuse what nobody here may have asked for, where neither origin nor site tells."""
        if "prefetch" in headers.get("sec-purpose", "") or headers.get("purpose") == "prefetch":
            message = "This was asked for ahead of its user, who may never want it; it starts nothing."
            raise ClientError(message, code="unasked_request", status=403)
        told = "origin" in headers or "sec-fetch-site" in headers
        if not told and headers.get("user-agent", "").startswith("Mozilla/"):
            # An old browser, or one that reached us by plain HTTP under another name than localhost. An
            # image on a page elsewhere looks the same, but cannot show a Referer of ours.
            scheme, _, rest = headers.get("referer", "").partition("://")
            if not self._is_ours(f"{scheme}://{rest.partition('/')[0]}", headers):
                raise _cross_site()

    def _is_ours(self, origin: str, headers: Mapping[str, str]) -> bool:
        if normal_origin(origin) in self._origins:
            return True
        host = headers.get("host", "").lower()
        return bool(host) and origin.lower().partition("://")[2] == host


def _opens_page(headers: Mapping[str, str]) -> bool:
    """Say whether a browser shows the answer as a page of its own: no other page can read it there."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _cross_site() -> ClientError:
    message = "Another site's page may have made this request; it may not use this gateway."
    return ClientError(message, code="cross_site_request", status=403)


def _presented_key(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("x-api-key", "") or headers.get("api-key", "")
