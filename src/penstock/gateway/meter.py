"""The meter of one run: time to first output, the longest gap, usage. Pure over (event, now)."""

from penstock.types.events import AnyEvent, Timing, UsageReported


class Meter:
    """Fed once per step with the events shown and the time; seconds in, milliseconds out."""

    __slots__ = ("began", "first", "last", "max_gap", "sent", "started", "usage")

    def __init__(self, now: float) -> None:
        """Start the clock: ``now`` is when the call was accepted."""
        self.started = now
        self.began = now
        self.sent = now
        self.first: float | None = None
        self.last = now
        self.max_gap = 0.0
        self.usage: UsageReported | None = None

    def output(self, now: float) -> None:
        """Output was shown at ``now``."""
        if self.first is None:
            self.first = now
        elif now - self.last > self.max_gap:
            self.max_gap = now - self.last
        self.last = now

    def lead(self, began: float, sent: float) -> None:
        """The attempt that has the first output began and was sent at these times."""
        if self.first is None:
            self.began, self.sent = began, sent

    def report(self, event: AnyEvent) -> None:
        """Remember what ``event`` says of usage; the last report wins."""
        if type(event) is UsageReported:
            self.usage = event

    def timing(self, now: float) -> Timing:
        """Return the figures of the run as it stands at ``now``."""
        total = milliseconds(now - self.started)
        if self.first is None:
            return Timing(total_ms=total)
        return Timing(
            first_output_ms=milliseconds(self.first - self.started),
            total_ms=total,
            max_gap_ms=milliseconds(self.max_gap),
            failed_ms=milliseconds(self.began - self.started),
            connect_ms=milliseconds(self.sent - self.began),
            wait_ms=milliseconds(self.first - self.sent),
        )


def milliseconds(seconds: float) -> float:
    """Return ``seconds`` in milliseconds, to the microsecond; never below 0."""
    return max(0.0, round(seconds * 1000, 3))
