"""Scripted models of the tests' own, in two dialects: what they say is known to the byte.

A model continues what it is shown the beginning of, exactly: as a prefill, or asked for the rest; then it
repeats the last words first, as models do. One called ``picky`` refuses a prefill, in a provider's words.
"""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from typing import NamedTuple

from penstock.providers.provider import CONTINUE_PROMPT

TEXT = "The keeper opens the sluice, and water lifts the boat: 水が船を持ち上げる 🚤, slowly, until it is up."
PIECES = re.findall(r"\S+\s*", TEXT)
ARGUMENTS = ['{"city": ', '"Xiamen, ', '厦门"', "}"]
PREFILL_REFUSED = "This model does not support assistant message prefill."


class Asked(NamedTuple):
    """One request, as far as a model looks at it."""

    model: str
    begun: str
    prefilled: bool
    tools: bool


def read(body: dict) -> Asked:
    messages = body["messages"]
    last, begun = messages[-1], ""
    prefilled = last["role"] == "assistant"
    if prefilled:
        begun = words(last)
    elif words(last) == CONTINUE_PROMPT:
        begun = words(messages[-2])
    return Asked(body["model"], begun, prefilled, bool(body.get("tools")))


def words(message: dict) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def pieces(asked: Asked) -> list[str]:
    """What is left to say; asked for the rest, a model says its last words again."""
    if not asked.begun:
        return PIECES
    assert TEXT.startswith(asked.begun), asked
    at = len(asked.begun)
    if not asked.prefilled:
        at = max(0, at - 20)
    return re.findall(r"\S+\s*|\s+", TEXT[at:])


def openai_chat(asked: Asked) -> list[bytes]:
    """The events of an answer."""

    def chunk(delta=None, finish=None, **more):
        choices = [] if more else [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
        about = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": asked.model}
        return b"data: %b\n\n" % dumps({**about, "choices": choices, **more})

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": piece}) for piece in pieces(asked)]
    if asked.tools:
        call = {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": ""},
        }
        events.append(chunk({"tool_calls": [call]}))
        events += [
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in ARGUMENTS
        ]
    events.append(chunk(finish="tool_calls" if asked.tools else "stop"))
    events.append(chunk(usage={"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23}))
    return [*events, b"data: [DONE]\n\n"]


def anthropic(asked: Asked) -> list[bytes]:
    """The events of an answer."""

    def event(name, **data):
        return b"event: %b\ndata: %b\n\n" % (name.encode(), dumps({"type": name, **data}))

    def block(index, kind, deltas, **start):
        yield event("content_block_start", index=index, content_block={"type": kind, **start})
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)

    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": asked.model}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces(asked)]
    events = [event("message_start", message=message), event("ping")]
    events += block(0, "text", deltas, text="")
    if asked.tools:
        parts = [{"type": "input_json_delta", "partial_json": part} for part in ARGUMENTS]
        events += block(1, "tool_use", parts, id="toolu_1", name="weather", input={})
    reason = {"stop_reason": "tool_use" if asked.tools else "end_turn", "stop_sequence": None}
    events.append(event("message_delta", delta=reason, usage={"output_tokens": 20}))
    return [*events, event("message_stop")]


ROUTES = {"/v1/chat/completions": openai_chat, "/v1/messages": anthropic}


def refusal(path: str) -> bytes:
    error = {"type": "invalid_request_error", "message": PREFILL_REFUSED}
    body = {"type": "error", "error": error} if path == "/v1/messages" else {"error": error}
    return dumps(body)


def dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@asynccontextmanager
async def serving_models():
    """Serve the models; give the port."""

    async def serve(reader, writer):
        try:
            path, body = await request_of(reader)
            asked = read(json.loads(body))
            if asked.model == "picky" and asked.prefilled:
                data = refusal(path)
                head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            else:
                data = b"".join(ROUTES[path](asked))
                head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            writer.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(data) + data)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def request_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Read a whole request; return its path and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"(?i)^content-length: (\d+)", head, re.MULTILINE)
    return head.split()[1], await reader.readexactly(int(length[1]) if length else 0)
