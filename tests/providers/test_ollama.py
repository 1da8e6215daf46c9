"""The Ollama provider: where it is, what it lists, what is sent to it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.ollama import OllamaProvider, OllamaSettings, parse_models
from penstock.providers.ollama_host import find_address
from penstock.providers.provider import Model
from penstock.types.errors import UpstreamError, WireError
from penstock.types.requests import GenerationRequest, Message
from penstock.upstream.http1 import split_url
from penstock.upstream.pool import Pool, PoolSettings
from penstock.wire.ollama import Preferences
from tests.clients.ollama_server import MODELS, running
from tests.providers.recorder import Recorder

KEY = "geheim-0123456789"


def asking(model: str, text: str = "one two", **fields: object) -> GenerationRequest:
    return GenerationRequest(model, (Message("user", text),), **fields)


# --- OLLAMA_HOST -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("box", "http://box:11434"),
        ("box:1234", "http://box:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("http://box", "http://box:80"),
        ("https://box", "https://box:443"),
        ("https://box:1234/deep/er/", "https://box:1234/deep/er"),
        ("http://", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("::", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("[fe80::1]", "http://[fe80::1]:11434"),
        ("'box:1234'", "http://box:1234"),
        ("ollama.com", "https://ollama.com:443"),
    ],
)
def test_the_variable_is_read_as_ollama_reads_it(host: str, url: str):
    assert find_address(host) == url


@pytest.mark.parametrize(
    "host",
    [
        *("ftp://box", "box:port", "box:99999", "user:geheim@box", "a b", "http://geheim:geheim", "bücher"),
        *(":0:", "[:0:]", "box:1:2"),
    ],
)
def test_what_is_no_address_is_refused_without_quoting_it(host: str):
    with pytest.raises(ValueError) as caught:
        find_address(host)
    assert "geheim" not in str(caught.value)


@given(
    host=st.text(max_size=20) | st.from_regex(r"(https?://)?[a-z0-9.\[\]:]{0,12}(/[a-z]*)?", fullmatch=True)
)
def test_any_text_is_an_address_that_can_be_connected_to_or_none(host: str):
    try:
        url = find_address(host)
    except ValueError:
        return
    if "/" not in url.partition("://")[2]:
        assert split_url(url)[0].port <= 65535


# --- its list ----------------------------------------------------------------------------------------


def test_a_list_says_names_sizes_and_times():
    details = {"family": "qwen3", "parameter_size": "8.2B", "quantization_level": "Q4_K_M"}
    time = "2026-01-01T01:00:00.123456789+01:00"
    listed = parse_models(
        {
            "models": [
                {"name": "qwen3:latest", "modified_at": time, "details": details},
                {"model": "tiny:1b", "details": {"family": "llama", "quantization_level": "unknown"}},
                {
                    "name": "gpt-oss:120b-cloud",
                    "remote_host": "https://ollama.com:443",
                    "modified_at": "soon",
                },
                {"name": "qwen3:latest", "modified_at": time, "details": details},
            ]
        }
    )
    assert listed == (
        Model("qwen3:latest", ("qwen3",), "qwen3, 8.2B, Q4_K_M", 1767225600),
        Model("tiny:1b", (), "llama"),
        Model("gpt-oss:120b-cloud", (), "at https://ollama.com:443"),
    )


@pytest.mark.parametrize("entry", [None, 5, "a", {}, {"name": 5}, {"name": "", "details": []}])
def test_what_has_no_name_is_passed_over(entry: object):
    assert parse_models({"models": [entry, {"name": "a", "details": 7, "modified_at": 8}]}) == (Model("a"),)


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"models": None}, {"data": []}])
def test_what_is_no_list_is_malformed(answer: object):
    with pytest.raises(WireError):
        parse_models(answer)


# --- over real sockets -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture
def made_pool():
    return Pool(PoolSettings())  # outside the loop, since it reads certificates


@pytest.fixture
async def pool(made_pool):
    yield made_pool
    await made_pool.aclose()


@pytest.fixture
def provider(server, pool):
    settings = OllamaSettings(f"http://{server.host}/", KEY, {"X-Team": "a-secret-team"})
    return OllamaProvider("box", settings, pool)


async def test_an_answer_arrives_whole(provider, server):
    sink = Recorder(provider.converse(asking("asked"), "echo"))
    assert await sink.play() is None
    assert sink.text == "one two"
    asked = server.asked[-1]
    assert (asked.path, asked.body["model"], asked.body["stream"]) == ("/api/chat", "echo", True)
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["x-team"] == "a-secret-team"
    assert asked.headers["accept"] == "application/x-ndjson"


async def test_a_prompt_is_completed_where_that_is_preferred(server, pool):
    settings = OllamaSettings(f"http://{server.host}", preferences=Preferences("generate", "5m"))
    sink = Recorder(OllamaProvider("base", settings, pool).converse(asking("asked"), "echo"))
    assert await sink.play() is None
    assert sink.text == "one two"
    assert (server.asked[-1].path, server.asked[-1].body["keep_alive"]) == ("/api/generate", "5m")


async def test_a_connection_serves_one_answer_after_another(provider, pool):
    for _ in range(3):
        assert await Recorder(provider.converse(asking("asked"), "echo")).play() is None
    assert pool.statistics().opened == 1


async def test_an_abort_reaches_the_server(provider, server):
    sink = Recorder(provider.converse(asking("asked"), "endless"))
    await sink.source.open(sink)
    await sink.wait_call()
    sink.source.abort()
    assert await asyncio.to_thread(server.asked[-1].left.wait, 10)


async def test_models_are_asked_for(provider):
    assert [model.name for model in await provider.models()] == list(MODELS)


async def test_nobody_at_the_address_is_unreachable(pool):
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    provider = OllamaProvider("box", OllamaSettings(f"http://127.0.0.1:{port}"), pool)
    with pytest.raises(UpstreamError) as caught:
        await provider.models()
    assert caught.value.code == "upstream_unreachable"


@pytest.mark.parametrize(
    "url", ["http://box:11434/v1", "http://box:11434/api/", "box:11434", "http://a:geheim@b"]
)
async def test_a_base_url_that_cannot_be_right_is_refused(url: str, pool):
    with pytest.raises(ValueError) as caught:
        OllamaProvider("box", OllamaSettings(url), pool)
    assert "geheim" not in str(caught.value)


async def test_no_repr_shows_a_credential(provider):
    source = provider.converse(asking("asked"), "echo").source
    for thing in (provider, source, OllamaSettings("http://u:geheim@box", KEY, {"x": "geheim"})):
        assert "geheim" not in f"{thing!r} {thing}"
        assert "secret-team" not in f"{thing!r} {thing}"
