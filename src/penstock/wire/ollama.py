"""The Ollama dialect, towards providers: render_request (in `ollama_requests`), the decoder and
parse_error; the parts towards clients follow in the order of `penstock.wire.dialect`.

Owns the lines that ``/api/chat`` and ``/api/generate`` answer with: newline-delimited JSON, each line a
piece of the answer, the last one ``done`` with counts and durations. Strategy: a line of plain text is
decoded into structs, any other as a dict, with its unknown fields kept by place.

Places in ``extra`` that only this dialect writes: ``line``, ``message`` and ``tool_call``. The token
numbers of ``context`` are dropped: they are deprecated, and larger than an entry may be.

Source: api/types.go and server/routes.go of github.com/ollama/ollama, version 0.17.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from penstock.types.errors import UpstreamError, WireError
from penstock.types.events import (
    Extra,
    Finished,
    FinishReason,
    Opaque,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.wire.decoding import BodyDecoder, Events, NdjsonFrames, as_count, as_objects, as_text, read_json
from penstock.wire.ollama_requests import DEFAULTS, NAME, Preferences, render_request
from penstock.wire.provider_errors import Problem, error_response, find_problem, upstream_error

__all__ = ["DEFAULTS", "NAME", "OllamaDecoder", "Preferences", "parse_error", "render_request"]

MAX_TOOL_CALLS: Final = 1024
"""Tool calls of one answer: far above what models make, far below what hurts."""

_encode = msgspec.json.Encoder().encode


# --- EventDecoder ----------------------------------------------------------------------------------


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: str = "assistant"
    thinking: str = ""


class _ChatLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A piece of a chat's text or reasoning, and nothing else."""

    model: str
    created_at: str
    message: _Message
    done: bool


_decode_line = msgspec.json.Decoder(_ChatLine).decode

_REASONS: Final[Mapping[str, FinishReason]] = {"stop": "stop", "length": "length"}
"""Reasons with a meaning of their own; any other (``load``, ``unload``, none) is a plain stop."""

_COUNTS: Final = ("prompt_eval_count", "eval_count")
_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
_LINE_FIELDS: Final = frozenset(
    ("model", "created_at", "message", "response", "thinking", "tool_calls", "logprobs", "done")
).union(("done_reason", "context", "error"), _COUNTS, _DURATIONS)
_MESSAGE_FIELDS: Final = frozenset(("role", "content", "thinking", "tool_calls"))
_CALL_FIELDS: Final = frozenset(("id", "type", "function"))
_FUNCTION_FIELDS: Final = frozenset(("index", "name", "arguments"))


class OllamaDecoder(BodyDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder`.

    Tool calls come whole, with their arguments as an object, and an answer that makes some finishes with
    ``stop`` all the same. Counts stand on the last line only, and one that is zero is left out there.
    """

    __slots__ = ("_calls", "_done", "_facts", "_started")

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__(NdjsonFrames())
        self._started = False
        self._done = False
        self._calls = 0
        self._facts: Extra = {}

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        if self._started:
            try:
                line = _decode_line(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if not line.done:
                    if line.message.thinking:
                        events.append(ReasoningDelta(line.message.thinking))
                    if line.message.content:
                        events.append(TextDelta(line.message.content))
                    return
        self._line(read_json(data), events)

    def _end(self, events: Events) -> None:
        if not self._done:
            raise self._truncated()

    def _line(self, value: Any, events: Events) -> None:
        """Any line: the first, the last, one with calls or with fields that nobody knows."""
        if not isinstance(value, dict):
            raise msgspec.DecodeError("not an object")
        if value.get("error"):
            raise upstream_error(find_problem(value) or Problem(""))
        message = value.get("message")
        if not isinstance(message, dict):
            if "response" not in value and value.get("done") is not True:
                raise msgspec.DecodeError("not a piece of an answer")
            pieces = ("response", "thinking", "tool_calls")
            message = {name: value[name] for name in pieces if name in value}
            message["content"] = message.pop("response", "")
        facts = self._news(value)
        extra: Extra | None = {"line": facts} if facts else None
        if not self._started:
            self._started = True
            events.append(
                Started(as_text(value.get("model")), "", _seconds(value.get("created_at")), extra=extra)
            )
            extra = None
        if rest := _others(message, _MESSAGE_FIELDS):
            extra = {**(extra or {}), "message": rest}
        extra = self._pieces(message, _logprobs(value.get("logprobs")), extra, events)
        if value.get("done") is True:
            self._finish(value, extra, events)
        elif extra:
            events.append(Opaque(NAME, extra))

    def _pieces(
        self, message: Extra, logprobs: Extra | None, extra: Extra | None, events: Events
    ) -> Extra | None:
        """Add what ``message`` says; return ``extra`` if there was no event to take it."""
        if thinking := as_text(message.get("thinking")):
            events.append(ReasoningDelta(thinking, extra=extra))
            extra = None
        text = as_text(message.get("content"))
        if text or (logprobs and not thinking):
            events.append(TextDelta(text, logprobs=logprobs, extra=extra))
            extra = None
        for call in as_objects(message.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, dict):
                events.append(self._tool_call(call, function, extra))
                extra = None
        return extra

    def _tool_call(self, call: Extra, function: Extra, extra: Extra | None) -> ToolCallDelta:
        if self._calls >= MAX_TOOL_CALLS:
            raise WireError("The provider sent too many tool calls.")
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = _encode({} if arguments is None else arguments).decode()
        rest = _others(call, _CALL_FIELDS)
        if inner := _others(function, _FUNCTION_FIELDS):
            rest = {**rest, "function": inner}
        if rest:
            extra = {**(extra or {}), "tool_call": rest}
        number, self._calls = self._calls, self._calls + 1
        return ToolCallDelta(
            number, arguments, as_text(call.get("id")), as_text(function.get("name")), extra=extra
        )

    def _finish(self, line: Extra, extra: Extra | None, events: Events) -> None:
        raw = as_text(line.get("done_reason"))
        reason = _REASONS.get(raw, "stop")
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        events.append(Finished(reason, 0, "" if raw in _REASONS else raw, extra=extra))
        durations = {name: line[name] for name in _DURATIONS if as_count(line.get(name))}
        if durations or any(name in line for name in _COUNTS):
            asked, answered = (as_count(line.get(name)) for name in _COUNTS)
            self.usage = UsageReported(asked, answered, extra={"line": durations} if durations else None)
            events.append(self.usage)
        self._done = self.finished = True

    def _news(self, line: Extra) -> Extra:
        """Return the unknown fields of ``line`` that differ from what has been told."""
        news = {k: v for k, v in _others(line, _LINE_FIELDS).items() if self._facts.get(k) != v}
        self._facts.update(news)
        return news


def _others(value: Extra, known: frozenset[str]) -> Extra:
    return {key: inner for key, inner in value.items() if key not in known and inner is not None}


def _logprobs(tokens: Any) -> Extra | None:
    """Return the list of a line's tokens in the form that the vocabulary keeps, OpenAI's."""
    found = as_objects(tokens)
    return {"content": found} if found else None


def _seconds(time: Any) -> int:
    """Return a time of Go's, which has nanoseconds, in Unix seconds; 0 for anything else."""
    try:
        read = datetime.fromisoformat(time)
        return max(0, int(read.timestamp())) if read.tzinfo else 0
    except (TypeError, ValueError, OverflowError):
        return 0


# --- parse_error -----------------------------------------------------------------------------------

_NOT_FOUND: Final = re.compile(r"""model ['"]?([\w./:-]+)['"]? not found""")


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response; say what to run where that helps. Never raises.

    The address under which Ollama's owner could sign in (``signin_url``) is not handed on: whoever opened
    it would take the machine into an account of theirs.
    """
    error = error_response(status, headers, body)
    if status == 404 and (found := _NOT_FOUND.search(error.message)):
        error.message += f". Where Ollama runs, `ollama pull {found[1]}` gets it."
    elif status == 401 and b'"signin_url"' in body:
        error.message += ". Where Ollama runs, `ollama signin` lets it use cloud models."
    error.args = (error.message,)
    return error
