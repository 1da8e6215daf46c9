"""What the embedded store costs per record: append, commit, the write, the notice and the seal.

Keeps N streams open, and each tick of the loop appends to some of them; streams end after a number
of records and new ones take their place, as answers do. Counts the CPU of the whole process, the
store's threads included, less what the same loop costs over logs that do nothing. Once with uvloop,
on one core.

    python -m bench.store_commit [--durability host] [--folder DIR]
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Sequence

import uvloop

from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.folder import Durability
from penstock.streams.store import ENTRY, TERMINAL, Log, StoreFailure, StreamInfo
from penstock.types.events import Closed, TextDelta, encode_line
from penstock.types.positions import new_stream_id

STREAMS = 500
LENGTH = 400  # records of a stream
SHAPES = ((5, 1), (25, 1), (100, 1), (500, 1), (100, 4), (500, 4))  # logs a tick, records each
DATA = encode_line(100, TextDelta(" streaming gateway" * 9))
END = encode_line(LENGTH + 1, Closed("completed"))


class NoLog:
    """Takes records and tells at the end of the tick, as a store would; keeps nothing."""

    uncommitted = 0

    def append_nowait(self, seq: int, kind: int, data: bytes) -> None: ...

    def release_key(self) -> None: ...


class Writer:
    """One stream after the other."""

    def __init__(self, store: EmbeddedStore | None) -> None:
        self.store = store
        self.seq = 0
        self.committed = 0
        self.log: Log | None = None

    async def begin(self) -> None:
        self.seq = self.committed = 0
        if self.store is None:
            self.log = NoLog()
            return
        info = StreamInfo(id=new_stream_id(), principal="bench", created_at=time.time(), retention=3600.0)
        self.log = await self.store.create(info, self.on_commit)

    def on_commit(self, upto: int, failure: StoreFailure | None) -> None:
        assert failure is None, failure
        self.committed = upto

    def append(self, count: int) -> int:
        """Append up to ``count`` records; return how many."""
        log = self.log
        if log is None:
            return 0
        for done in range(count):
            self.seq += 1
            if self.seq > LENGTH:
                log.append_nowait(self.seq, TERMINAL, END)
                self.log = None
                return done + 1
            log.append_nowait(self.seq, ENTRY, DATA)
        return count


async def measure(
    store: EmbeddedStore | None, records: int, logs_a_tick: int, records_each: int
) -> tuple[float, float]:
    """Append about ``records``; return CPU and time in µs per record."""
    writers = [Writer(store) for _ in range(STREAMS)]
    for writer in writers:
        await writer.begin()
        writer.append(random.randrange(LENGTH))
    await asyncio.sleep(0)
    order = list(writers)
    random.shuffle(order)
    cpu, wall = time.process_time(), time.perf_counter()
    written = at = 0
    while written < records:
        for writer in order[at : at + logs_a_tick]:
            written += writer.append(records_each)
        ended = [writer for writer in order[at : at + logs_a_tick] if writer.log is None]
        at = (at + logs_a_tick) % STREAMS
        await asyncio.sleep(0)
        for writer in ended:
            await writer.begin()
    if store is not None:
        # What is left to be sealed is counted in, as far as it would be in a steady load.
        while store.statistics().unsealed_bytes > STREAMS * 65536 or store.uncommitted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return (time.process_time() - cpu) / written * 1e6, (time.perf_counter() - wall) / written * 1e6


async def run(folder: str, durability: Durability, records: int, shapes: Sequence[tuple[int, int]]) -> None:
    print(f"{STREAMS} streams of {LENGTH} records of {len(DATA)} bytes; durability {durability}")
    print("logs a tick  records each    CPU µs/record   loop alone    wall µs/record   segments")
    for logs_a_tick, records_each in shapes:
        count = min(records, 20_000 * logs_a_tick)
        alone, _ = await measure(None, count, logs_a_tick, records_each)
        path = os.path.join(folder, f"{logs_a_tick}-{records_each}")
        store = EmbeddedStore(path, EmbeddedSettings(durability=durability))
        await store.open()
        cpu, wall = await measure(store, count, logs_a_tick, records_each)
        segments = store.statistics().sealed_segments
        await store.aclose()
        shape = f"{logs_a_tick:11}  {records_each:12}"
        print(f"{shape}  {cpu - alone:15.2f}  {alone:11.2f}  {wall:16.2f}  {segments:9}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--durability", choices=("process", "host"), default="process")
    parser.add_argument("--folder", help="where the stores are made, and left; default: a temporary folder")
    parser.add_argument("--records", type=int, default=400_000)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    uvloop.install()
    if arguments.folder:
        asyncio.run(run(arguments.folder, arguments.durability, arguments.records, SHAPES))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder, arguments.durability, arguments.records, SHAPES))


if __name__ == "__main__":
    main()
