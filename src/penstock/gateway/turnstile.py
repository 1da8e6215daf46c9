"""Runs whose attempt failed go on one after the other, a little apart.

When a provider dies under hundreds of answers, all of them fail in the same moment, and each is to be read
back, rendered anew and sent to somebody else. Done at once that stops the loop for a tenth of a second and
more, which everybody else's tokens would wait for (`bench/outage.py`). So each waits for its turn: the
streams of healthy targets do not notice, and the last of 500 goes on a second later.
"""

import asyncio
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 0.002
"""Seconds between two turns; going on with an answer takes about a quarter of that."""


class Turnstile:
    """One for all runs of a gateway."""

    def __init__(self, clock: Callable[[], float], interval: float = INTERVAL) -> None:
        """``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._interval = interval
        self._free_at = 0.0

    def __repr__(self) -> str:
        """Say how long the next one would wait."""
        return f"<Turnstile {max(0.0, self._free_at - self._clock()):.3f} s>"

    async def turn(self) -> None:
        """Return when it is the caller's turn: at once, if nobody had one lately."""
        now = self._clock()
        at = max(now, self._free_at)
        self._free_at = at + self._interval
        if at > now:
            await asyncio.sleep(at - now)
