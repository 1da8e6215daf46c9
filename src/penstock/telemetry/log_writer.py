"""Lines of the log on their way out, by a thread of their own: whoever logs never waits.

A pipe whose reader stands still, or a disk that is full, holds up this thread and nobody else. What waits
is bounded in bytes; what does not fit is counted and told once there is room again. After a line the thread
pauses for a moment, so that a busy gateway's lines go out many at a time.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

MAX_WAITING: Final = 8 << 20
"""Bytes that may wait."""

PAUSE: Final = 0.01
"""Seconds between a line and its writing; so much is lost with a process that is killed."""

LAST_WORDS: Final = 2.0
"""Seconds that a leaving process waits for its last lines to be taken."""

PIECE: Final = 64 << 10
"""Bytes of one write."""


class LogWriter:
    """A file for loggers (`write`, `flush`), which never blocks and never fails."""

    def __init__(
        self, descriptor: int, lost: Callable[[int], str] = str, *, max_waiting: int = MAX_WAITING
    ) -> None:
        """``lost`` returns the line that says how many lines could not be kept."""
        self.lost = 0
        self._descriptor = descriptor
        self._say_lost = lost
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._waiting: list[bytes] = []
        self._size = 0
        self._untold = 0
        self._closing = False
        # A daemon: a reader that stands still does not keep the process from leaving.
        self._thread = threading.Thread(target=self._run, name="penstock-log", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Say how much waits."""
        return f"<LogWriter {self._size} bytes waiting, {self.lost} lines lost>"

    def write(self, text: str) -> None:
        """Have ``text`` written soon."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._size + len(data) > self._max_waiting:
                self.lost += 1
                self._untold += 1
                return
            self._waiting.append(data)
            self._size += len(data)
        if not self._some.is_set():
            self._some.set()

    def flush(self) -> None:
        """Do nothing: it is flushed as soon as it can be."""

    def close(self, patience: float = LAST_WORDS) -> None:
        """Return when everything is written, or after ``patience`` seconds."""
        self._closing = True
        self._some.set()
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            self._some.wait()
            if not self._closing:
                time.sleep(PAUSE)
            self._some.clear()
            with self._lock:
                lines, self._waiting = self._waiting, []
            data = b"".join(lines)
            self._put(data)
            with self._lock:
                self._size -= len(data)
                untold, self._untold = self._untold, 0
                done = self._closing and not self._waiting
            if untold:
                self._put(self._say_lost(untold).encode())
            if done:
                return

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest[:PIECE]) :]
                except BlockingIOError:  # whoever made the pipe wants no call to it to wait
                    select.select([], [self._descriptor], [])
        except OSError:
            return  # nobody reads any more, or the disk is full: there is nobody to tell
