"""The meter of a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.meter import Meter
from penstock.types.events import TextDelta, Timing, UsageReported


def test_times_are_from_the_call_and_gaps_are_between_outputs():
    meter = Meter(10.0)
    for now in (10.5, 10.6, 11.6, 11.7):
        meter.output(now)
    timing = meter.timing(12.0)
    assert (timing.first_output_ms, timing.max_gap_ms, timing.total_ms) == (500.0, 1000.0, 2000.0)


def test_without_output_there_is_no_first_output():
    assert Meter(1.0).timing(2.0).first_output_ms == 0.0


spans = st.lists(st.integers(0, 5_000), min_size=9, max_size=9)


def parts(timing: Timing) -> list[float]:
    """Return queue, failed, connect, wait, stream, gateway, which are the whole."""
    found = [timing.queue_ms, timing.failed_ms, timing.connect_ms]
    found += [timing.wait_ms, timing.stream_ms, timing.gateway_ms]
    assert sum(found) == pytest.approx(timing.total_ms, abs=0.01)
    return found


@given(spans, st.booleans(), st.booleans())
def test_where_the_time_went_adds_up_to_the_whole(spans, again, output):
    """Queue, set-up, a failed attempt, connect, wait, two outputs, silence, the end."""
    at, now = [], 1_000.0
    for span in spans:
        now += span / 1_000
        at.append(now)
    queue, set_up, broke, connect, wait, *outputs, silence, end = spans
    meter = Meter(1_000.0)
    meter.queued(queue / 1_000)
    meter.begin(1_000.0 + queue / 1_000)
    if again:
        meter.attempt(at[1])
        meter.over(at[2])
    else:
        set_up, broke = set_up + broke, 0
    meter.attempt(at[2])
    meter.sent(at[3])
    if output:
        meter.lead(at[2], at[3])
        for moment in at[4:7]:
            meter.output(moment)
    meter.over(at[7])
    if output:
        expected = [queue, broke, connect, wait, sum(outputs) + silence, set_up + end]
    else:
        expected = [queue, broke + sum(spans[3:]), 0, 0, 0, set_up]
    assert parts(meter.timing(at[8])) == pytest.approx(expected, abs=0.01)


def test_what_an_open_attempt_lets_us_wait_for_is_not_ours():
    meter = Meter(0.0)
    meter.begin(0.0)
    meter.attempt(1.0)
    assert parts(meter.timing(3.0)) == [0, 0, 2_000, 0, 0, 1_000]
    meter.sent(4.0)
    assert parts(meter.timing(9.0)) == [0, 0, 3_000, 5_000, 0, 1_000]
    meter.lead(1.0, 4.0)
    meter.output(10.0)
    assert parts(meter.timing(70.0)) == [0, 0, 3_000, 6_000, 60_000, 1_000]
    meter.over(71.0)
    assert parts(meter.timing(73.0)) == [0, 0, 3_000, 6_000, 61_000, 3_000]


def test_a_rival_does_not_turn_the_time_before_it_into_failure():
    meter = Meter(0.0)
    meter.begin(0.0)
    meter.attempt(0.0)
    meter.sent(1.0)
    meter.attempt(4.0)
    meter.sent(5.0)
    assert parts(meter.timing(6.0)) == [0, 0, 1_000, 5_000, 0, 0]


def test_after_a_restart_only_the_whole_time_and_the_gap_are_known():
    meter = Meter(0.0)
    meter.begin(60.0, resumed=True)
    for now in (61.0, 64.0):
        meter.output(now)
    assert meter.timing(70.0) == Timing(total_ms=70_000.0, max_gap_ms=3_000.0)


def test_the_last_usage_report_wins():
    meter = Meter(0.0)
    for event in (UsageReported(1, 1), TextDelta("x"), UsageReported(1, 9)):
        meter.report(event)
    assert meter.usage == UsageReported(1, 9)
