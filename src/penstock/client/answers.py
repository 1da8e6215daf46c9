"""The client that programs use: generations started, read to their end whatever the network does, stopped.

`AsyncClient` is one gateway, `Answer` one stream that is read: entries in order, each once, over as many
connections as it takes (`penstock.client.connection`), and checked against the stream's own digests where
it was read from its start. Nothing is asked before an answer is awaited or iterated. Without ``await`` it is
`penstock.client.blocking`.
"""

import secrets
import ssl
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import msgspec

from penstock.client.addresses import DEFAULT_URL, Address, address_of
from penstock.client.automatic import Automatic
from penstock.client.connection import (
    Ask,
    Back,
    Connection,
    Ended,
    Failed,
    Happening,
    Lost,
    Model,
    Refused,
    Unreachable,
    backoff,
)
from penstock.client.credentials import Credential, Token
from penstock.client.live import Live
from penstock.client.sockets import Sockets
from penstock.types.events import AnyEvent, Closed, TextDelta, UsageReported
from penstock.wire.verification import Verdict, Verifier

Transport: TypeAlias = Literal["sse", "websocket", "auto"]

Listener: TypeAlias = Callable[[Lost | Back], None]
"""Told when the connection of an answer is lost, and when it is there again."""


class Entry(NamedTuple):
    """One entry of a stream: what happened, the ``cursor`` after it, and its record, byte for byte."""

    event: AnyEvent
    cursor: str
    record: bytes


class NotWhole(Failed):
    """What was read is not what was stored; ``verdict`` says what was found."""

    code = "not_whole"

    def __init__(self, verdict: Verdict) -> None:
        """Its first problem is the sentence."""
        super().__init__(verdict.problems[0])
        self.verdict = verdict


class NotCompleted(Failed):
    """The generation ended in another way than by its model; ``end`` is its terminal entry."""

    def __init__(self, end: Closed) -> None:
        """The sentence is the gateway's own."""
        super().__init__(end.message or f"The generation ended as {end.status}.")
        self.end = end
        self.code = end.code or end.status
        """Why: a code of docs/protocol.md, or the status."""


class Listed(msgspec.Struct, frozen=True):
    """A stream, as it is listed."""

    id: str
    status: str
    model: str = ""
    route: str = ""
    created_at: int = 0
    closed_at: int | None = None
    expires_at: int | None = None
    entries: int = 0
    metadata: dict[str, str] | None = None


class _Page(msgspec.Struct, frozen=True):
    data: list[Listed]
    has_more: bool = False


class Link(msgspec.Struct, frozen=True):
    """A signed link: whoever has it may do this one thing with this one stream."""

    token: str
    scope: str
    expires_at: float
    url: str


class _Deleted(msgspec.Struct, frozen=True):
    deleted: bool


class Answer:
    """One stream, read once. Iterate it for entries, or `text` for its text; or await `end`.

    Who leaves an iteration may go on with another. It holds a connection from the first entry to the last:
    who may not come back uses it as an async context manager, or calls `aclose`.

    Who would rather be called sets ``on_open``, ``on_message``, ``on_close`` and ``on_error`` before; they
    are called as it is read, in whichever of these ways.
    """

    def __init__(
        self,
        connection: Connection,
        happenings: AsyncGenerator[Happening, None],
        *,
        key: str = "",
        stream: str = "",
        whole: bool,
        listener: Listener | None,
    ) -> None:
        """Made by `AsyncClient`. ``whole``: it is read from its start, so all of it can be checked."""
        self.on_open: Callable[[str], None] | None = None
        """A connection is there, at first and after each loss: called with the stream."""
        self.on_message: Callable[[Entry], None] | None = None
        self.on_close: Callable[[Closed | None], None] | None = None
        """Nothing is read any more: called with the end, or None where that did not come."""
        self.on_error: Callable[[Exception], None] | None = None
        """Reading failed; the error is raised as well."""
        self.stream = stream
        self.cursor = ""
        self.usage: UsageReported | None = None
        self.closed: Closed | None = None
        self._pieces: list[str] = []
        self._connection = connection
        self._happenings = happenings
        self._key = key
        self._listener = listener
        self._verifier = Verifier() if whole else None
        self._position = 0
        self._entries = self._read()

    def __repr__(self) -> str:
        """Say which stream, and how it ended if it did."""
        return f"<Answer {self.stream or 'of no stream yet'} {self.closed.status if self.closed else 'open'}>"

    async def __aenter__(self) -> Self:
        """Nothing is asked before something is read."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Read no more."""
        await self.aclose()

    @property
    def so_far(self) -> str:
        """The text of the first choice that was read."""
        return "".join(self._pieces)

    def __aiter__(self) -> AsyncIterator[Entry]:
        """Yield entries to the last one. Raises `Refused`, `Unreachable`, `NotWhole`."""
        return self._entries

    async def _read(self) -> AsyncGenerator[Entry, None]:
        try:
            async with aclosing(self._happenings) as happenings:
                async for happening in happenings:
                    if (entry := self._heard(happening)) is not None:
                        if self.on_message is not None:
                            self.on_message(entry)
                        yield entry
        except (Refused, Unreachable, NotWhole) as error:
            if self.on_error is not None:
                self.on_error(error)
            raise
        finally:
            if self.on_close is not None:
                self.on_close(self.closed)

    def _heard(self, happening: Happening) -> Entry | None:
        if isinstance(happening, Lost | Back):
            if self._listener is not None:
                self._listener(happening)
            return None
        self.cursor = happening.cursor or self.cursor
        self.stream = self.cursor.partition("~")[0] or self.stream
        if happening.event != "stream":
            return self._take(happening.data)
        if self.on_open is not None:
            self.on_open(self.stream)
        return None

    def _take(self, record: bytes) -> Entry | None:
        numbered = _decode_number(record)
        if numbered.n == 0:  # a read that cannot go on
            raise Refused(0, numbered.code, numbered.message or "The stream cannot be read on.")
        if self._position and numbered.n != self._position + 1:
            problem = f"entry {numbered.n} came after entry {self._position}"
            raise NotWhole(Verdict("", self._position, len(self.so_far), (problem,)))
        self._position = numbered.n
        event = self._verifier.feed(record) if self._verifier else _decode_event(record)
        match event:
            case None:
                return None
            case TextDelta(index=0, delta=delta):
                self._pieces.append(delta)
            case UsageReported():
                self.usage = event
            case Closed():
                self.closed = event
                self.usage = event.usage or self.usage
                if self._verifier is not None and not (verdict := self._verifier.verdict()).good:
                    raise NotWhole(verdict)
        return Entry(event, self.cursor, record)

    async def text(self) -> AsyncGenerator[str, None]:
        """Yield the text piece by piece. Raises `NotCompleted` when it did not end by itself."""
        async for entry in self:
            if type(entry.event) is TextDelta and not entry.event.index and entry.event.delta:
                yield entry.event.delta
        if self.closed is not None and self.closed.status != "completed":
            raise NotCompleted(self.closed)

    async def end(self) -> Closed:
        """Read to the end, and return the terminal entry, however it ended."""
        if self.closed is None:
            async for _ in self:
                pass
        if self.closed is None:
            raise RuntimeError("this answer is not read any more: it was closed before its end")
        return self.closed

    async def stop(self) -> Ended:
        """Stop the generation; its provider has been left when this returns."""
        if self.stream:
            return await self._connection.cancel(self.stream)
        return await self._connection.cancel_by_key(self._key)

    async def aclose(self) -> None:
        """Read no more. This stops nothing."""
        await self._entries.aclose()


class _Numbered(msgspec.Struct):
    n: int = 0
    code: str = ""
    message: str = ""


_decode_number = msgspec.json.Decoder(_Numbered).decode
_decode_event = msgspec.json.Decoder(AnyEvent).decode


def _sockets(
    transport: Transport,
    address: Address,
    credential: Credential,
    headers: Mapping[str, str] | None,
    tls: ssl.SSLContext | None,
) -> Sockets | None:
    if transport == "sse":
        return None
    if transport not in ("websocket", "auto"):
        raise ValueError("a transport is 'sse', 'websocket' or 'auto'")
    return Sockets(address, credential, headers, tls)


class AsyncClient:
    """A client of one gateway; used as an async context manager, or closed with `aclose`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | Token = "",
        *,
        transport: Transport = "sse",
        patience: float = 120.0,
        wait: Callable[[int], float] = backoff,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``key``: an API key or a token, or a function (plain or async) that gives one, which is asked
        again when one was refused and, on a WebSocket, before one ends.

        ``transport``: by which way entries come; ``websocket`` has one connection for all answers,
        ``auto`` has it where proxies let one pass, and SSE elsewhere.
        ``patience``: seconds for which a lost gateway is looked for. ``wait``: seconds before the try of a
        number, from 1. ``headers`` are sent with each request besides. ``tls``: a context of one's own, for a
        certificate authority or a client certificate. Proxies are those of the environment (``HTTPS_PROXY``,
        ``HTTP_PROXY``, ``NO_PROXY``). Raises `ValueError` for what is no address.
        """
        address, credential = address_of(url), Credential(key)
        self._answers: weakref.WeakSet[Answer] = weakref.WeakSet()
        self._sockets = sockets = _sockets(transport, address, credential, headers, tls)
        carrier = Automatic(sockets) if sockets is not None and transport == "auto" else sockets
        self._connection = Connection(
            address,
            patience=patience,
            wait=wait,
            credential=credential,
            carrier=carrier,
            headers=headers,
            tls=tls,
        )
        self._way = carrier

    def __repr__(self) -> str:
        """Say where, and by which way entries come."""
        return f"<AsyncClient of {self._connection.address.base}: {self._way or 'SSE'}>"

    async def __aenter__(self) -> Self:
        """Nothing is opened before it is needed."""
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what is open. Generations go on."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close what is open, answers that were left in mid-way as well. Generations go on."""
        for answer in list(self._answers):
            with suppress(RuntimeError):  # somebody reads it: that ends with its connection
                await answer.aclose()
        await self._connection.__aexit__()

    def ask(self, content: str, model: str, *, system: str = "", listener: Listener | None = None) -> Answer:
        """Start the answer to one question."""
        messages = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        return self.start({"model": model, "messages": messages}, listener=listener)

    def start(
        self,
        request: Mapping[str, Any],
        *,
        dialect: str = "openai_chat",
        idempotency_key: str = "",
        ttl: float | None = None,
        on_disconnect: str = "",
        metadata: Mapping[str, str] | None = None,
        listener: Listener | None = None,
    ) -> Answer:
        """Start a generation; ``request`` is a body of ``dialect``.

        It is created under an idempotency key, a new one where none is given, so that a request whose answer
        was lost is sent again and not paid again. ``ttl``: seconds that it stays readable after its end.
        """
        given: dict[str, Any] = {"ttl_s": ttl, "on_disconnect": on_disconnect or None, "metadata": metadata}
        body: dict[str, Any] = {"dialect": dialect, "request": request}
        body |= {name: value for name, value in given.items() if value is not None}
        key = idempotency_key or secrets.token_urlsafe(24)
        happenings = self._connection.start(body, key)
        return self._kept(Answer(self._connection, happenings, key=key, whole=True, listener=listener))

    def live(
        self,
        request: Mapping[str, Any],
        *,
        dialect: str = "openai_chat",
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        listener: Listener | None = None,
    ) -> Live:
        """Start a generation whose input can be replaced while it is answered; WebSockets only.

        The last user message of ``request`` is the first input. Raises `ValueError` by SSE.
        """
        given: dict[str, Any] = {"ttl_s": ttl, "metadata": metadata}
        body: dict[str, Any] = {"dialect": dialect, "request": request}
        body |= {name: value for name, value in given.items() if value is not None}
        if self._sockets is None:
            raise ValueError("an input is replaced on a WebSocket: AsyncClient(…, transport='websocket')")
        return Live(
            self._sockets,
            self._connection.address.base,
            Ask(body, secrets.token_urlsafe(24)),
            patience=self._connection.patience,
            wait=self._connection.wait,
            listener=listener,
        )

    def follow(self, stream: str, after: str = "", *, listener: Listener | None = None) -> Answer:
        """Read a stream, live if it is open, from its start, after a cursor, or from ``now`` on."""
        happenings = self._connection.follow(stream, after or "0")
        whole = after in ("", "0", "-1")
        return self._kept(Answer(self._connection, happenings, stream=stream, whole=whole, listener=listener))

    def _kept(self, answer: Answer) -> Answer:
        self._answers.add(answer)
        return answer

    async def models(self) -> list[Model]:
        """Return the models that can be asked for."""
        return await self._connection.models()

    async def streams(self, limit: int = 20, before: str = "") -> Sequence[Listed]:
        """Return one's own streams, newest first, with ids below ``before``."""
        query = {"limit": str(limit), **({"before": before} if before else {})}
        return (await self._connection.call("GET", "/v1/streams", _Page, query=query)).data

    async def snapshot(self, stream: str) -> dict[str, Any]:
        """Return a stream's state, and its answer so far."""
        return await self._connection.snapshot(stream)

    async def stop(self, stream: str) -> Ended:
        """Stop a generation; its provider has been left when this returns."""
        return await self._connection.cancel(stream)

    async def stop_key(self, key: str) -> Ended:
        """As `stop`, for a generation of which only its idempotency key is known."""
        return await self._connection.cancel_by_key(key)

    async def erase(self, stream: str) -> None:
        """Stop a generation if it is open, and erase what is stored of it."""
        await self._connection.call("DELETE", f"/v1/streams/{stream}", _Deleted)

    async def link(self, stream: str, scope: Literal["read", "cancel"] = "read", ttl: float = 3600.0) -> Link:
        """Make a link with which anybody may read a stream, or cancel it, for ``ttl`` seconds."""
        body = {"scope": scope, "ttl_s": ttl}
        return await self._connection.call("POST", f"/v1/streams/{stream}/links", Link, body=body)
