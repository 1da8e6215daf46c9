"""A connection of the Python client lost at any byte, in either direction, by SSE and on a WebSocket.

The relay and the gateway are in the test's loop; what is cut are real connections, by RST and FIN, after so
many bytes of what the gateway sends (`down`) or of what the client does (`up`). PENSTOCK_CUTS=all makes
every cut there is.
"""

import asyncio

import pytest

from penstock.assembly.system import assemble
from penstock.client import AsyncClient, Lost
from penstock.types.events import Closed
from tests.clients.torture.answer import PIECES
from tests.clients.torture.cuts import ALL, sampled
from tests.clients.torture.relaying import relaying
from tests.clients.torture.table import ROUTES, Row
from tests.server.conftest import config, running

SAMPLE = 40
AT_ONCE = 16
TEXT = "".join(PIECES[:8]) + " and so on"
ASKED = {"model": "demo-echo", "messages": [{"role": "user", "content": TEXT}]}


async def read(port, transport, key):
    """Read a generation to its end; return its records, its stream and how often it was lost.

    The client itself raises for an entry out of order, and for digests that differ.
    """
    lost = []
    url = f"http://127.0.0.1:{port}"
    async with AsyncClient(url, transport=transport, patience=60.0, wait=lambda _: 0.01) as client:
        answer = client.start(ASKED, idempotency_key=key, listener=lost.append)
        entries = [entry async for entry in answer]
    assert answer.so_far == TEXT
    assert type(entries[-1].event) is Closed
    assert answer.closed.status == "completed"
    return entries, answer.stream, sum(type(happening) is Lost for happening in lost)


@pytest.mark.timeout(3_600 if ALL else 120)
@pytest.mark.parametrize("way", ["down", "up"])
@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_no_cut_costs_the_python_client_an_entry(rows, transport, way):
    settings = config()
    system = await asyncio.to_thread(assemble, settings, {})
    row = Row("penstock.client", {"sse": "SSE", "websocket": "WebSocket"}[transport], ROUTES[way])
    async with running(system, settings) as gateway:
        async with relaying(gateway.port) as (relay, port):
            await read(port, transport, "whole")
            size = relay.seen[way]
        turns = asyncio.Semaphore(AT_ONCE)

        async def cut(offset, kind):
            async with turns, relaying(gateway.port) as (relay, port):
                setattr(relay, way, offset)
                relay.kind = kind
                entries, stream, lost = await read(port, transport, f"{offset} {kind}")
            numbers = [int(entry.cursor[-12:]) for entry in entries]
            row.readers += 1
            row.every = size if ALL else 0
            row.verified += 1  # else the client had raised
            row.cuts += lost
            row.lost += len(set(range(1, entries[-1].event.entries + 2)) - set(numbers))
            row.repeated += len(numbers) - len(set(numbers))
            return stream

        places = sampled(size, SAMPLE, f"{transport} {way}")
        streams = await asyncio.gather(*(cut(*place) for place in places))
        row.calls = len(set(streams))
        rows.append(row)
        assert (row.lost, row.repeated) == (0, 0)
        assert row.calls == len(places)  # each was started once, and paid once
        # Of what the client sends last (its close, or a pong) nothing is missed.
        assert row.cuts > 0.8 * len(places)
        listed = (await gateway.client.get("/v1/streams", params={"limit": 100})).json()["data"]
        assert {one["status"] for one in listed} == {"completed"}
