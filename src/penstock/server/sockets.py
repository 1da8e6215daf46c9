"""A WebSocket on its way to one client, under whatever server: our own protocol, or ASGI alone.

`WebSocketProtocol` is one implementation of `Socket`; `Plain` is the other, for foreign servers: what it
is given waits in one small buffer a socket (`paused` says when it is full), which one task sends. Also
how a handshake is refused.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol

from starlette.types import Message, Receive, Scope, Send

from penstock.server.errors import error_response
from penstock.server.exchanges import current_request_id
from penstock.server.websocket import CLOSE_TIMEOUT, EXTENSION, MAX_UNSENT, Handler, WebSocketProtocol
from penstock.types.errors import PenstockError

FIRST_MESSAGE: Final = 64 << 10
"""Bytes of a message from somebody who has not said who it is."""

HIGH_WATER: Final = 64 << 10
"""Bytes that wait for a foreign server to take them before more is held back."""


class Socket(Protocol):
    """One connected socket."""

    @property
    def open(self) -> bool:
        """Whether anything can be sent."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the peer takes less than is sent: then only what cannot wait should be."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer in this process."""
        ...

    def set_max_message(self, size: int) -> None:
        """Take messages of up to ``size`` bytes from now on."""
        ...

    def push(self, texts: Iterable[bytes]) -> None:
        """Send text messages now."""
        ...

    def push_binary(self, data: bytes) -> None:
        """Send a binary message now."""
        ...

    def close(self, number: int, reason: str = "", patience: float = CLOSE_TIMEOUT) -> None:
        """Close after what was sent, which the peer has ``patience`` seconds to take."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...


class Plain:
    """On ASGI's send and receive alone; `carry` must run for as long as it is used."""

    def __init__(self, receive: Receive, send: Send) -> None:
        """Nothing is carried before `carry`."""
        self.open = True
        self.unsent = 0
        self._receive = receive
        self._send = send
        self._max_message = FIRST_MESSAGE
        self._waiting: deque[tuple[Message, int]] = deque()
        self._carriers: list[asyncio.Task[None]] = []
        self._some = asyncio.Event()
        self._taken = asyncio.Event()
        self._handler: Handler | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def paused(self) -> bool:
        """Whether as much waits as may."""
        return self.unsent > HIGH_WATER

    def set_max_message(self, size: int) -> None:
        """Only refused here; the server around us has a bound of its own."""
        self._max_message = size

    def push(self, texts: Iterable[bytes]) -> None:
        """Send text messages as soon as the server takes them."""
        for text in texts:
            self._put({"type": "websocket.send", "text": text.decode()}, len(text))

    def push_binary(self, data: bytes) -> None:
        """Send a binary message as soon as the server takes it."""
        self._put({"type": "websocket.send", "bytes": data}, len(data))

    def close(self, number: int, reason: str = "", patience: float = CLOSE_TIMEOUT) -> None:
        """Close after what waits."""
        if self.open:
            self._put({"type": "websocket.close", "code": number, "reason": reason}, 0)
            self.open = False
            self._timer = asyncio.get_running_loop().call_later(patience, self.abort)

    def abort(self) -> None:
        """Drop what waits; a foreign server closes a socket whose application has returned."""
        self.open = False
        for carrier in self._carriers:
            carrier.cancel()

    def _put(self, message: Message, size: int) -> None:
        if self.open:
            self._waiting.append((message, size))
            self.unsent += size
            self._some.set()

    async def carry(self, handler: Handler) -> None:
        """Carry messages both ways until the socket is closed; then the handler is told."""
        self._handler = handler
        try:
            async with asyncio.TaskGroup() as group:
                self._carriers = [group.create_task(self._carry_in()), group.create_task(self._carry_out())]
        finally:
            self.open = False
            if self._timer is not None:
                self._timer.cancel()
            handler.lost()

    async def _carry_in(self) -> None:
        assert self._handler is not None
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                self.abort()
                return
            text = message.get("text")
            data = message["bytes"] if text is None else text.encode("utf-8", "surrogatepass")
            if len(data) > self._max_message:
                self.close(1009)
            elif self.open:
                self._handler.received(data, text is not None)
            while self.unsent > MAX_UNSENT:  # it asks and does not read the answers
                self._taken.clear()
                await self._taken.wait()

    async def _carry_out(self) -> None:
        assert self._handler is not None
        while True:
            while not self._waiting:
                self._some.clear()
                await self._some.wait()
            message, size = self._waiting.popleft()
            try:
                await self._send(message)
            except (OSError, RuntimeError):  # it is closed
                self.abort()
                return
            was_paused = self.paused
            self.unsent -= size
            self._taken.set()
            if was_paused and not self.paused:
                self._handler.writable()


def direct(scope: Scope) -> WebSocketProtocol | None:
    """Return the connection, where the server is ours."""
    found = scope.get("extensions", {}).get(EXTENSION)
    return found if isinstance(found, WebSocketProtocol) else None


async def refuse(error: PenstockError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a handshake: by an HTTP response where the server can, else by a close code."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await error_response(error, current_request_id(), scope)(scope, receive, send)
        return
    close: dict[str, Any] = {"type": "websocket.close", "code": close_code(error), "reason": error.code}
    await send(close)


def close_code(error: PenstockError) -> int:
    """Return the close code that says the same as ``error``."""
    if error.status == 401:
        return 4401
    return 1008 if error.status < 500 else 1013
