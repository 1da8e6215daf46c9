"""Canonical events: what can happen in a generation, whichever provider it comes from.

Providers' chunks are decoded into these, clients' frames are encoded from these, and streams
store these; so the vocabulary is a *file format*. Rules:

* Field and tag names are stored. Add optional fields and new tags; never rename or reuse one.
  A change that an older reader would misread raises ``FORMAT_VERSION``.
* What a dialect knows and this vocabulary does not is kept in ``extra`` (by place: ``chunk``,
  ``choice``, ``delta``) or in an ``Opaque`` event, so that equal dialects lose nothing.
* An event's line (`encode_line`) is both the stored record and the native wire format: one
  JSON object on one line, first member ``n``, the entry's sequence number.

No dialect, no framing and no policy enters this module.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

FORMAT_VERSION: Final = 1

Extra: TypeAlias = dict[str, Any]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
Status: TypeAlias = Literal["completed", "failed", "cancelled", "interrupted", "expired"]
Fault: TypeAlias = Literal["client", "gateway", "upstream"]

MAX_DELTA_CHARS: Final = 40_000
"""A delta longer than this is split: six bytes a character at worst keeps an entry below 256 KiB."""


class Event(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, gc=False):
    """Base of all events. ``index`` is the choice (candidate) an event belongs to, from 0."""


class Started(Event, frozen=True, tag="started"):
    """The model began to answer; known facts about the answer as a whole.

    ``id`` and ``created`` (Unix seconds) are the provider's own; clients are shown the stream's.
    ``extra`` holds what the provider repeats on every chunk (``system_fingerprint``, …). ``target`` is
    ours: the one that answers. ``dropped`` names what of the request it was not told, since it has no place
    for it.
    """

    model: str = ""
    id: str = ""
    created: int = 0
    provider: str = ""
    input_tokens: int = 0
    extra: Extra | None = None
    target: str = ""
    dropped: tuple[str, ...] = ()


class TextDelta(Event, frozen=True, tag="text"):
    """A piece of the answer's text. ``part`` counts the text blocks of providers that have several."""

    delta: str
    index: int = 0
    part: int = 0
    logprobs: Any = None
    extra: Extra | None = None


class ReasoningDelta(Event, frozen=True, tag="reasoning"):
    """A piece of the model's reasoning.

    ``signature`` replaces (never extends) the signature of its ``part``; ``encrypted`` carries a
    whole block that only the provider can read; ``summary`` marks a summary of the reasoning.
    """

    delta: str = ""
    index: int = 0
    part: int = 0
    summary: bool = False
    signature: str = ""
    encrypted: str = ""
    extra: Extra | None = None


class RefusalDelta(Event, frozen=True, tag="refusal"):
    """A piece of the text in which the model refuses to answer."""

    delta: str
    index: int = 0
    extra: Extra | None = None


class ToolCallDelta(Event, frozen=True, tag="tool_call"):
    """A piece of a tool call. ``call`` counts the calls of a choice from 0; ``id`` and ``name`` come
    with the first piece only; the ``delta`` pieces of one call join to its arguments (a JSON text)."""

    call: int
    delta: str = ""
    id: str = ""
    name: str = ""
    index: int = 0
    kind: str = "function"
    signature: str = ""
    extra: Extra | None = None


class Annotation(Event, frozen=True, tag="annotation"):
    """A citation or another note on the text, in the shape of the dialect it came from."""

    data: Extra
    dialect: str
    index: int = 0
    part: int = 0


class UsageReported(Event, frozen=True, tag="usage"):
    """Token counts as reported so far. Cumulative: the last report wins, nothing is added up.

    ``input_tokens`` includes the cached ones, ``output_tokens`` includes the reasoning ones.
    ``estimated`` marks counts that the gateway made up because the provider gave none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    extra: Extra | None = None


class Finished(Event, frozen=True, tag="finish"):
    """The model finished one choice. ``raw`` is the provider's own word where it says more."""

    reason: FinishReason
    index: int = 0
    raw: str = ""
    stop_sequence: str = ""
    extra: Extra | None = None


class Opaque(Event, frozen=True, tag="opaque"):
    """Something that only ``dialect`` understands, kept for clients of that dialect."""

    dialect: str
    data: Extra


class Seam(Event, frozen=True, tag="seam"):
    """Here another attempt went on with the answer. ``mode`` is how its target was asked; ``code`` why.

    After ``restart`` the answer begins anew, with a mark in its text. The mode ``resumed`` has no target:
    the gateway was started again here, and took the answer up.
    """

    target: str
    mode: Literal["prefill", "prompt", "restart", "resumed"]
    code: str = ""


class Timing(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Milliseconds since the call was accepted; the gaps are between events with output.

    Where the time went, together ``total_ms``: ``queue_ms`` until policies let the call in, ``failed_ms``
    into attempts that failed and the pauses after them, ``connect_ms`` until the request was sent,
    ``wait_ms`` until the provider's first output, ``stream_ms`` from there until it was done (or cut off, or
    given up), and ``gateway_ms`` was our own. After a restart only the total and the gap are known.
    """

    first_output_ms: float = 0.0
    total_ms: float = 0.0
    max_gap_ms: float = 0.0
    failed_ms: float = 0.0
    connect_ms: float = 0.0
    wait_ms: float = 0.0
    queue_ms: float = 0.0
    stream_ms: float = 0.0
    gateway_ms: float = 0.0


class AttemptReport(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One of several attempts. ``code``: why it did not bring the answer to its end; empty when it did.
    ``reason``: why it was made (`first`, `retry`, `fallback`, `continuation`, `hedge`).

    It went on from ``began_ms`` to ``ended_ms``, milliseconds since the call was accepted; ``connect_ms``
    and ``wait_ms`` are as in `Timing`. All are 0 for attempts before a restart. Counts of ``usage`` that
    no provider reported are estimated.
    """

    target: str
    code: str = ""
    began_ms: float = 0.0
    ended_ms: float = 0.0
    connect_ms: float = 0.0
    wait_ms: float = 0.0
    usage: UsageReported | None = None
    reason: str = ""


class Closed(Event, frozen=True, tag="end"):
    """The terminal entry: exactly one, always the last, atomic with the stream's change of state.

    ``entries`` counts the entries before it; ``sha256`` is over their lines, each followed by LF;
    ``text_sha256`` is over the UTF-8 text of choice 0. ``code`` and ``message`` say why when
    ``status`` is not ``completed``; ``fault`` says whose it was; ``http_status`` and the fields after
    it are what an error response would have said (`retry_after` in seconds). ``usage`` is the last
    report; where there were several attempts, ``history`` tells them apart.
    """

    status: Status
    code: str = ""
    message: str = ""
    fault: Fault | None = None
    retryable: bool = False
    entries: int = 0
    sha256: str = ""
    text_sha256: str = ""
    attempts: int = 0
    target: str = ""
    usage: UsageReported | None = None
    timing: Timing | None = None
    http_status: int = 0
    error_type: str = ""
    provider_code: str = ""
    param: str = ""
    retry_after: float | None = None
    history: tuple[AttemptReport, ...] = ()


AnyEvent: TypeAlias = (
    Started
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallDelta
    | Annotation
    | UsageReported
    | Finished
    | Opaque
    | Seam
    | Closed
)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in the log. ``line`` is the stored record (see `encode_line`)."""

    seq: int
    event: AnyEvent
    line: bytes


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyEvent).decode

# U+0085, U+2028 and U+2029 are line ends to readers that split text in the Unicode manner (httpx,
# str.splitlines): raw, they would cut a line of JSON in two. JSON itself allows the escapes.
_LINE_ENDS: Final = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def escape_line_ends(data: bytes) -> bytes:
    """Return the JSON text ``data`` with U+0085, U+2028 and U+2029 written as escapes."""
    if data.isascii():
        return data
    for raw, escaped in _LINE_ENDS:
        if raw in data:
            data = data.replace(raw, escaped)
    return data


def encode_line(seq: int, event: Event) -> bytes:
    """Return ``event`` as the entry number ``seq``: one line of JSON, ``{"n":<seq>,"type":…}``."""
    data = _encode(event)
    if not data.isascii():
        data = escape_line_ends(data)
    return b'{"n":%d,' % seq + data[1:]


def decode_line(line: bytes) -> AnyEvent:
    """Return the event of a stored line. Raises `msgspec.ValidationError` for what is none."""
    event: AnyEvent = _decode(line)
    return event


def has_output(event: Event) -> bool:
    """Say whether ``event`` is semantic output: something a person or a program could act on.

    Role-only chunks, annotations of the prompt and usage are not; a finish reason is, since an
    answer may well be empty.
    """
    kind = type(event)
    if kind is TextDelta or kind is ReasoningDelta or kind is RefusalDelta:
        return bool(event.delta)  # type: ignore[attr-defined]
    return kind is ToolCallDelta or kind is Finished or kind is Annotation


def split_long(event: AnyEvent, limit: int = MAX_DELTA_CHARS) -> Iterator[AnyEvent]:
    """Yield ``event``, cut into several when its delta has more than ``limit`` characters.

    The first piece keeps what must come once (ids, names, log probabilities, ``extra``).
    """
    delta = getattr(event, "delta", "")
    if len(delta) <= limit:
        yield event
        return
    yield msgspec.structs.replace(event, delta=delta[:limit])
    for start in range(limit, len(delta), limit):
        piece = delta[start : start + limit]
        match event:
            case TextDelta():
                yield TextDelta(piece, event.index, event.part)
            case ReasoningDelta():
                yield ReasoningDelta(piece, event.index, event.part, event.summary)
            case RefusalDelta():
                yield RefusalDelta(piece, event.index)
            case ToolCallDelta():
                yield ToolCallDelta(event.call, piece, index=event.index, kind=event.kind)
