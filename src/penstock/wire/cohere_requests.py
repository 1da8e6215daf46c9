"""Cohere v2, the request half: `GenerationRequest` → the body of ``/v2/chat``.

What has a place in the vocabulary goes to Cohere's place for it; of a request's unknown fields those are
handed on that are Cohere's own (`documents`, `citation_options`, `safety_mode`, …). What it cannot do is
refused where the answer would be another one: files, images in the model's own turns, tools that are no
functions. A choice of one tool is said by offering that one alone.

Source: types of cohere (Python, 7.3), v2.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.types.requests import Extra, GenerationRequest, ImagePart, Message, TextPart, Tool, ToolCall
from penstock.wire.anthropic_conversation import parts_of
from penstock.wire.bodies import refused
from penstock.wire.wishes import calling, drop_empty, effort, form, plain, thoughts

NAME: Final = "cohere"
"""The dialect's name in events, logs and settings."""

WHO: Final = "Cohere"

FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop", "seed", "tools")).union(
    ("presence_penalty", "frequency_penalty", "tool_choice", "response_format", "reasoning_effort")
)
"""What requests of other dialects ask that has a place here, or is refused here."""

_OWN: Final = ("documents", "citation_options", "safety_mode", "strict_tools", "thinking", "priority", "k")

EXTRAS: Final = frozenset((*_OWN, "top_k"))

BUDGETS: Final[Mapping[str, int]] = {
    "minimal": 512,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
}
"""Tokens to think with; above, as many as the model likes."""

_encode = msgspec.json.Encoder().encode


def render_request(request: GenerationRequest, model: str) -> bytes:
    """Render for ``model``, streaming. Raises `ClientError` for what Cohere cannot do."""
    extra = request.extra or {}
    out: Extra = {name: extra[name] for name in _OWN if extra.get(name) is not None}
    out |= {"model": model, "stream": True, "messages": list(_messages(request.messages))}
    out |= drop_empty(
        {
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "p": request.top_p,
            "k": out.get("k", extra.get("top_k")),
            "seed": request.seed,
            "stop_sequences": list(request.stop) or None,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
        }
    )
    wanted = calling(request, WHO)
    if wanted.tools:
        out["tools"] = [_tool(tool) for tool in wanted.tools]
        if any(tool.strict for tool in wanted.tools):
            out.setdefault("strict_tools", True)
        if wanted.must or wanted.never:
            out["tool_choice"] = "REQUIRED" if wanted.must else "NONE"
    if (shape := form(request, WHO)) is not None:
        out["response_format"] = {"type": "json_object", **drop_empty({"json_schema": shape.schema})}
    if (thinks := effort(request)) is not None and "thinking" not in out:
        out["thinking"] = _thinking(thinks)
    return _encode(out)


def _thinking(wanted: str) -> Extra:
    if wanted == "none":
        return {"type": "disabled"}
    return {"type": "enabled", **drop_empty({"token_budget": BUDGETS.get(wanted)})}


def _tool(tool: Tool) -> Extra:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    told = {"name": tool.name, "description": tool.description or None, "parameters": parameters}
    return {"type": "function", "function": drop_empty(told)}


# --- the conversation ------------------------------------------------------------------------------


def _messages(messages: Sequence[Message]) -> Iterator[Extra]:
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        match message.role:
            case "system" | "developer":
                yield {"role": "system", "content": plain(message, path, WHO)}
            case "tool":
                content = plain(message, path, WHO)
                yield {"role": "tool", "tool_call_id": message.tool_call_id, "content": content}
            case "assistant":
                yield _answer(message, path)
            case _:
                yield {"role": "user", "content": _content(message, path)}


def _answer(message: Message, path: str) -> Extra:
    """Return an earlier answer; what it thought before it called tools is its plan."""
    text, thought = plain(message, path, WHO), thoughts(message)
    out: Extra = {"role": "assistant"}
    if message.tool_calls:
        calls = enumerate(message.tool_calls)
        out["tool_calls"] = [_call(call, f"{path}.tool_calls[{at}]") for at, call in calls]
        if thought:
            out["tool_plan"] = thought
            thought = ""
    if thought:
        said = [{"type": "text", "text": text}] if text else []
        out["content"] = [{"type": "thinking", "thinking": thought}, *said]
    elif text or not message.tool_calls:
        out["content"] = text
    return out


def _call(call: ToolCall, path: str) -> Extra:
    if call.kind != "function":
        raise refused("Cohere knows calls of functions only.", f"{path}.type")
    function = {"name": call.name, "arguments": call.arguments.strip() or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _content(message: Message, path: str) -> Any:
    """Return a user's text, or its parts where there is more."""
    parts = list(parts_of(message))
    if all(isinstance(part, TextPart) for part in parts):
        return plain(message, path, WHO)
    return [_part(part, f"{path}.content[{number}]") for number, part in enumerate(parts)]


def _part(part: Any, path: str) -> Extra:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart(url=url, data=data) if url or data:
            address = f"data:{part.media_type or 'image/png'};base64,{data}" if data else url
            return {
                "type": "image_url",
                "image_url": drop_empty({"url": address, "detail": part.detail or None}),
            }
    raise refused("Cohere takes text and images, and no other parts of a message.", path)
