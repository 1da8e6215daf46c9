"""The Anthropic provider: how it is let in, what it lists and counts, what is sent to it."""

import msgspec
import pytest

from penstock.providers.anthropic import AnthropicProvider, AnthropicSettings, parse_models
from penstock.providers.provider import Model
from penstock.types.errors import ClientError, UpstreamError, WireError
from penstock.types.requests import GenerationRequest, Message
from penstock.upstream.pool import Pool, PoolSettings
from penstock.wire.anthropic_messages_requests import NAME, Preferences
from tests.clients.anthropic_server import KEY, MODELS, running
from tests.providers.recorder import Recorder


def asking(model: str = "claude-echo", text: str = "one two", **fields: object) -> GenerationRequest:
    return GenerationRequest(model, (Message("user", text),), **fields)


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture
def pool():
    return Pool(PoolSettings())  # outside the loop, since it reads certificates


@pytest.fixture
async def make(server, pool):
    """Make a provider of the server; ``end`` is behind its address."""

    def made(key=KEY, end="", **settings):
        return AnthropicProvider("claude", AnthropicSettings(server.url + end, key, **settings), pool)

    yield made
    await pool.aclose()


@pytest.fixture
def provider(make):
    return make()


async def said(provider, request) -> Recorder:
    recorder = Recorder(provider.converse(request, request.model))
    await recorder.play()
    return recorder


async def test_an_answer_comes_whole(provider, server):
    recorder = await said(provider, asking())
    assert recorder.text == "one two"
    assert server.asked[-1].headers["x-api-key"] == KEY
    assert server.asked[-1].headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in server.asked[-1].headers
    assert server.asked[-1].body["max_tokens"] == 32_000


async def test_a_client_of_its_own_dialect_says_version_and_betas(provider, server):
    extra = {"anthropic_version": "2026-10-21", "anthropic_beta": ["a-1", "b-2"]}
    await said(provider, asking(dialect=NAME, extra=extra))
    assert server.asked[-1].headers["anthropic-version"] == "2026-10-21"
    assert server.asked[-1].headers["anthropic-beta"] == "a-1,b-2"


async def test_the_operators_headers_win(make, server):
    provider = make(headers={"Anthropic-Beta": "ours"})
    await said(provider, asking(dialect=NAME, extra={"anthropic_beta": ["theirs"]}))
    assert server.asked[-1].headers["anthropic-beta"] == "ours"


async def test_a_header_that_a_client_broke_is_refused(provider):
    with pytest.raises(ClientError):
        await said(provider, asking(dialect=NAME, extra={"anthropic_version": "1\r\nx: y"}))


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
async def test_the_address_may_end_in_our_paths_beginning(make, end):
    assert (await said(make(end=end), asking())).text == "one two"


async def test_the_operators_limit_is_told_where_there_is_none(make):
    provider = make(preferences=Preferences(max_tokens=1))
    assert (await said(provider, asking())).text == "one"
    assert (await said(provider, asking(max_output_tokens=50))).text == "one two"


async def test_all_pages_of_the_list_are_read(provider):
    models = await provider.models()
    assert [model.name for model in models] == list(MODELS)
    assert models[0] == Model("claude-echo", (), "Claude-Echo", 1767312000)


async def test_tokens_are_counted(provider, server):
    request = msgspec.structs.replace(asking(dialect=NAME), max_output_tokens=None)
    assert await provider.count_tokens(request, "claude-echo") > 10
    assert server.asked[-1].path == "/v1/messages/count_tokens"
    assert server.asked[-1].body == {
        "model": "claude-echo",
        "messages": [{"role": "user", "content": "one two"}],
    }


@pytest.mark.parametrize(
    ("model", "code", "status"),
    [
        ("claude-nope", "model_not_found", 404),
        ("claude-limited", "rate_limit_exceeded", 429),
        ("claude-overloaded", "overloaded", 503),
        ("claude-poor", "insufficient_quota", 402),
    ],
)
async def test_what_it_refuses_is_understood(provider, model, code, status):
    error = await (await said(provider, asking(model))).outcome()
    assert (error.code, error.status) == (code, status)


async def test_a_wrong_key_is_told_without_the_key(make):
    provider = make("sk-ant-wrong-key")
    error = await (await said(provider, asking())).outcome()
    assert error.code == "invalid_api_key"
    assert "sk-ant" not in error.message
    with pytest.raises(UpstreamError):
        await provider.models()


@pytest.mark.parametrize("url", ["box", "ftp://box", "http://box?x=1"])
def test_an_address_that_is_none_is_refused(url, pool):
    with pytest.raises(ValueError, match="base URL"):
        AnthropicProvider("claude", AnthropicSettings(url), pool)


def test_the_key_stands_in_no_repr(pool):
    settings = AnthropicSettings("http://box", KEY)
    assert KEY not in repr(settings) + repr(AnthropicProvider("claude", settings, pool))


def test_a_list_without_models_is_refused():
    for answer in ({}, [], {"data": {}}, None):
        with pytest.raises(WireError):
            parse_models(answer)
    strange = {"data": [{"id": "a", "created_at": "soon"}, {"id": 1}, "x", {"id": "b", "created": 5}]}
    assert parse_models(strange) == (Model("a"), Model("b", created=5))
