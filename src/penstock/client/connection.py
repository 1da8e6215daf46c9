"""A gateway, for a client that comes back: start, follow, cancel, list.

`Connection.start` and `Connection.follow` give one stream's events in order, each once, whatever happens
to the network in between: a lost connection is followed by another that goes on after the last cursor,
and the caller is only told (`Lost`, `Back`). A generation is created with an idempotency key, so that a
request whose answer never came can be sent again without paying twice. They end with the stream's end,
or raise `Refused` or `Unreachable`. Events come by SSE, or by another `Carrier` (`penstock.client.sockets`);
all else is HTTP. Nothing here prints, and nothing knows of terminals.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import httpx
import msgspec

from penstock import __version__
from penstock.client.addresses import Address, is_loopback
from penstock.client.credentials import Bearer, Credential
from penstock.types.errors import WireError
from penstock.types.positions import is_stream_id
from penstock.wire.sse import SseDecoder, SseFrame

USER_AGENT: Final = f"penstock/{__version__}"

CONNECT_TIMEOUT: Final = 10.0
ANSWER_TIMEOUT: Final = 30.0
"""Seconds until the head of a response that is no stream, and until each piece of its body."""

FIRST_SILENCE: Final = 60.0
"""Seconds without a byte after which a connection counts as lost, until the stream says how often its
heartbeat comes; after that it is `SILENT_BEATS` of them and a little more."""

SILENT_BEATS: Final = 3
SILENCE_MARGIN: Final = 5.0
MAX_BODY: Final = 32 << 20
"""Bytes of a response that is no stream."""

MAX_ERROR_BODY: Final = 64 << 10
MAX_DELAY: Final = 8.0
MAX_ASKED_DELAY: Final = 60.0
"""Seconds that a gateway may ask to be left alone."""

_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_AGAIN: Final = frozenset({"idempotency_key_in_use", "storage_unavailable"})

T = TypeVar("T")


class Received(NamedTuple):
    """One event. ``cursor`` is the position after it."""

    event: str
    data: bytes
    cursor: str


class Lost(NamedTuple):
    """The connection was lost; the next try comes in ``delay`` seconds."""

    attempt: int
    delay: float
    why: str


class Back(NamedTuple):
    """The connection is there again."""


Happening: TypeAlias = Received | Lost | Back


class Failed(Exception):
    """Base of what this client raises because of a gateway, or for want of one; ``code`` says what."""

    code: str


class Refused(Failed):
    """The gateway answered, and said no; ``message`` is its own sentence."""

    def __init__(
        self, status: int, code: str, message: str, retry_after: str = "", *, retryable: bool = False
    ) -> None:
        """As an error response says it (docs/protocol.md, section Errors)."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.retryable = retryable

    @property
    def delay(self) -> float:
        """Seconds that are asked for before another try; within bounds, 0 for a date."""
        text = self.retry_after
        return min(float(text), MAX_ASKED_DELAY) if text.replace(".", "", 1).isdecimal() else 0.0

    @property
    def passes(self) -> bool:
        """Whether the same request may well be served in a moment."""
        return self.status in _PASSING or self.code in _AGAIN or self.retryable


class Unreachable(Failed):
    """No connection, or none any more. ``cursor`` says how far the stream was read, if at all."""

    code = "unreachable"

    def __init__(self, base: str, why: str, cursor: str = "") -> None:
        """``why`` is one of this module's own phrases."""
        super().__init__(f"{base}: {why}")
        self.base = base
        self.why = why
        self.cursor = cursor


class Broken(Exception):
    """One connection came to nothing. ``sent``: the request may have arrived. ``after``: seconds before
    which there should be no other."""

    def __init__(self, why: str, *, sent: bool, after: float = 0.0) -> None:
        """``why`` is one of ours."""
        super().__init__(why)
        self.why = why
        self.sent = sent
        self.after = after


class Ask(NamedTuple):
    """What is wanted of one connection: a generation, created from ``body`` (that of ``POST
    /v1/streams``) under ``key``; or, without one, ``stream`` after the cursor ``after``."""

    body: Mapping[str, Any] | None = None
    key: str = ""
    stream: str = ""
    after: str = ""
    dialect: str = ""


class Carrier(Protocol):
    """A way by which events come, other than SSE."""

    def events(self, ask: Ask) -> AsyncGenerator["Received", None]:
        """Yield what one connection carries. Raises `Refused`, `Broken`, and `Unanswered` where another
        way has to be taken."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class Unanswered(Exception):
    """What was asked has no answer by this carrier; it has one by SSE."""


class Reply(NamedTuple):
    """An answer that is no stream; ``headers`` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Model(msgspec.Struct, frozen=True):
    """A model that can be asked for."""

    id: str
    owned_by: str = ""
    description: str = ""


class _Models(msgspec.Struct, frozen=True):
    data: list[Model]


class Ended(msgspec.Struct, frozen=True):
    """What a cancel answers."""

    id: str
    status: str
    cursor: str = ""


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: str | None = None


class _ErrorBody(msgspec.Struct, frozen=True):
    error: _Error


class _Opening(msgspec.Struct, frozen=True):
    heartbeat: float = 0.0


def backoff(attempt: int) -> float:
    """Return how long to wait before the try number ``attempt``, from 1: exponential, with full jitter."""
    return random.uniform(0.05, min(MAX_DELAY, 0.25 * 2 ** min(attempt, 10)))


class Connection:
    """A client of one gateway; used as an async context manager."""

    def __init__(
        self,
        address: Address,
        *,
        patience: float = 120.0,
        wait: Callable[[int], float] = backoff,
        credential: Credential | None = None,
        carrier: Carrier | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``patience``: seconds for which a lost gateway is looked for. ``wait``: see `backoff`.

        ``credential`` stands for the address's key. ``carrier`` brings events instead of SSE. ``headers`` are
        sent with each request. ``tls`` says whom to trust, and what to show.
        """
        self.address = address
        self.patience = patience
        self.wait = wait
        self._carrier = carrier
        loopback = is_loopback(address.base)
        self._http = httpx.AsyncClient(
            base_url=address.base,
            headers={"user-agent": USER_AGENT, **(headers or {})},
            auth=Bearer(credential or Credential(address.key)),
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
            trust_env=not loopback,  # a proxy does not lead to this machine
            verify=tls or address.base.startswith("https:"),  # without it, no certificates are loaded
        )

    async def __aenter__(self) -> Self:
        """Nothing is opened before it is needed."""
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what is open."""
        if self._carrier is not None:
            await self._carrier.aclose()
        await self._http.aclose()

    async def models(self) -> list[Model]:
        """Return the models that can be asked for. Raises `Refused`, `Unreachable`."""
        return (await self.call("GET", "/v1/models", _Models)).data

    async def snapshot(self, stream: str) -> dict[str, Any]:
        """Return a stream's state and its text so far. Raises `Refused`, `Unreachable`."""
        return await self.call("GET", f"/v1/streams/{stream}", dict[str, Any])

    async def explain(self, stream: str) -> Reply:
        """Return the explanation of a stream, as the gateway gives it. Raises `Refused`, `Unreachable`."""
        return await self.ask("GET", f"/v1/streams/{stream}/explanation")

    async def cancel(self, stream: str) -> Ended:
        """Stop a generation. Raises `Refused`, `Unreachable`."""
        return await self.call("POST", f"/v1/streams/{stream}/cancel", Ended)

    async def cancel_by_key(self, key: str) -> Ended:
        """Stop a generation whose stream is not known yet. Raises `Refused`, `Unreachable`."""
        return await self.call("POST", "/v1/streams/cancel", Ended, headers={"idempotency-key": key})

    async def start(self, body: Mapping[str, Any], key: str) -> AsyncGenerator[Happening, None]:
        """Create a generation under the idempotency key ``key`` and follow it to its end.

        ``body`` is that of ``POST /v1/streams``. Raises `Refused` when it is not taken, `Unreachable`.
        """
        async with aclosing(self._follow(Ask(body, key))) as happenings:
            async for happening in happenings:
                yield happening

    async def follow(
        self, stream: str, after: str = "0", dialect: str = ""
    ) -> AsyncGenerator[Happening, None]:
        """Read ``stream`` after a cursor (or ``now``), to its end. Raises `Refused`, `Unreachable`."""
        async with aclosing(self._follow(Ask(None, "", stream, after, dialect))) as happenings:
            async for happening in happenings:
                yield happening

    def _request(self, ask: Ask) -> httpx.Request:
        if ask.body is not None:
            content = msgspec.json.encode(ask.body)
            headers = {"content-type": "application/json", "idempotency-key": ask.key}
            return self._http.build_request("POST", "/v1/streams", content=content, headers=headers)
        # By `after`, a read at the end of a closed stream gives its end again, and no 204.
        given = {"after": ask.after, "dialect": ask.dialect, "token": self.address.token}
        query = {name: value for name, value in given.items() if value}
        path = f"/v1/streams/{ask.stream}/events"
        return self._http.build_request("GET", path, params=query, headers={"accept": "text/event-stream"})

    async def _follow(self, ask: Ask) -> AsyncGenerator[Happening, None]:
        """Ask, and ask for what follows on what came, until the stream has ended."""
        clock = asyncio.get_running_loop().time
        attempt, seen, cursor = 0, clock(), ""
        while True:
            after = 0.0
            try:
                async with aclosing(self._carried(ask)) as events:
                    async for received in events:
                        if attempt:
                            yield Back()
                        attempt, seen = 0, clock()
                        if received.event != "stream" and received.cursor and received.cursor <= cursor:
                            continue  # had already
                        _raise_passing(received)
                        cursor = received.cursor or cursor
                        yield received
                        if is_end(received, ask.dialect):
                            return
                why = "the connection ended before the answer did"
            except Broken as broken:
                if not (broken.sent or cursor or attempt):
                    raise Unreachable(self.address.base, broken.why) from None
                why, after = broken.why, broken.after
            except Refused as refused:
                if not (refused.passes and (cursor or attempt)):
                    raise
                why, after = refused.message, refused.delay
            if clock() - seen > self.patience:
                raise Unreachable(self.address.base, why, cursor)
            if cursor:
                ask = Ask(None, "", cursor.partition("~")[0], cursor, ask.dialect)
            attempt += 1
            delay = max(self.wait(attempt), after)
            yield Lost(attempt, delay, why)
            await asyncio.sleep(delay)

    async def _carried(self, ask: Ask) -> AsyncGenerator[Received, None]:
        """Yield what one connection carries, by whichever way there is. Raises `Refused`, `Broken`."""
        if self._carrier is not None:
            try:
                async with aclosing(self._carrier.events(ask)) as events:
                    async for received in events:
                        yield received
                return
            except Unanswered:
                pass
        async with aclosing(self._events(self._request(ask))) as events:
            async for received in events:
                yield received

    async def _events(self, request: httpx.Request) -> AsyncGenerator[Received, None]:
        """Yield what one response carries. Raises `Refused`, `Broken`."""
        decoder = SseDecoder()
        silence = FIRST_SILENCE
        async with self._response(request) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise _no_gateway(response)
            pieces = response.aiter_raw()
            while True:
                try:
                    async with asyncio.timeout(silence):
                        frames = decoder.feed(await anext(pieces))
                except StopAsyncIteration:
                    return  # a block without its blank line may be cut short: it comes again
                except TimeoutError:
                    raise Broken(f"nothing came for {silence:.0f} s", sent=True) from None
                except WireError:
                    raise Broken("what came is no event stream", sent=True) from None
                for frame in frames:
                    if frame.event == b"stream" and (beat := _heartbeat(frame)):
                        silence = SILENT_BEATS * beat + SILENCE_MARGIN
                    yield Received(frame.event.decode("utf-8", "replace"), frame.data, _id(frame))

    @asynccontextmanager
    async def _response(self, request: httpx.Request) -> AsyncGenerator[httpx.Response, None]:
        """Send ``request``; the body is the caller's to read. Raises `Refused`, `Broken`."""
        response: httpx.Response | None = None
        request.extensions["timeout"] = httpx.Timeout(
            ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT, read=None
        ).as_dict()
        try:
            async with asyncio.timeout(FIRST_SILENCE):
                response = await self._http.send(request, stream=True)
            if response.status_code >= 300:
                raise await _refusal(response)
            yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Broken(_why(error), sent=False) from None
        except TimeoutError:
            raise Broken("it did not answer in time", sent=True) from None
        except httpx.TransportError:
            raise Broken("the connection was lost", sent=True) from None
        finally:
            if response is not None:
                await response.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        on_lost: Callable[[Lost], None] | None = None,
        insist: bool = False,
    ) -> Reply:
        """Make a request that may be repeated, and repeat it until it is answered, within the patience.

        ``insist``: the gateway was there, so one that is not at the first try is waited for as well.
        ``on_lost`` hears of each try that came to nothing. Raises `Refused`, `Unreachable`.
        """
        clock = asyncio.get_running_loop().time
        attempt, began = 0, clock()
        while True:
            request = self._http.build_request(
                method, path, content=content or None, headers=headers, params=query
            )
            try:
                async with self._response(request) as response:
                    body = await _bounded(response, MAX_BODY)
                    return Reply(response.status_code, response.headers, body)
            except Broken as broken:
                if not (broken.sent or attempt or insist):
                    raise Unreachable(self.address.base, broken.why) from None
                why = broken.why
            except Refused as refused:
                if not refused.passes:
                    raise
                why = refused.message
            if clock() - began > self.patience:
                raise Unreachable(self.address.base, why)
            attempt += 1
            lost = Lost(attempt, self.wait(attempt), why)
            if on_lost is not None:
                on_lost(lost)
            await asyncio.sleep(lost.delay)

    async def watch(self, path: str) -> AsyncGenerator[Happening, None]:
        """Yield the events of a feed without an end; it begins anew after a lost connection.

        Raises `Refused`, and `Unreachable` when it was never there, or not for as long as the patience.
        """
        clock = asyncio.get_running_loop().time
        attempt, seen, there = 0, clock(), False
        while True:
            request = self._http.build_request("GET", path, headers={"accept": "text/event-stream"})
            try:
                async with aclosing(self._events(request)) as events:
                    async for received in events:
                        if attempt:
                            yield Back()
                        attempt, seen, there = 0, clock(), True
                        yield received
                why = "the connection ended"
            except Broken as broken:
                if not there:
                    raise Unreachable(self.address.base, broken.why) from None
                why = broken.why
            except Refused as refused:
                if not (refused.passes and there):
                    raise
                why = refused.message
            if clock() - seen > self.patience:
                raise Unreachable(self.address.base, why)
            attempt += 1
            lost = Lost(attempt, self.wait(attempt), why)
            yield lost
            await asyncio.sleep(lost.delay)

    async def fetch(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, patience: float
    ) -> bytes:
        """Return one answer that may take ``patience`` seconds to begin. Raises `Refused`, `Unreachable`."""
        timeout = httpx.Timeout(patience, connect=CONNECT_TIMEOUT)
        request = self._http.build_request(method, path, params=query, timeout=timeout)
        try:
            async with self._response(request) as response:
                return await _bounded(response, MAX_BODY)
        except Broken as broken:
            raise Unreachable(self.address.base, broken.why) from None

    async def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> T:
        """Return one JSON answer as ``kind``. Raises `Refused`, `Unreachable`."""
        given = {**(query or {}), **({"token": self.address.token} if self.address.token else {})}
        request = self._http.build_request(method, path, params=given, headers=headers, json=body)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT), self._response(request) as response:
                found = await _bounded(response, MAX_BODY)
                try:
                    return msgspec.json.decode(found, type=kind)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise _no_gateway(response) from None
        except Broken as broken:
            raise Unreachable(self.address.base, broken.why) from None
        except TimeoutError:
            raise Unreachable(self.address.base, "it did not answer in time") from None


def is_end(received: Received, dialect: str = "") -> bool:
    """Say whether nothing follows this event."""
    if dialect == "openai_chat":
        return received.data == b"[DONE]" or received.data.startswith(b'{"error":')
    return received.event in ("done", "fail")


def _raise_passing(received: Received) -> None:
    """A ``fail`` that is no entry ends this read, and not the stream: what passes is tried again."""
    if received.event != "fail":
        return
    failure = _decoded(received.data, _ReadFailure)
    if failure is not None and failure.n == 0 and failure.retryable:
        raise Broken(failure.message, sent=True)


class _ReadFailure(msgspec.Struct, frozen=True):
    n: int = 0
    retryable: bool = False
    message: str = ""


def _decoded(data: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _heartbeat(frame: SseFrame) -> float:
    opening = _decoded(frame.data, _Opening)
    return opening.heartbeat if opening else 0.0


def _id(frame: SseFrame) -> str:
    """Return the event's cursor; empty for an id that is none, which nothing could be resumed from."""
    text = frame.id.decode("ascii", "replace")
    return text if is_stream_id(text.partition("~")[0]) else ""


async def _bounded(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > limit:
            raise _no_gateway(response)
    return bytes(body)


async def _refusal(response: httpx.Response) -> Refused:
    body = b""
    if response.status_code >= 400:
        with suppress(TimeoutError, Refused):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                body = await _bounded(response, MAX_ERROR_BODY)
    return refusal_of(response.status_code, response.headers, body)


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """Return what a response says that is no success; ``headers`` know their names in lower case."""
    if status < 400:
        to = headers.get("location", "elsewhere")[:200]
        return Refused(status, "", f"The gateway is at another address: it sends us to {to}.")
    found = _decoded(body, _ErrorBody)
    after = headers.get("retry-after", "")
    if found is None or not found.error.message:
        return Refused(status, "", f"It answered with HTTP {status}, and not as a gateway does.", after)
    return Refused(status, found.error.code or "", found.error.message, after)


def _no_gateway(response: httpx.Response) -> Refused:
    message = "There is a server, but it does not answer as a Penstock gateway does."
    return Refused(response.status_code, "", message)


def _why(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "connecting took too long"
    if "certificate" in str(error).lower() or "ssl" in str(error).lower():
        return "no secure connection could be made"
    if "name" in str(error).lower() and "known" in str(error).lower():
        return "there is no host of that name"
    return "nobody listens there"
