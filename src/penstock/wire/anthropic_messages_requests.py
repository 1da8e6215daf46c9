"""Anthropic Messages, the request half: client bytes → `GenerationRequest` → provider bytes.

Strategy: each block finds its place in the vocabulary, and where it stood is noted, so that a request of
this dialect comes out as it went in, even when messages were added to it. Requests of other dialects are
brought into the form that Anthropic takes by `penstock.wire.anthropic_conversation`. No stream enters; see
`penstock.wire.anthropic_messages`.

Places in ``extra`` that only this dialect writes: of a message ``turn`` (its number in the request) and
``blocks`` (a text came as a list of one block); of a part ``block`` (as it came); of a tool call ``at``
(its place among the blocks). ``anthropic_version`` and ``anthropic_beta`` are headers here and stand in
the request's ``extra`` under the names that they have in bodies on other clouds.

Source: types of the anthropic SDKs (2.12); platform.claude.com, API reference.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    Role,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.anthropic_conversation import (
    MARK,
    Block,
    Conversation,
    media_block,
    parts_of,
    read_arguments,
    shape,
)
from penstock.wire.anthropic_models import effort_of, manner
from penstock.wire.bodies import convert, missing, others, read_object, refused, unknown

NAME: Final = "anthropic_messages"
"""The dialect's name in requests, events, logs and settings."""

VERSION: Final = "anthropic_version"
BETA: Final = "anthropic_beta"

_encode = msgspec.json.Encoder().encode


class Preferences(msgspec.Struct, frozen=True):
    """What an operator wants of one Anthropic. ``max_tokens``: the limit of an answer whose request has
    none; Anthropic wants one."""

    max_tokens: int = 32_000


DEFAULTS: Final = Preferences()


# --- parse_request ---------------------------------------------------------------------------------


class MessagesBody(msgspec.Struct):
    """The fields of a request that have a place in `GenerationRequest`, as they come."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    stream: bool | None = None
    system: str | list[dict[str, Any]] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class TurnBody(msgspec.Struct):
    """The same of a message."""

    role: str
    content: str | list[dict[str, Any]]


class _TextBody(msgspec.Struct):
    text: str


class _UseBody(msgspec.Struct):
    id: str
    name: str
    input: dict[str, Any]


class _ResultBody(msgspec.Struct):
    tool_use_id: str
    content: str | list[dict[str, Any]] | None = None


class _ToolBody(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


TURN_ROLES: Final = ("user", "assistant", "system")


def parse_request(body: bytes) -> GenerationRequest:
    """Read a request: strict in what the gateway acts on, tolerant of the rest, which is kept.

    A ``max_tokens`` that is missing is no error: a provider that wants one is told its default. Raises
    `ClientError` 400 with the field as ``param``.
    """
    value = read_object(body)
    given = convert(value, MessagesBody, "")
    if not given.model:
        raise missing("model")
    if not given.messages:
        raise refused(
            "'messages' must hold at least one message, for example "
            '[{"role": "user", "content": "Hello"}].',
            "messages",
        )
    extra = unknown(value, MessagesBody)
    choice, parallel = _parse_choice(given.tool_choice, extra)
    effort = _parse_thinking(given, extra)
    messages: list[Message] = []
    if given.system is not None:
        messages.append(_parse_text("system", given.system, "system"))
    for number, raw in enumerate(given.messages):
        messages.extend(_parse_turn(raw, number))
    user = None
    if given.metadata is not None:
        user = given.metadata.get("user_id")
        if not isinstance(user, str):
            user = None
        extra["metadata"] = {k: v for k, v in given.metadata.items() if user is None or k != "user_id"}
    return GenerationRequest(
        model=given.model,
        messages=tuple(messages),
        dialect=NAME,
        stream=bool(given.stream),
        include_usage=True,
        max_output_tokens=given.max_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        stop=tuple(given.stop_sequences or ()),
        tools=tuple(_parse_tool(raw, f"tools[{i}]") for i, raw in enumerate(given.tools or ())),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=_parse_format(extra),
        reasoning_effort=effort,
        user=user,
        extra=extra or None,
    )


def with_headers(request: GenerationRequest, version: str, beta: str) -> GenerationRequest:
    """Return ``request`` with what the headers ``anthropic-version`` and ``anthropic-beta`` say."""
    said: Extra = {}
    if version:
        said[VERSION] = version
    if beta:
        said[BETA] = [name for part in beta.split(",") if (name := part.strip())]
    return msgspec.structs.replace(request, extra={**(request.extra or {}), **said}) if said else request


def _parse_choice(choice: Extra | None, extra: Extra) -> tuple[Any, bool | None]:
    """Return ``tool_choice`` in its canonical form, and whether calls may be parallel."""
    parallel = None
    if choice and isinstance(disabled := choice.get("disable_parallel_tool_use"), bool):
        parallel = not disabled
    match choice:
        case None:
            return None, None
        case {"type": "auto"}:
            return "auto", parallel
        case {"type": "any"}:
            return "required", parallel
        case {"type": "none"}:
            return "none", parallel
        case {"type": "tool", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}, parallel
    extra["tool_choice"] = choice
    return None, None


def _parse_thinking(given: MessagesBody, extra: Extra) -> str | None:
    """Return the effort that is asked for, in one of the two ways.

    Both fields are kept; a None in ``output_config`` stands where the request's own field has the value.
    """
    effort = None
    if given.thinking is not None:
        extra["thinking"] = given.thinking
        budget = given.thinking.get("budget_tokens")
        if given.thinking.get("type") == "enabled" and type(budget) is int:
            effort = effort_of(budget)
    if given.output_config is not None:
        extra["output_config"] = dict(given.output_config)
        if isinstance(wanted := given.output_config.get("effort"), str):
            extra["output_config"]["effort"] = None
            effort = wanted
    return effort


def _parse_format(extra: Extra) -> Extra | None:
    match extra.get("output_config"):
        case {"format": {"type": "json_schema", "schema": dict(schema), **more}} if not more:
            extra["output_config"]["format"] = None
            named = {"name": "answer", "schema": schema, "strict": True}
            return {"type": "json_schema", "json_schema": named}
    return None


def _parse_turn(raw: Extra, number: int) -> Iterator[Message]:
    """Yield a message of the client as canonical ones: results of tools are messages of their own."""
    path = f"messages[{number}]"
    given = convert(raw, TurnBody, path)
    if given.role not in TURN_ROLES:
        raise refused(f"'{path}.role' must be user, assistant or system.", f"{path}.role")
    role = cast("Role", given.role)
    extra: Extra = {"turn": number, **(others(raw, "role", "content") or {})}
    if isinstance(given.content, str) or role == "system":
        yield _parse_text(role, given.content, f"{path}.content", extra)
        return
    blocks = [(block, f"{path}.content[{i}]") for i, block in enumerate(given.content)]
    if role == "assistant":
        yield _parse_answer(blocks, extra)
        return
    said: list[tuple[Block, str]] = []
    for block, where in blocks:
        if block.get("type") != "tool_result":
            said.append((block, where))
            continue
        if said:
            yield _parse_said(said, extra)
            said = []
        yield _parse_result(block, where, extra)
    if said or not blocks:
        yield _parse_said(said, extra)


def _parse_text(role: Role, content: str | Sequence[Block], path: str, extra: Extra | None = None) -> Message:
    if isinstance(content, str):
        return Message(role, content, extra=extra)
    return _parse_said([(block, f"{path}[{i}]") for i, block in enumerate(content)], extra or {}, role)


def _parse_said(blocks: Sequence[tuple[Block, str]], extra: Extra, role: Role = "user") -> Message:
    parts = tuple(_parse_block(block, path) for block, path in blocks)
    match parts:
        case (TextPart(text=text, extra=None),):
            return Message(role, text, extra={**extra, "blocks": True})
    return Message(role, parts, extra=extra or None)


def _parse_result(block: Block, path: str, extra: Extra) -> Message:
    given = convert(block, _ResultBody, path)
    own = {**extra, "result": others(block, "type", "tool_use_id", "content") or {}}
    if given.content is None:
        return Message("tool", "", tool_call_id=given.tool_use_id, extra={**own, "empty": True})
    message = _parse_text("tool", given.content, f"{path}.content", own)
    return msgspec.structs.replace(message, tool_call_id=given.tool_use_id)


def _parse_answer(blocks: Sequence[tuple[Block, str]], extra: Extra) -> Message:
    """Read a turn of the model. Its thinking is kept in blocks that only its provider can use, and as a
    text for providers that take that."""
    parts: list[Part] = []
    calls: list[ToolCall] = []
    thoughts: list[str] = []
    for at, (block, path) in enumerate(blocks):
        if block.get("type") == "tool_use":
            given = convert(block, _UseBody, path)
            own = {"at": at, **(others(block, "type", "id", "name", "input") or {})}
            calls.append(ToolCall(given.id, given.name, _encode(given.input).decode(), extra=own))
            continue
        if block.get("type") == "thinking" and isinstance(thought := block.get("thinking"), str):
            thoughts.append(thought)
        parts.append(_parse_block(block, path))
    if thoughts:
        extra = {**extra, "reasoning_content": "".join(thoughts)}
    match parts:
        case []:
            return Message("assistant", () if not calls else None, tool_calls=tuple(calls), extra=extra)
        case [TextPart(text=text, extra=None)]:
            return Message("assistant", text, tool_calls=tuple(calls), extra={**extra, "blocks": True})
    return Message("assistant", tuple(parts), tool_calls=tuple(calls), extra=extra)


def _parse_block(block: Block, path: str) -> Part:
    match block:
        case {"type": "text"}:
            return TextPart(convert(block, _TextBody, path).text, others(block, "type", "text"))
        case {
            "type": "image",
            "source": {"type": "base64", "data": str(data), "media_type": str(kind), **more},
        } if not more:
            return ImagePart(data=data, media_type=kind, extra=others(block, "type", "source"))
        case {"type": "image", "source": {"type": "url", "url": str(url), **more}} if not more:
            return ImagePart(url, extra=others(block, "type", "source"))
        case {"type": "document", "source": dict()}:
            return _parse_document(block)
        case {"type": "tool_use"}:
            convert(block, _UseBody, path)  # of a model's turn, and here in the user's
        case {"type": "tool_result"}:
            content = convert(block, _ResultBody, path).content
            for number, inner in enumerate(content if isinstance(content, list) else ()):
                _parse_block(inner, f"{path}.content[{number}]")
        case {"type": "search_result"}:
            about = [block.get("title"), block.get("source"), _text_in(block.get("content"))]
            text = "\n".join(said for said in about if isinstance(said, str) and said)
            return TextPart(text, {"block": block})
    named = block.get("type")
    if isinstance(named, str):
        return OpaquePart(NAME, block)
    raise ClientError(
        f"'{path}.type' must name the kind of the block, for example \"text\".",
        code="missing_required_parameter" if named is None else "invalid_type",
        param=f"{path}.type",
    )


def _parse_document(block: Block) -> Part:
    """A document that is text is text to providers that do not know documents."""
    title = block.get("title")
    name = title if isinstance(title, str) else ""
    extra = others(block, "type", "source", *(("title",) if name else ()))
    match block["source"]:
        case {"type": "base64", "data": str(data), "media_type": str(kind), **more} if not more:
            return FilePart(data=data, media_type=kind, name=name, extra=extra)
        case {"type": "url", "url": str(url), **more} if not more:
            return FilePart(url=url, name=name, extra=extra)
        case {"type": "text", "data": str(text)}:
            return TextPart(f"{name}\n\n{text}" if name else text, {"block": block})
        case {"type": "content", "content": content}:
            text = _text_in(content)
            return TextPart(f"{name}\n\n{text}" if name else text, {"block": block})
    return OpaquePart(NAME, block)


def _text_in(content: Any) -> str:
    """Return the text of a list of blocks, or of a text in its place."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else ()
    texts = (block.get("text") for block in blocks if isinstance(block, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _parse_tool(raw: Extra, path: str) -> Tool:
    """Read a tool of the client's; those that Anthropic runs itself are kept whole."""
    kind = raw.get("type")
    if isinstance(kind, str) and kind != "custom":
        name = raw.get("name")
        return Tool(name if isinstance(name, str) else "", kind=kind, extra=others(raw, "type"))
    given = convert(raw, _ToolBody, path)
    extra = unknown(raw, _ToolBody)
    if given.type is not None:
        extra["type"] = given.type
    return Tool(given.name, given.description or "", given.input_schema, given.strict, extra=extra or None)


# --- render_request --------------------------------------------------------------------------------

_FROM_OTHERS: Final = ("thinking", "top_k", "cache_control")
"""Fields of this format that clients of other dialects send, since their SDKs let any field pass."""

FIELDS: Final = frozenset(
    ("max_output_tokens", "temperature", "top_p", "stop", "tools", "tool_choice")
).union(("parallel_tool_calls", "response_format", "reasoning_effort", "user", "n", "logprobs"))
"""What requests of other dialects ask that has a place here, or is refused here (`n`, `logprobs`)."""

EXTRAS: Final = frozenset((*_FROM_OTHERS, "safety_identifier"))


def render_request(request: GenerationRequest, model: str, preferences: Preferences = DEFAULTS) -> bytes:
    """Render for ``model``, streaming. Raises `ClientError` for what Anthropic cannot do."""
    out = _render(request, model)
    limit = request.max_output_tokens
    out["max_tokens"] = preferences.max_tokens if limit is None else limit
    if request.dialect != NAME:
        shape(request, out, manner(model))
    out["stream"] = True
    return _encode(out)


def render_count(request: GenerationRequest, model: str) -> bytes:
    """Render the question how many tokens ``request`` has."""
    out = _render(request, model)
    if request.max_output_tokens is not None:
        out["max_tokens"] = request.max_output_tokens
    return _encode(out)


def headers_of(request: GenerationRequest) -> Mapping[str, str]:
    """Return what a client of this dialect said in headers: of the version, and of what is in beta."""
    if request.dialect != NAME or not request.extra:
        return {}
    headers = {}
    if isinstance(version := request.extra.get(VERSION), str) and version:
        headers["anthropic-version"] = version
    betas = request.extra.get(BETA)
    if isinstance(betas, list) and (names := [name for name in betas if isinstance(name, str) and name]):
        headers["anthropic-beta"] = ",".join(names)
    return headers


def _render(request: GenerationRequest, model: str) -> Extra:
    """Return what a generation and a count have in common."""
    if request.n != 1:
        raise refused(f"Anthropic gives one answer to a request: 'n' must be 1, not {request.n}.", "n")
    same = request.dialect == NAME
    given = request.extra or {}
    extra: Extra
    if same:
        extra = {name: value for name, value in given.items() if name not in (VERSION, BETA)}
        system, messages = _own_system(request.messages), _own_turns(request.messages)
    else:
        extra = {name: given[name] for name in _FROM_OTHERS if given.get(name) is not None}
        conversation = Conversation(request.messages)
        system, messages = conversation.system, conversation.turns
        if request.logprobs:
            raise refused("Anthropic gives no log probabilities.", "logprobs")
    out: Extra = {**extra, "model": model, "messages": messages}
    if system:
        out["system"] = system
    if request.stop:
        out["stop_sequences"] = request.stop
    if request.temperature is not None:
        out["temperature"] = request.temperature
    if request.top_p is not None:
        out["top_p"] = request.top_p
    if request.tools:
        out["tools"] = [_render_tool(tool, f"tools[{i}]", same) for i, tool in enumerate(request.tools)]
    _render_choice(request, out)
    _render_config(request, out, same)
    user = request.user if same or request.user else given.get("safety_identifier")
    if isinstance(user, str) and user:
        out["metadata"] = {**out.get("metadata", {}), "user_id": user}
    return out


def _render_choice(request: GenerationRequest, out: Extra) -> None:
    """Without tools there is nothing to choose, and Anthropic takes no choice."""
    choice: Extra | None = None
    match request.tool_choice:
        case None:
            pass
        case "auto":
            choice = {"type": "auto"}
        case "required" | "any":
            choice = {"type": "any"}
        case "none":
            choice = {"type": "none"}
        case {"function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            choice = {"type": "tool", "name": name}
        case {"allowed_tools": {"tools": list(allowed), **more}}:
            names = {_name_in(tool) for tool in allowed}
            out["tools"] = [tool for tool in out.get("tools", ()) if tool.get("name") in names]
            if not out["tools"]:
                raise refused("'tool_choice' allows no tool that is among 'tools'.", "tool_choice")
            choice = {"type": "any" if more.get("mode") == "required" else "auto"}
        case _:
            raise refused(
                "'tool_choice' must be none, auto, required or the name of a function.", "tool_choice"
            )
    same = request.dialect == NAME
    if not request.tools and not same:
        return
    parallel = request.parallel_tool_calls
    if parallel is False or (parallel is True and choice is not None and same):
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = not parallel
    if choice is not None:
        out["tool_choice"] = choice


def _name_in(tool: Any) -> str:
    match tool:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    return ""


def _render_config(request: GenerationRequest, out: Extra, same: bool) -> None:
    """Add what a schema or an effort makes of ``output_config``."""
    config: Extra = dict(out.get("output_config") or {})
    if same and "effort" in config and config["effort"] is None and request.reasoning_effort is not None:
        config["effort"] = request.reasoning_effort
    match request.response_format:
        case None | {"type": "text"}:
            pass
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            config["format"] = {"type": "json_schema", "schema": schema}
        case _:
            raise refused(
                "Anthropic holds an answer to JSON by a schema only: send a 'response_format' of type "
                "json_schema.",
                "response_format",
            )
    if config:
        out["output_config"] = config


def _render_tool(tool: Tool, path: str, same: bool) -> Extra:
    extra = tool.extra or {}
    if tool.kind != "function":
        if not same:
            raise refused(f"Anthropic knows no tools of type '{tool.kind[:50]}'.", f"{path}.type")
        return {"type": tool.kind, **extra}
    if not same:
        marks = (extra, extra.get("function") or {})
        extra = next(({MARK: mark[MARK]} for mark in marks if mark.get(MARK) is not None), {})
    out: Extra = {**extra, "name": tool.name}
    if tool.description:
        out["description"] = tool.description
    if tool.parameters is not None:
        out["input_schema"] = tool.parameters if same else {"type": "object", **tool.parameters}
    elif not same:
        out["input_schema"] = {"type": "object", "properties": {}}
    if tool.strict is not None and (same or tool.strict):
        out["strict"] = tool.strict
    return out


# --- requests of this dialect: as they came --------------------------------------------------------


def _own_system(messages: Sequence[Message]) -> str | list[Block] | None:
    """Return the system prompt: what stands before and apart from the turns."""
    prompts = [message for message in messages if message.role == "system" and _turn(message) is None]
    if len(prompts) == 1:
        return _own_content(prompts[0])
    return [block for message in prompts for block in _own_blocks(message)] or None


def _turn(message: Message) -> int | None:
    turn = (message.extra or {}).get("turn")
    return turn if isinstance(turn, int) else None


def _own_turns(messages: Sequence[Message]) -> list[Extra]:
    """Put the client's messages together again. One without a number was added here, and joins the last
    of its role."""
    turns: list[Extra] = []
    last: int | None = None
    for message in messages:
        turn = _turn(message)
        if turn is None and message.role == "system":
            continue
        role = "user" if message.role == "tool" else message.role
        if turns and turns[-1]["role"] == role and (turn is None or turn == last):
            before = turns[-1]["content"]
            blocks = [{"type": "text", "text": before}] if isinstance(before, str) else before
            turns[-1]["content"] = [*blocks, *_own_blocks(message)]
        else:
            content = [_own_result(message)] if message.role == "tool" else _own_content(message)
            turns.append({**_own_fields(message), "role": role, "content": content})
            last = turn
    return turns


def _own_fields(message: Message) -> Extra:
    ours = ("turn", "blocks", "result", "empty", "reasoning_content")
    return {name: value for name, value in (message.extra or {}).items() if name not in ours}


def _own_content(message: Message) -> str | list[Block]:
    if isinstance(message.content, str) and not message.tool_calls and "blocks" not in (message.extra or {}):
        return message.content
    return _own_blocks(message)


def _own_blocks(message: Message) -> list[Block]:
    if message.role == "tool":
        return [_own_result(message)]
    parts = parts_of(message)
    if message.content == "" and "blocks" in (message.extra or {}):
        parts = (TextPart(""),)
    blocks = [block for part in parts if (block := _own_block(part)) is not None]
    for call in message.tool_calls:
        extra = dict(call.extra or {})
        at = extra.pop("at", len(blocks))
        value = {
            **extra,
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": read_arguments(call, ""),
        }
        blocks.insert(at if isinstance(at, int) else len(blocks), value)
    return blocks


def _own_result(message: Message) -> Block:
    extra = message.extra or {}
    block: Block = {**(extra.get("result") or {}), "type": "tool_result", "tool_use_id": message.tool_call_id}
    if "empty" not in extra:
        content = msgspec.structs.replace(message, role="user")
        block["content"] = _own_content(content)
    return block


def _own_block(part: Part) -> Block | None:
    """Return ``part`` as it came; None for thinking without a signature, which came from another provider:
    Anthropic takes only its own."""
    extra = getattr(part, "extra", None) or {}
    if "block" in extra:
        return cast("Block", extra["block"])
    match part:
        case OpaquePart(dialect=dialect, data=data):
            if dialect != NAME or (data.get("type") == "thinking" and not data.get("signature")):
                return None
            return data
        case TextPart(text=text):
            return {**extra, "type": "text", "text": text}
    return {**extra, **media_block(part)}
