"""The Gemini dialect, both directions: ``:generateContent`` and ``:streamGenerateContent``.

The parts of a dialect in their order (`penstock.wire.dialect`); two of them are modules of their own:
`gemini_requests` (parse and render) and `gemini_decoder`. Here are the way to the client and the dialect as
one object. Strategy: a chunk is a partial response whose parts add up. A call comes whole, so its
pieces wait until they are; finish reasons and counts wait for the terminal entry, with which the last chunk
goes out. Thoughts are sent to those who asked for them (`GeminiEncoder`).

Places in ``extra`` that only this dialect writes and merges back: ``response``, ``candidate``, ``part``,
``usage_metadata``. No provider's address enters, and of the framing only that an array has commas.

Sources: types of google-genai (3.4); ai.google.dev on generateContent.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import (
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
from penstock.wire.arguments import Calls, WholeCall
from penstock.wire.decoding import token_logprobs
from penstock.wire.dialect import Answer, Frame
from penstock.wire.gemini_decoder import GenerateContentDecoder
from penstock.wire.gemini_requests import NAME, parse_request, render_request
from penstock.wire.provider_errors import error_response

_encode = msgspec.json.Encoder().encode

FIRST: Final = b"first"
NEXT: Final = b"next"
LAST: Final = b"last"
ONLY: Final = b"only"
"""Names of the frames of an array: where in it they stand."""


def _json(value: Any) -> bytes:
    return escape_line_ends(_encode(value))


# --- EventEncoder ----------------------------------------------------------------------------------

_REASONS: Final[Mapping[FinishReason, str]] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}
_OWN_REASONS: Final = frozenset(
    ("RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL")
).union(("IMAGE_SAFETY", "UNEXPECTED_TOOL_CALL", "CONTINUATION", "MODEL_ARMOR", "NO_IMAGE", "ESCALATION"))
"""Finish reasons that say more than the canonical one does."""

_TEXT_END: Final = b'}],"role":"model"},"index":0}],'


def _call_part(call: WholeCall) -> Extra:
    first = call.first
    told: Extra = {"name": first.name, "args": call.value}
    if first.id:
        told["id"] = first.id
    part: Extra = {"functionCall": told}
    if first.signature:
        part["thoughtSignature"] = first.signature
    return {**part, **((first.extra or {}).get("part") or {})}


class Layout:
    """Which chunks an answer has, as a pure function of the log: candidates, and what stands beside them.

    Calls are given in the order in which they began, each once it is whole.
    """

    __slots__ = ("_calls", "_finishes", "_once", "_thoughts", "_usage", "facts", "model")

    def __init__(self, answer: Answer, *, thoughts: bool) -> None:
        """Stand at the start of the log."""
        self.model = answer.model
        self.facts: Extra = {}  # that stand on every chunk
        self._once: Extra = {}
        self._thoughts = thoughts
        self._calls = Calls()
        self._finishes: dict[int, Finished] = {}
        self._usage: UsageReported | None = None

    @property
    def due(self) -> bool:
        """Whether the next chunk, whatever is in it, has something more to say."""
        return bool(self._once)

    def chunks(self, event: AnyEvent) -> Sequence[Extra]:
        """Return what the next entry's event means; often one chunk, maybe none."""
        out: list[Extra] = []
        if type(event) is Finished:
            self._give(self._calls.release(force=True), out)
        match event:
            case TextDelta(delta=delta) | RefusalDelta(delta=delta):
                if delta or event.extra or getattr(event, "logprobs", None):
                    out.append(_chunk(event, {"text": delta}))
            case ReasoningDelta(delta=delta, signature=signature):
                if self._thoughts and (delta or signature):
                    more = {"thoughtSignature": signature} if signature else {}
                    out.append(_chunk(event, {"text": delta, "thought": True, **more}))
            case ToolCallDelta():
                self._give(self._calls.add(event), out)
            case Started():
                self.model = event.model or self.model
                facts = (event.extra or {}).get("gemini_response") or {}
                self.facts = {
                    name: value for name, value in facts.items() if not isinstance(value, dict | list)
                }
                self._once = {name: value for name, value in facts.items() if name not in self.facts}
            case UsageReported():
                self._usage = event
            case Finished():
                self._finishes.setdefault(event.index, event)
            case Opaque(dialect=dialect, data=data):
                if dialect == NAME:
                    out.append(data)
            case Closed():
                out.append(self._close(event))
        if out and self._once:
            out[0], self._once = {**self._once, **out[0]}, {}
        return out

    @staticmethod
    def _give(calls: Iterable[WholeCall], out: list[Extra]) -> None:
        out.extend(_chunk(call.first, _call_part(call), own_part=False) for call in calls)

    def _close(self, event: Closed) -> Extra:
        if event.status != "completed":
            return {"error": closing_error(event)}
        usage = event.usage or self._usage
        out: Extra = {"usageMetadata": render_usage(usage)} if usage else {}
        if "promptFeedback" not in self._once:  # else nothing but why the prompt was blocked is told
            finishes = sorted(self._finishes.items()) or [(0, Finished("stop"))]
            out["candidates"] = [_last(finish) for _, finish in finishes]
        return out


def _last(finish: Finished) -> Extra:
    raw = finish.raw if finish.raw in _OWN_REASONS else ""
    return {
        "content": {"parts": [{"text": ""}], "role": "model"},
        "finishReason": raw or _REASONS[finish.reason],
        "index": finish.index,
        **((finish.extra or {}).get("candidate") or {}),
    }


def _chunk(event: Any, part: Extra, *, own_part: bool = True) -> Extra:
    """Return a chunk with one part, unknown fields merged back where they came from."""
    extra = event.extra or {}
    if own_part:
        part = {**part, **(extra.get("part") or {})}
    candidate: Extra = {"content": {"parts": [part], "role": "model"}, "index": event.index}
    if found := token_logprobs(getattr(event, "logprobs", None)):
        candidate["logprobsResult"] = _logprobs(found)
    candidate |= extra.get("candidate") or {}
    return {"candidates": [candidate], **(extra.get("gemini_response") or {})}


def _logprobs(tokens: Sequence[Extra]) -> Extra:
    def told(token: Extra) -> Extra:
        return {"token": token["token"], "logProbability": token.get("logprob")}

    chosen = [told(token) for token in tokens]
    top = [{"candidates": [told(other) for other in token.get("top_logprobs") or ()]} for token in tokens]
    return {"chosenCandidates": chosen, "topCandidates": top}


def render_usage(usage: UsageReported) -> Extra:
    """Return the counts in Google's way: what was thought is not among the candidates' tokens."""
    extra = (usage.extra or {}).get("usage_metadata") or {}
    out: Extra = {
        **extra,
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": max(0, usage.output_tokens - usage.reasoning_tokens),
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.reasoning_tokens:
        out["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cached_tokens:
        out["cachedContentTokenCount"] = usage.cached_tokens
    return out


class GeminiEncoder:
    """Entries to chunks. A pure function of the log and the `Answer`; see `Layout`.

    ``thoughts``: whether the client asked for them, which Google's own API wants as well. ``array``: the
    chunks are elements of one array, so frames are named by what comes before and after them.
    """

    __slots__ = ("_array", "_head", "_id", "_layout", "_started", "_tail")

    def __init__(self, answer: Answer, *, thoughts: bool = True, array: bool = False) -> None:
        """Stand at the start of the log."""
        self._layout = Layout(answer, thoughts=thoughts)
        self._array = array
        self._started = False
        self._head = b'{"candidates":[{"content":{"parts":[{"text":'
        self._tail = b""
        self._id = dialect_id("", answer.stream)
        self._compose()

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry."""
        layout = self._layout
        if (
            type(event) is TextDelta
            and not event.index
            and event.extra is None
            and event.logprobs is None
            and not layout.due
        ):
            delta = event.delta
            if not delta:
                return ()
            data = _encode(delta)
            if not data.isascii():
                data = escape_line_ends(data)
            return ((self._name(), self._head + data + self._tail),)
        chunks = layout.chunks(event)
        if type(event) is Started:
            self._compose()
        frames = [(self._name(), self._whole(chunk)) for chunk in chunks]
        if self._array and type(event) is Closed:
            name, data = frames[-1]
            frames[-1] = (LAST if name == NEXT else ONLY, data)
        return frames

    def heartbeat(self) -> bytes:
        """A chunk that adds nothing: Google's clients take no comments. In an array, white space."""
        if self._array:
            return b"\n"
        return b'data: {"candidates":[{"content":{"parts":[{"text":""' + self._tail + b"\n\n"

    def _name(self) -> bytes:
        if not self._array:
            return b""
        name = NEXT if self._started else FIRST
        self._started = True
        return name

    def _whole(self, chunk: Extra) -> bytes:
        return _json(chunk if "error" in chunk else {**chunk, **self._facts()})

    def _facts(self) -> Extra:
        layout = self._layout
        return {**layout.facts, "modelVersion": layout.model, "responseId": self._id}

    def _compose(self) -> None:
        """Make the bytes that every chunk of text ends with."""
        self._tail = _TEXT_END + _json(self._facts())[1:]


# --- render_answer ---------------------------------------------------------------------------------


def fold(answer: Answer, events: Iterable[AnyEvent], *, thoughts: bool = True) -> Extra:
    """Return the response that the chunks of ``events`` add up to."""
    layout = Layout(answer, thoughts=thoughts)
    candidates: dict[int, Extra] = {}
    rest: Extra = {}
    last: AnyEvent | None = None
    for last in events:
        _add(layout.chunks(last), candidates, rest)
    if type(last) is not Closed:
        _add(layout.chunks(Closed("completed")), candidates, rest)
    facts = {**layout.facts, "modelVersion": layout.model, "responseId": dialect_id("", answer.stream)}
    told = {"candidates": [candidates[index] for index in sorted(candidates)]} if candidates else {}
    return {**told, **rest, **facts}


def _add(chunks: Iterable[Extra], candidates: dict[int, Extra], rest: Extra) -> None:
    for chunk in chunks:
        rest |= {name: value for name, value in chunk.items() if name != "candidates"}
        for candidate in chunk.get("candidates") or ():
            empty: Extra = {"content": {"parts": [], "role": "model"}, "index": candidate.get("index", 0)}
            into = candidates.setdefault(candidate.get("index", 0), empty)
            into |= {name: value for name, value in candidate.items() if name not in ("content", "index")}
            for part in (candidate.get("content") or {}).get("parts") or ():
                _add_part(into["content"]["parts"], part)


def _add_part(parts: list[Extra], part: Extra) -> None:
    """Text goes on where the last part is plain text of its kind; what is empty says nothing."""
    last = parts[-1] if parts else {}
    plain = part.keys() <= {"text", "thought"} and isinstance(part.get("text"), str)
    if plain and not part["text"]:
        return
    if plain and last.keys() == part.keys() and isinstance(last["text"], str):
        last["text"] += part["text"]
    else:
        parts.append(dict(part))


# --- render_error ----------------------------------------------------------------------------------

_STATUSES: Final[Mapping[int, str]] = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    410: "NOT_FOUND",
    416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_RPC: Final = "type.googleapis.com/google.rpc."

_ENDINGS: Final[Mapping[str, str]] = {
    "failed": "The generation failed.",
    "cancelled": "The generation was cancelled.",
    "interrupted": "The generation was interrupted.",
    "expired": "The generation took longer than it may.",
}


def _error(
    message: str, code: str, status: int, retry_after: float | None, param: str | None, own: str
) -> Extra:
    info: Extra = {"@type": f"{_RPC}ErrorInfo", "reason": code.upper(), "domain": "penstock"}
    if own:
        info["metadata"] = {"provider_code": own}
    details: list[Extra] = [info]
    if param:
        violation = {"field": param, "description": message}
        details.append({"@type": f"{_RPC}BadRequest", "fieldViolations": [violation]})
    if retry_after is not None:
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{math.ceil(retry_after)}s"})
    named = _STATUSES.get(status, "INVALID_ARGUMENT" if 400 <= status < 500 else "INTERNAL")
    return {"code": status, "message": message, "status": named, "details": details}


def error_object(error: PenstockError) -> Extra:
    """Return the error object of an error response."""
    return _error(
        error.message, error.code, error.status, error.retry_after, error.param, error.provider_code
    )


def closing_error(event: Closed) -> Extra:
    """Return the error object of a stream that did not complete."""
    status = event.http_status or (499 if event.status == "cancelled" else 503)
    message = event.message or _ENDINGS.get(event.status, event.status)
    code, param = event.code or event.status, event.param or None
    return _error(message, code, status, event.retry_after, param, event.provider_code)


# --- the dialect -----------------------------------------------------------------------------------


class Gemini:
    """`penstock.wire.dialect.Dialect` for Gemini. Has no state."""

    __slots__ = ()

    name = NAME

    def parse_request(self, body: bytes) -> GenerationRequest:
        """See `penstock.wire.gemini_requests`; the model stands in the body. Raises `ClientError` 400."""
        return parse_request(body)

    def render_request(self, request: GenerationRequest, model: str) -> bytes:
        """See `penstock.wire.gemini_requests`; equal dialects lose nothing."""
        return render_request(request, model)

    def decoder(self) -> GenerateContentDecoder:
        """Return a decoder for one response body."""
        return GenerateContentDecoder()

    def encoder(self, answer: Answer) -> GeminiEncoder:
        """Return an encoder that stands at the start of the log."""
        return GeminiEncoder(answer)

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Return the response of a completed stream."""
        return _encode(fold(answer, events))

    def render_error(self, error: PenstockError) -> bytes:
        """Return ``{"error": {code, message, status, details}}``."""
        return _encode({"error": error_object(error)})

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an error response; see `penstock.wire.provider_errors`."""
        return error_response(status, headers, body)


GEMINI: Final = Gemini()
