"""How the ledger's schema came to be: an append-only list, run by Alembic's operations.

A migration that has been released is never edited; a change is a new function at the end of
`MIGRATIONS`. All that are missing run in one transaction with the new number, so that two processes that
start at once, or one that is killed in the middle, leave a schema that is one of the list's.
"""

from collections.abc import Callable, Sequence
from typing import Final

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

_VERSION: Final = sa.Table("ledger_version", sa.MetaData(), sa.Column("number", sa.Integer, nullable=False))

_LOCK: Final = 0x70656E73
"""What PostgreSQL's advisory lock on migrations is called."""


class NewerLedger(Exception):
    """The database was written by a later version of Penstock."""


def m0001_keys_and_usage(op: Operations) -> None:
    """Keys and usage."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    text = [sa.Column(name, sa.Text, nullable=False) for name in ("principal", "key", "team", "account")]
    text += [sa.Column(name, sa.Text, nullable=False) for name in ("route", "preset", "model", "target")]
    text += [sa.Column(name, sa.Text, nullable=False) for name in ("provider", "provider_model")]
    counts = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
    op.create_table(
        "usage",
        sa.Column("stream", sa.String(40), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        *text,
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in counts),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=True),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("first_output_ms", sa.Float, nullable=False),
    )
    op.create_index("usage_by_time", "usage", ["at"])
    op.create_index("usage_by_account", "usage", ["account"])


MIGRATIONS: Final[Sequence[Callable[[Operations], None]]] = (m0001_keys_and_usage,)


def migrate(connection: sa.Connection) -> int:
    """Bring the schema up to date, in the transaction of ``connection``; return how many ran.

    Raises `NewerLedger`, `sqlalchemy.exc.SQLAlchemyError`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    found = 0
    if sa.inspect(connection).has_table(_VERSION.name):
        found = connection.execute(sa.select(_VERSION.c.number)).scalar_one()
    else:
        _VERSION.create(connection)
        connection.execute(_VERSION.insert().values(number=0))
    if found > len(MIGRATIONS):
        raise NewerLedger(f"version {found}, known up to {len(MIGRATIONS)}")
    operations = Operations(MigrationContext.configure(connection))
    for migration in MIGRATIONS[found:]:
        migration(operations)
    if found < len(MIGRATIONS):
        connection.execute(_VERSION.update().values(number=len(MIGRATIONS)))
    return len(MIGRATIONS) - found
