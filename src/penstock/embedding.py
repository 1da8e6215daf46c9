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

from penstock.assembly.system import System, assemble, reassemble
from penstock.config import BadConfig, Config, check, read_file, secrets_of, with_environment
from penstock.gateway.gateway import Gateway
from penstock.reloading import changes, needs_restart, without_restart
from penstock.server.context import PRINCIPAL, ReloadCounts, Reloaded
from penstock.server.errors import error_response
from penstock.server.exchanges import new_request_id
from penstock.server.sockets import refuse
from penstock.streams.stream import Stream
from penstock.telemetry.logs import tell_exception
from penstock.telemetry.redaction import Redactor
from penstock.types.calls import Call, OnDisconnect
from penstock.types.errors import ClientError, PenstockError, StorageError
from penstock.types.events import AnyEvent, Closed, TextDelta
from penstock.types.principals import ANONYMOUS, Principal
from penstock.types.requests import GenerationRequest, Message

log = structlog.get_logger(__name__)

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
        self._identify = identify
        self._environ = environ
        self._file: Path | None = None
        self._config = self._completed(config)
        self._system: System | None = assemble(_nowhere(self._config), environ)
        self._parts = self._system.parts
        self._redactor = Redactor(secrets_of(self._config))
        self._reloading = asyncio.Lock()
        self._reloads = self._refused = 0
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
        made = cls(config, identify=identify, environ=environ)
        made._file = Path(path)
        return made

    def __repr__(self) -> str:
        """Say whether it runs."""
        return f"<Penstock {'running' if self._gateway else 'not running'}>"

    @property
    def config(self) -> Config:
        """The configuration, as it was last read."""
        return self._config

    def _completed(self, config: Config | None) -> Config:
        surroundings = with_environment(Config(), self._environ)
        if config is None:
            config = surroundings
        elif not config.store.path:
            store = msgspec.structs.replace(config.store, path=surroundings.store.path)
            config = msgspec.structs.replace(config, store=store)
        # Requests are in the log of whoever serves them.
        return msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, access=False))

    # --- its life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the store and take calls; raises `StorageError` and the like when that cannot be."""
        if self._gateway is not None:
            raise RuntimeError("This Penstock is running already.")
        _log_as_the_host_does(self._redactor)
        # A gateway has one life. Whoever enters again (test clients do) gets another one.
        if self._system is None:
            self._system = await asyncio.to_thread(assemble, _nowhere(self._config), self._environ)
            self._parts = self._system.parts
        if self._file is not None:
            self._system.context.reload = _Reloads(self)
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
            await gateway.drain(self._config.listen.drain)
        finally:
            await gateway.__aexit__(kind, error, trace)

    async def reload(self, config: Config | None = None) -> Reloaded:
        """Go on by ``config``, or by the file that this was made from, as it is now; say what changed.

        What is under way goes on as it began. What `Reloaded.needs_restart` names is as it was until the
        next life. Raises `BadConfig`, and `PenstockError` when something new cannot be opened; then
        everything is as it was.
        """
        self._running()
        async with self._reloading:
            try:
                if config is None:
                    if self._file is None:
                        raise TypeError("This Penstock was made from no file: pass the new configuration.")
                    read = await asyncio.to_thread(read_file, self._file, self._environ)
                    config = with_environment(read, self._environ)
                done = await self._go_on_by(self._completed(config))
            except PenstockError as error:
                self._refused += 1
                log.error("config_refused", cause="call", problems=error.message.splitlines())
                raise
            self._reloads += 1
            log.info("config_reloaded", cause="call", changed=list(done.changed))
            if done.needs_restart:
                log.warning("restart_needed", settings=list(done.needs_restart))
            return done

    async def _go_on_by(self, config: Config) -> Reloaded:
        if problems := check(config):
            raise BadConfig(problems)
        system = self._system
        if system is None:  # it was left meanwhile
            raise RuntimeError("This Penstock is not running.")
        before, after = self._parts, _nowhere(config)
        self._redactor.learn(secrets_of(config))
        changed = tuple(changes(before.config, after))
        kept = tuple(name for name in changed if needs_restart(name))
        usable = without_restart(before.config, after)
        self._parts = await reassemble(system, usable, self._environ, before)
        self._config = config
        return Reloaded(changed, kept)

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


class _Reloads:
    """Reloading for administrators, over HTTP."""

    def __init__(self, penstock: Penstock) -> None:
        self._penstock = penstock

    async def reload(self) -> Reloaded:
        try:
            return await self._penstock.reload()
        except BadConfig as bad:
            message = f"The configuration cannot be used, and the old one stays:\n{bad.message}"
            raise ClientError(message, code="bad_config", status=422) from None

    def statistics(self) -> ReloadCounts:
        return ReloadCounts(self._penstock._reloads, self._penstock._refused)


def _nowhere(config: Config) -> Config:
    """Return ``config`` without an address: others may well be where we would listen."""
    return msgspec.structs.replace(config, listen=msgspec.structs.replace(config.listen, port=0))


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
