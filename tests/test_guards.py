"""The guards of conftest.py guard: what they are there for fails, and what is meant passes."""

import asyncio
import os
from pathlib import Path

import pytest
from blockbuster import BlockingError

import penstock

SLEEP = "import time\ndef act():\n    time.sleep(0)"
WRITE = "import os\ndef append(fd):\n    os.write(fd, b'x')"


def run_as(module: str, source: str, name: str, *args: object) -> None:
    """Call a function of ``source`` as if it stood in that module of ours."""
    namespace: dict = {}
    exec(compile(source, str(Path(penstock.__file__).parent / module), "exec"), namespace)
    namespace[name](*args)


async def test_blocking_call_of_ours_in_the_loop_fails():
    with pytest.raises(BlockingError, match="sleep"):
        run_as("gateway/run.py", SLEEP, "act")


async def test_blocking_call_of_a_test_passes():
    os.stat("/")


def test_blocking_call_without_a_loop_passes():
    run_as("gateway/run.py", SLEEP, "act")


@pytest.fixture
def file(tmp_path):
    """The descriptor of a file that is open for writing."""
    with open(tmp_path / "file", "wb") as opened:
        yield opened.fileno()


async def test_only_the_journal_may_write_to_a_file_in_the_loop(file):
    run_as("streams/journal.py", WRITE, "append", file)
    with pytest.raises(BlockingError, match="write"):
        run_as("streams/embedded.py", WRITE, "append", file)


async def test_failure_that_nobody_awaits_is_seen(loop_errors):
    async def fail():
        raise LookupError("lost")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    assert len(loop_errors) == 1
    assert "LookupError('lost')" in loop_errors[0]
    loop_errors.clear()
