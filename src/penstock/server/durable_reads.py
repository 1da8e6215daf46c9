"""Reading by the Durable Streams protocol: pages, long polls and live events, from an offset on.

A *view* is a stream as this protocol shows it. Of a publication it is the content; of a generation it is
its events as JSON messages, the terminal one included, which says how it ended. A body here is never
cut: it always ends after something that says how far it goes.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.gateway.pieces import Mode, joined
from penstock.server.context import Context
from penstock.server.downstream import ClientGone, Headers, Present, downstream
from penstock.server.exchanges import current_request_id
from penstock.server.reads import LogLost
from penstock.server.renderings import Format, Framing
from penstock.server.responses import DEFERRED, Reader
from penstock.streams.parcels import FIRST, LAST, ByteStream, Trimmed, decode_parcel
from penstock.streams.stream import Stream
from penstock.types.calls import ids
from penstock.types.errors import ClientError, PenstockError, StorageError, StreamGone
from penstock.types.events import AnyEvent, Closed, Entry
from penstock.wire import durable_streams as wire
from penstock.wire.dialect import Answer, EventEncoder, Frame
from penstock.wire.durable_streams import START, Encoding, Offset

log = structlog.get_logger(__name__)

PAGE: Final = 1 << 20
"""Bytes of content in one answer, about; one that asks for no offset gets everything there is."""

SAFE: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "sandbox; default-src 'none'",
}
"""What is in a stream came from somebody: no browser is to take it for a page of ours."""

NO_STORE: Final = "no-store, no-transform"
REVALIDATE: Final = "private, no-cache, no-transform"
LIVE: Final = "no-cache, no-store, no-transform"


class View(NamedTuple):
    """A stream as it is read here. ``attach`` counts a reader; what it returns is called when that leaves.
    ``digest``: what its writer said of the whole, once it is closed."""

    stream: Stream
    content_type: str
    mode: Mode
    attach: Callable[[], Callable[[], None]]
    digest: Callable[[], str] = str
    generation: bool = False

    @property
    def tail(self) -> Offset:
        """Where the content ends."""
        stream = self.stream
        if isinstance(stream, ByteStream):
            return Offset(stream.info.epoch, *stream.tail)
        return Offset(stream.info.epoch, stream.committed, 0)

    @property
    def closed(self) -> bool:
        """Whether nothing will follow the tail."""
        return not self.stream.is_open

    @property
    def encoding(self) -> Encoding:
        """How events hold the content."""
        return "base64" if self.mode == "bytes" else self.mode


class Page(NamedTuple):
    """Content from ``start`` to ``end``, and whether that was all there was."""

    content: bytes
    start: Offset
    end: Offset
    up_to_date: bool
    closed: bool


def content_of(entry: Entry) -> tuple[int, int, bytes]:
    """Return an entry's flags, the bytes of content up to its end, and its content."""
    if type(entry.event) is Closed or entry.line[:1] == b"{":
        return FIRST | LAST, 0, entry.line
    parcel = decode_parcel(entry.line)
    return parcel.flags, parcel.end, parcel.content


def resolve(view: View, offset: Offset | None) -> Offset:
    """Return where a read begins. Raises `ClientError`: 409 `log_lost`, 416 `cursor_ahead`, 400."""
    tail = view.tail
    if offset is None:
        return tail
    if offset == START:
        return Offset(tail.epoch, 0, 0)
    if not view.stream.holds(offset.position):
        raise LogLost
    if offset.entries > tail.entries:
        message = "The offset is ahead of the stream."
        raise ClientError(message, code="cursor_ahead", status=416, param="offset")
    if offset.entries == tail.entries and offset.bytes != tail.bytes:
        raise _no_offset()
    return offset._replace(epoch=tail.epoch)


async def first_entry(view: View, start: Offset) -> tuple[Offset, Trimmed | None]:
    """Return where a read from ``start`` really begins, and why not there, if so.

    From the start it begins at the earliest entry there is. Raises `ClientError` for an offset that
    cannot have been given, `StorageError`, `LogDamaged`.
    """
    if start.entries >= view.tail.entries:
        return start, None
    trimmed: Trimmed | None = None
    try:
        entries: Sequence[Entry] = await view.stream.read(start.entries, 1)
    except Trimmed as gone:
        trimmed = gone
        entries = await _first_whole(view, gone.earliest - 1)
    if not entries:
        raise StreamGone
    flags, end, content = content_of(entries[0])
    begins = start
    if not view.generation:
        begins = Offset(start.epoch, entries[0].seq - 1, end - len(content))
        if trimmed is None and (begins.bytes != start.bytes or (view.mode == "json" and not flags & FIRST)):
            raise _no_offset()
    return begins, trimmed


async def _first_whole(view: View, after: int) -> Sequence[Entry]:
    """Return entries after ``after``, from one on that begins something: of a message that goes over
    several parcels, the first ones may be gone."""
    while entries := await view.stream.read(after):
        for index, entry in enumerate(entries):
            if view.mode != "json" or content_of(entry)[0] & FIRST:
                return entries[index:]
            after = entry.seq
    return ()


async def read_page(view: View, start: Offset, limit: int = PAGE) -> Page:
    """Return content from ``start`` on: about ``limit`` bytes of it, messages whole.

    Raises `Trimmed`, other `ClientError`, `StorageError`, `LogDamaged`.
    """
    begins, trimmed = await first_entry(view, start)
    if trimmed is not None and start.entries:
        raise trimmed
    until = view.tail.entries
    pieces: list[tuple[int, bytes]] = []
    end, size, whole = begins, 0, True
    while end.entries < until and not (whole and size >= limit):
        for entry in await view.stream.read(end.entries):
            if entry.seq > until or (whole and size >= limit):
                break
            flags, so_far, content = content_of(entry)
            pieces.append((flags, content))
            size += len(content)
            whole = view.mode != "json" or bool(flags & LAST)
            end = end._replace(entries=entry.seq, bytes=so_far)
        else:
            continue
        if end.entries < until and not (whole and size >= limit):
            raise StreamGone
    content = joined(pieces) if view.mode == "json" else b"".join(content for _, content in pieces)
    at_tail = end.entries >= view.tail.entries
    return Page(content, begins, end, at_tail, at_tail and view.closed)


# --- answers -------------------------------------------------------------------------------------------


def stream_headers(view: View, offset: Offset, cache: str, *, closed: bool) -> dict[str, str]:
    """Return the headers of every answer about a stream."""
    headers = {
        **SAFE,
        "content-type": view.content_type,
        wire.NEXT_OFFSET: str(offset),
        "stream-id": view.stream.id,
        "cache-control": cache,
        "x-request-id": current_request_id(),
    }
    if closed:
        headers[wire.CLOSED] = "true"
        if digest := view.digest():
            headers["repr-digest"] = digest
    return headers


def page_answer(view: View, page: Page, *, tag: bool, cursor: str = "") -> Response:
    """Return a page as an answer; with a ``cursor`` it is one of a long poll."""
    cache = REVALIDATE if tag else NO_STORE
    headers = stream_headers(view, page.end, cache, closed=page.closed)
    if page.up_to_date:
        headers[wire.UP_TO_DATE] = "true"
    if cursor:
        headers[wire.CURSOR] = cursor
    if tag:
        headers["etag"] = wire.etag(view.stream.id, page.start, page.end, closed=page.closed)
    body = b"[" + page.content + b"]" if view.mode == "json" else page.content
    return Response(body, 200, headers)


def new_cursor(given: str) -> str:
    """Return the cursor of a live answer, after the client's last one."""
    return wire.cursor(given, time.time(), random.randint(1, wire.MAX_JITTER))


class Everything:
    """All content up to the tail in one body, in bounded memory: for who asked for no offset."""

    def __init__(self, ctx: Context, view: View, start: Offset, end: Offset, *, closed: bool) -> None:
        """``end`` is the tail as it was when this was asked for."""
        self._ctx = ctx
        self._view = view
        self._start = start
        self._end = end
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave it to `serve`."""
        scope[DEFERRED] = (self, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write it at the client's pace. What cannot be read to its end is cut, as any download is."""
        view, end = self._view, self._end
        headers = stream_headers(view, end, REVALIDATE, closed=self._closed)
        headers[wire.UP_TO_DATE] = "true"
        headers["etag"] = wire.etag(view.stream.id, self._start, end, closed=self._closed)
        down = downstream(scope, receive, send, self._ctx.settings.send_timeout)
        left = view.attach()
        try:
            async with Present(down):
                await down.start(200, _asgi(headers))
                at = self._start.entries
                while at < end.entries:
                    entries = await view.stream.read(at)
                    content = [content_of(entry)[2] for entry in entries if entry.seq <= end.entries]
                    if not content:
                        raise StorageError
                    await down.write(b"".join(content))
                    at = entries[len(content) - 1].seq
                await down.end()
        except ClientGone:
            pass
        except PenstockError as error:
            log.warning("read_cut", **_ids(view), error=repr(error))
            down.cut()
        except BaseException:
            down.cut()
            raise
        finally:
            left()
        await down.leave()


class LongPoll:
    """A page; where there is nothing yet, what comes first within the wait."""

    def __init__(self, ctx: Context, view: View, start: Offset, given_cursor: str, wait: float) -> None:
        """``wait`` is in seconds."""
        self._ctx = ctx
        self._view = view
        self._start = start
        self._given = given_cursor
        self._wait = wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave it to `serve`."""
        scope[DEFERRED] = (self, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait if need be, then answer."""
        view, start = self._view, self._start
        left = view.attach()
        try:
            if not view.closed and start.entries >= view.tail.entries:
                async with Present(downstream(scope, receive, send, self._ctx.settings.send_timeout)):
                    await view.stream.wait_beyond_for(start.entries, self._wait)
            page = await read_page(view, start)
        except ClientGone:
            return
        finally:
            left()
        cursor = new_cursor(self._given)
        if page.content:
            response = page_answer(view, page, tag=False, cursor=cursor)
        else:
            headers = stream_headers(view, page.end, NO_STORE, closed=page.closed)
            headers |= {wire.UP_TO_DATE: "true", wire.CURSOR: cursor}
            del headers["content-type"]
            response = Response(None, 204, headers)
        await response(scope, receive, send)


# --- live ----------------------------------------------------------------------------------------------


class _Passing:
    """An encoder that leaves everything to the framing."""

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        return ((b"closed" if type(event) is Closed else b"", line),)

    def heartbeat(self) -> bytes:
        return b":\n"


def _passing(_: Answer) -> EventEncoder:
    return _Passing()


def live_format(view: View, given_cursor: str) -> Format:
    """Return the format of a live read. Readers that brought no cursor of late share their rendering."""
    own = new_cursor(given_cursor)
    shared = own == new_cursor("")

    def cursor() -> str:
        return new_cursor("") if shared else own

    def framing(stream: Stream) -> Framing:
        epoch, encoding = stream.info.epoch, view.encoding
        split: list[bytes] = []  # of a message that goes over several parcels

        def frame(seq: int, frames: Sequence[Frame]) -> bytes:
            ((event, line),) = frames
            if event and not view.generation:
                return wire.control_event(view.tail, cursor(), up_to_date=True, closed=True)
            if view.generation:
                flags, end, content = FIRST | LAST, 0, line
            else:
                flags, end, _, content = decode_parcel(line)
            offset = Offset(epoch, seq, end)
            if encoding == "json" and not (flags & FIRST and flags & LAST):
                split.append(content)
                if not flags & LAST:
                    return b""
                content = b"".join(split)
                split.clear()
            return wire.data_event(content, encoding, offset) + wire.control_event(
                offset, cursor(), up_to_date=seq >= stream.committed, closed=bool(event)
            )

        return frame

    name = f"durable:{view.encoding}" if shared else f"durable:{view.encoding}:{own}"
    return Format(name, b"text/event-stream", _passing, "durable", never_cut=True, frame=framing)


class Live:
    """Events, from an offset on, until the stream is closed or the client leaves."""

    def __init__(self, ctx: Context, view: View, start: Offset, given_cursor: str, opening: bytes) -> None:
        """``opening`` is what goes out first."""
        self._ctx = ctx
        self._view = view
        self._start = start
        self._given = given_cursor
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave it to `serve`."""
        scope[DEFERRED] = (self, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the stream."""
        ctx, view, start = self._ctx, self._view, self._start
        headers = stream_headers(view, start, LIVE, closed=False)
        headers |= {"content-type": "text/event-stream", "x-accel-buffering": "no"}
        if view.encoding == "base64":
            headers[wire.ENCODING] = "base64"
        format = live_format(view, self._given)
        opening = self._opening
        if start.entries >= view.tail.entries and not view.closed:
            opening += wire.control_event(start, new_cursor(self._given), up_to_date=True)
        elif start.entries >= view.stream.committed:  # at the end of a generation: its last entry was read
            opening += wire.control_event(start, "", up_to_date=True, closed=True)
        left = view.attach()
        down = downstream(scope, receive, send, ctx.settings.send_timeout)
        reader = Reader(
            view.stream,
            format,
            down,
            ctx.renderings,
            position=start.entries,
            silence=ctx.settings.heartbeat,
        )
        try:
            async with Present(down, reader.gone):
                await down.start(200, _asgi(headers))
                if start.entries >= view.stream.committed and view.closed:
                    await down.write(opening)
                    await down.end()
                else:
                    ctx.heart.readers.add(reader)
                    await reader.run(opening)
        except ClientGone:
            reader.gone()
        except PenstockError as error:
            log.warning("read_cut", **_ids(view), reader=repr(reader), error=repr(error))
            await down.end()
        except BaseException:
            down.cut()
            raise
        finally:
            ctx.heart.readers.discard(reader)
            left()
        await down.leave()


def _asgi(headers: Mapping[str, str]) -> Headers:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def _ids(view: View) -> dict[str, str]:
    return ids(current_request_id(), view.stream.id)


def _no_offset() -> ClientError:
    return wire.invalid_offset("This is no offset of this stream.")
