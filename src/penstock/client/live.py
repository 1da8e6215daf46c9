"""A generation whose input is replaced while it is being typed: live translation, completion as one writes.

One rid of a WebSocket (`input` in docs/protocol.md, section 11): each new input cancels the generation that
runs and starts another. What is iterated is the answer to the newest input as far as it is there, again and
again as it grows; of inputs that come faster than generations start, the last one counts. After a lost
connection the newest input is asked again, if its answer was not whole. Each answer is checked as any other.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import NamedTuple, Self

from penstock.client.connection import (
    Ask,
    Back,
    Broken,
    Lost,
    Received,
    Refused,
    Unanswered,
    Unreachable,
)
from penstock.client.sockets import Reader, Socket, Sockets
from penstock.types.events import Closed, TextDelta
from penstock.wire import envelope
from penstock.wire.verification import Verifier


class Draft(NamedTuple):
    """The answer to the newest input so far. ``closed``: it is all there and checked; how it ended."""

    text: str
    stream: str
    closed: Closed | None = None


class Live:
    """See the module's head. Iterate it in one task; `put` from any. Made by `AsyncClient.live`."""

    def __init__(
        self,
        sockets: Sockets,
        base: str,
        ask: Ask,
        *,
        patience: float,
        wait: Callable[[int], float],
        listener: Callable[[Lost | Back], None] | None,
    ) -> None:
        """``ask`` creates the first generation, whose last user message is the first input."""
        self._sockets = sockets
        self._base = base
        self._ask = ask
        self._patience = patience
        self._wait = wait
        self._listener = listener
        self._content: str | None = None
        self._first = ""
        self._on: tuple[Socket, Reader] | None = None
        self._put = asyncio.Event()
        self._is_closed = False
        self._stream = ""
        self._text = ""
        self._shown = 0
        self._ended = False
        self._verifier = Verifier()

    def __repr__(self) -> str:
        """Say which stream it reads."""
        return f"<Live {self._stream or 'of no stream yet'}>"

    async def __aenter__(self) -> Self:
        """Nothing is asked before it is iterated."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Read no more."""
        await self.aclose()

    async def put(self, content: str) -> None:
        """Answer ``content`` instead of what was put before."""
        self._content = content
        self._put.set()
        if self._on is not None:
            socket, reader = self._on
            with suppress(Broken, Refused):  # whoever iterates meets it as well
                await socket.send(envelope.Input(reader.rid, content))

    async def aclose(self) -> None:
        """Read no more; the iteration ends. The generation that runs goes on as its `on_disconnect` says."""
        self._is_closed = True
        self._put.set()
        if self._on is not None:
            socket, reader = self._on
            with suppress(Broken, Refused):
                await socket.interrupt(reader)

    async def __aiter__(self) -> AsyncGenerator[Draft, None]:
        """Yield drafts until it is closed. Raises `Refused`, `Unreachable`."""
        clock = asyncio.get_running_loop().time
        attempt, seen = 0, clock()
        while not self._is_closed:
            after = 0.0
            try:
                async with aclosing(self._drafts()) as drafts:
                    async for draft in drafts:
                        if attempt and self._listener is not None:
                            self._listener(Back())
                        attempt, seen = 0, clock()
                        if draft is not None:
                            yield draft
                return
            except Broken as broken:
                if not (broken.sent or attempt or self._first):
                    raise Unreachable(self._base, broken.why) from None
                why, after = broken.why, broken.after
            except Refused as refused:
                if not (refused.passes and (attempt or self._first)):
                    raise
                why, after = refused.message, refused.delay
            if clock() - seen > self._patience:
                raise Unreachable(self._base, why)
            attempt += 1
            lost = Lost(attempt, max(self._wait(attempt), after), why)
            if self._listener is not None:
                self._listener(lost)
            await asyncio.sleep(lost.delay)
            if self._ended:  # the newest answer is whole: nothing is asked before there is another input
                await self._put.wait()
                seen = clock()

    async def _drafts(self) -> AsyncGenerator[Draft | None, None]:
        """Yield what one socket brings; None for what is a sign of life and no news."""
        async with self._sockets.reading(self._ask) as (socket, reader):
            self._on = socket, reader
            self._put.clear()
            try:
                if self._content is not None:
                    await socket.send(envelope.Input(reader.rid, self._content))
                received = await socket.first(reader)
                while not self._is_closed:
                    yield self._take(received)
                    received = await socket.next(reader)
            except Unanswered:  # interrupted
                return
            finally:
                self._on = None

    def _take(self, received: Received) -> Draft | None:
        stream = received.cursor.partition("~")[0]
        if received.event == "stream":
            self._first = self._first or stream
            if self._content is not None and stream == self._first:
                return None  # asked for again only to be replaced
            if stream != self._stream:
                self._shown = 0
            self._stream, self._text, self._ended = stream, "", False
            self._verifier = Verifier()
            return None
        if stream != self._stream:
            return None
        event = self._verifier.feed(received.data)
        if type(event) is TextDelta and not event.index:
            self._text += event.delta
            if len(self._text) <= self._shown:  # had before the connection was lost
                return None
            self._shown = len(self._text)
            return Draft(self._text, stream)
        if type(event) is Closed:
            if not self._verifier.verdict().good:
                raise Broken("what came is not what was stored", sent=True)
            self._ended = True
            return Draft(self._text, stream, event)
        return None
