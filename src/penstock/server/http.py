"""Our HTTP/1.1 protocol: uvicorn's, with the bounds and the short ways that streams need.

Bounds: a request head must arrive within `head_timeout` and `max_head_bytes`, an idle connection
lives `idle_timeout`. Short ways: `Connection.push` hands a chunk of an answer to the transport in
the call itself (no await, no ASGI message), `Connection.cut` ends a body without its last chunk, so
that truncation never looks like success, and `Connection.on_gone` tells at once that a peer left.
The app finds its connection in the scope's extensions under `EXTENSION`; under another ASGI server
there is none and plain `send` is used.

A client that ends its side of the connection has left, or (socat, nc -N) still wants its answer: TCP
says the same for both. Only writing tells: the peer's kernel answers what nobody reads with a reset.

Sockets: `tune` sets what keeps a frozen reader from costing more than its buffer.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from typing import Any, Final

import httptools
import msgspec
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from penstock.server.addresses import Places
from penstock.server.proxies import Network

log = structlog.get_logger(__name__)

EXTENSION: Final = "penstock.connection"

MAX_HEADERS: Final = 200

PROBES: Final = (0.1, 0.5, 2.0)
"""Seconds between the writes that find out whether a client that ended its side still reads: one makes the
kernel of a client that has left send a reset, the next meets it. Go's client takes five interim responses."""

BAD_REQUEST: Final = (b"400 Bad Request", b"This is not an HTTP/1.1 request.")
TOO_LARGE: Final = (b"431 Request Header Fields Too Large", b"The request head is too large.")
TOO_MANY: Final = (b"429 Too Many Requests", b"There are too many connections from this address.")
TOO_SLOW: Final = (b"408 Request Timeout", b"The request head took too long.")


class HttpSettings(msgspec.Struct, frozen=True):
    """Bounds of a client connection. Seconds and bytes. ``ping``: between pings of a WebSocket.
    ``uncounted``: whose connections no bound of an address is for (`penstock.server.addresses`)."""

    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    max_head_bytes: int = 64 << 10
    max_connections: int = 20_000
    max_connections_per_address: int = 0
    uncounted: tuple[Network, ...] = ()
    max_websockets: int = 20_000
    ping: float = 20.0
    send_buffer: int = 64 << 10
    send_timeout: float = 30.0


UNTOLD: Final = 5.0
"""Seconds that the kernel gives a peer beyond ``send_timeout``: it drops the connection and tells the peer
nothing, while we reset it, so ours shall be first wherever we wait for it."""


def tune(sock: socket.socket, settings: HttpSettings) -> None:
    """Set the options of a listening socket; connections inherit them.

    A small send buffer keeps a slow reader from hiding an answer in the kernel; the user timeout
    drops a peer that acknowledges nothing.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        seconds = settings.send_timeout + UNTOLD
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def unacknowledged(fd: int) -> int:
    """Return how many bytes the peer of a TCP socket has not said to have; 0 where no system tells."""
    if not sys.platform.startswith("linux"):
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    return int(count)


class Latch:
    """`asyncio.Event`'s face for one waiter at a time: the event's own list of waiters takes 700 bytes."""

    __slots__ = ("_set", "_waiter")

    def __init__(self, *, is_set: bool = False) -> None:
        """Begin set or not."""
        self._set = is_set
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        """Whether `wait` returns at once."""
        return self._set

    def set(self) -> None:
        """Let the waiter go on."""
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Make the next one wait."""
        self._set = False

    async def wait(self) -> None:
        """Return once it is set."""
        if not self._set:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class Connection:
    """The way from a response to its socket; valid for one request.

    ``sent`` counts the bytes of the body that were pushed.
    ``probe``, if set, is called to write something harmless once the status line is out, when only
    writing will tell whether the client has left.
    """

    __slots__ = ("_cycle", "_flow", "_gone", "_transport", "probe", "sent")

    def __init__(self, cycle: RequestResponseCycle, transport: asyncio.Transport, flow: FlowControl) -> None:
        """Made by `HttpProtocol` for each request."""
        self.probe: Callable[[], None] | None = None
        self.sent = 0
        self._cycle = cycle
        self._transport = transport
        self._flow = flow
        self._gone: Callable[[], None] | None = None

    @property
    def gone(self) -> bool:
        """Whether the peer has left."""
        return self._cycle.disconnected

    @property
    def started(self) -> bool:
        """Whether the status line is out."""
        return self._cycle.response_started

    @property
    def answered(self) -> bool:
        """Whether the response is whole, or cut: the connection is no more this request's."""
        return self._cycle.response_complete or self._cycle.disconnected

    @property
    def whole(self) -> bool:
        """Whether the response is whole."""
        return self._cycle.response_complete

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer in this process."""
        return self._transport.get_write_buffer_size()

    @property
    def taken(self) -> bool:
        """Whether the peer's system has said that it has all that was written."""
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        return not unacknowledged(self._transport.get_extra_info("socket").fileno())

    def push(self, data: bytes) -> bool:
        """Write a chunk of the (chunked) body now; False when the peer is slow or gone, and nothing was."""
        if self._flow.write_paused or self._cycle.disconnected:
            return False
        size = len(data)
        self.sent += size
        self._transport.write(b"%x\r\n%b\r\n" % (size, data))
        return True

    async def drained(self) -> None:
        """Return when the transport takes more."""
        await self._flow.drain()

    def forget_request(self) -> None:
        """Drop what is not needed once the response has begun: a long answer need not keep its question."""
        scope = self._cycle.scope
        kept = {"type": "http", "method": scope["method"], "http_version": scope["http_version"]}
        self._cycle.scope = kept  # type: ignore[assignment]

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
        if not self._cycle.response_complete:
            self._cycle.disconnected = (
                True  # uvicorn marks the newest request only, which may be a queued one
            )
        callback, self._gone = self._gone, None
        if callback is not None:
            callback()


class _Pipeline(list[Any]):
    """A deque's face for the few requests that may wait; an empty deque takes 760 bytes a connection."""

    def appendleft(self, item: Any) -> None:
        self.insert(0, item)


class HttpProtocol(HttpToolsProtocol):
    """See the module's head. ``settings`` and ``places`` come with the class that `protocol_class` makes."""

    # With these in the instance's dictionary it would outgrow what instances share: 1 KB a connection.
    __slots__ = (
        "_connection",
        "_head_bytes",
        "_head_timer",
        "_in_body",
        "_place",
        "_probe_timer",
        "_refusal",
    )

    settings: HttpSettings
    places: Places

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Called by the server for each accepted socket."""
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = self.settings.idle_timeout  # type: ignore[assignment]
        self.pipeline = _Pipeline()  # type: ignore[assignment]
        self._connection: Connection | None = None
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_body = False
        self._place = ""
        self._probe_timer: asyncio.TimerHandle | None = None
        self._refusal = BAD_REQUEST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request head."""
        super().connection_made(transport)
        self.flow._is_writable_event = Latch(is_set=True)  # type: ignore[assignment]
        if len(self.connections) > self.settings.max_connections:
            self.places.turn_away(self.settings.max_connections)
            transport.abort()
            return
        place = self.places.whose(transport.get_extra_info("peername"))
        if not self.places.has_room(place):
            self._refuse(*TOO_MANY)
            return
        self.places.take(place)
        self._place = place
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the response, if one is going on."""
        self._stop_head_timer()
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        super().connection_lost(exc)
        self._leave_place()
        if self._connection is not None:
            self._connection.lost()
            self._connection = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is not a request, or too long a head, is refused."""
        if self.timeout_keep_alive_task is not None:
            # Whatever ends the idle time, a head must follow: a stray line end would else end it for good.
            self._unset_keepalive_if_required()
            if self._head_timer is None:
                self._expect_head()
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
        else:
            if not self._in_body and self._head_bytes > self.settings.max_head_bytes:
                self._refuse(*TOO_LARGE)

    def _upgrade(self) -> None:
        """The request wants another protocol: WebSocket, if nothing else is being answered."""
        self._stop_head_timer()
        if not self._should_upgrade():
            # Served as if it had not asked (RFC 9110, section 7.8), but what follows cannot be parsed.
            self.cycle.keep_alive = False
        elif self._connection is not None and not self._connection.answered:
            self._refuse(*BAD_REQUEST)
        else:
            self._connection = None
            self._leave_place()  # it takes its own
            self.handle_websocket_upgrade()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: answer what was asked, unless writing shows that it has left.

        A client of HTTP/1.0 is taken to have left, since it must not be sent an interim response.
        """
        if self._connection is None or self._connection.answered or self._in_body:
            return False
        if self.cycle.scope["http_version"] == "1.0":
            return False
        self.cycle.keep_alive = False
        self._probe(PROBES)
        return True

    def on_message_begin(self) -> None:
        """A head begins (maybe the second on this connection)."""
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        """Bound the head: its URL."""
        super().on_url(url)
        self._check_head(len(self.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Bound the head: many small headers are one large head."""
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._check_head(self.settings.max_head_bytes + 1)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._check_head(len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers))
        self._stop_head_timer()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        self._head_bytes = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope is self.scope:  # no other request has begun on this connection
            self.scope, self.headers, self.url = {}, [], b""  # type: ignore[typeddict-item]
        message_event = Latch(is_set=cycle.message_event.is_set())
        cycle.message_event = message_event  # type: ignore[assignment]
        self._connection = Connection(cycle, self.transport, self.flow)
        cycle.scope["extensions"] = {EXTENSION: self._connection}  # type: ignore[dict-item]
        super()._start_asgi_task(cycle, app)

    def _check_head(self, size: int) -> None:
        """Raises `ValueError`, which the parser turns into its own error, when the head is too large."""
        if size > self.settings.max_head_bytes:
            self._refusal = TOO_LARGE
            raise ValueError

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.settings.head_timeout, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._connection is not None and not self._connection.answered:
            self._expect_head()  # its answer must wait anyway
        elif self._head_bytes and not self._in_body:
            self._refuse(*TOO_SLOW)
        else:
            self.transport.close()

    def _leave_place(self) -> None:
        place, self._place = self._place, ""
        self.places.give_back(place)

    def _probe(self, delays: Sequence[float]) -> None:
        """Write what does no harm to a client that ended its side and reads on."""
        self._probe_timer = None
        connection = self._connection
        if connection is None or connection.answered or self.transport.is_closing():
            return
        if not connection.started:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif connection.probe is not None:
            connection.probe()
        if delays:
            self._probe_timer = self.loop.call_later(delays[0], self._probe, delays[1:])

    def _refuse(self, status: bytes, sentence: bytes) -> None:
        """Answer what cannot be served and close; never into an answer that is under way."""
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        address = self.client[0] if self.client else ""
        log.info("request_refused", status=int(status[:3]), why=sentence.decode(), address=address)
        if self._connection is None or self._connection.answered:
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, len(sentence), sentence)
            )
        self.transport.close()


def places_of(settings: HttpSettings) -> Places:
    """Return the connections of each address, for the protocols of one server."""
    return Places(settings.max_connections_per_address, settings.uncounted)


def protocol_class(settings: HttpSettings, places: Places | None = None) -> type[HttpProtocol]:
    """Return the protocol with ``settings``, in the form that uvicorn's configuration takes; ``places`` are
    those that it shares with the server's WebSockets."""
    members = {"settings": settings, "places": places or places_of(settings), "__slots__": ()}
    return type("ConfiguredHttpProtocol", (HttpProtocol,), members)
