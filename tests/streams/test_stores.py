"""What every store does: one suite over the memory store, the embedded one, and the embedded one
that is closed and opened again before it is asked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.memory import MemorySettings, MemoryStore
from penstock.streams.sealer import SEGMENT_BYTES
from penstock.streams.store import ENTRY, TERMINAL, Catalogue, Journal, KeyTaken, Record, Store, StreamInfo
from penstock.types.errors import StorageError
from tests.streams.storing import Clock, Pen, data_of, ending, eventually, new_info, read_all


class Bench:
    """A store under test. ``settle`` is where the third kind closes and opens its store again."""

    def __init__(self, make: Callable[..., Any], *, reopens: bool, wall: Clock) -> None:
        self.make = make
        self.reopens = reopens
        self.wall = wall
        self.store: Any
        self.orphans: Sequence[StreamInfo] = ()

    async def open(self, **settings: int) -> None:
        self.store = self.make(**settings)
        self.settings = settings
        await self.store.open()

    async def settle(self) -> None:
        if self.reopens:
            await self.store.aclose()
            self.store = self.make(**self.settings)
            self.orphans = await self.store.open()

    @property
    def journal(self) -> Journal:
        return self.store.journal

    @property
    def catalogue(self) -> Catalogue:
        return self.store.catalogue


@pytest.fixture(params=["memory", "embedded", "embedded, reopened"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    wall = Clock()

    def memory(**settings: int) -> MemoryStore:
        return MemoryStore(MemorySettings(**settings), wall=wall)

    def embedded(**settings: int) -> EmbeddedStore:
        return EmbeddedStore(tmp_path / "data", EmbeddedSettings(**settings), wall=wall)

    bench = Bench(
        memory if request.param == "memory" else embedded,
        reopens=request.param.endswith("reopened"),
        wall=wall,
    )
    await bench.open()
    yield bench
    await bench.store.aclose()


async def test_stores_are_stores(bench):
    store: Store = bench.store
    assert store.journal is store.catalogue
    assert "object at" not in repr(store)
    assert bench.store.statistics().uncommitted_bytes == 0


# --- records ----------------------------------------------------------------------------------


async def test_records_are_read_as_they_were_appended(bench):
    pen = await Pen.create(bench.journal)
    pen.append(b"one", b"", b"\x00\xff\n")
    await pen.end()
    await bench.settle()
    assert await read_all(bench.journal, pen.id) == [
        Record(1, ENTRY, b"one"),
        Record(2, ENTRY, b""),
        Record(3, ENTRY, b"\x00\xff\n"),
        Record(4, TERMINAL, ending(4)),
    ]


async def test_nothing_is_readable_before_its_commit(bench):
    pen = await Pen.create(bench.journal)
    pen.append(b"one")
    assert pen.log.uncommitted == 3 == bench.store.uncommitted
    assert await bench.journal.read(pen.id, 0, 10) == [] or pen.told  # a store may have to wait to say so
    await pen.wait_committed()
    assert pen.log.uncommitted == 0 == bench.store.uncommitted
    assert await data_of(bench.journal, pen.id) == [b"one"]


async def test_a_batch_is_committed_at_the_end_of_the_tick_and_told_once(bench):
    pens = [await Pen.create(bench.journal) for _ in range(3)]
    for pen in reversed(pens):
        pen.append(b"a", b"b")
        assert pen.told == []
    for pen in pens:
        await pen.wait_committed()
        assert pen.told == [(2, None)]


async def test_writers_are_told_in_the_order_of_their_first_append(bench):
    order = []
    logs = {
        name: await bench.journal.create(new_info(), lambda _upto, _failure, name=name: order.append(name))
        for name in "abc"
    }
    for name in "cab":
        logs[name].append_nowait(1, ENTRY, b"x")
    await eventually(lambda: len(order) == 3)
    assert order == ["c", "a", "b"]


async def test_a_writer_may_append_from_within_its_notice(bench):
    info, told = new_info(), []

    def on_commit(upto: int, failure: object) -> None:
        told.append(upto)
        if upto < 5:
            log.append_nowait(upto + 1, ENTRY, b"%d" % upto)

    log = await bench.journal.create(info, on_commit)
    log.append_nowait(1, ENTRY, b"0")
    await eventually(lambda: told == [1, 2, 3, 4, 5])
    assert await data_of(bench.journal, info.id) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("seq", [0, 1, 3, -1])
async def test_a_seq_that_is_not_the_next_is_refused(bench, seq):
    pen = await Pen.create(bench.journal)
    await pen.write(b"one")
    with pytest.raises(ValueError, match="where 2 was due"):
        pen.log.append_nowait(seq, ENTRY, b"x")
    await pen.write(b"two")
    assert await data_of(bench.journal, pen.id) == [b"one", b"two"]


async def test_nothing_follows_the_terminal_record(bench):
    pen = await Pen.create(bench.journal)
    pen.close()
    for _ in range(2):
        with pytest.raises(ValueError, match="where none was due"):
            pen.log.append_nowait(2, ENTRY, b"x")
        await pen.wait_committed()


async def test_a_terminal_record_without_a_status_is_refused(bench):
    pen = await Pen.create(bench.journal)
    with pytest.raises(ValueError):
        pen.log.append_nowait(1, TERMINAL, b'{"n":1}')
    await pen.end("failed")


async def test_reading_goes_on_after_any_position(bench):
    pen = await Pen.create(bench.journal)
    for start in range(0, 700, 70):
        await pen.write(*(b"%d" % n for n in range(start, start + 70)))
    await bench.settle()
    for after in [0, 1, 255, 256, 257, 511, 699]:
        records = await read_all(bench.journal, pen.id, after, 64)
        assert [record.seq for record in records] == list(range(after + 1, 701))
        assert all(record.data == b"%d" % (record.seq - 1) for record in records)
    assert list(await bench.journal.read(pen.id, 700, 10)) == []
    assert list(await bench.journal.read(pen.id, 9999, 10)) == []


async def test_a_read_is_bounded_in_records_and_bytes(bench):
    pen = await Pen.create(bench.journal)
    await pen.write(*(bytes(60_000) for _ in range(20)))
    await bench.settle()
    assert len(await bench.journal.read(pen.id, 0, 3)) == 3
    assert len(await bench.journal.read(pen.id, 0, 1000)) == 4
    big = await Pen.create(bench.journal)
    await big.write(bytes(400_000), b"x")
    assert [len(record.data) for record in await bench.journal.read(big.id, 0, 10)] == [400_000]


async def test_an_unknown_stream_has_no_records(bench):
    assert list(await bench.journal.read(new_info().id, 0, 10)) == []


# --- the catalogue ----------------------------------------------------------------------------


async def test_a_stream_is_found_from_its_creation_on(bench):
    pen = await Pen.create(bench.journal)
    assert await bench.catalogue.find(pen.id) == pen.info
    await pen.write(b"four", b"five")
    await bench.settle()
    found = await bench.catalogue.find(pen.id)
    assert (found.tail, found.bytes, found.status, found.closed_at) == (2, 8, None, None)
    assert found.metadata == {"é": "日本"}
    assert await bench.catalogue.find(new_info().id) is None


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "interrupted", "expired"])
async def test_a_terminal_record_closes_its_stream(bench, status):
    pen = await Pen.create(bench.journal)
    bench.wall.now += 5
    pen.append(b"x")
    await pen.end(status)
    await bench.settle()
    found = await bench.catalogue.find(pen.id)
    assert (found.status, found.tail, found.closed_at) == (status, 2, pen.info.created_at + 5)
    assert not bench.orphans


async def test_streams_are_listed_newest_first_in_pages(bench):
    infos = [new_info(now=1_700_000_000.0 + n) for n in range(7)]
    for info in infos:
        pen = await Pen.create(bench.journal, info)
        if info is not infos[3]:
            await pen.end()
    other = await Pen.create(bench.journal, new_info("bob"))
    await bench.settle()
    ids = [info.id for info in reversed(infos)]
    page = await bench.catalogue.list("alice", "", 3)
    assert [info.id for info in page] == ids[:3]
    rest = await bench.catalogue.list("alice", page[-1].id, 100)
    assert [info.id for info in rest] == ids[3:]
    assert [info.status for info in rest] == [None, "completed", "completed", "completed"]
    assert [info.id for info in await bench.catalogue.list("bob", "", 100)] == [other.id]
    assert list(await bench.catalogue.list("carol", "", 100)) == []


async def test_a_deleted_stream_is_gone_and_known_as_gone(bench):
    pen = await Pen.create(bench.journal, new_info(key="k"))
    pen.append(b"secret")
    assert not await bench.catalogue.delete(pen.id)  # it is open
    await pen.end()
    await bench.settle()
    assert not await bench.catalogue.was_deleted(pen.id)
    assert await bench.catalogue.delete(pen.id)
    for _ in range(2):
        assert await bench.catalogue.find(pen.id) is None
        assert await bench.catalogue.find_key("alice", "k") is None
        assert list(await bench.catalogue.list("alice", "", 10)) == []
        assert list(await bench.journal.read(pen.id, 0, 10)) == []
        assert await bench.catalogue.was_deleted(pen.id)
        assert not await bench.catalogue.delete(pen.id)
        if bench.reopens:
            await bench.settle()
    assert not await bench.catalogue.was_deleted(new_info().id)


async def test_of_two_deletions_at_once_one_was_it(bench):
    pen = await Pen.create(bench.journal)
    await pen.end()
    assert sorted(await asyncio.gather(*(bench.catalogue.delete(pen.id) for _ in range(2)))) == [False, True]


async def expire(bench: Bench, gone: StreamInfo) -> None:
    """A store may need a moment before it expires a stream that was closed just now."""
    async with asyncio.timeout(10):
        while await bench.catalogue.find(gone.id):
            await bench.store.expire(bench.wall())
            await asyncio.sleep(0.005)


async def test_streams_go_when_their_retention_since_the_close_is_over(bench):
    short, long, still_open = (new_info(retention=retention) for retention in (10, 100, 10))
    pens = [await Pen.create(bench.journal, info) for info in (short, long, still_open)]
    bench.wall.now += 50
    await pens[0].end()
    await pens[1].end()
    await bench.settle()
    assert await bench.store.expire(bench.wall()) == 0
    bench.wall.now += 10
    await expire(bench, short)
    assert await bench.catalogue.was_deleted(short.id)
    assert [await bench.catalogue.find(info.id) is not None for info in (long, still_open)] == [True, True]


async def test_what_is_too_much_goes_in_the_order_of_closing(bench):
    await bench.settle()
    await bench.store.aclose()
    await bench.open(max_streams=3, max_bytes=1_000_000)
    pens = [await Pen.create(bench.journal) for _ in range(3)]
    for index in (1, 0, 2):
        bench.wall.now += 1
        await pens[index].end()
    await bench.settle()
    await Pen.create(bench.journal)
    await expire(bench, pens[1].info)
    assert await bench.catalogue.was_deleted(pens[1].id)
    assert await bench.catalogue.find(pens[0].id)
    assert await bench.catalogue.find(pens[2].id)


async def test_open_streams_alone_can_fill_the_store(bench):
    await bench.store.aclose()
    await bench.open(max_streams=2, max_bytes=1_000)
    pens = [await Pen.create(bench.journal) for _ in range(2)]
    with pytest.raises(StorageError):
        await Pen.create(bench.journal)
    await pens[0].end()
    await eventually_created(bench)
    await bench.store.aclose()


async def eventually_created(bench: Bench) -> Pen:
    async with asyncio.timeout(10):
        while True:
            try:
                return await Pen.create(bench.journal)
            except StorageError:
                await asyncio.sleep(0.005)


async def test_open_streams_bytes_alone_can_fill_the_store(bench):
    await bench.store.aclose()
    await bench.open(max_streams=200, max_bytes=1_000)
    pen = await Pen.create(bench.journal)
    await pen.write(bytes(1_000))
    with pytest.raises(StorageError):
        await Pen.create(bench.journal)


# --- idempotency keys -------------------------------------------------------------------------


async def test_a_key_is_taken_from_the_creation_on(bench):
    pen = await Pen.create(bench.journal, new_info(key="k"))
    await pen.write(b"x")
    await bench.settle()
    found = await bench.catalogue.find_key("alice", "k")
    assert (found.id, found.tail) == (pen.id, 1)
    with pytest.raises(KeyTaken) as taken:
        await Pen.create(bench.journal, new_info(key="k"))
    assert taken.value.existing == found


async def test_keys_are_the_principals_own_and_no_key_is_no_key(bench):
    await Pen.create(bench.journal, new_info(key="k"))
    await Pen.create(bench.journal, new_info("bob", key="k"))
    await Pen.create(bench.journal, new_info())
    await Pen.create(bench.journal, new_info())
    assert await bench.catalogue.find_key("alice", "") is None
    assert await bench.catalogue.find_key("alice", "other") is None


async def test_of_many_creations_with_one_key_one_wins(bench):
    infos = [new_info(key="k") for _ in range(10)]
    results = await asyncio.gather(
        *(Pen.create(bench.journal, info) for info in infos), return_exceptions=True
    )
    (winner,) = [result for result in results if isinstance(result, Pen)]
    others = [result for result in results if not isinstance(result, Pen)]
    assert len(others) == 9
    assert {error.existing.id for error in others} == {winner.id}
    await bench.settle()
    assert [info.id for info in await bench.catalogue.list("alice", "", 100)] == [winner.id]


async def test_a_key_that_was_released_can_be_used_again(bench):
    first = await Pen.create(bench.journal, new_info(key="k"))
    first.log.release_key()
    await first.end("failed")
    assert await bench.catalogue.find_key("alice", "k") is None
    await bench.settle()
    second = await Pen.create(bench.journal, new_info(key="k"))
    await bench.settle()
    assert (await bench.catalogue.find_key("alice", "k")).id == second.id
    assert (await bench.catalogue.find(first.id)).idempotency_key == ""


async def test_a_key_can_be_released_long_after_the_end(bench):
    first = await Pen.create(bench.journal, new_info(key="k"))
    await first.end("failed")
    if isinstance(bench.store, EmbeddedStore):
        await eventually(lambda: bench.store.statistics().live_streams == 0)
    assert (await bench.catalogue.find_key("alice", "k")).id == first.id
    first.log.release_key()
    first.log.release_key()
    second = await Pen.create(bench.journal, new_info(key="k"))
    await bench.settle()
    assert (await bench.catalogue.find_key("alice", "k")).id == second.id
    assert (await bench.catalogue.find(first.id)).status == "failed"


async def test_a_cancelled_creation_leaves_no_stream_and_no_key(bench):
    created = 0
    for ticks in range(1000):
        info = new_info(key="k")
        creation = asyncio.ensure_future(Pen.create(bench.journal, info))
        for _ in range(ticks):
            await asyncio.sleep(0)
        if not creation.cancel():
            created += 1
            break
        with pytest.raises(asyncio.CancelledError):
            await creation
        await asyncio.sleep(0.01)
        assert await bench.catalogue.find(info.id) is None
        assert await bench.catalogue.find_key("alice", "k") is None
    await bench.settle()
    assert len(await bench.catalogue.list("alice", "", 100)) == created


# --- other writers ----------------------------------------------------------------------------


async def test_another_writer_goes_on_where_the_last_one_was_committed(bench):
    pen = await Pen.create(bench.journal)
    await pen.write(b"one")
    pen.append(b"never shown")
    if bench.reopens:
        await pen.wait_committed()
    await bench.settle()
    info = await bench.catalogue.find(pen.id)
    other = await Pen.reopen(bench.journal, info)
    other.append(b"two")
    await other.end("interrupted")
    expected = [b"one", b"never shown", b"two"] if bench.reopens else [b"one", b"two"]
    await bench.settle()
    assert await data_of(bench.journal, pen.id) == [*expected, ending(len(expected) + 1, "interrupted")]
    assert (await bench.catalogue.find(pen.id)).status == "interrupted"


async def test_a_later_epoch_is_stored_when_reopening(bench):
    pen = await Pen.create(bench.journal)
    await pen.write(b"one")
    await bench.settle()
    info = await bench.catalogue.find(pen.id)
    later = StreamInfo(
        **{name: getattr(info, name) for name in info.__struct_fields__} | {"epoch": 3, "epoch_start": 1}
    )
    await bench.journal.reopen(later, pen.on_commit)
    assert await bench.catalogue.find(pen.id) == later
    await bench.settle()
    assert await bench.catalogue.find(pen.id) == later


async def test_only_open_streams_are_reopened(bench):
    pen = await Pen.create(bench.journal)
    await pen.end()
    await bench.settle()
    for info in (pen.info, new_info()):
        with pytest.raises(StorageError):
            await bench.journal.reopen(info, pen.on_commit)


async def test_a_closed_store_refuses_everything(bench):
    store, info = bench.store, new_info()
    pen = await Pen.create(store)
    await store.aclose()
    await store.aclose()
    for call in (
        store.create(info, pen.on_commit),
        store.reopen(info, pen.on_commit),
        store.read(info.id, 0, 1),
        store.find(info.id),
        store.find_key("alice", "k"),
        store.list("alice", "", 1),
        store.delete(info.id),
        store.was_deleted(info.id),
        store.expire(0.0),
    ):
        with pytest.raises(StorageError):
            await call
    with pytest.raises(StorageError):
        pen.append(b"x")
    assert not store.healthy


async def test_a_key_can_be_given_back_for_a_stream_that_nobody_writes(bench: Bench) -> None:
    pen = await Pen.create(bench.journal, new_info(key="k"))
    await pen.write(b"a")
    await pen.end()
    await bench.settle()
    assert await bench.catalogue.release_key(pen.id)
    assert not await bench.catalogue.release_key("s_unknown")
    assert await bench.catalogue.find_key("alice", "k") is None
    await Pen.create(bench.journal, new_info(key="k"))
    await bench.settle()
    found = await bench.catalogue.find(pen.id)
    assert found is not None
    assert (found.idempotency_key, found.status) == ("", "completed")
    assert (await data_of(bench.journal, pen.id))[0] == b"a"


# --- trimming ---------------------------------------------------------------------------------


async def test_a_trimmed_stream_begins_later_and_is_written_on(bench):
    pen = await Pen.create(bench.journal)
    for _ in range(6):
        await pen.write(*(bytes(1_000) for _ in range(256)))
    await all_sealed(bench)
    info = await bench.catalogue.find(pen.id)
    freed = await bench.journal.trim(pen.id, 600)
    assert 600_000 - SEGMENT_BYTES < freed <= 600_000  # whole segments, where there are segments
    await bench.settle()
    if bench.reopens:
        pen = await Pen.reopen(bench.journal, bench.orphans[0])
    found = await bench.catalogue.find(pen.id)
    assert (found.tail, found.bytes) == (info.tail, info.bytes - freed)
    first = freed // 1_000 + 1
    records = await read_all(bench.journal, pen.id)
    assert [record.seq for record in records] == list(range(first, 6 * 256 + 1))
    assert (await bench.journal.read(pen.id, first + 5, 1))[0].seq == first + 6
    await pen.write(b"more")
    await pen.end()
    assert (await read_all(bench.journal, pen.id, 6 * 256))[0].data == b"more"
    await all_sealed(bench)
    assert await bench.journal.trim(pen.id, pen.seq) > 0
    assert await bench.journal.trim(pen.id, pen.seq) == 0
    assert await bench.journal.trim("s_nobody", 1) == 0


async def test_of_a_stream_that_is_trimmed_up_to_its_end_what_comes_next_is_found(bench):
    pen = await Pen.create(bench.journal)
    await pen.write(*(bytes(1_000) for _ in range(256)))
    await all_sealed(bench)
    assert await bench.journal.trim(pen.id, 256) == 256_000
    assert await bench.journal.read(pen.id, 0, 10) == []
    await pen.write(b"next")
    assert list(await bench.journal.read(pen.id, 0, 10)) == [Record(257, ENTRY, b"next")]
    assert (await bench.catalogue.find(pen.id)).bytes == 4


async def all_sealed(bench: Bench) -> None:
    """Wait until everything is in the catalogue, where there is one."""
    if not isinstance(bench.store, MemoryStore):
        await eventually(lambda: bench.store.statistics().unsealed_bytes == 0)
