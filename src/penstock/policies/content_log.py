"""What was asked and answered, in the log: off unless an operator wants it, for a while and with a reason.

A policy that lets everything through. It stands behind the content filters, so that what they mask is masked
here too. A line has the beginning of a long text; an answer is told once, at its end, whatever that was.
"""

from collections.abc import Sequence
from typing import Any, Final

import structlog

from penstock.policies.policy import Admission, EventFilter
from penstock.types.calls import Call
from penstock.types.events import AnyEvent, ReasoningDelta, TextDelta, ToolCallDelta
from penstock.types.outcomes import Outcome
from penstock.types.requests import Message

log = structlog.get_logger(__name__)

MAX_TEXT: Final = 8_000
"""Characters of one text."""

MAX_MESSAGES: Final = 50
"""The last of a conversation."""


class _Listening:
    """A filter that changes nothing and keeps the beginning."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.arguments: list[str] = []
        self._left = {id(part): MAX_TEXT for part in (self.text, self.reasoning, self.arguments)}

    def feed(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        for event in events:
            if type(event) is TextDelta:
                self._keep(self.text, event.delta)
            elif type(event) is ReasoningDelta:
                self._keep(self.reasoning, event.delta)
            elif type(event) is ToolCallDelta:
                self._keep(self.arguments, event.delta)
        return events

    def flush(self) -> Sequence[AnyEvent]:
        return ()

    def _keep(self, part: list[str], text: str) -> None:
        left = self._left[id(part)]
        if left > 0:
            part.append(text[:left])
            self._left[id(part)] = left - len(text)


class ContentLog:
    """See the module's head."""

    def __init__(self) -> None:
        """Nobody is listened to yet."""
        self._listening: dict[str, _Listening] = {}

    async def admit(self, call: Call) -> Admission:
        """Tell what is asked of a generation."""
        if not call.stream:
            return Admission(call)
        messages = [shown(message) for message in call.request.messages[-MAX_MESSAGES:]]
        log.info("asked", **call.ids, model=call.request.model, messages=messages)
        return Admission(call, lambda outcome: self._told(call, outcome))

    def filter(self, call: Call) -> EventFilter | None:
        """Listen to the answer."""
        if not call.stream:
            return None
        return self._listening.setdefault(call.stream, _Listening())

    def _told(self, call: Call, outcome: Outcome) -> None:
        heard = self._listening.pop(call.stream, None)
        if heard is None:
            return
        parts = {name: "".join(getattr(heard, name)) for name in ("text", "reasoning", "arguments")}
        said = {name: text for name, text in parts.items() if text}
        log.info("answered", **call.ids, status=outcome.status, **said)


def shown(message: Message) -> dict[str, Any]:
    """Return a message as a line tells it: its texts; of what is none, that it is there."""
    content = message.content
    if not isinstance(content, str):
        content = "\n".join(getattr(part, "text", f"[{type(part).__name__}]") for part in content or ())
    said: dict[str, Any] = {"role": message.role, "content": content[:MAX_TEXT]}
    if message.tool_calls:
        said["arguments"] = "\n".join(call.arguments for call in message.tool_calls)[:MAX_TEXT]
    return said
