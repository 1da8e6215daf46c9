"""Exceptions as text for a log: what was raised where, and of its message what cannot be a client's words.

A traceback of Python's quotes the message, and a message may quote what a client sent ("invalid literal for
int(): 'my prompt'"). So what stands in quotes there is kept only where it is a name, and a message is short.
"""

import re
import traceback
from collections.abc import Iterator
from typing import Final

MAX_CAUSES: Final = 8
"""Exceptions of a chain, or of a group, that are told."""

MAX_FRAMES: Final = 40
"""Of each, the innermost."""

MAX_MESSAGE: Final = 300
"""Characters."""

_QUOTED: Final = re.compile(r"(?<!\w)(['\"`])((?:\\.|(?!\1).){0,10000})(\1|\Z)", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


def trace_of(error: BaseException) -> str:
    """Return ``error`` with its causes and frames, the one that was raised last at the end."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain and len(chain) < MAX_CAUSES:
        chain.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\nthen:\n".join("\n".join(_lines(one)) for one in reversed(chain))


def message_of(error: BaseException) -> str:
    """Return the type and the message of ``error``, without what may be a client's words."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - whatever it is: it must not keep the rest from being told
        return name
    said = " ".join(_QUOTED.sub(_names_only, said[: 4 * MAX_MESSAGE]).split())[:MAX_MESSAGE]
    return f"{name}: {said}" if said else name


def _names_only(found: re.Match[str]) -> str:
    mark, text = found[1], found[2]
    return found[0] if _NAME.fullmatch(text) and found[3] else f"{mark}…{mark}"


def _lines(error: BaseException, indent: str = "") -> Iterator[str]:
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(error.__traceback__), limit=-MAX_FRAMES, lookup_lines=True
    )
    for frame in frames:
        yield f"{indent}{frame.filename}:{frame.lineno} in {frame.name}: {frame.line or ''}".rstrip(": ")
    yield indent + message_of(error)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions[:MAX_CAUSES]:
            if not indent.startswith("    " * MAX_CAUSES):
                yield from _lines(one, indent + "    ")
