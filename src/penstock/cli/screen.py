"""The live part of a terminal: lines that are done scroll away, the last ones may still change.

`Screen.draw` is given the lines that are done and the lines that are live; it writes only from the first
line that differs, in one write, so that nothing flickers. The live part never grows beyond the screen:
of more lines, the last are shown. While it is open the terminal echoes nothing, and what is typed waits
for the next prompt.
"""

import os
import termios
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TextIO

from rich.cells import cell_len
from rich.text import Text

_ERASE_LINE: Final = "\x1b[K"
_ERASE_BELOW: Final = "\x1b[J"
_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_BEGIN: Final = "\x1b[?2026h"  # synchronized output: terminals that know it show a whole update at once
_END: Final = "\x1b[?2026l"


class Screen:
    """A context manager around one answer."""

    def __init__(self, out: TextIO, size: Callable[[], os.terminal_size]) -> None:
        """``out`` is a terminal of ``size``, which may change."""
        self._out = out
        self._size = size
        self._drawn: list[str] = []  # the live lines; the cursor stands at the end of the last
        self._echo: list[object] | None = None

    def __enter__(self) -> Self:
        """Quieten the terminal."""
        try:
            mode = termios.tcgetattr(self._out.fileno())
        except termios.error:
            pass
        else:
            self._echo = list(mode)
            mode[3] &= ~termios.ECHO
            termios.tcsetattr(self._out.fileno(), termios.TCSADRAIN, mode)
        self._out.write(_HIDE_CURSOR)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was, at the start of a line below what was drawn."""
        end = "\r\n" if self._drawn not in ([], [""]) else ""
        self._drawn = []
        try:
            self._out.write(end + _SHOW_CURSOR)
            self._out.flush()
        finally:
            if self._echo is not None:
                termios.tcsetattr(self._out.fileno(), termios.TCSADRAIN, self._echo)  # type: ignore[arg-type]

    def draw(self, done: Sequence[str], live: Sequence[str]) -> None:
        """Show ``done`` for good, and below it ``live`` until the next call."""
        width, height = self._size()
        live = list(live)[-max(1, height - 1) :]
        if done and not live:
            live = [""]  # the cursor goes below what is done
        lines = [*done, *live]
        same = 0
        while same < min(len(self._drawn), len(lines)) and self._drawn[same] == lines[same]:
            same += 1
        if same == len(self._drawn) == len(lines):
            self._drawn = live
            return
        rows = [_rows(line, width) for line in self._drawn]
        parts = [_BEGIN]
        if self._drawn:
            same = min(same, len(self._drawn) - 1, max(0, len(lines) - 1))
            up = sum(rows[same:]) - 1
            parts.append(f"\x1b[{up}A\r" if up else "\r")
        rest = lines[same:]
        parts.append("\r\n".join(line + _ERASE_LINE for line in rest))
        parts += [_ERASE_BELOW, _END]
        self._out.write("".join(parts))
        self._out.flush()
        self._drawn = live


def _rows(line: str, width: int) -> int:
    """Return how many rows ``line`` takes, which was drawn when the terminal may have been wider."""
    return max(1, -(-cell_len(Text.from_ansi(line).plain) // max(1, width)))
