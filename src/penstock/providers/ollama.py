"""Ollama: models on one's own machine, or in Ollama's cloud, by Ollama's own routes.

Owns the paths under its address and what its list of models says. What is said is `penstock.wire.ollama`'s;
address and credentials are `penstock.providers.endpoint`'s.

Source: api/types.go of github.com/ollama/ollama, version 0.17.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Model
from penstock.types.errors import WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.ollama import DEFAULTS, OllamaDecoder, Preferences, parse_error, render_request
from penstock.wire.ollama_requests import EXTRAS, FIELDS

PATHS: Final[Mapping[str, str]] = {"chat": "/api/chat", "generate": "/api/generate"}
MODELS_PATH: Final = "/api/tags"

MAX_MODELS: Final = 10_000
"""Names of one list of models."""

LATEST: Final = ":latest"
"""The tag that a name without one means."""


class OllamaSettings(EndpointSettings, frozen=True):
    """As `EndpointSettings`; ``base_url`` is the address alone, without ``/api`` or ``/v1``."""

    preferences: Preferences = DEFAULTS


class OllamaProvider:
    """One Ollama."""

    def __init__(self, name: str, settings: OllamaSettings, pool: Pool) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._preferences = settings.preferences
        self._path = PATHS[settings.preferences.api]
        path = urlsplit(settings.base_url.strip()).path.rstrip("/")
        if path.endswith(("/v1", "/api")):
            raise ValueError(
                "The base URL of an Ollama is its address alone, such as http://127.0.0.1:11434. For its "
                "OpenAI-compatible routes under /v1, the kind is openai."
            )
        self._endpoint = Endpoint(name, settings, pool, parse_error, accept="application/x-ndjson")

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<OllamaProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if Ollama cannot do it."""
        fitting = self._endpoint.fitting()
        fitting.check(request, FIELDS, EXTRAS)
        body = render_request(request, model, self._preferences)
        return Conversation(self._endpoint.post(self._path, body), OllamaDecoder(), fitting.dropped)

    async def models(self) -> Sequence[Model]:
        """Ask the server which models it has, at most `MAX_MODELS`. Raises `UpstreamError`."""
        return parse_models(await self._endpoint.get(MODELS_PATH))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()


def parse_models(answer: Any) -> Sequence[Model]:
    """Return the models of an answer to ``/api/tags``, in its order, each once.

    A name with the tag ``latest`` is also one without. Raises `WireError` where there is no list.
    """
    entries = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise WireError("The provider's list of models has an unknown form.")
    return tuple({model.name: model for model in _models(entries[:MAX_MODELS])}.values())


def _models(entries: list[Any]) -> Iterator[Model]:
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        name = entry.get("name") or entry.get("model")
        if isinstance(name, str) and name:
            aliases = (name.removesuffix(LATEST),) if name.endswith(LATEST) else ()
            yield Model(name, aliases, _describe(entry), _seconds(entry.get("modified_at")))


def _describe(entry: Mapping[str, Any]) -> str:
    """Return family, size and quantisation, and where a cloud model really runs."""
    details = entry.get("details")
    details = details if isinstance(details, dict) else {}
    said = [details.get(name) for name in ("family", "parameter_size", "quantization_level")]
    remote = entry.get("remote_host")
    said.append(f"at {remote}" if isinstance(remote, str) and remote else None)
    return ", ".join(word for word in said if isinstance(word, str) and word not in ("", "unknown"))[:200]


def _seconds(time: Any) -> int:
    try:
        return max(0, int(datetime.fromisoformat(time).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0
