"""Cohere as a provider, over a socket that cuts anywhere, and its own SDK as the judge of that socket."""

import json

import cohere
import pytest

from penstock.assembly.providers import build_provider
from penstock.config import Config, ProviderConfig, with_environment
from penstock.providers.cohere import parse_models
from penstock.providers.provider import Model
from penstock.types.errors import ClientError, WireError
from penstock.types.requests import GenerationRequest, Message
from tests.clients.vector_server import Refused, Reply, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

KEY = "a-geheim-key-0123456789"
ENTRIES = [{"name": "command-a-03-2025", "endpoints": ["chat"]}, {"name": "embed", "endpoints": ["embed"]}]


def judge(server, asked):
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise Refused(498, {"message": f"invalid api token: {KEY}", "id": "e1"})
    if asked.method == "GET":
        assert (asked.path, asked.query["endpoint"]) == ("/v1/models", "chat")
        return Reply(json.dumps({"models": ENTRIES}).encode())
    assert asked.path == "/v2/chat"
    assert asked.body["stream"] is True
    if asked.body["model"] == "limited":
        raise Refused(429, {"message": "Too many"}, {"retry-after": "7"})
    return answer("cohere", asked.body["model"])


@pytest.fixture(scope="module")
def server():
    with running(judge) as made:
        yield made


@pytest.fixture
def make(server):
    def made(key=KEY, **settings):
        config = ProviderConfig(base_url=server.url, api_key=key, **settings)
        return build_provider("box", "cohere", config, {})

    return made


def asking(**fields):
    return GenerationRequest("m", (Message("user", "Hi"),), **fields)


async def test_all_forms_of_answer_are_understood(make):
    provider = make()
    for vector in load("cohere"):
        recorder = Recorder(provider.converse(asking(), vector.name))
        error = await recorder.play()
        assert recorder.events == expected(vector), vector.name
        assert (error is None) == ("error" not in vector.content), vector.name
    error = await Recorder(provider.converse(asking(), "cut:text")).play()
    assert error.code in ("upstream_reset", "upstream_truncated")
    await provider.aclose()


async def test_what_it_refuses_says_why_and_for_how_long(make):
    wrong, right = make("a-wrong-key-0123"), make()
    error = await Recorder(wrong.converse(asking(), "text")).play()
    assert (error.code, error.status, error.retryable) == ("invalid_api_key", 401, False)
    error = await Recorder(right.converse(asking(), "limited")).play()
    assert (error.code, error.retry_after, error.retryable) == ("rate_limit_exceeded", 7, True)
    assert await right.models() == (Model("command-a-03-2025"),)
    await wrong.aclose()
    await right.aclose()


async def test_what_it_has_no_place_for_is_left_out_or_refused(make):
    lax, strict = make(), make(unsupported="refuse")
    asked = asking(logprobs=True, parallel_tool_calls=False, user="u", seed=1)
    assert sorted(lax.converse(asked, "text").dropped) == ["logprobs", "parallel_tool_calls", "user"]
    with pytest.raises(ClientError, match="logprobs"):
        strict.converse(asked, "text")
    with pytest.raises(ClientError, match="'n'"):
        lax.converse(asking(n=2), "text")
    await lax.aclose()
    await strict.aclose()


@pytest.mark.parametrize("variable", ["CO_API_KEY", "COHERE_API_KEY"])
def test_its_key_in_the_environment_lets_it_join(variable):
    made = with_environment(Config(), {variable: KEY}).providers["cohere"]
    assert (made.base_url, made.api_key) == ("https://api.cohere.com", KEY)


def test_a_list_of_models_that_is_none_is_refused():
    for strange in (None, [], {}, {"models": {}}):
        with pytest.raises(WireError):
            parse_models(strange)
    assert parse_models({"models": [{}, "x", {"name": 1}, {"name": "a"}]}) == (Model("a"),)


def test_its_own_sdk_reads_the_same_in_this_server(server):
    with cohere.ClientV2(api_key=KEY, base_url=server.url) as client:
        for vector in load("cohere"):
            if "error" in vector.content or vector.name in ("whole", "unknown_events", "done_follows"):
                continue
            texts, calls, reason = "", {}, None
            for event in client.chat_stream(model=vector.name, messages=[{"role": "user", "content": "Hi"}]):
                if event.type in ("content-start", "content-delta"):
                    texts += event.delta.message.content.text or ""
                elif event.type == "tool-call-start":
                    calls[event.index] = event.delta.message.tool_calls.function.arguments
                elif event.type == "tool-call-delta":
                    calls[event.index] += event.delta.message.tool_calls.function.arguments
                elif event.type == "message-end":
                    reason = event.delta.finish_reason
            events = vector.content["events"]
            assert texts == "".join(e["delta"] for e in events if e["type"] == "text"), vector.name
            told = {}
            for event in events:
                if event["type"] == "tool_call":
                    told[event["call"]] = told.get(event["call"], "") + event.get("delta", "")
            assert calls == told, vector.name
            assert reason is not None
