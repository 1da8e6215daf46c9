"""An Ollama of the test's own: its routes, lines, statuses and words, and its ways to go wrong.

The forms were taken from a running Ollama 0.17 and its sources; its own Python client judges them
(`test_ollama_upstream`). A body is cut into chunks anywhere, as the kernel and proxies do. What a model
does is in its name (`Ollama.models`). It counts its requests and notices who leaves.
"""

import json
import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

from tests.clients.mortal import MortalServer

PACE = 0.005
DETAILS = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]}
DETAILS |= {"parameter_size": "3.2B", "quantization_level": "Q4_K_M"}

MODELS = (
    *("echo:latest", "thinker:8b", "caller:latest", "endless:latest", "slow:latest"),
    *("breaks:latest", "ends-early:latest", "resets:latest", "busy:latest", "cloud:latest"),
)


@dataclass
class Asked:
    """One request. ``left`` is set when the other side closes before the answer is whole."""

    path: str
    body: dict
    headers: dict
    left: threading.Event = field(default_factory=threading.Event)


class _Refused(Exception):
    def __init__(self, status: int, error: str, **more: str) -> None:
        super().__init__(error)
        self.status, self.body = status, {"error": error, **more}


class _Left(Exception):
    """The client has gone."""


class _Cut(Exception):
    """The server dies in mid-answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/api/tags":
            self.server.lists += 1
            self._json(200, {"models": [self._tag(name) for name in self.server.models]})
        elif self.path == "/api/version":
            self._json(200, {"version": "0.17.4"})
        else:
            self._text(404, "404 page not found")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.path, body, headers)
        self.server.asked.append(asked)
        shape = {"/api/chat": self._chat_line, "/api/generate": self._generate_line}.get(self.path)
        if shape is None:
            self._text(404, "404 page not found")
            return
        try:
            model = self._check(body)
            self._stream(asked, shape, model)
        except _Refused as refused:
            self._json(refused.status, refused.body)
        except _Left:
            asked.left.set()
            self.close_connection = True
        except _Cut:
            self.close_connection = True

    # what is refused before anything is said

    def _check(self, body: dict) -> str:
        name = body["model"]
        model = name if name in self.server.models else f"{name}:latest"
        if model not in self.server.models:
            raise _Refused(404, f"model '{name}' not found")
        if model == "busy:latest":
            raise _Refused(503, "server busy, please try again.  maximum pending requests exceeded")
        if model == "cloud:latest":
            raise _Refused(401, "unauthorized", signin_url="https://ollama.com/connect?name=box&key=c2Vjcg")
        for option, value in body.get("options", {}).items():
            if option == "temperature" and not isinstance(value, int | float):
                raise _Refused(400, f'option "{option}" must be of type float32')
        if body.get("tools") and model != "caller:latest":
            raise _Refused(400, f"registry.ollama.ai/library/{model} does not support tools")
        if body.get("think") and model != "thinker:8b":
            raise _Refused(400, f'"{name}" does not support thinking')
        if isinstance(body.get("think"), str):
            raise _Refused(400, f'think value "{body["think"]}" is not supported for this model')
        for message in body.get("messages", ()):
            for call in message.get("tool_calls", ()):
                if not isinstance(call["function"]["arguments"], dict):
                    raise _Refused(400, "json: cannot unmarshal string into Go struct field")
        return model

    # what is said

    def _stream(self, asked: Asked, shape, model: str) -> None:
        body = asked.body
        if model == "slow:latest":
            while not self.server.loaded.is_set():
                self._pause(PACE)
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        limit = body.get("options", {}).get("num_predict", -1)
        count = 0
        rng = random.Random(len(self.server.asked))
        for piece in self._pieces(model, body):
            if piece is _Left:
                self._pause(PACE)
                continue
            if "error" in piece:
                self._say(rng, json.dumps(piece).encode() + b"\n")
                self._end()
                return
            if count == limit:
                break
            count += 1
            self._say(rng, self._line(shape(piece), body, done=False))
        if model == "resets:latest":
            raise _Cut
        if model != "ends-early:latest":
            last = {"done_reason": "length" if count == limit else "stop", "total_duration": 174560334}
            last |= {"load_duration": 101397084, "prompt_eval_count": 11, "prompt_eval_duration": 13074791}
            last |= {"eval_count": count, "eval_duration": 52479709} if count else {}
            self._say(rng, self._line(shape({}) | last, body, done=True))
        self._end()

    def _pieces(self, model: str, body: dict) -> Iterator:
        told = [m for m in body.get("messages", ()) if m["role"] == "tool"]
        heard = body.get("prompt") or body["messages"][-1]["content"]
        words = [word if not at else f" {word}" for at, word in enumerate(heard.split())]
        match model:
            case "thinker:8b":
                if body.get("think") is not False:
                    yield {"thinking": "Let me"}
                    yield {"thinking": " see."}
                yield from ({"content": word} for word in words)
            case "caller:latest" if told:
                yield {"content": "; ".join(f"{m['tool_name']}: {m['content']}" for m in told)}
            case "caller:latest":
                names = [tool["function"]["name"] for tool in body.get("tools", ())]
                yield {"content": "Let me look."}
                calls = enumerate((name, city) for name in names for city in ("Paris", "Łódź"))
                for at, (name, city) in calls:
                    call = {"index": at, "name": name, "arguments": {"city": city, "days": 2}}
                    yield {"tool_calls": [{"function": call}]}
            case "endless:latest":
                number = 0
                while True:
                    number += 1
                    yield _Left
                    yield {"content": f"{number} "}
            case "breaks:latest":
                yield from ({"content": word} for word in words)
                yield {"error": "an error was encountered while running the model: CUDA error"}
            case _:
                yield from ({"content": word} for word in words)

    @staticmethod
    def _chat_line(piece: dict) -> dict:
        return {"message": {"role": "assistant", "content": "", **piece}}

    @staticmethod
    def _generate_line(piece: dict) -> dict:
        said = {"response": piece.get("content", "")}
        return said | {name: value for name, value in piece.items() if name != "content"}

    def _line(self, said: dict, body: dict, *, done: bool) -> bytes:
        now = datetime.now(UTC).isoformat().replace("+00:00", "123Z")
        message = {name: said.pop(name) for name in ("message", "response") if name in said}
        line = {"model": body["model"], "created_at": now, **message, "done": done, **said}
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        for char in "<>&":  # as Go does
            text = text.replace(char, f"\\u{ord(char):04x}")
        return text.encode() + b"\n"

    # how it is sent

    def _say(self, rng: random.Random, data: bytes) -> None:
        cuts = sorted(rng.sample(range(1, len(data)), k=min(rng.randrange(4), len(data) - 1)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self._write(b"%x\r\n%b\r\n" % (end - start, data[start:end]))

    def _end(self) -> None:
        self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except ConnectionError:
            raise _Left from None

    def _pause(self, seconds: float) -> None:
        readable, _, _ = select.select([self.connection], [], [], seconds)
        try:
            gone = bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except ConnectionError:
            gone = True
        if gone or self.server.stopping:
            raise _Left

    def _json(self, status: int, body: dict) -> None:
        self._text(status, json.dumps(body), "application/json; charset=utf-8")

    def _text(self, status: int, text: str, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _tag(self, name: str) -> dict:
        tag = {"name": name, "model": name, "modified_at": "2026-01-01T00:00:00.123456789+01:00"}
        return tag | {"size": 2019393189, "digest": "9eab80f0", "details": DETAILS}

    def log_message(self, *_):
        pass


class Ollama(MortalServer):
    """See the module's head. ``slow`` says nothing before ``loaded`` is set; ``lists`` counts who asked."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(_Handler, port)
        self.models = list(MODELS)
        self.asked: list[Asked] = []
        self.lists = 0
        self.loaded = threading.Event()

    @property
    def host(self) -> str:
        """What OLLAMA_HOST would say."""
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def running(port: int = 0) -> Iterator[Ollama]:
    """Run an Ollama."""
    with Ollama(port) as ollama:
        thread = threading.Thread(target=ollama.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield ollama
        finally:
            ollama.stop()
            thread.join()
