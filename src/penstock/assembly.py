"""The composition root: the only place that names concrete parts and puts them together.

Nothing below knows what it was built with; nothing above exists. `assemble` turns a configuration
into a system that is ready to be entered (``async with system.gateway:``). It reads files, so it is
called before the loop runs.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from starlette.types import ASGIApp

from penstock import __version__
from penstock.config import (
    BadConfig,
    Config,
    PresetConfig,
    Problem,
    ProviderConfig,
    RouteConfig,
    TargetConfig,
    check,
    tls_settings,
)
from penstock.gateway.counting import Counter
from penstock.gateway.gateway import Gateway, GatewaySettings
from penstock.gateway.health import HealthSettings
from penstock.gateway.presets import Parameters, Preset, Variable
from penstock.gateway.publications import PublicationSettings
from penstock.gateway.relay import Relay
from penstock.gateway.rescue import RetrySettings
from penstock.gateway.router import Routing
from penstock.gateway.run import RunSettings
from penstock.gateway.setup import Companion, Setup
from penstock.policies.access import Access
from penstock.policies.accounting import Accounting
from penstock.policies.api_keys import KeyRing
from penstock.policies.browser_tokens import MAX_TTL, BrowserTokens
from penstock.policies.budget import Budget, Budgets
from penstock.policies.chain import Chain
from penstock.policies.content_filter import ContentFilter, Scope
from penstock.policies.content_log import ContentLog
from penstock.policies.identities import Identities, TokensOfOthers
from penstock.policies.jwt_settings import IssuerSettings
from penstock.policies.limits import DAY, Limit, Limits
from penstock.policies.policy import Policy
from penstock.policies.prices import Price, Prices
from penstock.policies.review import ReviewSettings
from penstock.policies.rulebook import Rulebook, RuleSettings
from penstock.policies.transcripts import Transcripts
from penstock.provider_assembly import Made, build_provider_again
from penstock.providers.kinds import KINDS
from penstock.providers.provider import Provider
from penstock.providers.scripted import ScriptedProvider
from penstock.routing_assembly import DEMO, build_routing, find_ollama, first_target
from penstock.server.activity import Activity
from penstock.server.app import build_app
from penstock.server.context import Context, Face, RouteSettings, ServerSettings
from penstock.server.files import read_pages
from penstock.server.guard import Guard, GuardSettings, normal_origin
from penstock.server.http import HttpSettings
from penstock.server.profiling import Recording
from penstock.server.proxies import parse_network
from penstock.server.serving import ServingSettings
from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.folder import Durability
from penstock.streams.memory import MemorySettings, MemoryStore
from penstock.streams.split import SplitStore
from penstock.streams.store import Store
from penstock.telemetry.logs import LogSettings
from penstock.telemetry.observers import Observers
from penstock.telemetry_assembly import alerting, exposition, measuring, places
from penstock.types.buckets import Buckets
from penstock.types.calls import on_disconnect
from penstock.types.keys import KeyRecord, hash_key
from penstock.types.principals import Grant
from penstock.types.signals import AttemptBegan, Observer
from penstock.types.usage import USD
from penstock.upstream.pool import Pool

if TYPE_CHECKING:
    import sqlalchemy as sa

    from penstock.ledger.keys import KeyDesk
    from penstock.ledger.ledger import Ledger
    from penstock.policies.moderator import Moderator
    from penstock.telemetry.alert_targets import AppriseTarget


class Parts(NamedTuple):
    """What of a configuration can be replaced while the gateway runs; made by `build_parts`."""

    config: Config
    providers: Mapping[str, Made]
    pools: Mapping[str, Pool]
    setup: Setup
    gateway: GatewaySettings
    filters: Mapping[str, tuple[Rulebook, ContentFilter]]
    moderators: "Mapping[str, Moderator]"
    limits: Sequence[Limit]
    budgets: Sequence[Budget]
    prices: Prices
    keys: Sequence[KeyRecord]
    issuers: TokensOfOthers | None
    face: Face


class Lasting(NamedTuple):
    """What stays as long as the process, whatever is reloaded: it counts, or holds what is at rest. ``pools``
    are the connections to the present providers."""

    limits: Limits
    budgets: Budgets
    accounting: Accounting
    ledger: "Ledger"
    ring: KeyRing
    identities: Identities
    pools: dict[str, Pool]
    observe: Observer | None
    tracing: Sequence[Policy]


class System(NamedTuple):
    """What `assemble` gives: the application, and what the server around it needs."""

    app: ASGIApp
    context: Context
    gateway: Gateway
    lasting: Lasting
    parts: Parts


def assemble(
    config: Config, environ: Mapping[str, str] = os.environ, observers: Sequence[Observer] = ()
) -> System:
    """Build everything ``config`` asks for; open nothing. ``observers`` are told what happens, besides those
    that the configuration has. Raises `BadConfig`."""
    if problems := check(config):
        raise BadConfig(problems)
    limits, budgets = Limits((), time.monotonic), Budgets((), time.time)
    ledger, desk = _ledger(config, budgets, limits)
    ring = KeyRing((), desk, clock=time.monotonic, wall=time.time)
    accounting = Accounting(
        Prices({}, {}), budgets, ledger, lambda model: first_target(gateway.setup.routing, model)
    )
    measures = measuring(config, lambda model: gateway.setup.routing.rule(model))
    alerts = alerting(config, alert_targets(config), budgets.purses, lambda: gateway)
    traces = _traces(config)
    activity = Activity(time.monotonic, time.time) if config.dashboard else None
    watching: list[Observer] = [
        *observers,
        *([measures.metrics] if measures else []),
        *([alerts] if alerts else []),
        *traces.observers,
        *([activity] if activity else []),
    ]
    observe = Observers(watching, lambda *used: accounting.prices.cost(*used)) if watching else None
    tokens = BrowserTokens(lambda: gateway.store.secret, time.time)
    identities = Identities(ring, None, tokens)
    lasting = Lasting(limits, budgets, accounting, ledger, ring, identities, {}, observe, traces.policies)
    parts = build_parts(config, environ, lasting)
    budgets.use(parts.budgets, {})
    companions: list[Companion] = [ledger, ring]
    companions += [measures.lag] if measures else []
    companions += [alerts] if alerts else []
    companions += traces.companions
    gateway = Gateway(
        _store(config, measures.commits if measures else None),
        parts.setup.providers,
        parts.setup.routing,
        parts.gateway,
        policy=parts.setup.policy,
        review=parts.setup.review,
        rule_companions=parts.setup.companions,
        companions=companions,
        on_orphan=accounting.settle_orphan,
        observe=observe,
        parent_of=traces.parent_of,
    )
    context = Context(
        gateway,
        parts.face.guard,
        parts.face.settings,
        pages=read_pages(),
        counter=Counter(gateway),
        relay=Relay(gateway),
        desk=desk,
        books=ledger,
        purses=budgets.purses,
        allowance=limits.allowance,
        minter=tokens,
        keys_changed=ring.refresh,
        metrics_access=config.telemetry.metrics.access,
        recorder=_recorder,
        activity=activity,
    )
    use_rules(parts, lasting)
    context.use(parts.face)
    if measures is not None:
        context.metrics = exposition(measures, gateway, context, limits, lasting.pools, config).render
    return System(build_app(context), context, gateway, lasting, parts)


def build_parts(
    config: Config, environ: Mapping[str, str], lasting: Lasting, before: Parts | None = None
) -> Parts:
    """Build what can be replaced; what is as in ``before`` is taken from there, with all that it knows.

    Reads files, so it is called before the loop runs, or in a thread. Raises `BadConfig`.
    """
    made = {
        name: build_provider_again(name, config, environ, before.providers.get(name) if before else None)
        for name in config.providers
    }
    providers: dict[str, Provider] = {name: one.provider for name, one in made.items()}
    if config.demo:
        demo = before.setup.providers.get(DEMO) if before else None
        providers.setdefault(DEMO, demo if isinstance(demo, ScriptedProvider) else ScriptedProvider())
    pools = {name: pool for one in made.values() for name, pool in one.pools.items()}
    found = find_ollama(config, environ, pools)
    if before and found and before.setup.routing.found == frozenset(found):
        found = {name: before.setup.providers[name] for name in found}
        pools |= {name: before.pools[name] for name in found}
    routing = build_routing(config, providers, found)
    providers |= found
    filters = _filters(config, lasting.observe, before)
    moderators = _moderators(config, lasting.observe, before)
    reviewers = tuple(moderators.values())
    # Accounting is the last: it is asked for its filter with the very call that it admitted.
    # Moderators cost time and money, so who is over a limit does not get to them.
    # Traces have what filters have let through.
    policies: Sequence[Policy] = (
        Access(time.time),
        *(one for _, one in filters.values()),
        lasting.limits,
        *reviewers,
        *([ContentLog()] if config.log.content else []),
        *lasting.tracing,
        lasting.accounting,
    )
    setup = Setup(
        providers,
        routing,
        Chain(policies),
        lambda call: next(filter(None, (one.review(call) for one in reviewers)), None),
        (*(book for book, _ in filters.values()), *reviewers),
    )
    same_issuers = before is not None and before.config.jwt == config.jwt and not _key_files(config)
    return Parts(
        config,
        made,
        pools,
        setup,
        _gateway_settings(config),
        filters,
        moderators,
        [Limit(**msgspec.structs.asdict(one)) for one in config.limits],
        [Budget(one.by, round(one.usd * USD), one.period, one.match) for one in config.budgets],
        _prices(config),
        _keys(config),
        before.issuers if before is not None and same_issuers else _issuers(config),
        Face(
            Guard(_guard(config), lasting.identities),
            _server_settings(config),
            routing.default_model,
            {name: _preset(name, said, routing) for name, said in config.presets.items()},
            config.listen.allowed_origins,
            config.listen.allow_credentials,
        ),
    )


def use_rules(parts: Parts, lasting: Lasting) -> None:
    """Have what lasts follow ``parts``, but for budgets, which may have to know what was spent."""
    lasting.limits.use(parts.limits)
    lasting.accounting.prices = parts.prices
    lasting.ring.use(parts.keys)
    lasting.identities.use(parts.issuers)
    lasting.pools.clear()
    lasting.pools.update(parts.pools)


async def reassemble(system: System, config: Config, environ: Mapping[str, str], before: Parts) -> Parts:
    """Have a running ``system``, which is as ``before``, go on by ``config``; return how it is now.

    What is under way goes on as it began. Raises `PenstockError`, `BadConfig` among them; then everything is
    as it was.
    """
    lasting, gateway = system.lasting, system.gateway
    parts = await asyncio.to_thread(build_parts, config, environ, lasting, before)
    spent: Mapping[float, Sequence[tuple[str, str, int]]] = {}
    if starts := set(lasting.budgets.missing(parts.budgets)):
        spent = await lasting.ledger.spent_since(starts)
    await gateway.setups.open(parts.setup)
    # From here on nothing waits: nobody sees half of it.
    gateway.use(parts.setup, parts.gateway)
    lasting.budgets.use(parts.budgets, spent)
    use_rules(parts, lasting)
    system.context.use(parts.face)
    return parts


def _gateway_settings(config: Config) -> GatewaySettings:
    return GatewaySettings(
        retention=config.store.retention,
        max_open_streams=config.store.max_open_streams,
        join=config.join,
        run=RunSettings(
            max_stream_bytes=config.store.max_stream_bytes,
            retry=RetrySettings(**msgspec.structs.asdict(config.retry)),
        ),
        health=HealthSettings(**msgspec.structs.asdict(config.breaker)),
        publications=_publications(config),
    )


def _server_settings(config: Config) -> ServerSettings:
    return ServerSettings(
        max_body_bytes=config.listen.max_body_bytes,
        commit_after=config.listen.commit_after,
        heartbeat=config.listen.heartbeat,
        send_timeout=config.listen.send_timeout,
        max_rids=config.listen.max_rids,
        max_append_bytes=config.publications.max_append_bytes,
        long_poll=config.publications.long_poll,
        trusted_proxies=tuple(map(parse_network, config.listen.trusted_proxies)),
        access_log=config.log.access,
        routes={name: _route(config, name) for name in config.routes.__struct_fields__},
    )


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


def _traces(config: Config) -> Traces:
    said = config.telemetry.otel
    if not said.enabled:
        return Traces()
    try:
        from penstock.telemetry.otel import Otel, OtelSettings
        from penstock.telemetry.tracing import Tracing
    except ImportError:
        what = "this wants OpenTelemetry, which is not installed: pip install 'penstock[otel]'"
        raise BadConfig([Problem("telemetry.otel.enabled", what)]) from None
    otel = Otel(OtelSettings(said.endpoint, said.headers, said.sample, said.metrics), __version__)
    transcripts = Transcripts() if said.content else None
    noted = transcripts.of if transcripts is not None else None
    tracing = Tracing(otel.tracer, otel.meter, places(config), transcripts=noted)

    def parent_of(began: AttemptBegan) -> str:
        told = any(fnmatchcase(began.provider, pattern) for pattern in said.propagate)
        return tracing.parent_of(began) if told else ""

    if transcripts is None:
        return Traces((tracing,), (), (otel,), parent_of)
    return Traces((transcripts, tracing), (transcripts,), (otel,), parent_of)


def _recorder(seconds: float) -> Recording:
    """Return a recording of so many seconds. Raises `ImportError`."""
    from penstock.telemetry.profiler import Recording as Recorded

    return Recorded(seconds)


def serving(config: Config) -> ServingSettings:
    """Return the server's part of ``config``."""
    listen = config.listen
    http = HttpSettings(
        max_connections=listen.max_connections,
        max_websockets=listen.max_websockets,
        ping=listen.ping,
        send_timeout=listen.send_timeout,
    )
    tls = tls_settings(listen.tls) if listen.tls is not None else None
    return ServingSettings(host=listen.host, port=listen.port, drain=listen.drain, http=http, tls=tls)


def log_settings(config: Config) -> LogSettings:
    """Return the log's part of ``config``."""
    return LogSettings(config.log.format, config.log.level)


def _route(config: Config, name: str) -> RouteSettings:
    route: RouteConfig = getattr(config.routes, name)
    at_rest = route.at_rest
    if not at_rest:
        at_rest = "memory" if config.store.kind == "memory" else config.store.durability
    return RouteSettings(
        on_disconnect=on_disconnect(route.on_disconnect) if route.on_disconnect else None,
        retention=route.retention,
        at_rest=at_rest,
    )


def _publications(config: Config) -> PublicationSettings:
    wanted, store = config.publications, config.store
    at_rest = wanted.at_rest or ("memory" if store.kind == "memory" else store.durability)
    room = min(store.max_bytes, store.max_memory_bytes) if at_rest == "memory" else store.max_bytes
    return PublicationSettings(
        max_stream_bytes=wanted.max_stream_bytes,
        max_bytes=wanted.max_bytes or room // 2,
        max_streams=wanted.max_streams,
        max_streams_per_owner=wanted.max_streams_per_owner,
        retention=wanted.retention,
        at_rest=at_rest,
    )


def _guard(config: Config) -> GuardSettings:
    listen = config.listen
    return GuardSettings((*listen.allowed_hosts, listen.host), listen.allowed_origins, config.anonymous)


def _keys(config: Config) -> list[KeyRecord]:
    """Return the keys that the configuration has."""
    return [
        KeyRecord(
            f"config.{name}",
            name,
            key.removeprefix("sha256:") if key.startswith("sha256:") else hash_key(key),
            team=said.team,
            admin=said.admin,
            grant=Grant(said.models, said.routes, tuple(map(normal_origin, said.origins)), said.addresses),
        )
        for name in config.keys
        for said in [config.key(name)]
        for key in [said.key]
    ]


def _issuers(config: Config) -> TokensOfOthers | None:
    if not config.jwt:
        return None
    import httpx

    from penstock.policies.jwt import Issuer, Issuers

    made = []
    for name, said in config.jwt.items():
        fields = msgspec.structs.asdict(said)
        file = fields.pop("public_key_file")
        settings = IssuerSettings(name, public_key=Path(file).read_text() if file else "", **fields)
        made.append(Issuer(settings, httpx.AsyncClient, clock=time.monotonic, wall=time.time))
    return Issuers(made)


def _key_files(config: Config) -> bool:
    """Say whether public keys stand in files, which may have changed."""
    return any(said.public_key_file for said in config.jwt.values())


def _filters(
    config: Config, observe: Observer | None, before: Parts | None
) -> dict[str, tuple[Rulebook, ContentFilter]]:
    """Return the filters, and their rules as they are at any time."""
    made = {}
    for name, said in config.filters.items():
        presets = _presets_with(config, name)
        if (
            before
            and before.config.filters.get(name) == said
            and _presets_with(before.config, name) == presets
        ):
            made[name] = before.filters[name]
            continue
        book = Rulebook(name, [RuleSettings(**msgspec.structs.asdict(rule)) for rule in said.rules])
        fields = {field: getattr(said, field) for field in Scope.__struct_fields__ if field != "presets"}
        made[name] = book, ContentFilter(name, book.current, Scope(**fields, presets=presets), observe)
    return made


def _presets_with(config: Config, name: str) -> tuple[str, ...]:
    """Return the presets that choose the filter ``name``."""
    return tuple(preset for preset, about in config.presets.items() if name in about.filters)


def _moderators(config: Config, observe: Observer | None, before: Parts | None) -> "dict[str, Moderator]":
    """Return who outside is asked. They are reached as the environment says, by proxies or without."""
    if not config.moderators:
        return {}
    import httpx

    from penstock.policies.moderator import MAX_CONNECTIONS, Moderator, ModeratorSettings

    def http() -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=MAX_CONNECTIONS))

    made = {}
    for name, said in config.moderators.items():
        if before and before.config.moderators.get(name) == said:
            made[name] = before.moderators[name]
            continue
        fields = msgspec.structs.asdict(said)
        review = {field: fields.pop(field) for field in ReviewSettings.__struct_fields__ if field != "closed"}
        settings = ModeratorSettings(**fields, review=ReviewSettings(closed=said.fail == "closed", **review))
        made[name] = Moderator(name, settings, http, time.time, observe)
    return made


def _ledger(config: Config, budgets: Budgets, limits: Limits) -> "tuple[Ledger, KeyDesk]":
    """Return where usage and keys are kept. Raises `BadConfig`."""
    from penstock.ledger.database import Database, LedgerUnusable
    from penstock.ledger.keys import KeyDesk
    from penstock.ledger.ledger import Ledger
    from penstock.ledger.usage import spent_by_tokens, spent_since, used_since

    def restore(connection: "sa.Connection") -> Callable[[], None]:
        spent = {start: spent_since(connection, start) for start in set(budgets.starts())}
        tokens = spent_by_tokens(connection, time.time() - MAX_TTL)
        now = time.time()
        rows = used_since(connection, now - DAY)
        used = [(whose, team, model, max(0.0, now - at), count) for whose, team, model, at, count in rows]

        def ready() -> None:
            budgets.restore(spent, tokens)
            limits.restore(used)

        return ready

    try:
        database = Database(config.ledger_url)
    except LedgerUnusable as error:
        raise BadConfig([Problem("ledger.url", error.message)]) from None
    spool = None if config.store.kind == "memory" else Path(config.store.path) / "usage"
    return Ledger(database, spool, restore), KeyDesk(database, time.time)


def _prices(config: Config) -> Prices:
    """Return what tokens cost: of one's own servers, and of models within the gateway, nothing is known."""
    table = {name: Price(**msgspec.structs.asdict(price)) for name, price in config.prices.items()}
    addresses = {
        name: provider.base_url or KINDS[config.kind(name)].base_url
        for name, provider in config.providers.items()
        if KINDS[config.kind(name)].keys
    }
    return Prices(table, addresses)


def _preset(name: str, said: PresetConfig, routing: Routing) -> Preset:
    variables = {one: Variable(**msgspec.structs.asdict(about)) for one, about in said.variables.items()}
    return Preset(
        name,
        said.model or routing.default_model,
        said.system,
        said.content,
        said.description,
        variables,
        Parameters(**msgspec.structs.asdict(said.parameters)),
    )


def _store(config: Config, commits: Buckets | None) -> Store:
    store = config.store
    memory = MemorySettings(
        max_streams=store.max_streams, max_bytes=min(store.max_bytes, store.max_memory_bytes)
    )
    if store.kind == "memory":
        return MemoryStore(memory)
    kept = {_route(config, name).at_rest for name in config.routes.__struct_fields__}
    kept.add(_publications(config).at_rest)
    durability: Durability = "process"
    if "host" in kept:
        durability = "mixed" if "process" in kept else "host"
    disk = EmbeddedStore(
        Path(store.path),
        EmbeddedSettings(durability=durability, max_streams=store.max_streams, max_bytes=store.max_bytes),
        commits=commits,
    )
    return SplitStore(disk, MemoryStore(memory))  # a client may want its stream kept in memory alone


def upstream_config(config: Config, url: str, api_key: str, model: str) -> Config:
    """Return ``config`` with one more OpenAI-compatible server at ``url``, which answers ``model``.

    Without a model, every name that nobody else answers goes there.
    """
    name = "upstream"
    providers = {name: ProviderConfig(base_url=url, api_key=api_key), **config.providers}
    changed = msgspec.structs.replace(config, providers=providers)
    if not model:
        return changed
    models = {model: [TargetConfig(name, model)], **config.models}
    return msgspec.structs.replace(changed, models=models, default_model=config.default_model or model)
