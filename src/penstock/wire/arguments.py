"""Whether the arguments of a tool call are whole, told from the pieces in which they stream.

Some formats let one thing be open at a time, or say when a call is done; some providers let their calls
overlap and never say so. What is whole can be closed before the answer ends. Nothing here reads what the
arguments mean.
"""

import re
from typing import Final

_BRACES: Final = re.compile(r'\\(?:.|$)|["{}\[\]]', re.DOTALL)


class Arguments:
    """The arguments of an open call, as far as it must be known whether they are whole.

    Each character is looked at once, and only when somebody asks.
    """

    __slots__ = ("_depth", "_fresh", "_in_text", "_said")

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._fresh: list[str] = []
        self._depth = 0
        self._in_text = False
        self._said = False

    def add(self, piece: str) -> None:
        """Take the next piece of the JSON text."""
        if piece:
            self._fresh.append(piece)

    @property
    def whole(self) -> bool:
        """Whether they are an object or a list from its first brace to its last."""
        text = "".join(self._fresh)
        self._fresh.clear()
        for found in _BRACES.finditer(text):
            match found[0]:
                case "\\":  # what it escapes is still to come
                    self._fresh.append("\\")
                case '"':
                    self._in_text = not self._in_text
                case "{" | "[" if not self._in_text:
                    self._depth += 1
                    self._said = True
                case "}" | "]" if not self._in_text:
                    self._depth -= 1
        return self._said and self._depth <= 0 and not self._in_text
