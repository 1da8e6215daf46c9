"""Responses that stream: a reader of the log on its way to one client.

A reader is a position; it has no queue. While it is behind, its task reads batches from the log and
writes them at the client's pace. Once it has caught up it joins the shared rendering, and from then
on the commit itself writes to its socket: no task switch, no wait. A client that does not keep up
leaves the rendering with the one batch that did not fit and goes on by itself.

How a body ends is part of the answer: properly after the terminal entry (after any of them in a
format whose last frame says how it ended, after `completed` only in others), and cut otherwise.
"""

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from penstock.server.downstream import Downstream
from penstock.server.renderings import Format, Rendering, Renderings, coalesced
from penstock.streams.stream import Stream
from penstock.types.errors import StorageError
from penstock.types.events import Closed, Entry
from penstock.wire import sse
from penstock.wire.dialect import Frame

log = structlog.get_logger(__name__)

DEFERRED = "penstock.deferred"
"""Where in the scope a response that takes its time leaves itself, `(response, receive, send)`, to be served
once routing has returned: the frames and values of that call stack would cost 8 KB a stream meanwhile."""

RETRY = b"retry: 1000\n"
"""Milliseconds; stands only inside the first event with data: alone it crashes the OpenAI Python SDK."""

IDLE_CHUNK_AFTER = 60.0
IDLE_CHUNK_BEATS = 4
"""After so many seconds or heartbeats without data, whichever is first, a dialect that has an empty chunk
sends that: some clients' timers see no comments (LangChain's: 120 s)."""


class Manner(NamedTuple):
    """How a reader wants what it is given. ``coalesce``: adjacent text deltas in one event while it is
    behind. ``pace``: characters a second at most; 0 for as fast as they come."""

    coalesce: bool = False
    pace: float = 0.0


AS_IT_COMES: Final = Manner()


class _Woken(enum.Enum):
    ENDED = enum.auto()
    SLOW = enum.auto()
    DROPPED = enum.auto()


class Reader:
    """One client following one stream."""

    __slots__ = (
        "_closed",
        "_down",
        "_format",
        "_holds",
        "_idle",
        "_last_words",
        "_leftover",
        "_manner",
        "_rendering",
        "_renderings",
        "_retry",
        "_silence",
        "_skip",
        "_stream",
        "_wake",
        "position",
        "quiet",
    )

    def __init__(
        self,
        stream: Stream,
        format: Format,
        down: Downstream,
        renderings: Renderings,
        *,
        position: int,
        skip: int = 0,
        silence: float = 15.0,
        last_words: float = 0.0,
        manner: Manner = AS_IT_COMES,
    ) -> None:
        """Stand after ``position`` entries and ``skip`` frames of the next one.

        ``silence``: seconds without a write after which a heartbeat goes out. ``last_words``: seconds that a
        client gets to read an error before the body is cut.
        """
        self.position = position
        self.quiet = 0.0
        self._stream = stream
        self._format = format
        self._down = down
        self._manner = manner
        self._renderings = renderings
        self._retry = RETRY if format.with_ids and format.framing in ("sse", "text") else b""
        self._skip = skip
        self._rendering = Rendering(stream, format)
        self._closed: Closed | None = None
        self._leftover = b""
        self._idle = 0.0
        self._silence = silence
        self._last_words = last_words
        self._wake: asyncio.Future[_Woken] | None = None
        self._holds = False

    def __repr__(self) -> str:
        """Say which stream, and how far."""
        return f"<Reader {self._stream.id} {self.position}/{self._stream.committed}>"

    @property
    def lag(self) -> int:
        """How many entries it is behind."""
        return max(0, self._stream.committed - self.position)

    async def run(self, opening: bytes) -> None:
        """Write ``opening`` and everything after the reader's position; return after the end.

        Raises `ClientGone` when the client left, `StorageError` when the log cannot be read.
        """
        rendering = self._rendering
        if self._format.stateless:
            rendering.position = self.position
        while rendering.position < self.position:
            rendering.render(await self._stream.read(rendering.position, self.position - rendering.position))
        if opening:
            await self._write(opening)
        await self._catch_up()
        while self._closed is None and not self._stream.lost:
            if self._down.pushes and not self._manner.pace:
                if await self._follow() is _Woken.DROPPED:
                    break
                if self._leftover:
                    leftover, self._leftover = self._leftover, b""
                    await self._write(leftover)
            else:
                await self._wait()
            await self._catch_up()
        if self._closed is not None:
            await self._finish(self._closed)
        elif self._format.never_cut:
            await self._down.end()
        else:
            self._down.cut()

    async def _catch_up(self) -> None:
        """Write what is committed after the position, batch by batch, at the client's pace."""
        while self._closed is None and self.position < self._stream.committed:
            entries: Sequence[Entry] = await self._stream.read(self.position)
            if not entries:  # its retention ran out under us
                raise StorageError
            if self._manner.coalesce:
                # Frames to be skipped are those of the next entry as it stands in the log.
                entries = [*entries[:1], *coalesced(entries[1:])] if self._skip else coalesced(entries)
            if self._manner.pace:
                await self._write_paced(entries)
            else:
                await self._write_entries(entries)
            last = entries[-1].event
            if type(last) is Closed:
                self._closed = last

    async def _write_entries(self, entries: Sequence[Entry]) -> None:
        data = self._rendering.render(entries, self._skip)
        self._skip = 0
        self.position = self._rendering.position
        if data:
            await self._write(data)

    async def _write_paced(self, entries: Sequence[Entry]) -> None:
        """One by one, each with the time that reading it takes; heartbeats where that is long."""
        for entry in entries:
            await self._write_entries((entry,))
            due = len(getattr(entry.event, "delta", "")) / self._manner.pace
            while due > 0:
                await asyncio.sleep(min(due, self._silence))
                due -= self._silence
                if due > 0 and (beat := self._heartbeat(self._silence)):
                    await self._down.write(beat)

    async def _follow(self) -> _Woken:
        """Let commits write to the socket until something else is needed."""
        wake: asyncio.Future[_Woken] = asyncio.get_running_loop().create_future()
        self._wake = wake
        self._down.on_doubt(self._doubted)
        shared = self._rendering = self._renderings.join(self._rendering, self)
        try:
            return await wake
        finally:  # also when the client left: nothing may push to this reader any more
            self._renderings.leave(shared, self)
            self._down.on_doubt(None)
            self._wake = None

    async def _wait(self) -> None:
        """Where nothing can be pushed: wait for the next commit, with heartbeats."""
        try:
            async with asyncio.timeout(self._silence):
                await self._stream.wait_beyond(self.position)
        except TimeoutError:
            if beat := self._heartbeat(self._silence):
                await self._down.write(beat)

    # --- called by the rendering, inside a commit ------------------------------------------------

    def deliver(self, data: bytes, closed: Closed | None) -> None:
        """Take the next bytes; ``closed`` when they end the stream."""
        wake = self._wake
        if wake is None or wake.done():
            return
        self.position = self._rendering.position
        self._closed = closed
        if self._retry and data:
            data, self._retry = self._retry + data, b""
        if not data or self._down.push(data):
            if data:
                self.quiet = self._idle = 0.0
            if closed is not None:
                wake.set_result(_Woken.ENDED)
        else:
            self._leftover = data
            self._rendering = self._renderings.part(self._rendering, self)
            wake.set_result(_Woken.SLOW)

    def dropped(self) -> None:
        """The stream lost its writer: there will be no end."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(_Woken.DROPPED)

    # --- writing ---------------------------------------------------------------------------------

    async def _write(self, data: bytes) -> None:
        if not self._holds:
            self._holds = True
            self._stream.holders += 1
        data, self._retry = self._retry + data, b""
        await self._down.write(data)
        self.quiet = self._idle = 0.0

    async def _finish(self, closed: Closed) -> None:
        if closed.status == "completed" or self._format.ends_cleanly:
            await self._down.end()
            return
        # A reader on `fetch` that is told of the cut first never sees what came before it.
        if self._last_words and self._format.framing != "plain":
            await asyncio.sleep(self._last_words)
        self._down.cut()

    def gone(self) -> None:
        """The client left. If it was sent no entry, what named the stream may not have reached it either:
        then it asks again, as if it had never asked, and must not pay again."""
        if self._holds and self.position == 0:
            self._holds = False
            self._stream.holders -= 1

    def _doubted(self) -> None:
        """The client ended its side of the connection: it may have left, and may ask again at once."""
        self.gone()
        self.probe()

    def beat(self, seconds: float) -> None:
        """So many seconds went by: send a heartbeat when the connection was silent for long enough."""
        self.quiet += seconds
        if self.quiet >= self._silence:
            self.probe()

    def probe(self) -> None:
        """Send a heartbeat now, if nothing else is being sent."""
        if self._wake is None:
            return
        quiet, self.quiet = self.quiet, 0.0
        if beat := self._heartbeat(quiet):
            self._down.push(beat)

    def _heartbeat(self, quiet: float) -> bytes:
        """Return what says after ``quiet`` seconds that we are still here."""
        self._idle += quiet
        if self._format.framing in ("plain", "envelope"):
            return b""
        if self._format.framing == "ndjson":
            return b'{"ev":"heartbeat"}\n'
        encoder = self._rendering.encoder
        idle_chunk: Callable[[], Frame] | None = getattr(encoder, "idle_chunk", None)
        if idle_chunk is not None and self._idle >= min(IDLE_CHUNK_AFTER, IDLE_CHUNK_BEATS * self._silence):
            self._idle = 0.0
            event, data = idle_chunk()
            return sse.encode(data, event=event)
        return b":\n" if self._format.with_ids else encoder.heartbeat()


class Heart:
    """All readers of this server, for heartbeats: a sweep each second at most, no timer per reader."""

    def __init__(self, silence: float) -> None:
        """``silence``: seconds after which readers want a heartbeat."""
        self.readers: set[Reader] = set()
        self.pulses: list[Callable[[], None]] = []  # called at each beat; they are quick
        self.use(silence)

    def use(self, silence: float) -> None:
        """Beat for readers that want one after ``silence``."""
        self._interval = min(1.0, silence / 4)  # a beat is at most so much early

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            for reader in tuple(self.readers):
                reader.beat(self._interval)
            for pulse in self.pulses:
                pulse()
