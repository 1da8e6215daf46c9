"""A disk that fails under a gateway that works: what readers see, what callers are told, what is left.

Twice where that is possible: on a small file system of its own, filled to the last byte, where the
reserve pays for the ends of streams; and with a limit on the size of files, where nothing can be
written any more until it is lifted.
"""

import asyncio
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest

from tests.clients.upstream import answering
from tests.faults import doomed
from tests.faults.process import PATIENCE, Gateway, eventually
from tests.faults.readers import Ledger, Reader, check, whole

SCRIPT = {"tokens": 3_000, "tokens_per_second": 400, "first_token_delay": 0}
LIMIT = resource.RLIMIT_FSIZE


def asking(**script: object) -> dict:
    message = {"role": "user", "content": "Tell me"}
    request = {"model": "demo-long", "messages": [message], "penstock_script": {**SCRIPT, **script}}
    return {"request": request}


class SmallDisk:
    """A file system of 12 MiB, which can be filled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, _: Gateway) -> None:
        with (self.path / "filler").open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def free(self, _: Gateway) -> None:
        (self.path / "filler").unlink()


class Limit:
    """A limit on the size of the process's files, which anyone may set: no file can grow."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, gateway: Gateway) -> None:
        self._set(gateway, 0)

    def free(self, gateway: Gateway) -> None:
        self._set(gateway, resource.RLIM_INFINITY)

    def _set(self, gateway: Gateway, size: int) -> None:
        assert gateway.process is not None
        _, hard = resource.prlimit(gateway.process.pid, LIMIT)
        resource.prlimit(gateway.process.pid, LIMIT, (size, hard))


def mount(path: Path, options: str) -> None:
    """Mount a file system in memory, or skip the test."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    mount(path, "size=12m")
    yield SmallDisk(path)
    subprocess.run(["umount", path], check=True)


@pytest.fixture(params=["small_disk", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> SmallDisk | Limit:
    return request.getfixturevalue("small_disk") if request.param == "small_disk" else Limit(tmp_path)


@pytest.fixture
def gateway(disk: SmallDisk | Limit, tmp_path: Path) -> Iterator[Gateway]:
    with answering() as upstream:
        providers = {"real": {"base_url": f"{upstream.url}/v1"}}
        made = Gateway(tmp_path, program=(doomed.__file__,), data=disk.path / "data", providers=providers)
        made.upstream = upstream
        with made:
            yield made


async def ready(gateway: Gateway) -> int:
    return (await gateway.call("GET", "/readyz")).status


async def is_cut(call: Coroutine) -> bool:
    """Say whether an answer began and did not end."""
    try:
        await call
    except ConnectionError as error:
        return "cut" in str(error)
    return False


async def until_ready(gateway: Gateway, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await ready(gateway) != status:  # noqa: ASYNC110  another process's doing
            await asyncio.sleep(0.02)


async def test_full_disk_cuts_readers_without_an_end_and_they_are_told_once_there_is_room(gateway, disk):
    await gateway.start()
    ledger = Ledger()
    before = Reader(gateway, ledger, create=asking(tokens=20), key="before")
    await before.follow()
    creators = [Reader(gateway, ledger, create=asking(), key=f"k{n}") for n in range(3)]
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(creator.once()) for creator in creators]
        body = {"model": "real/endless", "stream": True, "messages": [{"role": "user", "content": "Go on"}]}
        relayed = group.create_task(is_cut(gateway.call("POST", "/v1/chat/completions", body)))
        await eventually(lambda: all(c.position > 20 for c in creators) and gateway.upstream.asked)
        disk.fill(gateway)
        await until_ready(gateway, 503)
        refused = await gateway.call("POST", "/v1/streams", asking(), Idempotency_Key="new")
        assert (refused.status, refused.json["error"]["code"]) == (503, "storage_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        # The disk stays full: after the grace, everybody is cut off, and nothing says that it is an end.
        assert await asyncio.gather(*first) == [False] * 3
        assert [creator.end for creator in creators] == [None] * 3
        assert await relayed
        assert gateway.upstream.asked[0].left.wait(PATIENCE)
    stored = await check(gateway, ledger, before.stream)  # what is closed can be read all the time
    assert stored["status"] == "completed"
    assert await ready(gateway) == 503
    assert (await gateway.call("POST", "/v1/streams", asking())).status == 503
    disk.free(gateway)
    await until_ready(gateway, 200)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(creator.follow() for creator in creators))
    for creator in creators:
        assert creator.statuses[-1] == 204
        end = await check(gateway, ledger, creator.stream)
        assert (end["status"], end["code"], end["retryable"]) == ("interrupted", "storage_unavailable", True)
    again = Reader(gateway, ledger, create=asking(tokens=20), key="again")
    await again.follow()
    assert (await check(gateway, ledger, again.stream))["status"] == "completed"
    gateway.kill()  # and all of that is at rest
    await gateway.start()
    for stream in ledger.streams:
        await check(gateway, ledger, stream)
    assert gateway.log("store_healthy")


async def test_disk_that_is_full_for_a_moment_costs_nobody_anything(disk, tmp_path):
    ledger = Ledger()
    with Gateway(tmp_path, data=disk.path / "data") as gateway:
        await gateway.start()
        await fill_for_a_moment(gateway, disk, ledger)
        assert await ready(gateway) == 200


async def fill_for_a_moment(gateway: Gateway, disk: SmallDisk | Limit, ledger: Ledger) -> None:
    creators = [Reader(gateway, ledger, create=asking(tokens=400), key=f"k{n}") for n in range(3)]
    async with asyncio.TaskGroup() as group:
        for creator in creators:
            group.create_task(creator.follow())
        await eventually(lambda: all(creator.position > 20 for creator in creators))
        disk.fill(gateway)
        await until_ready(gateway, 503)
        disk.free(gateway)
    for creator in creators:
        assert creator.statuses == [200, 204]
        assert (await check(gateway, ledger, creator.stream))["status"] == "completed"


def refusal(gateway: Gateway, code: int) -> str:
    """Start a process that must leave by itself; return what it said."""
    process = gateway.spawn()
    try:
        assert process.wait(PATIENCE) == code
    finally:
        process.kill()
        process.wait()
    return gateway._log.read_text().splitlines()[-1]


def test_folder_that_cannot_be_written_is_refused_with_a_sentence(tmp_path):
    path = tmp_path / "disk"
    mount(path, "ro")
    try:
        said = refusal(Gateway(tmp_path, data=path / "data"), 69)
        assert said.startswith("penstock: ")
        assert str(path / "data") in said or str(path) in said
        assert "Make it writable for this user, or name another." in said
    finally:
        subprocess.run(["umount", path], check=True)


async def test_second_gateway_on_a_folder_is_refused_and_told_who_holds_it(tmp_path):
    with Gateway(tmp_path) as first:
        await first.start()
        (tmp_path / "second").mkdir()
        said = refusal(Gateway(tmp_path / "second", data=first.data), 69)
        assert f"{first.data} is in use by process {first.process.pid} on {os.uname().nodename}" in said
        assert await ready(first) == 200


async def left_behind(gateway: Gateway, ledger: Ledger) -> tuple[str, Path, bytes]:
    """Kill a gateway in mid-answer; return the stream and the newest file of the journal it left."""
    await gateway.start()
    creator = Reader(gateway, ledger, create=asking())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(creator.once())
        await eventually(lambda: creator.position > 100)
        gateway.kill()
        await task
    path = max((gateway.data / "journal").iterdir())
    return creator.stream, path, path.read_bytes()


async def test_write_that_a_kill_cut_short_leaves_no_trace(tmp_path):
    ledger = Ledger()
    with Gateway(tmp_path) as gateway:
        stream, path, data = await left_behind(gateway, ledger)
        head = 36
        length = int.from_bytes(data[head + 4 : head + 8], "little")
        path.write_bytes(data + data[head : head + 16 + length // 2])  # half a frame
        await gateway.start()
        end = await check(gateway, ledger, stream)
        assert (end["status"], end["code"]) == ("interrupted", "gateway_restarted")
        assert gateway.log("journal_torn")
        assert not [line for line in gateway.log() if line["level"] == "error"]


async def test_flipped_byte_is_told_loudly_and_nothing_behind_it_is_served(tmp_path):
    ledger = Ledger()
    with Gateway(tmp_path) as gateway:
        stream, path, data = await left_behind(gateway, ledger)
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        await gateway.start()
        assert gateway.log("journal_damaged")
        assert path.with_suffix(".damaged").read_bytes()[:middle] == data[:middle]
        log = await whole(gateway, stream)
        shown = ledger.streams[stream]
        assert 10 < len(log) - 1 < len(shown)
        assert log[:-1] == [shown[position] for position in range(1, len(log))]
        assert json.loads(log[-1][1])["status"] == "interrupted"
        # A reader that has seen what is lost is told so, and not that all is well.
        ahead = Reader(gateway, ledger, stream=stream, after=f"{stream}~{len(shown):016}")
        await ahead.follow()
        assert ahead.lost is not None
        assert ahead.lost["code"] == "log_lost"


@pytest.mark.parametrize("name", ["catalogue.db", "writer.json"])
async def test_folder_that_lost_a_file_is_refused_and_not_begun_anew(tmp_path, name):
    ledger = Ledger()
    with Gateway(tmp_path) as gateway:
        stream, _, _ = await left_behind(gateway, ledger)
        file = gateway.data / name
        kept = file.read_bytes()
        file.write_bytes(b"")
        for more in ("-wal", "-shm"):
            (gateway.data / (name + more)).unlink(missing_ok=True)
        if name == "catalogue.db":
            assert str(file) in refusal(gateway, 69)
        else:
            assert kept
            await gateway.start()
            assert (await check(gateway, ledger, stream))["status"] == "interrupted"
