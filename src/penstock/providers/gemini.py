"""Google Gemini, by its own routes.

Owns the paths under its address, its way of being let in, and what its list of models says. What is said is
the dialect's business; the address and how bytes arrive are `penstock.providers.endpoint`'s.

Source: types of google-genai (3.4); ai.google.dev, API reference.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Model
from penstock.types.errors import WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.fitting import Fitting
from penstock.wire.gemini import GEMINI
from penstock.wire.gemini_decoder import GenerateContentDecoder
from penstock.wire.gemini_requests import NAME, render_request

BASE_URL: Final = "https://generativelanguage.googleapis.com/v1beta"
MODELS_PATH: Final = "/models?pageSize=1000"

FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop", "seed", "tools")).union(
    ("presence_penalty", "frequency_penalty", "tool_choice", "response_format", "reasoning_effort")
)
"""What requests of other dialects ask that has a place here."""

EXTRAS: Final = frozenset(("top_k",))

_encode = msgspec.json.Encoder().encode


class GeminiProvider:
    """One server that speaks Gemini under ``…/models/<model>:…``."""

    def __init__(self, name: str, settings: EndpointSettings, pool: Pool) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._endpoint = Endpoint(
            name,
            settings,
            pool,
            GEMINI.parse_error,
            accept="text/event-stream",
            key_header="x-goog-api-key",
            key_prefix="",
        )

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<GeminiProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if Gemini cannot do it."""
        fitting = self._endpoint.fitting()
        body = render_request(fitted(request, fitting), model)
        source = self._endpoint.post(f"{_path(model)}:streamGenerateContent?alt=sse", body)
        return Conversation(source, GenerateContentDecoder(), fitting.dropped)

    async def count_tokens(self, request: GenerationRequest, model: str) -> int:
        """Ask how many tokens ``request`` has. Raises `UpstreamError`, `ClientError` as `converse` does."""
        asked = {"model": _path(model)[1:], **msgspec.json.decode(render_request(request, model))}
        answer = await self._endpoint.ask(
            f"{_path(model)}:countTokens", _encode({"generateContentRequest": asked})
        )
        count = answer.get("totalTokens") if isinstance(answer, dict) else None
        if type(count) is not int:
            raise WireError("The provider's count of tokens has an unknown form.")
        return count

    async def models(self) -> Sequence[Model]:
        """Ask for the models that generate content. Raises `UpstreamError`."""
        return parse_models(await self._endpoint.get(MODELS_PATH))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()


def fitted(request: GenerationRequest, fitting: Fitting) -> GenerationRequest:
    """Return what of ``request`` has a place in Gemini. Raises `ClientError` as ``fitting`` has it."""
    if request.dialect == NAME:
        return request
    fitting.check(request, FIELDS, EXTRAS)
    # Its log probabilities have another form, in which only its own clients can read them.
    return msgspec.structs.replace(request, logprobs=None, top_logprobs=None)


def _path(model: str) -> str:
    return f"/models/{quote(model.removeprefix('models/'), safe='')}"


def parse_models(answer: Any) -> Sequence[Model]:
    """Return the models of a list, in its order. Raises `WireError` where there is no list."""
    entries = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise WireError("The provider's list of models has an unknown form.")
    return tuple(_models(entries))


def _models(entries: list[Any]) -> Iterator[Model]:
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            continue
        methods = entry.get("supportedGenerationMethods")
        if isinstance(methods, list) and "generateContent" not in methods:
            continue  # embeddings and the like
        title = entry.get("displayName")
        yield Model(name.removeprefix("models/"), (), title[:200] if isinstance(title, str) else "")
