"""How much a client may still use, as headers: in OpenAI's manner, and in Anthropic's on its routes."""

import math
from datetime import UTC, datetime
from typing import Final

from penstock.server.downstream import Headers
from penstock.types.allowances import Allowance

EXPOSED: Final = tuple(
    f"{prefix}{first}-{second}"
    for prefix, firsts, seconds in (
        ("x-ratelimit-", ("limit", "remaining", "reset"), ("requests", "tokens")),
        ("anthropic-ratelimit-", ("requests", "tokens"), ("limit", "remaining", "reset")),
    )
    for first in firsts
    for second in seconds
)
"""Their names, for pages that may read them."""


def quota_headers(allowance: Allowance, now: float, *, anthropic: bool) -> Headers:
    """Return the headers; ``now`` is Unix time."""
    found: list[tuple[bytes, bytes]] = []
    for kind, quota in (("requests", allowance.requests), ("tokens", allowance.tokens)):
        if quota is None:
            continue
        if anthropic:
            moment = datetime.fromtimestamp(math.ceil(now + quota.resets_in), UTC)
            prefix = f"anthropic-ratelimit-{kind}-"
            said = {
                "limit": quota.limit,
                "remaining": quota.remaining,
                "reset": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            }
            found += [(f"{prefix}{name}".encode(), str(value).encode()) for name, value in said.items()]
        else:
            said = {"limit": quota.limit, "remaining": quota.remaining, "reset": _span(quota.resets_in)}
            found += [
                (f"x-ratelimit-{name}-{kind}".encode(), str(value).encode()) for name, value in said.items()
            ]
    return found


def _span(seconds: float) -> str:
    """Return a span as OpenAI writes it: `1s`, `6m0s`, `1h5m0s`, `120ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"
