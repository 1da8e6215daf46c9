"""Every provider's answer in every client's dialect: what must stay the same, and the page that says so.

A case is a provider's body with the events it means (the shared vectors). It is rendered in each face and
read again as a client of that dialect reads it; what is compared is what was said, what was called, why it
ended and what was counted. `docs/compatibility.md` is written from the same comparison.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

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
    encode_line,
)
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.dialect import Answer, Face
from penstock.wire.gemini import GEMINI
from penstock.wire.ollama_clients import OLLAMA
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_completions import OPENAI_COMPLETIONS
from penstock.wire.openai_responses import OPENAI_RESPONSES, ResponsesEncoder
from tests.clients.judges import table as judges
from tests.server.endings import ENDINGS
from tests.server.endings import PROVIDERS as ENDING_PROVIDERS
from tests.vectors import load
from tests.wire.decoding import expected, run

PROVIDERS = (
    "openai_chat",
    "openai_responses",
    "openai_completions",
    "anthropic_messages",
    "gemini",
    "ollama",
    "cohere",
    "dashscope",
    "ernie",
    "bedrock",
)
FACES: tuple[Face, ...] = (
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    OPENAI_COMPLETIONS,
    ANTHROPIC_MESSAGES,
    GEMINI,
    OLLAMA,
)
ANSWER = Answer("s_0001ARZ3NDEKTSV4RRFFQ69G5FAV", 1790000001, "asked", True)


class Seen(NamedTuple):
    """What an answer comes to, of its first choice."""

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    usage: tuple[int, int] | None = None
    failed: bool = False


def seen(events: Iterable[AnyEvent], *, failed: bool = False) -> Seen:
    """Put an answer together from events."""
    text, refusal, reasoning = "", "", ""
    calls: dict[int, list[str]] = {}
    reason, usage = None, None
    for event in events:
        match event:
            case TextDelta(index=0, delta=delta):
                text += delta
            case RefusalDelta(index=0, delta=delta):
                refusal += delta
            case ReasoningDelta(index=0, delta=delta):
                reasoning += delta
            case ToolCallDelta(index=0):
                call = calls.setdefault(event.call, [event.name, "", event.kind])
                call[1] += event.delta
            case Finished(index=0):
                reason = reason or event.reason
            case UsageReported():
                usage = (event.input_tokens, event.output_tokens)
    made = tuple((name, _canonical(arguments, kind)) for name, arguments, kind in calls.values())
    return Seen(text, refusal, reasoning, made, reason, usage, failed)


def _canonical(arguments: str, kind: str) -> str:
    """Arguments as JSON, whatever its white space; the text of a custom call as an object."""
    if kind == "custom":
        return json.dumps({"input": arguments})
    try:
        return json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    except ValueError:
        return arguments


def _as_object(arguments: str) -> str:
    return arguments if arguments.startswith("{") else json.dumps({"INVALID_JSON": arguments})


def rendered(face: Face, events: Sequence[AnyEvent]) -> bytes:
    """Return the body that a client of ``face`` gets."""
    encoder = face.encoder(ANSWER)
    frames = list(encoder.opening()) if isinstance(encoder, ResponsesEncoder) else []
    frames += [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]
    if face is OLLAMA:
        return b"".join(data + b"\n" for _, data in frames)
    return b"".join(b"event: %b\ndata: %b\n\n" % f if f[0] else b"data: %b\n\n" % f[1] for f in frames)


def read(face: Face, body: bytes) -> Seen:
    """Read a body as a client of ``face`` does."""
    if face is OPENAI_COMPLETIONS:
        return _read_completions(body)
    outcome = run(face.decoder(), [body])  # type: ignore[attr-defined]
    return seen(outcome.events, failed=outcome.error is not None)


def _read_completions(body: bytes) -> Seen:
    text, reason, usage, done, failed = "", None, None, False, False
    for block in body.decode().split("\n\n"):
        data = block.removeprefix("data: ")
        if data == "[DONE]":
            done = True
        elif data:
            chunk = json.loads(data)
            failed = failed or "error" in chunk
            for choice in chunk.get("choices", ()):
                if choice["index"] == 0:
                    text += choice["text"]
                    reason = reason or choice["finish_reason"]
            if counted := chunk.get("usage"):
                usage = (counted["prompt_tokens"], counted["completion_tokens"])
    return Seen(text, "", "", (), reason, usage, failed or not done)


def wanted(face: Face, answer: Seen) -> Seen:
    """Return what a client of ``face`` must see of ``answer``: the dialect's own limits, and no others."""
    want = answer
    said = want.refusal != ""
    if face not in (OPENAI_CHAT, OPENAI_RESPONSES):
        want = want._replace(text=want.text + want.refusal, refusal="")
    if face is OPENAI_COMPLETIONS:
        want = want._replace(reasoning="", calls=())
    if face in (GEMINI, OLLAMA):  # whose arguments are objects
        want = want._replace(calls=tuple((name, _as_object(given)) for name, given in want.calls))
    reason = want.reason
    if face is OPENAI_COMPLETIONS and reason == "tool_calls":
        reason = "stop"
    if face is ANTHROPIC_MESSAGES and said and reason == "stop":
        reason = "content_filter"  # which is how it says that the model refused
    if face is OLLAMA and reason == "content_filter":
        reason = "stop"  # it has no word for it
    if face in (OPENAI_RESPONSES, ANTHROPIC_MESSAGES, GEMINI, OLLAMA) and want.calls and reason == "stop":
        reason = "tool_calls"
    return want._replace(reason=reason)


def end(error: Any) -> Closed:
    """Return how a case ends."""
    if error is None:
        return Closed("completed")
    return Closed("failed", "upstream_error", "Broken.", fault="upstream", http_status=502)


class Case(NamedTuple):
    """A provider's answer."""

    name: str
    events: list[AnyEvent]
    fails: bool


def cases(provider: str) -> list[Case]:
    """Return the cases of a provider's dialect."""
    return [
        Case(vector.name, expected(vector), vector.content.get("error") is not None)
        for vector in load(provider)
    ]


def compare(face: Face, case: Case) -> tuple[Seen, Seen]:
    """Return what a client must see of a case, and what it sees."""
    told = [*case.events, end(True if case.fails else None)]
    want = wanted(face, seen(case.events, failed=case.fails))
    found = read(face, rendered(face, told))
    if case.fails:  # why it would have ended is not told then, nor may it be
        want, found = want._replace(reason=None, usage=None), found._replace(reason=None, usage=None)
    elif want.usage is None:
        found = found._replace(usage=None)
    return want, found


# --- the page ----------------------------------------------------------------------------------------

_S, _STOP = Started("m"), Finished("stop")
COMMON: dict[str, list[AnyEvent]] = {
    "text": [_S, TextDelta("Hello"), _STOP, UsageReported(3, 1)],
    "CJK and emoji": [_S, TextDelta("流式"), TextDelta("输出 🌊"), _STOP],
    "a long text": [_S, *[TextDelta("word ")] * 5_000, _STOP],
    "a call": [_S, ToolCallDelta(0, '{"a":1}', "c1", "f"), Finished("tool_calls")],
    "parallel calls": [
        _S,
        ToolCallDelta(0, '{"a"', "c1", "f"),
        ToolCallDelta(1, '{"b":', "c2", "g"),
        ToolCallDelta(0, ":1}"),
        ToolCallDelta(1, "2}"),
        Finished("tool_calls"),
    ],
    "reasoning": [_S, ReasoningDelta("Hm."), TextDelta("Yes."), _STOP],
    "a refusal": [_S, RefusalDelta("No."), _STOP],
    "cut by its limit": [_S, TextDelta("He"), Finished("length")],
    "filtered": [_S, TextDelta("He"), Finished("content_filter")],
    "counts": [_S, TextDelta("A"), _STOP, UsageReported(100, 7)],
    "empty": [_S, _STOP],
    "two choices": [_S, TextDelta("A"), TextDelta("B", 1), _STOP, Finished("stop", 1)],
    "broken off": [_S, TextDelta("He")],
}
"""The set that every dialect shows, with what it is called."""


def common(name: str) -> Case:
    """Return a case of the common set."""
    return Case(name, COMMON[name], name == "broken off")


def _cell(face: Face, name: str) -> str:
    want, found = compare(face, common(name))
    assert want == found, (face.name, name, want, found)
    whole = seen(COMMON[name])
    notes = []
    if name == "two choices":
        notes.append("both" if face in (OPENAI_CHAT, OPENAI_COMPLETIONS, GEMINI) else "the first")
    if found.failed:
        notes.append("an error")
    if whole.refusal and not found.refusal:
        notes.append("as text")
    if (whole.reasoning and not found.reasoning) or (whole.calls and not found.calls):
        notes.append("left out")
    if not found.failed and found.reason != whole.reason and not whole.refusal:
        notes.append(f"as `{found.reason}`")
    return ", ".join(notes) or "✓"


CLIENTS: tuple[tuple[str, str], ...] = (
    ("`openai` (Python)", "clients/test_openai_python.py"),
    ("`openai` (Python), Responses and its helper", "clients/test_openai_responses.py"),
    ("`openai` (Python), legacy Completions", "clients/test_openai_completions.py"),
    ("`openai` (Node), chat and Responses", "clients/test_openai_node.py"),
    ("`anthropic` (Python)", "clients/test_anthropic_python.py"),
    ("`@anthropic-ai/sdk` (Node)", "clients/test_anthropic_node.py"),
    ("`google-genai` (Python)", "clients/test_gemini.py"),
    ("`ollama` (Python, JavaScript)", "clients/test_ollama.py"),
    ("`useChat` of `ai` 5, 6 and 7, in Chromium", "clients/test_ai_sdk.py"),
)
"""Real clients, and what else they judge the gateway in."""


def page() -> str:
    """Return docs/compatibility.md. Raises `AssertionError` where an answer is not the same."""
    heads = [f"`{face.name}`" for face in FACES]
    lines = [
        "# Compatibility",
        "",
        "Written by `make docs-compat` from what the tests compare; do not edit it by hand.",
        "",
        "## What clients see of an answer",
        "",
        "The same answer in the dialect of each client: ✓ means the same text, calls, reason and counts.",
        "",
        f"| | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(FACES)}",
    ]
    lines += [f"| {name} | {' | '.join(_cell(face, name) for face in FACES)} |" for name in COMMON]
    lines += [
        "",
        "## From every provider to every client",
        "",
        "How many recorded answers of a provider's dialect are rendered for each client, read again as that "
        "client reads them, and found the same; and how many of them are answers that break.",
        "",
        f"| provider's dialect | {' | '.join(heads)} | of these break |",
        f"| --- |{' --- |' * (len(FACES) + 1)}",
    ]
    for provider in PROVIDERS:
        found = cases(provider)
        counts = []
        for face in FACES:
            for case in found:
                want, got = compare(face, case)
                assert want == got, (provider, face.name, case.name, want, got)
            counts.append(str(len(found)))
        broken = sum(case.fails for case in found)
        lines.append(f"| `{provider}` | {' | '.join(counts)} | {broken} |")
    bad = [ending for ending in ENDINGS if ending != "whole"]
    lines += [
        "",
        f"And each of {len(bad)} ways to end badly ({', '.join(bad)}), in the dialects of "
        f"{len(ENDING_PROVIDERS)} providers, is shown to every kind of client by a running gateway, "
        "streaming and not ([server/test_endings.py](../tests/server/test_endings.py)): to none of them it "
        "is an answer, and the provider's own word for it, where there is one, reaches them.",
        "",
        "## Real clients",
        "",
        "Each runs unchanged, but for its base URL, against a running gateway and asks in all its ways: raw "
        "stream, its own helper, as a whole. ✓ means: the same text, calls, reasons and counts; the "
        "provider's own message and code when it refuses, its message when it fails in mid-answer, and an "
        "error, never an answer, when it breaks off; a silence longer than the client's own time-out is not "
        "noticed; and when the client leaves, the provider is left.",
        "",
        *judges.page(),
        "",
        "Beyond the table:",
        "",
        "| client | tests |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | [{path}](../tests/{path}) |" for name, path in CLIENTS]
    return "\n".join(lines) + "\n"
