"""Cutting Markdown into blocks while it still grows: what is finished, and what may yet change.

`Blocks.feed` takes text and returns the blocks that nothing can change any more; `Blocks.rest` is the
last one. A block is a top-level block of CommonMark; a list is cut between its items, and a long fence
between its lines, since either may be longer than any screen. A block counts as finished only once
another begins on a *whole* line: half a line may still turn into something else (``#`` into ``#tag``).
Only the rest is parsed again when text comes, so that a long answer costs no more than a short one.
"""

from itertools import pairwise
from typing import Final, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

FENCE_LINES: Final = 24
"""Lines of a fence that is still open after which they are let go."""

MAX_REST: Final = 40_000
"""Characters of a block after which it is let go at the last line end, whatever becomes of it."""


class Block(NamedTuple):
    """A piece of Markdown that can be rendered alone. ``apart``: a blank line stands before it."""

    text: str
    apart: bool


class Blocks:
    """The blocks of one growing text."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        self._rest = ""
        self._apart = False  # whether a blank line stands before the rest
        self._seen = 0  # how much of the rest was looked at: up to a line end

    @property
    def rest(self) -> Block | None:
        """The block that may still change, as it stands."""
        return Block(self._rest, self._apart) if self._rest.strip() else None

    def feed(self, text: str) -> list[Block]:
        """Add ``text``; return the blocks that are finished by it."""
        self._rest += text
        whole = self._rest.rfind("\n") + 1
        if whole <= self._seen:
            return []
        self._seen = whole
        return self._cut(self._rest[:whole])

    def flush(self) -> list[Block]:
        """The text ended: return what is left."""
        rest = self.rest
        finished = self.feed("\n") if self._rest and not self._rest.endswith("\n") else []
        if finished:
            rest = self.rest
        self._rest = ""
        return [*finished, *([rest] if rest else [])]

    def _cut(self, whole: str) -> list[Block]:
        """Take the finished blocks off ``whole``, the lines of the rest that have ended."""
        tokens = self._parser.parse(whole)
        lines = [line + "\n" for line in whole.split("\n")[:-1]]
        starts = _starts(tokens)
        finished: list[Block] = []
        for (start, apart), (end, _) in pairwise(starts):
            finished.append(Block("".join(lines[start:end]), apart if finished else self._apart))
        last, apart = starts[-1] if starts else (0, True)
        if finished:
            self._apart = apart
            self._let_go(sum(map(len, lines[:last])))
        if finished or not starts:
            tokens = []
        if (part := self._fence_part(tokens, lines)) is not None:
            finished.append(part)
        elif len(self._rest) > MAX_REST:
            finished.append(Block(self._rest[: self._seen], self._apart))
            self._apart = False
            self._let_go(self._seen)
        return finished

    def _fence_part(self, tokens: list[Token], lines: list[str]) -> Block | None:
        """Return the lines of an open, long fence, which is all the rest, as a fence of their own."""
        if not tokens or tokens[0].type != "fence" or len(lines) <= FENCE_LINES:
            return None
        if (tokens[0].map and len(lines) > tokens[0].map[1]) or _closes(lines[-1], tokens[0].markup):
            return None
        opening = lines[tokens[0].map[0]] if tokens[0].map else lines[0]
        part = Block("".join(lines) + tokens[0].markup + "\n", self._apart)
        self._apart = False
        self._rest = opening + self._rest[sum(map(len, lines)) :]
        self._seen = len(opening)
        return part

    def _let_go(self, length: int) -> None:
        self._rest = self._rest[length:]
        self._seen = max(0, self._seen - length)


def _starts(tokens: list[Token]) -> list[tuple[int, bool]]:
    """Return the lines on which blocks begin, with whether a blank line is wanted before each."""
    starts = []
    first_item = False
    for token in tokens:
        if token.map is None:
            continue
        if token.level == 0 and token.type.endswith("list_open"):
            first_item = True
        elif token.level == 1 and token.type == "list_item_open":
            starts.append((token.map[0], first_item))
            first_item = False
        elif token.level == 0 and token.nesting >= 0:
            starts.append((token.map[0], True))
    return starts


def _closes(line: str, markup: str) -> bool:
    return line.strip().startswith(markup) and not line.strip().strip(markup[0])
