"""The AI SDK dialect, the request half: a chat's ``POST`` → `GenerationRequest`.

Strategy: messages are those of a page, which keeps a whole turn of the model (its steps, its calls and
their results) in one. They are taken apart as the SDK's own ``convertToModelMessages`` does. What a page
keeps for itself (data, sources, metadata) goes no further, and calls that never got a result are left out,
since no provider takes them. Beside the messages, an application sends what it likes: what is known here
is read, in the SDK's names; all else is its own affair. No stream enters; see `penstock.wire.ai_sdk`.

Source: npm `ai` 5.0, 6.0 and 7.0, ``src/ui``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.types.errors import ClientError
from penstock.types.requests import (
    Extra,
    FilePart,
    GenerationRequest,
    ImagePart,
    Message,
    Part,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.bodies import convert, missing, read_object, refused

NAME: Final = "ai_sdk"
"""The dialect's name in requests, events, logs and settings."""

MAX_ID: Final = 255
"""Characters of the name of a chat or of a message, which the page chooses."""

_encode = msgspec.json.Encoder().encode


class PageBody(msgspec.Struct):
    """The fields of a request that are known here, as they come."""

    messages: list[dict[str, Any]]
    id: str | None = None
    trigger: str | None = None
    messageId: str | None = None
    model: str | None = None
    system: str | None = None
    tools: dict[str, Any] | None = None
    toolChoice: Any = None
    maxOutputTokens: int | None = None
    temperature: float | None = None
    topP: float | None = None
    stopSequences: list[str] | None = None
    seed: int | None = None
    presencePenalty: float | None = None
    frequencyPenalty: float | None = None
    reasoningEffort: str | None = None


class _MessageBody(msgspec.Struct):
    role: str
    parts: list[dict[str, Any]]
    id: str | None = None


class _TextBody(msgspec.Struct):
    text: str


class _FileBody(msgspec.Struct):
    url: str
    mediaType: str
    filename: str | None = None


class _SteeringBody(msgspec.Struct):
    parts: list[dict[str, Any]]


class _ToolPartBody(msgspec.Struct):
    toolCallId: str
    state: str
    toolName: str | None = None
    input: Any = None
    rawInput: Any = None
    output: Any = None
    errorText: str | None = None
    approval: dict[str, Any] | None = None
    providerExecuted: bool | None = None
    preliminary: bool | None = None


class _ToolBody(msgspec.Struct):
    description: str | None = None
    inputSchema: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None


class Asked(msgspec.Struct, frozen=True):
    """A request, its chat (empty without one), and the message that the answer goes on with, if any."""

    request: GenerationRequest
    chat: str = ""
    message: str = ""


PAGE_ROLES: Final = ("system", "user", "assistant")
DENIED: Final = "Tool call execution denied."
"""What a model is told of a call that the user did not allow, as the SDK has it."""

_DATA_URL: Final = re.compile(r"data:([a-z]+/[\w.+-]+)?(?:;[^;,]*)*;base64,([A-Za-z0-9+/=_-]*)")


def read_request(body: bytes, model: str = "") -> Asked:
    """Read a request; ``model`` is for one that names none.

    Raises `ClientError` 400 with the field as ``param``.
    """
    given = convert(read_object(body), PageBody, "")
    model = given.model or model
    if not model:
        raise missing("model")
    messages = [*_system(given.system), *_conversation(given.messages)]
    if not any(message.role != "system" for message in messages):
        raise refused("'messages' must hold at least one message with something in it.", "messages")
    request = GenerationRequest(
        model=model,
        messages=tuple(messages),
        dialect=NAME,
        stream=True,
        include_usage=True,
        max_output_tokens=given.maxOutputTokens,
        temperature=given.temperature,
        top_p=given.topP,
        stop=tuple(given.stopSequences or ()),
        seed=given.seed,
        presence_penalty=given.presencePenalty,
        frequency_penalty=given.frequencyPenalty,
        tools=tuple(_tools(given.tools or {})),
        tool_choice=_choice(given.toolChoice),
        reasoning_effort=given.reasoningEffort,
    )
    return Asked(request, name(given.id or "", "id"), _continued(given.messages))


def name(text: str, param: str) -> str:
    """Check the name of a chat or of a message; raises `ClientError`."""
    if len(text) > MAX_ID or not text.isprintable():
        raise refused(f"'{param}' must be at most {MAX_ID} printable characters.", param)
    return text


def _continued(messages: Sequence[Extra]) -> str:
    """Return the id of the message that the answer is a further step of: one of the assistant's, at the end.

    After its calls were answered in the page, the SDK sends it back, and reads on into it.
    """
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or not isinstance(last.get("id"), str):
        return ""
    return name(last["id"], f"messages[{len(messages) - 1}].id")


def _system(text: str | None) -> Iterable[Message]:
    if text:
        yield Message("system", text)


def _conversation(messages: Sequence[Extra]) -> Iterator[Message]:
    for number, raw in enumerate(messages):
        path = f"messages[{number}]"
        given = convert(raw, _MessageBody, path)
        match given.role:
            case "system":
                texts = (part["text"] for part in given.parts if isinstance(part.get("text"), str))
                yield Message("system", "".join(texts))
            case "user":
                yield from _user(given.parts, f"{path}.parts")
            case "assistant":
                yield from _assistant(given.parts, f"{path}.parts")
            case _:
                raise refused(f"'{path}.role' must be one of {', '.join(PAGE_ROLES)}.", f"{path}.role")


def _user(parts: Sequence[Extra], path: str) -> Iterator[Message]:
    said = [part for i, raw in enumerate(parts) if (part := _part(raw, f"{path}[{i}]")) is not None]
    if said:
        yield Message("user", _plain(said))


def _plain(parts: Sequence[Part]) -> str | tuple[Part, ...]:
    """Return the text that is all there is, else the parts."""
    match parts:
        case [TextPart(text=text)]:
            return text
    return tuple(parts)


def _part(raw: Extra, path: str) -> Part | None:
    """Return what the model is shown; None for what is for the page alone."""
    match raw.get("type"):
        case "text":
            return TextPart(convert(raw, _TextBody, path).text)
        case "file":
            return _file(raw, path)
        case str():
            return None
    raise missing(f"{path}.type")


def _file(raw: Extra, path: str) -> Part:
    given = convert(raw, _FileBody, path)
    kind, url, data = given.mediaType, given.url, ""
    if given.url.startswith("data:"):
        found = _DATA_URL.fullmatch(given.url)
        if found is None:
            raise refused(f"'{path}.url' must be an address, or data in base64.", f"{path}.url")
        kind, url, data = found[1] or kind, "", found[2]
    if kind.partition("/")[0] == "image":
        return ImagePart(url, data, kind if "/" in kind else "")
    return FilePart(url=url, data=data, media_type=kind, name=given.filename or "")


# --- what the assistant said -----------------------------------------------------------------------------


def _assistant(parts: Sequence[Extra], path: str) -> Iterator[Message]:
    """Yield a turn step by step: what was said and called, then the results."""
    step = _Step()
    for i, raw in enumerate(parts):
        at = f"{path}[{i}]"
        kind = raw.get("type")
        match kind:
            case "step-start":
                yield from step.messages()
                step = _Step()
            case "steering-message":  # said by the user between two steps
                yield from step.messages()
                step = _Step()
                yield from _user(convert(raw, _SteeringBody, at).parts, f"{at}.parts")
            case "reasoning":
                step.thoughts.append(convert(raw, _TextBody, at).text)
            case "dynamic-tool":
                step.call(convert(raw, _ToolPartBody, at), "")
            case str() if kind.startswith("tool-"):
                step.call(convert(raw, _ToolPartBody, at), kind.removeprefix("tool-"))
            case _:
                if (part := _part(raw, at)) is not None:
                    step.said.append(part)
    yield from step.messages()


class _Step:
    """One request and its answer, in what was one turn to the page."""

    def __init__(self) -> None:
        self.said: list[Part] = []
        self.thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._results: list[Message] = []

    def call(self, given: _ToolPartBody, named: str) -> None:
        """Take a call with its result; one without, or that the provider ran itself, is left out."""
        called = named or given.toolName or ""
        result = _result(given)
        if result is None or given.providerExecuted:
            return
        asked = given.input if given.input is not None else given.rawInput
        arguments = asked if isinstance(asked, str) else _encode({} if asked is None else asked).decode()
        self._calls.append(ToolCall(given.toolCallId, called, arguments))
        self._results.append(Message("tool", result, name=called, tool_call_id=given.toolCallId))

    def messages(self) -> Iterator[Message]:
        """Yield what this step was to the model."""
        if self.said or self._calls:
            extra = {"reasoning_content": "\n\n".join(self.thoughts)} if self.thoughts else None
            content = _plain(self.said) if self.said else None
            yield Message("assistant", content, tool_calls=tuple(self._calls), extra=extra)
            yield from self._results


def _result(given: _ToolPartBody) -> str | None:
    """Return the result of a call as a text; None where there is none yet."""
    match given.state:
        case "output-available" if not given.preliminary:
            return given.output if isinstance(given.output, str) else _encode(given.output).decode()
        case "output-error":
            return given.errorText or "The call failed."
        case "output-denied":
            return _reason(given)
        case "approval-responded" if (given.approval or {}).get("approved") is False:
            return _reason(given)
    return None


def _reason(given: _ToolPartBody) -> str:
    reason = (given.approval or {}).get("reason")
    return reason if isinstance(reason, str) and reason else DENIED


# --- tools -----------------------------------------------------------------------------------------------


def _tools(tools: Mapping[str, Any]) -> Iterator[Tool]:
    """Yield the tools that a page offers, by name; their schemas are JSON Schema."""
    for named, raw in tools.items():
        given = convert(raw, _ToolBody, f"tools.{named}")
        schema = given.inputSchema if given.inputSchema is not None else given.parameters
        if schema is not None and isinstance(inner := schema.get("jsonSchema"), dict):
            schema = inner  # as the SDK wraps it
        yield Tool(named, given.description or "", schema)


def _choice(value: Any) -> Any:
    """Return which tools may be called, as `GenerationRequest` has it."""
    match value:
        case None | "auto" | "none" | "required":
            return value
        case {"type": "tool", "toolName": str(named)}:
            return {"type": "function", "function": {"name": named}}
    raise ClientError(
        "'toolChoice' must be 'auto', 'none', 'required' or {\"type\": \"tool\", \"toolName\": …}.",
        code="invalid_value",
        param="toolChoice",
    )
