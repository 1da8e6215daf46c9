"""Signed links: the right to read or to cancel one stream for a while, as a token in a URL.

For what cannot send a header: a bare EventSource on a gateway with keys, `sendBeacon`, somebody
else's browser. A token is ``<scope>.<expiry>.<mac>``, an HMAC-SHA256 by the store's secret over
scope, stream and expiry; so it is bound to its stream, needs no storage, and ends with the folder
that the stream is in. Nothing here logs one.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from penstock.types.errors import ClientError
from penstock.types.principals import Principal

LinkScope: TypeAlias = Literal["read", "cancel"]

MAX_TTL: Final = 30 * 86_400.0
DEFAULT_TTL: Final = 3_600.0
"""Seconds that a link works."""

_TOKEN: Final = re.compile(r"(read|cancel)\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


class Link(NamedTuple):
    """A token, and the Unix second at which it ends."""

    token: str
    expires_at: int


class Links:
    """Makes and checks tokens."""

    def __init__(self, secret: Callable[[], bytes], wall: Callable[[], float] = time.time) -> None:
        """``secret`` is asked once the store is open; ``wall`` is Unix time in seconds."""
        self._secret = secret
        self._wall = wall

    def make(self, stream: str, scope: LinkScope, ttl: float) -> Link:
        """Return a token for ``stream`` that works for ``ttl`` seconds (at most `MAX_TTL`)."""
        expires_at = int(self._wall() + min(ttl, MAX_TTL))
        return Link(f"{scope}.{expires_at}.{self._mac(stream, scope, expires_at)}", expires_at)

    def admit(self, token: str, stream: str, scope: LinkScope) -> Principal:
        """Return the bearer of ``token``, who wants ``scope`` on ``stream``.

        Raises `ClientError`: 403 `invalid_link` when it was not made for this, `link_expired`.
        """
        found = _TOKEN.fullmatch(token)
        if found is None or not self._genuine(found, stream) or found[1] != scope:
            message = "This link does not allow that. Ask whoever gave it to you for a new one."
            raise ClientError(message, code="invalid_link", status=403, param="token")
        if self._wall() >= int(found[2]):
            message = "This link has expired. Ask whoever gave it to you for a new one."
            raise ClientError(message, code="link_expired", status=403, param="token")
        return Principal("link", stream)

    def _genuine(self, token: re.Match[str], stream: str) -> bool:
        return hmac.compare_digest(token[3], self._mac(stream, token[1], int(token[2])))

    def _mac(self, stream: str, scope: str, expires_at: int) -> str:
        said = f"{scope}\n{stream}\n{expires_at}".encode()
        mac = hmac.digest(self._secret(), said, hashlib.sha256)
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")
