"""What is shown to a gateway: a key, or tokens that are renewed while they are used."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

import httpx

Token: TypeAlias = Callable[[], str | Awaitable[str]]
"""Gives the token that is to be shown from now on. Asked at first, when one was refused, and before one
ends whose end is known."""


class Credential:
    """What is shown to a gateway: a key, or what gives tokens."""

    def __init__(self, key: str | Token) -> None:
        """An empty key is none."""
        self._source = None if isinstance(key, str) else key
        self._token = key if isinstance(key, str) else ""

    @property
    def renews(self) -> bool:
        """Whether there may be another one when this one is refused."""
        return self._source is not None

    async def token(self, *, fresh: bool = False) -> str:
        """Return what is shown now, or (``fresh``) from now on. Raises what the source does."""
        if self._source is not None and (fresh or not self._token):
            given = self._source()
            self._token = await given if isinstance(given, Awaitable) else given
        return self._token


class Bearer(httpx.Auth):
    """A credential on each request; one that is refused is renewed, once."""

    def __init__(self, credential: Credential) -> None:
        """For requests of one gateway only."""
        self._credential = credential

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """As httpx wants it."""
        if not (token := await self._credential.token()):
            yield request
            return
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401 and self._credential.renews:
            request.headers["authorization"] = f"Bearer {await self._credential.token(fresh=True)}"
            yield request
