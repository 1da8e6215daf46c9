"""The meter of one run: where the time went, the longest gap, usage. Pure over (event, now)."""

from penstock.types.buckets import Buckets
from penstock.types.events import AnyEvent, Timing, UsageReported


class Meter:
    """Fed once per step with the events shown and the time; seconds in, milliseconds out."""

    __slots__ = (
        "_first",
        "_led",
        "_max_gap",
        "_over",
        "_queued",
        "_ready",
        "_resumed",
        "_sent",
        "_tries",
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
        self._ready = self._led = now
        self._sent: float | None = None
        self._first: float | None = None
        self._tries = 0
        self._over: float | None = now  # since when no attempt goes on
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
        self._ready = self._led = now
        self._resumed = resumed

    def attempt(self, now: float) -> None:
        """An attempt begins. What was before the first of them was ours."""
        self._tries += 1
        if self._tries == 1:
            self._ready = now
        if self._first is None and self._over is not None:  # else it is a rival
            self._led, self._sent = now, None
        self._over = None

    def sent(self, now: float) -> None:
        """The request of an attempt was sent."""
        if self._first is None and self._sent is None:
            self._sent = now

    def over(self, now: float) -> None:
        """No attempt goes on any more: until another one begins, nobody but us has anything to do."""
        self._over = now

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
            if self._tries == 1:
                self._ready = began

    def report(self, event: AnyEvent) -> None:
        """Remember what ``event`` says of usage; the last report wins."""
        if type(event) is UsageReported:
            self.usage = event

    def age(self, now: float) -> float:
        """Return the seconds since the call was accepted."""
        return now - self.started

    def opening(self, now: float) -> Timing:
        """Return the figures at the moment of the first output, which comes ``now``."""
        return self._timing(now, now)

    def timing(self, now: float) -> Timing:
        """Return the figures of the run as it stands at ``now``. While an attempt goes on, silence is its
        provider's, not ours."""
        return self._timing(now, self._first)

    def _timing(self, now: float, first: float | None) -> Timing:
        total, queued = now - self.started, self._queued
        if self._resumed:
            return Timing(total_ms=milliseconds(total), max_gap_ms=milliseconds(self._max_gap))
        ours = self._ready - self.started - queued
        failed, connect, wait, streamed = self._led - self._ready, 0.0, 0.0, 0.0
        if first is not None:
            until = now if self._over is None else max(self._over, self.last)
            sent = self._led if self._sent is None else self._sent
            connect, wait, streamed = sent - self._led, first - sent, until - first
            ours += now - until
        elif self._over is not None:
            failed = now - self._ready
        elif self._sent is None:
            connect = now - self._led
        else:
            connect, wait = self._sent - self._led, now - self._sent
        return Timing(
            first_output_ms=milliseconds(first - self.started) if first is not None else 0.0,
            total_ms=milliseconds(total),
            max_gap_ms=milliseconds(self._max_gap),
            failed_ms=milliseconds(failed),
            connect_ms=milliseconds(connect),
            wait_ms=milliseconds(wait),
            queue_ms=milliseconds(queued),
            stream_ms=milliseconds(streamed),
            gateway_ms=milliseconds(ours),
        )


def milliseconds(seconds: float) -> float:
    """Return ``seconds`` in milliseconds, to the microsecond; never below 0."""
    return max(0.0, round(seconds * 1000, 3))
