"""Bedrock's Converse dialect, towards providers: the decoder and parse_error; requests in `bedrock_requests`.

Owns the messages of ``/converse-stream``: blocks of text, reasoning and calls by index, of which only calls
are begun, then ``messageStop`` with the reason and, after it, ``metadata`` with the counts. Exceptions are
messages of the stream too. The framing is `penstock.wire.aws_eventstream`'s. Counts of the cache stand
beside those of the input, and are added to them.

Source: the service model of botocore 1.44 (bedrock-runtime, 2023-09-30).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.types.errors import UpstreamError, WireError
from penstock.types.events import (
    Annotation,
    Extra,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.wire.aws_eventstream import EventStreamFrames
from penstock.wire.bedrock_requests import NAME, render_request
from penstock.wire.decoding import BodyDecoder, Events, as_count, as_text, read_json
from penstock.wire.provider_errors import Problem, error_response, find_problem, upstream_error

__all__ = ["NAME", "BedrockDecoder", "parse_error", "render_request"]

MAX_BLOCKS: Final = 4096
"""Blocks of one answer: far above what models make, far below what hurts."""


# --- EventDecoder ----------------------------------------------------------------------------------

_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_PLAIN: Final = frozenset(("end_turn", "max_tokens", "tool_use"))
"""Reasons that say no more than the word they become."""


class BedrockDecoder(BodyDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder`."""

    __slots__ = ("_counts", "_done", "_parts", "_started")

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__(EventStreamFrames())
        self._started = False
        self._done = False
        self._parts: dict[tuple[str, int], int] = {}  # by kind and index of a block: its number in its kind
        self._counts = {"text": 0, "reasoning": 0, "call": 0}

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        kind, _, sign = name.decode("ascii", "replace").partition("/")
        if sign or kind in ("exception", "error"):
            raise upstream_error(_problem(kind, sign, data))
        value = read_json(data)
        if not isinstance(value, dict):
            raise msgspec.DecodeError("not an object")
        index = value.get("contentBlockIndex")
        index = index if type(index) is int and index >= 0 else 0
        match kind:
            case "contentBlockDelta":
                self._delta(index, value.get("delta"), events)
            case "contentBlockStart":
                self._begin(index, value.get("start"), events)
            case "messageStart":
                self._start(events)
            case "messageStop":
                self._stop(as_text(value.get("stopReason")), events)
            case "metadata":
                self._count(value, events)

    def _end(self, events: Events) -> None:
        if not self._done:
            raise self._truncated()

    def _start(self, events: Events) -> None:
        if not self._started:
            self._started = True
            events.append(Started())

    def _begin(self, index: int, start: Any, events: Events) -> None:
        call = start.get("toolUse") if isinstance(start, dict) else None
        if isinstance(call, dict):
            self._start(events)
            number = self._part("call", index)
            events.append(
                ToolCallDelta(number, "", as_text(call.get("toolUseId")), as_text(call.get("name")))
            )

    def _delta(self, index: int, delta: Any, events: Events) -> None:
        if not isinstance(delta, dict):
            return
        self._start(events)
        if text := as_text(delta.get("text")):
            events.append(TextDelta(text, part=self._part("text", index)))
        call = delta.get("toolUse")
        if isinstance(call, dict) and (given := as_text(call.get("input"))):
            events.append(ToolCallDelta(self._part("call", index), given))
        thought = delta.get("reasoningContent")
        if isinstance(thought, dict):
            said = ReasoningDelta(
                as_text(thought.get("text")),
                part=self._part("reasoning", index),
                signature=as_text(thought.get("signature")),
                encrypted=as_text(thought.get("redactedContent")),
            )
            if said.delta or said.signature or said.encrypted:
                events.append(said)
        citation = delta.get("citation")
        if isinstance(citation, dict):
            events.append(Annotation(citation, NAME, part=self._part("text", index)))

    def _part(self, kind: str, index: int) -> int:
        part = self._parts.get((kind, index))
        if part is None:
            if len(self._parts) >= MAX_BLOCKS:
                raise WireError("The provider sent too many blocks.")
            part = self._parts[kind, index] = self._counts[kind]
            self._counts[kind] += 1
        return part

    def _stop(self, raw: str, events: Events) -> None:
        self._start(events)
        if raw.startswith("malformed_"):
            raise upstream_error(Problem(f"The model broke the answer off ({raw})."))
        events.append(Finished(_REASONS.get(raw, "stop"), 0, "" if raw in _PLAIN else raw))
        self._done = True

    def _count(self, value: Extra, events: Events) -> None:
        usage = value.get("usage")
        if isinstance(usage, dict):
            names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
            asked, answered, read, written = (as_count(usage.get(name)) for name in names)
            metrics = value.get("metrics")
            extra = {"metrics": metrics} if isinstance(metrics, dict) and metrics else None
            self.usage = UsageReported(asked + read + written, answered, read, written, extra=extra)
            events.append(self.usage)
        self.finished = self._done


# --- errors ----------------------------------------------------------------------------------------


def _problem(kind: str, sign: str, data: bytes) -> Problem:
    """Read an exception in mid-stream, whose payload is JSON, or an error, which is a sentence."""
    if kind == "error":
        return Problem(data.decode("utf-8", "replace"), sign, signs=(sign,))
    try:
        value = read_json(data)
    except msgspec.DecodeError:
        value = None
    found = find_problem(value) or Problem("")
    said = as_text(value.get("originalMessage")) if isinstance(value, dict) else ""
    message = f"{found.message} {said}".strip() if said not in found.message else found.message
    return found._replace(message=message, type=sign, signs=(sign, *found.signs))


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response, whose class stands in a header. Never raises."""
    sign = headers.get("x-amzn-errortype", "").partition(":")[0].rpartition("#")[2]
    try:
        value = read_json(body)
    except msgspec.DecodeError:
        value = None
    if not isinstance(value, dict):
        return error_response(status, headers, body)
    said = as_text(value.get("message")) or as_text(value.get("Message"))
    sign = sign or as_text(value.get("__type")).rpartition("#")[2]
    return error_response(status, headers, msgspec.json.encode({"message": said, "type": sign[:256]}))
