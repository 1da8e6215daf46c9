"""Baidu ERNIE v1, towards providers: the decoder and parse_error; requests in `ernie_requests`.

Owns the events of ``…/wenxinworkshop/chat/<endpoint>``: pieces of a ``result``, counts with each, and a last
one that says ``is_end``. There is no other mark of the end. An error is a JSON document with status 200 in
place of the stream, a bare line in the middle of it, or an event; all hold a number (`_CODES`).

Strategy: a piece of plain text is decoded strictly; anything else is put in the form that `ChatDecoder`
takes, so that calls, counts and unknown fields are read by the same rules.

Sources: qianfan (Python, 0.4.12), its client and its codes of errors; Baidu's list of codes.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.types.errors import UpstreamError
from penstock.types.events import Extra, TextDelta, UsageReported
from penstock.wire.decoding import Events, as_count, as_text, read_json
from penstock.wire.ernie_requests import NAME, render_request
from penstock.wire.openai_chat_decoder import ChatDecoder
from penstock.wire.provider_errors import Problem, error_response, find_problem, upstream_error
from penstock.wire.sse import SseDecoder

__all__ = ["NAME", "ErnieDecoder", "TokenRefused", "parse_error", "render_request"]


# --- EventDecoder ----------------------------------------------------------------------------------


class _Usage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    result: str
    is_end: bool
    usage: _Usage
    id: str = ""
    object: str = ""
    created: int = 0
    sentence_id: int = 0
    is_truncated: bool = False
    need_clear_history: bool = False
    finish_reason: str = ""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode

_FIELDS: Final = frozenset(("result", "is_end", "usage", "id", "object", "created", "sentence_id")).union(
    ("is_truncated", "need_clear_history", "finish_reason", "function_call", "flag", "ban_round")
)


class ErnieDecoder(ChatDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder` and `ChatDecoder`."""

    __slots__ = ("_called", "_filtered", "_truncation")

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__()
        self._called = False
        self._filtered = False
        self._truncation = False

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        if self._states:
            try:
                chunk = _decode_chunk(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if chunk.result and not (chunk.is_end or chunk.is_truncated or chunk.need_clear_history):
                    events.append(TextDelta(chunk.result))
                    self.usage = UsageReported(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                    return
        if data == b"[DONE]" or not data:
            return
        self._value(read_json(data), events, whole=False)

    def _document(self, value: Any, events: Events) -> None:
        """An error with status 200, or an answer in one piece."""
        try:
            self._value(value, events, whole=True)
        except msgspec.DecodeError:
            super()._document(value, events)

    def _end(self, events: Events) -> None:
        stray = self._frames.stray if isinstance(self._frames, SseDecoder) else b""
        if stray and not (self._states and not self._unfinished):
            try:
                problem = _problem(read_json(stray))
            except msgspec.DecodeError:
                problem = None
            if problem is not None:
                raise _judge(problem)
        super()._end(events)

    def _value(self, value: Any, events: Events, *, whole: bool) -> None:
        """Any chunk but the plain ones. Raises `DecodeError` for what is none."""
        if not isinstance(value, dict):
            raise msgspec.DecodeError("not an object")
        call = value.get("function_call")
        if not isinstance(value.get("result"), str) and not isinstance(call, dict) and "is_end" not in value:
            if (problem := _problem(value)) is not None:
                raise _judge(problem)
            raise msgspec.DecodeError("an event that nobody knows")
        if (problem := _problem(value)) is not None and value.get("error_code"):
            raise _judge(problem)
        flag = value.get("flag")
        self._truncation = self._truncation or value.get("is_truncated") is True
        self._filtered = self._filtered or value.get("need_clear_history") is True or as_count(flag) > 0
        delta: Extra = {"content": as_text(value.get("result"))}
        if isinstance(call, dict):
            self._called = True
            function = {"name": as_text(call.get("name")), "arguments": call.get("arguments")}
            delta["tool_calls"] = [{"index": 0, "id": "", "type": "function", "function": function}]
            delta["reasoning_content"] = as_text(call.get("thoughts"))
        ended = value.get("is_end") is True or (whole and value.get("is_end") is not False)
        reason = self._reason(as_text(value.get("finish_reason"))) if ended else None
        rest = {k: v for k, v in value.items() if k not in _FIELDS}
        facts = {name: value.get(name) for name in ("id", "created", "usage")}
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        self._given({**rest, **facts, "choices": choices}, events)

    def _reason(self, said: str) -> str:
        if self._filtered:
            return "content_filter"
        if self._truncation:
            return "length"
        if self._called:
            return "tool_calls"
        return "stop" if said in ("", "normal") else said


# --- errors ----------------------------------------------------------------------------------------


class TokenRefused(UpstreamError):
    """The access token is not taken, or not any more: another one may be."""


_TOKEN: Final = ("110", "111")

_CODES: Final[Mapping[str, str]] = {
    code: word
    for word, codes in {
        "server_error": "1 15 336000",
        "unavailable": "2 336100",
        "not_found": "3 336005",
        "rate_limit_exceeded": "4 18 336501 336502",
        "permission_denied": "6 336004",
        "invalid_api_key": "13 14 100 110 111",
        "insufficient_quota": "17 19",
        "invalid_argument": "336001 336002 336003 336101 336104 336105",
        "context_length_exceeded": "336007 336103",
    }.items()
    for code in codes.split()
}
"""By number, the word that the table of all providers knows."""


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response. Never raises."""
    try:
        problem = _problem(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = None
    if problem is None and (said := headers.get("x-bce-error-message", "")):
        problem = Problem(said)
    return error_response(status, headers, body) if problem is None else _judge(problem, status)


def _problem(value: Any) -> Problem | None:
    problem = find_problem(value)
    if problem is None:
        return None
    word = _CODES.get(problem.code)
    return problem if word is None else problem._replace(signs=(word, *problem.signs))


def _judge(problem: Problem, status: int = 0) -> UpstreamError:
    error = upstream_error(problem, status=status)
    if problem.code not in _TOKEN:
        return error
    return TokenRefused(
        error.message, code=error.code, status=error.status, retryable=False, upstream_status=status
    )
