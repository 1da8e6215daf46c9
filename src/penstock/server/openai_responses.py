"""OpenAI's Responses: created, read again, followed from a number on, stopped, erased, gone on from.

A response is a stream under another name. What makes it more than that, the request that it repeats and
that others go on from, is kept by `penstock.server.conversations`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.server.context import Context, context, read_body, require_json
from penstock.server.conversations import NOTHING, Kept
from penstock.server.exchanges import current_request_id
from penstock.server.formats import openai_responses
from penstock.server.generations import (
    AnyResponse,
    call_of,
    can_come_back,
    header_cursor,
    resumed,
    wants_ids,
)
from penstock.server.reads import (
    Whole,
    answer_of,
    dict_of,
    events_of,
    follow,
    given_cursor,
    stream_headers,
    visit,
)
from penstock.streams.stream import Stream
from penstock.types.errors import ClientError
from penstock.types.events import AnyEvent
from penstock.types.positions import stream_of
from penstock.types.principals import Principal
from penstock.wire.dialect import Answer
from penstock.wire.openai_responses import fold
from penstock.wire.openai_responses_requests import NAME, Asked, Item, read_request

MAX_PAGE: Final = 100
PAGE: Final = 20
"""Input items of one page, at most and by default, as OpenAI has it."""

_OUR_ITEM: Final = re.compile(r"[a-z]+_([0-9a-z]{2}[0-9A-HJKMNP-TV-Z]{26})_([0-9]{1,6})")

_encode = msgspec.json.Encoder().encode


# --- create --------------------------------------------------------------------------------------------


async def create_response(request: Request) -> AnyResponse:
    """``POST /v1/responses``. In the ``background`` it is answered at once, and goes on by itself."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    asked = read_request(body)
    earlier = await _earlier(ctx, principal, asked)
    items = [*earlier, *[await _resolved(ctx, principal, item) for item in asked.items]]
    generation = asked.request(items)
    background = asked.given.background is True
    comes_back = background or can_come_back(request)
    call = call_of(
        request,
        principal,
        NAME,
        generation,
        body,
        comes_back=comes_back,
        metadata=asked.given.metadata,
    )
    given = header_cursor(request)
    if given is not None:
        stream = await resumed(ctx, given, call)
    else:
        started = await ctx.gateway.start(call)
        stream = started.stream
        if background and not started.existing and not generation.stream:
            ctx.gateway.leave_alone(stream)
    kept = Kept(items, len(earlier), asked.echo, len(body))
    if asked.given.store is not False:
        ctx.conversations.keep(stream.id, kept)
    if generation.stream:
        format = openai_responses(kept.echo, with_ids=wants_ids(request))
        hold = given is None and not background
        return follow(ctx, stream, format, principal, given, request_id=call.request_id, hold=hold)
    if background:
        return await _as_it_is(ctx, stream, call.request_id, kept)
    return Whole(ctx, stream, principal, call.request_id, _renderer(kept))


def _renderer(kept: Kept) -> Any:
    def render(answer: Answer, events: Sequence[AnyEvent]) -> bytes:
        return _encode(fold(answer, events, kept.echo))

    return render


async def _as_it_is(ctx: Context, stream: Stream, request_id: str, kept: Kept) -> Response:
    """Return the response object, with whatever there is of it."""
    body = _encode(await _object(ctx, stream, kept))
    return Response(body, 200, dict_of(stream_headers(stream, None, request_id)))


async def _object(ctx: Context, stream: Stream, kept: Kept) -> dict[str, Any]:
    return fold(answer_of(stream), await events_of(ctx, stream), kept.echo)


async def _earlier(ctx: Context, principal: Principal, asked: Asked) -> Sequence[Item]:
    """Return the conversation that a request goes on from; raises `ClientError` when it is not here."""
    if not asked.previous:
        return ()
    missing = ClientError(
        f"There is no response '{asked.previous[:100]}' to go on from: it was not stored, or its request is "
        "no longer kept. Send the conversation as 'input'.",
        code="previous_response_not_found",
        param="previous_response_id",
    )
    stream_id = stream_of(asked.previous)
    kept = ctx.conversations.find(stream_id)
    if kept is None:
        raise missing
    try:
        stream = await ctx.gateway.find(stream_id, principal)
    except ClientError:
        raise missing from None
    if stream.is_open:
        message = "The response to go on from is not complete yet: wait for its end, or cancel it."
        raise ClientError(message, code="stream_open", status=409, param="previous_response_id")
    return [*kept.items, *(await _object(ctx, stream, kept))["output"]]


async def _resolved(ctx: Context, principal: Principal, item: Item) -> Item:
    """Return ``item``, or what it refers to if that is part of an answer of ours."""
    kind, id_ = item.get("type", "item_reference" if item.keys() == {"id"} else None), item.get("id")
    if kind != "item_reference" or not isinstance(id_, str) or not (found := _OUR_ITEM.fullmatch(id_)):
        return item
    stream = await ctx.gateway.find(f"s_{found[1]}", principal)
    output: list[Item] = (await _object(ctx, stream, NOTHING))["output"]
    at = int(found[2])
    if at >= len(output):
        raise ClientError(f"There is no item '{id_}'.", code="not_found", status=404, param="input")
    return output[at]


# --- read, stop, erase ---------------------------------------------------------------------------------


async def retrieve_response(request: Request) -> AnyResponse:
    """``GET /v1/responses/{stream}``: as it is now; with ``stream=true`` from a number on, then live."""
    ctx, stream, principal = await visit(request)
    kept = _kept(ctx, stream)
    query = request.query_params
    if query.get("stream", "").lower() not in ("true", "1"):
        return await _as_it_is(ctx, stream, current_request_id(), kept)
    given = given_cursor({"last-event-id": request.headers.get("last-event-id", "")}, {})
    after = _number(query.get("starting_after", ""))
    format = openai_responses(kept.echo, with_ids=wants_ids(request), after=after)
    return follow(ctx, stream, format, principal, given)


def _kept(ctx: Context, stream: Stream) -> Kept:
    return ctx.conversations.find(stream.id) or NOTHING


def _number(text: str) -> int:
    """Read ``starting_after``, which counts the response's own events from 0; -1 without one."""
    if not text:
        return -1
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        message = "starting_after is the sequence_number of the last event that you have."
        raise ClientError(message, code="invalid_value", param="starting_after")
    return int(text)


async def cancel_response(request: Request) -> Response:
    """``POST /v1/responses/{stream}/cancel``: stop it; what arrived is kept. Idempotent."""
    ctx, stream, principal = await visit(request, "cancel")
    stream = await ctx.gateway.cancel(stream.id, principal)
    return await _as_it_is(ctx, stream, current_request_id(), _kept(ctx, stream))


async def delete_response(request: Request) -> Response:
    """``DELETE /v1/responses/{stream}``: stop it and erase what is stored of it."""
    ctx, stream, principal = await visit(request, "own")
    await ctx.gateway.erase(stream.id, principal)
    ctx.conversations.drop(stream.id)
    body = {"id": request.path_params["stream"], "object": "response", "deleted": True}
    return Response(_encode(body), 200, {"x-request-id": current_request_id()}, "application/json")


async def response_input_items(request: Request) -> Response:
    """``GET /v1/responses/{stream}/input_items``: what was asked, a page at a time, newest first."""
    ctx, stream, _ = await visit(request, "own")
    kept = ctx.conversations.find(stream.id)
    if kept is None:
        message = "The request of this response is not kept here any more."
        raise ClientError(message, code="not_found", status=404)
    listed = [
        {"id": f"item_{stream.id[2:]}_in{n}", "type": "message", **item} for n, item in enumerate(kept.items)
    ]
    body = _page(listed, request.query_params)
    return Response(_encode(body), 200, {"x-request-id": current_request_id()}, "application/json")


def _page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    order = query.get("order", "desc")
    limit = query.get("limit", "") or str(PAGE)
    if order not in ("asc", "desc"):
        raise ClientError("order is 'asc' or 'desc'.", code="invalid_value", param="order")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 5 and 1 <= int(limit) <= MAX_PAGE):
        message = f"limit is a number from 1 to {MAX_PAGE}."
        raise ClientError(message, code="invalid_value", param="limit")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    page = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(ordered),
    }


async def count_response_tokens(request: Request) -> Response:
    """``POST /v1/responses/input_tokens``: how many tokens a request has, estimated where nobody counts."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    asked = read_request(await read_body(request, ctx.settings))
    items = [*await _earlier(ctx, principal, asked), *asked.items]
    counted = await ctx.count(principal, asked.request(items))
    told: dict[str, Any] = {"object": "response.input_tokens", "input_tokens": counted.tokens}
    if counted.estimated:
        told["estimated"] = True
    return Response(_encode(told), 200, {"x-request-id": current_request_id()}, "application/json")
