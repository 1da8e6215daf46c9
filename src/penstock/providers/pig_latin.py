"""Pig Latin: a translation that everybody can check by eye, for showing text translated while it is typed.

Word by word and without a dictionary: the consonants that a word begins with go to its end, and `ay`
follows; after a vowel it is `way`. What is not spelt in A to Z stays as it is. Pure.
"""

import re

_WORD = re.compile(r"(?<!\w)[A-Za-z]+(?:['’][A-Za-z]+)*(?!\w)")
_HEAD = re.compile(r"y?(?:qu|[b-df-hj-np-tv-xz])*", re.IGNORECASE)


def translate(text: str) -> str:
    """Return ``text`` in Pig Latin."""
    return _WORD.sub(_word, text)


def _word(found: re.Match[str]) -> str:
    word = found[0]
    head = _HEAD.match(word)
    assert head is not None
    size = head.end()
    if size == len(word):  # no vowel at all
        size = 0
    moved = word[size:] + word[:size].lower() + ("ay" if size else "way")
    if word.isupper() and len(word) > 1:
        return moved.upper()
    return moved[0].upper() + moved[1:] if word[0].isupper() else moved
