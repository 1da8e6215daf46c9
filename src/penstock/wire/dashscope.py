"""DashScope's own format, towards providers: the decoder and parse_error; requests in `dashscope_requests`.

Owns the events of ``…/generation`` with ``X-DashScope-SSE: enable`` and ``incremental_output``: each holds an
``output`` whose choices have OpenAI's form but for their content, which may be parts, and counts so far.
There is no mark of the end: an answer is whole when its choices have finished. The status of an error that
stands inside the stream is said in a comment before it.

Strategy: a piece of plain text is decoded strictly; anything else is put in the form that `ChatDecoder`
takes, so that calls, finish reasons and unknown fields are read by the same rules.

Sources: dashscope (Python, 2.0.2); DashScope's documentation on error codes.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.types.errors import UpstreamError
from penstock.types.events import Extra, Opaque, TextDelta, UsageReported
from penstock.wire.dashscope_requests import NAME, render_request
from penstock.wire.decoding import Events, as_count, as_objects, as_text, read_json
from penstock.wire.openai_chat_decoder import ChatDecoder
from penstock.wire.provider_errors import Problem, error_response, find_problem, upstream_error
from penstock.wire.sse import SseDecoder

__all__ = ["NAME", "DashScopeDecoder", "is_elsewhere", "parse_error", "render_request"]


# --- EventDecoder ----------------------------------------------------------------------------------


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: str = "assistant"
    reasoning_content: str = ""


class _Choice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    message: _Message
    finish_reason: str | None = None
    index: int = 0


class _Output(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    choices: list[_Choice]


class _Usage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    output: _Output
    usage: _Usage
    request_id: str = ""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode

_STATUS: Final = re.compile(rb"\s*HTTP_STATUS/([45]\d\d)\s*")
_CHUNK_FIELDS: Final = frozenset(("output", "usage", "request_id", "code", "message", "status_code"))
_OUTPUT_FIELDS: Final = frozenset(("choices", "text", "finish_reason"))
_USAGE_FIELDS: Final = frozenset(("input_tokens", "output_tokens", "total_tokens", "cached_tokens")).union(
    ("prompt_tokens_details", "output_tokens_details")
)


class DashScopeDecoder(ChatDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder` and `ChatDecoder`.

    Where there are several choices, each event counts the one that it speaks of: the counts are added up.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__()
        self._counts: dict[int, UsageReported] = {}

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        if self._states and name != b"error":
            try:
                chunk = _decode_chunk(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if len(chunk.output.choices) == 1:
                    choice = chunk.output.choices[0]
                    message = choice.message
                    if (
                        message.content
                        and not message.reasoning_content
                        and choice.finish_reason in ("null", None, "")
                        and choice.index in self._states
                    ):
                        events.append(TextDelta(message.content, choice.index))
                        used = chunk.usage
                        self._count(choice.index, UsageReported(used.input_tokens, used.output_tokens))
                        return
        if data == b"[DONE]" or name == b"done" or not data:
            return
        self._value(read_json(data), events, failed=name == b"error")

    def _document(self, value: Any, events: Events) -> None:
        """Take an answer in one piece, or an error with status 200."""
        try:
            self._value(value, events)
        except msgspec.DecodeError:
            super()._document(value, events)

    def _value(self, value: Any, events: Events, *, failed: bool = False) -> None:
        """Any event but the plain ones. Raises `DecodeError` for what is none."""
        if not isinstance(value, dict):
            raise msgspec.DecodeError("not an object")
        output = value.get("output")
        said = isinstance(output, dict) and (output.get("choices") or output.get("text") is not None)
        if failed or not said:
            if (problem := find_problem(value)) is not None or failed:
                raise _judge(problem or Problem(""), self._status())
            if not isinstance(output, dict) and not isinstance(value.get("usage"), dict):
                raise msgspec.DecodeError("an event that nobody knows")
        choices, others = _choices(output if isinstance(output, dict) else {})
        if isinstance(usage := value.get("usage"), dict):
            index = choices[0].get("index") if choices else 0
            self._count(index if type(index) is int else 0, _read_usage(usage))
        rest = {k: v for k, v in value.items() if k not in _CHUNK_FIELDS}
        if isinstance(output, dict):
            rest |= {k: v for k, v in output.items() if k not in _OUTPUT_FIELDS}
        self._given({**rest, "choices": choices, "id": value.get("request_id")}, events)
        events.extend(Opaque(NAME, other) for other in others)

    def _count(self, index: int, usage: UsageReported) -> None:
        counts = self._counts
        counts[index] = usage
        if len(counts) > 1:
            usage = msgspec.structs.replace(
                usage, output_tokens=sum(each.output_tokens for each in counts.values())
            )
        self.usage = usage

    def _status(self) -> int:
        """Return the status that the last comment names; 0 for none."""
        frames = self._frames
        found = _STATUS.fullmatch(frames.comment) if isinstance(frames, SseDecoder) else None
        return int(found[1]) if found else 0


def _choices(output: Extra) -> tuple[list[Extra], list[Extra]]:
    """Return the choices of an output in OpenAI's form, and what a model made that is no text."""
    found = as_objects(output.get("choices"))
    if not found:
        text = output.get("text")
        reason = output.get("finish_reason")
        if text is None and reason is None:
            return [], []
        return [{"index": 0, "delta": {"content": as_text(text)}, "finish_reason": reason}], []
    others: list[Extra] = []
    choices = []
    for position, choice in enumerate(found):
        index = choice.get("index") if type(choice.get("index")) is int else position
        message = choice.get("message")
        delta = dict(message) if isinstance(message, dict) else {}
        if isinstance(parts := delta.get("content"), list):
            delta["content"] = "".join(as_text(part.get("text")) for part in as_objects(parts))
            others += [{"index": index, "content": part} for part in as_objects(parts) if "text" not in part]
        rest = {k: v for k, v in choice.items() if k != "message"}
        choices.append({**rest, "index": index, "delta": delta})
    return choices, others


def _read_usage(raw: Extra) -> UsageReported:
    """Read counts; those of a kind that nobody counts in are kept as they are."""
    into, out = raw.get("prompt_tokens_details"), raw.get("output_tokens_details")
    cached = as_count(into.get("cached_tokens")) if isinstance(into, dict) else 0
    thought = as_count(out.get("reasoning_tokens")) if isinstance(out, dict) else 0
    extra = {k: v for k, v in raw.items() if k not in _USAGE_FIELDS and v is not None}
    return UsageReported(
        as_count(raw.get("input_tokens")),
        as_count(raw.get("output_tokens")),
        cached or as_count(raw.get("cached_tokens")),
        reasoning_tokens=thought,
        extra={"usage": extra} if extra else None,
    )


# --- parse_error -----------------------------------------------------------------------------------


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response. Never raises."""
    try:
        problem = find_problem(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = None
    found = error_response(status, headers, body)
    if problem is None:
        return found
    error = _judge(problem, status)
    error.retry_after = found.retry_after
    return error


def _judge(problem: Problem, status: int) -> UpstreamError:
    """Judge by a code such as ``InternalError.Timeout``: by the whole, by its last word, by its first."""
    words = problem.code.split(".")
    signs = dict.fromkeys((problem.code, words[-1], words[0], *problem.signs))
    error = upstream_error(problem._replace(signs=tuple(sign for sign in signs if sign)), status=status)
    if _ELSEWHERE.search(error.message):
        error.code, error.status, error.retryable = "model_not_found", 404, False
    return error


_ELSEWHERE: Final = re.compile(r"(?i)\burl error\b")


def is_elsewhere(error: UpstreamError) -> bool:
    """Say whether ``error`` means that its model is served under the other of two paths: "url error, please
    check url"."""
    return error.code == "model_not_found" and _ELSEWHERE.search(error.message) is not None
