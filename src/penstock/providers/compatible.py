"""Providers that speak OpenAI's Chat Completions: OpenAI itself, and the many servers that are alike.

Owns the paths under such a server's address and the many forms in which they list their models.
What is said is the dialect's business, and where a server differs `penstock.wire.openai_chat_quirks`';
address and credentials are `penstock.providers.endpoint`'s.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.passage import Errand, Passage
from penstock.providers.provider import Conversation, Model
from penstock.types.errors import WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.fitting import Fitting
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_chat_quirks import NO_QUIRKS, Quirks, render_request
from penstock.wire.openai_completions_decoder import CompletionsDecoder
from penstock.wire.openai_completions_requests import TemplateName
from penstock.wire.openai_completions_requests import render_request as render_completion
from penstock.wire.openai_responses import OPENAI_RESPONSES
from penstock.wire.openai_responses_requests import NAME as RESPONSES_NAME
from penstock.wire.openai_responses_requests import render_request as render_response

CHAT_PATH: Final = "/chat/completions"
COMPLETIONS_PATH: Final = "/completions"
RESPONSES_PATH: Final = "/responses"
MODELS_PATH: Final = "/models"

MAX_MODELS: Final = 10_000
"""Names of one list of models."""


class CompatibleSettings(EndpointSettings, frozen=True, forbid_unknown_fields=True):
    """As `EndpointSettings`; ``base_url`` is what SDKs call it, mostly ending in ``/v1``. ``template``: how a
    conversation becomes a text, where the API is ``completions``; none, so that it is refused."""

    organization: str = ""
    quirks: Quirks = NO_QUIRKS
    api: Literal["chat", "completions", "responses"] = "chat"
    template: TemplateName = ""


class CompatibleProvider:
    """One server that speaks OpenAI Chat under `CHAT_PATH`, legacy Completions under `COMPLETIONS_PATH`, or
    Responses under `RESPONSES_PATH`."""

    def __init__(self, name: str, settings: CompatibleSettings, pool: Pool) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._quirks = settings.quirks
        self._api = settings.api
        self._template = settings.template
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
        if self._api == "responses":
            body = render_response(fit_response(request, fitting), model)
            source = self._endpoint.post(RESPONSES_PATH, body)
            return Conversation(source, OPENAI_RESPONSES.decoder(), fitting.dropped)
        if self._api == "completions":
            body = render_completion(request, model, self._quirks, fitting, self._template)
            source = self._endpoint.post(COMPLETIONS_PATH, body)
            return Conversation(source, CompletionsDecoder(), fitting.dropped)
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


_UNKNOWN_TO_RESPONSES: Final = ("seed", "presence_penalty", "frequency_penalty")


def fit_response(request: GenerationRequest, fitting: Fitting) -> GenerationRequest:
    """Return ``request`` less what Responses have no place for, which ``fitting`` notes. Raises `ClientError`
    by its rule, and for stop words, without which it would be another answer."""
    if request.dialect == RESPONSES_NAME:
        return request
    lacking = [name for name in _UNKNOWN_TO_RESPONSES if getattr(request, name) is not None]
    for name in lacking:
        fitting.lack(name)
    fitting.check(request, _RESPONSES_FIELDS.union(lacking))
    return msgspec.structs.replace(request, **dict.fromkeys(lacking))


_RESPONSES_FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop")).union(
    ("tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "user"),
    ("store", "metadata", "logprobs", "top_logprobs"),
)


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
