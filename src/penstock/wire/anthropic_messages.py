"""The Anthropic Messages dialect, both directions: ``POST /v1/messages``.

The parts of a dialect in their order (`penstock.wire.dialect`); two of them are modules of their own:
`anthropic_messages_requests` (parse and render) and `anthropic_messages_decoder`. Here are the way to the
client and the dialect as one object. Strategy: `Layout` decides which content blocks there are and what
happens in them, whatever provider the answer comes from; the encoder makes frames of that, and a whole
answer is what a client would put together from them, so that both are always the same.

Places in ``extra`` of events, which only this dialect writes and merges back: ``message`` and
``message_usage`` (of the start), ``message_delta`` (of the end), ``block`` (a tool call's block). No
provider's address and no framing enters.

Sources: types and stream helpers of the anthropic SDKs (Python 2.12, TypeScript 1.12).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
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
    escape_line_ends,
)
from penstock.types.positions import dialect_id
from penstock.types.requests import GenerationRequest
from penstock.wire.anthropic_messages_decoder import MessagesDecoder
from penstock.wire.anthropic_messages_requests import NAME, parse_request, render_request
from penstock.wire.arguments import Arguments
from penstock.wire.decoding import as_count, as_text
from penstock.wire.dialect import Answer, Frame, is_event_name
from penstock.wire.native import error_body
from penstock.wire.provider_errors import error_response
from penstock.wire.sse import HEARTBEAT

PREFIX: Final = "msg_"

PING: Final[Frame] = (b"ping", b'{"type":"ping"}')

Step: TypeAlias = Extra
"""One event of this format: an object with its ``type``."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


# --- EventEncoder ----------------------------------------------------------------------------------

Key: TypeAlias = tuple[str, int]
"""What tells a content block from the others: its kind, and its number among its like."""

_REASONS: Final[Mapping[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_OWN_REASONS: Final = frozenset(("stop_sequence", "model_context_window_exceeded", "pause_turn"))
"""Stop reasons of Anthropic's that say more than the canonical one does."""

_COUNTED: Final = frozenset(("cache_read_input_tokens", "cache_creation_input_tokens"))


_PIECES: Final[Mapping[str, str]] = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}
"""Where the piece stands in a delta, by its type."""


class Layout:
    """Which blocks an answer has, and what happens in them, as a pure function of the log.

    Blocks come one after the other: one is open at a time. Where a provider lets its calls overlap, the
    first one that is not whole stays open and what belongs to others waits, until it is or the answer ends.
    Of several choices the first is given. The end is held until the terminal entry, with the counts.
    """

    __slots__ = (
        "_answer",
        "_arguments",
        "_called",
        "_closed_calls",
        "_finish",
        "_index",
        "_refused",
        "_started",
        "_usage",
        "_waiting",
        "open",
    )

    def __init__(self, answer: Answer) -> None:
        """Stand at the start of the log."""
        self.open: Key | None = None
        self._answer = answer
        self._index = -1
        self._started = False
        self._arguments = Arguments()
        self._waiting: dict[Key, list[AnyEvent]] = {}
        self._called = self._refused = False
        self._closed_calls: set[int] = set()
        self._finish: Finished | None = None
        self._usage: UsageReported | None = None

    @property
    def index(self) -> int:
        """The number of the block that is open, or was last."""
        return self._index

    def steps(self, event: AnyEvent) -> Sequence[Step]:
        """Return what the next entry's event means; often one step, maybe none."""
        steps: list[Step] = []
        match event:
            case Started():
                self._start(event, steps)
            case UsageReported():
                self._usage = event
            case Finished(index=0):
                self._finish = self._finish or event
                self._release(steps, force=True)
                self._stop(steps)
            case Closed():
                self._close(event, steps)
            case Opaque(dialect=dialect, data=data):
                if dialect == NAME:
                    self._keep(event, data, steps)
            case Annotation(dialect=dialect) if dialect != NAME:
                pass
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolCallDelta() | Annotation():
                if event.index == 0 and (key := _key(event)) is not None:
                    self._take(key, event, steps)
        return steps

    def _start(self, event: Started, steps: list[Step]) -> None:
        if self._started:  # another attempt goes on with the same answer
            return
        self._started = True
        extra = event.extra or {}
        usage = extra.get("message_usage") or {}
        cached = as_count(usage.get("cache_read_input_tokens"))
        written = as_count(usage.get("cache_creation_input_tokens"))
        message: Extra = {
            **(extra.get("message") or {}),
            "id": dialect_id(PREFIX, self._answer.stream),
            "type": "message",
            "role": "assistant",
            "model": event.model or self._answer.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": max(0, event.input_tokens - cached - written),
                "cache_creation_input_tokens": written,
                "cache_read_input_tokens": cached,
                "output_tokens": 0,
                **{name: value for name, value in usage.items() if name not in _COUNTED},
            },
        }
        steps.append({"type": "message_start", "message": message})

    # one block after the other

    def _take(self, key: Key, event: AnyEvent, steps: list[Step]) -> None:
        if not self._started:
            self._start(Started(), steps)
        if key == self.open:
            self._write(key, event, steps)
        elif self._waiting or not self._settled():
            self._waiting.setdefault(key, []).append(event)
            self._release(steps)
        else:
            self._write(key, event, steps)

    def _settled(self) -> bool:
        """Whether another block may begin."""
        return self.open is None or self.open[0] != "call" or self._arguments.whole

    def _release(self, steps: list[Step], *, force: bool = False) -> None:
        while self._waiting and (force or self._settled()):
            key = next(iter(self._waiting))
            for event in self._waiting.pop(key):
                self._write(key, event, steps)

    def _stop(self, steps: list[Step]) -> None:
        if self.open is not None:
            if self.open[0] == "call":
                self._closed_calls.add(self.open[1])
            elif self.open[0] == "custom":
                steps.append(self._delta({"type": "input_json_delta", "partial_json": '"}'}))
            steps.append({"type": "content_block_stop", "index": self._index})
            self.open = None

    def _begin(self, key: Key, block: Extra, steps: list[Step]) -> None:
        self._stop(steps)
        self.open = key
        self._index += 1
        steps.append({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: Extra) -> Step:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _write(self, key: Key, event: AnyEvent, steps: list[Step]) -> None:
        match event:
            case TextDelta(delta=delta) | RefusalDelta(delta=delta):
                if key != self.open:
                    self._begin(key, {"type": "text", "text": ""}, steps)
                self._refused = self._refused or type(event) is RefusalDelta
                steps.append(self._delta({"type": "text_delta", "text": delta}))
            case ReasoningDelta(encrypted=data) if data:
                self._begin(key, {"type": "redacted_thinking", "data": data}, steps)
            case ReasoningDelta(delta=delta, signature=signature):
                if key != self.open:
                    self._begin(key, {"type": "thinking", "thinking": "", "signature": ""}, steps)
                if delta:
                    steps.append(self._delta({"type": "thinking_delta", "thinking": delta}))
                if signature:
                    steps.append(self._delta({"type": "signature_delta", "signature": signature}))
            case ToolCallDelta():
                self._write_call(key, event, steps)
            case Annotation(data=data):
                if key != self.open:
                    self._begin(key, {"type": "text", "text": ""}, steps)
                steps.append(self._delta({"type": "citations_delta", "citation": data}))
            case Opaque(data=data):
                self._write_kept(key, data, steps)

    def _write_call(self, key: Key, event: ToolCallDelta, steps: list[Step]) -> None:
        piece = event.delta
        if key != self.open:
            if event.call in self._closed_calls:  # its arguments were whole: what is this?
                return
            self._called = True
            self._arguments = Arguments()
            block: Extra = {
                **((event.extra or {}).get("block") or {}),
                "type": "tool_use",
                "id": event.id or call_id(self._answer.stream, event.call),
                "name": event.name,
                "input": {},
            }
            self._begin(key, block, steps)
            if key[0] == "custom":  # its input is a text, and no JSON
                piece = '{"input":"' + _inside(piece)
        elif key[0] == "custom":
            piece = _inside(piece)
        if key[0] == "call":
            self._arguments.add(piece)
        if piece:
            steps.append(self._delta({"type": "input_json_delta", "partial_json": piece}))

    # blocks and events that only this dialect knows

    def _keep(self, event: Opaque, data: Extra, steps: list[Step]) -> None:
        match data:
            case {"type": "content_block_start", "index": int(index), "content_block": dict()}:
                self._take(("kept", index), event, steps)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                if not _is_sound(delta):
                    return
                if ("kept", index) in (self.open, *self._waiting):
                    self._take(("kept", index), event, steps)
                elif self.open is not None:
                    steps.append({**data, "index": self._index})
            case {"type": "content_block_stop", "index": int(index)}:
                if ("kept", index) in (self.open, *self._waiting):
                    self._take(("kept", index), event, steps)
            case {"type": "message_start" | "message_delta" | "message_stop"}:
                pass
            case {"type": "content_block_start" | "content_block_delta" | "content_block_stop"}:
                pass  # of no block, or of none that a client could read
            case {"type": str(kind)} if is_event_name(kind):
                if not self._started:
                    self._start(Started(), steps)
                steps.append(data)

    def _write_kept(self, key: Key, data: Extra, steps: list[Step]) -> None:
        if data["type"] == "content_block_start":
            self._begin(key, data["content_block"], steps)
        elif key == self.open and data["type"] == "content_block_stop":
            self._stop(steps)
        elif key == self.open:
            steps.append({**data, "index": self._index})

    # the end

    def _close(self, event: Closed, steps: list[Step]) -> None:
        if event.status != "completed":
            self._release(steps, force=True)
            steps.append({"type": "error", "error": _closing_error(event)})
            return
        if not self._started:
            self._start(Started(), steps)
        self._release(steps, force=True)
        self._stop(steps)
        delta: Extra = {"stop_reason": self._reason(), "stop_sequence": None}
        if self._finish is not None:
            delta["stop_sequence"] = self._finish.stop_sequence or None
            delta |= (self._finish.extra or {}).get("message_delta") or {}
        usage = render_usage(event.usage or self._usage or UsageReported())
        steps.append({"type": "message_delta", "delta": delta, "usage": usage})
        steps.append({"type": "message_stop"})

    def _reason(self) -> str:
        finish = self._finish or Finished("stop")
        if finish.raw in _OWN_REASONS:
            return finish.raw
        if finish.reason == "stop":
            if self._refused:
                return "refusal"
            if self._called:  # OpenAI says "stop" where it was told which tool to call
                return "tool_use"
            if finish.stop_sequence:
                return "stop_sequence"
        return _REASONS[finish.reason]


def _key(event: AnyEvent) -> Key | None:
    """Return which block ``event`` belongs to; None when it says nothing."""
    match event:
        case TextDelta(delta=delta, part=part):
            return ("text", part) if delta else None
        case Annotation(part=part):
            return ("text", part)
        case RefusalDelta(delta=delta):
            return ("refusal", 0) if delta else None
        case ReasoningDelta(part=part, encrypted=data) if data:
            return ("redacted", part)
        case ReasoningDelta(part=part, delta=delta, signature=signature):
            return ("thinking", part) if delta or signature else None
        case ToolCallDelta(call=call, kind=kind):
            return ("custom" if kind == "custom" else "call", call)
    return None


def _is_sound(delta: Extra) -> bool:
    """Say whether a client can read a provider's delta: one of a known kind has a text where it belongs."""
    match delta:
        case {"type": str(kind)}:
            return kind not in _PIECES or isinstance(delta.get(_PIECES[kind]), str)
    return False


def _inside(text: str) -> str:
    """Return ``text`` as it stands inside a JSON text."""
    return _encode(text)[1:-1].decode()


def call_id(stream: str, call: int) -> str:
    """Return the id of a tool call that its provider gave none: the same in every rendering."""
    return f"toolu_{stream[-16:]}{call:03d}"


def render_usage(usage: UsageReported) -> Extra:
    """Return the counts in Anthropic's way: what was cached is not in ``input_tokens``."""
    extra = (usage.extra or {}).get("message_usage") or {}
    out: Extra = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        out["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return {**out, **extra}


class MessagesEncoder:
    """Entries to events. A pure function of the log and the `Answer`; see `Layout`."""

    __slots__ = ("_head", "_layout", "_part")

    def __init__(self, answer: Answer) -> None:
        """Stand at the start of the log."""
        self._layout = Layout(answer)
        self._part = -1  # of the text block that is open
        self._head = b""

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry."""
        if type(event) is TextDelta and event.part == self._part and not event.index:
            delta = event.delta
            if not delta:
                return ()
            data = _encode(delta)
            if not data.isascii():
                data = escape_line_ends(data)
            return ((b"content_block_delta", self._head + data + b"}}"),)
        layout = self._layout
        frames = [(step["type"].encode(), escape_line_ends(_encode(step))) for step in layout.steps(event)]
        self._part = layout.open[1] if layout.open is not None and layout.open[0] == "text" else -1
        self._head = (
            b'{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":' % layout.index
        )
        return frames

    def heartbeat(self) -> bytes:
        """A comment, for readers that are sent no ids; with ids the server sends `:` and LF alone."""
        return HEARTBEAT

    def idle_chunk(self) -> Frame:
        """Return a ping, which is what Anthropic sends: some clients' timers see no comments."""
        return PING


# --- render_answer ---------------------------------------------------------------------------------


class _Folded:
    """A message that is put together from steps, as a client does."""

    def __init__(self) -> None:
        self.message: Extra = {}
        self._pieces: list[str] = []

    def add(self, step: Step) -> None:
        match step:
            case {"type": "message_start", "message": message}:
                self.message = dict(message)
            case {"type": "content_block_start", "content_block": block}:
                self.message["content"].append(dict(block))
                self._pieces = []
            case {"type": "content_block_delta", "delta": delta}:
                self._add_delta(self.message["content"][-1], delta)
            case {"type": "content_block_stop"}:
                self._end_block(self.message["content"][-1])
            case {"type": "message_delta", "delta": delta, "usage": usage}:
                self.message |= delta
                self.message["usage"] = {**self.message["usage"], **usage}

    def _add_delta(self, block: Extra, delta: Extra) -> None:
        match delta:
            case {"type": "text_delta" | "thinking_delta" | "input_json_delta" as kind}:
                self._pieces.append(delta[_PIECES[kind]])
            case {"type": "citations_delta", "citation": citation}:
                before = block.get("citations")
                block["citations"] = [*(before if isinstance(before, list) else ()), citation]
            case _:  # a signature replaces the one before
                block.update((name, value) for name, value in delta.items() if name != "type")

    def _end_block(self, block: Extra) -> None:
        said, self._pieces = "".join(self._pieces), []
        match block.get("type"):
            case "text" | "thinking" as kind:
                block[kind] = as_text(block.get(kind)) + said
            case _ if said:
                block["input"] = _read_input(said)


def _read_input(text: str) -> Any:
    """Return the input of a call; one that was cut off as Anthropic's docs say to hand on broken JSON."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {"INVALID_JSON": text}


def _render_answer(answer: Answer, events: Iterable[AnyEvent]) -> bytes:
    layout, folded = Layout(answer), _Folded()
    closed = False
    for event in events:
        closed = closed or type(event) is Closed
        for step in layout.steps(event):
            folded.add(step)
    if not closed:
        for step in layout.steps(Closed("completed")):
            folded.add(step)
    return _encode(folded.message)


# --- render_error ----------------------------------------------------------------------------------

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    410: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OWN_TYPES: Final = frozenset((*_TYPES.values(), "invalid_request_error", "api_error"))


def _type_of(code: str, status: int, given: str) -> str:
    """Return the word that Anthropic's clients switch on; an Anthropic's own is kept."""
    if given in _OWN_TYPES:
        return given
    if code == "insufficient_quota":
        return "billing_error"
    return _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")


STATUSES: Final[Mapping[str, int]] = {"overloaded": 529, "insufficient_quota": 402}
"""Codes with another HTTP status than elsewhere, by which Anthropic's clients know what is worth a retry."""


def error_status(error: PenstockError) -> int:
    """Return the HTTP status that ``error`` has in this dialect."""
    return STATUSES.get(error.code, error.status)


_ENDINGS: Final[Mapping[str, str]] = {
    "failed": "The generation failed.",
    "cancelled": "The generation was cancelled.",
    "interrupted": "The generation was interrupted.",
    "expired": "The generation took longer than it may.",
}


def _closing_error(event: Closed) -> Extra:
    """Return the error object of a stream that did not complete."""
    status = event.http_status or (400 if event.fault == "client" else 500)
    return {
        "type": _type_of(event.code, status, event.error_type),
        "message": event.message or _ENDINGS.get(event.status, event.status),
        "code": event.code or event.status,
        **({"provider_code": event.provider_code} if event.provider_code else {}),
    }


# --- the dialect -----------------------------------------------------------------------------------


class AnthropicMessages:
    """`penstock.wire.dialect.Dialect` for Messages. Has no state."""

    __slots__ = ()

    name = NAME

    def parse_request(self, body: bytes) -> GenerationRequest:
        """See `penstock.wire.anthropic_messages_requests`. Raises `ClientError` 400."""
        return parse_request(body)

    def render_request(self, request: GenerationRequest, model: str) -> bytes:
        """See `penstock.wire.anthropic_messages_requests`; equal dialects lose nothing."""
        return render_request(request, model)

    def decoder(self) -> MessagesDecoder:
        """Return a decoder for one response body."""
        return MessagesDecoder()

    def encoder(self, answer: Answer) -> MessagesEncoder:
        """Return an encoder that stands at the start of the log."""
        return MessagesEncoder(answer)

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Return the ``message`` object of a completed stream."""
        return _render_answer(answer, events)

    def render_error(self, error: PenstockError, request_id: str = "") -> bytes:
        """Return ``{"type": "error", "error": {type, message, …}}``, and the request's id if there is one."""
        told = error_body(error) | {"type": _type_of(error.code, error_status(error), error.type)}
        body: Extra = {"type": "error", "error": told}
        return _encode(body | {"request_id": request_id} if request_id else body)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an error response; see `penstock.wire.provider_errors`."""
        return error_response(status, headers, body)


ANTHROPIC_MESSAGES: Final = AnthropicMessages()
