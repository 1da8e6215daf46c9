"""Anthropic: Claude, by its own routes, and the servers that speak as it does.

Owns the paths under its address, its way of being let in, which headers a client of its own dialect may
add, and what its list of models says. What is said is the dialect's business; the address and how bytes
arrive are `penstock.providers.endpoint`'s.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Model
from penstock.types.errors import WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.anthropic_messages_requests import (
    DEFAULTS,
    EXTRAS,
    FIELDS,
    NAME,
    Preferences,
    headers_of,
    render_count,
    render_request,
)

BASE_URL: Final = "https://api.anthropic.com"
VERSION: Final = "2023-06-01"
"""Of the API, where the client does not say: the one that takes what clients of other dialects send."""

MESSAGES_PATH: Final = "/v1/messages"
COUNT_PATH: Final = "/v1/messages/count_tokens"
MODELS_PATH: Final = "/v1/models?limit=1000"

MAX_PAGES: Final = 5
"""Of a list of models, a thousand each."""


class AnthropicSettings(EndpointSettings, frozen=True):
    """As `EndpointSettings`, but the key goes as ``x-api-key``; ``base_url`` is the address alone, as in
    ``ANTHROPIC_BASE_URL``; a ``/v1`` at its end is taken for part of our paths."""

    preferences: Preferences = DEFAULTS


class AnthropicProvider:
    """One server that speaks Anthropic Messages."""

    def __init__(self, name: str, settings: AnthropicSettings, pool: Pool) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._preferences = settings.preferences
        address = settings.base_url.strip().rstrip("/").removesuffix("/v1")
        self._endpoint = Endpoint(
            name,
            msgspec.structs.replace(settings, base_url=address),
            pool,
            ANTHROPIC_MESSAGES.parse_error,
            accept="text/event-stream",
            headers={"anthropic-version": VERSION},
            key_header="x-api-key",
            key_prefix="",
        )

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<AnthropicProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if Anthropic cannot do it."""
        fitting = self._endpoint.fitting()
        if request.dialect != NAME:
            fitting.check(request, FIELDS, EXTRAS)
        body = render_request(request, model, self._preferences)
        source = self._endpoint.post(MESSAGES_PATH, body, headers_of(request))
        return Conversation(source, ANTHROPIC_MESSAGES.decoder(), fitting.dropped)

    async def count_tokens(self, request: GenerationRequest, model: str) -> int:
        """Ask how many tokens ``request`` has. Raises `UpstreamError`."""
        body = render_count(request, model)
        answer = await self._endpoint.ask(COUNT_PATH, body, headers_of(request))
        count = answer.get("input_tokens") if isinstance(answer, dict) else None
        if type(count) is not int:
            raise WireError("The provider's count of tokens has an unknown form.")
        return count

    async def models(self) -> Sequence[Model]:
        """Ask for the models, page by page. Raises `UpstreamError`."""
        found: dict[str, Model] = {}
        path = MODELS_PATH
        for _ in range(MAX_PAGES):
            answer = await self._endpoint.get(path)
            found |= {model.name: model for model in parse_models(answer)}
            last = answer.get("last_id")
            if answer.get("has_more") is not True or not isinstance(last, str):
                break
            path = f"{MODELS_PATH}&after_id={quote(last, safe='')}"
        return tuple(found.values())

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()


def parse_models(answer: Any) -> Sequence[Model]:
    """Return the models of one page, in its order. Raises `WireError` where there is no list."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise WireError("The provider's list of models has an unknown form.")
    return tuple(_models(entries))


def _models(entries: list[Any]) -> Iterator[Model]:
    for entry in entries:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            title = entry.get("display_name")
            about = title[:200] if isinstance(title, str) and title != name else ""
            yield Model(name, (), about, _seconds(entry.get("created_at", entry.get("created"))))


def _seconds(time: Any) -> int:
    try:
        moment = time if isinstance(time, int) else int(msgspec.convert(time, datetime).timestamp())
        return max(0, moment)
    except (msgspec.ValidationError, ValueError, OverflowError):
        return 0
