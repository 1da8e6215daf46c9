"""Traces and metrics by OpenTelemetry's conventions for generative AI: an observer that keeps spans.

    penstock openai_chat          SERVER   the call, from before its queue to its end
    ├── chat gpt-4o               CLIENT   an attempt: gen_ai.* as the conventions have it, server.address
    └── chat claude-sonnet-4-5    CLIENT   the next one; `penstock.attempt.reason` says why

    penstock relay                SERVER   a call that is passed on
    └── embeddings bge-m3         CLIENT   its attempt

Only the API of OpenTelemetry is used here; `penstock.telemetry.otel` builds what exports. The conventions
are still moving: names are those of the GenAI conventions 1.41, and tests hold them against the package.
Nothing of what was asked or answered is in a span, unless the operator wants it (`transcripts`).
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from opentelemetry import trace
from opentelemetry.metrics import Meter
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

from penstock.telemetry.places import Place
from penstock.types.signals import (
    AnySignal,
    AttemptBegan,
    AttemptEnded,
    CallAccepted,
    CallRefused,
    FirstOutput,
    StreamEnded,
    Subject,
)
from penstock.types.usage import USD

DURATION_BOUNDS: Final = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
TOKEN_BOUNDS: Final = tuple(4**n for n in range(14))
FIRST_BOUNDS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
TOKEN_TIME_BOUNDS: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""As the conventions advise."""

MAX_MODELS: Final = 200
"""Names of models that metrics tell apart; only those that have answered, since clients choose names."""

_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


Transcripts: TypeAlias = Callable[[str], tuple[str, str] | None]
"""Gives what was asked and answered in a stream, as JSON; None where that is not known."""


class Tracing:
    """See the module's head."""

    def __init__(
        self,
        tracer: Tracer,
        meter: Meter | None,
        places: Mapping[str, Place],
        *,
        transcripts: Transcripts | None = None,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        """``meter`` is None where only traces are wanted; ``places`` are by provider. ``transcripts``, where
        it is wanted what was asked and answered. ``wall`` is Unix time in nanoseconds."""
        self._tracer = tracer
        self._places = places
        self._transcripts = transcripts
        self._wall = wall
        self._calls: dict[str, Span] = {}
        self._attempts: dict[tuple[str, int], Span] = {}
        self._models: set[str] = set()
        self._instruments = None if meter is None else _Instruments(meter)

    def __repr__(self) -> str:
        """Say what is open."""
        return f"<Tracing {len(self._calls)} calls, {len(self._attempts)} attempts>"

    def __call__(self, signal: AnySignal) -> None:
        """Begin or end a span, if ``signal`` is about one."""
        match signal:
            case CallAccepted():
                if not signal.existing:
                    self._accepted(signal)
            case CallRefused():
                span = self._call_span(signal.subject, self._wall())
                _fail(span, signal.code)
                span.end()
            case AttemptBegan():
                self._began(signal)
            case FirstOutput():
                if (call := self._calls.get(signal.subject.stream)) is not None:
                    call.add_event("penstock.first_output", {"penstock.target": signal.target})
            case AttemptEnded():
                self._attempt_over(signal)
            case StreamEnded():
                self._over(signal)

    def parent_of(self, began: AttemptBegan) -> str:
        """Return the `traceparent` for whoever is asked by this attempt; empty if there is none."""
        span = self._attempts.get((began.subject.stream, began.number))
        if span is None or not (context := span.get_span_context()).is_valid:
            return ""
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    # --- spans -----------------------------------------------------------------------------------

    def _call_span(self, subject: Subject, start: int) -> Span:
        said: dict[str, AttributeValue] = {
            "gen_ai.operation.name": subject.operation,
            "penstock.route": subject.route,
            "penstock.principal": subject.principal,
        }
        more = {
            "gen_ai.request.model": subject.model,
            "penstock.stream.id": "" if subject.passed_on else subject.stream,
            "penstock.team": subject.team,
            "penstock.preset": subject.preset,
            "penstock.request.id": subject.request_id,
        }
        said |= {name: value for name, value in more.items() if value}
        context = None
        if (parent := parse_parent(subject.trace)) is not None:
            context = trace.set_span_in_context(NonRecordingSpan(parent))
        name = f"penstock {subject.route}"
        return self._tracer.start_span(name, context, SpanKind.SERVER, said, start_time=start)

    def _accepted(self, signal: CallAccepted) -> None:
        subject = signal.subject
        span = self._call_span(subject, self._wall() - round(signal.queued_ms * 1e6))
        if signal.queued_ms:
            span.set_attribute("penstock.queue_ms", signal.queued_ms)
        if signal.taken_up:
            span.set_attribute("penstock.taken_up", True)
        self._calls[subject.stream] = span

    def _began(self, signal: AttemptBegan) -> None:
        subject, model = signal.subject, signal.model
        stream = subject.stream
        call = self._calls.get(stream)
        said: dict[str, AttributeValue] = {
            **self._about(signal.provider, subject.operation),
            **({"gen_ai.request.model": model} if model else {}),
            **({} if subject.passed_on else {"gen_ai.request.stream": True}),
            "penstock.target": signal.target,
            "penstock.attempt.number": signal.number,
            "penstock.attempt.reason": signal.reason,
        }
        self._attempts[stream, signal.number] = self._tracer.start_span(
            f"{subject.operation} {model}".rstrip(),
            None if call is None else trace.set_span_in_context(call),
            SpanKind.CLIENT,
            said,
            start_time=self._wall(),
        )

    def _attempt_over(self, signal: AttemptEnded) -> None:
        span = self._attempts.pop((signal.subject.stream, signal.number), None)
        if span is None:
            return
        if signal.response_model:
            span.set_attribute("gen_ai.response.model", signal.response_model)
        if signal.response_id:
            span.set_attribute("gen_ai.response.id", signal.response_id)
        if signal.finish_reasons:
            span.set_attribute("gen_ai.response.finish_reasons", signal.finish_reasons)
        if signal.wait_ms:
            span.set_attribute("gen_ai.response.time_to_first_chunk", signal.wait_ms / 1000)
        usage = signal.usage
        if usage is not None and (usage.input_tokens or usage.output_tokens):
            span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
            for name, count in (
                ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
                ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens),
                ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens),
            ):
                if count:
                    span.set_attribute(name, count)
            if usage.estimated:
                span.set_attribute("penstock.usage.estimated", True)
        told = self._transcripts(signal.subject.stream) if signal.led and self._transcripts else None
        if told is not None:
            span.set_attribute("gen_ai.input.messages", told[0])
            span.set_attribute("gen_ai.output.messages", told[1])
        if signal.code:
            _fail(span, signal.code)
        span.end(self._wall())
        if self._instruments is not None:
            said = self._measured(signal, signal.provider, signal.model, proven=signal.led)
            self._instruments.attempt(signal, said)

    def _over(self, signal: StreamEnded) -> None:
        outcome = signal.outcome
        span = self._calls.pop(signal.subject.stream, None)
        if span is None:
            return
        span.set_attribute("penstock.status", outcome.status)
        span.set_attribute("penstock.attempts", len(outcome.attempts))
        if signal.target:
            span.set_attribute("penstock.target", signal.target)
        span.set_attribute("gen_ai.usage.input_tokens", outcome.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", outcome.output_tokens)
        if any(cost is not None for cost in signal.costs):
            span.set_attribute("penstock.cost_usd", sum(cost or 0 for cost in signal.costs) / USD)
        if outcome.code:
            _fail(span, outcome.code)
        span.end(self._wall())
        if self._instruments is not None and outcome.attempts:
            last = outcome.attempts[-1]
            said = self._measured(signal, last.provider, last.model, proven=not outcome.code)
            self._instruments.call(signal, said)

    def _about(self, provider: str, operation: str) -> dict[str, AttributeValue]:
        place = self._places.get(provider, Place(provider))
        said: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": place.system,
        }
        if place.address:
            said |= {"server.address": place.address, "server.port": place.port}
        return said

    def _measured(
        self, signal: AttemptEnded | StreamEnded, provider: str, model: str, *, proven: bool
    ) -> dict[str, AttributeValue]:
        if proven and len(self._models) < MAX_MODELS:
            self._models.add(model)
        known = model if model in self._models else "other"
        return {**self._about(provider, signal.subject.operation), "gen_ai.request.model": known}


class _Instruments:
    """The conventions' metrics: of us as a client of providers, and as a server of our clients."""

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, text: str, bounds: tuple[float, ...]) -> "_Record":
            made = meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)
            return made.record

        self._duration = histogram(
            "gen_ai.client.operation.duration", "s", "GenAI operation duration.", DURATION_BOUNDS
        )
        self._tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", TOKEN_BOUNDS
        )
        self._first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "From sending the request to a provider to its first output.",
            FIRST_BOUNDS,
        )
        self._served = histogram(
            "gen_ai.server.request.duration", "s", "From accepting a call to its end.", DURATION_BOUNDS
        )
        self._first_token = histogram(
            "gen_ai.server.time_to_first_token",
            "s",
            "From accepting a call to its first output, of those that completed.",
            FIRST_BOUNDS,
        )
        self._per_token = histogram(
            "gen_ai.server.time_per_output_token",
            "s",
            "Of an answer that completed, the mean time from one token to the next.",
            TOKEN_TIME_BOUNDS,
        )

    def attempt(self, signal: AttemptEnded, said: dict[str, AttributeValue]) -> None:
        if signal.wait_ms:
            self._first_chunk(signal.wait_ms / 1000, said)
        failed = {**said, "error.type": signal.code} if signal.code else said
        self._duration(signal.total_ms / 1000, failed)
        usage = signal.usage
        if usage is not None and not usage.estimated:  # who cannot count must not report
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count:
                    self._tokens(count, {**said, "gen_ai.token.type": kind})

    def call(self, signal: StreamEnded, said: dict[str, AttributeValue]) -> None:
        outcome, timing = signal.outcome, signal.timing
        if timing is None:
            return
        failed = {**said, "error.type": outcome.code} if outcome.code else said
        self._served(timing.total_ms / 1000, failed)
        if timing.first_output_ms and not outcome.code:
            self._first_token(timing.first_output_ms / 1000, said)
            used = signal.usage
            if used is not None and used.output_tokens > 1 and not used.estimated:
                rest = max(0.0, timing.total_ms - timing.first_output_ms) / (used.output_tokens - 1)
                self._per_token(rest / 1000, said)


_Record = Callable[[float, dict[str, AttributeValue]], None]


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR, code)


def parse_parent(text: str) -> SpanContext | None:
    """Read a W3C `traceparent`; None if it is none."""
    found = _PARENT.fullmatch(text)
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups()[:3])
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & 1))
    return context if context.is_valid else None
