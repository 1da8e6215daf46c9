"""Google's access tokens for Vertex AI, by google-auth.

Owns the way to a token: a service account's file, or what Google's own tools would find, such as a federated
workload's or a machine's identity; in a thread, since that asks other servers. Keeping and renewing a token
is `penstock.providers.tokens`'s.

google-auth is an extra (`penstock[vertex]`): only who is configured for it loads this module.
"""

from datetime import UTC, datetime
from typing import Any, Final

import google.auth
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from penstock.providers.lookup import Lookup
from penstock.types.errors import UpstreamError

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

MIN_LIFE: Final = 60.0
"""Seconds."""


class GoogleTokens:
    """Where tokens come from. ``file``: a service account's; empty for what Google's own tools would find."""

    def __init__(self, file: str = "") -> None:
        """Nothing is looked for yet."""
        self._file = file
        self._lookup = Lookup(self._fetch)

    async def fetch(self) -> tuple[str, float]:
        """Return a token and the seconds that it lives. Raises `UpstreamError`."""
        try:
            return await self._lookup.get()
        except TransportError:
            raise UpstreamError(
                "Google's server of tokens could not be reached.", code="upstream_unreachable", retryable=True
            ) from None
        except (GoogleAuthError, OSError, ValueError) as error:
            if getattr(error, "retryable", False):
                raise UpstreamError(
                    "Google's server of tokens could not give one now.", code="upstream_error", retryable=True
                ) from None
            raise UpstreamError(
                "There are no Google credentials that hold: name a file (credentials_file, or "
                "GOOGLE_APPLICATION_CREDENTIALS), or give this machine a service account "
                f"({type(error).__name__}).",
                code="invalid_api_key",
                status=401,
                retryable=False,
            ) from None

    def _fetch(self) -> tuple[str, float]:
        if self._file:
            load: Any = service_account.Credentials.from_service_account_file
            found = load(self._file, scopes=SCOPES)
        else:
            found, _ = google.auth.default(scopes=SCOPES)
        found.refresh(Request())
        if not found.token:
            raise ValueError("no token")
        if found.expiry is None:
            return found.token, MIN_LIFE
        life = (found.expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        return found.token, max(life, MIN_LIFE)
