"""How the catalogue's schema came to be: an append-only list, numbered by ``PRAGMA user_version``.

A migration that has been released is never edited; a change is a new function at the end of
`MIGRATIONS`. Each runs in a transaction with its version number, so that a process that is killed
in the middle leaves the version before.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final


class NewerSchema(Exception):
    """The database was written by a later version of Penstock."""

    def __init__(self, found: int, known: int) -> None:
        """``found`` is the database's version, ``known`` the latest that this program knows."""
        super().__init__(f"schema version {found}, known up to {known}")
        self.found = found
        self.known = known


def m0001_streams(connection: sqlite3.Connection) -> None:
    """Streams, their segments, ids that are gone, and totals.

    ``streams.info`` is the `StreamInfo` as JSON; what changes after the creation, and what is looked
    up, has columns, which win over it. ``expires_at`` and ``closed_at`` are NULL while a stream is
    open. A segment's ``data`` is a CRC-32 (u32, little-endian) and what it is of: the records as
    `penstock.streams.journal.encode_records` returns them.
    """
    connection.execute("""
        CREATE TABLE streams (
            id TEXT NOT NULL PRIMARY KEY,
            principal TEXT NOT NULL,
            idempotency_key TEXT NOT NULL,
            info BLOB NOT NULL,
            status TEXT,
            tail INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            epoch_start INTEGER NOT NULL,
            closed_at REAL,
            expires_at REAL
        )""")
    connection.execute("""
        CREATE UNIQUE INDEX streams_by_key ON streams (principal, idempotency_key)
        WHERE idempotency_key <> ''""")
    connection.execute("CREATE INDEX streams_by_principal ON streams (principal, id)")
    connection.execute("CREATE INDEX streams_open ON streams (id) WHERE closed_at IS NULL")
    connection.execute("CREATE INDEX streams_by_expiry ON streams (expires_at) WHERE expires_at IS NOT NULL")
    connection.execute("CREATE INDEX streams_by_close ON streams (closed_at) WHERE closed_at IS NOT NULL")
    connection.execute("""
        CREATE TABLE segments (
            stream TEXT NOT NULL,
            first_seq INTEGER NOT NULL,
            last_seq INTEGER NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (stream, first_seq)
        )""")
    connection.execute("""
        CREATE TABLE tombstones (
            id TEXT NOT NULL PRIMARY KEY,
            expires_at REAL NOT NULL
        )""")
    connection.execute("CREATE INDEX tombstones_by_expiry ON tombstones (expires_at)")
    connection.execute("""
        CREATE TABLE facts (
            one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
            epoch INTEGER NOT NULL,
            streams INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            journal_first INTEGER NOT NULL,
            journal_last INTEGER NOT NULL
        )""")
    connection.execute("INSERT INTO facts VALUES (1, 0, 0, 0, 1, 0)")


def m0002_kept(connection: sqlite3.Connection) -> None:
    """What is kept of open streams so that another process can go on with them (`StreamInfo.kept`)."""
    connection.execute("CREATE TABLE kept (stream TEXT NOT NULL PRIMARY KEY, kept TEXT NOT NULL)")


MIGRATIONS: Final[Sequence[Callable[[sqlite3.Connection], None]]] = (m0001_streams, m0002_kept)


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the schema's version; 0 for an empty database."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def check_version(connection: sqlite3.Connection) -> int:
    """Return the schema's version, having written nothing. Raises `NewerSchema`."""
    found = schema_version(connection)
    if found > len(MIGRATIONS):
        raise NewerSchema(found, len(MIGRATIONS))
    return found


def migrate(connection: sqlite3.Connection) -> int:
    """Bring the schema up to date and return how many migrations ran. Raises `NewerSchema`."""
    found = check_version(connection)
    for version, migration in enumerate(MIGRATIONS[found:], found + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migration(connection)
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return len(MIGRATIONS) - found
