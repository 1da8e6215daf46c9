"""Who is listening to a run, and what it means that nobody is: the route's `on_disconnect` setting.

Only readers of the principal that created the stream count. Leaving is not stopping unless the
setting says so: ``continue`` goes on for at most ``max_detached`` seconds, ``cancel`` stops at once,
a number stops after so many seconds without a reader.
"""

import asyncio
from collections.abc import Callable

from penstock.types.calls import OnDisconnect


class Attendance:
    """Counts attached readers; calls ``stop`` when the run has been alone for too long."""

    __slots__ = ("_on_disconnect", "_readers", "_stop", "_timer", "max_detached")

    def __init__(self, on_disconnect: OnDisconnect, max_detached: float, stop: Callable[[], None]) -> None:
        """Nobody is attached yet and no timer runs: the first reader is about to come."""
        self.max_detached = max_detached
        self._on_disconnect = on_disconnect
        self._stop = stop
        self._readers = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def patience(self) -> float:
        """Seconds that the run goes on without a reader."""
        if self._on_disconnect == "continue":
            return self.max_detached
        if self._on_disconnect == "cancel":
            return 0.0
        return min(float(self._on_disconnect), self.max_detached)

    def attach(self) -> None:
        """A reader came."""
        self._readers += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def detach(self) -> None:
        """A reader left, for whatever reason."""
        self._readers -= 1
        if self._readers == 0 and self._timer is None and self._stop is not _nothing:
            if self.patience <= 0:
                self._stop()
            else:
                self._timer = asyncio.get_running_loop().call_later(self.patience, self._stop)

    def start_alone(self) -> None:
        """No reader is coming with the call: begin to wait for one."""
        self.attach()
        self.detach()

    def close(self) -> None:
        """The run is over: stop counting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stop = _nothing


def _nothing() -> None:
    return None
