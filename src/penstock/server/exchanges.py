"""One HTTP request and its answer, as the log tells them: whose id is on everything, and what came of it.

The id is the client's own (`X-Request-ID`) where it sent a good one, else one of ours; it is on the answer,
in errors, in the call and in every line. Whoever learns something about the request notes it here; the line
is written once, at the end, so a token costs nothing. A query is never told: it may hold a key or a prompt.
"""

import re
import secrets
import time
from contextvars import ContextVar, Token
from typing import Final

import structlog
from starlette.types import Scope

from penstock.server.downstream import Headers
from penstock.types.calls import Call
from penstock.types.principals import Principal

log = structlog.get_logger(__name__)

HEADER: Final = b"x-request-id"

MAX_PATH: Final = 200
"""Characters of a path, and of what names things, in a line."""

_TRACE: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""A W3C `traceparent`, as whoever calls us sends it; others are as if there were none."""

_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
"""What an id of a client's may be; others are not taken over."""

QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What is asked all day long by machines: told at the level ``debug`` when it went well."""


NO_ANSWER: Final = 499
"""What the log says instead of a status where the client left before it was sent one; as nginx does."""

WEBSOCKET: Final = "WEBSOCKET"
"""The method of what has none."""


class Exchange:
    """What is known of one request; ``code`` is of the error that it was answered with."""

    __slots__ = (
        "address",
        "bytes",
        "code",
        "cut",
        "dialect",
        "id",
        "method",
        "model",
        "path",
        "principal",
        "route",
        "started",
        "status",
        "stream",
        "trace",
    )

    def __init__(self, scope: Scope) -> None:
        """Begin with what its head says."""
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        self.id = given.decode() if _ID.fullmatch(given) else new_request_id()
        traced = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        self.trace = traced.decode() if _TRACE.fullmatch(traced) else ""
        self.started = time.perf_counter()
        self.method: str = scope.get("method", WEBSOCKET)
        # As it was sent: no line end and no control character can be in it.
        raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
        self.path = raw.partition(b"?")[0][:MAX_PATH].decode("ascii", "backslashreplace")
        self.address = scope["client"][0] if scope.get("client") else ""
        self.status = 0
        self.bytes = 0
        self.cut = False
        self.route = ""
        self.principal: Principal | None = None
        self.dialect = ""
        self.model = ""
        self.stream = ""
        self.code = ""

    def __repr__(self) -> str:
        """Say which."""
        return f"<Exchange {self.id} {self.method} {self.path} {self.status}>"

    def answered(self, status: int, headers: Headers) -> Headers:
        """Note what the answer's head says; return its headers with the request's id among them."""
        self.status = status
        named = False
        for name, value in headers:
            if name == b"stream-id":
                self.stream = value.decode()
            elif name == HEADER:
                named = True
        return headers if named else [*headers, (HEADER, self.id.encode())]

    def tell(self, sent: int) -> None:
        """Write the line. ``sent``: bytes that went to the socket past ASGI."""
        socket = self.method == WEBSOCKET
        said: dict[str, object] = {"request_id": self.id}
        if not socket:
            said |= {"method": self.method, "status": self.status or NO_ANSWER, "bytes": self.bytes + sent}
        said |= {
            "path": self.path,
            "route": self.route,
            "ms": round((time.perf_counter() - self.started) * 1000, 1),
            "address": self.address,
        }
        if self.principal is not None:
            said["principal"] = self.principal.id
            if self.principal.key:
                said["key"] = self.principal.key
        for name in ("dialect", "model", "stream", "code"):
            if value := getattr(self, name):
                said[name] = value
        if self.cut:
            said["cut"] = True
        if socket:
            log.info("websocket_closed", **said)
        elif self.path in QUIET and self.status < 400:
            log.debug("request", **said)
        else:
            log.info("request", **said)


_CURRENT: ContextVar[Exchange | None] = ContextVar("penstock.exchange", default=None)


def begin(scope: Scope) -> tuple[Exchange, Token[Exchange | None]]:
    """Begin an exchange, which is the current one until its token is given to `end`."""
    exchange = Exchange(scope)
    return exchange, _CURRENT.set(exchange)


def end(token: Token[Exchange | None]) -> None:
    """Make it current no more."""
    _CURRENT.reset(token)


def current() -> Exchange | None:
    """Return the exchange that this task serves; None outside of HTTP."""
    return _CURRENT.get()


def noted(call: Call) -> Call:
    """Return ``call``, once the exchange that it came by knows of it."""
    exchange = _CURRENT.get()
    if exchange is not None:
        exchange.dialect, exchange.model = call.request.dialect, call.request.model[:MAX_PATH]
    return call


def current_trace() -> str:
    """Return the W3C `traceparent` that came with the current request; empty without one."""
    exchange = _CURRENT.get()
    return exchange.trace if exchange is not None else ""


def current_request_id() -> str:
    """Return the id of the request that is being served, for headers and calls; a new one where none is."""
    exchange = _CURRENT.get()
    return new_request_id() if exchange is None else exchange.id


def new_request_id() -> str:
    """Return an id of ours."""
    return "req_" + secrets.token_hex(12)
