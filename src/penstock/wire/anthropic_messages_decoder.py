"""Anthropic Messages, the decoder: a provider's body → canonical events.

Strategy: the three deltas that a stream consists of are decoded into structs, all else as dicts. Text,
thinking and tool calls become canonical; blocks that only Anthropic knows (server tools and their
results) are kept whole, event by event, as `Opaque`. What a message says of itself besides is kept in
``extra``: see `penstock.wire.anthropic_messages` for the places. No framing enters.

Sources: types of the anthropic SDKs; docs.anthropic.com on streaming.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.types.events import (
    Annotation,
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
from penstock.wire.anthropic_messages_requests import NAME
from penstock.wire.decoding import BodyDecoder, Events, as_count, as_text, read_json
from penstock.wire.provider_errors import Problem, find_problem, upstream_error

_encode = msgspec.json.Encoder().encode


class _Text(msgspec.Struct, tag="text_delta", tag_field="type", forbid_unknown_fields=True, gc=False):
    text: str


class _Thinking(msgspec.Struct, tag="thinking_delta", tag_field="type", forbid_unknown_fields=True, gc=False):
    thinking: str


class _Input(msgspec.Struct, tag="input_json_delta", tag_field="type", forbid_unknown_fields=True, gc=False):
    partial_json: str


class _BlockDelta(
    msgspec.Struct, tag="content_block_delta", tag_field="type", forbid_unknown_fields=True, gc=False
):
    index: int
    delta: _Text | _Thinking | _Input


_decode_delta = msgspec.json.Decoder(_BlockDelta).decode

_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "stop",
}
"""Stop reasons; any other is a plain stop, told in `Finished.raw`, and kept for who understands it."""

_PLAIN: Final = frozenset(("end_turn", "max_tokens", "tool_use", "refusal"))
"""Stop reasons that say no more than the canonical reason does."""

_MESSAGE_FIELDS: Final = frozenset(
    ("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage")
)
_USAGE_FIELDS: Final = frozenset(
    ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
)
_PLAIN_USAGE: Final = frozenset(("input_tokens", "output_tokens"))
_CALL_FIELDS: Final = frozenset(("type", "id", "name", "input"))


class _Block:
    """An open content block: its kind and its number among its like."""

    __slots__ = ("kind", "number", "said")

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number
        self.said = False  # whether a tool call's input has come


class MessagesDecoder(BodyDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder`.

    ``part`` counts the text blocks and, apart from them, the thinking blocks; calls are counted too.
    Usage is cumulative and is reported once, at the end. An answer is whole with its stop reason;
    ``message_stop`` ends it.
    """

    __slots__ = ("_blocks", "_calls", "_counts", "_finished", "_texts", "_thoughts")

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__()
        self._blocks: dict[int, _Block] = {}
        self._texts = 0
        self._thoughts = 0
        self._calls = 0
        self._counts: Extra = {}
        self._finished = False

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        try:
            event = _decode_delta(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = read_json(data)
            if not isinstance(value, dict):
                raise msgspec.DecodeError("not an object") from None
            self._event(name, value, events)
            return
        block = self._blocks.get(event.index)
        delta = event.delta
        if type(delta) is _Text and block is not None and block.kind == "text":
            if delta.text:
                events.append(TextDelta(delta.text, 0, block.number))
        elif type(delta) is _Thinking and block is not None and block.kind == "thinking":
            if delta.thinking:
                events.append(ReasoningDelta(delta.thinking, 0, block.number))
        elif type(delta) is _Input and block is not None and block.kind == "tool_use":
            if delta.partial_json:
                block.said = True
                events.append(ToolCallDelta(block.number, delta.partial_json))
        else:
            events.append(Opaque(NAME, read_json(data)))

    def _document(self, value: Any, events: Events) -> None:
        """A whole message, or an error with status 200."""
        if not isinstance(value, dict) or value.get("type") != "message":
            super()._document(value, events)
            return
        self._start(value, events)
        content = value.get("content")
        for index, block in enumerate(content if isinstance(content, list) else ()):
            if isinstance(block, dict):
                self._open(
                    index,
                    block,
                    {"type": "content_block_start", "index": index, "content_block": block},
                    events,
                )
                self._close(index, events)
        self._stop(value, {}, events)

    def _hold(self, events: Events) -> None:
        if self.usage is not None:
            events.append(self.usage)

    def _end(self, events: Events) -> None:
        if not self._finished:
            raise self._truncated()
        if self.usage is not None:
            events.append(self.usage)

    def _event(self, name: bytes, value: Extra, events: Events) -> None:
        """Any event but the plain deltas."""
        match value:
            case {"type": "ping"}:
                return
            case {"type": "message_start", "message": dict(message)}:
                self._start(message, events)
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                self._open(index, block, value, events)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                self._strange_delta(index, delta, value, events)
            case {"type": "content_block_stop", "index": int(index)}:
                if index in self._blocks:
                    self._close(index, events)
                else:
                    events.append(Opaque(NAME, value))
            case {"type": "message_delta"}:
                ending = value.get("delta")
                self._stop(ending if isinstance(ending, dict) else {}, value, events)
            case {"type": "message_stop"}:
                self.finished = True
            case {"type": "error"} | {"error": _}:
                raise upstream_error(find_problem(value) or Problem(""))
            case _ if name == b"error":
                raise upstream_error(find_problem(value) or Problem(""))
            case {"type": str()}:
                events.append(Opaque(NAME, value))

    def _start(self, message: Extra, events: Events) -> None:
        usage = message.get("usage")
        self._count(usage)
        extra: Extra = {}
        if own := {k: v for k, v in message.items() if k not in _MESSAGE_FIELDS and v is not None}:
            extra["message"] = own
        if isinstance(usage, dict) and (
            rest := {k: v for k, v in usage.items() if v and k not in _PLAIN_USAGE}
        ):
            extra["message_usage"] = rest
        events.append(
            Started(
                as_text(message.get("model")),
                as_text(message.get("id")),
                input_tokens=self.usage.input_tokens if self.usage else 0,
                extra=extra or None,
            )
        )

    def _open(self, index: int, content: Extra, value: Extra, events: Events) -> None:
        match content:
            case {"type": "text"}:
                block = _Block("text", self._texts)
                self._texts += 1
                if text := as_text(content.get("text")):
                    events.append(TextDelta(text, 0, block.number))
            case {"type": "thinking"}:
                block = _Block("thinking", self._thoughts)
                self._thoughts += 1
                thinking, signature = as_text(content.get("thinking")), as_text(content.get("signature"))
                if thinking or signature:
                    events.append(ReasoningDelta(thinking, 0, block.number, signature=signature))
            case {"type": "redacted_thinking", "data": str(data)}:
                block = _Block("redacted_thinking", self._thoughts)
                self._thoughts += 1
                events.append(ReasoningDelta("", 0, block.number, encrypted=data))
            case {"type": "tool_use"}:
                block = _Block("tool_use", self._calls)
                self._calls += 1
                given = content.get("input")
                block.said = bool(given)
                own = {k: v for k, v in content.items() if k not in _CALL_FIELDS and v is not None}
                events.append(
                    ToolCallDelta(
                        block.number,
                        _encode(given).decode() if given else "",
                        as_text(content.get("id")),
                        as_text(content.get("name")),
                        extra={"block": own} if own else None,
                    )
                )
            case _:
                events.append(Opaque(NAME, value))
                return
        self._blocks[index] = block

    def _strange_delta(self, index: int, delta: Extra, value: Extra, events: Events) -> None:
        block = self._blocks.get(index)
        match delta:
            case {"type": "signature_delta", "signature": str(signature)} if block is not None:
                events.append(ReasoningDelta("", 0, block.number, signature=signature))
            case {"type": "citations_delta", "citation": dict(citation)} if block is not None:
                events.append(Annotation(citation, NAME, 0, block.number))
            case {"type": "text_delta", "text": str(text)} if block is not None and block.kind == "text":
                events.append(TextDelta(text, 0, block.number))
            case {"type": "thinking_delta", "thinking": str(text)} if block is not None:
                events.append(ReasoningDelta(text, 0, block.number))
            case {"type": "input_json_delta", "partial_json": str(piece)} if (
                block is not None and block.kind == "tool_use"
            ):
                block.said = True
                events.append(ToolCallDelta(block.number, piece))
            case _:
                events.append(Opaque(NAME, value))

    def _close(self, index: int, events: Events) -> None:
        """A tool call without input has the arguments ``{}``: what its pieces join to is JSON."""
        block = self._blocks.pop(index, None)
        if block is not None and block.kind == "tool_use" and not block.said:
            events.append(ToolCallDelta(block.number, "{}"))

    def _stop(self, delta: Extra, value: Extra, events: Events) -> None:
        self._count(value.get("usage"))
        reason = delta.get("stop_reason")
        if not isinstance(reason, str) or self._finished:
            return
        self._finished = True
        known = ("stop_reason", "stop_sequence") if reason in _REASONS else ("stop_sequence",)
        extra = {k: v for k, v in delta.items() if k not in known and v is not None} if value else {}
        events.append(
            Finished(
                _REASONS.get(reason, "stop"),
                0,
                "" if reason in _PLAIN else reason,
                as_text(delta.get("stop_sequence")),
                {"message_delta": extra} if extra else None,
            )
        )

    def _count(self, usage: Any) -> None:
        """Take in a usage object: its fields replace earlier ones, nothing is added up."""
        if not isinstance(usage, dict):
            return
        counts = self._counts
        counts.update((key, value) for key, value in usage.items() if value is not None)
        cached = as_count(counts.get("cache_read_input_tokens"))
        written = as_count(counts.get("cache_creation_input_tokens"))
        details = counts.get("output_tokens_details")
        extra = {key: value for key, value in counts.items() if key not in _USAGE_FIELDS}
        self.usage = UsageReported(
            as_count(counts.get("input_tokens")) + cached + written,
            as_count(counts.get("output_tokens")),
            cached,
            written,
            as_count(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
            extra={"message_usage": extra} if extra else None,
        )
