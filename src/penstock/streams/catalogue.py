"""The catalogue of the embedded store: every statement that is put to its SQLite database.

Plain functions over a connection; whoever calls them owns the connection and its thread
(`penstock.streams.embedded`). Writes are idempotent, since a transaction whose commit failed is
tried again, and a journal that was sealed may be replayed. Nothing in here waits for anything but
the database, or knows the journal.
"""

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from penstock.streams.journal import decode_records, encode_records, records_overhead
from penstock.streams.store import Record, StreamInfo

READ_BYTES: Final = 256 * 1024
"""About how much one read returns at most; always at least one record."""

BUSY_TIMEOUT: Final = 1.0
"""Seconds to wait for somebody else's lock on the database, such as a backup's."""

ERASE_BYTES: Final = 4 * 1024 * 1024
"""About how much one transaction erases: it is rewritten with zeroes."""

MOVES: Final = ("status", "tail", "bytes", "epoch", "epoch_start", "closed_at")
"""The fields of `StreamInfo` that change after the creation: columns win over the stored info."""

_BEYOND: Final = "\U0010ffff"
"""Above every id."""

_ROW: Final = "info, idempotency_key, status, tail, bytes, epoch, epoch_start, closed_at"

_CHECK: Final = struct.Struct("<I")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StreamInfo).decode


class Seal(NamedTuple):
    """Store a stream's row as ``info`` says, and its records from ``first`` on (may be none).

    ``info.tail`` and ``info.bytes`` count what is sealed with this. ``known`` is whether the row is
    there already: one that was erased since is not to come back.
    """

    info: StreamInfo
    known: bool
    first: int
    kinds: bytes
    data: Sequence[bytes]


class Erase(NamedTuple):
    """Erase a stream; remember until ``remember`` (Unix seconds) that it is gone."""

    stream: str
    remember: float


Change: TypeAlias = Seal | Erase


class Totals(NamedTuple):
    """What the catalogue holds: streams, and bytes of their records."""

    streams: int
    bytes: int


class Erased(NamedTuple):
    """The id and time of close of streams that were erased, and what is left."""

    streams: Sequence[tuple[str, float]]
    totals: Totals


class Facts(NamedTuple):
    """The store's epoch, and which journal files there must be (none if ``last < first``)."""

    epoch: int
    journal_first: int
    journal_last: int


class Bounds(NamedTuple):
    """What the closed streams may take up."""

    streams: int
    bytes: int


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, for any thread but one at a time. Raises `sqlite3.Error`."""
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)


def make_writable(connection: sqlite3.Connection, *, durable: bool) -> None:
    """Make ready for writing. ``durable``: a commit survives a power failure. Raises `sqlite3.Error`."""
    connection.execute("PRAGMA page_size = 8192")  # a new database's; segments are some 50 KiB
    connection.execute("PRAGMA secure_delete = ON").fetchone()
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA journal_size_limit = {16 * 1024 * 1024}").fetchone()


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the database for reading only."""
    connection = connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


# --- reading ----------------------------------------------------------------------------------


def _info(row: Sequence[object]) -> StreamInfo:
    info = _decode(row[0])  # type: ignore[arg-type]
    return msgspec.structs.replace(info, idempotency_key=row[1], **dict(zip(MOVES, row[2:], strict=True)))


def find(connection: sqlite3.Connection, stream: str) -> StreamInfo | None:
    """Return the stream's entry; its ``tail`` is what is sealed."""
    row = connection.execute(f"SELECT {_ROW} FROM streams WHERE id = ?", (stream,)).fetchone()
    return _info(row) if row else None


def find_key(connection: sqlite3.Connection, principal: str, key: str) -> StreamInfo | None:
    """Return the stream that holds the principal's idempotency key."""
    row = connection.execute(
        f"SELECT {_ROW} FROM streams WHERE principal = ? AND idempotency_key = ? AND idempotency_key <> ''",
        (principal, key),
    ).fetchone()
    return _info(row) if row else None


def newest(connection: sqlite3.Connection, principal: str, before: str, limit: int) -> Sequence[StreamInfo]:
    """Return the principal's streams below the id ``before`` (``""``: all), newest first."""
    rows = connection.execute(
        f"SELECT {_ROW} FROM streams WHERE principal = ? AND id < ? ORDER BY id DESC LIMIT ?",
        (principal, before or _BEYOND, limit),
    )
    return [_info(row) for row in rows]


def left_open(connection: sqlite3.Connection) -> Iterator[StreamInfo]:
    """Yield the streams that are not closed, oldest first."""
    for row in connection.execute(f"SELECT {_ROW} FROM streams WHERE closed_at IS NULL ORDER BY id"):
        yield _info(row)


def kept(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what is kept of open streams, by their ids."""
    return dict(connection.execute("SELECT stream, kept FROM kept").fetchall())


def is_gone(connection: sqlite3.Connection, stream: str) -> bool:
    """Say whether the stream was erased, as far as that is remembered."""
    return connection.execute("SELECT 1 FROM tombstones WHERE id = ?", (stream,)).fetchone() is not None


def read(connection: sqlite3.Connection, stream: str, after: int, limit: int) -> Sequence[Record]:
    """Return up to ``limit`` records (and about `READ_BYTES`) with ``seq > after``.

    Raises `ValueError` for a segment that is not as it was written.
    """
    records: list[Record] = []
    size = 0
    rows = connection.execute(
        """
        SELECT first_seq, data FROM segments WHERE stream = ?1 AND first_seq >= coalesce(
            (SELECT max(first_seq) FROM segments WHERE stream = ?1 AND first_seq <= ?2), 0)
        ORDER BY first_seq""",
        (stream, after + 1),
    )
    for first, data in rows:
        for record in decode_records(_checked(data), first):
            if record.seq <= after:
                continue
            size += len(record.data)
            if len(records) >= limit or (records and size > READ_BYTES):
                return records
            records.append(record)
        if len(records) >= limit or size >= READ_BYTES:
            break
    return records


def totals(connection: sqlite3.Connection) -> Totals:
    """Return how much is sealed."""
    return Totals(*connection.execute("SELECT streams, bytes FROM facts").fetchone())


def facts(connection: sqlite3.Connection) -> Facts:
    """Return the store's epoch and the journal's bounds."""
    return Facts(*connection.execute("SELECT epoch, journal_first, journal_last FROM facts").fetchone())


# --- writing ----------------------------------------------------------------------------------


def write(connection: sqlite3.Connection, changes: Iterable[Change]) -> Totals:
    """Make ``changes`` in one transaction and return the new totals. Raises `sqlite3.Error`."""
    with Transaction(connection):
        apply(connection, changes)
    return totals(connection)


def apply(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Make ``changes`` in the transaction that is open."""
    for change in changes:
        if isinstance(change, Seal):
            _seal(connection, change)
        else:
            _erase(connection, change.stream, change.remember)


def _seal(connection: sqlite3.Connection, seal: Seal) -> None:
    info = seal.info
    key = info.idempotency_key
    before = connection.execute("SELECT bytes FROM streams WHERE id = ?", (info.id,)).fetchone()
    expires_at = None if info.closed_at is None else info.closed_at + info.retention
    moves = tuple(getattr(info, name) for name in MOVES)
    if before is None:
        if seal.known:
            return
        if key:  # the claim that was granted last holds; there is no other unless something was lost
            connection.execute(
                "UPDATE streams SET idempotency_key = ''"
                " WHERE principal = ? AND idempotency_key = ? AND idempotency_key <> ''",
                (info.principal, key),
            )
        connection.execute(
            f"INSERT INTO streams (id, principal, info, idempotency_key, {', '.join(MOVES)}, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (info.id, info.principal, _encode(_plain(info)), key, *moves, expires_at),
        )
        if info.kept and info.status is None:
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (info.id, info.kept))
    else:
        connection.execute(
            f"UPDATE streams SET idempotency_key = ?, {', '.join(f'{name} = ?' for name in MOVES)},"
            " expires_at = ? WHERE id = ?",
            (key, *moves, expires_at, info.id),
        )
        if info.status is not None:
            drop_kept(connection, info.id)
    if seal.data:
        connection.execute(
            "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?)",
            (info.id, seal.first, seal.first + len(seal.data) - 1, _with_check(seal)),
        )
    connection.execute(
        "UPDATE facts SET streams = streams + ?, bytes = bytes + ?",
        (1, info.bytes) if before is None else (0, info.bytes - before[0]),
    )


def _plain(info: StreamInfo) -> StreamInfo:
    return msgspec.structs.replace(info, kept="") if info.kept else info


def drop_kept(connection: sqlite3.Connection, stream: str) -> None:
    """Forget what is kept of a stream."""
    connection.execute("DELETE FROM kept WHERE stream = ?", (stream,))


def _with_check(seal: Seal) -> bytes:
    """Return a segment's data: CRC-32 u32 of what follows, then its records."""
    encoded = encode_records(seal.kinds, seal.data)
    return _CHECK.pack(crc32(encoded)) + encoded


def _checked(data: bytes) -> bytes:
    encoded = data[_CHECK.size :]
    if len(data) < _CHECK.size or _CHECK.unpack_from(data)[0] != crc32(encoded):
        raise ValueError("a segment is damaged")
    return encoded


def _erase(connection: sqlite3.Connection, stream: str, remember: float) -> None:
    connection.execute("DELETE FROM segments WHERE stream = ?", (stream,))
    drop_kept(connection, stream)
    row = connection.execute("DELETE FROM streams WHERE id = ? RETURNING bytes", (stream,)).fetchone()
    if row:
        connection.execute("UPDATE facts SET streams = streams - 1, bytes = bytes - ?", row)
    connection.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", (stream, remember))


class Trimmed(NamedTuple):
    """How many bytes of records went, and what is left."""

    bytes: int
    totals: Totals


def trim(connection: sqlite3.Connection, stream: str, upto: int) -> Trimmed:
    """Erase segments, `ERASE_BYTES` of them about, that have no record beyond ``upto``. The oldest first.

    None erased means that nothing is left to do. Raises `sqlite3.Error`.
    """
    with Transaction(connection):
        rows = connection.execute(
            "SELECT first_seq, last_seq, length(data) FROM segments"
            " WHERE stream = ? AND last_seq <= ? ORDER BY first_seq",
            (stream, upto),
        )
        last = freed = 0
        for first, last, size in rows:
            freed += size - _CHECK.size - records_overhead(last - first + 1)
            if freed >= ERASE_BYTES:
                break
        rows.close()
        if last:
            connection.execute("DELETE FROM segments WHERE stream = ? AND last_seq <= ?", (stream, last))
            connection.execute("UPDATE streams SET bytes = bytes - ? WHERE id = ?", (freed, stream))
            connection.execute("UPDATE facts SET bytes = bytes - ?", (freed,))
    return Trimmed(freed, totals(connection))


def erase_some(
    connection: sqlite3.Connection, now: float, remember: float, bounds: Bounds, limit: int
) -> Erased:
    """Erase up to ``limit`` closed streams whose retention ran out, or that exceed ``bounds``.

    The oldest closed go first. None erased means that nothing is left to do. Also forgets up to
    ``limit`` ids that were to be remembered until ``now``.
    """
    with Transaction(connection):
        connection.execute(
            "DELETE FROM tombstones WHERE id IN"
            " (SELECT id FROM tombstones WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
            (now, limit),
        )
        victims = _some(
            connection.execute(
                "SELECT id, closed_at, bytes FROM streams WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
                (now, limit),
            ),
            streams=limit,
            size=ERASE_BYTES,
        )
        if not victims:
            held = totals(connection)
            excess = Totals(held.streams - bounds.streams, held.bytes - bounds.bytes)
            if excess.streams > 0 or excess.bytes > 0:
                victims = _some(
                    connection.execute(
                        "SELECT id, closed_at, bytes FROM streams WHERE closed_at IS NOT NULL"
                        " ORDER BY closed_at LIMIT ?",
                        (limit,),
                    ),
                    streams=excess.streams,
                    size=excess.bytes,
                    both=True,
                )
        for stream, _ in victims:
            _erase(connection, stream, remember)
    return Erased(victims, totals(connection))


def _some(
    rows: Iterable[tuple[str, float, int]], *, streams: int, size: int, both: bool = False
) -> Sequence[tuple[str, float]]:
    """Take rows until there are ``streams`` of them or (``both``: and) they hold ``size`` bytes."""
    taken: list[tuple[str, float]] = []
    for stream, closed_at, held in rows:
        reached = (streams <= 0, size <= 0)
        if all(reached) if both else any(reached):
            break
        taken.append((stream, closed_at))
        streams, size = streams - 1, size - held
    return taken


def note_journal(connection: sqlite3.Connection, first: int, last: int) -> None:
    """Note which journal files there must be from now on. Before they are unlinked."""
    connection.execute("UPDATE facts SET journal_first = ?, journal_last = ?", (first, last))


def note_epoch(connection: sqlite3.Connection, epoch: int) -> None:
    """Note the store's epoch."""
    connection.execute("UPDATE facts SET epoch = ?", (epoch,))


def empty_wal(connection: sqlite3.Connection) -> bool:
    """Move SQLite's write-ahead log into the database; say whether it is empty now."""
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


class Transaction:
    """A write transaction as a context: committed at its end, rolled back on an error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Takes the write lock on entering."""
        self._connection = connection

    def __enter__(self) -> None:
        """Begin."""
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit, or undo; a commit that fails is undone as well."""
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite may have rolled back by itself, on a full disk
            self._connection.execute("ROLLBACK")
