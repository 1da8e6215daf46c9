"""A stream so far, in one piece: what a page shows at once before it follows the rest.

Folds committed entries up to a mark that was taken before, so that the cursor in the answer and its
content stand for the same moment whatever is appended meanwhile.
"""

from typing import Any

from penstock.types.events import (
    AnyEvent,
    Closed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)


class Snapshot:
    """The fold. ``size`` counts the characters that it holds."""

    def __init__(self) -> None:
        """Nothing has been said yet."""
        self.size = 0
        self._text: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}
        self._refusal: dict[int, list[str]] = {}
        self._calls: dict[tuple[int, int], dict[str, Any]] = {}
        self._arguments: dict[tuple[int, int], list[str]] = {}
        self._finish: dict[int, str] = {}
        self._usage: UsageReported | None = None
        self._closed: Closed | None = None

    def add(self, event: AnyEvent) -> None:
        """Take the next entry's event."""
        match event:
            case TextDelta():
                self._append(self._text, event.index, event.delta)
            case ReasoningDelta():
                self._append(self._reasoning, event.index, event.delta)
            case RefusalDelta():
                self._append(self._refusal, event.index, event.delta)
            case ToolCallDelta():
                key = (event.index, event.call)
                call = self._calls.setdefault(key, {"index": event.index, "id": "", "name": ""})
                call["id"], call["name"] = event.id or call["id"], event.name or call["name"]
                self._arguments.setdefault(key, []).append(event.delta)
                self.size += len(event.delta)
            case UsageReported():
                self._usage = event
            case Finished():
                self._finish[event.index] = event.reason
            case Closed():
                self._closed = event

    def _append(self, pieces: dict[int, list[str]], index: int, delta: str) -> None:
        pieces.setdefault(index, []).append(delta)
        self.size += len(delta)

    def body(self) -> dict[str, Any]:
        """Return what there is, of choice 0 under its own names; ``texts`` when there are several choices."""
        body: dict[str, Any] = {"text": "".join(self._text.get(0, ()))}
        if max(self._text, default=0) > 0:
            body["texts"] = ["".join(self._text.get(index, ())) for index in range(max(self._text) + 1)]
        for name, pieces in (("reasoning", self._reasoning), ("refusal", self._refusal)):
            if 0 in pieces:
                body[name] = "".join(pieces[0])
        if self._calls:
            body["tool_calls"] = [
                {**call, "arguments": "".join(self._arguments[key])}
                for key, call in sorted(self._calls.items())
            ]
        if 0 in self._finish:
            body["finish_reason"] = self._finish[0]
        if self._usage is not None:
            body["usage"] = self._usage
        if self._closed is not None:
            body["end"] = self._closed
        return body
