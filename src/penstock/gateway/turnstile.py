"""Runs whose attempt failed go on one after the other, a little apart.

When a provider dies under hundreds of answers, all of them fail in the same moment, and each is to be read
back, rendered anew and sent to somebody else. Done at once that stops the loop for a tenth of a second and
more, which everybody else's tokens would wait for (`bench/outage.py`). So each waits for its turn, and no
two have theirs in one turn of the loop, however late that is: the streams of healthy targets do not notice,
and the last of 500 goes on a second or two later.
"""

import asyncio
from collections import deque
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
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        """Say how many wait."""
        return f"<Turnstile {len(self._waiting)} waiting>"

    async def turn(self) -> None:
        """Return when it is the caller's turn: at once, if nobody had one lately."""
        now = self._clock()
        if not self._waiting and now >= self._free_at:
            self._free_at = now + self._interval
            return
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.append(mine)
        if len(self._waiting) == 1:
            loop.call_later(max(0.0, self._free_at - now), self._next)
        await mine  # cancelled, it is passed over

    def _next(self) -> None:
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():
                mine.set_result(None)
                break
        self._free_at = self._clock() + self._interval
        if self._waiting:
            asyncio.get_running_loop().call_later(self._interval, self._next)
