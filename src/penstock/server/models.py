"""``GET /v1/models``: what can be asked for; and whether the server lives and takes calls."""

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from penstock.server.context import context
from penstock.types.errors import ClientError

_encode = msgspec.json.Encoder().encode


async def list_models(request: Request) -> Response:
    """``GET /v1/models``: in OpenAI's form; ``description`` where the provider gives one."""
    ctx = context(request)
    ctx.admit(request, spends=False)
    models = [_model(model.id, model.provider, model.description) for model in await ctx.gateway.models()]
    return JSONResponse({"object": "list", "data": models})


async def one_model(request: Request) -> Response:
    """``GET /v1/models/{model}``."""
    ctx = context(request)
    ctx.admit(request, spends=False)
    name = request.path_params["model"]
    for model in await ctx.gateway.models():
        if model.id == name:
            return JSONResponse(_model(model.id, model.provider, model.description))
    message = f"The model '{name[:200]}' is not known here. GET /v1/models lists what is."
    raise ClientError(message, code="model_not_found", status=404, param="model")


def _model(name: str, provider: str, description: str) -> dict[str, object]:
    body: dict[str, object] = {"id": name, "object": "model", "created": 0, "owned_by": provider}
    if description:
        body["description"] = description
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
