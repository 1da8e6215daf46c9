"""What to do after an attempt ended without a whole answer: pure decisions, no I/O, no clock.

Today's rules: before any output, a failure of the provider sends the call to the next target, unseen;
a refusal of the request itself (a bad request, a content refusal) does not, since the next target
would be asked to do what was refused. After output was shown there is no way to go on yet, so the
stream ends honestly.
"""

from typing import NamedTuple, TypeAlias

from penstock.types.errors import PenstockError


class Situation(NamedTuple):
    """What is known when an attempt has failed. ``shown``: output is in the log already."""

    error: PenstockError
    attempts: int
    targets_left: int
    shown: bool


class NextTarget(NamedTuple):
    """Try the next target of the route (a *fallback*)."""


class GiveUp(NamedTuple):
    """Close the stream as failed with ``error``."""

    error: PenstockError


Decision: TypeAlias = NextTarget | GiveUp


def decide(situation: Situation) -> Decision:
    """Return what to do next."""
    error, _, targets_left, shown = situation
    if not shown and targets_left and error.fault == "upstream" and error.retryable:
        return NextTarget()
    return GiveUp(error)
