"""What each real client must see, whoever its maker is: the table, and its part of docs/compatibility.md.

A row is one client in one version and one of its interfaces; a column is a kind of answer. A cell holds for
each way in which the client asks: raw stream, the SDK's own helper, as a whole. What a client cannot be told
stands in `NOTES`, and is checked as well: it must be so.
"""

import json
from typing import Any, NamedTuple

from tests.clients.upstream import CALLS, FAILURE, REFUSAL, THOUGHTS, USAGE, WORDS

TEXT = "".join(WORDS)
MADE = [[name, arguments] for _, name, arguments in CALLS]
COUNTED = [USAGE["prompt_tokens"], USAGE["completion_tokens"]]

COLUMNS = {
    "text": ("plain",),
    "calls": ("calling",),
    "reasoning": ("thinking",),
    "counts": ("plain", "calling", "thinking"),
    "error before": ("refusing",),
    "error in mid-answer": ("broken",),
    "broken off": ("cut", "truncated"),
    "silence": ("quiet",),
    "leaving": ("endless",),
}
"""What is looked at, and in which answers."""

STOPPED = ("stop", "end_turn", "completed", "STOP")
CALLED = ("tool_calls", "tool_use", "completed", "STOP", "tool-calls", "stop")
"""How the dialects, and the SDKs that translate them, call these ends."""


class Client(NamedTuple):
    """One client: its name for people, and the rows that its judge reports."""

    name: str
    rows: tuple[tuple[str, str], ...]  # (row, interface)


CLIENTS = (
    Client(
        "`openai` for Python, 1.x",
        (
            ("old openai-python chat", "Chat Completions"),
            ("old openai-python responses", "Responses"),
            ("old openai-python completions", "Completions"),
        ),
    ),
    Client(
        "`openai` for Python, newest",
        (
            ("openai-python chat", "Chat Completions"),
            ("openai-python responses", "Responses"),
            ("openai-python completions", "Completions"),
        ),
    ),
    Client("`anthropic` for Python, 0.x", (("old anthropic-python", "Messages"),)),
    Client("`anthropic` for Python, newest", (("anthropic-python", "Messages"),)),
    Client(
        "`openai` for Node, 6",
        (("old openai-node chat", "Chat Completions"), ("old openai-node responses", "Responses")),
    ),
    Client(
        "`openai` for Node, newest",
        (("openai-node chat", "Chat Completions"), ("openai-node responses", "Responses")),
    ),
    Client("`@anthropic-ai/sdk`", (("anthropic-node", "Messages"),)),
    Client("`google-genai` for Python", (("google-genai", "generate_content"),)),
    Client("`ollama` for Python", (("ollama-python chat", "chat"), ("ollama-python generate", "generate"))),
    Client("`ollama` for JavaScript", (("ollama-node chat", "chat"), ("ollama-node generate", "generate"))),
    Client("`ai` with `@ai-sdk/openai-compatible`", (("ai compatible", "Chat Completions"),)),
    Client(
        "`ai` with `@ai-sdk/openai`",
        (("ai openai responses", "Responses"), ("ai openai chat", "Chat Completions")),
    ),
    Client("`ai` with `@ai-sdk/anthropic`", (("ai anthropic", "Messages"),)),
    Client("`fetch`, by a page that is busy", (("fetch", "Chat Completions"),)),
    Client(
        "`langchain-openai`",
        (
            ("langchain-openai chat", "Chat Completions"),
            ("langchain-openai responses", "Responses"),
        ),
    ),
    Client("`langchain-anthropic`", (("langchain-anthropic", "Messages"),)),
)

LEFT_OUT = "left out"
NOT_THE_INPUT = "✓ (its helper: the output alone)"
LAST_PIECE = "✓ (its helper: the last piece)"

NOTES = {
    ("completions", "calls"): LEFT_OUT,
    ("completions", "reasoning"): LEFT_OUT,
    ("ollama-python generate", "calls"): LEFT_OUT,
    ("langchain-openai chat", "reasoning"): LEFT_OUT,  # by LangChain
    ("ai openai chat", "reasoning"): LEFT_OUT,  # by the SDK
    ("openai-node chat", "reasoning"): LAST_PIECE,  # it does not join fields that are not OpenAI's
    ("old anthropic-python", "counts"): NOT_THE_INPUT,  # it looks at the start, when nobody knows them yet
}
"""(end of a row, column) → what a dialect leaves out, or a client does not look at."""

NO_REASON_GIVEN = {("responses", "helper")}
"""Ways whose helper says only that the answer is not whole; the reason is in the events that it passes on."""


CODELESS = ("ollama",)
"""Clients that show nothing of an error but its message and its status."""


def note(row: str, column: str) -> str:
    """Return what stands in a cell."""
    return next((text for (end, name), text in NOTES.items() if name == column and row.endswith(end)), "✓")


def wrong(row: str, way: str, column: str, kind: str, seen: dict[str, Any]) -> str:
    """Return what is wrong with what was seen, or nothing."""
    whole, noted = way == "whole", note(row, column)
    left_out = noted == LEFT_OUT
    error = seen["error"]
    thoughts = "".join(THOUGHTS)
    if left_out:
        thoughts = ""
    elif noted == LAST_PIECE and way == "helper":
        thoughts = THOUGHTS[-1]
    told = json.dumps(error, ensure_ascii=False) if error else ""
    good = {
        "text": seen["text"] == TEXT and seen["reason"] in STOPPED and not error,
        "calls": seen["calls"] == ([] if left_out else MADE) and seen["reason"] in CALLED and not error,
        "reasoning": seen["reasoning"] == thoughts and seen["text"] == TEXT,
        "counts": seen["usage"]
        == ([0, COUNTED[1]] if noted == NOT_THE_INPUT and way == "helper" else COUNTED),
        "error before": bool(error)
        and REFUSAL["message"] in told
        and (_codeless(row) or REFUSAL["code"] in told.lower()),
        "error in mid-answer": bool(error) and (_silent(row, way) or FAILURE["message"] in told),
        "broken off": bool(error) and bool(error["message"]),
        "silence": seen["text"] == "before after" and seen["reason"] in STOPPED and not error,
        "leaving": not seen["reason"],
    }[column]
    if column in ("error in mid-answer", "broken off") and not whole:
        good = good and seen["text"] == TEXT and not seen["reason"]
    return "" if good else f"{row}, {way}, {column} ({kind}): {json.dumps(seen, ensure_ascii=False)}"


def _codeless(row: str) -> bool:
    return row.startswith(CODELESS)


def _silent(row: str, way: str) -> bool:
    return any(row.endswith(end) and way == name for end, name in NO_REASON_GIVEN)


def page() -> list[str]:
    """Return the lines of the table."""
    lines = [
        f"| client | interface | {' | '.join(COLUMNS)} |",
        f"| --- | --- |{' --- |' * len(COLUMNS)}",
    ]
    for client in CLIENTS:
        for number, (row, interface) in enumerate(client.rows):
            cells = " | ".join(note(row, column) for column in COLUMNS)
            lines.append(f"| {'' if number else client.name} | {interface} | {cells} |")
    return lines
