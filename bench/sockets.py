"""Thousands of WebSockets on one process: what an idle one costs, what a multiplexed generation costs.

    python -m bench.sockets            10,000 idle sockets, then 2,000 generations over 20 of them

Memory is the gateway's (PSS), taken before, when all are open, and again after two pings of each; for the
generations in the middle of their answers and ten seconds later. The sockets are held by another process,
which answers pings, counts messages and grants credit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import uvloop
from websockets.frames import Frame, Opcode

from bench.load import PROMPT
from bench.processes import BenchError, Process
from bench.run import make_certificate
from bench.systems import Lab, start_penstock, start_upstream

RATE = 2.0
PING_S = 20.0
OPENING = 200
"""Sockets that are being opened at a time."""

HEAD = (
    "GET /v1/ws HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: penstock.v1+json\r\n\r\n"
)


# --- the clients: a process of their own ----------------------------------------------------------------


class Socket(asyncio.Protocol):
    """One socket; counts what comes."""

    def __init__(self, port: int) -> None:
        self._head = HEAD.format(port=port).encode()
        self._left = b""
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False
        self.entries = self.ends = self.errors = self.pings = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._head)

    def send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        self.transport.write(Frame(Opcode.TEXT, data).serialize(mask=True))

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        if not self.open.done():
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._left = data
                return
            if b" 101 " not in head:
                self.open.set_exception(BenchError(head.decode(errors="replace")))
                return
            self.open.set_result(None)
            data = rest
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                if len(data) < at + 4:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if len(data) < start + size:
                break
            self._take(data[at], data[start : start + size])
            at = start + size
        self._left = data[at:]

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == 0x89:
            self.pings += 1
            self.transport.write(Frame(Opcode.PONG, payload).serialize(mask=True))
        elif b'"type":"entry"' in payload[:100]:
            self.entries += 1
        elif b'"type":"end"' in payload[:100]:
            self.ends += 1
        elif payload.startswith(b'{"type":"err"'):
            self.errors += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def hold(options: argparse.Namespace) -> None:
    """Open the sockets; start generations when told; say what was counted, each time a line comes in."""
    loop = asyncio.get_running_loop()
    sockets: list[Socket] = []
    while len(sockets) < options.idle:
        opening = []
        for _ in range(min(OPENING, options.idle - len(sockets))):
            _, protocol = await loop.create_connection(
                lambda: Socket(options.port), "127.0.0.1", options.port
            )
            opening.append(protocol)
        await asyncio.gather(*(socket.open for socket in opening))
        sockets += opening
    busy = sockets[: options.busy]
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(json.dumps({"open": len(sockets)}), flush=True)
    while line := (await lines.readline()).strip():
        if line == b"start":
            each = options.generations // len(busy)
            request = {"model": "bench", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 200}
            for socket in busy:
                for number in range(each):
                    rid = f"r{number}"
                    socket.send({"type": "create", "rid": rid, "request": request})
                    socket.send({"type": "credit", "rid": rid, "bytes": 16 << 20})
                await asyncio.sleep(0.1)
        counted = {
            "lost": sum(socket.lost for socket in sockets),
            "pings": sum(socket.pings for socket in sockets),
            "entries": sum(socket.entries for socket in busy),
            "ends": sum(socket.ends for socket in busy),
            "errors": sum(socket.errors for socket in sockets),
        }
        print(json.dumps(counted), flush=True)


# --- the harness ----------------------------------------------------------------------------------------


def ask(clients: Process, line: str) -> dict[str, Any]:
    clients.write_line(line)
    return clients.read_json()


def measure(lab: Lab, options: argparse.Namespace) -> None:
    argv = [sys.executable, "-m", "bench.sockets", "--as-clients", "--port", str(lab.system_port)]
    argv += ["--idle", str(options.idle), "--busy", str(options.busy)]
    argv += ["--generations", str(options.generations)]
    with start_penstock(lab, tls=False) as running:
        process = running.process
        assert process is not None
        empty = process.pss()
        with lab.start("clients", argv, core=lab.load_core, talks=True) as clients:
            opened = time.monotonic()
            clients.read_json()
            took = time.monotonic() - opened
            time.sleep(1)
            idle = process.pss()
            each = (idle - empty) / options.idle / 1e3
            print(f"{options.idle} idle sockets, opened in {took:.1f} s: {each:.1f} KB each")
            cpu, began = process.cpu_s(), time.monotonic()
            time.sleep(2 * PING_S)
            counted = ask(clients, "count")
            later, used = process.pss(), process.cpu_s() - cpu
            if counted["lost"] or counted["errors"]:
                raise BenchError(f"of the idle sockets: {counted}")
            print(
                f"after {counted['pings']} pings: {(later - empty) / options.idle / 1e3:.1f} KB each, "
                f"{used / (time.monotonic() - began) * 100:.1f} % of a core"
            )
            ask(clients, "start")
            time.sleep(8)
            first, began, cpu = ask(clients, "count"), time.monotonic(), process.cpu_s()
            middle = process.pss()
            time.sleep(10)
            second = ask(clients, "count")
            seconds, used = time.monotonic() - began, process.cpu_s() - cpu
            end = process.pss()
            entries = second["entries"] - first["entries"]
            if second["lost"] or second["errors"] or second["ends"]:
                raise BenchError(f"of the generations: {second}")
            print(
                f"{options.generations} generations over {options.busy} sockets: "
                f"{(middle - later) / options.generations / 1e3:.1f} KB each, "
                f"{entries / seconds:.0f} entries a second, {used / entries * 1e6:.1f} µs each; "
                f"ten seconds later {(end - middle) / 1e3:+.0f} KB in all"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--busy", type=int, default=20, help="of them, sockets with generations")
    parser.add_argument("--generations", type=int, default=2_000)
    parser.add_argument("--port", type=int, default=19_260)
    parser.add_argument("--as-clients", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_clients:
        gc.disable()
        uvloop.run(hold(options))
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
        measure(lab, options)


if __name__ == "__main__":
    main()
