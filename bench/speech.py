"""What an answer looks like on the wire of each provider: its beginning, a token, its end.

As the real ones send it, in length and in shape: fields that say nothing new on every chunk are there, since
reading past them is part of what a token costs. The token's text is a place for sixteen digits. No socket and
no timing enters.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

DIGITS: Final = "0" * 16
TEXT: Final = f"t={DIGITS} "
"""A token; the digits are replaced by the time of its sending."""


class Speech(NamedTuple):
    """One answer of one provider. ``token`` holds `TEXT` once; ``ending`` follows the last one."""

    media_type: str
    opening: str
    token: str
    ending: str


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _data(value: Any) -> str:
    return f"data: {_compact(value)}\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"event: {value['type']}\n{_data(value)}"


def chat(answer: str, created: int, tokens: int, *, usage: bool = True) -> Speech:
    """OpenAI's chat completions, about 225 bytes a token."""

    def chunk(choices: list[Any], **more: Any) -> str:
        head = {"id": answer, "object": "chat.completion.chunk", "created": created, "model": "bench"}
        return _data({**head, "choices": choices, **more})

    def choice(delta: dict[str, Any], finish: str | None = None) -> list[Any]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    counts = {"prompt_tokens": 32, "completion_tokens": tokens, "total_tokens": tokens + 32}
    ending = chunk(choice({}, "stop")) + (chunk([], usage=counts) if usage else "") + "data: [DONE]\n\n"
    opening = chunk(choice({"role": "assistant", "content": ""}))
    return Speech("text/event-stream; charset=utf-8", opening, chunk(choice({"content": TEXT})), ending)


def messages(answer: str, created: int, tokens: int) -> Speech:
    """Anthropic's messages."""
    message: dict[str, Any] = {
        "id": answer,
        "type": "message",
        "role": "assistant",
        "model": "bench",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 32, "output_tokens": 1},
    }
    opening = _event({"type": "message_start", "message": message})
    opening += _event(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    )
    opening += _event({"type": "ping"})
    delta = {"type": "text_delta", "text": TEXT}
    token = _event({"type": "content_block_delta", "index": 0, "delta": delta})
    ending = _event({"type": "content_block_stop", "index": 0})
    ending += _event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": tokens},
        }
    )
    ending += _event({"type": "message_stop"})
    return Speech("text/event-stream; charset=utf-8", opening, token, ending)


def responses(answer: str, created: int, tokens: int) -> Speech:
    """OpenAI's responses, with what hides the length of a token; their end says the text once more."""
    place = {"item_id": f"msg_{answer}", "output_index": 0, "content_index": 0}

    def step(kind: str, number: int, **more: Any) -> str:
        return _event({"type": f"response.{kind}", "sequence_number": number, **more})

    def response(status: str, **more: Any) -> dict[str, Any]:
        head = {"id": f"resp_{answer}", "object": "response", "created_at": created, "status": status}
        return {**head, "model": "bench", "output": [], "usage": None, **more}

    def item(status: str, content: list[Any]) -> dict[str, Any]:
        head = {"id": f"msg_{answer}", "type": "message", "status": status, "role": "assistant"}
        return {**head, "content": content}

    def part(text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    opening = step("created", 0, response=response("in_progress"))
    opening += step("in_progress", 1, response=response("in_progress"))
    opening += step("output_item.added", 2, output_index=0, item=item("in_progress", []))
    opening += step("content_part.added", 3, **place, part=part(""))
    token = step("output_text.delta", 1234, **place, delta=TEXT, logprobs=[], obfuscation="IUeWxFz2vQ8")
    counts = {
        "input_tokens": 32,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens + 32,
    }
    done = item("completed", [part("…")])
    ending = step("output_text.done", 9000, **place, text="…", logprobs=[])
    ending += step("content_part.done", 9001, **place, part=part("…"))
    ending += step("output_item.done", 9002, output_index=0, item=done)
    ending += step("completed", 9003, response=response("completed", output=[done], usage=counts))
    return Speech("text/event-stream; charset=utf-8", opening, token, ending)


def gemini(answer: str, created: int, tokens: int) -> Speech:
    """Google's content, which counts on every chunk; CRLF, as there."""

    def chunk(text: str, **more: Any) -> str:
        candidate = {"content": {"parts": [{"text": text}], "role": "model"}, **more, "index": 0}
        counts = {
            "promptTokenCount": 32,
            "candidatesTokenCount": tokens,
            "totalTokenCount": tokens + 32,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 32}],
        }
        whole = {"candidates": [candidate], "usageMetadata": counts}
        return f"data: {_compact({**whole, 'modelVersion': 'bench', 'responseId': answer})}\r\n\r\n"

    return Speech("text/event-stream", chunk("Well, "), chunk(TEXT), chunk("", finishReason="STOP"))


def ollama(answer: str, created: int, tokens: int) -> Speech:
    """Ollama's lines."""

    def line(text: str, *, done: bool = False, **more: Any) -> str:
        head = {"model": "bench", "created_at": "2026-03-01T12:34:56.123456789Z"}
        whole = {**head, "message": {"role": "assistant", "content": text}, "done": done, **more}
        return f"{_compact(whole)}\n"

    took = {"total_duration": 4883583458, "load_duration": 1334875, "prompt_eval_count": 32}
    took |= {"prompt_eval_duration": 342546000, "eval_count": tokens, "eval_duration": 4535599000}
    last = line("", done=True, done_reason="stop", **took)
    return Speech("application/x-ndjson", line("Well, "), line(TEXT), last)


SPEECHES: Final = {
    "chat": chat,
    "messages": messages,
    "responses": responses,
    "gemini": gemini,
    "ollama": ollama,
}
