"""Generations on a WebSocket, many at a time: the other `Carrier`. Format: docs/protocol.md, section 11.

A socket is dialled when something is first asked, and shared; another is dialled where one is full or
leaves. There is no task that reads it: whoever waits for a message reads for all, hands out what is for
others, and hands the reading on. What waits for one reader is bounded by its credit, which is granted as
entries are taken; so who takes nothing holds up none of the others. A socket that is lost breaks all of
its readers, each of which comes back by itself (`penstock.client.connection`).
"""

import asyncio
import itertools
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

import msgspec
import websockets  # which loads its parts when they are used: whoever reads by SSE waits for none

from penstock.client.addresses import Address, is_loopback
from penstock.client.connection import (
    CONNECT_TIMEOUT,
    FIRST_SILENCE,
    MAX_BODY,
    USER_AGENT,
    Ask,
    Broken,
    Received,
    Refused,
    Unanswered,
    refusal_of,
)
from penstock.client.credentials import Credential
from penstock.wire import envelope

PING: Final = 20.0
"""Seconds between pings, and until one that is not answered means that the socket is dead."""

CLOSE_TIMEOUT: Final = 2.0
SEND_TIMEOUT: Final = 30.0
"""Seconds that the gateway may take to read what is sent to it."""

MAX_RIDS: Final = 256
"""Generations on one socket: what a gateway takes by default."""

GRANT: Final = 128 << 10
"""Bytes that are taken before they are granted anew."""

RENEW_AT: Final = 0.8
"""The share of a token's time after which another one is said."""

UNAUTHORIZED: Final = 4401
MAX_REFUSALS: Final = 2
"""Sockets in a row that may be closed because of a token before that is an error."""


class Sockets:
    """The WebSockets to one gateway."""

    def __init__(
        self,
        address: Address,
        credential: Credential,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Nothing is dialled before something is asked. ``headers`` and ``tls``: see `Connection`."""
        self._address = address
        self._credential = credential
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._agent = self._headers.pop("user-agent", USER_AGENT)
        self._tls = tls
        self._open: list[Socket] = []
        self._dialling: asyncio.Future[Socket] | None = None
        self._proving = asyncio.Lock()
        self._rids = itertools.count(1)
        self._refusals = 0

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"<Sockets to {self._address.base}: {self._open}>"

    async def aclose(self) -> None:
        """Close all. Generations go on."""
        sockets, self._open = self._open, []
        for socket in sockets:
            await socket.aclose()

    async def events(self, ask: Ask) -> AsyncGenerator[Received, None]:
        """See `Carrier`."""
        if ask.dialect:  # which is not rendered in the same bytes
            raise Unanswered
        async with self.reading(ask) as (socket, reader):
            yield await socket.first(reader)
            while not reader.ended:
                yield await socket.next(reader)

    async def prove(self, patience: float) -> None:
        """Have a socket through which the gateway has answered a ping. Raises `Refused`, `Broken`, and
        `TimeoutError` where opening it, or the answer, takes more than ``patience`` seconds."""
        async with self._proving:
            async with asyncio.timeout(patience):
                socket = await self._socket()
            try:
                async with asyncio.timeout(patience):
                    await socket.prove()
            except TimeoutError:
                await socket.aclose()
                raise

    @asynccontextmanager
    async def reading(self, ask: Ask) -> AsyncGenerator[tuple["Socket", "Reader"], None]:
        """Ask under a rid of its own, which is given up at the end. Raises `Refused`, `Broken`."""
        socket = await self._socket()
        reader = Reader(f"r{next(self._rids)}")
        socket.add(reader)
        try:
            await socket.send(_message(reader.rid, ask, self._address.token))
            yield socket, reader
        except Refused as refused:
            if not (refused.status == 401 and self._credential.renews and self._refusals < MAX_REFUSALS):
                raise
            raise Broken(refused.message, sent=True) from None
        finally:
            await socket.drop(reader)

    async def _socket(self) -> "Socket":
        """Return a socket that takes another rid. Raises `Refused`, `Broken`."""
        self._open = [socket for socket in self._open if socket.is_open]
        for socket in self._open:
            if socket.takes:
                return socket
        if self._dialling is not None:  # one is enough for all who wait
            return await asyncio.shield(self._dialling)
        dialling = self._dialling = asyncio.get_running_loop().create_future()
        failure: BaseException = Broken("the connection was not made", sent=True)
        try:
            socket = await self._dial()
        except Exception as error:
            failure = error
            raise
        else:
            self._open.append(socket)
            dialling.set_result(socket)
            return socket
        finally:
            self._dialling = None
            if not dialling.done():
                dialling.set_exception(failure)
                dialling.exception()  # maybe nobody else waited

    async def _dial(self) -> "Socket":
        try:
            return await self._dial_as(await self._credential.token(fresh=self._refusals > 0))
        except Refused as refused:
            if refused.status != 401 or not self._credential.renews:
                raise
        return await self._dial_as(await self._credential.token(fresh=True))

    async def _dial_as(self, token: str) -> "Socket":
        base = self._address.base
        authorization = {"authorization": f"Bearer {token}"} if token else {}
        try:
            dial = websockets.connect(
                f"ws{base.removeprefix('http')}/v1/ws",
                subprotocols=[websockets.Subprotocol(envelope.SUBPROTOCOL)],
                additional_headers={**self._headers, **authorization},
                user_agent_header=self._agent,
                ssl=self._tls if base.startswith("https:") else None,
                compression=None,
                proxy=None if is_loopback(base) else True,
                open_timeout=CONNECT_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=PING,
                ping_timeout=PING,
                max_size=MAX_BODY,
                max_queue=None,  # credit bounds it; a pause would leave pings unanswered as well
            )
            # A key is for the gateway it was given for: no redirect is followed.
            dial.process_redirect = _unfollowed  # type: ignore[method-assign, assignment]
            connection = await dial
        except websockets.InvalidStatus as error:
            response = error.response
            raise refusal_of(response.status_code, response.headers, bytes(response.body or b"")) from None
        except TimeoutError:
            raise Broken("connecting took too long", sent=False) from None
        except ssl.SSLError:
            raise Broken("no secure connection could be made", sent=False) from None
        except (OSError, websockets.InvalidHandshake, websockets.WebSocketException, EOFError) as error:
            nobody = isinstance(error, ConnectionRefusedError)
            why = "nobody listens there" if nobody else "the connection was lost"
            raise Broken(why, sent=not isinstance(error, OSError)) from None
        socket = Socket(connection, self._credential, self._judged)
        if self._credential.renews:  # its answer tells when this token ends
            await socket.send(envelope.Auth(token))
        return socket

    def _judged(self, *, refused: bool) -> None:
        """A socket was closed because of its token, or brought something: so that was good."""
        self._refusals = self._refusals + 1 if refused else 0


class Judged(Protocol):
    """Who keeps count of tokens that were refused."""

    def __call__(self, *, refused: bool) -> None:
        """Take note of one."""
        ...


class Reader:
    """One rid: what came for it and waits, and what it took since it last granted."""

    __slots__ = ("ended", "rid", "taken", "waiter", "waiting")

    def __init__(self, rid: str) -> None:
        """It follows nothing yet."""
        self.rid = rid
        self.waiting: deque[tuple[envelope.ServerMessage, int]] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.taken = 0
        self.ended = False

    def wake(self) -> bool:
        """Let it look again; say whether it waits."""
        if self.waiter is None or self.waiter.done():
            return False
        self.waiter.set_result(None)
        return True


class Socket:
    """One of them, and who reads from it."""

    def __init__(
        self, connection: "websockets.ClientConnection", credential: Credential, judged: "Judged"
    ) -> None:
        """``judged`` is told whether the token that was shown is good."""
        self._connection = connection
        self._credential = credential
        self._judged = judged
        self._readers: dict[str, Reader] = {}
        self._is_read = False
        self._failure: Exception | None = None
        self._leaving = False
        self._proven = False
        self._back_after = 0.0
        self._complaint: envelope.Err | None = None
        self._renew_at: float | None = None

    def __repr__(self) -> str:
        """Say how it is."""
        state = "open" if self.is_open else "closed"
        return f"<Socket {state}, {len(self._readers)} rids{', leaving' * self._leaving}>"

    @property
    def is_open(self) -> bool:
        """Whether something can come."""
        return self._failure is None and self._connection.state is websockets.State.OPEN

    @property
    def takes(self) -> bool:
        """Whether another rid may be asked under."""
        return self.is_open and not self._leaving and len(self._readers) < MAX_RIDS

    async def aclose(self) -> None:
        """Close it; whoever reads is broken off."""
        self._lose(Broken("the client was closed", sent=True))
        await self._connection.close()

    def add(self, reader: Reader) -> None:
        """Hand out what comes under the reader's rid."""
        self._readers[reader.rid] = reader

    async def drop(self, reader: Reader) -> None:
        """Follow no more under this rid."""
        known = self._readers.pop(reader.rid, None)
        self._hand_on()
        if known is not None and not reader.ended and self.is_open:
            with suppress(Broken):
                await self.send(envelope.Detach(reader.rid))

    async def send(self, message: envelope.ClientMessage) -> None:
        """Send. Raises `Broken`, `Refused`."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._connection.send(envelope.encode(message), text=True)
        except TimeoutError:
            self._lose(Broken("nothing was taken in time", sent=True))
        except websockets.ConnectionClosed as closed:
            self._lose(self._why(closed))
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def prove(self) -> None:
        """Wait until something has come from the gateway. Raises `Broken`, `Refused`."""
        if self._proven:
            return
        reader = Reader("")  # under which nobody reads
        reader.ended = True
        self.add(reader)
        try:
            await self.send(envelope.Ping())
            await self._message(reader)
        finally:
            await self.drop(reader)
        self._proven = True

    async def first(self, reader: Reader) -> Received:
        """Return the first thing that comes for a reader, in time."""
        try:
            async with asyncio.timeout(FIRST_SILENCE):
                received = await self.next(reader)
        except TimeoutError:
            raise Broken("it did not answer in time", sent=True) from None
        self._judged(refused=False)
        return received

    async def interrupt(self, reader: Reader) -> None:
        """Let whoever waits for this reader's next thing go: it gets `Unanswered`."""
        reader.waiting.append((envelope.Nothing(reader.rid, "", ""), 0))
        reader.wake()
        await self.send(envelope.Ping())  # who reads for all looks up when something comes

    async def next(self, reader: Reader) -> Received:
        """Return the next thing for a reader, and grant what was taken. Raises `Refused`, `Broken`,
        `Unanswered`."""
        message, size = await self._message(reader)
        match message:
            case envelope.Open(stream=stream, status=status, c=cursor):
                said = {"stream": stream, "status": status, "tail": message.tail}
                return Received("stream", msgspec.json.encode(said), cursor)
            case (
                envelope.EntryMessage(c=cursor, ev=event, d=record)
                | envelope.End(c=cursor, ev=event, d=record)
            ):
                reader.ended = type(message) is envelope.End
                reader.taken += size
                if reader.taken >= GRANT and not reader.ended:
                    granted, reader.taken = min(reader.taken, envelope.MAX_CREDIT), 0
                    await self.send(envelope.Credit(reader.rid, granted))
                return Received(event, bytes(record), cursor)
            case envelope.Err():
                reader.ended = True
                raise _refusal(message)
            case envelope.Gap():
                reader.ended = True
                raise Refused(410, "stream_gone", "The beginning of this stream is gone.")
        reader.ended = True
        raise Unanswered  # `none`: there is no more; by SSE the end is told again

    # --- one reads for all ---------------------------------------------------------------------------

    async def _message(self, reader: Reader) -> tuple[envelope.ServerMessage, int]:
        try:
            while not reader.waiting:
                if self._failure is not None:
                    raise self._failure.with_traceback(None)
                if self._is_read:
                    reader.waiter = asyncio.get_running_loop().create_future()
                    await reader.waiter
                else:
                    await self._read()
            return reader.waiting.popleft()
        finally:
            reader.waiter = None
            self._hand_on()

    def _hand_on(self) -> None:
        """Let somebody who waits do the reading, if nobody does."""
        if not self._is_read:
            any(reader.wake() for reader in self._readers.values())

    async def _read(self) -> None:
        """Take one message off the socket."""
        self._is_read = True
        try:
            async with asyncio.timeout_at(self._renew_at):
                data = await self._connection.recv(decode=False)
        except TimeoutError:
            await self._renew()
        except websockets.ConnectionClosed as closed:
            self._lose(self._why(closed))
        else:
            try:
                message = envelope.decode_server(data)
            except ValueError:
                self._lose(Broken("what came is no message of a gateway", sent=True))
            else:
                self._hand_out(message, len(data))
        finally:
            self._is_read = False

    def _hand_out(self, message: envelope.ServerMessage | None, size: int) -> None:
        match message:
            case envelope.Goaway(retry_ms=wait):
                self._leaving, self._back_after = True, wait / 1000
            case envelope.Authed(expires_in=seconds) if seconds is not None:
                self._renew_at = asyncio.get_running_loop().time() + seconds * RENEW_AT
            case envelope.Err(rid=""):
                self._complaint = message
            case envelope.Pong() if (prover := self._readers.get("")) is not None:
                prover.waiting.append((message, size))
                prover.wake()
            case envelope.Open() | envelope.EntryMessage() | envelope.End() | envelope.Err():
                self._give(message, size)
            case envelope.Nothing() | envelope.Gap():
                self._give(message, size)

    def _give(self, message: Any, size: int) -> None:
        if (reader := self._readers.get(message.rid)) is not None:
            reader.waiting.append((message, size))
            reader.wake()

    async def _renew(self) -> None:
        self._renew_at = None
        await self.send(envelope.Auth(await self._credential.token(fresh=True)))

    def _why(self, closed: "websockets.ConnectionClosed") -> Exception:
        """Return what a socket's end means to its readers."""
        code = closed.rcvd.code if closed.rcvd is not None else 0
        if code != UNAUTHORIZED:
            return Broken("the connection was lost", sent=True, after=self._back_after)
        self._judged(refused=True)
        if self._complaint is None:
            return Refused(401, "", "The gateway took the token no more.")
        return _refusal(self._complaint, 401)

    def _lose(self, failure: Exception) -> None:
        if self._failure is None:
            self._failure = failure
        for reader in self._readers.values():
            reader.wake()


def _unfollowed(error: Exception) -> Exception:
    return error


def _message(rid: str, ask: Ask, token: str) -> envelope.ClientMessage:
    if ask.body is None:
        return envelope.Read(rid, ask.stream, ask.after or 0, token=token)
    body: Mapping[str, Any] = ask.body
    return envelope.Create(
        rid,
        msgspec.Raw(msgspec.json.encode(body["request"])),
        body.get("dialect", "openai_chat"),
        ask.key,
        body.get("ttl_s"),
        body.get("on_disconnect"),
        body.get("metadata"),
    )


def _refusal(error: envelope.Err, status: int = 0) -> Refused:
    after = "" if error.retry_after is None else f"{error.retry_after:g}"
    status = status or error.status
    return Refused(status, error.code, error.message, after, retryable=error.retryable)
