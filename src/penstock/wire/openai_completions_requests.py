"""Legacy Completions, the request half towards providers: `GenerationRequest` → the body of ``/completions``.

A model under this route goes on with a text; it knows no turns, tools or images. What clients of the same
dialect ask is handed on as it came. A conversation is refused, unless there is a `Template` that makes a text
of it: which one a model was trained with is known to whoever serves it, so nothing is guessed.

Source: the OpenAPI document of openai/openai-openapi; vLLM's and llama.cpp's servers.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.types.errors import ClientError
from penstock.types.requests import Extra, GenerationRequest, Message
from penstock.wire.fitting import Fitting
from penstock.wire.openai_chat_quirks import Quirks, adapt
from penstock.wire.openai_completions import NAME
from penstock.wire.wishes import drop_empty, plain

FIELDS: Final = frozenset(("n", "max_output_tokens", "temperature", "top_p", "stop", "seed", "user")).union(
    ("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs")
)
"""What requests of other dialects ask that has a place here."""

EXTRAS: Final = frozenset(("logit_bias", "top_k", "min_p", "repetition_penalty"))
"""Fields without a place in `GenerationRequest` that servers of this route know."""

TemplateName: TypeAlias = Literal["", "plain", "chatml"]

LIMIT: Final = 1024
"""Tokens of an answer to a conversation whose request has no limit: this route's own is 16."""

WHO: Final = "A model that completes texts"

_encode = msgspec.json.Encoder().encode


class Template(msgspec.Struct, frozen=True):
    """How a conversation becomes a text.

    ``turn`` has places for ``{role}`` and ``{text}``, ``answer`` is where the model begins, and each of
    ``stop`` ends its answer. ``roles``: what the roles are called; ``marks``: what nobody may have in a
    text.
    """

    turn: str
    answer: str
    stop: tuple[str, ...]
    roles: Mapping[str, str] = {}
    marks: tuple[str, ...] = ()


TEMPLATES: Final[Mapping[str, Template]] = {
    "plain": Template(
        "{role}: {text}\n\n",
        "Assistant:",
        ("\nUser:", "\nSystem:"),
        {"system": "System", "user": "User", "assistant": "Assistant"},
    ),
    "chatml": Template(
        "<|im_start|>{role}\n{text}<|im_end|>\n",
        "<|im_start|>assistant\n",
        ("<|im_end|>", "<|im_start|>"),
        marks=("<|",),
    ),
}


def render_request(
    request: GenerationRequest, model: str, quirks: Quirks, fitting: Fitting, template: TemplateName = ""
) -> bytes:
    """Render for ``model``, streaming and with usage. Raises `ClientError` for what it cannot be asked."""
    same = request.dialect == NAME
    extra = dict(request.extra or {})
    options = extra.pop("stream_options", None) or {}
    if request.tools:
        raise fitting.refused("tools")
    if not same:
        fitting.check(request, FIELDS, EXTRAS)
        extra = {name: value for name, value in extra.items() if name in EXTRAS}
    prompt, stop, limit = _prompt(request), request.stop, request.max_output_tokens
    if prompt is None:
        made = _template(template, fitting)
        prompt = _written(request.messages, made)
        stop = tuple(dict.fromkeys((*stop, *made.stop)))
        limit = LIMIT if limit is None else limit
    asked = {
        "max_tokens": limit,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "n": request.n if request.n != 1 else None,
        "stop": list(stop) or None,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "logprobs": (request.top_logprobs or 0) if request.logprobs else None,
        "user": request.user,
    }
    told = {"stream": True, "stream_options": {**options, "include_usage": True}}
    out: Extra = {**extra, "model": model, "prompt": prompt, **drop_empty(asked), **told}
    known = msgspec.structs.replace(
        quirks, limit="as_given", developer=True, call_id=0, counts_logprobs=False
    )
    return _encode(adapt(out, known, fitting))


def _prompt(request: GenerationRequest) -> str | None:
    """Return the text to go on with, of a client that sent one: with the beginning of the answer behind it,
    where that broke off. None for a conversation."""
    if request.dialect != NAME:
        return None
    texts = []
    for message, role in zip(request.messages[:2], ("user", "assistant"), strict=False):
        if message.role != role or not isinstance(message.content, str):
            return None
        texts.append(message.content)
    return "".join(texts)  # a third message asks a chat model to go on, which this one does anyway


def _template(name: TemplateName, fitting: Fitting) -> Template:
    if name:
        return TEMPLATES[name]
    raise ClientError(
        f"The provider '{fitting.who}' completes texts and takes no conversations. Ask by /v1/completions, "
        "or ask another model.",
        code="unsupported_parameter",
        param="messages",
    )


def _written(messages: Sequence[Message], template: Template) -> str:
    """Return a conversation as one text. Raises `ClientError` for turns that are no text."""
    begun = bool(messages) and messages[-1].role == "assistant"
    texts = []
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        role = "system" if message.role == "developer" else message.role
        if role == "tool" or message.tool_calls:
            raise ClientError(f"{WHO} knows no tools.", code="unsupported_parameter", param=path)
        text = plain(message, path, WHO)
        for mark in template.marks:  # or what somebody says could begin another's turn
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        if begun and number == len(messages) - 1:
            texts.append(template.answer + text)
        else:
            texts.append(template.turn.format(role=template.roles.get(role, role), text=text))
    return "".join(texts) + ("" if begun else template.answer)
