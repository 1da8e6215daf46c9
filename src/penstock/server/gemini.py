"""Google's Gemini: answers as chunks or whole, counting, and the models in Google's form.

What a request wants stands in its URL: the model, and after a colon what is to be done. Its key may stand
there too, since that is how Google's API is called; it is read here and logged nowhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penstock.gateway.gateway import ModelInfo
from penstock.server.context import context, read_body, require_json
from penstock.server.exchanges import current_request_id
from penstock.server.formats import gemini
from penstock.server.generations import AnyResponse, create
from penstock.server.renderings import Format
from penstock.types.errors import ClientError
from penstock.types.events import AnyEvent
from penstock.types.requests import GenerationRequest
from penstock.wire.dialect import Answer
from penstock.wire.gemini import fold
from penstock.wire.gemini_requests import NAME, parse_count, parse_request, wants_thoughts

MAX_PAGE: Final = 1_000
PAGE: Final = 50
"""Models of one page, at most and by default, as Google has it."""

METHODS: Final = ("generateContent", "streamGenerateContent", "countTokens")

_encode = msgspec.json.Encoder().encode


async def generate_content(request: Request) -> AnyResponse:
    """``POST /v1beta/models/{model}:generateContent``: the answer whole."""
    return await _generate(request, stream=False)


async def stream_generate_content(request: Request) -> AnyResponse:
    """``POST …:streamGenerateContent``: chunks as events with ``alt=sse``, else as one array."""
    return await _generate(request, stream=True)


async def _generate(request: Request, *, stream: bool) -> AnyResponse:
    model = request.path_params["model"]
    events = request.query_params.get("alt", "") == "sse"
    shown = False

    def parse(body: bytes) -> GenerationRequest:
        nonlocal shown
        parsed = parse_request(body, model, stream=stream)
        shown = wants_thoughts(parsed)
        return parsed

    def format_for(generation: GenerationRequest, with_ids: bool) -> Format:
        return gemini(thoughts=shown, array=not events)

    def render(answer: Answer, collected: Sequence[AnyEvent]) -> bytes:
        return _encode(fold(answer, collected, thoughts=shown))

    return await create(request, NAME, parse, format_for, render)


async def gemini_count_tokens(request: Request) -> Response:
    """``POST …:countTokens``: counted by a provider that can, else estimated and marked so."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    asked = parse_count(body, request.path_params["model"])
    count = await ctx.count(principal, asked)
    told: dict[str, Any] = {"totalTokens": count.tokens}
    if count.estimated:
        told["estimated"] = True
    return JSONResponse(told, headers={"x-request-id": current_request_id()})


# --- models --------------------------------------------------------------------------------------------


async def list_gemini_models(request: Request) -> Response:
    """``GET /v1beta/models``: in Google's form, page by page."""
    ctx = context(request)
    models = await ctx.models(ctx.admit(request, spends=False))
    body = page(models, request.query_params)
    return JSONResponse(body, headers={"x-request-id": current_request_id()})


async def one_gemini_model(request: Request) -> Response:
    """``GET /v1beta/models/{model}``, also by a name that is not listed and means the same."""
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    name = request.path_params["model"]
    for model in await ctx.models(principal):
        if name == model.id or name in model.aliases:
            return JSONResponse(body_of(model, name))
    raise ctx.unknown_model(principal, name)


def page(models: Sequence[ModelInfo], query: Mapping[str, str]) -> dict[str, Any]:
    """Return one page; its token is the name of the last model of the page before. Raises `ClientError`."""
    size = query.get("pageSize", "") or str(PAGE)
    if not (size.isascii() and size.isdecimal() and len(size) < 6 and 1 <= int(size) <= MAX_PAGE):
        raise ClientError(
            f"pageSize is a number from 1 to {MAX_PAGE}.", code="invalid_value", param="pageSize"
        )
    names = [model.id for model in models]
    token = query.get("pageToken", "")
    start = names.index(token) + 1 if token in names else 0
    shown = models[start : start + int(size)]
    body: dict[str, Any] = {"models": [body_of(model, model.id) for model in shown]}
    if start + len(shown) < len(models):
        body["nextPageToken"] = shown[-1].id
    return body


def body_of(model: ModelInfo, name: str) -> dict[str, Any]:
    """Return a model in Google's form."""
    return {
        "name": f"models/{name}",
        "baseModelId": name,
        "version": "1",
        "displayName": name,
        "description": model.description,
        "supportedGenerationMethods": [*METHODS],
    }
