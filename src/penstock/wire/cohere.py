"""The Cohere dialect (v2), towards providers: the decoder and parse_error; requests in `cohere_requests`.

Owns the events of ``/v2/chat``: server-sent events whose type stands in ``data`` as well, blocks of
thinking and text by index, a plan before calls of tools, citations, and ``message-end`` with the reason and
the counts.
The plan is reasoning here; it goes back as a plan. Counts are those that are billed, as far as there are any:
the others hold a preamble that nobody pays for.

Source: types of cohere (Python, 7.3), v2.
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
from penstock.wire.cohere_requests import NAME, render_request
from penstock.wire.decoding import BodyDecoder, Events, as_objects, as_text, read_json
from penstock.wire.provider_errors import Problem, error_response, find_problem, upstream_error

__all__ = ["NAME", "CohereDecoder", "parse_error", "render_request"]

MAX_PARTS: Final = 4096
"""Blocks, and tool calls, of one answer: far above what models make, far below what hurts."""

PLAN: Final = -1
"""In place of the index of a block: the plan."""


# --- EventDecoder ----------------------------------------------------------------------------------

_REASONS: Final[Mapping[str, FinishReason]] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
_PLAIN: Final = frozenset(("COMPLETE", "MAX_TOKENS", "TOOL_CALL"))
"""Reasons that say no more than the word they become."""


class CohereDecoder(BodyDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder`."""

    __slots__ = ("_calls", "_done", "_parts", "_started", "_texts", "_thoughts")

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__()
        self._started = False
        self._done = False
        self._parts: dict[int, int] = {}  # by the index of a block: its number among those of its kind
        self._texts = 0
        self._thoughts = 0
        self._calls: dict[int, int] = {}

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        if data == b"[DONE]" or not data:
            return
        value = read_json(data)
        if not isinstance(value, dict):
            raise msgspec.DecodeError("not an object")
        kind = as_text(value.get("type")) or name.decode("ascii", "replace")
        delta = value.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        message = delta.get("message")
        message = message if isinstance(message, dict) else {}
        match kind:
            case "content-start" | "content-delta":
                self._content(value, message.get("content"), events)
            case "tool-plan-delta":
                if plan := as_text(message.get("tool_plan")):
                    events.append(ReasoningDelta(plan, part=self._part(PLAN, thinks=True)))
            case "tool-call-start" | "tool-call-delta":
                self._call(value, message.get("tool_calls"), events)
            case "citation-start":
                for citation in _each(message.get("citations")):
                    events.append(Annotation(citation, NAME))
            case "message-start":
                self._start(as_text(value.get("id")), events)
            case "message-end":
                self._finish(delta, events)
            case "content-end" | "tool-call-end" | "citation-end" | "debug":
                pass
            case _:
                if (problem := find_problem(value)) is not None:
                    raise upstream_error(problem)
                raise msgspec.DecodeError("an event that nobody knows")

    def _document(self, value: Any, events: Events) -> None:
        """Take an answer in one piece, from a server that does not stream."""
        message = value.get("message") if isinstance(value, dict) else None
        if not isinstance(message, dict) or "finish_reason" not in value:
            super()._document(value, events)
            return
        self._start(as_text(value.get("id")), events)
        if plan := as_text(message.get("tool_plan")):
            events.append(ReasoningDelta(plan, part=self._part(PLAN, thinks=True)))
        for number, block in enumerate(as_objects(message.get("content"))):
            self._content({"index": number}, block, events)
        for number, call in enumerate(as_objects(message.get("tool_calls"))):
            self._call({"index": number}, call, events)
        events.extend(Annotation(citation, NAME) for citation in as_objects(message.get("citations")))
        self._finish(value, events)

    def _end(self, events: Events) -> None:
        if not self._done:
            raise self._truncated()

    def _start(self, id_: str, events: Events) -> None:
        if not self._started:
            self._started = True
            events.append(Started(id=id_))

    def _content(self, event: Extra, content: Any, events: Events) -> None:
        if not isinstance(content, dict):
            return
        index = _index(event)
        for word, thinks in (("thinking", True), ("text", False)):
            text = as_text(content.get(word))
            if not text:
                continue
            self._start("", events)
            part = self._part(2 * index + thinks, thinks=thinks)
            events.append(ReasoningDelta(text, part=part) if thinks else TextDelta(text, part=part))

    def _part(self, block: int, *, thinks: bool) -> int:
        part = self._parts.get(block)
        if part is None:
            if len(self._parts) >= MAX_PARTS:
                raise WireError("The provider sent too many blocks.")
            part = self._parts[block] = self._thoughts if thinks else self._texts
            self._thoughts += thinks
            self._texts += not thinks
        return part

    def _call(self, event: Extra, told: Any, events: Events) -> None:
        for call in _each(told):
            self._start("", events)
            index = _index(event)
            function = call.get("function")
            function = function if isinstance(function, dict) else {}
            arguments = as_text(function.get("arguments"))
            number = self._calls.get(index)
            if number is not None:
                if arguments:
                    events.append(ToolCallDelta(number, arguments))
                continue
            if len(self._calls) >= MAX_PARTS:
                raise WireError("The provider sent too many tool calls.")
            number = self._calls[index] = len(self._calls)
            id_, name = as_text(call.get("id")), as_text(function.get("name"))
            events.append(ToolCallDelta(number, arguments, id_, name))

    def _finish(self, delta: Extra, events: Events) -> None:
        self._start("", events)
        self._count(delta.get("usage"))
        raw = as_text(delta.get("finish_reason"))
        if raw == "TIMEOUT" or raw.startswith("ERROR"):
            if self.usage is not None:
                events.append(self.usage)
            said = as_text(delta.get("error")) or "Cohere broke the answer off."
            raise upstream_error(Problem(said, signs=("timeout",) if raw == "TIMEOUT" else ()))
        events.append(Finished(_REASONS.get(raw, "stop"), 0, "" if raw in _PLAIN else raw))
        if self.usage is not None:
            events.append(self.usage)
        self._done = self.finished = True

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        billed, tokens = usage.get("billed_units"), usage.get("tokens")
        billed = billed if isinstance(billed, dict) else {}
        tokens = tokens if isinstance(tokens, dict) else {}
        asked, answered = (
            _number(billed.get(name)) or _number(tokens.get(name))
            for name in ("input_tokens", "output_tokens")
        )
        cached = min(_number(usage.get("cached_tokens")), asked)
        if asked or answered:
            extra = {"tokens": tokens} if tokens and billed else None
            self.usage = UsageReported(asked, answered, cached, extra=extra)


def _each(value: Any) -> list[Extra]:
    """Return what stands under a name where older versions have a list, and newer ones a single object."""
    return [value] if isinstance(value, dict) else as_objects(value)


def _index(event: Extra) -> int:
    index = event.get("index")
    return index if type(index) is int and index >= 0 else 0


def _number(value: Any) -> int:
    """Return a count, which its types call a float."""
    return int(value) if type(value) in (int, float) and 0 < value < 1e12 else 0


# --- parse_error -----------------------------------------------------------------------------------

INVALID_TOKEN: Final = 498
"""Cohere's status for a key that it does not take; Groq has it for a full queue."""


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response. Never raises."""
    return error_response(401 if status == INVALID_TOKEN else status, headers, body)
