"""The policies' part of the composition root: keys, issuers, filters, moderators, prices, the ledger."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penstock.assembly.parts import Parts
from penstock.config import BadConfig, Config, Problem
from penstock.policies.browser_tokens import MAX_TTL
from penstock.policies.budget import Budgets
from penstock.policies.content_filter import ContentFilter, Scope
from penstock.policies.identities import TokensOfOthers
from penstock.policies.jwt_settings import IssuerSettings
from penstock.policies.limits import DAY, Limits
from penstock.policies.prices import Price, Prices
from penstock.policies.review import ReviewSettings
from penstock.policies.rulebook import Rulebook, RuleSettings
from penstock.providers.kinds import KINDS
from penstock.server.guard import normal_origin
from penstock.types.keys import KeyRecord, hash_key
from penstock.types.principals import Grant
from penstock.types.signals import Observer

if TYPE_CHECKING:
    import sqlalchemy as sa

    from penstock.ledger.keys import KeyDesk
    from penstock.ledger.ledger import Ledger
    from penstock.policies.moderator import Moderator


def configured_keys(config: Config) -> list[KeyRecord]:
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


def build_issuers(config: Config) -> TokensOfOthers | None:
    """Return who else signs tokens for us. Reads the files of their keys."""
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


def has_key_files(config: Config) -> bool:
    """Say whether public keys stand in files, which may have changed."""
    return any(said.public_key_file for said in config.jwt.values())


def build_filters(
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


def build_moderators(
    config: Config, observe: Observer | None, before: Parts | None
) -> "dict[str, Moderator]":
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


def build_ledger(config: Config, budgets: Budgets, limits: Limits) -> "tuple[Ledger, KeyDesk]":
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


def build_prices(config: Config) -> Prices:
    """Return what tokens cost: of one's own servers, and of models within the gateway, nothing is known."""
    table = {name: Price(**msgspec.structs.asdict(price)) for name, price in config.prices.items()}
    addresses = {
        name: provider.base_url or KINDS[config.kind(name)].base_url
        for name, provider in config.providers.items()
        if KINDS[config.kind(name)].keys
    }
    return Prices(table, addresses)
