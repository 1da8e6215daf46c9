"""The ledger as one thing: rows come in at once and are in the database soon.

Rows are appended to a `Spool` in the loop, which a killed process does not lose, and put into the
database by its thread, every `FLUSH_AFTER` seconds while there are any. While the database cannot be
reached they wait where they are. A ledger in memory has no spool; then, and where the spool's disk is
full, rows wait in memory, within a bound.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import sqlalchemy as sa
import structlog

from penstock.ledger.database import Database, LedgerUnusable
from penstock.ledger.spool import Spool, read_rows
from penstock.ledger.usage import costs_of, insert_rows, spent_since, summarize
from penstock.types.errors import PenstockError
from penstock.types.usage import Question, Sum, UsageRow

log = structlog.get_logger(__name__)

FLUSH_AFTER: Final = 1.0
RETRY_AFTER: Final = 5.0
"""Seconds until rows are put into the database, and until that is tried again."""

BATCH: Final = 500
"""Rows of one transaction."""

MAX_WAITING: Final = 100_000
"""Rows that may wait in memory."""


class Ledger:
    """See the module's head."""

    def __init__(
        self,
        database: Database,
        folder: Path | None,
        on_open: Callable[[sa.Connection], Callable[[], None]] | None = None,
    ) -> None:
        """``folder`` is the spool's. ``on_open`` reads from the database when all rows of earlier lives are
        in it; what it returns is called in the loop."""
        self.database = database
        self._spool = Spool(folder) if folder is not None else None
        self._on_open = on_open
        self._waiting: list[UsageRow] = []
        self._spooled = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | asyncio.Future[None] | None = None
        self._open = False
        self.lost = 0

    def __repr__(self) -> str:
        """Say where it is, and what waits."""
        return f"<Ledger {self.database!r} {len(self._waiting) + self._spooled} rows wait>"

    async def open(self) -> None:
        """Open the database, put in what earlier lives left. Raises `LedgerUnusable`, `LedgerUnavailable`."""
        await self.database.start()
        try:
            ready = await self.database.submit(self._recover)
        except OSError as error:
            await self.database.aclose()
            raise LedgerUnusable(f"The ledger's folder cannot be used: {error.strerror}.") from None
        except BaseException:
            await self.database.aclose()
            raise
        self._open = True
        ready()

    def _recover(self) -> Callable[[], None]:
        if self._spool is not None:
            for path in self._spool.left():
                self._put_in(path)
            self._spool.open()
        return self.database.run(self._on_open) if self._on_open is not None else _nothing

    def _put_in(self, path: Path) -> None:
        for rows in read_rows(path, BATCH):
            self.database.run(insert_rows, rows)
        if self._spool is not None:
            self._spool.remove(path)

    # --- rows ----------------------------------------------------------------------------------

    def record_nowait(self, rows: Sequence[UsageRow]) -> None:
        """Keep ``rows``; a killed process does not lose them. Never raises."""
        if self._spool is not None and self._spool.append(rows):
            self._spooled += len(rows)
        elif len(self._waiting) + len(rows) <= MAX_WAITING:
            self._waiting += rows
        else:
            self.lost += len(rows)
            log.error("usage_lost", rows=len(rows), in_all=self.lost)
        self._flush_after(FLUSH_AFTER)

    def _flush_after(self, seconds: float) -> None:
        if self._timer is None and self._flushing is None and self._open:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, []
        spooled, self._spooled = self._spooled, 0
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._flushing = done

        def finish(job: Future[None]) -> None:
            loop.call_soon_threadsafe(self._flushed, job, waiting, spooled, done)

        self.database.submit_nowait(self._put, waiting, loop).add_done_callback(finish)

    def _put(self, waiting: Sequence[UsageRow], loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: put what waits in memory and in files into the database."""
        if self._spool is not None:
            made = self._spool.prepare()
            swapped: Future[tuple[int, Path]] = Future()
            spool = self._spool
            loop.call_soon_threadsafe(lambda: swapped.set_result(spool.use(made)))
            file, _ = swapped.result(timeout=60)
            os.close(file)
            for path in self._spool.left():
                if path != made[1]:
                    self._put_in(path)
        for start in range(0, len(waiting), BATCH):
            self.database.run(insert_rows, waiting[start : start + BATCH])

    def _flushed(
        self, job: Future[None], waiting: list[UsageRow], spooled: int, done: asyncio.Future[None]
    ) -> None:
        self._flushing = None
        error = job.exception()
        if error is not None:
            if not isinstance(error, PenstockError | OSError):
                log.error("ledger_crashed", exc_info=error)
            self._waiting = [*waiting, *self._waiting]  # some may be in: they change nothing there
            self._spooled += spooled
            self._flush_after(RETRY_AFTER)
        elif self._waiting or self._spooled:
            self._flush_after(FLUSH_AFTER)
        if not done.done():
            done.set_result(None)

    async def flush(self) -> None:
        """Put all that waits into the database now, if it can be reached."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting or self._spooled:
            self._flush()
            if self._flushing is not None:
                await asyncio.wait([self._flushing])

    async def aclose(self) -> None:
        """Put in what waits, then close."""
        await self.flush()
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._spool is not None:
            await self.database.submit(self._spool.close)
        await self.database.aclose()

    # --- questions -----------------------------------------------------------------------------

    async def spent_since(self, starts: Iterable[float]) -> Mapping[float, list[tuple[str, str, int]]]:
        """Return what was spent since each of ``starts``: principal, team, nano-dollars."""
        await self.flush()
        return {start: list(await self.database.call(spent_since, start)) for start in starts}

    async def summarize(self, question: Question) -> list[Sum]:
        """Return sums, of all that was settled until now."""
        await self.flush()
        return await self.database.call(summarize, question)

    async def costs_of(self, stream: str) -> dict[int, int | None]:
        """Return what the attempts of one stream cost, by their numbers, as far as that is written down."""
        return await self.database.call(costs_of, stream)


def _nothing() -> None:
    return None
