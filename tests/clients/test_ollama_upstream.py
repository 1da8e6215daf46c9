"""Ollama behind the gateway, as people have it: nothing configured, OpenAI's SDK in front."""

import json

import httpx
import ollama as judge
import openai
import pytest

from tests.clients.gateway import PATIENCE, serving
from tests.clients.ollama_server import MODELS, running
from tests.clients.upstream import answering
from tests.faults.process import free_port

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
LISTEN = {"heartbeat": 0.05, "commit_after": 0.2}


def says(text="one two <three> 流", model="echo", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def client(gateway, **options):
    return openai.OpenAI(base_url=gateway.api, api_key="unused", max_retries=0, timeout=PATIENCE, **options)


def text_of(chunks):
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)


def reasons(chunks):
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server, tmp_path_factory):
    """A gateway that was told nothing about Ollama but what Ollama's own programs are told."""
    folder = tmp_path_factory.mktemp("gateway")
    with serving(folder, {"listen": LISTEN, "retry": {"tries": 1}}, OLLAMA_HOST=server.host) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def sdk(gateway):
    with client(gateway) as sdk:
        yield sdk.chat.completions


# --- the fake, before its judge ----------------------------------------------------------------------


@pytest.fixture
def theirs(server):
    made = judge.Client(host=f"http://{server.host}", timeout=PATIENCE)
    yield made
    made.close()


def test_ollamas_own_client_takes_our_server_for_an_ollama(theirs):
    heard = [{"role": "user", "content": "one <two> 流"}]
    lines = list(theirs.chat("thinker:8b", heard, stream=True))
    assert "".join(line.message.thinking or "" for line in lines) == "Let me see."
    assert "".join(line.message.content or "" for line in lines) == "one <two> 流"
    assert (lines[-1].done, lines[-1].done_reason, lines[-1].eval_count) == (True, "stop", 5)
    assert "".join(line.response for line in theirs.generate("echo", "one two", stream=True)) == "one two"
    calls = [
        c
        for line in theirs.chat("caller", heard, tools=[WEATHER], stream=True)
        for c in line.message.tool_calls or ()
    ]
    assert [call.function.arguments["city"] for call in calls] == ["Paris", "Łódź"]
    assert {model.model for model in theirs.list().models} == set(MODELS)
    with pytest.raises(judge.ResponseError, match="CUDA"):
        list(theirs.chat("breaks", heard, stream=True))
    with pytest.raises(judge.ResponseError) as caught:
        theirs.chat("nope", heard)
    assert (caught.value.status_code, caught.value.error) == (404, "model 'nope' not found")


# --- answers -----------------------------------------------------------------------------------------


def test_an_answer_streams_in_pieces_with_its_usage(sdk):
    chunks = list(sdk.create(**says(), stream=True, stream_options={"include_usage": True}))
    pieces = [c.delta.content for chunk in chunks for c in chunk.choices if c.delta.content]
    assert pieces == ["one", " two", " <three>", " 流"]
    assert reasons(chunks) == ["stop"]
    assert {chunk.model for chunk in chunks} == {"echo:latest"}
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (11, 4)


def test_an_answer_that_does_not_stream_is_the_same_answer(sdk):
    whole = sdk.create(**says())
    assert whole.choices[0].message.content == "one two <three> 流"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == 15


def test_a_limit_of_tokens_shows_in_the_finish_reason(sdk):
    chunks = list(sdk.create(**says(max_tokens=2), stream=True))
    assert (text_of(chunks), reasons(chunks)) == ("one two", ["length"])


def test_reasoning_comes_apart_from_the_answer_and_can_be_declined(sdk):
    deltas = [c.delta for chunk in sdk.create(**says(model="thinker:8b"), stream=True) for c in chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Let me see."
    assert "".join(delta.content or "" for delta in deltas) == "one two <three> 流"
    whole = sdk.create(**says(model="thinker:8b", reasoning_effort="high"))
    assert whole.choices[0].message.reasoning_content == "Let me see."
    whole = sdk.create(**says(model="thinker:8b", reasoning_effort="none"))
    assert getattr(whole.choices[0].message, "reasoning_content", None) is None


def test_parallel_calls_of_tools_come_with_ids_and_their_results_are_answered(sdk):
    request = says("Weather?", model="caller", tools=[WEATHER])
    with sdk.stream(**request) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    calls = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    assert [json.loads(call.function.arguments) for call in calls] == [
        {"city": "Paris", "days": 2},
        {"city": "Łódź", "days": 2},
    ]
    assert all(call.id for call in calls)
    assert len({call.id for call in calls}) == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": "Sunny"} for call in calls]
    said = choice.message.model_dump(exclude_none=True, exclude={"parsed", "refusal"})
    for call in said["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    answer = sdk.create(**request | {"messages": [*request["messages"], said, *results]})
    assert answer.choices[0].message.content == "get_weather: Sunny; get_weather: Sunny"


def test_the_time_that_a_model_takes_to_load_is_bridged(gateway, server):
    request = says("at last", model="slow", stream=True)
    with httpx.stream("POST", f"{gateway.api}/chat/completions", json=request, timeout=PATIENCE) as response:
        body = b""
        for piece in response.iter_raw():
            body += piece
            if body.count(b": keep-alive") > 2:
                server.loaded.set()
    assert b" last" in body
    assert body.rstrip().endswith(b"data: [DONE]")


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "more", "status", "code", "words"),
    [
        ("busy", {}, 503, "overloaded", "server busy"),
        ("cloud", {}, 401, "invalid_api_key", "`ollama signin`"),
        ("echo", {"tools": [WEATHER]}, 400, "invalid_request", "does not support tools"),
        ("echo", {"reasoning_effort": "high"}, 400, "invalid_request", "does not support thinking"),
        ("echo", {"n": 2}, 400, "invalid_value", "one answer"),
        ("echoo", {}, 404, "model_not_found", "Did you mean 'echo:latest'?"),
    ],
)
def test_what_is_refused_is_refused_in_words_that_help(sdk, model, more, status, code, words, stream):
    with pytest.raises(openai.APIStatusError) as caught:
        sdk.create(**says(model=model, **more), stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert words in caught.value.message
    assert "c2Vjcg" not in caught.value.response.text


def test_an_image_by_url_is_refused_before_anything_is_sent(sdk, server):
    before = len(server.asked)
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.create(model="echo", messages=[{"role": "user", "content": [image]}])
    assert caught.value.param == "messages[0].content[0]"
    assert len(server.asked) == before


@pytest.mark.parametrize(
    ("model", "code"),
    [("breaks", "upstream_error"), ("ends-early", "upstream_truncated"), ("resets", "upstream_reset")],
)
def test_an_answer_that_breaks_off_raises_after_what_came(sdk, model, code):
    chunks = []
    with pytest.raises(openai.APIError) as caught:
        chunks.extend(iter_into(chunks, sdk.create(**says(model=model), stream=True)))
    assert caught.value.code == code
    assert text_of(chunks) == "one two <three> 流"
    assert reasons(chunks) == []
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.create(**says(model=model))
    assert (caught.value.status_code, caught.value.code) == (502, code)


def iter_into(kept, chunks):
    for chunk in chunks:
        kept.append(chunk)
    return ()


# --- stopping ----------------------------------------------------------------------------------------


def test_leaving_stops_the_model(sdk, gateway, server):
    with sdk.create(**says(model="endless"), stream=True) as stream:
        chunk = next(c for c in stream if c.choices[0].delta.content)
    assert server.asked[-1].left.wait(PATIENCE)
    assert gateway.wait_closed(chunk.id)["status"] == "cancelled"


def test_cancelling_stops_the_model(gateway, server):
    made = {"dialect": "openai_chat", "request": says(model="endless")}
    started = httpx.post(f"{gateway.api}/streams", json=made, headers={"Prefer": "respond-async"}).json()
    stopped = httpx.post(f"{gateway.api}/streams/{started['stream']}/cancel").json()
    assert stopped["status"] == "cancelled"
    assert server.asked[-1].left.wait(PATIENCE)


# --- being found -------------------------------------------------------------------------------------


def test_its_models_are_listed_with_what_is_known_of_them(gateway):
    models = {model["id"]: model for model in gateway.get("/v1/models")["data"]}
    assert set(MODELS) <= models.keys()
    assert models["echo:latest"] == {
        "id": "echo:latest",
        "object": "model",
        "created": 1767222000,
        "owned_by": "ollama",
        "description": "llama, 3.2B, Q4_K_M",
    }
    assert gateway.get("/v1/models/echo")["id"] == "echo"


@pytest.mark.parametrize("name", ["echo", "echo:latest", "ollama/echo", "ollama/echo:latest"])
def test_a_model_has_all_its_names(sdk, server, name):
    assert sdk.create(**says("hi", model=name)).choices[0].message.content == "hi"
    assert server.asked[-1].body["model"] == "echo:latest"


def test_an_ollama_that_is_started_later_is_found(tmp_path):
    port = free_port()
    with serving(tmp_path, {}, OLLAMA_HOST=f":{port}") as gateway, client(gateway) as sdk:
        assert {model["owned_by"] for model in gateway.get("/v1/models")["data"]} == {"demo"}
        with pytest.raises(openai.NotFoundError):
            sdk.chat.completions.create(**says())
        with running(port):
            answer = ask_until_known(sdk)
            assert answer.choices[0].message.content == "one two <three> 流"
            assert "echo:latest" in {model["id"] for model in gateway.get("/v1/models")["data"]}


def ask_until_known(sdk):
    """Ask for a model until it is known; an unknown name is asked about once a second."""
    while True:
        try:
            return sdk.chat.completions.create(**says())
        except openai.NotFoundError:
            pass


def test_nobody_looks_for_an_ollama_that_is_not_wanted(tmp_path):
    with (
        running() as server,
        serving(tmp_path, {"discover": False}, OLLAMA_HOST=server.host) as gateway,
        client(gateway) as sdk,
    ):
        assert {model["owned_by"] for model in gateway.get("/v1/models")["data"]} == {"demo"}
        with pytest.raises(openai.NotFoundError):
            sdk.chat.completions.create(**says())
        assert (server.lists, server.asked) == (0, [])


def test_a_configured_ollama_is_asked_as_it_was_configured(server, tmp_path):
    made = {"kind": "ollama", "base_url": f"http://{server.host}", "api_key": "a-secret-key", "num_ctx": 8192}
    settings = {
        "providers": {
            "box": {**made, "keep_alive": "30m"},
            "base": {**made, "api": "generate", "list_models": False},
        },
        "models": {"mine": [{"provider": "box", "model": "echo"}]},
    }
    with serving(tmp_path, settings, OLLAMA_HOST=server.host) as gateway, client(gateway) as sdk:
        for name, path in (("mine", "/api/chat"), ("echo", "/api/chat"), ("base/echo", "/api/generate")):
            assert text_of(sdk.chat.completions.create(**says("on it", model=name), stream=True)) == "on it"
            asked = server.asked[-1]
            assert asked.path == path
            assert asked.headers["authorization"] == "Bearer a-secret-key"
            assert asked.headers["accept"] == "application/x-ndjson"
            assert asked.body["options"] == {"num_ctx": 8192}
            assert asked.body.get("keep_alive") == ("30m" if path == "/api/chat" else None)
        models = {model["id"]: model["owned_by"] for model in gateway.get("/v1/models")["data"]}
        assert (models["mine"], models["echo:latest"]) == ("box", "box")
        assert not any(name.startswith("base/") for name in models)
        with pytest.raises(openai.NotFoundError, match="`ollama pull nope`"):
            sdk.chat.completions.create(**says(model="box/nope"))


def test_other_providers_keep_their_names_beside_it(server, tmp_path):
    with answering() as upstream:
        settings = {"providers": {"near": {"base_url": f"{upstream.url}/v1"}}}
        with serving(tmp_path, settings, OLLAMA_HOST=server.host) as gateway, client(gateway) as sdk:
            assert text_of(sdk.chat.completions.create(**says("hi"), stream=True)) == "hi"
            assert upstream.asked == []
            list(sdk.chat.completions.create(**says(model="any-other"), stream=True))
            list(sdk.chat.completions.create(**says(model="near/echo"), stream=True))
            assert [asked.body["model"] for asked in upstream.asked] == ["any-other", "echo"]
