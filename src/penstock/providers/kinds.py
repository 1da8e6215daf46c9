"""The kinds of provider that a configuration can name, as one table.

Owns what is known of a kind before anybody is asked: where it is, which variables hold its key, whose names
its models have. The vendors of `penstock.providers.profiles` are kinds like the others. How one is built is
`penstock.assembly`'s.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.providers.anthropic import BASE_URL as ANTHROPIC_URL
from penstock.providers.cohere import BASE_URL as COHERE_URL
from penstock.providers.ernie import BASE_URL as ERNIE_URL
from penstock.providers.gemini import BASE_URL as GEMINI_URL
from penstock.providers.openai import BASE_URL as OPENAI_URL
from penstock.providers.profiles import PROFILES


class Kind(msgspec.Struct, frozen=True):
    """One kind. ``base_url`` is empty where there is none that suits everybody; ``keys`` and ``models`` as in
    `penstock.providers.profiles.Profile`."""

    title: str
    base_url: str = ""
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def key_in(self, environ: Mapping[str, str]) -> str:
        """Return the name of the variable that holds a key; empty for none."""
        return next((name for name in self.keys if environ.get(name)), "")


def url_variable(key: str) -> str:
    """Return the variable that may say where the holder of the key ``key`` is."""
    return key.removesuffix("_API_KEY") + "_BASE_URL"


KINDS: Final[Mapping[str, Kind]] = {
    "openai": Kind("OpenAI", OPENAI_URL, ("OPENAI_API_KEY",), ("gpt-*", "chatgpt-*", "o1*", "o3*", "o4*")),
    "anthropic": Kind("Anthropic", ANTHROPIC_URL, ("ANTHROPIC_API_KEY",), ("claude-*",)),
    "gemini": Kind("Google Gemini", GEMINI_URL, ("GEMINI_API_KEY",), ("gemini-*", "gemma-*")),
    "cohere": Kind("Cohere", COHERE_URL, ("CO_API_KEY", "COHERE_API_KEY"), ("command-*", "c4ai-*")),
    **{name: Kind(made.title, made.base_url, made.keys, made.models) for name, made in PROFILES.items()},
    "ernie": Kind("Baidu ERNIE (Qianfan v1)", ERNIE_URL),
    "azure": Kind("Azure OpenAI"),
    "vertex": Kind("Google Vertex AI"),
    "bedrock": Kind("AWS Bedrock"),
    "ollama": Kind("Ollama"),
    "scripted": Kind("the embedded model"),
}
"""In the order in which they join, and stand for names that nobody else takes."""
