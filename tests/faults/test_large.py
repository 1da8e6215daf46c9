"""Streams that are long: read, resumed, shown and erased in memory that does not grow with them."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from penstock.wire.sse import SseDecoder
from penstock.wire.verification import Verifier
from tests.faults.process import PATIENCE, Gateway

SHAPES = {"entries": (100_000, "word "), "megabytes": (5_000, "日本語 and so on, " * 100)}
"""How many deltas a model sends, and of what."""


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose models are `SHAPES`."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        count, text = SHAPES[asked["model"]]
        delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunks = [
            json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [one]})
            for one in (delta, end)
        ]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for _ in range(0, count, 100):
            self.wfile.write(f"data: {chunks[0]}\n\n".encode() * 100)
        self.wfile.write(f"data: {chunks[1]}\n\ndata: [DONE]\n\n".encode())

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def answering():
    """Serve `Model`; give its base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def memory(gateway: Gateway) -> int:
    """Bytes that the gateway's process has of its own."""
    lines = Path(f"/proc/{gateway.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


async def created(client: httpx.AsyncClient, model: str) -> str:
    body = {"request": {"model": model, "messages": [{"role": "user", "content": "Go on"}]}}
    response = await client.post("/v1/streams", json=body, headers={"prefer": "respond-async"})
    return response.raise_for_status().json()["stream"]


async def read(
    client: httpx.AsyncClient, stream: str, cursor: str = "", leave_after: int = 0
) -> tuple[str, list[bytes]]:
    """Return the last id and the entries' data, up to the end or until so many came."""
    frames, entries = SseDecoder(), []
    headers = {"last-event-id": cursor} if cursor else {}
    async with client.stream("GET", f"/v1/streams/{stream}/events", headers=headers) as response:
        assert response.status_code == 200
        async for piece in response.aiter_raw():
            for frame in frames.feed(piece):
                cursor = frame.id.decode()
                if frame.data.startswith(b'{"n":'):
                    entries.append(frame.data)
            if leave_after and len(entries) >= leave_after:
                break
    return cursor, entries


@pytest.mark.parametrize("shape", SHAPES)
async def test_long_stream_is_read_resumed_shown_and_erased_in_bounded_memory(tmp_path, shape):
    count, text = SHAPES[shape]
    with answering() as url, Gateway(tmp_path, providers={"near": {"base_url": url}}) as gateway:
        await gateway.start()
        async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE) as client:
            stream = await created(client, shape)
            await read(client, stream)  # follows it to its end
            before = memory(gateway)

            cursor, first = await read(client, stream, leave_after=count // 5)
            _, rest = await read(client, stream, cursor)
            verifier = Verifier()
            for data in (*first, *rest):
                verifier.feed(data)
            verdict = verifier.verdict()
            assert verdict.problems == ()
            assert verdict.characters == count * len(text)
            assert json.loads(rest[-1])["text_sha256"] == hashlib.sha256((text * count).encode()).hexdigest()
            grown = memory(gateway) - before
            assert grown < 16 << 20, f"reading took {grown >> 20} MB"

            shot = (await client.get(f"/v1/streams/{stream}")).json()
            assert shot["text"] == text * count
            assert (await client.delete(f"/v1/streams/{stream}")).status_code == 200
            assert (await client.get(f"/v1/streams/{stream}")).status_code == 410
        await gateway.stop()
