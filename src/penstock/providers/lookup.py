"""A question to somebody else's library that may wait, in a thread: one at a time.

Owns that a library which hangs holds one thread, however many ask and leave meanwhile: whoever asks while a
call runs waits for that one, and one that was left is not made again beside itself. What is asked, and for
how long one waits, is the caller's business.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds that credentials are waited for where there are none."""

RENEWING: Final = 2.0
"""Seconds that new credentials are waited for while the old ones still hold; then these are used."""


class Lookup(Generic[T]):
    """See the module's head."""

    def __init__(self, call: Callable[[], T]) -> None:
        """``call`` runs in a thread, never twice at once."""
        self._call = call
        self._running: asyncio.Future[T] | None = None

    def __repr__(self) -> str:
        """Show whether a call runs; not what it found."""
        return f"<Lookup {'running' if self.running else 'idle'}>"

    @property
    def running(self) -> bool:
        """Whether a call is under way."""
        return self._running is not None and not self._running.done()

    async def get(self) -> T:
        """Return what the call that runs, or else a new one, returns. Raises what that raises; cancelled, it
        leaves the call to the next who ask."""
        running = self._running
        if running is None or running.done():
            running = self._running = asyncio.get_running_loop().run_in_executor(None, self._call)
        return await asyncio.shield(running)
