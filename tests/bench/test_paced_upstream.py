import json
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bench.paced_upstream import Wheel, content_frame, jitter_offsets
from bench.speech import chat

TICK = 1000


@dataclass
class Item:
    due_ns: int


@given(st.lists(st.integers(min_value=0, max_value=60 * TICK)), st.lists(st.integers(0, 8 * TICK)))
def test_the_wheel_gives_each_item_once_and_never_before_its_time(dues: list[int], steps: list[int]):
    wheel: Wheel[Item] = Wheel(0, slots=64, tick_ns=TICK)
    for due in dues:
        wheel.add(Item(due))
    now, taken = 0, []
    for step in [*steps, 200 * TICK]:
        now += step
        due_now = wheel.take(now)
        assert all(item.due_ns <= now for item in due_now)
        taken += due_now
    assert sorted(item.due_ns for item in taken) == sorted(dues)


def test_the_wheel_gives_an_item_within_a_tick_of_its_time():
    wheel: Wheel[Item] = Wheel(0, slots=64, tick_ns=TICK)
    wheel.add(Item(5 * TICK + 1))
    assert wheel.take(6 * TICK - 1) == []
    assert wheel.take(6 * TICK) == [Item(5 * TICK + 1)]


def test_an_item_that_is_late_already_comes_with_the_next_tick():
    wheel: Wheel[Item] = Wheel(100 * TICK, slots=64, tick_ns=TICK)
    wheel.add(Item(3 * TICK))
    assert wheel.take(101 * TICK) == [Item(3 * TICK)]


def test_gaps_vary_by_a_fifth_at_most_and_do_not_add_up():
    offsets = jitter_offsets(20_000_000, seed=1)
    assert all(abs(offset) <= 2_000_000 for offset in offsets)
    assert abs(sum(offsets)) < len(offsets) * 100_000
    assert offsets == jitter_offsets(20_000_000, seed=1)


def test_a_content_chunk_is_a_whole_event_of_about_two_hundred_bytes():
    before, after = content_frame(chat("chatcmpl-000000000000000000000001", 1_760_000_000, 9).token)
    size, _, rest = (before + b"0000123456789012" + after).partition(b"\r\n")
    event = rest.removesuffix(b"\r\n")
    assert len(event) == int(size, 16)
    assert 180 < len(event) < 240
    chunk = json.loads(event.removeprefix(b"data: ").removesuffix(b"\n\n"))
    assert chunk["choices"][0]["delta"] == {"content": "t=0000123456789012 "}
