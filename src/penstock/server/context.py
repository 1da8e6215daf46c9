"""What every handler needs, in one value: the gateway, the guard, the shared renderings, the bounds."""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from starlette.requests import Request

from penstock.gateway.counting import Counter
from penstock.gateway.gateway import Gateway
from penstock.server.conversations import Conversations
from penstock.server.files import File
from penstock.server.guard import Guard
from penstock.server.links import Links
from penstock.server.renderings import Renderings
from penstock.server.responses import Heart
from penstock.types.calls import AtRest, OnDisconnect
from penstock.types.errors import ClientError
from penstock.types.principals import Principal

CURSOR_QUERIES: Final = ("lastEventId", "last_event_id", "after", "starting_after", "offset")
RECONNECT_QUERIES: Final = ("lastEventId", "last_event_id")

PRINCIPAL: Final = "penstock.principal"
"""Where in the scope an application around us says who is calling; None for nobody."""


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

    ``commit_after``: how long a dialect route keeps its status line back while the provider is silent.
    ``heartbeat``: the silence after which a reader gets one; event-source-polyfill gives up after 45.
    """

    max_body_bytes: int = 32 << 20
    body_timeout: float = 60.0
    commit_after: float = 10.0
    heartbeat: float = 15.0
    send_timeout: float = 30.0
    max_answer_events: int = 1_000_000
    max_snapshot_chars: int = 16_000_000
    routes: Mapping[str, RouteSettings] = {}


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
    ) -> None:
        """Hold the parts. ``default_model`` is for ``GET /stream`` without one; ``pages``: see `files`."""
        self.gateway = gateway
        self.guard = guard
        self.settings = settings or ServerSettings()
        self.default_model = default_model
        self.pages = pages or {}
        self.counter = counter
        self.links = Links(lambda: gateway.store.secret)
        self.renderings = Renderings()
        self.conversations = Conversations()
        self.heart = Heart(self.settings.heartbeat)

    def route(self, name: str) -> RouteSettings:
        """Return the settings of the route ``name``."""
        return self.settings.routes.get(name, EVERY_ROUTE)

    def admit(self, request: Request, *, spends: bool) -> Principal:
        """See `Guard.admit`; whom an application around us has identified needs no key of ours."""
        if PRINCIPAL in request.scope:
            return self.guard.admit_identified(request.scope[PRINCIPAL], request.headers, spends=spends)
        return self.guard.admit(request.headers, spends=spends)


def context(request: Request) -> Context:
    """Return the context of the app that serves ``request``."""
    found: Context = request.app.state.context
    return found


def new_request_id() -> str:
    """Return an id for a request, for headers and logs."""
    return "req_" + secrets.token_hex(12)


async def read_body(request: Request, settings: ServerSettings) -> bytes:
    """Return the request's body; raises `ClientError` 413 or 408 when it is too large or too slow."""
    too_large = ClientError(
        f"The request body is larger than {settings.max_body_bytes} bytes.", code="body_too_large", status=413
    )
    if int(request.headers.get("content-length", "0") or 0) > settings.max_body_bytes:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for piece in request.stream():
                size += len(piece)
                if size > settings.max_body_bytes:
                    raise too_large
                pieces.append(piece)
    except TimeoutError:
        raise ClientError("The request body took too long.", code="body_timeout", status=408) from None
    return b"".join(pieces)


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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"The body is not a JSON object: {str(error)[:200]}."
        raise ClientError(message, code="invalid_json") from None
