"""What the tests of stores share: streams, writers that note what they are told, clocks that stand."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock.streams.store import ENTRY, TERMINAL, Journal, Log, Record, StoreFailure, StreamInfo
from penstock.types.events import Closed, Status, encode_line
from penstock.types.positions import new_stream_id


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_info(
    principal: str = "alice",
    *,
    key: str = "",
    retention: float = 3600.0,
    now: float = 1_700_000_000.0,
    **more: str,
) -> StreamInfo:
    return StreamInfo(
        id=new_stream_id(now=now),
        principal=principal,
        created_at=now,
        retention=retention,
        idempotency_key=key,
        metadata={"é": "日本"},
        **more,
    )


def ending(seq: int, status: Status = "completed") -> bytes:
    return encode_line(seq, Closed(status))


class Pen:
    """A writer: appends to a log and keeps what the store says to it."""

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.told: list[tuple[int, StoreFailure | None]] = []
        self.log: Log
        self.seq = info.tail
        self._changed = asyncio.Event()

    @classmethod
    async def create(cls, journal: Journal, info: StreamInfo | None = None) -> "Pen":
        pen = cls(info or new_info())
        pen.log = await journal.create(pen.info, pen.on_commit)
        return pen

    @classmethod
    async def reopen(cls, journal: Journal, info: StreamInfo) -> "Pen":
        pen = cls(info)
        pen.log = await journal.reopen(info, pen.on_commit)
        return pen

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def committed(self) -> int:
        return self.told[-1][0] if self.told else self.info.tail

    def on_commit(self, upto: int, failure: StoreFailure | None) -> None:
        self.told.append((upto, failure))
        self._changed.set()

    def append(self, *data: bytes) -> None:
        for one in data:
            self.seq += 1
            self.log.append_nowait(self.seq, ENTRY, one)

    def close(self, status: Status = "completed") -> None:
        self.seq += 1
        self.log.append_nowait(self.seq, TERMINAL, ending(self.seq, status))

    async def write(self, *data: bytes) -> None:
        self.append(*data)
        await self.wait_committed()

    async def end(self, status: Status = "completed") -> None:
        self.close(status)
        await self.wait_committed()

    async def wait_committed(self) -> None:
        await self.wait_told(lambda: self.committed >= self.seq)

    async def wait_told(self, what: Callable[[], bool]) -> None:
        while not what():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 10)


async def read_all(journal: Journal, stream: str, after: int = 0, limit: int = 100) -> Sequence[Record]:
    records: list[Record] = []
    while batch := await journal.read(stream, records[-1].seq if records else after, limit):
        records += batch
    return records


async def data_of(journal: Journal, stream: str) -> list[bytes]:
    records = await read_all(journal, stream)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    return [record.data for record in records]


async def eventually(what: Callable[[], bool]) -> None:
    """Wait for something that other threads do."""
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.005)


@contextmanager
def folder_in_ram() -> Iterator[Path]:
    """A folder where a sync costs nothing, for tests that open a store hundreds of times."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@contextmanager
def nothing_sealed(store: Path) -> Iterator[None]:
    """Hold the catalogue of a running store: what is committed meanwhile is in its journal alone."""
    holder = sqlite3.connect(store / "catalogue.db", timeout=30, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.close()


def copy_folder(store: Path, to: Path) -> Path:
    """Copy a folder at rest, for what is there if the process is killed at this instant."""
    for _ in range(10):
        with contextlib.suppress(shutil.Error):  # a journal file that was being let go just now
            return shutil.copytree(store, to, copy_function=shutil.copyfile, dirs_exist_ok=True)
    raise AssertionError("the folder does not come to rest")


def snapshot(store: Path, to: Path) -> Path:
    """Copy the folder of a running store; nothing is sealed, and no file let go, while that goes on."""
    with nothing_sealed(store):
        return copy_folder(store, to)
