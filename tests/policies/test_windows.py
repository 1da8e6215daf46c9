"""Windows: no span ever has more than the limit, and what is told of the future comes true."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock.policies.windows import SLOTS, Window

STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 7)), max_size=60)


@given(STEPS, st.integers(5, 20))
def test_no_span_has_more_than_the_limit(steps, limit):
    window, now, taken = Window(limit, 60.0), 1_000.0, []
    for pause, count in steps:
        now += pause
        if window.free_in(now, count) <= 0:
            window.take(now, count)
            taken.append((now, count))
        assert sum(c for at, c in taken if at > now - 60.0) <= limit


@given(STEPS, st.integers(7, 20), st.integers(1, 7))
def test_there_is_room_when_it_was_told_and_not_a_slot_sooner(steps, limit, count):
    window, now = Window(limit, 60.0), 0.0
    for pause, some in steps:
        now += pause
        if window.free_in(now, some) <= 0:
            window.take(now, some)
    due = window.free_in(now, count)
    if due > 0:
        assert window.free_in(now + due - 1e-6, count) > 0
    assert window.free_in(now + due, count) == 0
    assert due <= 60.0 + 60.0 / SLOTS
    assert window.remaining(now + window.full_in(now)) == limit


def test_what_never_fits_is_told_so():
    assert Window(5, 60.0).free_in(0.0, 6) == float("inf")


def test_what_is_given_back_is_there_again_in_its_own_time_only():
    window = Window(10, 60.0)
    slot = window.take(0.0, 8)
    window.take(30.0, 1)
    window.give_back(slot, 6)
    assert window.remaining(30.0) == 7
    window.give_back(slot, 100)
    assert window.remaining(30.0) == 9
    assert window.remaining(70.0) == 9
    window.give_back(slot, 5)  # forgotten by now: nothing may be counted twice
    assert window.remaining(70.0) == 9
    assert window.remaining(100.0) == 10


@pytest.mark.parametrize("now", [0.0, 59.9, 1e9])
def test_what_is_taken_beyond_the_limit_counts(now):
    window = Window(10, 60.0)
    window.take(now, 25)
    assert window.remaining(now) == 0
    assert window.free_in(now, 1) > 0
