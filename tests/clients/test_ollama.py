"""Ollama's Python client, unchanged but for its host, in front of models that are none of Ollama's: each test
with its client and its async client."""

import asyncio
import contextlib
import json

import httpx
import ollama
import pytest

from tests.clients import node
from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving, wait_for

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Sync:
    """The client, with what the tests do with it."""

    def __init__(self, url, **options):
        self.client = ollama.Client(host=url, timeout=PATIENCE, **options)

    def close(self):
        self.client._client.close()

    def ask(self, method, **request):
        return getattr(self.client, method)(**request)

    def lines(self, method, into=None, **request):
        into = [] if into is None else into
        for line in getattr(self.client, method)(**request, stream=True):
            into.append(line)
        return into


class Async:
    """As `Sync`, with the async client and a loop of its own."""

    def __init__(self, url, **options):
        self.client = ollama.AsyncClient(host=url, timeout=PATIENCE, **options)
        self.runner = asyncio.Runner()

    def close(self):
        self.runner.run(self.client._client.aclose())
        self.runner.close()

    def ask(self, method, **request):
        return self.runner.run(getattr(self.client, method)(**request))

    def lines(self, method, into=None, **request):
        into = [] if into is None else into

        async def read():
            async for line in await getattr(self.client, method)(**request, stream=True):
                into.append(line)

        self.runner.run(read())
        return into


@pytest.fixture(scope="module")
def hasty(tmp_path_factory, upstream):
    """A gateway that tries once, and does not wait before its status line goes out."""
    more = {"retry": {"tries": 1, "tries_in_all": 1}, "listen": {"commit_after": 10.0}}
    with serving(tmp_path_factory.mktemp("hasty"), settings(upstream, **more)) as gateway:
        yield gateway


@pytest.fixture(scope="module", params=[Sync, Async])
def sdk(request, hasty):
    with contextlib.closing(request.param(hasty.url)) as sdk:
        yield sdk


def says(text="one two three", model="demo-echo", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def text_of(lines):
    return "".join(line.message.content or "" for line in lines)


# --- answers -----------------------------------------------------------------------------------------


def test_a_streamed_answer_comes_in_pieces_and_is_the_whole_answer(sdk):
    lines = sdk.lines("chat", **says())
    assert [line.message.content for line in lines] == ["one", " two", " three", ""]
    assert [line.done for line in lines] == [False, False, False, True]
    last = lines[-1]
    assert (last.done_reason, last.eval_count) == ("stop", 3)
    assert last.total_duration >= 0
    assert last.prompt_eval_count > 0
    whole = sdk.ask("chat", **says())
    assert (whole.message.content, whole.done_reason, whole.eval_count) == ("one two three", "stop", 3)


def test_a_prompt_is_completed(sdk):
    asked = {"model": "demo-echo", "prompt": "one two", "system": "Be brief."}
    lines = sdk.lines("generate", **asked)
    assert "".join(line.response for line in lines) == "one two"
    whole = sdk.ask("generate", **asked)
    assert (whole.response, whole.done_reason, whole.eval_count) == ("one two", "stop", 2)


def test_calls_come_whole_and_their_results_are_answered(sdk):
    request = says("Weather?", "demo-tools", tools=[WEATHER])
    calls = [call for line in sdk.lines("chat", **request) for call in line.message.tool_calls or ()]
    answer = sdk.ask("chat", **request)
    assert [call.function.arguments for call in calls] == [
        call.function.arguments for call in answer.message.tool_calls
    ]
    assert [(call.function.name, [*call.function.arguments]) for call in calls] == [
        ("get_weather", ["city"])
    ] * 2
    request["messages"].append(answer.message)
    request["messages"] += [
        {"role": "tool", "tool_name": call.function.name, "content": "Sunny, 21 °C"} for call in calls
    ]
    assert "Sunny, 21 °C" in sdk.ask("chat", **request).message.content


def test_thoughts_come_apart_and_can_be_declined(sdk):
    lines = sdk.lines("chat", **says(model="demo-reasoning"))
    assert "".join(line.message.thinking or "" for line in lines)
    assert sdk.ask("chat", **says(model="demo-reasoning")).message.thinking
    assert not sdk.ask("chat", **says(model="demo-reasoning", think=False)).message.thinking


def test_a_refusal_is_text_and_an_empty_answer_an_answer(sdk):
    assert sdk.ask("chat", **says(model="demo-refusal")).message.content
    assert [line.done for line in sdk.lines("chat", **says(model="demo-empty"))] == [True]


def test_a_limit_of_tokens_shows_in_why_it_ended(sdk):
    assert sdk.lines("chat", **says(options={"num_predict": 2}))[-1].done_reason == "length"
    assert sdk.ask("chat", **says(options={"num_predict": 2})).done_reason == "length"


def test_silence_is_borne(sdk):
    lines = sdk.lines("chat", **says("x", "pausing"))
    assert text_of(lines) == "before after"
    assert len(lines) > 5  # the lines that bridge the silence


def test_models_are_listed_and_known(sdk):
    assert "demo" in [model.model for model in sdk.ask("list").models]
    assert "completion" in sdk.ask("show", model="demo").capabilities
    assert "completion" in sdk.ask("show", model="demo:latest").capabilities
    assert list(sdk.ask("ps").models) == []
    with pytest.raises(ollama.ResponseError) as caught:
        sdk.ask("show", model="nope")
    assert caught.value.status_code == 404


def test_a_request_without_words_only_loads_its_model(sdk):
    assert sdk.ask("chat", model="demo", messages=[]).done_reason == "load"
    assert sdk.ask("generate", model="demo", keep_alive=0).done_reason == "unload"
    with pytest.raises(ollama.ResponseError) as caught:
        sdk.ask("generate", model="nope")
    assert caught.value.status_code == 404


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["ask", "lines"])
def test_what_fails_before_any_output_is_an_error(sdk, ask):
    for model, status in (("nope", 404), ("demo-rate-limited", 429), ("demo-overloaded", 503)):
        with pytest.raises(ollama.ResponseError) as caught:
            getattr(sdk, ask)("chat", **says(model=model))
        assert caught.value.status_code == status
        assert caught.value.error
        assert "{" not in caught.value.error


@pytest.mark.parametrize("model", ["demo-error", "demo-cut", "demo-truncated"])
def test_an_answer_that_breaks_off_raises_after_what_came(sdk, model):
    lines = []
    with pytest.raises(ollama.ResponseError) as caught:
        sdk.lines("chat", lines, **says("Hello", model))
    assert caught.value.error
    assert text_of(lines)
    assert not any(line.done for line in lines)
    with pytest.raises(ollama.ResponseError) as caught:
        sdk.ask("chat", **says("Hello", model))
    assert caught.value.status_code == 502


def test_a_reader_that_leaves_stops_the_model(hasty, upstream):
    count = len(upstream.asked)
    with contextlib.closing(Sync(hasty.url)) as sdk:
        stream = sdk.client.chat(**says(model="endless"), stream=True)
        next(stream)
        stream.close()
    wait_for(lambda: upstream.asked[count].left.is_set())


def test_a_key_is_a_bearer_token(tmp_path, upstream):
    with serving(tmp_path, settings(upstream, keys={"app": "a-secret-key"})) as gateway:
        for kind in (Sync, Async):
            with contextlib.closing(
                kind(gateway.url, headers={"Authorization": "Bearer a-secret-key"})
            ) as sdk:
                assert sdk.ask("chat", **says()).message.content == "one two three"
            with contextlib.closing(kind(gateway.url)) as sdk:
                with pytest.raises(ollama.ResponseError) as caught:
                    sdk.ask("chat", **says())
                assert caught.value.status_code == 401


def test_what_is_not_there_is_said_in_its_words(sdk, hasty):
    with pytest.raises(ollama.ResponseError) as caught:
        sdk.ask("pull", model="x")
    assert caught.value.status_code == 404
    assert httpx.get(f"{hasty.url}/api/version").json()["version"]


def test_any_stream_is_read_as_one_of_ollamas(hasty):
    with httpx.Client(base_url=hasty.url, timeout=PATIENCE) as client:
        made = client.post("/v1/streams", json={"dialect": "ollama", "request": says()})
        read = client.get(f"/v1/streams/{made.headers['stream-id']}/events?dialect=ollama")
    assert read.headers["content-type"].startswith("application/x-ndjson")
    assert json.loads(read.text.splitlines()[-1])["done"] is True


def test_the_node_client_works_unchanged(hasty):
    node.modules()
    printed = node.run("--test", "--test-reporter=tap", "ollama.test.mjs", PENSTOCK_URL=hasty.url)
    assert "# pass 5" in printed
