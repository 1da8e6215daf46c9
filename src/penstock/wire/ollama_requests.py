"""Ollama, the request half: `GenerationRequest` → provider bytes; from clients it follows later.

Two routes say it: ``/api/chat`` takes a conversation, ``/api/generate`` one prompt, for base models and
the like. Strategy: what has a place in the vocabulary goes to Ollama's place for it; of a request's
unknown fields those are handed on that are Ollama's own (`keep_alive`, `think`, `options` and the
names inside it). What Ollama cannot do is refused where the answer would be another one (``n``, images
by URL, files), and left out where it would not (``user``, ``store``, ``metadata``). No stream enters.

Source: api/types.go and server/routes.go of github.com/ollama/ollama, version 0.17.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.types.errors import ClientError
from penstock.types.requests import (
    Extra,
    GenerationRequest,
    ImagePart,
    Message,
    OpaquePart,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.wishes import calling, thoughts

NAME: Final = "ollama"
"""The dialect's name in events, logs and settings."""

Api: TypeAlias = Literal["chat", "generate"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


class Preferences(msgspec.Struct, frozen=True):
    """What an operator wants of one Ollama, unless a request says otherwise.

    ``keep_alive``: how long a model stays loaded, as Ollama takes it (``10m``, ``-1`` for good, ``0``
    for not at all); empty for Ollama's own rule. ``num_ctx``: tokens of context, 0 for the model's own.
    """

    api: Api = "chat"
    keep_alive: str = ""
    num_ctx: int = 0


DEFAULTS: Final = Preferences()


# --- render_request --------------------------------------------------------------------------------

_OPTIONS: Final = frozenset(
    (
        "num_ctx",
        "num_keep",
        "num_predict",
        "num_batch",
        "num_gpu",
        "num_thread",
        "top_k",
        "min_p",
        "typical_p",
    )
).union(("repeat_penalty", "repeat_last_n", "mirostat", "mirostat_eta", "mirostat_tau"))
"""Unknown fields of a request that are Ollama's options, wherever they stand."""

_FIELDS: Final[Mapping[Api, tuple[str, ...]]] = {
    "chat": ("keep_alive", "think", "format", "truncate", "shift"),
    "generate": ("keep_alive", "think", "format", "truncate", "shift", "suffix", "template", "raw"),
}
"""Unknown fields of a request that are Ollama's own, and handed on as they are."""

FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop", "seed", "tools")).union(
    ("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "tool_choice", "response_format"),
    ("reasoning_effort",),
)
"""What a request can ask that has a place here, or is refused here."""

EXTRAS: Final = _OPTIONS.union(("options",), *_FIELDS.values())
"""The same of unknown fields."""

_EFFORTS: Final[Mapping[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_WITH_LEVELS: Final = "gpt-oss"
"""What stands in the names of models that think more or less; the others (400) do it or do not."""

_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")


def render_request(request: GenerationRequest, model: str, preferences: Preferences = DEFAULTS) -> bytes:
    """Render for ``model`` and the route that ``preferences`` name, streaming.

    Raises `ClientError` for what Ollama cannot do.
    """
    if request.n != 1:
        raise _refuse(f"Ollama gives one answer to a request: 'n' must be 1, not {request.n}.", "n")
    extra = request.extra or {}
    out: Extra = {name: extra[name] for name in _FIELDS[preferences.api] if extra.get(name) is not None}
    out |= {"model": model, "stream": True}
    if preferences.api == "chat":
        out["messages"] = list(_messages(request.messages))
        if tools := _tools(request):
            out["tools"] = tools
    else:
        out |= _prompt(request)
    if options := _options(request, extra, preferences):
        out["options"] = options
    if preferences.keep_alive and "keep_alive" not in out:
        out["keep_alive"] = _duration(preferences.keep_alive)
    if (format := _format(request.response_format)) is not None:
        out["format"] = format
    if request.reasoning_effort is not None and "think" not in out:
        out["think"] = _think(request.reasoning_effort, model)
    if request.logprobs is not None:
        out["logprobs"] = request.logprobs
    if request.top_logprobs is not None:
        out["top_logprobs"] = request.top_logprobs
    return _encode(out)


def _options(request: GenerationRequest, extra: Extra, preferences: Preferences) -> Extra:
    given = extra.get("options")
    if given is not None and not isinstance(given, dict):
        raise _refuse("'options' must be an object.", "options", code="invalid_type")
    limits: Extra = {"num_ctx": preferences.num_ctx} if preferences.num_ctx else {}
    named: Extra = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": request.stop or None,
        "num_predict": request.max_output_tokens,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
    }
    flat = {name: value for name, value in extra.items() if name in _OPTIONS and value is not None}
    return {**limits, **flat, **(given or {}), **{k: v for k, v in named.items() if v is not None}}


def _duration(value: str) -> str | float:
    """Return what Go reads as a duration: a text has a unit, a number is in seconds."""
    return float(value) if _NUMBER.fullmatch(value) else value


def _think(effort: str, model: str) -> bool | str:
    think = _EFFORTS.get(effort)
    if think is None:
        words = ", ".join(_EFFORTS)
        raise _refuse(f"'reasoning_effort' must be one of {words}.", "reasoning_effort")
    return think if think is False or _WITH_LEVELS in model else True


def _format(wanted: Extra | None) -> Any:
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
    raise _refuse(
        "Ollama takes a 'response_format' of type text, json_object, or json_schema with a schema.",
        "response_format",
    )


def _refuse(message: str, param: str, code: str = "invalid_value") -> ClientError:
    return ClientError(message, code=code, param=param)


# --- the conversation ------------------------------------------------------------------------------


def _messages(messages: Sequence[Message]) -> Iterator[Extra]:
    names: dict[str, str] = {}  # of the calls so far: results are told by their tool's name
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        role = "system" if message.role == "developer" else message.role
        out: Extra = {"role": role, **_content(message, path)}
        if thinking := thoughts(message):
            out["thinking"] = thinking
        if message.tool_calls:
            calls = enumerate(message.tool_calls)
            out["tool_calls"] = [_call(call, at, f"{path}.tool_calls[{at}]") for at, call in calls]
            names.update((call.id, call.name) for call in message.tool_calls if call.id)
        if message.tool_call_id:
            out["tool_call_id"] = message.tool_call_id
        if role == "tool" and (name := message.name or names.get(message.tool_call_id)):
            out["tool_name"] = name
        yield out


def _content(message: Message, path: str) -> Extra:
    """Return the message's text, and its images if it has any."""
    if not isinstance(message.content, tuple):
        return {"content": message.content or ""}
    texts, images = [], []
    for number, part in enumerate(message.content):
        where = f"{path}.content[{number}]"
        match part:
            case TextPart():
                texts.append(part.text)
            case ImagePart(data=data) if data:
                images.append(data)
            case ImagePart():
                raise _refuse("Ollama takes images as data: URLs in base64 and fetches none.", where)
            case OpaquePart() if message.role == "assistant":
                pass  # of an earlier answer, what only its provider reads: signatures, its own tools
            case _:
                raise _refuse("Ollama takes text and images, and no other parts of a message.", where)
    out: Extra = {"content": "\n".join(texts)}
    if images:
        out["images"] = images
    return out


def _call(call: ToolCall, index: int, path: str) -> Extra:
    if call.kind != "function":
        raise _refuse("Ollama knows calls of functions only.", f"{path}.type")
    arguments: Any = None
    with suppress(msgspec.DecodeError, RecursionError):
        arguments = _decode(call.arguments) if call.arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise _refuse(
            "The arguments of a tool call must be the text of a JSON object.", f"{path}.function.arguments"
        )
    out: Extra = {"function": {"index": index, "name": call.name, "arguments": arguments}}
    if call.id:
        out["id"] = call.id
    return out


def _tools(request: GenerationRequest) -> list[Extra]:
    """Return the tools that may be called.

    Ollama has no ``tool_choice``. ``none`` is said by offering no tool and one tool's name by offering that
    one; that some tool must be called cannot be said, and is left to the model as Ollama's own
    OpenAI-compatible route does.
    """
    wanted = calling(request, "Ollama")
    return [] if wanted.never else [_tool(tool) for tool in wanted.tools]


def _tool(tool: Tool) -> Extra:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _prompt(request: GenerationRequest) -> Extra:
    """Return what ``/api/generate`` is told: instructions, and one message of the user."""
    if _tools(request):
        raise _refuse("This model completes a prompt (api: generate) and calls no tools.", "tools")
    system: list[str] = []
    prompt: Extra | None = None
    for number, message in enumerate(request.messages):
        path = f"messages[{number}]"
        content = _content(message, path)
        if message.role in ("system", "developer") and "images" not in content:
            system.append(content["content"])
        elif message.role == "user" and prompt is None:
            prompt = content
        else:
            raise _refuse(
                "This model completes one prompt (api: generate): it takes instructions and one message of "
                "the user, and no conversation.",
                path,
            )
    if prompt is None:
        raise _refuse(
            "This model completes a prompt (api: generate): a message of the user is missing.", "messages"
        )
    out: Extra = {"prompt": prompt.pop("content"), **prompt}
    if system:
        out["system"] = "\n\n".join(system)
    return out
