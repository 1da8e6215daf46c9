"""DashScope's own format, the request half: `GenerationRequest` → the body of ``…/generation``.

What is asked stands in ``input``, how it shall be answered in ``parameters``, where tools are as well. Calls
and their results have OpenAI's form; images, sounds and films are parts named by what they are. What an
earlier answer thought is not taken back. Of a request's unknown fields those are handed on that are
DashScope's own (`enable_search`, `thinking_budget`, `vl_high_resolution_images`, …).

Sources: dashscope (Python, 2.0.2), its both clients.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from penstock.types.requests import (
    Extra,
    FilePart,
    GenerationRequest,
    ImagePart,
    Message,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.anthropic_conversation import parts_of
from penstock.wire.bodies import refused
from penstock.wire.fitting import Fitting
from penstock.wire.wishes import calling, drop_empty, effort, form, plain, thoughts

NAME: Final = "dashscope"
"""The dialect's name in events, logs and settings."""

WHO: Final = "DashScope"

FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop", "seed", "tools")).union(
    ("presence_penalty", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"),
    ("logprobs", "top_logprobs"),
)
"""What requests of other dialects ask that has a place here."""

EXTRAS: Final = frozenset(
    ("top_k", "repetition_penalty", "enable_thinking", "thinking_budget", "enable_search", "search_options")
).union(
    ("vl_high_resolution_images", "vl_enable_image_hw_output", "ocr_options", "translation_options"),
    ("asr_options", "enable_code_interpreter", "max_input_tokens", "min_pixels", "max_pixels"),
)
"""Its own parameters, which clients may send as fields of their own."""

_SEES: Final = re.compile(r"(?i)(^|[-/])(qvq|vl|omni|ocr)([-.\d]|$)|qwen\d*\.?\d*-?(vl|omni)")

_encode = msgspec.json.Encoder().encode


def is_multimodal(request: GenerationRequest, model: str) -> bool:
    """Say whether ``request`` goes where models see and hear: it shows something, or ``model``'s name says
    that it lives there."""
    return has_media(request) or _SEES.search(model) is not None


def has_media(request: GenerationRequest) -> bool:
    """Say whether there is anything but text in ``request``."""
    return any(
        isinstance(part, ImagePart | FilePart) for message in request.messages for part in parts_of(message)
    )


def render_request(request: GenerationRequest, model: str, fitting: Fitting) -> bytes:
    """Render for ``model``, streaming. Raises `ClientError` for what DashScope cannot do; ``fitting`` notes
    what it is not told."""
    fitting.check(request, FIELDS, EXTRAS)
    extra = request.extra or {}
    asked: Extra = {name: extra[name] for name in EXTRAS if extra.get(name) is not None}
    asked |= {"result_format": "message", "incremental_output": True}
    asked |= drop_empty(
        {
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
            "presence_penalty": request.presence_penalty,
            "logprobs": request.logprobs,
            "top_logprobs": request.top_logprobs if request.logprobs else None,
            "n": request.n if request.n != 1 else None,
        }
    )
    wanted = calling(request, WHO)
    if wanted.tools:
        asked["tools"] = [_tool(tool) for tool in wanted.tools]
        if request.parallel_tool_calls is not None:
            asked["parallel_tool_calls"] = request.parallel_tool_calls
        if wanted.never:
            asked["tool_choice"] = "none"
        elif wanted.only:
            asked["tool_choice"] = {"type": "function", "function": {"name": wanted.only}}
        elif wanted.must:
            asked["tool_choice"] = "required"
    if form(request, WHO) is not None:
        asked["response_format"] = request.response_format
    if (thinks := effort(request)) is not None:
        asked.setdefault("enable_thinking", thinks != "none")
    messages = list(_messages(request.messages, fitting))
    return _encode({"model": model, "input": {"messages": messages}, "parameters": asked})


def _tool(tool: Tool) -> Extra:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    told = {"name": tool.name, "description": tool.description or None, "parameters": parameters}
    return {"type": "function", "function": drop_empty({**told, "strict": tool.strict})}


# --- the conversation ------------------------------------------------------------------------------


def _messages(messages: Sequence[Message], fitting: Fitting) -> Iterator[Extra]:
    last = len(messages) - 1
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        match message.role:
            case "system" | "developer":
                yield {"role": "system", "content": plain(message, path, WHO)}
            case "tool":
                content = plain(message, path, WHO)
                yield {"role": "tool", "content": content, "tool_call_id": message.tool_call_id}
            case "assistant":
                if thoughts(message):
                    fitting.leave_out("reasoning_content")
                yield _answer(message, path, begun=number == last)
            case _:
                yield {"role": "user", "content": _content(message, path, fitting)}


def _answer(message: Message, path: str, *, begun: bool) -> Extra:
    """Return an earlier answer, or the beginning of the one that is asked for."""
    out: Extra = {"role": "assistant", "content": plain(message, path, WHO)}
    if message.tool_calls:
        calls = enumerate(message.tool_calls)
        out["tool_calls"] = [_call(call, at, f"{path}.tool_calls[{at}]") for at, call in calls]
    elif begun:
        out["partial"] = True
    return out


def _call(call: ToolCall, index: int, path: str) -> Extra:
    if call.kind != "function":
        raise refused(f"{WHO} knows calls of functions only.", f"{path}.type")
    function = {"name": call.name, "arguments": call.arguments.strip() or "{}"}
    return {"id": call.id, "type": "function", "index": index, "function": function}


def _content(message: Message, path: str, fitting: Fitting) -> Any:
    """Return a user's text, or its parts where there is more."""
    parts = list(parts_of(message))
    if all(isinstance(part, TextPart) for part in parts):
        return plain(message, path, WHO)
    return [_part(part, f"{path}.content[{number}]", fitting) for number, part in enumerate(parts)]


def _part(part: Any, path: str, fitting: Fitting) -> Extra:
    match part:
        case TextPart(text=text):
            return {"text": text}
        case ImagePart(url=url, data=data) if url or data:
            if part.detail not in ("", "auto"):
                fitting.leave_out("image_url.detail")
            return {"image": _address(part, "image/png") if data else url}
        case FilePart(url=url, data=data, media_type=kind) if url or data:
            for name in ("audio", "video"):
                if kind.startswith(f"{name}/"):
                    return {name: _address(part, kind) if data else url}
    raise refused(f"{WHO} takes text, images, sounds and films, and no other parts of a message.", path)


def _address(part: ImagePart | FilePart, kind: str) -> str:
    return f"data:{part.media_type or kind};base64,{part.data}"
