"""Pig Latin, as children speak it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.pig_latin import translate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("hello world", "ellohay orldway"),
        ("Smile, it's Friday!", "Ilesmay, it'sway Idayfray!"),
        ("quick square yellow rhythm", "ickquay aresquay ellowyay ythmrhay"),
        ("hmm STREAM I 你好 3rd", "hmmway EAMSTRAY Iway 你好 3rd"),
    ],
)
def test_words_are_turned_and_the_rest_stays(text, expected):
    assert translate(text) == expected


@given(st.text())
def test_no_letter_is_lost_in_any_text(text):
    assert len(translate(text)) >= len(text)
