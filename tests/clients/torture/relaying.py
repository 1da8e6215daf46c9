"""A relay in the test's loop, whose connections are lost after so many bytes, either way."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, suppress

RST = struct.pack("ii", 1, 0)


class Relay:
    """Connections to a port, of which the next one is cut after ``down`` or ``up`` bytes."""

    def __init__(self, port):
        self.port = port
        self.down = self.up = None
        self.kind = "rst"
        self.seen = {"down": 0, "up": 0}

    async def carry(self, reader, writer):
        down, up, self.down, self.up = self.down, self.up, None, None
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def pump(source, target, limit, way):
            while data := await source.read(65536):
                self.seen[way] += len(data)
                if limit is not None and len(data) >= limit:
                    target.write(data[:limit])
                    with suppress(ConnectionError):
                        await target.drain()
                    return
                limit = None if limit is None else limit - len(data)
                target.write(data)
                await target.drain()

        pumps = [
            asyncio.ensure_future(pump(there_reader, writer, down, "down")),
            asyncio.ensure_future(pump(reader, there_writer, up, "up")),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, there_writer):
                if self.kind == "rst":
                    with suppress(OSError):
                        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                    end.transport.abort()
                else:
                    end.close()


@asynccontextmanager
async def relaying(port):
    """Listen; give the relay and its port."""
    relay = Relay(port)
    server = await asyncio.start_server(relay.carry, "127.0.0.1", 0)
    try:
        yield relay, server.sockets[0].getsockname()[1]
    finally:
        server.close()
