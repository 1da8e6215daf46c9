import json

from hypothesis import given
from hypothesis import strategies as st

from bench.histogram import BUCKETS, Histogram, bucket_of, middle_of

durations = st.integers(min_value=0, max_value=10**12)


@given(durations)
def test_a_bucket_names_its_values_within_one_percent(value: int):
    assert abs(middle_of(bucket_of(value)) - value) <= max(1024, value * 0.01)


@given(durations)
def test_recording_counts_the_bucket_of_the_value(value: int):
    histogram = Histogram()
    histogram.record(value)
    assert histogram.counts[bucket_of(value)] == 1


@given(st.lists(durations, min_size=1), st.floats(min_value=0.1, max_value=100))
def test_percentile_is_near_the_value_at_its_rank(values: list[int], percent: float):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    ranked = sorted(values)
    rank = max(1.0, len(values) * percent / 100)
    exact = next(value for place, value in enumerate(ranked, 1) if place >= rank)
    assert abs(histogram.percentile(percent) - exact) <= max(1024, exact * 0.01)


@given(st.lists(durations), st.lists(durations))
def test_merged_histograms_equal_one_that_saw_all(first: list[int], second: list[int]):
    left, right, whole = Histogram(), Histogram(), Histogram()
    for histogram, values in ((left, first), (right, second), (whole, first + second)):
        for value in values:
            histogram.record(value)
    left.merge(Histogram.from_json(json.loads(json.dumps(right.to_json()))))
    assert left.to_json() == whole.to_json()


def test_what_does_not_fit_is_counted_in_the_last_bucket_and_what_is_negative_in_the_first():
    histogram = Histogram()
    histogram.record(1 << 60)
    histogram.record(-5)
    assert histogram.counts[BUCKETS - 1] == histogram.counts[0] == 1


def test_an_empty_histogram_says_zero():
    assert Histogram().summary() == {"count": 0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "p99.9": 0.0, "max": 0.0}
