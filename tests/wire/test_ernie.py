"""ERNIE v1: the shared vectors through its decoder, and requests and errors."""

import json
from typing import Any

import pytest

from penstock.types.errors import ClientError
from penstock.types.requests import GenerationRequest, ImagePart, Message, TextPart, Tool, ToolCall
from penstock.wire.ernie import ErnieDecoder, TokenRefused, parse_error, render_request
from penstock.wire.fitting import Fitting
from tests.vectors import Vector, each_vector
from tests.wire.decoding import check, check_distorted

WEATHER = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})


def render(*messages: Message, fitting: Fitting | None = None, **fields: Any) -> Any:
    request = GenerationRequest("asked", messages or (Message("user", "Hi"),), **fields)
    return json.loads(render_request(request, fitting or Fitting("box")))


@each_vector("ernie")
def test_vector(vector: Vector):
    check(vector, ErnieDecoder)


@each_vector("ernie")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, ErnieDecoder, rounds=30)


def test_turns_alternate_and_the_system_has_its_own_place():
    fitting = Fitting("box", "refuse")
    said = render(
        Message("system", "Be brief."),
        Message("user", (TextPart("One"), TextPart("two"))),
        Message("user", "three"),
        Message("assistant", "Yes.", extra={"reasoning_content": "Hm."}),
        Message("assistant", "Really."),
        Message("developer", "And kind."),
        Message("user", "So?"),
        fitting=fitting,
    )
    assert said["system"] == "Be brief.\n\nAnd kind."
    assert said["messages"] == [
        {"role": "user", "content": "One\ntwo\nthree"},
        {"role": "assistant", "content": "Yes.\nReally."},
        {"role": "user", "content": "So?"},
    ]
    assert (said["stream"], fitting.dropped) == (True, ("reasoning_content",))


def test_calls_of_one_turn_become_a_turn_each():
    said = render(
        Message("user", "Weather?"),
        Message("assistant", tool_calls=(ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "g"))),
        Message("tool", "rainy", tool_call_id="c2"),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("user", "And?"),
    )
    assert said["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": '{"a":1}'}},
        {"role": "function", "name": "f", "content": "sunny"},
        {"role": "assistant", "content": "", "function_call": {"name": "g", "arguments": "{}"}},
        {"role": "function", "name": "g", "content": "rainy"},
        {"role": "assistant", "content": "…"},
        {"role": "user", "content": "And?"},
    ]


def test_settings_have_ernie_s_names():
    fitting = Fitting("box")
    said = render(
        fitting=fitting,
        max_output_tokens=9,
        temperature=0,
        top_p=0.9,
        stop=("END",),
        presence_penalty=0.1,
        frequency_penalty=0.2,
        user="u",
        seed=1,
        response_format={"type": "json_object"},
        tools=(WEATHER, Tool("g")),
        tool_choice={"type": "function", "function": {"name": "g"}},
        extra={"repetition_penalty": 1.1, "disable_search": True, "nobody": 1},
    )
    del said["messages"]
    assert said == {
        "stream": True,
        "max_output_tokens": 9,
        "temperature": 0.01,
        "top_p": 0.9,
        "stop": ["END"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "user_id": "u",
        "response_format": "json_object",
        "functions": [{"name": "g", "description": "g", "parameters": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "g"}},
        "penalty_score": 1.1,
        "disable_search": True,
    }
    assert sorted(fitting.dropped) == ["nobody", "seed", "temperature"]
    assert "functions" not in render(tools=(WEATHER,), tool_choice="none")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": (WEATHER, Tool("g")), "tool_choice": "required"}, "tool_choice"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
            "response_format",
        ),
        ({"seed": 1}, "seed"),
    ],
)
def test_what_has_no_place_is_left_out_or_refused(fields, name):
    lax = Fitting("box")
    render(fitting=lax, **fields)
    assert lax.dropped == (name,)
    with pytest.raises(ClientError, match=name):
        render(fitting=Fitting("box", "refuse"), **fields)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([Message("assistant", "Hello!"), Message("user", "Hi")], "messages"),
        ([Message("user", "Hi"), Message("assistant", "Hel")], "messages"),
        ([Message("system", "Be brief.")], "messages"),
        ([Message("user", (ImagePart(url="https://box/a.png"),))], "messages[0].content[0]"),
        (
            [Message("user", "Hi"), Message("assistant", tool_calls=(ToolCall("c", "f"),))],
            "messages[1].tool_calls[0].id",
        ),
    ],
)
def test_conversations_that_it_does_not_take_are_refused(messages, param):
    with pytest.raises(ClientError) as caught:
        render(*messages)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("number", "code", "status", "retryable"),
    [
        (1, "upstream_error", 502, True),
        (2, "overloaded", 503, True),
        (3, "model_not_found", 404, False),
        (4, "rate_limit_exceeded", 429, True),
        (6, "permission_denied", 403, False),
        (14, "invalid_api_key", 401, False),
        (17, "insufficient_quota", 429, False),
        (18, "rate_limit_exceeded", 429, True),
        (110, "invalid_api_key", 401, False),
        (336005, "model_not_found", 404, False),
        (336103, "context_length_exceeded", 400, False),
        (336502, "rate_limit_exceeded", 429, True),
    ],
)
def test_numbers_are_judged_whatever_the_status(number, code, status, retryable):
    error = parse_error(200, {}, json.dumps({"error_code": number, "error_msg": "So."}).encode())
    assert (error.code, error.status, error.retryable) == (code, status, retryable)
    assert isinstance(error, TokenRefused) is (number == 110)


def test_a_gateway_of_baidu_s_says_it_in_headers():
    error = parse_error(403, {"x-bce-error-code": "AccessDenied", "x-bce-error-message": "Signed wrong"}, b"")
    assert (error.status, "Signed wrong" in error.message) == (403, True)
    assert parse_error(502, {}, b"<html>bad gateway</html>").status == 502
