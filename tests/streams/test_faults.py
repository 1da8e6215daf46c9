"""The embedded store when things break for real: full disks, torn and flipped bytes, kills."""

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from penstock.streams import journal
from penstock.streams.committer import CommitSettings
from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.folder import StoreUnusable
from penstock.streams.journal import Frame
from penstock.streams.store import StoreFailure
from penstock.types.errors import StorageError
from tests.streams import appender
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

QUICK = CommitSettings(retry_interval=0.005, probe_interval=0.01)


# --- a full disk ------------------------------------------------------------------------------


class Disk:
    """A small file system of its own, which can be filled to the last byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(size))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True)


class Limit:
    """Where nothing can be mounted: no file of this process can grow beyond 4 KiB while it is full.

    Unlike on a full disk, giving up the reserve makes no room.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, self._limits[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk | None]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", path]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    yield Disk(path)
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def disk(small_disk: Disk | None) -> Disk:
    if small_disk is None:
        pytest.skip("needs the right to mount a file system")
    return small_disk


@pytest.fixture
def full_disk(small_disk: Disk | None, tmp_path: Path) -> Iterator[Disk | Limit]:
    disk = small_disk or Limit(tmp_path)
    yield disk
    disk.free()


class Bench:
    """A store on a small disk, with a clock that stands."""

    def __init__(self, disk: Disk | Limit) -> None:
        self.disk = disk
        self.clock = Clock(1000.0)
        self.store = self.make()

    def make(self) -> EmbeddedStore:
        settings = EmbeddedSettings(commit=QUICK, reserve_bytes=256 * 1024)
        return EmbeddedStore(self.disk.path / "data", settings, clock=self.clock)

    @property
    def state(self) -> str:
        return self.store.statistics().state

    async def give_up(self) -> None:
        self.clock.now += 6
        await eventually(lambda: self.state == "down")


@pytest.fixture
async def bench(full_disk: Disk | Limit) -> AsyncIterator[Bench]:
    bench = Bench(full_disk)
    await bench.store.open()
    yield bench
    await bench.store.aclose()


@pytest.fixture
def roomless(bench: Bench, disk: Disk) -> Bench:
    """A bench whose disk is a real one: what is given up there makes room."""
    return bench


async def test_what_does_not_fit_waits_and_is_committed_when_there_is_room(bench):
    pen = await Pen.create(bench.store)
    await pen.write(b"before")
    bench.disk.fill()
    pen.append(bytes(10_000))
    await pen.wait_told(lambda: len(pen.told) >= 4)
    assert set(pen.told[1:]) == {(1, StoreFailure("disk_full", final=False))}
    assert (bench.state, bench.store.healthy) == ("failing", False)
    assert bench.store.uncommitted == pen.log.uncommitted == 10_000
    assert await data_of(bench.store, pen.id) == [b"before"]
    pen.append(b"more")
    bench.disk.free()
    await pen.wait_committed()
    assert pen.told[-1] == (3, None)
    assert await data_of(bench.store, pen.id) == [b"before", bytes(10_000), b"more"]
    assert bench.store.healthy
    await Pen.create(bench.store)


async def test_while_it_fails_creations_are_refused_at_once_and_reads_go_on(bench):
    old = await Pen.create(bench.store, new_info(key="k"))
    await old.end()
    pen = await Pen.create(bench.store)
    bench.disk.fill()
    creation = asyncio.ensure_future(Pen.create(bench.store, new_info(key="never")))
    pen.append(bytes(10_000))
    with pytest.raises(StorageError):
        await creation
    with pytest.raises(StorageError):
        await Pen.create(bench.store)
    with pytest.raises(StorageError):
        await bench.store.delete(old.id)
    assert await data_of(bench.store, old.id) == [ending(1)]
    assert await bench.store.find_key("alice", "never") is None
    bench.disk.free()
    await pen.wait_committed()
    await Pen.create(bench.store, new_info(key="never"))


async def test_after_the_grace_streams_are_given_up_and_the_reserve_pays_for_their_ends(roomless):
    pens = [await Pen.create(roomless.store) for _ in range(20)]
    for pen in pens:
        await pen.write(b"shown")
    roomless.disk.fill()
    for pen in pens:
        pen.append(bytes(5_000), b"never shown")
    await pens[0].wait_told(lambda: len(pens[0].told) > 2)
    await roomless.give_up()
    for pen in pens:
        assert pen.told[-1] == (1, StoreFailure("disk_full", final=True))
        assert pen.log.uncommitted == 0
    assert roomless.store.uncommitted == 0
    for pen in pens:
        pen.seq = 1
        pen.close("interrupted")
    for pen in pens:
        await pen.wait_committed()
        assert await data_of(roomless.store, pen.id) == [b"shown", ending(2, "interrupted")]
    assert (roomless.state, roomless.store.healthy) == ("down", False)
    with pytest.raises(StorageError):
        await Pen.create(roomless.store)
    roomless.disk.free()
    await eventually(lambda: roomless.store.healthy)
    assert (roomless.disk.path / "data" / "reserve").stat().st_size == 256 * 1024
    after = await Pen.create(roomless.store)
    await after.end()
    await roomless.store.aclose()
    roomless.store = roomless.make()
    assert await roomless.store.open() == []
    for pen in pens:
        assert await data_of(roomless.store, pen.id) == [b"shown", ending(2, "interrupted")]


async def test_while_down_nothing_but_ends_is_taken(roomless):
    pen, silent = [await Pen.create(roomless.store) for _ in range(2)]
    roomless.disk.fill()
    pen.append(bytes(10_000))
    await pen.wait_told(lambda: bool(pen.told))
    await roomless.give_up()
    silent.append(b"x")
    await silent.wait_told(lambda: bool(silent.told))
    assert silent.told == [(0, StoreFailure("disk_full", final=True))]
    silent.seq = 0
    await silent.end("failed")
    assert (await roomless.store.find(silent.id)).status == "failed"
    taken_over = await Pen.reopen(roomless.store, pen.info)
    await taken_over.end("interrupted")
    assert (await roomless.store.find(pen.id)).status == "interrupted"


async def test_a_terminal_record_that_waits_is_not_given_up(roomless):
    pen = await Pen.create(roomless.store)
    filler = await Pen.create(roomless.store)
    roomless.disk.fill()
    filler.append(bytes(10_000))
    pen.close("completed")
    await pen.wait_told(lambda: bool(pen.told))
    await roomless.give_up()
    assert filler.told[-1] == (0, StoreFailure("disk_full", final=True))
    assert pen.told[-1] != (0, StoreFailure("disk_full", final=True))
    await pen.wait_committed()
    assert (await roomless.store.find(pen.id)).status == "completed"


async def test_a_store_on_a_full_disk_opens_and_reads_and_heals(roomless):
    pen = await Pen.create(roomless.store, new_info(key="k"))
    await pen.write(b"shown")
    roomless.disk.fill()
    await roomless.store.aclose()  # cannot seal what is in the journal
    roomless.store = roomless.make()
    (orphan,) = await roomless.store.open()
    assert await data_of(roomless.store, pen.id) == [b"shown"]
    other = await Pen.reopen(roomless.store, orphan)
    await other.end("interrupted")
    roomless.disk.free()
    await eventually(lambda: roomless.store.healthy)
    await Pen.create(roomless.store)


async def test_a_close_on_a_full_disk_tells_the_writers_and_ends(bench):
    pen = await Pen.create(bench.store)
    bench.disk.fill()
    pen.append(bytes(10_000))
    await bench.store.aclose()
    assert pen.told[-1] == (0, StoreFailure("disk_full", final=True))


class FullLog:
    """A logger whose file is on a full disk."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, message: str) -> None:
        raise OSError(28, os.strerror(28))

    warning = error = info = msg


async def test_a_log_that_cannot_be_written_either_does_not_stop_the_store(bench):
    pen = await Pen.create(bench.store)
    bench.disk.fill()
    structlog.configure(logger_factory=FullLog, cache_logger_on_first_use=False)
    try:
        pen.append(bytes(10_000))
        await pen.wait_told(lambda: bool(pen.told))
        await bench.give_up()
        bench.disk.free()
        await eventually(lambda: bench.store.healthy)
    finally:
        structlog.reset_defaults()


async def test_a_folder_that_is_read_only_is_refused(disk):
    store = EmbeddedStore(disk.path / "data")
    await store.open()
    await store.aclose()
    for path in (disk.path / "data", disk.path / "other"):
        disk.remount("ro")
        try:
            with pytest.raises(StoreUnusable, match=r"cannot be written \(Read-only file system\)"):
                await EmbeddedStore(path).open()
        finally:
            disk.remount("rw")


# --- other failures ---------------------------------------------------------------------------


async def test_a_failed_sync_is_written_again_elsewhere(tmp_path, monkeypatch):
    store = EmbeddedStore(tmp_path / "data", EmbeddedSettings(durability="host", commit=QUICK))
    await store.open()
    pen = await Pen.create(store)
    await pen.write(b"one")
    works, failures = os.fdatasync, iter([True, True, False])

    def fdatasync(fd: int) -> None:
        if next(failures, False):
            raise OSError(5, os.strerror(5))
        works(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    pen.append(b"two")
    await pen.wait_told(lambda: len(pen.told) > 1)
    assert pen.told[1] == (1, StoreFailure("io_error", final=False))
    pen.append(b"three")
    await pen.wait_committed()
    assert await data_of(store, pen.id) == [b"one", b"two", b"three"]
    snapshot(tmp_path / "data", tmp_path / "killed")
    await store.aclose()
    killed = EmbeddedStore(tmp_path / "killed")
    (orphan,) = await killed.open()
    assert (orphan.tail, orphan.epoch) == (3, 0)
    assert await data_of(killed, pen.id) == [b"one", b"two", b"three"]
    await killed.aclose()


async def test_a_catalogue_that_stands_still_stops_commits_before_memory_runs_out(tmp_path):
    clock = Clock(1000.0)
    commit = CommitSettings(retry_interval=0.005, probe_interval=0.01, max_unsealed_bytes=100_000)
    store = EmbeddedStore(tmp_path / "data", EmbeddedSettings(commit=commit), clock=clock)
    await store.open()
    with nothing_sealed(tmp_path / "data"):
        pen = await Pen.create(store)
        while not pen.told or pen.told[-1][1] is None:
            pen.append(bytes(10_000))
            before = len(pen.told)
            await pen.wait_told(lambda before=before: len(pen.told) > before)
        assert pen.told[-1][1] == StoreFailure("catalogue_behind", final=False)
        assert 100_000 < store.statistics().unsealed_bytes <= 110_000
        await eventually(lambda: store.statistics().seal_failures > 0)
    await pen.wait_committed()
    assert len(await read_all(store, pen.id)) == pen.seq
    await store.aclose()


# --- what a crash leaves ----------------------------------------------------------------------


class Image:
    """A folder as a kill left it: what was committed, and how to open copies of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.committed: dict[str, list[bytes]] = {}
        self._copies = 0

    @property
    def journal(self) -> bytes:
        return (self.path / "journal" / "00000001.log").read_bytes()

    async def open(self, journal: bytes) -> EmbeddedStore:
        """Open a copy of the folder with another journal."""
        self._copies += 1
        copy = self.path.parent / f"copy-{self._copies}"
        shutil.copytree(self.path, copy, copy_function=shutil.copyfile)
        (copy / "journal" / "00000001.log").write_bytes(journal)
        store = EmbeddedStore(copy)
        self.open_streams = {info.id: info for info in await store.open()}
        return store

    async def contents(self, store: EmbeddedStore) -> dict[str, list[bytes]]:
        return {info.id: await data_of(store, info.id) for info in await store.list("alice", "", 100)}


async def make_image(path: Path) -> Image:
    """Three streams, one of them closed, with small batches that take turns; nothing is sealed."""
    image = Image(path / "image")
    store = EmbeddedStore(path / "origin")
    await store.open()
    with nothing_sealed(path / "origin"):
        pens = [await Pen.create(store) for _ in range(3)]
        for n in range(6):
            for pen in pens:
                await pen.write(*(f"{pen.id} {n} {m}".encode() for m in range(n % 3 + 1)))
        await pens[0].end()
        image.committed = await image.contents(store)
        copy_folder(path / "origin", image.path)
    await store.aclose()
    return image


@pytest.fixture
async def image() -> AsyncIterator[Image]:
    with folder_in_ram() as folder:
        yield await make_image(folder)


def frames(data: bytes) -> list[Frame]:
    header = journal.read_header(data)
    return [frame for frame in journal.frames(data, header.salt) if isinstance(frame, Frame)]


async def test_a_journal_cut_at_any_byte_gives_exactly_what_was_whole(image):
    data = image.journal
    found = frames(data)
    starts = [frame.offset for frame in found] + [len(data)]
    for length in range(starts[-3], len(data)):
        store = await image.open(data[:length])
        whole = max(start for start in starts if start <= length)
        expected: dict[str, list[bytes]] = {stream: [] for stream in image.committed}
        for frame in found:
            if frame.offset < whole and frame.type in (journal.RECORDS, journal.CLOSING):
                head = journal.FIRST.size if frame.type == journal.RECORDS else journal.CLOSE.size
                expected[frame.stream] += [one.data for one in journal.decode_records(frame.payload, 1, head)]
        assert await image.contents(store) == expected
        recovery = store.statistics().recovery
        assert (recovery.damaged, recovery.torn) == (0, length - whole)
        assert {info.epoch for info in image.open_streams.values()} == {0}
        await store.aclose()


def test_flipped_bits_never_give_a_wrong_record_nor_a_position_twice():
    with folder_in_ram() as folder, asyncio.Runner() as runner:
        check_flips(runner, runner.run(make_image(folder)))


def check_flips(runner: asyncio.Runner, image: Image) -> None:
    size = 8 * len(image.journal)

    @given(st.lists(st.integers(0, size - 1), min_size=1, max_size=3, unique=True))
    def flip(bits: list[int]) -> None:
        data = bytearray(image.journal)
        for bit in bits:
            data[bit // 8] ^= 1 << bit % 8
        runner.run(check(bytes(data)))

    async def check(data: bytes) -> None:
        store = await image.open(data)
        contents = await image.contents(store)
        recovery = store.statistics().recovery
        assert recovery.damaged > 0
        assert [file.suffix for file in (store._folder.journal).iterdir()] == [".damaged"]
        for stream, committed in image.committed.items():
            found = contents.get(stream, [])
            assert found == committed[: len(found)]
            if len(found) < len(committed) and stream in contents:
                info = image.open_streams[stream]
                assert (info.epoch, info.epoch_start, info.tail) == (1, len(found), len(found))
        await store.aclose()

    flip()


async def test_streams_that_damage_cannot_have_touched_keep_their_epoch(image):
    """A stream whose next records follow without a gap lost nothing; one that is silent may have."""
    data = bytearray(image.journal)
    ids = list(image.committed)
    found = frames(bytes(data))
    lost = found[3]  # the first records of the first stream
    assert (lost.type, lost.stream) == (
        journal.RECORDS,
        sorted(ids, key=lambda one: [f.stream for f in found].index(one))[0],
    )
    data[lost.offset + 20] ^= 1
    store = await image.open(bytes(data))
    contents = await image.contents(store)
    assert contents[lost.stream] == []
    assert image.open_streams[lost.stream].epoch == 1
    for stream in set(ids) - {lost.stream}:
        assert contents[stream] == image.committed[stream]
        assert image.open_streams[stream].epoch == 0
    recovery = store.statistics().recovery
    assert (recovery.damaged, recovery.dropped) == (1, len(image.committed[lost.stream]) - 1)
    await store.aclose()


@pytest.mark.parametrize("durability", ["process", "host"])
def test_what_was_acknowledged_survives_sigkill(tmp_path, durability):
    chance = random.Random(durability)
    acknowledged: dict[str, int] = {}
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, appender.__file__, tmp_path / "data", durability], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        for line in child.stdout:
            note(line, acknowledged)
            if line == b"ready\n":
                break
        for _, line in zip(range(chance.randrange(1, 900)), child.stdout, strict=False):
            note(line, acknowledged)
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            note(line, acknowledged)
        child.stdout.close()
        child.wait()
        asyncio.run(check_acknowledged(tmp_path / "data", acknowledged))
    assert sum(acknowledged.values()) > 1_000


def note(line: bytes, acknowledged: dict[str, int]) -> None:
    if not line.endswith(b"\n"):
        return
    match line.decode().split():
        case ["new", stream]:
            acknowledged[stream] = 0
        case ["end", stream]:
            acknowledged[stream] = appender.LENGTH + 1
        case ["open", stream, tail]:
            assert int(tail) >= acknowledged.get(stream, 0)
        case ["ready"]:
            pass
        case [stream, upto]:
            acknowledged[stream] = int(upto)


async def check_acknowledged(folder: Path, acknowledged: dict[str, int]) -> None:
    """Check a copy, so that the next process meets what the killed one left."""
    copy = folder.with_suffix(".copy")
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    store = EmbeddedStore(copy)
    orphans = {info.id for info in await store.open()}
    assert store.statistics().recovery.damaged == 0
    for stream, upto in acknowledged.items():
        records = await read_all(store, stream, limit=1000)
        assert len(records) >= upto
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert all(record.data == appender.data_of(stream, record.seq) for record in records)
        assert (stream in orphans) == (len(records) <= appender.LENGTH)
    await store.aclose()
    shutil.rmtree(copy)
