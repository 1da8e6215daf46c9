"""The AI SDK's chats: asked, followed again after a lost connection, stopped.

A page knows its chat and no stream, so streams are found by chat here (`penstock.server.chats`). A lost
connection stops nothing: the SDK's own ``stop()`` is one, too, which is why there is a route to stop.
"""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.server.chats import CHAT
from penstock.server.context import Context, context, read_body, require_json
from penstock.server.downstream import Downstream
from penstock.server.exchanges import current_request_id
from penstock.server.formats import MESSAGE, ai_sdk
from penstock.server.generations import AnyResponse, call_of, header_cursor, resumed
from penstock.server.reads import follow
from penstock.types.errors import ClientError
from penstock.types.principals import Principal
from penstock.wire.ai_sdk_requests import NAME, name, read_request

_encode = msgspec.json.Encoder().encode

NO_STORE: Final = {"cache-control": "no-store"}


async def ui_chat(request: Request) -> AnyResponse:
    """``POST /ui/chat``: the next message of a chat, as a UI message stream."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    asked = read_request(body, ctx.default_model)
    noted = {CHAT: asked.chat, MESSAGE: asked.message}
    call = call_of(
        request,
        principal,
        NAME,
        asked.request,
        body,
        comes_back=True,
        metadata={key: value for key, value in noted.items() if value} or None,
    )
    given = header_cursor(request)
    if given is not None:
        stream = await resumed(ctx, given, call)
        chat = ctx.chats.of(principal, asked.chat)
    else:
        chat = ctx.chats.of(principal, asked.chat)
        async with chat.starting:
            stream = (await ctx.gateway.start(call)).stream
            chat.add(stream)

    def ended(down: Downstream) -> None:
        chat.ended(stream.id, down)

    format = ai_sdk(stream.info.metadata)
    hold = given is None
    return follow(ctx, stream, format, principal, given, request_id=call.request_id, hold=hold, ended=ended)


async def ui_chat_stream(request: Request) -> AnyResponse:
    """``GET /ui/chat/{chat}/stream``: the last answer from its beginning, then live.

    204 where there is nothing to resume: no answer is open, and a reader of this chat has been given the end
    of the last one.
    """
    ctx = context(request)
    principal = ctx.admit(request, spends=False)
    name_of_chat = _chat(request)
    given = header_cursor(request)
    stream = await ctx.chats.newest(ctx.gateway, principal, name_of_chat)
    if stream is None:
        return _nothing()
    chat = ctx.chats.of(principal, name_of_chat)
    chat.add(stream)
    if not stream.is_open and given is None and chat.was_given():
        return _nothing()

    def ended(down: Downstream) -> None:
        chat.ended(stream.id, down)

    format = ai_sdk(stream.info.metadata)
    return follow(ctx, stream, format, principal, given, may_204=True, ended=ended)


async def ui_chat_stop(request: Request) -> Response:
    """``POST /ui/chat/{chat}/stop``: stop what is answered; the provider has been left when this returns."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    name_of_chat = _chat(request)
    await ctx.chats.newest(ctx.gateway, principal, name_of_chat)  # for one of an earlier process
    stopped: list[str] = []
    chat = ctx.chats.of(principal, name_of_chat)
    async with chat.starting:  # what is being started gets a name first
        for stream_id in chat.open:
            stopped += await _stop(ctx, principal, stream_id)
        chat.open = []
    headers = {"x-request-id": current_request_id(), **NO_STORE}
    return Response(_encode({"chat": name_of_chat, "stopped": stopped}), 200, headers, "application/json")


def _chat(request: Request) -> str:
    return name(request.path_params["chat"], "chat")


def _nothing() -> Response:
    return Response(status_code=204, headers={"x-request-id": current_request_id(), **NO_STORE})


async def _stop(ctx: Context, principal: Principal, stream_id: str) -> list[str]:
    """Stop one stream; return its id if that made an end of it."""
    try:
        was = await ctx.gateway.find(stream_id, principal)
        if not was.is_open:
            return []
        await ctx.gateway.cancel(stream_id, principal)
    except ClientError:  # it is gone
        return []
    return [stream_id]
