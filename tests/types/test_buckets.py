"""Values counted by size."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.types.buckets import GAP_BOUNDS, Buckets


def test_a_value_counts_in_the_first_bucket_that_it_fits():
    buckets = Buckets((1.0, 2.0))
    for value in (0.0, 1.0, 1.1, 2.0, 2.1, 900.0):
        buckets.add(value)
    assert buckets.counts == [2, 2, 2]
    assert (buckets.count, buckets.total) == (6, 906.2)
    assert buckets.share_within(2.0) == 4 / 6


def test_nothing_counted_is_no_complaint():
    assert Buckets().share_within(GAP_BOUNDS[0]) == 1.0


@given(st.lists(st.floats(0, 500)))
def test_the_counts_are_those_of_a_histogram(values):
    buckets = Buckets()
    for value in values:
        buckets.add(value)
    for bound in GAP_BOUNDS:
        within = sum(value <= bound for value in values)
        assert sum(buckets.counts[: GAP_BOUNDS.index(bound) + 1]) == within
