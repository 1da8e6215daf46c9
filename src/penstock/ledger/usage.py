"""Statements about usage: rows put in, sums taken out."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from penstock.ledger.schema import USAGE
from penstock.types.usage import By, Question, Sum, UsageRow

MAX_GROUPS: Final = 1_000
"""Rows of one answer."""

USED_SLOT: Final = 600.0
"""Seconds of tokens that are told together."""

SUMS: Final = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def insert_rows(connection: sa.Connection, rows: Sequence[UsageRow]) -> None:
    """Put ``rows`` in; those that are there already change nothing."""
    if not rows:
        return
    sqlites = connection.dialect.name == "sqlite"
    insert = (sqlite.insert if sqlites else postgresql.insert)(USAGE).on_conflict_do_nothing()
    connection.execute(insert, [msgspec.structs.asdict(row) for row in rows])


def summarize(connection: sa.Connection, question: Question) -> list[Sum]:
    """Return sums, the dearest first; days in their order."""
    column = _column(question.by)
    kept = [USAGE.c.at >= question.since]
    if question.until is not None:
        kept.append(USAGE.c.at < question.until)
    if question.principal:
        kept.append(
            (USAGE.c.principal == question.principal)
            | USAGE.c.principal.startswith(f"{question.principal}/", autoescape=True)
        )
    kept += [USAGE.c[name] == value for name in ("team", "model") if (value := getattr(question, name))]
    none = USAGE.c.cost.is_(None) & (USAGE.c.attempt > 0)
    sums = [sa.func.coalesce(sa.func.sum(USAGE.c[name]), 0) for name in SUMS]
    cost = sa.func.coalesce(sa.func.sum(USAGE.c.cost), 0)
    found = connection.execute(
        sa.select(
            column,
            sa.func.count(sa.distinct(USAGE.c.stream)),
            sa.func.coalesce(sa.func.sum(sa.case((USAGE.c.attempt > 0, 1), else_=0)), 0),
            *sums,
            sa.func.coalesce(sa.func.sum(sa.case((USAGE.c.estimated, 1), else_=0)), 0),
            cost,
            sa.func.coalesce(sa.func.sum(sa.case((none, 1), else_=0)), 0),
        )
        .where(*kept)
        .group_by(column)
        .order_by(column if question.by == "day" else cost.desc(), column)
        .limit(MAX_GROUPS)
    )
    sums_found = [Sum(_named(question.by, name), *map(int, counts)) for name, *counts in found]
    return [one for one in sums_found if one.generations]


def costs_of(connection: sa.Connection, stream: str) -> dict[int, int | None]:
    """Return what the attempts of ``stream`` cost, by their numbers; None where nobody knows the price."""
    found = connection.execute(sa.select(USAGE.c.attempt, USAGE.c.cost).where(USAGE.c.stream == stream))
    return {int(attempt): None if cost is None else int(cost) for attempt, cost in found}


def _column(by: By) -> Any:
    if by == "total":
        return sa.literal("total").label("name")
    if by == "day":
        return sa.cast(sa.func.floor(USAGE.c.at / 86_400), sa.Integer).label("name")
    if by == "key":  # whose it is in the end: pages and users count as theirs
        return USAGE.c.key.label("name")
    return USAGE.c[by].label("name")


def _named(by: By, name: Any) -> str:
    return datetime.fromtimestamp(int(name) * 86_400, UTC).strftime("%Y-%m-%d") if by == "day" else str(name)


def spent_since(connection: sa.Connection, since: float) -> list[tuple[str, str, int]]:
    """Return what was spent since then: principal (without what it named itself), team, nano-dollars."""
    cost = sa.func.sum(USAGE.c.cost)
    found = connection.execute(
        sa.select(USAGE.c.principal, USAGE.c.team, cost)
        .where(USAGE.c.at >= since, USAGE.c.cost > 0)
        .group_by(USAGE.c.principal, USAGE.c.team)
    )
    sums: dict[tuple[str, str], int] = {}
    for principal, team, amount in found:
        key = (principal.partition("/")[0], team)
        sums[key] = sums.get(key, 0) + int(amount)
    return [(*key, amount) for key, amount in sums.items()]


def spent_by_tokens(connection: sa.Connection, since: float) -> dict[str, int]:
    """Return what tokens spent since then, by their account."""
    found = connection.execute(
        sa.select(USAGE.c.account, sa.func.sum(USAGE.c.cost))
        .where(USAGE.c.at >= since, USAGE.c.account != "", USAGE.c.cost > 0)
        .group_by(USAGE.c.account)
    )
    return {account: int(amount) for account, amount in found}


def used_since(connection: sa.Connection, since: float) -> list[tuple[str, str, str, float, int]]:
    """Return the tokens that were used since then: principal, team, model, about when, how many."""
    slot = sa.cast(sa.func.floor(USAGE.c.at / USED_SLOT), sa.BigInteger)
    tokens = sa.func.sum(USAGE.c.input_tokens + USAGE.c.output_tokens)
    columns = (USAGE.c.principal, USAGE.c.team, USAGE.c.model, slot)
    found = connection.execute(sa.select(*columns, tokens).where(USAGE.c.at >= since).group_by(*columns))
    return [
        (principal, team, model, int(at) * USED_SLOT, int(count))
        for principal, team, model, at, count in found
    ]
