"""What Ollama's clients ask: bodies of ``/api/chat`` and ``/api/generate`` → `GenerationRequest`.

Strategy: options and fields that have a canonical place are checked by type, all others are kept as they
came, so that an Ollama is told what its client said. Calls without ids get some here, and results find
theirs by name and order, since other providers want them. The way to an Ollama is in
`penstock.wire.ollama_requests`.

Source: api/types.go of github.com/ollama/ollama, version 0.17.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from penstock.types.requests import (
    Extra,
    GenerationRequest,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.bodies import convert, missing, others, read_object, refused, unknown
from penstock.wire.ollama_requests import NAME, Api

_encode = msgspec.json.Encoder().encode


class ChatBody(msgspec.Struct):
    """The fields of a chat that have a place here, as they come."""

    model: str
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class GenerateBody(msgspec.Struct):
    """The same of a prompt to be completed."""

    model: str
    prompt: str | None = None
    system: str | None = None
    images: list[str] | None = None
    context: list[int] | None = None
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class TurnBody(msgspec.Struct):
    """The same of a message."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _CalledBody(msgspec.Struct):
    name: str
    arguments: dict[str, Any] | None = None


class _OptionsBody(msgspec.Struct):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    num_predict: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class _ToolBody(msgspec.Struct):
    function: dict[str, Any]
    type: str = "function"


class _FunctionBody(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


ROLES: Final = ("system", "user", "assistant", "tool")

_MAGIC: Final = ((b"\x89PNG", "image/png"), (b"GIF8", "image/gif"), (b"RIFF", "image/webp"))


def parse_request(body: bytes, api: Api = "chat") -> GenerationRequest:
    """Read a request of ``/api/chat`` or ``/api/generate``.

    Raises `ClientError` 400 with the field as ``param``.
    """
    value = read_object(body)
    given: ChatBody | GenerateBody
    messages: list[Message]
    tools: Sequence[Tool] = ()
    if api == "chat":
        given = convert(value, ChatBody, "")
        messages = _messages(given.messages or ())
        tools = [_tool(raw, f"tools[{i}]") for i, raw in enumerate(given.tools or ())]
    else:
        given = convert(value, GenerateBody, "")
        messages = _prompt(given)
    if not given.model:
        raise missing("model")
    options = convert(given.options or {}, _OptionsBody, "options")
    extra = unknown(value, type(given))
    if given.options:
        known = frozenset(_OptionsBody.__struct_fields__)
        extra["options"] = {name: item for name, item in given.options.items() if name not in known}
    for name in ("format", "think"):
        if value.get(name) not in (None, ""):
            extra[name] = value[name]
    if options.top_k is not None:
        extra["top_k"] = options.top_k
    limit = options.num_predict
    if limit is not None and limit < 0:  # as long as it likes
        limit = None
    return GenerationRequest(
        model=given.model,
        messages=tuple(messages),
        dialect=NAME,
        stream=given.stream is not False,
        include_usage=True,
        max_output_tokens=limit,
        temperature=options.temperature,
        top_p=options.top_p,
        stop=(options.stop,) if isinstance(options.stop, str) else tuple(options.stop or ()),
        seed=options.seed,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        logprobs=given.logprobs,
        top_logprobs=given.top_logprobs,
        tools=tuple(tools),
        response_format=_format(given.format),
        reasoning_effort=_effort(given.think),
        extra=extra or None,
    )


def only_loads(request: GenerationRequest) -> bool:
    """Say whether a request asks for nothing but that its model be there."""
    return not any(message.content or message.tool_calls for message in request.messages)


def shows_thoughts(request: GenerationRequest) -> bool:
    """Say whether the client of a request of this dialect is to see what the model thinks."""
    return request.reasoning_effort != "none"


def _prompt(given: GenerateBody) -> list[Message]:
    if given.context:
        raise refused("'context' holds tokens of one model: send the conversation to /api/chat.", "context")
    messages = [Message("system", given.system)] if given.system else []
    if given.prompt or given.images:
        messages.append(Message("user", _content(given.prompt or "", given.images, "images")))
    return messages


def _messages(turns: Sequence[Mapping[str, Any]]) -> list[Message]:
    messages = []
    calls: list[tuple[str, str]] = []  # names and ids of calls without a result so far
    for number, raw in enumerate(turns):
        path = f"messages[{number}]"
        turn = convert(raw, TurnBody, path)
        if turn.role not in ROLES:
            raise refused(f"'{path}.role' must be one of {', '.join(ROLES)}.", f"{path}.role")
        made = [
            _call(call, f"call_{number}_{at}", f"{path}.tool_calls[{at}]")
            for at, call in enumerate(turn.tool_calls or ())
        ]
        calls += [(call.name, call.id) for call in made]
        id_ = turn.tool_call_id or ""
        if turn.role == "tool":
            id_ = id_ or next((known for name, known in calls if turn.tool_name in (None, "", name)), "")
            calls = [call for call in calls if call[1] != id_]
        extra = others(raw, *TurnBody.__struct_fields__) or {}
        if turn.thinking:
            extra["thinking"] = turn.thinking
        messages.append(
            Message(
                cast("Role", turn.role),
                _content(turn.content or "", turn.images, f"{path}.images"),
                turn.tool_name or "",
                tuple(made),
                id_,
                extra or None,
            )
        )
    return messages


def _content(text: str, images: Sequence[str] | None, path: str) -> str | tuple[Part, ...]:
    if not images:
        return text
    parts: list[Part] = [TextPart(text)] if text else []
    for number, data in enumerate(images):
        parts.append(ImagePart(data=data, media_type=_media_type(data, f"{path}[{number}]")))
    return tuple(parts)


def _media_type(data: str, path: str) -> str:
    """Return what kind of image begins like this; Ollama's clients do not say."""
    try:
        start = base64.b64decode(data[:32], validate=True)
    except ValueError:  # `binascii.Error` is one, and so is what is no ASCII
        raise refused("An image must be in base64.", path) from None
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), "image/jpeg")


def _call(raw: Mapping[str, Any], id_: str, path: str) -> ToolCall:
    called = convert(raw.get("function") or {}, _CalledBody, f"{path}.function")
    given = raw.get("id")
    arguments = _encode(called.arguments or {}).decode()
    return ToolCall(given if isinstance(given, str) and given else id_, called.name, arguments)


def _tool(raw: Mapping[str, Any], path: str) -> Tool:
    given = convert(raw, _ToolBody, path)
    if given.type != "function":
        raise refused(f"'{path}.type' must be function.", f"{path}.type")
    function = convert(given.function, _FunctionBody, f"{path}.function")
    return Tool(function.name, function.description or "", function.parameters)


def _format(wanted: str | Extra | None) -> Extra | None:
    match wanted:
        case None | "":
            return None
        case "json":
            return {"type": "json_object"}
        case dict(schema):
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    raise refused("'format' must be \"json\" or a JSON Schema.", "format")


def _effort(think: bool | str | None) -> str | None:
    match think:
        case None | "":
            return None
        case str(level):
            return level
    return "medium" if think else "none"
