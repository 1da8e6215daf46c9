"""Streams that may be on disk and streams that may not, under one roof."""

from pathlib import Path

import msgspec
import pytest

from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.journal import JournalWriter
from penstock.streams.memory import MemoryStore
from penstock.streams.split import SplitStore
from penstock.streams.store import KeyTaken
from tests.streams.storing import Pen, data_of, new_info, read_all

SECRET = b"words that must not be on any disk"


def at_rest(where, **more):
    return msgspec.structs.replace(new_info(**more), at_rest=where)


def make(folder: Path) -> SplitStore:
    disk = EmbeddedStore(folder, EmbeddedSettings(durability="mixed", sweep_interval=3600.0))
    return SplitStore(disk, MemoryStore())


@pytest.fixture
async def store(tmp_path):
    store = make(tmp_path / "data")
    await store.open()
    yield store
    await store.aclose()


def bytes_on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("where", ["none", "memory", "process", "host"])
async def test_a_stream_is_found_and_read_wherever_it_is(store, where):
    pen = await Pen.create(store.journal, at_rest(where, key="k"))
    await pen.write(b"one", b"two")
    await pen.end()
    assert (await data_of(store.journal, pen.id))[:2] == [b"one", b"two"]
    assert (await store.catalogue.find(pen.id)).status == "completed"
    assert (await store.catalogue.find_key("alice", "k")).id == pen.id
    assert [info.id for info in await store.catalogue.list("alice", "", 10)] == [pen.id]
    assert await store.catalogue.delete(pen.id)
    assert await store.catalogue.was_deleted(pen.id)
    assert await read_all(store.journal, pen.id) == []


@pytest.mark.parametrize(
    ("where", "stays"), [("none", False), ("memory", False), ("process", True), ("host", True)]
)
async def test_only_what_may_be_at_rest_touches_the_disk(tmp_path, where, stays):
    store = make(tmp_path / "data")
    await store.open()
    pen = await Pen.create(store.journal, at_rest(where))
    await pen.write(SECRET)
    assert (SECRET in bytes_on_disk(tmp_path)) is stays
    await pen.end()
    await store.aclose()
    assert (SECRET in bytes_on_disk(tmp_path)) is stays
    again = make(tmp_path / "data")
    await again.open()
    assert (await again.catalogue.find(pen.id) is not None) is stays
    await again.aclose()


async def test_streams_of_both_are_listed_by_age(store):
    made = [
        (await Pen.create(store.journal, at_rest(where, now=1_700_000_000.0 + n))).id
        for n, where in enumerate(["memory", "process", "memory", "host", "none"])
    ]
    listed = [info.id for info in await store.catalogue.list("alice", "", 3)]
    assert listed == made[:1:-1]
    assert [info.id for info in await store.catalogue.list("alice", listed[-1], 3)] == made[1::-1]


@pytest.mark.parametrize(("first", "second"), [("memory", "process"), ("host", "none")])
async def test_a_key_is_its_principals_in_both(store, first, second):
    pen = await Pen.create(store.journal, at_rest(first, key="k"))
    with pytest.raises(KeyTaken) as taken:
        await store.journal.create(at_rest(second, key="k"), lambda upto, failure: None)
    assert taken.value.existing.id == pen.id


async def test_only_streams_that_want_it_pay_for_a_sync(store, monkeypatch):
    synced = []
    sync = JournalWriter.sync
    monkeypatch.setattr(JournalWriter, "sync", lambda self: (synced.append(1), sync(self))[1])
    pens = {where: await Pen.create(store.journal, at_rest(where)) for where in ("process", "host")}
    synced.clear()
    await pens["process"].write(b"one")
    assert synced == []
    await pens["host"].write(b"one")
    assert synced == [1]
