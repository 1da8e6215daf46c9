"""The meter of one run: time to first output, the longest gap, usage. Pure over (event, now)."""

from penstock.types.events import AnyEvent, Timing, UsageReported


class Meter:
    """Fed once per step with the events shown and the time; seconds in, milliseconds out."""

    __slots__ = ("first", "last", "max_gap", "started", "usage")

    def __init__(self, now: float) -> None:
        """Start the clock: ``now`` is when the call was accepted."""
        self.started = now
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

    def report(self, event: AnyEvent) -> None:
        """Remember what ``event`` says of usage; the last report wins."""
        if type(event) is UsageReported:
            self.usage = event

    def timing(self, now: float) -> Timing:
        """Return the figures of the run as it stands at ``now``."""
        first = 0.0 if self.first is None else self.first - self.started
        return Timing(
            first_output_ms=round(first * 1000, 3),
            total_ms=round((now - self.started) * 1000, 3),
            max_gap_ms=round(self.max_gap * 1000, 3),
        )
