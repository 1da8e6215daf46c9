"""A relay of raw bytes on uvloop that knows nothing of HTTP: what any Python gateway pays at the least.

Also what the harness is tried with: it stands where a gateway would.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast

import uvloop

MAX_WAITING = 1 << 20  # bytes of a request that came before its upstream connection was there


class Half(asyncio.Protocol):
    """One of the two sockets of a relayed connection; each pauses the other when it is full."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Half | None = None
        self.waiting = b""

    def join(self, peer: Half) -> None:
        self.peer, peer.peer = peer, self
        if self.waiting and peer.transport is not None:
            peer.transport.write(self.waiting)
            self.waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)
        else:
            self.waiting += data
            if len(self.waiting) > MAX_WAITING and self.transport is not None:
                self.transport.abort()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()


class Front(Half):
    """The client's side: dials the upstream as soon as it is connected."""

    def __init__(self, port: int, dials: asyncio.TaskGroup) -> None:
        super().__init__()
        self._port = port
        self._dials = dials

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dials.create_task(self._dial(cast("asyncio.Transport", transport)))

    async def _dial(self, transport: asyncio.Transport) -> None:
        try:
            _, back = await asyncio.get_running_loop().create_connection(Half, "127.0.0.1", self._port)
        except OSError:
            transport.abort()
            return
        self.join(back)
        if transport.is_closing() and back.transport is not None:
            back.transport.close()


async def serve(port: int, upstream_port: int) -> None:
    async with asyncio.TaskGroup() as dials:
        server = await asyncio.get_running_loop().create_server(
            lambda: Front(upstream_port, dials), "127.0.0.1", port, backlog=4096
        )
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream-port", type=int, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.upstream_port))


if __name__ == "__main__":
    main()
