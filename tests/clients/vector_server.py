"""A provider of the test's own that says what the vectors say, byte by byte, cut anywhere.

The name of a model is a vector's: ``text`` is answered by ``vectors/<folder>/text.json``. ``cut:<vector>``
dies in the middle of it, ``error:<case>`` is an error response of the provider's (`errors`). What a provider
refuses before that is its own file's business (`judge`). It keeps what it was asked.
"""

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.clients.mortal import MortalServer
from tests.vectors import VECTORS, octets


@dataclass
class Asked:
    """One request: its path without the query, and the rest of it. ``form`` is a body that is no JSON;
    ``target`` and ``data`` are path and body as they came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None
    form: dict[str, str] = field(default_factory=dict)
    target: str = ""
    data: bytes = b""


class Refused(Exception):
    """An error response."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, dict(headers or {})


@dataclass
class Reply:
    """A response. ``whole``: in one piece, with a length; else in chunks, cut anywhere."""

    body: bytes
    kind: str = "application/json"
    whole: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self._serve()

    def do_POST(self):
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, url.path, dict(parse_qsl(url.query)), headers)
        data = self.rfile.read(int(headers.get("content-length", 0)))
        asked.target, asked.data = self.path, data
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            asked.form = dict(parse_qsl(data.decode()))
        elif data:
            asked.body = json.loads(data)
        self.server.asked.append(asked)
        try:
            reply = self.server.judge(self.server, asked)
        except Refused as refused:
            body = refused.body if isinstance(refused.body, bytes) else json.dumps(refused.body).encode()
            self._send(refused.status, Reply(body, headers=refused.headers))
            return
        try:
            self._send(200, reply)
        except ConnectionError:
            self.close_connection = True

    def _send(self, status: int, reply: Reply) -> None:
        self.send_response(status)
        self.send_header("content-type", reply.kind)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.whole:
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        body = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
        rng = random.Random(len(self.server.asked))
        cuts = sorted(rng.sample(range(1, len(body)), k=min(7, len(body) - 1))) if len(body) > 1 else []
        for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
            if end > start:
                self.wfile.write(b"%x\r\n%b\r\n" % (end - start, body[start:end]))
        if reply.cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


class VectorServer(MortalServer):
    """See the module's head."""

    def __init__(self, judge: Callable[["VectorServer", Asked], Reply]) -> None:
        super().__init__(_Handler)
        self.judge = judge
        self.asked: list[Asked] = []
        self.state: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def last(self) -> Asked:
        """The last request."""
        return self.asked[-1]


@contextmanager
def running(judge: Callable[[VectorServer, Asked], Reply]) -> Iterator[VectorServer]:
    """Run a server."""
    with VectorServer(judge) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


def answer(folder: str, model: str, kind: str = "text/event-stream") -> Reply:
    """Return what the vector ``model`` of ``folder`` says, as a stream; raises `Refused` 404 without one."""
    name = model.removeprefix("cut:")
    path = VECTORS / folder / f"{name}.json"
    if "/" in name or not path.exists():
        raise Refused(404, {"error": {"message": f"The model '{model}' does not exist", "code": 404}})
    body = octets(json.loads(path.read_text("utf-8")), "input")
    if body.lstrip()[:1] in (b"{", b"["):
        kind = "application/json"
    return Reply(body, kind, whole=False, cut=model.startswith("cut:"))
