"""What goes by itself: streams past their retention, or too many, and the bytes that erasing leaves.

A sweep erases a bounded number of streams in one transaction of the store's thread and comes again
at once while there are more; so neither the loop nor the sealing of new streams waits long for it.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from penstock.streams import catalogue
from penstock.streams.catalogue import Bounds, Erased
from penstock.streams.committer import Committer, tell
from penstock.streams.database import Database
from penstock.streams.log import StreamLog
from penstock.streams.sealer import Sealer
from penstock.types.errors import StorageError

ERASE_AT_ONCE: Final = 64
"""How many streams one transaction erases."""


class SweepSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept for how long. Times in seconds.

    ``max_streams`` and ``max_bytes`` bound what is kept: beyond them, the streams that were closed
    first are erased, and none is created while open ones alone exceed them. ``remember_gone`` is how
    long an erased stream's id is known as gone, ``scrub_interval`` how often its bytes are driven
    out of files that are still in use.
    """

    max_streams: int = 1_000_000
    max_bytes: int = 16 * 1024**3
    remember_gone: float = 7 * 86_400.0
    sweep_interval: float = 10.0
    scrub_interval: float = 60.0


class Sweeper:
    """Sweeps from its making until `aclose`."""

    def __init__(
        self,
        database: Database,
        committer: Committer,
        sealer: Sealer,
        live: Mapping[str, StreamLog],
        settings: SweepSettings,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """``clock`` is monotonic, ``wall`` Unix time, in seconds."""
        self._db = database
        self._committer = committer
        self._sealer = sealer
        self._live = live
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._running: asyncio.Future[Erased] | None = None
        self._closed = False
        self._scrub_due = clock() + settings.scrub_interval
        self._timer = self._loop.call_later(settings.sweep_interval, self._sweep)

    def __repr__(self) -> str:
        """Say what it is doing."""
        return f"<Sweeper {'sweeping' if self._running else 'waiting'}>"

    async def expire(self, now: float) -> int:
        """Erase what is due at ``now`` (Unix seconds); return how many. Raises `StorageError`."""
        count = 0
        while True:
            try:
                erased = await self._erase_some(now)
            except sqlite3.Error as error:
                raise StorageError from error
            self._note(erased)
            count += len(erased.streams)
            if not erased.streams:
                return count

    async def aclose(self) -> None:
        """Sweep no more. To be awaited to its end."""
        self._closed = True
        self._timer.cancel()
        if self._running is not None:
            await asyncio.wait([self._running])

    def _sweep(self) -> None:
        if self._committer.spares_the_disk:  # to erase takes room, before it gives some
            self._timer = self._loop.call_later(self._settings.sweep_interval, self._sweep)
            return
        self._running = self._erase_some(self._wall())
        self._running.add_done_callback(self._swept)

    def _swept(self, done: asyncio.Future[Erased]) -> None:
        self._running = None
        wait = self._settings.sweep_interval
        try:
            self._note(done.result())
            if done.result().streams:
                wait = 0.0
        except sqlite3.Error as error:
            tell("warning", "sweep_failed", error=str(error))
        if self._closed:
            return
        if self._clock() >= self._scrub_due:
            self._scrub_due = self._clock() + self._settings.scrub_interval
            self._sealer.scrub()
        self._timer = self._loop.call_later(wait, self._sweep)

    def _erase_some(self, now: float) -> asyncio.Future[Erased]:
        settings = self._settings
        coming = sum(not log.known for log in self._live.values())
        bounds = Bounds(settings.max_streams - coming, settings.max_bytes)
        return self._db.write(catalogue.erase_some, now, now + settings.remember_gone, bounds, ERASE_AT_ONCE)

    def _note(self, erased: Erased) -> None:
        self._sealer.held = erased.totals
        for _, closed_at in erased.streams:
            self._sealer.stain(closed_at)
