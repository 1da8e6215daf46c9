"""Anthropic's Python SDK, unchanged but for its base URL, in front of models that are none of Anthropic's:
each test with its client and its async client."""

import asyncio
import json
from contextlib import closing, contextmanager

import anthropic
import httpx
import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving
from tests.clients.ollama_server import running as ollama

WEATHER = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def says(text="one two three", model="demo-echo", **more):
    return {"model": model, "max_tokens": 4096, "messages": [{"role": "user", "content": text}], **more}


class Sync:
    """The SDK's client, with what the tests do with it."""

    def __init__(self, **options):
        options = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **options}
        self.client = anthropic.Anthropic(**options)
        self.messages = self.client.messages

    def close(self):
        self.client.close()

    def run(self, value):
        return value

    def events(self, *, into=None, **request):
        """Return the events of a streamed answer; on the way they are put ``into`` a list."""
        into = [] if into is None else into
        for event in self.messages.create(**request, stream=True):
            into.append(event)
        return into

    def first_events(self, count, **request):
        """Read so many events and break off; return the message's id."""
        with self.messages.create(**request, stream=True) as stream:
            for event in stream:
                if event.type == "message_start":
                    id_ = event.message.id
                count -= 1
                if not count:
                    return id_
        raise AssertionError("the answer ended")

    def accumulate(self, **request):
        """Return what the SDK's own helper makes of a streamed answer."""
        with self.messages.stream(**request) as stream:
            for _ in stream:
                pass
            return stream.get_final_message()

    def models(self, **query):
        return list(self.client.models.list(**query))


class Async:
    """As `Sync`, with the async client and a loop of its own."""

    def __init__(self, **options):
        options = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **options}
        self.client = anthropic.AsyncAnthropic(**options)
        self.messages = self.client.messages
        self.runner = asyncio.Runner()

    def close(self):
        self.run(self.client.close())
        self.runner.close()

    def run(self, value):
        async def wait():
            return await value

        return self.runner.run(wait())

    def events(self, *, into=None, **request):
        into = [] if into is None else into

        async def read():
            async for event in await self.messages.create(**request, stream=True):
                into.append(event)

        self.run(read())
        return into

    def first_events(self, count, **request):
        async def read():
            left = count
            async with await self.messages.create(**request, stream=True) as stream:
                async for event in stream:
                    if event.type == "message_start":
                        id_ = event.message.id
                    left -= 1
                    if not left:
                        return id_
            raise AssertionError("the answer ended")

        return self.run(read())

    def accumulate(self, **request):
        async def read():
            async with self.messages.stream(**request) as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_message()

        return self.run(read())

    def models(self, **query):
        async def read():
            return [model async for model in self.client.models.list(**query)]

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
    with using(kind, base_url=gateway.url) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def hasty(tmp_path_factory, upstream):
    """A gateway that tries once, and does not wait before its status line goes out."""
    more = {"retry": {"tries": 1, "tries_in_all": 1}, "listen": {"commit_after": 10.0}}
    with serving(tmp_path_factory.mktemp("hasty"), settings(upstream, **more)) as gateway:
        yield gateway


@pytest.fixture
def once(kind, hasty):
    with using(kind, base_url=hasty.url) as sdk:
        yield sdk


def text_of(events):
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    return "".join(delta.text for delta in deltas if delta.type == "text_delta")


# --- answers -----------------------------------------------------------------------------------------


def test_a_streamed_answer_comes_in_pieces_in_the_order_that_is_wanted(sdk):
    events = sdk.events(**says())
    assert [event.type for event in events] == [
        *("message_start", "content_block_start"),
        *["content_block_delta"] * 3,
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert text_of(events) == "one two three"
    assert (events[0].message.model, events[0].message.role) == ("demo-echo", "assistant")
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens == 3


def test_an_answer_that_does_not_stream_is_the_same_answer(sdk):
    whole = sdk.run(sdk.messages.create(**says("Tell me about streams.", model="demo")))
    streamed = sdk.accumulate(**says("Tell me about streams.", model="demo"))
    assert whole.content[0].text == streamed.content[0].text
    assert (whole.stop_reason, whole.usage.output_tokens) == ("end_turn", streamed.usage.output_tokens)
    assert whole.usage.input_tokens > 0


def test_parallel_tool_calls_come_one_after_the_other(sdk):
    message = sdk.accumulate(**says("Weather?", model="demo-tools"), tools=[WEATHER])
    whole = sdk.run(sdk.messages.create(**says("Weather?", model="demo-tools"), tools=[WEATHER]))
    calls = [(call.id, call.name, call.input) for call in message.content if call.type == "tool_use"]
    assert len(calls) == 2
    assert all(name == "get_weather" and input.keys() == {"city"} for _, name, input in calls)
    assert calls == [(call.id, call.name, call.input) for call in whole.content if call.type == "tool_use"]
    assert message.stop_reason == whole.stop_reason == "tool_use"


def test_one_tool_is_called_when_parallel_calls_are_declined_and_its_result_is_answered(sdk):
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    request = says("Weather?", model="demo-tools", tools=[WEATHER], tool_choice=choice)
    message = sdk.run(sdk.messages.create(**request))
    (call,) = [block for block in message.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny, 21 °C"}
    request["messages"] += [message.to_param(), {"role": "user", "content": [result]}]
    assert "Sunny, 21 °C" in text_of(sdk.events(**request))


def test_reasoning_is_a_block_before_the_answer_and_may_come_back(sdk):
    request = says(model="demo-reasoning")
    message = sdk.accumulate(**request)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking
    assert message.content[0].signature == ""
    request["messages"] += [message.to_param(), {"role": "user", "content": "And?"}]
    assert sdk.accumulate(**request).stop_reason == "end_turn"


def test_a_refusal_says_so(sdk):
    message = sdk.accumulate(**says(model="demo-refusal"))
    assert message.content[0].text
    assert message.stop_reason == "refusal"


def test_an_empty_answer_is_an_answer(sdk):
    message = sdk.accumulate(**says(model="demo-empty"))
    assert (message.content, message.stop_reason) == ([], "end_turn")


def test_a_limit_of_tokens_shows_in_the_stop_reason(sdk):
    assert sdk.accumulate(**{**says(), "max_tokens": 2}).stop_reason == "max_tokens"


def test_tokens_are_estimated_where_nobody_counts_them(sdk):
    count = sdk.run(sdk.messages.count_tokens(model="demo", messages=says()["messages"], tools=[WEATHER]))
    assert count.input_tokens > 10
    assert count.to_dict()["estimated"] is True
    with pytest.raises(anthropic.NotFoundError):
        sdk.run(sdk.messages.count_tokens(model="nope", messages=says()["messages"]))


def test_models_are_listed_page_by_page_and_found(sdk, gateway):
    listed = [model["id"] for model in httpx.get(f"{gateway.api}/models").json()["data"]]
    assert [model.id for model in sdk.models(limit=3)] == listed
    assert [model.id for model in sdk.models(before_id=listed[3], limit=2)] == listed[1:3] + listed[:1]
    assert sdk.run(sdk.client.models.retrieve("demo")).type == "model"
    with pytest.raises(anthropic.NotFoundError) as caught:
        sdk.run(sdk.client.models.retrieve("nope"))
    assert caught.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        sdk.models(limit=0)


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found(sdk, stream):
    with pytest.raises(anthropic.NotFoundError) as caught:
        sdk.run(sdk.messages.create(**says(model="nope"), stream=stream))
    assert caught.value.type == "not_found_error"
    assert "nope" in caught.value.api_message
    assert caught.value.request_id == caught.value.body["request_id"]
    assert caught.value.body["error"]["code"] == "model_not_found"


def test_a_bad_request_says_which_parameter_is_bad(sdk):
    with pytest.raises(anthropic.BadRequestError) as caught:
        sdk.run(sdk.messages.create(**{**says(), "messages": []}))
    assert caught.value.type == "invalid_request_error"
    assert caught.value.body["error"]["param"] == "messages"


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_is_an_error_with_the_time_to_wait(once, stream):
    with pytest.raises(anthropic.RateLimitError) as caught:
        once.run(once.messages.create(**says(model="demo-rate-limited"), stream=stream))
    assert caught.value.type == "rate_limit_error"
    assert caught.value.response.headers["retry-after"] == "2"


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_provider_is_overloaded(once, stream):
    with pytest.raises(anthropic.OverloadedError) as caught:
        once.run(once.messages.create(**says(model="demo-overloaded"), stream=stream))
    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")


BROKEN = ["demo-error", "demo-cut", "demo-truncated"]


@pytest.mark.parametrize("model", BROKEN)
def test_an_answer_that_breaks_off_raises_after_what_came(once, model):
    events = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        once.events(**says("Hello", model=model), into=events)
    assert caught.value.type == "api_error"
    assert caught.value.api_message
    assert text_of(events)
    assert "message_delta" not in [event.type for event in events]
    with pytest.raises(anthropic.APIStatusError):
        once.accumulate(**says("Hello", model=model))


@pytest.mark.parametrize("model", BROKEN)
def test_an_answer_that_breaks_off_is_an_error_where_nothing_streams(once, model):
    with pytest.raises(anthropic.InternalServerError) as caught:
        once.run(once.messages.create(**says("Hello", model=model)))
    assert (caught.value.status_code, caught.value.type) == (502, "api_error")


def test_a_body_that_is_too_large_is_refused_in_its_words(kind, tmp_path, upstream):
    more = {"listen": {"max_body_bytes": 500}}
    with serving(tmp_path, settings(upstream, **more)) as gateway, using(kind, base_url=gateway.url) as sdk:
        with pytest.raises(anthropic.ContentTooLargeError) as caught:
            sdk.run(sdk.messages.create(**says("x" * 500)))
        assert caught.value.type == "request_too_large"


def test_what_is_not_there_is_said_in_its_words(sdk):
    with pytest.raises(anthropic.NotFoundError) as caught:
        sdk.run(sdk.client.messages.batches.retrieve("msgbatch_1"))
    assert caught.value.type == "not_found_error"


def test_keys_are_taken_either_way(kind, tmp_path, upstream):
    with serving(tmp_path, settings(upstream, keys={"app": "a-secret-key"})) as gateway:
        with using(kind, base_url=gateway.url, api_key="a-secret-key") as sdk:
            assert text_of(sdk.events(**says())) == "one two three"
        old = {"x-api-key": "a-secret-key", "Authorization": anthropic.Omit()}
        with using(kind, base_url=gateway.url, default_headers=old) as sdk:
            assert text_of(sdk.events(**says())) == "one two three"
            assert sdk.models()
        for wrong in (
            {"api_key": "wrong"},
            {"default_headers": {**old, "x-api-key": "no"}},
        ):
            with using(kind, base_url=gateway.url, **wrong) as sdk:
                with pytest.raises(anthropic.AuthenticationError) as caught:
                    sdk.events(**says())
                assert caught.value.type == "authentication_error"


# --- leaving, silence, coming back -------------------------------------------------------------------


def test_breaking_off_stops_the_model(sdk, gateway, upstream):
    id_ = sdk.first_events(5, **says(model="endless"))
    assert upstream.asked[-1].left.wait(PATIENCE)
    stream = gateway.wait_closed(id_)
    assert (stream["status"], stream["end"]["code"]) == ("cancelled", "client_disconnected")


def test_cancelling_ends_a_reader_with_an_error(kind, gateway, upstream):
    with using(kind, base_url=gateway.url) as sdk:
        ids = []

        class Watch(list):
            def append(self, event):
                super().append(event)
                if event.type == "message_start":
                    ids.append(event.message.id)
                    httpx.post(f"{gateway.api}/streams/{event.message.id}/cancel")

        with pytest.raises(anthropic.APIStatusError, match="cancelled"):
            sdk.events(**says(model="endless"), into=Watch())
        assert gateway.wait_closed(ids[0])["status"] == "cancelled"
    assert upstream.asked[-1].left.wait(PATIENCE)


@pytest.mark.parametrize("model", ["pausing", "slow-start"])
@pytest.mark.parametrize(
    "more", [{}, {"extra_headers": {"Accept": "text/event-stream"}}, {"extra_query": {"ids": "1"}}]
)
def test_silence_does_not_disturb_it(kind, relay, model, more):
    with using(kind, base_url=relay.url) as sdk:
        assert sdk.accumulate(**says("Hello", model=model), **more).stop_reason == "end_turn"
    ids = relay.down.count(b"\nid: s_")
    assert (ids > 3) == bool(more)
    assert (relay.down.count(b"\r\n:\n\r\n") > 2) == bool(more)
    assert (relay.down.count(b": keep-alive\n\n") > 2) == (not more)
    assert relay.down.count(b"event: ping\ndata: ") > 0


def test_the_same_idempotency_key_gives_the_same_answer(sdk, gateway):
    key = {"extra_headers": {"Idempotency-Key": f"anthropic-{type(sdk).__name__}"}}
    first = sdk.run(sdk.messages.create(**says(), **key))
    assert sdk.run(sdk.messages.create(**says(), **key)) == first
    with pytest.raises(anthropic.UnprocessableEntityError):
        sdk.run(sdk.messages.create(**says("something else"), **key))


# --- in front of an Ollama ---------------------------------------------------------------------------


def test_an_ollama_is_reached_with_thoughts_and_tools(kind, tmp_path):
    with (
        ollama() as server,
        serving(tmp_path, {}, OLLAMA_HOST=server.host) as gateway,
        using(kind, base_url=gateway.url) as sdk,
    ):
        thinking = {"thinking": {"type": "enabled", "budget_tokens": 20_000}}
        request = says("one two", model="thinker:8b", **thinking)
        message = sdk.accumulate(**request)
        assert [block.type for block in message.content] == ["thinking", "text"]
        request["messages"] += [message.to_param(), {"role": "user", "content": "And?"}]
        assert sdk.accumulate(**request).content[1].text == "And?"
        assert server.asked[-1].body["messages"][1]["thinking"] == "Let me see."
        request = says("Weather?", model="caller", tools=[WEATHER])
        message = sdk.accumulate(**request)
        calls = [block for block in message.content if block.type == "tool_use"]
        assert [call.input["city"] for call in calls] == ["Paris", "Łódź"]
        assert message.stop_reason == "tool_use"
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny"} for call in calls]
        request["messages"] += [message.to_param(), {"role": "user", "content": results}]
        assert sdk.accumulate(**request).content[0].text == "get_weather: Sunny; get_weather: Sunny"


# --- the bytes ---------------------------------------------------------------------------------------


def lines(response):
    return [line for line in response.text.split("\n") if line]


def test_the_same_post_resumes_after_any_event(gateway):
    request = {**says(), "stream": True}
    with httpx.Client(base_url=gateway.url, headers={"accept": "text/event-stream"}) as client:
        whole = client.post("/v1/messages", json=request)
        blocks = whole.text.split("\n\n")[:-1]
        for number, block in enumerate(blocks):
            (id_,) = [line[4:] for line in block.split("\n") if line.startswith("id: ")]
            again = client.post("/v1/messages", json=request, headers={"last-event-id": id_})
            rest = again.text.removeprefix("retry: 1000\n").split("\n\n")[:-1]
            assert rest == (blocks[number + 1 :] or blocks[-2:])
        assert client.get("/v1/streams").json()["data"][0]["id"] == whole.headers["stream-id"]


def test_a_stream_is_read_again_in_any_dialect(gateway):
    whole = httpx.post(f"{gateway.api}/messages", json={**says(), "stream": True})
    (start,) = [json.loads(line[6:]) for line in lines(whole) if "message_start" in line and "data" in line]
    events = f"{gateway.api}/streams/{start['message']['id']}/events"
    again = httpx.get(events, params={"dialect": "anthropic_messages"})
    assert [line for line in lines(again) if not line.startswith(("id", "retry"))] == lines(whole)
    assert "chat.completion.chunk" in httpx.get(events, params={"dialect": "openai_chat"}).text
    asked = {"request": says(), "dialect": "anthropic_messages"}
    assert "event: done" in httpx.post(f"{gateway.api}/streams", json=asked).text


def test_headers_name_the_request_in_both_ways(gateway):
    for response in (
        httpx.post(f"{gateway.api}/messages", json=says()),
        httpx.post(f"{gateway.api}/messages", json={**says(), "stream": True}),
        httpx.post(f"{gateway.api}/messages", json={}),
        httpx.get(f"{gateway.api}/messages"),
        httpx.get(f"{gateway.api}/messages/elsewhere"),
        httpx.get(f"{gateway.api}/models", headers={"anthropic-version": "2023-06-01"}),
    ):
        assert response.headers["request-id"] == response.headers["x-request-id"]
        assert len(response.headers.get_list("request-id")) == 1
    assert "request-id" not in httpx.get(f"{gateway.api}/models").headers
