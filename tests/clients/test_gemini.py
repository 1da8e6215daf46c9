"""Google's GenAI SDK, unchanged but for its base URL, in front of models that are none of Google's: each
test with its client and its async client."""

import asyncio
import contextlib
import json

import httpx
import pytest
from google import genai
from google.genai import errors, types

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving, wait_for

WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            parameters=types.Schema(
                type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]
            ),
        )
    ]
)


class Sync:
    """The SDK's client, with what the tests do with it."""

    def __init__(self, url, key="unused", **options):
        how = types.HttpOptions(base_url=url, timeout=int(PATIENCE * 1000), **options)
        self.client = genai.Client(api_key=key, http_options=how)
        self.models = self.client.models

    def close(self):
        self.client.close()

    def whole(self, **request):
        return self.models.generate_content(**request)

    def chunks(self, into=None, **request):
        into = [] if into is None else into
        for chunk in self.models.generate_content_stream(**request):
            into.append(chunk)
        return into

    def count(self, **request):
        return self.models.count_tokens(**request)

    def names(self):
        return [model.name for model in self.models.list()]

    def get(self, name):
        return self.models.get(model=name)


class Async(Sync):
    """As `Sync`, with the async client and a loop of its own."""

    def __init__(self, url, key="unused", **options):
        super().__init__(url, key, **options)
        self.models = self.client.aio.models
        self.runner = asyncio.Runner()

    def close(self):
        self.runner.run(self.client.aio.aclose())
        self.runner.close()
        self.client.close()

    def whole(self, **request):
        return self.runner.run(self.models.generate_content(**request))

    def chunks(self, into=None, **request):
        into = [] if into is None else into

        async def read():
            async for chunk in await self.models.generate_content_stream(**request):
                into.append(chunk)

        self.runner.run(read())
        return into

    def count(self, **request):
        return self.runner.run(self.models.count_tokens(**request))

    def names(self):
        async def read():
            return [model.name async for model in await self.models.list()]

        return self.runner.run(read())

    def get(self, name):
        return self.runner.run(self.models.get(model=name))


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


def says(text="one two three", model="demo-echo", **config):
    return {"model": model, "contents": text, **({"config": config} if config else {})}


def text_of(chunks):
    return "".join(chunk.text or "" for chunk in chunks)


# --- answers -----------------------------------------------------------------------------------------


def test_a_streamed_answer_comes_in_pieces_and_is_the_whole_answer(sdk):
    chunks = sdk.chunks(**says())
    assert [chunk.text for chunk in chunks] == ["one", " two", " three", ""]
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert chunks[-1].usage_metadata.candidates_token_count == 3
    whole = sdk.whole(**says())
    assert whole.text == text_of(chunks)
    assert whole.usage_metadata == chunks[-1].usage_metadata


def test_calls_come_whole_and_their_results_are_answered(sdk):
    for answer in (sdk.whole(**says("Weather?", "demo-tools", tools=[WEATHER])), None):
        calls = answer.function_calls if answer else sdk_calls(sdk)
        assert [call.name for call in calls] == ["get_weather"] * 2
        assert all(call.args.keys() == {"city"} for call in calls)
    turn = answer_turn(sdk)
    results = [
        types.Part.from_function_response(name=call.name, response={"result": "Sunny, 21 °C"})
        for call in calls
    ]
    contents = [types.UserContent("Weather?"), turn, types.Content(role="user", parts=results)]
    again = sdk.whole(model="demo-tools", contents=contents, config={"tools": [WEATHER]})
    assert "Sunny, 21 °C" in again.text


def sdk_calls(sdk):
    chunks = sdk.chunks(**says("Weather?", "demo-tools", tools=[WEATHER]))
    return [call for chunk in chunks for call in chunk.function_calls or ()]


def answer_turn(sdk):
    return sdk.whole(**says("Weather?", "demo-tools", tools=[WEATHER])).candidates[0].content


def test_thoughts_come_to_those_who_ask_for_them(sdk):
    asked = {"thinking_config": {"include_thoughts": True}}
    parts = sdk.whole(**says(model="demo-reasoning", **asked)).candidates[0].content.parts
    assert [bool(part.thought) for part in parts] == [True, False]
    chunks = sdk.chunks(**says(model="demo-reasoning", **asked))
    assert any(part.thought for chunk in chunks for part in chunk.candidates[0].content.parts)
    assert len(sdk.whole(**says(model="demo-reasoning")).candidates[0].content.parts) == 1


def test_a_refusal_is_text_and_an_empty_answer_an_answer(sdk):
    assert sdk.whole(**says(model="demo-refusal")).text
    assert sdk.whole(**says(model="demo-empty")).candidates[0].finish_reason == types.FinishReason.STOP
    assert text_of(sdk.chunks(**says(model="demo-empty"))) == ""


def test_a_limit_of_tokens_shows_in_the_finish_reason(sdk):
    for answer in (sdk.whole(**says(max_output_tokens=2)), sdk.chunks(**says(max_output_tokens=2))[-1]):
        assert answer.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS


def test_several_candidates_are_kept_apart(sdk):
    answer = sdk.whole(**says(candidate_count=2))
    assert [candidate.content.parts[0].text for candidate in answer.candidates] == ["one two three"] * 2


def test_silence_is_borne(sdk):
    chunks = sdk.chunks(**says("x", "pausing"))
    assert text_of(chunks) == "before after"
    assert len(chunks) > 5  # the chunks that bridge the silence


def test_tokens_are_counted_and_models_listed(sdk):
    assert sdk.count(model="demo", contents="one two three").total_tokens > 3
    assert "models/demo" in sdk.names()
    assert sdk.get("demo").name == "models/demo"
    with pytest.raises(errors.ClientError) as caught:
        sdk.get("nope")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["whole", "chunks"])
def test_what_fails_before_any_output_is_an_error(sdk, ask):
    for model, code, status in (
        ("nope", 404, "NOT_FOUND"),
        ("demo-rate-limited", 429, "RESOURCE_EXHAUSTED"),
    ):
        with pytest.raises(errors.ClientError) as caught:
            getattr(sdk, ask)(**says(model=model))
        assert (caught.value.code, caught.value.status) == (code, status)
        assert caught.value.message
    with pytest.raises(errors.ServerError) as caught:
        getattr(sdk, ask)(**says(model="demo-overloaded"))
    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")


@pytest.mark.parametrize("model", ["demo-error", "demo-cut", "demo-truncated"])
def test_an_answer_that_breaks_off_raises_after_what_came(sdk, model):
    chunks = []
    with pytest.raises(errors.APIError) as caught:
        sdk.chunks(chunks, **says("Hello", model))
    assert caught.value.message
    assert text_of(chunks)
    assert not any(chunk.candidates[0].finish_reason for chunk in chunks)
    with pytest.raises(errors.ServerError):
        sdk.whole(**says("Hello", model))


def test_a_reader_that_leaves_stops_the_model(hasty, upstream):
    count = len(upstream.asked)
    with contextlib.closing(Sync(hasty.url)) as sdk:
        stream = sdk.models.generate_content_stream(**says(model="endless"))
        assert next(stream).text is not None
        stream.close()
    wait_for(lambda: upstream.asked[count].left.is_set())


def test_keys_are_taken_from_the_header_and_from_the_url_and_not_logged(tmp_path, upstream):
    key = "a-secret-key"
    with serving(tmp_path, settings(upstream, keys={"app": key})) as gateway:
        for kind in (Sync, Async):
            with contextlib.closing(kind(gateway.url, key)) as sdk:
                assert sdk.whole(**says()).text == "one two three"
            with (
                contextlib.closing(kind(gateway.url, "wrong")) as sdk,
                pytest.raises(errors.ClientError) as caught,
            ):
                sdk.whole(**says())
            assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")
        url = f"{gateway.url}/v1beta/models/demo-echo:generateContent"
        body = {"contents": [{"parts": [{"text": "Hi"}]}]}
        assert httpx.post(url, json=body, params={"key": key}).status_code == 200
        assert httpx.post(url, json=body, params={"key": "wrong"}).status_code == 401
        elsewhere = f"{gateway.api}/chat/completions?key={key}"
        assert httpx.post(elsewhere, json={}).status_code == 401
        assert key not in gateway.log_file.read_text()


# --- on the wire -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_without_alt_sse_it_is_one_array(hasty, version):
    def post(model, text="one two"):
        url = f"{hasty.url}/{version}/models/{model}:streamGenerateContent"
        return httpx.post(url, json={"contents": [{"parts": [{"text": text}]}]}, timeout=PATIENCE)

    answer = post("demo-echo")
    assert answer.headers["content-type"].startswith("application/json")
    texts = [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in json.loads(answer.text)]
    assert texts == ["one", " two", ""]
    assert len(json.loads(post("demo-empty").text)) == 1
    assert json.loads(post("pausing", "x").text)[-1]["candidates"][0]["finishReason"] == "STOP"
    assert json.loads(post("demo-cut").text)[-1].keys() == {"error"}
    refused = post("nope")
    assert refused.status_code == 404
    assert refused.json()[0]["error"]["status"] == "NOT_FOUND"


def test_a_model_whose_name_has_a_colon_is_found_by_all_of_it(hasty):
    url = f"{hasty.url}/v1beta/models/demo:8b:generateContent"
    refused = httpx.post(url, json={"contents": [{"parts": [{"text": "x"}]}]})
    assert "demo:8b" in refused.json()["error"]["message"]


def test_any_stream_is_read_as_one_of_googles(hasty):
    body = {"dialect": "gemini", "request": {"model": "demo-echo", "contents": [{"parts": [{"text": "x"}]}]}}
    with httpx.Client(base_url=hasty.url, timeout=PATIENCE) as client:
        stream = client.post("/v1/streams", json=body).headers["stream-id"]
        read = client.get(f"/v1/streams/{stream}/events?dialect=gemini").text
    frames = [json.loads(line.removeprefix("data: ")) for line in read.splitlines() if line]
    assert frames[-1]["candidates"][0]["finishReason"] == "STOP"
