"""What pip installs is the whole product: the program, its page, its types, and one version."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from contextlib import contextmanager

import httpx
import pytest

from tests.packages.conftest import PATIENCE, ROOT, clean_environment, commands, run
from tests.server.sse import parse

pytestmark = pytest.mark.timeout(300)  # building and installing fetch from the package index

PROGRAM = """
import asyncio

from penstock import Config, Generation, Penstock, PenstockError


async def main() -> None:
    penstock = Penstock(Config())
    async with penstock:
        generation: Generation = await penstock.start("one two three", model="demo-echo")
        try:
            print(await generation.text())
        except PenstockError as error:
            print(error.code)


asyncio.run(main())
"""

CLIENT = """
import asyncio
import sys

from penstock.client import AsyncClient, Client, Failed, TextDelta


async def main(url: str) -> None:
    async with AsyncClient(url, transport="websocket") as client:
        async with client.ask("four five", model="demo-echo") as answer:
            print(await anext(answer.text()))


with Client(sys.argv[1], headers={"X-Team": "search"}) as client:
    answer = client.ask("one two three", model="demo-echo")
    pieces = [entry.event.delta for entry in answer if isinstance(entry.event, TextDelta)]
    print("".join(pieces))
    try:
        client.ask("x", model="none").end()
    except Failed as failed:
        print(failed.code)
asyncio.run(main(sys.argv[1]))
"""


@contextmanager
def served(installed, folder):
    """The installed program, started elsewhere as people start it; yields its URL."""
    command = [installed.bin / "penstock", "serve", "--port", "0", "--data", "data"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            greeting = iter(process.stdout.readline, "")
            yield next(
                f"http://127.0.0.1:{found[1]}"
                for line in greeting
                if (found := re.search(r"page +http://localhost:(\d+)/", line))
            )
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_wheel_holds_every_tracked_file_of_the_package(installed):
    source = installed.folder / "source" / "src"
    tracked = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == tracked
    assert "penstock/py.typed" in names


def test_sdist_builds_the_same_wheel(installed):
    (direct,) = (installed.folder / "direct").glob("*.whl")
    assert direct.name == installed.wheel.name
    with zipfile.ZipFile(direct) as one, zipfile.ZipFile(installed.wheel) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}


def test_sdist_holds_what_its_tests_need(installed):
    (sdist,) = installed.dist.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for name in ("tests/packages/test_package.py", "vectors/sse/README.md", "docs/protocol.md", "Makefile"):
        assert name in names


def test_version_is_that_of_the_metadata(installed, tmp_path):
    code = "from importlib.metadata import version; print(version('penstock'))"
    metadata = run(installed.bin / "python", "-c", code, cwd=tmp_path)
    assert run(installed.bin / "penstock", "version", cwd=tmp_path) == metadata
    assert f"-{metadata.strip()}-" in installed.wheel.name


def test_installed_gateway_streams_and_has_its_page(installed, tmp_path):
    pages = ROOT / "src" / "penstock" / "server" / "pages"
    with served(installed, tmp_path) as url, httpx.Client(base_url=url, timeout=30) as client:
        events = parse(client.get("/stream?content=Hello&model=demo&format=json").content)
        assert events[-1].name == "done"
        assert len(events) > 10
        assert client.get("/").content == (pages / "index.html").read_bytes()
        for path in installed.folder.glob("source/src/penstock/server/pages/**/*.*"):
            name = path.relative_to(installed.folder / "source/src/penstock/server/pages")
            assert client.get(f"/ui/{name}").content == path.read_bytes()
    assert (tmp_path / "data").is_dir()


def test_program_that_uses_the_public_names_runs(installed, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    assert run(installed.bin / "python", "program.py", cwd=tmp_path).splitlines()[-1] == "one two three"


def test_program_that_uses_the_client_runs_and_leaves_nothing_to_warn_of(installed, tmp_path):
    (tmp_path / "program.py").write_text(CLIENT)
    with served(installed, tmp_path) as url:
        command = [installed.bin / "python", "-W", "error", "program.py", url]
        environ = clean_environment()
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENCE
        )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert said[:2] == ["one two three", "model_not_found"]
    assert "four five".startswith(said[2])


@pytest.mark.parametrize(
    ("program", "before", "mistake"),
    [
        (PROGRAM, "        try:\n", ""),
        (PROGRAM, "        try:\n", "await penstock.start(1)"),
        (PROGRAM, "        try:\n", "penstock.config = None"),
        (CLIENT, "    try:\n", ""),
        (CLIENT, "    try:\n", "client.ask('x', modle='demo')"),
    ],
)
def test_types_of_the_public_names_are_known_to_a_checker(installed, tmp_path, program, before, mistake):
    indent = before.removesuffix("try:\n")
    body = program.replace(before, f"{indent}{mistake or 'pass'}\n{before}")
    (tmp_path / "program.py").write_text(body)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.bin / "python"]
    command = [*mypy, "--cache-dir", installed.folder / "mypy", "program.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode == 0) == (not mistake), done.stdout + done.stderr
    assert not mistake or "program.py" in done.stdout


def test_backup_brings_streams_back(installed, tmp_path):
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "data").mkdir()
    replaced = {"systemctl": ": systemctl", "/var/lib/penstock": f"{folder}/data"}
    with served(installed, folder) as url:
        answer = httpx.get(f"{url}/stream?content=Hello&model=demo-echo&format=json", timeout=30)
    run("bash", "-euc", commands("install", "Backup", replaced), cwd=tmp_path)
    shutil.rmtree(folder / "data")
    (folder / "data").mkdir()
    run("bash", "-euc", commands("install", "Backup", replaced, 1), cwd=tmp_path)
    with served(installed, folder) as url:
        stream = answer.headers["stream-id"]
        again = httpx.get(f"{url}/v1/streams/{stream}/events", timeout=30)
    assert parse(again.content)[1:] == parse(answer.content)[1:]
