"""HTTP/1.1 towards providers, push-style: what a socket read holds is given to a sink in that read.

A `Connection` carries one `Exchange` (request and response) at a time. Each read of its socket, of at
most ``read_bytes``, goes through TLS (`penstock.upstream.tls`) and the parser (httptools) to the sink,
with no await, task, timer or queue between; the parser's callbacks only collect. Pausing stops the
next read, so nothing decoded is ever held back, except by a content coding (which is bounded).

Follows RFC 9110 and 9112; "§" below is RFC 9112. Where a body ends decides what its loss means: only
one that lasts until the connection closes (§6.3, rule 8) may end with it, and under TLS only after
close_notify. Which connection takes a request is the pool's business; no address, proxy or connect
timeout enters here.
"""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from penstock.types.errors import ClientError, UpstreamError, WireError, head_timeout, upstream_reset
from penstock.upstream.inflate import CODINGS, Inflater
from penstock.upstream.tls import MAX_RECORD_BYTES, TlsLayer

WRITE_BYTES: Final = 256 * 1024
"""A request is written in pieces of this size, each when the one before has left for the kernel."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_METHOD: Final = re.compile(r"[A-Z]{1,20}")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
_KEEP_ALIVE_TIMEOUT: Final = re.compile(r"timeout=([0-9]{1,6})", re.IGNORECASE)
_OURS: Final = frozenset({"content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer"})
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, no seconds


class Origin(NamedTuple):
    """Scheme, host and port of a server. An IPv6 address stands without its brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The host and, where it is not the scheme's own, the port: what ``Host`` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Print the origin as in a URL."""
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> tuple[Origin, str]:
    """Return the origin of an http(s) URL, and its path with the query (``""`` if it has none).

    Raises `ValueError` for any other URL, and for one that carries credentials.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        raise ValueError("expected http(s)://host[:port][/path]")
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if not _TARGET.fullmatch(host):
        raise ValueError("the host has a character that no host has")
    origin = Origin(parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme])
    return origin, parts.path + (f"?{parts.query}" if parts.query else "")


class Request(msgspec.Struct, frozen=True):
    """One request. ``target`` is the path with its query, percent-encoded.

    ``Host``, ``Content-Length`` and ``Accept-Encoding: identity`` are added where ``headers`` has
    none of that name.

    ``stream`` takes the place of ``body``: its pieces are sent as they come, and no faster than the server
    takes them. They have ``length`` bytes in all; None if that is not known. Such a request is sent once.
    """

    method: str
    origin: Origin
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    length: int | None = None


class ResponseSink(Protocol):
    """Where a response goes. Called from the event loop's read callback; promises not to raise.

    Exactly one of `on_end` and `on_error` is called, and nothing after it; after an abort nothing at
    all. All may be called before `Pool.open` has returned: a server may answer a request that it has
    not read to its end.
    """

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The final response begins. Names are in lower case, repeated fields joined by ``", "``.

        Where a content coding is undone, ``content-encoding`` and ``content-length`` are left out.
        """
        ...

    def on_body(self, data: bytes) -> None:
        """The body bytes of one socket read, joined; never empty."""
        ...

    def on_end(self) -> None:
        """The response is whole."""
        ...

    def on_error(self, error: UpstreamError) -> None:
        """The response will not be whole."""
        ...


class ConnectionOwner(Protocol):
    """What a connection tells its pool."""

    def released(self, connection: "Connection") -> None:
        """The response is whole and the connection can take another request."""
        ...

    def closed(self, connection: "Connection") -> None:
        """The connection is gone, or as good as gone; called once."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Its socket is closed."""
        ...

    def resend(self, exchange: "Exchange") -> None:
        """The idle connection that was taken had been closed by the server: send the request anew."""
        ...


class ReadBuffers:
    """The memory that all connections of one event loop read into, one after the other."""

    __slots__ = ("plain", "socket", "tunnel")

    def __init__(self, read_bytes: int) -> None:
        """``read_bytes`` is the most that is taken from a socket at a time."""
        room = read_bytes + 4 * MAX_RECORD_BYTES
        self.socket = memoryview(bytearray(read_bytes))
        self.plain = memoryview(bytearray(room))
        self.tunnel = memoryview(bytearray(room))


def render_head(request: Request, *, proxy_authorization: str | None = None) -> bytes:
    """Return the request line and the header section.

    ``proxy_authorization`` is given (perhaps empty) when the request goes to a proxy for plain http,
    which takes the whole URL as target (§3.2.2). Raises `ClientError` for what HTTP cannot carry:
    nothing is escaped or dropped silently.
    """
    if not _METHOD.fullmatch(request.method):
        raise ClientError("The method of the request is not one that HTTP knows.", param="method")
    if not _TARGET.fullmatch(request.target) or request.target[0] != "/":
        raise ClientError("The path of the request has a character that must be encoded.", param="target")
    through_proxy = proxy_authorization is not None
    target = f"{request.origin}{request.target}" if through_proxy else request.target
    lines = [f"{request.method} {target} HTTP/1.1"]
    names = set()
    for name, value in request.headers:
        lower = name.lower()
        if lower in _OURS or not _NAME.fullmatch(name):
            raise ClientError(f"A request cannot carry the header {name!r}.", param=lower)
        if not _VALUE.fullmatch(value):
            raise ClientError(f"The header {lower} has a character that HTTP does not allow.", param=lower)
        names.add(lower)
        lines.append(f"{name}: {value}")
    if "host" not in names:
        lines.insert(1, f"Host: {request.origin.authority}")
    if "accept-encoding" not in names:
        lines.append("Accept-Encoding: identity")  # compressors hold events back
    if request.stream is not None:
        known = request.length is not None
        lines.append(f"Content-Length: {request.length}" if known else "Transfer-Encoding: chunked")
    elif request.body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(request.body)}")
    if proxy_authorization:
        lines.append(f"Proxy-Authorization: {proxy_authorization}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


def _malformed(origin: Origin, reason: str) -> WireError:
    return WireError(f"{origin} sent a response that cannot be read: {reason}.")


class Exchange:
    """One request and its response, on whichever connection it is. Its owner may do three things:
    `pause`, `resume` and `abort`."""

    __slots__ = (
        "_connection",
        "_early",
        "_finished",
        "_head_told",
        "_inflater",
        "_loop",
        "_opened",
        "_outcome",
        "_paused",
        "_resending",
        "_sink",
        "_step_bytes",
        "_timer",
        "connect_timeout",
        "head",
        "request",
        "stale",
    )

    def __init__(self, request: Request, sink: ResponseSink, *, head: bytes, step_bytes: int) -> None:
        """``head`` is the rendered head of ``request``; ``step_bytes`` bounds what one step of a
        content coding yields. Made by the pool."""
        self.request = request
        self.head = head
        self.stale = False
        self.connect_timeout = 0.0
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._step_bytes = step_bytes
        self._connection: Connection | None = None
        self._inflater: Inflater | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resending: asyncio.Task[None] | None = None
        self._early: UpstreamError | None = None
        self._outcome: tuple[UpstreamError | None] | None = None
        self._head_told = False
        self._opened = False
        self._paused = False
        self._finished = False

    def __repr__(self) -> str:
        """Show what is asked of whom, and how far it is; no header, no query."""
        state = "finished" if self._finished else "paused" if self._paused else "open"
        path = self.request.target.partition("?")[0]
        return f"<Exchange {self.request.method} {self.request.origin}{path} {state}>"

    def pause(self) -> None:
        """Take no more from the socket until `resume`. What the present read holds is still given to
        the sink, its end or an error is not."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        """Call the sink again. It is not called from within."""
        if not self._paused:
            return
        self._paused = False
        if self._finished:
            return
        if self._outcome is not None or (self._inflater is not None and self._inflater.pending):
            self._loop.call_soon(self._proceed)
        elif self._connection is not None:
            self._connection.resume_reading()

    def abort(self) -> None:
        """Close the connection now, before returning; the sink is not called again. Idempotent."""
        self._finished = True
        self._stop_timer()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._resending is not None:
            self._resending.cancel()

    # What follows is for the pool and the connection.

    @property
    def live(self) -> bool:
        """Say whether somebody still waits for this response."""
        return not self._finished and self._outcome is None and self._early is None

    @property
    def opening(self) -> bool:
        """Say whether `Pool.open` has not returned yet: it raises what goes wrong before the head."""
        return not self._opened

    def start_head_timer(self, seconds: float) -> None:
        """Fail the exchange when no final response head has come after ``seconds``."""
        self._timer = self._loop.call_later(seconds, self._head_is_late)

    def opened(self) -> None:
        """The request is written: from here on the sink hears of errors. Raises one that came before."""
        self._opened = True
        if self._early is not None:
            self._finished = True
            raise self._early

    def resend_by(self, task: "asyncio.Task[None]") -> None:
        """Remember the task that sends the request anew, so that an abort can stop it."""
        self._resending = task

    @property
    def paused(self) -> bool:
        """Say whether the sink wants nothing at the moment."""
        return self._paused

    def bind(self, connection: "Connection | None") -> None:
        """The exchange is on ``connection`` now."""
        self._connection = connection

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with ``error``, and its connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._resending is not None:
            self._resending.cancel()
        self.finish(error)

    def start(self, status: int, headers: dict[str, str]) -> Callable[[bytes], None]:
        """Pass on the head; return what takes the body."""
        self._stop_timer()
        self._head_told = True
        # Nothing is sent again from here on, and a long answer need not keep its question.
        self.head, self.request = b"", msgspec.structs.replace(self.request, body=b"")
        coding = headers.get("content-encoding", "").strip().lower()
        if coding in CODINGS:
            self._inflater = Inflater(coding, self._step_bytes)
            headers = {k: v for k, v in headers.items() if k not in ("content-encoding", "content-length")}
        self.tell(self._sink.on_head, status, headers)
        if coding in CODINGS:
            return self._inflate
        if coding not in ("", "identity") and self.live:
            self.fail(_malformed(self.request.origin, f"its content coding is {coding[:40]!r}"))
        return self._sink.on_body

    def tell(self, callback: Callable[..., None], *args: Any) -> None:
        """Call the sink. If it raises against its promise, the connection is aborted, and the loop's
        exception handler gets to see the exception instead of taking it for the socket's."""
        try:
            callback(*args)
        except Exception as exc:
            self.abort()
            raise RuntimeError("a response sink raised an exception") from exc

    def finish(self, error: UpstreamError | None) -> None:
        """No more bytes will come; tell the sink, at once or when it wants to hear."""
        self._connection = None
        self._stop_timer()
        if not self.live:
            return
        if error is not None and not self._opened and not self._head_told:
            self._early = error
            return
        self._outcome = (error,)
        self._settle()

    def _settle(self) -> None:
        inflater = self._inflater
        if self._outcome is None or self._finished or self._paused or (inflater and inflater.pending):
            return
        (error,) = self._outcome
        if error is None and inflater is not None and not inflater.whole:
            error = _malformed(self.request.origin, "its compressed body ends early")
        self._finished = True
        if error is None:
            self.tell(self._sink.on_end)
        else:
            self.tell(self._sink.on_error, error)

    def _inflate(self, data: bytes) -> None:
        inflater = self._inflater
        assert inflater is not None
        try:
            plain = inflater.feed(data)
        except WireError as error:
            inflater.pending = False
            self._outcome = None
            self.fail(error)
            return
        if plain:
            self.tell(self._sink.on_body, plain)
        if inflater.pending and not self._finished:
            if self._connection is not None:
                self._connection.pause_reading()
            self._loop.call_soon(self._proceed)

    def _proceed(self) -> None:
        """Go on where a pause, or the bound of a coding's step, left off."""
        inflater = self._inflater
        if inflater is not None and inflater.pending and not self._finished and not self._paused:
            self._inflate(b"")  # comes back here if that was not all
        if self._finished or self._paused or (inflater is not None and inflater.pending):
            return
        if self._outcome is not None:
            self._settle()
        elif self._connection is not None:
            self._connection.resume_reading()

    def _head_is_late(self) -> None:
        self.fail(head_timeout(str(self.request.origin)))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Callbacks:
    """What the parser calls. ``on_body`` is the append method of a list: a body that comes in many
    chunks costs no Python call for any of them."""

    __slots__ = ("on_body", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete")

    def __init__(self, connection: "Connection", chunks: list[bytes]) -> None:
        self.on_body = chunks.append
        self.on_header = connection.on_header
        self.on_headers_complete = connection.on_headers_complete
        self.on_message_begin = connection.on_message_begin
        self.on_message_complete = connection.on_message_complete


class Connection(asyncio.BufferedProtocol):
    """One connection to an origin, or to it through a proxy; the loop's protocol for its socket.

    Its first exchange is bound before the loop has it: what the server says unasked is an answer too.
    """

    __slots__ = (
        "_body_end",
        "_chunks",
        "_closed",
        "_complete",
        "_drained",
        "_exchange",
        "_feed_data",
        "_headers",
        "_headers_bytes",
        "_keep",
        "_max_head_bytes",
        "_on_body",
        "_owner",
        "_parser",
        "_quiet_bytes",
        "_reading",
        "_sent",
        "_sock",
        "_status",
        "_tls",
        "_told",
        "_transport",
        "_turn",
        "_until_close",
        "_view",
        "idle_until",
        "origin",
        "served",
        "server_idle_timeout",
    )

    def __init__(
        self,
        owner: ConnectionOwner,
        origin: Origin,
        sock: socket.socket,
        tls: TlsLayer | None,
        view: memoryview,
        *,
        max_head_bytes: int,
    ) -> None:
        """``sock`` is connected and ``tls``, if any, has shaken hands. ``view`` is where reads of the
        socket land: shared, so its size bounds a read. ``max_head_bytes`` bounds the response head,
        and any run of bytes without body in it (interim responses, chunk extensions, trailers)."""
        self.origin = origin
        self.served = 0
        self.idle_until = 0.0
        self.server_idle_timeout: float | None = None
        self._owner = owner
        self._sock = sock
        self._tls = tls
        self._view = view
        self._max_head_bytes = max_head_bytes
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._drained: asyncio.Future[None] | None = None
        self._closed = False
        self._reading = True
        self._chunks: list[bytes] = []
        self._parser: HttpResponseParser | None = HttpResponseParser(_Callbacks(self, self._chunks))
        # Seen in the wild, and without danger on a connection that serves one request at a time; other
        # clients allow them too. Obsolete folding and doubtful lengths stay errors.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._feed_data = self._parser.feed_data
        self._reset()

    def _reset(self) -> None:
        """Be ready for a response."""
        self._headers: dict[str, str] = {}
        self._headers_bytes = 0
        self._status = 0  # of the final response, once its head is parsed
        self._told = False  # the sink knows the head
        self._turn = False  # this read holds a head's end, a message's end, or what follows it
        self._complete = False
        self._body_end = 0
        self._until_close = False
        self._keep = False
        self._sent = False
        self._quiet_bytes = 0
        self._on_body: Callable[[bytes], None] | None = None

    def __repr__(self) -> str:
        """Show where it leads and what it is doing."""
        state = "closed" if self._closed else "idle" if self._exchange is None else "active"
        return f"<Connection {self.origin} {'tls ' if self._tls else ''}{state}>"

    # Towards the pool and the exchange.

    @property
    def tls(self) -> TlsLayer | None:
        """The TLS layer, None for plain HTTP."""
        return self._tls

    def bind(self, exchange: Exchange) -> None:
        """Carry ``exchange`` from now on; whatever comes is its response."""
        self._exchange = exchange
        exchange.bind(self)

    def is_usable(self) -> bool:
        """Say whether an idle connection can take a request: asks the kernel whether the server has
        closed it, or sent something unasked, that the loop has not read yet."""
        if self._closed or self._transport is None:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def send(self, exchange: Exchange) -> None:
        """Write the request; return when the kernel has it all, or when the exchange is over.

        A cancellation leaves a part of the request written: abort the exchange then.
        """
        if exchange.paused:
            self.pause_reading()
        request = exchange.request
        for piece in _pieces(exchange.head, request.body):
            if not await self._write(exchange, piece):
                return
        if request.stream is not None:
            async for data in request.stream:
                if not data:
                    continue
                piece = data if request.length is not None else b"%x\r\n%b\r\n" % (len(data), data)
                if not await self._write(exchange, piece):
                    return
            if request.length is None and not await self._write(exchange, b"0\r\n\r\n"):
                return
        self._sent = True

    async def _write(self, exchange: Exchange, piece: bytes | memoryview) -> bool:
        """Write, waiting for the server; say whether the exchange still goes on here."""
        if self._exchange is not exchange or self._transport is None:
            return False
        self._transport.write(piece if self._tls is None else self._tls.encrypt(piece))
        if self._drained is not None:
            await self._drained
        return True

    def pause_reading(self) -> None:
        """Take nothing from the socket."""
        if self._transport is not None and self._reading and not self._closed:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the socket again."""
        if self._transport is not None and not self._reading and not self._closed:
            self._reading = True
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close the connection with a reset, before returning; idempotent. Tells no exchange."""
        if self._closed and self._transport is None:
            return
        try:
            # The end goes out now, whatever else this turn of the loop does; the reset, which also
            # tears down relays that would keep a half-open connection, when the loop closes the socket.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster
        if self._transport is not None:
            self._transport.abort()
        self._shut()

    def fail(self, error: UpstreamError) -> None:
        """Abort the connection; its exchange ends with ``error``."""
        if self._exchange is None:
            self.abort()
        else:
            self._exchange.fail(error)

    def close(self) -> None:
        """Close an idle connection in good order."""
        if self._closed:
            return
        if self._transport is not None:
            if self._tls is not None and (farewell := self._tls.close()):
                self._transport.write(farewell)
            self._transport.close()
        self._shut()

    def _shut(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._exchange = None
        self._on_body = None
        self._wake()
        self._owner.closed(self)

    # Towards the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        transport.set_write_buffer_limits(high=0)  # "written" means: the kernel has it

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the shared buffer for one read."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """One read of the socket: a step."""
        data = self._view[:nbytes]
        tls = self._tls
        if tls is None:
            self._feed(data)
            return
        try:
            data = tls.decrypt(data)
        except UpstreamError as error:
            self.fail(error)
            return
        if (answer := tls.output()) and self._transport is not None:
            self._transport.write(answer)
        if data:
            self._feed(data)
        if tls.closed:
            self._end_of_input(clean=True)

    def eof_received(self) -> bool:
        """The server closed its side."""
        self._end_of_input(clean=self._tls is None or self._tls.closed)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._transport = None
        self._end_of_input(clean=False)
        self._owner.lost(self)
        # The parser holds bound methods of this object: without that cycle it is freed at once.
        self._parser = None
        del self._feed_data

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The kernel took it all."""
        self._wake()

    def _wake(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # The parser's callbacks: they collect.

    def on_message_begin(self) -> None:
        """A message begins: our response, an interim one, or something behind it."""
        if self._complete:
            self._turn = True
            self._keep = False  # bytes after the response: nobody asked for them

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of a head or of a trailer section."""
        if self._status:
            return  # a trailer, or what follows the response
        self._headers_bytes += len(name) + len(value)
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        """A head ends."""
        parser = self._parser
        if self._status or parser is None:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:  # an interim response; the parser itself refuses 101
            self._headers = {}
            return
        self._turn = True
        self._status = status or 1
        coding = self._headers.get("transfer-encoding")
        self._until_close = coding is None and "content-length" not in self._headers
        if self._exchange is not None and self._exchange.request.method == "HEAD":
            self._complete = True  # the parser would wait for the body that the head speaks of

    def on_message_complete(self) -> None:
        """A message ends."""
        if self._status and not self._complete:
            self._turn = True
            self._complete = True
            self._body_end = len(self._chunks)
            self._keep = self._parser is not None and self._parser.should_keep_alive()

    # One step.

    def _feed(self, data: memoryview) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # bytes that nobody asked for
            return
        try:
            self._feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as exc:
            error = _malformed(exchange.request.origin, "it is not HTTP/1.1")
            error.__cause__ = exc
            self._progress(exchange, error)
            return
        if self._turn:
            self._progress(exchange, None)
            return
        chunks = self._chunks
        if chunks:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self._quiet_bytes = 0
            try:
                self._on_body(body)  # type: ignore[misc]
            except Exception as exc:
                exchange.abort()
                raise RuntimeError("a response sink raised an exception") from exc
            return
        self._quiet_bytes += len(data)
        if self._quiet_bytes > self._max_head_bytes:
            self.fail(_too_long(exchange.request.origin))

    def _progress(self, exchange: Exchange, error: UpstreamError | None) -> None:
        """Deliver a read in which a head or a message ended, or that broke the format."""
        self._turn = False
        self._quiet_bytes = 0
        body = b"".join(self._chunks[: self._body_end] if self._complete else self._chunks)
        self._chunks.clear()
        if self._status and not self._told:
            if (unreadable := self._check_head(exchange.request.origin)) is not None:
                self.fail(unreadable)
                return
            self._told = True
            self._on_body = exchange.start(self._status, self._headers)
            if self._exchange is not exchange:
                return
        if body and self._on_body is not None:
            exchange.tell(self._on_body, body)
            if self._exchange is not exchange:
                return
        if self._complete:
            self._finish(exchange)
        elif error is not None:
            self.fail(error)

    def _check_head(self, origin: Origin) -> WireError | None:
        if self._headers_bytes > self._max_head_bytes:
            return _too_long(origin)
        if not 200 <= self._status <= 999:
            return _malformed(origin, "its status is not one that HTTP knows")
        coding = self._headers.get("transfer-encoding")
        if coding is not None and coding.strip().lower() != "chunked":
            return _malformed(origin, f"its transfer coding is {coding[:40]!r}")
        return None

    def _finish(self, exchange: Exchange) -> None:
        """The response is whole. The connection is given back first: the sink may want it at once."""
        self._exchange = None
        self._on_body = None
        if not self._sent:
            self.abort()  # answered before it was read: nobody wants the rest of the request
        elif not self._keep or _asks_to_close(exchange.request):
            self.close()
        else:
            self.server_idle_timeout = _idle_timeout(self._headers)
            self.served += 1
            self._reset()
            self.resume_reading()
            self._owner.released(self)
        exchange.finish(None)

    def _end_of_input(self, *, clean: bool) -> None:
        """The server sends no more; ``clean`` says whether it meant to."""
        if self._closed:
            return
        exchange = self._exchange
        if exchange is None:
            self.close()
            return
        whole = clean and self._told and self._until_close
        untouched = not self._told and not self._quiet_bytes
        self.abort()
        if whole:
            exchange.finish(None)
        elif untouched and self.served:
            # Closed while idle, most likely; nothing came back, so nothing is lost by asking again.
            exchange.bind(None)
            exchange.stale = True
            self._owner.resend(exchange)
        else:
            exchange.finish(upstream_reset(str(exchange.request.origin)))


def _too_long(origin: Origin) -> WireError:
    return _malformed(origin, "its head is longer than the limit")


def _pieces(head: bytes, body: bytes) -> Iterator[bytes | memoryview]:
    if len(head) + len(body) <= WRITE_BYTES:
        yield head + body
        return
    yield head
    view = memoryview(body)
    for start in range(0, len(body), WRITE_BYTES):
        yield view[start : start + WRITE_BYTES]


def _asks_to_close(request: Request) -> bool:
    return any(name.lower() == "connection" and "close" in value.lower() for name, value in request.headers)


def _idle_timeout(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server says it keeps an idle connection (RFC 2068 §19.7.1.1)."""
    found = _KEEP_ALIVE_TIMEOUT.search(headers.get("keep-alive", ""))
    return float(found[1]) if found else None
