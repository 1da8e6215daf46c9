"""A request that is passed on as it is, and its response: bytes both ways, at the pace of the slower side.

Owns what a provider that passes requests on takes (`Errand`) and gives (`Passage`). Bodies go through in
pieces, and while a client does not take what came, its provider is not read. What is looked at, without
holding anything up, is what the answer says it used. An error response is not passed on but raised, since it
may repeat a credential.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from penstock.providers.http import MAX_ERROR_BYTES, Opener, ParseError, redirected
from penstock.types.errors import UpstreamError
from penstock.types.events import UsageReported
from penstock.upstream.http1 import Exchange, Request
from penstock.wire.passed_usage import UsageReader

HIGH_WATER: Final = 256 * 1024
"""Bytes that wait for the client before the provider is read no further."""

HEAD_TIMEOUT: Final = 300.0
"""Seconds from the last byte of a request to the head of its response: pictures take their time."""


class Errand(NamedTuple):
    """A request to be passed on. ``path`` stands under the provider's address, with its query.

    ``headers`` have lower-case names and hold no credential. ``stream`` takes the place of ``body``.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    length: int | None = None


class Passage:
    """One such request under way. It is the `ResponseSink` of its own exchange."""

    def __init__(self, pool: Opener, request: Request, parse_error: ParseError) -> None:
        """Nothing is sent until `open`."""
        self._pool = pool
        self._request = request
        self._parse_error = parse_error
        self._exchange: Exchange | None = None
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._over = False
        self._error: UpstreamError | None = None
        self._reader = UsageReader("")
        self._news: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        """Show where the request goes and how far it is; no header and no body."""
        request = self._request
        return f"<Passage {request.method} {request.origin} {self._status or 'waiting'} {self._bytes} bytes>"

    async def open(self) -> tuple[int, Mapping[str, str]]:
        """Send the request; return the status and the headers of its response.

        Raises `UpstreamError`, also for a response that is an error or a redirect.
        """
        self._exchange = await self._pool.open(self._request, self, head_timeout=HEAD_TIMEOUT)
        while not self._status and not self._over:
            await self._hear()
        if self._status >= 400:
            raise self._parse_error(self._status, self._headers, await self._beginning())
        if self._status >= 300:
            raise redirected(self._status)
        if not self._status and self._error is not None:
            raise self._error
        return self._status, self._headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises `UpstreamError` when it is not whole."""
        while True:
            while self._waiting:
                piece = self._waiting.popleft()
                self._bytes -= len(piece)
                if self._exchange is not None and self._bytes < HIGH_WATER // 2:
                    self._exchange.resume()
                yield piece
            if self._over:
                if self._error is not None:
                    raise self._error
                return
            await self._hear()

    @property
    def whole(self) -> bool:
        """Whether all of the response came."""
        return self._over and self._error is None

    @property
    def answers(self) -> bool:
        """Whether there is a response that is no error."""
        return 0 < self._status < 300

    @property
    def error(self) -> UpstreamError | None:
        """Why not all of it came; None while it comes."""
        return self._error

    @property
    def usage(self) -> UsageReported | None:
        """What the response said it used; None where it did not say, or not in tokens."""
        return self._reader.usage()

    def add_header(self, name: str, value: str) -> None:
        """Send one more header; before `open`."""
        self._request = msgspec.structs.replace(
            self._request, headers=(*self._request.headers, (name, value))
        )

    def abort(self) -> None:
        """Close the connection, unless the response is whole. Idempotent."""
        if self._exchange is not None and not self._over:
            self._exchange.abort()
        self._waiting.clear()

    async def _beginning(self) -> bytes:
        body = bytearray()
        try:
            async for piece in self.pieces():
                body += piece
                if len(body) >= MAX_ERROR_BYTES:
                    break
        except UpstreamError:
            pass  # what there is of it says more
        self.abort()
        return bytes(body[:MAX_ERROR_BYTES])

    async def _hear(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # ResponseSink

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response begins."""
        self._status, self._headers = status, headers
        if status < 300:
            self._reader = UsageReader(headers.get("content-type", ""))
        self._tell()

    def on_body(self, data: bytes) -> None:
        """What one read of the socket brought."""
        self._waiting.append(data)
        self._bytes += len(data)
        self._reader.feed(data)
        if self._bytes >= HIGH_WATER and self._exchange is not None:
            self._exchange.pause()
        self._tell()

    def on_end(self) -> None:
        """The response is whole."""
        self._over = True
        self._tell()

    def on_error(self, error: UpstreamError) -> None:
        """The response will not be whole."""
        self._over, self._error = True, error
        self._tell()


@runtime_checkable
class PassesOn(Protocol):
    """A provider whose other endpoints can be reached through the gateway."""

    def passage(self, errand: Errand) -> Passage:
        """Return ``errand`` on its way, with the provider's own credential; nothing is sent yet."""
        ...


OnEnd = Callable[[bool], None]
"""Told once whether a response was whole."""
