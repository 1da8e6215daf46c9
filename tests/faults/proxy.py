"""A proxy between a gateway and its provider that breaks each answer where, and as, the model's name says.

``<fault>/<phase>/<times>/<anything>`` is asked of the real model; its answer is given on up to the phase,
then the fault happens, for the first so many requests with that name. It notes when each came.
"""

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager, suppress

from tests.faults.models import dumps, request_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
RST = struct.pack("ii", 1, 0)
TOKENS = 5
"""Texts that come through before a fault that comes after some."""

STATUSES = {"status 429": 429, "status 500": 500, "status 503": 503}
BROKEN = b'data: {"choices": [{"delta": {"cont\n\n'
SAID = {
    "/v1/chat/completions": b"data: %b\n\n"
    % dumps({"error": {"message": "The server had an error.", "type": "server_error", "code": None}}),
    "/v1/messages": b"event: error\ndata: %b\n\n"
    % dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
}

BEFORE_HEAD = ("before head",)
BETWEEN = ("after head", "after role", "after some tokens", "in a tool call", "before finish", "before usage",
           "after finish")  # fmt: skip
WITHIN = ("in a frame", "in a character")
PHASES = (*BEFORE_HEAD, *BETWEEN, *WITHIN)

CUTS = ("reset", "close", "end", "silence")
FAULTS = (*CUTS, *STATUSES, "malformed", "error")


def possible(fault: str, phase: str, path: str) -> bool:
    """Say whether ``fault`` can happen there."""
    if phase == "before usage" and path == "/v1/messages":
        return False  # it comes with the finish
    if phase in BEFORE_HEAD:
        return fault in STATUSES or fault in ("reset", "close", "silence")
    if phase in WITHIN:
        return fault in CUTS
    return fault not in STATUSES


def offset(phase: str, events: list[bytes]) -> int:
    """Return how many bytes of an answer with ``events`` come through."""

    def before(*marks: bytes) -> int:
        at = next(n for n, event in enumerate(events) if any(mark in event for mark in marks))
        return sum(map(len, events[:at]))

    first = next(
        n for n, event in enumerate(events) if b"content_block_delta" in event or b'{"content": "T' in event
    )
    some = sum(map(len, events[: first + TOKENS]))
    match phase:
        case "after head":
            return 0
        case "after role":
            return sum(map(len, events[:first]))
        case "after some tokens":
            return some
        case "in a frame":
            return some + 20
        case "in a character":
            data = b"".join(events)
            return next(at for at in range(some, len(data)) if data[at] >= 0x80) + 1
        case "in a tool call":
            return before(b"Xiamen")
        case "before finish":
            return before(b'"finish_reason": "', b"message_delta")
        case "before usage":
            return before(b'"usage": {"prompt')
        case "after finish":
            return before(b"[DONE]", b"message_stop")
    raise ValueError(phase)


class Proxy:
    """See the module's head."""

    def __init__(self, upstream: int) -> None:
        self.port = 0
        self.asked: dict[str, list[float]] = {}
        self._upstream = upstream

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path, body = await request_of(reader)
            await self._answer(path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, path, body, reader, writer) -> None:
        model = json.loads(body)["model"]
        fault, phase, times, _ = model.split("/")
        times_asked = self.asked.setdefault(model, [])
        times_asked.append(asyncio.get_running_loop().time())
        data = await self._fetch(path, body)
        if len(times_asked) > int(times):
            writer.write(HEAD + chunk(data) + chunk(b""))
            await writer.drain()
            return
        if phase == "before head":
            await self._before_head(fault, reader, writer)
            return
        events = [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]
        at = offset(phase, events)
        writer.write(HEAD + (chunk(data[:at]) if at else b""))
        await writer.drain()
        match fault:
            case "end":
                writer.write(chunk(b""))
            case "malformed":
                writer.write(chunk(BROKEN) + chunk(data[at:]) + chunk(b""))
            case "error":
                writer.write(chunk(SAID[path]) + chunk(b""))
            case _:
                await self._cut(fault, reader, writer)
        await writer.drain()

    async def _before_head(self, fault, reader, writer) -> None:
        if status := STATUSES.get(fault):
            data = dumps({"error": {"type": "api_error", "message": "Not now."}})
            writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % status)
            writer.write(b"content-length: %d\r\n\r\n" % len(data) + data)
            await writer.drain()
        else:
            await self._cut(fault, reader, writer)

    async def _cut(self, fault, reader, writer) -> None:
        if fault == "silence":
            with suppress(ConnectionError):
                await reader.read()  # until the gateway leaves
        elif fault == "reset":
            # The kernel throws away what the other side has not read; that is in this loop, too.
            await asyncio.sleep(0.02)
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)

    async def _fetch(self, path: str, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def breaking(upstream: int):
    """Serve a proxy in front of the models at port ``upstream``."""
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
