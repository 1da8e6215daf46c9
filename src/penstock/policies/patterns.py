"""Regular expressions looked for in a text that arrives in pieces.

A pattern must have a bounded width, so that what it may yet match is bounded too. Its *probe* is the
pattern with an end that nothing matches: tried with `regex`'s partial matching it follows every path, and
says from where on one of them ran into the end of what is there. Before that place all is decided; from
there on the text is held back. A text is looked at in its half-width form (`narrow`), letter by letter.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import regex

from penstock.policies.words import Span

MAX_PATTERN: Final = 4_000
MAX_WIDTH: Final = 2_000
"""Characters of a pattern, and of what it may match, looking ahead included."""

CONTEXT: Final = 64
"""Characters before the undecided text that stay for a pattern to look back at."""

PATIENCE: Final = 0.25
"""Seconds after which a search is given up: the pattern is one that takes for ever."""

_NARROW: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_UNSURE: Final = re.compile(r"\\[BZAGKRX]|(?<!\\)(?:\\\\)*\$|(?<![\\\[])(?:\\\\)*\^")


class BadPattern(ValueError):
    """A pattern that cannot be used; the message says why and what to write instead."""


class Pattern(NamedTuple):
    """A compiled pattern. ``check``: whether what it found is meant.

    Two shortcuts for text in which there is nothing, as there mostly is not. ``gate`` is found wherever a
    match, or what may become one, begins. ``tail``, a character and an expression: without the character
    there is no match, and what may become one is what the expression finds.
    """

    found: Any
    probe: Any
    width: int
    check: Callable[[str], bool] | None = None
    gate: Any = None
    tail: tuple[str, Any] | None = None


class PatternRule(msgspec.Struct, frozen=True):
    """A pattern and the number of the rule that it is of."""

    pattern: Pattern
    rule: int


def narrow(text: str) -> str:
    """Return ``text`` with full-width forms of ASCII as ASCII; as long as it was."""
    return text if text.isascii() else text.translate(_NARROW)


def compile_pattern(
    text: str,
    *,
    check: Callable[[str], bool] | None = None,
    gate: str = "",
    tail: tuple[str, str] | None = None,
    ignore_case: bool = True,
) -> Pattern:
    """Compile ``text``; the rest is as in `Pattern`. Raises `BadPattern`."""
    if len(text) > MAX_PATTERN:
        raise BadPattern(f"a pattern has at most {MAX_PATTERN:,} characters")
    if found := _UNSURE.search(text):
        raise BadPattern(f"{found[0]!r} asks where the text ends, which is not known while it arrives")
    width = _width(text)
    flags = regex.IGNORECASE if ignore_case else 0
    try:
        pattern = regex.compile(text, flags)
        probe = regex.compile(f"(?:{text})(?!)", flags)
    except regex.error as error:
        raise BadPattern(f"this is no regular expression: {error}") from None
    if pattern.match("") is not None:
        raise BadPattern("it matches nothing at all, everywhere")
    return Pattern(
        pattern,
        probe,
        width,
        check,
        re.compile(gate, re.IGNORECASE) if gate else None,
        (tail[0], re.compile(tail[1], re.IGNORECASE)) if tail else None,
    )


def _width(text: str) -> int:
    """Return how many characters ``text`` looks at, at most, from where it begins to match."""
    try:
        # The parser knows it, and nothing public tells: the library's documented interface has no width.
        parsed = re._parser.parse(text)  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"this is no regular expression: {error}") from None
    width: int = parsed.getwidth()[1] + _ahead(parsed)
    if width > MAX_WIDTH:
        raise BadPattern(
            f"it may match more than {MAX_WIDTH:,} characters: bound its repetitions, as in .{{0,50}} for .*"
        )
    return width


def _ahead(parsed: Any) -> int:
    """Return how far the pattern looks ahead beyond what it matches, at most."""
    total = 0
    for operation, arguments in parsed:
        if str(operation) in ("ASSERT", "ASSERT_NOT") and arguments[0] > 0:
            total += arguments[1].getwidth()[1]
        for inner in arguments if isinstance(arguments, tuple) else ():
            if hasattr(inner, "getwidth"):
                total += _ahead(inner)
        if str(operation) == "BRANCH":
            total += max((_ahead(branch) for branch in arguments[1]), default=0)
    return min(total, MAX_WIDTH + 1)


class PatternScan:
    """One text, as it arrives, before one pattern. ``pending``: from there on it may yet match."""

    __slots__ = ("_base", "_next", "_pattern", "_rule", "_text", "pending")

    def __init__(self, rule: PatternRule) -> None:
        """At the beginning of a text."""
        self._pattern = rule.pattern
        self._rule = rule.rule
        self._text = ""
        self._base = 0  # the offset of `_text` in the whole
        self._next = 0  # in `_text`: before it, all is decided
        self.pending = 0

    def feed(self, text: str) -> list[Span]:
        """Take more, in its half-width form; return the matches that are sure now. Raises `TimeoutError`."""
        pattern = self._pattern
        self._text += text
        if pattern.gate is not None and pattern.gate.search(self._text, self._next) is None:
            self._decide(len(self._text))
            return []
        if pattern.tail is not None and self._text.find(pattern.tail[0], self._next) < 0:
            begun = pattern.tail[1].search(self._text, self._next)
            self._decide(begun.start() if begun is not None else len(self._text))
            return []
        return self._search(over=False)

    def flush(self) -> list[Span]:
        """The text is over: return the rest. Raises `TimeoutError`."""
        return self._search(over=True)

    def _search(self, *, over: bool) -> list[Span]:
        pattern, text = self._pattern, self._text
        spans: list[Span] = []
        while True:
            hold = len(text)
            if not over:
                unsure = pattern.probe.search(text, self._next, partial=True, timeout=PATIENCE)
                hold = unsure.start() if unsure is not None else len(text)
            match = pattern.found.search(text, self._next, timeout=PATIENCE)
            if (
                match is None
                or (match.start() >= hold and not over)
                or (match.end() == len(text) and not over)
            ):
                if match is not None and match.start() < hold:
                    hold = match.start()  # it touches the end: what comes next may belong to it, or forbid it
                break
            if pattern.check is None or pattern.check(match[0]):
                spans.append(Span(self._base + match.start(), self._base + match.end(), self._rule))
                self._next = match.end()
            else:
                self._next = match.start() + 1
        self._decide(max(self._next, hold))
        return spans

    def _decide(self, place: int) -> None:
        """Before ``place`` nothing is to be found any more; keep a little of it to look back at."""
        self._next = place
        self.pending = self._base + place
        if place > 4 * CONTEXT:
            cut = self._next - CONTEXT
            self._text = self._text[cut:]
            self._base += cut
            self._next = CONTEXT
