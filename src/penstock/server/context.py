"""What every handler needs, in one value: the gateway, the guard, the shared renderings, the bounds."""

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from penstock.gateway.counting import Count, Counter
from penstock.gateway.gateway import Gateway, ModelInfo
from penstock.gateway.presets import Preset
from penstock.gateway.relay import Relay
from penstock.server.activity import Activity
from penstock.server.addresses import DoorStatistics
from penstock.server.audience import Audience
from penstock.server.bodies import arriving
from penstock.server.chats import Chats
from penstock.server.conversations import Conversations
from penstock.server.errors import speaks_gemini
from penstock.server.exchanges import current_request_id
from penstock.server.feed import Feed
from penstock.server.files import File
from penstock.server.guard import Guard, is_near
from penstock.server.links import Links
from penstock.server.profiling import ProfilerDesk, Recorder
from penstock.server.proxies import Network
from penstock.server.renderings import Renderings
from penstock.server.responses import Heart
from penstock.types.allowances import Allowance
from penstock.types.calls import AtRest, Call, OnDisconnect
from penstock.types.errors import ClientError
from penstock.types.keys import KeyOrder, KeyRecord, NewKey, Token, TokenOrder
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest
from penstock.types.usage import Purse, Question, Sum

CURSOR_QUERIES: Final = ("lastEventId", "last_event_id", "after", "starting_after", "offset")
RECONNECT_QUERIES: Final = ("lastEventId", "last_event_id")

PRINCIPAL: Final = "penstock.principal"
"""Where in the scope an application around us says who is calling; None for nobody."""


FOUND: Final = "penstock.found"
"""Where in the scope it stands whose credential came with the request, until it is admitted."""

ADMITTED: Final = "penstock.admitted"
"""Where in the scope it stands who was admitted."""


MetricsAccess: TypeAlias = Literal["admin", "loopback", "open"]
"""Who may read the metrics: administrators; whoever is on this machine; everybody."""


class RouteSettings(msgspec.Struct, frozen=True):
    """What holds for the streams of one route unless a call says otherwise.

    ``on_disconnect`` is None where it depends on whether the client can come back; ``retention`` is in
    seconds, None for the store's.
    """

    on_disconnect: OnDisconnect | None = None
    retention: float | None = None
    at_rest: AtRest | Literal[""] = ""


EVERY_ROUTE: Final = RouteSettings()


class ServerSettings(msgspec.Struct, frozen=True):
    """Bounds of requests and waits. Bytes and seconds.

    ``body_timeout``, ``body_rate``: how slow a body may be (`penstock.server.bodies`).
    ``commit_after``: how long a dialect route keeps its status line back while the provider is silent.
    ``max_append_bytes``: of one append to a publication. ``long_poll``: how long a read of one waits.
    ``heartbeat``: the silence after which a reader gets one; event-source-polyfill gives up after 45.
    ``last_words``: how long an answer that failed stays open after its error, in formats that are cut then.
    ``auth_timeout``: how long a WebSocket may be nobody's; ``max_rids``: generations that one follows.
    ``access_log``: whether each request gets a line of the log.
    """

    max_body_bytes: int = 32 << 20
    body_timeout: float = 30.0
    body_rate: int = 32 << 10
    commit_after: float = 10.0
    heartbeat: float = 15.0
    last_words: float = 0.5
    send_timeout: float = 30.0
    auth_timeout: float = 5.0
    max_rids: int = 256
    max_answer_events: int = 1_000_000
    max_snapshot_chars: int = 16_000_000
    max_append_bytes: int = 8 << 20
    long_poll: float = 20.0
    access_log: bool = True
    routes: Mapping[str, RouteSettings] = {}
    trusted_proxies: tuple[Network, ...] = ()


class Desk(Protocol):
    """Where keys are kept."""

    async def keys(self) -> Sequence[KeyRecord]:
        """Return all keys, oldest first."""
        ...

    async def create(self, order: KeyOrder) -> NewKey:
        """Make a key."""
        ...

    async def rotate(self, key_id: str, grace: float) -> NewKey:
        """Make its successor. Raises `ClientError` 404, 409."""
        ...

    async def revoke(self, key_id: str) -> KeyRecord:
        """End it. Raises `ClientError` 404."""
        ...


class Minter(Protocol):
    """Who makes tokens for pages."""

    def make(self, maker: Principal, order: TokenOrder) -> Token:
        """Raises `ClientError` 403."""
        ...


class Books(Protocol):
    """Where usage is kept."""

    async def summarize(self, question: Question) -> list[Sum]:
        """Return sums over all that was settled."""
        ...

    async def costs_of(self, stream: str) -> dict[int, int | None]:
        """Return what the attempts of a stream cost, in nano-dollars; None where nobody knows the price."""
        ...


class Reloaded(NamedTuple):
    """What a reload did: the settings that changed, and those of them that wait for a restart."""

    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


class ReloadCounts(NamedTuple):
    """How often the configuration was read again: put into force, or refused."""

    used: int
    refused: int


class Reloads(Protocol):
    """Who can read the configuration again."""

    async def reload(self) -> Reloaded:
        """Put the configuration into force as it is now. Raises `ClientError` 422 `bad_config`, which says
        what is wrong; then everything is as it was."""
        ...

    def statistics(self) -> ReloadCounts:
        """Count what happened."""
        ...


class Door(Protocol):
    """Who accepts connections."""

    def statistics(self) -> DoorStatistics:
        """Count who is inside and who was turned away."""
        ...


class Face(NamedTuple):
    """What a reload replaces of the server. ``origins``: whose pages may call from elsewhere (CORS),
    ``credentials``: with their cookies."""

    guard: Guard
    settings: ServerSettings
    default_model: str
    presets: Mapping[str, Preset]
    origins: tuple[str, ...] = ()
    credentials: bool = False


class Context:
    """Built once by the assembly; the app's state."""

    def __init__(
        self,
        gateway: Gateway,
        guard: Guard,
        settings: ServerSettings | None = None,
        *,
        default_model: str = "",
        pages: Mapping[str, File] | None = None,
        counter: Counter,
        presets: Mapping[str, Preset] | None = None,
        relay: Relay,
        desk: Desk | None = None,
        minter: Minter | None = None,
        books: Books | None = None,
        purses: Callable[[], list[Purse]] = list,
        allowance: Callable[[Principal], Allowance | None] | None = None,
        keys_changed: Callable[[], Awaitable[None]] | None = None,
        metrics_access: MetricsAccess = "admin",
        recorder: Recorder | None = None,
        reload: Reloads | None = None,
        activity: Activity | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Hold the parts. ``default_model`` is for ``GET /stream`` without one; ``pages``: see `files`.

        ``books`` keep usage, ``purses`` gives the budgets as they stand; ``allowance`` is what somebody may
        still use; ``desk`` keeps keys, ``minter`` makes tokens for pages, ``keys_changed`` is told when there
        are other keys; ``metrics_access`` says who may read the metrics; ``recorder`` records profiles;
        ``reload`` reads the configuration again; ``activity`` counts what happens, for the dashboard;
        ``wall`` is Unix time.
        """
        self.gateway = gateway
        self.heart = Heart(ServerSettings().heartbeat)
        self.use(Face(guard, settings or ServerSettings(), default_model, presets or {}))
        self.pages = pages or {}
        self.counter = counter
        self.relay = relay
        self.desk = desk
        self.books = books
        self.purses = purses
        self._allowance = allowance
        self.minter = minter
        self.wall = wall
        self.reload = reload
        self.door: Door | None = None
        """Counts connections; None where another server accepts them."""
        self._keys_changed = keys_changed
        self.metrics: Callable[[str], Awaitable[tuple[bytes, str]]] | None = None
        """Gives the metrics and their content type, for a request's ``Accept``; None where there are none."""
        self.metrics_access: MetricsAccess = metrics_access
        self.profiler = ProfilerDesk(recorder)
        self.links = Links(lambda: gateway.store.secret)
        self.renderings = Renderings()
        self.audience = Audience()
        self.feed = Feed(gateway, self.audience, activity) if activity is not None else None
        self.conversations = Conversations()
        self.chats = Chats()
        if self.feed is not None:
            self.heart.pulses.append(self.feed.keep)

    def use(self, face: Face) -> None:
        """Be as ``face`` says to whoever comes from now on."""
        self.guard = face.guard
        self.settings = face.settings
        self.append_bounds = msgspec.structs.replace(
            face.settings, max_body_bytes=face.settings.max_append_bytes
        )
        self.default_model = face.default_model
        self.presets = face.presets
        self.origins, self.credentials = face.origins, face.credentials
        self.heart.use(face.settings.heartbeat)

    async def count(self, principal: Principal, request: GenerationRequest) -> Count:
        """Count the tokens of ``request``, on the route that it would take. Raises as `Counter.count`."""
        return await self.counter.count(Call(principal, request.dialect, request, current_request_id()))

    def route(self, name: str) -> RouteSettings:
        """Return the settings of the route ``name``."""
        return self.settings.routes.get(name, EVERY_ROUTE)

    def allowance(self, scope: Scope) -> Allowance | None:
        """Return how much whoever was admitted may still use; None where that is not limited."""
        if self._allowance is None or (principal := scope.get(ADMITTED)) is None:
            return None
        return self._allowance(principal)

    async def keys_changed(self) -> None:
        """Have the guard know the keys as they are now."""
        if self._keys_changed is not None:
            await self._keys_changed()

    async def identify(self, scope: Scope) -> None:
        """Find out whose credential came with a request or a WebSocket, for `admit`; once, before routing."""
        if PRINCIPAL not in scope:
            headers: Mapping[str, str] = Headers(scope=scope)
            if speaks_gemini(scope) and (key := QueryParams(scope["query_string"]).get("key", "")):
                headers = {**headers, "x-goog-api-key": headers.get("x-goog-api-key") or key}
            scope[FOUND] = await self.guard.identify(headers, _address(scope))

    def admit(self, request: HTTPConnection, *, spends: bool) -> Principal:
        """See `Guard.admit`; whom an application around us has identified needs no key of ours."""
        scope, headers = request.scope, request.headers
        if PRINCIPAL in scope:
            principal = self.guard.admit_identified(scope[PRINCIPAL], headers, spends=spends)
        else:
            address = _address(scope)
            principal = self.guard.admit(headers, scope.get(FOUND), spends=spends, address=address)
        if spends and principal.grant.preset:
            _refuse_beyond_preset(scope, principal.grant.preset)
        scope[ADMITTED] = principal
        return principal

    async def models(self, principal: Principal) -> list[ModelInfo]:
        """Return what ``principal`` may ask for by a model's name: nothing else is shown or hinted at."""
        grant = principal.grant
        if grant.preset:
            return []
        found = await self.gateway.models()
        if not grant.models:
            return [*found]
        return [
            msgspec.structs.replace(model, id=names[0], aliases=tuple(names[1:]))
            for model in found
            if (names := [name for name in (model.id, *model.aliases) if grant.allows_model(name)])
        ]

    def unknown_model(self, principal: Principal, name: str) -> ClientError:
        """Return the error for a name that `models` does not have, with names of it that are like it."""
        return self.gateway.unknown_model(name, principal.grant)

    def admit_admin(self, request: HTTPConnection) -> Principal:
        """As `admit`, of administrators alone. Raises `ClientError` 403 `admin_required`."""
        principal = self.admit(request, spends=True)
        if not principal.admin:
            raise _not_admin()
        return principal

    def admit_operator(self, request: HTTPConnection) -> Principal:
        """As `admit_admin`, for what spends nothing: where no key exists, also whoever is on this machine,
        since the gateway is theirs alone then. Not whom a proxy lets in, nor an application around us."""
        principal = self.admit(request, spends=True)
        if principal.admin:
            return principal
        if PRINCIPAL in request.scope or not self.guard.private:
            raise _not_admin()
        if not is_near(request):
            message = (
                "Without a key this is for whoever is on this machine, and not for whom a proxy lets in."
            )
            raise ClientError(message, code="admin_required", status=403)
        return principal


def _not_admin() -> ClientError:
    message = "This is for administrators: use a key that was made with --admin."
    return ClientError(message, code="admin_required", status=403)


def context(request: Request) -> Context:
    """Return the context of the app that serves ``request``."""
    found: Context = request.app.state.context
    return found


_OF_PRESETS: Final = ("/v1/presets/", "/v1/streams/", "/v1/ws")
"""Where whoever is for one preset alone may do more than look: asking, stopping, following."""


def _refuse_beyond_preset(scope: Scope, preset: str) -> None:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if not path.startswith(_OF_PRESETS):
        message = f"Your token is for the preset '{preset}': POST /v1/presets/{preset}."
        raise ClientError(message, code="preset_not_allowed", status=403)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


async def read_body(request: Request, settings: ServerSettings) -> bytes:
    """Return the request's body; raises `ClientError` 413 or 408 when it is too large or too slow."""
    return b"".join([piece async for piece in arriving(request, settings.max_body_bytes, settings)])


def require_json(headers: Mapping[str, str]) -> None:
    """Refuse a body that is not declared as JSON: a page elsewhere can send any other type unasked."""
    declared = headers.get("content-type", "").split(";")[0].strip().lower()
    if declared != "application/json":
        raise ClientError(
            "Send the body as JSON, with the header 'Content-Type: application/json'.",
            code="unsupported_media_type",
            status=415,
        )


def sha256(*parts: bytes) -> str:
    """Return the hash by which requests are compared."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``; raises `ClientError` `invalid_json`."""
    try:
        return _decode_object(body)
    except RecursionError:
        raise ClientError("The body is nested too deeply.", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"The body is not a JSON object: {str(error)[:200]}."
        raise ClientError(message, code="invalid_json") from None
