"""OpenAI Responses, the decoder: a provider's body → events.

Owns the format of ``POST /v1/responses`` streams. Strategy: the text and argument deltas are decoded
into structs, all else as dicts. An event that only repeats what its deltas said is read where they did
not come. Items that only OpenAI knows (web search, MCP, code interpreter) are kept whole, event by
event, as `Opaque`, without their sequence number.

Places in ``extra`` that only this dialect writes: ``response`` (facts about the response), ``item``
(an item's id, with its first event) and ``response_usage``. No framing enters.

Sources: the OpenAPI document of openai/openai-openapi; types of openai-python.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.types.errors import UpstreamError
from penstock.types.events import (
    Annotation,
    Extra,
    Finished,
    FinishReason,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.wire.decoding import BodyDecoder, Events, as_count, as_objects, as_text, read_json
from penstock.wire.provider_errors import Problem, find_problem, upstream_error

NAME: Final = "openai_responses"


# --- EventDecoder ----------------------------------------------------------------------------------


class _Delta(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False):
    delta: str
    output_index: int
    sequence_number: int = 0
    item_id: str = ""
    content_index: int = 0
    obfuscation: str | None = None


class _Text(_Delta, tag="response.output_text.delta"):
    logprobs: list[Any] | None = None


class _Arguments(_Delta, tag="response.function_call_arguments.delta"):
    pass


_decode_delta = msgspec.json.Decoder(_Text | _Arguments).decode

_INCOMPLETE: Final[Mapping[str, FinishReason]] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
_RESPONSE_FIELDS: Final = frozenset(
    ("id", "object", "created_at", "model", "status", "output", "usage", "error", "incomplete_details")
)
_CALLS: Final[Mapping[str, str]] = {"function_call": "function", "custom_tool_call": "custom"}


class _Item:
    """An output item: its kind, its number among the calls, the id that is still to be told."""

    __slots__ = ("call", "id", "kind", "said")

    def __init__(self, kind: str, id: str, call: int) -> None:
        self.kind = kind
        self.id = id
        self.call = call
        self.said: set[tuple[str, int]] = set()  # the parts that deltas have come for

    def told(self) -> Extra | None:
        """Return the item's id as ``extra``, the first time."""
        id, self.id = self.id, ""
        return {"item": {"id": id}} if id else None


class ResponsesDecoder(BodyDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder`.

    ``part`` counts the text parts and, apart from them, the reasoning parts of the whole response.
    The terminal event brings usage and the end; without one, the answer is not whole.
    """

    __slots__ = ("_calls", "_closed", "_facts", "_items", "_parts", "_started", "_thoughts")

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__()
        self._items: dict[int, _Item] = {}
        self._parts: dict[tuple[int, int], int] = {}
        self._thoughts: dict[tuple[int, str, int], int] = {}
        self._calls = 0
        self._facts: Extra = {}
        self._started = False
        self._closed = False

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        try:
            event = _decode_delta(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if data.strip() == b"[DONE]":
                return
            value = read_json(data)
            if not isinstance(value, dict):
                raise msgspec.DecodeError("not an object") from None
            self._event(name, value, events)
            return
        item = self._item(event.output_index)
        if type(event) is _Text:
            part = self._part(event.output_index, event.content_index)
            item.said.add(("text", event.content_index))
            logprobs = {"content": event.logprobs, "refusal": None} if event.logprobs else None
            if event.delta:
                events.append(TextDelta(event.delta, 0, part, logprobs, item.told()))
        elif event.delta:
            item.said.add(("arguments", 0))
            events.append(ToolCallDelta(item.call, event.delta, kind=_CALLS.get(item.kind, "function")))

    def _document(self, value: Any, events: Events) -> None:
        """A whole response, or an error with status 200."""
        if not isinstance(value, dict) or value.get("object") != "response":
            super()._document(value, events)
            return
        self._start(value, events)
        self._terminal(value, events)

    def _read_output(self, response: Extra, events: Events) -> None:
        for index, item in enumerate(as_objects(response.get("output"))):
            kept = {"type": "response.output_item.done", "output_index": index, "item": item}
            self._done(index, item, kept, events)

    def _end(self, events: Events) -> None:
        if not self._closed:
            raise self._truncated()

    def _event(self, name: bytes, value: Extra, events: Events) -> None:
        """Any event but the plain deltas."""
        kind = value.get("type")
        if kind == "error" or name == b"error" or (kind is None and "error" in value):
            raise upstream_error(_problem(value))
        if not isinstance(kind, str):
            return
        match value:
            case {
                "type": "response.created" | "response.queued" | "response.in_progress",
                "response": dict(r),
            }:
                self._start(r, events)
            case {
                "type": "response.completed"
                | "response.incomplete"
                | "response.failed"
                | "response.cancelled",
                "response": dict(r),
            }:
                self._start(r, events)
                self._terminal(r, events)
            case {"type": "response.output_item.added", "output_index": int(at), "item": dict(item)}:
                self._added(at, item, value, events)
            case {"type": "response.output_item.done", "output_index": int(at), "item": dict(item)}:
                self._done(at, item, value, events)
            case {"output_index": int(at)}:
                if not self._item_event(kind, at, value, events):
                    events.append(_kept(value))
            case _:
                events.append(_kept(value))

    def _item_event(self, kind: str, at: int, value: Extra, events: Events) -> bool:
        """Add the events of an item's event; say whether its kind is known."""
        item = self._item(at)
        delta = value.get("delta")
        content = _index(value, "content_index")
        match kind.removeprefix("response."):
            case "output_text.delta" if isinstance(delta, str):
                item.said.add(("text", content))
                events.append(TextDelta(delta, 0, self._part(at, content), extra=item.told()))
            case "output_text.done":
                self._text(item, at, content, value.get("text"), events)
            case "refusal.delta" if isinstance(delta, str):
                item.said.add(("refusal", content))
                events.append(RefusalDelta(delta, 0, item.told()))
            case "refusal.done":
                if ("refusal", content) not in item.said and isinstance(text := value.get("refusal"), str):
                    item.said.add(("refusal", content))
                    events.append(RefusalDelta(text, 0, item.told()))
            case "reasoning_summary_text.delta" if isinstance(delta, str):
                self._thought(item, at, "summary", _index(value, "summary_index"), delta, events)
            case "reasoning_text.delta" if isinstance(delta, str):
                self._thought(item, at, "text", content, delta, events)
            case "function_call_arguments.delta" | "custom_tool_call_input.delta" if isinstance(delta, str):
                item.said.add(("arguments", 0))
                events.append(ToolCallDelta(item.call, delta, kind=_CALLS.get(item.kind, "function")))
            case "function_call_arguments.done":
                self._arguments(item, value.get("arguments"), events)
            case "custom_tool_call_input.done":
                self._arguments(item, value.get("input"), events)
            case "output_text.annotation.added" if isinstance(note := value.get("annotation"), dict):
                events.append(Annotation(note, NAME, 0, self._part(at, content)))
            case (
                "content_part.added"
                | "content_part.done"
                | "reasoning_summary_part.added"
                | "reasoning_summary_part.done"
                | "reasoning_summary_text.done"
                | "reasoning_text.done"
            ):
                pass  # say nothing that the deltas and the item's end do not
            case _:
                return False
        return True

    def _start(self, response: Extra, events: Events) -> None:
        """Tell once what is known from the beginning; later, with the end, what has changed of it."""
        if self._started:
            return
        self._started = True
        self._facts = _facts(response)
        created = response.get("created_at")
        events.append(
            Started(
                as_text(response.get("model")),
                as_text(response.get("id")),
                int(created) if isinstance(created, int | float) else 0,
                extra={"response": self._facts} if self._facts else None,
            )
        )

    def _added(self, at: int, content: Extra, value: Extra, events: Events) -> None:
        kind = as_text(content.get("type"))
        early = self._items.get(at)  # deltas came before their item
        item = self._items[at] = _Item(kind, as_text(content.get("id")), self._calls)
        if early is not None:
            item.said = early.said
        if kind in _CALLS:
            self._calls += 1
            call_id, name = as_text(content.get("call_id")), as_text(content.get("name"))
            events.append(ToolCallDelta(item.call, "", call_id, name, 0, _CALLS[kind], extra=item.told()))
        elif kind not in ("message", "reasoning") and value["type"] == "response.output_item.added":
            events.append(_kept(value))

    def _done(self, at: int, content: Extra, value: Extra, events: Events) -> None:
        """The item is whole: read what no delta has said."""
        if not self._item(at).kind:
            self._added(at, content, value, events)
        item = self._items[at]
        match item.kind:
            case "message":
                for number, part in enumerate(as_objects(content.get("content"))):
                    if part.get("type") == "refusal" and ("refusal", number) not in item.said:
                        events.append(RefusalDelta(as_text(part.get("refusal")), 0, item.told()))
                    elif part.get("type") == "output_text":
                        self._text(item, at, number, part.get("text"), events)
            case "reasoning":
                for place in ("summary", "content"):
                    kind = "summary" if place == "summary" else "text"
                    for number, part in enumerate(as_objects(content.get(place))):
                        if (kind, number) not in item.said:
                            self._thought(item, at, kind, number, as_text(part.get("text")), events)
                if encrypted := as_text(content.get("encrypted_content")):
                    part_number = self._thought_part(at, "encrypted", 0)
                    events.append(ReasoningDelta("", 0, part_number, encrypted=encrypted, extra=item.told()))
            case "function_call":
                self._arguments(item, content.get("arguments"), events)
            case "custom_tool_call":
                self._arguments(item, content.get("input"), events)
            case _:
                events.append(_kept(value))

    def _terminal(self, response: Extra, events: Events) -> None:
        status = response.get("status")
        if status in ("failed", "cancelled"):
            raise self._failed(response)
        if not self._items:
            self._read_output(response, events)
        self._closed = self.finished = True
        reason: FinishReason = "tool_calls" if self._calls else "stop"
        raw = ""
        details = response.get("incomplete_details")
        if status == "incomplete":
            raw = as_text(details.get("reason")) if isinstance(details, dict) else ""
            reason = _INCOMPLETE.get(raw, "length")
        raw = "" if raw in _INCOMPLETE else raw
        news = {key: value for key, value in _facts(response).items() if self._facts.get(key) != value}
        events.append(Finished(reason, 0, raw, extra={"response": news} if news else None))
        if isinstance(usage := response.get("usage"), dict):
            self.usage = _read_usage(usage)
            events.append(self.usage)

    def _failed(self, response: Extra) -> UpstreamError:
        problem = find_problem({"error": response.get("error")})
        if problem is None:
            problem = Problem(f"The provider ended the response as {response.get('status')}.")
        return upstream_error(problem)

    def _item(self, at: int) -> _Item:
        item = self._items.get(at)
        if item is None:
            item = self._items[at] = _Item("", "", self._calls)
        return item

    def _part(self, at: int, content: int) -> int:
        return self._parts.setdefault((at, content), len(self._parts))

    def _thought_part(self, at: int, kind: str, number: int) -> int:
        return self._thoughts.setdefault((at, kind, number), len(self._thoughts))

    def _text(self, item: _Item, at: int, content: int, text: Any, events: Events) -> None:
        if ("text", content) not in item.said and isinstance(text, str) and text:
            item.said.add(("text", content))
            events.append(TextDelta(text, 0, self._part(at, content), extra=item.told()))

    def _thought(self, item: _Item, at: int, kind: str, number: int, text: str, events: Events) -> None:
        item.said.add((kind, number))
        if text:
            part = self._thought_part(at, kind, number)
            events.append(ReasoningDelta(text, 0, part, kind == "summary", extra=item.told()))

    def _arguments(self, item: _Item, text: Any, events: Events) -> None:
        if ("arguments", 0) not in item.said and isinstance(text, str) and text:
            item.said.add(("arguments", 0))
            events.append(ToolCallDelta(item.call, text, kind=_CALLS.get(item.kind, "function")))


def _problem(value: Extra) -> Problem:
    """Read an error event: the documented flat form, or with an object inside."""
    if isinstance(value.get("error"), dict):
        return find_problem(value) or Problem("")
    flat = {key: value.get(key) for key in ("code", "message", "param")}
    return find_problem({"error": flat}) or Problem("")


def _kept(value: Extra) -> Opaque:
    return Opaque(NAME, {key: item for key, item in value.items() if key != "sequence_number"})


def _facts(response: Extra) -> Extra:
    return {
        key: value for key, value in response.items() if key not in _RESPONSE_FIELDS and value is not None
    }


def _read_usage(raw: Extra) -> UsageReported:
    into, out = as_count(raw.get("input_tokens")), as_count(raw.get("output_tokens"))
    inside, outside = _dict(raw.get("input_tokens_details")), _dict(raw.get("output_tokens_details"))
    known = ("input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "output_tokens_details")
    extra = {key: value for key, value in raw.items() if key not in known and value is not None}
    for name, details, read in (
        ("input_tokens_details", inside, ("cached_tokens", "cache_write_tokens")),
        ("output_tokens_details", outside, ("reasoning_tokens",)),
    ):
        if rest := {key: value for key, value in details.items() if key not in read and value is not None}:
            extra[name] = rest
    return UsageReported(
        into,
        out,
        as_count(inside.get("cached_tokens")),
        as_count(inside.get("cache_write_tokens")),
        as_count(outside.get("reasoning_tokens")),
        extra={"response_usage": extra} if extra else None,
    )


def _dict(value: Any) -> Extra:
    return value if isinstance(value, dict) else {}


def _index(value: Extra, name: str) -> int:
    found = value.get(name)
    return found if type(found) is int else 0
