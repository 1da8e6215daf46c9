"""DashScope's own format: the shared vectors through its decoder, and requests and errors."""

import json
from typing import Any

import pytest

from penstock.types.errors import ClientError
from penstock.types.requests import FilePart, GenerationRequest, ImagePart, Message, TextPart, Tool, ToolCall
from penstock.wire.dashscope import DashScopeDecoder, is_elsewhere, parse_error, render_request
from penstock.wire.dashscope_requests import is_multimodal
from penstock.wire.fitting import Fitting
from tests.vectors import Vector, each_vector
from tests.wire.decoding import check, check_distorted

WEATHER = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})


def render(*messages: Message, fitting: Fitting | None = None, **fields: Any) -> Any:
    request = GenerationRequest("asked", messages or (Message("user", "Hi"),), **fields)
    return json.loads(render_request(request, "qwen-plus", fitting or Fitting("box")))


@each_vector("dashscope")
def test_vector(vector: Vector):
    check(vector, DashScopeDecoder)


@each_vector("dashscope")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, DashScopeDecoder, rounds=30)


def test_a_conversation_keeps_its_roles_and_parts():
    fitting = Fitting("box", "refuse")
    said = render(
        Message("developer", "Be brief."),
        Message(
            "user",
            (
                TextPart("What is this?"),
                ImagePart(data="AAAA", media_type="image/jpeg", detail="high"),
                ImagePart(url="https://box/a.png"),
                FilePart(url="https://box/a.mp4", media_type="video/mp4"),
                FilePart(data="BBBB", media_type="audio/wav"),
            ),
        ),
        Message("assistant", "A cat.", extra={"reasoning_content": "Whiskers."}),
        Message("user", (TextPart("And"), TextPart("now?"))),
        Message("assistant", tool_calls=(ToolCall("c1", "f", ""),)),
        Message("tool", "sunny", tool_call_id="c1"),
        fitting=fitting,
    )
    function = {"name": "f", "arguments": "{}"}
    assert said["model"] == "qwen-plus"
    assert said["input"]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"text": "What is this?"},
                {"image": "data:image/jpeg;base64,AAAA"},
                {"image": "https://box/a.png"},
                {"video": "https://box/a.mp4"},
                {"audio": "data:audio/wav;base64,BBBB"},
            ],
        },
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "And\nnow?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "index": 0, "function": function}],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    ]
    assert fitting.dropped == ("image_url.detail", "reasoning_content")


def test_the_beginning_of_an_answer_is_gone_on_from():
    messages = render(Message("user", "Hi"), Message("assistant", "Hel"))["input"]["messages"]
    assert messages[-1] == {"role": "assistant", "content": "Hel", "partial": True}


def test_parameters_have_dashscope_s_names():
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    said = render(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=0,
        stop=("END",),
        presence_penalty=0.1,
        n=2,
        logprobs=True,
        top_logprobs=3,
        reasoning_effort="low",
        response_format=shape,
        extra={"top_k": 4, "enable_search": True, "nobody": 1},
    )
    assert said["parameters"] == {
        "result_format": "message",
        "incremental_output": True,
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 0,
        "stop": ["END"],
        "presence_penalty": 0.1,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "enable_thinking": True,
        "response_format": shape,
        "top_k": 4,
        "enable_search": True,
    }
    assert render(reasoning_effort="none")["parameters"]["enable_thinking"] is False
    own = render(reasoning_effort="high", extra={"enable_thinking": False, "thinking_budget": 5})
    assert own["parameters"]["enable_thinking"] is False


@pytest.mark.parametrize(
    ("choice", "wanted", "count"),
    [
        ("auto", None, 2),
        ("none", "none", 2),
        ("required", "required", 2),
        ({"type": "function", "function": {"name": "g"}}, {"type": "function", "function": {"name": "g"}}, 1),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"name": "g"}]}}, None, 1),
    ],
)
def test_a_choice_of_tools_is_said(choice, wanted, count):
    asked = render(tools=(WEATHER, Tool("g")), tool_choice=choice, parallel_tool_calls=False)["parameters"]
    assert (asked.get("tool_choice"), len(asked["tools"])) == (wanted, count)
    assert asked["parallel_tool_calls"] is False
    assert asked["tools"][-1]["function"] == {"name": "g", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "sometimes"}, "tool_choice"),
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
    "message",
    [
        Message("user", (FilePart(data="AAAA", media_type="application/pdf"),)),
        Message("user", (FilePart(id="file-1"),)),
        Message("system", (ImagePart(url="https://box/a.png"),)),
    ],
)
def test_parts_that_it_does_not_take_are_refused_by_name(message):
    with pytest.raises(ClientError) as caught:
        render(message)
    assert caught.value.param == "messages[0].content[0]"


@pytest.mark.parametrize(
    ("model", "sees"),
    [
        ("qwen-vl-max", True),
        ("qwen2.5-vl-72b-instruct", True),
        ("qwen3-vl-plus", True),
        ("qvq-max", True),
        ("qwen-vl-ocr", True),
        ("qwen-omni-turbo", True),
        ("qwen-plus", False),
        ("qwq-32b", False),
        ("developer-novel", False),
    ],
)
def test_a_model_s_name_tells_whether_it_sees(model, sees):
    assert is_multimodal(GenerationRequest("m", (Message("user", "Hi"),)), model) is sees


@pytest.mark.parametrize(
    ("status", "said", "code", "retryable"),
    [
        (401, "InvalidApiKey", "invalid_api_key", False),
        (403, "AccessDenied.Unpurchased", "permission_denied", False),
        (403, "Model.AccessDenied", "permission_denied", False),
        (403, "AllocationQuota.FreeTierOnly", "insufficient_quota", False),
        (404, "ModelNotFound", "model_not_found", False),
        (400, "Arrearage", "insufficient_quota", False),
        (400, "DataInspectionFailed", "content_filter", False),
        (400, "InvalidParameter.DataInspection", "content_filter", False),
        (400, "InvalidParameter", "invalid_request", False),
        (429, "Throttling.AllocationQuota", "rate_limit_exceeded", True),
        (429, "Throttling.BurstRate", "rate_limit_exceeded", True),
        (500, "InternalError.Algo", "upstream_error", True),
        (500, "InternalError.Timeout", "timeout", True),
        (503, "ModelUnavailable", "overloaded", True),
    ],
)
def test_error_codes_are_judged_word_by_word(status, said, code, retryable):
    body = json.dumps({"code": said, "message": "So it is.", "request_id": "r"}).encode()
    error = parse_error(status, {"retry-after": "3"}, body)
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, 3)
    assert "So it is." in error.message
    assert not is_elsewhere(error)


def test_a_prompt_that_is_too_long_is_told_as_such():
    said = "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]"
    error = parse_error(400, {}, json.dumps({"code": "InvalidParameter", "message": said}).encode())
    assert error.code == "context_length_exceeded"


def test_the_other_path_is_known_by_its_words():
    body = b'{"code":"InvalidParameter","message":"url error, please check url!"}'
    error = parse_error(400, {}, body)
    assert (error.code, error.status, is_elsewhere(error)) == ("model_not_found", 404, True)
    assert parse_error(502, {}, b"<html>bad gateway</html>").status == 502
