"""A gateway that serves while it is fuzzed: whatever bytes come over its socket, none is an answer of 500,
an exception that somebody only logged, a connection that hangs, or a stream that is left.

It is the whole thing: our HTTP and WebSocket protocols, the application and the core, on a real socket of
this machine. One is built for many inputs, and anew after `REBUILD`, since streams and publications stay.
"""

import asyncio
import logging
import random
import re
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import msgspec
from structlog.testing import capture_logs
from websockets.frames import Frame, Opcode

from penstock.assembly.system import assemble
from penstock.server.context import ServerSettings
from penstock.server.profiling import ProfilerDesk
from tests.server.conftest import Running, config, running
from tests.server.raw import eventually
from tests.vectors import random_pieces

REBUILD: Final = 2_000
PATIENCE: Final = 8.0
"""Seconds in which a connection is answered or closed."""

QUIET: Final = 0.02
"""Seconds without a byte after which an answer that goes on is left: who follows a stream may wait."""

MAX_PIECES: Final = 12


class _Errors(logging.Handler):
    """What libraries only log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage() + (f" {record.exc_info[1]!r}" if record.exc_info else ""))


class Served:
    """See the module's head. Nothing is built before the first input."""

    def __init__(self) -> None:
        """One for a target."""
        self._runner: asyncio.Runner | None = None
        self._around = AsyncExitStack()
        self._gateway: Running
        self._errors = _Errors()
        self._tried = 0

    def answer(self, data: bytes) -> bytes:
        """Send ``data``, end our side, and return all that comes back."""
        if self._tried >= REBUILD:
            self.close()
        if self._runner is None:
            self._open()
        assert self._runner is not None
        self._tried += 1
        with capture_logs() as logs:
            got = self._runner.run(self._exchange(data))
        crashed = [line for line in logs if line["log_level"] in ("error", "critical")]
        said, self._errors.said = [*self._errors.said], []
        assert not crashed, crashed
        assert not said, said
        return got

    def close(self) -> None:
        """Stop, once everything has ended. Raises where something is left."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        self._tried = 0
        try:
            runner.run(self._leave())
        finally:
            runner.close()
            for name in ("asyncio", "uvicorn.error"):
                logging.getLogger(name).removeHandler(self._errors)

    def _open(self) -> None:
        settings = config(providers={"demo": {"kind": "scripted", "speed": 0}})
        system = assemble(settings, {"OLLAMA_HOST": "127.0.0.1:1"})  # outside of the loop: it reads files
        bounds = ServerSettings(long_poll=0.01, body_timeout=1.0, auth_timeout=1.0, max_body_bytes=1 << 20)
        system.context.settings = bounds
        system.context.append_bounds = msgspec.structs.replace(bounds, max_body_bytes=1 << 16)
        system.context.profiler = ProfilerDesk(None)  # it takes its time
        for name in ("asyncio", "uvicorn.error"):
            logging.getLogger(name).addHandler(self._errors)
        self._runner = asyncio.Runner()
        self._gateway = self._runner.run(self._around.enter_async_context(running(system, settings)))

    async def _leave(self) -> None:
        gateway = self._gateway
        try:
            await eventually(lambda: not gateway.system.gateway.open_streams, PATIENCE)
            await eventually(lambda: not gateway.server._state.connections, PATIENCE)
        finally:
            await self._around.aclose()

    async def _exchange(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port, limit=1 << 20)
        try:
            rng = random.Random(len(data))
            pieces = random_pieces(data, rng) if rng.random() < 0.5 else [data]
            if len(pieces) > MAX_PIECES:
                pieces = [*pieces[:MAX_PIECES], b"".join(pieces[MAX_PIECES:])]
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            with suppress(OSError):  # it is closed already
                writer.write_eof()
            return await _answered(reader)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)


async def _answered(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the end, or until nothing comes any more. Raises where nothing ever came."""
    got = b""
    try:
        while True:
            # The first byte must come; what follows is an answer's own time.
            whole = b"\r\n\r\n" in got and not got.endswith(b"100 Continue\r\n\r\n")
            async with asyncio.timeout(QUIET if whole else PATIENCE):
                data = await reader.read(1 << 16)
            if not data:
                return got
            got = (got + data)[: 1 << 20]
    except TimeoutError:
        assert whole, f"neither answered nor closed: {got[:200]!r}"
        return got
    except ConnectionError:
        return got


def http_outcome(got: bytes) -> object:
    """Return what kind of answers these are; none may be our own failure."""
    statuses = [int(one) for one in re.findall(rb"HTTP/1\.1 (\d\d\d) ", got)]
    assert 500 not in statuses, got[:2_000]
    assert b"internal_error" not in got, got[:2_000]
    return tuple(statuses[:3]), tuple(re.findall(rb'"code":"([a-z_]{1,40})"', got)[:3])


UPGRADE: Final = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def websocket_outcome(got: bytes) -> object:
    """Return what kinds of messages these are, and how it closed; none may be our own failure."""
    if not got:
        return "reset"
    assert got.startswith(b"HTTP/1.1 101 "), got[:200]
    frames = got.partition(b"\r\n\r\n")[2]
    assert b"internal_error" not in frames, frames[:2_000]
    closed = re.search(rb"\x88.(..)", frames, re.DOTALL)
    code = int.from_bytes(closed[1]) if closed else 0
    assert code != 1011, frames[:2_000]
    kinds = sorted({*re.findall(rb'"(?:type|code)":"([a-z_]{1,40})"', frames)})
    return tuple(kinds), code


def message(text: bytes, *, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> bytes:
    """Return a client's frame, masked with zeros, so that a fuzzer finds the text in it."""
    bare = Frame(opcode, text, fin).serialize(mask=False)
    length = 2 + {126: 2, 127: 8}.get(bare[1], 0)
    return bytes((bare[0], bare[1] | 0x80)) + bare[2:length] + bytes(4) + text


def requests() -> list[bytes]:
    """Return good requests of many kinds, each a connection's."""
    said: list[dict[str, Any]] = [{"role": "user", "content": "one two"}]
    chat = {"model": "demo-echo", "messages": said, "stream": True}
    part = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "one two"}]}
    contents = {"contents": [{"role": "user", "parts": [{"text": "one two"}]}]}
    stream = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
    bodies: dict[str, Any] = {
        "/v1/streams": {"request": chat, "metadata": {"a": "b"}, "ttl_s": 60},
        "/v1/streams/cancel": {},
        "/v1/chat/completions": chat,
        "/v1/completions": {"model": "demo-echo", "prompt": "one", "stream": True},
        "/v1/responses": {"model": "demo-echo", "input": "one", "metadata": {"k": "v"}},
        "/v1/messages": {**chat, "max_tokens": 9},
        "/v1beta/models/demo-echo:streamGenerateContent?alt=sse": contents,
        "/api/chat": chat,
        "/ui/chat": {"id": "c", "messages": [part]},
        "/v1/tokens": {"user": "u", "models": ["demo-*"], "ttl_s": 60},
        "/v1/embeddings": {"model": "demo-echo", "input": "x"},
        f"/v1/streams/{stream}/links": {"scope": "read", "ttl_s": 60},
    }
    made = [_request("POST", path, msgspec.json.encode(body)) for path, body in bodies.items()]
    made += [
        _request("GET", path)
        for path in (
            "/",
            "/stream?content=one%20two&model=demo-echo&format=chars&key=k",
            f"/v1/streams/{stream}/events?after={stream}~0000000000000001&token=read.1.x",
            "/v1/streams?limit=10&status=open",
            "/v1/stream/logs/app?offset=-1&live=long-poll&cursor=1",
            "/v1/models/demo-echo",
            "/v1/admin/usage?by=key&since=2026-01-01",
            "/v1/presets/none?content=x&variables=y",
            "/ui/chat/c/stream",
            "/ui/../../etc/passwd",
            "/metrics",
            "/v1/files/x/content",
        )
    ]
    put = _request("PUT", "/v1/stream/logs/app", b"one", "Content-Type: text/plain", "Stream-TTL: 60")
    append = _request("POST", "/v1/stream/logs/app", b"two", "Content-Type: text/plain", "Stream-Seq: 1")
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo-echo\r\n--x--\r\n'
    chunked = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n10;ext=1\r\n"
        b'{"model":"demo-e\r\n1b\r\ncho","messages":[{"role":"us\r\n17\r\ner","content":"one"}]}  \r\n'
        b"0\r\nx: y\r\n\r\n"
    )
    return [
        *made,
        put + append,
        _request("POST", "/v1/audio/transcriptions", form, "Content-Type: multipart/form-data; boundary=x"),
        _request("OPTIONS", "/v1/streams", b"", "Origin: https://a.example", "Idempotency-Key: k"),
        _request(
            "GET", "/healthz", b"", "Accept-Encoding: gzip", "X-Request-ID: r", "Authorization: Bearer x"
        ),
        chunked,
        UPGRADE + message(b'{"type":"ping"}'),
    ]


def _request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        if not any(header.startswith("Content-Type") for header in headers):
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
