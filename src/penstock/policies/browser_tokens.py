"""Tokens for pages: a back end exchanges its key for one, so that no key ever reaches a browser.

A token is ``pt_<what it allows>.<mac>``: JSON in base64url and an HMAC-SHA256 over it by the store's
secret. So nothing is stored for it, and it ends with its time, with the key that it was made with, or
with the data folder. It never allows more than its maker may, and no token makes another.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from penstock.types.errors import ClientError
from penstock.types.keys import Token, TokenOrder
from penstock.types.principals import OF, Grant, Principal

PREFIX: Final = "pt_"
MAX_TTL: Final = 86_400.0
"""Seconds that a token works at most."""

MAX_TOKEN: Final = 8_192

_TOKEN: Final = re.compile(r"pt_([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")
_PURPOSE: Final = b"browser token\n"


class _Said(msgspec.Struct, frozen=True, array_like=True):
    principal: Principal
    maker: str
    expires_at: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Said).decode


class BrowserTokens:
    """Makes and checks tokens."""

    def __init__(self, secret: Callable[[], bytes], wall: Callable[[], float]) -> None:
        """``secret`` is asked once the store is open; ``wall`` is Unix time."""
        self._secret = secret
        self._wall = wall

    def make(self, maker: Principal, order: TokenOrder) -> Token:
        """Return a token for ``order``. Raises `ClientError` when ``maker`` may not give that away."""
        grant = maker.grant
        if grant.account or maker.stream or OF in maker.id:
            message = "A token cannot be exchanged for another: use the API key, in a back end."
            raise ClientError(message, code="key_required", status=403)
        for model in order.models:
            concrete = "*" not in model and "?" not in model and "[" not in model
            if grant.models and model not in grant.models and not (concrete and grant.allows_model(model)):
                message = f"Your key may not use '{model[:100]}', so its tokens may not either."
                raise ClientError(message, code="model_not_allowed", status=403, param="models")
        if grant.preset and order.preset != grant.preset:
            message = f"Your key is for the preset '{grant.preset}' alone."
            raise ClientError(message, code="preset_not_allowed", status=403, param="preset")
        number = secrets.token_urlsafe(9)
        expires_at = self._wall() + min(order.ttl, MAX_TTL)
        if grant.ends_at is not None:
            expires_at = min(expires_at, grant.ends_at)
        principal = Principal(
            f"{maker.id}{OF}{order.user or number}",
            key=maker.key,
            team=maker.team,
            grant=Grant(
                models=order.models or grant.models,
                routes=grant.routes,
                origins=order.origins or grant.origins,
                addresses=(),  # a page comes from its reader's address, not from its back end's
                preset=order.preset,
                once=order.once,
                spend=order.spend,
                account=f"token:{number}",
                ends_at=expires_at,
            ),
        )
        said = base64.urlsafe_b64encode(_encode(_Said(principal, maker.key, expires_at))).rstrip(b"=")
        return Token(f"{PREFIX}{said.decode()}.{self._mac(said)}", principal, expires_at)

    def admit(self, token: str, address: str = "") -> Principal:
        """Return who comes with ``token``. Raises `ClientError` 401 `invalid_token`, `expired_token`."""
        found = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN else None
        if found is None or not hmac.compare_digest(found[2], self._mac(found[1].encode())):
            raise ClientError("This token is not one of ours.", code="invalid_token", status=401)
        said = _decode(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        if self._wall() >= said.expires_at:
            raise ClientError("This token has expired: get a new one.", code="expired_token", status=401)
        return msgspec.structs.replace(said.principal, address=address)

    def _mac(self, said: bytes) -> str:
        mac = hmac.digest(self._secret(), _PURPOSE + said, hashlib.sha256)
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")
