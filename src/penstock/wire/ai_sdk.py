"""The AI SDK dialect, towards clients: the UI message stream (v1) that Vercel's ``useChat`` reads.

The parts of a client's dialect in their order (`penstock.wire.dialect`); its requests are a module of their
own, `ai_sdk_requests`. Strategy: a frame is a chunk of one message, whose parts are opened and closed; a
part is closed when something else begins, calls once their arguments are whole, since providers may let
them overlap. A chunk has documented members only: early versions of the SDK refuse all others. Of several
choices the first is given.

An answer that was completed ends with ``finish``, one that was stopped with ``abort``, any other with
``error``; ``[DONE]`` follows in every case.

Source: npm `ai` 5.0, 6.0 and 7.0, ``src/ui-message-stream``; "UI Message Stream Protocol" of ai-sdk.dev.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from penstock.types.errors import PenstockError
from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
    Extra,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    escape_line_ends,
)
from penstock.types.positions import dialect_id
from penstock.types.requests import GenerationRequest
from penstock.wire import native
from penstock.wire.ai_sdk_requests import NAME, read_request
from penstock.wire.arguments import Arguments
from penstock.wire.dialect import Answer, Frame

VERSION: Final = (b"x-vercel-ai-ui-message-stream", b"v1")
"""The header that says what a body in this dialect is."""

DONE: Final[Frame] = (b"", b"[DONE]")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode

_REASONS: Final[Mapping[FinishReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
}

_ENDINGS: Final[Mapping[str, str]] = {
    "failed": "The generation failed.",
    "cancelled": "The generation was cancelled.",
    "interrupted": "The generation was interrupted.",
    "expired": "The generation took longer than it may.",
}


def message_id(answer: Answer) -> str:
    """Return the name of the message that a stream is, unless it goes on with another one."""
    return dialect_id("msg_", answer.stream)


def _frame(chunk: Extra) -> Frame:
    return (b"", escape_line_ends(_encode(chunk)))


# --- EventEncoder ----------------------------------------------------------------------------------


class _Call:
    """A call whose input is open."""

    __slots__ = ("arguments", "custom", "id", "name", "pieces")

    def __init__(self, id: str, name: str, *, custom: bool) -> None:
        self.id = id
        self.name = name
        self.custom = custom
        self.pieces: list[str] = []
        self.arguments = Arguments()

    @property
    def settled(self) -> bool:
        return not self.custom and self.arguments.whole

    def end(self) -> Extra:
        """Return what says that the input is there, or that it cannot be read."""
        named: Extra = {"toolCallId": self.id, "toolName": self.name}
        text = "".join(self.pieces)
        if self.custom:
            return {"type": "tool-input-available", **named, "input": text}
        try:
            value = _decode(text) if text.strip() else {}
        except (msgspec.DecodeError, RecursionError):
            problem = "The model gave arguments that are no JSON."
            return {"type": "tool-input-error", **named, "input": text, "errorText": problem}
        return {"type": "tool-input-available", **named, "input": value}


class Layout:
    """Which chunks an answer has, as a pure function of the log. ``message`` names what it is a part of."""

    __slots__ = (
        "_answer",
        "_calls",
        "_finish",
        "_kind",
        "_message",
        "_model",
        "_parts",
        "_seen",
        "_usage",
        "id",
    )

    def __init__(self, answer: Answer, message: str = "") -> None:
        """Stand at the start of the log."""
        self.id = ""  # of the part of text or thought that is open
        self._answer = answer
        self._message = message or message_id(answer)
        self._model = answer.model
        self._kind: tuple[str, int] = ("", 0)
        self._parts = 0
        self._calls: dict[int, _Call | None] = {}
        self._seen: set[str] = set()
        self._finish: FinishReason | None = None
        self._usage: UsageReported | None = None

    def opening(self) -> Sequence[Extra]:
        """Return the chunks before the first entry."""
        told = {"stream": self._answer.stream}
        start = {"type": "start", "messageId": self._message, "messageMetadata": told}
        return (start, {"type": "start-step"})

    def chunks(self, event: AnyEvent) -> Sequence[Extra]:
        """Return what the next entry's event means."""
        out: list[Extra] = []
        match event:
            case TextDelta(index=0, delta=delta, part=part) if delta:
                self._say("text", part, delta, out)
            case RefusalDelta(index=0, delta=delta) if delta:
                self._say("text", -1, delta, out)
            case ReasoningDelta(index=0, delta=delta, part=part) if delta:
                self._say("reasoning", part, delta, out)
            case ToolCallDelta(index=0):
                self._call(event, out)
            case Annotation(index=0):
                self._source(event, out)
            case Started():
                self._model = event.model or self._model
            case UsageReported():
                self._usage = event
            case Finished(index=0):
                self._finish = self._finish or event.reason
                self._end_part(out)
                self._end_calls(out)
            case Closed():
                self._close(event, out)
        return out

    @property
    def says_text(self) -> bool:
        """Whether plain text of the first part would go on in the part that is open."""
        return self._kind == ("text", 0)

    def _say(self, kind: str, part: int, delta: str, out: list[Extra]) -> None:
        if self._kind != (kind, part):
            self._end_part(out)
            self._end_calls(out, settled=True)
            self._parts += 1
            self._kind, self.id = (kind, part), f"{kind}-{self._parts}"
            out.append({"type": f"{kind}-start", "id": self.id})
        out.append({"type": f"{kind}-delta", "id": self.id, "delta": delta})

    def _end_part(self, out: list[Extra]) -> None:
        if self.id:
            out.append({"type": f"{self._kind[0]}-end", "id": self.id})
            self._kind, self.id = ("", 0), ""

    def _call(self, event: ToolCallDelta, out: list[Extra]) -> None:
        call = self._calls.get(event.call)
        if event.call not in self._calls:
            self._end_part(out)
            self._end_calls(out, settled=True)
            id_ = event.id or f"{dialect_id('call_', self._answer.stream)}_{event.call}"
            call = self._calls[event.call] = _Call(id_, event.name, custom=event.kind == "custom")
            out.append({"type": "tool-input-start", "toolCallId": id_, "toolName": event.name})
        if event.delta and call is not None:  # else its arguments were whole: what is this?
            call.pieces.append(event.delta)
            call.arguments.add(event.delta)
            out.append({"type": "tool-input-delta", "toolCallId": call.id, "inputTextDelta": event.delta})

    def _end_calls(self, out: list[Extra], *, settled: bool = False) -> None:
        """Close what is open, or only that of which it is sure that nothing more comes."""
        for number, call in self._calls.items():
            if call is not None and (call.settled or not settled):
                out.append(call.end())
                self._calls[number] = None

    def _source(self, event: Annotation, out: list[Extra]) -> None:
        data: Extra = event.data.get("url_citation") or event.data
        url, title = data.get("url"), data.get("title")
        if isinstance(url, str) and url and url not in self._seen:
            self._seen.add(url)
            source: Extra = {"type": "source-url", "sourceId": f"source-{len(self._seen)}", "url": url}
            out.append(source | ({"title": title} if isinstance(title, str) and title else {}))

    def _close(self, event: Closed, out: list[Extra]) -> None:
        self._end_part(out)
        if event.status == "completed":
            self._end_calls(out)
            out.append({"type": "finish-step"})
            out.append(
                {
                    "type": "finish",
                    "finishReason": _REASONS[self._finish or "stop"],
                    "messageMetadata": self._facts(event),
                }
            )
            return
        # A call that is not whole stays as it is: the SDK sends none of those on.
        self._end_calls(out, settled=True)
        told = {"status": event.status, "code": event.code or event.status, "retryable": event.retryable}
        if event.provider_code:
            told["provider_code"] = event.provider_code
        out.append({"type": "message-metadata", "messageMetadata": self._facts(event) | {"end": told}})
        text = event.message or _ENDINGS.get(event.status, event.status)
        if event.status == "cancelled":
            out.append({"type": "abort", "reason": text})
        else:
            out.append({"type": "error", "errorText": text})

    def _facts(self, event: Closed) -> Extra:
        """Return what is known of the answer in the end, in the SDK's names."""
        out: Extra = {"model": self._model}
        if usage := event.usage or self._usage:
            out["usage"] = {
                "inputTokens": usage.input_tokens,
                "outputTokens": usage.output_tokens,
                "totalTokens": usage.input_tokens + usage.output_tokens,
                "reasoningTokens": usage.reasoning_tokens,
                "cachedInputTokens": usage.cached_tokens,
            }
        return out


class UIMessageEncoder:
    """Entries to chunks. A pure function of the log, the `Answer` and the name of the message."""

    __slots__ = ("_head", "_head_of", "_layout")

    def __init__(self, answer: Answer, message: str = "") -> None:
        """Stand at the start of the log."""
        self._layout = Layout(answer, message)
        self._head = b""
        self._head_of = ""

    def opening(self) -> Sequence[Frame]:
        """Return the frames before the first entry. To be asked at the start of the log."""
        return [_frame(chunk) for chunk in self._layout.opening()]

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry."""
        layout = self._layout
        if type(event) is TextDelta and layout.says_text and not event.index and not event.part:
            if not event.delta:
                return ()
            if self._head_of != layout.id:
                self._head_of = layout.id
                self._head = b'{"type":"text-delta","id":"%b","delta":' % layout.id.encode()
            data = _encode(event.delta)
            if not data.isascii():
                data = escape_line_ends(data)
            return ((b"", b"%b%b}" % (self._head, data)),)
        frames = [_frame(chunk) for chunk in layout.chunks(event)]
        return [*frames, DONE] if type(event) is Closed else frames

    def heartbeat(self) -> bytes:
        """A comment, as the SDK's own servers send it."""
        return b": keep-alive\n\n"


# --- render_answer ---------------------------------------------------------------------------------


def fold(answer: Answer, events: Iterable[AnyEvent], message: str = "") -> Extra:
    """Return the message that a page has after a stream's events."""
    layout = Layout(answer, message)
    out: Extra = {"id": message or message_id(answer), "role": "assistant", "metadata": {}, "parts": []}
    parts: list[Extra] = out["parts"]
    found: dict[str, Extra] = {}
    for chunk in (*layout.opening(), *(chunk for event in events for chunk in layout.chunks(event))):
        out["metadata"] |= chunk.get("messageMetadata") or {}
        kind = chunk["type"].partition("-")[0]
        match chunk["type"]:
            case "start-step":
                parts.append({"type": "step-start"})
            case "text-start" | "reasoning-start":
                found[chunk["id"]] = {"type": kind, "text": "", "state": "streaming"}
                parts.append(found[chunk["id"]])
            case "text-delta" | "reasoning-delta":
                found[chunk["id"]]["text"] += chunk["delta"]
            case "text-end" | "reasoning-end":
                found[chunk["id"]]["state"] = "done"
            case "source-url":
                parts.append(chunk)
            case "tool-input-start":
                part = {"type": f"tool-{chunk['toolName']}", "toolCallId": chunk["toolCallId"]}
                found[chunk["toolCallId"]] = part | {"state": "input-streaming"}
                parts.append(found[chunk["toolCallId"]])
            case "tool-input-available":
                found[chunk["toolCallId"]] |= {"state": "input-available", "input": chunk["input"]}
            case "tool-input-error":
                told = {"input": chunk["input"], "errorText": chunk["errorText"]}
                found[chunk["toolCallId"]] |= {"state": "output-error", **told}
    return out


# --- the dialect -----------------------------------------------------------------------------------


class AiSdk:
    """`penstock.wire.dialect.Face` for the AI SDK's chats. Has no state."""

    __slots__ = ()

    name = NAME

    def parse_request(self, body: bytes) -> GenerationRequest:
        """See `penstock.wire.ai_sdk_requests`; the model stands in the body. Raises `ClientError` 400."""
        return read_request(body).request

    def encoder(self, answer: Answer) -> UIMessageEncoder:
        """Return an encoder that stands at the start of the log."""
        return UIMessageEncoder(answer)

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Return the message that a page has in the end."""
        return _encode(fold(answer, events))

    def render_error(self, error: PenstockError) -> bytes:
        """Return the gateway's own error body: the SDK has none, and shows the text of any."""
        return native.render_error(error)


AI_SDK: Final = AiSdk()
