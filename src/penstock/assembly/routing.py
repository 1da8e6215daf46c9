"""The routes' part of the composition: from what a configuration says of models to a `Routing`.

Pure but for the Ollama that may run on this machine, whose provider is made here when nobody configured one.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from penstock.assembly.providers import build_provider
from penstock.config import BadConfig, Config, Problem, ProviderConfig, TargetConfig, TimersConfig
from penstock.gateway.balance import Balance
from penstock.gateway.router import Pattern, Routing
from penstock.providers.http import parse_base_url
from penstock.providers.kinds import KINDS
from penstock.providers.ollama_host import find_address
from penstock.providers.provider import Provider, Target
from penstock.providers.scripted import DESCRIPTIONS, ScriptedProvider
from penstock.server.guard import is_loopback
from penstock.types.errors import ClientError
from penstock.types.timers import THINKING, USUAL, Timers
from penstock.upstream.pool import Pool

DEMO: Final = "demo"

OLLAMA: Final = "ollama"
"""The name of an Ollama that nobody configured."""


def find_ollama(config: Config, environ: Mapping[str, str], pools: dict[str, Pool]) -> Mapping[str, Provider]:
    """Return the Ollama that may run on this machine, now or later, unless the configuration has it; its
    connections stand in ``pools`` then."""
    try:
        address = find_address(environ.get("OLLAMA_HOST", ""))
        place = _place(address)
    except ValueError:  # it is Ollama's variable, and need not be right for a gateway without one
        return {}
    known = config.providers.values()
    kinds = map(config.kind, config.providers)
    if not config.discover or OLLAMA in config.providers or OLLAMA in kinds:
        return {}
    if any(_place(p.base_url) == place for p in known if p.base_url):
        return {}
    return {OLLAMA: build_provider(OLLAMA, "ollama", ProviderConfig(base_url=address), environ, pools)}


def _place(url: str) -> tuple[str, int]:
    origin, _ = parse_base_url(url)
    return "localhost" if is_loopback(origin.host) else origin.host, origin.port


def build_routing(config: Config, providers: Mapping[str, Provider], found: Collection[str]) -> Routing:
    """Return the routes of ``config``. ``found`` are providers that it does not name. Raises `BadConfig`."""
    models: dict[str, tuple[Target, ...]] = {}
    patterns: list[Pattern] = []
    balance: dict[str, Balance] = {}
    usual = _timers(config.timers)
    thinking = _timers(config.timers, usual=THINKING)

    def anything(provider: str) -> Target:
        return Target(provider, provider, "*", timers=usual, thinking=thinking)

    for name in config.models:
        said = config.model(name)
        made = tuple(_target(config, target, said.timers) for target in said.targets)
        if said.balance != "order":
            balance[name] = said.balance
        if "*" in name:
            # `near/*` names a provider's models behind a prefix of the operator's choice.
            patterns.append(Pattern(name, made, strip=name[:-1] if name.endswith("/*") else ""))
        else:
            models[name] = made
    if isinstance(providers.get(DEMO), ScriptedProvider) and config.demo:
        for name in DESCRIPTIONS:
            own = Target(f"{DEMO}/{name}", DEMO, name, tries=1, continuation="prefill", timers=usual)
            models.setdefault(name, (own,))
    reached = [name for name in config.providers if config.kind(name) != "scripted"]
    patterns.extend(Pattern(f"{name}/*", (anything(name),), strip=f"{name}/") for name in reached)
    # Nothing said about models: who made one is often in its name, and what else is not known by name goes to
    # the first real provider.
    if not config.models:
        for kind in dict.fromkeys(config.kind(name) for name in reached):
            first = next(name for name in reached if config.kind(name) == kind)
            patterns.extend(
                Pattern(pattern, (anything(first),))
                for pattern in KINDS[kind].models
                if kind != "openai" or not config.providers[first].base_url or first == kind
            )
    rest = None
    if reached and not config.models:
        rest = Pattern("*", (anything(reached[0]),))
    own_names = [name for name in config.providers if config.kind(name) == "ollama"]
    named = next((name for name in config.models if "*" not in name), "")
    default = config.default_model or named or (DEMO if config.demo else "")
    routing = Routing(
        models,
        tuple(patterns),
        default,
        listed=(*own_names, *found),
        found=frozenset(found),
        rest=rest,
        unlisted=frozenset(name for name, p in config.providers.items() if not p.list_models),
        balance=balance,
        hedged=frozenset(name for name in config.models if config.model(name).hedge),
        veiled=frozenset(n for n in config.models if config.model(n).show_model == "asked"),
        resumed=frozenset(n for n in config.models if config.model(n).on_restart == "continue"),
        timers=usual,
        thinking=thinking,
    )
    if config.default_model and not _may_answer(routing, own_names, config.default_model):
        raise BadConfig([Problem("default_model", _nobody(routing, config.default_model))])
    return routing


def _may_answer(routing: Routing, own_names: Collection[str], model: str) -> bool:
    """Say whether somebody may answer ``model``: what an Ollama has is known only while it runs, and one that
    nobody configured is meant by its name alone."""
    by_name = model.partition("/")[0] in routing.found
    return bool(own_names or by_name or routing.route_configured(model) or routing.route_rest(model))


def _nobody(routing: Routing, model: str) -> str:
    hint = routing.unknown(model, {}).message.partition(" Did you mean ")[2].partition(" GET ")[0]
    more = f"did you mean {hint.rstrip('?')}?" if hint else "name one of models, or <provider>/<its model>"
    return f"no route of this configuration knows this model: {more}"


def _target(config: Config, target: TargetConfig, of_model: TimersConfig) -> Target:
    scripted = target.provider == DEMO or config.kind(target.provider) == "scripted"
    return Target(
        f"{target.provider}/{target.model}",
        target.provider,
        target.model,
        context=target.context,
        weight=target.weight,
        tries=target.tries or int(scripted),  # what it was told to do it would do again
        continuation=target.continuation or ("prefill" if scripted else "prompt"),
        timers=_timers(config.timers, of_model, target.timers),
        thinking=_timers(config.timers, of_model, target.timers, usual=THINKING),
    )


def _timers(*said: TimersConfig, usual: Timers = USUAL) -> Timers:
    """Return the timers that are said last; ``usual`` are those that are said nowhere."""
    given = {
        name: value
        for one in said
        for name, value in msgspec.structs.asdict(one).items()
        if value is not None
    }
    return msgspec.structs.replace(usual, **given)


def first_target(routing: Routing, model: str) -> tuple[str, str] | None:
    """Return the provider and the model that ``model`` goes to first; None if the configuration says none."""
    try:
        target = routing.route(model)[0]
    except ClientError:
        return None
    return target.provider, target.model
