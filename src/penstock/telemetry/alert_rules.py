"""What alerts are about: rules over what happened lately, and over how things stand.

A *watch* belongs to one rule. It hears signals, and says for any instant what the rule's measure is, in a
sentence for whoever is woken up. Pure over (signals, now): the clock is the caller's. What is kept is
bounded: counts in slices of the window, and times in a histogram of growing steps.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from penstock.types.signals import (
    AnySignal,
    AttemptEnded,
    CallRefused,
    FirstOutput,
    StreamEnded,
)
from penstock.types.usage import USD, Purse

When: TypeAlias = Literal[
    "error_rate", "stall_rate", "first_chunk", "breaker_open", "budget", "disk", "store"
]

SLICES: Final = 30
"""Of a window: what is older than it goes in so many steps."""

STEP: Final = 1.1
"""The next bound of the histogram of times: a percentile is at most a tenth too large."""

MAX_CAUSES: Final = 50
"""Codes of errors, with their targets, that a slice counts apart."""

TOLD: Final = 3
"""Of several, that a message names."""

THRESHOLDS: Final[dict[When, float]] = {
    "error_rate": 0.1,
    "stall_rate": 0.05,
    "first_chunk": 30.0,
    "breaker_open": 0.0,
    "budget": 0.8,
    "disk": 0.9,
    "store": 0.0,
}
"""What is too much, if nothing else is said: shares, seconds, a number of breakers."""

STALLED: Final = frozenset({"upstream_stalled", "upstream_silent"})


class AlertRule(msgspec.Struct, frozen=True):
    """One rule. ``above``: what is too much. ``window``: seconds that are looked back on. ``least``: answers
    below which a rate says nothing. ``after``: seconds for which it must be so, or be over, to be told;
    ``repeat``: seconds after which it is told again, 0 for never. ``to``: whom; empty for everybody.
    """

    name: str
    when: When
    above: float
    window: float = 300.0
    percentile: float = 95.0
    least: int = 20
    models: tuple[str, ...] = ("*",)
    after: float = 60.0
    repeat: float = 4 * 3600.0
    to: tuple[str, ...] = ()


class Standing(NamedTuple):
    """How things stand at an instant. ``disk_used`` is a share, None where streams are in memory;
    ``breakers``: targets whose breaker is open."""

    purses: Sequence[Purse] = ()
    disk_used: float | None = None
    healthy: bool = True
    breakers: Sequence[str] = ()


class Reading(NamedTuple):
    """What a rule's measure is, and that as a sentence."""

    value: float
    says: str


class _Slice:
    """What happened in a part of a window."""

    __slots__ = ("bad", "causes", "number", "times", "total")

    def __init__(self, number: int) -> None:
        self.number = number
        self.total = 0
        self.bad = 0
        self.causes: Counter[str] = Counter()
        self.times: Counter[int] = Counter()


class _Window:
    """The slices that count."""

    def __init__(self, seconds: float) -> None:
        self._width = seconds / SLICES
        self._slices: deque[_Slice] = deque()

    def now(self, now: float) -> _Slice:
        """Return the slice of this instant."""
        number = int(now / self._width)
        self._drop(number)
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        return self._slices[-1]

    def all(self, now: float) -> Sequence[_Slice]:
        """Return those that are not too old."""
        self._drop(int(now / self._width))
        return self._slices

    def _drop(self, number: int) -> None:
        while self._slices and self._slices[0].number <= number - SLICES:
            self._slices.popleft()


class Watch:
    """One rule's eyes."""

    def __init__(self, rule: AlertRule) -> None:
        """Nothing has happened yet."""
        self.rule = rule
        self._window = _Window(rule.window)
        self._read: Callable[[Standing, float], Reading | None] = getattr(self, f"_{rule.when}")

    def observe(self, signal: AnySignal, now: float) -> None:
        """Hear what happened at ``now``, in seconds of any clock."""
        when = self.rule.when
        if type(signal) is StreamEnded:
            if when == "error_rate" and self._concerns(signal.subject.model):
                failed = signal.outcome.status not in ("completed", "cancelled", "handed_over")
                wrong = failed and signal.fault != "client"
                self._count(now, wrong, f"{signal.outcome.code} at {signal.target}" if wrong else "")
        elif type(signal) is CallRefused:
            if when == "error_rate" and signal.fault == "gateway" and self._concerns(signal.subject.model):
                self._count(now, True, signal.code)
        elif type(signal) is AttemptEnded:
            if when == "stall_rate" and self._concerns(signal.subject.model) and signal.code != "superseded":
                self._count(now, signal.code in STALLED, signal.target)
        elif type(signal) is FirstOutput and when == "first_chunk" and self._concerns(signal.subject.model):
            self._window.now(now).times[_step(signal.timing.wait_ms / 1000)] += 1

    def read(self, standing: Standing, now: float) -> Reading | None:
        """Return the measure; None where too little happened to say."""
        return self._read(standing, now)

    def _concerns(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.rule.models)

    def _count(self, now: float, bad: bool, cause: str) -> None:
        at = self._window.now(now)
        at.total += 1
        if bad:
            at.bad += 1
            if cause in at.causes or len(at.causes) < MAX_CAUSES:
                at.causes[cause[:100]] += 1

    def _rate(self, now: float, what: str) -> Reading | None:
        slices = self._window.all(now)
        total = sum(one.total for one in slices)
        if total < self.rule.least:
            return None
        bad = sum(one.bad for one in slices)
        causes: Counter[str] = Counter()
        for one in slices:
            causes.update(one.causes)
        most = ", ".join(f"{count} × {cause}" for cause, count in causes.most_common(TOLD))
        said = f"{bad} of {total} {what} in {span(self.rule.window)} ({bad / total:.1%})"
        return Reading(bad / total, f"{said}: {most}." if most else f"{said}.")

    # by kind

    def _error_rate(self, _: Standing, now: float) -> Reading | None:
        return self._rate(now, "answers failed")

    def _stall_rate(self, _: Standing, now: float) -> Reading | None:
        return self._rate(now, "attempts stalled")

    def _first_chunk(self, _: Standing, now: float) -> Reading | None:
        times: Counter[int] = Counter()
        for one in self._window.all(now):
            times.update(one.times)
        total = sum(times.values())
        if total < self.rule.least:
            return None
        wanted, seen = math.ceil(total * self.rule.percentile / 100), 0
        for step in sorted(times):
            seen += times[step]
            if seen >= wanted:
                break
        seconds = _bound(step)
        said = f"{self.rule.percentile:g} % of {total} answers in {span(self.rule.window)}"
        return Reading(seconds, f"{said} began within {seconds:.2g} s only.")

    def _breaker_open(self, standing: Standing, _: float) -> Reading | None:
        names = sorted(standing.breakers)
        more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
        said = f"Passed over, since they fail: {', '.join(names[:TOLD])}{more}." if names else "None is open."
        return Reading(float(len(names)), said)

    def _budget(self, standing: Standing, _: float) -> Reading | None:
        used = sorted(
            ((purse.spent / purse.limit, purse) for purse in standing.purses if purse.limit > 0),
            key=lambda one: one[0],
            reverse=True,
        )
        if not used:
            return None
        over = [one for one in used if one[0] > self.rule.above] or used[:1]
        said = "; ".join(
            f"{purse.name}: {share:.0%} of {purse.limit / USD:,.2f} USD" for share, purse in over[:TOLD]
        )
        more = f"; and {len(over) - TOLD} more" if len(over) > TOLD else ""
        return Reading(used[0][0], f"Spent: {said}{more}.")

    def _disk(self, standing: Standing, _: float) -> Reading | None:
        if standing.disk_used is None:
            return None
        return Reading(standing.disk_used, f"{standing.disk_used:.0%} of the data folder's disk is used.")

    def _store(self, standing: Standing, _: float) -> Reading | None:
        if standing.healthy:
            return Reading(0.0, "Streams are stored again.")
        return Reading(1.0, "Streams cannot be stored: new calls are refused.")


def _step(seconds: float) -> int:
    return 0 if seconds <= 0.001 else math.ceil(math.log(seconds / 0.001, STEP))


def _bound(step: int) -> float:
    return 0.001 * STEP**step


def span(seconds: float) -> str:
    """Return a time as people say it."""
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {name}"
    return f"{seconds:g} s"


Said: TypeAlias = Literal["fires", "still", "recovered"]


class Alert:
    """Whether a rule's alert is on, without flapping: it begins and ends when it was so for a while."""

    __slots__ = ("_changing_since", "_rule", "firing", "since", "told_at")

    def __init__(self, rule: AlertRule) -> None:
        """It is off."""
        self._rule = rule
        self.firing = False
        self.since = 0.0
        self.told_at = 0.0
        self._changing_since: float | None = None

    def look(self, breached: bool, now: float) -> Said | None:
        """Return what is to be told at ``now``, if anything."""
        if breached == self.firing:
            self._changing_since = None
            if self.firing and 0 < self._rule.repeat <= now - self.told_at:
                self.told_at = now
                return "still"
            return None
        if self._changing_since is None:
            self._changing_since = now
        if now - self._changing_since < self._rule.after:
            return None
        self._changing_since = None
        self.firing, self.since, self.told_at = breached, now, now
        return "fires" if breached else "recovered"
