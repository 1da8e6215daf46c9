"""The meter of one run: where the time went, the longest gap, usage. Pure over (event, now)."""

from penstock.types.buckets import Buckets
from penstock.types.events import AnyEvent, Timing, UsageReported


class Meter:
    """Fed once per step with the events shown and the time; seconds in, milliseconds out."""

    __slots__ = (
        "_first",
        "_led",
        "_max_gap",
        "_queued",
        "_ready",
        "_resumed",
        "_sent",
        "gaps",
        "last",
        "started",
        "usage",
    )

    def __init__(self, now: float) -> None:
        """Start the clock: ``now`` is when the call was accepted."""
        self.started = self.last = now
        self.usage: UsageReported | None = None
        self.gaps: Buckets | None = None  # where somebody wants to know them
        self._queued = 0.0
        self._ready = self._led = self._sent = now
        self._first: float | None = None
        self._max_gap = 0.0
        self._resumed = False

    @property
    def queued_ms(self) -> float:
        """How long policies let the call wait."""
        return milliseconds(self._queued)

    def queued(self, seconds: float) -> None:
        """Policies let the call wait for so long."""
        self._queued += seconds

    def begin(self, now: float, *, resumed: bool = False) -> None:
        """The run begins. ``resumed``: its first output was shown by a process before this one."""
        self._ready = self._led = self._sent = now
        self._resumed = resumed

    def output(self, now: float) -> None:
        """Output was shown at ``now``."""
        if self._first is None:
            self._first = now
        elif now > self.last:
            gap = now - self.last
            if gap > self._max_gap:
                self._max_gap = gap
            if self.gaps is not None:
                self.gaps.add(gap)
        self.last = now

    def lead(self, began: float, sent: float) -> None:
        """The attempt that has the first output began and was sent at these times."""
        if self._first is None:
            self._led, self._sent = began, sent

    def report(self, event: AnyEvent) -> None:
        """Remember what ``event`` says of usage; the last report wins."""
        if type(event) is UsageReported:
            self.usage = event

    def age(self, now: float) -> float:
        """Return the seconds since the call was accepted."""
        return now - self.started

    def opening(self, now: float) -> Timing:
        """Return the figures at the moment of the first output, which comes ``now``."""
        return self._timing(now, now, now)

    def timing(self, now: float) -> Timing:
        """Return the figures of the run as it stands at ``now``."""
        return self._timing(now, self._first, self.last)

    def _timing(self, now: float, first: float | None, last: float) -> Timing:
        total, queued = now - self.started, self._queued
        if self._resumed:
            return Timing(total_ms=milliseconds(total), max_gap_ms=milliseconds(self._max_gap))
        if first is None:
            ours = self._ready - self.started - queued
            return Timing(
                total_ms=milliseconds(total),
                queue_ms=milliseconds(queued),
                failed_ms=milliseconds(now - self._ready),
                gateway_ms=milliseconds(ours),
            )
        ours = (self._ready - self.started - queued) + (now - last)
        return Timing(
            first_output_ms=milliseconds(first - self.started),
            total_ms=milliseconds(total),
            max_gap_ms=milliseconds(self._max_gap),
            failed_ms=milliseconds(self._led - self._ready),
            connect_ms=milliseconds(self._sent - self._led),
            wait_ms=milliseconds(first - self._sent),
            queue_ms=milliseconds(queued),
            stream_ms=milliseconds(last - first),
            gateway_ms=milliseconds(ours),
        )


def milliseconds(seconds: float) -> float:
    """Return ``seconds`` in milliseconds, to the microsecond; never below 0."""
    return max(0.0, round(seconds * 1000, 3))
