"""What requests ask, in the terms that dialects without a client half render from.

Owns the questions that all of them have for a request: which tools may be called and whether one must, what
form the answer shall have, what an earlier answer thought, the plain text of a message. Who is asked is said
in errors only; no provider's field enters.
"""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from penstock.types.requests import Extra, GenerationRequest, Message, OpaquePart, TextPart, Tool
from penstock.wire.anthropic_conversation import parts_of
from penstock.wire.bodies import refused

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Calling(NamedTuple):
    """The tools that may be called, and how freely. ``must``: one of them has to be; ``only``: its name,
    where it has to be that one; ``never``: no call is wanted, though there are tools."""

    tools: tuple[Tool, ...] = ()
    must: bool = False
    only: str = ""
    never: bool = False


def calling(request: GenerationRequest, who: str) -> Calling:
    """Return what ``request`` says of tools; those that its choice leaves out are left out. Raises
    `ClientError` for tools that are no functions, and for a choice that nobody knows."""
    for number, tool in enumerate(request.tools):
        if tool.kind != "function":
            raise refused(f"{who} knows tools of type function only.", f"tools[{number}].type")
    names = _names(request.tool_choice)
    tools = tuple(tool for tool in request.tools if names is None or tool.name in names)
    if names and not tools:
        raise refused("'tool_choice' names a tool that is not among 'tools'.", "tool_choice")
    if names is not None and not names:
        return Calling(request.tools, never=True)
    must = bool(tools) and _must(request.tool_choice)
    return Calling(tools, must, tools[0].name if must and names and len(names) == 1 else "")


def _names(choice: Any) -> Collection[str] | None:
    """Return the names of the tools that ``tool_choice`` lets be called; None for any."""
    match choice:
        case None | "auto" | "required" | "any":
            return None
        case "none":
            return ()
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return (name,)
        case {"allowed_tools": {"tools": list(tools)}}:
            return {name for tool in tools for name in (_names(tool) or ())}
    raise refused("'tool_choice' must be none, auto, required or the name of a function.", "tool_choice")


def _must(choice: Any) -> bool:
    match choice:
        case "required" | "any":
            return True
        case {"allowed_tools": {"mode": mode}}:
            return bool(mode == "required")
        case {"allowed_tools": _}:
            return False
        case dict():
            return True
    return False


class Form(NamedTuple):
    """The form that an answer shall have: JSON of any kind, or by a schema, which has a name."""

    schema: Extra | None = None
    name: str = ""


def form(request: GenerationRequest, who: str) -> Form | None:
    """Return the form that ``request`` wants; None for text. Raises `ClientError`."""
    match request.response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return Form()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), "name": str(name)}}:
            return Form(schema, name)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return Form(schema, "answer")
    raise refused(
        f"{who} takes a 'response_format' of type text, json_object, or json_schema with a schema.",
        "response_format",
    )


def effort(request: GenerationRequest) -> str | None:
    """Return how hard to think, one of `EFFORTS`; None where nobody asks. Raises `ClientError`."""
    if request.reasoning_effort is not None and request.reasoning_effort not in EFFORTS:
        raise refused(f"'reasoning_effort' must be one of {', '.join(EFFORTS)}.", "reasoning_effort")
    return request.reasoning_effort


def thoughts(message: Message) -> str:
    """Return the reasoning of an earlier answer, which OpenAI chat has no field for: clients send it back
    under the name it came by. Models that think between tool calls want it."""
    extra = message.extra or {}
    for name in ("reasoning_content", "reasoning", "thinking"):
        if message.role == "assistant" and isinstance(text := extra.get(name), str):
            return text
    return ""


def plain(message: Message, path: str, who: str) -> str:
    """Return the text of a message that may have nothing else. Raises `ClientError`."""
    texts = []
    for number, part in enumerate(parts_of(message)):
        match part:
            case TextPart():
                texts.append(part.text)
            case OpaquePart() if message.role == "assistant":
                pass  # of an earlier answer, what only its provider reads: signatures, its own tools
            case _:
                raise refused(f"{who} takes nothing but text here.", f"{path}.content[{number}]")
    return "\n".join(texts)


def drop_empty(fields: Extra) -> Extra:
    """Return the fields that say something: all but None."""
    return {name: value for name, value in fields.items() if value is not None}
