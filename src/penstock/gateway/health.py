"""How targets have been doing: a circuit breaker each, a budget for retries, the time to first output.

    closed ──failures in a row, or too large a share of them──► open ──its time is over──► half-open
       ▲                                                         ▲  │ one probe at a time
       └──────────────the probe gets output───────────────────────┼──┘
                                     the probe fails: twice as long

Whoever begins an attempt asks `admit` and tells how it went by the result's verbs, exactly one of them.
A target that is open is passed over, not waited for; where all are open, the one that has been for
longest is tried all the same: an answer that may come is better than none. Refusals of a request say
nothing about a target's health and are not counted.

One `Health` for the life of the process; keyed by the target's name, so a reload keeps what is known of
targets that stay. One that it takes away is told of no more at once, and forgotten once nothing runs there.
Everything is in the loop's thread and bounded: a ring of outcomes and one of times per target.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal, TypeAlias

import msgspec
import structlog

from penstock.types.signals import BreakerChanged, Observer

log = structlog.get_logger(__name__)

State: TypeAlias = Literal["closed", "open", "half_open"]

NOBODY: Final[Mapping[str, str]] = {}
"""The ids of an attempt that is no call's."""

OUTCOMES: Final = 20
TIMES: Final = 64
"""How many outcomes, and times to first output, are remembered per target."""


class HealthSettings(msgspec.Struct, frozen=True):
    """When a target is passed over, and what retries may cost. Seconds, counts and shares.

    ``failures``: in a row; ``share``: of at least `OUTCOMES` outcomes within ``window``. The breaker is
    open for ``cool_down`` first, twice as long after each probe that fails, ``max_cool_down`` at most.
    ``retry_share``: a retry is paid by so many first tries, with ``retry_reserve`` retries to begin with.
    """

    failures: int = 5
    share: float = 0.5
    window: float = 30.0
    cool_down: float = 2.0
    max_cool_down: float = 15.0
    retry_share: float = 0.2
    retry_reserve: float = 10.0


class TargetStatistics(msgspec.Struct, frozen=True):
    """Where one target stands. Times to first output in seconds, 0 while unknown."""

    state: State
    running: int
    failures_in_row: int
    median_first_output: float
    p95_first_output: float


class TargetHealth:
    """One target's record."""

    __slots__ = (
        "_clock",
        "_cool_down",
        "_name",
        "_observe",
        "_open_until",
        "_opened_at",
        "_outcomes",
        "_probing",
        "_retries",
        "_row",
        "_settings",
        "_times",
        "running",
    )

    def __init__(
        self,
        settings: HealthSettings,
        clock: Callable[[], float],
        name: str = "",
        observe: Observer | None = None,
    ) -> None:
        """Nothing is known, and well is thought of it."""
        self.running = 0
        self._name = name
        self._observe = observe
        self._settings = settings
        self._clock = clock
        self._row = 0
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=OUTCOMES)
        self._times: deque[float] = deque(maxlen=TIMES)
        self._opened_at: float | None = None
        self._open_until = 0.0
        self._cool_down = 0.0
        self._probing = False
        self._retries = settings.retry_reserve

    def __repr__(self) -> str:
        """Say how it is."""
        return f"<TargetHealth {self.state} running={self.running}>"

    @property
    def state(self) -> State:
        """The breaker's state."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._clock() >= self._open_until else "open"

    @property
    def available(self) -> bool:
        """Whether an attempt may begin: not while the breaker is open, and one at a time while it is half."""
        state = self.state
        return state == "closed" or (state == "half_open" and not self._probing)

    @property
    def opened_at(self) -> float:
        """When the breaker opened; 0 while it is closed."""
        return self._opened_at or 0.0

    def statistics(self) -> TargetStatistics:
        """Say where it stands."""
        return TargetStatistics(
            self.state, self.running, self._row, self.first_output(0.5), self.first_output(0.95)
        )

    def first_output(self, share: float) -> float:
        """Return the time to first output that ``share`` of the last answers did not exceed; 0 if unknown."""
        if not self._times:
            return 0.0
        ranked = sorted(self._times)
        return ranked[min(int(share * len(ranked)), len(ranked) - 1)]

    def use(self, settings: HealthSettings) -> None:
        """Judge by ``settings`` from now on."""
        self._settings = settings

    # --- retries -----------------------------------------------------------------------------

    @property
    def can_retry(self) -> bool:
        """Whether the budget pays for another retry."""
        return self._retries >= 1.0

    def pay_retry(self) -> None:
        """A retry begins."""
        self._retries -= 1.0

    # --- attempts ----------------------------------------------------------------------------

    def begin(self, *, retry: bool = False, ids: Mapping[str, str] = NOBODY) -> "Trial":
        """An attempt begins; tell its `Trial` how it goes. ``ids`` of its call are for the log."""
        self.running += 1
        if not retry:
            self._retries = min(self._settings.retry_reserve, self._retries + self._settings.retry_share)
        probe = self._opened_at is not None
        if probe:
            self._probing = True
        return Trial(self, self._clock(), ids, probe=probe)

    def _succeeded(self, trial: "Trial") -> None:
        self._times.append(self._clock() - trial.began)
        self._row = 0
        self._outcomes.append((self._clock(), True))
        if self._opened_at is not None and trial.probe:
            self._opened_at = None
            self._cool_down = 0.0
            self._outcomes.clear()
            log.info("breaker_closed", **trial.ids, target=self._name)
            self._tell("closed")

    def _failed(self, trial: "Trial") -> None:
        now, settings = self._clock(), self._settings
        self._row += 1
        self._outcomes.append((now, False))
        if trial.probe or (self._opened_at is None and self._is_bad(now)):
            self._cool_down = min(max(self._cool_down * 2, settings.cool_down), settings.max_cool_down)
            opens = self._opened_at is None
            self._opened_at = now if self._opened_at is None else self._opened_at
            self._open_until = now + self._cool_down
            if opens:
                log.warning("breaker_opened", **trial.ids, target=self._name, failures_in_row=self._row)
                self._tell("open")

    def _tell(self, state: Literal["open", "closed"]) -> None:
        if self._observe is not None:
            self._observe(BreakerChanged(self._name, state))

    def _is_bad(self, now: float) -> bool:
        if self._row >= self._settings.failures:
            return True
        recent = [good for at, good in self._outcomes if now - at <= self._settings.window]
        return len(recent) == OUTCOMES and recent.count(False) >= self._settings.share * OUTCOMES

    def _ended(self, trial: "Trial") -> None:
        self.running -= 1
        if trial.probe:
            self._probing = False


class Trial:
    """One attempt, as its target's health sees it. Call `end` exactly once; the others at most once."""

    __slots__ = ("_health", "_judged", "began", "ids", "probe")

    def __init__(self, health: TargetHealth, began: float, ids: Mapping[str, str], *, probe: bool) -> None:
        """``probe``: its outcome decides whether the breaker closes. ``ids``: whose attempt it is."""
        self.began = began
        self.ids = ids
        self.probe = probe
        self._health = health
        self._judged = False

    def output(self) -> None:
        """The first output came: the target lives."""
        if not self._judged:
            self._judged = True
            self._health._succeeded(self)

    def fail(self) -> None:
        """It failed in a way that says something about the target, maybe after output."""
        self._health._failed(self)
        self._judged = True

    def end(self) -> None:
        """It is over, however it went."""
        self._health._ended(self)


class Health:
    """All targets' records."""

    def __init__(
        self, settings: HealthSettings, clock: Callable[[], float], observe: Observer | None = None
    ) -> None:
        """``clock`` is monotonic, in seconds. ``observe`` is told when a breaker opens or closes."""
        self._observe = observe
        self._settings = settings
        self._clock = clock
        self._targets: dict[str, TargetHealth] = {}
        self._known: Collection[str] | None = None

    def use(self, settings: HealthSettings) -> None:
        """Judge by ``settings`` from now on; what is known is kept."""
        self._settings = settings
        for target in self._targets.values():
            target.use(settings)

    def of(self, target: str) -> TargetHealth:
        """Return the record of the target with this name, which must be one that is configured."""
        found = self._targets.get(target)
        if found is None:
            found = self._targets[target] = TargetHealth(self._settings, self._clock, target, self._observe)
        return found

    def keep(self, known: Collection[str]) -> None:
        """Targets are ``known`` by these names from now on; others are forgotten."""
        self._known = known
        self._targets = {
            name: target for name, target in self._targets.items() if name in known or target.running
        }

    def statistics(self) -> dict[str, TargetStatistics]:
        """Say where every target stands that was ever asked, of those that there still are."""
        known = self._known
        return {
            name: target.statistics()
            for name, target in self._targets.items()
            if known is None or name in known
        }
