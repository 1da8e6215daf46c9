"""What can be asked for, and what it would take, without asking for it: ``GET /v1/models`` in the form of
whoever asks, ``POST /v1/messages/count_tokens``; and whether the server lives and takes calls."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penstock.gateway.gateway import ModelInfo
from penstock.server import gemini
from penstock.server.context import context, read_body, require_json
from penstock.server.errors import speaks_anthropic, speaks_gemini
from penstock.server.exchanges import current_request_id
from penstock.server.generations import anthropic_request
from penstock.types.errors import ClientError

MAX_PAGE: Final = 1_000
PAGE: Final = 20
"""Models of one page of Anthropic's list, at most and by default, as Anthropic has it."""


async def list_models(request: Request) -> Response:
    """``GET /v1/models``: in OpenAI's form, with ``description`` where the provider gives one; to clients
    that send ``anthropic-version`` in Anthropic's, to those that send ``x-goog-api-key`` in Google's, page
    by page."""
    limit = _limit(request.query_params.get("limit", ""))
    if speaks_gemini(request.scope):
        return await gemini.list_gemini_models(request)
    ctx = context(request)
    models = await ctx.models(ctx.admit(request, spends=False))
    if speaks_anthropic(request.scope):
        headers = {"x-request-id": current_request_id()}
        return JSONResponse(_page(models, request.query_params, limit), headers=headers)
    return JSONResponse({"object": "list", "data": [_body(model, model.id) for model in models]})


async def one_model(request: Request) -> Response:
    """``GET /v1/models/{model}``, also by a name that is not listed and means the same."""
    if speaks_gemini(request.scope):
        return await gemini.one_gemini_model(request)
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    name = request.path_params["model"]
    body = _anthropic_body if speaks_anthropic(request.scope) else _body
    for model in await ctx.models(principal):
        if name == model.id or name in model.aliases:
            return JSONResponse(body(model, name))
    raise ctx.unknown_model(principal, name)


async def count_tokens(request: Request) -> Response:
    """``POST /v1/messages/count_tokens``: counted by the provider if it can, else estimated and marked so."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    count = await ctx.count(principal, anthropic_request(request)(body))
    told: dict[str, Any] = {"input_tokens": count.tokens}
    if count.estimated:
        told["estimated"] = True
    return JSONResponse(told, headers={"x-request-id": current_request_id()})


def _page(models: Sequence[ModelInfo], query: Mapping[str, str], limit: int) -> dict[str, Any]:
    """Return one page of Anthropic's list. A cursor that is no model's is at neither end of anything."""
    names = [model.id for model in models]
    start, end = 0, len(models)
    if (after := query.get("after_id")) in names:
        start = names.index(after) + 1
    if (before := query.get("before_id")) in names:
        end = names.index(before)
    if before and not after:  # the page that ends there
        more, start = end - limit > start, max(start, end - limit)
    else:
        more, end = end - start > limit, min(end, start + limit)
    data = [_anthropic_body(model, model.id) for model in models[start:end]]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": more, "first_id": ends[0], "last_id": ends[1]}


def _limit(text: str) -> int:
    if not text:
        return PAGE
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= MAX_PAGE):
        message = f"limit is a number from 1 to {MAX_PAGE}."
        raise ClientError(message, code="invalid_value", param="limit")
    return int(text)


def _anthropic_body(model: ModelInfo, name: str) -> dict[str, object]:
    born = datetime.fromtimestamp(model.created, UTC)
    return {
        "type": "model",
        "id": name,
        "display_name": model.description or name,
        "created_at": born.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
    }


def _body(model: ModelInfo, name: str) -> dict[str, object]:
    body: dict[str, object] = {"id": name, "object": "model", "created": model.created}
    body["owned_by"] = model.provider
    if model.description:
        body["description"] = model.description
    return body


async def healthz(request: Request) -> Response:
    """``GET /healthz``: the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """``GET /readyz``: 200 while new calls are taken and the store commits, else 503 with the reason."""
    reason = context(request).gateway.unready
    if reason:
        return JSONResponse({"status": "unavailable", "reason": reason}, 503)
    return JSONResponse({"status": "ready"})
