"""Creating generations: the native route, the simple ``GET /stream``, and the dialects' own routes.

Each handler does the same four things: admit the caller, parse the request once, resume when a
``Last-Event-ID`` came with it (a request that carries one never creates), else start and follow.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.server.context import (
    RECONNECT_QUERIES,
    Context,
    context,
    parse_object,
    read_body,
    require_json,
    sha256,
)
from penstock.server.exchanges import current_request_id, current_trace, noted
from penstock.server.formats import (
    DIALECTS,
    NATIVE,
    TEXT,
    anthropic_messages,
    by_accept,
    openai_chat,
    openai_completions,
)
from penstock.server.reads import (
    Following,
    Given,
    Render,
    Whole,
    dict_of,
    follow,
    given_cursor,
    stream_headers,
)
from penstock.server.renderings import Format
from penstock.server.streams import cancelled
from penstock.streams.stream import Stream
from penstock.types.calls import Call, on_disconnect
from penstock.types.errors import ClientError
from penstock.types.positions import Cursor
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest, Message
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.anthropic_messages_requests import with_headers
from penstock.wire.bodies import check_metadata
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_completions import OPENAI_COMPLETIONS

MAX_KEY: Final = 255
_encode = msgspec.json.Encoder().encode

AnyResponse = Response | Following | Whole


class NativeCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/streams``. ``ttl_s``: seconds the stream stays readable after its end."""

    request: msgspec.Raw
    dialect: str = "openai_chat"
    ttl_s: float | None = None
    on_disconnect: str | None = None
    metadata: dict[str, str] | None = None


_decode_create = msgspec.json.Decoder(NativeCreate).decode


def idempotency_key(text: str) -> str:
    """Check a key's length and characters; raises `ClientError`."""
    if len(text) > MAX_KEY or not text.isprintable():
        message = f"An idempotency key is at most {MAX_KEY} printable characters."
        raise ClientError(message, code="invalid_value", param="Idempotency-Key")
    return text


def join(text: str | None) -> bool | None:
    """Read the header ``Stream-Join``: ``in-flight`` or ``never``; None without one. Raises `ClientError`."""
    match text:
        case None | "":
            return None
        case "in-flight" | "never":
            return text == "in-flight"
    raise ClientError("Stream-Join is 'in-flight' or 'never'.", code="invalid_value", param="Stream-Join")


async def resumed(ctx: Context, given: Given, call: Call) -> Stream:
    """Return the stream that a creating request with a cursor means; it never creates one.

    Raises `ClientError`: 400 `cursor_incomplete` for a bare position, 422 `cursor_of_other_request`.
    """
    if not given.cursor.stream:
        message = "A request that can create a stream resumes with a full cursor only: <stream>~<position>."
        raise ClientError(message, code="cursor_incomplete", param="Last-Event-ID")
    stream = await ctx.gateway.find(given.cursor.stream, call.principal)
    if (stream.info.route, stream.info.body_sha256) != (call.route, call.body_sha256):
        message = "The cursor belongs to a stream that another request created."
        raise ClientError(message, code="cursor_of_other_request", status=422, param="Last-Event-ID")
    return stream


def header_cursor(request: Request) -> Given | None:
    """Return the cursor that makes a creating request a resume: the header's only."""
    return given_cursor({"last-event-id": request.headers.get("last-event-id", "")}, {})


# --- native ------------------------------------------------------------------------------------------


def native_call(
    ctx: Context,
    principal: Principal,
    asked: NativeCreate,
    *,
    key: str = "",
    leaving: str | None = None,
    joining: str | None = None,
) -> Call:
    """Return what ``asked`` means, with the idempotency ``key`` and what headers say of leaving and joining.

    By HTTP and by WebSocket it is the same call: a key that was used here is known there. Raises
    `ClientError`.
    """
    dialect = DIALECTS.get(asked.dialect)
    if dialect is None:
        message = f"'{asked.dialect[:50]}' is no known dialect; known: {', '.join(DIALECTS)}."
        raise ClientError(message, code="unknown_dialect", param="dialect")
    if asked.ttl_s is not None and asked.ttl_s < 0:
        raise ClientError("ttl_s is a number of seconds, 0 or more.", code="invalid_value", param="ttl_s")
    check_metadata(asked.metadata)
    route = ctx.route("streams")
    call = Call(
        principal=principal,
        route="streams",
        request=dialect.parse_request(bytes(asked.request)),
        request_id=current_request_id(),
        trace=current_trace(),
        body_sha256=sha256(_encode(asked)),
        idempotency_key=idempotency_key(key),
        on_disconnect=on_disconnect(asked.on_disconnect or leaving, route.on_disconnect, "continue"),
        ttl=route.retention if asked.ttl_s is None else asked.ttl_s,
        at_rest=route.at_rest,
        join=join(joining),
        metadata=asked.metadata,
    )
    return noted(call)


_OF_A_REQUEST: Final = ("model", "messages", "input", "prompt", "contents")
"""What stands at the top of a dialect's own body."""


async def create_stream(request: Request) -> AnyResponse:
    """``POST /v1/streams``: start a generation; its first event names the stream before any upstream call."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    value = parse_object(body)
    try:
        asked = _decode_create(body)
    except msgspec.ValidationError as error:
        if "request" not in value and (named := [name for name in _OF_A_REQUEST if name in value]):
            message = (
                f'What is asked stands within \'request\': {{"request": {{"{named[0]}": …}}}}. '
                "For an OpenAI SDK there is POST /v1/chat/completions."
            )
            raise ClientError(message, code="invalid_request", param="request") from None
        raise ClientError(f"The body does not fit: {error}.", code="invalid_request") from None
    call = native_call(
        ctx,
        principal,
        asked,
        key=request.headers.get("idempotency-key", ""),
        leaving=request.headers.get("stream-on-disconnect"),
        joining=request.headers.get("stream-join"),
    )
    format = by_accept(request.headers.get("accept", ""))
    if given := header_cursor(request):
        return follow(ctx, await resumed(ctx, given, call), format, principal, given)
    started = await ctx.gateway.start(call)
    if "respond-async" in request.headers.get("prefer", ""):
        if not started.existing:
            ctx.gateway.leave_alone(started.stream)
        return accepted(started.stream, call.request_id, quote(request.scope.get("root_path", "")))
    return follow(ctx, started.stream, format, principal, request_id=call.request_id)


def accepted(stream: Stream, request_id: str, root: str) -> Response:
    """Return 201 with where to read and how to stop; ``root`` is where we are mounted."""
    base = f"{root}/v1/streams/{stream.id}"
    body = {
        "stream": stream.id,
        "cursor": str(Cursor(stream.id, stream.position(0))),
        "events_url": f"{base}/events",
        "cancel_url": f"{base}/cancel",
    }
    return Response(_encode(body), 201, dict_of(stream_headers(stream, None, request_id)))


async def cancel_by_key(request: Request) -> Response:
    """``POST /v1/streams/cancel``: stop a stream whose id is not known yet, by its idempotency key."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    in_header = idempotency_key(request.headers.get("idempotency-key", ""))
    in_query = idempotency_key(request.query_params.get("key", ""))
    key = in_header or in_query
    if not key:
        message = "Name the stream by the Idempotency-Key it was created with."
        raise ClientError(message, code="missing_required_parameter", param="Idempotency-Key")
    return cancelled(await ctx.gateway.cancel_key(key, principal))


# --- GET /stream -------------------------------------------------------------------------------------


async def simple_stream(request: Request) -> AnyResponse:
    """``GET /stream?content=…``: an answer for a bare EventSource, or for curl."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    if request.method == "HEAD":  # link checkers and previews send it, and nobody would read the answer
        raise ClientError("HEAD starts nothing: use GET.", code="method_not_allowed", status=405)
    query = request.query_params
    content = query.get("content", "")
    if not content:
        message = "Say something: /stream?content=Hello"
        raise ClientError(message, code="missing_required_parameter", param="content")
    messages = [Message("user", content)]
    if system := query.get("system", ""):
        messages.insert(0, Message("system", system))
    asked = sorted((k, v) for k, v in query.multi_items() if k not in RECONNECT_QUERIES)
    route = ctx.route("stream")
    call = Call(
        principal=principal,
        route="stream",
        request=GenerationRequest(query.get("model", "") or ctx.default_model, tuple(messages), stream=True),
        request_id=current_request_id(),
        trace=current_trace(),
        body_sha256=sha256(*(f"{k}={v}".encode() for k, v in asked)),
        idempotency_key=idempotency_key(query.get("key", "")),
        on_disconnect=on_disconnect(
            request.headers.get("stream-on-disconnect"), route.on_disconnect, "continue"
        ),
        ttl=route.retention,
        at_rest=route.at_rest,
    )
    noted(call)
    format = simple_format(query.get("format", ""), request.headers.get("accept", ""))
    cursors = {name: query.get(name, "") for name in RECONNECT_QUERIES}
    if given := given_cursor(request.headers, cursors):
        stream = await resumed(ctx, given, call)
        return follow(ctx, stream, format, principal, given, may_204=True)
    started = await ctx.gateway.start_or_join(call)
    return follow(ctx, started.stream, format, principal, request_id=call.request_id)


def simple_format(name: str, accept: str) -> Format:
    """Return what ``format=`` and ``Accept`` ask for, on routes for an EventSource; raises `ClientError`."""
    chosen = by_accept(accept)
    if chosen is not NATIVE:
        return chosen
    match name:
        case "" | "text":
            return TEXT
        case "json":
            return NATIVE
    raise ClientError("format is 'text' or 'json'.", code="invalid_value", param="format")


# --- dialects ----------------------------------------------------------------------------------------


async def chat_completions(request: Request) -> AnyResponse:
    """``POST /v1/chat/completions``: OpenAI Chat. Whether it streams is what the body says."""
    return await create(request, OPENAI_CHAT.name, OPENAI_CHAT.parse_request, chat_format)


async def completions(request: Request) -> AnyResponse:
    """``POST /v1/completions``: OpenAI's legacy Completions. Whether it streams is what the body says."""
    dialect = OPENAI_COMPLETIONS
    return await create(request, dialect.name, dialect.parse_request, completions_format)


async def messages(request: Request) -> AnyResponse:
    """``POST /v1/messages``: Anthropic Messages. Whether it streams is what the body says."""
    return await create(request, ANTHROPIC_MESSAGES.name, anthropic_request(request), _messages_format)


def anthropic_request(request: Request) -> Callable[[bytes], GenerationRequest]:
    """Return what reads a body of Anthropic's, with what the client said in headers."""
    version = request.headers.get("anthropic-version", "")
    beta = ",".join(request.headers.getlist("anthropic-beta"))
    return lambda body: with_headers(ANTHROPIC_MESSAGES.parse_request(body), version, beta)


def chat_format(generation: GenerationRequest, with_ids: bool) -> Format:
    """Return the format of an answer to a request of OpenAI Chat."""
    return openai_chat(include_usage=generation.include_usage, with_ids=with_ids)


def completions_format(generation: GenerationRequest, with_ids: bool) -> Format:
    """Return the format of an answer to a request of OpenAI's legacy Completions."""
    return openai_completions(include_usage=generation.include_usage, with_ids=with_ids)


def _messages_format(generation: GenerationRequest, with_ids: bool) -> Format:
    return anthropic_messages(with_ids=with_ids)


async def create(
    request: Request,
    dialect: str,
    parse: Callable[[bytes], GenerationRequest],
    format_for: Callable[[GenerationRequest, bool], Format],
    render: Render | None = None,
    *,
    body: bytes | None = None,
) -> AnyResponse:
    """Create, or resume, on the route of ``dialect``; ``format_for`` is told whether ids are sent, and
    ``render`` makes a whole answer where that depends on the request; ``body`` is what has been read of it.
    """
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    if body is None:
        body = await read_body(request, ctx.settings)
    generation = parse(body)
    comes_back = can_come_back(request)
    call = call_of(request, principal, dialect, generation, body, comes_back=comes_back)
    given = header_cursor(request)
    if given is not None:
        stream = await resumed(ctx, given, call)
    else:
        stream = (await ctx.gateway.start(call)).stream
    if not generation.stream:
        return Whole(ctx, stream, principal, call.request_id, render)
    format = format_for(generation, wants_ids(request))
    hold = given is None
    return follow(ctx, stream, format, principal, given, request_id=call.request_id, hold=hold)


def call_of(
    request: Request,
    principal: Principal,
    dialect: str,
    generation: GenerationRequest,
    body: bytes,
    *,
    comes_back: bool,
    metadata: dict[str, str] | None = None,
) -> Call:
    """Return the call of a dialect's route, with what its headers, its settings and ``store`` say."""
    route = context(request).route(dialect)
    at_rest = route.at_rest
    if generation.store is False and at_rest in ("process", "host"):
        at_rest = "memory"
    call = Call(
        principal=principal,
        route=dialect,
        request=generation,
        request_id=current_request_id(),
        trace=current_trace(),
        body_sha256=sha256(body),
        idempotency_key=idempotency_key(request.headers.get("idempotency-key", "")),
        on_disconnect=on_disconnect(
            request.headers.get("stream-on-disconnect"),
            route.on_disconnect,
            "continue" if comes_back else "cancel",
        ),
        ttl=route.retention,
        at_rest=at_rest,
        join=join(request.headers.get("stream-join")),
        metadata=metadata,
    )
    return noted(call)


def can_come_back(request: Request) -> bool:
    """Say whether the client of a dialect route showed that it can resume."""
    headers = request.headers
    named = "text/event-stream" in headers.get("accept", "")
    return bool(headers.get("idempotency-key") or headers.get("last-event-id") or named)


def wants_ids(request: Request) -> bool:
    """Say whether the client of a dialect route is to be sent cursors."""
    return can_come_back(request) or request.query_params.get("ids") == "1"
