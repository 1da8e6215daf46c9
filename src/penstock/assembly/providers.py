"""The providers' part of the composition: from a provider's configuration to the provider.

The only place that names concrete providers. It reads certificates and files of secrets, so it is called
before the loop runs, or in a thread.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from penstock.config import BadConfig, Config, Problem, ProviderConfig, own_region, read_secret
from penstock.providers.anthropic import AnthropicProvider, AnthropicSettings
from penstock.providers.azure import AzureProvider, AzureSettings
from penstock.providers.bedrock import BedrockProvider, region_of
from penstock.providers.cohere import CohereProvider
from penstock.providers.compatible import CompatibleProvider, CompatibleSettings
from penstock.providers.dashscope import DashScopeProvider, own_url
from penstock.providers.endpoint import EndpointSettings
from penstock.providers.ernie import ErnieProvider, ErnieSettings
from penstock.providers.gemini import GeminiProvider
from penstock.providers.kinds import KINDS
from penstock.providers.ollama import OllamaProvider, OllamaSettings
from penstock.providers.ollama_host import BASE_URL as OLLAMA_URL
from penstock.providers.profiles import PROFILES
from penstock.providers.provider import Provider
from penstock.providers.scripted import ScriptedProvider
from penstock.providers.tokens import Tokens, TokenSigner
from penstock.providers.vertex import GLOBAL, VertexProvider, VertexSettings
from penstock.upstream.pool import Pool, PoolSettings
from penstock.wire.anthropic_messages_requests import Preferences as AnthropicPreferences
from penstock.wire.ollama import Preferences
from penstock.wire.openai_chat_quirks import NO_QUIRKS

BEDROCK_KEY: Final = "AWS_BEARER_TOKEN_BEDROCK"
"""The variable in which AWS's own SDKs look for an API key of Bedrock's."""


class Made(NamedTuple):
    """A provider, its connections, and what it was made from: its kind, its settings with the key that a file
    held, and what it trusts."""

    provider: Provider
    pools: Mapping[str, Pool]
    source: tuple[str, ProviderConfig, str]


def build_provider_again(name: str, config: Config, environ: Mapping[str, str], before: Made | None) -> Made:
    """Return the provider ``name`` of ``config``: the one of ``before`` if that was made from the same, with
    its connections and what it knows of its keys. Raises `BadConfig`."""
    said = config.providers[name]
    try:
        key = read_secret(said.api_key_file) if said.api_key_file else ""
        trusted = Path(said.ca_file).read_text() if said.ca_file else ""
    except (OSError, ValueError) as error:
        raise BadConfig([Problem(f"providers.{name}", str(error))]) from None
    source = (config.kind(name), msgspec.structs.replace(said, api_key=said.api_key + key), trusted)
    if before is not None and before.source == source:
        return before
    pools: dict[str, Pool] = {}
    return Made(build_provider(name, config.kind(name), said, environ, pools), pools, source)


def build_provider(
    name: str,
    kind: str,
    config: ProviderConfig,
    environ: Mapping[str, str],
    pools: dict[str, Pool] | None = None,
) -> Provider:
    """Return the provider ``name`` of ``kind``; leave its connections in ``pools``. Raises `BadConfig`."""
    if kind == "scripted":
        return ScriptedProvider(speed=config.speed)
    try:
        key = read_secret(config.api_key_file) if config.api_key_file else config.api_key
        url = config.base_url or KINDS[kind].base_url
        made = msgspec.structs.replace(config, base_url=url, api_key=key)
        return _reached(name, kind, made, environ, {} if pools is None else pools)
    except (OSError, ValueError) as error:
        raise BadConfig([Problem(f"providers.{name}", str(error))]) from None


def _reached(
    name: str, kind: str, config: ProviderConfig, environ: Mapping[str, str], pools: dict[str, Pool]
) -> Provider:
    """Return a provider behind HTTP. Raises `ValueError` with a sentence for whoever configured it."""
    pool = pools[name] = Pool(
        PoolSettings(
            ca_file=config.ca_file,
            connect_timeout=config.connect_timeout,
            head_timeout=config.head_timeout,
            max_connections_per_origin=config.max_connections,
        ),
        environ=environ,
    )
    plain: dict[str, Any] = {
        "base_url": config.base_url,
        "api_key": config.api_key,
        "api_keys": config.api_keys,
        "headers": config.headers,
        "unsupported": config.unsupported,
    }
    match kind:
        case "anthropic":
            limits = AnthropicPreferences(config.max_tokens)
            return AnthropicProvider(name, AnthropicSettings(**plain, preferences=limits), pool)
        case "azure":
            azure = AzureSettings(**plain, api_version=config.api_version)
            return AzureProvider(name, azure, pool, _entra() if config.entra else None)
        case "bedrock":
            return _bedrock(name, config, plain, pool, environ)
        case "cohere":
            return CohereProvider(name, EndpointSettings(**plain), pool)
        case "dashscope" if config.api == "native":
            return DashScopeProvider(
                name, EndpointSettings(**{**plain, "base_url": own_url(config.base_url)}), pool
            )
        case "ernie":
            return ErnieProvider(name, ErnieSettings(**plain, secret_key=config.secret_key), pool)
        case "gemini":
            return GeminiProvider(name, EndpointSettings(**plain), pool)
        case "vertex":
            return _vertex(name, config, plain, pool)
        case "ollama":
            wanted = Preferences(
                "generate" if config.api == "generate" else "chat", config.keep_alive, config.num_ctx
            )
            plain["base_url"] = config.base_url or OLLAMA_URL
            return OllamaProvider(name, OllamaSettings(**plain, preferences=wanted), pool)
    quirks = PROFILES[kind].quirks if kind in PROFILES else NO_QUIRKS
    if config.project:
        plain["headers"] = {"openai-project": config.project, **config.headers}
    settings = CompatibleSettings(
        **plain,
        organization=config.organization,
        quirks=quirks,
        api=config.api if config.api in ("completions", "responses") else "chat",
        template=config.template,
    )
    return CompatibleProvider(name, settings, pool)


def _bedrock(
    name: str, config: ProviderConfig, plain: dict[str, Any], pool: Pool, environ: Mapping[str, str]
) -> Provider:
    """Return a Bedrock that is let in by a key, or else by a signature. Raises `ValueError`."""
    if not config.profile and not config.api_keys:
        plain["api_key"] = config.api_key or environ.get(BEDROCK_KEY, "")
    settings = EndpointSettings(**plain)
    if settings.keys:
        return BedrockProvider(name, settings, pool, None)
    try:
        from penstock.providers.aws import AwsSigner
    except ImportError:
        raise ValueError(
            "signing requests to AWS takes an optional part: pip install 'penstock[bedrock]'; an API key of "
            "Bedrock's (api_key) does without"
        ) from None
    region = config.region or region_of(config.base_url) or own_region(environ) or "us-east-1"
    return BedrockProvider(name, settings, pool, AwsSigner(region, config.profile))


def _vertex(name: str, config: ProviderConfig, plain: dict[str, Any], pool: Pool) -> Provider:
    """Return a Vertex that is let in by a key, or else by Google's tokens. Raises `ValueError`."""
    limits = AnthropicPreferences(config.max_tokens)
    settings = VertexSettings(
        **plain, project=config.project, region=config.region or GLOBAL, preferences=limits
    )
    if settings.keys:
        return VertexProvider(name, settings, pool, None)
    try:
        from penstock.providers.google import GoogleTokens
    except ImportError:
        raise ValueError(
            "access tokens of Google's take an optional part: pip install 'penstock[vertex]'; a key of "
            "express mode (api_key) does without"
        ) from None
    tokens = Tokens(GoogleTokens(config.credentials_file).fetch, time.monotonic)
    return VertexProvider(name, settings, pool, TokenSigner(tokens, time.monotonic))


def _entra() -> TokenSigner:
    """Return what asks Microsoft Entra for tokens. Raises `ValueError`."""
    try:
        from penstock.providers.entra import EntraTokens
    except ImportError:
        raise ValueError(
            "tokens of Microsoft Entra take an optional part: pip install 'penstock[azure]'; a key (api_key) "
            "does without"
        ) from None
    return TokenSigner(Tokens(EntraTokens().fetch, time.monotonic), time.monotonic)
