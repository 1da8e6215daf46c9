"""Many readers of few streams, some of which take nothing: does anybody else notice, and does memory hold?

    python -m bench.fan_out            20 streams of 10 tokens a second, 100 readers each, a tenth frozen

Windows with and without the frozen readers take turns (A B A B) on a fresh gateway each; the readers that
do read are as many in both. A frozen reader opens its connection with a small receive buffer, takes the
head and then nothing more. The figures: µs of the gateway's CPU per token *delivered*, the time from the
upstream's write to a reader's read, and what the gateway's memory did.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import os
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any, cast

import uvloop

from bench.histogram import Histogram
from bench.load import CLIENTS, PROMPT, ReplyError, ReplyParser
from bench.processes import BenchError
from bench.run import make_certificate, sleep_until
from bench.systems import Lab, start_penstock, start_upstream

RATE = 10.0
RAMP_S = 4.0
WARMUP_S = 2.0
FROZEN_BUFFER = 4096


# --- the readers: a process of their own ----------------------------------------------------------------


@dataclass
class Tally:
    """What all readers saw together."""

    opens: int
    closes: int
    latency: Histogram
    readers: int
    all_ended: asyncio.Event
    delivered: int = 0
    ended: int = 0
    failed: int = 0


class Reader(asyncio.Protocol):
    """One reader of one stream."""

    def __init__(self, tally: Tally, request: bytes, *, frozen: bool) -> None:
        self._tally = tally
        self._request = request
        self._frozen = frozen
        self._parser = ReplyParser(CLIENTS["native"])
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._frozen:
            self._transport.pause_reading()
            return
        now, tally = monotonic_ns(), self._tally
        try:
            times = self._parser.feed(data)
        except ReplyError:
            self._transport.abort()
            return
        for sent in times:
            if tally.opens <= sent < tally.closes:
                tally.latency.record(now - sent)
        if tally.opens <= now < tally.closes:
            tally.delivered += len(times)
        if self._parser.ended:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._frozen:
            tally = self._tally
            tally.ended += self._parser.done
            tally.failed += not self._parser.done
            if tally.ended + tally.failed == tally.readers:
                tally.all_ended.set()


def create(port: int, tokens: int) -> str:
    """Start a generation that nobody reads yet; return its stream."""
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"content-type": "application/json", "prefer": "respond-async"}
    connection.request("POST", "/v1/streams", json.dumps({"request": body}), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return str(answer["stream"])


async def read(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    seconds = RAMP_S + WARMUP_S + options.seconds + 1
    streams = [create(options.port, round(seconds * RATE)) for _ in range(options.streams)]
    start = monotonic_ns()
    opens = start + round((RAMP_S + WARMUP_S) * 1e9)
    closes = opens + round(options.seconds * 1e9)
    print(json.dumps({"opens": opens, "closes": closes}), flush=True)
    tally = Tally(opens, closes, Histogram(), options.readers, asyncio.Event())
    frozen, total = options.frozen, options.readers + options.frozen
    transports = []
    for number in range(total):
        due = start + round(RAMP_S * 1e9) * number // total
        if (wait := due - monotonic_ns()) > 0:
            await asyncio.sleep(wait / 1e9)
        stream = streams[number % len(streams)]
        head = f"GET /v1/streams/{stream}/events HTTP/1.1\r\nHost: localhost:{options.port}\r\n\r\n"
        freeze = number * frozen // total != (number + 1) * frozen // total
        sock = socket.socket()
        sock.setblocking(False)
        if freeze:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FROZEN_BUFFER)
        await loop.sock_connect(sock, ("127.0.0.1", options.port))

        def reader(head: str = head, freeze: bool = freeze) -> Reader:
            return Reader(tally, head.encode(), frozen=freeze)

        transport, _ = await loop.create_connection(reader, sock=sock)
        transports.append(transport)
    late = monotonic_ns() > opens
    async with asyncio.timeout(seconds + 30):
        await tally.all_ended.wait()
    result = {
        "late": late,
        "ended": tally.ended,
        "failed": tally.failed,
        "delivered": tally.delivered,
        "latency": tally.latency.summary(),
    }
    print(json.dumps(result), flush=True)
    for transport in transports:
        transport.abort()


# --- the harness ----------------------------------------------------------------------------------------


def measure(lab: Lab, options: argparse.Namespace, frozen: int) -> dict[str, Any]:
    """Run one window and return its figures."""
    with start_penstock(lab, tls=False) as running:
        process = running.process
        assert process is not None
        argv = [sys.executable, "-m", "bench.fan_out", "--as-readers", "--port", str(lab.system_port)]
        argv += [
            "--streams",
            str(options.streams),
            "--readers",
            str(options.readers),
            "--frozen",
            str(frozen),
        ]
        argv += ["--seconds", str(options.seconds)]
        with lab.start("readers", argv, core=lab.load_core, talks=True) as readers:
            plan = readers.read_json()
            sleep_until(plan["opens"])
            cpu, pss = process.cpu_s(), process.pss()
            load_cpu = readers.cpu_s()
            sleep_until(plan["closes"])
            used, grown = process.cpu_s() - cpu, process.pss() - pss
            load_used = readers.cpu_s() - load_cpu
            result = readers.read_json()
    if result["failed"] or result["late"]:
        raise BenchError(f"{result['failed']} readers failed; late: {result['late']}")
    return {
        "frozen": frozen,
        "us_per_delivery": used / result["delivered"] * 1e6,
        "core": used / options.seconds,
        "load_core": load_used / options.seconds,
        "delivered": result["delivered"],
        "p50_ms": result["latency"]["p50"],
        "p99_ms": result["latency"]["p99"],
        "max_ms": result["latency"]["max"],
        "pss_mb": pss / 1e6,
        "grown_kb": grown / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--readers", type=int, default=1_800, help="that read")
    parser.add_argument("--frozen", type=int, default=200, help="that do not, in every second window")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--port", type=int, default=19_050)
    parser.add_argument("--as-readers", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    gc.disable()
    if options.as_readers:
        uvloop.run(read(options))
        return
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        certificate, authority = make_certificate(Path(folder))
        lab = Lab(
            folder=Path(folder),
            base_port=options.port,
            system_core=cores[0],
            load_core=cores[-1],
            store="embedded",
            route="native",
            rate=RATE,
            certificate=certificate,
            authority=authority,
            overlay={},
        )
        stack.enter_context(start_upstream(lab))
        windows = []
        for _ in range(options.rounds):
            for frozen in (0, options.frozen):
                windows.append(measure(lab, options, frozen))
                print(
                    "  ".join(
                        f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in windows[-1].items()
                    )
                )
                time.sleep(0.5)
    without = min(w["p99_ms"] for w in windows if not w["frozen"])
    with_frozen = min(w["p99_ms"] for w in windows if w["frozen"])
    print(f"p99 with frozen readers / without: {with_frozen / without:.2f}")


if __name__ == "__main__":
    main()
