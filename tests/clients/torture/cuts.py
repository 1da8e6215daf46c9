"""Where an answer is cut: every byte that matters, and chance for the rest.

`every` has all offsets of the head, of the first three events, one in the middle and the last two, and of
what follows the last; some anywhere; and storms, in which one answer is cut again and again. `some` is a
part of that, another one with each seed.
"""

import os
import random
from typing import NamedTuple

from tests.clients.torture.network import HEAD, Cut

ALL = os.environ.get("PENSTOCK_CUTS") == "all"
ANYWHERE = 60
STORMS = 20
STORM = 5
"""Cuts of one storm, once the first id is there. Most fall into the head or the events right behind it."""
SLACK = 8
"""Bytes by which the same event may be longer in another answer: the chunk's size before it, its end."""


class Shape(NamedTuple):
    """An answer as it was once: bytes of its head, of each event, and in all."""

    head: int
    events: list[int]
    size: int


def shape_of(answer: bytes) -> Shape:
    head, _, body = answer.partition(b"\r\n\r\n")
    events = [len(event) + 2 for event in body.split(b"\n\n")[:-1]]
    return Shape(len(head) + 4, events, len(answer))


def every(shape: Shape, chance: random.Random) -> list[list[Cut]]:
    """Return plans, each for one reader."""
    last = len(shape.events)
    places = [(HEAD, offset) for offset in range(shape.head)]
    for event in (0, 1, 2, last // 2, last - 2, last - 1):
        places += [(event, offset) for offset in range(shape.events[event] + SLACK)]
    places += [(last, offset) for offset in range(SLACK)]
    places += [(HEAD, chance.randrange(shape.head, shape.size)) for _ in range(ANYWHERE)]
    plans = [[Cut(*place, kind)] for place in places for kind in ("rst", "fin")]
    plans += [[Cut(1, 0, "rst"), *(_anywhere(shape, chance) for _ in range(STORM))] for _ in range(STORMS)]
    return plans


def some(shape: Shape, chance: random.Random, count: int) -> list[list[Cut]]:
    """Return ``count`` of `every`: evenly spread, with a storm for every ten."""
    plans = every(shape, chance)
    single, storms = plans[:-STORMS], plans[-STORMS:]
    step = len(single) / (count - count // 10)
    start = chance.random() * step
    return [single[int(start + n * step)] for n in range(count - count // 10)] + storms[: count // 10]


def whole(shape: Shape) -> list[list[Cut]]:
    """Return a plan for every offset of the answer, RST and FIN in turn."""
    return [[Cut(HEAD, offset, ("rst", "fin")[offset % 2])] for offset in range(shape.size)]


def part(shape: Shape, chance: random.Random, count: int) -> list[list[Cut]]:
    """Return ``count`` of `whole`, and a storm for every ten."""
    plans = whole(shape)
    first = [Cut(HEAD, shape.head, "rst")]
    storms = [first + [_anywhere(shape, chance) for _ in range(STORM)] for _ in range(count // 10)]
    return chance.sample(plans, min(count, len(plans)) - len(storms)) + storms


def sampled(size: int, count: int, seed: str) -> list[tuple[int, str]]:
    """Return every offset of ``size`` bytes with a kind of cut; of them the first, the last and ``count``
    in all where not all are wanted."""
    places = [(offset, ("rst", "fin")[offset % 2]) for offset in range(size)]
    if ALL:
        return places
    chance = random.Random(seed)
    return [places[0], *chance.sample(places[1:-1], count - 2), places[-1]]


def _anywhere(shape: Shape, chance: random.Random) -> Cut:
    offset = int(shape.head * 0.8 + chance.expovariate(1 / 900))
    return Cut(HEAD, offset, chance.choice(["rst", "fin"]), chance.random() < 0.5)
