"""Penstock inside another ASGI application: ``app.mount("/llm", Penstock.from_file("penstock.yaml"))``.

The public API for Python. It is what `penstock serve` puts around the application, without the server:
it opens and closes the gateway in the host's lifespan, says who is calling when the host knows, and
keeps a gateway without keys on loopback. The server is the host's; what that costs stands in
docs/guide/embedding.md. In the same process generations can also be started and read without HTTP.
"""

import asyncio
import ipaddress
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import msgspec
import structlog
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from penstock.assembly.system import System, assemble
from penstock.config import Config, read_file, secrets_of, with_environment
from penstock.gateway.gateway import Gateway
from penstock.server.context import PRINCIPAL
from penstock.server.errors import error_response
from penstock.server.exchanges import new_request_id
from penstock.server.sockets import refuse
from penstock.streams.stream import Stream
from penstock.telemetry.logs import tell_exception
from penstock.telemetry.redaction import Redactor
from penstock.types.calls import Call, OnDisconnect
from penstock.types.errors import ClientError, StorageError
from penstock.types.events import AnyEvent, Closed, TextDelta
from penstock.types.principals import ANONYMOUS, Principal
from penstock.types.requests import GenerationRequest, Message

Identify: TypeAlias = Callable[[Scope], str | None]
"""Says who a request comes from, by what the host's middleware left in the scope; None for nobody."""

ROUTE: Final = "python"
"""Where generations come in that no HTTP request started."""


class Generation:
    """One answer, as a stream in the log: iterate over its events as often as you like, from the start.

    The last event is a `Closed`, which says how it ended.
    """

    def __init__(self, gateway: Gateway, stream: Stream, principal: Principal) -> None:
        """Made by `Penstock.start`."""
        self._gateway = gateway
        self._stream = stream
        self._principal = principal

    def __repr__(self) -> str:
        """Say which, and how far."""
        return f"<Generation {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """The stream's id: HTTP readers of the same principal find it at ``/v1/streams/{id}/events``."""
        return self._stream.id

    @property
    def status(self) -> str:
        """``open``, or how it ended."""
        return self._stream.state

    async def __aiter__(self) -> AsyncIterator[AnyEvent]:
        """Yield each event once it is stored, to the terminal one.

        Raises `StorageError` when the store can be read no more.
        """
        stream, after = self._stream, 0
        left = self._gateway.attach_reader(stream, self._principal)
        try:
            while True:
                await stream.wait_beyond(after)
                for entry in await stream.read(after):
                    after = entry.seq
                    yield entry.event
                    if type(entry.event) is Closed:
                        return
                if after >= stream.committed and (stream.lost or not stream.is_open):
                    raise StorageError
        finally:
            left()

    async def text(self) -> str:
        """Wait for the end and return the answer's text (of its first choice), however it ended."""
        return "".join([e.delta async for e in self if type(e) is TextDelta and not e.index])

    async def cancel(self) -> None:
        """Stop it; the provider's socket is closed when this returns. Does nothing after the end."""
        await self._gateway.cancel(self.id, self._principal)


class Penstock:
    """The gateway as an ASGI application. Run it by `lifespan` or as an async context manager."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        identify: Identify | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Build what ``config`` asks for, and open nothing yet; raises `BadConfig`.

        Without ``config``, the defaults and the environment count, as for `penstock serve`. Of its
        `listen` part the server's settings (address, port, connections) mean nothing here.
        ``identify``: who owns what a request starts, instead of API keys.
        """
        surroundings = with_environment(Config(), environ)
        if config is None:
            config = surroundings
        elif not config.store.path:
            store = msgspec.structs.replace(config.store, path=surroundings.store.path)
            config = msgspec.structs.replace(config, store=store)
        # Requests are in the log of whoever serves them.
        config = msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, access=False))
        self.config: Final = config
        self._identify = identify
        self._environ = environ
        nowhere = msgspec.structs.replace(config.listen, port=0)  # others may well be where we would listen
        self._system: System | None = assemble(msgspec.structs.replace(config, listen=nowhere), environ)
        self._gateway: Gateway | None = None
        self._lifespan = Router(lifespan=self.lifespan)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        identify: Identify | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """As `penstock serve --config path` reads it: the file, then the environment."""
        config = with_environment(read_file(Path(path), environ), environ)
        return cls(config, identify=identify, environ=environ)

    def __repr__(self) -> str:
        """Say whether it runs."""
        return f"<Penstock {'running' if self._gateway else 'not running'}>"

    # --- its life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the store and take calls; raises `StorageError` and the like when that cannot be."""
        if self._gateway is not None:
            raise RuntimeError("This Penstock is running already.")
        _log_as_the_host_does(Redactor(secrets_of(self.config)))
        # A gateway has one life. Whoever enters again (test clients do) gets another one.
        if self._system is None:
            self._system = await asyncio.to_thread(assemble, self.config, self._environ)
        gateway = self._system.gateway
        await gateway.__aenter__()
        self._gateway = gateway
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no more calls, let runs end for `listen.drain` seconds, interrupt the rest, close."""
        gateway, self._gateway, self._system = self._gateway, None, None
        if gateway is None:
            return
        try:
            await gateway.drain(self.config.listen.drain)
        finally:
            await gateway.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Run as long as ``app``: `FastAPI(lifespan=penstock.lifespan)`."""
        async with self:
            yield

    # --- over HTTP -------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; the server may also run this object as its whole application."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        self._running()
        if self._system is None:  # cannot be while it runs
            raise RuntimeError
        scope = dict(scope)  # what we put into it is not the host's
        if scope["type"] in ("http", "websocket"):
            if self._identify is not None:
                name = self._identify(scope)
                scope[PRINCIPAL] = Principal(name) if name else None
            elif not self._wants_key() and not _on_loopback(scope):
                error = ClientError(
                    "This gateway has no key configured, so it answers on loopback addresses only. "
                    "Configure a key.",
                    code="host_not_allowed",
                    status=403,
                )
                if scope["type"] == "websocket":
                    await refuse(error, scope, receive, send)
                else:
                    await error_response(error, new_request_id())(scope, receive, send)
                return
        await self._system.app(scope, receive, send)

    # --- in this process -------------------------------------------------------------------------

    async def start(
        self,
        request: str | Sequence[Message] | GenerationRequest,
        *,
        model: str = "",
        principal: str = ANONYMOUS.id,
        on_disconnect: OnDisconnect = "continue",
        ttl: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Generation:
        """Start a generation; its stream is stored when this returns, and nobody has been asked yet.

        ``request``: the user's words, a conversation, or all that a request can say (``model`` is for
        the first two; without it, the default model). ``principal`` owns the stream: its HTTP readers
        find it too. Raises `ClientError` (no such model), `GatewayError` (full, draining), `StorageError`.
        """
        gateway = self._running()
        if isinstance(request, str):
            request = [Message("user", request)]
        if not isinstance(request, GenerationRequest):
            request = GenerationRequest(model or self._default_model(), tuple(request), stream=True)
        owner = Principal(principal)
        call = Call(
            principal=owner,
            route=ROUTE,
            request=request,
            request_id=new_request_id(),
            on_disconnect=on_disconnect,
            ttl=ttl,
            metadata=metadata,
        )
        started = await gateway.start(call)
        if on_disconnect != "cancel":  # with that, the reader is about to come
            gateway.leave_alone(started.stream)
        return Generation(gateway, started.stream, owner)

    async def find(self, stream: str, *, principal: str = ANONYMOUS.id) -> Generation:
        """Return a generation that was started before, here or over HTTP.

        Raises `ClientError`: 404 `stream_not_found`, 410 `stream_gone`.
        """
        gateway, owner = self._running(), Principal(principal)
        return Generation(gateway, await gateway.find(stream, owner), owner)

    def _wants_key(self) -> bool:
        return self._system is not None and self._system.context.guard.wants_key

    def _default_model(self) -> str:
        return self._system.context.default_model if self._system else ""

    def _running(self) -> Gateway:
        if self._gateway is None:
            raise RuntimeError(
                "Penstock is not running: write FastAPI(lifespan=penstock.lifespan), or "
                "`async with penstock:` in a lifespan of your own."
            )
        return self._gateway


def _on_loopback(scope: Scope) -> bool:
    """Say whether the connection came in on a loopback address; names and unix sockets say nothing."""
    host, _ = scope.get("server") or ("", None)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # then `Host` must be one of our names


def _log_as_the_host_does(redact: Redactor) -> None:
    """Hand log events to the standard library's loggers, unless the host uses structlog itself."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            tell_exception,
            structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False),
            lambda _, __, line: redact(str(line)),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
