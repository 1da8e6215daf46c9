"""What was asked and answered, for traces: only where the operator wants that, and never in a log.

A policy that changes nothing and refuses nobody: it notes the request as the other policies left it, and
the text of the answer as it was shown, behind the filters. It is an observer as well, since only signals
name the stream: the gateway says `CallAccepted` and asks for the filter of that call in one go. Bounded in
characters; what was said of a stream is forgotten with its end. The form is that of OpenTelemetry's
`gen_ai.input.messages` and `gen_ai.output.messages`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.policies.policy import Admission
from penstock.types.calls import Call
from penstock.types.events import AnyEvent, Finished, TextDelta
from penstock.types.requests import GenerationRequest, TextPart
from penstock.types.signals import AnySignal, CallAccepted, StreamEnded

MAX_CHARS: Final = 32 << 10
"""Of a request, and of an answer; what is beyond is left out."""


class Transcript(NamedTuple):
    """JSON of what was asked, and of what was answered."""

    asked: str
    answered: str


class Note:
    """One call's texts, as an `EventFilter`."""

    __slots__ = ("_asked", "_finish", "_left", "_pieces")

    def __init__(self, request: GenerationRequest) -> None:
        """Nothing was answered yet."""
        self._asked = _asked(request)
        self._pieces: list[str] = []
        self._left = MAX_CHARS
        self._finish = ""

    def feed(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """See `EventFilter`: lets everything through."""
        for event in events:
            if type(event) is TextDelta:
                if event.index == 0 and self._left > 0:
                    self._pieces.append(event.delta[: self._left])
                    self._left -= len(event.delta)
            elif type(event) is Finished and event.index == 0:
                self._finish = event.reason
        return events

    def flush(self) -> Sequence[AnyEvent]:
        """See `EventFilter`: holds nothing back."""
        return ()

    def transcript(self) -> Transcript:
        """Return what was said so far."""
        parts = [_text("".join(self._pieces))]
        answer = {"role": "assistant", "parts": parts, "finish_reason": self._finish}
        return Transcript(self._asked, msgspec.json.encode([answer]).decode())


class Transcripts:
    """A `Policy`, and an observer; see the module's head."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._begins = ""
        self._notes: dict[str, Note] = {}

    def __repr__(self) -> str:
        """Count the streams."""
        return f"<Transcripts of {len(self._notes)} streams>"

    def __call__(self, signal: AnySignal) -> None:
        """Hear which stream begins, and which is over."""
        if type(signal) is CallAccepted:
            self._begins = "" if signal.existing else signal.subject.stream
        elif type(signal) is StreamEnded:
            self._notes.pop(signal.subject.stream, None)

    async def admit(self, call: Call) -> Admission:
        """Let it in."""
        return Admission(call)

    def filter(self, call: Call) -> Note | None:
        """Return what notes the answer of the stream that begins."""
        stream, self._begins = self._begins, ""
        if not stream:
            return None
        note = self._notes[stream] = Note(call.request)
        return note

    def of(self, stream: str) -> Transcript | None:
        """Return what was said so far; None if that is not known."""
        note = self._notes.get(stream)
        return None if note is None else note.transcript()


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}


def _asked(request: GenerationRequest) -> str:
    said, left = [], MAX_CHARS
    for message in request.messages:
        content = message.content
        texts = [content] if isinstance(content, str) else []
        if content is not None and not isinstance(content, str):
            texts = [part.text for part in content if type(part) is TextPart]
        parts = []
        for text in texts:
            parts.append(_text(text[: max(left, 0)]))
            left -= len(text)
        said.append({"role": message.role, "parts": parts})
    return msgspec.json.encode(said).decode()
