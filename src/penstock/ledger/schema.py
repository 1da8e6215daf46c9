"""The tables of the ledger, as statements know them. How they came to be: `penstock.ledger.migrations`.

Times are Unix seconds, money is in nano-dollars (a whole number: sums are exact), lists are JSON texts.
"""

from typing import Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData()

API_KEYS: Final = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)
"""``record`` is the `KeyRecord` as JSON."""

USAGE: Final = sa.Table(
    "usage",
    METADATA,
    sa.Column("stream", sa.String(40), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("preset", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("provider_model", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
    sa.Column("estimated", sa.Boolean, nullable=False),
    sa.Column("cost", sa.BigInteger, nullable=True),
    sa.Column("total_ms", sa.Float, nullable=False),
    sa.Column("first_output_ms", sa.Float, nullable=False),
)
"""One row for each attempt; ``attempt`` 0 of a stream that made none. ``cost`` is NULL where nobody knows
the price. A row is written once: writing it again changes nothing."""
