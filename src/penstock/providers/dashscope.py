"""Alibaba DashScope (Qwen), by its own routes; its compatible mode is a profile.

Owns the paths under its address, which of them a model lives at, and what its list of models says. Every
model is served under one of two paths, for text or for all media, and the other one answers "url error":
which one it is, is guessed from the request and the model's name, and learned where that was wrong. What is
said is `penstock.wire.dashscope`'s; address and credentials are `penstock.providers.endpoint`'s.

Source: dashscope (Python, 2.0.2), v2/protocols/native.py and acli/providers/tongyi.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Credential, Model
from penstock.types.errors import PenstockError, UpstreamError, WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.dashscope import DashScopeDecoder, is_elsewhere, parse_error, render_request
from penstock.wire.dashscope_requests import has_media, is_multimodal

BASE_URL: Final = "https://dashscope.aliyuncs.com/api/v1"
COMPATIBLE: Final = "/compatible-mode/v1"
"""How the address of its compatible mode ends, in place of `/api/v1`."""

TEXT_PATH: Final = "/services/aigc/text-generation/generation"
MEDIA_PATH: Final = "/services/aigc/multimodal-generation/generation"

HEADERS: Final[Mapping[str, str]] = {"x-dashscope-sse": "enable"}

PAGE: Final = 100
MAX_PAGES: Final = 20
"""Of a list of models."""

MAX_LEARNED: Final = 1_000
"""Models whose path is remembered."""


def own_url(url: str) -> str:
    """Return the address of its own API, where ``url`` is that of its compatible mode on the same host."""
    url = url.strip().rstrip("/")
    return f"{url.removesuffix(COMPATIBLE)}/api/v1" if url.endswith(COMPATIBLE) else url


class DashScopeProvider:
    """One account of DashScope; ``base_url`` ends in ``/api/v1``."""

    def __init__(self, name: str, settings: EndpointSettings, pool: Pool) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._endpoint = Endpoint(name, settings, pool, parse_error, accept="text/event-stream")
        self._paths: dict[str, str] = {}

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<DashScopeProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if DashScope cannot do it."""
        fitting = self._endpoint.fitting()
        body = render_request(request, model, fitting)
        path = MEDIA_PATH if is_multimodal(request, model) else TEXT_PATH
        fixed = has_media(request)  # there is one path for these
        if not fixed:
            path = self._paths.get(model, path)
        source = self._endpoint.post(path, body, HEADERS)
        if not fixed:
            source.key = _Way(self._paths, model, path, source.key)
        return Conversation(source, DashScopeDecoder(), fitting.dropped)

    async def models(self) -> Sequence[Model]:
        """Ask for the models, page by page, at most `MAX_PAGES`. Raises `UpstreamError`."""
        found: dict[str, Model] = {}
        for number in range(1, MAX_PAGES + 1):
            answer = await self._endpoint.get(f"/models?page_no={number}&page_size={PAGE}")
            page = parse_models(answer)
            found |= {model.name: model for model in page}
            if len(page) < PAGE:
                break
        return tuple(found.values())

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()


class _Way:
    """The path that one attempt takes, and its key: a `Credential`. A model that is not where it was looked
    for is looked for at the other path at once, and there from then on."""

    __slots__ = ("_key", "_model", "_path", "_paths")

    def __init__(self, paths: dict[str, str], model: str, path: str, key: Credential | None) -> None:
        self._paths = paths
        self._model = model
        self._path = path
        self._key = key

    def worked(self) -> None:
        """The provider answers."""
        if self._key is not None:
            self._key.worked()

    def failed(self, error: PenstockError) -> bool:
        """Say whether another try is worth while: by another path, or with another key."""
        if not isinstance(error, UpstreamError) or not is_elsewhere(error):
            return self._key is not None and self._key.failed(error)
        if self._paths.pop(self._model, "") == self._path:
            return False  # it is at neither
        if len(self._paths) >= MAX_LEARNED:
            self._paths.clear()
        self._paths[self._model] = MEDIA_PATH if self._path == TEXT_PATH else TEXT_PATH
        return True


def parse_models(answer: Any) -> Sequence[Model]:
    """Return the models of a page, in its order. Raises `WireError` where there is no list."""
    output = answer.get("output") if isinstance(answer, dict) else None
    entries = output.get("models") if isinstance(output, dict) else None
    if not isinstance(entries, list):
        raise WireError("The provider's list of models has an unknown form.")
    return tuple(_models(entries[:PAGE]))


def _models(entries: list[Any]) -> Iterator[Model]:
    for entry in entries:
        name = entry.get("model") or entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            yield Model(name)
