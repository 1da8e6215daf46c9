"""A provider on the network's loop: it speaks OpenAI chat, counts its calls and can be told to wait."""

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress

from tests.clients.torture.answer import PIECES

PAUSE = 0.001


class Provider:
    """Says `PIECES` to everybody, a few at a time. ``calls`` counts by what was asked.

    ``gates``: what was asked here is answered once the gate is open; the head goes out before. ``exits``:
    it is answered but for its end, which waits for the gate.
    ``silences``: seconds of silence before the first word and again in the middle.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.exits: dict[str, asyncio.Event] = {}
        self.silences: dict[str, float] = {}
        self._chance = random.Random(7)
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                    asked = json.loads(await reader.readexactly(length))
                    await self._answer(asked["messages"][-1]["content"], writer)
            finally:
                writer.close()

    async def _answer(self, asked: str, writer: asyncio.StreamWriter) -> None:
        self.calls[asked] += 1
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        if gate := self.gates.get(asked):
            await gate.wait()
        deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in PIECES), {}]
        silence = self.silences.get(asked, 0.0)
        await asyncio.sleep(silence)
        middle = len(deltas) // 2
        leave = self.exits.get(asked)
        while deltas:
            if leave and len(deltas) == 1:
                await leave.wait()
            if silence and len(deltas) <= middle:
                await asyncio.sleep(silence)
                silence = 0.0
            count = self._chance.choice([1, 1, 2, 5])
            if leave and len(deltas) > 1:
                count = min(count, len(deltas) - 1)
            now, deltas = deltas[:count], deltas[count:]
            frames = b"".join(b"data: %b\n\n" % _chunk(delta) for delta in now)
            if not deltas:
                frames += b"data: [DONE]\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(frames), frames))
            await writer.drain()
            await asyncio.sleep(PAUSE)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _chunk(delta: dict) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
    chunk = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(chunk).encode()
