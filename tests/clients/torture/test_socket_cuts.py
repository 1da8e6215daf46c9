"""A WebSocket lost at any byte, in either direction, costs nothing: every entry once, and paid once.

What is cut are real connections, by RST and FIN, after so many bytes of what the gateway sends (`down`) or
of what the reader does (`up`). The reader is the least that a client does: it comes back with its cursor,
or with its key where it has no cursor yet.
"""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack, suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from penstock.assembly.system import assemble
from tests.clients import node
from tests.clients.torture.answer import PIECES
from tests.clients.torture.cuts import ALL, sampled
from tests.clients.torture.relaying import relaying
from tests.clients.torture.table import ROUTES, Row
from tests.following import Following
from tests.server.conftest import config, running

SAMPLE = 60
SAMPLE_OF_JAVASCRIPT = 24
AT_ONCE = 16
TEXT = "".join(PIECES[:8]) + " and so on"


class Read:
    """What a reader has in the end."""

    def __init__(self):
        self.following = Following("1")
        self.records = []
        self.streams = set()
        self.connections = 0


async def read_through(port, key):
    """Start a generation and read it to its end, whatever happens to connections."""
    read, following = Read(), None
    while following is None or following.state != "ended":
        read.connections += 1
        assert read.connections < 5
        with suppress(OSError, EOFError, InvalidHandshake, WebSocketException):
            url = f"ws://127.0.0.1:{port}/v1/ws"
            options = {"subprotocols": ["penstock.v1+json"], "compression": None, "proxy": None}
            async with connect(url, close_timeout=1, open_timeout=30, **options) as connection:
                following = following or read.following
                if following.stream:
                    ask = {"type": "read", "rid": "1", "after": following.cursor}
                else:
                    request = {"model": "demo-echo", "messages": [{"role": "user", "content": TEXT}]}
                    ask = {"type": "create", "rid": "1", "request": request, "idempotency_key": key}
                await connection.send(json.dumps(ask))
                while following.state != "ended":
                    step = following.take((await connection.recv()).encode())
                    read.records += step.applied
                    read.streams |= {following.stream} - {""}
                    assert not step.asks
    return read


def judge(read):
    """Nothing is lost, nothing is repeated, the digests are right, and one generation was paid."""
    *lines, end = read.records
    end = json.loads(end)
    assert [json.loads(line)["n"] for line in lines] == list(range(1, end["entries"] + 1))
    assert hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest() == end["sha256"]
    assert end["text_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert len(read.streams) == 1


@pytest.mark.timeout(3_600 if ALL else 120)
@pytest.mark.parametrize("way", ["down", "up"])
async def test_no_cut_of_a_socket_costs_an_entry(rows, way):
    settings, row = config(), Row("sixty lines of Python", "WebSocket", ROUTES[way])
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        async with relaying(gateway.port) as (relay, port):
            judge(await read_through(port, "whole"))
            size = relay.seen[way]
        places = sampled(size, SAMPLE, way)
        turns = asyncio.Semaphore(AT_ONCE)

        async def cut(offset, kind):
            async with turns, relaying(gateway.port) as (relay, port):
                setattr(relay, way, offset)
                relay.kind = kind
                read = await read_through(port, f"{offset} {kind}")
            judge(read)
            row.readers += 1
            row.every = size if ALL else 0
            row.verified += 1
            row.cuts += read.connections > 1
            row.calls += len(read.streams)

        await asyncio.gather(*(cut(*place) for place in places))
        rows.append(row)
        # Of what the reader sends last (its close, or a pong) nothing is missed.
        assert row.cuts > 0.8 * len(places)
        await asyncio.sleep(0)
        listed = (await gateway.client.get("/v1/streams", params={"limit": 100})).json()["data"]
        assert {one["status"] for one in listed} == {"completed"}


def run_by_javascript(jobs):
    node.client()
    return json.loads(
        node.run("--experimental-websocket", "sockets.mjs", json.dumps(jobs), patience=600 if ALL else 100)
    )


@pytest.mark.timeout(3_600 if ALL else 120)
@pytest.mark.parametrize("way", ["down", "up"])
async def test_no_cut_of_a_socket_costs_the_javascript_client_an_entry(rows, way):
    settings, row = config(), Row("penstock (Node.js)", "WebSocket", ROUTES[way])
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:

        async def read(places):
            async with AsyncExitStack() as relays:
                jobs = []
                for offset, kind in places:
                    relay, port = await relays.enter_async_context(relaying(gateway.port))
                    setattr(relay, way, offset)
                    relay.kind = kind
                    key = f"{way} {offset} {kind}"
                    jobs.append({"url": f"http://127.0.0.1:{port}", "key": key, "text": TEXT})
                results = await asyncio.to_thread(run_by_javascript, jobs)
                return results, relay.seen[way]

        _, size = await read([(None, "rst")])
        places = sampled(size, SAMPLE_OF_JAVASCRIPT, f"js {way}")
        results = []
        for start in range(0, len(places), 60):
            results += (await read(places[start : start + 60]))[0]
        assert [one["got"] for one in results] == [TEXT] * len(places)
        row.readers, row.every = len(results), size if ALL else 0
        row.verified = sum(one["verified"] for one in results)
        row.cuts = sum(one["losses"] > 0 for one in results)
        row.calls = len({one["stream"] for one in results})
        rows.append(row)
        assert all(one["numbers"] == list(range(1, len(one["numbers"]) + 1)) for one in results)
        assert row.verified == row.calls == len(places)
        assert row.cuts > 0.8 * len(places)
        listed = (await gateway.client.get("/v1/streams", params={"limit": 100})).json()["data"]
        assert {one["status"] for one in listed} == {"completed"}
