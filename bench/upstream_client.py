"""What the upstream client costs: CPU a chunk, and memory a connection, over plain TCP and over TLS.

    python -m bench.upstream_client [--streams 500] [--idle 1000] [--seconds 6] [--rounds 2] [--json FILE]

A paced upstream (`bench.paced_upstream`) on one core, a client in a process of its own on another, for
each case anew. `penstock` is `penstock.upstream.pool.Pool` with a sink that counts; `loop` is what nobody
can go below: a bare protocol on the same event loop that writes the request and counts bytes, over TLS
with the loop's own implementation. Both see the same segments: one chunk of about 225 bytes each, 50 a
second on every stream.

CPU is user and kernel time of the client's process within a window in which all streams run; where the
machine is busy, one read holds several chunks, and a chunk costs less. Memory is
what the process grew by while silent streams were opened, per stream, after 100 others had been opened.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import trustme
import uvloop

from bench.paced_upstream import IDLE_MODEL, MODEL, content_frame
from bench.processes import BenchError, Process
from bench.speech import chat
from penstock.types.errors import UpstreamError
from penstock.upstream.http1 import Origin, Request, render_head
from penstock.upstream.pool import Pool, PoolSettings
from penstock.upstream.tls import create_context

RATE = 50
WARM_CONNECTIONS = 100
CONCURRENT_OPENS = 20
CASES = [(client, tls) for tls in (False, True) for client in ("loop", "penstock")]


class Counter:
    """A sink that counts the calls and the bytes of all streams."""

    def __init__(self) -> None:
        self.heads = 0
        self.reads = 0
        self.bytes = 0

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.heads += 1

    def on_body(self, data: bytes) -> None:
        self.reads += 1
        self.bytes += len(data)

    def on_end(self) -> None:
        raise SystemExit("a stream ended within the measurement")

    def on_error(self, error: UpstreamError) -> None:
        raise SystemExit(f"a stream failed: {error!r}")


class Bare(asyncio.Protocol):
    """Writes a request, counts what comes."""

    def __init__(self, counter: Counter, request: bytes) -> None:
        self._counter = counter
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)
        self._counter.heads += 1

    def data_received(self, data: bytes) -> None:
        self._counter.reads += 1
        self._counter.bytes += len(data)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """Open the streams of one case and measure; runs in the client's process."""
    body = json.dumps(
        {
            "model": MODEL if options.measure == "cpu" else IDLE_MODEL,
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
            "max_tokens": int((options.seconds + 30) * RATE),
        }
    ).encode()
    origin = Origin("https" if options.tls else "http", "127.0.0.1", options.port)
    headers = (("Content-Type", "application/json"), ("Authorization", "Bearer none"))
    request = Request("POST", origin, "/v1/chat/completions", headers, body)
    counter = Counter()
    pool = Pool(PoolSettings(ca_file=options.ca_file, max_connections_per_origin=10_000))
    context = create_context(ca_file=options.ca_file) if options.tls else None
    kept: list[Any] = []

    async def open_one() -> None:
        if options.client == "penstock":
            kept.append(await pool.open(request, counter))
        else:
            wire = render_head(request) + body
            loop = asyncio.get_running_loop()
            made = await loop.create_connection(
                lambda: Bare(counter, wire), "127.0.0.1", options.port, ssl=context
            )
            kept.append(made)

    async def open_many(count: int) -> None:
        for start in range(0, count, CONCURRENT_OPENS):
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONCURRENT_OPENS, count - start)):
                    group.create_task(open_one())
        await asyncio.sleep(0.3)

    if options.measure == "memory":
        await open_many(WARM_CONNECTIONS)
        before = resident_bytes()
        await open_many(options.count)
        if counter.heads != WARM_CONNECTIONS + options.count:
            raise SystemExit("not all streams have begun")
        return {"bytes": (resident_bytes() - before) / options.count}
    started = time.perf_counter()
    await open_many(options.count)
    opening = time.perf_counter() - started - 0.3
    await asyncio.sleep(1)
    reads, data, cpu = counter.reads, counter.bytes, time.process_time()
    await asyncio.sleep(options.seconds)
    reads, data, cpu = counter.reads - reads, counter.bytes - data, time.process_time() - cpu
    chunks = data / chunk_bytes(with_framing=options.client == "loop")
    return {
        "us_per_chunk": cpu / chunks * 1e6,
        "chunks_per_read": chunks / reads,
        "us_per_opening": opening / options.count * 1e6,
    }


def chunk_bytes(*, with_framing: bool) -> int:
    """Return the length of one of the upstream's chunks, with or without HTTP's framing."""
    before, after = content_frame(chat(f"chatcmpl-{0:024d}", int(time.time()), 1).token)
    framed = before + b"0" * 16 + after
    return len(framed) if with_framing else len(framed.split(b"\r\n")[1])


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start the upstream, then one client a case and round; return what they measured."""
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        authority = trustme.CA()
        leaf = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(files / "ca.pem")
        leaf.cert_chain_pems[0].write_to_path(files / "leaf.pem")
        leaf.private_key_pem.write_to_path(files / "leaf.key")
        plain, tls = free_ports(2)
        upstream = [sys.executable, "-m", "bench.paced_upstream", "--port", str(plain), "--rate", str(RATE)]
        upstream += ["--tls-port", str(tls), "--tls-cert", str(files / "leaf.pem")]
        upstream += ["--tls-key", str(files / "leaf.key"), "--idle-seconds", "600"]
        cores = sorted(os.sched_getaffinity(0))
        log = files / "log"
        with Process("upstream", upstream, core=cores[-1], log=log, env={}, talks=True) as server:
            if server.read_line() != "ready":
                raise BenchError(f"the upstream is not ready: {server.log_tail()}")
            for _ in range(options.rounds):
                for client, secure in CASES:
                    for what, count in (("cpu", options.streams), ("memory", options.idle)):
                        command = [sys.executable, "-m", "bench.upstream_client", "--measure", what]
                        command += [
                            "--client",
                            client,
                            "--count",
                            str(count),
                            "--ca-file",
                            str(files / "ca.pem"),
                        ]
                        command += [
                            "--seconds",
                            str(options.seconds),
                            "--port",
                            str(tls if secure else plain),
                        ]
                        command += ["--tls"] * secure
                        with Process(client, command, core=cores[0], log=log, env={}, talks=True) as child:
                            results.append({"client": client, "tls": secure, **child.read_json()})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streams", type=int, default=500, help="streams that run, for the CPU")
    parser.add_argument("--idle", type=int, default=1000, help="streams that are silent, for the memory")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a window")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    for name in ("--measure", "--client", "--ca-file"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--count", "--port"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tls", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.measure:
        print(json.dumps(uvloop.run(measure(options))), flush=True)
        return
    try:
        results = run_all(options)
    except BenchError as error:
        raise SystemExit(str(error)) from None
    print(f"{options.streams} streams of {RATE} chunks a second; {options.idle} silent streams")
    print(f"{'':16}{'µs a chunk':>12}{'chunks a read':>16}{'µs an opening':>16}{'KB a stream':>14}")
    for client, secure in CASES:
        rows = [row for row in results if (row["client"], row["tls"]) == (client, secure)]

        def middle(name: str, rows: list[dict[str, Any]] = rows) -> float:
            return float(statistics.median(row[name] for row in rows if name in row))

        label = f"{client}{' tls' if secure else ''}"
        cpu, reads, opening = middle("us_per_chunk"), middle("chunks_per_read"), middle("us_per_opening")
        print(f"{label:16}{cpu:12.2f}{reads:16.2f}{opening:16.0f}{middle('bytes') / 1000:14.1f}")
    if options.json:
        machine = {
            "python": platform.python_version(),
            "ssl": ssl.OPENSSL_VERSION,
            "machine": platform.platform(),
        }
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))


if __name__ == "__main__":
    main()
