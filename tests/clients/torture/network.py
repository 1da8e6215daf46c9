"""A network that breaks to the byte: a relay to a gateway, a loop in a thread of its own, and a provider.

A path that begins with a number, ``/17/stream?…``, belongs to that run: the number is taken off on the
way, and the run's next `Cut` is made in its answer. What follows an upgrade is carried as it is, and counts
as the answer. Other paths are files for a browser. In every answer ``retry: 1000`` becomes ``retry: 0100``,
a tenth of a second in as many bytes, so that nobody waits long.
"""

import asyncio
import re
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import trustme

from tests.clients.torture.provider import Provider

HEAD = -1
LINGER = 0.05
"""Seconds between the last byte and the cut, so that the client has seen what came (a busy one may not)."""
RST = struct.pack("ii", 1, 0)
REQUEST = re.compile(rb"(GET|POST) (?:/(\d+))?(/\S*) HTTP/1\.1\r\n")
WINDOW = re.compile(rb"\nid: \S+\n\Z")
UPGRADE = re.compile(rb"\r\nupgrade: *websocket\r\n", re.IGNORECASE)
CURSOR = re.compile(rb"last-?event-?id[:=]", re.IGNORECASE)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
}


class Cut(NamedTuple):
    """After ``offset`` bytes that follow the ``event``-th event, or the start of the answer for `HEAD`.

    Event 0 is preceded by the head alone. ``kind``: ``rst`` or ``fin``. ``at_once``: with no time to see
    the last bytes.
    """

    event: int
    offset: int
    kind: str
    at_once: bool = False


@dataclass
class Answer:
    """What came to one request, up to the cut. ``fate``: what became of its connection."""

    run: "Run"
    cut: Cut | None = None
    data: bytearray = field(default_factory=bytearray)
    fate: str = "open"


@dataclass
class Run:
    """One reader on its way through cuts. ``made``: the cuts so far, each with the bytes before it."""

    plan: list[Cut] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    made: list[tuple[Cut, bytes]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    gate: asyncio.Event | None = None

    @property
    def statuses(self) -> list[int]:
        """Of the answers whose status arrived."""
        return [int(answer.data[9:12]) for answer in self.answers if len(answer.data) >= 12]

    @property
    def story(self) -> list[str]:
        """What became of each request: for whoever must find out why a reader hangs."""
        gate = [] if self.gate is None else ["the gate is open" if self.gate.is_set() else "the gate is shut"]
        return gate + [
            f"{one.data[9:12].decode()}: {len(one.data)} bytes, {one.fate}" for one in self.answers
        ]

    @property
    def anew(self) -> int:
        """How many times the reader asked again without a cursor, as if it had never asked."""
        return sum(not CURSOR.search(head) for head in self.requests[1:])

    @property
    def in_window(self) -> int:
        """How many cuts fell between the end of an id's line and the blank line after it."""
        return sum(bool(WINDOW.search(before)) for _, before in self.made)


class Network:
    """See the module's head. It listens at ``url``, and with TLS at ``secure_urls``, as many as ``ports``:
    a browser opens six connections to each."""

    def __init__(self, files: Path | None = None, ports: int = 0) -> None:
        self.provider = Provider()
        self.runs: dict[int, Run] = {}
        self.target: tuple[str | None, int | None] = ("", 0)
        self.files = files.resolve() if files else None
        self.loop = asyncio.new_event_loop()
        self.url = ""
        self.secure_urls: list[str] = []
        self._ports = ports
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self.loop.run_forever)

    def lead_to(self, gateway: str) -> None:
        """Relay to the gateway at this URL from now on."""
        url = urlsplit(gateway)
        self.target = (url.hostname, url.port)

    def call(self, coroutine: Coroutine) -> Any:
        """Run something on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def plan(self, number: int, cuts: Sequence[Cut], *, asked: str = "", unended: str = "") -> Run:
        """Make ``cuts`` in the next answers of this run.

        ``asked``: the provider says nothing to it until the run's second request is being answered.
        ``unended``: it says everything but the end.
        """
        run = self.runs[number] = Run(list(cuts))
        if asked:
            run.gate = self.provider.gates[asked] = asyncio.Event()
        if unended:
            run.gate = self.provider.exits[unended] = asyncio.Event()
        return run

    def start(self) -> None:
        self._thread.start()
        self.call(self._listen())

    def stop(self) -> None:
        self.call(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _listen(self) -> None:
        await self.provider.start()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
        self.url = f"http://127.0.0.1:{await self._open(None)}"
        self.secure_urls = [f"https://127.0.0.1:{await self._open(tls)}" for _ in range(self._ports)]

    async def _open(self, tls: ssl.SSLContext | None) -> int:
        server = await self.loop.create_server(
            lambda: _FromClient(self), "127.0.0.1", 0, backlog=1024, ssl=tls
        )
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        self.provider.stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close a turn later


class _FromClient(asyncio.Protocol):
    """A client's connection; its requests come one after another."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._head = bytearray()
        self._reading_head = True
        self._waiting: list[bytes] = []
        self._gateway: asyncio.Transport | None = None
        self._connecting: asyncio.Task | None = None
        self._answer = Answer(Run())
        self._upgraded = False
        self._broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client: asyncio.Transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._broken:
            self._answer.fate = "left by the client"
        self._broken = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._gateway is not None:
            self._gateway.abort()

    def data_received(self, data: bytes) -> None:
        if self._broken:  # a request behind a whole answer whose connection is about to be lost
            return
        if not self._reading_head and self._answer.data and not self._upgraded:  # the next request
            self._reading_head = True
        if not self._reading_head:
            self._send(data)
            return
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        head, self._head = bytes(self._head), bytearray()
        self._reading_head = False
        found = REQUEST.match(head)
        if found is None or found[2] is None:
            self._answer = Answer(Run())
            self._serve_file(found[3].decode() if found else "/")
            return
        run = self._network.runs.setdefault(int(found[2]), Run())
        self._answer = Answer(run, run.plan.pop(0) if run.plan else None)
        run.requests.append(head)
        run.answers.append(self._answer)
        self._upgraded = UPGRADE.search(head) is not None
        self._send(b"%b %b HTTP/1.1\r\n%b" % (found[1], found[3], head[found.end() :]))

    def _serve_file(self, path: str) -> None:
        self._answer.data += b"."
        file = self._network.files and (self._network.files / urlsplit(path).path.lstrip("/")).resolve()
        if file and not file.suffix:
            file = file.with_suffix(".js")
        if file and file.is_relative_to(self._network.files) and file.is_file() and file.suffix in TYPES:
            body, status, kind = file.read_bytes(), "200 OK", TYPES[file.suffix]
        else:
            body, status, kind = b"", "404 Not Found", "text/plain"
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._client.write(head.encode() + body)

    def _send(self, data: bytes) -> None:
        if self._gateway is not None:
            self._gateway.write(data)
            return
        self._waiting.append(data)
        if self._connecting is None:
            self._connecting = self._network.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            transport, _ = await self._network.loop.create_connection(
                lambda: _FromGateway(self), *self._network.target
            )
        except OSError:
            self._client.abort()
            return
        self._gateway = transport
        for data in self._waiting:
            transport.write(data)

    def deliver(self, data: bytes) -> None:
        """Pass on what the gateway sent, up to the cut."""
        if self._broken:
            return
        answer = self._answer
        if answer.run.gate is not None and len(answer.run.requests) > 1:
            answer.run.gate.set()
        data = data.replace(b"retry: 1000\n", b"retry: 0100\n")
        before = len(answer.data)
        answer.data += data
        at = _place(answer.data, answer.cut) if answer.cut is not None else None
        if at is not None and at <= len(answer.data):
            self._break(at, data[: at - before])
            return
        self._client.write(data)

    def _break(self, at: int, last: bytes) -> None:
        answer, self._broken = self._answer, True
        assert answer.cut is not None
        del answer.data[at:]
        answer.fate = f"cut by {answer.cut.kind}"
        self._client.write(last)
        if self._gateway is not None:
            _end(self._gateway, answer.cut.kind)
        self._network.loop.call_later(0 if answer.cut.at_once else LINGER, self._lose, answer)

    def _lose(self, answer: Answer) -> None:
        assert answer.cut is not None
        answer.run.made.append((answer.cut, bytes(answer.data[-80:])))
        _end(self._client, answer.cut.kind)

    def gateway_lost(self, exc: Exception | None) -> None:
        """The gateway closed, or cut, the connection: so do we, in the same way."""
        if self._broken:
            return
        self._broken = True
        self._answer.fate = "ended by the gateway" if exc is None else "lost by the gateway"
        if exc is None:
            self._client.close()
        else:
            self._client.abort()


class _FromGateway(asyncio.Protocol):
    """The connection that carries on to the gateway what a client's brings."""

    def __init__(self, client: _FromClient) -> None:
        self.data_received = client.deliver
        self.connection_lost = client.gateway_lost


def _end(transport: asyncio.Transport, kind: str) -> None:
    """End a connection: with all that was written, or with a reset."""
    if transport.is_closing():
        return
    if kind == "fin":
        transport.close()
        return
    with suppress(OSError):  # it has ended already
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    transport.abort()


def _place(answer: bytearray, cut: Cut) -> int | None:
    """Return where the cut is in the answer, as far as that is known."""
    if cut.event == HEAD:
        return cut.offset
    at = answer.find(b"\r\n\r\n")
    at = at + 4 if at >= 0 else -1
    for _ in range(cut.event):
        if at < 0:
            return None
        found = answer.find(b"\n\n", at)
        at = found + 2 if found >= 0 else -1
    return at + cut.offset if at >= 0 else None


@contextmanager
def networking(files: Path | None = None, ports: int = 0) -> Iterator[Network]:
    """Run a network."""
    network = Network(files, ports)
    network.start()
    try:
        yield network
    finally:
        network.stop()
