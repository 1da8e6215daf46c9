"""Exit codes, and the one exception by which a command says why it ends.

Codes from 64 on are those of sysexits.h. They are documented in docs/guide/command-line.md, and
scripts rely on them.
"""

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""The answer failed, or expired; or the gateway refused the request."""
USAGE: Final = 2
"""The command was typed wrongly."""
CANCELLED: Final = 3
INTERRUPTED: Final = 4
"""The gateway stopped before the answer was complete."""
NO_INPUT: Final = 66
"""No such file, stream, model or key."""
UNAVAILABLE: Final = 69
"""The gateway cannot be reached, or it was lost and did not come back."""
DEFECT: Final = 70
CANNOT_WRITE: Final = 73
NOT_ALLOWED: Final = 77
"""The gateway wants a key, or another one."""
BAD_CONFIG: Final = 78
STOPPED: Final = 130
"""Ctrl-C."""
BROKEN_PIPE: Final = 141
"""Whoever read our output has left: what a shell reports for SIGPIPE."""

OF_STATUS: Final = {
    "completed": OK,
    "failed": FAILED,
    "expired": FAILED,
    "cancelled": CANCELLED,
    "interrupted": INTERRUPTED,
}
"""By how a stream ended."""


class Failure(Exception):
    """A command cannot go on. ``message`` says what happened, ``hint`` what to do about it."""

    def __init__(self, message: str, *, code: int, hint: str = "") -> None:
        """Sentences, each on a line of its own."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
