"""A provider of the test's own: it speaks OpenAI chat, counts its requests and notices who leaves."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PACE = 0.005


@dataclass
class Asked:
    """One request. ``left`` is set when the other side closes before the answer is whole."""

    body: dict
    connection: socket.socket
    left: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = Asked(json.loads(self.rfile.read(int(self.headers["content-length"]))), self.connection)
        self.server.asked.append(asked)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for delta, pause in _script(asked.body["model"]):
                if self._gone(pause):
                    asked.left.set()
                    return
                choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
                chunk = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}
                self.wfile.write(b"data: %b\n\n" % json.dumps({**chunk, "model": "m"}).encode())
            self.wfile.write(b"data: [DONE]\n\n")
        except ConnectionError:  # it left between a look and a write
            asked.left.set()

    def do_GET(self):
        """Who has left so far, for tests in another language."""
        body = json.dumps([asked.left.is_set() for asked in self.server.asked]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _gone(self, seconds: float) -> bool:
        readable, _, _ = select.select([self.connection], [], [], seconds)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except ConnectionError:
            return True

    def log_message(self, *_):
        pass


def _script(model: str) -> Iterator[tuple[dict, float]]:
    """Deltas, each with the pause before it: ``endless`` never ends, ``pausing`` falls silent for a while."""
    yield {"role": "assistant", "content": ""}, 0.0
    match model:
        case "endless":
            count = 0
            while True:
                count += 1
                yield {"content": f"{count} "}, PACE
        case "pausing":
            yield {"content": "before"}, 0.0
            yield {"content": " after"}, 0.5
    yield {}, 0.0


class Upstream(ThreadingHTTPServer):
    """See the module's head."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def answering() -> Iterator[Upstream]:
    """Run an upstream."""
    with Upstream() as upstream:
        thread = threading.Thread(target=upstream.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield upstream
        finally:
            upstream.shutdown()
            thread.join()
