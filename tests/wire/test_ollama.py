"""The Ollama dialect: the shared vectors through its decoder, and requests and errors."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import ClientError, UpstreamError
from penstock.types.events import TextDelta, ToolCallDelta
from penstock.types.requests import (
    FilePart,
    GenerationRequest,
    ImagePart,
    Message,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.wire.ndjson import MAX_LINE
from penstock.wire.ollama import MAX_TOOL_CALLS, OllamaDecoder, Preferences, parse_error, render_request
from penstock.wire.openai_chat import OPENAI_CHAT
from tests.vectors import Vector, cut_at, each_vector, octets
from tests.wire.decoding import check, check_distorted, run

GENERATE = Preferences(api="generate")
WEATHER = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})


def render(*messages: Message, to: Preferences | None = None, model: str = "llama3.2", **fields: Any) -> Any:
    request = GenerationRequest("asked", messages or (Message("user", "Hi"),), **fields)
    return json.loads(render_request(request, model, to or Preferences()))


def refused(*messages: Message, **fields: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        render(*messages, **fields)
    assert caught.value.status == 400
    return caught.value


def of_client(**body: Any) -> Any:
    """What a client's Chat Completions request becomes."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    request = OPENAI_CHAT.parse_request(json.dumps(body).encode())
    return json.loads(render_request(request, "llama3.2"))


# --- the stream ------------------------------------------------------------------------------------


@each_vector("ollama")
def test_vector(vector: Vector):
    check(vector, OllamaDecoder)


@each_vector("ollama")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, OllamaDecoder)


@each_vector("ollama")
def test_skipped_lines_are_counted(vector: Vector):
    decoder = OllamaDecoder()
    if run(decoder, [octets(vector.content, "input")]).error is None:
        assert decoder.skipped == vector.content.get("skipped", 0)


def line(content: str = "", *, done: bool = False, **message: Any) -> bytes:
    said = {"role": "assistant", "content": content, **message}
    value = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": said, "done": done}
    return json.dumps(value).encode() + b"\n"


@given(texts=st.lists(st.text(min_size=1), max_size=8), cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_any_text_in_any_pieces_arrives(texts: list[str], cuts: list[int]):
    body = b"".join(line(text) for text in texts) + line(done=True)
    outcome = run(OllamaDecoder(), cut_at(body, [min(cut, len(body)) for cut in cuts]))
    assert outcome.error is None
    assert [event.delta for event in outcome.events if isinstance(event, TextDelta)] == texts


def test_an_error_after_text_in_one_read_is_raised_by_the_next_call():
    decoder = OllamaDecoder()
    events = decoder.feed(line("A") + b'{"error":"gone"}\n')
    assert [event.delta for event in events if isinstance(event, TextDelta)] == ["A"]
    assert decoder.finished
    for call in (lambda: decoder.feed(b""), decoder.flush):
        with pytest.raises(UpstreamError, match="gone"):
            call()


def test_the_last_line_finishes_the_decoder():
    decoder = OllamaDecoder()
    decoder.feed(line("A"))
    assert not decoder.finished
    decoder.feed(line(done=True))
    assert decoder.finished
    assert decoder.feed(line("B")) == ()
    assert decoder.flush() == []


def test_calls_without_end_are_cut_off():
    call = {"function": {"name": "f", "arguments": {}}}
    body = line(tool_calls=[call] * (MAX_TOOL_CALLS + 1))
    outcome = run(OllamaDecoder(), [body])
    assert sum(isinstance(event, ToolCallDelta) for event in outcome.events) == MAX_TOOL_CALLS
    assert outcome.error is not None
    assert outcome.error.code == "upstream_malformed"


def test_a_line_without_end_is_cut_off():
    outcome = run(OllamaDecoder(), [b"x" * (MAX_LINE // 4)] * 5)
    assert outcome.error is not None
    assert outcome.error.code == "upstream_frame_too_large"


# --- requests --------------------------------------------------------------------------------------


def test_a_conversation_streams_and_keeps_its_roles():
    said = render(Message("developer", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes?"))
    assert said == {
        "model": "llama3.2",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"},
        ],
    }


def test_settings_become_options():
    said = of_client(
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop="END",
        max_tokens=20,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
        user="somebody",
        store=False,
        metadata={"a": "b"},
    )
    assert said["options"] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "num_predict": 20,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
    }
    assert (said["logprobs"], said["top_logprobs"]) == (True, 3)
    assert not {"user", "store", "metadata"} & said.keys()


def test_fields_of_ollamas_own_are_handed_on():
    said = of_client(
        top_k=40,
        num_ctx=8192,
        options={"num_ctx": 16384, "temperature": 2, "mirostat": 1},
        temperature=0,
        keep_alive="1h",
        think=True,
        truncate=False,
        penguin=1,
    )
    assert said["options"] == {"top_k": 40, "num_ctx": 16384, "mirostat": 1, "temperature": 0}
    assert (said["keep_alive"], said["think"], said["truncate"]) == ("1h", True, False)
    assert "penguin" not in said


def test_options_that_are_no_object_are_refused():
    with pytest.raises(ClientError) as caught:
        of_client(options="fast")
    assert caught.value.param == "options"


@pytest.mark.parametrize(("written", "sent"), [("10m", "10m"), ("-1", -1), ("0", 0), ("1.5h", "1.5h")])
def test_preferences_hold_unless_the_request_says_otherwise(written: str, sent: str | int):
    to = Preferences(keep_alive=written, num_ctx=4096)
    said = render(to=to)
    assert said["keep_alive"] == sent
    assert said["options"] == {"num_ctx": 4096}
    said = render(to=to, extra={"keep_alive": 0, "options": {"num_ctx": 1}})
    assert (said["keep_alive"], said["options"]) == (0, {"num_ctx": 1})


@pytest.mark.parametrize(
    ("model", "effort", "think"),
    [
        ("qwen3:8b", "none", False),
        ("qwen3:8b", "low", True),
        ("qwen3:8b", "high", True),
        ("gpt-oss:20b", "none", False),
        ("gpt-oss:20b", "minimal", "low"),
        ("gpt-oss:20b", "medium", "medium"),
        ("me/gpt-oss-mine", "xhigh", "high"),
    ],
)
def test_effort_is_a_level_where_models_have_levels_and_a_yes_or_no_elsewhere(
    model: str, effort: str, think: bool | str
):
    assert render(model=model, reasoning_effort=effort)["think"] == think


def test_an_effort_that_nobody_knows_is_refused():
    assert refused(reasoning_effort="extreme").param == "reasoning_effort"


def test_think_says_more_than_effort():
    assert render(reasoning_effort="low", extra={"think": "max"})["think"] == "max"


@pytest.mark.parametrize(
    ("wanted", "format"),
    [
        ({"type": "json_object"}, "json"),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}},
            {"type": "array"},
        ),
    ],
)
def test_a_format_is_asked_for(wanted: Any, format: Any):
    assert render(response_format=wanted)["format"] == format


def test_plain_text_is_no_format():
    assert "format" not in render(response_format={"type": "text"})


@pytest.mark.parametrize("wanted", [{"type": "grammar"}, {"type": "json_schema", "json_schema": {}}, {}])
def test_a_format_that_ollama_does_not_have_is_refused(wanted: Any):
    assert refused(response_format=wanted).param == "response_format"


def test_several_answers_are_refused():
    assert refused(n=2).param == "n"


def test_images_are_sent_as_they_are_and_texts_joined():
    parts = (TextPart("What is"), ImagePart(data="aGk=", media_type="image/png"), TextPart("this?"))
    said = render(Message("user", parts))
    assert said["messages"] == [{"role": "user", "content": "What is\nthis?", "images": ["aGk="]}]


def test_an_image_of_a_data_url_is_taken_out_of_it():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert of_client(messages=[{"role": "user", "content": [image]}])["messages"][0]["images"] == ["aGk="]


@pytest.mark.parametrize(
    "part",
    [ImagePart(url="https://example.com/cat.png"), FilePart(data="aGk=", media_type="application/pdf")],
)
def test_parts_that_ollama_does_not_take_are_refused_with_their_place(part: Any):
    error = refused(Message("system", "x"), Message("user", (TextPart("a"), part)))
    assert error.param == "messages[1].content[1]"


# tools


def test_tools_their_calls_and_their_results_are_told():
    calls = (ToolCall("c1", "get_weather", '{"city": "Paris"}'), ToolCall("c2", "now"))
    said = render(
        Message("user", "Weather?"),
        Message("assistant", None, tool_calls=calls, extra={"reasoning_content": "I need both."}),
        Message("tool", "Sunny", tool_call_id="c1"),
        Message("tool", (TextPart("Noon"),), tool_call_id="c2"),
        Message("tool", "?", name="other", tool_call_id="c3"),
        tools=(WEATHER, Tool("now")),
        tool_choice="auto",
        parallel_tool_calls=False,
    )
    assert said["messages"][1] == {
        "role": "assistant",
        "content": "",
        "thinking": "I need both.",
        "tool_calls": [
            {"function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}, "id": "c1"},
            {"function": {"index": 1, "name": "now", "arguments": {}}, "id": "c2"},
        ],
    }
    assert [(m["tool_call_id"], m["tool_name"], m["content"]) for m in said["messages"][2:]] == [
        ("c1", "get_weather", "Sunny"),
        ("c2", "now", "Noon"),
        ("c3", "other", "?"),
    ]
    assert [tool["function"]["name"] for tool in said["tools"]] == ["get_weather", "now"]
    assert said["tools"][1]["function"]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize("arguments", ['{"city": "Par', "[1]", "7", "{" * 5000])
def test_arguments_that_are_no_object_are_refused_with_their_place(arguments: str):
    error = refused(
        Message("user", "x"), Message("assistant", None, tool_calls=(ToolCall("c", "f", arguments),))
    )
    assert error.param == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["get_weather", "now"]),
        ("required", ["get_weather", "now"]),
        ("none", []),
        ({"type": "function", "function": {"name": "now"}}, ["now"]),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "now"}}],
                },
            },
            ["now"],
        ),
    ],
)
def test_a_choice_of_tool_decides_which_are_offered(choice: Any, names: list[str]):
    said = render(tools=(WEATHER, Tool("now")), tool_choice=choice)
    assert [tool["function"]["name"] for tool in said.get("tools", ())] == names


@pytest.mark.parametrize("choice", ["sometimes", 5, {"type": "function", "function": {"name": "other"}}])
def test_a_choice_that_cannot_be_is_refused(choice: Any):
    assert refused(tools=(WEATHER,), tool_choice=choice).param == "tool_choice"


def test_tools_of_other_kinds_are_refused_with_their_place():
    assert refused(tools=(WEATHER, Tool("", kind="web_search"))).param == "tools[1].type"
    call = ToolCall("c", "f", "x", "custom")
    assert refused(Message("assistant", None, tool_calls=(call,))).param == "messages[0].tool_calls[0].type"


# generate


def test_generate_takes_instructions_and_a_prompt():
    picture = (TextPart("Once upon"), ImagePart(data="aGk="))
    said = render(
        Message("system", "Go on."),
        Message("developer", "Be brief."),
        Message("user", picture),
        to=GENERATE,
        temperature=0,
        extra={"suffix": "the end.", "raw": False},
    )
    assert said == {
        "model": "llama3.2",
        "stream": True,
        "system": "Go on.\n\nBe brief.",
        "prompt": "Once upon",
        "images": ["aGk="],
        "suffix": "the end.",
        "raw": False,
        "options": {"temperature": 0},
    }


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([Message("user", "a"), Message("assistant", "b"), Message("user", "c")], "messages[1]"),
        ([Message("user", "a"), Message("user", "b")], "messages[1]"),
        ([Message("tool", "a", tool_call_id="c")], "messages[0]"),
        ([Message("system", "a")], "messages"),
    ],
)
def test_generate_refuses_what_is_a_conversation(messages: list[Message], param: str):
    assert refused(*messages, to=GENERATE).param == param


def test_generate_calls_no_tools():
    assert refused(to=GENERATE, tools=(WEATHER,)).param == "tools"
    assert "tools" not in render(to=GENERATE, tools=(WEATHER,), tool_choice="none")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "options",
    "think",
    "keep_alive",
    "tool_choice",
    "response_format",
    "reasoning_effort",
    "tools",
    "n",
]


@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON), content=JSON, generate=st.booleans())
def test_any_request_is_rendered_or_refused(body: dict[str, Any], content: Any, generate: bool):
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **body}
    with suppress(ClientError):
        request = OPENAI_CHAT.parse_request(json.dumps(body).encode())
        said = json.loads(render_request(request, "m", GENERATE if generate else Preferences()))
        assert said["stream"] is True


# --- errors ----------------------------------------------------------------------------------------


def failing(status: int, **body: Any) -> UpstreamError:
    return parse_error(status, {"content-type": "application/json"}, json.dumps(body).encode())


def test_a_missing_model_can_be_pulled():
    error = failing(404, error='model "llama9:70b" not found, try pulling it first')
    assert (error.code, error.status, error.retryable) == ("model_not_found", 404, False)
    assert error.message.endswith("Where Ollama runs, `ollama pull llama9:70b` gets it.")
    assert str(error) == error.message


def test_a_name_that_no_shell_should_see_is_not_quoted_as_a_command():
    assert "pull" not in failing(404, error="model '$(rm -rf .)' not found").message


def test_signing_in_is_the_owners_business_and_its_address_is_not_told():
    error = failing(401, error="unauthorized", signin_url="https://ollama.com/connect?name=box&key=abc")
    assert (error.code, error.status) == ("invalid_api_key", 401)
    assert "`ollama signin`" in error.message
    assert "connect" not in error.message


@pytest.mark.parametrize(
    ("status", "text", "code", "told", "retryable"),
    [
        (400, '"gemma" does not support tools', "invalid_request", 400, False),
        (400, "the input length exceeds the context length", "context_length_exceeded", 400, False),
        (400, "input exceeds maximum context length", "context_length_exceeded", 400, False),
        (401, "unauthorized", "invalid_api_key", 401, False),
        (429, "too many requests", "rate_limit_exceeded", 429, True),
        (499, "request canceled", "client_closed_request", 499, False),
        (500, "model requires more system memory (9 GiB) than is available", "upstream_error", 502, True),
        (502, "no route", "upstream_error", 502, True),
        (503, "server busy, please try again.  maximum pending requests exceeded", "overloaded", 503, True),
    ],
)
def test_an_error_response_is_sorted(status: int, text: str, code: str, told: int, retryable: bool):
    error = failing(status, error=text)
    assert (error.code, error.status, error.retryable) == (code, told, retryable)
    assert text.split(".")[0] in error.message


@given(status=st.integers(400, 599), body=st.binary(max_size=200))
def test_any_error_response_is_an_error(status: int, body: bytes):
    assert parse_error(status, {}, body).message
