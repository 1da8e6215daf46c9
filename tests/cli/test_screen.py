"""The live part of a terminal, drawn by a terminal emulator."""

import io
import os

import pyte
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.screen import Screen

LINE = st.text("abc 流", max_size=12)


class File(io.StringIO):
    """A file that is no terminal, with a number that is none either."""

    def __init__(self) -> None:
        super().__init__(newline="")
        self.null = os.open(os.devnull, os.O_RDONLY)

    def fileno(self) -> int:
        return self.null


def drawn(steps, columns: int = 20, lines: int = 6) -> list[str]:
    """Return everything that was shown after ``steps`` of what is done and what is live."""
    file = File()
    with Screen(file, lambda: os.terminal_size((columns, lines))) as screen:
        for done, live in steps:
            screen.draw(done, live)
    os.close(file.null)
    emulator = pyte.HistoryScreen(columns, lines, history=1_000, ratio=0.5)
    pyte.Stream(emulator).feed(file.getvalue())
    gone = ["".join(line[x].data for x in range(columns)) for line in emulator.history.top]
    shown = [line.rstrip() for line in [*gone, *emulator.display]]
    while shown and not shown[-1]:
        shown.pop()
    return shown


def test_what_is_live_is_drawn_over_and_what_is_done_stays():
    steps = [([], ["a"]), ([], ["ab"]), (["abc"], ["d"]), ([], ["de", "f"]), (["de", "f"], [])]
    assert drawn(steps) == ["abc", "de", "f"]


def test_of_more_live_lines_than_fit_the_last_are_shown():
    assert drawn([([], [str(number) for number in range(20)])]) == ["15", "16", "17", "18", "19"]


def test_a_live_part_higher_than_the_screen_comes_whole_when_it_is_done():
    lines = [str(number) for number in range(20)]
    assert drawn([([], lines[:n]) for n in range(1, 20)] + [(lines, [])]) == lines


def test_nothing_is_written_when_nothing_changed():
    file = File()
    with Screen(file, lambda: os.terminal_size((20, 6))) as screen:
        screen.draw([], ["a", "b"])
        before = file.getvalue()
        screen.draw([], ["a", "b"])
        assert file.getvalue() == before
        screen.draw([], ["a", "c"])
        assert "a" not in file.getvalue()[len(before) :].replace("\x1b", "")
    os.close(file.null)


@given(st.lists(st.tuples(st.lists(LINE, max_size=4), st.lists(LINE, max_size=9)), max_size=6))
def test_whatever_is_drawn_what_is_done_is_all_that_is_left(steps):
    whole = [line.rstrip() for done, _ in steps for line in done]
    while whole and not whole[-1]:
        whole.pop()
    shown = drawn([*steps, (["end"], [])], columns=30)
    assert [line.replace(" ", "") for line in shown[-1:]] == ["end"]
    assert [line for line in shown[:-1] if line] == [line for line in whole if line]
