"""The composition root: the only place that names concrete parts and puts them together.

Nothing below knows what it was built with; nothing above exists. `assemble` turns a configuration
into a system that is ready to be entered (``async with system.gateway:``). It reads files, so it is
called before the loop runs.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from starlette.types import ASGIApp

from penstock.assembly.parts import Lasting, Parts
from penstock.assembly.policies import (
    build_filters,
    build_issuers,
    build_ledger,
    build_moderators,
    build_prices,
    configured_keys,
    has_key_files,
)
from penstock.assembly.providers import build_provider_again
from penstock.assembly.routing import DEMO, build_routing, find_ollama, first_target
from penstock.assembly.settings import build_preset, gateway_settings, guard_settings, server_settings
from penstock.assembly.stores import build_store
from penstock.assembly.telemetry import (
    alert_targets,
    alerting,
    build_traces,
    exposition,
    measuring,
    recorder,
)
from penstock.config import (
    BadConfig,
    Config,
    check,
)
from penstock.gateway.counting import Counter
from penstock.gateway.gateway import Gateway
from penstock.gateway.relay import Relay
from penstock.gateway.setup import Companion, Setup
from penstock.policies.access import Access
from penstock.policies.accounting import Accounting
from penstock.policies.api_keys import KeyRing
from penstock.policies.browser_tokens import BrowserTokens
from penstock.policies.budget import Budget, Budgets
from penstock.policies.chain import Chain
from penstock.policies.content_log import ContentLog
from penstock.policies.identities import Identities
from penstock.policies.limits import Limit, Limits
from penstock.policies.policy import Policy
from penstock.policies.prices import Prices
from penstock.providers.provider import Provider
from penstock.providers.scripted import ScriptedProvider
from penstock.server.activity import Activity
from penstock.server.app import build_app
from penstock.server.context import Context, Face
from penstock.server.files import read_pages
from penstock.server.guard import Guard
from penstock.telemetry.observers import Observers
from penstock.types.signals import Observer
from penstock.types.usage import USD


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
    ledger, desk = build_ledger(config, budgets, limits)
    ring = KeyRing((), desk, clock=time.monotonic, wall=time.time)
    accounting = Accounting(
        Prices({}, {}), budgets, ledger, lambda model: first_target(gateway.setup.routing, model)
    )
    counted: set[str] = set()
    measures = measuring(config, lambda model: gateway.setup.routing.rule(model), counted)
    alerts = alerting(config, alert_targets(config), budgets.purses, lambda: gateway)
    traces = build_traces(config)
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
    lasting = Lasting(
        limits, budgets, accounting, ledger, ring, identities, {}, observe, traces.policies, counted
    )
    parts = build_parts(config, environ, lasting)
    budgets.use(parts.budgets, {})
    companions: list[Companion] = [ledger, ring]
    companions += [measures.lag] if measures else []
    companions += [alerts] if alerts else []
    companions += traces.companions
    gateway = Gateway(
        build_store(config, measures.commits if measures else None),
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
        relay=Relay(gateway, observe=observe, parent_of=traces.parent_of),
        desk=desk,
        books=ledger,
        purses=budgets.purses,
        allowance=limits.allowance,
        minter=tokens,
        keys_changed=ring.refresh,
        metrics_access=config.telemetry.metrics.access,
        recorder=recorder,
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
    filters = build_filters(config, lasting.observe, before)
    moderators = build_moderators(config, lasting.observe, before)
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
    same_issuers = before is not None and before.config.jwt == config.jwt and not has_key_files(config)
    return Parts(
        config,
        made,
        pools,
        setup,
        gateway_settings(config),
        filters,
        moderators,
        [Limit(**msgspec.structs.asdict(one)) for one in config.limits],
        [Budget(one.by, round(one.usd * USD), one.period, one.match) for one in config.budgets],
        build_prices(config),
        configured_keys(config),
        before.issuers if before is not None and same_issuers else build_issuers(config),
        Face(
            Guard(guard_settings(config), lasting.identities),
            server_settings(config),
            routing.default_model,
            {name: build_preset(name, said, routing) for name, said in config.presets.items()},
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
    lasting.counted.clear()
    lasting.counted.update(parts.config.keys)
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
    lasting.budgets.use(parts.budgets, spent)
    use_rules(parts, lasting)
    gateway.use(parts.setup, parts.gateway)
    system.context.use(parts.face)
    return parts
