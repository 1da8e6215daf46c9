"""One stream in memory: followers get what is committed, in order, once."""

import asyncio
import hashlib

import msgspec
import pytest

from penstock.streams.memory import MemoryStore
from penstock.streams.store import Record, StoreFailure, StreamInfo
from penstock.streams.stream import Stream
from penstock.types.errors import LogDamaged
from penstock.types.events import Closed, Finished, TextDelta
from penstock.types.positions import Position, new_stream_id


@pytest.fixture
async def store():
    store = MemoryStore()
    await store.open()
    yield store
    await store.aclose()


async def make(store, **more):
    info = StreamInfo(new_stream_id(), "somebody", 1.0, 60.0, **more)
    stream = Stream(info, store.journal)
    stream.attach(await store.journal.create(info, stream.committed_to))
    return stream


async def test_a_follower_gets_nothing_before_the_commit_and_everything_after(store):
    stream = await make(store)
    got = []
    stream.follow(got.extend)
    stream.append(TextDelta("a"))
    stream.append(TextDelta("b"))
    assert got == []
    assert (stream.appended, stream.committed) == (2, 0)
    await stream.wait_beyond(1)
    assert [(e.seq, e.event.delta) for e in got] == [(1, "a"), (2, "b")]
    assert stream.committed == 2


async def test_a_follower_that_fails_costs_the_others_nothing(store, loop_errors):
    stream = await make(store)
    got = []

    def broken(_):
        raise RuntimeError("bug")

    stream.follow(broken)
    stream.follow(got.extend)
    stream.append(TextDelta("a"))
    await stream.wait_beyond(0)
    assert len(got) == 1
    assert "a follower failed" in loop_errors[0]
    loop_errors.clear()


async def test_what_followers_got_is_what_the_log_holds(store):
    stream = await make(store)
    got = []
    stream.follow(got.extend)
    for letter in "abc":
        stream.append(TextDelta(letter))
        await asyncio.sleep(0)
    stream.close(Closed("completed"))
    await stream.wait_closed()
    assert await stream.read(0) == got
    assert await stream.read(2, 1) == got[2:3]


async def test_the_terminal_entry_carries_counts_and_digests(store):
    stream = await make(store)
    for event in (TextDelta("héllo "), TextDelta("other", index=1), TextDelta("you"), Finished("stop")):
        stream.append(event)
    stream.close(Closed("completed"))
    await stream.wait_closed()
    *entries, end = await stream.read(0)
    lines = b"".join(entry.line + b"\n" for entry in entries)
    assert end.event.entries == 4
    assert end.event.sha256 == hashlib.sha256(lines).hexdigest()
    assert end.event.text_sha256 == hashlib.sha256("héllo you".encode()).hexdigest()
    assert (stream.state, stream.is_open) == ("completed", False)


async def test_a_stream_is_open_until_its_end_is_committed(store):
    stream = await make(store)
    stream.close(Closed("cancelled"))
    assert stream.is_open
    await stream.wait_closed()
    assert stream.state == "cancelled"


async def test_nothing_follows_the_end(store):
    stream = await make(store)
    stream.close(Closed("completed"))
    with pytest.raises(RuntimeError):
        stream.append(TextDelta("x"))
    with pytest.raises(RuntimeError):
        stream.close(Closed("failed"))


async def test_an_abandoned_stream_tells_its_followers_with_an_empty_batch(store):
    stream = await make(store)
    got = []
    stream.follow(got.append)
    stream.append(TextDelta("never shown"))
    stream.abandon()
    await stream.wait_closed()
    assert got == [()]
    assert stream.committed == 0


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind(store):
    stream = await make(store)
    waiter = asyncio.ensure_future(stream.wait_beyond(0))
    await asyncio.sleep(0)
    assert stream.followers == 1
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert stream.followers == 0


async def test_digests_go_on_over_what_an_earlier_writer_left(store):
    stream = await make(store)
    stream.append(TextDelta("one"))
    await stream.wait_beyond(0)
    again = Stream(msgspec.structs.replace(stream.info, tail=1), store.journal)
    again.attach(await store.journal.reopen(again.info, again.committed_to))
    again.replay(await again.read(0))
    again.close(Closed("interrupted"))
    await again.wait_closed()
    entry, end = await again.read(0)
    assert end.event.sha256 == hashlib.sha256(entry.line + b"\n").hexdigest()
    assert end.event.text_sha256 == hashlib.sha256(b"one").hexdigest()


async def test_a_storage_failure_reaches_the_writer_and_shows_nothing():
    stream = Stream(StreamInfo("s", "p", 0.0, 0.0), journal=None)
    heard = []
    stream.on_failure = heard.append
    failure = StoreFailure("disk full", final=False)
    stream.committed_to(0, failure)
    stream.committed_to(0, None)
    assert heard == [failure, None]


class Holding:
    """A journal that gives the same records whatever is asked."""

    def __init__(self, *records):
        self.records = records

    async def read(self, stream, after, limit):
        return self.records


@pytest.mark.parametrize(
    "record",
    [
        Record(2, 0, b'{"n":2,"type":"text","delta":"x"}'),  # where the first was due
        Record(1, 0, b'{"n":1,"type":"text","del'),
        Record(1, 0, b'{"n":1,"type":"unheard of"}'),
        Record(1, 0, b'{"n":1,"type":"text","delta":"\xff"}'),
    ],
)
async def test_a_hole_or_a_broken_record_is_an_error_and_not_a_skip(record):
    with pytest.raises(LogDamaged):
        await Stream(StreamInfo("s", "p", 0.0, 0.0), Holding(record)).read(0)


@pytest.mark.parametrize(
    ("position", "held"),
    [
        (Position(1, 99), True),  # of this epoch: may be ahead, but not lost
        (Position(0, 5), True),  # before the loss
        (Position(0, 6), False),  # read before the loss, and lost
        (Position(2, 0), False),  # of a later epoch than the log's
    ],
)
def test_positions_of_a_lost_tail_are_known_as_such(position, held):
    info = StreamInfo("s", "p", 0.0, 0.0, epoch=1, epoch_start=5, tail=7)
    assert Stream(info, journal=None).holds(position) is held
