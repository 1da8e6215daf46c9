"""What goes on in the gateway, counted as it happens and put together when somebody watches.

An observer of the core's signals (`penstock.types.signals`): a few additions for a call, an attempt and an
end, none for a token. Every `HISTORY_EVERY` seconds one `Point` is kept, so that whoever opens the
dashboard sees the last hour. Frames, which have rows of streams in them, are made only while there are
watchers: see `penstock.server.feed`.

What is kept by words that come from outside (codes, models) is bounded. No prompt, no answer and no
credential is in here.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from penstock.gateway.gateway import Gateway
from penstock.server.audience import Audience
from penstock.types.estimates import tokens_of
from penstock.types.signals import (
    AnySignal,
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    CallAccepted,
    CallRefused,
    FirstOutput,
    NamesChanged,
    StreamEnded,
)
from penstock.types.usage import USD

HISTORY_EVERY: Final = 5.0
HISTORY_POINTS: Final = 720
"""An hour."""

MAX_NAMES: Final = 100
"""Codes, and targets, that are counted apart; what comes beyond that counts as `other`."""

MAX_FIRSTS: Final = 4096
MAX_KEPT: Final = 50
"""Times to first output, and endings and happenings, that are kept."""


class Point(msgspec.Struct, frozen=True):
    """A moment: what there is, and what happened a second since the point before. Times to first output and
    gaps are of that span, in milliseconds; None where there were none."""

    t: float
    open: int
    readers: int
    lag: int
    started: float
    ended: float
    failed: float
    cancelled: float
    retries: float
    fallbacks: float
    continuations: float
    tokens: float
    first50: float | None
    first95: float | None
    gap50: float | None
    gap99: float | None


class Lately(msgspec.Struct, frozen=True):
    """What happened in the last ``seconds``: numbers, and times in milliseconds."""

    seconds: float
    started: int
    ended: int
    failed: int
    first50: float | None
    first95: float | None
    gap50: float | None
    gap99: float | None


class Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stream that ended a while ago."""

    id: str
    at: float
    principal: str
    model: str
    status: str
    code: str = ""
    target: str = ""
    attempts: int = 0
    ms: float = 0.0
    tokens: int = 0
    cost_usd: float | None = None


class Happening(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an operator wants to see: a breaker that opened, an answer that was rescued, a refusal."""

    at: float
    kind: str
    target: str = ""
    stream: str = ""
    code: str = ""


class Activity:
    """See the module's head."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """``clock`` is monotonic, ``wall`` is Unix time; both in seconds."""
        self.clock = clock
        self.wall = wall
        self.since = wall()
        self.started = self.ended = self.failed = self.cancelled = self.joined = 0
        self.input_tokens = self.output_tokens = self.cost = 0
        self.endings: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.broke: Counter[str] = Counter()
        self.firsts: deque[float] = deque(maxlen=MAX_FIRSTS)
        self.first_count = 0
        self.last_ended: deque[Ended] = deque(maxlen=MAX_KEPT)
        self.happened: deque[Happening] = deque(maxlen=MAX_KEPT)
        self.ended_count = self.happened_count = 0

    def __repr__(self) -> str:
        """Say what was counted."""
        return f"<Activity {self.started} started, {self.ended} ended>"

    def __call__(self, signal: AnySignal) -> None:
        """Count ``signal``."""
        match signal:
            case CallAccepted(subject=subject) if subject.passed_on:
                pass  # there is no stream to be seen
            case CallAccepted(existing=True):
                self.joined += 1
            case CallAccepted():
                self.started += 1
            case CallRefused():
                _count(self.refusals, signal.code)
                self._note(Happening(self.wall(), "refused", code=signal.code[:100]))
            case AttemptBegan():
                self.reasons[signal.reason] += 1
                _count(self.tried, signal.target)
                if signal.reason != "first":
                    happening = Happening(self.wall(), signal.reason, signal.target, signal.subject.stream)
                    self._note(happening)
            case FirstOutput():
                self.firsts.append(signal.timing.first_output_ms)
                self.first_count += 1
            case AttemptEnded() if signal.code and signal.code not in _NO_FAILURES:
                _count(self.broke, signal.target)
            case NamesChanged():
                for counter in (self.tried, self.broke):
                    for name in [*counter]:
                        if name not in signal.targets and name != "other":
                            del counter[name]
            case BreakerChanged():
                self._note(Happening(self.wall(), f"breaker_{signal.state}", signal.target))
            case StreamEnded():
                self._end(signal)

    def _end(self, signal: StreamEnded) -> None:
        outcome, subject = signal.outcome, signal.subject
        costs = [cost for cost in signal.costs if cost is not None]
        self.input_tokens += outcome.input_tokens
        self.output_tokens += outcome.output_tokens
        self.cost += sum(costs)
        if subject.passed_on:
            return
        self.ended += 1
        self.failed += outcome.status in ("failed", "interrupted", "expired", "lost")
        self.cancelled += outcome.status == "cancelled"
        _count(self.endings, f"{outcome.status}:{outcome.code}" if outcome.code else outcome.status)
        self.ended_count += 1
        self.last_ended.append(
            Ended(
                subject.stream,
                self.wall(),
                subject.principal,
                subject.model[:200],
                outcome.status,
                outcome.code[:100],
                signal.target,
                len(outcome.attempts),
                outcome.total_ms,
                outcome.output_tokens,
                sum(costs) / USD if costs else None,
            )
        )

    def _note(self, happening: Happening) -> None:
        self.happened_count += 1
        self.happened.append(happening)

    def totals(self) -> dict[str, Any]:
        """Return all that was counted since the process began."""
        return {
            "since": self.since,
            "started": self.started,
            "ended": self.ended,
            "joined": self.joined,
            "failed": self.failed,
            "endings": self.endings,
            "refusals": self.refusals,
            "attempts": self.reasons,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost / USD,
        }


_NO_FAILURES: Final = frozenset({"superseded", "cancelled", "client_disconnected", "gateway_shutdown"})
"""Codes of attempts that say nothing of their target."""


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MAX_NAMES else "other"] += 1


class Counts(NamedTuple):
    """What was counted up to a moment."""

    started: int
    ended: int
    failed: int
    cancelled: int
    retries: int
    fallbacks: int
    continuations: int
    characters: int
    firsts: int

    def since(self, before: "Counts") -> "Counts":
        """Return what came after ``before``."""
        return Counts(*(new - old for new, old in zip(self, before, strict=True)))


class Mark(NamedTuple):
    """A moment, with what was counted and the gaps there were up to it."""

    at: float
    counts: Counts
    gaps: list[int]


class Times(NamedTuple):
    """Of a span: the median and 95 % of the times to first output, the median and 99 % of the gaps."""

    first50: float | None
    first95: float | None
    gap50: float | None
    gap99: float | None


class Sampler:
    """Makes points, each of the span since the one before."""

    def __init__(self, gateway: Gateway, audience: Audience, activity: Activity) -> None:
        """The first span begins now."""
        self._gateway = gateway
        self._audience = audience
        self._activity = activity
        self.mark = self._now()

    def _now(self) -> Mark:
        activity, reasons = self._activity, self._activity.reasons
        counts = Counts(
            activity.started,
            activity.ended,
            activity.failed,
            activity.cancelled,
            reasons["retry"],
            reasons["fallback"],
            reasons["continuation"],
            self._gateway.characters,
            activity.first_count,
        )
        gaps: list[int] = []
        for buckets in self._gateway.gaps.values():
            gaps = [a + b for a, b in zip(gaps or [0] * len(buckets.counts), buckets.counts, strict=True)]
        return Mark(activity.clock(), counts, gaps)

    def point(self) -> Point:
        """Return the span's point, and begin the next span."""
        before, self.mark = self.mark, self._now()
        span = max(self.mark.at - before.at, 1e-3)
        counts = self.mark.counts.since(before.counts)
        readers, lag = self._audience.standing()
        return Point(
            round(self._activity.wall(), 2),
            self._gateway.open_streams,
            readers,
            lag,
            started=round(counts.started / span, 2),
            ended=round(counts.ended / span, 2),
            failed=round(counts.failed / span, 2),
            cancelled=round(counts.cancelled / span, 2),
            retries=round(counts.retries / span, 2),
            fallbacks=round(counts.fallbacks / span, 2),
            continuations=round(counts.continuations / span, 2),
            tokens=round(tokens_of(max(0, counts.characters)) / span, 1),
            **self._times(before, self.mark)._asdict(),
        )

    def lately(self, before: Mark) -> Lately:
        """Return what happened since ``before``."""
        now = self._now()
        counts = now.counts.since(before.counts)
        return Lately(
            round(now.at - before.at, 1),
            counts.started,
            counts.ended,
            counts.failed,
            **self._times(before, now)._asdict(),
        )

    def _times(self, before: Mark, now: Mark) -> "Times":
        """Return shares of the times to first output, and of the gaps, between two moments."""
        count = now.counts.firsts - before.counts.firsts
        firsts = sorted(list(self._activity.firsts)[-count:]) if count else []
        earlier = before.gaps or [0] * len(now.gaps)
        # A reload may have taken targets away, with what was counted of them.
        gaps = [max(0, new - old) for new, old in zip(now.gaps, earlier, strict=False)]
        bounds = next((one.bounds for one in self._gateway.gaps.values()), ())
        return Times(
            share_of(firsts, 0.5),
            share_of(firsts, 0.95),
            _share_of_counts(gaps, bounds, 0.5),
            _share_of_counts(gaps, bounds, 0.99),
        )


def share_of(ranked: Sequence[float], share: float) -> float | None:
    """Return the value that ``share`` of the ``ranked`` ones do not exceed."""
    return round(ranked[min(int(share * len(ranked)), len(ranked) - 1)], 1) if ranked else None


def _share_of_counts(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """As `share_of`, of values counted by size in seconds, in milliseconds; even within a size."""
    wanted = share * sum(counts)
    if not wanted:
        return None
    low = 0.0
    for count, high in zip(counts, bounds, strict=False):
        if count and wanted <= count:
            return round((low + (high - low) * wanted / count) * 1000, 1)
        wanted -= count
        low = high
    return low * 1000


def targets(gateway: Gateway, activity: Activity) -> list[dict[str, Any]]:
    """Return how each target that was ever asked stands, those in trouble first."""
    order: Mapping[str, int] = {"open": 0, "half_open": 1, "closed": 2}
    found = [
        {
            "name": name,
            "state": one.state,
            "running": one.running,
            "failures": one.failures_in_row,
            "first50": round(one.median_first_output * 1000, 1),
            "first95": round(one.p95_first_output * 1000, 1),
            "attempts": activity.tried.get(name, 0),
            "failed": activity.broke.get(name, 0),
        }
        for name, one in gateway.health.statistics().items()
    ]
    return sorted(found, key=lambda one: (order.get(str(one["state"]), 3), str(one["name"])))[:MAX_NAMES]
