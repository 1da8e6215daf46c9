"""Bedrock's Converse, the request half: `GenerationRequest` → the body of ``/model/<id>/converse-stream``.

Turns alternate and the user's is the first, so that adjacent ones of a role become one; results of tools are
the user's. What Converse has no place for and a family of models takes all the same goes into
``additionalModelRequestFields``: thinking and ``top_k`` of Claude, the effort of gpt-oss. Files and images go
as bytes; nothing is fetched but from S3.

Source: the service model of botocore 1.44 (bedrock-runtime, 2023-09-30).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

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
from penstock.wire.anthropic_conversation import MARK, parts_of, read_arguments, shape
from penstock.wire.anthropic_messages_requests import NAME as ANTHROPIC
from penstock.wire.anthropic_models import manner
from penstock.wire.bodies import refused
from penstock.wire.fitting import Fitting
from penstock.wire.wishes import Calling, calling, drop_empty, effort, form, plain

NAME: Final = "bedrock"
"""The dialect's name in events, logs and settings."""

WHO: Final = "Bedrock"

FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop", "tools")).union(
    ("tool_choice", "response_format", "reasoning_effort")
)
"""What requests of other dialects ask that has a place here, or is refused or noted here."""

_OWN: Final = (
    *("additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig"),
    *("performanceConfig", "promptVariables", "requestMetadata", "serviceTier", "outputConfig"),
)

EXTRAS: Final = frozenset((*_OWN, "top_k", "thinking"))

DEFAULT_LIMIT: Final = 32_000
"""Tokens of an answer that thinking is measured by, where the request has no limit."""

_IMAGES: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_FILES: Final[Mapping[str, str]] = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}

_EFFORTS: Final = {"minimal": "low", "xhigh": "high", "max": "high"}
_STRANGE_IN_ID: Final = re.compile(r"[^a-zA-Z0-9_.:-]")
_STRANGE_IN_TITLE: Final = re.compile(r"[^A-Za-z0-9\-()\[\]]+")
_OPENING: Final = "(The conversation begins.)"

_encode = msgspec.json.Encoder().encode


def render_request(request: GenerationRequest, model: str, fitting: Fitting) -> bytes:
    """Render for ``model``; the model itself stands in the path. ``fitting`` notes what it is not told.
    Raises `ClientError` for what Bedrock cannot do."""
    extra = request.extra or {}
    out: Extra = {name: extra[name] for name in _OWN if extra.get(name) is not None}
    turns, system = _conversation(request.messages)
    out["messages"] = turns
    if system:
        out["system"] = system
    limits = {
        "maxTokens": request.max_output_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": list(request.stop) or None,
    }
    own: Extra = dict(out.get("additionalModelRequestFields") or {})
    wanted = calling(request, WHO)
    if "claude" in model.lower():
        _shape_claude(request, model, turns, limits, own, wanted)
    elif (thinks := effort(request)) not in (None, "none"):
        if "gpt-oss" in model:
            own.setdefault("reasoning_effort", _EFFORTS.get(thinks or "", thinks))
        else:
            fitting.lack("reasoning_effort")
    if "top_k" in extra and "claude" not in model.lower():
        fitting.lack("top_k")
    if limits := drop_empty(limits):
        out["inferenceConfig"] = limits
    if own:
        out["additionalModelRequestFields"] = own
    if tools := _tools(wanted, turns, fitting):
        out["toolConfig"] = tools
    if (answer := form(request, WHO)) is not None:
        if answer.schema is None:
            fitting.lack("response_format")
        else:
            told = {"schema": _encode(answer.schema).decode(), "name": answer.name}
            shaped = {"type": "json_schema", "structure": {"jsonSchema": told}}
            out["outputConfig"] = {**out.get("outputConfig", {}), "textFormat": shaped}
    return _encode(out)


def _shape_claude(
    request: GenerationRequest, model: str, turns: list[Extra], limits: Extra, own: Extra, wanted: Calling
) -> None:
    """Say thinking and sampling in the form that this Claude takes, as `anthropic_conversation` knows it."""
    extra = request.extra or {}
    made: Extra = drop_empty(
        {"temperature": limits["temperature"], "top_p": limits["topP"], "top_k": extra.get("top_k")}
    )
    made |= {"max_tokens": request.max_output_tokens or DEFAULT_LIMIT, "thinking": extra.get("thinking")}
    # Of the conversation it matters only whether results of calls end it.
    results = any("toolResult" in block for block in turns[-1]["content"])
    made["messages"] = [{"content": [{"type": "tool_result" if results else "text"}]}]
    if wanted.must:
        made["tool_choice"] = {"type": "any"}
    effort(request)  # refuses what is none
    shape(request, made, manner(model))
    limits["temperature"], limits["topP"] = made.get("temperature"), made.get("top_p")
    for name in ("thinking", "output_config", "top_k"):
        if made.get(name) is not None:
            own.setdefault(name, made[name])
    if isinstance(own.get("thinking"), dict) and "budget_tokens" in own["thinking"]:
        limits["maxTokens"] = made["max_tokens"]


# --- tools -----------------------------------------------------------------------------------------


def _tools(wanted: Calling, turns: Sequence[Extra], fitting: Fitting) -> Extra | None:
    """Return the tools. A conversation with calls in it wants them named, also where none is offered."""
    called = {
        block["toolUse"]["name"]: None for turn in turns for block in turn["content"] if "toolUse" in block
    }
    if not wanted.tools or wanted.never:
        if not called:
            return None
        fitting.lack("tool_choice")
        known = wanted.tools or tuple(Tool(name) for name in called)
        return {"tools": [_tool(tool) for tool in known]}
    out: Extra = {"tools": [_tool(tool) for tool in wanted.tools]}
    if wanted.only:
        out["toolChoice"] = {"tool": {"name": wanted.only}}
    elif wanted.must:
        out["toolChoice"] = {"any": {}}
    return out


def _tool(tool: Tool) -> Extra:
    schema = tool.parameters or {"type": "object", "properties": {}}
    told: Extra = {
        "name": tool.name,
        "description": tool.description or None,
        "inputSchema": {"json": schema},
    }
    if tool.strict is not None:
        told["strict"] = tool.strict
    return {"toolSpec": drop_empty(told)}


# --- the conversation ------------------------------------------------------------------------------


def _conversation(messages: Sequence[Message]) -> tuple[list[Extra], list[Extra]]:
    """Return turns that alternate, and the instructions."""
    turns: list[Extra] = []
    system: list[Extra] = []
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        if message.role in ("system", "developer"):
            if (text := plain(message, path, WHO)).strip():
                system.append({"text": text})
            if any(_marked(part) for part in parts_of(message)):
                system.append(_CACHE)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message, path))
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns and system:
        turns, system = [{"role": "user", "content": [b for b in system if "text" in b]}], []
    if not turns:
        raise refused("'messages' has no text: Bedrock wants a message that is not blank.", "messages")
    if turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"text": _OPENING}]})
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: "toolResult" not in block)
    last = turns[-1]["content"][-1]
    if turns[-1]["role"] == "assistant" and "text" in last:
        turns[-1]["content"][-1] = {"text": last["text"].rstrip()}
    return turns, system


_CACHE: Final = {"cachePoint": {"type": "default"}}


def _marked(holder: Any) -> bool:
    return isinstance((getattr(holder, "extra", None) or {}).get(MARK), dict)


def _blocks(message: Message, path: str) -> Iterator[Extra]:
    if message.role == "tool":
        content = list(_content(message, path)) or [{"text": "(nothing)"}]
        marks = [block for block in content if block is _CACHE]
        result = [block for block in content if block is not _CACHE]
        yield {"toolResult": {"toolUseId": _safe_id(message.tool_call_id), "content": result}}
        yield from marks
        return
    yield from _content(message, path)
    for number, call in enumerate(message.tool_calls):
        yield _call(call, f"{path}.tool_calls[{number}]")
    if _marked(message):
        yield _CACHE


def _call(call: ToolCall, path: str) -> Extra:
    if call.kind != "function":
        raise refused("Bedrock knows calls of functions only.", f"{path}.type")
    given = read_arguments(call, f"{path}.function.")
    return {"toolUse": {"toolUseId": _safe_id(call.id), "name": call.name, "input": given}}


def _safe_id(id_: str) -> str:
    return _STRANGE_IN_ID.sub("_", id_)[:64]


def _content(message: Message, path: str) -> Iterator[Extra]:
    documents = texts = 0
    for number, part in enumerate(parts_of(message)):
        block = _block(part, f"{path}.content[{number}]", number)
        if block is None or not block.get("text", "x").strip():
            continue
        documents += "document" in block
        texts += "text" in block
        yield block
        if _marked(part):
            yield _CACHE
    if documents and not texts and message.role == "user":
        yield {"text": "(See the document.)"}  # it takes none without a word


def _block(part: Part, path: str, number: int) -> Extra | None:
    match part:
        case TextPart(text=text):
            return {"text": text}
        case ImagePart(url=url, data=data, media_type=kind):
            if not (data and kind in _IMAGES) and not url.startswith("s3://"):
                raise refused(
                    "Bedrock takes images (PNG, JPEG, GIF, WebP) as data: URLs in base64, or at s3://….", path
                )
            form_ = _IMAGES.get(kind) or _ending(url, "png")
            return {"image": {"format": "jpeg" if form_ == "jpg" else form_, "source": _source(url, data)}}
        case FilePart(url=url, data=data, media_type=kind, name=name):
            if not (data and kind in _FILES) and not url.startswith("s3://"):
                raise refused("Bedrock takes files (PDF, text, Word, Excel) in base64, or at s3://….", path)
            title = _STRANGE_IN_TITLE.sub(" ", name.rpartition(".")[0] or name).strip()[:200]
            told = {"format": _FILES.get(kind) or _ending(url, "pdf"), "source": _source(url, data)}
            return {"document": {**told, "name": title or f"document {number + 1}"}}
        case OpaquePart(dialect=dialect, data=data) if dialect == ANTHROPIC:
            return _thought(data)
        case OpaquePart():
            return None
    raise refused("Bedrock takes text, images and documents, and no other parts of a message.", path)


def _thought(block: Extra) -> Extra | None:
    """Return thinking that a client of Anthropic's sends back: its signature is the model's own."""
    match block:
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
            return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}
        case {"type": "redacted_thinking", "data": str(data)}:
            return {"reasoningContent": {"redactedContent": data}}
    return None


def _source(url: str, data: str) -> Extra:
    return {"bytes": data} if data else {"s3Location": {"uri": url}}


def _ending(url: str, usual: str) -> str:
    ending = url.rpartition(".")[2].lower()
    return ending if ending in {*_IMAGES.values(), *_FILES.values(), "jpg"} else usual
