"""`make bench-idle`: ten thousand connections that say nothing, half a head, or nothing after a first answer.

What each costs in memory, whether the gateway closes it by itself, and whether it answers others meanwhile.
The connections of this machine are not counted by address, or a fifth of them would be all.

    python -m bench.idle [--connections 10000] [--kinds silent half kept]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.files import resident, serving
from bench.processes import BenchError, Process
from bench.run import choose_cores

OPENING: Final = 100
"""Connections that are being opened at a time."""

GONE_WITHIN: Final = 120.0
"""Seconds: the gateway's longest patience is 75."""

ASKED: Final = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
SAID: Final = {"silent": b"", "half": ASKED[:30], "kept": ASKED}
SPARE: Final = 100
"""File descriptors that we need besides."""

Connections = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


async def opened(port: int, said: bytes, held: Connections) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    if said == ASKED:
        await reader.read(4096)
    held.append((reader, writer))


async def closed(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(4096):
            pass
    except ConnectionError:
        pass


def answered(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/healthz", timeout=20) as answer:
        return bool(answer.status == 200)


async def measure(kind: str, number: int, url: str, gateway: Process) -> str:
    """Hold ``number`` connections of a kind until the gateway has closed them all; return the figures."""
    port = urlsplit(url).port or 80
    before, cpu, began = resident(gateway.pid, "VmRSS"), gateway.cpu_s(), time.monotonic()
    held: Connections = []
    for start in range(0, number, OPENING):
        await asyncio.gather(*(opened(port, SAID[kind], held) for _ in range(min(OPENING, number - start))))
    took, more = time.monotonic() - began, resident(gateway.pid, "VmRSS") - before
    if not await asyncio.to_thread(answered, url):
        raise BenchError("a client beside them was not answered")
    async with asyncio.timeout(GONE_WITHIN):
        await asyncio.gather(*(closed(reader) for reader, _ in held))
    seconds, used = time.monotonic() - began, gateway.cpu_s() - cpu
    for _, writer in held:
        writer.close()
    left = len(os.listdir(f"/proc/{gateway.pid}/fd"))
    cost = f"{more * 1024 / number:.1f} KB each, {used:.1f} s of CPU"
    return (
        f"{number:,} {kind}: opened in {took:.1f} s, {cost}; the gateway closed the last {seconds:.1f} s "
        f"after the first came, with {left} files left open; others were answered"
    )


async def run(kinds: Sequence[str], number: int, url: str, gateway: Process) -> None:
    for kind in kinds:
        print(await measure(kind, number, url, gateway), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", choices=SAID, default=list(SAID))
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.connections + SPARE > most:
        raise SystemExit(f"A process may have {most} files open here: ask for fewer --connections.")
    core, _ = choose_cores()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), core) as (gateway, url):
        asyncio.run(run(options.kinds, options.connections, url, gateway))


if __name__ == "__main__":
    main()
