"""An upstream, in several dialects, that sends each token at its time, and says so where it could not.

One timer wheel serves all streams: a timerfd ticks every 250 µs (an event loop's own timers count in whole
milliseconds, which would send the tokens of fifty streams in one burst), and what is due is written straight
to its socket. The schedule is absolute and open: a stream that was late, or whose socket was full, catches
up, so that a slow receiver shows as latency and never thins out the load.

Each content chunk carries the CLOCK_MONOTONIC time of its writing (`"content":"t=0000123456789012 "`); a
receiver on the same machine subtracts. `GET /stats` tells how late the sends themselves were.

What must not enter: anything that costs per token and is not needed for it.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import random
import signal
import ssl
import time
from time import monotonic_ns
from typing import Any, Generic, Protocol, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

from bench.histogram import Histogram
from bench.speech import DIGITS, SPEECHES, TEXT, Speech, chat

TICK_NS = 250_000
WHEEL_SLOTS = 8192  # of one tick each: a horizon of 2 s
MIN_RATE = 1.0  # chunks a second; a slower stream would not fit the wheel
JITTER_OFFSETS = 4096
MAX_TOKENS = 1_000_000
DEFAULT_TOKENS = 500
MAX_BODY = 1 << 20
MODEL = "bench"
IDLE_MODEL = "bench-idle"

HEAD = (
    "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncache-control: no-cache\r\n"
    "x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
ROUTES = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "messages",
    "/v1/responses": "responses",
    "/api/chat": "ollama",
    f"/v1beta/models/{MODEL}:streamGenerateContent": "gemini",
}


def framed(data: str) -> bytes:
    """Return the text as one chunk of HTTP's chunked coding."""
    encoded = data.encode()
    return b"%x\r\n%b\r\n" % (len(encoded), encoded)


def content_frame(token: str) -> tuple[bytes, bytes]:
    """Return what stands before and after the 16 digits of the time, HTTP's framing included."""
    before, mark, after = framed(token).partition(TEXT.encode())
    return before + mark[:2], mark[2 + len(DIGITS) :] + after


def asked_tokens(request: dict[str, Any]) -> Any:
    """Return how many tokens a request wants, wherever its dialect says it."""
    places = (request, request.get("generationConfig") or {}, request.get("options") or {})
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxOutputTokens", "num_predict")
    return next((place[name] for place in places for name in names if place.get(name)), None)


def jitter_offsets(interval_ns: int, seed: int) -> list[int]:
    """Return offsets within ±10 % of the interval: gaps then differ by up to ±20 %, and nothing drifts."""
    draw = random.Random(seed)
    return [round(draw.uniform(-0.1, 0.1) * interval_ns) for _ in range(JITTER_OFFSETS)]


class HasDueTime(Protocol):
    """What a wheel holds."""

    due_ns: int


Item = TypeVar("Item", bound=HasDueTime)


class Wheel(Generic[Item]):
    """Items by the tick in which they are due; adding one and taking it cost the same among thousands.

    What is due further ahead than the horizon (slots × tick) is the caller's mistake and would come early.
    """

    def __init__(self, now_ns: int, *, slots: int = WHEEL_SLOTS, tick_ns: int = TICK_NS) -> None:
        self._slots: list[list[Item]] = [[] for _ in range(slots)]
        self._tick_ns = tick_ns
        self._next = now_ns // tick_ns  # the first tick that was not taken yet

    def __repr__(self) -> str:
        return f"<Wheel holding {sum(map(len, self._slots))} items>"

    def add(self, item: Item) -> None:
        tick = item.due_ns // self._tick_ns
        if tick < self._next:
            tick = self._next
        self._slots[tick % len(self._slots)].append(item)

    def take(self, now_ns: int) -> list[Item]:
        """Remove and return the items of all ticks that are over."""
        due: list[Item] = []
        end = now_ns // self._tick_ns
        count = len(self._slots)
        for tick in range(max(self._next, end - count), end):
            slot = self._slots[tick % count]
            if slot:
                due += slot
                slot.clear()
        self._next = max(self._next, end)
        return due


class Ticker:
    """A timerfd that makes the loop call `on_tick` every `interval_ns` while it is armed."""

    class _Spec(ctypes.Structure):
        _fields_ = [
            ("interval_s", ctypes.c_long),
            ("interval_ns", ctypes.c_long),
            ("value_s", ctypes.c_long),
            ("value_ns", ctypes.c_long),
        ]

    def __init__(self, interval_ns: int) -> None:
        # Python has os.timerfd_create from 3.13 on.
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._interval_ns = interval_ns
        self.armed = False

    def arm(self, armed: bool) -> None:
        interval = self._interval_ns if armed else 0
        spec = self._Spec(0, interval, 0, interval)
        if self._libc.timerfd_settime(self.fd, 0, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self.armed = armed

    def acknowledge(self) -> None:
        os.read(self.fd, 8)


class PacedStream:
    """One answer: where it goes, where in its schedule it stands, and the constant parts of its chunks."""

    __slots__ = ("_after", "_before", "_fd", "_transport", "due_ns", "sent", "start_ns", "tokens")

    def __init__(
        self, transport: asyncio.Transport, fd: int, tokens: int, frame: tuple[bytes, bytes]
    ) -> None:
        self._transport = transport
        self._fd = fd  # -1 where only the transport may write: TLS
        self._before, self._after = frame
        self.tokens = tokens
        self.sent = 0
        self.start_ns = 0
        self.due_ns = 0

    def send_token(self, now_ns: int) -> None:
        data = b"%b%016d%b" % (self._before, now_ns, self._after)
        self.sent += 1
        if self._fd < 0 or self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        # Not transport.write: uvloop would write at the end of the tick, long after the time was taken.
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:  # reset by the peer, which the transport is about to report
            return
        if written < len(data):
            self._transport.write(data[written:])


class Upstream:
    """All streams of the process, their wheel and what is known about their punctuality."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, rate: float, tokens: int, seed: int, idle_s: float
    ) -> None:
        self._loop = loop
        self._interval_ns = round(1e9 / rate)
        self._offsets = jitter_offsets(self._interval_ns, seed)
        self._draw = random.Random(seed)
        self._wheel: Wheel[PacedStream] = Wheel(monotonic_ns())
        self._ticker = Ticker(TICK_NS)
        self._owners: dict[PacedStream, Connection] = {}
        self.default_tokens = tokens
        self.idle_s = idle_s
        self.lateness = Histogram()
        self.tokens_sent = 0
        self.streams_opened = 0
        self.idle_streams = 0
        loop.add_reader(self._ticker.fd, self._on_tick)

    def start(self, stream: PacedStream, owner: Connection) -> None:
        """Begin a schedule at a random phase of the interval."""
        self._owners[stream] = owner
        stream.start_ns = monotonic_ns() + round(self._draw.random() * self._interval_ns)
        stream.due_ns = stream.start_ns
        self._wheel.add(stream)
        if not self._ticker.armed:
            self._ticker.arm(True)

    def forget(self, stream: PacedStream) -> None:
        """Drop a stream whose client left; the wheel lets go of it when its next token would be due."""
        self._owners.pop(stream, None)

    def _on_tick(self) -> None:
        self._ticker.acknowledge()
        owners = self._owners
        offsets = self._offsets
        for stream in self._wheel.take(monotonic_ns()):
            if stream not in owners:
                continue
            now = monotonic_ns()
            stream.send_token(now)
            self.lateness.record(now - stream.due_ns)
            self.tokens_sent += 1
            if stream.sent < stream.tokens:
                # Each stream enters the table at a place of its own (its start's low bits are random).
                offset = offsets[(stream.sent + stream.start_ns) % JITTER_OFFSETS]
                stream.due_ns = stream.start_ns + stream.sent * self._interval_ns + offset
                self._wheel.add(stream)
            else:
                owners.pop(stream).finish()
        if not owners:
            self._ticker.arm(False)

    def statistics(self) -> dict[str, Any]:
        return {
            "streams_open": len(self._owners) + self.idle_streams,
            "streams_opened": self.streams_opened,
            "tokens_sent": self.tokens_sent,
            "lateness_ms": self.lateness.summary(),
            "cpu_s": time.process_time(),
        }


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: requests one after the other, at most one stream at a time."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self._upstream = upstream
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._stream: PacedStream | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._said: Speech | None = None
        self._fd = -1
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._upstream.forget(self._stream)
        if self._idle is not None:
            self._end_idle()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # our own mistake
        except httptools.HttpParserError:
            self._answer(400, {"error": {"message": "not HTTP"}})
            self.transport.close()

    # httptools

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        if sum(map(len, self._body)) > MAX_BODY:
            self.transport.abort()

    def on_message_complete(self) -> None:
        url = urlsplit(self._url)
        match self._parser.get_method(), url.path:
            case b"POST", path if dialect := ROUTES.get(path.decode("ascii", "replace")):
                self._complete(dialect)
            case b"GET", b"/v1/models":
                models = [
                    {"id": name, "object": "model", "owned_by": "bench"} for name in (MODEL, IDLE_MODEL)
                ]
                self._answer(200, {"object": "list", "data": models})
            case b"GET", b"/stats":
                self._answer(200, self._upstream.statistics())
                if parse_qs(url.query).get(b"reset"):
                    self._upstream.lateness = Histogram()
            case _:
                self._answer(404, {"error": {"message": "no such route"}})

    # answers

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        self.transport.write(head.encode() + data)

    def _complete(self, dialect: str) -> None:
        try:
            request = json.loads(b"".join(self._body))
            tokens = int(asked_tokens(request) or self._upstream.default_tokens)
            stream = dialect == "gemini" or request.get("stream")  # there the path says it
            usage = dialect != "chat" or bool((request.get("stream_options") or {}).get("include_usage"))
            model = request.get("model")
        except (ValueError, AttributeError, TypeError):
            self._answer(400, {"error": {"message": "not a chat request", "type": "invalid_request_error"}})
            return
        if stream is not True or not 1 <= tokens <= MAX_TOKENS:
            self._answer(400, {"error": {"message": "streams only", "type": "invalid_request_error"}})
            return
        if self._stream is not None or self._idle is not None:
            self.transport.abort()  # a pipelined request while a stream is running
            return
        self._upstream.streams_opened += 1
        answer, created = f"chatcmpl-{self._upstream.streams_opened:024d}", int(time.time())
        sent = 1 if model == IDLE_MODEL else tokens
        said = SPEECHES[dialect](answer, created, sent)
        if not usage:
            said = chat(answer, created, sent, usage=False)
        self._said = said
        self.transport.write((HEAD % said.media_type).encode() + framed(said.opening))
        frame = content_frame(said.token)
        if model == IDLE_MODEL:
            PacedStream(self.transport, -1, 1, frame).send_token(monotonic_ns())
            self._upstream.idle_streams += 1
            self._idle = self._loop.call_later(self._upstream.idle_s, self.finish)
        else:
            self._stream = PacedStream(self.transport, self._fd, tokens, frame)
            self._upstream.start(self._stream, self)

    def _end_idle(self) -> None:
        assert self._idle is not None
        self._idle.cancel()
        self._idle = None
        self._upstream.idle_streams -= 1

    def finish(self) -> None:
        """Send what follows the last token; the connection stays open for the next request."""
        self._stream = None
        if self._idle is not None:
            self._end_idle()
        assert self._said is not None
        self.transport.write(framed(self._said.ending) + b"0\r\n\r\n")


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    upstream = Upstream(
        loop, rate=options.rate, tokens=options.tokens, seed=options.seed, idle_s=options.idle_seconds
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def accept() -> Connection:
        return Connection(upstream, loop)

    servers = [await loop.create_server(accept, options.host, options.port, backlog=4096)]
    if options.tls_port:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        servers.append(
            await loop.create_server(accept, options.host, options.tls_port, ssl=context, backlog=4096)
        )
    print("ready", flush=True)
    # A collection would stop all streams at once; nothing here makes cycles per token.
    gc.collect()
    gc.freeze()
    gc.disable()
    await stop.wait()
    for server in servers:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=19001)
    parser.add_argument("--tls-port", type=int, default=0, help="also serve TLS here")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--rate", type=float, default=50.0, help="chunks a second of each stream")
    parser.add_argument("--tokens", type=int, default=DEFAULT_TOKENS, help="per stream, where not asked for")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--idle-seconds", type=float, default=60.0, help=f"silence of model {IDLE_MODEL}")
    options = parser.parse_args()
    if options.rate < MIN_RATE:
        parser.error(f"--rate must be at least {MIN_RATE:g}")
    if options.tls_port and not (options.tls_cert and options.tls_key):
        parser.error("--tls-port needs --tls-cert and --tls-key")
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
