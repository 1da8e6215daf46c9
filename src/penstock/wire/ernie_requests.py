"""Baidu ERNIE v1, the request half: `GenerationRequest` → the body of ``…/wenxinworkshop/chat/<endpoint>``.

Its conversation is narrow: turns alternate, the user begins and ends, what a system says has a field of its
own, and a turn of the model's calls at most one function. So neighbours of one role are joined, and several
calls of one turn become a turn each, with its result behind it. Of a request's unknown fields those are
handed on that are ERNIE's own (`disable_search`, `enable_citation`, `penalty_score`, …).

Sources: qianfan (Python, 0.4.12); Baidu's API reference for the ranges, which nobody could check.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from penstock.types.errors import ClientError
from penstock.types.requests import Extra, GenerationRequest, Message, Tool, ToolCall
from penstock.wire.bodies import refused
from penstock.wire.fitting import Fitting
from penstock.wire.wishes import calling, drop_empty, form, plain, thoughts

NAME: Final = "ernie"
"""The dialect's name in events, logs and settings."""

WHO: Final = "ERNIE"

FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop", "tools")).union(
    ("presence_penalty", "frequency_penalty", "tool_choice", "response_format", "parallel_tool_calls", "user")
)
"""What requests of other dialects ask that has a place here, or is refused here."""

_OWN: Final = (
    *("penalty_score", "min_output_tokens", "disable_search", "enable_citation", "enable_trace"),
    *("user_setting", "enable_system_memory", "system_memory_id"),
)
EXTRAS: Final = frozenset((*_OWN, "repetition_penalty"))

COLDEST: Final = 0.01
HOTTEST: Final = 1.0
"""Temperatures that it takes."""

_encode = msgspec.json.Encoder().encode


def render_request(request: GenerationRequest, fitting: Fitting) -> bytes:
    """Render, streaming; the model stands in the path. Raises `ClientError` for what ERNIE cannot do;
    ``fitting`` notes what it is not told."""
    fitting.one_answer(request)
    fitting.check(request, FIELDS, EXTRAS)
    extra = request.extra or {}
    system, messages = _conversation(request.messages, fitting)
    out: Extra = {name: extra[name] for name in _OWN if extra.get(name) is not None}
    out |= drop_empty(
        {
            "messages": messages,
            "system": system or None,
            "max_output_tokens": request.max_output_tokens,
            "temperature": _temperature(request.temperature, fitting),
            "top_p": request.top_p,
            "stop": list(request.stop) or None,
            "penalty_score": out.get("penalty_score", extra.get("repetition_penalty")),
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "user_id": request.user,
        }
    )
    wanted = calling(request, WHO)
    if wanted.tools and not wanted.never:
        out["functions"] = [_function(tool) for tool in wanted.tools]
        if wanted.must and len(wanted.tools) > 1:
            fitting.lack("tool_choice")
        elif wanted.must:
            out["tool_choice"] = {"type": "function", "function": {"name": wanted.tools[0].name}}
    if (shape := form(request, WHO)) is not None:
        out["response_format"] = "json_object"
        if shape.schema is not None:
            fitting.lack("response_format")
    return _encode({**out, "stream": True})


def _temperature(wanted: float | None, fitting: Fitting) -> float | None:
    if wanted is None or COLDEST <= wanted <= HOTTEST:
        return wanted
    fitting.leave_out("temperature")  # it is told the nearest
    return min(max(wanted, COLDEST), HOTTEST)


def _function(tool: Tool) -> Extra:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description or tool.name, "parameters": parameters}


# --- the conversation ------------------------------------------------------------------------------


def _conversation(messages: Sequence[Message], fitting: Fitting) -> tuple[str, list[Extra]]:
    """Return what the system says, and turns that alternate. Raises `ClientError`."""
    system: list[str] = []
    turns: list[Extra] = []
    results = {message.tool_call_id: message for message in messages if message.role == "tool"}
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        match message.role:
            case "system" | "developer":
                system.append(plain(message, path, WHO))
            case "tool":
                pass  # it stands behind its call
            case "assistant":
                if thoughts(message):
                    fitting.leave_out("reasoning_content")
                _add(turns, "assistant", plain(message, path, WHO))
                for at, call in enumerate(message.tool_calls):
                    turns += _call(call, results, f"{path}.tool_calls[{at}]")
            case _:
                _add(turns, "user", plain(message, path, WHO))
    if not turns or turns[0]["role"] != "user":
        raise refused(f"{WHO} wants a conversation that the user begins.", "messages")
    if turns[-1]["role"] == "assistant":
        raise refused(f"{WHO} cannot go on from the beginning of an answer: the user must ask.", "messages")
    return "\n\n".join(system), turns


def _add(turns: list[Extra], role: str, text: str) -> None:
    """Add a turn, or its text to the last one, where that is of the same role."""
    last = turns[-1] if turns else {}
    if last.get("role") == role and "function_call" not in last:
        last["content"] = f"{last['content']}\n{text}"
    elif text or role == "user":
        if role == "user" and last.get("role") == "function":
            turns.append({"role": "assistant", "content": "…"})  # who called says nothing of the result
        turns.append({"role": role, "content": text})


def _call(call: ToolCall, results: Mapping[str, Message], path: str) -> list[Extra]:
    if call.kind != "function":
        raise refused(f"{WHO} knows calls of functions only.", f"{path}.type")
    found = results.get(call.id)
    if found is None:
        raise ClientError(
            f"{WHO} wants the result of each call behind it.", code="invalid_value", param=f"{path}.id"
        )
    function = {"name": call.name, "arguments": call.arguments.strip() or "{}"}
    return [
        {"role": "assistant", "content": "", "function_call": function},
        {"role": "function", "name": call.name, "content": plain(found, path, WHO)},
    ]
