"""OpenAI Responses, what an answer looks like: its output items, their parts, the response around them.

`Layout` turns the log into the steps of this format, whatever provider the answer comes from. It is what the
encoder, whole answers and answers so far have in common, so that they are always the same. No frame and
no request enters; see `penstock.wire.openai_responses`.

Sources: the OpenAPI document of openai/openai-openapi; types and stream helpers of openai-python (3.57) and
openai-node (6.49).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
    Extra,
    Finished,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.types.positions import dialect_id
from penstock.wire.arguments import Arguments
from penstock.wire.decoding import token_logprobs
from penstock.wire.dialect import Answer, is_event_name
from penstock.wire.openai_chat import call_id
from penstock.wire.openai_chat_requests import NAME as OPENAI_CHAT
from penstock.wire.openai_responses_requests import NAME

PREFIX: Final = "resp_"

_SAID: Final = -1
"""For what waits: text and thoughts, in their order, as calls are by their numbers."""

OPENING: Final = ("response.created", "response.in_progress")
"""The steps before the log's first entry, numbered 0 and 1."""

Step: TypeAlias = Extra
"""One event of this format: an object with its ``type`` and its number."""


# --- output items ----------------------------------------------------------------------------------

_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
}
_ARGUMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
_TEXT_STEPS: Final[Mapping[str, str]] = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
    "summary_text": "response.reasoning_summary_text",
}


class Part:
    """A part of a message or of a reasoning: its kind, its place, what was said in it."""

    __slots__ = ("annotations", "key", "kind", "logprobs", "number", "pieces")

    def __init__(self, kind: str, key: int, number: int) -> None:
        self.kind = kind
        self.key = key
        self.number = number
        self.pieces: list[str] = []
        self.annotations: list[Extra] = []
        self.logprobs: list[Any] = []

    def content(self) -> Extra:
        """Return the part as it is now."""
        text = "".join(self.pieces)
        match self.kind:
            case "output_text":
                more = {"annotations": self.annotations, "logprobs": self.logprobs}
                return {"type": self.kind, "text": text, **more}
            case "refusal":
                return {"type": self.kind, "refusal": text}
        return {"type": self.kind, "text": text}


class _Item:
    """An output item that is put together: ``facts`` are its other fields."""

    __slots__ = (
        "arguments",
        "encrypted",
        "facts",
        "id",
        "index",
        "key",
        "kind",
        "named",
        "parts",
        "pieces",
        "value",
    )

    def __init__(self, kind: str, key: int, id: str, index: int) -> None:
        self.kind = kind
        self.key = key
        self.id = id
        self.index = index
        self.named = False  # by the provider
        self.facts: Extra = {}
        self.parts: list[Part] = []
        self.pieces: list[str] = []
        self.arguments = Arguments()
        self.encrypted = ""
        self.value: Extra | None = None  # of an item that is kept as it came

    @property
    def settled(self) -> bool:
        """Whether another item may begin, and this one is whole."""
        if self.kind == "function_call":
            return self.arguments.whole
        return self.kind != "custom_tool_call" and self.value is None

    def content(self, status: str) -> Extra:
        """Return the item as it is now."""
        if self.value is not None:
            return self.value
        out: Extra = {"id": self.id, "type": self.kind, "status": status, **self.facts}
        parts = [part.content() for part in self.parts]
        if self.kind == "message":
            return {**out, "role": "assistant", "content": parts}
        if self.kind == "reasoning":
            out["summary"] = [part for part in parts if part["type"] == "summary_text"]
            if content := [part for part in parts if part["type"] == "reasoning_text"]:
                out["content"] = content
            if self.encrypted:
                out["encrypted_content"] = self.encrypted
            return out
        place, _ = _ARGUMENTS[self.kind]
        text = "".join(self.pieces)
        return {**out, place: text or ("{}" if place == "arguments" and status == "completed" else "")}


# --- the response ----------------------------------------------------------------------------------

_DEFAULTS: Final[Extra] = {
    "background": False,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response says where neither its request nor its provider does."""

_INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}

_ENDINGS: Final[Mapping[str, str]] = {
    "failed": "The generation failed.",
    "cancelled": "The generation was cancelled.",
    "interrupted": "The generation was interrupted.",
    "expired": "The generation took longer than it may.",
}


class Layout:
    """Which items an answer has, and what happens in them, as a pure function of the log.

    Items come one after the other, as OpenAI's do; there are clients that read them so. Where a provider lets
    its calls overlap, the first one whose arguments are not whole stays open and what belongs to others
    waits, until they are or the answer ends. Of several choices the first is given. The end is held until
    the terminal entry, with the counts. ``number`` is that of the next step.
    """

    __slots__ = (
        "_answer",
        "_calls",
        "_closed",
        "_echo",
        "_facts",
        "_finish",
        "_items",
        "_model",
        "_open",
        "_usage",
        "_waiting",
        "number",
    )

    def __init__(self, answer: Answer, echo: Mapping[str, Any] | None = None) -> None:
        """Stand at the start of the log; ``echo`` is what the response repeats of its request."""
        self.number = len(OPENING)
        self._answer = answer
        self._echo = echo or {}
        self._facts: Extra = {}
        self._model = answer.model
        self._items: list[_Item] = []
        self._open: list[_Item] = []
        self._calls: dict[int, _Item] = {}
        self._waiting: dict[int, list[AnyEvent]] = {}
        self._finish: Finished | None = None
        self._usage: UsageReported | None = None
        self._closed: Closed | None = None

    def opening(self) -> Sequence[Step]:
        """Return the steps before the first entry. To be asked at the start of the log."""
        return [
            {"type": kind, "sequence_number": number, "response": self._response("in_progress", [])}
            for number, kind in enumerate(OPENING)
        ]

    def steps(self, event: AnyEvent) -> Sequence[Step]:
        """Return what the next entry's event means; often one step, maybe none."""
        steps: list[Step] = []
        match event:
            case Started():
                self._facts = (event.extra or {}).get("response") or self._facts
                self._model = event.model or self._model
            case UsageReported():
                self._usage = event
            case Finished(index=0):
                if self._finish is None:
                    self._finish = event
                    self._facts = {**self._facts, **((event.extra or {}).get("response") or {})}
                    self._release(steps, force=True)
                    self._close_items(steps)
            case Closed():
                self._close(event, steps)
            case Opaque(dialect=dialect, data=data):
                if dialect == NAME:
                    self._keep(data, steps)
            case TextDelta() | RefusalDelta() | ReasoningDelta() | Annotation() | ToolCallDelta():
                if event.index == 0:
                    self._take(event, steps)
        return steps

    def text_part(self) -> tuple[str, int, Part] | None:
        """Return where plain text goes on: its item's id and index, and its part; None if nowhere."""
        item = self._open[-1] if self._open else None
        if item is None or item.kind != "message" or not item.parts or item.parts[-1].kind != "output_text":
            return None
        return item.id, item.index, item.parts[-1]

    def response(self) -> Extra:
        """Return the response object as it is now: with its end, if that has been told."""
        closed = self._closed
        if closed is None:
            return self._response("in_progress", self._output("in_progress"))
        if closed.status != "completed":
            status = "cancelled" if closed.status == "cancelled" else "failed"
            error = {
                "code": closed.code or closed.status,
                "message": closed.message or _ENDINGS.get(closed.status, closed.status),
            }
            if closed.provider_code:
                error["provider_code"] = closed.provider_code
            return self._response(status, self._output("incomplete"), error=error)
        if reason := self._incomplete():
            return self._response("incomplete", self._output(), incomplete_details={"reason": reason})
        return self._response("completed", self._output())

    # steps

    def _step(self, steps: list[Step], kind: str, **fields: Any) -> None:
        steps.append({"type": kind, "sequence_number": self.number, **fields})
        self.number += 1

    # one item after the other

    def _take(self, event: AnyEvent, steps: list[Step]) -> None:
        key = event.call if isinstance(event, ToolCallDelta) else _SAID
        item = self._unfinished()
        if item is not None and item.key == key:
            self._write(event, steps)
        elif item is not None or self._waiting:
            self._waiting.setdefault(key, []).append(event)
        else:
            self._write(event, steps)
            return
        self._release(steps)

    def _unfinished(self) -> _Item | None:
        """Return the open call whose arguments are not whole."""
        calls = (item for item in self._open if item.kind == "function_call" and item.value is None)
        return next((item for item in calls if not item.arguments.whole), None)

    def _release(self, steps: list[Step], *, force: bool = False) -> None:
        while self._waiting and (force or self._unfinished() is None):
            for event in self._waiting.pop(next(iter(self._waiting))):
                self._write(event, steps)

    def _write(self, event: AnyEvent, steps: list[Step]) -> None:
        match event:
            case TextDelta(delta=delta, part=part, logprobs=logprobs):
                if delta or logprobs:
                    self._say(event, "message", "output_text", part, delta, steps)
            case RefusalDelta(delta=delta) if delta:
                self._say(event, "message", "refusal", -1, delta, steps)
            case ReasoningDelta():
                self._think(event, steps)
            case Annotation():
                self._annotate(event, steps)
            case ToolCallDelta():
                self._call(event, steps)

    def _begin(self, kind: str, key: int, id: str, steps: list[Step], **facts: Any) -> _Item:
        for item in [item for item in self._open if item.settled]:
            self._end(item, steps)
        index = len(self._items)
        own = f"{dialect_id(_PREFIXES.get(kind, 'item_'), self._answer.stream)}_{index}"
        item = _Item(kind, key, id or own, index)
        item.named = bool(id)
        item.facts = facts
        self._items.append(item)
        self._open.append(item)
        return item

    def _added(self, item: _Item, steps: list[Step]) -> None:
        content = item.content("in_progress")
        self._step(steps, "response.output_item.added", output_index=item.index, item=content)

    def _item_of(self, event: Any, kind: str, steps: list[Step]) -> _Item:
        """Return the open item of ``kind``; a new one where there is none, or the provider began one."""
        told = ((event.extra if hasattr(event, "extra") else None) or {}).get("item") or {}
        id_ = told.get("id") or ""
        if self._open and self._open[-1].kind == kind and (not id_ or self._open[-1].id == id_):
            return self._open[-1]
        item = self._begin(kind, 0, id_, steps)
        self._added(item, steps)
        return item

    def _part_of(self, item: _Item, kind: str, key: int, steps: list[Step]) -> Part:
        last = item.parts[-1] if item.parts else None
        if last is not None and (last.kind, last.key) == (kind, key):
            return last
        if last is not None:
            self._end_part(item, last, steps)
        number = (
            sum(part.kind == kind for part in item.parts) if item.kind == "reasoning" else len(item.parts)
        )
        part = Part(kind, key, number)
        item.parts.append(part)
        summary = kind == "summary_text"
        self._step(
            steps,
            "response.reasoning_summary_part.added" if summary else "response.content_part.added",
            **self._place(item, part),
            part=part.content(),
        )
        return part

    @staticmethod
    def _place(item: _Item, part: Part) -> Extra:
        place = "summary_index" if part.kind == "summary_text" else "content_index"
        return {"item_id": item.id, "output_index": item.index, place: part.number}

    def _say(self, event: Any, kind: str, part_kind: str, key: int, delta: str, steps: list[Step]) -> None:
        item = self._item_of(event, kind, steps)
        part = self._part_of(item, part_kind, key, steps)
        part.pieces.append(delta)
        fields = {**self._place(item, part), "delta": delta}
        if part_kind == "output_text":
            fields["logprobs"] = found = [_complete(one) for one in token_logprobs(event.logprobs)]
            part.logprobs += found
        self._step(steps, f"{_TEXT_STEPS[part_kind]}.delta", **fields)

    def _think(self, event: ReasoningDelta, steps: list[Step]) -> None:
        if event.delta:
            own = not event.summary and self._is_of_a_response(event)
            kind = "reasoning_text" if own else "summary_text"
            self._say(event, "reasoning", kind, event.part, event.delta, steps)
        if event.encrypted:
            item = self._item_of(event, "reasoning", steps)
            if item.encrypted:
                item = self._begin("reasoning", 0, "", steps)
                self._added(item, steps)
            item.encrypted = event.encrypted

    def _is_of_a_response(self, event: ReasoningDelta) -> bool:
        """Whether its provider tells thoughts from their summary, which is all that most clients show."""
        if "item" in (event.extra or {}):
            return True
        last = self._open[-1] if self._open else None
        return last is not None and last.kind == "reasoning" and last.named

    def _annotate(self, event: Annotation, steps: list[Step]) -> None:
        note = _annotation(event)
        if note is None:
            return
        item = self._item_of(event, "message", steps)
        part = self._part_of(item, "output_text", event.part, steps)
        fields = {**self._place(item, part), "annotation_index": len(part.annotations), "annotation": note}
        part.annotations.append(note)
        self._step(steps, "response.output_text.annotation.added", **fields)

    def _call(self, event: ToolCallDelta, steps: list[Step]) -> None:
        item = self._calls.get(event.call)
        if item is None:
            kind = "custom_tool_call" if event.kind == "custom" else "function_call"
            id_ = ((event.extra or {}).get("item") or {}).get("id") or ""
            called = event.id or call_id(self._answer.stream, event.index, event.call)
            item = self._begin(kind, event.call, id_, steps, call_id=called, name=event.name)
            self._calls[event.call] = item
            self._added(item, steps)
        if event.delta and item in self._open:  # else its arguments were whole: what is this?
            item.pieces.append(event.delta)
            item.arguments.add(event.delta)
            _, name = _ARGUMENTS[item.kind]
            place = {"item_id": item.id, "output_index": item.index}
            self._step(steps, f"{name}.delta", **place, delta=event.delta)

    def _keep(self, data: Extra, steps: list[Step]) -> None:
        """An event that only OpenAI knows, of an item that stands elsewhere in our output."""
        match data:
            case {"type": "response.output_item.added", "output_index": int(at), "item": dict(value)}:
                item = self._begin(str(value.get("type")), at, str(value.get("id") or ""), steps)
                item.value = value
                self._added(item, steps)
            case {"type": "response.output_item.done", "output_index": int(at), "item": dict(value)}:
                item = self._kept(at) or self._begin(
                    str(value.get("type")), at, str(value.get("id") or ""), steps
                )
                if item.value is None:
                    item.value = value
                    self._added(item, steps)
                item.value = value
                self._end(item, steps)
            case {"type": str(kind)} if not is_event_name(kind):
                pass
            case {"type": str(kind), "output_index": int(at)}:
                if (found := self._kept(at)) is not None:
                    fields = {
                        key: value for key, value in data.items() if key not in ("type", "output_index")
                    }
                    self._step(steps, kind, **fields, output_index=found.index)
            case {"type": str(kind)}:
                fields = {key: value for key, value in data.items() if key != "type"}
                self._step(steps, kind, **fields)

    def _kept(self, at: int) -> _Item | None:
        return next((item for item in self._open if item.value is not None and item.key == at), None)

    # the end

    def _end_part(self, item: _Item, part: Part, steps: list[Step]) -> None:
        content = part.content()
        place = self._place(item, part)
        said: Extra = {"refusal": content["refusal"]} if part.kind == "refusal" else {"text": content["text"]}
        if part.kind == "output_text":
            said["logprobs"] = part.logprobs
        self._step(steps, f"{_TEXT_STEPS[part.kind]}.done", **place, **said)
        summary = part.kind == "summary_text"
        kind = "response.reasoning_summary_part.done" if summary else "response.content_part.done"
        self._step(steps, kind, **place, part=content)

    def _end(self, item: _Item, steps: list[Step], status: str = "completed") -> None:
        self._open.remove(item)
        if item.parts:
            self._end_part(item, item.parts[-1], steps)
        content = item.content(status)
        if item.kind in _ARGUMENTS and item.value is None:
            place, name = _ARGUMENTS[item.kind]
            fields = {"item_id": item.id, "output_index": item.index, place: content[place]}
            if item.kind == "function_call":
                fields["name"] = item.facts["name"]
            self._step(steps, f"{name}.done", **fields)
        item.facts["status"] = status
        self._step(steps, "response.output_item.done", output_index=item.index, item=content)

    def _close_items(self, steps: list[Step]) -> None:
        last = self._open[-1] if self._open else None
        for item in list(self._open):
            cut = item is last and self._incomplete() != ""
            self._end(item, steps, "incomplete" if cut else "completed")

    def _close(self, event: Closed, steps: list[Step]) -> None:
        self._release(steps, force=True)
        if event.status == "completed":
            self._close_items(steps)
        self._closed = event
        response = self.response()
        kind = "failed" if response["status"] in ("failed", "cancelled") else response["status"]
        self._step(steps, f"response.{kind}", response=response)

    def _incomplete(self) -> str:
        """Return why the answer is not all there is; empty when it is."""
        finish = self._finish
        return _INCOMPLETE.get(finish.reason, "") if finish is not None else ""

    def _output(self, unfinished: str = "completed") -> list[Extra]:
        return [item.content(unfinished if item in self._open else "completed") for item in self._items]

    def _response(self, status: str, output: list[Extra], **more: Any) -> Extra:
        usage = (self._closed.usage if self._closed else None) or self._usage
        return {
            **_DEFAULTS,
            **self._facts,
            **self._echo,
            "id": dialect_id(PREFIX, self._answer.stream),
            "object": "response",
            "created_at": self._answer.created,
            "status": status,
            "model": self._model,
            "output": output,
            "usage": render_usage(usage) if usage is not None else None,
            **more,
        }


def _complete(token: Extra) -> Extra:
    """Return what is said of a token with all that this dialect says; others leave some of it out."""
    others = [{"bytes": list(other["token"].encode()), **other} for other in token.get("top_logprobs") or ()]
    return {"bytes": list(token["token"].encode()), **token, "top_logprobs": others}


def _annotation(event: Annotation) -> Extra | None:
    """Return a note in this dialect's form; None where it has none."""
    if event.dialect == NAME:
        return event.data
    match event.data:
        case {"type": "url_citation", "url_citation": dict(cited)} if event.dialect == OPENAI_CHAT:
            return {"type": "url_citation", **cited}
    return None


def render_usage(usage: UsageReported) -> Extra:
    """Return the counts in this dialect's way."""
    extra = (usage.extra or {}).get("response_usage") or {}
    return {
        **extra,
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            **(extra.get("input_tokens_details") or {}),
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            **(extra.get("output_tokens_details") or {}),
        },
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
