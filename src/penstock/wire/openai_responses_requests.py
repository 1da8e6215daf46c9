"""OpenAI Responses, the request half: client bytes → `GenerationRequest` → provider bytes.

Strategy: input items find their places in the vocabulary: what the model said, thought and called between
two turns of others is one message. Each message notes the items that it was made of, so that a request
of this dialect comes out as it went in, and so do all fields that have no place. A request that goes on
from an earlier response is read with that conversation before its own input (`Asked.request`); where that
is kept is not known here. No stream enters; see `penstock.wire.openai_responses`.

Places in ``extra`` that only this dialect writes: of a message ``items`` (as they came) and
``instructions`` (it is no item), of the request its unknown fields, and what the fields ``reasoning``,
``text``, ``tool_choice`` and ``include`` say beyond their canonical part, as they came.

Source: the OpenAPI document of openai/openai-openapi and the types of openai-python.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

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
from penstock.wire.bodies import check_metadata, convert, missing, others, read_object, refused, unknown

NAME: Final = "openai_responses"
"""The dialect's name in requests, events, logs and settings."""

Item: TypeAlias = Extra
"""One item of an input or of an output, as JSON has it."""

MAX_TOP_LOGPROBS: Final = 20

_encode = msgspec.json.Encoder().encode


# --- parse_request ---------------------------------------------------------------------------------


class ResponsesBody(msgspec.Struct):
    """The fields of a request that have a place here, as they come."""

    model: str
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None


class ItemBody(msgspec.Struct):
    """A message among the input items."""

    role: str
    content: str | list[dict[str, Any]]


class _CallBody(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class _CustomBody(msgspec.Struct):
    call_id: str
    name: str
    input: str


class _OutputBody(msgspec.Struct):
    call_id: str
    output: str | list[dict[str, Any]]


class _TextBody(msgspec.Struct):
    text: str


class _RefusalBody(msgspec.Struct):
    refusal: str


class _ImageBody(msgspec.Struct):
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None


class _FileBody(msgspec.Struct):
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class _ToolBody(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


ITEM_ROLES: Final = ("system", "developer", "user", "assistant")

LOGPROBS: Final = "message.output_text.logprobs"
"""What stands in ``include`` where log probabilities are wanted."""

ECHOED: Final = (
    *("instructions", "previous_response_id", "max_output_tokens", "max_tool_calls", "temperature", "top_p"),
    *("top_logprobs", "reasoning", "text", "tools", "tool_choice", "parallel_tool_calls", "truncation"),
    *("metadata", "user", "background", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
)
"""Fields of a request that its response repeats."""

_DATA_URL: Final = re.compile(r"data:([a-z]+/[\w.+-]+);base64,([A-Za-z0-9+/=]*)")


class Asked(NamedTuple):
    """A request that has been read, but not together with what it goes on from."""

    given: ResponsesBody
    items: Sequence[Item]
    value: Extra

    @property
    def previous(self) -> str:
        """The id of the response that it goes on from; empty for none."""
        return self.given.previous_response_id or ""

    @property
    def echo(self) -> Extra:
        """What its response repeats of it."""
        return {name: self.value[name] for name in ECHOED if self.value.get(name) is not None}

    def request(self, items: Sequence[Item] | None = None) -> GenerationRequest:
        """Return the request, whose whole conversation is ``items``; its own input where none are given.

        Raises `ClientError` 400 with the field as ``param``.
        """
        return _build(self.given, self.items if items is None else items, self.value)


def read_request(body: bytes) -> Asked:
    """Read a request's fields. Raises `ClientError` 400 with the field as ``param``."""
    value = read_object(body)
    given = convert(value, ResponsesBody, "")
    if not given.model:
        raise missing("model")
    if given.input is None or given.input == []:
        raise missing("input")
    if given.background and given.store is False:
        raise refused("A response in the background is stored: 'store' must not be false.", "store")
    if given.top_logprobs is not None and not 0 <= given.top_logprobs <= MAX_TOP_LOGPROBS:
        raise refused(f"'top_logprobs' must be between 0 and {MAX_TOP_LOGPROBS}.", "top_logprobs")
    check_metadata(given.metadata)
    if value.get("conversation") is not None:
        raise refused(
            "Conversations are not kept here: send the input items, or 'previous_response_id'.",
            "conversation",
        )
    items = given.input if isinstance(given.input, list) else [{"role": "user", "content": given.input}]
    return Asked(given, items, value)


def parse_request(body: bytes) -> GenerationRequest:
    """Read a request that stands for itself. Raises `ClientError` 400 with the field as ``param``."""
    asked = read_request(body)
    if asked.previous:
        raise refused(
            "Only POST /v1/responses knows earlier responses: send their items as 'input' instead.",
            "previous_response_id",
        )
    return asked.request()


def _build(given: ResponsesBody, items: Sequence[Item], value: Extra) -> GenerationRequest:
    extra = unknown(value, ResponsesBody)
    for name in ("reasoning", "text", "tool_choice", "include"):
        if value.get(name) is not None:
            extra[name] = value[name]
    messages = [*_messages(items)]
    if given.instructions:
        messages.insert(0, Message("system", given.instructions, extra={"instructions": True}))
    effort = (given.reasoning or {}).get("effort")
    logprobs = LOGPROBS in (given.include or ()) or bool(given.top_logprobs)
    return GenerationRequest(
        model=given.model,
        messages=tuple(messages),
        dialect=NAME,
        stream=bool(given.stream),
        include_usage=True,
        max_output_tokens=given.max_output_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        logprobs=True if logprobs else None,
        top_logprobs=given.top_logprobs,
        tools=tuple(_parse_tool(raw, f"tools[{i}]") for i, raw in enumerate(given.tools or ())),
        tool_choice=_parse_choice(given.tool_choice),
        parallel_tool_calls=given.parallel_tool_calls,
        response_format=_parse_format(given.text),
        reasoning_effort=effort if isinstance(effort, str) else None,
        user=given.user,
        store=given.store,
        metadata=given.metadata,
        extra=extra or None,
    )


# --- input items -----------------------------------------------------------------------------------


class _Turn:
    """What the model said, thought and called, as far as it is one message."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.content: tuple[Part, ...] | str | None = None
        self.calls: list[ToolCall] = []
        self.thoughts: list[str] = []

    def message(self) -> Message:
        extra: Extra = {"items": self.items}
        if self.thoughts:
            extra["reasoning_content"] = "\n\n".join(self.thoughts)
        return Message("assistant", self.content, tool_calls=tuple(self.calls), extra=extra)


def _messages(items: Sequence[Item]) -> Sequence[Message]:
    """Return the messages of ``items``: those of the model joined, up to the next of anybody else."""
    messages: list[Message] = []
    turn = _Turn()

    def end() -> None:
        nonlocal turn
        if turn.items:
            messages.append(turn.message())
            turn = _Turn()

    for number, item in enumerate(items):
        path = f"input[{number}]"
        kind = item.get("type", "message")
        match kind:
            case "message":
                message = _parse_message(item, path)
                if message.role != "assistant":
                    end()
                    messages.append(message)
                    continue
                if turn.content is not None or turn.calls:
                    end()
                turn.content = message.content
            case "function_call":
                call = convert(item, _CallBody, path)
                turn.calls.append(ToolCall(call.call_id, call.name, call.arguments))
            case "custom_tool_call":
                custom = convert(item, _CustomBody, path)
                turn.calls.append(ToolCall(custom.call_id, custom.name, custom.input, "custom"))
            case "function_call_output" | "custom_tool_call_output":
                end()
                messages.append(_parse_output(item, path))
                continue
            case "reasoning":
                if turn.content is not None and not turn.calls:  # of the turn after
                    end()
                turn.thoughts += _thoughts(item)
            case str():
                if kind.endswith("_output") or kind == "item_reference":
                    end()
                    role: Role = "user" if kind == "item_reference" else "tool"
                    messages.append(Message(role, (OpaquePart(NAME, item),), extra={"items": [item]}))
                    continue
                if not isinstance(turn.content, tuple):
                    turn.content = (TextPart(turn.content),) if turn.content else ()
                turn.content = (*turn.content, OpaquePart(NAME, item))
            case _:
                raise _untyped(f"{path}.type", "message")
        turn.items.append(item)
    end()
    return messages


def _parse_message(item: Item, path: str) -> Message:
    given = convert(item, ItemBody, path)
    if given.role not in ITEM_ROLES:
        raise refused(f"'{path}.role' must be one of {', '.join(ITEM_ROLES)}.", f"{path}.role")
    role = cast("Role", given.role)
    return Message(role, _content(given.content, f"{path}.content"), extra={"items": [item]})


def _parse_output(item: Item, path: str) -> Message:
    given = convert(item, _OutputBody, path)
    content = _content(given.output, f"{path}.output")
    return Message("tool", content, tool_call_id=given.call_id, extra={"items": [item]})


def _content(content: str | list[dict[str, Any]], path: str) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    parts = tuple(_parse_part(part, f"{path}[{number}]") for number, part in enumerate(content))
    match parts:
        case (TextPart(text=text, extra=None),):
            return text
    return parts


def _parse_part(raw: Extra, path: str) -> Part:
    kind = raw.get("type")
    match kind:
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
            return TextPart(convert(raw, _TextBody, path).text)
        case "refusal":
            return TextPart(convert(raw, _RefusalBody, path).refusal, {"type": "refusal"})
        case "input_image":
            return _parse_image(raw, path)
        case "input_file":
            file = convert(raw, _FileBody, path)
            data, media_type = file.file_data or "", ""
            if found := _DATA_URL.fullmatch(data):
                media_type, data = found[1], found[2]
            return FilePart(file.file_id or "", file.file_url or "", data, media_type, file.filename or "")
        case str():
            return OpaquePart(NAME, raw)
    raise _untyped(f"{path}.type", "input_text")


def _parse_image(raw: Extra, path: str) -> Part:
    image = convert(raw, _ImageBody, path)
    if image.image_url is None:
        if image.file_id is None:
            raise missing(f"{path}.image_url")
        return OpaquePart(NAME, raw)
    if found := _DATA_URL.fullmatch(image.image_url):
        return ImagePart(data=found[2], media_type=found[1], detail=image.detail or "")
    return ImagePart(image.image_url, detail=image.detail or "")


def _thoughts(item: Item) -> list[str]:
    """Return the texts of a reasoning item: what was thought, else its summary."""
    for place in ("content", "summary"):
        parts = item.get(place)
        texts = (
            [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        )
        if found := [text for text in texts if isinstance(text, str) and text]:
            return found
    return []


def _untyped(param: str, example: str) -> ClientError:
    return ClientError(
        f"'{param}' must name the kind, for example \"{example}\".",
        code="missing_required_parameter",
        param=param,
    )


# --- tools, formats --------------------------------------------------------------------------------


def _parse_tool(raw: Extra, path: str) -> Tool:
    """Read a function; tools of other kinds are kept whole."""
    kind = raw.get("type")
    if not isinstance(kind, str):
        raise _untyped(f"{path}.type", "function")
    if kind != "function":
        name = raw.get("name")
        return Tool(name if isinstance(name, str) else "", kind=kind, extra=others(raw, "type"))
    given = convert(raw, _ToolBody, path)
    more = {name: value for name, value in unknown(raw, _ToolBody).items() if name != "type"}
    return Tool(given.name, given.description or "", given.parameters, given.strict, extra=more or None)


def _parse_choice(choice: Any) -> Any:
    """Return ``tool_choice`` in its canonical form, which is that of Chat Completions."""
    match choice:
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "custom", "name": str(name)}:
            return {"type": "custom", "custom": {"name": name}}
        case {"type": "allowed_tools", "tools": list(tools)}:
            allowed = {"mode": choice.get("mode", "auto"), "tools": [_parse_choice(tool) for tool in tools]}
            return {"type": "allowed_tools", "allowed_tools": allowed}
    return choice


def _parse_format(text: Mapping[str, Any] | None) -> Extra | None:
    match (text or {}).get("format"):
        case {"type": "json_schema", "schema": dict(), **more}:
            inner = {
                name: more[name] for name in ("name", "description", "strict") if more.get(name) is not None
            }
            schema = cast("Mapping[str, Any]", text)["format"]["schema"]
            return {"type": "json_schema", "json_schema": {"name": "answer", **inner, "schema": schema}}
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case {"type": "text"} | None:
            return None
        case dict(other):
            told = str(other.get("type"))[:50]
            raise refused(
                f"'text.format.type' must be text, json_object or json_schema, not '{told}'.", "text.format"
            )
    raise refused("'text.format' must be an object.", "text.format")


# --- render_request --------------------------------------------------------------------------------

_PLAIN_FIELDS: Final = (
    "temperature",
    "top_p",
    "top_logprobs",
    "parallel_tool_calls",
    "user",
    "store",
    "metadata",
)


def render_request(request: GenerationRequest, model: str) -> bytes:
    """Render for ``model``, streaming. Raises `ClientError` for what this format cannot say."""
    same = request.dialect == NAME
    extra = dict(request.extra or {}) if same else {}
    if request.n != 1:
        raise refused(f"Responses give one answer to a request: 'n' must be 1, not {request.n}.", "n")
    for name in ("stop", "seed", "presence_penalty", "frequency_penalty"):
        if getattr(request, name):
            raise refused(f"Responses know no '{name}'.", name)
    messages = request.messages
    out: Extra = {"model": model}
    if messages and "instructions" in (messages[0].extra or {}):
        out["instructions"] = messages[0].content
        messages = messages[1:]
    out["input"] = [
        item
        for number, message in enumerate(messages)
        for item in _render_message(message, f"messages[{number}]", same)
    ]
    if request.max_output_tokens is not None:
        out["max_output_tokens"] = request.max_output_tokens
    for name in _PLAIN_FIELDS:
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    if request.tools:
        out["tools"] = [_render_tool(tool, f"tools[{i}]", same) for i, tool in enumerate(request.tools)]
    if not same:
        out.setdefault("store", False)  # as is usual in all other dialects
        _render_wishes(request, out)
    out["stream"] = True
    return _encode({**extra, **out})


def _render_wishes(request: GenerationRequest, out: Extra) -> None:
    """Say in this format's way what a client of another dialect wants."""
    if request.reasoning_effort is not None:
        out["reasoning"] = {"effort": request.reasoning_effort, "summary": "auto"}
    if request.logprobs:
        out["include"] = [LOGPROBS]
    match request.response_format:
        case {"type": "json_schema", "json_schema": dict(schema)}:
            out["text"] = {"format": {"type": "json_schema", "name": "answer", **schema}}
        case {"type": str(kind)} if kind != "text":
            out["text"] = {"format": {"type": kind}}
    if request.tools and request.tool_choice is not None:
        out["tool_choice"] = _render_choice(request.tool_choice)


def _render_choice(choice: Any) -> Any:
    match choice:
        case "any":
            return "required"
        case {"function": {"name": str(name)}}:
            return {"type": "function", "name": name}
        case {"custom": {"name": str(name)}}:
            return {"type": "custom", "name": name}
        case {"allowed_tools": {"tools": list(tools), **more}}:
            mode = more.get("mode", "auto")
            return {"type": "allowed_tools", "mode": mode, "tools": [_render_choice(tool) for tool in tools]}
    return choice


def _render_tool(tool: Tool, path: str, same: bool) -> Extra:
    extra = tool.extra if same and tool.extra else {}
    if tool.kind == "custom" and not same:
        return {"type": "custom", **((tool.extra or {}).get("custom") or {})}
    if tool.kind != "function":
        if not same:
            raise refused(f"Responses know no tools of type '{tool.kind[:50]}'.", f"{path}.type")
        return {"type": tool.kind, **extra}
    out: Extra = {**extra, "type": "function", "name": tool.name}
    if tool.description:
        out["description"] = tool.description
    if tool.parameters is not None or not same:
        out["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None or not same:
        out["strict"] = bool(tool.strict)
    return out


def _render_message(message: Message, path: str, same: bool) -> list[Item]:
    if same and isinstance(items := (message.extra or {}).get("items"), list):
        return items
    parts = message.content
    if message.role == "tool":
        output: Any = parts or ""
        if not isinstance(output, str):
            output = [_render_part(part, f"{path}.content[{i}]", "input") for i, part in enumerate(output)]
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": output}]
    found: list[Item] = []
    if parts:
        side = "output" if message.role == "assistant" else "input"
        content: Any = parts
        if not isinstance(parts, str):
            content = [_render_part(part, f"{path}.content[{i}]", side) for i, part in enumerate(parts)]
        found.append({"type": "message", "role": message.role, "content": content})
    for call in message.tool_calls:
        if call.kind == "custom":
            found.append(
                {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments}
            )
        else:
            found.append(
                {
                    "type": "function_call",
                    "call_id": call.id,
                    "name": call.name,
                    "arguments": call.arguments or "{}",
                }
            )
    return found


def _render_part(part: Part, path: str, side: str) -> Extra:
    match part:
        case TextPart(text=text, extra=extra):
            if side == "output" and (extra or {}).get("type") == "refusal":
                return {"type": "refusal", "refusal": text}
            return {"type": f"{side}_text", "text": text}
        case ImagePart() if side == "input":
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
        case FilePart(id=id_) if side == "input" and id_:
            return {"type": "input_file", "file_id": id_}
        case FilePart(url=url) if side == "input" and url:
            return {"type": "input_file", "file_url": url}
        case FilePart(data=data, media_type=kind, name=name) if side == "input" and not kind.startswith(
            "audio/"
        ):
            data = f"data:{kind};base64,{data}" if kind else data
            return {"type": "input_file", "filename": name or "file", "file_data": data}
    raise refused("Responses take text, images and files, and no other parts.", path)
