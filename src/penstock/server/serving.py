"""The server's life: listen, serve, drain, leave.

SIGTERM (and the first Ctrl-C) stops accepting, lets running streams end for up to `drain` seconds,
closes the rest as `interrupted` so that every reader is told, gives those words a moment to go out,
then aborts what is left. A second signal skips the waiting.
"""

import asyncio
import errno
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import msgspec
import structlog
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from penstock.gateway.gateway import Gateway
from penstock.server.addresses import DoorStatistics
from penstock.server.encryption import HANDSHAKE_TIMEOUT, Certificate, TlsSettings
from penstock.server.http import HttpProtocol, HttpSettings, places_of, protocol_class, tune
from penstock.server.responses import Heart
from penstock.server.sockets import FIRST_MESSAGE
from penstock.server.websocket import websocket_class

log = structlog.get_logger(__name__)

BACKLOG = 2048
LAST_WORDS = 1.0
"""Seconds that readers get to take the end of their streams before they are aborted."""


class ServingSettings(msgspec.Struct, frozen=True):
    """Where to listen and how to leave. Seconds."""

    host: str = "127.0.0.1"
    port: int = 8080
    drain: float = 20.0
    drain_on_interrupt: float = 1.0
    http: HttpSettings = HttpSettings()
    tls: TlsSettings | None = None


def listen(settings: ServingSettings) -> list[socket.socket]:
    """Open the listening sockets; raises `OSError` when the port is taken or the address is not ours.

    ``localhost`` listens on both loopback addresses, so that clients that try ``::1`` first find us.
    """
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, address in found:
            # With port 0 the first address gets any, and the others the same.
            port = sockets[0].getsockname()[1] if sockets else settings.port
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            try:
                _listen(sock, (address[0], port, *address[2:]), settings.http)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = error  # a name of ours with an address that this machine does not have
                sockets.pop().close()
        if missing is not None and not sockets:
            raise missing
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen(sock: socket.socket, address: tuple[Any, ...], http: HttpSettings) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    tune(sock, http)
    sock.bind(address)
    sock.listen(BACKLOG)
    sock.setblocking(False)


class Server:
    """Serves one app on given sockets until it is told to stop."""

    def __init__(
        self,
        app: ASGIApp,
        gateway: Gateway,
        heart: Heart,
        sockets: list[socket.socket],
        settings: ServingSettings,
    ) -> None:
        """``gateway`` is entered already; the sockets listen."""
        self._gateway = gateway
        self._heart = heart
        self._sockets = sockets
        self._settings = settings
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._drain = settings.drain
        self._state = ServerState()
        self.places = places_of(settings.http)
        self._config = Config(
            app,
            http=protocol_class(settings.http, self.places),
            ws=websocket_class(settings.http, self.places),
            ws_max_size=FIRST_MESSAGE,
            ws_ping_interval=settings.http.ping,
            ws_ping_timeout=settings.http.send_timeout,
            ws_per_message_deflate=False,  # 40 KB a connection, and no answer shorter than itself
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here depends on a client's address, so none is believed
            backlog=BACKLOG,
        )

    def stop(self, drain: float | None = None) -> None:
        """Begin to leave; a second call skips the waiting."""
        if self._stop.is_set():
            self._hurry.set()
        if drain is not None:
            self._drain = drain
        self._stop.set()

    def statistics(self) -> DoorStatistics:
        """Say how many connections there are, and how many were turned away."""
        return DoorStatistics(len(self._state.connections), self.places.refused, self.places.crowded)

    async def serve(self, ready: Callable[[], None] | None = None, *, signals: bool = True) -> None:
        """Serve until stopped, then drain and leave; calls ``ready`` once connections are accepted.

        ``signals``: stop at SIGTERM and SIGINT; without, only `stop` does it.
        """
        loop = asyncio.get_running_loop()
        self._config.load()
        protocol = self._config.http_protocol_class

        def connection() -> asyncio.Protocol:
            made: HttpProtocol = protocol(config=self._config, server_state=self._state, app_state={})  # type: ignore[assignment, call-arg]
            return made

        certificate = None
        if self._settings.tls is not None:
            certificate = await asyncio.to_thread(Certificate, self._settings.tls)
        options: dict[str, Any] = {"backlog": BACKLOG}
        if certificate is not None:
            options |= {"ssl": certificate.context, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT}
        servers = [await loop.create_server(connection, sock=sock, **options) for sock in self._sockets]
        if signals:
            loop.add_signal_handler(signal.SIGTERM, self.stop)
            loop.add_signal_handler(signal.SIGINT, self.stop, self._settings.drain_on_interrupt)
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._heart.run()), group.create_task(self._tick())]
                if certificate is not None:
                    helpers.append(group.create_task(certificate.watch()))
                if ready is not None:
                    ready()
                await self._stop.wait()
                for server in servers:
                    server.close()
                await self._leave()
                for helper in helpers:
                    helper.cancel()
        finally:
            if signals:
                loop.remove_signal_handler(signal.SIGTERM)
                loop.remove_signal_handler(signal.SIGINT)
            for server in servers:
                server.close()

    async def _leave(self) -> None:
        state = self._state
        log.info("draining", streams=self._gateway.open_streams, seconds=self._drain)
        for connection in list(state.connections):
            connection.shutdown()
        drain = asyncio.ensure_future(self._gateway.drain(self._drain))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            drain.cancel()
            with suppress(asyncio.CancelledError):
                await drain
            await self._gateway.drain(0)
        hurry.cancel()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=LAST_WORDS)
        for connection in list(state.connections):
            connection.transport.abort()  # whoever serves it learns that the client is gone, and ends
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=LAST_WORDS)
        for task in list(state.tasks):
            task.cancel()

    async def _tick(self) -> None:
        """Keep the Date header true."""
        while True:
            self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1.0)
