"""A debug application that sends back what it is sent, over the parts that `/v1/ws` is built from.

`python -m tests.conformance.echo PORT [direct|plain|library]`: on our own protocol, on our own session
parts over ASGI alone, or, to compare with, on uvicorn's class without anything of ours.
"""

import asyncio
import sys

import uvicorn

from penstock.server.http import HttpSettings, protocol_class
from penstock.server.sockets import Plain, direct
from penstock.server.websocket import websocket_class

MAX_MESSAGE = 32 << 20


class Echo:
    """A handler that answers each message with itself."""

    def __init__(self, socket):
        self.socket = socket
        self.over = asyncio.get_running_loop().create_future()
        socket.set_max_message(MAX_MESSAGE)

    def received(self, data, text):
        if text:
            self.socket.push((data,))
        else:
            self.socket.push_binary(data)

    def writable(self):
        pass

    def lost(self):
        if not self.over.done():
            self.over.set_result(None)

    def leave(self):
        self.socket.close(1001)


async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    if (connection := direct(scope)) is not None:
        echo = Echo(connection)
        connection.adopt(echo)
        await echo.over
    else:
        plain = Plain(receive, send)
        await plain.carry(Echo(plain))


async def library(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        kind = "bytes" if message.get("text") is None else "text"
        await send({"type": "websocket.send", kind: message[kind]})


def serve(port, mode="direct"):
    settings = HttpSettings()
    ours = mode == "direct"
    uvicorn.run(
        library if mode == "library" else app,
        host="127.0.0.1",
        port=port,
        http=protocol_class(settings),
        ws=websocket_class(settings) if ours else "websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="critical",
        server_header=False,
    )


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
