"""What is for administrators and for back ends: keys, and the tokens that pages get instead of one.

A key, and a token, is in the answer that makes it and nowhere else, ever.
"""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, cast, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.server.context import Context, Desk, context, parse_object, read_body, require_json
from penstock.server.exchanges import current_request_id
from penstock.server.guard import ORIGIN, is_origin, normal_origin
from penstock.server.profiling import DEFAULT_SECONDS, FORMS, MAX_SECONDS, Profile
from penstock.types.errors import ClientError
from penstock.types.keys import NAME, KeyOrder, KeyRecord, NewKey, TokenOrder
from penstock.types.principals import Grant, is_network
from penstock.types.usage import USD, By, Question

MAX_TTL_S: Final = 10 * 366 * 86_400.0
MAX_TOKEN_TTL_S: Final = 86_400.0
MAX_GRACE_S: Final = 30 * 86_400.0
MAX_LIST: Final = 100
MAX_NAME: Final = 200
MAX_PURSES: Final = 1_000
"""Bounds of what a key or a token is made from: seconds, members of a list, characters of one."""

Names = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)], ...],
    msgspec.Meta(max_length=MAX_LIST),
]

Origins = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=f"^{ORIGIN}$", max_length=MAX_NAME)], ...],
    msgspec.Meta(max_length=MAX_LIST),
]

_encode = msgspec.json.Encoder().encode


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/admin/keys``; what is empty is not limited."""

    name: Annotated[str, msgspec.Meta(pattern=f"^{NAME.pattern}$")]
    team: Annotated[str, msgspec.Meta(pattern=f"^({NAME.pattern})?$")] = ""
    admin: bool = False
    models: Names = ()
    routes: Names = ()
    origins: Origins = ()
    addresses: Names = ()
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TTL_S)] | None = None


class RotateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/admin/keys/{key}/rotate``. ``grace_s``: how long the old key still works."""

    grace_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_GRACE_S)] = 0.0


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/tokens``. ``user``: whom the page is for; ``spend_usd``: what it may cost."""

    user: Annotated[str, msgspec.Meta(pattern=f"^({NAME.pattern})?$")] = ""
    models: Names = ()
    preset: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] = ""
    origins: Origins = ()
    spend_usd: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TOKEN_TTL_S)] = 900.0


_decode_key = msgspec.json.Decoder(KeyRequest)
_decode_rotate = msgspec.json.Decoder(RotateRequest)
_decode_token = msgspec.json.Decoder(TokenRequest)


async def _asked(ctx: Context, request: Request, decoder: msgspec.json.Decoder[Any]) -> Any:
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    parse_object(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ClientError(f"The body does not fit: {error}.", code="invalid_request") from None


def _check_names(**names: str) -> None:
    """Refuse what a pattern lets through: to it, a line may still end after the end."""
    for param, name in names.items():
        if name and not NAME.fullmatch(name):
            message = f"{param} has up to 64 letters, digits and . _ @ : -"
            raise ClientError(message, code="invalid_value", param=param)


def _answer(body: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store", "x-request-id": current_request_id()}
    return Response(_encode(body), status, headers, "application/json")


def _desk(ctx: Context) -> Desk:
    if ctx.desk is None:  # never with what the assembly builds
        raise ClientError("This gateway keeps no keys.", code="not_found", status=404)
    return ctx.desk


def shown(record: KeyRecord, now: float) -> dict[str, Any]:
    """Return what is told of a key: everything but the key."""
    grant = record.grant
    body: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "state": record.state(now),
        "created_at": int(record.created_at),
    }
    for name in ("team", "admin", "replaced_by"):
        if value := getattr(record, name):
            body[name] = value
    for name in ("models", "routes", "origins", "addresses"):
        if value := getattr(grant, name):
            body[name] = list(value)
    for name in ("expires_at", "revoked_at"):
        if (at := getattr(record, name)) is not None:
            body[name] = int(at)
    return body


# --- keys ----------------------------------------------------------------------------------------------


async def list_keys(request: Request) -> Response:
    """``GET /v1/admin/keys``: all that are kept, oldest first; those of the configuration stand there."""
    ctx = context(request)
    ctx.admit_admin(request)
    records = await _desk(ctx).keys()
    return _answer({"object": "list", "data": [shown(record, ctx.wall()) for record in records]})


async def create_key(request: Request) -> Response:
    """``POST /v1/admin/keys``: a new key, which is told this once."""
    ctx = context(request)
    ctx.admit_admin(request)
    asked: KeyRequest = await _asked(ctx, request, _decode_key)
    _check_names(name=asked.name, team=asked.team)
    for name, good in (("origins", is_origin), ("addresses", is_network)):
        for value in getattr(asked, name):
            if not good(value):
                message = f"'{value[:100]}' is not one of {name} as they are written."
                raise ClientError(message, code="invalid_value", param=name)
    grant = Grant(
        models=asked.models,
        routes=asked.routes,
        origins=tuple(map(normal_origin, asked.origins)),
        addresses=asked.addresses,
    )
    made = await _desk(ctx).create(KeyOrder(asked.name, asked.team, asked.admin, grant, asked.ttl_s))
    return await _made(ctx, made)


async def rotate_key(request: Request) -> Response:
    """``POST /v1/admin/keys/{key}/rotate``: its successor, which may the same; the old one ends."""
    ctx = context(request)
    ctx.admit_admin(request)
    asked: RotateRequest = await _asked(ctx, request, _decode_rotate)
    return await _made(ctx, await _desk(ctx).rotate(request.path_params["key"], asked.grace_s))


async def revoke_key(request: Request) -> Response:
    """``DELETE /v1/admin/keys/{key}``: it works no more, here at once, elsewhere within seconds."""
    ctx = context(request)
    ctx.admit_admin(request)
    record = await _desk(ctx).revoke(request.path_params["key"])
    await ctx.keys_changed()
    return _answer(shown(record, ctx.wall()))


async def _made(ctx: Context, made: NewKey) -> Response:
    await ctx.keys_changed()
    return _answer({"key": made.key, **shown(made.record, ctx.wall())}, 201)


# --- usage ---------------------------------------------------------------------------------------------


async def usage(request: Request) -> Response:
    """``GET /v1/admin/usage``: what was used and what it cost, in sums."""
    ctx = context(request)
    ctx.admit_admin(request)
    query = request.query_params
    by = query.get("by", "") or "total"
    if by not in get_args(By):
        raise ClientError(f"by is one of {', '.join(get_args(By))}.", code="invalid_value", param="by")
    asked = Question(
        cast("By", by),
        since=_time(query.get("since", ""), "since") or 0.0,
        until=_time(query.get("until", ""), "until"),
        **{name: query.get(name, "")[:MAX_NAME] for name in ("principal", "team", "model")},
    )
    sums = await ctx.books.summarize(asked) if ctx.books is not None else []
    return _answer({"object": "list", "by": by, "data": [one.body() for one in sums]})


def _time(text: str, param: str) -> float | None:
    """Read Unix seconds, or a day in UTC."""
    if not text:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
        if re.fullmatch(r"\d{1,12}", text, re.ASCII):
            return float(text)
    except ValueError:
        pass
    message = f"{param} is a day in UTC (2026-11-01), or Unix seconds."
    raise ClientError(message, code="invalid_value", param=param)


async def budgets(request: Request) -> Response:
    """``GET /v1/admin/budgets``: the purses of the current periods, those with the least left first."""
    ctx = context(request)
    ctx.admit_admin(request)
    data = []
    for purse in ctx.purses()[:MAX_PURSES]:
        one: dict[str, Any] = {"name": purse.name}
        one |= {f"{part}_usd": getattr(purse, part) / USD for part in ("limit", "spent", "held")}
        if purse.resets_at is not None:
            one["resets_at"] = int(purse.resets_at)
        data.append(one)
    return _answer({"object": "list", "data": data})


# --- profiling ------------------------------------------------------------------------------------------


async def profile(request: Request) -> Profile:
    """``POST /v1/admin/profile``: record for ``seconds``, give a flame graph in ``format``."""
    ctx = context(request)
    ctx.admit_operator(request)
    query = request.query_params
    try:
        seconds = float(query.get("seconds", "") or DEFAULT_SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        message = f"seconds is a number above 0, at most {MAX_SECONDS:.0f}."
        raise ClientError(message, code="invalid_value", param="seconds")
    form = query.get("format", "") or "html"
    if form not in FORMS:
        message = f"format is one of {', '.join(FORMS)}."
        raise ClientError(message, code="invalid_value", param="format")
    return Profile(ctx.profiler, seconds, form, ctx.settings.send_timeout)


# --- configuration -------------------------------------------------------------------------------------


async def reload(request: Request) -> Response:
    """``POST /v1/admin/reload``: the configuration is read again; the answer says what changed."""
    ctx = context(request)
    ctx.admit_operator(request)
    if ctx.reload is None:
        message = "This gateway is part of another program, which has its configuration."
        raise ClientError(message, code="not_found", status=404)
    done = await ctx.reload.reload()
    return _answer({"object": "reload", **done._asdict()})


# --- tokens --------------------------------------------------------------------------------------------


async def make_token(request: Request) -> Response:
    """``POST /v1/tokens``: a back end's key is exchanged for a token that a page may have."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    asked: TokenRequest = await _asked(ctx, request, _decode_token)
    _check_names(user=asked.user)
    if ctx.minter is None or not ctx.guard.wants_key:
        message = "Without keys nobody needs a token: pages of this gateway may call it as they are."
        raise ClientError(message, code="key_required", status=403)
    for origin in asked.origins:
        if not is_origin(origin):
            message = f"'{origin[:100]}' is no origin: write https://app.example.com."
            raise ClientError(message, code="invalid_value", param="origins")
    if asked.preset and asked.preset not in ctx.presets:
        message = f"There is no preset '{asked.preset[:100]}'."
        raise ClientError(message, code="preset_not_found", status=404, param="preset")
    order = TokenOrder(
        user=asked.user,
        models=asked.models,
        preset=asked.preset,
        origins=tuple(map(normal_origin, asked.origins)),
        spend=None if asked.spend_usd is None else round(asked.spend_usd * 1e9),
        ttl=asked.ttl_s,
    )
    made = ctx.minter.make(principal, order)
    body = {"token": made.token, "principal": made.principal.id, "expires_at": int(made.expires_at)}
    return _answer(body, 201)
