"""Readers of one socket that do not keep up: credit per rid, a frozen socket, and who notices."""

import asyncio
import json
import socket

import msgspec
import pytest
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from penstock.assembly.system import assemble
from penstock.wire.envelope import FIRST_CREDIT
from tests.server.conftest import config, running
from tests.server.raw import eventually
from tests.server.socket import ask, connected, text_of

LONG = " ".join(f"word{i}" for i in range(8000))
"""More than 1 MB of messages, when it is repeated."""


@pytest.fixture
async def impatient():
    """A gateway that waits a third of a second for credit."""
    settings = config()
    system = await asyncio.to_thread(assemble, settings, {})
    object.__setattr__(
        system.context, "settings", msgspec.structs.replace(system.context.settings, send_timeout=0.3)
    )
    async with running(system, settings) as gateway:
        yield gateway


def size_of(messages, rid):
    """The bytes of what counts as credit."""
    dumps = [
        json.dumps({"rid": m["rid"], "type": m["type"], "c": m["c"], "ev": m["ev"], "d": m["d"]},
                   separators=(",", ":"), ensure_ascii=False)
        for m in messages if m["type"] in ("entry", "end") and m["rid"] == rid
    ]  # fmt: skip
    return sum(len(text.encode()) for text in dumps), len(dumps[-1].encode())


async def test_a_rid_without_credit_ends_as_slow_and_can_be_read_on(impatient):
    async with connected(impatient) as client:
        await client.send("create", rid="1", **ask(LONG))
        told = []
        while not told or told[-1]["type"] != "err":
            told.append(await client.take())
        assert (told[-1]["code"], told[-1]["rid"], told[-1]["retryable"]) == ("slow", "1", True)
        sent, last = size_of(told, "1")
        assert sent - last < FIRST_CREDIT <= sent
        await client.send("read", rid="1", after=told[-2]["c"])
        while told[-1]["type"] != "end":
            told.append(await client.take())
            if told[-1]["type"] == "entry":
                await client.send("credit", rid="1", bytes=200)
            elif told[-1]["type"] == "err":  # this machine was slow, too
                await client.send("read", rid="1", after=[m for m in told if m["type"] == "entry"][-1]["c"])
    entries = [m["d"]["n"] for m in told if m["type"] in ("entry", "end")]
    assert entries == list(range(1, len(entries) + 1))


async def test_a_rid_without_credit_holds_up_nobody_else(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="slow", **ask(LONG))
        seen = 0
        while seen < FIRST_CREDIT * 0.9:
            seen += len(json.dumps(await client.take()))
        await client.send("create", rid="quick", **ask("one two three"))
        told = await client.until("end", rid="quick")
        assert text_of(told, "quick") == "one two three"
        await eventually(lambda: gateway.system.gateway.open_streams == 0, 30)  # the run waits for nobody
        await client.send("credit", rid="slow", bytes=16 << 20)
        rest = await client.until("end", rid="slow")
        assert rest[-1]["d"]["status"] == "completed"


async def test_a_frozen_socket_is_cut_off_and_costs_no_memory(impatient):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", impatient.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    try:
        protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{impatient.port}/v1/ws"))
        protocol.send_request(protocol.connect())
        writer.write(b"".join(protocol.data_to_send()))
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        for rid in "abc":
            protocol.send_text(json.dumps({"type": "create", "rid": rid, **ask(LONG)}).encode())
            for _ in range(4):
                protocol.send_text(json.dumps({"type": "credit", "rid": rid, "bytes": 16 << 20}).encode())
        writer.write(b"".join(protocol.data_to_send()))  # and now read nothing
        (connection,) = impatient.server._config.ws_protocol_class.everyone
        most = 0

        def left():
            nonlocal most
            most = max(most, connection.unsent)
            return not impatient.server._config.ws_protocol_class.everyone

        await eventually(left, 30)
        assert most < 512 << 10
    finally:
        writer.close()
    assert len(impatient.system.context.renderings) == 0


async def test_a_client_that_asks_and_never_reads_is_not_read_from(gateway):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{gateway.port}/v1/ws"))
    protocol.send_request(protocol.connect())
    writer.write(b"".join(protocol.data_to_send()))
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    (connection,) = gateway.server._config.ws_protocol_class.everyone
    bad = json.dumps({"type": "detach", "rid": "nobody"}).encode()
    try:
        for _ in range(60_000):
            protocol.send_text(bad)
        writer.write(b"".join(protocol.data_to_send()))
        await eventually(lambda: connection.read_paused, 30)
        assert connection.unsent < 4 << 20
    finally:
        writer.transport.abort()
