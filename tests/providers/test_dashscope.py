"""DashScope as a provider, over a socket that cuts anywhere, and its own SDK as the judge of that socket."""

import json

import dashscope
import pytest
import requests

from penstock.assembly.providers import build_provider
from penstock.config import Config, ProviderConfig, check, with_environment
from penstock.providers.dashscope import MEDIA_PATH, TEXT_PATH, own_url, parse_models
from penstock.providers.provider import Model
from penstock.types.errors import ClientError, WireError
from penstock.types.requests import GenerationRequest, ImagePart, Message, TextPart
from tests.clients.vector_server import Refused, Reply, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

KEY = "sk-geheim-0123456789"
ELSEWHERE = {"code": "InvalidParameter", "message": "url error, please check url!", "request_id": "r"}


def judge(server, asked):
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise Refused(401, {"code": "InvalidApiKey", "message": f"Invalid API-key: {KEY}", "request_id": "r"})
    path = asked.path.removeprefix("/api/v1")
    assert path != asked.path
    if asked.method == "GET":
        assert path == "/models"
        page, size = int(asked.query["page_no"]), int(asked.query["page_size"])
        names = [f"qwen-{number}" for number in range(150)][(page - 1) * size : page * size]
        return Reply(json.dumps({"output": {"models": [{"model": name} for name in names]}}).encode())
    assert path in (TEXT_PATH, MEDIA_PATH)
    assert asked.headers["x-dashscope-sse"] == "enable"
    model = asked.body["model"]
    if model == "limited":
        problem = {"code": "Throttling.RateQuota", "message": "Too many", "request_id": "r"}
        raise Refused(429, problem, {"retry-after": "7"})
    if model == "nowhere" or (model.startswith("seeing:") and path == TEXT_PATH):
        raise Refused(400, ELSEWHERE)
    return answer("dashscope", model.removeprefix("seeing:"))


@pytest.fixture(scope="module")
def server():
    with running(judge) as made:
        yield made


@pytest.fixture
def make(server):
    def made(key=KEY, **settings):
        config = ProviderConfig(base_url=f"{server.url}/api/v1", api_key=key, api="native", **settings)
        return build_provider("box", "dashscope", config, {})

    return made


def asking(*messages, **fields):
    return GenerationRequest("m", messages or (Message("user", "Hi"),), **fields)


async def test_all_forms_of_answer_are_understood(make, server):
    provider = make()
    for vector in load("dashscope"):
        recorder = Recorder(provider.converse(asking(), vector.name))
        error = await recorder.play()
        assert recorder.events == expected(vector), vector.name
        assert (error is None) == ("error" not in vector.content), vector.name
    error = await Recorder(provider.converse(asking(), "cut:text")).play()
    assert error.code in ("upstream_reset", "upstream_truncated")
    parameters = server.last.body["parameters"]
    assert parameters == {"result_format": "message", "incremental_output": True}
    await provider.aclose()


async def test_what_it_refuses_says_why_and_for_how_long(make):
    wrong, right = make("sk-wrong-0123456789"), make()
    error = await Recorder(wrong.converse(asking(), "text")).play()
    assert (error.code, error.status, error.retryable) == ("invalid_api_key", 401, False)
    error = await Recorder(right.converse(asking(), "limited")).play()
    assert (error.code, error.retry_after, error.retryable) == ("rate_limit_exceeded", 7, True)
    models = await right.models()
    assert (len(models), models[0], models[-1]) == (150, Model("qwen-0"), Model("qwen-149"))
    await wrong.aclose()
    await right.aclose()


async def test_a_model_that_lives_at_the_other_path_is_found_there(make, server):
    provider = make()
    first = provider.converse(asking(), "seeing:text")
    error = await Recorder(first).play()
    assert (server.last.path, error.code) == (f"/api/v1{TEXT_PATH}", "model_not_found")
    assert first.key.failed(error)  # so that it is tried again at once
    for _ in range(2):
        recorder = Recorder(provider.converse(asking(), "seeing:text"))
        assert await recorder.play() is None
        assert (server.last.path, recorder.text) == (f"/api/v1{MEDIA_PATH}", "Hello")
    nowhere = []
    for _ in range(3):
        made = provider.converse(asking(), "nowhere")
        nowhere.append((made.key.failed(await Recorder(made).play()), server.last.path))
    text, media = f"/api/v1{TEXT_PATH}", f"/api/v1{MEDIA_PATH}"
    assert nowhere == [(True, text), (False, media), (True, text)]
    await provider.aclose()


async def test_what_shows_something_goes_where_models_see(make, server):
    provider = make()
    picture = Message("user", (TextPart("What?"), ImagePart(url="https://box/a.png")))
    assert await Recorder(provider.converse(asking(picture), "text")).play() is None
    assert server.last.path == f"/api/v1{MEDIA_PATH}"
    assert server.last.body["input"]["messages"][0]["content"][1] == {"image": "https://box/a.png"}
    await provider.aclose()


async def test_what_it_has_no_place_for_is_left_out_or_refused(make):
    lax, strict = make(), make(unsupported="refuse")
    asked = asking(frequency_penalty=0.5, logprobs=True, user="u", seed=1)
    assert sorted(lax.converse(asked, "text").dropped) == ["frequency_penalty", "user"]
    with pytest.raises(ClientError, match="frequency_penalty"):
        strict.converse(asked, "text")
    await lax.aclose()
    await strict.aclose()


def test_its_compatible_address_leads_to_its_own():
    assert own_url("https://dashscope-intl.aliyuncs.com/compatible-mode/v1/") == (
        "https://dashscope-intl.aliyuncs.com/api/v1"
    )
    made = with_environment(Config(providers={"dashscope": ProviderConfig(api="native")}), {})
    built = build_provider("dashscope", "dashscope", made.providers["dashscope"], {})
    assert repr(built) == "<DashScopeProvider dashscope https://dashscope.aliyuncs.com/api/v1>"
    (problem,) = check(Config(providers={"mistral": ProviderConfig(api="native")}))
    assert (problem.where, "no such api" in problem.what) == ("providers.mistral.api", True)


def test_a_list_of_models_that_is_none_is_refused():
    for strange in (None, [], {}, {"output": {"models": {}}}):
        with pytest.raises(WireError):
            parse_models(strange)
    assert parse_models({"output": {"models": [{}, "x", {"model": 1}, {"name": "a"}]}}) == (Model("a"),)


def test_its_own_sdk_reads_the_same_in_this_server(server, monkeypatch):
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{server.url}/api/v1")
    strange = ("whole", "unknown_events", "codes_empty", "text_format", "other_framing")
    with requests.Session() as session:
        for vector in load("dashscope"):
            if vector.name in strange or vector.name.startswith(("truncated", "error", "one_choice")):
                continue
            ask = dashscope.MultiModalConversation if vector.name == "parts" else dashscope.Generation
            text, thought, calls, reason = "", "", {}, None
            for response in ask.call(
                vector.name,
                api_key=KEY,
                messages=[{"role": "user", "content": "Hi"}],
                stream=True,
                incremental_output=True,
                result_format="message",
                session=session,
            ):
                assert response.status_code == 200, response
                for choice in response.output.choices or ():
                    if choice.get("index", 0) or choice.message is None:
                        continue
                    content = choice.message.content
                    if isinstance(content, list):
                        content = "".join(part.get("text", "") for part in content)
                    text += content
                    thought += choice.message.get("reasoning_content") or ""
                    for call in choice.message.get("tool_calls") or ():
                        calls[call["index"]] = calls.get(call["index"], "") + call["function"]["arguments"]
                    reason = choice.finish_reason
            events = vector.content["events"]
            said = [e for e in events if e["type"] == "text" and not e.get("index")]
            assert text == "".join(e["delta"] for e in said), vector.name
            assert thought == "".join(e["delta"] for e in events if e["type"] == "reasoning"), vector.name
            told = {}
            for event in events:
                if event["type"] == "tool_call":
                    told[event["call"]] = told.get(event["call"], "") + event.get("delta", "")
            assert calls == told, vector.name
            assert reason not in (None, "null"), vector.name


def test_its_own_sdk_knows_these_errors(server, monkeypatch):
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{server.url}/api/v1")
    asked = {"api_key": KEY, "prompt": "Hi", "stream": True, "incremental_output": True}
    with requests.Session() as session:
        *_, last = dashscope.Generation.call("error_in_mid_answer", session=session, **asked)
        assert last.code == "InternalError.Timeout"
        (refused,) = dashscope.Generation.call("limited", session=session, **asked)
        assert (refused.status_code, refused.code) == (429, "Throttling.RateQuota")
