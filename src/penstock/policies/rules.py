"""A filter's rules, compiled, and one text on its way through them.

`Rules` is immutable and shared. A `TextScan` takes one text in pieces and says what of it may be shown by
now: masked where a rule masks, and up to where a rule blocks. Nothing depends on how the text was cut:

- a character is masked if any match of a masking rule covers it; characters that are masked side by side
  are shown as one mask, that of the first rule among those that cover the first of them;
- the text ends before the first character of any match of a blocking rule;
- what may yet belong to a match is held back, and nothing else is.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.policies.patterns import PatternRule, PatternScan, narrow
from penstock.policies.words import Span, Words, WordScan

Action: TypeAlias = Literal["mask", "block", "flag"]

MASK: Final = "***"


class Rule(msgspec.Struct, frozen=True):
    """What is done about a match, under which name it is told of, and what is shown in its place."""

    name: str
    action: Action = "mask"
    mask: str = MASK


class Rules(msgspec.Struct, frozen=True):
    """``words`` and ``patterns`` name the rules by their numbers."""

    rules: tuple[Rule, ...]
    words: Words | None = None
    patterns: tuple[PatternRule, ...] = ()


class TextScan:
    """One text, as it arrives. ``found`` counts the matches of each rule; ``blocked`` is the rule that
    ends the text, once that is sure."""

    __slots__ = (
        "_base",
        "_block",
        "_masking",
        "_rules",
        "_scans",
        "_spans",
        "_text",
        "_words",
        "blocked",
        "found",
    )

    def __init__(self, rules: Rules) -> None:
        """At the beginning of a text."""
        self._rules = rules
        self._words = WordScan(rules.words) if rules.words is not None else None
        self._scans = [PatternScan(rule) for rule in rules.patterns]
        self._text = ""  # what is held back
        self._base = 0  # its offset in the whole
        self._spans: list[Span] = []
        self._block: Span | None = None
        self._masking = False  # the last character shown was masked
        self.found: dict[int, int] = {}
        self.blocked: Rule | None = None

    @property
    def held(self) -> int:
        """How many characters are held back."""
        return len(self._text)

    def feed(self, text: str) -> str:
        """Take more; return what may be shown now. Raises `TimeoutError` from a pattern."""
        words = self._words
        self._text += text
        pending = self._base + len(self._text)
        spans: list[Span] = []
        if words is not None:
            spans = words.feed(text)
            pending = words.pending
        if self._scans:
            text = narrow(text)
            for scan in self._scans:
                spans += scan.feed(text)
                pending = min(pending, scan.pending)
        if spans:
            self._note(spans)
        if not self._spans and self._block is None and not self._masking:  # nothing but text
            cut = pending - self._base
            if cut == len(self._text):
                shown, self._text = self._text, ""
            else:
                shown, self._text = self._text[:cut], self._text[cut:]
            self._base = pending
            return shown
        return self._release(pending)

    def flush(self) -> str:
        """The text is over: return the rest."""
        spans = self._words.flush() if self._words is not None else []
        for scan in self._scans:
            spans += scan.flush()
        self._note(spans)
        return self._release(self._base + len(self._text))

    def _note(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self.found[span.rule] = self.found.get(span.rule, 0) + 1
            action = self._rules.rules[span.rule].action
            if action == "mask":
                self._spans.append(span)
            elif action == "block" and (self._block is None or span[::2] < self._block[::2]):
                self._block = span

    def _release(self, pending: int) -> str:
        """Return the text up to ``pending``, or to the block, with its masks."""
        if self._block is not None and pending >= self._block.start:
            pending = self._block.start
            self.blocked = self._rules.rules[self._block.rule]
        shown: list[str] = []
        at = self._base
        while at < pending:
            covering = [span for span in self._spans if span.start <= at < span.end]
            if covering:
                if not self._masking:
                    shown.append(self._rules.rules[min(span.rule for span in covering)].mask)
                    self._masking = True
                at = min(max(span.end for span in covering), pending)
            else:
                following = min([span.start for span in self._spans if span.start > at], default=pending)
                end = min(following, pending)
                shown.append(self._text[at - self._base : end - self._base])
                self._masking = False
                at = end
        self._text = self._text[pending - self._base :]
        self._base = pending
        self._spans = [span for span in self._spans if span.end > pending]
        return "".join(shown)
