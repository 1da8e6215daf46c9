"""Presets over HTTP: asked for with a key, or by a link that starts one answer, once, for a bare EventSource.

A link's token is a token for a page (`penstock.policies.browser_tokens`) that is bound to one preset and
to one use: the store's own rule that a key of a principal makes one stream keeps it to that, across
restarts. Prompts are the operator's: no route shows them.
"""

from collections.abc import Awaitable, Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.gateway.gateway import Started
from penstock.gateway.presets import RESERVED, Preset
from penstock.server.context import (
    PRINCIPAL,
    RECONNECT_QUERIES,
    Context,
    context,
    parse_object,
    read_body,
    require_json,
    sha256,
)
from penstock.server.exchanges import current_request_id, current_trace, noted
from penstock.server.formats import by_accept
from penstock.server.generations import (
    AnyResponse,
    accepted,
    header_cursor,
    idempotency_key,
    join,
    resumed,
    simple_format,
)
from penstock.server.reads import follow, given_cursor
from penstock.types.calls import Call, on_disconnect
from penstock.types.errors import ClientError, PenstockError
from penstock.types.keys import TokenOrder
from penstock.types.principals import Principal
from penstock.wire.bodies import check_metadata

ROUTE: Final = "presets"
MAX_LINK_TTL_S: Final = 3_600.0
DEFAULT_LINK_TTL_S: Final = 600.0
MAX_VARIABLES: Final = 64

_encode = msgspec.json.Encoder().encode


class PresetCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/presets/{preset}``."""

    content: str = ""
    variables: Annotated[dict[str, str], msgspec.Meta(max_length=MAX_VARIABLES)] = {}
    ttl_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    on_disconnect: str | None = None
    metadata: dict[str, str] | None = None


class PresetLinkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/presets/{preset}/links``: what the answer may cost, and when it may start."""

    spend_usd: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_LINK_TTL_S)] = DEFAULT_LINK_TTL_S


_decode_call = msgspec.json.Decoder(PresetCall)
_decode_link = msgspec.json.Decoder(PresetLinkRequest)


def _preset(ctx: Context, request: Request) -> Preset:
    name: str = request.path_params["preset"]
    preset = ctx.presets.get(name)
    if preset is None:
        raise ClientError(f"There is no preset '{name[:100]}'.", code="preset_not_found", status=404)
    return preset


async def _asked(ctx: Context, request: Request, decoder: msgspec.json.Decoder[Any]) -> Any:
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    parse_object(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ClientError(f"The body does not fit: {error}.", code="invalid_request") from None


def _call(
    ctx: Context, request: Request, principal: Principal, preset: Preset, asked: PresetCall, key: str
) -> Call:
    route = ctx.route(ROUTE)
    leaving = asked.on_disconnect or request.headers.get("stream-on-disconnect")
    grant = principal.grant
    at_rest, ttl = route.at_rest, route.retention if asked.ttl_s is None else asked.ttl_s
    if grant.once:
        # The stream that it started is what says that it was used: it must last as long as the link.
        key = "link"
        ttl = max(ttl, MAX_LINK_TTL_S) if ttl is not None else None
        at_rest = "memory" if at_rest == "none" else at_rest
    check_metadata(asked.metadata)
    call = Call(
        principal=principal,
        route=ROUTE,
        request=preset.request(asked.content, asked.variables),
        request_id=current_request_id(),
        trace=current_trace(),
        body_sha256=sha256(preset.name.encode(), _encode(asked)),
        idempotency_key=key,
        on_disconnect=on_disconnect(leaving, route.on_disconnect, "continue"),
        ttl=ttl,
        at_rest=at_rest,
        join=join(request.headers.get("stream-join")),
        preset=preset.name,
        metadata=asked.metadata,
    )
    return noted(call)


async def _start(started: Awaitable[Started], call: Call) -> Started:
    """Raises `ClientError` 422 in words for whoever has a link: they gave no key."""
    try:
        return await started
    except ClientError as error:
        if error.code == "idempotency_key_reused" and call.principal.grant.once:
            error.message = (
                "This link has asked its question, and it is good for one. Ask whoever gave it to you for "
                "a new one; the answer of the first is still read with the same question."
            )
        raise


async def run_preset(request: Request) -> AnyResponse:
    """``POST /v1/presets/{preset}``: ask with what the operator wrote."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    preset = _preset(ctx, request)
    asked = await _asked(ctx, request, _decode_call)
    key = idempotency_key(request.headers.get("idempotency-key", ""))
    call = _call(ctx, request, principal, preset, asked, key)
    format = by_accept(request.headers.get("accept", ""))
    if given := header_cursor(request):
        return follow(ctx, await resumed(ctx, given, call), format, principal, given)
    started = await _start(ctx.gateway.start(call), call)
    if "respond-async" in request.headers.get("prefer", ""):
        if not started.existing:
            ctx.gateway.leave_alone(started.stream)
        return accepted(started.stream, call.request_id, quote(request.scope.get("root_path", "")))
    return follow(ctx, started.stream, format, principal, request_id=call.request_id)


async def stream_preset(request: Request) -> AnyResponse:
    """``GET /v1/presets/{preset}?content=…&token=…``: the same for a bare EventSource, mostly by a link."""
    ctx = context(request)
    principal = await _bearer(ctx, request)
    if request.method == "HEAD":
        raise ClientError("HEAD starts nothing: use GET.", code="method_not_allowed", status=405)
    preset = _preset(ctx, request)
    query = request.query_params
    variables = {name: value for name, value in query.items() if name not in RESERVED}
    asked = PresetCall(query.get("content", ""), variables)
    call = _call(ctx, request, principal, preset, asked, idempotency_key(query.get("key", "")))
    format = simple_format(query.get("format", ""), request.headers.get("accept", ""))
    cursors = {name: query.get(name, "") for name in RECONNECT_QUERIES}
    if given := given_cursor(request.headers, cursors):
        stream = await resumed(ctx, given, call)
        return follow(ctx, stream, format, principal, given, may_204=True)
    started = await _start(ctx.gateway.start_or_join(call), call)
    return follow(ctx, started.stream, format, principal, request_id=call.request_id)


async def _bearer(ctx: Context, request: Request) -> Principal:
    """Return who asks: by a link in ``?token=``, or as everywhere. Raises `ClientError` 401, 403."""
    token = request.query_params.get("token", "")
    if not token:
        return ctx.admit(request, spends=True)
    if PRINCIPAL not in request.scope:
        ctx.guard.check_host(request.headers)
    client = request.scope.get("client")
    address = client[0] if client else ""
    # The link's token and no other: what stands in URLs is in logs and histories.
    found = await ctx.guard.authenticate(token, request.headers, address) if _is_link(token) else None
    if isinstance(found, PenstockError) and found.code == "expired_token":
        message = "This link has expired. Ask whoever gave it to you for a new one."
        raise ClientError(message, code="link_expired", status=403, param="token")
    if not isinstance(found, Principal) or not found.grant.once:
        message = "This link does not allow that. Ask whoever gave it to you for a new one."
        raise ClientError(message, code="invalid_link", status=403, param="token")
    return found


def _is_link(token: str) -> bool:
    return token.startswith("pt_")


async def list_presets(request: Request) -> Response:
    """``GET /v1/presets``: names, descriptions and variables; no prompts."""
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    only = principal.grant.preset
    data = [shown(preset) for preset in ctx.presets.values() if only in ("", preset.name)]
    return _answer({"object": "list", "data": data})


def shown(preset: Preset) -> dict[str, Any]:
    """Return what is told of a preset."""
    variables: Mapping[str, dict[str, Any]] = {
        name: {
            "required": one.default is None,
            **({"default": one.default} if one.default is not None else {}),
            **({"choices": list(one.choices)} if one.choices else {}),
            "max_chars": one.max_chars,
            **({"description": one.description} if one.description else {}),
        }
        for name, one in preset.variables.items()
    }
    body: dict[str, Any] = {"name": preset.name, "model": preset.model, "variables": variables}
    if preset.description:
        body["description"] = preset.description
    return body


async def make_preset_link(request: Request) -> Response:
    """``POST /v1/presets/{preset}/links``: a URL with which a page may start this preset, once."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    preset = _preset(ctx, request)
    asked: PresetLinkRequest = await _asked(ctx, request, _decode_link)
    if ctx.minter is None:  # never with what the assembly builds
        raise ClientError("This gateway makes no links.", code="not_found", status=404)
    spend = None if asked.spend_usd is None else round(asked.spend_usd * 1e9)
    made = ctx.minter.make(principal, TokenOrder(preset=preset.name, spend=spend, ttl=asked.ttl_s, once=True))
    root = quote(request.scope.get("root_path", ""))
    body = {
        "token": made.token,
        "principal": made.principal.id,
        "expires_at": int(made.expires_at),
        "url": f"{root}/v1/presets/{quote(preset.name, safe='')}?token={made.token}",
    }
    return _answer(body, 201)


def _answer(body: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store", "x-request-id": current_request_id()}
    return Response(_encode(body), status, headers, "application/json")
