"""A log that is written fast, published by `tail -f`, and followed by many: who keeps up, and how far behind?

    python -m bench.tail               10,000 lines a second for 20 s, 50 readers

    writer → app.log → tail -f | penstock publish → gateway → readers (live=sse)

Each line has its number and the CLOCK_MONOTONIC time at which it was written. The gateway has one core;
the writer, `tail`, the publishing command and the readers share another. Each reader holds every event
against the one before: no line may be missing, doubled or out of order. The lag is that of an event's first
line, the oldest of it, from the write to the file to the reader's read.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic_ns

import uvloop

from bench.files import ENV, resident, serving
from bench.histogram import Histogram
from bench.processes import BenchError, Process, read_cpu_s, read_tree

NUMBER, STAMP, WIDTH = 10, 16, 100
"""Digits of a line's number and of its time, and bytes of a line with its end."""

TICKS = 100
"""Times a second that the writer writes."""

PATIENCE_S = 60.0
PATH = "logs/bench"


@dataclass(frozen=True)
class Result:
    """What was found. Milliseconds, MiB, shares of a core."""

    lines: int
    readers: int
    asked_lines_per_s: float
    lines_per_s: float
    stored_lines_per_s: float
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    gateway_core: float
    publisher_core: float
    gateway_before_mib: float
    gateway_peak_mib: float


# --- the log --------------------------------------------------------------------------------------------


def write_log(path: Path, rate: int, seconds: float) -> int:
    """Append numbered lines to ``path`` at ``rate`` a second; return how many."""
    each, number, began = rate // TICKS, 0, time.monotonic()
    with path.open("ab", buffering=0) as log:
        for tick in range(round(seconds * TICKS)):
            ahead = began + tick / TICKS - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            stamp = monotonic_ns()
            log.write(b"".join(line(number + n, stamp) for n in range(each)))
            number += each
    return number


def line(number: int, stamp: int) -> bytes:
    """Return a line of the log."""
    return b"%010d %016d " % (number, stamp) + b"." * (WIDTH - NUMBER - STAMP - 3) + b"\n"


# --- the readers: a process of their own ------------------------------------------------------------------


class Follower:
    """What one reader was given: events of whole lines, each behind the one before."""

    def __init__(self, lag: Histogram) -> None:
        self.next = 0
        self._lag = lag
        self._rest = b""

    def take(self, event: bytes) -> None:
        """Take an event's bytes; raises `BenchError` for a line that is not the next."""
        if not event.startswith(b"event: data\ndata:"):
            return
        content = event[17 : event.rindex(b"\nid: ")].replace(b"\ndata:", b"\n")
        text = self._rest + content
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]  # an entry ends where it is full, which may be within a line
        if not end:
            return
        count, last = text.count(b"\n", 0, end), text.rfind(b"\n", 0, end - 1) + 1
        begins, ends = int(text[:NUMBER]), int(text[last : last + NUMBER])
        if begins != self.next or ends != begins + count - 1 or end != count * WIDTH:
            raise BenchError(f"line {self.next} was due, and {begins} to {ends} came, {count} lines")
        self._lag.record(monotonic_ns() - int(text[NUMBER + 1 : NUMBER + 1 + STAMP]))
        self.next = ends + 1


async def follow(port: int, follower: Follower, there: Callable[[], None]) -> None:
    """Read the publication live until it is closed; ``there`` is called when that begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(f"GET /v1/stream/{PATH}?live=sse&offset=-1 HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head[:20]:
        raise BenchError(f"a reader was answered {head[:100]!r}")
    there()
    rest = b""
    while size := int(await reader.readline(), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *events, rest = rest.split(b"\n\n")
        for event in events:
            follower.take(event.lstrip(b":\n"))
    writer.close()


async def read(port: int, readers: int) -> None:
    """Run all readers; say what they saw."""
    lag = Histogram()
    followers = [Follower(lag) for _ in range(readers)]
    missing = readers

    def there() -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            print("ready", flush=True)

    await asyncio.gather(*(follow(port, follower, there) for follower in followers))
    summary = lag.summary()
    print(json.dumps({"next": sorted({follower.next for follower in followers}), **summary}), flush=True)


# --- the harness ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def publishing(log: Path, url: str, core: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``tail -f LOG | penstock publish PATH``; at the end `tail` is stopped and the stream closed."""
    tail = ["tail", "-n", "+1", "-f", str(log)]
    publish = [sys.executable, "-m", "penstock", "publish", PATH, "--close", "--url", url]
    with subprocess.Popen(tail, stdout=subprocess.PIPE) as tailing:
        publisher = subprocess.Popen(
            publish,
            stdin=tailing.stdout,
            env={**os.environ, **ENV},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        assert tailing.stdout is not None
        tailing.stdout.close()
        try:
            yield publisher
        finally:
            tailing.terminate()
            if publisher.wait(PATIENCE_S):
                raise BenchError(f"{shlex.join(publish)} failed")


def published(port: int) -> int:
    """Return how many bytes of the log are stored; -1 before there is a publication."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("HEAD", f"/v1/stream/{PATH}")
        response = connection.getresponse()
        offset = response.headers.get("Stream-Next-Offset", "") if response.status == 200 else ""
        return int(offset.partition("_")[2]) if offset else -1
    finally:
        connection.close()


def wait_published(port: int, size: int) -> None:
    """Return once so many bytes are stored."""
    until = time.monotonic() + PATIENCE_S
    while (stored := published(port)) < size:
        if time.monotonic() > until:
            raise BenchError(f"{stored} of {size} bytes are stored after {PATIENCE_S:.0f} s")
        time.sleep(0.02)


def tree_cpu(pid: int) -> float:
    """Return the CPU of a process and all below it, in seconds."""
    return sum(read_cpu_s(each) for each in read_tree(pid))


def measure(folder: Path, rate: int, seconds: float, readers: int, cores: Sequence[int]) -> Result:
    """Write, publish and follow."""
    log = folder / "app.log"
    log.touch()
    with serving(folder, cores[0]) as (gateway, url), contextlib.ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        before = resident(gateway.pid, "VmRSS")
        with publishing(log, url, cores[-1]) as publisher:
            wait_published(port, 0)
            argv = [sys.executable, "-m", "bench.tail", "--read", str(port), "--readers", str(readers)]
            following = stack.enter_context(
                Process("readers", argv, core=cores[-1], log=folder / "readers", env=ENV, talks=True)
            )
            if following.read_line() != "ready":
                raise BenchError("the readers did not get ready")
            cpu, own, began = gateway.cpu_s(), tree_cpu(publisher.pid), time.monotonic()
            lines = write_log(log, rate, seconds)
            wrote = time.monotonic() - began
            wait_published(port, lines * WIDTH)
            took = time.monotonic() - began
            cpu, own = gateway.cpu_s() - cpu, tree_cpu(publisher.pid) - own
        found = following.read_json()
        peak = resident(gateway.pid, "VmHWM")
    if found["next"] != [lines]:
        raise BenchError(f"readers are at {found['next']}, of {lines} lines")
    return Result(
        lines=lines,
        readers=readers,
        asked_lines_per_s=rate,
        lines_per_s=lines / wrote,
        stored_lines_per_s=lines / took,
        lag_p50_ms=found["p50"],
        lag_p99_ms=found["p99"],
        lag_max_ms=found["max"],
        gateway_core=cpu / took,
        publisher_core=own / took,
        gateway_before_mib=before,
        gateway_peak_mib=peak,
    )


def told(result: Result) -> str:
    """Return the figures as lines."""
    stored, delivered = result.stored_lines_per_s, result.stored_lines_per_s * result.readers
    lag = (
        f"p50 {result.lag_p50_ms:.1f} ms, p99 {result.lag_p99_ms:.1f} ms, at most {result.lag_max_ms:.1f} ms"
    )
    gateway, publisher = f"{result.gateway_core:.1%}", f"{result.publisher_core:.1%}"
    before, peak = f"{result.gateway_before_mib:.0f} MiB", f"{result.gateway_peak_mib:.0f} MiB"
    lines = (
        f"{result.lines:,} lines of {WIDTH} bytes; {result.readers} readers had every line in order",
        f"written    {result.lines_per_s:,.0f} lines/s of {result.asked_lines_per_s:,.0f} asked",
        f"stored     {stored:,.0f} lines/s, delivered {delivered:,.0f} lines/s",
        f"lag        {lag}",
        f"CPU        gateway {gateway} of a core, penstock publish {publisher}",
        f"memory     gateway {before} before, {peak} at most",
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure once, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rate", type=int, default=10_000, metavar="LINES")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="figures for programs")
    parser.add_argument("--read", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.read:
        uvloop.run(read(options.read, options.readers))
        return 0
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="penstock-tail-") as folder:
        result = measure(Path(folder), options.rate, options.seconds, options.readers, cores)
    print(json.dumps(asdict(result)) if options.json else told(result))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"bench.tail: {error}", file=sys.stderr)
        sys.exit(2)
