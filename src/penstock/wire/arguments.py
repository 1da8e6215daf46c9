"""Tool calls whose arguments stream in pieces: whether they are whole, and keeping them until they are.

Some formats let one thing be open at a time, say when a call is done, or give calls whole; some providers let
theirs overlap and never say so. What is whole can be closed or given before the answer ends.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from penstock.types.events import ToolCallDelta

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


class WholeCall(NamedTuple):
    """A call with all of its arguments: ``first`` is the event that it began with."""

    first: ToolCallDelta
    arguments: str

    @property
    def value(self) -> dict[str, Any]:
        """The arguments as the object they are; of what was cut off the text, as Anthropic's docs tell it.

        A custom call's input is a text, and no JSON.
        """
        if self.first.kind == "custom":
            return {"input": self.arguments}
        try:
            value = msgspec.json.decode(self.arguments) if self.arguments.strip() else {}
        except (msgspec.DecodeError, RecursionError):
            value = None
        return value if isinstance(value, dict) else {"INVALID_JSON": self.arguments}


class _Waiting:
    __slots__ = ("arguments", "first", "pieces")

    def __init__(self, first: ToolCallDelta) -> None:
        self.first = first
        self.pieces: list[str] = []
        self.arguments = Arguments()


class Calls:
    """Calls that wait until they are whole. They are given in the order in which they began."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        """None yet."""
        self._waiting: dict[tuple[int, int], _Waiting] = {}

    def add(self, event: ToolCallDelta) -> Iterator[WholeCall]:
        """Take a piece; yield the calls that can be given now. Pieces of a call that was given are lost."""
        key = (event.index, event.call)
        call = self._waiting.get(key)
        if call is None:
            if not event.name and not event.id:
                return
            call = self._waiting[key] = _Waiting(event)
        if event.delta:
            call.pieces.append(event.delta)
            call.arguments.add(event.delta)
        yield from self.release()

    def release(self, *, force: bool = False) -> Iterator[WholeCall]:
        """Yield the calls that are whole, up to the first that is not; with ``force`` all, as they are."""
        while self._waiting:
            key, call = next(iter(self._waiting.items()))
            if not force and (call.first.kind == "custom" or not call.arguments.whole):
                return
            del self._waiting[key]
            yield WholeCall(call.first, "".join(call.pieces))
