"""Access tokens of Microsoft Entra for Azure OpenAI, by azure-identity.

Owns the way to a token: a service principal in the variables of AZURE's own, a workload's or a machine's
identity, the command line's user; azure-identity looks for them in its usual order, in a thread, since that
asks other servers. Keeping and renewing a token is `penstock.providers.tokens`'s.

azure-identity is an extra (`penstock[azure]`): only who is configured for it loads this module.
"""

import time
from typing import Final

from azure.core.exceptions import AzureError
from azure.identity import DefaultAzureCredential

from penstock.providers.lookup import Lookup
from penstock.types.errors import UpstreamError

SCOPE: Final = "https://cognitiveservices.azure.com/.default"

MIN_LIFE: Final = 60.0
"""Seconds."""


class EntraTokens:
    """Where tokens come from."""

    def __init__(self) -> None:
        """Nothing is looked for yet."""
        self._lookup = Lookup(_fetch)

    async def fetch(self) -> tuple[str, float]:
        """Return a token and the seconds that it lives. Raises `UpstreamError`."""
        try:
            return await self._lookup.get()
        except (AzureError, OSError, ValueError) as error:  # an id or an address that is none is the last
            raise UpstreamError(
                "Microsoft Entra gave no token: set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
                "AZURE_CLIENT_SECRET, or give this machine an identity that may use the resource "
                f"({type(error).__name__}).",
                code="invalid_api_key",
                status=401,
                retryable=False,
            ) from None


def _fetch() -> tuple[str, float]:
    # A new one each time: it would give back from a store of its own what the provider has just refused.
    with DefaultAzureCredential() as credential:
        token = credential.get_token(SCOPE)
    return token.token, max(token.expires_on - time.time(), MIN_LIFE)
