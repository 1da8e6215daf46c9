"""What a shell is offered for the names of models: those that the gateway lists, if it answers at once."""

import os
from typing import Final

import httpx
import msgspec
import typer

from penstock.client.addresses import DEFAULT_URL, address_of
from penstock.client.connection import Model

TIMEOUT: Final = 1.0
"""Seconds that a person who pressed Tab waits at most for each step."""

MAX_BODY: Final = 4 << 20


class _Models(msgspec.Struct, frozen=True):
    data: list[Model]


def complete_model(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the models that begin with ``incomplete``, with what is said of each."""
    url = ctx.params.get("url") or os.environ.get("PENSTOCK_URL") or DEFAULT_URL
    key = ctx.params.get("key") or os.environ.get("PENSTOCK_KEY", "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        base = address_of(url).base
        response = httpx.get(f"{base}/v1/models", headers=headers, timeout=TIMEOUT, trust_env=False)
        found = msgspec.json.decode(response.raise_for_status().content[:MAX_BODY], type=_Models).data
    except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return []
    return [(model.id, model.description) for model in found if model.id.startswith(incomplete)]
