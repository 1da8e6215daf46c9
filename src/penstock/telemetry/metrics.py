"""The figures that Prometheus scrapes: what was signalled, in counters and histograms.

An observer (`penstock.types.signals`): a few additions to dictionaries per call, attempt and end. What has
a current value (open connections, the breaker, the journal's size) is not kept here but read when somebody
scrapes. Labels are the configuration's names: models as they are configured, patterns as they are written,
targets, routes, filters; anything else is `other`. Principals are no labels, unless the operator wants
figures by key, and then only of the keys in the configuration.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final, TypeAlias

from prometheus_client.core import GaugeMetricFamily, Metric

from penstock.telemetry.series import MAX_LABEL, OTHER, Counts, Sizes
from penstock.types.events import UsageReported
from penstock.types.principals import OF
from penstock.types.signals import (
    AnySignal,
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    CallAccepted,
    CallRefused,
    ContentMatched,
    FirstOutput,
    NamesChanged,
    ReaderJoined,
    ReaderLeft,
    StreamEnded,
)
from penstock.types.usage import USD

Namer: TypeAlias = Callable[[str], str]
"""Turns the name of a model that a client asked for into one of the configuration's; empty for none."""

MAX_NAMES: Final = 2_000
"""Names of models whose labels are remembered."""

LONG: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds that whole answers take, and their beginnings."""

SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 60.0)
"""Seconds of what is ours, and of waiting for a turn."""


class Metrics:
    """See the module's head."""

    def __init__(self, model_of: Namer, *, keys: Collection[str] | None = None) -> None:
        """``keys``: those whose use is counted apart, which may change; None where it is not."""
        self._model_of = model_of
        self._names: dict[str, str] = {}
        self._keys = keys
        self._open: dict[str, str] = {}
        self._readers = 0
        self._calls = Counts(
            "penstock_calls",
            "Calls: started, joined (answered by a stream that there was), resumed after a restart, refused.",
            *("route", "model", "result"),
        )
        self._refusals = Counts("penstock_refusals", "Calls that were refused, by code.", "route", "code")
        self._ended = Counts(
            "penstock_streams_ended", "Streams that ended, by how.", "route", "model", "status"
        )
        self._failures = Counts(
            "penstock_stream_failures",
            "Streams that did not end as completed, by code and whose fault it was.",
            *("model", "target", "code", "fault"),
        )
        self._attempts = Counts(
            "penstock_attempts",
            "Attempts at targets, by why they were made: first, retry, fallback, continuation, hedge.",
            *("target", "reason"),
        )
        self._attempt_failures = Counts(
            "penstock_attempt_failures", "Attempts that failed, by code.", "target", "code"
        )
        self._first_chunk = Sizes(
            "penstock_time_to_first_chunk_seconds",
            "From sending the request to a provider to its first output.",
            *("model", "target"),
            bounds=LONG,
        )
        self._first_output = Sizes(
            "penstock_time_to_first_output_seconds",
            "From accepting a call to its first output, with queue, failed attempts and all.",
            "model",
            bounds=LONG,
        )
        self._duration = Sizes(
            "penstock_stream_duration_seconds", "From accepting a call to its end.", "model", bounds=LONG
        )
        self._overhead = Sizes(
            "penstock_gateway_overhead_seconds",
            "What was the gateway's own of a call's time: before its first attempt, after its last output.",
            bounds=SHORT,
        )
        self._queue = Sizes(
            "penstock_queue_seconds", "How long calls waited to be let in.", "model", bounds=SHORT
        )
        self._tokens = Counts(
            "penstock_tokens",
            "Tokens, by kind: input, output; and of these: cached, cache_write, reasoning.",
            *("model", "target", "kind"),
        )
        self._estimated = Counts(
            "penstock_attempts_estimated", "Attempts whose tokens no provider reported.", "target"
        )
        self._cost = Counts(
            "penstock_cost_dollars", "What attempts cost, where prices are known.", "model", "target"
        )
        self._unpriced = Counts("penstock_attempts_unpriced", "Attempts without a known price.", "target")
        self._matches = Counts(
            "penstock_filter_matches",
            "What content filters found.",
            *("filter", "rule", "action", "where"),
        )
        self._breakers = Counts(
            "penstock_breaker_changes", "Times that breakers opened and closed.", "target", "state"
        )
        self._joined = Counts("penstock_readers_joined", "Readers that came.")
        self._all: tuple[Counts | Sizes, ...] = (
            *(self._calls, self._refusals, self._ended, self._failures, self._attempts),
            *(self._attempt_failures, self._first_chunk, self._first_output, self._duration),
            *(self._overhead, self._queue, self._tokens, self._estimated, self._cost, self._unpriced),
            *(self._matches, self._breakers, self._joined),
        )
        self._key_calls = Counts("penstock_key_streams", "Streams that ended, by key.", "key", "status")
        self._key_tokens = Counts("penstock_key_tokens", "Tokens by key.", "key", "kind")
        self._key_cost = Counts("penstock_key_cost_dollars", "What was spent by key.", "key")

    def __repr__(self) -> str:
        """Say how many streams it sees."""
        return f"<Metrics {len(self._open)} open streams>"

    def __call__(self, signal: AnySignal) -> None:
        """Count ``signal``."""
        match signal:
            case CallAccepted():
                self._accepted(signal)
            case CallRefused():
                subject = signal.subject
                self._calls.add(subject.route, self._model(subject.model), "refused")
                self._refusals.add(subject.route, signal.code)
            case AttemptBegan():
                self._attempts.add(signal.target, signal.reason)
            case AttemptEnded():
                if signal.code:
                    self._attempt_failures.add(signal.target, signal.code)
            case FirstOutput():
                self._began(signal)
            case StreamEnded():
                self._over(signal)
            case ReaderJoined():
                self._readers += 1
                self._joined.add()
            case ReaderLeft():
                self._readers -= 1
            case ContentMatched():
                self._matches.add(signal.filter, signal.rule, signal.action, signal.where, by=signal.count)
            case BreakerChanged():
                self._breakers.add(signal.target, signal.state)
            case NamesChanged():
                self._names.clear()
                self._keep("target", signal.targets)
                self._keep("model", signal.models)
                self._keep("key", self._keys or ())

    def families(self) -> Iterator[Metric]:
        """Yield all families, one after the other, each made when it is its turn."""
        for counts in self._all:
            yield counts.family()
        if self._keys is not None:
            for counts in (self._key_calls, self._key_tokens, self._key_cost):
                yield counts.family()
        streams = GaugeMetricFamily(
            "penstock_streams_open", "Streams that are being written.", labels=["model"]
        )
        for model, count in Counter(self._open.values()).items():
            streams.add_metric([model], count)
        yield streams
        yield GaugeMetricFamily("penstock_readers", "Readers of streams at the moment.", self._readers)

    def _keep(self, label: str, names: Collection[str]) -> None:
        known = {OTHER, "", *(name[:MAX_LABEL] for name in names)}
        for counts in (*self._all, self._key_calls, self._key_tokens, self._key_cost):
            counts.keep(label, known)

    def _model(self, name: str) -> str:
        label = self._names.get(name)
        if label is None:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            label = self._names[name] = self._model_of(name) or OTHER
        return label

    def _key(self, principal: str) -> str:
        owner = principal.partition(OF)[0]
        return owner if self._keys is not None and owner in self._keys else OTHER

    def _accepted(self, signal: CallAccepted) -> None:
        subject = signal.subject
        model = self._model(subject.model)
        result = "joined" if signal.existing else "resumed" if signal.taken_up else "started"
        self._calls.add(subject.route, model, result)
        if not signal.existing:
            if not subject.passed_on:
                self._open[subject.stream] = model
            self._queue.add(model, value=signal.queued_ms / 1000)

    def _began(self, signal: FirstOutput) -> None:
        model, timing = self._model(signal.subject.model), signal.timing
        if timing.first_output_ms:  # else it began before a restart
            self._first_output.add(model, value=timing.first_output_ms / 1000)
            self._first_chunk.add(model, signal.target, value=timing.wait_ms / 1000)

    def _over(self, signal: StreamEnded) -> None:
        subject, outcome = signal.subject, signal.outcome
        self._open.pop(subject.stream, None)
        model = self._model(subject.model)
        self._ended.add(subject.route, model, outcome.status)
        if outcome.code:
            self._failures.add(model, signal.target, outcome.code, signal.fault or "")
        if signal.timing is not None:
            self._duration.add(model, value=signal.timing.total_ms / 1000)
            if not subject.passed_on:
                self._overhead.add(value=signal.timing.gateway_ms / 1000)
        key = self._key(subject.principal)
        if self._keys is not None:
            self._key_calls.add(key, outcome.status)
        if not outcome.counts:
            return  # another process settles it
        costs = signal.costs or (None,) * len(outcome.attempts)
        for use, cost in zip(outcome.attempts, costs, strict=True):
            for kind, count in _kinds(use.usage):
                self._tokens.add(model, use.target, kind, by=count)
                if self._keys is not None:
                    self._key_tokens.add(key, kind, by=count)
            if use.usage.estimated:
                self._estimated.add(use.target)
            if cost is None:
                self._unpriced.add(use.target)
            else:
                self._cost.add(model, use.target, by=cost / USD)
                if self._keys is not None:
                    self._key_cost.add(key, by=cost / USD)


def _kinds(usage: UsageReported) -> Iterator[tuple[str, int]]:
    for kind, count in (
        ("input", usage.input_tokens),
        ("output", usage.output_tokens),
        ("cached", usage.cached_tokens),
        ("cache_write", usage.cache_write_tokens),
        ("reasoning", usage.reasoning_tokens),
    ):
        if count:
            yield kind, count
