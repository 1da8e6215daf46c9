"""Lines on their way out: nobody waits for them, and none is lost unsaid."""

import fcntl
import os
from contextlib import suppress

import pytest

from penstock.telemetry.log_writer import LogWriter

LINE = "x" * 999 + "\n"


@pytest.fixture
def pipe():
    """A pipe that nobody reads yet, with room for 64 KiB."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 65_536)  # F_SETPIPE_SZ
    yield reading, writing
    for end in (reading, writing):
        with suppress(OSError):
            os.close(end)


def drain(reading: int, until: bytes) -> bytes:
    got = b""
    while until not in got:
        got += os.read(reading, 1 << 16)
    return got


def test_everything_is_written_in_order(pipe):
    reading, writing = pipe
    writer = LogWriter(writing)
    for number in range(100):
        writer.write(f"{number}\n")
    writer.close()
    assert os.read(reading, 1 << 16).decode().split() == [str(number) for number in range(100)]


def test_a_reader_that_stands_still_holds_up_nobody_and_is_told_what_it_missed(pipe):
    reading, writing = pipe
    writer = LogWriter(writing, lambda count: f"lost {count}\n", max_waiting=100_000)
    for _ in range(300):
        writer.write(LINE)  # would wait for ever at the 66th, were it the pipe
    assert 100 <= writer.lost <= 200
    told = f"lost {writer.lost}\n"
    got = drain(reading, told.encode()).decode()
    assert got.count(LINE) + writer.lost == 300
    writer.write("and on\n")
    writer.close()
    assert os.read(reading, 100) == b"and on\n"


def test_leaving_does_not_wait_for_ever(pipe):
    writer = LogWriter(pipe[1])
    for _ in range(100):
        writer.write(LINE)
    writer.close(patience=0.01)
    drain(pipe[0], (LINE * 50).encode())


@pytest.mark.parametrize("mode", ["closed", "nonblocking"])
def test_a_pipe_that_takes_nothing_is_no_error(pipe, mode):
    reading, writing = pipe
    writer = LogWriter(writing)
    if mode == "closed":
        os.close(reading)
    else:
        os.set_blocking(writing, False)
    for _ in range(100):
        writer.write(LINE)
    if mode == "nonblocking":
        assert drain(reading, (LINE * 100).encode()).count(b"\n") == 100
    writer.close()
    assert writer.lost == 0


def test_half_a_character_is_written_out(pipe):
    writer = LogWriter(pipe[1])
    writer.write("a\ud800b\n")
    writer.close()
    assert os.read(pipe[0], 100) == b"a\\ud800b\n"
