"""Going on from a text that the reader already has: what may be continued, how it is asked for, the seam.

*Prefill*: the text stands as the beginning of the assistant's turn, and the model goes on from it;
nothing is trimmed, but for white space that some providers refuse at a prefill's end. *Prompt*: the text
stands as an answer that was cut off, and the model is asked for the rest; models like to repeat the last
words, so an overlap with what was shown is cut away when it is long enough not to be chance. *Restart*:
the model is asked as if nothing had been, and its answer follows a mark that says so to the reader.

Only plain text is continued: several choices, log probabilities, JSON by a schema, and half-made tool
calls cannot be sewn together. Pure; the run reads the log and decides when.
"""

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from penstock.providers.provider import CONTINUE_PROMPT, Decoder
from penstock.types.events import (
    AnyEvent,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallDelta,
)
from penstock.types.requests import GenerationRequest, Message

Mode: TypeAlias = Literal["prefill", "prompt", "restart"]

MIN_OVERLAP: Final = 12
"""Characters that the new text must repeat of the old before they are taken for a repetition."""

MAX_OVERLAP: Final = 2_000


class Shown(NamedTuple):
    """What a stream's log says so far. ``sewable``: nothing in it forbids to go on. Without any text (the
    model was still thinking) the request is asked as it was, and the new thoughts are left out."""

    text: str
    deltas: int
    sewable: bool


NOTHING: Final = Shown("", 0, sewable=False)


class Spoken:
    """The text of an answer as its events bring it; it begins anew behind the mark of a restart."""

    __slots__ = ("_marked", "_written")

    def __init__(self) -> None:
        """Nothing yet."""
        self._written = StringIO()
        self._marked = False

    @property
    def text(self) -> str:
        """All of it."""
        return self._written.getvalue()

    def hear(self, event: AnyEvent) -> None:
        """Take the next event."""
        match event:
            case Seam(mode="restart"):
                self._marked = self._written.tell() > 0
                self._written = StringIO()
            case TextDelta(index=0, part=0):
                if self._marked:
                    self._marked = False
                    return
                self._written.write(event.delta)


def shown(events: Iterable[AnyEvent]) -> Shown:
    """Fold the events of a log."""
    spoken, deltas = Spoken(), 0
    sewable, thought = True, False
    for event in events:
        spoken.hear(event)
        match event:
            case Seam(mode="restart"):
                deltas = 0
            case TextDelta(index=0, part=0, logprobs=None):
                deltas += 1
            case ReasoningDelta():
                thought = True
            case TextDelta() | ToolCallDelta() | RefusalDelta() | Finished():
                sewable = False
    text = spoken.text
    return Shown(text, deltas, sewable and bool(text.strip() or (thought and not text)))


def may_continue(request: GenerationRequest) -> bool:
    """Say whether an answer to ``request`` could be continued at all."""
    plain = request.response_format is None or request.response_format.get("type") == "text"
    return request.n == 1 and not request.logprobs and plain


def continued(request: GenerationRequest, so_far: Shown, mode: Mode) -> GenerationRequest:
    """Return the request that asks for the rest of the answer."""
    if not so_far.text or mode == "restart":
        return request
    text = so_far.text.rstrip() if mode == "prefill" else so_far.text
    messages = (*request.messages, Message("assistant", text))
    if mode == "prompt":
        messages = (*messages, Message("user", CONTINUE_PROMPT))
    limit = request.max_output_tokens
    if limit is not None:  # a delta is about a token
        limit = max(1, limit - so_far.deltas)
    return msgspec.structs.replace(request, messages=messages, max_output_tokens=limit)


class SeamDecoder:
    """Sews a continuation on: a `Decoder` around the target's own.

    In place of the beginning comes the ``seam``; reasoning about how to go on is left out; of the text,
    what repeats the end of what was shown.
    """

    def __init__(self, decoder: Decoder, so_far: Shown, seam: Seam, mark: str = "") -> None:
        """``decoder`` is at its start; ``mark`` stands before an answer that begins anew."""
        if seam.mode == "restart":
            so_far, anew = NOTHING, bool(so_far.text and mark)
        else:
            anew = False
        self._decoder = decoder
        self._prefilled = seam.mode == "prefill"
        self._end = so_far.text[-MAX_OVERLAP:]
        self._gap = so_far.text[len(so_far.text.rstrip()) :]
        self._events: list[AnyEvent] = [seam, TextDelta(mark)] if anew else [seam]
        self._head = ""
        self._open = True  # whether the head may still be a repetition

    @property
    def finished(self) -> bool:
        """Whether the answer is whole."""
        return self._decoder.finished

    @property
    def usage(self) -> Any:
        """The target's own report."""
        return getattr(self._decoder, "usage", None)

    def feed(self, data: Any) -> Sequence[AnyEvent]:
        """As the target's decoder, sewn on."""
        return self._sew(self._decoder.feed(data))

    def flush(self) -> Sequence[AnyEvent]:
        """As the target's decoder; what was held back comes."""
        events = list(self._sew(self._decoder.flush()))
        if self._open:
            events += self._release()
        return events

    def _sew(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        out, self._events = self._events, []
        for event in events:
            match event:
                case Started() | ReasoningDelta():
                    continue
                case TextDelta() if self._open:
                    self._head += event.delta
                    if not self._undecided():
                        out += self._release()
                    continue
                case TextDelta():
                    pass
                case Finished() if self._open:
                    out += self._release()
            out.append(event)
        return out

    def _undecided(self) -> bool:
        if self._prefilled:
            return len(self._head) < len(self._gap) and self._gap.startswith(self._head)
        return len(self._head) < MAX_OVERLAP and self._head in self._end

    def _release(self) -> list[AnyEvent]:
        self._open = False
        head, self._head = self._head, ""
        if self._prefilled:
            head = head.removeprefix(self._gap)
        else:
            head = head[overlap(self._end, head) :]
        return [TextDelta(head)] if head else []


def overlap(end: str, head: str) -> int:
    """Return how much of ``head`` repeats the ``end``: at least `MIN_OVERLAP` characters or a whole line."""
    for length in range(min(len(end), len(head)), 0, -1):
        if end.endswith(head[:length]):
            line = end.rpartition("\n")[2]
            whole = bool(line.strip()) and head[:length] == line
            return length if length >= MIN_OVERLAP or whole else 0
    return 0
