"""OpenAI's routes as Azure's clients ask them: the model is a *deployment*, whose name stands in the URL.

So does that of an *engine*, as OpenAI called models before. What the body says of a model is passed over, and
so is ``api-version``: answers are the same in all of them. Clients of Azure's newest API have a base URL as
OpenAI's have, and need nothing of this.

Source: openai-python, lib/azure.py; versions before 1.0 of it for engines.
"""

from collections.abc import Callable

import msgspec
from starlette.requests import Request

from penstock.server.generations import AnyResponse, chat_format, completions_format, create
from penstock.server.relay import Relayed, pass_json_as
from penstock.types.requests import GenerationRequest
from penstock.wire.bodies import read_object
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_completions import OPENAI_COMPLETIONS

_encode = msgspec.json.Encoder().encode


async def azure_chat_completions(request: Request) -> AnyResponse:
    """``POST /openai/deployments/{model}/chat/completions``: OpenAI Chat."""
    parse = _naming(request, OPENAI_CHAT.parse_request)
    return await create(request, OPENAI_CHAT.name, parse, chat_format)


async def azure_completions(request: Request) -> AnyResponse:
    """``POST /openai/deployments/{model}/completions``: OpenAI's legacy Completions."""
    parse = _naming(request, OPENAI_COMPLETIONS.parse_request)
    return await create(request, OPENAI_COMPLETIONS.name, parse, completions_format)


async def azure_embeddings(request: Request) -> Relayed:
    """``POST /openai/deployments/{model}/embeddings``: passed on to the model's provider."""
    return await pass_json_as(request, "/embeddings", request.path_params["model"])


def _naming(
    request: Request, parse: Callable[[bytes], GenerationRequest]
) -> Callable[[bytes], GenerationRequest]:
    """Return ``parse`` for bodies whose model stands in the URL of ``request``."""
    model = request.path_params["model"]
    return lambda body: parse(_encode({**read_object(body), "model": model}))
