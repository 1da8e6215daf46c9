"""What a run has used, attempt by attempt: as providers reported it, else estimated and marked.

A provider that refused, or was never reached, wants no money. One that was asked and then broke off, was
cut off by us, or never said, has read the request and written what it wrote: that is counted from the
bytes. Pure; told of events once a step. Times are of any clock, in seconds.
"""

from collections.abc import Callable, Sequence

import msgspec

from penstock.gateway.meter import milliseconds
from penstock.providers.provider import Target
from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.estimates import tokens_of
from penstock.types.events import AnyEvent, AttemptReport, Finished, Started, UsageReported
from penstock.types.outcomes import AttemptUse

FREE_CODES = frozenset(
    {
        "upstream_unreachable",
        "upstream_connect_timeout",
        "upstream_tls",
        "upstream_proxy",
        "upstream_busy",
        "upstream_closed",
        "upstream_redirect",
    }
)
"""Of attempts whose request reached nobody."""

SUPERSEDED = "superseded"
"""What stands for the failure of an attempt that another one was quicker than."""


class Use:
    """What one attempt has used so far."""

    __slots__ = (
        "began",
        "characters",
        "code",
        "ended",
        "finish_reasons",
        "first",
        "free",
        "input_tokens",
        "reason",
        "reported",
        "response_id",
        "response_model",
        "sent",
        "target",
    )

    def __init__(self, target: Target, now: float, reason: str = "") -> None:
        """Nothing yet; the attempt begins ``now``, for ``reason``."""
        self.target = target
        self.reason = reason
        self.began = now
        self.first: float | None = None  # when its first output came
        self.ended: float | None = None
        self.characters = 0
        self.input_tokens = 0
        self.reported: UsageReported | None = None
        self.code = ""
        self.free = False
        self.sent: float | None = None  # when the request was
        self.response_model = self.response_id = ""
        self.finish_reasons: tuple[str, ...] = ()

    def report(self, event: AnyEvent) -> None:
        """Hear what ``event`` says of usage (the last report wins), of who answers, of how it finished."""
        if type(event) is UsageReported:
            self.reported = event
        elif type(event) is Started:
            self.response_model, self.response_id = event.model, event.id
            self.input_tokens = event.input_tokens or self.input_tokens
        elif type(event) is Finished:
            self.finish_reasons += (event.reason,)

    def end(self, error: PenstockError | None, now: float) -> None:
        """The attempt is over; ``error`` is how it failed."""
        self.ended = now
        if error is None:
            return
        self.code = error.code
        refused = isinstance(error, UpstreamError) and error.upstream_status >= 400
        self.free = not self.characters and (error.fault == "client" or refused or error.code in FREE_CODES)

    def why(self, code: str) -> str:
        """Return why it did not bring the answer to its end; empty when it did. ``code`` is how the run
        ended, or would now."""
        return self.code or (code if self.ended is None else "" if self.first is not None else SUPERSEDED)

    def usage(self, request_tokens: Callable[[], int]) -> UsageReported:
        """Return the counts: exact if they were reported, else estimated."""
        reported = self.reported
        if self.free or (self.sent is None and not self.characters):
            return reported or UsageReported()
        if reported is not None and (reported.output_tokens or not self.characters):
            return reported if not reported.extra else msgspec.structs.replace(reported, extra=None)
        return UsageReported(
            input_tokens=self.input_tokens or (reported.input_tokens if reported else 0) or request_tokens(),
            output_tokens=tokens_of(self.characters),
            estimated=True,
        )


class Tally:
    """The uses of one run."""

    __slots__ = ("_earlier", "_request_tokens", "uses")

    def __init__(self, request_tokens: Callable[[], int], earlier: Sequence[AttemptUse] = ()) -> None:
        """``request_tokens`` estimates the request; asked at most once an attempt, at the end. ``earlier``
        attempts were made by a process before this one."""
        self.uses: list[Use] = []
        self._earlier = tuple(earlier)
        self._request_tokens = request_tokens

    def begin(self, target: Target, now: float, reason: str = "") -> Use:
        """An attempt at ``target`` begins."""
        self.uses.append(Use(target, now, reason))
        return self.uses[-1]

    def of(self, target: Target) -> Use | None:
        """Return the use of the last attempt at ``target``."""
        return next((use for use in reversed(self.uses) if use.target is target), None)

    def usage(self, use: Use) -> UsageReported:
        """Return what ``use`` came to."""
        return use.usage(self._request_tokens)

    def attempts(self) -> tuple[AttemptUse, ...]:
        """Return all attempts as they stand."""
        return self._earlier + tuple(
            AttemptUse(
                target=use.target.name,
                provider=use.target.provider,
                model=use.target.model,
                usage=use.usage(self._request_tokens),
                code=use.code,
            )
            for use in self.uses
        )

    @property
    def open(self) -> frozenset[int]:
        """The numbers, from 1, of the attempts that go on."""
        first = len(self._earlier) + 1
        return frozenset(number for number, use in enumerate(self.uses, first) if use.ended is None)

    def history(self, start: float, now: float, code: str) -> tuple[AttemptReport, ...]:
        """Return all attempts, apart, if there were several. The call was accepted at ``start``, and ends
        ``now`` with ``code``, which is that of an attempt that still goes on."""
        if len(self._earlier) + len(self.uses) < 2:
            return ()
        return self.reports(start, now, code)

    def reports(self, start: float, now: float, code: str = "") -> tuple[AttemptReport, ...]:
        """As `history`, of all attempts, however many there are."""
        before = [AttemptReport(use.target, use.code, usage=use.usage) for use in self._earlier]
        return (*before, *(self._report(use, start, now, code) for use in self.uses))

    def _report(self, use: Use, start: float, now: float, code: str) -> AttemptReport:
        return AttemptReport(
            use.target.name,
            use.why(code),
            began_ms=milliseconds(use.began - start),
            ended_ms=milliseconds((now if use.ended is None else use.ended) - start),
            connect_ms=milliseconds(use.sent - use.began) if use.sent is not None else 0.0,
            wait_ms=milliseconds(use.first - (use.sent or use.began)) if use.first is not None else 0.0,
            usage=use.usage(self._request_tokens),
            reason=use.reason,
        )
