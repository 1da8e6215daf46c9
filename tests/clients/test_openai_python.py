"""OpenAI's Python SDK, unchanged but for its base URL: each test with its client and its async client."""

import asyncio
import json
import time
from contextlib import closing, contextmanager

import openai
import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving, wait_for

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def says(text="one two three", model="demo-echo", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


class Sync:
    """The SDK's client, with what the tests do with it."""

    def __init__(self, **options):
        self.client = openai.OpenAI(**{"api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **options})
        self.completions = self.client.chat.completions

    def close(self):
        self.client.close()

    def run(self, value):
        return value

    def chunks(self, *, into=None, **request):
        """Return the chunks of a streamed answer; on the way they are put ``into`` a list."""
        into = [] if into is None else into
        for chunk in self.completions.create(**request, stream=True):
            into.append(chunk)
        return into

    def first_chunks(self, count, **request):
        """Read so many chunks and break off."""
        with self.completions.create(**request, stream=True) as stream:
            for chunk in stream:
                count -= 1
                if not count:
                    return chunk
        raise AssertionError("the answer ended")

    def accumulate(self, **request):
        """Return what the SDK's own helper makes of a streamed answer."""
        with self.completions.stream(**request) as stream:
            for _ in stream:
                pass
            return stream.get_final_completion()

    def models(self):
        return list(self.client.models.list())


class Async:
    """As `Sync`, with the async client and a loop of its own."""

    def __init__(self, **options):
        options = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **options}
        self.client = openai.AsyncOpenAI(**options)
        self.completions = self.client.chat.completions
        self.runner = asyncio.Runner()

    def close(self):
        self.run(self.client.close())
        self.runner.close()

    def run(self, value):
        async def wait():
            return await value

        return self.runner.run(wait())

    def chunks(self, *, into=None, **request):
        into = [] if into is None else into

        async def read():
            async for chunk in await self.completions.create(**request, stream=True):
                into.append(chunk)

        self.run(read())
        return into

    def first_chunks(self, count, **request):
        async def read():
            left = count
            async with await self.completions.create(**request, stream=True) as stream:
                async for chunk in stream:
                    left -= 1
                    if not left:
                        return chunk
            raise AssertionError("the answer ended")

        return self.run(read())

    def accumulate(self, **request):
        async def read():
            async with self.completions.stream(**request) as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_completion()

        return self.run(read())

    def models(self):
        async def read():
            return [model async for model in self.client.models.list()]

        return self.run(read())


@contextmanager
def using(kind, **options):
    with closing(kind(**options)) as sdk:
        yield sdk


@pytest.fixture(params=[Sync, Async])
def kind(request):
    return request.param


@pytest.fixture
def sdk(kind, gateway):
    with using(kind, base_url=gateway.api) as sdk:
        yield sdk


def text_of(chunks, index=0):
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def finish_reasons(chunks):
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


# --- answers -----------------------------------------------------------------------------------------


def test_a_streamed_answer_comes_in_pieces_and_is_the_whole_answer(sdk):
    chunks = sdk.chunks(**says())
    assert [c.choices[0].delta.content for c in chunks] == ["", "one", " two", " three", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert finish_reasons(chunks) == ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"demo-echo"}


def test_an_answer_that_does_not_stream_is_the_same_answer(sdk):
    whole = sdk.run(sdk.completions.create(**says("Tell me about streams.", model="demo")))
    assert whole.choices[0].message.content == text_of(
        sdk.chunks(**says("Tell me about streams.", model="demo"))
    )
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0


def test_usage_comes_in_a_last_chunk_of_its_own_when_it_is_asked_for(sdk):
    chunks = sdk.chunks(**says(), stream_options={"include_usage": True})
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3


def test_usage_does_not_come_when_it_is_not_asked_for(sdk):
    assert all(chunk.usage is None and chunk.choices for chunk in sdk.chunks(**says()))


def test_parallel_tool_calls_come_in_fragments_that_join_to_json(sdk):
    calls = {}
    for chunk in sdk.chunks(**says("Weather?", model="demo-tools"), tools=[WEATHER]):
        for piece in chunk.choices[0].delta.tool_calls or ():
            calls.setdefault(piece.index, []).append(piece)
    assert sorted(calls) == [0, 1]
    for pieces in calls.values():
        assert len(pieces) > 2
        assert [bool(piece.id) for piece in pieces] == [True] + [False] * (len(pieces) - 1)
        assert pieces[0].function.name == "get_weather"
        arguments = "".join(piece.function.arguments for piece in pieces)
        assert json.loads(arguments).keys() == {"city"}


def test_the_stream_helper_accumulates_tool_calls(sdk):
    final = sdk.accumulate(**says("Weather?", model="demo-tools"), tools=[WEATHER])
    whole = sdk.run(sdk.completions.create(**says("Weather?", model="demo-tools"), tools=[WEATHER]))
    assert final.choices[0].finish_reason == "tool_calls"
    called = [(call.id, call.function.name, call.function.arguments) for call in _calls(whole)]
    assert [(call.id, call.function.name, call.function.arguments) for call in _calls(final)] == called
    assert len(called) == 2


def test_one_tool_is_called_when_parallel_calls_are_declined_and_its_result_is_answered(sdk):
    request = says("Weather?", model="demo-tools", tools=[WEATHER], parallel_tool_calls=False)
    message = sdk.run(sdk.completions.create(**request)).choices[0].message
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 °C"}
    request["messages"] = [*request["messages"], message.model_dump(exclude_none=True), result]
    assert "Sunny, 21 °C" in text_of(sdk.chunks(**request))


def _calls(completion):
    return completion.choices[0].message.tool_calls


def test_two_choices_are_told_apart(sdk):
    chunks = sdk.chunks(**says("Hello", model="demo", n=2))
    first, second = text_of(chunks, 0), text_of(chunks, 1)
    assert (first[:15], second[:15]) == ("*Answer 1 of 2*", "*Answer 2 of 2*")
    assert finish_reasons(chunks) == ["stop", "stop"]
    whole = sdk.run(sdk.completions.create(**says("Hello", model="demo", n=2)))
    assert [choice.message.content for choice in whole.choices] == [first, second]


def test_reasoning_comes_before_the_answer_and_apart_from_it(sdk):
    deltas = [c.choices[0].delta for c in sdk.chunks(**says(model="demo-reasoning"))]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    whole = sdk.run(sdk.completions.create(**says(model="demo-reasoning")))
    assert thought
    assert whole.choices[0].message.reasoning_content == thought
    assert thought not in whole.choices[0].message.content


def test_a_refusal_is_no_content(sdk):
    final = sdk.accumulate(**says(model="demo-refusal"))
    assert final.choices[0].message.refusal
    assert not final.choices[0].message.content


def test_an_empty_answer_is_an_answer(sdk):
    chunks = sdk.chunks(**says(model="demo-empty"))
    assert text_of(chunks) == ""
    assert finish_reasons(chunks) == ["stop"]


def test_a_limit_of_tokens_shows_in_the_finish_reason(sdk):
    assert finish_reasons(sdk.chunks(**says(max_tokens=2))) == ["length"]


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found(sdk, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.run(sdk.completions.create(**says(model="nope"), stream=stream))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "nope" in caught.value.message


@pytest.mark.parametrize(
    ("wrong", "param"),
    [({"messages": []}, "messages"), ({"n": 0}, "n"), ({"temperature": "hot"}, "temperature")],
)
def test_a_bad_request_says_which_parameter_is_bad(sdk, wrong, param):
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.run(sdk.completions.create(**{**says(), **wrong}))
    assert caught.value.param == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_is_an_error_with_the_time_to_wait(sdk, stream):
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.run(sdk.completions.create(**says(model="demo-rate-limited"), stream=stream))
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.request_id.startswith("req_")


def test_the_sdk_retries_a_rate_limit_when_it_was_told_to(kind, gateway):
    script = {"penstock_script": {"retry_after": 1.0}}
    began = time.monotonic()
    with (
        using(kind, base_url=gateway.api, max_retries=1) as sdk,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        sdk.run(sdk.completions.create(**says(model="demo-rate-limited"), extra_body=script, stream=True))
    assert caught.value.request.headers["x-stainless-retry-count"] == "1"
    assert time.monotonic() - began >= 1.0  # its own back-off would be over sooner


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_provider_is_a_server_error(sdk, stream):
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.run(sdk.completions.create(**says(model="demo-overloaded"), stream=stream))
    assert (caught.value.status_code, caught.value.code) == (503, "overloaded")


BROKEN = [
    ("demo-error", "upstream_error"),
    ("demo-cut", "upstream_reset"),
    ("demo-truncated", "upstream_truncated"),
]


@pytest.mark.parametrize(("model", "code"), BROKEN)
def test_an_answer_that_breaks_off_raises_after_what_came(sdk, model, code):
    chunks = []
    with pytest.raises(openai.APIError) as caught:
        sdk.chunks(**says("Hello", model=model), into=chunks)
    assert caught.value.code == code
    assert caught.value.message
    assert text_of(chunks)
    assert finish_reasons(chunks) == []


@pytest.mark.parametrize(("model", "code"), BROKEN)
def test_an_answer_that_breaks_off_is_an_error_where_nothing_streams(sdk, model, code):
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.run(sdk.completions.create(**says("Hello", model=model)))
    assert (caught.value.status_code, caught.value.code) == (502, code)


def test_keys_are_checked_where_they_are_configured(kind, tmp_path, upstream):
    with serving(tmp_path, settings(upstream, keys={"app": "a-secret-key"})) as gateway:
        with using(kind, base_url=gateway.api, api_key="a-secret-key") as sdk:
            assert text_of(sdk.chunks(**says())) == "one two three"
        with using(kind, base_url=gateway.api, api_key="wrong") as sdk:
            with pytest.raises(openai.AuthenticationError) as caught:
                sdk.chunks(**says())
            assert caught.value.code == "invalid_api_key"


# --- leaving, silence, coming back -------------------------------------------------------------------


def test_breaking_off_stops_the_model(sdk, gateway, upstream):
    chunk = sdk.first_chunks(5, **says(model="endless"))
    assert upstream.asked[-1].left.wait(PATIENCE)
    stream = gateway.wait_closed(chunk.id)
    assert (stream["status"], stream["end"]["code"]) == ("cancelled", "client_disconnected")


def test_leaving_an_answer_that_does_not_stream_stops_the_model(kind, gateway, upstream):
    before = len(upstream.asked)
    with using(kind, base_url=gateway.api, timeout=0.3) as sdk, pytest.raises(openai.APITimeoutError):
        sdk.run(sdk.completions.create(**says(model="endless")))
    assert len(upstream.asked) == before + 1
    assert upstream.asked[-1].left.wait(PATIENCE)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("pausing", {"extra_headers": {"Accept": "text/event-stream"}}),
        ("pausing", {"extra_query": {"ids": "1"}}),
        ("slow-start", {"extra_query": {"ids": "1"}}),
    ],
)
def test_heartbeats_between_ids_do_not_disturb_it(kind, relay, model, more):
    with using(kind, base_url=f"{relay.url}/v1") as sdk:
        assert finish_reasons(sdk.chunks(**says("Hello", model=model), **more)) == ["stop"]
    assert relay.down.count(b"\nid: s_") > 3
    assert relay.down.count(b"\r\n:\n\r\n") > 2
    assert b": keep-alive" not in relay.down


@pytest.mark.parametrize("model", ["pausing", "slow-start"])
def test_heartbeats_without_ids_do_not_disturb_it(kind, relay, model):
    with using(kind, base_url=f"{relay.url}/v1") as sdk:
        assert finish_reasons(sdk.chunks(**says("Hello", model=model))) == ["stop"]
    assert b"\nid:" not in relay.down
    assert relay.down.count(b": keep-alive\n\n") > 2


def test_the_same_idempotency_key_gives_the_same_answer(sdk, gateway):
    key = {"extra_headers": {"Idempotency-Key": f"same-{type(sdk).__name__}"}}
    first = sdk.run(sdk.completions.create(**says(), **key))
    again = sdk.run(sdk.completions.create(**says(), **key))
    assert again == first
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        sdk.run(sdk.completions.create(**says("something else"), **key))
    assert caught.value.code == "idempotency_key_reused"


def test_the_same_idempotency_key_gives_the_same_stream(sdk):
    key = {"extra_headers": {"Idempotency-Key": f"stream-{type(sdk).__name__}"}}
    assert sdk.chunks(**says(), **key) == sdk.chunks(**says(), **key)


# --- models and headers ------------------------------------------------------------------------------


def test_models_are_listed_and_found(sdk):
    names = [model.id for model in sdk.models()]
    assert {"demo", "demo-echo", "paced", "endless"} <= set(names)
    assert sdk.run(sdk.client.models.retrieve("demo")).id == "demo"
    with pytest.raises(openai.NotFoundError):
        sdk.run(sdk.client.models.retrieve("nope"))


@pytest.mark.parametrize("stream", [False, True])
def test_headers_name_the_stream_and_the_request(sdk, gateway, stream):
    raw = sdk.run(sdk.completions.with_raw_response.create(**says(), stream=stream))
    assert raw.headers["stream-id"].startswith("s_")
    assert raw.request_id.startswith("req_")
    assert wait_for(lambda: gateway.get(f"/v1/streams/{raw.headers['stream-id']}")["text"] == "one two three")
    if stream:
        sdk.run(raw.parse().close())


def test_an_answer_knows_its_request_id(sdk):
    whole = sdk.run(sdk.completions.create(**says()))
    assert whole._request_id.startswith("req_")
