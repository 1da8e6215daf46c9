"""A process that writes to a store and says on stdout what is committed, until it is killed.

Lines: ``open <id> <tail>`` and ``new <id>``, then ``<id> <upto>`` for each commit, ``end <id>`` once a
terminal record is. The data of a record can be computed from its stream and seq (`data_of`).
"""

import asyncio
import os
import random
import sys

from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.store import ENTRY, TERMINAL, Log, StoreFailure, StreamInfo
from penstock.types.events import Closed, encode_line
from penstock.types.positions import new_stream_id

LENGTH = 700


def data_of(stream: str, seq: int) -> bytes:
    if seq > LENGTH:
        return encode_line(seq, Closed("completed"))
    chance = random.Random(f"{stream} {seq}")
    return chance.randbytes(chance.choice([0, 1, 30, 200, 3000]))


class Writer:
    def __init__(self, stream: str, tail: int) -> None:
        self.stream = stream
        self.seq = tail
        self.committed = tail
        self.log: Log

    def on_commit(self, upto: int, failure: StoreFailure | None) -> None:
        assert failure is None
        self.committed = upto
        say(f"{self.stream} {upto}" if upto <= LENGTH else f"end {self.stream}")

    def append(self, count: int) -> None:
        for _ in range(min(count, LENGTH + 1 - self.seq)):
            self.seq += 1
            kind = TERMINAL if self.seq > LENGTH else ENTRY
            self.log.append_nowait(self.seq, kind, data_of(self.stream, self.seq))


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def main(folder: str, durability: str) -> None:
    store = EmbeddedStore(folder, EmbeddedSettings(rotate_bytes=200_000, durability=durability))
    writers = []
    for info in await store.open():
        writers.append(Writer(info.id, info.tail))
        writers[-1].log = await store.reopen(info, writers[-1].on_commit)
        say(f"open {info.id} {info.tail}")
    say("ready")
    while True:
        writers = [writer for writer in writers if writer.seq <= LENGTH]
        while len(writers) < 8:
            info = StreamInfo(id=new_stream_id(), principal="p", created_at=0.0, retention=1e12)
            writer = Writer(info.id, 0)
            writer.log = await store.create(info, writer.on_commit)
            say(f"new {info.id}")
            writers.append(writer)
        for writer in random.sample(writers, 4):
            writer.append(random.randrange(1, 30))
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
