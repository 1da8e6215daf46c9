"""Bedrock's Converse: the shared vectors through its decoder, and requests and errors."""

import json
import random
from typing import Any

import pytest

from penstock.types.errors import ClientError, UpstreamError
from penstock.types.events import decode_line, encode_line
from penstock.types.requests import FilePart, GenerationRequest, ImagePart, Message, TextPart, Tool, ToolCall
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.bedrock import BedrockDecoder, parse_error, render_request
from penstock.wire.bedrock_requests import FIELDS
from penstock.wire.fitting import Fitting
from tests.vectors import Vector, each_vector, octets
from tests.wire.decoding import check, distort, run
from tests.wire.test_aws_eventstream import message

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
WEATHER = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})


def render(*messages: Message, model: str = "amazon.nova-pro-v1:0", **fields: Any) -> Any:
    request = GenerationRequest("asked", messages or (Message("user", "Hi"),), **fields)
    return json.loads(render_request(request, model, Fitting("box")))


def dropped(model: str = "amazon.nova-pro-v1:0", **fields: Any) -> tuple[str, ...]:
    fitting = Fitting("box")
    render_request(GenerationRequest("asked", (Message("user", "Hi"),), **fields), model, fitting)
    return fitting.dropped


@each_vector("bedrock")
def test_vector(vector: Vector):
    check(vector, BedrockDecoder)


@each_vector("bedrock")
def test_a_body_that_is_cut_is_never_whole(vector: Vector):
    body = octets(vector.content, "input")
    whole = run(BedrockDecoder(), [body])
    for at in range(0, len(body), 7):
        cut = run(BedrockDecoder(), [body[:at]])
        assert cut.error is not None or any(event.__class__.__name__ == "Finished" for event in cut.events)
        assert cut.events == whole.events[: len(cut.events)]


@pytest.mark.parametrize(
    "name", [b"messageStart", b"contentBlockStart", b"contentBlockDelta", b"messageStop", b"metadata"]
)
def test_distorted_payloads_do_no_harm(name):
    value = {
        "contentBlockIndex": 1,
        "start": {"toolUse": {"toolUseId": "t", "name": "f"}},
        "delta": {"text": "A", "toolUse": {"input": "{"}, "reasoningContent": {"text": "R"}, "citation": {}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 2},
        "metrics": {"latencyMs": 1},
    }
    headers = b"\x0b:event-type\x07" + len(name).to_bytes(2, "big") + name
    rng = random.Random(name)
    for _ in range(200):
        body = message(headers, json.dumps(distort(value, rng)).encode())
        for number, event in enumerate(run(BedrockDecoder(), [body]).events, 1):
            assert decode_line(encode_line(number, event)) == event


def test_turns_alternate_and_results_are_the_users():
    said = render(
        Message("system", "Be brief."),
        Message("user", "Look at this."),
        Message("user", (ImagePart(data="AAAA", media_type="image/jpeg"),)),
        Message("assistant", "I call.", tool_calls=(ToolCall("c/1", "f", '{"a":1}'), ToolCall("c2", "f"))),
        Message("tool", "one", tool_call_id="c/1"),
        Message("tool", "two", tool_call_id="c2"),
        Message("user", "Well?"),
        tools=(Tool("f"),),
    )
    assert said["system"] == [{"text": "Be brief."}]
    assert said["messages"] == [
        {
            "role": "user",
            "content": [
                {"text": "Look at this."},
                {"image": {"format": "jpeg", "source": {"bytes": "AAAA"}}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"text": "I call."},
                {"toolUse": {"toolUseId": "c_1", "name": "f", "input": {"a": 1}}},
                {"toolUse": {"toolUseId": "c2", "name": "f", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "c_1", "content": [{"text": "one"}]}},
                {"toolResult": {"toolUseId": "c2", "content": [{"text": "two"}]}},
                {"text": "Well?"},
            ],
        },
    ]


def test_documents_have_a_name_and_a_word_beside_them():
    part = FilePart(data="AAAA", media_type="application/pdf", name="Q3_results (v2).pdf")
    (turn,) = render(Message("user", (part,)))["messages"]
    document = {"format": "pdf", "source": {"bytes": "AAAA"}, "name": "Q3 results (v2)"}
    assert turn["content"] == [{"document": document}, {"text": "(See the document.)"}]


def test_settings_have_converse_s_names():
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    said = render(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        response_format=shape,
        extra={"guardrailConfig": {"guardrailIdentifier": "g"}, "nobody": 1},
    )
    del said["messages"]
    structure = {"jsonSchema": {"schema": '{"type":"object"}', "name": "n"}}
    assert said == {
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
        "guardrailConfig": {"guardrailIdentifier": "g"},
        "outputConfig": {"textFormat": {"type": "json_schema", "structure": structure}},
    }
    assert dropped(response_format={"type": "json_object"}) == ("response_format",)
    assert dropped(reasoning_effort="high", extra={"top_k": 3}) == ("reasoning_effort", "top_k")
    assert "seed" not in FIELDS


def test_thinking_is_said_as_each_family_takes_it():
    said = render(model=CLAUDE, reasoning_effort="low", temperature=0.2, extra={"top_k": 5})
    assert said["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    assert said["inferenceConfig"] == {"maxTokens": 32000}  # thinking does without temperature
    said = render(model="openai.gpt-oss-120b-1:0", reasoning_effort="xhigh")
    assert said["additionalModelRequestFields"] == {"reasoning_effort": "high"}
    said = render(model=CLAUDE, temperature=1.5, extra={"top_k": 5})
    assert said["inferenceConfig"]["temperature"] == 1
    assert said["additionalModelRequestFields"] == {"top_k": 5}


def test_thinking_and_marks_of_anthropic_s_clients_come_along():
    body = {
        "model": "m",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
                    {"type": "redacted_thinking", "data": "EmwK"},
                    {"type": "text", "text": "Yes?"},
                ],
            },
            {"role": "user", "content": "Go on."},
        ],
    }
    request = ANTHROPIC_MESSAGES.parse_request(json.dumps(body).encode())
    said = json.loads(render_request(request, CLAUDE, Fitting("box")))
    assert said["system"] == [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}]
    assert said["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "EqQB"}}},
        {"reasoningContent": {"redactedContent": "EmwK"}},
        {"text": "Yes?"},
    ]


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("auto", None),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "g"}}, {"tool": {"name": "g"}}),
    ],
)
def test_a_choice_of_tools_is_said(choice, wanted):
    told = render(tools=(WEATHER, Tool("g")), tool_choice=choice)["toolConfig"]
    assert told.get("toolChoice") == wanted
    assert told["tools"][-1] == {
        "toolSpec": {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}}
    }


def test_calls_in_a_conversation_want_their_tools_named():
    talk = (
        Message("user", "Hi"),
        Message("assistant", tool_calls=(ToolCall("c", "f"),)),
        Message("tool", "x", tool_call_id="c"),
    )
    assert "toolConfig" not in render(tools=(WEATHER,), tool_choice="none")
    (tool,) = render(*talk)["toolConfig"]["tools"]
    assert tool["toolSpec"]["name"] == "f"


@pytest.mark.parametrize(
    "message_",
    [
        Message("user", (FilePart(id="file-1"),)),
        Message("user", (FilePart(data="AAAA", media_type="audio/mpeg"),)),
        Message("user", (ImagePart(url="https://box/a.png"),)),
        Message("system", (ImagePart(data="AAAA", media_type="image/png"),)),
        Message("user", " "),
        Message("assistant", tool_calls=(ToolCall("c", "f", "[]"),)),
    ],
)
def test_what_it_does_not_take_is_refused(message_):
    with pytest.raises(ClientError) as caught:
        render(message_)
    assert caught.value.status == 400


def test_text_alone_may_be_parts():
    (turn,) = render(Message("user", (TextPart("A"), TextPart(" "), TextPart("B"))))["messages"]
    assert turn["content"] == [{"text": "A"}, {"text": "B"}]


@pytest.mark.parametrize(
    ("status", "kind", "code", "told", "retryable"),
    [
        (429, "ThrottlingException:http://x/", "rate_limit_exceeded", 429, True),
        (429, "ModelNotReadyException", "overloaded", 503, True),
        (403, "AccessDeniedException", "permission_denied", 403, False),
        (403, "UnrecognizedClientException", "permission_denied", 403, False),
        (404, "ResourceNotFoundException", "model_not_found", 404, False),
        (408, "ModelTimeoutException", "timeout", 504, True),
        (424, "ModelErrorException", "upstream_error", 502, True),
        (503, "ServiceUnavailableException", "overloaded", 503, True),
        (500, "", "upstream_error", 502, True),
    ],
)
def test_error_responses_are_sorted_by_their_header(status, kind, code, told, retryable):
    error = parse_error(status, {"x-amzn-errortype": kind} if kind else {}, b'{"Message":"It is so."}')
    assert isinstance(error, UpstreamError)
    assert (error.code, error.status, error.retryable) == (code, told, retryable)
    assert "It is so." in error.message


def test_a_prompt_that_is_too_long_is_known_by_its_words():
    body = b'{"message":"Input is too long for requested model."}'
    error = parse_error(400, {"x-amzn-errortype": "ValidationException"}, body)
    assert (error.code, error.status) == ("context_length_exceeded", 400)
    assert parse_error(502, {}, b"<html>").code == "upstream_error"
