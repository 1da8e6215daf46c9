"""The Cohere dialect: the shared vectors through its decoder, and requests and errors."""

import json
from typing import Any

import pytest

from penstock.types.errors import ClientError
from penstock.types.events import ToolCallDelta
from penstock.types.requests import FilePart, GenerationRequest, ImagePart, Message, TextPart, Tool, ToolCall
from penstock.wire.cohere import MAX_PARTS, CohereDecoder, parse_error, render_request
from tests.vectors import Vector, each_vector
from tests.wire.decoding import check, check_distorted, run

WEATHER = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})


def render(*messages: Message, **fields: Any) -> Any:
    request = GenerationRequest("asked", messages or (Message("user", "Hi"),), **fields)
    return json.loads(render_request(request, "command-a-03-2025"))


@each_vector("cohere")
def test_vector(vector: Vector):
    check(vector, CohereDecoder)


@each_vector("cohere")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, CohereDecoder, rounds=30)


def test_calls_without_end_are_cut_off():
    body = b"".join(
        b'data: {"type":"tool-call-start","index":%d,"delta":{"message":{"tool_calls":'
        b'{"id":"t","function":{"name":"f","arguments":""}}}}}\n\n' % number
        for number in range(MAX_PARTS + 1)
    )
    outcome = run(CohereDecoder(), [body])
    assert sum(isinstance(event, ToolCallDelta) for event in outcome.events) == MAX_PARTS
    assert outcome.error is not None
    assert outcome.error.code == "upstream_malformed"


def test_a_conversation_keeps_its_roles_and_parts():
    said = render(
        Message("developer", "Be brief."),
        Message("user", (TextPart("What is this?"), ImagePart(data="AAAA", media_type="image/png"))),
        Message("assistant", "A cat.", extra={"reasoning_content": "Whiskers."}),
        Message("user", (TextPart("And"), TextPart("now?"))),
        Message("assistant", tool_calls=(ToolCall("c1", "f", ""),), extra={"reasoning": "I look."}),
        Message("tool", "sunny", tool_call_id="c1"),
    )
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    function = {"name": "f", "arguments": "{}"}
    assert said == {
        "model": "command-a-03-2025",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Whiskers."},
                    {"type": "text", "text": "A cat."},
                ],
            },
            {"role": "user", "content": "And\nnow?"},
            {
                "role": "assistant",
                "tool_plan": "I look.",
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    }


def test_settings_have_cohere_s_names():
    said = render(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=0,
        stop=("END",),
        presence_penalty=0.1,
        frequency_penalty=0.2,
        reasoning_effort="low",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        extra={"top_k": 4, "safety_mode": "OFF", "nobody": 1},
    )
    del said["messages"], said["model"], said["stream"]
    assert said == {
        "max_tokens": 9,
        "temperature": 0.5,
        "p": 0.9,
        "k": 4,
        "seed": 0,
        "stop_sequences": ["END"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "thinking": {"type": "enabled", "token_budget": 2048},
        "response_format": {"type": "json_object", "json_schema": {"type": "object"}},
        "safety_mode": "OFF",
    }
    assert render(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert render(response_format={"type": "json_object"})["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("choice", "wanted", "count"),
    [
        ("auto", None, 2),
        ("none", "NONE", 2),
        ("required", "REQUIRED", 2),
        ({"type": "function", "function": {"name": "g"}}, "REQUIRED", 1),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"name": "g"}]}}, None, 1),
    ],
)
def test_a_choice_of_tools_is_said_by_what_is_offered(choice, wanted, count):
    said = render(tools=(WEATHER, Tool("g", strict=True)), tool_choice=choice)
    assert (said.get("tool_choice"), len(said["tools"]), said["strict_tools"]) == (wanted, count, True)
    assert said["tools"][-1]["function"]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": (WEATHER,), "tool_choice": {"name": "other"}}, "tool_choice"),
        ({"tools": (Tool("x", kind="custom"),)}, "tools[0].type"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"reasoning_effort": "some"}, "reasoning_effort"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(fields, param):
    with pytest.raises(ClientError) as caught:
        render(**fields)
    assert (caught.value.param, caught.value.status) == (param, 400)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (Message("user", (FilePart(data="AAAA", media_type="application/pdf"),)), "messages[0].content[0]"),
        (Message("system", (ImagePart(url="https://box/a.png"),)), "messages[0].content[0]"),
        (
            Message("assistant", tool_calls=(ToolCall("c", "f", kind="custom"),)),
            "messages[0].tool_calls[0].type",
        ),
    ],
)
def test_parts_that_it_does_not_take_are_refused_by_name(message, param):
    with pytest.raises(ClientError) as caught:
        render(message)
    assert caught.value.param == param


def test_its_status_for_a_wrong_token_is_no_full_queue():
    error = parse_error(498, {}, b'{"message":"invalid api token"}')
    assert (error.code, error.status, error.retryable) == ("invalid_api_key", 401, False)
    error = parse_error(429, {"retry-after": "3"}, b'{"message":"You are past the limit"}')
    assert (error.code, error.retry_after, error.retryable) == ("rate_limit_exceeded", 3, True)
    error = parse_error(422, {}, b'{"message":"unprocessable"}')
    assert (error.code, error.status) == ("invalid_request", 400)
