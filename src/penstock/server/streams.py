"""Streams as things: listed, looked at, polled, cancelled, erased, and given away by link.

Following one live is in `penstock.server.reads`. Every route here finds its stream through `visit`,
which is where it is decided who may.
"""

import re
from typing import Any, Final

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.server.context import Context, context, parse_object, read_body, require_json
from penstock.server.downstream import ClientGone, Present, downstream
from penstock.server.exchanges import current_request_id
from penstock.server.links import DEFAULT_TTL, MAX_TTL, LinkScope
from penstock.server.reads import (
    cursor_header,
    dict_of,
    given_cursor,
    read_on,
    resolve,
    stream_headers,
    visit,
)
from penstock.server.responses import DEFERRED
from penstock.server.snapshots import Snapshot
from penstock.streams.stream import Stream
from penstock.types.errors import ClientError
from penstock.types.positions import Cursor, is_stream_id, stream_of
from penstock.types.principals import OF, Principal

MAX_LIST: Final = 100
MAX_ENTRIES: Final = 1_000
MAX_WAIT: Final = 60.0
"""Bounds of a page of streams, of a page of entries, and of the seconds that a poll may wait."""

_encode = msgspec.json.Encoder().encode


_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")


def number(query: QueryParams, name: str, default: float, most: float) -> float:
    """Return a number of the query, from 0 to ``most`` (which bounds it silently); raises `ClientError`."""
    text = query.get(name, "")
    if not text:
        return default
    value = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= value < float("inf"):
        raise ClientError(f"{name} is a number, 0 or more.", code="invalid_value", param=name)
    return min(value, most)


# --- list, look ----------------------------------------------------------------------------------------


async def list_streams(request: Request) -> Response:
    """``GET /v1/streams``: the caller's own, newest first, a page at a time. With ``principal=`` those of
    another: one's own page or user, or, for administrators, anybody."""
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    query = request.query_params
    if (name := query.get("principal", "")) and name != principal.id:
        if not (principal.admin or name.startswith(principal.id + OF)):
            message = "Streams of others are for administrators to list."
            raise ClientError(message, code="admin_required", status=403)
        principal = Principal(name)
    limit = int(number(query, "limit", 20, MAX_LIST)) or 1
    before = query.get("before", "")
    if before and not is_stream_id(before):
        raise ClientError("before is the id of a stream.", code="invalid_value", param="before")
    found = await ctx.gateway.list(principal, before, limit + 1)
    body = {
        "object": "list",
        "data": [_listed(stream) for stream in found[:limit]],
        "has_more": len(found) > limit,
    }
    headers = {"cache-control": "no-store", "x-request-id": current_request_id()}
    return Response(_encode(body), 200, headers, "application/json")


def _listed(stream: Stream) -> dict[str, Any]:
    info = stream.info
    body: dict[str, Any] = {
        "id": stream.id,
        "status": stream.state,
        "model": info.model,
        "route": info.route,
        "created_at": int(info.created_at),
        "entries": stream.committed,
    }
    if info.closed_at is not None:
        body["closed_at"] = int(info.closed_at)
        body["expires_at"] = int(info.closed_at + info.retention)
    if info.metadata:
        body["metadata"] = info.metadata
    return body


async def snapshot(request: Request) -> Response:
    """``GET /v1/streams/{stream}``: status, usage and the answer so far, with the cursor they stand for."""
    ctx, stream, _ = await visit(request)
    headers = dict_of(stream_headers(stream, None, current_request_id()))
    if request.method == "HEAD":
        return Response(headers=headers | cursor_header(stream))
    upto, state = stream.committed, stream.state
    so_far = Snapshot()
    after = 0
    while after < upto:
        for entry in await read_on(stream, after):
            if entry.seq > upto:
                break
            so_far.add(entry.event)
            after = entry.seq
        if so_far.size > ctx.settings.max_snapshot_chars:
            message = "The answer is too long to be given whole: read it as a stream."
            raise ClientError(message, code="answer_too_large", status=422)
    body: dict[str, Any] = {
        "id": stream.id,
        "status": state,
        "model": stream.info.model,
        "created_at": int(stream.info.created_at),
        "cursor": str(Cursor(stream.id, stream.position(upto))),
        "entries": upto,
        **so_far.body(),
    }
    if stream.info.metadata:
        body["metadata"] = stream.info.metadata
    return Response(_encode(body), 200, headers)


# --- poll ----------------------------------------------------------------------------------------------


class Poll:
    """A page of entries; when there is none yet, the first that come within the wait."""

    def __init__(
        self, ctx: Context, stream: Stream, principal: Principal, *, after: int, limit: int, wait: float
    ) -> None:
        """Stand after ``after`` entries."""
        self._ctx = ctx
        self._stream = stream
        self._principal = principal
        self._after = after
        self._limit = limit
        self._wait = wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave it to `serve`."""
        scope[DEFERRED] = (self, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait if need be, then answer."""
        stream = self._stream
        left = self._ctx.gateway.attach_reader(stream, self._principal)
        try:
            async with Present(downstream(scope, receive, send, self._ctx.settings.send_timeout)):
                await stream.wait_beyond_for(self._after, self._wait)
            response = await self._answer()
        except ClientGone:
            return
        finally:
            left()
        await response(scope, receive, send)

    async def _answer(self) -> Response:
        stream, after = self._stream, self._after
        entries = await read_on(stream, after, self._limit) if stream.committed > after else []
        last = entries[-1].seq if entries else after
        facts = {
            "stream": stream.id,
            "status": stream.state,
            "cursor": str(Cursor(stream.id, stream.position(last))),
            "at_tail": last >= stream.committed,
        }
        lines = b",".join(entry.line for entry in entries)
        body = _encode(facts)[:-1] + b',"entries":[' + lines + b"]}"
        return Response(body, 200, dict_of(stream_headers(stream, None, current_request_id())))


async def entries(request: Request) -> Response | Poll:
    """``GET /v1/streams/{stream}/entries``: a page of entries after a cursor, waited for if wanted."""
    ctx, stream, principal = await visit(request)
    query = request.query_params
    position = resolve(stream, given_cursor(request.headers, query))
    limit = int(number(query, "limit", 256, MAX_ENTRIES)) or 1
    wait = number(query, "wait", 0.0, MAX_WAIT)
    if request.method == "HEAD":
        headers = dict_of(stream_headers(stream, None, current_request_id()))
        return Response(headers=headers | cursor_header(stream))
    return Poll(ctx, stream, principal, after=position.entries, limit=limit, wait=wait)


# --- cancel, erase, give away --------------------------------------------------------------------------


async def cancel(request: Request) -> Response:
    """``POST /v1/streams/{stream}/cancel``: stop it; 200 with the final state, every reader sees it."""
    ctx, stream, principal = await visit(request, "cancel")
    return cancelled(await ctx.gateway.cancel(stream.id, principal))


def cancelled(stream: Stream) -> Response:
    """Return what a cancel answers."""
    cursor = str(Cursor(stream.id, stream.position(stream.committed)))
    body = {"id": stream.id, "status": stream.state, "cursor": cursor}
    status = 202 if stream.is_open else 200
    return Response(_encode(body), status, dict_of(stream_headers(stream, None, current_request_id())))


async def erase(request: Request) -> Response:
    """``DELETE /v1/streams/{stream}``: cancel it and erase what is stored of it."""
    ctx, stream, principal = await visit(request, "own")
    await ctx.gateway.erase(stream.id, principal)
    body = {"id": stream.id, "object": "stream.deleted", "deleted": True}
    return Response(_encode(body), 200, {"x-request-id": current_request_id()}, "application/json")


class LinkOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/streams/{stream}/links``. ``ttl_s``: seconds that the link works."""

    scope: LinkScope = "read"
    ttl_s: float = DEFAULT_TTL


_decode_order = msgspec.json.Decoder(LinkOrder).decode


async def make_link(request: Request) -> Response:
    """``POST /v1/streams/{stream}/links``: a URL with which anybody may read, or cancel, this stream.

    One that was published can be read.
    """
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    publications, stream_id = ctx.gateway.publications, stream_of(request.path_params["stream"])
    published = publications.owned(principal, stream_id) is not None
    if published:
        stream: Stream = (await publications.find_linked(stream_id)).open
    else:
        _, stream, _ = await visit(request, "own")
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    parse_object(body)
    try:
        order = _decode_order(body)
    except msgspec.ValidationError as error:
        raise ClientError(f"The body does not fit: {error}.", code="invalid_request") from None
    if not 0 < order.ttl_s <= MAX_TTL:
        message = f"ttl_s is a number of seconds above 0, at most {MAX_TTL:.0f}."
        raise ClientError(message, code="invalid_value", param="ttl_s")
    if published and order.scope != "read":
        message = "A stream that is published can be read by a link: scope is read."
        raise ClientError(message, code="invalid_value", param="scope")
    link = ctx.links.make(stream.id, order.scope, order.ttl_s)
    ending = "cancel" if order.scope == "cancel" else "events"
    path = f"stream/__link/{stream.id}" if published else f"streams/{stream.id}/{ending}"
    made = {
        "token": link.token,
        "scope": order.scope,
        "expires_at": link.expires_at,
        "url": f"{request.scope.get('root_path', '')}/v1/{path}?token={link.token}",
    }
    return Response(_encode(made), 201, dict_of(stream_headers(stream, None, current_request_id())))
