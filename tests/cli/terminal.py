"""A program in a real terminal: a pty of some size, and the screen that a person would see.

`pyte` draws what comes; the kernel makes signals of keys, as for a person. A terminal answers questions
about its cursor, which line editors ask.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pyte

from tests.clients.gateway import PATIENCE, wait_for

CTRL_C, CTRL_D, ALT_ENTER, TAB = "\x03", "\x04", "\x1b\r", "\t"


class _Screen(pyte.HistoryScreen):
    """Keeps what scrolls away, and answers what is asked."""

    def __init__(self, columns: int, lines: int, answer) -> None:
        super().__init__(columns, lines, history=10_000, ratio=0.5)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class Terminal:
    """One program and its terminal."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], columns: int, lines: int) -> None:
        self._master, slave = os.openpty()
        self.resize(columns, lines, draw=False)
        self._lock = threading.Lock()
        self._screen = _Screen(columns, lines, lambda data: os.write(self._master, data.encode()))
        self._stream = pyte.ByteStream(self._screen)
        self.raw = bytearray()
        environ = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environ}
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the program has ended, and with it its side
            while True:
                select.select([self._master], [], [])
                data = os.read(self._master, 65536)
                if not data:
                    break
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)

    def resize(self, columns: int, lines: int, *, draw: bool = True) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if draw:
            with self._lock:
                self._screen.resize(lines, columns)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def paste(self, text: str) -> None:
        """As terminals do where a program asked for it."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    @property
    def screen(self) -> str:
        """What is to be seen now, without blank lines at the end."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def all(self) -> str:
        """What scrolled away, and what is to be seen."""
        with self._lock:
            columns = range(self._screen.columns)
            gone = ["".join(line[x].data for x in columns) for line in self._screen.history.top]
            return "\n".join(line.rstrip() for line in [*gone, *self._screen.display]).rstrip()

    def shows(self, *texts: str) -> str:
        """Wait until all of ``texts`` were shown; return everything."""

        def shown() -> str:
            found = self.all
            return found if all(text in found for text in texts) else ""

        try:
            return wait_for(shown)
        except TimeoutError:
            raise AssertionError(f"never showed {texts}, but:\n{self.all}") from None

    def prompts(self) -> None:
        """Wait until an empty prompt is the last line."""
        try:
            wait_for(lambda: self.screen.rpartition("\n")[2] == ">")
        except TimeoutError:
            raise AssertionError(f"no prompt, but:\n{self.all}") from None

    def style_of(self, text: str):
        """Return the first character of ``text`` as it is drawn on the screen."""
        with self._lock:
            for y, line in enumerate(self._screen.display):
                if (x := line.find(text)) >= 0:
                    return self._screen.buffer[y][x]
        raise AssertionError(f"{text!r} is not on the screen:\n{self.screen}")

    def ends(self) -> int:
        """Wait for the program's end; return its exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            os.close(self._master) if not self._reader.is_alive() else None
        self._reader.join(PATIENCE)
        with suppress(OSError):
            os.close(self._master)


@contextmanager
def running(
    *words: str, environ: dict[str, str] | None = None, columns: int = 80, lines: int = 24
) -> Iterator[Terminal]:
    """Run ``penstock <words>`` in a terminal."""
    terminal = Terminal([sys.executable, "-m", "penstock", *words], environ or {}, columns, lines)
    try:
        yield terminal
    finally:
        terminal.kill()
