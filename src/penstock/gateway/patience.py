"""How long a target is waited for: the timers of its model, longer ones while that thinks. Pure."""

import re
from typing import Final

from penstock.providers.provider import Target
from penstock.types.requests import GenerationRequest
from penstock.types.timers import Timers

_THINKERS: Final = re.compile(
    r"(?:^|[/.:_-])(?:o[1-9](?:-|$)|gpt-5|deepseek-r\d|deepseek-reasoner|qwq|magistral|r1(?:-|:|$)|grok-\d+-reasoning)"
    r"|thinking|reasoning|reasoner",
    re.IGNORECASE,
)
"""Names of models that think whether or not they are asked to."""


def thinks(request: GenerationRequest, model: str) -> bool:
    """Say whether ``model`` thinks before it answers ``request``."""
    effort = request.reasoning_effort
    if effort is not None:
        return effort != "none"
    return _THINKERS.search(model) is not None


def timers_of(target: Target, request: GenerationRequest) -> Timers:
    """Return the timers of an attempt at ``target``."""
    if target.thinking is not None and thinks(request, target.model):
        return target.thinking
    return target.timers
