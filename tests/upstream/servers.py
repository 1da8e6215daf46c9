"""Servers to be a client of: real ones (nginx, Node, uvicorn), a proxy, and one that does what it is told.

`serve` runs a function per connection in the test's own loop; that function holds the `Peer` and may
answer well, badly, late or never. The real servers run in processes of their own. Each fixture's
server listens on a free port of 127.0.0.1 and is gone when its context ends.
"""

import asyncio
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from penstock.types.errors import UpstreamError
from penstock.upstream.http1 import Exchange, Origin, Request

HERE = Path(__file__).parent
PATIENCE = 10.0  # seconds after which a test that waits for something fails


class Recorder:
    """A sink that writes down what it is told, and minds the rules of being told."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.reads: list[bytes] = []
        self.calls: list[str] = []
        self.on_call: Callable[[str], None] = lambda name: None
        self._heard = asyncio.Event()
        self._outcome: asyncio.Future[UpstreamError | None] = asyncio.get_running_loop().create_future()

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        assert self.calls == []
        self.status, self.headers = status, headers
        self._called("head")

    def on_body(self, data: bytes) -> None:
        assert self.calls
        assert self.calls[-1] in ("head", "body")
        assert type(data) is bytes
        assert data
        self.reads.append(data)
        self._called("body")

    def on_end(self) -> None:
        assert self.calls
        assert not self._outcome.done()
        self._outcome.set_result(None)
        self._called("end")

    def on_error(self, error: UpstreamError) -> None:
        assert not self._outcome.done()
        self._outcome.set_result(error)
        self._called("error")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self._heard.set()
        self.on_call(name)

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    @property
    def ended(self) -> bool:
        return self._outcome.done()

    async def wait_for(self, condition: Callable[["Recorder"], object]) -> None:
        """Wait until ``condition`` holds; it is asked after each call."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self._heard.clear()
                await self._heard.wait()

    async def end(self) -> "Recorder":
        """Wait for the whole response. Raises the `UpstreamError` that ended it."""
        async with asyncio.timeout(PATIENCE):
            error = await asyncio.shield(self._outcome)
        if error is not None:
            raise error
        return self

    async def error(self) -> UpstreamError:
        """Wait for the failure of the response, and return it."""
        async with asyncio.timeout(PATIENCE):
            error = await asyncio.shield(self._outcome)
        assert error is not None, "the response is whole"
        return error


class Received(NamedTuple):
    """A request as a server got it. Header names are in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of one connection. ``number`` counts the server's connections from 0."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    async def request(self) -> Received:
        """Read one request."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Received(line, headers, body)

    async def send(self, *pieces: bytes) -> None:
        """Send the pieces, each in a segment of its own that the client has had the time to read."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await turns()

    async def answer(self, body: bytes = b"ok", *, fields: str = "", status: str = "200 OK") -> None:
        """Read a request and answer it."""
        await self.request()
        await self.send(response(body, fields=fields, status=status))

    def reset(self) -> None:
        """Close the connection with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def cut(self) -> None:
        """Close the TCP connection, below TLS if there is any."""
        self.writer.transport.abort()

    def close(self) -> None:
        """Close the connection in good order."""
        self.writer.close()

    async def wait_gone(self) -> bytes:
        """Wait until the client has closed; return what it sent before."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


Handler = Callable[[Peer], Awaitable[None]]


def response(body: bytes = b"ok", *, fields: str = "", status: str = "200 OK") -> bytes:
    """Return a whole response with its length."""
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*chunks: bytes) -> bytes:
    """Return the chunks and the end, as on the wire."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


async def turns(count: int = 4) -> None:
    """Let the loop turn: what is in a local socket is read meanwhile."""
    for _ in range(count):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(0.001)


class Served:
    """A running `serve`. ``peers`` are the connections that came; ``failures`` what handlers raised."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.peers: list[Peer] = []
        self.handlers: list[asyncio.Task[None]] = []
        self.stop: Callable[[], None] = lambda: None  # listen no more

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        *,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Request:
        return Request(method, self.origin, target, headers, body)

    async def settle(self) -> None:
        """Wait until every handler has ended; raises what one raised."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self.handlers)


@asynccontextmanager
async def serve(
    handler: Handler,
    *,
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    name: str = "",
    limit: int = 2**16,
) -> AsyncIterator[Served]:
    """Run ``handler`` for each connection. ``name`` is the host in the origin, if not the address."""
    served: Served

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(len(served.peers), reader, writer)
        served.peers.append(peer)
        served.handlers.append(asyncio.get_running_loop().create_task(run(peer)))

    async def run(peer: Peer) -> None:
        # The client leaving is what many tests are about.
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await handler(peer)

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A client that leaves in the handshake is part of what is tested.
        if context["message"] != "Error on transport creation for incoming connection":
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(report)
    server = await asyncio.start_server(accept, host, 0, ssl=context, limit=limit)
    port = server.sockets[0].getsockname()[1]
    served = Served(Origin("https" if context else "http", name or host, port))
    served.stop = server.close
    try:
        yield served
    finally:
        server.close()
        await turns()  # what was accepted a moment ago comes here late
        for task in served.handlers:
            task.cancel()
        await asyncio.gather(*served.handlers, return_exceptions=True)
        for peer in served.peers:
            peer.writer.transport.abort()
        for peer in served.peers:
            with suppress(OSError, ssl.SSLError):
                await peer.writer.wait_closed()
        await server.wait_closed()
        await turns()


def client_sockets(port: int) -> int:
    """Count this process's sockets whose other end is ``port`` of 127.0.0.1, in any state."""
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            inodes.add(os.readlink(f"/proc/self/fd/{name}").removeprefix("socket:[").removesuffix("]"))
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        count += int(fields[2].split(":")[1], 16) == port and fields[9] in inodes
    return count


@contextmanager
def full_backlog() -> Iterator[Origin]:
    """A port that accepts nothing more: connecting to it hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        try:
            while True:
                filler = socket.socket()
                fillers.append(filler)
                filler.settimeout(0.1)
                try:
                    filler.connect(("127.0.0.1", port))
                except TimeoutError:
                    break
            yield Origin("http", "127.0.0.1", port)
        finally:
            for filler in fillers:
                filler.close()


class ProxyLog(NamedTuple):
    """What a `forward_proxy` was asked: the first line and the headers of each request."""

    origin: Origin
    requests: list[Received]


@asynccontextmanager
async def forward_proxy(
    addresses: Mapping[str, int],
    *,
    context: ssl.SSLContext | None = None,
    refuse: str = "",
    name: str = "",
) -> AsyncIterator[ProxyLog]:
    """A forward proxy: tunnels by CONNECT, and plain requests with an absolute target.

    ``addresses`` are the names it knows, with their ports on 127.0.0.1, so clients cannot have
    resolved them. ``refuse`` is the status line's end with which it refuses everybody.
    """
    requests: list[Received] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        with suppress(OSError, NotImplementedError):
            if writer.can_write_eof():
                writer.write_eof()
            else:
                writer.close()

    async def handle(peer: Peer) -> None:
        request = await peer.request()
        requests.append(request)
        if refuse:
            await peer.send(f"HTTP/1.1 {refuse}\r\nContent-Length: 0\r\n\r\n".encode())
            peer.close()
            return
        method, target, _ = request.line.split(" ")
        host = target.split("://")[-1].split("/")[0].rpartition(":")[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", addresses[host])
        try:
            if method == "CONNECT":
                await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = "/" + target.split("://")[-1].split("/", 1)[1]
                fields = "".join(f"{k}: {v}\r\n" for k, v in request.headers.items() if k[:6] != "proxy-")
                writer.write(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + request.body)
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(peer.reader, writer))
                group.create_task(pump(reader, peer.writer))
        finally:
            writer.transport.abort()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async with serve(handle, context=context, name=name) as served:
        yield ProxyLog(served.origin, requests)


def _executable(name: str, *places: str) -> str:
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    if path is None:
        raise RuntimeError(f"{name} is not installed, and tests of the upstream client need it")
    return path


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server did not start: {process.args}")
        time.sleep(0.02)


@contextmanager
def _process(port: int, *command: str) -> Iterator[int]:
    process = subprocess.Popen(command, cwd=HERE.parent.parent, stdin=subprocess.DEVNULL)
    try:
        _wait_until_listening(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def node() -> Iterator[int]:
    """Node's http server with the routes of ``node_server.mjs``; yields its port."""
    port = free_port()
    with _process(port, _executable("node"), str(HERE / "node_server.mjs"), str(port)):
        yield port


@contextmanager
def uvicorn() -> Iterator[int]:
    """uvicorn with the application of ``asgi_server.py``; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--port", str(port)]
    with _process(port, *command, "--app-dir", str(HERE), "asgi_server:app"):
        yield port


class Nginx(NamedTuple):
    """Ports of a running nginx: plain, and TLS with the certificate it was given."""

    plain: int
    tls: int


NGINX_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        keepalive_requests 3;
        client_max_body_size 1m;
        location = /echo {{ return 200 "$http_host $http_accept_encoding $request_method"; }}
        location = /gone {{ return 204; }}
        location = /limited {{ return 429 "slow down"; add_header Retry-After 7 always; }}
        location /packed/ {{
            alias {folder}/files/;
            gzip on;
            gzip_min_length 1;
            gzip_types *;
        }}
        location /files/ {{ alias {folder}/files/; }}
        location /node/ {{
            proxy_pass http://127.0.0.1:{node}/;
            proxy_http_version 1.1;
            proxy_buffering off;
        }}
        location /node10/ {{
            proxy_pass http://127.0.0.1:{node}/;
            proxy_buffering off;
            chunked_transfer_encoding off;
        }}
    }}
}}
"""


@contextmanager
def nginx(
    folder: Path, files: Mapping[str, bytes], certificate: Path, key: Path, node: int
) -> Iterator[Nginx]:
    """nginx with keep-alive, gzip, TLS, and Node's server behind it."""
    (folder / "files").mkdir()
    for name, content in files.items():
        (folder / "files" / name).write_bytes(content)
    ports = Nginx(free_port(), free_port())
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(
            folder=folder, certificate=certificate, key=key, node=node, plain=ports.plain, tls=ports.tls
        )
    )
    command = [_executable("nginx", "/usr/sbin", "/usr/local/sbin"), "-c", str(configuration)]
    with _process(ports.plain, *command, "-e", str(folder / "start.log")):
        yield ports


async def finish(exchange: Exchange, sink: Recorder) -> Recorder:
    """Wait for the end of a response, and abort the exchange whatever happens."""
    try:
        return await sink.end()
    finally:
        exchange.abort()
