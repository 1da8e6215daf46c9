"""The meter of a run."""

from penstock.gateway.meter import Meter
from penstock.types.events import TextDelta, UsageReported


def test_times_are_from_the_call_and_gaps_are_between_outputs():
    meter = Meter(10.0)
    for now in (10.5, 10.6, 11.6, 11.7):
        meter.output(now)
    timing = meter.timing(12.0)
    assert (timing.first_output_ms, timing.max_gap_ms, timing.total_ms) == (500.0, 1000.0, 2000.0)


def test_without_output_there_is_no_first_output():
    assert Meter(1.0).timing(2.0).first_output_ms == 0.0


def test_the_last_usage_report_wins():
    meter = Meter(0.0)
    for event in (UsageReported(1, 1), TextDelta("x"), UsageReported(1, 9)):
        meter.report(event)
    assert meter.usage == UsageReported(1, 9)
