"""AWS Bedrock, by Converse: models of many makers behind one form.

Owns the paths under a region's two addresses (one converses, one lists) and how it lets in: by a signature,
or by an API key of its own as a bearer token. What is said is `penstock.wire.bedrock`'s.

Source: the service models of botocore 1.44 (bedrock, bedrock-runtime).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Model
from penstock.providers.signing import Signer
from penstock.types.errors import UpstreamError, WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.pool import Pool
from penstock.wire.bedrock import BedrockDecoder, parse_error, render_request
from penstock.wire.bedrock_requests import EXTRAS, FIELDS

MODELS_PATH: Final = "/foundation-models?byInferenceType=ON_DEMAND&byOutputModality=TEXT"
PROFILES_PATH: Final = "/inference-profiles?maxResults=1000"

MAX_MODELS: Final = 10_000
"""Names of one list of models."""

_REGION: Final = re.compile(r"https?://(?:[a-z0-9-]+\.)?bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")


def address(region: str) -> str:
    """Return where models of ``region`` converse."""
    end = "com.cn" if region.startswith("cn-") else "com"
    return f"https://bedrock-runtime.{region}.amazonaws.{end}"


def region_of(url: str) -> str:
    """Return the region of an address of AWS's; empty for any other."""
    found = _REGION.match(url)
    return found[1] if found else ""


class BedrockProvider:
    """One region of Bedrock."""

    def __init__(self, name: str, settings: EndpointSettings, pool: Pool, signer: Signer | None) -> None:
        """Take ``pool`` over, and close it in the end; without ``signer``, the key of ``settings`` is sent.
        Raises `ValueError` for a base URL or a header that cannot be used."""
        self.name = name
        runtime = "application/vnd.amazon.eventstream"
        self._endpoint = Endpoint(name, settings, pool, parse_error, accept=runtime, signer=signer)
        listing = settings.base_url.replace("://bedrock-runtime", "://bedrock", 1)
        listed = msgspec.structs.replace(settings, base_url=listing)
        self._lists = Endpoint(name, listed, pool, parse_error, accept="application/json", signer=signer)

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<BedrockProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if Bedrock cannot do it."""
        fitting = self._endpoint.fitting()
        fitting.one_answer(request)
        fitting.check(request, FIELDS, EXTRAS)
        body = render_request(request, model, fitting)
        source = self._endpoint.post(f"/model/{quote(model, safe='')}/converse-stream", body)
        return Conversation(source, BedrockDecoder(), fitting.dropped)

    async def models(self) -> Sequence[Model]:
        """Ask for the models that stream text, and for the profiles through which others are reached, at most
        `MAX_MODELS`. Raises `UpstreamError`."""
        found = parse_models(await self._lists.get(MODELS_PATH))
        with suppress(UpstreamError):  # not everybody may list both
            found = (*found, *parse_profiles(await self._lists.get(PROFILES_PATH)))
        return tuple({model.name: model for model in found[:MAX_MODELS]}.values())

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()


def parse_models(answer: Any) -> Sequence[Model]:
    """Return the models of a list that stream text. Raises `WireError` where there is no list."""
    return tuple(
        Model(name, (), title)
        for entry, name, title in _entries(answer, "modelSummaries", "modelId", "modelName")
        if entry.get("responseStreamingSupported") is not False
    )


def parse_profiles(answer: Any) -> Sequence[Model]:
    """Return the profiles of a list as models. Raises `WireError` where there is no list."""
    names = ("inferenceProfileSummaries", "inferenceProfileId", "inferenceProfileName")
    return tuple(Model(name, (), title) for _, name, title in _entries(answer, *names))


def _entries(answer: Any, list_: str, id_: str, title: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    entries = answer.get(list_) if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise WireError("The provider's list of models has an unknown form.")
    for entry in entries:
        name = entry.get(id_) if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            said = entry.get(title)
            yield entry, name, said[:200] if isinstance(said, str) else ""
