"""Cohere, by its own routes (v2).

Owns the paths under its address and what its list of models says. What is said is `penstock.wire.cohere`'s;
address and credentials are `penstock.providers.endpoint`'s.

Source: cohere (Python, 7.3).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Model
from penstock.types.errors import WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.cohere import CohereDecoder, parse_error, render_request
from penstock.wire.cohere_requests import EXTRAS, FIELDS

BASE_URL: Final = "https://api.cohere.com"
CHAT_PATH: Final = "/v2/chat"
MODELS_PATH: Final = "/v1/models?endpoint=chat&page_size=1000"

MAX_MODELS: Final = 10_000
"""Names of one list of models."""


class CohereProvider:
    """One server that speaks Cohere v2; ``base_url`` is its address alone."""

    def __init__(self, name: str, settings: EndpointSettings, pool: Pool) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._endpoint = Endpoint(name, settings, pool, parse_error, accept="text/event-stream")

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<CohereProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if Cohere cannot do it."""
        fitting = self._endpoint.fitting()
        fitting.one_answer(request)
        fitting.check(request, FIELDS, EXTRAS)
        body = render_request(request, model)
        return Conversation(self._endpoint.post(CHAT_PATH, body), CohereDecoder(), fitting.dropped)

    async def models(self) -> Sequence[Model]:
        """Ask for the models that chat, at most `MAX_MODELS`. Raises `UpstreamError`."""
        return parse_models(await self._endpoint.get(MODELS_PATH))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()


def parse_models(answer: Any) -> Sequence[Model]:
    """Return the models of a list, in its order, each once. Raises `WireError` where there is no list."""
    entries = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise WireError("The provider's list of models has an unknown form.")
    return tuple({model.name: model for model in _models(entries[:MAX_MODELS])}.values())


def _models(entries: list[Any]) -> Iterator[Model]:
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            continue
        uses = entry.get("endpoints")
        if not isinstance(uses, list) or "chat" in uses:
            yield Model(name)
