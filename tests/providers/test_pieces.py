import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.pieces import MAX_PIECE_CHARS, MAX_WORD_CHARS, pieces, words


@given(st.text())
def test_pieces_join_to_the_text_and_are_short(text):
    cut = list(pieces(text))
    assert "".join(cut) == text
    assert all(1 <= len(piece) <= MAX_PIECE_CHARS for piece in cut)


@given(st.text())
def test_words_join_to_the_text_and_are_bounded(text):
    cut = list(words(text))
    assert "".join(cut) == text
    assert all(1 <= len(word) <= MAX_WORD_CHARS for word in cut)


def test_a_word_takes_the_space_before_it_along():
    assert list(pieces("one two  three")) == ["one", " two", " ", " three"]


def test_long_words_and_numbers_are_cut():
    assert list(pieces("streaming 12345")) == ["stre", "aming", " 123", "45"]


def test_east_asian_text_comes_in_ones_and_twos():
    assert list(pieces("流式网关，你好。")) == ["流式", "网关", "，", "你好", "。"]


@pytest.mark.parametrize("emoji", ["👋", "👍🏽", "👩‍🚀", "🇪🇺", "❤️", "👩🏽‍❤️‍👨🏻"])
def test_an_emoji_stays_whole(emoji):
    assert list(pieces(f"a{emoji}b")) == ["a", emoji, "b"]


def test_words_keep_their_punctuation_and_their_white_space():
    assert list(words("Hello, you!\n\nAgain  你好吗")) == ["Hello,", " you!", "\n\nAgain", "  你好", "吗"]
