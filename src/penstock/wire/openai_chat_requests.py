"""Chat Completions, the request half: client bytes → `GenerationRequest` → provider bytes.

Strategy: the body is decoded once as JSON; fields that have a place in the vocabulary are checked by
type, all others are kept where they stood (request, message, part, tool, tool call), so that a request
of this dialect comes out as it went in. What the gateway does not act on is the provider's to refuse.
No stream enters; see `penstock.wire.openai_chat`.

Source: the OpenAPI document of openai/openai-openapi and the types of openai-python.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

import msgspec

from penstock.types.errors import ClientError
from penstock.types.requests import (
    Extra,
    FilePart,
    GenerationRequest,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    Role,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.bodies import convert, missing, others, read_object

NAME: Final = "openai_chat"
"""The dialect's name in requests, events, logs and settings."""

MAX_CHOICES: Final = 128
"""Choices of one answer: OpenAI's own limit for ``n``."""

_encode = msgspec.json.Encoder().encode
_T = TypeVar("_T")


# --- parse_request ---------------------------------------------------------------------------------


class RequestBody(msgspec.Struct):
    """The fields of a request that have a place in `GenerationRequest`, as they come."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None


class MessageBody(msgspec.Struct):
    """The same of a message."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class _CallBody(msgspec.Struct):
    id: str | None = None
    type: str = "function"
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


class _CalledBody(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _CustomBody(msgspec.Struct):
    name: str
    input: str = ""


class _ToolBody(msgspec.Struct):
    type: str = "function"
    function: dict[str, Any] | None = None


class _FunctionBody(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _TextBody(msgspec.Struct):
    text: str


class _RefusalBody(msgspec.Struct):
    refusal: str


class _ImageBody(msgspec.Struct):
    image_url: str | dict[str, Any]


class _UrlBody(msgspec.Struct):
    url: str
    detail: str | None = None


class _AudioBody(msgspec.Struct):
    data: str
    format: str


_ROLES: Final = frozenset(("system", "developer", "user", "assistant", "tool"))
_STRANGE_ROLES: Final[Mapping[str, Role]] = {"function": "tool"}  # any other strange role stands for a user
_DATA_URL: Final = re.compile(r"data:([a-z]+/[\w.+-]+);base64,([A-Za-z0-9+/=]*)")


def parse_request(body: bytes) -> GenerationRequest:
    """Read a request: strict in what the gateway acts on, tolerant of the rest, which is kept.

    Raises `ClientError` 400 with the field as ``param`` and one of the codes ``invalid_json``,
    ``invalid_type``, ``invalid_value``, ``missing_required_parameter``.
    """
    value = read_object(body)
    given = convert(value, RequestBody, "")
    if not given.model:
        raise missing("model")
    if not given.messages:
        raise ClientError(
            "'messages' must hold at least one message, for example "
            '[{"role": "user", "content": "Hello"}].',
            code="invalid_value",
            param="messages",
        )
    n = 1 if given.n is None else given.n
    if not 1 <= n <= MAX_CHOICES:
        raise ClientError(
            f"'n' must be between 1 and {MAX_CHOICES}, not {n}.", code="invalid_value", param="n"
        )
    extra = _unknown(value, RequestBody)
    options = dict(given.stream_options or {})
    include_usage = options.pop("include_usage", None) is True
    if options:
        extra["stream_options"] = options
    limit = given.max_completion_tokens
    if limit is None:
        limit = given.max_tokens
        if limit is not None:
            extra["max_tokens"] = None  # the name under which the limit came, and is handed on
    elif given.max_tokens is not None:
        extra["max_tokens"] = given.max_tokens
    return GenerationRequest(
        model=given.model,
        messages=tuple(_parse_message(raw, f"messages[{i}]") for i, raw in enumerate(given.messages)),
        dialect=NAME,
        stream=bool(given.stream),
        include_usage=include_usage,
        n=n,
        max_output_tokens=limit,
        temperature=given.temperature,
        top_p=given.top_p,
        stop=(given.stop,) if given.stop and isinstance(given.stop, str) else tuple(given.stop or ()),
        seed=given.seed,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        logprobs=given.logprobs,
        top_logprobs=given.top_logprobs,
        tools=tuple(_parse_tool(raw, f"tools[{i}]") for i, raw in enumerate(given.tools or ())),
        tool_choice=given.tool_choice,
        parallel_tool_calls=given.parallel_tool_calls,
        response_format=given.response_format,
        reasoning_effort=given.reasoning_effort,
        user=given.user,
        store=given.store,
        metadata=given.metadata,
        extra=extra or None,
    )


def _parse_message(raw: dict[str, Any], path: str) -> Message:
    given = convert(raw, MessageBody, path)
    extra = _unknown(raw, MessageBody)
    role = given.role
    if role not in _ROLES:
        extra["role"] = role
        role = _STRANGE_ROLES.get(role, "user")
    content: str | tuple[Part, ...] | None = None
    if isinstance(given.content, str):
        content = given.content
    elif given.content is not None:
        content = tuple(_parse_part(part, f"{path}.content[{i}]") for i, part in enumerate(given.content))
    calls = given.tool_calls or ()
    return Message(
        role=cast("Role", role),
        content=content,
        name=given.name or "",
        tool_calls=tuple(_parse_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(calls)),
        tool_call_id=given.tool_call_id or "",
        extra=extra or None,
    )


def _parse_part(raw: dict[str, Any], path: str) -> Part:
    kind = raw.get("type")
    match kind:
        case "text":
            return TextPart(convert(raw, _TextBody, path).text, others(raw, "type", "text"))
        case "refusal":
            text = convert(raw, _RefusalBody, path).refusal
            return TextPart(text, {**(others(raw, "refusal") or {})})
        case "image_url":
            return _parse_image(raw, path)
        case "input_audio":
            audio = convert(
                _present(raw.get("input_audio"), f"{path}.input_audio"), _AudioBody, f"{path}.input_audio"
            )
            return FilePart(
                data=audio.data,
                media_type=_audio_type(audio.format),
                extra=_nested(raw, "input_audio", ("data", "format")),
            )
        case "file":
            return _parse_file(raw)
        case str():
            return OpaquePart(NAME, raw)
    raise ClientError(
        f"'{path}.type' must name the kind of the part, for example \"text\".",
        code="missing_required_parameter" if kind is None else "invalid_type",
        param=f"{path}.type",
    )


def _parse_image(raw: dict[str, Any], path: str) -> ImagePart:
    image = convert(raw, _ImageBody, path).image_url
    if isinstance(image, str):
        raw = {**raw, "image_url": (image := {"url": image})}
    given = convert(image, _UrlBody, f"{path}.image_url")
    extra = _nested(raw, "image_url", ("url", "detail"))
    if found := _DATA_URL.fullmatch(given.url):
        return ImagePart(data=found[2], media_type=found[1], detail=given.detail or "", extra=extra)
    return ImagePart(url=given.url, detail=given.detail or "", extra=extra)


def _parse_file(raw: dict[str, Any]) -> Part:
    file = raw.get("file")
    if not isinstance(file, dict) or any(
        not isinstance(file.get(key, ""), str) for key in ("file_id", "file_data", "filename")
    ):
        return OpaquePart(NAME, raw)
    data = file.get("file_data", "")
    media_type = ""
    if found := _DATA_URL.fullmatch(data):
        media_type, data = found[1], found[2]
    if media_type.startswith("audio/"):  # would be rendered as `input_audio`
        return OpaquePart(NAME, raw)
    return FilePart(
        id=file.get("file_id", ""),
        data=data,
        media_type=media_type,
        name=file.get("filename", ""),
        extra=_nested(raw, "file", ("file_id", "file_data", "filename")),
    )


def _parse_call(raw: dict[str, Any], path: str) -> ToolCall:
    given = convert(raw, _CallBody, path)
    extra = others(raw, "id", "type", "function", "custom") or {}
    if given.type == "function":
        called = convert(_present(given.function, f"{path}.function"), _CalledBody, f"{path}.function")
        arguments = called.arguments
        if isinstance(arguments, dict):
            arguments = _encode(arguments).decode()
        if more := others(raw["function"], "name", "arguments"):
            extra["function"] = more
        return ToolCall(given.id or "", called.name, arguments or "", extra=extra or None)
    if given.type == "custom" and given.custom is not None:
        custom = convert(given.custom, _CustomBody, f"{path}.custom")
        if more := others(given.custom, "name", "input"):
            extra["custom"] = more
        return ToolCall(given.id or "", custom.name, custom.input, "custom", extra or None)
    return ToolCall(given.id or "", "", "", given.type, others(raw, "id", "type"))


def _parse_tool(raw: dict[str, Any], path: str) -> Tool:
    given = convert(raw, _ToolBody, path)
    if given.type != "function":  # `custom`, `web_search` and what may come: only its owner reads it
        own = raw.get(given.type)
        name = own.get("name") if isinstance(own, dict) else None
        return Tool(name if isinstance(name, str) else "", kind=given.type, extra=others(raw, "type"))
    function = convert(_present(given.function, f"{path}.function"), _FunctionBody, f"{path}.function")
    extra = others(raw, "type", "function") or {}
    if more := _unknown(raw["function"], _FunctionBody):
        extra["function"] = more
    return Tool(
        function.name,
        function.description or "",
        function.parameters,
        function.strict,
        extra=extra or None,
    )


def _present(value: _T | None, param: str) -> _T:
    if value is None:
        raise missing(param)
    return value


def _unknown(raw: Mapping[str, Any], kind: type[msgspec.Struct]) -> Extra:
    """Return what ``kind`` has no field for, and what it has but in a form that means "not given":
    null, and the empty string or array. It is rendered again unless the request gets a value."""
    known = frozenset(kind.__struct_fields__)
    return {
        key: value for key, value in raw.items() if key not in known or value is None or value in ("", [])
    }


def _nested(raw: Mapping[str, Any], place: str, known: tuple[str, ...]) -> Extra | None:
    """Return the unknown fields of a part and, under ``place``, of the object inside it."""
    extra = others(raw, "type", place) or {}
    if inner := {k: v for k, v in raw[place].items() if k not in known or v is None or v == ""}:
        extra[place] = inner
    return extra or None


def _audio_type(name: str) -> str:
    return "audio/mpeg" if name == "mp3" else f"audio/{name}"


def _audio_format(media_type: str) -> str:
    return "mp3" if media_type == "audio/mpeg" else media_type.removeprefix("audio/")


# --- render_request --------------------------------------------------------------------------------

_PLAIN_FIELDS: Final = (
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "user",
    "store",
    "metadata",
)


def render_request(request: GenerationRequest, model: str) -> bytes:
    """Render for ``model``; see `rendered`."""
    return _encode(rendered(request, model))


def rendered(request: GenerationRequest, model: str) -> Extra:
    """Return the request for ``model``, streaming and with usage.

    The output limit is called ``max_completion_tokens`` unless the client called it ``max_tokens``,
    which ``extra`` notes as ``{"max_tokens": None}``: providers that only know the old name can add
    that note.
    """
    same = request.dialect == NAME
    extra = dict(request.extra or {}) if same else {}
    out: dict[str, Any] = {"model": model, "messages": [_render_message(m, same) for m in request.messages]}
    options = extra.pop("stream_options", None)
    limit = request.max_output_tokens
    if limit is not None:
        by_old_name = "max_tokens" in extra and extra["max_tokens"] is None
        out["max_tokens" if by_old_name else "max_completion_tokens"] = limit
    if request.n != 1:
        out["n"] = request.n
    if request.stop:
        out["stop"] = request.stop
    if request.tools:
        out["tools"] = [_render_tool(tool, same) for tool in request.tools]
    for name in _PLAIN_FIELDS:
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    out["stream"] = True
    out["stream_options"] = {**(options or {}), "include_usage": True}
    return {**extra, **out}


def _render_message(message: Message, same: bool) -> Extra:
    extra = message.extra if same and message.extra else {}
    out: Extra = {"role": message.role}
    if message.content is not None:
        if isinstance(message.content, str):
            out["content"] = message.content
        else:
            parts = (_render_part(part, same) for part in message.content)
            out["content"] = [part for part in parts if part is not None]
    if message.name:
        out["name"] = message.name
    if message.tool_calls:
        out["tool_calls"] = [_render_call(call, same) for call in message.tool_calls]
        out.setdefault("content", None)
        if same and "content" not in extra and message.content is None:
            del out["content"]
    if message.tool_call_id:
        out["tool_call_id"] = message.tool_call_id
    if "role" in extra:
        out["role"] = extra["role"]
    return {**extra, **out}


def _render_part(part: Part, same: bool) -> Extra | None:
    if isinstance(part, OpaquePart):
        return part.data if part.dialect == NAME else None
    extra = part.extra if same and part.extra else {}
    if isinstance(part, TextPart):
        if extra.get("type") == "refusal":
            return {**extra, "refusal": part.text}
        return {**extra, "type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        image: Extra = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
        if part.detail:
            image["detail"] = part.detail
        return _with_inner(extra, "image_url", image)
    if part.media_type.startswith("audio/") and not part.id:
        audio = {"data": part.data, "format": _audio_format(part.media_type)}
        return _with_inner(extra, "input_audio", audio)
    file: Extra = {}
    if part.id:
        file["file_id"] = part.id
    if part.media_type and part.data:
        file["file_data"] = f"data:{part.media_type};base64,{part.data}"
    elif part.data or part.url:
        file["file_data"] = part.data or part.url
    if part.name:
        file["filename"] = part.name
    return _with_inner(extra, "file", file)


def _with_inner(extra: Extra, kind: str, inner: Extra) -> Extra:
    """Return the part ``kind`` with its object, unknown fields of both merged in."""
    return {**extra, "type": kind, kind: {**extra.get(kind, {}), **inner}}


def _render_call(call: ToolCall, same: bool) -> Extra:
    extra = call.extra if same and call.extra else {}
    out: Extra = {**extra, "type": call.kind}
    if call.id:
        out["id"] = call.id
    if call.kind == "function":
        inner: Extra = {"name": call.name, "arguments": call.arguments}
        out["function"] = {**extra.get("function", {}), **inner}
    elif call.kind == "custom" and call.name:
        out["custom"] = {**extra.get("custom", {}), "name": call.name, "input": call.arguments}
    return out


def _render_tool(tool: Tool, same: bool) -> Extra:
    extra = tool.extra if same and tool.extra else {}
    out: Extra = {**extra, "type": tool.kind}
    if tool.kind == "function":
        inner: Extra = {**extra.get("function", {}), "name": tool.name}
        if tool.description:
            inner["description"] = tool.description
        if tool.parameters is not None:
            inner["parameters"] = tool.parameters
        if tool.strict is not None:
            inner["strict"] = tool.strict
        out["function"] = inner
    return out
