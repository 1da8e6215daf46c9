"""Spans and metrics, by the GenAI conventions: with the SDK's exporters in memory, no sampling left out."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags

from penstock.assembly.telemetry import SYSTEMS
from penstock.providers.kinds import KINDS
from penstock.server.relay import OPERATIONS
from penstock.telemetry.otel import Otel, OtelSettings
from penstock.telemetry.places import Place
from penstock.telemetry.tracing import MAX_MODELS, Tracing, parse_parent
from penstock.types.events import Timing, UsageReported
from penstock.types.outcomes import AttemptUse, Outcome
from penstock.types.signals import (
    CHAT,
    AttemptBegan,
    AttemptEnded,
    CallAccepted,
    CallRefused,
    FirstOutput,
    StreamEnded,
    Subject,
)
from penstock.types.usage import USD

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SUBJECT = Subject("s_1", "app", "openai_chat", "fast", request_id="req_1", trace=PARENT)
USAGE = UsageReported(10, 20, cached_tokens=4, reasoning_tokens=3)
TIMING = Timing(first_output_ms=300, total_ms=2_000)


class Exported:
    """A tracing whose spans and metrics can be looked at."""

    def __init__(self, *, sample=1.0, **more):
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self._otel = Otel(OtelSettings(sample=sample), "1.0", spans=self.spans, reader=self.reader)
        places = {"a": Place("openai", "api.openai.com", 443), "b": Place("anthropic")}
        self.tracing = Tracing(self._otel.tracer, self._otel.meter, places, **more)

    def finished(self):
        self._otel._tracers.force_flush()
        return {span.name: span for span in self.spans.get_finished_spans()}

    def metrics(self):
        """Return ``{name: [(attributes, count, sum)]}``."""
        (resource,) = self.reader.get_metrics_data().resource_metrics
        return {
            metric.name: [(dict(p.attributes), p.count, p.sum) for p in metric.data.data_points]
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def close(self):
        asyncio.run(self._otel.aclose())


@pytest.fixture
def exported():
    made = Exported()
    yield made
    made.close()


def played(tracing, *, code="", usage=USAGE):
    """One attempt that fails at ``a``, and one at ``b`` that ends with ``code``."""
    tracing(CallAccepted(SUBJECT, queued_ms=50))
    tracing(AttemptBegan(SUBJECT, 1, "first", "a/m", "a", "m"))
    tracing(AttemptEnded(SUBJECT, 1, "first", "a/m", "a", "m", code="upstream_reset", total_ms=100))
    tracing(AttemptBegan(SUBJECT, 2, "fallback", "b/n", "b", "n"))
    tracing(FirstOutput(SUBJECT, 2, "b/n", TIMING))
    ended = AttemptEnded(
        SUBJECT,
        2,
        "fallback",
        "b/n",
        "b",
        "n",
        code=code,
        led=True,
        wait_ms=200,
        total_ms=1_900,
        usage=usage,
        response_model="n-2026",
        response_id="x",
        finish_reasons=("stop",),
    )
    tracing(ended)
    uses = (AttemptUse("a/m", "a", "m", UsageReported()), AttemptUse("b/n", "b", "n", USAGE))
    outcome = Outcome("failed" if code else "completed", "s_1", code, uses)
    tracing(StreamEnded(SUBJECT, outcome, "b/n", None, TIMING, USAGE, (None, USD // 4)))


def test_attempts_are_children_of_their_call_which_is_one_of_whoever_called(exported):
    played(exported.tracing)
    spans = exported.finished()
    call, first, second = spans["penstock openai_chat"], spans["chat m"], spans["chat n"]
    assert (call.kind, first.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert f"{call.parent.span_id:016x}" == PARENT.split("-")[2]
    assert f"{call.context.trace_id:032x}" == PARENT.split("-")[1]
    assert first.parent.span_id == second.parent.span_id == call.context.span_id
    assert call.start_time <= first.start_time - 45_000_000  # the queue is in it
    assert repr(exported.tracing) == "<Tracing 0 calls, 0 attempts>"


def test_an_attempt_says_what_the_conventions_ask_for(exported):
    played(exported.tracing)
    spans = exported.finished()
    assert dict(spans["chat n"].attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "n",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "n-2026",
        "gen_ai.response.id": "x",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.2,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "penstock.target": "b/n",
        "penstock.attempt.number": 2,
        "penstock.attempt.reason": "fallback",
    }
    failed = spans["chat m"]
    assert failed.attributes["error.type"] == "upstream_reset"
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes["server.address"], failed.attributes["server.port"]) == ("api.openai.com", 443)
    call = spans["penstock openai_chat"]
    assert (call.attributes["penstock.status"], call.attributes["penstock.cost_usd"]) == ("completed", 0.25)
    assert call.status.status_code is StatusCode.UNSET


def test_the_names_are_those_of_the_conventions(exported):
    played(exported.tracing, code="upstream_stalled")
    known = {
        value
        for module in (gen_ai_attributes, error_attributes, server_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    used = {name for span in exported.finished().values() for name in span.attributes}
    used |= {name for points in exported.metrics().values() for said, _, _ in points for name in said}
    assert {name for name in used if not name.startswith("penstock.")} <= known
    metrics = {value for name, value in vars(gen_ai_metrics).items() if name.isupper()}
    assert exported.metrics().keys() <= metrics


def test_the_kinds_units_and_bounds_are_those_of_the_conventions(exported):
    played(exported.tracing)
    (resource,) = exported.reader.get_metrics_data().resource_metrics
    told = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("conventions")
    for name, make in vars(gen_ai_metrics).items():
        if name.startswith("create_"):
            instrument = make(meter)
            instrument.record(1)
    (resource,) = reader.get_metrics_data().resource_metrics
    wanted = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    assert {name: metric.unit for name, metric in told.items()} == {name: wanted[name].unit for name in told}
    assert {type(metric.data) for metric in told.values()} == {Histogram}
    # Recorded for each chunk, which would be work for each token: `penstock_gap_seconds` has them.
    assert wanted.keys() - told.keys() == {gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK}


def test_what_is_passed_on_is_told_by_its_operation(exported):
    operations = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
    assert {CHAT, OPERATIONS["embeddings"]} <= operations
    about = Subject("p_1", "app", "relay", "bge", request_id="req_1", operation=OPERATIONS["embeddings"])
    exported.tracing(CallAccepted(about))
    exported.tracing(AttemptBegan(about, 1, "first", "a/m", "a", "m"))
    used = UsageReported(9)
    exported.tracing(AttemptEnded(about, 1, "first", "a/m", "a", "m", led=True, total_ms=100, usage=used))
    outcome = Outcome("completed", "p_1", "", (AttemptUse("a/m", "a", "m", used),))
    exported.tracing(StreamEnded(about, outcome, "a/m", None, Timing(total_ms=100), used))
    spans = exported.finished()
    call, attempt = spans["penstock relay"], spans["embeddings m"]
    assert (call.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert call.attributes[gen_ai_attributes.GEN_AI_OPERATION_NAME] == "embeddings"
    assert attempt.attributes[gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS] == 9
    assert gen_ai_attributes.GEN_AI_REQUEST_STREAM not in attempt.attributes
    assert "penstock.stream.id" not in call.attributes
    (told,) = exported.metrics()[gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION]
    assert told[0][gen_ai_attributes.GEN_AI_OPERATION_NAME] == "embeddings"


def test_a_file_has_no_model(exported):
    about = Subject("p_1", "app", "relay", "", operation="file")
    exported.tracing(CallAccepted(about))
    exported.tracing(AttemptBegan(about, 1, "first", "a", "a", ""))
    exported.tracing(AttemptEnded(about, 1, "first", "a", "a", "", total_ms=1))
    exported.tracing(StreamEnded(about, Outcome("completed", "p_1"), "a", None, Timing(total_ms=1)))
    spans = exported.finished()
    assert spans.keys() == {"penstock relay", "file"}
    assert all("gen_ai.request.model" not in span.attributes for span in spans.values())


def test_providers_are_called_as_the_conventions_call_them():
    wellknown = {each.value for each in gen_ai_attributes.GenAiProviderNameValues}
    named = {SYSTEMS.get(kind, kind) for kind in KINDS}
    assert {SYSTEMS[kind] for kind in ("azure", "bedrock", "gemini", "mistral", "vertex", "xai")} <= wellknown
    # Those that it does not know have the names of their kinds, and none of another's.
    for kind in KINDS:
        assert kind not in wellknown or SYSTEMS.get(kind, kind) == kind
    assert {"openai", "anthropic", "deepseek", "groq", "cohere"} <= named & wellknown


def test_traces_that_are_left_out_are_left_out_whole_and_metrics_go_on():
    quiet = Exported(sample=0.0)
    played(quiet.tracing)
    about = msgspec.structs.replace(SUBJECT, trace="")
    quiet.tracing(CallAccepted(about))
    began = AttemptBegan(about, 1, "first", "a/m", "a", "m")
    quiet.tracing(began)
    assert not int(quiet.tracing.parent_of(began)[-2:], 16) & TraceFlags.SAMPLED
    quiet.tracing(AttemptEnded(about, 1, "first", "a/m", "a", "m"))
    quiet.tracing(StreamEnded(about, Outcome("completed", "s_1"), "a/m"))
    # The first call came with a trace whose beginning was kept.
    assert {f"{span.context.trace_id:032x}" for span in quiet.spans.get_finished_spans()} <= {
        PARENT.split("-")[1]
    }
    assert quiet.metrics()[gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION]
    quiet.close()


def test_metrics_are_of_us_as_a_client_and_as_a_server(exported):
    played(exported.tracing)
    metrics = exported.metrics()
    durations = {
        said["gen_ai.provider.name"]: (count, total)
        for said, count, total in metrics["gen_ai.client.operation.duration"]
    }
    assert durations == {"openai": (1, 0.1), "anthropic": (1, 1.9)}
    tokens = {said["gen_ai.token.type"]: total for said, _, total in metrics["gen_ai.client.token.usage"]}
    assert tokens == {"input": 10, "output": 20}
    assert metrics["gen_ai.client.operation.time_to_first_chunk"][0][2] == 0.2
    assert metrics["gen_ai.server.request.duration"][0][2] == 2.0
    assert metrics["gen_ai.server.time_to_first_token"][0][2] == 0.3
    assert metrics["gen_ai.server.time_per_output_token"][0][2] == pytest.approx(1.7 / 19)


def test_what_nobody_counted_is_not_reported_as_usage(exported):
    played(exported.tracing, usage=UsageReported(10, 20, estimated=True))
    assert "gen_ai.client.token.usage" not in exported.metrics()
    assert exported.finished()["chat n"].attributes["penstock.usage.estimated"] is True


def test_a_refused_call_is_a_span_with_its_code(exported):
    exported.tracing(CallRefused(Subject("", "app", "r", "x"), "model_not_found", "client", 404))
    (span,) = exported.finished().values()
    assert span.attributes["error.type"] == "model_not_found"


def test_clients_cannot_make_metrics_grow_by_inventing_models(exported):
    for number in range(MAX_MODELS + 50):
        began = AttemptBegan(SUBJECT, number, "first", "a", "a", f"x-{number}")
        exported.tracing(began)
        exported.tracing(
            AttemptEnded(SUBJECT, number, "first", "a", "a", began.model, code="model_not_found")
        )
    (point,) = exported.metrics()["gen_ai.client.operation.duration"]
    assert point[0]["gen_ai.request.model"] == "other"


def test_what_was_said_is_in_a_span_only_where_that_is_wanted(exported):
    played(exported.tracing)
    assert "gen_ai.input.messages" not in exported.finished()["chat n"].attributes
    telling = Exported(transcripts=lambda stream: ("[asked]", "[answered]"))
    played(telling.tracing)
    said = telling.finished()["chat n"].attributes
    assert (said["gen_ai.input.messages"], said["gen_ai.output.messages"]) == ("[asked]", "[answered]")
    telling.close()


def test_whoever_is_asked_is_told_the_attempt_as_its_parent(exported):
    began = AttemptBegan(SUBJECT, 1, "first", "a/m", "a", "m")
    assert exported.tracing.parent_of(began) == ""
    exported.tracing(CallAccepted(SUBJECT))
    exported.tracing(began)
    told = exported.tracing.parent_of(began)
    assert told.split("-")[1] == PARENT.split("-")[1]
    assert told != PARENT
    exported.tracing(AttemptEnded(SUBJECT, 1, "first", "a/m", "a", "m"))
    exported.tracing(StreamEnded(SUBJECT, Outcome("completed", "s_1")))
    assert f"{exported.finished()['chat m'].context.span_id:016x}" == told.split("-")[2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT.upper(),
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_begins_a_trace(text):
    assert parse_parent(text) is None


@given(st.text(max_size=80))
def test_no_header_of_a_client_is_trouble(text):
    parse_parent(text)
