"""The signals of one run: what its observer is told (`penstock.types.signals`), from what the run knows.

Only a run that somebody watches has one of these. Called once for an attempt's beginning, output and end,
and once at the run's end; never in between. Whatever ends a run, each attempt that was told to have begun
is told to have ended, before the run is.
"""

from collections.abc import Callable

from penstock.gateway.meter import milliseconds
from penstock.gateway.tally import Tally, Use
from penstock.types.buckets import Buckets
from penstock.types.errors import PenstockError
from penstock.types.events import Timing, UsageReported
from penstock.types.outcomes import Outcome
from penstock.types.signals import (
    AttemptBegan,
    AttemptEnded,
    FirstOutput,
    Observer,
    Reason,
    StreamEnded,
    Subject,
)


class Signals:
    """See the module's head."""

    __slots__ = ("_began", "_clock", "_gaps", "_observe", "_parent_of", "_shown", "_subject")

    def __init__(
        self,
        subject: Subject,
        observe: Observer,
        gaps: Callable[[str], Buckets],
        clock: Callable[[], float],
        parent_of: Callable[[AttemptBegan], str] | None = None,
    ) -> None:
        """``gaps`` gives where those of a target's answers are counted; ``clock`` is the run's; ``parent_of``
        gives the `traceparent` that an attempt sends, empty for none."""
        self._subject = subject
        self._observe = observe
        self._gaps = gaps
        self._clock = clock
        self._parent_of = parent_of
        self._began: dict[Use, AttemptBegan] = {}
        self._shown = False

    def __repr__(self) -> str:
        """Say of which stream."""
        return f"<Signals {self._subject.stream}, {len(self._began)} attempts going on>"

    def began(self, use: Use, number: int, reason: Reason) -> str:
        """The attempt ``number`` begins; return the `traceparent` that it is to send, empty for none."""
        target = use.target
        signal = AttemptBegan(self._subject, number, reason, target.name, target.provider, target.model)
        self._began[use] = signal
        self._observe(signal)
        return self._parent_of(signal) if self._parent_of is not None else ""

    def led(self, use: Use | None, timing: Timing) -> Buckets | None:
        """An attempt has its first output, which once is the answer's; return where gaps are counted now."""
        began = self._began.get(use) if use is not None else None
        if began is None:
            return None
        if not self._shown:
            self._shown = True
            self._observe(FirstOutput(self._subject, began.number, began.target, timing))
        return self._gaps(began.target)

    def ended(self, use: Use, tally: Tally, code: str = "") -> None:
        """An attempt is over, or its run, with ``code``; told once."""
        began = self._began.pop(use, None)
        if began is None:
            return
        now = self._clock() if use.ended is None else use.ended
        self._observe(
            AttemptEnded(
                self._subject,
                began.number,
                began.reason,
                began.target,
                began.provider,
                began.model,
                code=use.why(code),
                led=use.first is not None,
                connect_ms=milliseconds(use.sent - use.began) if use.sent is not None else 0.0,
                wait_ms=milliseconds(use.first - (use.sent or use.began)) if use.first is not None else 0.0,
                total_ms=milliseconds(now - use.began),
                usage=tally.usage(use),
                response_model=use.response_model,
                response_id=use.response_id,
                finish_reasons=use.finish_reasons,
            )
        )

    def over(
        self,
        outcome: Outcome,
        error: PenstockError | None,
        tally: Tally,
        target: str,
        timing: Timing,
        usage: UsageReported | None,
    ) -> None:
        """The run has ended."""
        for use in list(self._began):
            self.ended(use, tally, outcome.code)
        fault = error.fault if error else None
        self._observe(StreamEnded(self._subject, outcome, target, fault, timing, usage))
