"""Signals as the core gives them, for those that observe."""

from penstock.types.events import Timing
from penstock.types.outcomes import Outcome
from penstock.types.signals import (
    AttemptEnded,
    CallRefused,
    FirstOutput,
    StreamEnded,
    Subject,
)


def subject(model: str = "m", stream: str = "s_1") -> Subject:
    return Subject(stream, "ada", "openai_chat", model)


def ended(
    status: str = "completed", fault: str | None = None, code: str = "", model: str = "m"
) -> StreamEnded:
    return StreamEnded(subject(model), Outcome(status, "s_1", code), "p/m", fault)


def failed(model: str = "m", code: str = "upstream_error") -> StreamEnded:
    return ended("failed", "upstream", code, model)


def refused(fault: str = "gateway", code: str = "overloaded") -> CallRefused:
    return CallRefused(subject(), code, fault, 503)


def attempt(code: str = "", model: str = "m") -> AttemptEnded:
    return AttemptEnded(subject(model), 1, "first", "p/m", "p", "m", code)


def began(seconds: float, model: str = "m") -> FirstOutput:
    return FirstOutput(subject(model), 1, "p/m", Timing(wait_ms=seconds * 1000))
