"""How a request is let in where that is more than a key: signed, or with a token that is fetched first.

Owns the two roles between an endpoint and whoever knows how: a *signer* for each provider, and a *signature*
for each request, made when the request is sent and told how that went. No vendor enters.
"""

from typing import Protocol

from penstock.types.errors import PenstockError
from penstock.upstream.http1 import Request


class Signature(Protocol):
    """What one request is let in by. It is a `penstock.providers.provider.Credential`."""

    @property
    def secret(self) -> str:
        """What of it must not be quoted in an error; empty before `complete`."""
        ...

    async def complete(self, request: Request) -> Request:
        """Return ``request`` with its credentials. Raises `UpstreamError` where there are none."""
        ...

    def worked(self) -> None:
        """The provider answers."""
        ...

    def failed(self, error: PenstockError) -> bool:
        """Say whether ``error`` was the credential's, and another one can be had."""
        ...


class Signer(Protocol):
    """Makes signatures for one provider."""

    def use(self) -> Signature:
        """Return one for the next request; nothing is fetched yet."""
        ...
