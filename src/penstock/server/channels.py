"""One generation on a WebSocket: what its rid is owed, and the way of its entries to the socket.

A channel is a rid with its credit. Each time it follows a stream it does so in a lane of its own, the
`Downstream` of an ordinary reader: so the path is that of every other read, and what is late of an
earlier lane goes nowhere. No entry waits here: without credit, or while the socket takes no more, the
reader is behind, and reads from the log when it can go on.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from penstock.server.downstream import ClientGone, Headers
from penstock.server.sockets import Socket
from penstock.types.errors import ClientError
from penstock.wire import envelope
from penstock.wire.envelope import FIRST_CREDIT, MAX_CREDIT, Create

BATCH: Final = 64 << 10
"""Bytes of messages that are handed to the socket at a time."""

MAX_KEPT: Final = 64 << 10
"""Bytes of a request that is kept so that its input can be replaced."""


class Slow(ClientError):
    """A rid was granted nothing for too long."""

    def __init__(self) -> None:
        """Worth another read."""
        super().__init__(
            "No credit was granted for too long. Read again from where you are.", code="slow", status=408
        )
        self.retryable = True


class Channel:
    """A rid. ``created`` is what its generation was asked for with, if it can be asked again.

    ``cancelled`` and ``next_input`` wait for a generation that is being started; ``starting``, while that
    cannot be broken off.
    """

    __slots__ = (
        "_waiter",
        "cancelled",
        "created",
        "credit",
        "lane",
        "next_input",
        "opens",
        "rid",
        "starting",
        "stream",
        "task",
    )

    def __init__(self, rid: str) -> None:
        """It follows nothing yet."""
        self.rid = rid
        self.opens = envelope.opens(rid)
        self.credit = FIRST_CREDIT
        self.cancelled = False
        self.created: Create | None = None
        self.next_input: str | None = None
        self.starting = False
        self.stream = ""
        self.lane: Lane | None = None
        self.task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        """Say which stream, and what it may be sent."""
        return f"<Channel {self.stream or '–'} credit={self.credit} busy={self.busy}>"

    @property
    def busy(self) -> bool:
        """Whether something goes on under this rid."""
        return self.task is not None

    def grant(self, size: int) -> None:
        """The client takes ``size`` bytes more."""
        self.credit = min(self.credit + size, MAX_CREDIT)
        self.wake()

    def wake(self) -> None:
        """Something changed that its reader may wait for."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self, seconds: float) -> bool:
        """Wait for credit or for the socket; False when nothing came in time."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiter
        except TimeoutError:
            return False
        finally:
            self._waiter = None
        return True


class Lane:
    """The way of one stream's entries to one rid, in the shape that readers write to."""

    __slots__ = ("_channel", "_frozen", "_socket", "_timeout", "lost")

    pushes = True
    taken = True

    def __init__(self, channel: Channel, socket: Socket, timeout: float, frozen: Callable[[], None]) -> None:
        """``timeout``: seconds that the client may take nothing; ``frozen`` is called when it is the whole
        socket that takes nothing."""
        self._channel = channel
        self._socket = socket
        self._timeout = timeout
        self._frozen = frozen
        self.lost = False

    @property
    def gone(self) -> bool:
        """Whether nobody follows by this lane any more."""
        return self._channel.lane is not self

    async def start(self, status: int, headers: Headers) -> None:
        """There is no status line."""

    def push(self, data: bytes) -> bool:
        """Send what is rendered, if the client keeps up; else nothing of it was sent."""
        channel, socket = self._channel, self._socket
        if channel.lane is not self:
            return True
        if channel.credit <= 0 or socket.paused:
            return False
        if data.count(b"\n") == 1:  # the usual case at the tail
            text = channel.opens + data[:-1]
            channel.credit -= len(text)
            socket.push((text,))
            return True
        texts = [*self._texts(data)]
        if sum(map(len, texts[:-1])) >= channel.credit:  # the last one would go without
            return False
        self._send(texts)
        return True

    async def write(self, data: bytes) -> None:
        """Send what is rendered at the client's pace. Raises `Slow`, and `ClientGone` when it is gone."""
        channel, batch, size = self._channel, list[bytes](), 0
        for text in self._texts(data):
            if batch and (size >= min(channel.credit, BATCH) or self._socket.paused):
                self._send(batch)
                batch, size = [], 0
            if not batch:
                await self._room()
            batch.append(text)
            size += len(text)
        if batch:
            self._send(batch)

    def _texts(self, data: bytes) -> Iterator[bytes]:
        opens = self._channel.opens
        for line in data.split(b"\n"):
            if line:
                yield opens + line

    def _send(self, texts: list[bytes]) -> None:
        self._channel.credit -= sum(map(len, texts))
        self._socket.push(texts)

    async def _room(self) -> None:
        """Return when a message may go."""
        channel, socket = self._channel, self._socket
        while channel.credit <= 0 or socket.paused:
            unsent = socket.unsent
            if await channel.changed(self._timeout):
                continue
            if not socket.paused:
                raise Slow
            if socket.unsent >= unsent:  # slow is no reason, standing still is
                self._frozen()
                raise ClientGone

    async def end(self) -> None:
        """The terminal entry said it."""

    def cut(self) -> None:
        """The log has no end, so there is none to be sent."""
        self.lost = True

    async def leave(self) -> None:
        """Nothing is left to be done."""

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Whoever owns the channel cancels its task."""

    def on_doubt(self, callback: Callable[[], None] | None) -> None:
        """The socket's own pings tell."""


def known_rid(channel: Channel | None) -> Channel:
    """Return ``channel``; raises `ClientError` `unknown_rid` where there is none."""
    if channel is None:
        raise ClientError("Nothing is, or was, followed under this rid.", code="unknown_rid", status=404)
    return channel
