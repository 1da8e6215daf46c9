"""Our HTTP/1.1 protocol: uvicorn's, with the bounds and the short ways that streams need.

Bounds: a request head must arrive within `head_timeout` and `max_head_bytes`, an idle connection
lives `idle_timeout`. Short ways: `Connection.push` hands a chunk of an answer to the transport in
the call itself (no await, no ASGI message), `Connection.cut` ends a body without its last chunk, so
that truncation never looks like success, and `Connection.on_gone` tells at once that a peer left.
The app finds its connection in the scope's extensions under `EXTENSION`; under another ASGI server
there is none and plain `send` is used.

Sockets: `tune` sets what keeps a frozen reader from costing more than its buffer.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

EXTENSION: Final = "penstock.connection"


class HttpSettings(msgspec.Struct, frozen=True):
    """Bounds of a client connection. Seconds and bytes."""

    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    max_head_bytes: int = 64 << 10
    max_connections: int = 20_000
    send_buffer: int = 64 << 10
    send_timeout: float = 30.0


def tune(sock: socket.socket, settings: HttpSettings) -> None:
    """Set the options of a listening socket; connections inherit them.

    A small send buffer keeps a slow reader from hiding an answer in the kernel; the user timeout
    drops a peer that acknowledges nothing.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.send_timeout * 1000))


class Connection:
    """The way from a response to its socket; valid for one request."""

    __slots__ = ("_cycle", "_flow", "_gone", "_transport")

    def __init__(self, cycle: RequestResponseCycle, transport: asyncio.Transport, flow: FlowControl) -> None:
        """Made by `HttpProtocol` for each request."""
        self._cycle = cycle
        self._transport = transport
        self._flow = flow
        self._gone: Callable[[], None] | None = None

    @property
    def gone(self) -> bool:
        """Whether the peer has left."""
        return self._cycle.disconnected

    def push(self, data: bytes) -> bool:
        """Write a chunk of the (chunked) body now; False when the peer is slow or gone, and nothing was."""
        if self._flow.write_paused or self._cycle.disconnected:
            return False
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    async def drained(self) -> None:
        """Return when the transport takes more."""
        await self._flow.drain()

    def cut(self) -> None:
        """Send what was written and close, without ending the body."""
        self._cycle.disconnected = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped."""
        self._cycle.disconnected = True
        self._transport.abort()

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` when the peer leaves; None takes it back."""
        self._gone = callback

    def lost(self) -> None:
        """The protocol's word that the connection is no more."""
        callback, self._gone = self._gone, None
        if callback is not None:
            callback()


class HttpProtocol(HttpToolsProtocol):
    """See the module's head. ``settings`` come with the class that `protocol_class` makes."""

    settings: HttpSettings

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Called by the server for each accepted socket."""
        super().__init__(config, server_state, app_state, _loop)
        self._connection: Connection | None = None
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request head."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the response, if one is going on."""
        self._stop_head_timer()
        super().connection_lost(exc)
        if self._connection is not None:
            self._connection.lost()
            self._connection = None

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head before the parser sees them."""
        if self._head_timer is not None or self._head_bytes:
            self._head_bytes += len(data)
            if self._head_bytes > self.settings.max_head_bytes + 65536:
                self._refuse(b"431 Request Header Fields Too Large", b"The request head is too large.")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A head begins (maybe the second on this connection)."""
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        """Bound the head: its URL."""
        super().on_url(url)
        if len(self.url) > self.settings.max_head_bytes:
            raise ValueError("URL too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Bound the head: names and values are counted as they come."""
        super().on_header(name, value)
        if len(self.headers) > 200:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._stop_head_timer()
        self._head_bytes = 0
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._connection = Connection(cycle, self.transport, self.flow)
        cycle.scope["extensions"] = {EXTENSION: self._connection}  # type: ignore[dict-item]
        super()._start_asgi_task(cycle, app)

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.settings.head_timeout, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(b"408 Request Timeout", b"The request head took too long.")
        else:
            self.transport.abort()

    def _refuse(self, status: bytes, sentence: bytes) -> None:
        self._stop_head_timer()
        self._head_bytes = 0
        if self.transport.is_closing():
            return
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, len(sentence), sentence)
        )
        self.transport.close()


def protocol_class(settings: HttpSettings) -> type[HttpProtocol]:
    """Return the protocol with ``settings``, in the form that uvicorn's configuration takes."""
    return type("ConfiguredHttpProtocol", (HttpProtocol,), {"settings": settings})
