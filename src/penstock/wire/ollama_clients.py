"""Ollama, towards clients: ``/api/chat`` and ``/api/generate``.

What `penstock.wire.ollama` is towards providers: the encoder, whole answers, errors; and the dialect as one
object. Requests are read by `penstock.wire.ollama_asked`. Strategy: a line is a piece of the answer; a call
comes whole, so its pieces wait until they are; counts, durations and why it ended stand on the last line,
which waits for the terminal entry. The two routes differ in where a line has its text (`Api`). Every line
bears the time at which the answer began, so that lines are a function of the log. No framing enters.

Places in ``extra`` that only this dialect writes and merges back: ``line``, ``message``, ``tool_call``.

Source: api/types.go and server/routes.go of github.com/ollama/ollama, version 0.17.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import (
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
from penstock.types.requests import GenerationRequest
from penstock.wire.arguments import Calls, WholeCall
from penstock.wire.decoding import token_logprobs
from penstock.wire.dialect import Answer, Frame
from penstock.wire.ollama import DEFAULTS, NAME, OllamaDecoder, parse_error, render_request
from penstock.wire.ollama_asked import parse_request
from penstock.wire.ollama_requests import Api

_encode = msgspec.json.Encoder().encode


# --- EventEncoder ----------------------------------------------------------------------------------


def _time(created: int) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Layout:
    """Which lines an answer has, as a pure function of the log. Of several choices the first is given."""

    __slots__ = ("_api", "_calls", "_finish", "_given", "_thoughts", "_usage", "facts", "head")

    def __init__(self, answer: Answer, api: Api, *, thoughts: bool) -> None:
        """Stand at the start of the log."""
        self.head: Extra = {"model": answer.model, "created_at": _time(answer.created)}
        self.facts: Extra = {}
        self._api = api
        self._thoughts = thoughts
        self._calls = Calls()
        self._given = 0  # calls
        self._finish: Finished | None = None
        self._usage: UsageReported | None = None

    def lines(self, event: AnyEvent) -> Sequence[Extra]:
        """Return what the next entry's event means; often one line, maybe none."""
        out: list[Extra] = []
        match event:
            case TextDelta(index=0, delta=delta) | RefusalDelta(index=0, delta=delta):
                tokens: Any = token_logprobs(getattr(event, "logprobs", None))
                if delta or event.extra or tokens:
                    out.append(self._line(event, content=delta, **({"logprobs": tokens} if tokens else {})))
            case ReasoningDelta(index=0, delta=delta) if delta and self._thoughts:
                out.append(self._line(event, thinking=delta))
            case ToolCallDelta(index=0):
                self._give(self._calls.add(event), out)
            case Started():
                self.head["model"] = event.model or self.head["model"]
                self.facts = (event.extra or {}).get("line") or {}
            case UsageReported():
                self._usage = event
            case Finished(index=0):
                self._give(self._calls.release(force=True), out)
                self._finish = self._finish or event
            case Opaque(dialect=dialect):
                if dialect == NAME:
                    out.append(self._line(event, own=event.data))
            case Closed():
                out.append(self._close(event))
        return out

    def _line(self, event: Any, *, own: Extra | None = None, logprobs: Any = None, **said: Any) -> Extra:
        """Return a line, unknown fields merged back where they came from."""
        extra = own or getattr(event, "extra", None) or {}
        line = {**self.head, **self._place({**said, **(extra.get("message") or {})}), "done": False}
        if logprobs:
            line["logprobs"] = logprobs
        return {**line, **self.facts, **(extra.get("line") or {})}

    def _place(self, said: Extra) -> Extra:
        said = {"content": "", **said}
        if self._api == "chat":
            return {"message": {"role": "assistant", **said}}
        return {"response": said.pop("content"), **said}

    def _give(self, calls: Iterable[WholeCall], out: list[Extra]) -> None:
        for call in calls:
            first, extra = call.first, call.first.extra or {}
            own = dict(extra.get("tool_call") or {})
            inner = own.pop("function", None) or {}
            function = {"index": self._given, "name": first.name, "arguments": call.value, **inner}
            told: Extra = {**own, **({"id": first.id} if first.id else {}), "function": function}
            self._given += 1
            out.append(self._line(first, tool_calls=[told]))

    def _close(self, event: Closed) -> Extra:
        if event.status != "completed":
            return closing_error(event)
        finish = self._finish or Finished("stop")
        reason = (
            "length"
            if finish.reason == "length"
            else finish.raw
            if finish.raw in ("load", "unload")
            else "stop"
        )
        line = {**self.head, **self._place({}), "done": True, "done_reason": reason}
        own = (finish.extra or {}).get("line") or {}
        return {**line, **self.facts, **own, **_counts(event.usage or self._usage, event)}


def _counts(usage: UsageReported | None, closed: Closed) -> Extra:
    """Return the counts and, in nanoseconds, the durations: the provider's own where it gave some."""
    timing = closed.timing
    out: Extra = {}
    if timing is not None:
        out = {
            "total_duration": _nanoseconds(timing.total_ms),
            "load_duration": _nanoseconds(timing.failed_ms + timing.connect_ms),
            "prompt_eval_duration": _nanoseconds(timing.wait_ms),
            "eval_duration": _nanoseconds(max(0.0, timing.total_ms - timing.first_output_ms)),
        }
    if usage is not None:
        out |= {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
        out |= (usage.extra or {}).get("line") or {}
    return out


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1_000_000)


class OllamaEncoder:
    """Entries to lines, each a frame without a name. See `Layout`."""

    __slots__ = ("_api", "_head", "_layout", "_tail")

    def __init__(self, answer: Answer, api: Api = "chat", *, thoughts: bool = True) -> None:
        """Stand at the start of the log."""
        self._api = api
        self._layout = Layout(answer, api, thoughts=thoughts)
        self._head = self._tail = b""
        self._compose()

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry."""
        if type(event) is TextDelta and event.extra is None and event.logprobs is None:
            if event.index or not event.delta:
                return ()
            return ((b"", self._head + _encode(event.delta) + self._tail),)
        lines = self._layout.lines(event)
        if type(event) is Started:
            self._compose()
        return [(b"", _encode(told)) for told in lines]

    def heartbeat(self) -> bytes:
        """A line that adds nothing: Ollama's clients take no blank ones."""
        return self._head + b'""' + self._tail + b"\n"

    def _compose(self) -> None:
        """Make the bytes between which the text of a plain line stands."""
        layout = self._layout
        head = _encode(layout.head)[:-1]
        tail = _encode({"done": False, **layout.facts})[1:]
        if self._api == "chat":
            self._head, self._tail = head + b',"message":{"role":"assistant","content":', b"}," + tail
        else:
            self._head, self._tail = head + b',"response":', b"," + tail


# --- render_answer ---------------------------------------------------------------------------------


def fold(answer: Answer, events: Iterable[AnyEvent], api: Api = "chat", *, thoughts: bool = True) -> Extra:
    """Return the one line that the lines of ``events`` add up to."""
    layout = Layout(answer, api, thoughts=thoughts)
    texts: dict[str, list[str]] = {"content": [], "response": [], "thinking": []}
    calls: list[Extra] = []
    tokens: list[Any] = []
    out: Extra = {}
    last: AnyEvent | None = None
    seen = list(events)
    if not seen or type(seen[-1]) is not Closed:
        seen.append(Closed("completed"))
    for last in seen:
        for line in layout.lines(last):
            said = line.get("message") or line
            for name, pieces in texts.items():
                if said.get(name):
                    pieces.append(said[name])
            calls += said.get("tool_calls") or ()
            tokens += line.get("logprobs") or ()
            out |= line
    told: Extra = {"content": "".join(texts["content"])} if api == "chat" else {}
    if texts["thinking"]:
        told["thinking"] = "".join(texts["thinking"])
    if calls:
        told["tool_calls"] = calls
    if api == "chat":
        out["message"] = {"role": "assistant", **told}
    else:
        out |= {"response": "".join(texts["response"]), **told}
    if tokens:
        out["logprobs"] = tokens
    return out


def loaded(answer: Answer, api: Api, *, unload: bool) -> Extra:
    """Return what a request gets that asks for nothing but that its model be there, or be gone."""
    layout = Layout(answer, api, thoughts=False)
    raw = "unload" if unload else "load"
    layout.lines(Finished("stop", raw=raw))
    (line,) = layout.lines(Closed("completed"))
    return line


# --- render_error ----------------------------------------------------------------------------------

_ENDINGS: Final[Mapping[str, str]] = {
    "failed": "The generation failed.",
    "cancelled": "The generation was cancelled.",
    "interrupted": "The generation was interrupted.",
    "expired": "The generation took longer than it may.",
}


def _told(message: str, code: str, own: str) -> Extra:
    told = {"error": message, "code": code}
    return told | {"provider_code": own} if own else told


def closing_error(event: Closed) -> Extra:
    """Return the line of a stream that did not complete."""
    message = event.message or _ENDINGS.get(event.status, event.status)
    return _told(message, event.code or event.status, event.provider_code)


# --- the dialect -----------------------------------------------------------------------------------


class Ollama:
    """`penstock.wire.dialect.Dialect` for Ollama's chat. Has no state."""

    __slots__ = ()

    name = NAME

    def parse_request(self, body: bytes) -> GenerationRequest:
        """Read a chat. Raises `ClientError` 400."""
        return parse_request(body)

    def render_request(self, request: GenerationRequest, model: str) -> bytes:
        """See `penstock.wire.ollama_requests`; equal dialects lose nothing."""
        return render_request(request, model, DEFAULTS)

    def decoder(self) -> OllamaDecoder:
        """Return a decoder for one response body."""
        return OllamaDecoder()

    def encoder(self, answer: Answer) -> OllamaEncoder:
        """Return an encoder that stands at the start of the log."""
        return OllamaEncoder(answer)

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Return the one line of a completed stream."""
        return _encode(fold(answer, events))

    def render_error(self, error: PenstockError) -> bytes:
        """Return ``{"error": message, "code": …}``; Ollama's own has the message alone."""
        return _encode(_told(error.message, error.code, error.provider_code))

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an error response; see `penstock.wire.ollama`."""
        return parse_error(status, headers, body)


OLLAMA: Final = Ollama()
