"""Counters and histograms by labels: what a scraper reads, and that nobody can make them grow."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from penstock.telemetry.series import MAX_LABEL, OTHER, Counts, Sizes


def printed(series):
    """What a scraper reads of ``series``, as ``{(name, labels): value}``."""

    class One(Collector):
        def collect(self):
            yield series.family()

    text = generate_latest(One()).decode()
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_counter_is_read_as_it_was_counted():
    calls = Counts("calls", "Calls.", "model", "result")
    calls.add("m", "started")
    calls.add("m", "started", by=2)
    assert printed(calls) == {("calls_total", (("model", "m"), ("result", "started"))): 3}


def test_a_histogram_is_read_with_all_its_buckets():
    waits = Sizes("waits", "Waits.", bounds=(0.5, 2.0))
    for value in (0.5, 1.0, 7.0):
        waits.add(value=value)
    assert printed(waits) == {
        ("waits_bucket", (("le", "0.5"),)): 1,
        ("waits_bucket", (("le", "2.0"),)): 2,
        ("waits_bucket", (("le", "+Inf"),)): 3,
        ("waits_count", ()): 3,
        ("waits_sum", ()): 8.5,
    }


@given(st.lists(st.tuples(st.text(), st.text()), max_size=60))
def test_whatever_comes_as_labels_the_series_are_bounded_and_nothing_is_lost(labels):
    calls = Counts("calls", "Calls.", "a", "b", limit=5)
    waits = Sizes("waits", "Waits.", "a", "b", bounds=(1.0,), limit=5)
    for pair in labels:
        calls.add(*pair)
        waits.add(*pair, value=0.5)
    counted = printed(calls)
    assert len(counted) <= 6
    assert sum(counted.values()) == len(labels)
    assert all(len(value) <= MAX_LABEL for _, pairs in counted for _, value in pairs)
    counts = {key: value for key, value in printed(waits).items() if key[0] == "waits_count"}
    assert len(counts) <= 6
    assert sum(counts.values()) == len(labels)


def test_what_is_known_is_told_apart_still_when_the_bound_is_reached():
    calls = Counts("calls", "Calls.", "model", limit=1)
    for name in ("known", "late", "known", "later"):
        calls.add(name)
    values = {labels[0][1]: value for (_, labels), value in printed(calls).items()}
    assert values == {"known": 2, OTHER: 2}
