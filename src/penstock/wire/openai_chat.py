"""The OpenAI Chat Completions dialect, both directions, and what all providers that speak it share.

The parts of a dialect in their order (`penstock.wire.dialect`); two of them are modules of their own:
`openai_chat_requests` (parse and render) and `openai_chat_decoder`. Here are the way to the client
and the dialect as one object. The encoder keeps everything that is constant in a chunk as bytes.

Places in ``extra``, which only this dialect writes and merges back: ``chunk``, ``choice``, ``delta``,
``call`` (a tool call), ``function`` (inside it) and ``usage``. Nulls in unknown fields say nothing
and are dropped. No provider's address and no framing enters.

Source: the OpenAPI document of openai/openai-openapi and the types of openai-python.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
    Extra,
    Finished,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    escape_line_ends,
)
from penstock.types.positions import dialect_id
from penstock.types.requests import GenerationRequest
from penstock.wire.dialect import Answer, Frame
from penstock.wire.native import error_type
from penstock.wire.openai_chat_decoder import ChatDecoder
from penstock.wire.openai_chat_requests import NAME, parse_request, render_request
from penstock.wire.provider_errors import error_response
from penstock.wire.sse import HEARTBEAT

PREFIX: Final = "chatcmpl-"

DONE: Final[Frame] = (b"", b"[DONE]")

_encode = msgspec.json.Encoder().encode


def _json(value: Any) -> bytes:
    """Encode ``value`` for one line of data."""
    return escape_line_ends(_encode(value))


# --- EventEncoder ----------------------------------------------------------------------------------

_OWN_FIELDS: Final = frozenset(("id", "object", "created", "model", "choices", "usage"))
"""Fields of a chunk that are the stream's, whatever an event brings along."""

_TEXT_END: Final = b'},"logprobs":null,"finish_reason":null}'


class ChatEncoder:
    """Entries to chunks. A pure function of the log and the `Answer`.

    Each choice gets its role once: choice 0 in a chunk of its own, as OpenAI does, others with their
    first delta. Usage is held until the end. Facts that are plain values (``system_fingerprint``,
    ``provider``) stand on every chunk once `Started` has brought them; others only where they came.
    """

    __slots__ = (
        "_answer",
        "_calls",
        "_facts",
        "_finished",
        "_head",
        "_model",
        "_spoken",
        "_started",
        "_tail",
        "_text",
        "_text_tail",
        "_usage",
    )

    def __init__(self, answer: Answer) -> None:
        """Stand at the start of the log."""
        self._answer = answer
        self._facts: Extra = {}
        self._spoken: set[int] = set()
        self._finished: set[int] = set()
        self._calls: dict[tuple[int, int], str] = {}
        self._usage: UsageReported | None = None
        self._started = False
        self._tail = b'],"usage":null}' if answer.include_usage else b"]}"
        self._text_tail = _TEXT_END + self._tail
        self._head = self._text = b""
        self._compose(answer.model)

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry."""
        if type(event) is TextDelta and event.extra is None and event.logprobs is None:
            index = event.index
            if index in self._spoken:
                delta = event.delta
                if not delta:
                    return ()
                data = _encode(delta)
                if not data.isascii():
                    data = escape_line_ends(data)
                if not index:
                    return ((b"", self._text + data + self._text_tail),)
                text = b'{"index":%d,"delta":{"content":' % index
                return ((b"", self._head + text + data + self._text_tail),)
        return self._encode_other(event)

    def heartbeat(self) -> bytes:
        """A comment, for readers that are sent no ids; with ids the server sends `:` and LF alone."""
        return HEARTBEAT

    def idle_chunk(self) -> Frame:
        """Return a chunk that adds nothing: some clients' timers (LangChain's) do not see comments."""
        return (b"", b'%b{"index":0,"delta":{%b%b' % (self._head, _TEXT_END, self._tail))

    def _encode_other(self, event: AnyEvent) -> Sequence[Frame]:
        match event:
            case TextDelta(delta=delta, index=index, logprobs=logprobs, extra=extra):
                if not delta and logprobs is None and not extra:
                    return ()
                return self._frame(index, {"content": delta}, extra, logprobs=logprobs)
            case ReasoningDelta(delta=delta, index=index, extra=extra):
                return self._frame(index, {"reasoning_content": delta}, extra) if delta else ()
            case RefusalDelta(delta=delta, index=index, extra=extra):
                return self._frame(index, {"refusal": delta}, extra) if delta else ()
            case ToolCallDelta():
                return self._tool_call(event)
            case Finished(index=index, extra=extra):
                return self._finish(event)
            case UsageReported():
                self._usage = event
            case Annotation(data=data, dialect=dialect, index=index):
                return self._frame(index, {"annotations": [data]}, None) if dialect == NAME else ()
            case Opaque(dialect=dialect, data=data):
                return self._replay(data) if dialect == NAME else ()
            case Started():
                return self._start(event)
            case Closed():
                return self._close(event)
        return ()

    def _start(self, event: Started) -> Sequence[Frame]:
        if self._started:  # another attempt goes on with the same answer
            return ()
        self._started = True
        extra = event.extra or {}
        facts = extra.get("chunk") or {}
        self._facts = {key: value for key, value in facts.items() if _stays(key, value)}
        self._compose(event.model or self._answer.model)
        if 0 in self._spoken:
            return ()
        return self._frame(0, {"content": "", "refusal": None}, extra)

    def _finish(self, event: Finished) -> Sequence[Frame]:
        if event.index in self._finished:
            return ()
        self._finished.add(event.index)
        raw = event.raw
        reason = "function_call" if raw == "function_call" else event.reason
        if raw and raw != "function_call":
            return self._frame(event.index, {}, event.extra, reason=reason, native_finish_reason=raw)
        return self._frame(event.index, {}, event.extra, reason=reason)

    def _tool_call(self, event: ToolCallDelta) -> Sequence[Frame]:
        key = (event.index, event.call)
        extra = event.extra or {}
        own = extra.get("call") or {}
        form = self._calls.get(key)
        first = form is None
        if form is None:
            form = "function_call" if own.get("function_call") is True else event.kind
            self._calls[key] = form
        inner = _called(form, event.name, event.delta, first)
        if form == "function_call":
            return self._frame(event.index, {"function_call": inner}, event.extra)
        piece: Extra = {"index": event.call}
        if first:
            piece["id"] = event.id or call_id(self._answer.stream, event.index, event.call)
            piece["type"] = form
        if inner is not None:
            piece[form] = {**inner, **(extra.get("function") or {})}
        if event.signature:
            piece["extra_content"] = {"google": {"thought_signature": event.signature}}
        piece.update(own)
        return self._frame(event.index, {"tool_calls": [piece]}, event.extra)

    def _close(self, event: Closed) -> Sequence[Frame]:
        if event.status != "completed":
            return ((b"", _json({"error": closing_error(event)})),)
        usage = event.usage or self._usage
        if usage is None or not self._answer.include_usage:
            return (DONE,)
        return ((b"", b'%b],"usage":%b}' % (self._head, _json(render_usage(usage)))), DONE)

    def _replay(self, data: Extra) -> Sequence[Frame]:
        """A chunk that was kept as it came."""
        choices = []
        for choice in data.get("choices") or ():
            index = choice.get("index", 0)
            delta = self._with_role(index, choice.get("delta") or {})
            choices.append({**choice, "delta": delta, "finish_reason": None})
        facts = self._learn({key: value for key, value in data.items() if key != "choices"})
        return ((b"", b"%b%b%b" % (self._head, _json(choices)[1:-1], self._end_with(facts))),)

    def _frame(
        self,
        index: int,
        delta: Extra,
        extra: Extra | None,
        *,
        reason: str | None = None,
        logprobs: Any = None,
        native_finish_reason: str = "",
    ) -> Sequence[Frame]:
        """Return the chunk of one choice, unknown fields merged back where they came from."""
        delta = self._with_role(index, delta)
        choice: Extra = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        if native_finish_reason:
            choice["native_finish_reason"] = native_finish_reason
        tail = self._tail
        if extra:
            delta.update(extra.get("delta") or {})
            choice.update(extra.get("choice") or {})
            if facts := extra.get("chunk"):
                tail = self._end_with(self._learn(facts))
        return ((b"", b"%b%b%b" % (self._head, _json(choice), tail)),)

    def _with_role(self, index: int, delta: Extra) -> Extra:
        if index in self._spoken:
            return dict(delta)
        self._spoken.add(index)
        return {"role": "assistant", **delta}

    def _learn(self, facts: Extra) -> Extra:
        """Note new values of facts that stand on every chunk; return those that stand on this one."""
        once = {}
        changed = False
        for key, value in facts.items():
            if key in _OWN_FIELDS:
                continue
            if key in self._facts and _stays(key, value):
                changed = changed or self._facts[key] != value
                self._facts[key] = value
            else:
                once[key] = value
        if changed:
            self._compose(self._model)
        return once

    def _end_with(self, facts: Extra) -> bytes:
        return b"%b,%b" % (self._tail[:-1], _json(facts)[1:]) if facts else self._tail

    def _compose(self, model: str) -> None:
        """Make the bytes that every chunk begins with."""
        self._model = model
        head = _json(
            {
                "id": dialect_id(PREFIX, self._answer.stream),
                "object": "chat.completion.chunk",
                "created": self._answer.created,
                "model": model,
                **self._facts,
            }
        )
        self._head = head[:-1] + b',"choices":['
        self._text = self._head + b'{"index":0,"delta":{"content":'


def call_id(stream: str, index: int, call: int) -> str:
    """Return the id of a tool call that its provider gave none: the same in every rendering.

    26 characters; OpenAI takes up to 40 when it comes back.
    """
    return f"call_{stream[-16:]}{index:02d}{call:03d}"


def _called(form: str, name: str, delta: str, first: bool) -> Extra | None:
    """Return the object that carries a call's name and arguments; None for kinds we do not know."""
    if form == "custom":
        return {"name": name, "input": delta} if first or name else {"input": delta}
    if form not in ("function", "function_call"):
        return None
    return {"name": name, "arguments": delta} if first or name else {"arguments": delta}


def _stays(key: str, value: Any) -> bool:
    return key not in _OWN_FIELDS and isinstance(value, str | int | float)


def render_usage(usage: UsageReported) -> Extra:
    """Return the counts in OpenAI's way."""
    extra = (usage.extra or {}).get("usage") or {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        **extra,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            **(extra.get("prompt_tokens_details") or {}),
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            **(extra.get("completion_tokens_details") or {}),
        },
    }


_ENDINGS: Final[Mapping[str, str]] = {
    "failed": "The generation failed.",
    "cancelled": "The generation was cancelled.",
    "interrupted": "The generation was interrupted.",
    "expired": "The generation took longer than it may.",
}


def closing_error(event: Closed) -> Extra:
    """Return the error object of a stream that did not complete."""
    kind = "invalid_request_error" if event.fault == "client" else "server_error"
    return {
        "message": event.message or _ENDINGS.get(event.status, event.status),
        "type": event.error_type or kind,
        "param": event.param or None,
        "code": event.code or event.status,
        **({"provider_code": event.provider_code} if event.provider_code else {}),
    }


# --- render_answer ---------------------------------------------------------------------------------


class _Folded:
    """One choice of an answer that is put together."""

    __slots__ = (
        "annotations",
        "calls",
        "choice",
        "delta",
        "function_call",
        "logprobs",
        "raw",
        "reason",
        "reasoning",
        "refusal",
        "text",
    )

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, Extra] = {}
        self.function_call: Extra | None = None
        self.annotations: list[Extra] = []
        self.logprobs: dict[str, list[Any]] = {}
        self.reason: str | None = None
        self.raw = ""
        self.choice: Extra = {}
        self.delta: Extra = {}


def _render_answer(answer: Answer, events: Iterable[AnyEvent]) -> bytes:
    """Fold ``events``: texts and arguments joined, lists extended, single facts by the last word."""
    folded: dict[int, _Folded] = {}
    facts: Extra = {}
    model = ""
    usage: UsageReported | None = None
    for event in events:
        extra: Extra = getattr(event, "extra", None) or {}
        if isinstance(event, UsageReported):
            usage = event
            continue
        if isinstance(event, Closed):
            usage = event.usage or usage
            continue
        _merge(facts, extra.get("chunk"))
        if isinstance(event, Opaque):
            if event.dialect == NAME:
                _fold_opaque(event.data, facts, folded)
            continue
        if isinstance(event, Seam):
            continue
        if isinstance(event, Started):
            model = model or event.model
            index = 0
        else:
            index = event.index
        into = folded.setdefault(index, _Folded())
        _merge(into.choice, extra.get("choice"))
        _merge(into.delta, extra.get("delta"))
        _fold(answer, event, into)
    for name in _OWN_FIELDS:
        facts.pop(name, None)
    body: Extra = {
        "id": dialect_id(PREFIX, answer.stream),
        "object": "chat.completion",
        "created": answer.created,
        "model": model or answer.model,
        **facts,
        "choices": [_render_choice(index, folded[index]) for index in sorted(folded)],
    }
    if usage is not None:
        body["usage"] = render_usage(usage)
    return _encode(body)


def _fold(answer: Answer, event: AnyEvent, into: _Folded) -> None:
    match event:
        case TextDelta(delta=delta, logprobs=logprobs):
            into.text.append(delta)
            if isinstance(logprobs, dict):
                _merge(into.logprobs, {key: value for key, value in logprobs.items() if value is not None})
        case ReasoningDelta(delta=delta):
            into.reasoning.append(delta)
        case RefusalDelta(delta=delta):
            into.refusal.append(delta)
        case ToolCallDelta():
            _fold_call(answer, event, into)
        case Annotation(data=data, dialect=dialect):
            if dialect == NAME:
                into.annotations.append(data)
        case Finished(reason=reason, raw=raw):
            if into.reason is None:
                into.reason = reason
                into.raw = raw


def _fold_call(answer: Answer, event: ToolCallDelta, into: _Folded) -> None:
    extra = event.extra or {}
    own = extra.get("call") or {}
    if own.get("function_call") is True:
        into.function_call = into.calls[event.call] = {"name": event.name, "arguments": event.delta}
        return
    call = into.calls.get(event.call)
    if call is not None and call is into.function_call:
        call["name"] = call["name"] or event.name
        call["arguments"] += event.delta
        return
    if call is None:
        id_ = event.id or call_id(answer.stream, event.index, event.call)
        call = into.calls[event.call] = {"id": id_, "type": event.kind}
        inner = _called(event.kind, event.name, event.delta, True)
        if inner is not None:
            call[event.kind] = inner
    elif inner := call.get(call["type"]):
        key = "input" if call["type"] == "custom" else "arguments"
        inner[key] += event.delta
        inner["name"] = inner["name"] or event.name
    if event.signature:
        call["extra_content"] = {"google": {"thought_signature": event.signature}}
    _merge(call, own)
    if function := extra.get("function"):
        _merge(call.setdefault("function", {}), function)


def _fold_opaque(data: Extra, facts: Extra, folded: dict[int, _Folded]) -> None:
    _merge(facts, {key: value for key, value in data.items() if key != "choices"})
    for choice in data.get("choices") or ():
        into = folded.setdefault(choice.get("index", 0), _Folded())
        _merge(into.choice, {key: value for key, value in choice.items() if key not in ("index", "delta")})
        _merge(into.delta, choice.get("delta"))


def _render_choice(index: int, folded: _Folded) -> Extra:
    text = "".join(folded.text)
    refusal = "".join(folded.refusal) or None
    nothing = None if folded.calls or refusal else ""
    message: Extra = {"role": "assistant", "content": text or nothing, "refusal": refusal}
    if folded.reasoning:
        message["reasoning_content"] = "".join(folded.reasoning)
    if folded.function_call is not None:
        message["function_call"] = folded.function_call
    calls = [call for _, call in sorted(folded.calls.items()) if call is not folded.function_call]
    if calls:
        message["tool_calls"] = calls
    if folded.annotations:
        message["annotations"] = folded.annotations
    message.update(folded.delta)
    out: Extra = {
        "index": index,
        "message": message,
        "logprobs": {"content": None, "refusal": None, **folded.logprobs} if folded.logprobs else None,
        "finish_reason": "function_call" if folded.raw == "function_call" else folded.reason,
    }
    if folded.raw and folded.raw != "function_call":
        out["native_finish_reason"] = folded.raw
    out.update(folded.choice)
    return out


def _merge(into: Extra, new: Extra | None, *, join: bool = False) -> None:
    """Add ``new`` to ``into``: lists are extended, objects merged, other values replaced.

    With ``join`` texts are joined: the pieces of ``audio`` and its transcript are deltas as well.
    """
    for key, value in (new or {}).items():
        old = into.get(key)
        if isinstance(value, list):
            into[key] = [*old, *value] if isinstance(old, list) else list(value)
        elif isinstance(value, dict):
            merged = dict(old) if isinstance(old, dict) else {}
            _merge(merged, value, join=key == "audio")
            into[key] = merged
        elif join and key in ("data", "transcript") and isinstance(old, str) and isinstance(value, str):
            into[key] = old + value
        else:
            into[key] = value


# --- the dialect -----------------------------------------------------------------------------------


class OpenAIChat:
    """`penstock.wire.dialect.Dialect` for Chat Completions. Has no state."""

    __slots__ = ()

    name = NAME

    def parse_request(self, body: bytes) -> GenerationRequest:
        """See `penstock.wire.openai_chat_requests`. Raises `ClientError` 400."""
        return parse_request(body)

    def render_request(self, request: GenerationRequest, model: str) -> bytes:
        """See `penstock.wire.openai_chat_requests`; equal dialects lose nothing."""
        return render_request(request, model)

    def decoder(self) -> ChatDecoder:
        """Return a decoder for one response body."""
        return ChatDecoder()

    def encoder(self, answer: Answer) -> ChatEncoder:
        """Return an encoder that stands at the start of the log."""
        return ChatEncoder(answer)

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Return the ``chat.completion`` object of a completed stream."""
        return _render_answer(answer, events)

    def render_error(self, error: PenstockError) -> bytes:
        """Return ``{"error": {message, type, param, code}}``; an upstream's own type is kept."""
        kind = error.type or (
            "insufficient_quota" if error.code == "insufficient_quota" else error_type(error)
        )
        told = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
        if error.provider_code:
            told["provider_code"] = error.provider_code
        return _encode({"error": told})

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an error response of any of the providers; see `penstock.wire.provider_errors`."""
        return error_response(status, headers, body)


OPENAI_CHAT: Final = OpenAIChat()
