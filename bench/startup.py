"""How long the embedded store takes to open, by what is in it.

Fills a folder with finished streams (through the store's own catalogue code, in bulk), then opens it
in a fresh process; and with a journal that a killed process left. Finished streams must cost nothing.

    python -m bench.startup [--streams 100000]
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.streams import catalogue
from penstock.streams.catalogue import Seal
from penstock.streams.embedded import EmbeddedStore
from penstock.streams.store import ENTRY, StoreFailure, StreamInfo
from penstock.types.events import Closed, TextDelta, encode_line
from penstock.types.positions import new_stream_id

BATCH = 2_000
RECORDS = 50
DATA = [encode_line(seq, TextDelta(" token")) for seq in range(1, RECORDS)]


def finished(count: int) -> Iterator[Seal]:
    """Yield finished streams as the sealer would seal them."""
    now = time.time()
    data = [*DATA, encode_line(RECORDS, Closed("completed"))]
    kinds = bytes(RECORDS - 1) + b"\1"
    size = sum(map(len, data))
    for number in range(count):
        info = StreamInfo(
            id=new_stream_id(),
            principal=f"principal-{number % 100}",
            created_at=now,
            retention=86_400.0,
            model="demo",
            idempotency_key=f"key-{number}",
            status="completed",
            tail=RECORDS,
            bytes=size,
            closed_at=now,
        )
        yield Seal(info, False, 1, kinds, data)


async def fill(folder: Path, count: int) -> None:
    """Make a store with ``count`` finished streams."""
    store = EmbeddedStore(folder)
    await store.open()
    await store.aclose()
    connection = catalogue.connect(folder / "catalogue.db")
    catalogue.make_writable(connection, durable=False)
    batch: list[Seal] = []
    for seal in finished(count):
        batch.append(seal)
        if len(batch) == BATCH:
            catalogue.write(connection, batch)
            batch = []
    catalogue.write(connection, batch)
    connection.close()


async def leave(folder: Path, streams: int, records: int) -> None:
    """Write to ``streams`` open streams, then die without a word."""
    store = EmbeddedStore(folder)
    await store.open()
    committed = asyncio.Semaphore(0)

    def note(_upto: int, failure: StoreFailure | None) -> None:
        assert failure is None
        committed.release()

    logs = []
    for _ in range(streams):
        info = StreamInfo(id=new_stream_id(), principal="p", created_at=time.time(), retention=60.0)
        logs.append(await store.create(info, note))
    for seq in range(1, records + 1):
        for log in logs:
            log.append_nowait(seq, ENTRY, DATA[seq % len(DATA)])
            await committed.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


async def open_once(folder: Path) -> None:
    """Open the store and say how long that took."""
    store = EmbeddedStore(folder)
    began = time.perf_counter()
    orphans = await store.open()
    took = (time.perf_counter() - began) * 1e3
    found = store.statistics()
    replayed = found.recovery.records
    print(f"{took:8.1f} ms   {found.streams:7} streams, {len(orphans)} open, {replayed} records replayed")
    await store.aclose()


def child(*arguments: object) -> None:
    """Run this module in a fresh process."""
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "bench.startup", *map(str, arguments)], check=False)


def main() -> None:
    """Read the arguments; the hidden ones are for the processes that this one starts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--leave", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        asyncio.run(open_once(arguments.open))
        return
    if arguments.leave:
        asyncio.run(leave(arguments.leave, 1_000, 200))
        return
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder, "empty"), Path(folder, "full")
        began = time.perf_counter()
        asyncio.run(fill(full, arguments.streams))
        print(f"filled in {time.perf_counter() - began:.1f} s")
        child("--open", empty)
        child("--open", empty)
        child("--open", full)
        child("--open", full)
        child("--leave", full)
        child("--open", full)


if __name__ == "__main__":
    main()
