"""The source of every provider that is reached over HTTP, and what such providers have in common.

Owns the way from an exchange's callbacks to the gateway's sink: a body is passed on as it comes, in
steps of bounded size; an error response is collected, then read by the dialect; a redirect is an error,
since following one would hand credentials to somebody else. While a step's rest waits, or the gateway
has paused the source, the exchange is paused too and an end that came early waits behind the rest.

No dialect's field and no provider's name enters here, and nothing in here waits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeAlias

import msgspec

from penstock.providers.provider import Credential, Sink
from penstock.types.errors import PenstockError, UpstreamError, WireError
from penstock.upstream.http1 import Exchange, Origin, Request, ResponseSink, split_url

MAX_STEP_BYTES: Final = 16 * 1024
"""Body bytes in one step. A read that holds more is taken in several turns of the loop."""

MAX_ERROR_BYTES: Final = 64 * 1024
"""Bytes of an error response that are read; the rest is not waited for."""

ERROR_BODY_TIMEOUT: Final = 5.0
"""Seconds that the body of an error response may take after its head."""

Complete: TypeAlias = Callable[[Request], Awaitable[Request]]

ParseError: TypeAlias = Callable[[int, Mapping[str, str], bytes], UpstreamError]


def redirected(status: int) -> UpstreamError:
    """A redirect is not followed: it would take the credentials along."""
    return UpstreamError(
        f"The provider answered with a redirect ({status}), which is not followed. "
        "Its base URL should be the final address.",
        code="upstream_redirect",
        retryable=False,
        upstream_status=status,
    )


def parse_base_url(url: str) -> tuple[Origin, str]:
    """Return the origin and the path, without a slash at its end, under which a provider's routes are.

    Raises `ValueError` with a sentence for whoever wrote the URL, which it does not quote.
    """
    try:
        origin, path = split_url(url.strip())
    except ValueError:
        raise ValueError(
            "The base URL cannot be used: expected http(s)://host[:port][/path], "
            "with credentials in api_key or headers."
        ) from None
    if "?" in path or "#" in url:
        raise ValueError("The base URL must not have a query or a fragment.")
    return origin, path.rstrip("/")


class Opener(Protocol):
    """The part of `penstock.upstream.pool.Pool` that a source needs."""

    async def open(
        self,
        request: Request,
        sink: ResponseSink,
        *,
        head_timeout: float | None = None,
        connect_timeout: float | None = None,
    ) -> Exchange:
        """Send the request; its response comes through ``sink``. Raises `UpstreamError`."""
        ...


class HttpSource:
    """One request and its response. It is the `ResponseSink` of its own exchange."""

    __slots__ = (
        "_closed",
        "_connect_timeout",
        "_error_body",
        "_exchange",
        "_exchange_paused",
        "_final",
        "_head_timeout",
        "_headers",
        "_parse_error",
        "_paused",
        "_pool",
        "_request",
        "_rest",
        "_sink",
        "_status",
        "_timer",
        "_turn",
        "complete",
        "conceal",
        "key",
    )

    def __init__(
        self,
        pool: Opener,
        request: Request,
        parse_error: ParseError,
        *,
        head_timeout: float | None = None,
        key: Credential | None = None,
        conceal: Callable[[str], str] | None = None,
    ) -> None:
        """``parse_error`` makes an error of a response with status 400 or above (see `Dialect`); ``key`` is
        the one that ``request`` carries; ``conceal``: see `Conversation`. ``complete``, if set before `open`,
        adds to the request what could not be had before: a token that must be fetched."""
        self.key = key
        self.complete: Complete | None = None
        self.conceal = conceal
        self._pool = pool
        self._request = request
        self._parse_error = parse_error
        self._head_timeout = head_timeout
        self._connect_timeout: float | None = None
        self._sink: Sink | None = None
        self._exchange: Exchange | None = None
        self._exchange_paused = False
        self._closed = False
        self._paused = False
        self._rest = bytearray()  # of one read, while it is taken in steps or the gateway has paused us
        self._final: tuple[PenstockError | None] | None = None  # the outcome, waiting behind the rest
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._error_body: bytearray | None = None
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Show where the request goes and how far it is; no header and no body."""
        state = "closed" if self._closed else str(self._status or "waiting")
        return f"<HttpSource {self._request.method} {self._request.origin.host} {state}>"

    # Source

    def add_header(self, name: str, value: str) -> None:
        """Before `open`: send one more header; ``value`` must be fit for one."""
        self._request = msgspec.structs.replace(
            self._request, headers=(*self._request.headers, (name, value))
        )

    def limit(self, connect: float | None, head: float | None) -> None:
        """Before `open`: replace the pool's own limits where one is given."""
        self._connect_timeout = connect
        if head is not None:
            self._head_timeout = head

    async def open(self, sink: Sink) -> None:
        """Send the request. Raises `UpstreamError` when that cannot be done."""
        if self._closed:
            return
        self._sink = sink
        if self.complete is not None:
            self._request = await self.complete(self._request)
            if self._sink is not sink:
                return  # it was aborted meanwhile
        exchange = await self._pool.open(
            self._request, self, head_timeout=self._head_timeout, connect_timeout=self._connect_timeout
        )
        self._bind(exchange)
        self._request = msgspec.structs.replace(self._request, body=b"", headers=())  # both are sent

    def pause(self) -> None:
        """Deliver nothing until `resume`."""
        self._paused = True
        self._regulate()

    def resume(self) -> None:
        """Deliver again, from the loop's next turn."""
        if self._paused:
            self._paused = False
            self._continue()

    def abort(self) -> None:
        """Close the connection and forget what was not delivered. Idempotent."""
        self._close()

    # ResponseSink

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response begins; ``headers`` have lower-case names."""
        if self._sink is None:
            return
        self._status = status
        self._headers = headers
        if status >= 400:
            self._error_body = bytearray()
            self._timer = asyncio.get_running_loop().call_later(ERROR_BODY_TIMEOUT, self._judge)
        elif status >= 300:
            self._finish(redirected(status))
        elif headers.get("content-type", "").lower().startswith("text/html"):
            self._finish(WireError("The provider answered with a web page. Check its base URL."))

    def on_body(self, data: bytes) -> None:
        """What one read of the socket brought of the body."""
        sink = self._sink
        if sink is None or self._final is not None:
            return
        if self._error_body is not None:
            self._error_body += data[: MAX_ERROR_BYTES - len(self._error_body)]
            if len(self._error_body) >= MAX_ERROR_BYTES:
                self._judge()
        elif self._rest or self._paused or len(data) > MAX_STEP_BYTES:
            self._rest += data
            if self._turn is None:
                self._step()
            self._regulate()
        else:
            sink.feed(data)

    def on_end(self) -> None:
        """The response is whole."""
        self._exchange = None  # its connection may serve somebody else from now on
        if self._error_body is not None:
            self._judge()
        else:
            self._settle(None)

    def on_error(self, error: PenstockError) -> None:
        """The connection failed. An error response that was under way still says more than that."""
        self._exchange = None
        if self._error_body is not None:
            self._judge()
        else:
            self._settle(error)

    # steps

    def _bind(self, exchange: Exchange) -> None:
        # A server may have answered, and we may be done with its answer, while we were still sending.
        if self._closed:
            exchange.abort()
        else:
            self._exchange = exchange
            self._regulate()

    def _step(self) -> None:
        """Deliver the next thing that waits: a step of the rest, or the outcome."""
        self._turn = None
        sink = self._sink
        if sink is None or self._paused:
            return
        if self._rest:
            data = bytes(self._rest[:MAX_STEP_BYTES])
            del self._rest[:MAX_STEP_BYTES]
            sink.feed(data)
            self._continue()
        elif self._final is not None:
            self._deliver(sink, self._final[0])

    def _continue(self) -> None:
        if self._sink is None or self._paused:
            return
        if self._turn is None and (self._rest or self._final is not None):
            self._turn = asyncio.get_running_loop().call_soon(self._step)
        self._regulate()

    def _regulate(self) -> None:
        """Let the exchange read exactly while nobody wants it to wait."""
        exchange = self._exchange
        wanted = self._paused or bool(self._rest)
        if exchange is None or wanted == self._exchange_paused:
            return
        self._exchange_paused = wanted
        if wanted:
            exchange.pause()
        else:
            exchange.resume()

    # outcomes

    def _judge(self) -> None:
        """Read what there is of an error response."""
        body, self._error_body = self._error_body, None
        assert body is not None
        self._finish(self._parse_error(self._status, self._headers, bytes(body)))

    def _finish(self, error: PenstockError) -> None:
        """The rest of the response does not matter: close it, and say why."""
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.abort()
        self._settle(error)

    def _settle(self, error: PenstockError | None) -> None:
        """The outcome is known; it waits behind what has not been delivered."""
        self._cancel_timer()
        if self._sink is None or self._final is not None:
            return
        self._final = (error,)
        if not self._rest and not self._paused:
            self._deliver(self._sink, error)

    def _deliver(self, sink: Sink, error: PenstockError | None) -> None:
        self._close()
        if error is None:
            sink.end()
        else:
            sink.fail(error)

    def _close(self) -> None:
        self._closed = True
        self._sink = None
        self._rest = bytearray()
        self._error_body = None
        self._cancel_timer()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
