"""Following streams: where a cursor comes from, what each situation gets, how a body goes on and ends.

A read never creates anything. It is also how every creating route answers: those call `follow` with
the cursor at the start.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.server.context import CURSOR_QUERIES, PRINCIPAL, RECONNECT_QUERIES, Context, context
from penstock.server.downstream import ClientGone, Downstream, Present, downstream
from penstock.server.exchanges import current_request_id
from penstock.server.formats import DIALECTS, NATIVE, TEXT, by_query, openai_chat
from penstock.server.links import LinkScope
from penstock.server.renderings import Format
from penstock.server.responses import AS_IT_COMES, DEFERRED, Manner, Reader
from penstock.streams.stream import READ_ENTRIES, Standing, Stream
from penstock.types.calls import ids
from penstock.types.errors import (
    ClientError,
    GatewayError,
    PenstockError,
    StorageError,
    StreamGone,
    UpstreamError,
)
from penstock.types.events import AnyEvent, Closed, Entry, Timing
from penstock.types.positions import START, Cursor, Position, parse_cursor, stream_of
from penstock.types.principals import Principal
from penstock.wire import native, sse
from penstock.wire.dialect import Answer

log = structlog.get_logger(__name__)

EXPOSED: Final = (
    "Stream-Id, Stream-Status, Stream-Cursor, Stream-Target, Stream-Attempts, Stream-Dropped, Server-Timing, "
    "Location, "
    "x-request-id, retry-after"
)

MIN_PACE: Final = 1.0
MAX_PACE: Final = 100_000.0
"""Characters a second that a reader may ask for."""

Want: TypeAlias = LinkScope | Literal["own"]
"""What a caller wants with a stream."""


class Given(NamedTuple):
    """A cursor as the client gave it. ``reconnects``: by a way that only a reconnecting reader uses."""

    cursor: Cursor
    reconnects: bool


def given_cursor(headers: Mapping[str, str], query: Mapping[str, str]) -> Given | None:
    """Return the first cursor present: the header, then the query's names in order; None without any.

    The header wins, since EventSource reconnects with its old URL. An empty value counts as absent.
    Raises `ClientError` `invalid_cursor`.
    """
    sources = [("Last-Event-ID", headers.get("last-event-id", ""))]
    sources += [(name, query.get(name, "")) for name in CURSOR_QUERIES]
    for name, text in sources:
        if text:
            try:
                cursor = parse_cursor(text)
            except ValueError as error:
                message = f"The cursor in {name} cannot be read: {error}."
                raise ClientError(message, code="invalid_cursor", param=name) from None
            return Given(cursor, name == "Last-Event-ID" or name in RECONNECT_QUERIES)
    return None


class LogLost(ClientError):
    """The log lost what this reader has seen; it must start over."""

    def __init__(self) -> None:
        """409 on JSON; on SSE a `fail` event."""
        super().__init__(
            "What was read up to this cursor was lost before it was safely stored. Read from the start.",
            code="log_lost",
            status=409,
        )


def resolve(stream: Stream, given: Given | None) -> Position:
    """Return where a read of ``stream`` begins.

    Raises `ClientError`: 400 `cursor_mismatch`, 416 `cursor_ahead`, or `LogLost`.
    """
    if given is None:
        return START
    cursor = given.cursor
    if cursor.stream and cursor.stream != stream.id:
        message = "The cursor names another stream than the URL."
        raise ClientError(message, code="cursor_mismatch", param="Last-Event-ID")
    if cursor.position is None:
        return stream.position(stream.committed)
    if not stream.holds(cursor.position):
        raise LogLost
    if cursor.position.entries > stream.committed:
        raise ClientError(
            f"The cursor is ahead of the stream, which has {stream.committed} entries.",
            code="cursor_ahead",
            status=416,
        )
    return cursor.position


def at_end(stream: Stream, position: Position) -> bool:
    """Say whether nothing will ever follow ``position``."""
    return not stream.is_open and position.entries >= stream.committed


def answer_headers(closed: Closed | None, standing: Standing | None = None) -> dict[str, str]:
    """Return what is known of who answered: by the end, else by the writer's word."""
    if closed is not None and closed.target:
        standing = Standing(closed.target, closed.attempts, closed.timing or Timing())
    if standing is None:
        return {}
    timing = standing.timing
    spans = {
        "queue": timing.queue_ms,
        "failed": timing.failed_ms,
        "connect": timing.connect_ms,
        "wait": timing.wait_ms,
        "stream": timing.stream_ms,
        "gateway": timing.gateway_ms,
        "total": timing.total_ms,
    }
    target = quote(standing.target, safe="/:@,;=+$&()*'!~")
    return {
        "stream-target": target,
        "stream-attempts": str(standing.attempts),
        "server-timing": ", ".join(f"{name};dur={span:.3f}" for name, span in spans.items()),
    }


def stream_headers(
    stream: Stream, format: Format | None, request_id: str, closed: Closed | None = None
) -> list[tuple[bytes, bytes]]:
    """Return the headers of every create and read; ``closed`` where the end was read."""
    answered = answer_headers(closed or stream.closing, stream.standing)
    dropped = ", ".join(stream.dropped).encode("ascii", "replace")
    return [
        *((name.encode(), value.encode()) for name, value in answered.items()),
        (b"content-type", format.media_type if format else b"application/json"),
        (b"stream-id", stream.id.encode()),
        (b"stream-status", stream.state.encode()),
        (b"location", f"/v1/streams/{stream.id}".encode()),
        (b"x-request-id", request_id.encode()),
        (b"cache-control", b"no-store, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
        (b"access-control-expose-headers", EXPOSED.encode()),
        *(format.headers if format else ()),
        *([(b"stream-dropped", dropped)] if dropped else []),
    ]


def cursor_header(stream: Stream) -> dict[str, str]:
    """Return what a HEAD says besides: where the stream's tail is."""
    return {"stream-cursor": str(Cursor(stream.id, stream.position(stream.committed)))}


def follow(
    ctx: Context,
    stream: Stream,
    format: Format,
    principal: Principal,
    given: Given | None = None,
    *,
    may_204: bool = False,
    request_id: str = "",
    hold: bool = False,
    manner: Manner = AS_IT_COMES,
    ended: Callable[[Downstream], None] | None = None,
) -> "Response | Following":
    """Return the response that reads ``stream`` from the cursor on.

    ``may_204``: a reconnect at the end of a closed stream is answered 204, which is what stops an
    EventSource. ``hold``: keep the status line back until there is output. ``ended`` is told when the
    terminal entry was written.
    """
    request_id = request_id or current_request_id()
    try:
        position = resolve(stream, given)
    except LogLost as lost:
        if not format.framing.startswith(("sse", "text")):
            raise
        body = sse.encode(native.failure(lost), event=b"fail")
        return Response(body, 200, dict_of(stream_headers(stream, format, request_id)))
    if at_end(stream, position):
        if given is not None and given.reconnects and may_204:
            headers = dict_of(stream_headers(stream, None, request_id))
            del headers["content-type"]
            return Response(status_code=204, headers=headers)
        position = Position(position.epoch, max(stream.committed - 1, 0))
        format = format._replace(ends_cleanly=True)  # the reader knows how it ended: it has been there
    if given is not None and given.reconnects:
        format = format._replace(opening=None)  # it has that: its id is the cursor that came
    return Following(
        ctx, stream, format, principal, position, request_id, hold=hold, manner=manner, ended=ended
    )


def dict_of(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return ASGI headers in Starlette's form."""
    return {name.decode(): value.decode() for name, value in headers}


class Following:
    """A response that follows a stream. Its reader is counted from before the status line, so that a
    client that leaves while that is held back is noticed as well."""

    def __init__(
        self,
        ctx: Context,
        stream: Stream,
        format: Format,
        principal: Principal,
        position: Position,
        request_id: str,
        *,
        hold: bool,
        manner: Manner,
        ended: Callable[[Downstream], None] | None = None,
    ) -> None:
        """See `follow`."""
        self._ctx = ctx
        self._stream = stream
        self._format = format
        self._principal = principal
        self._position = position
        self._request_id = request_id
        self._hold = hold
        self._manner = manner
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer HEAD; leave the rest to `serve`."""
        if scope["method"] == "HEAD":
            headers = dict_of(stream_headers(self._stream, self._format, self._request_id))
            await Response(headers=headers | cursor_header(self._stream))(scope, receive, send)
        else:
            scope[DEFERRED] = (self, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for output if that is wanted, then follow the stream to its end.

        Raises how the stream failed, as long as the status line is not out; after that a failure to
        read the log can only be shown by cutting the body.
        """
        ctx, stream = self._ctx, self._stream
        left = ctx.gateway.attach_reader(stream, self._principal)
        down = downstream(scope, receive, send, ctx.settings.send_timeout)
        reader = Reader(
            stream,
            self._format,
            down,
            ctx.renderings,
            position=self._position.entries,
            skip=self._position.part,
            silence=ctx.settings.heartbeat,
            last_words=ctx.settings.last_words,
            manner=self._manner,
        )
        started = False
        seat = ctx.audience.enter(stream, self._principal, self._format.name, lambda: reader.position)
        try:
            async with Present(down, reader.gone):
                if self._hold:
                    await first_output(stream, ctx.settings.commit_after)
                    if error := await failure_before_output(stream):
                        raise error
                await down.start(200, stream_headers(stream, self._format, self._request_id))
                started = True
                ctx.heart.readers.add(reader)
                await reader.run(self._opening())
                if self._ended is not None and reader.position == stream.committed and not stream.lost:
                    self._ended(down)
        except ClientGone:
            reader.gone()
        except PenstockError as error:
            if not started:
                raise
            whose = ids(self._request_id, stream.id)
            log.warning("read_cut", **whose, reader=repr(reader), error=repr(error))
            if self._format in (NATIVE, TEXT):
                down.push(sse.encode(native.failure(error), event=b"fail"))
            down.cut()
        except BaseException:
            down.cut()
            raise
        finally:
            ctx.audience.leave(seat)
            ctx.heart.readers.discard(reader)
            left()
        await down.leave()

    def _opening(self) -> bytes:
        """Return the first events, where the format has some: they name the stream."""
        stream, position = self._stream, self._position
        if self._format.opening is not None and position == START:
            answer = Answer(stream.id, int(stream.info.created_at), stream.info.model)
            id_ = f"{stream.id}~{START}".encode() if self._format.with_ids else b""
            frames = self._format.opening(answer)
            return b"".join(sse.encode(data, event=event, id=id_) for event, data in frames)
        if self._format not in (NATIVE, TEXT):
            return b""
        data = native.opening(
            status=stream.state,
            start=position.entries,
            tail=stream.committed,
            heartbeat=self._ctx.settings.heartbeat,
        )
        return sse.encode(data, event=b"stream", id=f"{stream.id}~{position}".encode())


Render: TypeAlias = Callable[[Answer, Sequence[AnyEvent]], bytes]
"""What makes a body of a stream's events."""


class Whole:
    """A response that waits for the end of a stream and gives the answer in one piece."""

    def __init__(
        self,
        ctx: Context,
        stream: Stream,
        principal: Principal,
        request_id: str,
        render: Render | None = None,
    ) -> None:
        """The reader is counted while it waits. ``render``: see `whole_answer`."""
        self._ctx = ctx
        self._stream = stream
        self._principal = principal
        self._request_id = request_id
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave it to `serve`."""
        scope[DEFERRED] = (self, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, fold, answer; raises how the stream failed."""
        left = self._ctx.gateway.attach_reader(self._stream, self._principal)
        seat = self._ctx.audience.enter(self._stream, self._principal, "whole", int)
        try:
            down = downstream(scope, receive, send, self._ctx.settings.send_timeout)
            async with Present(down):
                await self._stream.wait_closed()
            response = await whole_answer(self._ctx, self._stream, self._request_id, self._render)
        except ClientGone:
            return
        finally:
            self._ctx.audience.leave(seat)
            left()
        await response(scope, receive, send)


async def first_output(stream: Stream, patience: float) -> None:
    """Return when ``stream`` has its first entry, or after ``patience`` seconds."""
    await stream.wait_beyond_for(0, patience)


async def failure_before_output(stream: Stream) -> PenstockError | None:
    """Return why ``stream`` ended when it did so without any output; None in every other case."""
    if stream.lost:
        return StorageError()
    if stream.is_open or stream.committed != 1:
        return None
    entries = await stream.read(0, 1)
    closed = entries[0].event
    return error_of(closed) if type(closed) is Closed and closed.status != "completed" else None


def error_of(closed: Closed) -> PenstockError:
    """Return a terminal entry as the error that it would have been as a response."""
    error: PenstockError
    if closed.fault == "client":
        error = ClientError(closed.message, code=closed.code, status=closed.http_status or 400)
    elif closed.fault == "upstream":
        error = UpstreamError(closed.message, code=closed.code, status=closed.http_status or 502)
    else:
        error = GatewayError(closed.message, code=closed.code, status=closed.http_status or 503)
    error.param = closed.param or None
    error.type = closed.error_type
    error.provider_code = closed.provider_code
    error.retryable = closed.retryable
    error.retry_after = closed.retry_after
    error.headers = answer_headers(closed)
    return error


# --- routes ------------------------------------------------------------------------------------------


async def visit(request: Request, want: Want = "read") -> tuple[Context, Stream, Principal]:
    """Return the stream that the path names, and who asks for it.

    A link with the scope ``read`` or ``cancel`` in ``?token=`` does instead of a key; nothing else than
    the creator's own key is enough to ``own``. Raises `ClientError`: 401, 403, 404 or 410.
    """
    ctx = context(request)
    token = "" if want == "own" else request.query_params.get("token", "")
    if not token:  # first who, then what: a stranger learns nothing about ids
        principal = ctx.admit(request, spends=want != "read")
    stream_id = stream_of(request.path_params["stream"])
    if not stream_id:
        raise ClientError("There is no such stream.", code="stream_not_found", status=404)
    if token and want != "own":
        if PRINCIPAL not in request.scope:
            ctx.guard.check_host(request.headers)
        principal = ctx.links.admit(token, stream_id, want)
    return ctx, await ctx.gateway.find(stream_id, principal), principal


async def events(request: Request) -> "Response | Following":
    """``GET /v1/streams/{stream}/events``: the stream from a cursor on, then live."""
    ctx, stream, principal = await visit(request)
    named = request.query_params.get("dialect", "")
    format = by_query(named, request.headers.get("accept", ""), stream.info.metadata)
    given = given_cursor(request.headers, request.query_params)
    return follow(ctx, stream, format, principal, given, may_204=True, manner=manner(request.query_params))


def manner(query: Mapping[str, str]) -> Manner:
    """Read ``?coalesce=`` and ``?pace=`` (characters a second); raises `ClientError`."""
    pace = 0.0
    if text := query.get("pace", ""):
        try:
            pace = float(text)
        except ValueError:
            pace = -1.0
        if not MIN_PACE <= pace <= MAX_PACE:
            message = f"pace is a number of characters a second, from {MIN_PACE:.0f} to {MAX_PACE:.0f}."
            raise ClientError(message, code="invalid_value", param="pace")
    return Manner(coalesce=query.get("coalesce", "").lower() in ("1", "true"), pace=pace)


async def read_on(stream: Stream, after: int, limit: int = READ_ENTRIES) -> list[Entry]:
    """Return entries after ``after``, of which there must be some.

    Raises `StorageError`, and 410 `stream_gone` when the stream's retention ran out meanwhile.
    """
    entries = await stream.read(after, limit)
    if not entries:
        raise StreamGone
    return entries


async def chat_completion(request: Request) -> "Response | Following":
    """``GET /v1/chat/completions/{stream}``: the answer again, as a stream or, when it has ended, whole."""
    ctx, stream, principal = await visit(request)
    if request.query_params.get("stream", "").lower() in ("true", "1"):
        given = given_cursor(request.headers, request.query_params)
        format = openai_chat(include_usage=True, with_ids=True)
        return follow(ctx, stream, format, principal, given, may_204=True)
    if stream.is_open:
        message = "This answer is not complete yet: read it with ?stream=true, or ask again later."
        raise ClientError(message, code="stream_open", status=409)
    return await whole_answer(ctx, stream, current_request_id())


async def whole_answer(
    ctx: Context, stream: Stream, request_id: str, render: Render | None = None
) -> Response:
    """Return a closed stream as one JSON answer, in its dialect unless ``render`` does it; raises how it
    failed."""
    if stream.lost:
        raise StorageError
    collected = await events_of(ctx, stream)
    closed = collected[-1]
    if type(closed) is Closed and closed.status != "completed":
        raise error_of(closed)
    if render is None:
        render = DIALECTS.get(stream.info.dialect, DIALECTS["openai_chat"]).render_answer
    body = render(answer_of(stream), collected)
    end = closed if type(closed) is Closed else None
    return Response(body, 200, dict_of(stream_headers(stream, None, request_id, end)))


async def events_of(ctx: Context, stream: Stream) -> list[AnyEvent]:
    """Return what is committed of ``stream``. Raises `ClientError` 422 when that is too much, and 410."""
    collected: list[AnyEvent] = []
    upto = stream.committed
    while len(collected) < upto:
        entries = await read_on(stream, len(collected))
        collected += [entry.event for entry in entries]
        if len(collected) > ctx.settings.max_answer_events:
            message = "The answer has too many parts to be given whole: read it as a stream."
            raise ClientError(message, code="answer_too_large", status=422)
    return collected


def answer_of(stream: Stream) -> Answer:
    """Return what whoever renders a whole answer must know about ``stream``."""
    info = stream.info
    return Answer(info.id, int(info.created_at), info.model, True)
