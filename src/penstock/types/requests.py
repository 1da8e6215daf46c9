"""What a client asks for, in canonical form. Every dialect parses into and renders from these.

Fields that are None were not given. What a dialect knows and this module does not is kept in
``extra`` and handed on unchanged when the upstream speaks the same dialect.
"""

from typing import Any, Literal, TypeAlias

import msgspec

Extra: TypeAlias = dict[str, Any]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, frozen=True, tag="text", tag_field="kind", omit_defaults=True):
    """A piece of text."""

    text: str
    extra: Extra | None = None


class ImagePart(msgspec.Struct, frozen=True, tag="image", tag_field="kind", omit_defaults=True):
    """An image by URL, or inline as base64 ``data`` with its media type."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    detail: str = ""
    extra: Extra | None = None


class FilePart(msgspec.Struct, frozen=True, tag="file", tag_field="kind", omit_defaults=True):
    """A document or audio: by the provider's file id, by URL, or inline as base64 ``data``."""

    id: str = ""
    url: str = ""
    data: str = ""
    media_type: str = ""
    name: str = ""
    extra: Extra | None = None


class OpaquePart(msgspec.Struct, frozen=True, tag="opaque", tag_field="kind", omit_defaults=True):
    """A part that only ``dialect`` understands."""

    dialect: str
    data: Extra


Part: TypeAlias = TextPart | ImagePart | FilePart | OpaquePart


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that the model made in an earlier turn; ``arguments`` is a JSON text."""

    id: str
    name: str
    arguments: str = ""
    kind: str = "function"
    extra: Extra | None = None


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of the conversation. ``content`` is a text or a sequence of parts."""

    role: Role
    content: str | tuple[Part, ...] | None = None
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    extra: Extra | None = None


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool the model may call; ``parameters`` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Extra | None = None
    strict: bool | None = None
    kind: str = "function"
    extra: Extra | None = None


class GenerationRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One generation: one answer (of ``n`` choices) of a model."""

    model: str
    messages: tuple[Message, ...]
    dialect: str = "openai_chat"
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: Extra | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    store: bool | None = None
    metadata: Extra | None = None
    extra: Extra | None = None
