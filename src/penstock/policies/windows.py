"""How much was used in the last minute, or day: exact counts in sixty slots, and when there is room again.

Whatever is taken counts until a whole span after its slot has ended, so no span ever holds more than the
limit; the price is that room comes back up to a sixtieth of the span late. Pure: times are passed in, in
seconds from any origin.
"""

from collections import deque
from typing import Final

SLOTS: Final = 60


class Window:
    """``limit`` in any ``span`` seconds."""

    __slots__ = ("_counts", "_slot", "limit", "span", "total")

    def __init__(self, limit: int, span: float) -> None:
        """Nothing was taken yet."""
        self.limit = limit
        self.span = span
        self.total = 0
        self._slot = span / SLOTS
        self._counts: deque[list[int]] = deque()  # [slot, count], the oldest first

    def __repr__(self) -> str:
        """Say how full it is."""
        return f"<Window {self.total}/{self.limit} in {self.span:g} s>"

    def _end(self, slot: int) -> float:
        return (slot + 1) * self._slot + self.span

    def forget(self, now: float) -> None:
        """Let go of what was taken too long ago."""
        while self._counts and self._end(self._counts[0][0]) <= now:
            self.total -= self._counts.popleft()[1]

    def free_in(self, now: float, count: int) -> float:
        """Return the seconds until ``count`` fits; 0 for now, infinity for never."""
        self.forget(now)
        over = self.total + count - self.limit
        if over <= 0:
            return 0.0
        for slot, taken in self._counts:
            over -= taken
            if over <= 0:
                return self._end(slot) - now
        return float("inf")

    def take(self, now: float, count: int) -> int:
        """Count ``count``, room or not; return the slot, for `give_back`."""
        self.forget(now)
        slot = int(now // self._slot)
        if self._counts and self._counts[-1][0] >= slot:
            self._counts[-1][1] += count
            slot = self._counts[-1][0]
        else:
            self._counts.append([slot, count])
        self.total += count
        return slot

    def give_back(self, slot: int, count: int) -> None:
        """``count`` that were taken in ``slot`` are not needed. Nothing happens if that is forgotten."""
        for kept in self._counts:
            if kept[0] == slot:
                less = min(count, kept[1])
                kept[1] -= less
                self.total -= less
                return

    def remaining(self, now: float) -> int:
        """Return how much fits now."""
        self.forget(now)
        return max(0, self.limit - self.total)

    def full_in(self, now: float) -> float:
        """Return the seconds until nothing that was taken counts any more."""
        self.forget(now)
        return self._end(self._counts[-1][0]) - now if self._counts else 0.0
