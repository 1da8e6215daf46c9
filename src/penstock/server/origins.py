"""Whose pages may call us from elsewhere: exact origins, and patterns.

``https://*.example.com`` is every name under example.com and not that itself; ``http://localhost:*`` is every
port; ``*`` alone is every page there is.
"""

import re
from collections.abc import Sequence
from typing import Final

EVERY: Final = "*"

_LABELS: Final = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_PATTERN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,31})://(?P<wild>\*\.)?(?P<host>[^\s/?#@*:\[\]]{1,253}|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>\d{1,5}|\*))?/?"
)


def compile_origins(said: Sequence[str]) -> re.Pattern[str]:
    """Return what fully matches the origins, in lower case, that are meant. Raises `ValueError` for an entry
    that means none."""
    return re.compile("|".join(map(_regex, said)) or r"(?!)")


def _regex(said: str) -> str:
    if said == EVERY:
        return r".+"
    found = _PATTERN.fullmatch(said.lower())
    if found is None:
        raise ValueError(f"'{said}' is no origin: write https://app.example.com, or https://*.example.com")
    labels = rf"{_LABELS}\." if found["wild"] else ""
    port = "" if found["port"] is None else rf":{r'[0-9]{1,5}' if found['port'] == '*' else found['port']}"
    return f"{re.escape(found['scheme'])}://{labels}{re.escape(found['host'])}{port}"
