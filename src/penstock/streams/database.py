"""The threads of the embedded store: one that owns the folder and writes, one that reads.

Whoever submits work to them is in the loop; what comes back arrives there. Nothing else in the
store blocks, but for the journal's one write a tick.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Concatenate, Final, ParamSpec, TypeVar

import structlog

from penstock.streams import opening
from penstock.streams.folder import Durability, Folder, Reserve
from penstock.streams.opening import Opened
from penstock.types.errors import LogDamaged, StorageError

logger = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

READS_AT_ONCE: Final = 64
"""How many look-ups may be on their way to the thread that reads; more wait their turn."""


class Database:
    """An opened folder, and the threads that may touch it. `aclose` it."""

    def __init__(self, folder: Folder, durability: Durability) -> None:
        """Starts no thread yet."""
        self._folder = folder
        self._durability = durability
        self._loop = asyncio.get_running_loop()
        self._store = ThreadPoolExecutor(1, "penstock-store")
        self._read = ThreadPoolExecutor(1, "penstock-read")
        self._opened: Opened | None = None
        self._reading = asyncio.Semaphore(READS_AT_ONCE)

    async def open(self, reserve: Reserve, now: float) -> Opened:
        """Open the folder and recover (`penstock.streams.opening.open_folder`)."""
        job: Future[Opened] = self._store.submit(
            opening.open_folder, self._folder, reserve, self._durability, now
        )
        try:
            self._opened = await asyncio.wrap_future(job)
        except asyncio.CancelledError:  # the thread ends what it does, then gives back what it got
            job.add_done_callback(self._close_unused)
            raise
        finally:
            if self._opened is None:
                self._end_threads()
        return self._opened

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run ``function`` in the store's thread, after what was submitted before."""
        return asyncio.wrap_future(self._store.submit(function, *args, **kwargs), loop=self._loop)

    def write(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """As `call`, with the connection that writes. The future fails with `sqlite3.Error`."""
        return self.call(function, self._connections.writing, *args, **kwargs)

    async def read(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function`` in the thread that reads, with its connection. Raises `StorageError`."""
        async with self._reading:
            job = self._read.submit(function, self._connections.reading, *args, **kwargs)
            try:
                return await asyncio.wrap_future(job)
            except sqlite3.Error as error:
                logger.error("catalogue_unreadable", error=str(error))
                raise StorageError from error
            except ValueError as error:
                logger.error("segment_damaged", error=str(error))
                raise LogDamaged from error

    async def aclose(self, *, clean: bool) -> None:
        """Close the folder and end the threads. ``clean``: nothing is left in the journal."""
        opened = self._connections
        self._opened = None
        reader = self._read.submit(opened.reading.close)
        closing = self._store.submit(
            opening.close_folder, self._folder, opened, self._durability, clean=clean
        )
        self._end_threads()
        await asyncio.wrap_future(reader)
        await asyncio.wrap_future(closing)

    def _close_unused(self, job: Future[Opened]) -> None:
        if not job.cancelled() and job.exception() is None:
            opening.close_folder(self._folder, job.result(), self._durability, clean=False)

    def _end_threads(self) -> None:
        """Let the threads end as soon as they have done what was submitted."""
        self._read.shutdown(wait=False)
        self._store.shutdown(wait=False)

    @property
    def _connections(self) -> Opened:
        if self._opened is None:
            raise StorageError("The store is closed.")
        return self._opened
