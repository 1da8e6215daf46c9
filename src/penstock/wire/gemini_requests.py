"""Gemini, the request half: client bytes → `GenerationRequest` → provider bytes.

Strategy: contents find their places in the vocabulary, and what they looked like is noted with the first
message that was made of each, so that a request of this dialect comes out as it went in. Calls without
ids get some here, and results find theirs by name and order, since other providers want them. Google reads
field names in camel and in snake case, and so does this. The model and whether it streams stand in the
URL, and are given. No stream enters; see `penstock.wire.gemini`.

Places in ``extra`` that only this dialect writes: of a message ``content`` (as it came; None where it is part
of the one before), of a tool ``declaration`` and ``tool`` (as they came) and ``at`` (its place), of the
request its unknown fields, ``generationConfig`` (what has no canonical field) and ``toolConfig``.

Sources: types of google-genai (3.4); ai.google.dev on generateContent.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

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
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.anthropic_conversation import parts_of, read_arguments
from penstock.wire.anthropic_models import BUDGETS, effort_of
from penstock.wire.bodies import convert, missing, read_object, refused

NAME: Final = "gemini"
"""The dialect's name in requests, events, logs and settings."""

MAX_CANDIDATES: Final = 128

_encode = msgspec.json.Encoder().encode

_SNAKE: Final = re.compile(r"_([a-z])")


def _camel(value: Mapping[str, Any]) -> Extra:
    """Return an object with its own field names in camel case."""
    return {_SNAKE.sub(lambda found: found[1].upper(), name): inner for name, inner in value.items()}


# --- parse_request ---------------------------------------------------------------------------------


class GenerateBody(msgspec.Struct):
    """The fields of a request that have a place here, as they come."""

    contents: list[dict[str, Any]] | dict[str, Any] | str
    systemInstruction: dict[str, Any] | str | None = None
    tools: list[dict[str, Any]] | None = None
    toolConfig: dict[str, Any] | None = None
    generationConfig: dict[str, Any] | None = None


class _ConfigBody(msgspec.Struct):
    temperature: float | None = None
    topP: float | None = None
    topK: float | None = None
    maxOutputTokens: int | None = None
    candidateCount: int | None = None
    stopSequences: list[str] | None = None
    seed: int | None = None
    presencePenalty: float | None = None
    frequencyPenalty: float | None = None
    responseLogprobs: bool | None = None
    logprobs: int | None = None


class _ContentBody(msgspec.Struct):
    parts: list[dict[str, Any]]
    role: str | None = None


class _BlobBody(msgspec.Struct):
    data: str
    mimeType: str


class _FileBody(msgspec.Struct):
    fileUri: str
    mimeType: str | None = None


class _CallBody(msgspec.Struct):
    name: str
    args: dict[str, Any] | None = None
    id: str | None = None


class _ResultBody(msgspec.Struct):
    name: str
    response: dict[str, Any] | None = None
    id: str | None = None


class _FunctionBody(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parametersJsonSchema: dict[str, Any] | None = None


_PLAIN: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "topP": "top_p",
    "maxOutputTokens": "max_output_tokens",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
"""Fields of ``generationConfig`` and their canonical names."""

_OWN: Final = frozenset((*_PLAIN, "topK", "candidateCount", "stopSequences"))

THOUGHTS: Final = "includeThoughts"


def parse_request(body: bytes, model: str = "", *, stream: bool = False) -> GenerationRequest:
    """Read a request for ``model``; where that is empty, it must stand in the body.

    Raises `ClientError` 400 with the field as ``param``.
    """
    value = _camel(read_object(body))
    named = value.pop("model", None)
    model = model or (named.removeprefix("models/") if isinstance(named, str) else "")
    if not model:
        raise missing("model")
    given = convert(value, GenerateBody, "")
    if isinstance(given.contents, str):
        contents: Sequence[Extra] = [{"role": "user", "parts": [{"text": given.contents}]}]
    else:
        contents = [given.contents] if isinstance(given.contents, dict) else given.contents
    if not contents:
        raise refused(
            '\'contents\' must hold at least one, for example [{"parts": [{"text": …}]}].', "contents"
        )
    raw_config = _camel(given.generationConfig or {})
    config = convert(raw_config, _ConfigBody, "generationConfig")
    n = 1 if config.candidateCount is None else config.candidateCount
    if not 1 <= n <= MAX_CANDIDATES:
        where = "generationConfig.candidateCount"
        raise refused(f"'{where}' must be between 1 and {MAX_CANDIDATES}.", where)
    extra: Extra = {k: v for k, v in value.items() if k not in GenerateBody.__struct_fields__}
    if rest := {k: v for k, v in raw_config.items() if k not in _OWN and v is not None}:
        extra["generationConfig"] = rest
    if config.topK is not None:
        extra["top_k"] = int(config.topK) if config.topK.is_integer() else config.topK
    choice = None
    if given.toolConfig is not None:
        extra["toolConfig"] = given.toolConfig
        choice = _parse_choice(_camel(given.toolConfig))
    messages = [*_parse_system(given.systemInstruction), *_Conversation(contents).messages]
    return GenerationRequest(
        model=model,
        messages=tuple(messages),
        dialect=NAME,
        stream=stream,
        include_usage=True,
        n=n,
        stop=tuple(config.stopSequences or ()),
        tools=tuple(_parse_tools(given.tools or ())),
        tool_choice=choice,
        response_format=_parse_format(raw_config),
        reasoning_effort=_parse_thinking(raw_config.get("thinkingConfig")),
        extra=extra or None,
        **{name: getattr(config, field) for field, name in _PLAIN.items()},
    )


def parse_count(body: bytes, model: str) -> GenerationRequest:
    """Read the question how many tokens a request has. Raises `ClientError`."""
    value = _camel(read_object(body))
    inner = value.get("generateContentRequest")
    return parse_request(_encode(inner) if isinstance(inner, dict) else body, model)


def wants_thoughts(request: GenerationRequest) -> bool:
    """Say whether the client of a request of this dialect asked to see what the model thinks."""
    thinking = ((request.extra or {}).get("generationConfig") or {}).get("thinkingConfig")
    return isinstance(thinking, dict) and _camel(thinking).get(THOUGHTS) is True


def _parse_system(instruction: Extra | str | None) -> Iterable[Message]:
    if isinstance(instruction, str):
        instruction = {"parts": [{"text": instruction}]}
    if instruction:
        content = convert(instruction, _ContentBody, "systemInstruction")
        parts = [_parse_part(p, f"systemInstruction.parts[{i}]") for i, p in enumerate(content.parts)]
        yield Message("system", _plain(parts), extra={"content": instruction})


def _plain(parts: Sequence[Part]) -> str | tuple[Part, ...]:
    """Return the text that is all there is, else the parts."""
    match parts:
        case [TextPart(text=text, extra=None)]:
            return text
    return tuple(parts)


class _Conversation:
    """Contents as messages. Calls and their results get the ids by which other providers know them."""

    def __init__(self, contents: Sequence[Extra]) -> None:
        self.messages: list[Message] = []
        self._calls: list[tuple[str, str]] = []  # names and ids of calls without a result so far
        for number, raw in enumerate(contents):
            path = f"contents[{number}]"
            content = convert(raw, _ContentBody, path)
            made = len(self.messages)
            parts = [(_camel(part), f"{path}.parts[{i}]") for i, part in enumerate(content.parts)]
            if content.role == "model":
                self._model(parts, number)
            else:
                self._others(parts, number)
            for at in range(made, len(self.messages)):
                message = self.messages[at]
                own = {**(message.extra or {}), "content": raw if at == made else None}
                self.messages[at] = msgspec.structs.replace(message, extra=own)

    def _model(self, parts: Sequence[tuple[Extra, str]], number: int) -> None:
        said: list[Part] = []
        calls: list[ToolCall] = []
        thoughts: list[str] = []
        for part, path in parts:
            if "functionCall" in part:
                call = convert(part["functionCall"], _CallBody, f"{path}.functionCall")
                id_ = call.id or f"call_{number}_{len(calls)}"
                calls.append(ToolCall(id_, call.name, _encode(call.args or {}).decode()))
                self._calls.append((call.name, id_))
            elif part.get("thought") is True:
                if isinstance(text := part.get("text"), str):
                    thoughts.append(text)
            else:
                said.append(_parse_part(part, path))
        extra = {"reasoning_content": "".join(thoughts)} if thoughts else None
        content = _plain(said) if said or not calls else None
        self.messages.append(Message("assistant", content, tool_calls=tuple(calls), extra=extra))

    def _others(self, parts: Sequence[tuple[Extra, str]], number: int) -> None:
        said: list[Part] = []
        results = 0
        for part, path in parts:
            if "functionResponse" not in part:
                said.append(_parse_part(part, path))
                continue
            if said:
                self.messages.append(Message("user", _plain(said)))
                said = []
            result = convert(part["functionResponse"], _ResultBody, f"{path}.functionResponse")
            id_ = result.id or self._id_of(result.name) or f"call_{number}_{results}"
            self._calls = [call for call in self._calls if call[1] != id_]
            results += 1
            self.messages.append(
                Message("tool", _result_text(result.response or {}), name=result.name, tool_call_id=id_)
            )
        if said or not results:
            self.messages.append(Message("user", _plain(said)))

    def _id_of(self, name: str) -> str:
        return next((id_ for called, id_ in self._calls if called == name), "")


def _result_text(response: Extra) -> str:
    """Return a result as a text: what stands in it alone, as Google's own SDKs wrap it, or its JSON."""
    match response:
        case {"result": str(text), **rest} | {"output": str(text), **rest} if not rest:
            return text
    return _encode(response).decode()


def _parse_part(raw: Extra, path: str) -> Part:
    part = _camel(raw)
    match part:
        case {"text": text}:
            if not isinstance(text, str):
                raise ClientError(
                    f"'{path}.text' must be a string.", code="invalid_type", param=f"{path}.text"
                )
            return TextPart(text)
        case {"inlineData": dict(blob)}:
            given = convert(_camel(blob), _BlobBody, f"{path}.inlineData")
            if given.mimeType.startswith("image/"):
                return ImagePart(data=given.data, media_type=given.mimeType)
            return FilePart(data=given.data, media_type=given.mimeType)
        case {"fileData": dict(file)}:
            found = convert(_camel(file), _FileBody, f"{path}.fileData")
            kind = found.mimeType or ""
            if kind.startswith("image/"):
                return ImagePart(found.fileUri, media_type=kind)
            return FilePart(url=found.fileUri, media_type=kind)
    if not part:
        raise refused(f"'{path}' must hold something, for example a 'text'.", path)
    return OpaquePart(NAME, raw)


# --- tools, formats, thinking ----------------------------------------------------------------------


def _parse_tools(tools: Sequence[Extra]) -> Iterable[Tool]:
    for at, raw in enumerate(tools):
        tool = _camel(raw)
        declared = tool.pop("functionDeclarations", None)
        if declared is None:
            declared = []
        if not isinstance(declared, list):
            path = f"tools[{at}].functionDeclarations"
            raise ClientError(f"'{path}' must be an array.", code="invalid_type", param=path)
        for number, function in enumerate(declared):
            path = f"tools[{at}].functionDeclarations[{number}]"
            found = convert(_camel(function) if isinstance(function, dict) else function, _FunctionBody, path)
            schema = found.parametersJsonSchema or json_schema(found.parameters)
            own = {"at": at, "declaration": function}
            yield Tool(found.name, found.description or "", cast("Extra | None", schema), extra=own)
        for kind, settings in tool.items():
            yield Tool("", kind=kind, extra={"at": at, "tool": {kind: settings}})


def json_schema(schema: Any) -> Any:
    """Return a schema of Google's as JSON Schema: types in lower case, ``nullable`` among them."""
    if isinstance(schema, list):
        return [json_schema(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    out: Extra = {}
    for name, value in schema.items():
        match name:
            case "type" if isinstance(value, str):
                out["type"] = value.lower()
            case "nullable" | "propertyOrdering":
                pass
            case "properties" if isinstance(value, dict):
                out[name] = {key: json_schema(inner) for key, inner in value.items()}
            case "items" | "anyOf" | "additionalProperties" | "not" | "allOf" | "oneOf":
                out[name] = json_schema(value)
            case "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties":
                out[name] = int(value) if isinstance(value, str) and value.isdecimal() else value
            case _:
                out[name] = value
    if schema.get("nullable") is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out


def _parse_choice(config: Extra) -> Any:
    calling = config.get("functionCallingConfig")
    if not isinstance(calling, dict):
        return None
    calling = _camel(calling)
    named = calling.get("allowedFunctionNames")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    match calling.get("mode"):
        case "NONE":
            return "none"
        case "ANY" if len(names) == 1:
            return {"type": "function", "function": {"name": names[0]}}
        case "ANY" if names:
            tools = [{"type": "function", "function": {"name": name}} for name in names]
            return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
        case "ANY":
            return "required"
        case "AUTO" | "VALIDATED":
            return "auto"
    return None


def _parse_format(config: Extra) -> Extra | None:
    schema = config.get("responseJsonSchema") or config.get("_responseJsonSchema")
    if schema is None and config.get("responseSchema") is not None:
        schema = json_schema(config["responseSchema"])
    if isinstance(schema, dict):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"type": "json_object"} if config.get("responseMimeType") == "application/json" else None


def _parse_thinking(thinking: Any) -> str | None:
    if not isinstance(thinking, dict):
        return None
    thinking = _camel(thinking)
    match thinking:
        case {"thinkingLevel": str(level)}:
            return level.lower()
        case {"thinkingBudget": 0}:
            return "none"
        case {"thinkingBudget": int(budget)} if budget > 0:
            return effort_of(budget)
    return None


# --- render_request --------------------------------------------------------------------------------


def render_request(request: GenerationRequest, model: str) -> bytes:
    """Render the body for ``model``, which stands in the URL, as does whether it streams.

    Raises `ClientError` for what Gemini cannot do.
    """
    same = request.dialect == NAME
    extra = dict(request.extra or {}) if same else {}
    config = dict(extra.pop("generationConfig", None) or {})
    top_k = extra.pop("top_k", (request.extra or {}).get("top_k"))
    out: Extra = {}
    prompts, turns = _render_messages(request.messages, same)
    if prompts is not None:
        out["systemInstruction"] = prompts
    out["contents"] = turns
    if tools := _render_tools(request.tools, same):
        out["tools"] = tools
    for field, name in _PLAIN.items():
        if (value := getattr(request, name)) is not None:
            config[field] = value
    if top_k is not None:
        config["topK"] = top_k
    if request.n != 1:
        config["candidateCount"] = request.n
    if request.stop:
        config["stopSequences"] = request.stop
    if not same:
        _render_wishes(request, config, out)
    if config:
        out["generationConfig"] = config
    return _encode({**extra, **out})


def _render_wishes(request: GenerationRequest, config: Extra, out: Extra) -> None:
    """Say in this format's way what a client of another dialect wants."""
    match request.response_format:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
        case {"type": "json_object"}:
            config["responseMimeType"] = "application/json"
    effort = request.reasoning_effort
    if effort == "none":
        config["thinkingConfig"] = {"thinkingBudget": 0}
    elif effort is not None:
        budget = BUDGETS.get(effort)
        config["thinkingConfig"] = {THOUGHTS: True, **({"thinkingBudget": budget} if budget else {})}
    if request.tools and (calling := _render_choice(request.tool_choice)):
        out["toolConfig"] = {"functionCallingConfig": calling}


def _render_choice(choice: Any) -> Extra | None:
    match choice:
        case None:
            return None
        case "auto":
            return {"mode": "AUTO"}
        case "required" | "any":
            return {"mode": "ANY"}
        case "none":
            return {"mode": "NONE"}
        case {"function": {"name": str(name)}}:
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        case {"allowed_tools": {"tools": list(tools)}}:
            names = [tool["function"]["name"] for tool in tools if isinstance(tool.get("function"), dict)]
            return {"mode": "ANY", "allowedFunctionNames": names}
    raise refused("'tool_choice' must be none, auto, required or the name of a function.", "tool_choice")


def _render_tools(tools: Sequence[Tool], same: bool) -> list[Extra]:
    """Return the tools: functions that stood together together, others as they came."""
    out: list[Extra] = []
    last: Any = None
    for number, tool in enumerate(tools):
        own = tool.extra if same and tool.extra else {}
        at = own.get("at")
        if tool.kind != "function":
            if not same:
                raise refused(f"Gemini knows no tools of type '{tool.kind[:50]}'.", f"tools[{number}].type")
            if out and at == last:
                out[-1] |= own["tool"]
            else:
                out.append(dict(own["tool"]))
            last = at
            continue
        declared = own.get("declaration") or _declaration(tool)
        if out and at == last and "functionDeclarations" in out[-1]:
            out[-1]["functionDeclarations"].append(declared)
        else:
            out.append({"functionDeclarations": [declared]})
        last = at
    return out


def _declaration(tool: Tool) -> Extra:
    declared: Extra = {"name": tool.name}
    if tool.description:
        declared["description"] = tool.description
    if tool.parameters is not None:
        declared["parametersJsonSchema"] = tool.parameters
    return declared


def _render_messages(messages: Sequence[Message], same: bool) -> tuple[Extra | None, list[Extra]]:
    """Return the instructions and the contents: adjacent messages of one role in one."""
    prompts: list[Extra] = []
    turns: list[Extra] = []
    names: dict[str, str] = {}  # of the calls so far: results are told by their tool's name
    for number, message in enumerate(messages):
        own = message.extra if same and message.extra else {}
        names.update((call.id, call.name) for call in message.tool_calls)
        if message.role in ("system", "developer"):
            given = own.get("content")
            prompts.append(given if given else {"parts": _render_parts(message, f"messages[{number}]")})
        elif "content" in own:
            if own["content"] is not None:
                turns.append(own["content"])
        else:
            role = "model" if message.role == "assistant" else "user"
            parts = _render_turn(message, names, f"messages[{number}]")
            if turns and turns[-1].get("role") == role and not same:
                turns[-1]["parts"] += parts
            elif parts:
                turns.append({"role": role, "parts": parts})
    if len(prompts) > 1:
        prompts = [{"parts": [part for prompt in prompts for part in prompt.get("parts", ())]}]
    return (prompts[0] if prompts else None), turns


def _render_turn(message: Message, names: Mapping[str, str], path: str) -> list[Extra]:
    if message.role == "tool":
        name = message.name or names.get(message.tool_call_id) or message.tool_call_id
        text = "\n".join(part.text for part in parts_of(message) if isinstance(part, TextPart))
        return [{"functionResponse": {"name": name, "response": {"result": text}}}]
    parts = _render_parts(message, path)
    for at, call in enumerate(message.tool_calls):
        if call.kind != "function":
            raise refused("Gemini knows calls of functions only.", f"{path}.tool_calls[{at}].type")
        arguments = read_arguments(call, f"{path}.tool_calls[{at}].function.")
        parts.append({"functionCall": {"name": call.name, "args": arguments}})
    return parts


def _render_parts(message: Message, path: str) -> list[Extra]:
    out: list[Extra] = []
    for number, part in enumerate(parts_of(message)):
        match part:
            case TextPart(text=text):
                out.append({"text": text})
            case ImagePart(data=data, media_type=kind) | FilePart(data=data, media_type=kind) if (
                data and kind
            ):
                out.append({"inlineData": {"mimeType": kind, "data": data}})
            case ImagePart(url=url, media_type=kind) | FilePart(url=url, media_type=kind) if url:
                out.append({"fileData": {"fileUri": url, **({"mimeType": kind} if kind else {})}})
            case OpaquePart() if message.role == "assistant":
                pass  # of an earlier answer, what only its provider reads
            case _:
                where = f"{path}.content[{number}]"
                raise refused("Gemini takes text, images and files, and no other parts.", where)
    return out
