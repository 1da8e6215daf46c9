"""What the embedded store alone does: its folder, what a start makes of it, sealing, erasing."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from penstock.streams import journal, migrations
from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.folder import StoreUnusable, Writer
from penstock.streams.store import ENTRY, TERMINAL, KeyTaken, Record, StreamInfo
from penstock.types.errors import LogDamaged
from tests.streams.storing import (
    Clock,
    Pen,
    copy_folder,
    data_of,
    ending,
    eventually,
    folder_in_ram,
    new_info,
    nothing_sealed,
    read_all,
    snapshot,
)


@pytest.fixture
async def opened(tmp_path):
    """Open stores; what is open at the end is closed."""
    stores = []

    async def open_store(
        path: Path = tmp_path / "data", **options: object
    ) -> tuple[EmbeddedStore, Sequence[StreamInfo]]:
        clocks = {name: options.pop(name) for name in ("wall", "clock") if name in options}
        store = EmbeddedStore(path, EmbeddedSettings(**options), **clocks)
        orphans = await store.open()
        stores.append(store)
        return store, orphans

    yield open_store
    for store in stores:
        await store.aclose()


def note_writer(path: Path, **changes: object) -> None:
    """Change what the folder says of its last writer."""
    file = path / "writer.json"
    writer = msgspec.json.decode(file.read_bytes(), type=Writer)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(writer, **changes)))


def contents(path: Path) -> dict[str, bytes]:
    """Return every file but those that say who is there now (the lock, SQLite's shared memory)."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name not in ("lock", "catalogue.db-shm", "catalogue.db-wal")
    }


def catalogue_of(path: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path / "catalogue.db")) as connection:
        return connection.execute(query).fetchall()


def journal_files(path: Path) -> list[int]:
    return sorted(int(file.stem) for file in (path / "journal").glob("*.log"))


# --- the folder -------------------------------------------------------------------------------


async def test_the_folder_is_its_owners_alone(opened, tmp_path):
    store, _ = await opened()
    pen = await Pen.create(store)
    await pen.write(b"x")
    path = tmp_path / "data"
    assert {file.stat().st_mode & 0o777 for file in [path, path / "journal"]} == {0o700}
    files = [file for file in path.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"lock", "writer.json", "reserve", "catalogue.db", "00000001.log"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_a_folder_in_use_is_refused_with_the_holders_name(opened, tmp_path):
    await opened()
    with pytest.raises(
        StoreUnusable, match=rf"in use by process {os.getpid()} on {os.uname().nodename} \(since"
    ):
        await opened()
    script = (
        "import asyncio, sys\n"
        "from penstock.streams.embedded import EmbeddedStore\n"
        "asyncio.run(EmbeddedStore(sys.argv[1]).open())\n"
    )
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, tmp_path / "data"], capture_output=True, text=True
    )
    assert f"process {os.getpid()}" in other.stderr.splitlines()[-1]


async def test_a_folder_is_free_after_a_close(opened):
    for _ in range(3):
        store, _ = await opened()
        await store.aclose()


def ours(before):
    """Return the threads of ours that were not there ``before``: others may hold a store beside these."""
    return [one for one in set(threading.enumerate()) - before if one.name.startswith("penstock")]


async def test_nothing_is_left_running_or_open_after_a_close(opened):
    before, running = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    for durability in ("process", "host"):
        store, _ = await opened(durability=durability)
        pen = await Pen.create(store)
        await pen.write(b"x")
        await store.find(new_info().id)
        await store.aclose()
    await eventually(lambda: not ours(running))
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_an_opening_that_is_cancelled_gives_everything_back(opened, tmp_path):
    running = set(threading.enumerate())
    for ticks in (0, 1, 2):
        opening = asyncio.ensure_future(EmbeddedStore(tmp_path / "data").open())
        for _ in range(ticks):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await eventually(lambda: not ours(running))
    await opened()


async def test_a_path_that_is_a_file_is_refused(opened, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreUnusable, match="is no folder"):
            await opened(path)
    assert (tmp_path / "file").read_text() == "mine"


async def used_folder(opened, path: Path) -> StreamInfo:
    """Leave a folder behind as after a kill, with something in the journal and in the catalogue."""
    store, _ = await opened(path.with_suffix(".origin"))
    sealed = await Pen.create(store)
    await sealed.end()
    await eventually(lambda: store.statistics().live_streams == 0)
    pen = await Pen.create(store)
    await pen.write(b"x")
    snapshot(path.with_suffix(".origin"), path)
    return await store.find(pen.id)


def spoil_catalogue(path: Path) -> None:
    (path / "catalogue.db").write_bytes(b"no database" * 1000)
    (path / "catalogue.db-wal").unlink()


def lose_catalogue(path: Path) -> None:
    for name in ("catalogue.db", "catalogue.db-wal", "catalogue.db-shm"):
        (path / name).unlink()


def empty_catalogue(path: Path) -> None:
    lose_catalogue(path)
    (path / "catalogue.db").touch()


def swap_catalogue(path: Path) -> None:
    lose_catalogue(path)
    with sqlite3.connect(path / "catalogue.db") as connection:
        connection.execute("CREATE TABLE something (else_ TEXT)")
    connection.close()


def newer_schema(path: Path) -> None:
    connection = sqlite3.connect(path / "catalogue.db", isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def newer_journal(path: Path) -> None:
    file = path / "journal" / "00000001.log"
    head = struct_header(2)
    file.write_bytes(head + file.read_bytes()[len(head) :])


def struct_header(version: int) -> bytes:
    head = journal._HEADER.pack(b"PENSTOCK", version, 1, 1, 0)
    return head + journal._CRC.pack(journal.crc32(head))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_catalogue, "is damaged, or no catalogue"),
        (lose_catalogue, "is missing, though the folder was in use"),
        (empty_catalogue, "is missing, though the folder was in use"),
        (swap_catalogue, "is empty, though the folder was in use"),
        (newer_schema, "later version of Penstock"),
        (newer_journal, "later version of Penstock"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_left_as_it_is(opened, tmp_path, spoil, says):
    path = tmp_path / "data"
    await used_folder(opened, path)
    spoil(path)
    before = contents(path)
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=says) as refused:
            await opened()
        assert str(tmp_path) in refused.value.message
        assert contents(path) == before


def test_migrations_run_once_and_a_later_version_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "catalogue.db", isolation_level=None)
    assert migrations.migrate(connection) == len(migrations.MIGRATIONS)
    schema = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    assert migrations.migrate(connection) == 0
    assert connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall() == schema
    connection.execute(f"PRAGMA user_version = {len(migrations.MIGRATIONS) + 1}")
    with pytest.raises(migrations.NewerSchema):
        migrations.migrate(connection)
    connection.close()


# --- what a start makes of it -----------------------------------------------------------------


async def test_after_a_kill_everything_committed_is_there(opened, tmp_path):
    store, _ = await opened(tmp_path / "origin")
    with nothing_sealed(tmp_path / "origin"):
        pens = [await Pen.create(store, new_info(key=f"k{n}")) for n in range(3)]
        for n, pen in enumerate(pens):
            await pen.write(*(b"%d" % seq for seq in range(100 * (n + 1))))
        await pens[0].end("failed")
        pens[1].log.release_key()
        await pens[1].write(b"after the release")
        pens[2].append(b"never committed")
        copy_folder(tmp_path / "origin", tmp_path / "data")
    known = [await store.find(pen.id) for pen in pens]
    found, orphans = await opened()
    assert [await found.find(pen.id) for pen in pens] == known
    assert sorted(info.id for info in orphans) == sorted(pen.id for pen in pens[1:])
    assert {info.id: info.tail for info in orphans} == {pens[1].id: 201, pens[2].id: 300}
    assert await found.find_key("alice", "k1") is None
    assert (await found.find_key("alice", "k2")).id == pens[2].id
    assert await data_of(found, pens[2].id) == [b"%d" % seq for seq in range(300)]
    recovery = found.statistics().recovery
    assert (recovery.records, recovery.torn, recovery.damaged, recovery.dropped) == (602, 0, 0, 0)


async def test_a_start_that_is_killed_is_repeated_by_the_next(opened, tmp_path):
    """The journal is unlinked after the catalogue has everything; here it is still there."""
    path = tmp_path / "data"
    info = await used_folder(opened, path)
    kept = shutil.copytree(path / "journal", tmp_path / "kept")
    store, orphans = await opened()
    assert orphans == [info]
    snapshot(path, tmp_path / "again")
    shutil.copytree(kept, tmp_path / "again" / "journal", dirs_exist_ok=True)
    again, orphans = await opened(tmp_path / "again")
    assert orphans == [info]
    assert await data_of(again, info.id) == [b"x"]
    assert again.statistics().streams == store.statistics().streams == 2


async def test_a_deletion_survives_a_kill(opened, tmp_path):
    store, _ = await opened(tmp_path / "origin")
    pen = await Pen.create(store, new_info(key="k"))
    await pen.end()
    await store.delete(pen.id)
    snapshot(tmp_path / "origin", tmp_path / "data")
    found, _ = await opened()
    assert await found.find(pen.id) is None
    assert await found.was_deleted(pen.id)
    assert await found.find_key("alice", "k") is None


async def test_what_expired_does_not_come_back_from_the_journal(opened, tmp_path):
    wall = Clock()
    store, _ = await opened(tmp_path / "origin", wall=wall)
    pen = await Pen.create(store)
    await pen.end()
    await eventually(lambda: store.statistics().live_streams == 0)
    wall.now += 10_000
    assert await store.expire(wall()) == 1
    snapshot(tmp_path / "origin", tmp_path / "data")
    found, orphans = await opened()
    assert orphans == []
    assert await found.find(pen.id) is None
    assert await found.was_deleted(pen.id)
    assert found.statistics().recovery.dropped == 0


@pytest.mark.parametrize(
    ("last", "epoch"),
    [
        ({}, 0),
        ({"boot_id": "another"}, 1),
        ({"boot_id": "another", "durability": "host"}, 0),
        ({"boot_id": "another", "clean": True}, 0),
        ({"boot_id": ""}, 1),
    ],
)
async def test_streams_that_a_power_failure_may_have_cut_go_on_under_a_new_epoch(
    opened, tmp_path, last, epoch
):
    path = tmp_path / "data"
    info = await used_folder(opened, path)
    note_writer(path, **last)
    store, (orphan,) = await opened()
    assert (orphan.id, orphan.tail, orphan.epoch) == (info.id, 1, epoch)
    assert orphan.epoch_start == (1 if epoch else 0)
    assert store.epoch == epoch
    assert await store.find(info.id) == orphan
    # It is stored, not only returned: the next start does not know of the power failure any more.
    snapshot(path, tmp_path / "next")
    _, (again,) = await opened(tmp_path / "next")
    assert again == orphan


@pytest.mark.parametrize("sealed", [False, True])
async def test_what_is_kept_of_an_open_stream_is_given_to_the_next_writer(opened, tmp_path, sealed):
    store, _ = await opened(tmp_path / "origin")
    with contextlib.nullcontext() if sealed else nothing_sealed(tmp_path / "origin"):
        pens = [await Pen.create(store, new_info(kept=f"to go on {n}")) for n in range(2)]
        for pen in pens:
            await pen.write(*(b"%d" % seq for seq in range(300)))
        await pens[1].end()
        if sealed:
            await eventually(lambda: store.statistics().live_streams == 1)
        copy_folder(tmp_path / "origin", tmp_path / "data")
    found, (orphan,) = await opened()
    assert (orphan.id, orphan.kept) == (pens[0].id, "to go on 0")
    assert (await found.find(orphan.id)).kept == ""
    assert [info.kept for info in await found.list("alice", "", 10)] == ["", ""]
    # And to the one after that, until the stream ends.
    snapshot(tmp_path / "data", tmp_path / "next")
    again, (orphan,) = await opened(tmp_path / "next")
    assert orphan.kept == "to go on 0"
    pen = await Pen.reopen(again, orphan)
    await pen.end("interrupted")
    await eventually(lambda: again.statistics().live_streams == 0)
    assert catalogue_of(tmp_path / "next", "SELECT count(*) FROM kept") == [(0,)]


@pytest.mark.parametrize(
    ("last", "at_rest", "kept"),
    [
        ({}, "process", "to go on"),
        ({"boot_id": "another"}, "process", ""),
        ({"boot_id": "another"}, "host", "to go on"),
        ({"boot_id": "another", "durability": "host"}, "", "to go on"),
        ({"boot_id": "another", "clean": True}, "process", "to go on"),
    ],
)
async def test_nobody_goes_on_with_a_stream_that_a_power_failure_may_have_cut(
    opened, tmp_path, last, at_rest, kept
):
    store, _ = await opened(tmp_path / "origin", durability="mixed")
    await (await Pen.create(store, new_info(kept="to go on", at_rest=at_rest))).write(b"x")
    snapshot(tmp_path / "origin", tmp_path / "data")
    note_writer(tmp_path / "data", **last)
    _, (orphan,) = await opened()
    assert orphan.kept == kept
    snapshot(tmp_path / "data", tmp_path / "next")
    _, (again,) = await opened(tmp_path / "next")
    assert again.kept == kept


async def test_a_missing_record_ends_what_was_kept(opened, tmp_path):
    """A hole in the journal: what came after it was shown, and is lost."""
    path = tmp_path / "data"
    store, _ = await opened(tmp_path / "origin", rotate_bytes=2_000)
    with nothing_sealed(tmp_path / "origin"):
        pen = await Pen.create(store, new_info(kept="to go on"))
        for _ in range(6):
            await pen.write(b"x" * 1_500)
        copy_folder(tmp_path / "origin", path)
    (path / "journal" / f"{journal_files(path)[-2]:08}.log").unlink()
    _, (orphan,) = await opened()
    assert (orphan.id, orphan.kept) == (pen.id, "")


async def test_a_second_power_failure_does_not_make_lost_positions_valid(opened, tmp_path):
    path = tmp_path / "data"
    await used_folder(opened, path)
    note_writer(path, boot_id="another")
    store, (orphan,) = await opened()
    pen = await Pen.reopen(store, orphan)
    await pen.write(b"after", b"more")
    snapshot(path, tmp_path / "next")
    note_writer(tmp_path / "next", boot_id="yet another")
    _, (again,) = await opened(tmp_path / "next")
    assert (again.epoch, again.epoch_start, again.tail) == (2, 1, 3)


async def test_a_missing_journal_file_is_damage(opened, tmp_path):
    store, _ = await opened(tmp_path / "origin", rotate_bytes=2_000)
    pen = await Pen.create(store)
    for _ in range(12):
        await pen.write(bytes(500))
    await eventually(lambda: store.statistics().sealed_segments > 0)
    await pen.write(b"lost")
    snapshot(tmp_path / "origin", tmp_path / "data")
    for file in (tmp_path / "data" / "journal").iterdir():
        file.unlink()
    found, (orphan,) = await opened()
    assert found.statistics().recovery.damaged == 1
    assert (orphan.epoch, orphan.epoch_start) == (1, orphan.tail)
    assert orphan.tail < 13
    assert len(await data_of(found, pen.id)) == orphan.tail


# --- sealing and letting go -------------------------------------------------------------------


async def test_segments_are_sealed_by_count_by_size_and_at_the_close(opened):
    store, _ = await opened()
    by_count, by_size, short = [await Pen.create(store) for _ in range(3)]
    await by_count.write(*(b"x" for _ in range(255)))
    await by_size.write(bytes(65_000))
    await short.write(b"x")
    await asyncio.sleep(0.1)
    assert store.statistics().sealed_segments == 0
    await by_count.write(b"x")
    await by_size.write(bytes(1_000))
    await short.end()
    await eventually(lambda: store.statistics().sealed_segments == 3)
    found = store.statistics()
    assert (found.open_streams, found.live_streams, found.unsealed_bytes) == (2, 2, 0)
    assert (found.streams, found.sealed_bytes) == (3, 256 + 66_000 + 1 + len(ending(2)))
    for pen, count in ((by_count, 256), (by_size, 2), (short, 2)):
        assert len(await data_of(store, pen.id)) == count


async def test_what_is_behind_by_many_segments_waits_for_company_once(opened, monkeypatch):
    store, _ = await opened()
    pen = await Pen.create(store)
    monkeypatch.setattr("penstock.streams.sealer.GATHER", 3600.0)
    for _ in range(8):
        await pen.write(*(bytes(64 * 1024) for _ in range(4)))
    sealer = store._sealer
    await asyncio.sleep(0)
    sealer._stop_timer()
    sealer._start()
    await eventually(lambda: store.statistics().unsealed_bytes == 0)
    assert store.statistics().sealed_segments == 8


async def test_a_byte_that_changed_in_a_sealed_segment_is_never_served(opened, tmp_path):
    store, _ = await opened()
    pen = await Pen.create(store)
    await pen.write(b"what was stored")
    await pen.end()
    await eventually(lambda: store.statistics().sealed_segments == 1)
    await store.aclose()
    catalogue = tmp_path / "data" / "catalogue.db"
    stored = catalogue.read_bytes()
    assert stored.count(b"what was stored") == 1
    catalogue.write_bytes(stored.replace(b"what was stored", b"what was spoilt"))
    again, _ = await opened()
    with pytest.raises(LogDamaged):
        await again.read(pen.id, 0, 10)


async def test_journal_files_go_when_what_is_in_them_is_sealed(opened, tmp_path):
    store, _ = await opened(rotate_bytes=20_000)
    slow = await Pen.create(store)
    await slow.write(b"early")
    pen = await Pen.create(store)
    for _ in range(40):
        await pen.write(*(bytes(100) for _ in range(50)))
    await pen.end()
    await eventually(lambda: len(journal_files(tmp_path / "data")) <= 2)
    assert journal_files(tmp_path / "data")[0] > 5
    assert await data_of(store, slow.id) == [b"early"]
    assert len(await read_all(store, pen.id)) == 2001
    assert store.statistics().journal_bytes < 60_000
    snapshot(tmp_path / "data", tmp_path / "killed")
    found, orphans = await opened(tmp_path / "killed")
    assert [info.id for info in orphans] == [slow.id]
    assert await data_of(found, slow.id) == [b"early"]


async def test_what_is_committed_while_a_seal_is_on_its_way_keeps_its_journal_file(opened, tmp_path):
    store, _ = await opened(rotate_bytes=200_000)
    with nothing_sealed(tmp_path / "data"):
        pen = await Pen.create(store)
        await pen.write(*(b"x" for _ in range(256)))
        await asyncio.sleep(0.1)  # now the seal waits
        await pen.write(b"meanwhile")
    other = await Pen.create(store)
    await other.write(bytes(250_000))
    await other.write(b"in the next file")
    await eventually(lambda: store.statistics().sealed_segments == 2)
    await asyncio.sleep(0.05)
    snapshot(tmp_path / "data", tmp_path / "killed")
    found, _ = await opened(tmp_path / "killed")
    assert await data_of(found, pen.id) == [b"x"] * 256 + [b"meanwhile"]


async def test_a_close_leaves_an_empty_journal_and_an_empty_log_of_sqlite(opened, tmp_path):
    store, _ = await opened()
    pen = await Pen.create(store)
    await pen.write(b"x")
    await store.aclose()
    assert journal_files(tmp_path / "data") == []
    assert not (tmp_path / "data" / "catalogue.db-wal").exists()
    assert msgspec.json.decode((tmp_path / "data" / "writer.json").read_bytes())["clean"] is True
    _, (orphan,) = await opened()
    assert (orphan.id, orphan.tail, orphan.epoch) == (pen.id, 1, 0)
    assert msgspec.json.decode((tmp_path / "data" / "writer.json").read_bytes())["clean"] is False


async def test_a_deleted_stream_leaves_no_byte(opened, tmp_path):
    store, _ = await opened(sweep_interval=0.02, scrub_interval=0.05)
    secrets = {}
    for name in ("sealed", "fresh", "kept"):
        pen = await Pen.create(store, new_info(key=f"key of {name}", kept=f"request of {name}"))
        await pen.write(*(f"secret of {name} {n}".encode() for n in range(300)))
        await pen.end()
        secrets[name] = pen
        if name == "sealed":
            await eventually(lambda: store.statistics().live_streams == 0)

    def holds(text: bytes) -> bool:
        return any(text in content for content in contents(tmp_path / "data").values()) or any(
            text in (tmp_path / "data" / name).read_bytes() for name in ("catalogue.db-wal",)
        )

    for name in ("sealed", "fresh"):
        await store.delete(secrets[name].id)
    erased = [
        f"{what} of {name}".encode() for what in ("secret", "key", "request") for name in ("sealed", "fresh")
    ]
    for text in erased:
        await eventually(lambda text=text: not holds(text))
    assert holds(b"secret of kept")
    assert len(await read_all(store, secrets["kept"].id)) == 301


async def test_streams_are_swept_without_being_asked(opened):
    wall = Clock()
    store, _ = await opened(wall=wall, sweep_interval=0.02)
    infos = [new_info(retention=10) for _ in range(150)]
    for info in infos:
        await (await Pen.create(store, info)).end()
    wall.now += 100
    await eventually(lambda: store.statistics().streams == 0 == store.statistics().live_streams)
    assert all([await store.was_deleted(info.id) for info in infos])
    assert store.statistics().sealed_bytes == 0


async def test_durable_commits_gather_while_one_is_synced(opened):
    store, _ = await opened(durability="host")
    pens = [await Pen.create(store) for _ in range(10)]
    for n in range(1, 200):
        for pen in pens:
            pen.append(b"%d" % n)
        await asyncio.sleep(0)
    for pen in pens:
        await pen.end()
        uptos = [upto for upto, failure in pen.told if failure is None]
        assert uptos == sorted(set(uptos))
        assert len(uptos) < 200
        assert uptos[-1] == 200
        assert await data_of(store, pen.id) == [*(b"%d" % n for n in range(1, 200)), ending(200)]
    assert store.uncommitted == 0


# --- against a model --------------------------------------------------------------------------


class Model(RuleBasedStateMachine):
    """The store against dictionaries, through closes, kills and deletions."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.ExitStack()
        self.path = self.stack.enter_context(folder_in_ram())
        self.generation = 0
        self.data: dict[str, list[bytes]] = {}
        self.ended: set[str] = set()
        self.keys: dict[str, str] = {}
        self.gone: set[str] = set()
        self.pens: dict[str, Pen] = {}
        self.store: EmbeddedStore
        self.open()

    @property
    def folder(self) -> Path:
        return self.path / str(self.generation)

    def open(self) -> None:
        self.store = EmbeddedStore(self.folder, EmbeddedSettings(rotate_bytes=3_000))
        orphans = self.runner.run(self.store.open())
        assert {info.id: (info.tail, info.epoch) for info in orphans} == {
            stream: (len(data), 0) for stream, data in self.data.items() if stream not in self.ended
        }
        assert self.store.statistics().recovery.damaged == 0
        for info in orphans:
            self.pens[info.id] = self.runner.run(Pen.reopen(self.store, info))

    @rule(target=streams, key=st.sampled_from(["", "", "k1", "k2"]))
    def create(self, key: str) -> str:
        info = new_info(key=key)
        holder = next((stream for stream, held in self.keys.items() if key and held == key), None)
        if holder is not None:
            with pytest.raises(KeyTaken) as taken:
                self.runner.run(Pen.create(self.store, info))
            assert taken.value.existing.id == holder
            return holder
        pen = self.runner.run(Pen.create(self.store, info))
        self.data[info.id], self.keys[info.id], self.pens[info.id] = [], key, pen
        return info.id

    @rule(stream=streams, data=st.lists(st.binary(max_size=600), min_size=1, max_size=40))
    def append(self, stream: str, data: list[bytes]) -> None:
        if stream in self.data and stream not in self.ended:
            self.runner.run(self.pens[stream].write(*data))
            self.data[stream] += data

    @rule(stream=streams)
    def end(self, stream: str) -> None:
        if stream in self.data and stream not in self.ended:
            self.runner.run(self.pens[stream].end())
            self.data[stream].append(ending(len(self.data[stream]) + 1))
            self.ended.add(stream)

    @rule(stream=streams)
    def release_key(self, stream: str) -> None:
        if stream in self.data and stream in self.pens:

            async def release() -> None:
                self.pens[stream].log.release_key()
                await asyncio.sleep(0)

            self.runner.run(release())
            self.keys[stream] = ""

    @rule(stream=consumes(streams))
    def delete(self, stream: str) -> None:
        expected = stream in self.data and stream in self.ended
        assert self.runner.run(self.store.delete(stream)) == expected
        if expected:
            del self.data[stream], self.keys[stream]
            self.pens.pop(stream, None)
            self.gone.add(stream)

    @rule(stream=streams, after=st.integers(0, 60), limit=st.integers(1, 60))
    def read(self, stream: str, after: int, limit: int) -> None:
        expected = self.data.get(stream, [])
        kinds = [ENTRY] * len(expected)
        if stream in self.ended and expected:
            kinds[-1] = TERMINAL
        records = [
            Record(n + 1, kind, data) for n, (kind, data) in enumerate(zip(kinds, expected, strict=True))
        ]
        assert list(self.runner.run(self.store.read(stream, after, limit))) == records[after : after + limit]

    @rule(pause=st.sampled_from([0.0, 0.03]))
    def let_it_seal(self, pause: float) -> None:
        self.runner.run(asyncio.sleep(pause))

    @rule()
    def close_and_reopen(self) -> None:
        self.runner.run(self.store.aclose())
        self.pens = {}
        self.open()

    @rule()
    def kill_and_reopen(self) -> None:
        image = snapshot(self.folder, self.path / str(self.generation + 1))
        self.runner.run(self.store.aclose())
        self.generation += 1
        assert image == self.folder
        self.pens = {}
        self.open()

    @invariant()
    @precondition(lambda self: self.data)
    def the_catalogue_agrees(self) -> None:
        found = self.runner.run(self.store.list("alice", "", 10_000))
        assert [info.id for info in found] == sorted(self.data, reverse=True)
        for info in found:
            data = self.data[info.id]
            assert (info.tail, info.bytes) == (len(data), sum(map(len, data)))
            assert info.status == ("completed" if info.id in self.ended else None)
            assert info.idempotency_key == self.keys[info.id]

    @invariant()
    def what_is_gone_is_gone(self) -> None:
        for stream in list(self.gone)[:3]:
            assert self.runner.run(self.store.find(stream)) is None
            assert self.runner.run(self.store.was_deleted(stream))

    def teardown(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        self.stack.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=20, stateful_step_count=25)
