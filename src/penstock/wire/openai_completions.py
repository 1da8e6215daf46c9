"""OpenAI's legacy Completions, towards clients: ``POST /v1/completions``.

The parts of a dialect in their order (`penstock.wire.dialect`), as far as clients see them. Strategy: the
prompt is what a user says, since models of today are chat models, and the answer is text alone: what is
thought is left out, a refusal is text, and calls have no place. Chunks and whole answers have one form. No
framing enters.

Source: the OpenAPI document of openai/openai-openapi and the types of openai-python.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from penstock.types.errors import PenstockError
from penstock.types.events import (
    AnyEvent,
    Closed,
    Extra,
    Finished,
    RefusalDelta,
    Started,
    TextDelta,
    UsageReported,
    escape_line_ends,
)
from penstock.types.positions import dialect_id
from penstock.types.requests import GenerationRequest, Message
from penstock.wire.bodies import convert, missing, read_object, refused, unknown
from penstock.wire.decoding import token_logprobs
from penstock.wire.dialect import Answer, Frame
from penstock.wire.openai_chat import DONE, OPENAI_CHAT, closing_error, render_usage
from penstock.wire.openai_chat_requests import MAX_CHOICES
from penstock.wire.sse import HEARTBEAT

NAME: Final = "openai_completions"
"""The dialect's name in requests, events, logs and settings."""

PREFIX: Final = "cmpl-"

MAX_LOGPROBS: Final = 5

_encode = msgspec.json.Encoder().encode


def _json(value: Any) -> bytes:
    return escape_line_ends(_encode(value))


# --- parse_request ---------------------------------------------------------------------------------


class CompletionsBody(msgspec.Struct):
    """The fields of a request that have a place here, as they come."""

    model: str
    prompt: str | list[Any]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: int | None = None
    user: str | None = None


def parse_request(body: bytes) -> GenerationRequest:
    """Read a request. Raises `ClientError` 400 with the field as ``param``."""
    value = read_object(body)
    given = convert(value, CompletionsBody, "")
    if not given.model:
        raise missing("model")
    prompt = given.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise refused(
                "'prompt' is one text here: neither several prompts nor numbers of tokens.", "prompt"
            )
        prompt = prompt[0]
    if not prompt:
        raise missing("prompt")
    n = 1 if given.n is None else given.n
    if not 1 <= n <= MAX_CHOICES:
        raise refused(f"'n' must be between 1 and {MAX_CHOICES}, not {n}.", "n")
    if given.best_of not in (None, n):
        raise refused("'best_of' must be what 'n' is: every choice is given.", "best_of")
    if given.echo:
        raise refused("'echo' is not possible: models of today do not tell their prompt.", "echo")
    if given.suffix:
        raise refused("'suffix' is not possible: a chat model goes on, it fills no gap.", "suffix")
    if given.logprobs is not None and not 0 <= given.logprobs <= MAX_LOGPROBS:
        raise refused(f"'logprobs' must be between 0 and {MAX_LOGPROBS}.", "logprobs")
    options = dict(given.stream_options or {})
    include_usage = options.pop("include_usage", None) is True
    extra = {name: item for name, item in unknown(value, CompletionsBody).items() if item is not None}
    if options:
        extra["stream_options"] = options
    return GenerationRequest(
        model=given.model,
        messages=(Message("user", prompt),),
        dialect=NAME,
        stream=bool(given.stream),
        include_usage=include_usage,
        n=n,
        max_output_tokens=given.max_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        stop=(given.stop,) if given.stop and isinstance(given.stop, str) else tuple(given.stop or ()),
        seed=given.seed,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        logprobs=True if given.logprobs is not None else None,
        top_logprobs=given.logprobs or None,
        user=given.user,
        extra=extra or None,
    )


# --- EventEncoder ----------------------------------------------------------------------------------


class _Places:
    """Where in each choice's text a token stands, for log probabilities."""

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}

    def logprobs(self, event: TextDelta) -> Extra | None:
        found = token_logprobs(event.logprobs)
        if not found:
            self._offsets[event.index] = self._offsets.get(event.index, 0) + len(event.delta)
            return None
        out: Extra = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in found:
            at = self._offsets.get(event.index, 0)
            out["tokens"].append(token["token"])
            out["token_logprobs"].append(token.get("logprob"))
            top = token.get("top_logprobs") or ()
            out["top_logprobs"].append({other["token"]: other.get("logprob") for other in top})
            out["text_offset"].append(at)
            self._offsets[event.index] = at + len(token["token"])
        return out


def _reason(finish: Finished) -> str:
    return "stop" if finish.reason == "tool_calls" else finish.reason


class CompletionsEncoder:
    """Entries to chunks. A pure function of the log and the `Answer`."""

    __slots__ = ("_answer", "_finished", "_head", "_places", "_plain", "_tail", "_usage")

    def __init__(self, answer: Answer) -> None:
        """Stand at the start of the log."""
        self._answer = answer
        self._places = _Places()
        self._plain = True  # no log probabilities so far
        self._finished: set[int] = set()
        self._usage: UsageReported | None = None
        self._tail = b'],"usage":null}' if answer.include_usage else b"]}"
        self._head = b""
        self._compose(answer.model)

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry."""
        match event:
            case TextDelta(delta=delta, index=index):
                if event.logprobs is None and self._plain:
                    if not delta:
                        return ()
                    data = _encode(delta)
                    if not data.isascii():
                        data = escape_line_ends(data)
                    text = b'%b{"text":%b,"index":%d,"logprobs":null,"finish_reason":null}%b'
                    return ((b"", text % (self._head, data, index, self._tail)),)
                self._plain = False
                return self._frame({"text": delta, "index": index, "logprobs": self._places.logprobs(event)})
            case RefusalDelta(delta=delta, index=index) if delta:
                return self._frame({"text": delta, "index": index, "logprobs": None})
            case Started(model=model):
                self._compose(model or self._answer.model)
            case UsageReported():
                self._usage = event
            case Finished(index=index) if index not in self._finished:
                self._finished.add(index)
                return self._frame({"text": "", "index": index, "logprobs": None}, _reason(event))
            case Closed():
                return self._close(event)
        return ()

    def heartbeat(self) -> bytes:
        """A comment, for readers that are sent no ids; with ids the server sends `:` and LF alone."""
        return HEARTBEAT

    def idle_chunk(self) -> Frame:
        """Return a chunk that adds nothing: some clients' timers do not see comments."""
        return self._frame({"text": "", "index": 0, "logprobs": None})[0]

    def _frame(self, choice: Extra, reason: str | None = None) -> Sequence[Frame]:
        return ((b"", self._head + _json({**choice, "finish_reason": reason}) + self._tail),)

    def _close(self, event: Closed) -> Sequence[Frame]:
        if event.status != "completed":
            return ((b"", _json({"error": closing_error(event)})),)
        usage = event.usage or self._usage
        if usage is None or not self._answer.include_usage:
            return (DONE,)
        return ((b"", b'%b],"usage":%b}' % (self._head, _json(render_usage(usage)))), DONE)

    def _compose(self, model: str) -> None:
        self._head = _json(_facts(self._answer, model))[:-1] + b',"choices":['


def _facts(answer: Answer, model: str) -> Extra:
    return {
        "id": dialect_id(PREFIX, answer.stream),
        "object": "text_completion",
        "created": answer.created,
        "model": model,
    }


# --- render_answer ---------------------------------------------------------------------------------


def _render_answer(answer: Answer, events: Iterable[AnyEvent]) -> bytes:
    texts: dict[int, list[str]] = {}
    logprobs: dict[int, Extra] = {}
    reasons: dict[int, str] = {}
    model, usage, places = "", None, _Places()
    for event in events:
        match event:
            case TextDelta(delta=delta, index=index):
                texts.setdefault(index, []).append(delta)
                if found := places.logprobs(event):
                    into = logprobs.setdefault(index, {name: [] for name in found})
                    for name, values in found.items():
                        into[name] += values
            case RefusalDelta(delta=delta, index=index):
                texts.setdefault(index, []).append(delta)
            case Started():
                model = model or event.model
            case UsageReported():
                usage = event
            case Finished(index=index):
                texts.setdefault(index, [])
                reasons.setdefault(index, _reason(event))
            case Closed():
                usage = event.usage or usage
    body = _facts(answer, model or answer.model)
    body["choices"] = [
        {
            "text": "".join(texts[index]),
            "index": index,
            "logprobs": logprobs.get(index),
            "finish_reason": reasons.get(index),
        }
        for index in sorted(texts)
    ]
    if usage is not None:
        body["usage"] = render_usage(usage)
    return _encode(body)


# --- the dialect -----------------------------------------------------------------------------------


class OpenAICompletions:
    """`penstock.wire.dialect.Face` for legacy Completions. Has no state."""

    __slots__ = ()

    name = NAME

    def parse_request(self, body: bytes) -> GenerationRequest:
        """Read a request. Raises `ClientError` 400."""
        return parse_request(body)

    def encoder(self, answer: Answer) -> CompletionsEncoder:
        """Return an encoder that stands at the start of the log."""
        return CompletionsEncoder(answer)

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Return the ``text_completion`` object of a completed stream."""
        return _render_answer(answer, events)

    def render_error(self, error: PenstockError) -> bytes:
        """Return ``{"error": {message, type, param, code}}``, as Chat Completions do."""
        return OPENAI_CHAT.render_error(error)


OPENAI_COMPLETIONS: Final = OpenAICompletions()
