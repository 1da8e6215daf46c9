"""Cutting growing Markdown: what is finished never changes, however the text came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.blocks import FENCE_LINES, Block, Blocks

PAGE = """\
# Title

A paragraph
of two lines.

1. one
2. two

   more of two
- other

> quoted
lazily

| a | b |
| --- | --- |
| 1 | 2 |

```python
x = 1

y = 2
```
The end
=======
"""


def cut(text: str, sizes: list[int]) -> list[Block]:
    """Feed ``text`` in pieces of ``sizes``, again and again."""
    blocks, found, at, turn = Blocks(), [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        found += blocks.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    return found + blocks.flush()


def test_blocks_are_those_of_commonmark_with_lists_by_item():
    assert [block.text.strip() for block in cut(PAGE, [1])] == [
        "# Title",
        "A paragraph\nof two lines.",
        "1. one",
        "2. two\n\n   more of two",
        "- other",
        "> quoted\nlazily",
        "| a | b |\n| --- | --- |\n| 1 | 2 |",
        "```python\nx = 1\n\ny = 2\n```",
        "The end\n=======",
    ]


def test_items_of_a_list_stand_together_and_other_blocks_apart():
    assert [block.apart for block in cut("a\n\n- b\n- c\n\nd", [1])][1:] == [True, False, True]


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_pieces_make_no_difference(sizes):
    assert cut(PAGE, sizes) == cut(PAGE, [1])


_LINES = st.lists(
    st.sampled_from(["# h", "a", "", "- i", "  j", "1. k", "> q", "```", "| a |", "|--|", "===", "    c"])
)


@given(lines=_LINES, size=st.integers(1, 9))
def test_nothing_is_lost_or_said_twice(lines, size):
    text = "\n".join(lines)
    if lines.count("```") == 0:
        assert "".join(block.text for block in cut(text, [size])).split() == text.split()


@given(lines=_LINES, size=st.integers(1, 9))
def test_what_is_finished_stays_finished(lines, size):
    text = "\n".join(lines)
    blocks, found = Blocks(), []
    for at in range(0, len(text), size):
        found += blocks.feed(text[at : at + size])
    assert cut(text, [1])[: len(found)] == found


def test_half_a_line_finishes_nothing():
    blocks = Blocks()
    assert blocks.feed("words\n#") == []
    assert blocks.feed("tag, and more") == []
    assert blocks.rest.text == "words\n#tag, and more"


def test_a_long_fence_is_let_go_in_parts_that_are_fences():
    code = "".join(f"line {number}\n" for number in range(100))
    found = cut(f"```python\n{code}```\nafter", [7])
    assert len(found) > 100 / FENCE_LINES
    assert all(block.text.startswith("```python\n") for block in found[:-1])
    assert found[-1].text.strip() == "after"
    assert "".join(block.text for block in found[:-1]).replace("```python\n", "").replace("```\n", "") == code
    assert [block.apart for block in found] == [False] * (len(found) - 1) + [True]


@pytest.mark.parametrize("text", ["", "\n\n", "  \n"])
def test_nothing_is_no_block(text):
    assert cut(text, [1]) == [] if text else True
    assert Blocks().rest is None


def test_a_block_without_end_is_let_go():
    blocks = Blocks()
    found = [block for _ in range(1_000) for block in blocks.feed("> " + "words " * 20 + "\n")]
    assert len(found) >= 2
