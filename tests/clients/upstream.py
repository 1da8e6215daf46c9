"""A provider of the test's own: it speaks OpenAI chat, counts its requests and notices who leaves."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PACE = 0.005
QUIET = 4.0
"""Seconds for which ``quiet`` says nothing."""

WORDS = ("one", " two", " three")
THOUGHTS = ("Let me", " see.")
CALLS = (("call_a", "get_weather", {"city": "Paris"}), ("call_b", "get_weather", {"city": "Łódź"}))
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
REFUSAL = {
    "message": "The picture is larger than this model takes.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "picture_too_large",
}
FAILURE = {"message": "The engine overheated.", "type": "server_error", "param": None, "code": "engine_hot"}


@dataclass
class Asked:
    """One request. ``left`` is set when the other side closes before the answer is whole."""

    body: dict
    connection: socket.socket
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def gone(self) -> bool:
        """Whether the other side is gone at this moment."""
        if self.left.is_set() or self.connection.fileno() < 0:
            return True
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = Asked(json.loads(self.rfile.read(int(self.headers["content-length"]))), self.connection)
        self.server.asked.append(asked)
        kind = asked.body["model"].partition(":")[0]
        if kind == "refusing":
            self._refuse()
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        if kind == "cut":
            self.send_header("content-length", "1000000")
        self.end_headers()
        try:
            for chunk, pause in _script(kind):
                if self._gone(pause):
                    asked.left.set()
                    return
                known = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
                self.wfile.write(b"data: %b\n\n" % json.dumps({**known, **chunk}).encode())
            if kind not in ("cut", "truncated"):
                self.wfile.write(b"data: [DONE]\n\n")
        except ConnectionError:  # it left between a look and a write
            asked.left.set()

    def do_GET(self):
        """Who has left by now, for tests in another language."""
        body = json.dumps([asked.gone for asked in self.server.asked]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self) -> None:
        body = json.dumps({"error": REFUSAL}).encode()
        self.send_response(400)
        self.send_header("content-type", "application/json")
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


def _script(kind: str) -> Iterator[tuple[dict[str, Any], float]]:
    """Chunks, each with the pause before it. A model's kind is its name up to a colon.

    ``endless`` never ends, ``pausing`` and ``quiet`` fall silent for a while, ``broken`` says that it failed,
    ``cut`` and ``truncated`` end before their end; ``calling`` and ``thinking`` do that; all others say
    nothing.
    """
    yield _delta({"role": "assistant", "content": ""}), 0.0
    match kind:
        case "endless":
            count = 0
            while True:
                count += 1
                yield _delta({"content": f"{count} "}), PACE
        case "pausing":
            yield _delta({"content": "before"}), 0.0
            yield _delta({"content": " after"}), 0.5
        case "quiet":
            yield _delta({"content": "before"}), 0.0
            yield _delta({"content": " after"}), QUIET
        case "plain" | "thinking" | "broken" | "cut" | "truncated":
            for thought in THOUGHTS if kind == "thinking" else ():
                yield _delta({"reasoning_content": thought}), PACE
            for word in WORDS:
                yield _delta({"content": word}), PACE
        case "calling":
            yield from ((_delta({"tool_calls": [call]}), PACE) for call in _fragments())
    if kind == "broken":
        yield {"error": FAILURE}, PACE
    if kind in ("broken", "cut", "truncated"):
        return
    yield _delta({}, "tool_calls" if kind == "calling" else "stop"), 0.0
    if kind not in ("endless", "pausing"):
        yield {"choices": [], "usage": USAGE}, 0.0


def _delta(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _fragments() -> Iterator[dict[str, Any]]:
    """Calls side by side, their arguments in pieces."""
    given = [json.dumps(arguments) for _, _, arguments in CALLS]
    for index, (id_, name, _) in enumerate(CALLS):
        function = {"name": name, "arguments": ""}
        yield {"index": index, "id": id_, "type": "function", "function": function}
    for start in range(0, max(map(len, given)), 5):
        for index, text in enumerate(given):
            if piece := text[start : start + 5]:
                yield {"index": index, "function": {"arguments": piece}}


class Upstream(ThreadingHTTPServer):
    """See the module's head."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def who(self, model: str) -> list[Asked]:
        """Return the requests for ``model``."""
        return [asked for asked in list(self.asked) if asked.body["model"] == model]


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
