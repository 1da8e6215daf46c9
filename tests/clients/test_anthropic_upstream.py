"""Claude behind the gateway, as people have it: two variables set, Anthropic's SDK or OpenAI's in front."""

import json

import anthropic
import openai
import pytest

from tests.clients.anthropic_server import KEY, MODELS, SIGNATURE, running
from tests.clients.gateway import PATIENCE, serving

LISTEN = {"heartbeat": 0.05, "commit_after": 10.0}
HASTY = {"listen": LISTEN, "retry": {"tries": 1, "tries_in_all": 1}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "get_weather", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
BROKEN = ["claude-breaks", "claude-truncates", "claude-resets"]


def says(text="one two <three> 流", model="claude-echo", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def tells(*arguments, **more):
    return {"max_tokens": 1000, **says(*arguments, **more)}


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server, tmp_path_factory):
    """A gateway that was told of Anthropic what Anthropic's own programs are told; it tries once."""
    folder = tmp_path_factory.mktemp("gateway")
    environ = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.url}
    with serving(folder, HASTY, **environ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def claude(gateway):
    with anthropic.Anthropic(
        base_url=gateway.url, api_key="unused", max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


@pytest.fixture(scope="module")
def gpt(gateway):
    with openai.OpenAI(base_url=gateway.api, api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        yield client.chat.completions


def final(claude, **request):
    with claude.messages.stream(**request) as stream:
        return stream.get_final_message()


def read(stream, into):
    """Put what comes ``into`` a list, as far as it comes."""
    for item in stream:
        into.append(item)


# --- the fake, before its judge ----------------------------------------------------------------------


def test_anthropics_own_client_takes_our_server_for_an_anthropic(server):
    with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as theirs:
        assert [model.id for model in theirs.models.list()] == list(MODELS)
        message = final(theirs, **tells(model="claude-thinker", thinking={"type": "adaptive"}))
        assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text"]
        assert message.content[0].signature == SIGNATURE
        message = final(theirs, **tells(model="claude-caller", tools=[WEATHER]))
        assert [block.input["city"] for block in message.content[1:]] == ["Paris", "Łódź"]
        assert theirs.messages.count_tokens(**says()).input_tokens > 10
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            final(theirs, **tells(model="claude-breaks"))
        with pytest.raises(anthropic.OverloadedError):
            final(theirs, **tells(model="claude-overloaded"))
    stranger = anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError):
        final(stranger, **tells())


# --- Anthropic's clients: nothing is lost ------------------------------------------------------------


def test_an_answer_streams_with_its_counts(claude):
    with claude.messages.stream(**tells()) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert pieces == ["one", " two", " <three>", " 流"]
    assert (message.stop_reason, message.model) == ("end_turn", "claude-echo-20260101")
    usage = message.usage
    assert (usage.output_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
        4,
        5,
        3,
    )
    assert usage.service_tier == "standard"


def test_an_answer_that_does_not_stream_is_the_same_answer(claude):
    whole = claude.messages.create(**tells())
    assert whole.content[0].text == "one two <three> 流"
    assert whole.usage.output_tokens == 4


def test_a_request_reaches_anthropic_as_it_was(claude, server):
    content = [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]
    request = {
        "model": "claude-echo",
        "max_tokens": 1000,
        "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [{"role": "user", "content": content}],
        "tools": [WEATHER],
        "tool_choice": {"type": "none"},
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "context_management": {"edits": []},
    }
    more = {"extra_body": {"context_management": request["context_management"]}}
    sent = {name: value for name, value in request.items() if name != "context_management"}
    claude.messages.create(**sent, **more, extra_headers={"anthropic-beta": "context-management-2025-06-27"})
    asked = server.asked[-1]
    assert asked.body == {**request, "stream": True}
    assert asked.headers["anthropic-beta"] == "context-management-2025-06-27"
    assert asked.headers["anthropic-version"] == claude.default_headers["anthropic-version"]
    assert asked.headers["x-api-key"] == KEY


def test_thoughts_come_with_their_signatures_and_go_back(claude, server):
    request = tells(model="claude-thinker", thinking={"type": "adaptive"})
    message = final(claude, **request)
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text"]
    assert (message.content[0].thinking, message.content[0].signature) == ("Let me see.", SIGNATURE)
    request["messages"] += [message.to_param(), {"role": "user", "content": "And?"}]
    assert final(claude, **request).content[-1].text == "And?"
    assert server.asked[-1].body["messages"][1]["content"][0]["signature"] == SIGNATURE


def test_tools_are_called_in_parallel_and_their_results_are_answered(claude):
    request = tells(model="claude-caller", tools=[WEATHER])
    message = final(claude, **request)
    calls = message.content[1:]
    assert [(call.id, call.input["city"]) for call in calls] == [("toolu_0", "Paris"), ("toolu_1", "Łódź")]
    assert message.stop_reason == "tool_use"
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"} for call in calls]
    request["messages"] += [message.to_param(), {"role": "user", "content": results}]
    assert final(claude, **request).content[0].text == 'toolu_0="Sunny";toolu_1="Sunny";'


def test_what_only_anthropic_knows_comes_through(claude):
    message = final(claude, **tells(model="claude-searcher"))
    assert [block.type for block in message.content] == ["server_tool_use", "web_search_tool_result", "text"]
    assert message.content[0].input == {"query": "x"}
    assert message.content[2].citations[0].cited_text == "x"
    whole = claude.messages.create(**tells(model="claude-searcher"))
    said = [block.to_dict(exclude_none=True) for block in message.content]
    assert [block.to_dict(exclude_none=True) for block in whole.content] == said


def test_a_refusal_says_why(claude):
    message = final(claude, **tells(model="claude-refuser"))
    assert (message.stop_reason, message.stop_details.category) == ("refusal", "cyber")


def test_a_whole_message_in_a_streams_place_is_understood(claude):
    assert final(claude, **tells(model="claude-whole")).content[0].text == "one two <three> 流"


def test_tokens_are_counted_by_anthropic(claude, server):
    count = claude.messages.count_tokens(**says(), system="S", extra_headers={"anthropic-beta": "b"})
    assert count.to_dict() == {"input_tokens": count.input_tokens}
    assert server.asked[-1].path == "/v1/messages/count_tokens"
    assert server.asked[-1].body == {**says(), "system": "S"}
    assert server.asked[-1].headers["anthropic-beta"] == "b"


def test_its_models_are_listed_and_found(claude, gpt, gateway):
    listed = {model.id: model for model in claude.models.list()}
    assert set(MODELS) < set(listed)
    assert listed["claude-echo"].display_name == "Claude-Echo"
    assert listed["claude-echo"].created_at.year == 2026
    assert gateway.get("/v1/models/claude-echo")["owned_by"] == "anthropic"


@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("claude-nope", anthropic.NotFoundError, "not_found_error"),
        ("claude-limited", anthropic.RateLimitError, "rate_limit_error"),
        ("claude-overloaded", anthropic.OverloadedError, "overloaded_error"),
        ("claude-poor", anthropic.PaymentRequiredError, "billing_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_it_refuses_is_told_as_it_was(claude, model, error, kind, stream):
    with pytest.raises(error) as caught:
        claude.messages.create(**tells(model=model), stream=stream)
    assert caught.value.type == kind
    if model == "claude-limited":
        assert caught.value.response.headers["retry-after"] == "7"


def test_a_bad_request_is_told_in_its_words(claude):
    bad = [{"role": "user", "content": [{"type": "text", "text": " "}]}]
    with pytest.raises(anthropic.BadRequestError, match="non-whitespace"):
        claude.messages.create(**{**tells(), "messages": bad})


@pytest.mark.parametrize("model", BROKEN)
def test_an_answer_that_breaks_off_never_looks_whole(claude, model):
    seen = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        read(claude.messages.create(**tells(model=model), stream=True), seen)
    kinds = [event.type for event in seen]
    assert "content_block_delta" in kinds
    assert not {"message_delta", "message_stop"} & set(kinds)
    assert caught.value.type == ("overloaded_error" if model == "claude-breaks" else "api_error")
    with pytest.raises(anthropic.APIStatusError):
        claude.messages.create(**tells(model=model))


def test_breaking_off_reaches_anthropic(claude, server):
    with claude.messages.create(**tells(model="claude-endless"), stream=True) as stream:
        for _, event in zip(range(5), stream, strict=False):
            assert event.type
    assert server.asked[-1].left.wait(PATIENCE)


def test_silence_is_borne(claude, server):
    assert final(claude, **tells(model="claude-pausing")).content[0].text == "before after"
    server.ready.clear()
    with claude.messages.create(**tells(model="claude-slow"), stream=True) as stream:
        server.ready.set()
        assert [event.type for event in stream][-1] == "message_stop"


def test_the_gateways_key_is_no_business_of_a_client(tmp_path, server):
    environ = {"ANTHROPIC_API_KEY": "sk-ant-of-nobody", "ANTHROPIC_BASE_URL": server.url}
    with (
        serving(tmp_path, HASTY, **environ) as gateway,
        anthropic.Anthropic(base_url=gateway.url, api_key="unused", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**tells())
    assert "sk-ant" not in caught.value.api_message
    assert "gateway's credentials" in caught.value.api_message


# --- OpenAI's clients --------------------------------------------------------------------------------


def reasons(chunks):
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


def test_openais_client_gets_text_and_counts(gpt, server):
    usage = {"stream_options": {"include_usage": True}}
    chunks = list(gpt.create(**says(), temperature=0.2, top_p=0.9, stream=True, **usage))
    pieces = [c.delta.content for chunk in chunks for c in chunk.choices if c.delta.content]
    assert pieces == ["one", " two", " <three>", " 流"]
    assert reasons(chunks) == ["stop"]
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 5
    assert server.asked[-1].body["max_tokens"] == 32_000


def test_openais_client_gets_reasoning(gpt):
    message = gpt.create(**says(model="claude-thinker"), reasoning_effort="high").choices[0].message
    assert message.reasoning_content == "Let me see."
    assert message.content == "one two <three> 流"
    message = gpt.create(**says(model="claude-3-5-old"), reasoning_effort="high").choices[0].message
    assert not hasattr(message, "reasoning_content")


@pytest.mark.parametrize("effort", [None, "high"])
def test_openais_client_calls_tools_and_answers_them(gpt, effort):
    thinking = {"reasoning_effort": effort} if effort else {}
    request = says("Weather?", model="claude-caller", tools=[FUNCTION], **thinking)
    with gpt.stream(**request) as stream:
        message = stream.get_final_completion().choices[0].message
    arguments = [json.loads(call.function.arguments) for call in message.tool_calls]
    assert arguments == [{"city": "Paris", "days": 2}, {"city": "Łódź", "days": 2}]
    results = [{"role": "tool", "tool_call_id": c.id, "content": "Sunny"} for c in message.tool_calls]
    history = {"role": "assistant", "content": message.content}
    history["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    for call in history["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
        call.pop("index", None)
    request["messages"] = [*request["messages"], history, *results]
    answer = gpt.create(**request).choices[0]
    assert answer.message.content == 'toolu_0="Sunny";toolu_1="Sunny";'


def test_openais_client_declines_parallel_calls_and_forces_one(gpt):
    request = says(model="claude-caller", tools=[FUNCTION], parallel_tool_calls=False)
    assert len(gpt.create(**request).choices[0].message.tool_calls) == 1
    forced = says(model="claude-caller", tools=[FUNCTION], tool_choice="required", reasoning_effort="high")
    assert gpt.create(**forced).choices[0].finish_reason == "tool_calls"


def test_an_untidy_conversation_of_openais_client_is_taken(gpt):
    messages = [
        {"role": "assistant", "content": "How can I help?"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ""},
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
    ]
    assert gpt.create(**{**says(), "messages": messages}).choices[0].message.content == "one two"


def test_a_refusal_is_filtered_content_to_openais_client(gpt):
    assert gpt.create(**says(model="claude-refuser")).choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize("model", BROKEN)
def test_an_answer_that_breaks_off_raises_in_openais_client(gpt, model):
    seen = []
    with pytest.raises(openai.APIError):
        read(gpt.create(**says(model=model), stream=True), seen)
    assert seen
    assert reasons(seen) == []


def test_what_claude_cannot_do_is_refused_to_openais_client(gpt):
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.create(**says(), n=2)
    assert caught.value.param == "n"
