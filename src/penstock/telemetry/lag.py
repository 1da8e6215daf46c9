"""How late the event loop is: a timer that notes by how much it was late, four times a second.

The one figure that shows whether the process has more to do than a core can: what every token waits for.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from penstock.types.buckets import Buckets

INTERVAL: Final = 0.25
"""Seconds."""

LAG_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Seconds. A timer of asyncio's is up to 1 ms late by itself."""


class LoopLag:
    """A companion of the gateway; ``seconds`` holds how late the loop was."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self.seconds = Buckets(LAG_BOUNDS)
        self._clock = clock
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0

    def __repr__(self) -> str:
        """Say what was seen."""
        return f"<LoopLag {self.seconds}>"

    async def open(self) -> None:
        """Begin to look."""
        self._next()

    async def aclose(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _next(self) -> None:
        self._due = self._clock() + INTERVAL
        self._handle = asyncio.get_running_loop().call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self.seconds.add(max(0.0, self._clock() - self._due))
        self._next()
