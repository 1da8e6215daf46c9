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


spans = st.lists(st.integers(0, 5_000), min_size=8, max_size=8)


@given(spans, st.booleans())
def test_where_the_time_went_adds_up_to_the_whole(spans, output):
    """Queue, set-up, failed attempts, connect, wait, two outputs, the end."""
    at, now = [], 1_000.0
    for span in spans:
        now += span / 1_000
        at.append(now)
    meter = Meter(1_000.0)
    meter.queued(spans[0] / 1_000)
    meter.begin(at[1])
    if output:
        meter.lead(at[2], at[3])
        meter.output(at[4])
        meter.output(at[5])
        meter.output(at[6])
    timing = meter.timing(at[7])
    parts = [timing.queue_ms, timing.failed_ms, timing.connect_ms]
    parts += [timing.wait_ms, timing.stream_ms, timing.gateway_ms]
    assert sum(parts) == pytest.approx(timing.total_ms, abs=0.01)
    if output:
        assert parts == pytest.approx(
            [spans[0], spans[2], spans[3], spans[4], spans[5] + spans[6], spans[1] + spans[7]], abs=0.01
        )
    else:
        assert parts == pytest.approx([spans[0], sum(spans[2:]), 0, 0, 0, spans[1]], abs=0.01)


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
