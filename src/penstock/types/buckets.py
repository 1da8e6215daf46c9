"""Values counted by size: cheap enough for every step, and read only when somebody asks.

The gaps between pieces of answers and the times of commits are counted so. Adding is a search in a
tuple and two sums, a fifth of a microsecond; what a scrape, a chart or a rule makes of the counts costs
nothing until then.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

GAP_BOUNDS: Final = (
    *(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0),
)
"""Seconds. Models stream a piece every 5 to 100 ms; timers of clients and proxies fire after 30 to 120."""

COMMIT_BOUNDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Seconds. A write takes about 0.1 ms, one that is synced as long as the disk needs."""


class Buckets:
    """How many values there were up to each of ``bounds``, and more than the last; and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = GAP_BOUNDS) -> None:
        """``bounds`` rise. ``counts`` has one more: for what is beyond the last."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        """Say how many, and how much."""
        return f"<Buckets {self.count} values, {self.total:g} in all>"

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def add(self, value: float) -> None:
        """Count ``value``; one that equals a bound is within it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def share_within(self, bound: float) -> float:
        """Return the share of the values that are at most ``bound``, one of the bounds; 1 without any."""
        count = self.count
        return sum(self.counts[: self.bounds.index(bound) + 1]) / count if count else 1.0
