"""What Anthropic's models take, by their names: how they are told to think, and whether to be sampled.

Anthropic changed both from one generation to the next, and answers 400 to what a model does not take; a
client of another dialect cannot know. Strategy: the version is read from the name; a Claude without one is
taken for a new model, any other name for a server that speaks as Claude did when others began to copy it.
Only requests of other dialects are shaped by this; Anthropic's own are handed on as they are.

Source: platform.claude.com, pages on thinking, effort and migration, as of November 2026.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

Thinking: TypeAlias = Literal["none", "budget", "effort"]

_NAME: Final = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?![\d])")

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

BUDGETS: Final[Mapping[str, int]] = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 24_576,
}
"""Tokens to think with, for models that are given a budget."""

MIN_BUDGET: Final = 1_024
"""The least that Anthropic takes."""


class Manner(msgspec.Struct, frozen=True):
    """What a model takes. ``thinking``: by ``budget``, by ``effort``, or not at all; ``sampled``: whether
    temperature and its like may be given; ``xhigh``: whether it knows that effort."""

    thinking: Thinking
    sampled: bool = True
    xhigh: bool = False


_NEW: Final = Manner("effort", sampled=False, xhigh=True)
_COPIES: Final = Manner("budget")


def manner(model: str) -> Manner:
    """Return what ``model`` takes."""
    name = model.rpartition("/")[2].lower()
    if "claude" not in name:
        return _COPIES
    found = _NAME.search(name)
    if found is None:
        return _NEW
    version = int(found[1]), int(found[2] or 0)
    if version < (3, 7):
        return Manner("none")
    if version < (4, 6):
        return Manner("budget")
    if version < (4, 7):
        return Manner("effort")
    return _NEW


def effort_of(budget: int) -> str:
    """Return the effort that a budget of thinking tokens stands for, in words that every provider knows."""
    return "low" if budget < 4_096 else "medium" if budget < 16_384 else "high"
