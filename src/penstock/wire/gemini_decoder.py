"""Gemini, the decoder: a provider's body → events.

Owns the format of ``:streamGenerateContent`` answers, with ``alt=sse`` or, from servers and proxies that take
no notice of that, as one JSON array, read as it comes. A chunk is a partial response: its parts add up.
Strategy: a chunk of plain text is decoded into structs, any other as a dict, with its unknown fields kept by
place.

Places in ``extra`` that only this dialect writes: ``response`` (a whole chunk), ``candidate``, ``part``
and ``usage_metadata``. Parts that only Gemini knows (inline data, executed code, streamed function
arguments) are kept as `Opaque`, in the form of a chunk. No framing enters.

Sources: types of google-genai; ai.google.dev on generateContent.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.types.errors import UpstreamError
from penstock.types.events import (
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
from penstock.wire.decoding import ArrayFrames, BodyDecoder, Events, as_count, as_objects, as_text, read_json
from penstock.wire.provider_errors import Problem, find_problem, upstream_error

NAME: Final = "gemini"

_encode = msgspec.json.Encoder().encode


# --- EventDecoder ----------------------------------------------------------------------------------


class _Part(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    text: str
    thought: bool = False


class _Content(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    parts: list[_Part]
    role: str = "model"


class _Candidate(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: _Content
    index: int = 0


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    candidates: list[_Candidate]
    usageMetadata: msgspec.Raw = msgspec.Raw()
    modelVersion: str = ""
    responseId: str = ""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode

_LENGTH: Final = ("MAX_TOKENS", "CONTINUATION")
_BROKEN: Final = frozenset(
    (
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "OTHER",
        "NO_IMAGE",
    )
)
"""Finish reasons of an answer that went wrong: an error if it has no output, else a stop."""

_FILTERED: Final = frozenset(
    (
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_OTHER",
        "IMAGE_RECITATION",
        "ESCALATION",
        "PUP_LIMITED_DISABLED",
        "MODEL_ARMOR",
    )
)
_PLAIN: Final[Mapping[str, str]] = {"STOP": "", "MAX_TOKENS": "", "SAFETY": ""}
"""Finish reasons that say no more than the canonical reason does."""

_RESPONSE_FIELDS: Final = frozenset(("candidates", "usageMetadata", "modelVersion", "responseId", "error"))
_CANDIDATE_FIELDS: Final = frozenset(("content", "index", "finishReason"))
_TEXT_FIELDS: Final = frozenset(("text", "thought", "thoughtSignature"))
_CALL_FIELDS: Final = frozenset(("functionCall", "thoughtSignature"))
_USAGE_FIELDS: Final = frozenset(
    (
        "promptTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "toolUsePromptTokenCount",
        "cachedContentTokenCount",
        "totalTokenCount",
    )
)


class _Candidature:
    """What a candidate has brought so far. ``ending``: its finish reason, told at the end, or why its
    prompt was ``blocked``."""

    __slots__ = ("blocked", "calls", "ending", "extra", "output")

    def __init__(self) -> None:
        self.calls = 0
        self.output = False
        self.blocked = False
        self.ending = ""
        self.extra: Extra | None = None


class GenerateContentDecoder(BodyDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder`.

    Finish reasons and usage are told when the body ends: some models repeat ``STOP`` on every chunk,
    nothing marks the last one, and whether tools were called is known only then. `usage` is read then, too.
    """

    __slots__ = ("_candidates", "_counts", "_facts", "_seen", "_started")

    def __init__(self) -> None:
        """Stand at the start of a body."""
        super().__init__()
        self._started = False
        self._counts = msgspec.Raw()  # of the last chunk that had some: read when they are wanted
        self._seen: Extra = {}
        self._facts: Extra = {}
        self._candidates: dict[int, _Candidature] = {}

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = read_json(data)
            if not isinstance(value, dict | list):
                raise msgspec.DecodeError("not an object") from None
            self._response(value, events)
            return
        if not self._started:
            self._begin(chunk.modelVersion, chunk.responseId, None, events)
        for candidate in chunk.candidates:
            state = self._candidate(candidate.index)
            for part in candidate.content.parts:
                if not part.text:
                    continue
                state.output = True
                if part.thought:
                    events.append(ReasoningDelta(part.text, candidate.index))
                else:
                    events.append(TextDelta(part.text, candidate.index))
        if chunk.usageMetadata:
            self._counts = chunk.usageMetadata

    def _document(self, value: Any, events: Events) -> None:
        """A whole response, or an error with status 200."""
        self._response(value, events)

    def _array_frames(self) -> ArrayFrames:
        return ArrayFrames()

    def _hold(self, events: Events) -> None:
        self._read_counts()
        if self.usage is not None:
            events.append(self.usage)

    def _end(self, events: Events) -> None:
        if isinstance(self._frames, ArrayFrames) and not self._frames.closed:
            raise self._truncated()
        if not self._candidates or not all(state.ending for state in self._candidates.values()):
            raise self._truncated()
        for index, state in sorted(self._candidates.items()):
            if state.ending in _BROKEN and not state.output and not state.blocked:
                raise _failed(state.ending)
            raw = _PLAIN.get(state.ending, state.ending)
            events.append(Finished(_reason(state), index, raw, extra=state.extra))
        self._hold(events)

    def _response(self, value: Any, events: Events) -> None:
        """One chunk, not of plain text."""
        if not isinstance(value, dict) or value.get("error"):
            raise upstream_error(find_problem(value) or Problem(""))
        facts = {k: v for k, v in value.items() if k not in _RESPONSE_FIELDS and v is not None}
        facts = {k: v for k, v in facts.items() if self._facts.get(k) != v}
        self._facts.update(facts)
        extra: Extra | None = {"gemini_response": facts} if facts else None
        first = not self._started
        self._begin(as_text(value.get("modelVersion")), as_text(value.get("responseId")), extra, events)
        if first:
            extra = None
        candidates = as_objects(value.get("candidates"))
        for position, candidate in enumerate(candidates):
            self._read_candidate(position, candidate, extra, events)
            extra = None
        if not candidates:
            feedback = value.get("promptFeedback")
            if isinstance(feedback, dict) and isinstance(blocked := feedback.get("blockReason"), str):
                state = self._candidate(0)
                state.ending = blocked
                state.blocked = True
            elif extra:
                events.append(Opaque(NAME, facts))
        if isinstance(usage := value.get("usageMetadata"), dict):
            self._counts = msgspec.Raw()
            self._count(usage)

    def _begin(self, model: str, id: str, extra: Extra | None, events: Events) -> None:
        if not self._started:
            self._started = True
            events.append(Started(model, id, extra=extra))

    def _read_candidate(self, position: int, raw: Extra, extra: Extra | None, events: Events) -> None:
        index = found if type(found := raw.get("index")) is int else position
        state = self._candidate(index)
        rest = {k: v for k, v in raw.items() if k not in _CANDIDATE_FIELDS and v is not None}
        ending = raw.get("finishReason")
        if isinstance(ending, str) and ending not in ("", "FINISH_REASON_UNSPECIFIED"):
            state.ending = ending
            if rest:
                state.extra = {"candidate": rest}
                rest = {}
        if rest:
            extra = {**(extra or {}), "candidate": rest}
        content = raw.get("content")
        for part in as_objects(content.get("parts")) if isinstance(content, dict) else ():
            if self._read_part(index, state, part, extra, events):
                extra = None
        if extra:
            facts = extra.get("gemini_response") or {}
            events.append(
                Opaque(NAME, {**facts, "candidates": [{"index": index, **extra.get("candidate", {})}]})
            )

    def _read_part(
        self, index: int, state: _Candidature, part: Extra, extra: Extra | None, events: Events
    ) -> bool:
        """Add the event of a part; say whether there was one that took ``extra``."""
        signature = as_text(part.get("thoughtSignature"))
        match part:
            case {"functionCall": {"name": str(name), **call}} if "partialArgs" not in call:
                arguments = _encode(call.get("args") or {}).decode()
                id = as_text(call.get("id"))
                extra = _with_part(extra, part, _CALL_FIELDS)
                events.append(
                    ToolCallDelta(state.calls, arguments, id, name, index, signature=signature, extra=extra)
                )
                state.calls += 1
            case {"text": str(text), "thought": True}:
                extra = _with_part(extra, part, _TEXT_FIELDS)
                if not text and not signature and not extra:
                    return False
                events.append(ReasoningDelta(text, index, signature=signature, extra=extra))
            case {"text": str(text)}:
                kept = frozenset(("text", "thought"))  # a text's signature has no field of its own
                extra = _with_part(extra, part, kept)
                if not text and not extra:
                    return False
                events.append(TextDelta(text, index, extra=extra))
            case _:
                events.append(Opaque(NAME, {"candidates": [{"index": index, "content": {"parts": [part]}}]}))
                state.output = True
                return False
        state.output = True
        return True

    def _candidate(self, index: int) -> _Candidature:
        state = self._candidates.get(index)
        if state is None:
            state = self._candidates[index] = _Candidature()
        return state

    def _read_counts(self) -> None:
        """Most models count on every chunk, and each count takes the place of the one before."""
        raw, self._counts = self._counts, msgspec.Raw()
        if raw and isinstance(counts := read_json(bytes(raw)), dict):
            self._count(counts)

    def _count(self, raw: Extra) -> None:
        thoughts = as_count(raw.get("thoughtsTokenCount"))
        extra = {k: v for k, v in raw.items() if k not in _USAGE_FIELDS and v is not None}
        self.usage = UsageReported(
            as_count(raw.get("promptTokenCount")) + as_count(raw.get("toolUsePromptTokenCount")),
            as_count(raw.get("candidatesTokenCount")) + thoughts,
            as_count(raw.get("cachedContentTokenCount")),
            reasoning_tokens=thoughts,
            extra={"usage_metadata": extra} if extra else None,
        )


def _reason(state: _Candidature) -> FinishReason:
    if state.blocked or state.ending in _FILTERED:
        return "content_filter"
    if state.ending in _LENGTH:
        return "length"
    return "tool_calls" if state.calls and state.ending == "STOP" else "stop"


def _failed(ending: str) -> UpstreamError:
    return upstream_error(Problem(f"The provider broke the answer off: {ending}.", code=ending))


def _with_part(extra: Extra | None, part: Extra, known: frozenset[str]) -> Extra | None:
    rest = {key: value for key, value in part.items() if key not in known and value is not None}
    return {**(extra or {}), "part": rest} if rest else extra
