"""Ollama's own routes: answers as lines or whole, the models, and what its clients ask of a server.

What a client may ask about a model, Ollama knows because it has it; a gateway does not. What is not known
is left out or empty, never made up. Nothing is pulled, pushed or made here.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penstock.gateway.gateway import ModelInfo
from penstock.server.context import Context, context, parse_object, read_body, require_json
from penstock.server.exchanges import current_request_id
from penstock.server.formats import ollama
from penstock.server.generations import AnyResponse, create
from penstock.server.renderings import Format
from penstock.types.errors import ClientError
from penstock.types.events import AnyEvent
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest
from penstock.wire.dialect import Answer
from penstock.wire.ollama_asked import only_loads, parse_request, shows_thoughts
from penstock.wire.ollama_clients import fold, loaded
from penstock.wire.ollama_requests import NAME, Api

VERSION: Final = "0.17.0"
"""Of Ollama, whose routes these are; its clients look for features by it."""

_encode = msgspec.json.Encoder().encode


async def ollama_chat(request: Request) -> AnyResponse:
    """``POST /api/chat``: lines, unless the body says otherwise."""
    return await _generate(request, "chat")


async def ollama_generate(request: Request) -> AnyResponse:
    """``POST /api/generate``: a prompt, completed."""
    return await _generate(request, "generate")


async def _generate(request: Request, api: Api) -> AnyResponse:
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    asked = parse_request(body, api)
    if only_loads(asked):
        await _model(ctx, principal, asked.model)
        answer = Answer(principal.id, int(datetime.now(UTC).timestamp()), asked.model)
        unload = (asked.extra or {}).get("keep_alive") in (0, "0", "0s")
        return JSONResponse(
            loaded(answer, api, unload=unload), headers={"x-request-id": current_request_id()}
        )
    shown = shows_thoughts(asked)

    def parse(_: bytes) -> GenerationRequest:
        return asked

    def format_for(generation: GenerationRequest, with_ids: bool) -> Format:
        return ollama(api, thoughts=shown)

    def render(answer: Answer, events: Sequence[AnyEvent]) -> bytes:
        return _encode(fold(answer, events, api, thoughts=shown))

    return await create(request, NAME, parse, format_for, render, body=body)


# --- models --------------------------------------------------------------------------------------------


async def ollama_tags(request: Request) -> Response:
    """``GET /api/tags``: the models."""
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    models = [_listed(model) for model in await ctx.models(principal)]
    return JSONResponse({"models": models}, headers={"x-request-id": current_request_id()})


async def ollama_show(request: Request) -> Response:
    """``POST /api/show``: what is known of a model."""
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    require_json(request.headers)
    asked = parse_object(await read_body(request, ctx.settings))
    name = asked.get("model") or asked.get("name")
    if not isinstance(name, str) or not name:
        message = "'model' is required and missing."
        raise ClientError(message, code="missing_required_parameter", param="model")
    model = await _model(ctx, principal, name)
    told = {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(model),
        "model_info": {"general.architecture": model.provider, "general.basename": name},
        "capabilities": ["completion", "tools"],
        "modified_at": _time(model),
    }
    return JSONResponse(told, headers={"x-request-id": current_request_id()})


async def _model(ctx: Context, principal: Principal, name: str) -> ModelInfo:
    """Return a model by a name that means it; ``latest`` is the tag that need not be said."""
    for model in await ctx.models(principal):
        if name.removesuffix(":latest") in (model.id.removesuffix(":latest"), *model.aliases):
            return model
    raise ctx.unknown_model(principal, name)


def _listed(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.id,
        "model": model.id,
        "modified_at": _time(model),
        "size": 0,
        "digest": "",
        "details": _details(model),
    }


def _details(model: ModelInfo) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "",
        "family": model.provider,
        "families": [model.provider],
        "parameter_size": "",
        "quantization_level": "",
    }


def _time(model: ModelInfo) -> str:
    return datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def ollama_ps(request: Request) -> Response:
    """``GET /api/ps``: which models are in memory. None is in ours."""
    context(request).admit(request, spends=False)
    return JSONResponse({"models": []}, headers={"x-request-id": current_request_id()})


async def ollama_version(request: Request) -> Response:
    """``GET /api/version``: of Ollama, whose routes these are."""
    context(request).admit(request, spends=False)
    return JSONResponse({"version": VERSION}, headers={"x-request-id": current_request_id()})
