"""Chat Completions, the decoder: a provider's body → events.

Owns the format of the stream and all that was seen to deviate from it, each with a vector in
``vectors/openai_chat``. Strategy: a chunk is decoded strictly into structs; only when that fails is
it decoded again as a dict, put right, and its unknown fields kept by place. Both ways meet in the same
structs, so that each rule stands once. No provider's address and no framing enters.

Sources: the OpenAPI document of openai/openai-openapi; for the deviations the SDKs and servers of the
providers named beside each rule.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from penstock.types.errors import UpstreamError, WireError
from penstock.types.events import (
    Annotation,
    AnyEvent,
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
from penstock.wire.decoding import BodyDecoder, Events, read_json
from penstock.wire.openai_chat_requests import MAX_CHOICES, NAME
from penstock.wire.provider_errors import Problem, find_problem, upstream_error

MAX_TOOL_CALLS: Final = 1024
"""Tool calls of one choice: far above what models make, far below what hurts."""

MAX_EARLY: Final = 64
"""Chunks with facts that are held back until the model or a choice is known; Azure sends one."""

_encode = msgspec.json.Encoder().encode

# What a strict decode does not know is found by a loose one and handed on in this field. The name is
# no provider's.
_EXTRA: Final = "(extra)"


class _FunctionPiece(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    arguments: str | None = None
    extra: dict[str, Any] | None = msgspec.field(default=None, name=_EXTRA)


class _CustomPiece(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    input: str | None = None


class _CallPiece(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: _FunctionPiece | None = None
    custom: _CustomPiece | None = None
    extra: dict[str, Any] | None = msgspec.field(default=None, name=_EXTRA)


class _Delta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallPiece] | None = None
    function_call: _FunctionPiece | None = None
    role: str | None = None
    parts: list[Any] | None = msgspec.field(default=None, name="(parts)")
    notes: list[Any] | None = msgspec.field(default=None, name="(notes)")
    extra: dict[str, Any] | None = msgspec.field(default=None, name=_EXTRA)


class _Choice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    native_finish_reason: str | None = None
    extra: dict[str, Any] | None = msgspec.field(default=None, name=_EXTRA)


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    choices: list[_Choice]
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    obfuscation: str | None = None
    extra: dict[str, Any] | None = msgspec.field(default=None, name=_EXTRA)


_decode_chunk = msgspec.json.Decoder(_Chunk).decode

_CHUNK_FIELDS: Final = frozenset(_Chunk.__struct_fields__) - {"extra"} | {"error"}
_CHOICE_FIELDS: Final = frozenset(_Choice.__struct_fields__) - {"extra"} | {"message", "usage", "error"}
_DELTA_FIELDS: Final = frozenset(_Delta.__struct_fields__) - {"extra", "parts", "notes"} | {"annotations"}
_CALL_FIELDS: Final = frozenset(_CallPiece.__struct_fields__) - {"extra"}
_FUNCTION_FIELDS: Final = frozenset(_FunctionPiece.__struct_fields__) - {"extra"}

_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "sensitive": "content_filter",  # GLM
}
"""Finish reasons with a meaning of their own; any other (``eos``, ``normal``) is a plain stop."""

_FAILURES: Final = frozenset(("error", "network_error", "insufficient_system_resource", "abort"))
"""Finish reasons that say that the answer failed."""


class _Call:
    """A tool call that is arriving. ``whole``: its first piece had a name and complete arguments."""

    __slots__ = ("chunk", "id", "name", "number", "whole")

    def __init__(self, number: int, chunk: int) -> None:
        self.number = number
        self.chunk = chunk
        self.id = ""
        self.name = ""
        self.whole = False


class _ChoiceState:
    """What a choice has brought so far."""

    __slots__ = ("by_index", "calls", "finished", "function_call")

    def __init__(self) -> None:
        self.finished = False
        self.calls: list[_Call] = []
        self.by_index: dict[int, _Call] = {}
        self.function_call: _Call | None = None


class ChatDecoder(BodyDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder`.

    `Started` comes once, with the first chunk that has a model or a choice; what came before it
    (Azure's prompt filter results) follows it as `Opaque`. Usage is reported once all choices that
    began have finished, or at the end: vLLM repeats it on every chunk. A choice finishes once. A
    finish reason that means failure, and an end without any finish reason, raise `UpstreamError`.
    Facts about the chunk as a whole are told with the event after which they hold, and again only
    when they change.
    """

    __slots__ = (
        "_chunks",
        "_early",
        "_facts",
        "_fingerprint",
        "_started",
        "_states",
        "_tier",
        "_told",
        "_trouble",
        "_unfinished",
    )

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__()
        self._started = False
        self._states: dict[int, _ChoiceState] = {}
        self._unfinished = 0
        self._chunks = 0
        self._facts: Extra = {}
        self._fingerprint: str | None = None
        self._tier: str | None = None
        self._early: Events = []
        self._told: UsageReported | None = None
        self._trouble: UpstreamError | None = None

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        """Decode one chunk; a plain piece of text, nearly all there is, takes the short way."""
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if data.strip() == b"[DONE]":
                self.finished = True
                return
            loose = self._loose(name, data)
            if loose is None:
                return
            chunk = loose
        else:
            if len(chunk.choices) == 1 and chunk.usage is None:
                choice = chunk.choices[0]
                delta = choice.delta
                if (
                    delta is not None
                    and delta.content
                    and choice.index in self._states
                    and choice.finish_reason is None
                    and choice.logprobs is None
                    and delta.tool_calls is None
                    and delta.reasoning_content is None
                    and delta.reasoning is None
                    and delta.refusal is None
                    and delta.function_call is None
                    and ((mark := chunk.system_fingerprint) is None or mark == self._fingerprint)
                    and ((tier := chunk.service_tier) is None or tier == self._tier)
                ):
                    events.append(TextDelta(delta.content, choice.index))
                    return
        self._interpret(chunk, events)

    def _document(self, value: Any, events: Events) -> None:
        """A whole `chat.completion`, or an error with status 200."""
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            chunk = self._repair(value)
            self._interpret(chunk, events)
        else:
            super()._document(value, events)

    def _given(self, value: Extra, events: Events) -> None:
        """Add the events of a chunk that a dialect beside this one has put in this form."""
        self._interpret(self._repair(value), events)

    def _hold(self, events: Events) -> None:
        if self._started:
            self._report(events)

    def _end(self, events: Events) -> None:
        if not self._states or self._unfinished:
            raise self._truncated()
        self._report(events)

    # a chunk's events

    def _interpret(self, chunk: _Chunk, events: Events) -> None:
        self._chunks += 1
        facts = self._news(chunk)
        if chunk.usage:
            self.usage = _read_usage(chunk.usage)
        if not self._started:
            if not chunk.choices and not chunk.model:
                if facts:
                    self._early.append(Opaque(NAME, facts))
                    if len(self._early) > MAX_EARLY:
                        raise WireError("The provider sent much before it began to answer.")
                self._raise_trouble()
                return
            self._start(chunk, facts, events)
        elif not chunk.choices:
            if facts:
                events.append(Opaque(NAME, facts))
        else:
            for choice in chunk.choices:
                left = self._choice(choice, facts, events)
                facts = None
                if left:
                    events.append(_opaque(choice.index, left))
        if self._states and not self._unfinished:
            self._report(events)
        self._raise_trouble()

    def _start(self, chunk: _Chunk, facts: Extra | None, events: Events) -> None:
        self._started = True
        extra: Extra = {"chunk": facts} if facts else {}
        rest: Events = []
        for choice in chunk.choices:
            left = self._choice(choice, None, rest)
            if left and choice.index == 0 and not rest:
                extra.update(left)
            elif left:
                rest.append(_opaque(choice.index, left))
        created = chunk.created or 0
        events.append(Started(chunk.model or "", chunk.id or "", created, extra=extra or None))
        events.extend(self._early)
        self._early.clear()
        events.extend(rest)

    def _choice(self, choice: _Choice, facts: Extra | None, events: Events) -> Extra | None:
        """Add the events of one choice; return the unknown fields if there was no event to take them."""
        index = choice.index
        delta = choice.delta
        reason = choice.finish_reason
        if reason == "" or reason == "null":
            reason = None
        extra: Extra | None = None
        if facts:
            extra = {"chunk": facts}
        if choice.extra:
            extra = {**(extra or {}), "choice": choice.extra}
        if delta is None and reason is None:
            return extra
        state = self._states.get(index)
        if state is None:
            state = self._open(index)
        logprobs = choice.logprobs
        if logprobs is not None and not any(logprobs.values()):
            logprobs = None
        if delta is not None:
            if delta.extra:
                extra = {**(extra or {}), "delta": delta.extra}
            if reasoning := delta.reasoning_content or delta.reasoning:
                events.append(ReasoningDelta(reasoning, index, extra=extra))
                extra = None
            for event in _content_parts(delta.parts, index) if delta.parts else ():
                if extra is not None and not isinstance(event, Annotation):
                    event = msgspec.structs.replace(event, extra=extra)
                    extra = None
                events.append(event)
            if delta.content:
                events.append(TextDelta(delta.content, index, 0, logprobs, extra))
                extra = logprobs = None
            if delta.refusal:
                events.append(RefusalDelta(delta.refusal, index, extra))
                extra = None
            if delta.tool_calls:
                for piece in delta.tool_calls:
                    events.append(self._tool_call(state, index, piece, extra))
                    extra = None
            if delta.function_call is not None:
                events.append(self._function_call(state, index, delta.function_call, extra))
                extra = None
            if delta.notes:
                events.extend(Annotation(note, NAME, index) for note in delta.notes)
        if logprobs is not None:
            events.append(TextDelta("", index, 0, logprobs, extra))
            extra = None
        if reason is not None:
            extra = self._finish(state, choice, reason, extra, events)
        return extra

    def _finish(
        self, state: _ChoiceState, choice: _Choice, reason: str, extra: Extra | None, events: Events
    ) -> Extra | None:
        raw = choice.native_finish_reason or (
            "" if reason in ("stop", "length", "tool_calls", "content_filter") else reason
        )
        if reason in _FAILURES or raw == "error":
            word = reason if reason in _FAILURES else raw
            self._trouble = self._trouble or upstream_error(
                Problem(f"The provider broke the answer off: {word}.", code=word, signs=(word,))
            )
            return None
        if state.finished:
            return extra
        state.finished = True
        self._unfinished -= 1
        matched = choice.extra.get("stop_reason") if choice.extra else None  # vLLM
        events.append(
            Finished(
                _REASONS.get(reason, "stop"),
                choice.index,
                raw,
                matched if isinstance(matched, str) else "",
                extra,
            )
        )
        return None

    def _tool_call(
        self, state: _ChoiceState, index: int, piece: _CallPiece, extra: Extra | None
    ) -> ToolCallDelta:
        function = piece.function
        custom = piece.custom
        name = delta = ""
        if function is not None:
            name, delta = function.name or "", function.arguments or ""
        elif custom is not None:
            name, delta = custom.name or "", custom.input or ""
        given = piece.id or ""
        if given == "null":  # Mistral's default
            given = ""
        call = self._call_of(state, piece.index, given, name, delta)
        new_id = given if not call.id else ""
        new_name = name if not call.name else ""
        call.id = call.id or given
        call.name = call.name or name
        call.chunk = self._chunks
        kind = piece.type or ("custom" if custom is not None else "function")
        signature = ""
        unknown = piece.extra
        if unknown:
            signature, unknown = _take_signature(unknown)
        if unknown:
            extra = {**(extra or {}), "call": unknown}
        if function is not None and function.extra:
            extra = {**(extra or {}), "function": function.extra}
        return ToolCallDelta(call.number, delta, new_id, new_name, index, kind, signature, extra)

    def _call_of(self, state: _ChoiceState, at: int | None, given: str, name: str, delta: str) -> _Call:
        """Find the call that a piece belongs to, or begin one.

        By ``index`` where it is given, but one index may serve several calls (Mistral: 0 for all);
        without (Gemini's compatible endpoint) by id, else to the last call.
        """
        found: _Call | None
        if at is not None:
            found = state.by_index.get(at)
        elif given:
            found = next((call for call in state.calls if call.id == given), None)
        else:
            found = state.calls[-1] if state.calls else None
        if found is not None:
            another_id = given and found.id and given != found.id
            another_name = name and found.name and name != found.name
            # A name again, without an id: a repetition, or a second call of the same function.
            second = (
                name and found.name and not given and (found.chunk == self._chunks or (found.whole and delta))
            )
            if another_id or second or (another_name and not (given and given == found.id)):
                found = None
        if found is None:
            if len(state.calls) >= MAX_TOOL_CALLS:
                raise WireError("The provider sent too many tool calls.")
            found = _Call(len(state.calls), self._chunks)
            found.whole = bool(name) and _is_object(delta)
            state.calls.append(found)
            if at is not None:
                state.by_index[at] = found
        return found

    def _function_call(
        self, state: _ChoiceState, index: int, piece: _FunctionPiece, extra: Extra | None
    ) -> ToolCallDelta:
        """The form before tool calls: at most one, without an id."""
        call = state.function_call
        name = piece.name or ""
        if call is None:
            call = state.function_call = _Call(len(state.calls), self._chunks)
            state.calls.append(call)
            extra = {**(extra or {}), "call": {"function_call": True}}
        new_name = name if not call.name else ""
        call.name = call.name or name
        return ToolCallDelta(call.number, piece.arguments or "", "", new_name, index, extra=extra)

    def _open(self, index: int) -> _ChoiceState:
        if not 0 <= index < MAX_CHOICES:
            raise WireError("The provider sent a choice beyond all bounds.")
        state = self._states[index] = _ChoiceState()
        self._unfinished += 1
        return state

    def _news(self, chunk: _Chunk) -> Extra | None:
        """Return the facts of ``chunk`` that differ from what has been told."""
        facts = chunk.extra or {}
        if chunk.system_fingerprint is not None:
            self._fingerprint = chunk.system_fingerprint
            facts = {**facts, "system_fingerprint": chunk.system_fingerprint}
        if chunk.service_tier is not None:
            self._tier = chunk.service_tier
            facts = {**facts, "service_tier": chunk.service_tier}
        if not facts:
            return None
        told = self._facts
        news = {key: value for key, value in facts.items() if key not in told or told[key] != value}
        told.update(news)
        return news or None

    def _report(self, events: Events) -> None:
        if self.usage is not None and self.usage != self._told:
            self._told = self.usage
            events.append(self.usage)

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble

    # the loose way

    def _loose(self, name: bytes, data: bytes) -> _Chunk | None:
        """Decode what is no chunk by the book; None for what is none at all. Errors are raised."""
        value = read_json(data)
        if not isinstance(value, dict):
            problem = find_problem(value) if isinstance(value, list) or name == b"error" else None
            if problem is None:
                raise msgspec.DecodeError("not an object")
            raise upstream_error(problem)
        if not isinstance(value.get("choices"), list):
            if _is_error(name, value):
                raise upstream_error(find_problem(value) or Problem(""))
            if not isinstance(value.get("usage"), dict):
                return None
        return self._repair(value)

    def _repair(self, value: Extra) -> _Chunk:
        """Return ``value`` as a chunk by the book, with what is unknown set aside, and remember the
        error in it, if any: it is raised when the rest has been read."""
        usage = value.get("usage")
        problem = find_problem({"error": error}) if (error := value.get("error")) else None
        choices = []
        found = value.get("choices")
        for position, raw in enumerate(found if isinstance(found, list) else ()):
            if not isinstance(raw, dict):
                continue
            choices.append(_repair_choice(raw, position))
            usage = usage or raw.get("usage")  # Moonshot
            if raw.get("error"):  # OpenRouter
                problem = problem or find_problem(raw)
        groq = value.get("x_groq")
        if isinstance(groq, dict):
            usage = usage or groq.get("usage")
            if groq.get("error"):
                problem = problem or find_problem(groq)
        if problem is not None:
            self._trouble = upstream_error(problem)
            choices = [msgspec.structs.replace(choice, finish_reason=None) for choice in choices]
        created = value.get("created")
        return _Chunk(
            choices,
            id=_text(value.get("id")),
            created=int(created) if isinstance(created, int | float) else None,
            model=_text(value.get("model")),
            usage=usage if isinstance(usage, dict) else None,
            system_fingerprint=_text(value.get("system_fingerprint")),
            service_tier=_text(value.get("service_tier")),
            extra=_others(value, _CHUNK_FIELDS),
        )


def _repair_choice(raw: Extra, position: int) -> _Choice:
    index = raw.get("index")
    delta = raw.get("delta")
    if not isinstance(delta, dict):
        delta = raw.get("message")
    reason = raw.get("finish_reason")
    logprobs = raw.get("logprobs")
    return _Choice(
        index if type(index) is int else position,
        _repair_delta(delta) if isinstance(delta, dict) else None,
        reason if isinstance(reason, str) or reason is None else str(reason),
        logprobs if isinstance(logprobs, dict) else None,
        _text(raw.get("native_finish_reason")),
        _others(raw, _CHOICE_FIELDS),
    )


def _repair_delta(raw: Extra) -> _Delta:
    content = raw.get("content")
    calls = raw.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    function = raw.get("function_call")
    notes = raw.get("annotations")
    return _Delta(
        content=_text(content),
        reasoning_content=_text(raw.get("reasoning_content")),
        reasoning=_text(raw.get("reasoning")),
        refusal=_text(raw.get("refusal")),
        tool_calls=[_repair_call(call) for call in calls if isinstance(call, dict)]
        if isinstance(calls, list)
        else None,
        function_call=_repair_function(function) if isinstance(function, dict) else None,
        parts=content if isinstance(content, list) else None,
        notes=[note for note in notes if isinstance(note, dict)] if isinstance(notes, list) else None,
        extra=_others(raw, _DELTA_FIELDS),
    )


def _repair_call(raw: Extra) -> _CallPiece:
    index = raw.get("index")
    function = raw.get("function")
    custom = raw.get("custom")
    return _CallPiece(
        index if type(index) is int else None,
        _text(raw.get("id")),
        _text(raw.get("type")),
        _repair_function(function) if isinstance(function, dict) else None,
        _CustomPiece(_text(custom.get("name")), _text(custom.get("input")))
        if isinstance(custom, dict)
        else None,
        _others(raw, _CALL_FIELDS),
    )


def _repair_function(raw: Extra) -> _FunctionPiece:
    arguments = raw.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = _encode(arguments).decode()
    return _FunctionPiece(_text(raw.get("name")), arguments, _others(raw, _FUNCTION_FIELDS))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _others(raw: Extra, known: frozenset[str]) -> Extra | None:
    """Return the fields of ``raw`` that are not ``known`` and say something."""
    return {key: value for key, value in raw.items() if value is not None and key not in known} or None


def _opaque(index: int, left: Extra) -> Opaque:
    """Keep the unknown fields of a chunk that has nothing else in it, in the form of that chunk."""
    choice: Extra = {"index": index, **left.get("choice", {})}
    if delta := left.get("delta"):
        choice["delta"] = delta
    return Opaque(NAME, {**left.get("chunk", {}), "choices": [choice]})


def _content_parts(parts: list[Any], index: int) -> Iterable[AnyEvent]:
    """Mistral: content as an array of text, thinking and references."""
    for part in parts:
        match part:
            case str(text) | {"type": "text", "text": str(text)} if text:
                yield TextDelta(text, index)
            case {"type": "thinking", "thinking": str(text)} if text:
                yield ReasoningDelta(text, index)
            case {"type": "thinking", "thinking": list(pieces)}:
                texts = (piece.get("text") for piece in pieces if isinstance(piece, dict))
                yield from (ReasoningDelta(text, index) for text in texts if isinstance(text, str) and text)
            case {"type": "text" | "thinking"}:
                pass
            case dict():
                yield Annotation(part, NAME, index)


def _take_signature(unknown: Extra) -> tuple[str, Extra | None]:
    """Gemini's compatible endpoint signs tool calls in ``extra_content``."""
    match unknown:
        case {"extra_content": {"google": {"thought_signature": str(signature), **others}, **more}, **rest}:
            if not others and not more:
                return signature, rest or None
            return signature, unknown
    return "", unknown


def _is_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _is_error(name: bytes, value: Extra) -> bool:
    """Say whether an object without choices reports an error; a ``ping`` does not."""
    if name == b"error" or value.get("error") or value.get("errors"):
        return True
    if value.get("type") == "error" or value.get("object") == "error":
        return True
    return ("type" not in value or "code" in value) and find_problem(value) is not None


_USAGE_FIELDS: Final = frozenset(
    (
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    )
)


def _read_usage(raw: Extra) -> UsageReported:
    """Read a usage object. Counts under names of some providers only stay in ``extra`` as well."""
    into = _count(raw, "prompt_tokens")
    out = _count(raw, "completion_tokens")
    prompt = _details(raw, "prompt_tokens_details")
    completion = _details(raw, "completion_tokens_details")
    cached = _count(prompt, "cached_tokens")
    if not cached:  # DeepSeek, Moonshot
        cached = _count(raw, "prompt_cache_hit_tokens") or _count(raw, "cached_tokens")
    extra = _others(raw, _USAGE_FIELDS) or {}
    if rest := _others(prompt, frozenset(("cached_tokens", "cache_write_tokens"))):
        extra["prompt_tokens_details"] = rest
    if rest := _others(completion, frozenset(("reasoning_tokens",))):
        extra["completion_tokens_details"] = rest
    total = raw.get("total_tokens")
    if type(total) is int and total != into + out:
        extra["total_tokens"] = total
    return UsageReported(
        into,
        out,
        cached,
        _count(prompt, "cache_write_tokens"),
        _count(completion, "reasoning_tokens"),
        extra={"usage": extra} if extra else None,
    )


def _count(raw: Extra, name: str) -> int:
    value = raw.get(name)
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def _details(raw: Extra, name: str) -> Extra:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}
