"""The ledger's database and the one thread that may touch it.

Everything that is put to it is a plain function over a connection, run in a transaction. Whoever calls
from the loop waits for the thread; the command line calls `Database.run` where it stands.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.pool import StaticPool

from penstock.ledger.migrations import NewerLedger, migrate
from penstock.types.errors import GatewayError

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process that writes the same SQLite file."""

CONNECT_TIMEOUT: Final = 5
"""Seconds to wait for a PostgreSQL that does not answer."""

FILE: Final = "ledger.sqlite"
"""In the data folder."""


class LedgerUnusable(GatewayError):
    """The ledger cannot be used as it is; the message is the operator's."""

    def __init__(self, message: str) -> None:
        """Not worth a retry."""
        super().__init__(message, code="ledger_unusable", status=503)


class LedgerUnavailable(GatewayError):
    """The ledger's database does not answer now."""

    def __init__(self) -> None:
        """Worth another try."""
        message = "The gateway's ledger cannot be reached at the moment. Try again shortly."
        super().__init__(message, code="ledger_unavailable", status=503, retryable=True, retry_after=5)


class Database:
    """A database by URL (`sqlite:///path`, `postgresql+psycopg://…`), or in memory with an empty one."""

    def __init__(self, url: str) -> None:
        """Opens nothing; raises `LedgerUnusable` for a URL that cannot be one, or whose driver is missing."""
        self._url = url
        try:
            self._parsed = sa.make_url(url or "sqlite://")
            if self._parsed.get_backend_name() == "postgresql":
                self._parsed = self._parsed.set(drivername="postgresql+psycopg")
            self._engine = self._made()
        except ModuleNotFoundError:
            raise LedgerUnusable(
                "For PostgreSQL install the extra: pip install 'penstock[postgres]'"
            ) from None
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ValueError):
            raise LedgerUnusable("The ledger's URL is not one: write postgresql://user@host/name") from None
        self._thread: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        """Without a password."""
        return f"<Database {self._parsed.render_as_string(hide_password=True)}>"

    @property
    def at_rest(self) -> bool:
        """Whether it outlives the process."""
        return bool(self._url)

    def _made(self) -> sa.Engine:
        if self._parsed.get_backend_name() != "sqlite":
            patience = {"connect_timeout": CONNECT_TIMEOUT}
            return sa.create_engine(self._parsed, pool_size=1, pool_pre_ping=True, connect_args=patience)
        options: dict[str, Any] = {"timeout": BUSY_TIMEOUT, "check_same_thread": False}
        engine = sa.create_engine(self._parsed, poolclass=StaticPool, connect_args=options)
        sa.event.listen(engine, "connect", _as_we_want_it)
        # The driver would begin a transaction of its own, later, and commit before it changes a table.
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine

    def open(self) -> None:
        """Make the file, bring the schema up to date. Blocks. Raises `LedgerUnusable` and the like."""
        path = self._parsed.database
        try:
            if self._parsed.get_backend_name() == "sqlite" and path:
                Path(path).parent.mkdir(0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.run(migrate)
        except NewerLedger as error:
            self.close()
            raise LedgerUnusable(f"{self!r} was written by a later version of Penstock: {error}.") from None
        except LedgerUnavailable:
            self.close()
            raise
        except OSError as error:
            raise LedgerUnusable(f"{self!r} cannot be opened: {error.strerror}.") from None

    def run(
        self, function: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function`` in a transaction. Blocks. Raises `LedgerUnavailable`."""
        try:
            with self._engine.begin() as connection:
                return function(connection, *args, **kwargs)
        except sa.exc.SQLAlchemyError as error:
            log.warning("ledger_failed", error=type(error).__name__, database=repr(self))
            raise LedgerUnavailable from error

    def close(self) -> None:
        """Let go of the database. Blocks."""
        self._engine.dispose()

    # --- from the loop -------------------------------------------------------------------------

    async def start(self) -> None:
        """As `open`, in a thread, which then serves `call`."""
        self._thread = ThreadPoolExecutor(1, "penstock-ledger")
        await asyncio.wrap_future(self._thread.submit(self.open))

    async def call(
        self, function: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, in the thread. What was begun is done to its end, also when the caller has gone."""
        return await self.submit(partial(self.run, function, *args, **kwargs))

    async def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` in the thread, outside of a transaction."""
        return await asyncio.wrap_future(self.submit_nowait(function, *args, **kwargs))

    def submit_nowait(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As `submit`, not waited for. Raises `LedgerUnavailable` when it is closed."""
        if self._thread is None:
            raise LedgerUnavailable
        return self._thread.submit(function, *args, **kwargs)

    async def aclose(self) -> None:
        """Do what was asked for, then let go."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            closing = thread.submit(self.close)
            thread.shutdown(wait=False)
            await asyncio.wrap_future(closing)


def _as_we_want_it(connection: object, _: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
