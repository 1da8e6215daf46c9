"""The load: many streaming requests at once, each token's journey measured on arrival.

N connections are opened evenly over a ramp; after a warm-up a window of fixed length is measured. A token
belongs to the window by the time it was *sent*, so that one which waits in a queue is counted whenever it
comes, with all of its waiting. Every stream must bring all its tokens, in order, its end mark and the end of
its body; what is missing is told, never averaged away.

Prints one line of JSON before the load starts (the plan: when the window opens and closes, in CLOCK_MONOTONIC
nanoseconds, so that the harness can read the processes' CPU at these moments) and one with the result.
With `--hold`, opens silent streams, says `held` once each has its first token, and keeps them open.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
from collections import Counter
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

from bench.histogram import Histogram

MAX_HEAD = 64 << 10
MARK = b"t="  # stands before the time in each token's text
DIGITS = 16
MAX_FAILURES_TOLD = 5
SYSTEM = "You are a patient teacher."
PROMPT = (
    "Explain in plain words how a lock on a canal lifts a boat, what the gates, the chamber and the sluices "
    "do, in which order the keeper works them, and why the water itself does the lifting."
)


@dataclass(frozen=True)
class Client:
    """How a client of one dialect asks, and how it knows an answer's end.

    ``again``: what stands before the whole text, where an answer says it once more at its end.
    """

    path: str
    end: bytes
    media_type: bytes = b"text/event-stream"
    event_end: bytes = b"\n\n"
    again: bytes = b""

    def body(self, name: str, model: str, tokens: int) -> dict[str, Any]:
        """Return the request of the client ``name`` for an answer of so many tokens."""
        asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
        user = asked[1:]
        match name:
            case "messages":
                more = {"max_tokens": tokens, "stream": True}
                return {"model": model, "system": SYSTEM, "messages": user, **more}
            case "responses":
                more = {"max_output_tokens": tokens, "stream": True}
                return {"model": model, "instructions": SYSTEM, "input": user, **more}
            case "gemini":
                contents = [{"role": "user", "parts": [{"text": PROMPT}]}]
                system = {"parts": [{"text": SYSTEM}]}
                options = {"generationConfig": {"maxOutputTokens": tokens}}
                return {"contents": contents, "systemInstruction": system, **options}
            case "ollama":
                return {"model": model, "messages": asked, "options": {"num_predict": tokens}}
            case "ui":
                parts = [{"type": "text", "text": PROMPT}]
                page = {"id": "", "messages": [{"id": "m1", "role": "user", "parts": parts}]}
                return {**page, "model": model, "system": SYSTEM, "maxOutputTokens": tokens}
        counted = {"stream_options": {"include_usage": True}, "max_tokens": tokens}
        body = {"model": model, "messages": asked, "stream": True, **counted}
        return {"dialect": "openai_chat", "request": body} if name == "native" else body


CLIENTS: Final = {
    "chat": Client("/v1/chat/completions", b"data: [DONE]"),
    "native": Client("/v1/streams", b"event: done"),
    "messages": Client("/v1/messages", b"event: message_stop"),
    "responses": Client(
        "/v1/responses", b"event: response.completed", again=b"event: response.output_text.done"
    ),
    "gemini": Client("/v1beta/models/{model}:streamGenerateContent?alt=sse", b'"finishReason":"STOP"'),
    "ollama": Client("/api/chat", b'"done":true', b"application/x-ndjson", b"\n"),
    "ui": Client("/ui/chat", b"data: [DONE]"),
}


class ReplyError(Exception):
    """The reply breaks HTTP's or SSE's framing, or says that the request failed."""


class ReplyParser:
    """The cheapest exact reader of one chunked reply of server-sent events, or of lines; sans-I/O.

    `feed` takes what arrived and returns the times of sending of the tokens in it. `done` says that the
    stream's last event was seen, `ended` that the body ended as it should.
    """

    __slots__ = (
        "_client",
        "_event",
        "_event_end",
        "_head_read",
        "_read_again",
        "_rest",
        "done",
        "ended",
        "status",
    )

    def __init__(self, client: Client = CLIENTS["chat"]) -> None:
        self._client = client
        self._event_end = client.event_end
        self._head_read = False
        self._read_again = False  # the whole text has begun
        self._rest = b""  # bytes of an unfinished head or HTTP chunk
        self._event = b""  # an unfinished event
        self.status = 0
        self.done = False
        self.ended = False

    def __repr__(self) -> str:
        return f"<ReplyParser status={self.status} done={self.done} ended={self.ended}>"

    def feed(self, data: bytes) -> list[int]:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position = 0
        if not self._head_read:
            position = self._read_head(data)
            if not position:
                return []
        size = len(data)
        times: list[int] = []
        while position < size:
            eol = data.find(b"\r\n", position)
            if eol < 0:
                break
            start = eol + 2
            try:
                end = start + int(data[position:eol], 16)
            except ValueError:
                raise ReplyError(f"not a chunk size: {data[position:eol][:40]!r}") from None
            if end + 2 > size:
                break
            if data[end : end + 2] != b"\r\n":
                raise ReplyError("a chunk without its end")
            if end == start:
                if self._event:
                    raise ReplyError(f"the body ended within an event: {self._event[:80]!r}")
                self.ended = True
            elif self._event or not data.endswith(self._event_end, start, end):
                self._read_events(self._event + data[start:end], times)
            else:
                self._read_times(data[start:end], times)
            position = end + 2
        self._rest = data[position:]
        return times

    def _read_head(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > MAX_HEAD:
                raise ReplyError("the head is too long")
            self._rest = data
            return 0
        head = data[:end].lower()
        self.status = int(head[9:12])
        if self.status != 200:
            raise ReplyError(f"status {self.status}: {data[end + 4 : end + 204].decode(errors='replace')}")
        if (
            b"transfer-encoding: chunked" not in head
            or b"content-type: %b" % self._client.media_type not in head
        ):
            raise ReplyError("not a chunked stream of this kind")
        self._head_read = True
        return end + 4

    def _read_events(self, data: bytes, times: list[int]) -> None:
        mark = self._event_end
        end = data.rfind(mark) + len(mark)
        if end < len(mark):
            self._event = data
        else:
            self._event = data[end:]
            self._read_times(data[:end], times)

    def _read_times(self, events: bytes, times: list[int]) -> None:
        client = self._client
        if client.end in events:
            self.done = True
        if client.again and (end := events.find(client.again)) >= 0:
            events = events[:end]
            self._read_again = True
        elif self._read_again:
            return
        found = events.find(MARK)
        while found >= 0:
            start = found + len(MARK)
            digits = events[start : start + DIGITS]
            if digits.isdigit():
                times.append(int(digits))
            found = events.find(MARK, start)


@dataclass(frozen=True)
class Plan:
    """When what happens, in CLOCK_MONOTONIC nanoseconds."""

    streams: int
    interval_ns: int
    start_ns: int
    ramp_ns: int
    window_start_ns: int
    window_end_ns: int
    tokens: int  # of each stream

    @classmethod
    def of(cls, *, streams: int, rate: float, ramp_s: float, warmup_s: float, seconds: float) -> Plan:
        """Lay out a run whose first streams end only after the window, the last ones soon after that."""
        start = monotonic_ns() + 300_000_000
        window = start + round((ramp_s + warmup_s) * 1e9)
        return cls(
            streams=streams,
            interval_ns=round(1e9 / rate),
            start_ns=start,
            ramp_ns=round(ramp_s * 1e9),
            window_start_ns=window,
            window_end_ns=window + round(seconds * 1e9),
            tokens=round((ramp_s + warmup_s + seconds + 0.5) * rate),
        )

    @property
    def limit_ns(self) -> int:
        """Return when to stop waiting: half as long again as the streams should take, and 15 s."""
        return self.start_ns + self.ramp_ns + round(self.tokens * self.interval_ns * 1.5) + 15_000_000_000


@dataclass(frozen=True)
class Target:
    """Where the requests go and what they say."""

    host: str
    port: int
    path: str
    client: str
    model: str
    key: str | None

    def request(self, tokens: int) -> bytes:
        """Return the bytes of one request, ids included where the route asks for them."""
        body = CLIENTS[self.client].body(self.client, self.model, tokens)
        data = json.dumps(body).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        accepted = "text/event-stream" if self.client == "native" else "application/json"
        head += f"Accept: {accepted}\r\n"
        if self.key:
            head += f"Authorization: Bearer {self.key}\r\n"
        return head.encode() + b"\r\n" + data


class Run:
    """The figures of all streams together; one object, so that a token costs few look-ups."""

    def __init__(self, plan: Plan, target: Target, tokens: int) -> None:
        self.plan = plan
        self.client = CLIENTS[target.client]
        self.request = target.request(tokens)
        self.latency = Histogram()
        self.first_chunk = Histogram()
        self.gaps = 0  # tokens that came before an older one
        self.received = 0
        self.relayed_in_window = 0
        self.reads_in_window = 0
        self.opened = 0
        self.begun = 0
        self.completed = 0
        self.closed = 0
        self.failures: Counter[str] = Counter()
        self.lateness: list[float] = []  # of each completed stream's last token, as a share of its duration
        self.on_begun = asyncio.Event()
        self.on_closed = asyncio.Event()

    def result(self) -> dict[str, Any]:
        plan = self.plan
        late = sorted(self.lateness)
        return {
            "streams": plan.streams,
            "completed": self.completed,
            "failures": dict(self.failures.most_common(MAX_FAILURES_TOLD)),
            "tokens_expected": plan.streams * plan.tokens,
            "tokens_received": self.received,
            "tokens_out_of_order": self.gaps,
            "window_s": (plan.window_end_ns - plan.window_start_ns) / 1e9,
            "window_tokens": self.relayed_in_window,
            "window_reads": self.reads_in_window,
            "latency": self.latency.to_json(),
            "latency_ms": self.latency.summary(),
            "first_chunk": self.first_chunk.to_json(),
            "first_chunk_ms": self.first_chunk.summary(),
            "last_token_late": {
                "median": late[len(late) // 2] if late else None,
                "max": late[-1] if late else None,
            },
        }


class Stream(asyncio.Protocol):
    """One request and its answer."""

    __slots__ = ("_asked_ns", "_last", "_parser", "_received", "_run", "_transport")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._parser = ReplyParser(run.client)
        self._received = 0
        self._last = 0
        self._asked_ns = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._run.opened += 1
        self._asked_ns = monotonic_ns()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        run = self._run
        try:
            times = self._parser.feed(data)
        except ReplyError as error:
            self._fail(str(error))
            return
        opens, closes = run.plan.window_start_ns, run.plan.window_end_ns
        for sent in times:
            if opens <= sent < closes:
                run.latency.record(now - sent)
            if sent <= self._last:
                run.gaps += 1
            self._last = sent
        if times:
            count = len(times)
            if not self._received:
                run.first_chunk.record(now - self._asked_ns)
                run.begun += 1
                if run.begun == run.plan.streams:
                    run.on_begun.set()
            self._received += count
            if opens <= now < closes:
                run.relayed_in_window += count
                run.reads_in_window += 1
            if self._received == run.plan.tokens:
                ideal = run.plan.tokens * run.plan.interval_ns
                run.lateness.append((now - self._asked_ns) / ideal - 1)
        if self._parser.ended and self._transport is not None:
            self._transport.close()

    def _fail(self, reason: str) -> None:
        self._run.failures[reason] += 1
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        run = self._run
        run.received += self._received
        if self._parser.done and self._parser.ended and self._received == run.plan.tokens:
            run.completed += 1
        elif not self._parser.done:
            run.failures[f"closed before the end ({exc or 'no reason'})"] += 1
        elif not self._parser.ended:
            run.failures["the body did not end"] += 1
        else:
            run.failures["tokens are missing"] += 1
        run.closed += 1
        if run.closed == run.plan.streams:
            run.on_closed.set()


async def open_streams(run: Run, target: Target) -> list[asyncio.BaseTransport]:
    """Open the connections evenly over the ramp; one that is refused counts as a failed stream."""
    loop = asyncio.get_running_loop()
    plan = run.plan
    transports: list[asyncio.BaseTransport] = []
    for number in range(plan.streams):
        due = plan.start_ns + plan.ramp_ns * number // plan.streams
        if (wait := due - monotonic_ns()) > 0:
            await asyncio.sleep(wait / 1e9)
        try:
            transport, _ = await loop.create_connection(lambda: Stream(run), target.host, target.port)
        except OSError as error:
            run.failures[f"could not connect: {error}"] += 1
            run.closed += 1
            continue
        transports.append(transport)
    return transports


def tell(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


async def load(options: argparse.Namespace, target: Target) -> None:
    plan = Plan.of(
        streams=options.streams,
        rate=options.rate,
        ramp_s=options.ramp,
        warmup_s=options.warmup,
        seconds=options.seconds,
    )
    run = Run(plan, target, plan.tokens)
    tell({"window_start_ns": plan.window_start_ns, "window_end_ns": plan.window_end_ns})
    transports = await open_streams(run, target)
    if monotonic_ns() > plan.window_start_ns:
        run.failures["the streams were not all open when the window began"] += 1
    try:
        async with asyncio.timeout((plan.limit_ns - monotonic_ns()) / 1e9):
            await run.on_closed.wait()
    except TimeoutError:
        run.failures["streams were still open long after their time"] += plan.streams - run.closed
        for transport in transports:
            transport.close()
        await asyncio.sleep(0.1)
    tell(run.result())


async def hold(options: argparse.Namespace, target: Target) -> None:
    plan = Plan.of(streams=options.streams, rate=options.rate, ramp_s=options.ramp, warmup_s=0, seconds=0)
    run = Run(plan, target, 1)
    transports = await open_streams(run, target)
    try:
        async with asyncio.timeout(15):
            await run.on_begun.wait()
    except TimeoutError:
        run.failures["streams without a first token"] += plan.streams - run.begun
    tell({"held": run.begun, "failures": dict(run.failures)})
    await asyncio.sleep(options.hold)
    tell({"still_open": len(transports) - run.closed})
    for transport in transports:
        transport.close()
    await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:19001/v1/chat/completions")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50.0, help="the upstream's, in chunks a second")
    parser.add_argument("--ramp", type=float, default=2.0, help="seconds over which the streams are opened")
    parser.add_argument("--warmup", type=float, default=1.5, help="seconds between the ramp and the window")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the window")
    parser.add_argument("--hold", type=float, default=0.0, help="keep silent streams open, in seconds")
    parser.add_argument("--client", choices=CLIENTS, default="chat", help="whose dialect is spoken")
    parser.add_argument("--model", default="bench")
    parser.add_argument("--key")
    options = parser.parse_args()
    url = urlsplit(options.url)
    target = Target(
        host=url.hostname or "127.0.0.1",
        port=url.port or 80,
        path=f"{url.path}?{url.query}" if url.query else url.path,
        client=options.client,
        model=options.model,
        key=options.key,
    )
    gc.disable()
    uvloop.run(hold(options, target) if options.hold else load(options, target))


if __name__ == "__main__":
    main()
