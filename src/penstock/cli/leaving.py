"""Being told to end while something is under way that is better finished first.

The first signal (Ctrl-C, SIGTERM, a terminal that was closed) asks; the second ends at once.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from penstock.cli import exits

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Leaving:
    """``with Leaving(ask) as leaving`` in the task that is to be ended; ``asked`` once it was told."""

    def __init__(self, ask: Callable[[], None]) -> None:
        """``ask`` is called by the first signal."""
        self._ask = ask
        self._signal: int = 0
        self._task: asyncio.Task[object] | None = None

    @property
    def asked(self) -> bool:
        """Whether there was a signal."""
        return bool(self._signal)

    def __enter__(self) -> Self:
        """Take the signals over."""
        self._task = asyncio.current_task()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._told, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give them back. Raises `KeyboardInterrupt` after a second signal."""
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        if kind is asyncio.CancelledError and self._signal:
            self.end()
            raise KeyboardInterrupt from None

    def _told(self, number: int) -> None:
        if not self._signal:
            self._signal = number
            self._ask()
        elif self._task is not None:
            self._task.cancel()

    def end(self) -> int:
        """End as whoever told us expects: by the signal, or, after Ctrl-C, with its exit code."""
        if self._signal != signal.SIGINT:
            signal.signal(self._signal, signal.SIG_DFL)
            os.kill(os.getpid(), self._signal)
        return exits.STOPPED
