"""Counters and histograms by labels, in plain dictionaries, as families that Prometheus' client prints.

Cheaper to add to than the client's own (no lock, no child objects: everything is in the loop's thread), and
bounded: a family holds so many series, and what comes after that counts as `other`, whatever clients and
providers send. Names and labels are stable: dashboards and alert rules are written against them.
"""

from collections.abc import Collection, Iterable
from math import inf
from typing import Final, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from penstock.types.buckets import GAP_BOUNDS, Buckets

OTHER: Final = "other"
"""What stands for names that are not told apart."""

MAX_SERIES: Final = 1_000
"""Of one family."""

MAX_LABEL: Final = 100
"""Characters of a label's value."""

T = TypeVar("T")


def _fit(
    values: tuple[str, ...], known: Iterable[tuple[str, ...]], count: int, limit: int
) -> tuple[str, ...]:
    """Return the labels under which what has not been there yet is counted."""
    short = tuple(value[:MAX_LABEL] for value in values)
    return short if count < limit or short in known else (OTHER,) * len(values)


def _kept(
    found: dict[tuple[str, ...], T], labels: tuple[str, ...], label: str, known: Collection[str]
) -> dict[tuple[str, ...], T]:
    if label not in labels:
        return found
    at = labels.index(label)
    return {values: value for values, value in found.items() if values[at] in known}


class Counts:
    """A counter with labels."""

    __slots__ = ("_labels", "_limit", "_name", "_text", "_values")

    def __init__(self, name: str, text: str, *labels: str, limit: int = MAX_SERIES) -> None:
        """``name`` is without `_total`."""
        self._name = name
        self._text = text
        self._labels = labels
        self._limit = limit
        self._values: dict[tuple[str, ...], float] = {}

    def __repr__(self) -> str:
        """Say which, and how many series it has."""
        return f"<Counts {self._name} {len(self._values)} series>"

    def add(self, *values: str, by: float = 1) -> None:
        """Count ``by`` for these labels."""
        found = self._values
        if values not in found:
            values = _fit(values, found, len(found), self._limit)
        found[values] = found.get(values, 0) + by

    def keep(self, label: str, known: Collection[str]) -> None:
        """Forget the series whose ``label`` is none of ``known``; without that label, nothing."""
        self._values = _kept(self._values, self._labels, label, known)

    def family(self) -> Metric:
        """Return it as it stands."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, value in self._values.items():
            family.add_metric(values, value)
        return family


class Sizes:
    """A histogram with labels."""

    __slots__ = ("_bounds", "_labels", "_limit", "_name", "_text", "_values")

    def __init__(
        self,
        name: str,
        text: str,
        *labels: str,
        bounds: tuple[float, ...] = GAP_BOUNDS,
        limit: int = MAX_SERIES // 10,
    ) -> None:
        """``limit`` is of label sets, each of which is a dozen series and more."""
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = bounds
        self._limit = limit
        self._values: dict[tuple[str, ...], Buckets] = {}

    def __repr__(self) -> str:
        """Say which, and how many label sets it has."""
        return f"<Sizes {self._name} {len(self._values)} label sets>"

    def add(self, *values: str, value: float) -> None:
        """Count ``value`` for these labels."""
        buckets = self._values.get(values)
        if buckets is None:
            values = _fit(values, self._values, len(self._values), self._limit)
            buckets = self._values.get(values)
            if buckets is None:
                buckets = self._values[values] = Buckets(self._bounds)
        buckets.add(value)

    def keep(self, label: str, known: Collection[str]) -> None:
        """As `Counts.keep`."""
        self._values = _kept(self._values, self._labels, label, known)

    def family(self) -> Metric:
        """Return it as it stands."""
        return histogram(self._name, self._text, self._labels, self._values.items())


def histogram(
    name: str, text: str, labels: tuple[str, ...], found: Iterable[tuple[tuple[str, ...], Buckets]]
) -> Metric:
    """Return a family of ``found``, buckets by the values of ``labels``."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, buckets in found:
        count, pairs = 0, []
        for bound, number in zip((*buckets.bounds, inf), buckets.counts, strict=True):
            count += number
            pairs.append(("+Inf" if bound == inf else repr(float(bound)), float(count)))
        family.add_metric(values, pairs, buckets.total)
    return family
