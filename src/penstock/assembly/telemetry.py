"""The telemetry part of the composition root: who observes, and where scraped figures are read.

What has a current value is read here, at each scrape, from the parts that have it: the gateway, the store,
the connections, the readers. Nobody keeps it twice.
"""

import platform
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple, get_args
from urllib.parse import urlsplit

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

import penstock
from penstock.config import AlertRuleConfig, BadConfig, Config, Problem
from penstock.gateway.gateway import Gateway
from penstock.gateway.setup import Companion
from penstock.policies.limits import Limits
from penstock.policies.policy import Policy
from penstock.policies.transcripts import Transcripts
from penstock.providers.kinds import KINDS
from penstock.server.context import Context
from penstock.server.profiling import Recording
from penstock.streams.embedded import EmbeddedStore
from penstock.streams.memory import MemoryStore
from penstock.streams.split import SplitStore
from penstock.streams.store import Store
from penstock.telemetry.alert_rules import THRESHOLDS, AlertRule, When
from penstock.telemetry.alert_sending import Messengers, Target
from penstock.telemetry.alerts import Alerts
from penstock.telemetry.exposition import Exposition
from penstock.telemetry.lag import LoopLag
from penstock.telemetry.metrics import Metrics
from penstock.telemetry.places import Place
from penstock.telemetry.series import histogram
from penstock.types.buckets import COMMIT_BOUNDS, Buckets
from penstock.types.signals import AttemptBegan, Observer
from penstock.types.usage import Purse
from penstock.upstream.pool import Pool

if TYPE_CHECKING:
    from penstock.telemetry.alert_targets import AppriseTarget

SYSTEMS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""Kinds of provider that OpenTelemetry's conventions call otherwise."""

BREAKER = {"closed": 0, "half_open": 1, "open": 2}


DEMO: Final = "demo"


def alerting(
    config: Config,
    targets: Mapping[str, Target],
    purses: Callable[[], list[Purse]],
    gateway: Callable[[], Gateway],
) -> Alerts | None:
    """Return who looks after the rules; None where nobody is to be told."""
    if not targets:
        return None
    in_memory = config.store.kind == "memory"

    def disk_used() -> float | None:
        if in_memory:
            return None
        usage = shutil.disk_usage(config.store.path)
        return 1 - usage.free / usage.total

    return Alerts(
        alert_rules(config),
        Messengers(targets),
        purses=purses,
        disk_used=disk_used,
        healthy=lambda: gateway().store.healthy,
        # Not counted by signals: a target that a reload takes away closes no breaker.
        breakers=lambda: [n for n, one in gateway().health.statistics().items() if one.state != "closed"],
        host=platform.node(),
        clock=time.monotonic,
    )


def alert_rules(config: Config) -> list[AlertRule]:
    """Return the rules; those with a threshold that suits everybody where none are named."""
    said = config.alerts.rules or {when: AlertRuleConfig(when) for when in get_args(When)}
    rules = []
    for name, one in said.items():
        fields = msgspec.structs.asdict(one)
        if one.above is None:
            fields["above"] = THRESHOLDS[one.when]
        rules.append(AlertRule(name, **fields))
    return rules


class Measuring(NamedTuple):
    """The parts that measure, where metrics are wanted."""

    metrics: Metrics
    lag: LoopLag
    commits: Buckets


def measuring(config: Config, model_of: Callable[[str], str], keys: Collection[str]) -> Measuring | None:
    """Return what measures; None where that is switched off. ``keys`` are those of the configuration, also
    after a reload."""
    said = config.telemetry.metrics
    if not said.enabled:
        return None
    return Measuring(
        Metrics(model_of, keys=keys if said.by_key else None), LoopLag(time.monotonic), Buckets(COMMIT_BOUNDS)
    )


def places(config: Config) -> dict[str, Place]:
    """Return who each provider is in the conventions' words, and where."""
    found = {DEMO: Place("penstock")}
    for name, provider in config.providers.items():
        kind = config.kind(name)
        url = urlsplit(provider.base_url or (KINDS[kind].base_url if kind in KINDS else ""))
        port = url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
        found[name] = Place(SYSTEMS.get(kind, kind), url.hostname or "", port)
    return found


def exposition(
    parts: Measuring,
    gateway: Gateway,
    context: Context,
    limits: Limits,
    pools: Mapping[str, Pool],
    config: Config,
) -> Exposition:
    """Return what answers a scrape."""
    return Exposition(
        parts.metrics.families,
        lambda: of_gateway(gateway, limits),
        lambda: of_readers(context),
        lambda: of_configuration(context),
        lambda: of_door(context),
        lambda: of_pools(pools),
        lambda: of_store(gateway.store),
        lambda: of_process(parts),
        slow=() if config.store.kind == "memory" else (lambda: of_disk(config.store.path),),
    )


def of_gateway(gateway: Gateway, limits: Limits) -> Iterator[Metric]:
    """Yield what the gateway and its targets are at."""
    yield histogram(
        "penstock_gap_seconds",
        "Time between pieces of answers with output in them.",
        ("target",),
        (((target,), buckets) for target, buckets in gateway.gaps.items()),
    )
    state = GaugeMetricFamily(
        "penstock_breaker_state", "Of a target: 0 closed, 1 half open, 2 open.", labels=["target"]
    )
    running = GaugeMetricFamily(
        "penstock_target_running", "Attempts going on at a target.", labels=["target"]
    )
    for name, target in gateway.health.statistics().items():
        state.add_metric([name], BREAKER[target.state])
        running.add_metric([name], target.running)
    yield state
    yield running
    yield GaugeMetricFamily("penstock_queue_waiting", "Calls that wait to be let in.", limits.waiting)
    yield GaugeMetricFamily(
        "penstock_ready", "Whether new calls are taken and can be stored.", float(not gateway.unready)
    )


def of_readers(context: Context) -> Iterator[Metric]:
    """Yield how far readers are behind."""
    lags = [reader.lag for reader in context.heart.readers]
    yield GaugeMetricFamily(
        "penstock_reader_lag_entries", "Entries that readers are behind, in all.", sum(lags)
    )
    yield GaugeMetricFamily(
        "penstock_reader_lag_entries_max",
        "Entries that the last of the readers is behind.",
        max(lags, default=0),
    )
    yield GaugeMetricFamily(
        "penstock_readers_behind", "Readers that are behind.", sum(lag > 0 for lag in lags)
    )


def of_configuration(context: Context) -> Iterator[Metric]:
    """Yield how often the configuration was read again, where that can be."""
    if context.reload is not None:
        counts = context.reload.statistics()
        reloads = CounterMetricFamily(
            "penstock_config_reloads", "Times that the configuration was read again.", labels=["result"]
        )
        reloads.add_metric(["used"], counts.used)
        reloads.add_metric(["refused"], counts.refused)
        yield reloads


def of_door(context: Context) -> Iterator[Metric]:
    """Yield who is connected and who was turned away, where we accept connections ourselves."""
    if context.door is not None:
        door = context.door.statistics()
        yield GaugeMetricFamily(
            "penstock_connections", "Connections of clients, WebSockets among them.", door.connections
        )
        refused = CounterMetricFamily(
            "penstock_connections_refused",
            "Connections turned away: address, which had too many; total, since there were too many of all.",
            labels=["bound"],
        )
        refused.add_metric(["address"], door.refused_address)
        refused.add_metric(["total"], door.refused_total)
        yield refused


def of_pools(pools: Mapping[str, Pool]) -> Iterator[Metric]:
    """Yield what connections there are."""
    now = GaugeMetricFamily(
        "penstock_upstream_connections",
        "Connections to a provider: connecting, active, idle; and waiting: requests without one.",
        labels=["provider", "state"],
    )
    since = CounterMetricFamily(
        "penstock_upstream_connection_events",
        "Connections opened and TLS sessions resumed; requests that reused one, or were resent on another.",
        labels=["provider", "event"],
    )
    for name, found in pools.items():
        pool = found.statistics()
        for kind in ("connecting", "active", "idle", "waiting"):
            now.add_metric([name, kind], getattr(pool, kind))
        for kind in ("opened", "resumed", "reused", "resent"):
            since.add_metric([name, kind], getattr(pool, kind))
    yield now
    yield since


def of_store(store: Store) -> Iterator[Metric]:
    """Yield what is kept, on disk and in memory."""
    yield GaugeMetricFamily("penstock_store_healthy", "Whether streams can be stored.", float(store.healthy))
    disk = store.disk if isinstance(store, SplitStore) else store
    memory = store.memory if isinstance(store, SplitStore) else store
    streams = GaugeMetricFamily("penstock_store_streams", "Streams that are kept.", labels=["where"])
    size = GaugeMetricFamily("penstock_store_bytes", "Bytes of streams that are kept.", labels=["where"])
    waiting = GaugeMetricFamily(
        "penstock_store_uncommitted_bytes", "Bytes that wait for a commit.", labels=["where"]
    )
    if isinstance(memory, MemoryStore):
        kept = memory.statistics()
        streams.add_metric(["memory"], kept.streams)
        size.add_metric(["memory"], kept.bytes)
        waiting.add_metric(["memory"], kept.uncommitted_bytes)
    if isinstance(disk, EmbeddedStore):
        found = disk.statistics()
        streams.add_metric(["disk"], found.streams)
        size.add_metric(["disk"], found.sealed_bytes)
        waiting.add_metric(["disk"], found.uncommitted_bytes)
        yield GaugeMetricFamily("penstock_journal_bytes", "Size of the journal's files.", found.journal_bytes)
        yield GaugeMetricFamily("penstock_journal_files", "Files of the journal.", found.journal_files)
        yield GaugeMetricFamily(
            "penstock_unsealed_bytes", "Committed, and not in the catalogue yet.", found.unsealed_bytes
        )
        yield CounterMetricFamily(
            "penstock_committed_bytes", "Bytes written to the journal.", found.committed_bytes
        )
        yield CounterMetricFamily("penstock_commit_failures", "Commits that failed.", found.commit_failures)
        yield CounterMetricFamily(
            "penstock_seal_failures", "Segments that could not be sealed.", found.seal_failures
        )
    yield streams
    yield size
    yield waiting


def of_disk(path: str) -> Iterator[Metric]:
    """Yield what room there is. Asks the file system, which may take its time."""
    with suppress(OSError):
        room = shutil.disk_usage(path)
        yield GaugeMetricFamily("penstock_disk_free_bytes", "Room on the store's disk.", room.free)
        yield GaugeMetricFamily("penstock_disk_bytes", "Size of the store's disk.", room.total)


def of_process(parts: Measuring) -> Iterator[Metric]:
    """Yield how the process is doing."""
    yield histogram(
        "penstock_commit_seconds", "How long commits of the journal took.", (), [((), parts.commits)]
    )
    yield histogram(
        "penstock_loop_lag_seconds",
        "How late the event loop was, four times a second.",
        (),
        [((), parts.lag.seconds)],
    )
    yield InfoMetricFamily("penstock_build", "What is running.", {"version": penstock.__version__})


def alert_targets(config: Config) -> "Mapping[str, AppriseTarget]":
    """Return where alerts are sent. Raises `BadConfig`."""
    if not config.alerts.send:
        return {}
    try:
        from penstock.telemetry.alert_targets import BadTarget, targets_of
    except ImportError:
        what = "sending messages takes an optional part: pip install 'penstock[alerts]'"
        raise BadConfig([Problem("alerts.send", what)]) from None
    try:
        return targets_of(config.alerts.send)
    except BadTarget as bad:
        raise BadConfig([Problem(f"alerts.send.{bad.name}", bad.what)]) from None


class Traces(NamedTuple):
    """What exporting traces adds to the system."""

    observers: tuple[Observer, ...] = ()
    policies: tuple[Policy, ...] = ()
    companions: tuple[Companion, ...] = ()
    parent_of: Callable[[AttemptBegan], str] | None = None


def build_traces(config: Config) -> Traces:
    """Return what exports traces, if anything does. Raises `BadConfig`."""
    said = config.telemetry.otel
    if not said.enabled:
        return Traces()
    try:
        from penstock.telemetry.otel import Otel, OtelSettings
        from penstock.telemetry.tracing import Tracing
    except ImportError:
        what = "this wants OpenTelemetry, which is not installed: pip install 'penstock[otel]'"
        raise BadConfig([Problem("telemetry.otel.enabled", what)]) from None
    otel = Otel(OtelSettings(said.endpoint, said.headers, said.sample, said.metrics), penstock.__version__)
    transcripts = Transcripts() if said.content else None
    noted = transcripts.of if transcripts is not None else None
    tracing = Tracing(otel.tracer, otel.meter, places(config), transcripts=noted)

    def parent_of(began: AttemptBegan) -> str:
        told = any(fnmatchcase(began.provider, pattern) for pattern in said.propagate)
        return tracing.parent_of(began) if told else ""

    if transcripts is None:
        return Traces((tracing,), (), (otel,), parent_of)
    return Traces((transcripts, tracing), (transcripts,), (otel,), parent_of)


def recorder(seconds: float) -> Recording:
    """Return a recording of so many seconds. Raises `ImportError`."""
    from penstock.telemetry.profiler import Recording as Recorded

    return Recorded(seconds)
