import os

import pytest

from bench.histogram import Histogram
from bench.processes import BenchError
from bench.tail import Follower, line, measure, told


def event(*lines: bytes) -> bytes:
    body = b"".join(b"data:" + text + b"\n" for text in b"".join(lines).split(b"\n"))
    return b"event: data\n" + body + b"id: 0_0"


def test_every_line_reaches_every_reader_in_order(tmp_path):
    result = measure(tmp_path, 2_000, 0.5, 5, sorted(os.sched_getaffinity(0)))
    assert (result.lines, result.readers) == (1_000, 5)
    assert 0 < result.lag_p50_ms <= result.lag_p99_ms <= result.lag_max_ms
    assert "had every line in order" in told(result)


def test_a_reader_takes_events_one_behind_the_other():
    lag = Histogram()
    follower = Follower(lag)
    follower.take(event(line(0, 1), line(1, 1), line(2, 1)))
    follower.take(b"event: control\ndata:{}")
    follower.take(event(line(3, 1)))
    assert (follower.next, lag.total) == (4, 2)


def test_a_line_may_go_over_two_events():
    follower, text = Follower(Histogram()), line(0, 1) + line(1, 1)
    for piece in (text[:130], text[130:], line(2, 1)[:-1], b"\n"):
        follower.take(event(piece))
    assert follower.next == 3


@pytest.mark.parametrize("numbers", [[1], [0, 2], [0, 0], [0, 1, 3]])
def test_a_line_that_is_missing_or_doubled_is_noticed(numbers):
    with pytest.raises(BenchError):
        Follower(Histogram()).take(event(*(line(number, 1) for number in numbers)))
