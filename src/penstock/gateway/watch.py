"""The timers of one attempt: when it has been silent, or slow, for too long.

One handle at a time and nothing per chunk: when the earliest of them could be due, it is looked at what
came meanwhile, and waited again. While the gateway itself holds the provider back, the provider is not
blamed: that time does not count.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from penstock.types.errors import UpstreamError
from penstock.types.timers import Timers


class Progress(NamedTuple):
    """What an attempt has brought. ``last_output`` is a time of the loop's clock, None before the first;
    ``characters`` counts them; ``held``: the gateway does not read at the moment."""

    last_output: float | None
    characters: int
    held: bool


class Watch:
    """Looks at an attempt's `Progress` until `close`; calls ``expired`` at most once, with what to say."""

    def __init__(
        self,
        timers: Timers,
        progress: Callable[[], Progress],
        expired: Callable[[UpstreamError], None],
        clock: Callable[[], float],
    ) -> None:
        """Begin now, with the request."""
        self._timers = timers
        self._progress = progress
        self._expired = expired
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._began = clock()
        self._free_since = self._began  # when we last held the provider back
        self._mark = (self._began, 0)  # the window's start, and the characters there were
        self._handle: asyncio.TimerHandle | None = None
        self._look()

    def close(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        self._handle = None
        now, timers = self._clock(), self._timers
        last_output, characters, held = self._progress()
        if held:
            self._free_since = now
            self._mark = (now, characters)
        waits: list[float] = []
        if last_output is None:
            waits += filter(None, (timers.stall, timers.min_rate and timers.window))
            if timers.first_output:
                waits.append(self._began + timers.first_output - now)
                if waits[-1] <= 0:
                    self._fail(
                        f"The provider began no answer within {timers.first_output:g} s.",
                        code="upstream_silent",
                    )
                    return
        elif timers.stall:
            waits.append(max(last_output, self._free_since) + timers.stall - now)
            if waits[-1] <= 0:
                self._fail(f"The provider fell silent for {timers.stall:g} s.", code="upstream_stalled")
                return
        if timers.min_rate and last_output is not None:
            since, before = self._mark
            if now >= since + timers.window:
                rate = (characters - before) / (now - since)
                if before and rate < timers.min_rate:
                    self._fail(f"The provider sends {rate:.1f} characters a second.", code="upstream_slow")
                    return
                since = now
                self._mark = (now, max(characters, 1))
            waits.append(since + timers.window - now)
        if waits:
            self._handle = self._loop.call_later(max(min(waits), 0.001), self._look)

    def _fail(self, message: str, *, code: str) -> None:
        self._expired(UpstreamError(message, code=code, status=504))
