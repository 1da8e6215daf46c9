"""What is sent, held against the types of the makers' own SDKs, strictly: those construct anything that they
are given, and an application notices much later that a field is not there."""

import json
from collections.abc import Callable, Sequence
from typing import Any, get_args

import anthropic.types
import ollama
import openai.types
import openai.types.chat
import openai.types.responses
import pytest
from google.genai import types as google
from pydantic import TypeAdapter, ValidationError

from penstock.types.events import (
    AnyEvent,
    Finished,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    encode_line,
)
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.dialect import Face
from penstock.wire.gemini import GEMINI
from penstock.wire.ollama_clients import OLLAMA
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_completions import OPENAI_COMPLETIONS
from penstock.wire.openai_responses import OPENAI_RESPONSES, ResponsesEncoder
from tests.wire.matrix import ANSWER, COMMON, PROVIDERS, cases, end

TOKEN = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
CASES: dict[str, list[AnyEvent]] = {
    **COMMON,
    "log probabilities": [
        Started("m"),
        TextDelta("Hi", logprobs={"content": [TOKEN], "refusal": None}),
        Finished("stop"),
        UsageReported(3, 1, cached_tokens=2, reasoning_tokens=1),
    ],
    "a custom call": [
        Started("m"),
        ToolCallDelta(0, "SELECT 1", "c1", "sql", kind="custom"),
        Finished("tool_calls"),
    ],
}

THEIRS = {
    "a custom call": "OpenAI's chunks know functions alone; its whole answers know both",
    "openai_chat/tools_custom": "as above",
    "openai_responses/tools": "as above",
    "openai_chat/content_parts": "Mistral's references are no citations of URLs",
    "openai_chat/tools_interleaved": "arguments that are a list, and no object",
    "openai_completions/logprobs": "the first token has no probability",
    "openai_responses/web_search": "the recorded item does not say what was searched",
    "anthropic_messages/unknown_events": "what no type knows",
}
"""What is as its provider said it, though a type is narrower, and why."""

Check = Callable[[Any], Any]


def adapter(type_: Any) -> Check:
    return TypeAdapter(type_).validate_python


def by_type(union: Any) -> Check:
    """Check against the member of ``union`` that has the value's type: its complaints can be read."""
    members = get_args(get_args(union)[0])
    known = {get_args(member.model_fields["type"].annotation)[0]: TypeAdapter(member) for member in members}
    return lambda value: known[value["type"]].validate_python(value)


def google_response(value: Any) -> Any:
    return google.GenerateContentResponse.model_validate(value)


def legacy_chunk(value: Any) -> Any:
    """Their type is that of whole answers, which have a reason."""
    return openai.types.Completion.model_validate(
        {
            **value,
            "choices": [
                {**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in value["choices"]
            ],
        }
    )


STREAMED: dict[Face, Check] = {
    OPENAI_CHAT: adapter(openai.types.chat.ChatCompletionChunk),
    OPENAI_RESPONSES: by_type(openai.types.responses.ResponseStreamEvent),
    OPENAI_COMPLETIONS: legacy_chunk,
    ANTHROPIC_MESSAGES: by_type(anthropic.types.RawMessageStreamEvent),
    GEMINI: google_response,
    OLLAMA: adapter(ollama.ChatResponse),
}
WHOLE: dict[Face, Check] = {
    OPENAI_CHAT: adapter(openai.types.chat.ChatCompletion),
    OPENAI_RESPONSES: adapter(openai.types.responses.Response),
    OPENAI_COMPLETIONS: adapter(openai.types.Completion),
    ANTHROPIC_MESSAGES: adapter(anthropic.types.Message),
    GEMINI: google_response,
    OLLAMA: adapter(ollama.ChatResponse),
}
each_face = pytest.mark.parametrize("face", STREAMED, ids=lambda face: face.name)


def frames(face: Face, events: Sequence[AnyEvent]) -> list[Any]:
    encoder = face.encoder(ANSWER)
    made = list(encoder.opening()) if isinstance(encoder, ResponsesEncoder) else []
    made += [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]
    return [json.loads(data) for _, data in made if data != b"[DONE]"]


def wrong(check: Check, value: Any) -> list[str]:
    """Return what is wrong with a value: of a union what its nearest member says."""
    try:
        check(value)
    except ValidationError as error:
        found = [
            (".".join(map(str, e["loc"])), e["msg"], e["type"], str(e["input"])[:120]) for e in error.errors()
        ]
        # Of a nested union each other member complains of the type, too.
        return [" ".join(e) for e in found if e[2] != "literal_error" or e[0] == e[0].lower()][:5]
    except (KeyError, ValueError, TypeError) as error:
        return [repr(error)]
    return []


def complaints(face: Face, name: str, events: Sequence[AnyEvent]) -> list[str]:
    found = [text for frame in frames(face, events) for text in wrong(STREAMED[face], frame)]
    found += wrong(WHOLE[face], json.loads(face.render_answer(ANSWER, events)))
    return [] if name in THEIRS else [f"{name}: {text}" for text in found]


@each_face
def test_an_answer_is_what_its_makers_types_say(face):
    told = [
        text
        for name, events in CASES.items()
        if name != "broken off"
        for text in complaints(face, name, [*events, end(None)])
    ]
    assert not told, "\n".join(told)


@each_face
@pytest.mark.filterwarnings("ignore:.*is not a valid HarmCategory:UserWarning")  # recorded as it was
def test_what_any_provider_said_is_what_the_clients_types_say(face):
    told = [
        text
        for provider in PROVIDERS
        for case in cases(provider)
        if not case.fails
        for text in complaints(face, f"{provider}/{case.name}", [*case.events, end(None)])
    ]
    assert not told, "\n".join(told)
