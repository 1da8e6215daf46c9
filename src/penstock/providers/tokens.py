"""An access token that is fetched, kept and renewed: one for all who ask the provider.

Owns when a new one is fetched: at the first use, some time before the old one ends, or when the provider says
that it takes it no more. Whoever needs a token while one is under way waits for that, but not while an old
one still holds; that one is used, too, when no new one can be had. How one is fetched is the provider's
business. No token is in a `repr`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias

import msgspec

from penstock.providers.lookup import PATIENCE, RENEWING
from penstock.types.errors import PenstockError, UpstreamError
from penstock.upstream.http1 import Request

Add: TypeAlias = Callable[[Request, str], Request]
"""Puts a token into a request."""

EARLY: Final = 300.0
"""Seconds before its end that a token is renewed, or a tenth of its life where that is less."""

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
        if self._lock.locked() and (old := self._held()) is not None:
            return old  # somebody is at it
        async with self._lock:  # a cancelled fetch leaves all as it was, and the next in line fetches
            now = self._clock()
            token = self._token
            if token is not None and now < token.renew_at:
                return token
            if self._failure is not None and now < self._failure[0] + PAUSE:
                return self._old(self._failure[1])
            try:
                async with asyncio.timeout(PATIENCE if self._held() is None else RENEWING):
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
        if (old := self._held()) is not None:
            return old
        raise error

    def _held(self) -> Token | None:
        """Return the token that still holds, whether or not a new one is due."""
        return self._token if self._token is not None and self._clock() < self._token.ends else None


class TokenUse:
    """The token that one attempt uses (`penstock.providers.signing.Signature`). One that is refused is
    dropped, and the attempt is made again with a new one; but not if this one was new already."""

    __slots__ = ("_add", "_began", "_fetched", "_refuses", "_tokens", "secret")

    def __init__(
        self, tokens: Tokens, add: Add, refuses: Callable[[PenstockError], bool], began: float
    ) -> None:
        """``refuses`` says whether an error is about the token; ``began`` is now, by ``tokens``' clock."""
        self._tokens = tokens
        self._add = add
        self._refuses = refuses
        self._began = began
        self._fetched = began
        self.secret = ""

    async def complete(self, request: Request) -> Request:
        """Add the token to ``request``. Raises `UpstreamError`."""
        token = await self._tokens.get()
        self.secret, self._fetched = token.value, token.fetched
        return self._add(request, token.value)

    def worked(self) -> None:
        """The provider answers."""

    def failed(self, error: PenstockError) -> bool:
        """Say whether the token was refused, and a newer one may be taken."""
        if not self.secret or not self._refuses(error):
            return False
        self._tokens.drop(self.secret)
        return self._fetched < self._began


class TokenSigner:
    """Lets requests in by the token of ``tokens`` (`penstock.providers.signing.Signer`)."""

    def __init__(
        self,
        tokens: Tokens,
        clock: Callable[[], float],
        add: Add | None = None,
        refuses: Callable[[PenstockError], bool] | None = None,
    ) -> None:
        """``clock`` is that of ``tokens``. Without ``add`` it is a bearer token, without ``refuses`` a 401 is
        about it."""
        self._tokens = tokens
        self._clock = clock
        self._add = add or bear
        self._refuses = refuses or _is_unauthorized

    def __repr__(self) -> str:
        """Show whether there is a token."""
        return f"<TokenSigner {self._tokens}>"

    def use(self) -> TokenUse:
        """Return the token for the next request; nothing is fetched yet."""
        return TokenUse(self._tokens, self._add, self._refuses, self._clock())


def bear(request: Request, token: str) -> Request:
    """Return ``request`` with ``token`` as its bearer token."""
    return msgspec.structs.replace(request, headers=(*request.headers, ("authorization", f"Bearer {token}")))


def _is_unauthorized(error: PenstockError) -> bool:
    return isinstance(error, UpstreamError) and error.upstream_status == 401
