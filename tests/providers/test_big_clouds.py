"""Gemini, Azure OpenAI and OpenAI's Responses as providers: how each is let in and asked, over a socket that
cuts anywhere, in all the forms that its answers were seen in."""

import json
from urllib.parse import unquote

import openai
import pytest
from google import genai

from penstock.assembly.providers import build_provider
from penstock.config import Config, ProviderConfig, check
from penstock.providers.gemini import parse_models
from penstock.providers.provider import Model
from penstock.types.errors import ClientError, WireError
from penstock.types.events import RefusalDelta
from penstock.wire.openai_chat import OPENAI_CHAT
from tests.clients.vector_server import Refused, Reply, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

KEY = "a-geheim-key-0123456789"
FILTERED = {
    "message": "The response was filtered due to the prompt triggering the content management policy.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
}


def asking(**body):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **body}
    return OPENAI_CHAT.parse_request(json.dumps(body).encode())


def gemini(server, asked):
    if asked.headers.get("x-goog-api-key") != KEY:
        error = {"code": 400, "message": f"API key {KEY} not valid.", "status": "INVALID_ARGUMENT"}
        detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        raise Refused(400, {"error": {**error, "details": [detail]}})
    if asked.method == "GET":
        models = [
            {"name": "models/g", "displayName": "G", "supportedGenerationMethods": ["generateContent"]},
            {"name": "models/e", "supportedGenerationMethods": ["embedContent"]},
        ]
        return Reply(json.dumps({"models": models}).encode())
    model, _, verb = unquote(asked.path).rpartition("/models/")[2].rpartition(":")
    if verb == "countTokens":
        return Reply(b'{"totalTokens": 31}')
    if model == "limited":
        detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27s"}
        error = {"code": 429, "message": "Exhausted", "status": "RESOURCE_EXHAUSTED", "details": [detail]}
        raise Refused(429, {"error": error})
    assert (verb, asked.query) == ("streamGenerateContent", {"alt": "sse"})
    return answer("gemini", model)


def azure(server, asked):
    if asked.headers.get("api-key") != KEY:
        raise Refused(401, {"error": {"code": "401", "message": "Access denied"}})
    if asked.path == "/openai/v1/chat/completions":
        return answer("openai_chat", asked.body["model"])
    path = unquote(asked.path)
    deployment = path.removeprefix("/openai/deployments/").removesuffix("/chat/completions")
    assert path == f"/openai/deployments/{deployment}/chat/completions"
    assert asked.query["api-version"]
    if deployment == "unsafe":
        raise Refused(400, {"error": FILTERED})
    return answer("openai_chat", deployment)


def responses(server, asked):
    assert asked.path == "/v1/responses"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    if unknown := {"stop", "seed", "presence_penalty", "messages", "n"} & asked.body.keys():
        raise Refused(400, {"error": {"message": f"Unknown parameter: '{unknown.pop()}'."}})
    return answer("openai_responses", asked.body["model"])


JUDGES = {"gemini": gemini, "azure": azure, "openai": responses}
FOLDERS = {"gemini": "gemini", "azure": "openai_chat", "openai": "openai_responses"}


@pytest.fixture(scope="module")
def servers():
    with running(gemini) as one, running(azure) as two, running(responses) as three:
        yield {"gemini": one, "azure": two, "openai": three}


@pytest.fixture
def make(servers):
    def made(kind, key=KEY, **settings):
        end = "/v1" if kind == "openai" else ""
        settings |= {"api": "responses"} if kind == "openai" else {}
        config = ProviderConfig(base_url=servers[kind].url + end, api_key=key, **settings)
        return build_provider("box", kind, config, {})

    return made


@pytest.mark.parametrize("kind", JUDGES)
async def test_all_forms_of_answer_are_understood(make, kind):
    provider = make(kind)
    for vector in load(FOLDERS[kind]):
        recorder = Recorder(provider.converse(asking(), vector.name))
        error = await recorder.play()
        assert recorder.events == expected(vector), vector.name
        assert (error is None) == ("error" not in vector.content), vector.name
    await provider.aclose()


@pytest.mark.parametrize("kind", JUDGES)
async def test_a_lost_connection_is_no_end(make, kind):
    provider = make(kind)
    error = await Recorder(provider.converse(asking(), "cut:text")).play()
    await provider.aclose()
    assert error.code in ("upstream_reset", "upstream_truncated")


@pytest.mark.parametrize("kind", ["gemini", "azure"])
async def test_a_wrong_key_is_told_without_the_key(make, kind):
    provider = make(kind, "a-wrong-key")
    error = await Recorder(provider.converse(asking(), "text")).play()
    await provider.aclose()
    assert (error.code, error.status) == ("invalid_api_key", 401)
    assert "a-wrong" not in error.message


async def test_gemini_is_asked_in_its_own_words(make, servers):
    provider = make("gemini")
    request = asking(seed=1, logprobs=True, user="u", parallel_tool_calls=False, max_tokens=9)
    conversation = provider.converse(request, "text")
    assert await Recorder(conversation).play() is None
    assert sorted(conversation.dropped) == ["logprobs", "parallel_tool_calls", "user"]
    body = servers["gemini"].last.body
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    assert body["generationConfig"] == {"seed": 1, "maxOutputTokens": 9}
    assert await provider.count_tokens(request, "text") == 31
    assert servers["gemini"].last.body["generateContentRequest"]["model"] == "models/text"
    assert await provider.models() == (Model("g", (), "G"),)
    error = await Recorder(provider.converse(request, "limited")).play()
    await provider.aclose()
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", 27)


def test_a_list_of_models_that_is_none_is_refused():
    for strange in (None, [], {}, {"models": {}}):
        with pytest.raises(WireError):
            parse_models(strange)
    assert parse_models({"models": [{}, "x", {"name": 1}, {"name": "models/a"}]}) == (Model("a"),)


async def test_azure_is_asked_by_deployment_and_version(make, servers):
    for settings, path, query in (
        ({}, "/openai/deployments/text/chat/completions", {"api-version": "2024-10-21"}),
        ({"api_version": "x"}, "/openai/deployments/text/chat/completions", {"api-version": "x"}),
        ({"api_version": "v1"}, "/openai/v1/chat/completions", {}),
    ):
        provider = make("azure", **settings)
        assert await Recorder(provider.converse(asking(), "text")).play() is None
        await provider.aclose()
        assert (servers["azure"].last.path, servers["azure"].last.query) == (path, query)
        assert "authorization" not in servers["azure"].last.headers


async def test_a_prompt_that_azure_filters_is_the_clients_to_change(make):
    provider = make("azure")
    error = await Recorder(provider.converse(asking(), "unsafe")).play()
    await provider.aclose()
    assert (error.code, error.status, error.retryable) == ("content_filter", 400, False)


def test_azure_without_an_address_is_told_so():
    (problem,) = check(Config(providers={"x": ProviderConfig(kind="azure")}))
    assert "https://my-resource" in problem.what


@pytest.mark.parametrize(("kind", "api"), [("azure", "generate"), ("ollama", "responses")])
def test_an_api_that_a_kind_does_not_have_is_told(kind, api):
    made = ProviderConfig(kind=kind, base_url="http://box", api=api)
    assert [problem.where for problem in check(Config(providers={"x": made}))] == ["providers.x.api"]


async def test_responses_are_not_told_what_they_do_not_know(make, servers):
    provider = make("openai")
    conversation = provider.converse(asking(seed=0, presence_penalty=0.5, logit_bias={"1": 1}), "refusal")
    recorder = Recorder(conversation)
    assert await recorder.play() is None
    await provider.aclose()
    assert any(isinstance(event, RefusalDelta) for event in recorder.events)
    assert sorted(conversation.dropped) == ["logit_bias", "presence_penalty", "seed"]
    assert servers["openai"].last.body["store"] is False
    with pytest.raises(ClientError, match="stop"):
        provider.converse(asking(stop="x"), "text")


def test_the_official_sdks_understand_these_servers(servers):
    """The judges of the judges: what stands in the vectors is what Google's and OpenAI's own clients read."""
    options = {"base_url": servers["gemini"].url, "api_version": "v1beta"}
    with genai.Client(api_key=KEY, http_options=options) as google:
        said = google.models.generate_content_stream(model="text", contents="Hi")
        assert "".join(chunk.text or "" for chunk in said)
    with openai.AzureOpenAI(
        azure_endpoint=servers["azure"].url, api_key=KEY, api_version="2024-10-21", max_retries=0
    ) as client:
        asked = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
        chunks = list(client.chat.completions.create(model="azure", **asked))
        assert any(choice.delta and choice.delta.content for chunk in chunks for choice in chunk.choices)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="unsafe", **asked)
