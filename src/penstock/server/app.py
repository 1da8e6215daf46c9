"""The ASGI application: the route table, readable as a list, and what becomes of errors."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Final
from urllib.parse import quote

import structlog
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Router
from starlette.routing import Route as PlainRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.server import (
    admin,
    ai_sdk,
    azure,
    dashboard,
    docs,
    durable_streams,
    explanations,
    gemini,
    generations,
    metrics,
    models,
    ollama,
    openai_responses,
    presets,
    proxies,
    quotas,
    reads,
    relay,
    sessions,
    streams,
    ui,
)
from penstock.server.compression import Compression
from penstock.server.context import ADMITTED, RECONNECT_QUERIES, Context
from penstock.server.downstream import ClientGone, Cut, Headers, break_off
from penstock.server.errors import error_response, speaks_anthropic
from penstock.server.exchanges import Exchange, begin, current_request_id, end
from penstock.server.http import EXTENSION, Connection
from penstock.server.openapi import describe
from penstock.server.operations import Json
from penstock.server.origins import compile_origins
from penstock.server.quotas import quota_headers
from penstock.server.reads import EXPOSED
from penstock.server.responses import DEFERRED
from penstock.server.sockets import refuse
from penstock.types.calls import ids
from penstock.types.errors import ClientError, PenstockError

log = structlog.get_logger(__name__)

ROUTE: Final = "penstock.route"
"""Where in the scope the path of the route stands, as in the table."""


class Route(PlainRoute):
    """A row of the table; a request knows which it came by."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As for every route, and say which this is."""
        match, child = super().matches(scope)
        if match is not Match.NONE:
            child[ROUTE] = self.path
        return match, child


def routes() -> list[Route]:
    """Return every route there is."""
    return [
        Route("/", ui.page, methods=["GET"]),
        # AI SDK
        Route("/ui/chat", ai_sdk.ui_chat, methods=["POST"]),
        Route("/ui/chat/{chat:path}/stream", ai_sdk.ui_chat_stream, methods=["GET"]),
        Route("/ui/chat/{chat:path}/stop", ai_sdk.ui_chat_stop, methods=["POST"]),
        # the page, whose files stand beside the chats
        Route("/ui/{file:path}", ui.part, methods=["GET"]),
        Route("/client/penstock.js", ui.client, methods=["GET"]),
        Route("/dashboard", dashboard.page, methods=["GET"]),
        Route("/openapi.json", docs.document, methods=["GET"]),
        Route("/docs", docs.viewer, methods=["GET"]),
        Route("/healthz", models.healthz, methods=["GET"]),
        Route("/readyz", models.readyz, methods=["GET"]),
        Route("/metrics", metrics.metrics, methods=["GET"]),
        # simple and native
        Route("/stream", generations.simple_stream, methods=["GET"]),
        Route("/v1/streams", generations.create_stream, methods=["POST"]),
        Route("/v1/streams/cancel", generations.cancel_by_key, methods=["POST"]),
        Route("/v1/streams", streams.list_streams, methods=["GET"]),
        Route("/v1/streams/{stream}", streams.snapshot, methods=["GET"]),
        Route("/v1/streams/{stream}", streams.erase, methods=["DELETE"]),
        Route("/v1/streams/{stream}/events", reads.events, methods=["GET"]),
        Route("/v1/streams/{stream}/entries", streams.entries, methods=["GET"]),
        Route("/v1/streams/{stream}/explanation", explanations.explanation, methods=["GET"]),
        Route("/v1/streams/{stream}/cancel", streams.cancel, methods=["POST"]),
        Route("/v1/streams/{stream}/links", streams.make_link, methods=["POST"]),
        # Durable Streams: publications, and generations as they are seen there
        Route("/v1/stream", durable_streams.list_publications, methods=["GET"]),
        Route("/v1/stream/gen/{stream}", durable_streams.read_generation, methods=["GET"]),
        Route("/v1/stream/__link/{stream}", durable_streams.read_linked, methods=["GET"]),
        Route("/v1/stream/{path:path}", durable_streams.create_publication, methods=["PUT"]),
        Route("/v1/stream/{path:path}", durable_streams.append_to_publication, methods=["POST"]),
        Route("/v1/stream/{path:path}", durable_streams.read_publication, methods=["GET"]),
        Route("/v1/stream/{path:path}", durable_streams.delete_publication, methods=["DELETE"]),
        # OpenAI Chat
        Route("/v1/chat/completions", generations.chat_completions, methods=["POST"]),
        Route("/v1/chat/completions/{stream}", reads.chat_completion, methods=["GET"]),
        # OpenAI's legacy Completions
        Route("/v1/completions", generations.completions, methods=["POST"]),
        # both, and embeddings, by the URLs of Azure's deployments and OpenAI's old engines
        *(
            Route(f"{where}/{{model:path}}/{what}", handler, methods=["POST"])
            for where in ("/openai/deployments", "/v1/engines")
            for what, handler in (
                ("chat/completions", azure.azure_chat_completions),
                ("completions", azure.azure_completions),
                ("embeddings", azure.azure_embeddings),
            )
        ),
        # OpenAI Responses
        Route("/v1/responses", openai_responses.create_response, methods=["POST"]),
        Route("/v1/responses/input_tokens", openai_responses.count_response_tokens, methods=["POST"]),
        Route("/v1/responses/{stream}", openai_responses.retrieve_response, methods=["GET"]),
        Route("/v1/responses/{stream}", openai_responses.delete_response, methods=["DELETE"]),
        Route("/v1/responses/{stream}/cancel", openai_responses.cancel_response, methods=["POST"]),
        Route("/v1/responses/{stream}/input_items", openai_responses.response_input_items, methods=["GET"]),
        # Anthropic Messages
        Route("/v1/messages", generations.messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", models.count_tokens, methods=["POST"]),
        # presets
        Route("/v1/presets", presets.list_presets, methods=["GET"]),
        Route("/v1/presets/{preset}", presets.stream_preset, methods=["GET"]),
        Route("/v1/presets/{preset}", presets.run_preset, methods=["POST"]),
        Route("/v1/presets/{preset}/links", presets.make_preset_link, methods=["POST"]),
        # identity
        Route("/v1/tokens", admin.make_token, methods=["POST"]),
        Route("/v1/admin/keys", admin.list_keys, methods=["GET"]),
        Route("/v1/admin/keys", admin.create_key, methods=["POST"]),
        Route("/v1/admin/keys/{key}", admin.revoke_key, methods=["DELETE"]),
        Route("/v1/admin/keys/{key}/rotate", admin.rotate_key, methods=["POST"]),
        Route("/v1/admin/usage", admin.usage, methods=["GET"]),
        Route("/v1/admin/budgets", admin.budgets, methods=["GET"]),
        Route("/v1/admin/profile", admin.profile, methods=["POST"]),
        Route("/v1/admin/reload", admin.reload, methods=["POST"]),
        Route("/v1/admin/activity", dashboard.activity, methods=["GET"]),
        # Gemini
        *(
            Route(f"/{version}/models/{{model:path}}:{method}", handler, methods=["POST"])
            for version in ("v1beta", "v1")
            for method, handler in (
                ("generateContent", gemini.generate_content),
                ("streamGenerateContent", gemini.stream_generate_content),
                ("countTokens", gemini.gemini_count_tokens),
            )
        ),
        Route("/v1beta/models", gemini.list_gemini_models, methods=["GET"]),
        Route("/v1beta/models/{model:path}", gemini.one_gemini_model, methods=["GET"]),
        # Ollama
        Route("/api/chat", ollama.ollama_chat, methods=["POST"]),
        Route("/api/generate", ollama.ollama_generate, methods=["POST"]),
        Route("/api/tags", ollama.ollama_tags, methods=["GET"]),
        Route("/api/show", ollama.ollama_show, methods=["POST"]),
        Route("/api/ps", ollama.ollama_ps, methods=["GET"]),
        Route("/api/version", ollama.ollama_version, methods=["GET"]),
        # passed on
        *(Route(f"/v1/{path}", relay.pass_json, methods=["POST"]) for path in relay.JSON_ENDPOINTS),
        *(Route(f"/v1/{path}", relay.pass_form, methods=["POST"]) for path in relay.FORM_ENDPOINTS),
        Route("/v1/files", relay.list_files, methods=["GET"]),
        Route("/v1/files", relay.upload_file, methods=["POST"]),
        Route("/v1/files/{id}", relay.see_file, methods=["GET"]),
        Route("/v1/files/{id}", relay.delete_file, methods=["DELETE"]),
        Route("/v1/files/{id}/content", relay.read_file, methods=["GET"]),
        # models, in OpenAI's form, Anthropic's or Google's
        Route("/v1/models", models.list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", models.one_model, methods=["GET"]),
    ]


PREFLIGHT_TTL: Final = 7200
"""Seconds that a browser remembers what it may do here; none remembers longer."""

SOCKETS: Final = {"/v1/ws": sessions.connect}
"""The same for WebSockets."""


def build_app(context: Context) -> ASGIApp:
    """Return the application."""
    table = routes()
    # A redirect to the address without a slash at its end would name the host and scheme that a client said,
    # and send a key there again, in the clear where a proxy ends TLS.
    router = Router(table, redirect_slashes=False)
    # Not `Starlette`: it answers what nobody foresaw in its own way, before `Outermost` can.
    app = ExceptionMiddleware(router, handlers={PenstockError: _known, HTTPException: _unrouted})
    return Outermost(CrossOrigin(app, context), context, cache(lambda keys: describe(table, keys=keys)))


class CrossOrigin:
    """CORS, for the origins that the context has at the moment."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        """Wrap ``app``."""
        self._plain = app
        self._context = context
        self._said: tuple[tuple[str, ...], bool] = ((), False)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if (said := (self._context.origins, self._context.credentials)) != self._said:
            self._said = said
            self._app = _cross_origin(self._plain, *said)
        await self._app(scope, receive, send)


def _cross_origin(app: ASGIApp, origins: tuple[str, ...], credentials: bool) -> ASGIApp:
    """Return ``app`` for pages of ``origins`` too, ``credentials``: with their cookies."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origin_regex=f"(?i:{compile_origins(origins).pattern})",
        allow_credentials=credentials,
        allow_private_network=True,
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=[*EXPOSED.split(", "), *durable_streams.EXPOSED, *quotas.EXPOSED, "request-id"],
        max_age=PREFLIGHT_TTL,
    )


class Outermost:
    """The server's one wide catch, around everything, and the owner of its state."""

    def __init__(self, app: ASGIApp, context: Context, describe: Callable[[bool], Json]) -> None:
        """Wrap ``app``, whose handlers find the rest in ``request.app.state``. ``describe`` is told whether a
        key is wanted."""
        self.state = State({"context": context, "describe": describe})
        self._app = app
        self._compression = Compression()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; an exception nobody foresaw is logged, and answered if the head is not out yet."""
        scope["app"] = self
        if trusted := self.state.context.settings.trusted_proxies:
            proxies.apply(scope, trusted)
        if scope["type"] == "websocket":
            exchange = Exchange(scope)
            try:
                await self._connect(scope, receive, send)
            finally:
                self._told(exchange, scope)
            return
        exchange, token = begin(scope)
        try:
            await self._answer(exchange, scope, receive, send)
        finally:
            end(token)
            self._told(exchange, scope)

    def _told(self, exchange: Exchange, scope: Scope) -> None:
        """Write the line of what is over."""
        if not self.state.context.settings.access_log:
            return
        exchange.principal = scope.get(ADMITTED)
        exchange.route = scope.get(ROUTE, "")
        connection = scope.get("extensions", {}).get(EXTENSION)
        if isinstance(connection, Connection):
            exchange.cut = not connection.whole
            exchange.tell(connection.sent)
        else:
            exchange.tell(0)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket to its end."""
        await self.state.context.identify(scope)
        if (serve := SOCKETS.get(scope["path"].removeprefix(scope.get("root_path", "")))) is not None:
            scope[ROUTE] = scope["path"]
            await serve(self.state.context, scope, receive, send)
        else:
            await refuse(_nothing_at(scope["path"]), scope, receive, send)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to the end of its answer."""
        started = False
        send = self._compression.around(scope, send)
        ctx: Context = self.state.context
        root = quote(scope.get("root_path", ""))
        anthropic = speaks_anthropic(scope)

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                allowed = ctx.allowance(scope) if scope["method"] == "POST" else None
                headers = [*_below(root, exchange.answered(message["status"], message["headers"]))]
                if allowed is not None:
                    headers += quota_headers(allowed, ctx.wall(), anthropic=anthropic)
                if anthropic:
                    headers += [(b"request-id", value) for name, value in headers if name == b"x-request-id"]
                message = {**message, "headers": headers}
            else:
                exchange.bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.state.context.identify(scope)
            await self._app(scope, receive, watch)
            if (deferred := scope.pop(DEFERRED, None)) is not None:
                response, receive, send_on = deferred
                del deferred
                await response.serve(scope, receive, send_on)
        except (ClientGone, ClientDisconnect):
            exchange.cut = True  # there is nobody to tell
        except Cut:
            exchange.cut = True
            raise
        except Exception as error:
            if not started:
                response = await _known(Request(scope), error)
                # It comes from outside of `CrossOrigin`, and pages are to read it all the same.
                await _cross_origin(response, ctx.origins, ctx.credentials)(scope, receive, watch)
                return
            exchange.cut = True
            whose = ids(exchange.id, exchange.stream)
            log.error("request_crashed", **whose, path=exchange.path, exc_info=error)
            if isinstance(connection := scope.get("extensions", {}).get(EXTENSION), Connection):
                connection.cut()
            else:
                await break_off(send)


def _below(root: str, headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``headers`` as they are where we are mounted: our own addresses begin at the mount's path."""
    for name, value in headers:
        yield name, root.encode() + value if name == b"location" and value.startswith(b"/") else value


async def _known(request: Request, error: Exception) -> Response:
    """A `PenstockError`. A reader that comes back is never told 5xx or 429: EventSource would give up."""
    passing = isinstance(error, PenstockError) and (error.status >= 500 or error.status == 429)
    if passing and _resumes(request):
        connection = request.scope.get("extensions", {}).get(EXTENSION)
        if isinstance(connection, Connection):
            log.info("resume_deferred", request_id=current_request_id(), error=repr(error))
            connection.cut()
            return Response(status_code=204)  # goes nowhere: the connection is closed
        if "text/event-stream" in request.headers.get("accept", ""):
            # Nor can a foreign server close it. An EventSource comes back after an empty stream as well.
            return Response(b"", 200, {"cache-control": "no-store"}, "text/event-stream")
    return error_response(error, current_request_id(), request.scope)


def _resumes(request: Request) -> bool:
    query = request.query_params
    return bool(request.headers.get("last-event-id") or any(query.get(name) for name in RECONNECT_QUERIES))


async def _unrouted(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        message = f"{request.method} is not possible on {request.url.path[:200]}."
        refusal = ClientError(message, code="method_not_allowed", status=405)
        response = error_response(refusal, current_request_id())
        response.headers["allow"] = ", ".join(sorted(_methods(request.scope)))
        return response
    return error_response(_nothing_at(request.url.path, status), current_request_id(), request.scope)


def _nothing_at(path: str, status: int = 404) -> ClientError:
    message = f"There is nothing at {path[:200]}. GET /openapi.json describes what there is."
    return ClientError(message, code="not_found", status=status)


def _methods(scope: Scope) -> set[str]:
    """Return what is possible at the address of a request; routes with one path share it."""
    table = routes()
    found = next(route for route in table if route.matches(scope)[0] is not Match.NONE)
    return {method for route in table if route.path == found.path for method in route.methods or ()}
