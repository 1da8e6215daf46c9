"""Where words go: standard output and standard error, and what they must not carry.

What a model says is not to be trusted with a terminal: an escape sequence in an answer could move the
cursor, set the title or fake a prompt. `harmless` takes control characters out of what a terminal is
shown. Where nobody looks but a program, text goes through as it came.
"""

import os
import sys
from typing import Final

_CONTROLS: Final = {code: None for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


def harmless(text: str) -> str:
    """Return ``text`` without control characters, apart from line ends and tabs."""
    return text.translate(_CONTROLS)


def forget_output() -> None:
    """Let what is still to be written go nowhere: whoever read it has left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
