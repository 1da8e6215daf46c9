"""What to do after an attempt ended without a whole answer: pure decisions, no I/O, no clock.

Before any output was shown, every failure of a provider can be made good unseen. What helps:

    retry      another try, at the same target after a pause: lost connections, overload, rate limits, 5xx
    fallback   another target: this one would say the same again (its key, its quota, its models)
    larger     another target with a larger context: the request did not fit
    never      nothing: the request itself was refused, and the next target would be asked the same

A target that failed by its key, and has another one that is ready, is tried again with that.
Targets that were not tried yet come next, in their order, at once; when there are none left, those that
a pause may help are tried again. After output was shown there is nothing to repeat: another target, or
the same one after a pause, goes on from what the reader has, or the answer ends honestly.

No bound depends on a provider's word: pauses, tries per target and tries in all are limited here, and a
target's retries are paid from a budget (`penstock.gateway.health`).
"""

import random
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from penstock.types.errors import PenstockError, UpstreamError

Remedy: TypeAlias = Literal["retry", "fallback", "larger", "never"]

_REFUSALS: Final = frozenset({"content_filter", "client_closed_request", "stream_too_large"})
_OF_THE_TARGET: Final = frozenset(
    {"invalid_api_key", "permission_denied", "insufficient_quota", "model_not_found"}
)
_OF_THE_REQUEST: Final = frozenset({400, 405, 411, 413, 414, 415, 422, 431})

EARLY: Final = 1.5
EARLY_TRIES: Final = 2
"""A target sees at most so many tries within so many seconds."""


class RetrySettings(msgspec.Struct, frozen=True):
    """How much trying is allowed. Seconds and counts.

    ``tries`` is per target, ``tries_in_all`` over all of them. ``max_retry_after``: a provider that asks
    for a longer pause is not waited for. ``restart_mark`` is what a reader is shown where an answer that
    broke off begins anew.
    """

    tries: int = 3
    tries_in_all: int = 6
    base_delay: float = 0.5
    max_delay: float = 8.0
    max_retry_after: float = 10.0
    restart_mark: str = "\n\n[The answer broke off here and starts over.]\n\n"


class Tried(NamedTuple):
    """What is known of one target of the route.

    ``tries`` were made, the first of them ``since_first`` seconds ago; ``error`` is how the last one
    failed. ``available``: its breaker lets an attempt through; ``paid``: its budget has a retry left.
    ``context``: how many tokens it takes, 0 if that is not known; ``continues``: it can go on from a text;
    ``limit``: how often it may be tried, 0 for as often as any; ``spare_key``: it failed by its key, and
    another one is ready.
    """

    tries: int = 0
    since_first: float = 0.0
    error: PenstockError | None = None
    available: bool = True
    paid: bool = True
    context: int = 0
    continues: bool = True
    limit: int = 0
    spare_key: bool = False


class Try(NamedTuple):
    """Make an attempt at the target with this number after ``delay`` seconds."""

    target: int
    delay: float = 0.0


class Continue(NamedTuple):
    """Let the target with this number go on from what was shown, after ``delay`` seconds."""

    target: int
    delay: float = 0.0


class GiveUp(NamedTuple):
    """Close the stream as failed."""


Decision: TypeAlias = Try | Continue | GiveUp


def remedy(error: PenstockError) -> Remedy:
    """Return what helps against ``error``."""
    if not isinstance(error, UpstreamError) or error.code in _REFUSALS:
        return "never"
    if error.code == "context_length_exceeded":
        return "larger"
    if error.code in _OF_THE_TARGET:
        return "fallback"
    if error.retryable:
        return "retry"
    if error.upstream_status in _OF_THE_REQUEST or error.status in _OF_THE_REQUEST:
        return "never"
    return "fallback"


def decide(
    targets: Sequence[Tried],
    last: int,
    settings: RetrySettings,
    *,
    shown: bool = False,
    continuable: bool = False,
    chance: Callable[[], float] = random.random,
) -> Decision:
    """Return what to do after an attempt at the target number ``last`` has failed with its ``error``.

    ``shown``: output is in the log; ``continuable``: and it is such that it can be gone on from.
    ``chance`` gives a number from 0 to 1, for the jitter of pauses.
    """
    error = targets[last].error
    if error is None:
        raise ValueError("the last target has not failed")
    helps = remedy(error)
    if helps == "never" or sum(target.tries for target in targets) >= settings.tries_in_all:
        return GiveUp()
    if shown:
        fit = continuable and helps != "larger"
        return _go_on(targets, last, settings, chance) if fit else GiveUp()
    tried = targets[last]
    if tried.spare_key and tried.tries < (tried.limit or settings.tries):
        return Try(last, _not_too_early(tried))
    fresh = [number for number, target in enumerate(targets) if not target.tries]
    if helps == "larger":
        needed = targets[last].context
        fresh = [number for number in fresh if targets[number].context > needed]
        return Try(fresh[0]) if fresh else GiveUp()
    if ready := [number for number in fresh if targets[number].available]:
        return Try(ready[0])
    again = []
    for number, target in enumerate(targets):
        if target.error is None or remedy(target.error) != "retry" or not target.paid:
            continue
        if (
            target.tries < (target.limit or settings.tries)
            and (delay := pause(target, settings, chance)) is not None
        ):
            again.append((delay, number))
    if again:
        delay, number = min(again)
        return Try(number, delay)
    return Try(fresh[0]) if fresh else GiveUp()


def _go_on(
    targets: Sequence[Tried], last: int, settings: RetrySettings, chance: Callable[[], float]
) -> Decision:
    """Another target that has not failed for good; one that was not tried yet, if there is one. Else the
    same one again, after a pause."""
    fit = [
        number
        for number, target in enumerate(targets)
        if target.continues
        and target.available
        and target.tries < (target.limit or settings.tries)
        and (target.error is None or remedy(target.error) == "retry")
    ]
    if others := [number for number in fit if number != last]:
        return Continue(min(others, key=lambda number: (targets[number].tries, number)))
    if last in fit and targets[last].paid and (delay := pause(targets[last], settings, chance)) is not None:
        return Continue(last, delay)
    return GiveUp()


def pause(target: Tried, settings: RetrySettings, chance: Callable[[], float]) -> float | None:
    """Return the seconds before the next try at ``target``; None when it asks for too many.

    Exponential with full jitter; not shorter than the provider asks, and never such that more than
    `EARLY_TRIES` fall within the first `EARLY` seconds.
    """
    asked = (target.error.retry_after or 0.0) if target.error else 0.0
    if asked > settings.max_retry_after:
        return None
    most: float = min(settings.max_delay, settings.base_delay * 2 ** (target.tries - 1))
    return max(asked, chance() * most, _not_too_early(target))


def _not_too_early(target: Tried) -> float:
    """Return the seconds before which another try would be one too many for its first `EARLY` seconds."""
    return max(EARLY - target.since_first, 0.0) if target.tries >= EARLY_TRIES else 0.0
