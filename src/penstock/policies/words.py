"""Thousands of words looked for at once in a text that arrives in pieces.

An Aho-Corasick automaton over folded characters: one step a character, whatever the number of words. How
deep its state is says how many of the last characters may yet become a word: just those are held back.

*Folding.* Case, full-width forms, ligatures and the like are folded away (NFKC and case folding, character
by character), runs of white space are one space, and characters without width (zero-width space, soft
hyphen, joiners) are passed over, so that none of these hides a word.

*Whole words.* An entry that begins or ends with a letter or digit of a script that writes spaces between
words stands for itself there, not for a part of a longer word. ``*`` at an end lets it go on: ``class*``,
``*word*``. Scripts without spaces (Chinese, Japanese, Thai, …) need no mark. Word ends are symbols of the
automaton's own, fed between two characters where one is part of a word and the other is not.
"""

import unicodedata
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MAX_ENTRY: Final = 256
"""Characters of one entry."""

MAX_ENTRIES: Final = 200_000

_EDGE: Final = "\0"
"""The symbol of a word's end; no text has it, since NUL is passed over like what has no width."""

_IGNORED: Final = frozenset({"Cf", "Mn", "Me", "Cc"})
"""Categories of characters that are passed over, but for white space."""


MAX_STEPS: Final = 20_000
MAX_STEP: Final = 16
"""Steps that are remembered, and the characters of one: models say the same tokens again and again."""


class Span(NamedTuple):
    """A match: offsets in the text as it came, and the number of the rule that it is of."""

    start: int
    end: int
    rule: int


class _Node:
    """A state: what follows it, where to go on when nothing does, how deep it is, and what ends here."""

    __slots__ = ("depth", "fail", "follow", "found")

    def __init__(self, depth: int) -> None:
        self.follow: dict[str, _Node] = {}
        self.fail: _Node | None = None
        self.depth = depth
        self.found: tuple[tuple[int, int], ...] = ()  # (symbols, rule), longest first


_Shape = tuple[str, bool | None]


def _has_spaces(char: str) -> bool:
    """Say whether a letter is of a script that writes spaces between words."""
    code = ord(char)
    if code < 0x0E00:
        return True
    name = unicodedata.name(char, "")
    return not name.startswith(
        (
            "CJK",
            "HIRAGANA",
            "KATAKANA",
            "THAI",
            "LAO",
            "KHMER",
            "MYANMAR",
            "TIBETAN",
            "HANGUL",
            "BOPOMOFO",
            "YI",
        )
    )


def shape(char: str) -> _Shape:
    """Return what ``char`` is folded to, and whether it is part of a word; None: as what is before it."""
    if char.isspace():
        return " ", False
    if char != "_" and unicodedata.category(char) in _IGNORED:
        return "", None
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold())
    folded = "".join(one for one in folded if unicodedata.category(one) not in _IGNORED and not one.isspace())
    if not folded:
        return "", None
    return folded, folded[0] == "_" or (folded[0].isalnum() and _has_spaces(folded[0]))


MAX_SHAPES: Final = 20_000
"""Characters whose shapes are remembered; texts that have more of them are folded more slowly."""


class BadEntry(ValueError):
    """An entry that no text can match, or that is too long; the message says which."""


class Words:
    """Entries, compiled. Immutable, and shared by all scans."""

    def __init__(self, lists: Sequence[Iterable[str]]) -> None:
        """``lists``: the entries of each rule, in the order of the rules. Raises `BadEntry`."""
        self.root = _Node(0)
        self.count = 0
        self.shapes = {chr(code): shape(chr(code)) for code in range(128)}
        self.steps: dict[tuple[_Node, bool, bool, str], tuple[_Node, bool, bool, tuple[int, ...]]] = {}
        for rule, entries in enumerate(lists):
            for entry in entries:
                self._add(entry, rule)
        self._link()

    def shape(self, char: str) -> _Shape:
        """Return `shape` of ``char``, from memory if possible."""
        found = self.shapes.get(char)
        if found is None:
            found = shape(char)
            if len(self.shapes) < MAX_SHAPES:
                self.shapes[char] = found
        return found

    def _add(self, entry: str, rule: int) -> None:
        symbols = _symbols(entry)
        self.count += 1
        if self.count > MAX_ENTRIES:
            raise BadEntry(f"there are more than {MAX_ENTRIES:,} entries")
        node = self.root
        for symbol in symbols:
            node = node.follow.setdefault(symbol, _Node(node.depth + 1))
        if (len(symbols), rule) not in node.found:
            node.found += ((len(symbols), rule),)

    def _link(self) -> None:
        """Set where each state goes on when nothing follows: the longest of its ends that begins an entry."""
        waiting = deque[_Node]()
        for node in self.root.follow.values():
            node.fail = self.root
            waiting.append(node)
        while waiting:
            node = waiting.popleft()
            for symbol, child in node.follow.items():
                fail = node.fail
                while fail is not None and symbol not in fail.follow:
                    fail = fail.fail
                child.fail = fail.follow[symbol] if fail is not None else self.root
                child.found += child.fail.found
                waiting.append(child)


def _symbols(entry: str) -> str:
    """Return the symbols of an entry, with the ends of words in and around it."""
    if len(entry) > MAX_ENTRY:
        raise BadEntry(f"an entry has more than {MAX_ENTRY} characters: {entry[:20]!r}…")
    before, after = entry.startswith("*"), entry.endswith("*") and len(entry) > 1
    text = entry[before : len(entry) - after].strip()
    symbols: list[str] = []
    within, first = False, True
    for char in text:
        folded, word = shape(char)
        if not folded or (folded == " " and symbols[-1:] == [" "]):
            continue
        if word is not within and not (first and before):
            symbols.append(_EDGE)
        symbols += folded
        within, first = bool(word), False
    if within and not after:
        symbols.append(_EDGE)
    if not any(symbol not in (_EDGE, " ") for symbol in symbols):
        raise BadEntry(f"an entry has nothing to look for: {entry!r}")
    return "".join(symbols)


class WordScan:
    """One text, as it arrives. ``pending`` is the offset from which on it may yet become a word."""

    __slots__ = ("_at", "_node", "_origins", "_spaced", "_within", "_words", "pending")

    def __init__(self, words: Words) -> None:
        """At the beginning of a text."""
        self._words = words
        self._node = words.root
        self._origins: list[int] = []
        self._at = 0
        self._within = False
        self._spaced = False
        self.pending = 0

    def feed(self, text: str) -> list[Span]:
        """Take more of the text; return the matches that it completes."""
        spans: list[Span] = []
        node, within, spaced, origins = self._node, self._within, self._spaced, self._origins
        steps = self._words.steps
        key = (node, within, spaced, text)
        known = steps.get(key)
        if known is not None:
            self._node, self._within, self._spaced, places = known
            depth = self._node.depth
            if depth:
                at = self._at
                origins += [at + place for place in places]
                del origins[: len(origins) - depth]
                self.pending = origins[0]
                self._at = at + len(text)
            else:
                if origins:
                    origins.clear()
                self.pending = self._at = self._at + len(text)
            return spans
        offset, shape_of = self._at, self._words.shape
        shapes = self._words.shapes
        for char in text:
            folded, word = shapes.get(char) or shape_of(char)
            if not folded:
                offset += 1
                continue
            if word is not within:
                within = not within
                origins.append(offset)
                while (following := node.follow.get(_EDGE)) is None and node.fail is not None:
                    node = node.fail
                if following is not None:
                    node = following
                    if node.found:
                        self._note(spans, node, origins)
            if folded == " ":
                if spaced:
                    offset += 1
                    continue
                spaced = True
            else:
                spaced = False
            for symbol in folded:
                origins.append(offset)
                while (following := node.follow.get(symbol)) is None and node.fail is not None:
                    node = node.fail
                if following is not None:
                    node = following
                    if node.found:
                        self._note(spans, node, origins, offset + 1)
            offset += 1
        depth = node.depth
        if not spans and len(text) <= MAX_STEP:
            if len(steps) >= MAX_STEPS:
                steps.clear()
            places = tuple(origin - self._at for origin in origins if origin >= self._at)
            steps[key] = node, within, spaced, places[-depth:] if depth else ()
        del origins[: len(origins) - depth]
        self._node, self._within, self._spaced, self._at = node, within, spaced, offset
        self.pending = origins[0] if depth else offset
        return spans

    def flush(self) -> list[Span]:
        """The text is over: return the matches that end with it."""
        spans: list[Span] = []
        node = self._node
        if self._within:
            self._origins.append(self._at)
            while (following := node.follow.get(_EDGE)) is None and node.fail is not None:
                node = node.fail
            if following is not None and following.found:
                self._note(spans, following, self._origins)
        self.pending = self._at
        return spans

    def _note(self, spans: list[Span], node: _Node, origins: list[int], end: int = -1) -> None:
        """Add what ends at ``node``. At a word's end, the match ends with the character before it."""
        for symbols, rule in node.found:
            first = origins[-symbols]
            spans.append(Span(first, origins[-1] if end < 0 else end, rule))
