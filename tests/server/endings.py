"""Providers that end badly in every way that there is, in every dialect: a server whose paths say how.

``/<dialect>/<ending>/…`` and whatever a provider's own path adds. What is said before the end are the shared
vectors; `SAID` is the provider's own word for its failure.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from tests.vectors import load, octets

SAID = "The engine overheated."
CODE = "engine_hot"


class Provider(NamedTuple):
    """One dialect towards providers: how it is configured, what begins its end, how it says an error."""

    kind: str
    finish: bytes
    error: bytes
    document: object
    settings: dict = {}
    line_end: bytes = b"\n\n"
    media_type: str = "text/event-stream"
    path: str = ""


def _event(data: object, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


_ERROR = {"message": SAID, "type": "server_error", "code": CODE}
_CLAUDES = {"type": "error", "error": {"type": "api_error", "message": SAID}}
_ALIBABAS = {"code": "InternalError.Algo", "message": SAID, "request_id": "r-1"}
_GOOGLES = {"error": {"code": 500, "message": SAID, "status": "INTERNAL"}}

PROVIDERS = {
    "openai_chat": Provider(
        "openai", b'"finish_reason":"stop"', _event({"error": _ERROR}), {"error": _ERROR}
    ),
    "openai_responses": Provider(
        "openai",
        b"event: response.completed",
        _event({**_ERROR, "type": "error"}, "error"),
        {"error": _ERROR},
        {"api": "responses"},
    ),
    "anthropic_messages": Provider("anthropic", b"event: message_delta", _event(_CLAUDES, "error"), _CLAUDES),
    "gemini": Provider("gemini", b'"finishReason"', _event(_GOOGLES), _GOOGLES),
    "ollama": Provider(
        "ollama",
        b'"done":true',
        json.dumps({"error": SAID}).encode() + b"\n",
        {"error": SAID},
        line_end=b"\n",
        media_type="application/x-ndjson",
    ),
    "cohere": Provider(
        "cohere",
        b"event: message-end",
        _event({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": SAID}}, "message-end"),
        {"message": SAID},
    ),
    "dashscope": Provider(
        "dashscope",
        b'"finish_reason":"stop"',
        f"event:error\n:HTTP_STATUS/500\ndata:{json.dumps(_ALIBABAS)}\n\n".encode(),
        _ALIBABAS,
        {"api": "native"},
    ),
}

ENDINGS = (
    "whole",  # to hold the others against
    "refused",
    "failing",
    "no head",
    "nothing",
    "a page",
    "error document",
    "error first",
    "error event",
    "unfinished",
    "done alone",
    "in an event",
    "cut",
    "silence",
)
SPOKEN = ("refused", "failing", "error document", "error first", "error event")
"""Endings for which the provider gives a reason, which the client must be told."""


def possible(provider: str, ending: str) -> bool:
    """Whether a provider can end so."""
    return ending != "done alone" or provider == "openai_chat"


def events(provider: str) -> list[bytes]:
    """Return what a provider says, event by event."""
    (vector,) = [vector for vector in load(provider) if vector.name == "text"]
    end = PROVIDERS[provider].line_end
    return [event + end for event in octets(vector.content, "input").split(end) if event]


def body(provider: str, ending: str) -> bytes:
    """Return the bytes that come before a stream's end."""
    told = PROVIDERS[provider]
    said = events(provider)
    before = said[: next(n for n, event in enumerate(said) if told.finish in event)]
    match ending:
        case "whole":
            return b"".join(said)
        case "error first":
            return told.error
        case "error event":
            return b"".join(before) + told.error
        case "done alone":
            return b"".join(before) + b"data: [DONE]\n\n"
        case "in an event":
            return b"".join(before) + said[len(before)][:-20]
    return b"".join(before)


def _pieces(provider: str, ending: str) -> Iterator[bytes]:
    told = PROVIDERS[provider]

    def head(status: int, kind: str, *more: bytes) -> bytes:
        lines = [b"HTTP/1.1 %d X" % status, b"content-type: %b" % kind.encode(), b"connection: close", *more]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    match ending:
        case "no head":
            return
        case "refused" | "failing":
            status = 400 if ending == "refused" else 500
            yield head(status, "application/json") + json.dumps(told.document).encode()
        case "error document":
            yield head(200, "application/json") + json.dumps(told.document).encode()
        case "a page":
            yield head(200, "text/html") + b"<!doctype html><title>Welcome</title><p>A proxy's own page."
        case "nothing":
            yield head(200, told.media_type)
        case "cut":
            yield head(200, told.media_type, b"content-length: 100000") + body(provider, ending)
        case _:
            yield head(200, told.media_type) + body(provider, ending)


@asynccontextmanager
async def ending_badly():
    """Serve; gives the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            for line in request.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.split(b":")[1]))
            _, provider, ending, *_ = request.split(b" ")[1].decode().split("/")
            ending = ending.replace("_", " ")
            for piece in _pieces(provider, ending):
                writer.write(piece)
            await writer.drain()
            if ending == "silence":
                await reader.read()  # until the gateway leaves
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
