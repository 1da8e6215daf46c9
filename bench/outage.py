"""A provider dies under many streams at once: do the streams of another one notice, and does memory return?

    python -m bench.outage             500 streams of a target that is killed, 100 of one that lives on

All run through one gateway. At the kill every stream of the dead target loses its connection in the same
moment; the gateway goes on with each at the healthy target, by a continuation prompt, and every one of them
must come to its end. The figures are the healthy target's own streams: the time from the upstream's write
to the reader's read, before the kill, in the seconds after it, and later; and what the gateway's memory did,
beside a run in which nobody dies.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import Any, cast

import uvloop

from bench.histogram import Histogram
from bench.load import ReplyError, ReplyParser, Target
from bench.processes import BenchError, Process, require_free
from bench.run import make_certificate, sleep_until
from bench.systems import CHAT, Lab, start_penstock

RATE = 10.0
RAMP_S = 4.0
WARMUP_S = 2.0
PHASES = ("before", "during", "after")
SETTLE_S = 3.0

# --- the readers: a process of their own ----------------------------------------------------------------


@dataclass
class Group:
    """The streams of one model."""

    request: bytes
    total: int
    ended: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What all readers saw. ``bounds``: when the phases begin, and the last one ends."""

    bounds: list[int]
    latency: dict[str, Histogram]
    left: int
    all_ended: asyncio.Event

    def phase(self, sent: int) -> str:
        """Return the phase that a token belongs to by the time of its sending; empty for none."""
        for name, begins, ends in zip(PHASES, self.bounds, self.bounds[1:], strict=False):
            if begins <= sent < ends:
                return name
        return ""


class Reader(asyncio.Protocol):
    """One stream and its reader."""

    def __init__(self, tally: Tally, group: Group, *, measured: bool) -> None:
        self._tally = tally
        self._group = group
        self._measured = measured
        self._parser = ReplyParser()
        self._transport: asyncio.Transport | None = None
        self._failure = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._group.request)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        now = monotonic_ns()
        try:
            times = self._parser.feed(data)
        except ReplyError as error:
            self._failure = str(error)
            self._transport.abort()
            return
        if self._measured:
            for sent in times:
                if phase := self._tally.phase(sent):
                    self._tally.latency[phase].record(now - sent)
        if self._parser.ended:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._parser.done and self._parser.ended:
            self._group.ended += 1
        else:
            self._group.failures.append(self._failure or f"cut ({exc or 'no reason'})")
        self._tally.left -= 1
        if not self._tally.left:
            self._tally.all_ended.set()


async def read(options: argparse.Namespace) -> None:
    """Open all streams over the ramp, mixed; tell the plan, then what was seen."""
    loop = asyncio.get_running_loop()
    start = monotonic_ns() + 300_000_000
    spans = (options.before, options.during, options.after)
    bounds = [start + round((RAMP_S + WARMUP_S) * 1e9)]
    for span in spans:
        bounds.append(bounds[-1] + round(span * 1e9))
    tokens = round((RAMP_S + WARMUP_S + sum(spans) + 1) * RATE)

    def group(model: str, total: int) -> Group:
        target = Target("127.0.0.1", options.port, CHAT, "chat", model, None)
        return Group(target.request(tokens), total)

    dying, healthy = group("dying", options.streams), group("healthy", options.healthy)
    total = dying.total + healthy.total
    tally = Tally(bounds, {phase: Histogram() for phase in PHASES}, total, asyncio.Event())
    print(json.dumps({"bounds": bounds}), flush=True)
    for number in range(total):
        due = start + round(RAMP_S * 1e9) * number // total
        if (wait := due - monotonic_ns()) > 0:
            await asyncio.sleep(wait / 1e9)
        measured = number * healthy.total // total != (number + 1) * healthy.total // total

        def reader(measured: bool = measured) -> Reader:
            return Reader(tally, healthy if measured else dying, measured=measured)

        await loop.create_connection(reader, "127.0.0.1", options.port)
    late = monotonic_ns() > bounds[0]
    async with asyncio.timeout(sum(spans) + 60):
        await tally.all_ended.wait()
    result = {
        "late": late,
        "ended": {"dying": dying.ended, "healthy": healthy.ended},
        "failures": sorted({*dying.failures, *healthy.failures})[:5],
        "latency": {phase: histogram.summary() for phase, histogram in tally.latency.items()},
    }
    print(json.dumps(result), flush=True)


# --- the harness ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def start_target(lab: Lab, name: str, port: int) -> Iterator[Process]:
    require_free(port)
    argv = [sys.executable, "-m", "bench.paced_upstream", "--port", str(port), "--rate", str(RATE)]
    with lab.start(name, argv, core=lab.load_core, talks=True) as process:
        if process.read_line() != "ready":
            raise BenchError(f"{name} did not get ready")
        yield process


def measure(lab: Lab, options: argparse.Namespace, *, outage: bool) -> dict[str, Any]:
    """Run once and return the figures; without an ``outage`` nobody dies, and all else is the same."""
    with contextlib.ExitStack() as stack:
        mortal = stack.enter_context(start_target(lab, "mortal", options.port + 3))
        stack.enter_context(start_target(lab, "healthy", options.port + 4))
        running = stack.enter_context(start_penstock(lab, tls=False, overlay=True))
        process = running.process
        assert process is not None
        idle = process.pss()
        argv = [sys.executable, "-m", "bench.outage", "--as-readers", "--port", str(lab.system_port)]
        for name in ("streams", "healthy", *PHASES):
            argv += [f"--{name}", str(getattr(options, name))]
        readers = stack.enter_context(lab.start("readers", argv, core=lab.load_core, talks=True))
        bounds = readers.read_json()["bounds"]
        sleep_until(bounds[1])
        before = process.pss()
        if outage:
            os.kill(mortal.pid, signal.SIGKILL)
        peak = before
        for step in range(1, round(options.during * 10) + 1):
            sleep_until(bounds[1] + step * 100_000_000)
            peak = max(peak, process.pss())
        sleep_until(bounds[3])
        after = process.pss()
        result = readers.read_json()
        sleep_until(monotonic_ns() + round(SETTLE_S * 1e9))
        end = process.pss()
    ended = result["ended"]
    if (
        result["late"]
        or result["failures"]
        or ended != {"dying": options.streams, "healthy": options.healthy}
    ):
        raise BenchError(f"not all came to their end: {result}")
    p99 = {phase: result["latency"][phase]["p99"] for phase in PHASES}
    return {
        "outage": float(outage),
        **{f"p99_ms_{phase}": value for phase, value in p99.items()},
        "max_ms_during": result["latency"]["during"]["max"],
        "during_to_before": p99["during"] / p99["before"],
        "after_to_before": p99["after"] / p99["before"],
        "mb_idle": idle / 1e6,
        "mb_before": before / 1e6,
        "mb_peak": peak / 1e6,
        "mb_after": after / 1e6,
        "mb_end": end / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streams", type=int, default=500, help="of the target that dies")
    parser.add_argument("--healthy", type=int, default=100, help="of the one that lives on")
    parser.add_argument("--before", type=float, default=8.0, help="seconds until the kill")
    parser.add_argument("--during", type=float, default=4.0, help="seconds that count as the outage")
    parser.add_argument("--after", type=float, default=8.0, help="seconds after that")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--port", type=int, default=19_060)
    parser.add_argument("--as-readers", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    gc.disable()
    if options.as_readers:
        uvloop.run(read(options))
        return
    cores = sorted(os.sched_getaffinity(0))
    address = "http://127.0.0.1:{}/v1"
    with tempfile.TemporaryDirectory() as folder:
        certificate, authority = make_certificate(Path(folder))
        lab = Lab(
            folder=Path(folder),
            base_port=options.port,
            system_core=cores[0],
            load_core=cores[-1],
            store="embedded",
            route="chat",
            rate=RATE,
            certificate=certificate,
            authority=authority,
            overlay={
                "providers": {
                    name: {"kind": "openai", "base_url": address.format(port), "api_key": "bench"}
                    for name, port in (("mortal", options.port + 3), ("healthy", options.port + 4))
                },
                "models": {
                    "dying": [
                        {"provider": "mortal", "model": "bench"},
                        {"provider": "healthy", "model": "bench"},
                    ],
                    "healthy": [{"provider": "healthy", "model": "bench"}],
                },
            },
        )
        for _ in range(options.rounds):
            for outage in (False, True):
                figures = measure(lab, options, outage=outage)
                print("  ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
