"""Several policies as one: admitted in order, settled in reverse, filters one behind the other.

Owns what must hold whatever a single policy does: those that let a call in are settled when a later one
refuses it, or when its waiting is cancelled; each is settled once; and one that fails at settling costs
the others nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from penstock.policies.policy import Admission, EventFilter, FilterStop, Policy
from penstock.types.calls import Call
from penstock.types.decisions import Decision
from penstock.types.events import AnyEvent
from penstock.types.outcomes import UNSTARTED, Outcome

log = structlog.get_logger(__name__)

NOBODY: Final[Mapping[str, str]] = {}
"""The ids of no call."""


class Chain:
    """A `Policy` made of others; without any it lets everything through."""

    def __init__(self, policies: Sequence[Policy] = ()) -> None:
        """``policies`` in the order in which they are asked."""
        self._policies = tuple(policies)

    def __repr__(self) -> str:
        """Name the policies."""
        return f"<Chain {', '.join(type(policy).__name__ for policy in self._policies)}>"

    async def admit(self, call: Call) -> Admission:
        """Ask each; the call is what the last one made of it. Raises what the first that refuses raises."""
        held = Settlement(call.ids)
        decided: tuple[Decision, ...] = ()
        try:
            for policy in self._policies:
                call, settle, decisions = await policy.admit(call)
                held.add(settle)
                decided += decisions
        except BaseException:  # refused, or whoever asked has gone
            held.settle(UNSTARTED)
            raise
        return Admission(call, held.settle, decided)

    def filter(self, call: Call) -> EventFilter | None:
        """Return one filter for all of them."""
        filters = [found for policy in self._policies if (found := policy.filter(call)) is not None]
        if len(filters) < 2:
            return filters[0] if filters else None
        return Filters(filters)


class Settlement:
    """What is to be told how a call ended, the last that was added first, and only once."""

    def __init__(self, ids: Mapping[str, str] = NOBODY) -> None:
        """Nobody yet. ``ids`` of the call are for the log."""
        self._ids = ids
        self._waiting: list[Callable[[Outcome], None]] = []

    def add(self, settle: Callable[[Outcome], None]) -> None:
        """Tell ``settle`` too."""
        self._waiting.append(settle)

    def settle(self, outcome: Outcome) -> None:
        """Tell all that were not told yet."""
        while self._waiting:
            settle = self._waiting.pop()
            try:
                settle(outcome)
            except Exception as bug:
                log.error("settlement_failed", **self._ids, exc_info=bug)


class Filters:
    """An `EventFilter` made of others, each of which sees what the one before lets through."""

    def __init__(self, filters: Sequence[EventFilter]) -> None:
        """``filters`` from the provider's end to the reader's."""
        self._filters = tuple(filters)

    def feed(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """See `EventFilter`. When one stops the answer, those behind it still see what it shows last."""
        for number, one in enumerate(self._filters):
            if not events:
                return events
            try:
                events = one.feed(events)
            except FilterStop as stop:
                raise self._stopped(number, stop) from None
        return events

    def flush(self) -> Sequence[AnyEvent]:
        """See `EventFilter`."""
        events: Sequence[AnyEvent] = ()
        for number, one in enumerate(self._filters):
            try:
                events = [*(one.feed(events) if events else ()), *one.flush()]
            except FilterStop as stop:
                raise self._stopped(number, stop) from None
        return events

    def _stopped(self, number: int, stop: FilterStop) -> FilterStop:
        rest = Filters(self._filters[number + 1 :])
        try:
            return FilterStop([*rest.feed(stop.events), *rest.flush()], stop.error)
        except FilterStop as sooner:  # one behind it has more reason to
            return sooner
