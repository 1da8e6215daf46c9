"""Connections to providers: which one a request takes, how many there are, when they go.

A *lane* holds the connections to one origin. The connection used last is used first, so that others
grow old and are closed. A connection that the server closed while it was idle is noticed when it is
taken (a peek at the socket), or else by a loss before the first byte of the response: the request is
then sent once more, on a new connection. Nothing else is ever repeated here; retrying is a decision
that the gateway makes.

Owns its connections and the tasks that send anew; nothing outlives `aclose`. One pool serves one
event loop. Parsing and TLS do not enter.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from penstock.types.errors import UpstreamError, WireError, connect_failed, connect_timeout
from penstock.types.errors import head_timeout as late_answer
from penstock.upstream.dial import Dialler
from penstock.upstream.http1 import (
    Connection,
    Exchange,
    Origin,
    ReadBuffers,
    Request,
    ResponseSink,
    render_head,
)
from penstock.upstream.proxies import Proxies
from penstock.upstream.tls import TlsLayer, create_context

MAX_SESSIONS: Final = 256
"""TLS sessions kept for resumption, one an origin; the oldest goes first."""

SERVER_IDLE_MARGIN: Final = 1.0
"""Seconds by which a connection is given up before the server said that it would."""


class PoolSettings(msgspec.Struct, frozen=True):
    """How the gateway connects to providers. Times in seconds.

    ``connect_timeout`` bounds the wait for a free place, name resolution, TCP, a proxy's tunnel and
    TLS together. ``head_timeout`` runs from the first byte of the request to the end of the response
    head; a reasoning model may think for minutes before it. ``idle_timeout`` is how long an unused
    connection is kept, ``dead_peer_timeout`` how long a peer may leave bytes or probes unanswered.
    ``fetch_timeout`` and ``max_body_bytes`` are for whole small bodies (`Pool.fetch`).
    ``max_head_bytes`` also bounds trailers and chunk extensions. ``read_bytes`` is taken from a
    socket at a time, and so bounds the work of one step. ``ca_file`` (PEM) is trusted besides the
    system's authorities; ``verify=False`` trusts anybody and is for trials only.
    """

    connect_timeout: float = 10.0
    head_timeout: float = 600.0
    idle_timeout: float = 60.0
    fetch_timeout: float = 30.0
    dead_peer_timeout: float = 60.0
    max_connections_per_origin: int = 2000
    max_idle_per_origin: int = 100
    max_waiting_per_origin: int = 1000
    max_head_bytes: int = 64 * 1024
    max_body_bytes: int = 16 * 1024 * 1024
    read_bytes: int = 64 * 1024
    ca_file: str = ""
    verify: bool = True


class PoolStatistics(NamedTuple):
    """Connections now (``connecting``, ``active``, ``idle``), requests ``waiting`` for a place; and
    counts since the start: connections ``opened``, TLS sessions ``resumed``, requests that ``reused``
    a connection, requests ``resent`` because it had gone stale."""

    connecting: int
    active: int
    idle: int
    waiting: int
    opened: int
    resumed: int
    reused: int
    resent: int


class Response(NamedTuple):
    """A whole response. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Lane:
    """What there is for one origin. ``places`` counts connections, those being opened included;
    somebody waits only while all places are taken and none is idle."""

    __slots__ = ("idle", "places", "waiting")

    def __init__(self) -> None:
        self.idle: list[Connection] = []
        self.places = 0
        self.waiting: deque[asyncio.Future[Connection | None]] = deque()


class Pool:
    """Opens exchanges with origins over HTTP/1.1."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """``environ`` is where proxy settings are looked for (`Proxies`); None: no proxies.

        Reads the trusted authorities from disk. Raises `OSError` or `ssl.SSLError` when ``ca_file``
        is not readable.
        """
        self._settings = settings
        self._clock = clock
        self._proxies = Proxies(environ or {})
        self._buffers = ReadBuffers(settings.read_bytes)
        context = create_context(ca_file=settings.ca_file, verify=settings.verify)
        self._dialler = Dialler(context, self._buffers, settings.dead_peer_timeout)
        self._lanes: dict[Origin, _Lane] = {}
        self._sessions: dict[Origin, ssl.SSLSession] = {}
        self._connections: set[Connection] = set()
        self._sockets: set[Connection] = set()
        self._resending: dict[asyncio.Task[None], Exchange] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None
        self._closed = False
        self._opened = self._resumed = self._reused = self._resent = 0

    def __repr__(self) -> str:
        """Show the counts."""
        return f"<Pool {self.statistics()}>"

    def statistics(self) -> PoolStatistics:
        """Count what is there."""
        lanes = self._lanes.values()
        idle = sum(len(lane.idle) for lane in lanes)
        return PoolStatistics(
            connecting=sum(lane.places for lane in lanes) - len(self._connections),
            active=len(self._connections) - idle,
            idle=idle,
            waiting=sum(len(lane.waiting) for lane in lanes),
            opened=self._opened,
            resumed=self._resumed,
            reused=self._reused,
            resent=self._resent,
        )

    async def open(
        self,
        request: Request,
        sink: ResponseSink,
        *,
        head_timeout: float | None = None,
        connect_timeout: float | None = None,
    ) -> Exchange:
        """Send ``request``; return when it is written, with the response still to come to ``sink``.

        The timeouts replace the settings of their names; 0 turns one off. Raises `UpstreamError` when the
        request could not be sent, and then the sink is not called; `ClientError` when it is not valid HTTP.
        Cancelled at any point, it leaves no socket behind.
        """
        proxy = self._proxies.find(request.origin) if request.origin.scheme == "http" else None
        head = render_head(request, proxy_authorization=None if proxy is None else proxy.authorization)
        exchange = Exchange(request, sink, head=head, step_bytes=self._settings.read_bytes)
        exchange.connect_timeout = (
            self._settings.connect_timeout if connect_timeout is None else connect_timeout
        )
        try:
            # What streams cannot be sent again, so no connection will do that may just have been closed.
            connection = await self._take(exchange, fresh=request.stream is not None)
            seconds = self._settings.head_timeout if head_timeout is None else head_timeout
            if seconds and request.stream is None:
                exchange.start_head_timer(seconds)
            await connection.send(exchange)
            if seconds and request.stream is not None and exchange.live:
                exchange.start_head_timer(seconds)
            if exchange.stale and exchange.live:
                await self._send_again(exchange)
            exchange.opened()
        except BaseException:
            exchange.abort()
            raise
        return exchange

    async def fetch(self, request: Request, *, limit: int | None = None) -> Response:
        """Return the whole response to ``request``, whatever its status.

        ``limit``, in bytes of body, replaces the setting ``max_body_bytes``; all of it takes at most
        ``fetch_timeout``. Raises `UpstreamError` as `open` does, and when the response is not whole,
        too long (``upstream_too_large``) or late.
        """
        seconds = self._settings.fetch_timeout
        whole = _Whole(self._settings.max_body_bytes if limit is None else limit)
        try:
            async with asyncio.timeout(seconds):
                exchange = await self.open(request, whole, head_timeout=seconds)
                try:
                    await whole.done
                finally:
                    exchange.abort()
        except TimeoutError:
            raise late_answer(str(request.origin)) from None
        if whole.error is not None:
            raise whole.error
        return Response(whole.status, whole.headers, b"".join(whole.pieces))

    async def aclose(self) -> None:
        """Close all connections. Responses under way fail, requests that wait are refused."""
        self._closed = True
        error = _pool_is_closed()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for lane in self._lanes.values():
            for turn in lane.waiting:
                if not turn.done():
                    turn.set_exception(error)
        resending = self._resending.copy()
        for task in resending:
            task.cancel()
        await asyncio.gather(*resending, return_exceptions=True)
        for exchange in resending.values():
            exchange.finish(error)
        for connection in self._connections.copy():
            connection.fail(error)
        for connection in self._sockets:
            connection.abort()  # one that was closed may still be saying so
        while self._sockets:
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone

    # For connections (`ConnectionOwner`).

    def released(self, connection: Connection) -> None:
        """Give the connection to whoever waits, or keep it."""
        settings = self._settings
        origin = connection.origin
        tls = connection.tls
        if tls is not None and not (tls.resumed and origin in self._sessions) and connection.served == 1:
            self._remember_session(origin, tls)
        seconds = settings.idle_timeout
        if connection.server_idle_timeout is not None:
            seconds = min(seconds, connection.server_idle_timeout - SERVER_IDLE_MARGIN)
        if seconds <= 0 or self._closed:
            connection.close()
            return
        connection.idle_until = self._clock() + seconds
        self._offer(connection)

    def closed(self, connection: Connection) -> None:
        """Forget the connection and free its place."""
        self._connections.discard(connection)
        lane = self._lanes[connection.origin]
        if connection in lane.idle:
            lane.idle.remove(connection)
        self._free_place(connection.origin)

    def lost(self, connection: Connection) -> None:
        """The connection's socket is closed."""
        self._sockets.discard(connection)
        if not self._sockets and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def resend(self, exchange: Exchange) -> None:
        """Send a request again whose idle connection had been closed by the server."""
        if exchange.opening:
            return  # `open` sees it
        # Owned here: `aclose` and the exchange's abort cancel it.
        task = asyncio.get_running_loop().create_task(self._resend(exchange))
        self._resending[task] = exchange
        task.add_done_callback(self._resending.pop)
        exchange.resend_by(task)

    async def _resend(self, exchange: Exchange) -> None:
        try:
            await self._send_again(exchange)
        except UpstreamError as error:
            exchange.finish(error)

    async def _send_again(self, exchange: Exchange) -> None:
        self._resent += 1
        connection = await self._take(exchange, fresh=True)
        await connection.send(exchange)

    # Places.

    async def _take(self, exchange: Exchange, *, fresh: bool) -> Connection:
        """Put ``exchange`` on a connection: an idle one unless ``fresh``, else a new one."""
        origin = exchange.request.origin
        try:
            async with asyncio.timeout(exchange.connect_timeout or None):
                connection = await self._find_place(origin, fresh=fresh)
                if connection is None:
                    return await self._connect(exchange)
        except TimeoutError:
            raise connect_timeout(str(origin)) from None
        connection.bind(exchange)
        self._reused += 1
        return connection

    async def _find_place(self, origin: Origin, *, fresh: bool) -> Connection | None:
        """Return an idle connection, or None and the right to open one.

        Cancelled, it hands on what it may have been given in the same moment.
        """
        while True:
            if self._closed:
                raise _pool_is_closed()
            lane = self._lanes.setdefault(origin, _Lane())
            full = lane.places >= self._settings.max_connections_per_origin
            if lane.idle and (full or not fresh):
                connection = lane.idle.pop(0 if fresh else -1)
                if not fresh and connection.idle_until > self._clock() and connection.is_usable():
                    return connection
                connection.close()
                continue
            if not full:
                lane.places += 1
                return None
            if len(lane.waiting) >= self._settings.max_waiting_per_origin:
                raise _too_many_waiting(origin)
            turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
            lane.waiting.append(turn)
            try:
                given = await turn
            except asyncio.CancelledError:
                if turn in lane.waiting:
                    lane.waiting.remove(turn)
                elif turn.cancelled() or turn.exception() is not None:
                    pass
                elif (given := turn.result()) is None:
                    self._free_place(origin)
                else:
                    self._offer(given)
                raise
            if given is None:
                return None
            if not fresh and given.is_usable():
                return given
            given.close()

    async def _connect(self, exchange: Exchange) -> Connection:
        """Open a connection for ``exchange`` at a place that was reserved for it."""
        origin = exchange.request.origin
        try:
            session = self._sessions.get(origin)
            sock, tls = await self._dialler.dial(origin, self._proxies.find(origin), session)
        except BaseException:
            self._free_place(origin)
            raise
        connection = Connection(
            self, origin, sock, tls, self._buffers.socket, max_head_bytes=self._settings.max_head_bytes
        )
        self._connections.add(connection)
        self._opened += 1
        self._resumed += tls is not None and tls.resumed
        connection.bind(exchange)
        try:
            if self._closed:
                raise _pool_is_closed()
            await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
        except BaseException as exc:
            connection.abort()
            sock.close()
            if isinstance(exc, OSError):
                raise connect_failed(str(origin)) from exc
            raise
        self._sockets.add(connection)
        return connection

    def _offer(self, connection: Connection) -> None:
        """Hand an unused connection to whoever has waited longest, else put it with the idle ones."""
        lane = self._lanes[connection.origin]
        while lane.waiting:
            turn = lane.waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        lane.idle.append(connection)
        if len(lane.idle) > self._settings.max_idle_per_origin:
            lane.idle[0].close()  # what was used last is the least likely to be stale
        self._sweep_later()

    def _free_place(self, origin: Origin) -> None:
        lane = self._lanes[origin]
        while lane.waiting:
            turn = lane.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        lane.places -= 1
        if not lane.places:
            del self._lanes[origin]

    def _remember_session(self, origin: Origin, tls: TlsLayer) -> None:
        session = tls.session
        if session is None:
            return
        self._sessions.pop(origin, None)
        self._sessions[origin] = session
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    # Idle connections: one timer for all.

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            delay = self._settings.idle_timeout / 4
            self._sweeper = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._clock()
        idle = [connection for lane in self._lanes.values() for connection in lane.idle]
        for connection in idle:
            if connection.idle_until <= now:
                connection.close()
        if any(lane.idle for lane in self._lanes.values()):
            self._sweep_later()


class _Whole:
    """A sink that keeps a bounded body."""

    def __init__(self, limit: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: UpstreamError | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.pieces: list[bytes] = []
        self._room = limit

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers

    def on_body(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room >= 0:
            self.pieces.append(data)
        elif self.error is None:
            self.on_error(_too_large())

    def on_end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def on_error(self, error: UpstreamError) -> None:
        self.error = error
        self.on_end()


def _too_large() -> WireError:
    return WireError("The provider's answer is longer than the limit.", code="upstream_too_large")


def _too_many_waiting(origin: Origin) -> UpstreamError:
    return UpstreamError(
        f"Too many requests wait for a connection to {origin}.",
        code="upstream_busy",
        status=503,
        retry_after=1,
    )


def _pool_is_closed() -> UpstreamError:
    return UpstreamError(
        "The gateway is stopping and has closed its connections.",
        code="upstream_closed",
        status=503,
        retryable=False,
    )
