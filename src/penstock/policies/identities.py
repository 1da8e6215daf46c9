"""Who comes with a credential, whatever kind it is: a key, a JSON Web Token of others, a token of ours.

And whether it is good from where it is used: for this address, on a page of this origin. What its bearer
may ask for is `penstock.policies.access`.
"""

import ipaddress
from typing import Protocol

from penstock.policies import browser_tokens
from penstock.policies.api_keys import FRESHNESS, KeyRing, unknown_key
from penstock.policies.browser_tokens import BrowserTokens
from penstock.policies.jwt_settings import looks_like_one
from penstock.types.errors import ClientError
from penstock.types.keys import id_of
from penstock.types.principals import Principal, Whence


class TokensOfOthers(Protocol):
    """What is needed of `penstock.policies.jwt.Issuers`, which loads cryptography."""

    async def admit(self, token: str, address: str = "") -> Principal:
        """Return who comes with ``token``. Raises `PenstockError`."""
        ...


class Identities:
    """See the module's head."""

    def __init__(self, ring: KeyRing, issuers: TokensOfOthers | None, tokens: BrowserTokens) -> None:
        """Hold the three."""
        self.ring = ring
        self.tokens = tokens
        self._issuers = issuers

    def use(self, issuers: TokensOfOthers | None) -> None:
        """Take the tokens of ``issuers`` from now on."""
        self._issuers = issuers

    @property
    def any(self) -> bool:
        """Whether somebody could come in with something."""
        return self.ring.any or self._issuers is not None

    async def fresh(self, credential: str = "") -> None:
        """Hear of keys that were made elsewhere, once they may have changed. Who comes with the first key
        that there ever was is known by it."""
        if id_of(credential) and not self.ring.any:
            await self.ring.hear()
        else:
            await self.ring.refresh(FRESHNESS)

    async def identify(self, credential: str, whence: Whence) -> Principal:
        """Return who comes with ``credential``.

        Raises `ClientError`: 401 with what is wrong with it, 403 `address_not_allowed` or
        `origin_not_allowed`; `GatewayError` 503 when that cannot be found out now.
        """
        principal = await self._principal(credential, whence.address)
        grant = principal.grant
        if grant.addresses and not _within(whence.address, grant.addresses):
            message = "This key may not be used from this address."
            raise ClientError(message, code="address_not_allowed", status=403)
        if grant.origins and whence.origin.rstrip("/").lower() not in grant.origins:
            message = "This key may be used on pages of its own origins only."
            raise ClientError(message, code="origin_not_allowed", status=403)
        return principal

    async def _principal(self, credential: str, address: str) -> Principal:
        if credential.startswith(browser_tokens.PREFIX):
            principal = self.tokens.admit(credential, address)
            if principal.key and not await self.ring.alive(principal.key):
                raise unknown_key()
            return principal
        if self._issuers is not None and looks_like_one(credential):
            return await self._issuers.admit(credential, address)
        return await self.ring.find(credential, address)


def _within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in ipaddress.ip_network(network, strict=False) for network in networks)
