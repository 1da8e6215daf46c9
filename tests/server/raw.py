"""A client on a bare socket: sends what no HTTP library would, and sees what really comes back."""

import asyncio
import json
import re
import socket
from contextlib import asynccontextmanager, suppress

from tests.server.sse import parse

DEADLINE = 10.0


class Raw:
    """One connection. Reads return what came when the mark was met, or the connection ended."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.got = b""
        self.ended = ""  # how: "closed" or "reset"

    def send(self, data):
        self.writer.write(data)

    def half_close(self):
        self.writer.write_eof()

    async def until(self, *marks):
        """Read until one of ``marks`` has come; return all that came so far."""
        async with asyncio.timeout(DEADLINE):
            while not self.ended and not any(mark in self.got for mark in marks):
                await self._more()
        return self.got

    async def to_end(self):
        """Read until the server ends the connection."""
        async with asyncio.timeout(DEADLINE):
            while not self.ended:
                await self._more()
        return self.got

    async def _more(self):
        try:
            data = await self.reader.read(65536)
        except ConnectionError:
            self.got += bytes(self.reader._buffer)  # what came before the reset counts as well
            self.ended = "reset"
            return
        self.got += data
        if not data:
            self.ended = "closed"

    @property
    def statuses(self):
        """The final status of each answer that came."""
        found = re.findall(rb"HTTP/1\.1 (\d\d\d) ", self.got)
        return [int(status) for status in found if not status.startswith(b"1")]


@asynccontextmanager
async def connected(port, *, receive_buffer=0):
    """Open a connection; a small ``receive_buffer`` makes a reader that is soon full."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    limit = receive_buffer or 65536
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request(method, path, body=None, *, version="1.1", **headers):
    """The bytes of a request; a dictionary as ``body`` is sent as JSON."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost"]
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    data = b""
    if body is not None:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"Content-Type": "application/json", "Content-Length": len(data), **headers}
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def unchunked(answer):
    """Return the body behind one head in ``answer``, chunks joined; and whether its last chunk came."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return rest, True
    body = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if not size:
            break
        count = int(size, 16)
        if count == 0:
            return b"".join(body), True
        body.append(rest[:count])
        rest = rest[count + 2 :]
    return b"".join(body), False


def events(answer):
    """The server-sent events in one whole answer."""
    return parse(unchunked(answer)[0])


async def eventually(condition, seconds=5.0):
    """Wait for what another connection's closing brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  nothing to wait on: it is the other side that acts
            await asyncio.sleep(0.005)
