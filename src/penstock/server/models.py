"""``GET /v1/models``: what can be asked for; and whether the server lives and takes calls."""

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penstock.gateway.gateway import ModelInfo
from penstock.server.context import context

_encode = msgspec.json.Encoder().encode


async def list_models(request: Request) -> Response:
    """``GET /v1/models``: in OpenAI's form; ``description`` where the provider gives one."""
    ctx = context(request)
    ctx.admit(request, spends=False)
    models = [_body(model, model.id) for model in await ctx.gateway.models()]
    return JSONResponse({"object": "list", "data": models})


async def one_model(request: Request) -> Response:
    """``GET /v1/models/{model}``, also by a name that is not listed and means the same."""
    ctx = context(request)
    ctx.admit(request, spends=False)
    name = request.path_params["model"]
    for model in await ctx.gateway.models():
        if name == model.id or name in model.aliases:
            return JSONResponse(_body(model, name))
    raise ctx.gateway.unknown_model(name)


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
