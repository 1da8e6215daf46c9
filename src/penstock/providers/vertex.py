"""Google Vertex AI: Gemini and Claude behind one project's address.

Owns the paths, by the maker of a model, and how it lets in: by an access token, or in express mode by a key.
What is said is Gemini's or Anthropic's; a Claude is told the version of its API in the body, and no name.

Source: google-genai 3.4 (_api_client.py); anthropic 2.12, lib/vertex/_client.py.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.gemini import fitted
from penstock.providers.provider import Conversation, Model
from penstock.providers.signing import Signer
from penstock.types.errors import WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire import anthropic_messages_requests as claude
from penstock.wire import gemini_requests
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.gemini import GEMINI
from penstock.wire.gemini_decoder import GenerateContentDecoder

CLAUDE_VERSION: Final = "vertex-2023-10-16"
"""Of all of Anthropic's SDKs before 2.0; newer ones send the version that they send to Anthropic."""
GLOBAL: Final = "global"

_COUNTED: Final = frozenset(("contents", "systemInstruction", "tools"))

_encode = msgspec.json.Encoder().encode


def address(region: str) -> str:
    """Return where the models of ``region`` are; ``region`` may be `GLOBAL`, or several (``us``, ``eu``)."""
    if region == GLOBAL:
        return "https://aiplatform.googleapis.com"
    if region in ("us", "eu"):
        return f"https://aiplatform.{region}.rep.googleapis.com"
    return f"https://{region}-aiplatform.googleapis.com"


class VertexSettings(EndpointSettings, frozen=True):
    """As `EndpointSettings`; ``base_url`` is the region's address alone. A key is one of express mode, which
    knows no project."""

    project: str = ""
    region: str = GLOBAL
    preferences: claude.Preferences = claude.DEFAULTS


class VertexProvider:
    """One project in one region."""

    def __init__(self, name: str, settings: VertexSettings, pool: Pool, signer: Signer | None) -> None:
        """Take ``pool`` over, and close it in the end; without ``signer``, the key of ``settings`` is sent.
        Raises `ValueError` for a base URL or a header that cannot be used."""
        self.name = name
        self._preferences = settings.preferences
        self._root = "/v1/"
        if signer is not None:
            self._root += f"projects/{quote(settings.project, safe='')}/locations/{settings.region}/"
        letting_in: dict[str, Any] = {"key_header": "x-goog-api-key", "key_prefix": "", "signer": signer}
        accept = "text/event-stream"
        self._gemini = Endpoint(name, settings, pool, GEMINI.parse_error, accept=accept, **letting_in)
        self._claude = Endpoint(
            name, settings, pool, ANTHROPIC_MESSAGES.parse_error, accept=accept, **letting_in
        )

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<VertexProvider {self.name} {self._gemini.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if it cannot do it."""
        if _is_claude(model):
            return self._converse_claude(request, model)
        fitting = self._gemini.fitting()
        body = gemini_requests.render_request(fitted(request, fitting), model)
        source = self._gemini.post(f"{self._model('google', model)}:streamGenerateContent?alt=sse", body)
        return Conversation(source, GenerateContentDecoder(), fitting.dropped)

    def _converse_claude(self, request: GenerationRequest, model: str) -> Conversation:
        fitting = self._claude.fitting()
        if request.dialect != claude.NAME:
            fitting.check(request, claude.FIELDS, claude.EXTRAS)
        body = _claude_body(claude.render_request(request, model, self._preferences))
        path = f"{self._model('anthropic', model)}:streamRawPredict"
        source = self._claude.post(path, body, claude.headers_of(request))
        return Conversation(source, ANTHROPIC_MESSAGES.decoder(), fitting.dropped)

    async def count_tokens(self, request: GenerationRequest, model: str) -> int:
        """Ask how many tokens ``request`` has. Raises `UpstreamError`, `ClientError` as `converse` does."""
        if _is_claude(model):
            asked = msgspec.json.decode(claude.render_count(request, model))
            asked["anthropic_version"] = CLAUDE_VERSION
            path = f"{self._root}publishers/anthropic/models/count-tokens:rawPredict"
            answer = await self._claude.ask(path, _encode(asked), claude.headers_of(request))
            count = answer.get("input_tokens") if isinstance(answer, dict) else None
        else:
            body = msgspec.json.decode(gemini_requests.render_request(request, model))
            asked = {name: value for name, value in body.items() if name in _COUNTED}
            answer = await self._gemini.ask(f"{self._model('google', model)}:countTokens", _encode(asked))
            count = answer.get("totalTokens") if isinstance(answer, dict) else None
        if type(count) is not int:
            raise WireError("The provider's count of tokens has an unknown form.")
        return count

    async def models(self) -> Sequence[Model]:
        """Nothing: Vertex lists what its makers publish, and not what a project may use."""
        return ()

    async def aclose(self) -> None:
        """Close the pool."""
        await self._gemini.aclose()

    def _model(self, maker: str, model: str) -> str:
        return f"{self._root}publishers/{maker}/models/{quote(model, safe='@')}"


def _is_claude(model: str) -> bool:
    return model.startswith("claude")


def _claude_body(body: bytes) -> bytes:
    """Return the request without the model, which stands in the path, and with the version."""
    said = msgspec.json.decode(body)
    del said["model"]
    return _encode({**said, "anthropic_version": CLAUDE_VERSION})
