"""An answer as it grows: a stream's events folded into text, reasoning, tool calls, usage and an end.

Pure: events in, state out. What is shown of it is the views' business, what a script gets is `result`.
"""

from typing import Any, Final

import msgspec

from penstock.cli import exits
from penstock.client.connection import Received
from penstock.types.events import (
    AnyEvent,
    Closed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    decode_line,
)

_READ_FAILED: Final = "failed"


class Call:
    """A tool call as it grows; ``arguments`` is a JSON text."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.id = ""
        self.name = ""
        self.arguments = ""


class Answer:
    """What came of one stream so far. Of several choices, the first is kept."""

    def __init__(self, *, native: bool = True) -> None:
        """Nothing came yet. Events that are not ``native`` move the cursor only."""
        self._native = native
        self.stream = ""
        self.cursor = ""
        self.model = ""
        self.reasoning = ""
        self.calls: dict[int, Call] = {}
        self.usage: UsageReported | None = None
        self.finish_reason = ""
        self.closed: Closed | None = None
        self._text: list[str] = []

    def __repr__(self) -> str:
        """Where it stands; nothing of what was said."""
        return f"Answer({self.stream}, {self.status}, {len(self._text)} pieces)"

    @property
    def text(self) -> str:
        """The text so far, refusals included."""
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
        return self._text[0] if self._text else ""

    @property
    def status(self) -> str:
        """``open``, or how the stream ended."""
        return self.closed.status if self.closed else "open"

    def feed(self, received: Received) -> AnyEvent | None:
        """Take in one event; return it if it is one that this program knows."""
        if received.cursor:
            self.cursor = received.cursor
            self.stream = received.cursor.partition("~")[0]
        if received.event == "stream" or not self._native:
            return None
        try:
            event = decode_line(received.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if received.event == "fail":  # the read failed, not the stream
                event = _read_failure(received.data)
                self.closed = event
                return event
            return None  # newer than this program
        match event:
            case Started(model=model):
                self.model = model
            case TextDelta(index=0, delta=delta) | RefusalDelta(index=0, delta=delta):
                self._text.append(delta)
            case ReasoningDelta(index=0, delta=delta):
                self.reasoning += delta
            case ToolCallDelta(index=0):
                call = self.calls.setdefault(event.call, Call())
                call.id = call.id or event.id
                call.name = call.name or event.name
                call.arguments += event.delta
            case UsageReported():
                self.usage = event
            case Finished(index=0, reason=reason):
                self.finish_reason = reason
            case Closed():
                self.closed = event
                self.usage = event.usage or self.usage
        return event

    def result(self) -> dict[str, Any]:
        """Return everything as one JSON object; members that have nothing to say are left out."""
        said: dict[str, Any] = {
            "stream": self.stream,
            "cursor": self.cursor,
            "status": self.status,
            "model": self.model,
            "text": self.text,
        }
        if self.reasoning:
            said["reasoning"] = self.reasoning
        if self.calls:
            said["tool_calls"] = [
                {"id": call.id, "name": call.name, "arguments": call.arguments}
                for _, call in sorted(self.calls.items())
            ]
        if self.finish_reason:
            said["finish_reason"] = self.finish_reason
        if self.usage:
            said["usage"] = msgspec.to_builtins(self.usage)
            said["usage"].pop("type", None)
        if self.closed and self.closed.status != "completed":
            said["error"] = {
                "code": self.closed.code,
                "message": self.closed.message,
                "retryable": self.closed.retryable,
            }
        return said

    def exit_code(self) -> int:
        """Return the exit code that says how it ended; an open stream is no failure of the reader."""
        return exits.OF_STATUS[self.closed.status] if self.closed else exits.OK

    def ending(self) -> str:
        """Return a sentence about how it ended; empty when it is complete and there is nothing to say."""
        closed = self.closed
        if closed is None:
            return ""
        match closed.status:
            case "completed":
                return _remark(self.finish_reason)
            case "cancelled":
                return "Stopped."
            case "interrupted":
                return f"Interrupted: {closed.message or 'the gateway stopped.'}"
            case "expired":
                return f"Expired: {closed.message or 'its time ran out.'}"
        return f"Failed: {closed.message or 'no reason was given.'} ({closed.code})"


class _Failure(msgspec.Struct, frozen=True):
    message: str = "The gateway cannot go on reading."
    code: str = "internal_error"
    retryable: bool = False


def _read_failure(data: bytes) -> Closed:
    try:
        failure = msgspec.json.decode(data, type=_Failure)
    except (msgspec.DecodeError, UnicodeDecodeError):
        failure = _Failure()
    return Closed(_READ_FAILED, failure.code, failure.message, retryable=failure.retryable)


def _remark(reason: str) -> str:
    match reason:
        case "length":
            return "Cut off: the answer reached its maximum of tokens."
        case "content_filter":
            return "Cut off by the provider's content filter."
        case "tool_calls":
            return "The model waits for its tool calls, which nobody here makes."
    return ""
