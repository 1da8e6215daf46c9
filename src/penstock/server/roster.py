"""Which of the streams that go on somebody wants to see: words that must fit them, and an order.

A question is words, all of which must be found: ``name:value`` in the field of that name, any other word in
one of them; quotes hold a value together. Nothing of prompts and answers is looked at. All open streams are
gone through only for who asks; who does not is shown the oldest.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from heapq import nlargest
from typing import Any, Final, NamedTuple, TypeAlias

from penstock.gateway.gateway import Gateway
from penstock.gateway.run import Glance
from penstock.server.audience import Audience
from penstock.types.errors import ClientError

MAX_ROWS: Final = 100
"""Streams that a frame has rows of; of more there is the number."""

MAX_SCANNED: Final = 10_000
"""Open streams that are gone through for a question, the oldest first."""

MAX_QUESTION: Final = 200
MAX_WORDS: Final = 8

FIELDS: Final = ("id", "principal", "model", "route", "target", "doing")

_WORD: Final = re.compile(r'(?:([a-z]+):)?(?:"([^"]*)"|(\S+))')

_Rank: TypeAlias = Callable[[Glance, Audience], float]

ORDERS: Final[Mapping[str, _Rank | None]] = {
    "age": None,
    "newest": lambda one, _: -one.age,
    "silent": lambda one, _: one.silent,
    "lag": lambda one, audience: audience.lags(one.stream.id)[1],
    "readers": lambda one, audience: audience.lags(one.stream.id)[0],
    "entries": lambda one, _: one.stream.committed,
    "attempts": lambda one, _: one.attempts,
}
"""What comes first: the oldest, the newest, or whoever has the most of something."""


class Wanted(NamedTuple):
    """A question. Each of ``words`` is a field's name (empty for any) and what must be in it."""

    words: tuple[tuple[str, str], ...] = ()
    order: str = "age"


OLDEST: Final = Wanted()
"""What is shown to who asks for nothing."""


class Roster(NamedTuple):
    """Rows, how many streams fit, and how many of those have no row."""

    streams: list[dict[str, Any]]
    matching: int
    more: int


def wanted(question: str, order: str) -> Wanted:
    """Read what somebody asks. Raises `ClientError` for an unknown order, or too long a question."""
    if order not in ORDERS:
        raise ClientError(f"sort is one of {', '.join(ORDERS)}.", code="invalid_value", param="sort")
    found = _WORD.findall(question[: MAX_QUESTION + 1].lower())
    if len(question) > MAX_QUESTION or len(found) > MAX_WORDS:
        message = f"q has {MAX_WORDS} words and {MAX_QUESTION} characters at most."
        raise ClientError(message, code="invalid_value", param="q")
    words = [
        (name, quoted or bare) if name in FIELDS or not name else ("", f"{name}:{quoted or bare}")
        for name, quoted, bare in found
    ]
    return Wanted(tuple(words), order)


def roster(gateway: Gateway, audience: Audience, asked: Wanted = OLDEST) -> Roster:
    """Return the rows that ``asked`` wants."""
    rank = ORDERS[asked.order]
    if asked == OLDEST:
        found = gateway.glances(MAX_ROWS)
        matching = gateway.open_streams
    else:
        found = [one for one in gateway.glances(MAX_SCANNED) if _fits(one, asked.words)]
        matching = len(found)
        if rank is not None:
            found = nlargest(MAX_ROWS, found, key=partial(_ranked, rank, audience))
        found = found[:MAX_ROWS]
    return Roster([_row(one, audience) for one in found], matching, max(0, matching - len(found)))


def _ranked(rank: _Rank, audience: Audience, one: Glance) -> float:
    return rank(one, audience)


def _fits(one: Glance, words: tuple[tuple[str, str], ...]) -> bool:
    info = one.stream.info
    places: tuple[str, ...]
    for name, value in words:
        match name:
            case "id":
                places = (info.id,)
            case "principal":
                places = (info.principal,)
            case "model":
                places = (info.model,)
            case "route":
                places = (info.route,)
            case "target":
                places = (one.target,)
            case "doing":
                places = (one.doing,)
            case _:
                places = (info.id, info.principal, info.model, info.route, one.target, one.doing)
        if not any(value in place.lower() for place in places):
            return False
    return True


def _row(one: Glance, audience: Audience) -> dict[str, Any]:
    info = one.stream.info
    readers, lag = audience.lags(info.id)
    return {
        "id": info.id,
        "principal": info.principal,
        "model": info.model[:200],
        "route": info.route,
        "target": one.target,
        "attempts": one.attempts,
        "doing": one.doing,
        "entries": one.stream.committed,
        "characters": one.characters,
        "age": round(one.age, 1),
        "silent": round(one.silent, 1),
        "readers": readers,
        "lag": lag,
    }
