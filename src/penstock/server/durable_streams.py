"""The Durable Streams protocol at ``/v1/stream/{path}``: publications made, filled, read and deleted.

Generations are there too, to be read only, at ``/v1/stream/gen/{id}``. How reading goes is in
`penstock.server.durable_reads`; what may be written, and by whom, in `penstock.gateway.publications`.

Source: PROTOCOL.md of https://github.com/durable-streams/durable-streams at 82f9963.
"""

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.gateway.pieces import media_type, mode_of, pieces_of
from penstock.gateway.publication import (
    MAX_PATH,
    Fork,
    Publication,
    StreamClosed,
    Wanted,
    check_path,
    content_type_mismatch,
)
from penstock.gateway.writers import MAX_NAME, Producer, ProducerGap, StaleProducer
from penstock.server.context import PRINCIPAL, Context, context, read_body
from penstock.server.docs import address
from penstock.server.durable_reads import (
    NO_STORE,
    SAFE,
    Everything,
    Live,
    LongPoll,
    Page,
    View,
    first_entry,
    page_answer,
    read_page,
    resolve,
    stream_headers,
)
from penstock.server.errors import error_response
from penstock.server.exchanges import current_request_id
from penstock.server.reads import visit
from penstock.server.streams import number
from penstock.streams.parcels import Mark
from penstock.types.errors import ClientError, PenstockError
from penstock.types.positions import stream_of
from penstock.types.principals import Principal
from penstock.wire import durable_streams as wire
from penstock.wire import native, sse
from penstock.wire.durable_streams import Offset, parse_number, parse_offset

ROOT: Final = "/v1/stream/"
GENERATIONS: Final = "gen/"
"""What stands before a generation's id; nothing can be published below it."""

MAX_LIST: Final = 1_000

EXPOSED: Final = (
    "Stream-Next-Offset",
    "Stream-Up-To-Date",
    "Stream-Closed",
    "Stream-TTL",
    "Stream-Expires-At",
    "Stream-Keep-Bytes",
    "Stream-SSE-Data-Encoding",
    "Producer-Epoch",
    "Producer-Seq",
    "Producer-Expected-Seq",
    "Producer-Received-Seq",
    "Repr-Digest",
    "ETag",
)
"""Headers of this protocol that a page of another origin may read."""

PRODUCER: Final = ("producer-id", "producer-epoch", "producer-seq")

_CONTENT_TYPE: Final = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}(?:\s*;[\t -~]{0,200})?", re.ASCII)
_DIGEST: Final = re.compile(r"sha-256=:[A-Za-z0-9+/]{43}=:")
_SHOWN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")

Answer: TypeAlias = Response | Live | LongPoll | Everything
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


def _answers(handler: Handler) -> Handler:
    """Let errors say what this protocol has headers for."""

    @functools.wraps(handler)
    async def answered(request: Request) -> Answer:
        try:
            return await handler(request)
        except PenstockError as error:
            if error.status >= 500 and request.headers.get("last-event-id"):
                raise  # an EventSource would give up: see `penstock.server.app`
            response = error_response(error, current_request_id())
            response.headers.update({**SAFE, **_facts(error)})
            return response

    return answered


def _facts(error: PenstockError) -> Mapping[str, str]:
    match error:
        case StreamClosed(mark=mark, epoch=epoch):
            return {wire.CLOSED: "true", wire.NEXT_OFFSET: str(Offset(epoch, *mark))}
        case StaleProducer(epoch=epoch):
            return {"producer-epoch": str(epoch)}
        case ProducerGap(expected=expected, received=received):
            return {"producer-expected-seq": str(expected), "producer-received-seq": str(received)}
    return {}


def _path(request: Request) -> str:
    """Return the path of a publication; raises `ClientError` where none can be."""
    path = check_path(request.path_params["path"])
    if path.startswith(GENERATIONS):
        message = "Below gen/ are generations, which can only be read."
        raise ClientError(message, code="read_only", status=403)
    return path


def view_of(publication: Publication) -> View:
    """Return a publication as it is read."""
    content_type = publication.config.content_type
    return View(
        publication.open,
        content_type,
        mode_of(content_type),
        publication.attach,
        lambda: publication.digest,
    )


# --- create --------------------------------------------------------------------------------------------


@_answers
async def create_publication(request: Request) -> Response:
    """``PUT /v1/stream/{path}``: make a stream, maybe with content, maybe a fork of another."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    path = _path(request)
    wanted = _wanted(request.headers)
    body = await read_body(request, ctx.append_bounds)
    content_type = wanted.content_type
    if body and not content_type and wanted.fork is not None:
        source = await ctx.gateway.publications.find(principal, wanted.fork.path, use=False)
        content_type = source.config.content_type
    pieces = pieces_of(body, mode_of(content_type))
    publication, made = await ctx.gateway.publications.create(principal, path, wanted, pieces)
    view = view_of(publication)
    headers = stream_headers(view, view.tail, NO_STORE, closed=view.closed)
    if made:
        headers["location"] = address(request).rstrip("/") + ROOT + quote(path)
    return Response(None, 201 if made else 200, headers)


def _wanted(headers: Mapping[str, str]) -> Wanted:
    content_type = headers.get("content-type", "").strip()
    forked = headers.get("stream-forked-from", "")
    if not _CONTENT_TYPE.fullmatch(content_type):
        content_type = "" if forked else "application/octet-stream"
    ttl, expires_at = headers.get(wire.TTL), headers.get(wire.EXPIRES_AT)
    if ttl is not None and expires_at is not None:
        message = "Either Stream-TTL or Stream-Expires-At can be given, not both."
        raise ClientError(message, code="invalid_value", param="Stream-TTL")
    return Wanted(
        content_type,
        closed=headers.get(wire.CLOSED, "").lower() == "true",
        ttl=None if ttl is None else parse_number(ttl, "Stream-TTL"),
        expires_at=None if expires_at is None else wire.parse_time(expires_at, "Stream-Expires-At"),
        fork=_fork(headers, forked),
        keep=_keep(headers),
    )


def _keep(headers: Mapping[str, str]) -> int | None:
    if (given := headers.get(wire.KEEP)) is None:
        return None
    keep = parse_number(given, "Stream-Keep-Bytes")
    if not keep:
        message = "Stream-Keep-Bytes is 1 or more; leave it out to keep everything."
        raise ClientError(message, code="invalid_value", param="Stream-Keep-Bytes")
    return keep


def _fork(headers: Mapping[str, str], forked: str) -> Fork | None:
    sub_offset = headers.get("stream-fork-sub-offset")
    given = headers.get("stream-fork-offset")
    if not forked:
        if sub_offset is not None or given is not None:
            message = "A fork's offset needs Stream-Forked-From: the path of the stream that is forked."
            raise ClientError(message, code="invalid_fork", param="Stream-Forked-From")
        return None
    if not forked.startswith(ROOT):
        message = f"Stream-Forked-From is the path of a stream: {ROOT}…"
        raise ClientError(message, code="invalid_fork", param="Stream-Forked-From")
    offset = None if given is None else parse_offset(given)
    return Fork(
        check_path(unquote(forked.removeprefix(ROOT))),
        None if offset is None else Mark(offset.entries, offset.bytes),
        0 if sub_offset is None else parse_number(sub_offset, "Stream-Fork-Sub-Offset"),
    )


# --- append --------------------------------------------------------------------------------------------


@_answers
async def append_to_publication(request: Request) -> Response:
    """``POST /v1/stream/{path}``: append the body, or close the stream, or both at once."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    path = _path(request)
    headers = request.headers
    close = headers.get(wire.CLOSED, "").lower() == "true"
    producer = _producer(headers)
    stream_seq = _name(headers, "stream-seq") if "stream-seq" in headers else ""
    digest = headers.get("repr-digest", "") if close else ""
    if digest and not _DIGEST.fullmatch(digest):
        message = "Repr-Digest is that of the whole content: sha-256=:<base64>:."
        raise ClientError(message, code="invalid_value", param="Repr-Digest")
    body = await read_body(request, ctx.append_bounds)
    publication = await ctx.gateway.publications.find(principal, path)
    if body:
        _check_content_type(headers.get("content-type", ""), publication.config.content_type)
    elif not close:
        raise ClientError("There is nothing to append: the body is empty.", code="empty_append")
    pieces = pieces_of(body, mode_of(publication.config.content_type))
    if body and not pieces:
        raise ClientError("There is nothing to append: the array is empty.", code="empty_append")
    done = await ctx.gateway.publications.append(
        publication, pieces, producer=producer, stream_seq=stream_seq, close=close, digest=digest
    )
    epoch = publication.open.info.epoch
    facts = {
        **SAFE,
        wire.NEXT_OFFSET: str(Offset(epoch, *done.mark)),
        "stream-id": publication.id,
        "cache-control": NO_STORE,
        "x-request-id": current_request_id(),
    }
    if done.closed:
        facts[wire.CLOSED] = "true"
    if producer is not None:
        facts |= {"producer-epoch": str(producer.epoch), "producer-seq": str(done.seq)}
    return Response(None, 200 if producer and body and not done.duplicate else 204, facts)


def _check_content_type(given: str, wanted: str) -> None:
    if not given.strip():
        message = "Say what the body is: the Content-Type of the stream."
        raise ClientError(message, code="missing_content_type", param="Content-Type")
    if media_type(given) != media_type(wanted):
        raise content_type_mismatch(wanted)


def _producer(headers: Mapping[str, str]) -> Producer | None:
    given = [name in headers for name in PRODUCER]
    if not any(given):
        return None
    if not all(given):
        message = "Producer-Id, Producer-Epoch and Producer-Seq belong together: send all three, or none."
        raise ClientError(message, code="invalid_value", param="Producer-Id")
    return Producer(
        _name(headers, "producer-id"),
        parse_number(headers["producer-epoch"], "Producer-Epoch"),
        parse_number(headers["producer-seq"], "Producer-Seq"),
    )


def _name(headers: Mapping[str, str], header: str) -> str:
    value = headers[header]
    if len(value) > MAX_NAME or not _SHOWN.fullmatch(value):
        name = header.title()
        message = f"{name} has 1 to {MAX_NAME} printable characters of ASCII."
        raise ClientError(message, code="invalid_value", param=name)
    return value


# --- read ----------------------------------------------------------------------------------------------


@_answers
async def read_publication(request: Request) -> Answer:
    """``GET /v1/stream/{path}``: content from an offset on; with ``live``, what comes then as well."""
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    head = request.method == "HEAD"
    publication = await ctx.gateway.publications.find(principal, _path(request), use=not head)
    return await _read_or_head(request, ctx, publication)


@_answers
async def read_linked(request: Request) -> Answer:
    """``GET /v1/stream/__link/{stream}?token=``: as above, by its id, for its owner and by a link."""
    ctx = context(request)
    token, stream = request.query_params.get("token", ""), stream_of(request.path_params["stream"])
    if not token:
        principal = ctx.admit(request, spends=False)
        if ctx.gateway.publications.owned(principal, stream) is None:
            raise ClientError("There is no such stream.", code="stream_not_found", status=404)
    else:
        if PRINCIPAL not in request.scope:
            ctx.guard.check_host(request.headers)
        ctx.links.admit(token, stream, "read")
    return await _read_or_head(request, ctx, await ctx.gateway.publications.find_linked(stream))


async def _read_or_head(request: Request, ctx: Context, publication: Publication) -> Answer:
    head = request.method == "HEAD"
    view = view_of(publication)
    asked = _asked(request)
    if not head:
        return await _read(request, ctx, view, asked)
    headers = stream_headers(view, view.tail, NO_STORE, closed=view.closed)
    if publication.config.ttl is not None:
        headers[wire.TTL] = str(publication.config.ttl)
    if publication.config.expires_at is not None:
        headers[wire.EXPIRES_AT] = wire.render_time(publication.config.expires_at)
    if publication.config.wanted.keep is not None:
        headers[wire.KEEP] = str(publication.config.wanted.keep)
    headers["etag"] = wire.etag(view.stream.id, wire.START, view.tail, closed=view.closed)
    return Response(headers=headers)


@_answers
async def read_generation(request: Request) -> Answer:
    """``GET /v1/stream/gen/{stream}``: a generation's events, as JSON messages."""
    ctx, stream, principal = await visit(request)
    gateway = ctx.gateway

    def attach() -> Callable[[], None]:
        return gateway.attach_reader(stream, principal)

    view = View(stream, "application/json", "json", attach, generation=True)
    asked = _asked(request)
    if request.method == "HEAD":
        return Response(headers=stream_headers(view, view.tail, NO_STORE, closed=view.closed))
    return await _read(request, ctx, view, asked)


class _Asked(NamedTuple):
    """What a read asks for. ``offset`` is None for the tail; ``whole``: it named none."""

    offset: Offset | None
    live: str
    cursor: str
    whole: bool
    comes_back: bool


def _asked(request: Request) -> _Asked:
    """Return what a request asks for; raises `ClientError`."""
    query = request.query_params
    live = query.get("live", "")
    if live not in ("", "long-poll", "sse"):
        message = "live is long-poll or sse; without it, what there is comes at once."
        raise ClientError(message, code="invalid_value", param="live")
    given = query.getlist("offset")
    if len(given) > 1:
        raise wire.invalid_offset("There is more than one offset.")
    if live and not given:
        raise wire.invalid_offset("A live read needs an offset: -1 is the start, now the end.")
    offset = parse_offset(given[0]) if given else wire.START
    comes_back = False
    if last_id := request.headers.get("last-event-id", ""):  # an EventSource keeps its old URL
        last = parse_offset(last_id)
        comes_back = live == "sse"
        offset = last if comes_back else offset
    return _Asked(offset, live, query.get("cursor", ""), not given, comes_back)


async def _read(request: Request, ctx: Context, view: View, asked: _Asked) -> Answer:
    offset, live, cursor, whole, comes_back = asked
    start = resolve(view, offset)
    if live == "sse":
        begins, trimmed = await first_entry(view, start)
        if trimmed is not None and start.entries and not comes_back:
            raise trimmed
        opening = b""
        if trimmed is not None and start.entries:
            opening = sse.encode(native.gap(str(start), str(begins)), event=b"gap", id=str(begins).encode())
        return Live(ctx, view, begins, cursor, opening)
    if live:
        return LongPoll(ctx, view, start, cursor, ctx.settings.long_poll)
    if offset is None:
        page = Page(b"", start, start, up_to_date=True, closed=view.closed)
        return page_answer(view, page, tag=False)
    tail, closed = view.tail, view.closed
    if whole and view.mode != "json":
        begins, _ = await first_entry(view, start)
        tag = wire.etag(view.stream.id, begins, tail, closed=closed)
        answer: Answer = Everything(ctx, view, begins, tail, closed=closed)
    else:
        page = await read_page(view, start)
        tag = wire.etag(view.stream.id, page.start, page.end, closed=page.closed)
        answer = page_answer(view, page, tag=True)
    if tag in request.headers.get("if-none-match", ""):
        headers = stream_headers(view, tail, "private, no-cache, no-transform", closed=closed)
        del headers["content-type"]
        return Response(None, 304, {**headers, "etag": tag})
    return answer


# --- delete, list --------------------------------------------------------------------------------------


@_answers
async def delete_publication(request: Request) -> Response:
    """``DELETE /v1/stream/{path}``: erase a stream; its readers see its end."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    publication = await ctx.gateway.publications.find(principal, _path(request), use=False)
    await ctx.gateway.publications.erase(publication)
    return Response(None, 204, {**SAFE, "cache-control": NO_STORE, "x-request-id": current_request_id()})


@_answers
async def list_publications(request: Request) -> Response:
    """``GET /v1/stream``: the caller's own, by path, a page at a time."""
    ctx = context(request)
    principal: Principal = ctx.admit(request, spends=False)
    query = request.query_params
    limit = int(number(query, "limit", 100, MAX_LIST)) or 1
    found = ctx.gateway.publications.list(
        principal, query.get("prefix", "")[:MAX_PATH], query.get("after", "")[:MAX_PATH], limit + 1
    )
    body = {
        "object": "list",
        "data": [_listed(publication) for publication in found[:limit]],
        "has_more": len(found) > limit,
    }
    headers = {**SAFE, "cache-control": "no-store", "x-request-id": current_request_id()}
    return Response(msgspec.json.encode(body), 200, headers, "application/json")


def _listed(publication: Publication) -> dict[str, Any]:
    return {
        "path": publication.config.path,
        "id": publication.id,
        "content_type": publication.config.content_type,
        "created_at": int(publication.created_at),
        "bytes": publication.size,
        "closed": publication.closed,
    }
