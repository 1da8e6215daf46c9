"""Who is at the other end of a connection that lasts: said at first, said again, and checked now and then.

A request is admitted once and is over; a socket outlives keys that are revoked and tokens that end. So
its credential is kept for as long as it is open, and looked at again before it is acted on.
"""

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from penstock.server.context import PRINCIPAL, Context
from penstock.server.guard import presented
from penstock.types.errors import ClientError, PenstockError
from penstock.types.principals import Principal

RECHECK: Final = 30.0
"""Seconds for which it is believed that a credential that was good still is."""


class Caller:
    """``principal`` is None for somebody who has yet to say who it is."""

    __slots__ = ("_address", "_checked", "_ctx", "_headers", "_identified", "_token", "principal")

    def __init__(self, ctx: Context, scope: Scope) -> None:
        """Look at a handshake. Raises `ClientError` for whom nothing would let in, and for pages of other
        sites."""
        connection = HTTPConnection(scope)
        ctx.guard.check_origin(connection.headers)
        self._ctx = ctx
        self._identified = PRINCIPAL in scope
        self._token = presented(connection.headers)
        client = scope.get("client")
        self._address: str = client[0] if client else ""
        # Of the headers, what a credential may be bound to.
        names = (b"origin", b"referer", b"sec-fetch-site")
        self._headers = Headers(raw=[pair for pair in scope["headers"] if pair[0] in names])
        self._checked = asyncio.get_running_loop().time()
        self.principal: Principal | None = None
        try:
            self.principal = ctx.admit(connection, spends=True)
        except ClientError as error:
            if error.code != "missing_api_key":
                raise

    @property
    def who(self) -> Principal:
        """The principal, which must be known."""
        assert self.principal is not None
        return self.principal

    @property
    def takes_tokens(self) -> bool:
        """Whether saying a token changes anything."""
        return not self._identified and self._ctx.guard.wants_key

    @property
    def expires_in(self) -> float | None:
        """Seconds until the credential ends by itself; None where it does not."""
        ends_at = self.principal.grant.ends_at if self.principal else None
        return None if ends_at is None else max(0.0, ends_at - self._ctx.wall())

    async def say(self, token: str) -> None:
        """Take ``token`` as what this caller shows from now on. Raises `PenstockError`."""
        principal = await self._find(token)
        if self.principal is not None and principal.id != self.principal.id:
            message = "The token is of another principal than the socket's: open another socket."
            raise ClientError(message, code="other_principal", status=401)
        self._token = token
        self.principal = principal
        self._checked = asyncio.get_running_loop().time()

    async def check(self) -> None:
        """Make sure that this caller may still come in; raises `PenstockError`."""
        now = asyncio.get_running_loop().time()
        if now - self._checked < RECHECK or not self.takes_tokens:
            return
        await self.say(self._token)

    async def _find(self, token: str) -> Principal:
        found = await self._ctx.guard.authenticate(token, self._headers, self._address) if token else None
        if isinstance(found, PenstockError):
            raise found
        if found is None:
            message = "This gateway wants an API key."
            raise ClientError(message, code="missing_api_key", status=401)
        return found
