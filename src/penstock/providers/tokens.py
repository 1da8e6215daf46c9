"""An access token that is fetched, kept and renewed: one for all who ask the provider.

Owns when a new one is fetched: at the first use, some time before the old one ends, or when the provider says
that it takes it no more. Whoever needs a token while one is under way waits for that; an old one that still
holds is used when no new one can be had. How one is fetched is the provider's business. No token is in a
`repr`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from penstock.types.errors import PenstockError, UpstreamError

EARLY: Final = 300.0
"""Seconds before its end that a token is renewed, or a tenth of its life where that is less."""

PATIENCE: Final = 30.0
"""Seconds that fetching a token may take."""

PAUSE: Final = 1.0
"""Seconds after a failure in which the next who ask are told the same."""


class Token(NamedTuple):
    """A token, when it was fetched and when it ends, by the clock of its `Tokens`."""

    value: str
    fetched: float
    ends: float

    @property
    def renew_at(self) -> float:
        """When a new one is due."""
        return self.ends - min(EARLY, (self.ends - self.fetched) / 10)

    def __repr__(self) -> str:
        """Show when it ends."""
        return f"<Token until {self.ends:.0f}>"


class Tokens:
    """The token of one provider. ``fetch`` returns a token and the seconds that it lives."""

    def __init__(self, fetch: Callable[[], Awaitable[tuple[str, float]]], clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds. Nothing is fetched yet."""
        self._fetch = fetch
        self._clock = clock
        self._token: Token | None = None
        self._failure: tuple[float, PenstockError] | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        """Show whether there is one."""
        return f"<Tokens {self._token}>"

    @property
    def known(self) -> str:
        """The token as far as there is one; empty for none. It may have ended."""
        return self._token.value if self._token is not None else ""

    async def get(self) -> Token:
        """Return a token that holds. Raises `UpstreamError` where none can be had."""
        if (token := self._token) is not None and self._clock() < token.renew_at:
            return token
        async with self._lock:  # a cancelled fetch leaves all as it was, and the next in line fetches
            now = self._clock()
            token = self._token
            if token is not None and now < token.renew_at:
                return token
            if self._failure is not None and now < self._failure[0] + PAUSE:
                return self._old(self._failure[1])
            try:
                async with asyncio.timeout(PATIENCE):
                    value, life = await self._fetch()
            except TimeoutError:
                return self._failed(
                    UpstreamError("The provider gave no access token in time.", code="timeout", status=504)
                )
            except PenstockError as error:
                return self._failed(error)
            now = self._clock()
            self._token = Token(value, now, now + life)
            self._failure = None
            return self._token

    def drop(self, token: str) -> None:
        """The provider does not take ``token``: it is used no more."""
        if self._token is not None and self._token.value == token:
            self._token = None

    def _failed(self, error: PenstockError) -> Token:
        self._failure = (self._clock(), error)
        return self._old(error)

    def _old(self, error: PenstockError) -> Token:
        if self._token is not None and self._clock() < self._token.ends:
            return self._token
        raise error
