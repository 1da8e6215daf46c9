"""Our WebSocket protocol, by an echo application: the library's rules hold, and so do our bounds."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from penstock.server.http import HttpSettings, protocol_class
from penstock.server.websocket import header, websocket_class
from tests.conformance.echo import app
from tests.server.raw import eventually

OURS, FOREIGN = "direct", "plain"


@asynccontextmanager
async def echoing(mode=OURS, *, settings=HttpSettings(), **options):  # noqa: B008  it is frozen
    """Serve the echo application; give its port, and the protocol class."""
    ws = websocket_class(settings) if mode == OURS else "websockets-sansio"
    options = {"ws_max_size": 4 << 20, "ws_per_message_deflate": False, **options}
    made = Config(app, http=protocol_class(settings), ws=ws, lifespan="off", log_config=None, **options)
    made.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: made.http_protocol_class(made, state, {}), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], ws
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await eventually(lambda: not state.tasks, 30)


@asynccontextmanager
async def client(port, **options):
    options = {"compression": None, "max_size": None, "proxy": None, **options}
    async with connect(f"ws://127.0.0.1:{port}/", **options) as connection:
        yield connection


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
def test_what_is_written_is_read_back(size):
    client = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN)
    client.receive_data(header(size) + b"x" * size + header(1, 0x82) + b"y")
    text, binary = client.events_received()
    assert (text.opcode, text.fin, bytes(text.data)) == (Opcode.TEXT, True, b"x" * size)
    assert (binary.opcode, bytes(binary.data)) == (Opcode.BINARY, b"y")


@pytest.mark.parametrize("mode", [OURS, FOREIGN])
async def test_messages_come_back_as_they_were(mode):
    async with echoing(mode) as (port, _), client(port) as connection:
        for message in ("", "one", "你好 🙂", b"", b"\0\xff", "x" * 126, "y" * 70_000, b"z" * 3_000_000):
            await connection.send(message)
            assert await connection.recv() == message
        await connection.send(iter(["in ", "four", "", " pieces"]))
        assert await connection.recv() == "in four pieces"
        await asyncio.wait_for(await connection.ping(), 30)


async def test_very_many_small_fragments_cost_what_they_hold():
    async with echoing() as (port, _), client(port) as connection:
        await connection.send("x" for _ in range(50_000))
        assert await connection.recv() == "x" * 50_000


@pytest.mark.parametrize("mode", [OURS, FOREIGN])
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), 1007),
        (Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002),
        (Frame(Opcode.CONT, b"of nothing").serialize(mask=True), 1002),
        (b"\xc1\x810000x", 1002),  # as if it were compressed
        (b"\x81\xff\x00\x00\x00\x00\x7f\xff\xff\xff0000", 1009),
    ],
    ids=["no text", "unmasked", "without a beginning", "reserved bit", "too long"],  # masks are random
)
async def test_what_breaks_the_rules_closes_the_connection(mode, frame, code):
    async with echoing(mode) as (port, _), client(port) as connection:
        connection.transport.write(frame)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(connection.recv(), 30)
        assert connection.close_code == code


async def test_a_close_is_answered_and_the_connection_forgotten():
    async with echoing() as (port, ws):
        async with client(port) as connection:
            await connection.close(1000, "enough")
            assert connection.close_code == 1000
        await eventually(lambda: not ws.everyone, 30)


async def test_a_peer_that_does_not_answer_pings_is_closed():
    async with echoing(ws_ping_interval=0.1, ws_ping_timeout=0.2) as (port, _), client(port) as dead:
        take = dead.protocol.recv_frame
        dead.protocol.recv_frame = lambda frame: None if frame.opcode is Opcode.PING else take(frame)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(dead.recv(), 30)
        assert dead.close_code == 1011


async def test_a_peer_that_answers_is_pinged_again():
    async with echoing(ws_ping_interval=0.02, ws_ping_timeout=30) as (port, ws), client(port) as alive:
        (served,) = ws.everyone
        pings = []
        frame_received = alive.protocol.recv_frame

        def heard(frame):
            pings.extend([frame] if frame.opcode is Opcode.PING else [])
            frame_received(frame)

        alive.protocol.recv_frame = heard
        await eventually(lambda: len(pings) > 2, 30)
        assert served.open


async def test_a_request_is_forgotten_once_the_connection_is_adopted():
    async with echoing() as (port, ws), client(port, additional_headers={"X-Long": "y" * 4000}) as connection:
        await connection.send("here")
        await connection.recv()
        (served,) = ws.everyone
        assert not hasattr(served, "request")
        assert served.scope["headers"] == []
