"""Cutting text into the pieces in which models stream it.

Owns one regular expression that imitates what tokenizers do: a word takes the space before it along,
long words and numbers are cut, East Asian text goes in ones and twos, an emoji stays whole with all that
belongs to it. Joined, the pieces are the text again, whatever it holds. No time and no events in here.
"""

import re
from collections.abc import Iterator
from typing import Final

MAX_PIECE_CHARS: Final = 8
"""No piece is longer; only emoji sequences have more than six characters."""

MAX_WORD_CHARS: Final = 32
"""No word of `words` is longer, white space before it included."""

_EAST_ASIAN: Final = r"\u1100-\u11ff\u2e80-\u2fff\u3040-\ua4cf\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_SYMBOL: Final = r"[\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"
_MODIFIER: Final = r"[\ufe0f\U0001f3fb-\U0001f3ff]"
_EMOJI: Final = rf"{_SYMBOL}{_MODIFIER}?(?:\u200d{_SYMBOL}{_MODIFIER}?){{0,2}}"

_LETTER: Final = rf"[^\W\d_{_EAST_ASIAN}]"

_PIECE: Final = re.compile(
    rf"[\U0001f1e6-\U0001f1ff]{{2}}|{_EMOJI}"  # a flag, or an emoji of up to three joined ones
    rf"| ?[{_EAST_ASIAN}]{{1,2}}"
    rf"| ?{_LETTER}{{1,5}}(?!{_LETTER})| ?{_LETTER}{{1,4}}"  # a short word, or four letters of a long one
    r"| ?\d{1,3}"
    r"| ?[!-/:-@\[-`{-~]{1,3}"  # ASCII punctuation
    r"|\n{1,3}"
    r"| {1,5}(?= )"  # indentation, but for the space that belongs to the next word
    r"|[\s\S]"
)
_WORD: Final = re.compile(
    rf"\s{{0,8}}(?:[{_EAST_ASIAN}]{{1,2}}|[^\s{_EAST_ASIAN}]{{1,{MAX_WORD_CHARS - 8}}})|\s{{1,8}}"
)


def pieces(text: str) -> Iterator[str]:
    """Yield ``text`` in pieces of one to six characters (an emoji sequence: up to `MAX_PIECE_CHARS`)."""
    return (match.group() for match in _PIECE.finditer(text))


def words(text: str) -> Iterator[str]:
    """Yield ``text`` word by word, each with the white space before it; East Asian text as `pieces` does."""
    return (match.group() for match in _WORD.finditer(text))
