"""What exports traces and metrics by OTLP over HTTP: OpenTelemetry's SDK, as an optional part.

The SDK's own threads collect spans and send them every few seconds; a collector that is slow or away costs
answers nothing, and spans above the bound of the queue are dropped. `OTEL_…` variables of the environment
hold where the configuration says nothing.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

TRACES: Final = "/v1/traces"
METRICS: Final = "/v1/metrics"

EXPORT_TIMEOUT: Final = 3.0
"""Seconds that a batch may take, and so about how long leaving takes when the collector is away."""


class OtelSettings(msgspec.Struct, frozen=True):
    """Where telemetry goes. ``endpoint`` is the collector's address, without a path; empty: as the
    environment says. ``sample`` is the share of traces that begin here and are kept."""

    endpoint: str = ""
    headers: Mapping[str, str] = {}
    sample: float = 1.0
    metrics: bool = True


class Otel:
    """A companion of the gateway: holds the providers, and flushes them when it leaves."""

    def __init__(
        self,
        settings: OtelSettings,
        version: str,
        *,
        spans: SpanExporter | None = None,
        reader: MetricReader | None = None,
    ) -> None:
        """``spans`` and ``reader`` stand for the exporters by OTLP."""
        environment = Resource.create({SERVICE_VERSION: version})
        named = environment.attributes.get(SERVICE_NAME, "")
        if str(named).startswith("unknown_service"):
            environment = environment.merge(Resource({SERVICE_NAME: "penstock"}))
        base, headers = settings.endpoint.rstrip("/"), dict(settings.headers)
        self._tracers = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample)),
            resource=environment,
            shutdown_on_exit=False,
        )
        exporter = spans or OTLPSpanExporter(
            endpoint=base + TRACES if base else None, headers=headers or None, timeout=EXPORT_TIMEOUT
        )
        self._tracers.add_span_processor(BatchSpanProcessor(exporter))
        self._meters: MeterProvider | None = None
        if settings.metrics:
            reader = reader or PeriodicExportingMetricReader(
                OTLPMetricExporter(
                    endpoint=base + METRICS if base else None, headers=headers or None, timeout=EXPORT_TIMEOUT
                )
            )
            self._meters = MeterProvider([reader], resource=environment, shutdown_on_exit=False)
        self.tracer = self._tracers.get_tracer("penstock", version)
        self.meter = None if self._meters is None else self._meters.get_meter("penstock", version)

    def __repr__(self) -> str:
        """Say what is exported."""
        return f"<Otel traces{' and metrics' if self._meters else ''}>"

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def aclose(self) -> None:
        """Send what is left."""
        leaving = [asyncio.to_thread(self._tracers.shutdown)]
        if self._meters is not None:
            leaving.append(asyncio.to_thread(self._meters.shutdown))
        await asyncio.gather(*leaving)
