"""Providers that speak OpenAI's Chat Completions: OpenAI itself, and the many servers that are alike.

Owns the address, the credentials and the headers of one such server; what is said to it is the dialect's
business, and how bytes arrive is `penstock.providers.http`'s. Nothing here prints a credential: not in a
`repr`, not in an error, not even where the server quotes it back.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.providers.http import HttpSource, parse_base_url, redirected
from penstock.providers.provider import Conversation
from penstock.types.errors import ClientError, UpstreamError, WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.http1 import Request, render_head
from penstock.upstream.pool import Pool
from penstock.wire.dialect import Dialect

CHAT_PATH: Final = "/chat/completions"
MODELS_PATH: Final = "/models"

MAX_MODELS: Final = 10_000
MAX_MODELS_BYTES: Final = 8 * 1024 * 1024
"""Bounds of a list of models; aggregators offer hundreds, with a few KiB of description each."""

MIN_SECRET_CHARS: Final = 8
"""A header's value that is shorter is no secret worth hiding from an error's text."""


class CompatibleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a server is and how to be let in.

    ``base_url`` is what SDKs call it, mostly ending in ``/v1``. ``headers`` are sent with every request
    and win over our own. ``head_timeout`` is in seconds, from the request to the head of the response;
    None for the pool's own setting.
    """

    base_url: str
    api_key: str = ""
    organization: str = ""
    headers: dict[str, str] = {}
    head_timeout: float | None = None

    def __repr__(self) -> str:
        """Show all but the credentials."""
        url = self.base_url.rpartition("@")[2].partition("?")[0]
        key = "set" if self.api_key else "none"
        return f"CompatibleSettings({url!r}, api_key {key}, headers {sorted(self.headers)})"


class CompatibleProvider:
    """One server that speaks ``dialect`` under `CHAT_PATH`."""

    def __init__(self, name: str, settings: CompatibleSettings, pool: Pool, dialect: Dialect) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._pool = pool
        self._dialect = dialect
        self._settings = settings
        self._origin, self._path = parse_base_url(settings.base_url)
        self._headers = tuple(_headers(settings).items())
        self._secrets = tuple(
            value.encode()
            for value in (settings.api_key, *settings.headers.values())
            if len(value) >= MIN_SECRET_CHARS
        )
        try:
            render_head(self._request("POST", CHAT_PATH))
        except ClientError as error:
            raise ValueError(f"The settings of provider {name} cannot be used: {error.message}") from None

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<CompatibleProvider {self.name} {self._origin}{self._path}>"

    @property
    def descriptions(self) -> Mapping[str, str]:
        """Nothing: such servers tell their models' names and no more."""
        return {}

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if the dialect cannot say it."""
        body = self._dialect.render_request(request, model)
        source = HttpSource(
            self._pool,
            self._request("POST", CHAT_PATH, body),
            self._parse_error,
            head_timeout=self._settings.head_timeout,
        )
        return Conversation(source, self._dialect.decoder())

    async def models(self) -> Sequence[str]:
        """Ask the server for its models, at most `MAX_MODELS`. Raises `UpstreamError`."""
        response = await self._pool.fetch(self._request("GET", MODELS_PATH), limit=MAX_MODELS_BYTES)
        if response.status >= 400:
            raise self._parse_error(response.status, response.headers, response.body)
        if response.status >= 300:
            raise redirected(response.status)
        try:
            return parse_models(msgspec.json.decode(response.body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise WireError("The provider's list of models is no JSON.") from None

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()

    def _request(self, method: str, path: str, body: bytes = b"") -> Request:
        return Request(method, self._origin, self._path + path, self._headers, body)

    def _parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return self._dialect.parse_error(status, headers, body)


def parse_models(answer: Any) -> Sequence[str]:
    """Return the names in a list of models, in its order, each once.

    Takes OpenAI's ``{"data": [{"id": …}]}``, Ollama's ``{"models": [{"name": …}]}``, and bare lists of
    objects or names; passes over what has no name. Raises `WireError` where there is no list.
    """
    if isinstance(answer, dict):
        answer = answer.get("data", answer.get("models"))
    if not isinstance(answer, list):
        raise WireError("The provider's list of models has an unknown form.")
    return tuple(dict.fromkeys(_names(answer[:MAX_MODELS])))


def _names(models: list[Any]) -> Iterator[str]:
    for model in models:
        name = model
        if isinstance(model, dict):
            name = model.get("id") or model.get("name") or model.get("model")
        if isinstance(name, str) and name:
            yield name


def _headers(settings: CompatibleSettings) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream",
        # Compressors hold events back to have more to compress.
        "accept-encoding": "identity",
        "user-agent": f"penstock/{__version__}",
    }
    if settings.api_key:
        headers["authorization"] = f"Bearer {settings.api_key}"
    if settings.organization:
        headers["openai-organization"] = settings.organization
    return headers | {name.lower(): value for name, value in settings.headers.items()}
