"""Towards a client: how a response writes, ends, is cut short, and learns that the client left.

Two implementations of one small interface: `Direct` on our own protocol's connection, where a
commit can write to the socket in the same call; `Plain` on nothing but ASGI's send and receive.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Protocol, Self

from starlette.types import Receive, Scope, Send

from penstock.server.http import EXTENSION, Connection

Headers = Sequence[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client left, or took nothing for too long."""


class Cut(Exception):
    """A body ends without its end: for the server around us, which must close the connection."""


async def break_off(send: Send) -> NoReturn:
    """Have a foreign server close the connection in mid-body, through whatever stands between.

    Raises `Cut`. That is not enough: Starlette's `BaseHTTPMiddleware` ends a body properly whose
    application raised. A message of no known type is an error for it as it is for every server (ASGI
    specification, "Error Handling").
    """
    with suppress(Exception):
        await send({"type": "penstock.cut"})
    raise Cut("the answer is not whole, so its connection must be closed")


class Downstream(Protocol):
    """One response on its way to a client."""

    pushes: bool
    """Whether `push` can succeed at all."""

    @property
    def gone(self) -> bool:
        """Whether the client is known to have left."""
        ...

    @property
    def taken(self) -> bool:
        """Whether the client's system has all that was written, as far as can be known."""
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line."""
        ...

    def push(self, data: bytes) -> bool:
        """Write now if the client keeps up; False when it does not, and nothing was written."""
        ...

    async def write(self, data: bytes) -> None:
        """Write, waiting for the client; raises `ClientGone`."""
        ...

    async def end(self) -> None:
        """End the body properly."""
        ...

    def cut(self) -> None:
        """End without ending: the client must see that the body is not whole."""
        ...

    async def leave(self) -> None:
        """Be done; raises `Cut` when the body was cut and nothing else tells the server."""
        ...

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` when the client leaves."""
        ...

    def on_doubt(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` when only writing to the client will tell whether it has left."""
        ...


class Direct:
    """On a connection of our own protocol."""

    pushes = True

    def __init__(self, connection: Connection, send: Send, timeout: float) -> None:
        """``timeout``: seconds a client may take nothing before it is cut off."""
        self._connection = connection
        self._send = send
        self._timeout = timeout
        self.push = connection.push
        self.on_gone = connection.on_gone

    @property
    def gone(self) -> bool:
        """Whether the client is known to have left."""
        return self._connection.gone

    @property
    def taken(self) -> bool:
        """Whether the client's system has said so."""
        return self._connection.taken

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line; raises `ClientGone`."""
        if self._connection.gone:
            raise ClientGone
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self._connection.forget_request()

    async def write(self, data: bytes) -> None:
        """Write, waiting for the client; raises `ClientGone`."""
        while not self.push(data):
            if self._connection.gone:
                raise ClientGone
            unsent = self._connection.unsent
            try:
                async with asyncio.timeout(self._timeout):
                    await self._connection.drained()
            except TimeoutError:
                if self._connection.unsent >= unsent:  # slow is no reason, standing still is
                    self._connection.abort()
                    raise ClientGone from None

    def on_doubt(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` when the client has ended its side of the connection; None takes it back."""
        self._connection.probe = callback

    async def end(self) -> None:
        """End the body properly."""
        if not self._connection.gone:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def cut(self) -> None:
        """Flush and close without the last chunk."""
        self._connection.cut()

    async def leave(self) -> None:
        """Be done; the connection knows."""


class Plain:
    """On ASGI's send and receive alone."""

    pushes = False
    gone = False
    taken = True

    def __init__(self, receive: Receive, send: Send, timeout: float) -> None:
        """``timeout``: seconds a client may take nothing before it is given up."""
        self._receive = receive
        self._send = send
        self._timeout = timeout
        self._started = False
        self._cut = False
        self._watch: asyncio.Task[None] | None = None

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line; raises `ClientGone`."""
        self._started = True
        await self._guarded({"type": "http.response.start", "status": status, "headers": list(headers)})

    def push(self, data: bytes) -> bool:
        """Never possible."""
        return False

    async def write(self, data: bytes) -> None:
        """Write, waiting for the client; raises `ClientGone`."""
        await self._guarded({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the body properly."""
        await self._guarded({"type": "http.response.body", "body": b"", "more_body": False})

    def cut(self) -> None:
        """Remember it for `leave`."""
        self._cut = True

    async def leave(self) -> None:
        """Be done; raises `Cut` after a cut, since nothing else tells the server."""
        if self._cut and self._started:
            await break_off(self._send)

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Watch ``receive`` in a task of this object's own; None ends the watch."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if callback is not None:
            self._watch = asyncio.get_running_loop().create_task(self._until_gone(callback))

    def on_doubt(self, callback: Callable[[], None] | None) -> None:
        """Never in doubt: the server says when a client has left."""

    async def _until_gone(self, callback: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        callback()

    async def _guarded(self, message: dict[str, object]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._send(message)
        except OSError as error:
            # A client that only stood still must not take what it has for all there is.
            self._cut = isinstance(error, TimeoutError)
            raise ClientGone from None


def downstream(scope: Scope, receive: Receive, send: Send, timeout: float) -> Downstream:
    """Return the best way to the client that the server offers."""
    connection = scope.get("extensions", {}).get(EXTENSION)
    if isinstance(connection, Connection):
        return Direct(connection, send, timeout)
    return Plain(receive, send, timeout)


class Present:
    """``async with Present(down):`` runs its body while the client is there.

    When the client leaves, the body is cancelled where it waits and `ClientGone` is raised instead, at
    once if it has left before; a cancellation from elsewhere stays one.
    """

    def __init__(self, down: Downstream, left: Callable[[], None] | None = None) -> None:
        """Nothing is watched until the context is entered.

        ``left`` is called the moment the client leaves: the body hears of it a turn of the loop later.
        """
        self._down = down
        self._on_left = left
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        if self._down.gone:  # while nobody watched
            raise ClientGone
        self._task = asyncio.current_task()
        self._down.on_gone(self._left)
        return self

    def _left(self) -> None:
        self._gone = True
        if self._on_left is not None:
            self._on_left()
        if self._task is not None:
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; turn our own cancellation into `ClientGone`."""
        self._down.on_gone(None)
        if self._gone and self._task is not None:
            self._task.uncancel()
            if kind is asyncio.CancelledError:
                raise ClientGone from None
