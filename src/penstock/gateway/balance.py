"""In which order a call's targets are tried: as they are written, or spread over them. Pure.

Targets whose breaker is open come last, the one that has been open for longest first among them; so a
healthy target is preferred under every strategy, and none is never tried.

    order        as configured: the first is meant to answer, the others are there when it cannot
    weighted     at random, each first as often as its weight says
    least_busy   whoever has the fewest streams running, for its weight
    fastest      of two chosen at random the one that lately began to answer sooner; two choices, not the
                 best of all, so that not everybody runs to the same target at once
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from penstock.gateway.health import Health
from penstock.providers.provider import Target

Balance: TypeAlias = Literal["order", "weighted", "least_busy", "fastest"]


def ordered(
    targets: Sequence[Target],
    balance: Balance,
    health: Health,
    chance: Callable[[], float] = random.random,
) -> Sequence[Target]:
    """Return ``targets`` in the order in which they are to be tried. ``chance`` is from 0 up to 1."""
    if len(targets) == 1:
        return targets
    ranked = _ranked(targets, balance, health, chance)
    fit = [target for target in ranked if health.of(target.name).available]
    if len(fit) == len(ranked):
        return ranked
    rest = [target for target in ranked if not health.of(target.name).available]
    return [*fit, *sorted(rest, key=lambda target: health.of(target.name).opened_at)]


def _ranked(
    targets: Sequence[Target], balance: Balance, health: Health, chance: Callable[[], float]
) -> Sequence[Target]:
    match balance:
        case "weighted":
            # Exponential clocks: each rings first with a probability in proportion to its weight.
            return sorted(targets, key=lambda target: -math.log(1.0 - chance()) / target.weight)
        case "least_busy":
            return sorted(
                targets, key=lambda target: (health.of(target.name).running / target.weight, chance())
            )
        case "fastest":
            shuffled = sorted(targets, key=lambda _: chance())
            first = min(shuffled[:2], key=lambda target: health.of(target.name).first_output(0.5))
            return [first, *(target for target in targets if target is not first)]
    return targets
