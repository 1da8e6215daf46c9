"""Providers that speak OpenAI's Chat Completions: OpenAI itself, and the many servers that are alike.

Owns the two paths under such a server's address and the many forms in which they list their models.
What is said is the dialect's business, and where a server differs `penstock.wire.openai_chat_quirks`';
address and credentials are `penstock.providers.endpoint`'s.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.passage import Errand, Passage
from penstock.providers.provider import Conversation, Model
from penstock.types.errors import WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_chat_quirks import NO_QUIRKS, Quirks, render_request

CHAT_PATH: Final = "/chat/completions"
MODELS_PATH: Final = "/models"

MAX_MODELS: Final = 10_000
"""Names of one list of models."""


class CompatibleSettings(EndpointSettings, frozen=True, forbid_unknown_fields=True):
    """As `EndpointSettings`; ``base_url`` is what SDKs call it, mostly ending in ``/v1``."""

    organization: str = ""
    quirks: Quirks = NO_QUIRKS


class CompatibleProvider:
    """One server that speaks OpenAI Chat under `CHAT_PATH`."""

    def __init__(self, name: str, settings: CompatibleSettings, pool: Pool) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._quirks = settings.quirks
        self._endpoint = Endpoint(
            name,
            settings,
            pool,
            OPENAI_CHAT.parse_error,
            accept="text/event-stream",
            headers={"openai-organization": settings.organization} if settings.organization else None,
        )

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<CompatibleProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if it cannot be asked that."""
        fitting = self._endpoint.fitting()
        body = render_request(request, model, self._quirks, fitting)
        return Conversation(self._endpoint.post(CHAT_PATH, body), OPENAI_CHAT.decoder(), fitting.dropped)

    def passage(self, errand: Errand) -> Passage:
        """Return a request for another of its endpoints on its way; nothing is sent yet."""
        return self._endpoint.passage(errand)

    async def models(self) -> Sequence[Model]:
        """Ask the server for its models, at most `MAX_MODELS`. Raises `UpstreamError`."""
        return parse_models(await self._endpoint.get(MODELS_PATH))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()


def parse_models(answer: Any) -> Sequence[Model]:
    """Return the models of a list, in its order, each once.

    Takes OpenAI's ``{"data": [{"id": …}]}``, Ollama's ``{"models": [{"name": …}]}``, and bare lists of
    objects or names; passes over what has no name. Raises `WireError` where there is no list.
    """
    if isinstance(answer, dict):
        answer = answer.get("data", answer.get("models"))
    if not isinstance(answer, list):
        raise WireError("The provider's list of models has an unknown form.")
    return tuple({model.name: model for model in _models(answer[:MAX_MODELS])}.values())


def _models(entries: list[Any]) -> Iterator[Model]:
    for entry in entries:
        name, created = entry, None
        if isinstance(entry, dict):
            name = entry.get("id") or entry.get("name") or entry.get("model")
            created = entry.get("created")
        if isinstance(name, str) and name:
            yield Model(name, created=created if type(created) is int and created > 0 else 0)
