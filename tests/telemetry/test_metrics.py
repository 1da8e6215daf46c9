"""What is counted of signals, and that no client can make more labels than the configuration has."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.metrics import Metrics
from penstock.types.events import Timing, UsageReported
from penstock.types.outcomes import AttemptUse, Outcome
from penstock.types.signals import (
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    CallAccepted,
    CallRefused,
    ContentMatched,
    FirstOutput,
    ReaderJoined,
    ReaderLeft,
    StreamEnded,
    Subject,
)
from penstock.types.usage import USD

MODELS = {"fast": "fast", "slow": "slow"}
TIMING = Timing(first_output_ms=300, total_ms=2_000, wait_ms=200, gateway_ms=1.5)


def subject(stream="s", model="fast", principal="app"):
    return Subject(stream, principal, "openai_chat", model)


def ended(about, *, status="completed", code="", uses=(), costs=(), timing=TIMING):
    return StreamEnded(about, Outcome(status, about.stream, code, uses), "a/m", None, timing, None, costs)


def samples(metrics):
    """What is scraped, as ``{name: {label values: value}}``."""
    found = {}
    for family in metrics.families():
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@pytest.fixture
def metrics():
    return Metrics(lambda name: MODELS.get(name, ""), keys=["app"])


def test_a_call_is_counted_from_its_beginning_to_its_end(metrics):
    about = subject()
    metrics(CallAccepted(about, queued_ms=20))
    assert samples(metrics)["penstock_streams_open"] == {("fast",): 1}
    metrics(AttemptBegan(about, 1, "first", "a/m", "a", "m"))
    metrics(FirstOutput(about, 1, "a/m", TIMING))
    metrics(AttemptEnded(about, 1, "first", "a/m", "a", "m"))
    use = AttemptUse("a/m", "a", "m", UsageReported(10, 20, cached_tokens=4))
    metrics(ended(about, uses=(use,), costs=(USD // 2,)))
    found = samples(metrics)
    assert found["penstock_calls_total"] == {("openai_chat", "fast", "started"): 1}
    assert found["penstock_streams_ended_total"] == {("openai_chat", "fast", "completed"): 1}
    assert "penstock_streams_open" not in found or not found["penstock_streams_open"]
    assert found["penstock_tokens_total"] == {
        ("fast", "a/m", "input"): 10,
        ("fast", "a/m", "output"): 20,
        ("fast", "a/m", "cached"): 4,
    }
    assert found["penstock_cost_dollars_total"] == {("fast", "a/m"): 0.5}
    assert found["penstock_time_to_first_chunk_seconds_sum"] == {("fast", "a/m"): 0.2}
    assert found["penstock_time_to_first_output_seconds_sum"] == {("fast",): 0.3}
    assert found["penstock_stream_duration_seconds_sum"] == {("fast",): 2.0}
    assert found["penstock_queue_seconds_sum"] == {("fast",): 0.02}
    assert found["penstock_gateway_overhead_seconds_sum"] == {(): 0.0015}
    assert "penstock_stream_failures_total" not in found
    assert found["penstock_key_tokens_total"][("app", "output")] == 20


def test_why_attempts_are_made_and_how_they_fail_is_counted(metrics):
    about = subject()
    for number, (reason, code) in enumerate([("first", "upstream_reset"), ("fallback", "")], 1):
        metrics(AttemptBegan(about, number, reason, f"{number}/m", "a", "m"))
        metrics(AttemptEnded(about, number, reason, f"{number}/m", "a", "m", code=code))
    metrics(BreakerChanged("1/m", "open"))
    found = samples(metrics)
    assert found["penstock_attempts_total"] == {("1/m", "first"): 1, ("2/m", "fallback"): 1}
    assert found["penstock_attempt_failures_total"] == {("1/m", "upstream_reset"): 1}
    assert found["penstock_breaker_changes_total"] == {("1/m", "open"): 1}


def test_a_stream_that_failed_is_counted_with_its_code(metrics):
    about = subject()
    metrics(CallAccepted(about))
    metrics(ended(about, status="failed", code="upstream_stalled"))
    assert samples(metrics)["penstock_stream_failures_total"] == {
        ("fast", "a/m", "upstream_stalled", ""): 1,
    }


def test_a_stream_from_before_a_restart_has_an_end_and_no_times(metrics):
    metrics(ended(subject(), status="interrupted", code="gateway_restarted", timing=None))
    found = samples(metrics)
    assert found["penstock_streams_ended_total"] == {("openai_chat", "fast", "interrupted"): 1}
    assert "penstock_stream_duration_seconds_sum" not in found


def test_what_another_process_settles_is_not_paid_twice(metrics):
    use = AttemptUse("a/m", "a", "m", UsageReported(10, 20))
    metrics(ended(subject(), status="handed_over", uses=(use,)))
    assert "penstock_tokens_total" not in samples(metrics)


def test_readers_and_matches_are_counted(metrics):
    for reader in (1, 2):
        metrics(ReaderJoined("s", reader, "app"))
    metrics(ReaderLeft("s", 1, "app"))
    metrics(ContentMatched("house", "mail", "mask", "output", 3, "req_1"))
    found = samples(metrics)
    assert (found["penstock_readers"], found["penstock_readers_joined_total"]) == ({(): 1}, {(): 2})
    assert found["penstock_filter_matches_total"] == {("house", "mail", "mask", "output"): 3}


def test_without_the_setting_no_figure_is_by_key():
    plain = Metrics(lambda name: name)
    plain(ended(subject()))
    assert not [name for name in samples(plain) if name.startswith("penstock_key")]


NAMES = st.text(string.printable + "é中\x00", max_size=200)


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), max_size=50))
def test_whatever_clients_ask_for_the_labels_are_those_of_the_configuration(calls):
    metrics = Metrics(lambda name: MODELS.get(name, ""), keys=["app"])
    for number, (model, principal, request_id) in enumerate(
        [*calls, ("fast", "app", ""), ("x", "app/me", "")]
    ):
        about = Subject(str(number), principal, "openai_chat", model, request_id=request_id)
        metrics(CallRefused(about, "model_not_found", "client", 404))
        metrics(CallAccepted(about))
        metrics(FirstOutput(about, 1, "a/m", TIMING))
        metrics(ended(about, uses=(AttemptUse("a/m", "a", model, UsageReported(1, 1)),)))
    values = {value for by_labels in samples(metrics).values() for labels in by_labels for value in labels}
    known = {"fast", "slow", "other", "app", "a/m", "openai_chat", "started", "refused", "completed"}
    known |= {"model_not_found", "input", "output", ""}
    assert not {value for value in values if value not in known and not _is_bound(value)}


def _is_bound(value):
    try:
        return float(value) >= 0
    except ValueError:
        return False
