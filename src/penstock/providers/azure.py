"""Azure OpenAI: OpenAI's models behind deployments of one's own.

Owns its addresses, in both generations of the API, and its way of being let in. A model is a deployment's
name. What is said is OpenAI's, with Azure's additions, which the decoder knows: an empty first chunk with
the prompt's filter results, annotations without a delta, an error with an inner one.

Source: openai-python 3.52, lib/azure.py.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlencode

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Model
from penstock.providers.signing import Signer
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_chat_quirks import NO_QUIRKS, render_request

API_VERSION: Final = "2024-10-21"
"""Where nobody says: the first that reports usage in streams and is no preview."""

NEW_API: Final = "v1"
"""The API without versions, where a deployment is named in the body alone."""


class AzureSettings(EndpointSettings, frozen=True):
    """As `EndpointSettings`, but the key goes as ``api-key``; ``base_url`` is the resource's address alone.
    ``api_version``: empty for `API_VERSION`, or `NEW_API`."""

    api_version: str = ""


class AzureProvider:
    """One resource of Azure OpenAI."""

    def __init__(self, name: str, settings: AzureSettings, pool: Pool, signer: Signer | None = None) -> None:
        """Take ``pool`` over, and close it in the end; with ``signer``, no key is sent. Raises `ValueError`
        for a base URL or a header that cannot be used."""
        self.name = name
        self._version = settings.api_version or API_VERSION
        self._endpoint = Endpoint(
            name,
            settings,
            pool,
            OPENAI_CHAT.parse_error,
            accept="text/event-stream",
            key_header="api-key",
            key_prefix="",
            signer=signer,
        )

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<AzureProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for the deployment ``model``."""
        fitting = self._endpoint.fitting()
        body = render_request(request, model, NO_QUIRKS, fitting)
        return Conversation(
            self._endpoint.post(self._path(model), body), OPENAI_CHAT.decoder(), fitting.dropped
        )

    async def models(self) -> Sequence[Model]:
        """Nothing: Azure lists the models that could be deployed, and not one's deployments."""
        return ()

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()

    def _path(self, model: str) -> str:
        if self._version == NEW_API:
            return "/openai/v1/chat/completions"
        version = urlencode({"api-version": self._version})
        return f"/openai/deployments/{quote(model, safe='')}/chat/completions?{version}"
