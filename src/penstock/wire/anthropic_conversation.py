"""Anthropic Messages, for clients of other dialects: their messages and wishes in the form it takes.

Owns the order and the shape of a conversation (`Conversation`), and what becomes of thinking and sampling
(`shape`), where models differ: see `penstock.wire.anthropic_models`. What Anthropic cannot do is refused
where the answer would be another one, and left out where it would not. A request of Anthropic's own clients
never comes here; see `penstock.wire.anthropic_messages_requests`.

Source: types of the anthropic SDKs (2.12); platform.claude.com, API reference and OpenAI compatibility.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from penstock.types.requests import (
    Extra,
    FilePart,
    GenerationRequest,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
)
from penstock.wire.anthropic_models import BUDGETS, EFFORTS, MIN_BUDGET, Manner
from penstock.wire.bodies import refused

Block: TypeAlias = Extra
"""One content block, as JSON has it."""

_decode = msgspec.json.decode

MARK: Final = "cache_control"
"""The one field of blocks and tools that they send."""

_MEDIA: Final = ("application/pdf", "text/plain")

_OPENING: Final = "(The conversation begins.)"
"""What the user says where the model would speak first: Anthropic wants the user's turn before it."""

_STRANGE_IN_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")


class Conversation:
    """Messages of another dialect in the order that Anthropic wants.

    All system messages go to the top, as in Anthropic's own OpenAI-compatible route; the user speaks
    first; adjacent messages of one role are one turn, in which results of tools come first; text that is
    blank is left out, and so is white space at the end of a last turn of the model.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        """Raises `ClientError` for parts that Anthropic does not take."""
        self.turns: list[Extra] = []
        prompts: list[Block] = []
        for number, message in enumerate(messages):
            path = f"messages[{number}]"
            if message.role in ("system", "developer"):
                prompts.extend(_text_blocks(message, path))
            elif blocks := _blocks(message, path):
                self._add("assistant" if message.role == "assistant" else "user", blocks)
        if not self.turns and prompts:
            self._add("user", prompts)  # instructions alone: then they are what is asked
            prompts = []
        if not self.turns:
            raise refused("'messages' has no text: Anthropic wants a message that is not blank.", "messages")
        if self.turns[0]["role"] == "assistant":
            self.turns.insert(0, {"role": "user", "content": [{"type": "text", "text": _OPENING}]})
        for turn in self.turns:
            self._tidy(turn)
        self._trim(self.turns[-1])
        self.system: str | list[Block] | None = prompts or None
        if prompts and all(block.keys() == {"type", "text"} for block in prompts):
            self.system = "\n".join(block["text"] for block in prompts)

    def _add(self, role: str, blocks: Sequence[Block]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"].extend(blocks)
        else:
            self.turns.append({"role": role, "content": list(blocks)})

    @staticmethod
    def _tidy(turn: Extra) -> None:
        content: list[Block] = turn["content"]
        content.sort(key=lambda block: block["type"] != "tool_result")
        if len(content) == 1 and content[0].keys() == {"type", "text"}:
            turn["content"] = content[0]["text"]

    @staticmethod
    def _trim(turn: Extra) -> None:
        if turn["role"] != "assistant":
            return
        if isinstance(turn["content"], str):
            turn["content"] = turn["content"].rstrip()
        elif turn["content"][-1]["type"] == "text":
            turn["content"][-1] = {**turn["content"][-1], "text": turn["content"][-1]["text"].rstrip()}


def _blocks(message: Message, path: str) -> list[Block]:
    if message.role == "tool":
        content = _content_blocks(message, path)
        value: Block = {"type": "tool_result", "tool_use_id": _safe_id(message.tool_call_id)}
        if content:
            plain = len(content) == 1 and content[0].keys() == {"type", "text"}
            value["content"] = content[0]["text"] if plain else content
        return [value]
    blocks = _content_blocks(message, path)
    for number, call in enumerate(message.tool_calls):
        where = f"{path}.tool_calls[{number}]"
        if call.kind != "function":
            raise refused("Anthropic knows calls of functions only.", f"{where}.type")
        given = read_arguments(call, f"{where}.function.")
        blocks.append({"type": "tool_use", "id": _safe_id(call.id), "name": call.name, "input": given})
    mark = (message.extra or {}).get(MARK)
    if blocks and isinstance(mark, dict):
        blocks[-1] = {**blocks[-1], MARK: mark}
    return blocks


def _content_blocks(message: Message, path: str) -> list[Block]:
    found = []
    for number, part in enumerate(parts_of(message)):
        block = _block(part, f"{path}.content[{number}]")
        if block["type"] != "text" or block["text"].strip():
            found.append(block)
    return found


def _text_blocks(message: Message, path: str) -> Iterable[Block]:
    for block in _content_blocks(message, path):
        if block["type"] != "text":
            raise refused("Anthropic takes nothing but text as instructions.", f"{path}.content")
        yield block


def _block(part: Part, path: str) -> Block:
    extra = getattr(part, "extra", None) or {}
    mark: Extra = {MARK: extra[MARK]} if isinstance(extra.get(MARK), dict) else {}
    match part:
        case TextPart(text=text):
            return {**mark, "type": "text", "text": text}
        case ImagePart(url=url, data=data) if data or url.startswith(("https://", "http://")):
            return {**mark, **media_block(part)}
        case ImagePart():
            raise refused("Anthropic takes images by URL, or as data: URLs in base64.", path)
        case FilePart(id=id_) if id_:
            raise refused("A file's id is another provider's: send the file itself in 'file_data'.", path)
        case FilePart(url=url) if url:
            return {**mark, **media_block(part)}
        case FilePart(media_type="text/plain", data=data, name=name):
            source = {"type": "text", "media_type": "text/plain", "data": _plain(data, path)}
            return {**mark, "type": "document", "source": source, **({"title": name} if name else {})}
        case FilePart(media_type=kind) if kind in _MEDIA:
            return {**mark, **media_block(part)}
    raise refused("Anthropic takes text, images, PDF and plain text, and no other parts.", path)


def _plain(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise refused("The file is no text in UTF-8.", path) from None


def _safe_id(id_: str) -> str:
    """Return the id of a call in the letters that Anthropic takes."""
    return _STRANGE_IN_ID.sub("_", id_)


def shape(request: GenerationRequest, out: Extra, model: Manner) -> None:
    """Bring thinking and sampling into a form that ``model`` takes; what it does not take is left out."""
    if out.get("thinking") is None and request.reasoning_effort is not None:
        _think(request.reasoning_effort, out, model)
    thinks = isinstance(out.get("thinking"), dict) and out["thinking"].get("type") != "disabled"
    if thinks or not model.sampled:
        for name in ("temperature", "top_p", "top_k"):
            out.pop(name, None)
    elif "temperature" in out:
        out["temperature"] = min(1.0, max(0.0, out["temperature"]))
        out.pop("top_p", None)  # newer models take one of the two


def _think(effort: str, out: Extra, model: Manner) -> None:
    """Say how hard to think, by effort or by budget.

    Not where a tool must be called, nor, by budget, where the model would have to go on from thoughts that
    the client could not keep: Anthropic answers 400 to both.
    """
    if effort not in EFFORTS:
        raise refused(f"'reasoning_effort' must be one of {', '.join(EFFORTS)}.", "reasoning_effort")
    if effort == "none" or model.thinking == "none":
        return
    if model.thinking == "effort":
        known = "low" if effort == "minimal" else "high" if effort == "xhigh" and not model.xhigh else effort
        out["output_config"] = {**out.get("output_config", {}), "effort": known}
    if out.get("tool_choice", {}).get("type") in ("any", "tool"):
        return
    if model.thinking == "effort":
        out["thinking"] = {"type": "adaptive", "display": "summarized"}
    elif not _answers_calls(out["messages"]):
        budget = min(BUDGETS[effort], out["max_tokens"] // 2)
        if budget >= MIN_BUDGET:
            out["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _answers_calls(turns: Sequence[Extra]) -> bool:
    """Say whether the last turn brings results of calls."""
    last = turns[-1]["content"]
    return isinstance(last, list) and any(block["type"] == "tool_result" for block in last)


def parts_of(message: Message) -> Sequence[Part]:
    """Return the parts of a message, whichever way its content came."""
    if isinstance(message.content, str):
        return (TextPart(message.content),) if message.content else ()
    return message.content or ()


def media_block(part: ImagePart | FilePart) -> Block:
    """Return the block of an image or a document."""
    kind = "image" if isinstance(part, ImagePart) else "document"
    if part.url:
        source: Extra = {"type": "url", "url": part.url}
    else:
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    block: Block = {"type": kind, "source": source}
    if isinstance(part, FilePart) and part.name:
        block["title"] = part.name
    return block


def read_arguments(call: ToolCall, path: str) -> Extra:
    """Return the arguments of a call as the object they are. Raises `ClientError` for anything else."""
    try:
        value = _decode(call.arguments) if call.arguments.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise refused("The arguments of a tool call must be the text of a JSON object.", f"{path}arguments")
    return value
