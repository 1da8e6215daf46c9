"""OpenAI: the compatible provider with OpenAI's address and its two headers."""

from typing import Final

from penstock.providers.compatible import CompatibleProvider, CompatibleSettings
from penstock.upstream.pool import Pool

BASE_URL: Final = "https://api.openai.com/v1"


def openai_provider(
    api_key: str,
    pool: Pool,
    *,
    base_url: str = BASE_URL,
    organization: str = "",
    project: str = "",
    name: str = "openai",
) -> CompatibleProvider:
    """Return the provider. Raises `ValueError` for settings that cannot be sent."""
    headers = {"openai-project": project} if project else {}
    settings = CompatibleSettings(
        base_url=base_url, api_key=api_key, organization=organization, headers=headers
    )
    return CompatibleProvider(name, settings, pool)
