"""AWS's signature (version 4), with the credentials that AWS's own tools would find.

Owns the way to credentials: the environment, a profile, a container's or a machine's own. botocore looks
for them, and renews those that expire; since that may ask other servers, it does so in a thread. What is
signed is the address, the body, the time and what kind of content it is: nothing that a proxy may change.

botocore is an extra (`penstock[bedrock]`): only who is configured for it loads this module.
"""

import asyncio
from typing import Final

import botocore.session
import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from penstock.providers.lookup import PATIENCE, RENEWING, Lookup
from penstock.types.errors import PenstockError, UpstreamError
from penstock.upstream.http1 import Request

SERVICE: Final = "bedrock"

SPARE: Final = 30.0
"""Seconds that credentials must still hold to be used while new ones are looked for."""

_FAILURES: Final = (BotoCoreError, ClientError, OSError, RuntimeError, ValueError, KeyError)
"""What botocore's ways to credentials raise: a role that is refused is no `BotoCoreError`, and new ones that
have ended already are a `RuntimeError`."""

_SIGNED: Final = frozenset(("content-type",))
_MADE: Final = ("authorization", "x-amz-date", "x-amz-security-token")


class AwsSigner:
    """See the module's head. ``profile``: a name in AWS's own files; empty for their usual order."""

    def __init__(self, region: str, profile: str = "") -> None:
        """Read AWS's own files, where there is a profile; credentials are looked for at the first use. Raises
        `ValueError` for a profile that does not exist."""
        self._region = region
        self._session = botocore.session.Session(profile=profile or None)
        self._found: Credentials | None = None
        self._last: ReadOnlyCredentials | None = None
        self._lookup = Lookup(self._look)
        if profile:
            try:
                known = self._session.available_profiles
            except BotoCoreError as error:
                raise ValueError(f"AWS's own files cannot be read: {error}") from None
            if profile not in known:
                raise ValueError(f"AWS's own files have no profile {profile!r}.")

    def __repr__(self) -> str:
        """Show where requests go; no credential."""
        return f"<AwsSigner {self._region}>"

    def use(self) -> "AwsSignature":
        """Return a signature for the next request."""
        return AwsSignature(self)

    async def credentials(self) -> ReadOnlyCredentials:
        """Return credentials that hold now. Raises `UpstreamError`."""
        source = self._found
        if source is not None and not isinstance(source, RefreshableCredentials):
            return source.get_frozen_credentials()  # they never end, so that nobody is asked
        last = self._last
        if source is None or source.refresh_needed(SPARE):
            last = None
        if last is not None and self._lookup.running:
            return last
        try:
            async with asyncio.timeout(PATIENCE if last is None else RENEWING):
                found = await self._lookup.get()
        except (TimeoutError, HTTPClientError):
            if last is not None:
                return last
            raise UpstreamError(
                "Whoever has AWS's credentials did not answer.", code="upstream_unreachable", retryable=True
            ) from None
        except _FAILURES as error:
            raise UpstreamError(
                f"AWS gave no credentials ({type(error).__name__}): its role, profile or machine's identity "
                "should be looked at.",
                code="invalid_api_key",
                status=401,
                retryable=False,
            ) from None
        if found is None or not found.access_key:
            raise UpstreamError(
                "There are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, "
                "or an API key of Bedrock's (api_key).",
                code="invalid_api_key",
                status=401,
                retryable=False,
            )
        return found

    def sign(self, request: Request, credentials: ReadOnlyCredentials) -> Request:
        """Return ``request``, signed."""
        headers = dict(request.headers)
        signed = {name: value for name, value in headers.items() if name in _SIGNED}
        asked = AWSRequest(request.method, f"{request.origin}{request.target}", signed, request.body)
        SigV4Auth(credentials, SERVICE, self._region).add_auth(asked)
        made = {name: asked.headers[name] for name in _MADE if name in asked.headers}
        return msgspec.structs.replace(request, headers=tuple({**headers, **made}.items()))

    def _look(self) -> ReadOnlyCredentials | None:
        if self._found is None:
            self._found = self._session.get_credentials()
        if self._found is None:
            return None
        self._last = self._found.get_frozen_credentials()
        return self._last


class AwsSignature:
    """One request's (`penstock.providers.signing.Signature`)."""

    __slots__ = ("_signer", "secret")

    def __init__(self, signer: AwsSigner) -> None:
        """See `AwsSigner.use`."""
        self._signer = signer
        self.secret = ""

    async def complete(self, request: Request) -> Request:
        """Return ``request``, signed as of now. Raises `UpstreamError` where there are no credentials."""
        credentials = await self._signer.credentials()
        self.secret = credentials.token or ""  # a refusal quotes what was signed
        return self._signer.sign(request, credentials)

    def worked(self) -> None:
        """Nothing to note."""

    def failed(self, error: PenstockError) -> bool:
        """There are no others."""
        return False
