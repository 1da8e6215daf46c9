"""The vendors of the table: what each is sent of one and the same request, and that all their answers are
understood."""

import json
from pathlib import Path

import pytest

from penstock.assembly.providers import build_provider
from penstock.config import ProviderConfig
from penstock.providers.kinds import KINDS
from penstock.providers.profiles import PROFILES
from penstock.types.errors import ClientError
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_chat_quirks import short_id
from tests.clients.vector_server import Refused, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

KEY = "sk-geheim-0123456789"
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RICH = {
    "model": "asked",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    ],
    "max_completion_tokens": 10,
    "seed": 7,
    "user": "u",
    "store": True,
    "metadata": {"a": "b"},
    "logit_bias": {"1": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "reasoning_effort": "medium",
    "parallel_tool_calls": False,
    "top_k": 5,
    "stream": True,
}


def judge(server, asked):
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise Refused(401, {"error": {"message": "Wrong key"}})
    return answer("openai_chat", asked.body["model"])


@pytest.fixture(scope="module")
def server():
    with running(judge) as server:
        yield server


@pytest.fixture(params=sorted(PROFILES))
def vendor(request):
    return request.param


@pytest.fixture
def provider(vendor, server):
    return build_provider(vendor, vendor, ProviderConfig(base_url=server.url, api_key=KEY), {})


def request_of(body=RICH):
    return OPENAI_CHAT.parse_request(json.dumps(body).encode())


async def test_what_a_vendor_is_sent_is_what_it_takes(vendor, provider, server):
    quirks = PROFILES[vendor].quirks
    conversation = provider.converse(request_of(), "text")
    recorder = Recorder(conversation)
    assert await recorder.play() is None
    await provider.aclose()
    assert recorder.text == "Hello, wörld 🌍"
    sent = server.last.body
    assert not quirks.lacks & sent.keys()
    assert (quirks.lacks & RICH.keys()) <= {*conversation.dropped}
    limit = "max_tokens" if quirks.limit == "max_tokens" else "max_completion_tokens"
    assert {"max_tokens", "max_completion_tokens"} & sent.keys() == {limit}
    assert sent["messages"][0]["role"] == ("developer" if quirks.developer else "system")
    assert sent["top_k"] == 5
    assert ("stream_options" in sent) is quirks.usage
    call, result = sent["messages"][2]["tool_calls"][0]["id"], sent["messages"][3]["tool_call_id"]
    assert call == result == (short_id("call_1", quirks.call_id) if quirks.call_id else "call_1")


EFFORTS = {
    "deepseek": {"thinking": {"type": "enabled"}},
    "moonshot": {"thinking": {"type": "enabled"}},
    "zhipu": {"thinking": {"type": "enabled"}},
    "mistral": {"reasoning_effort": "high"},
    "groq": {"reasoning_effort": "medium"},
    "openrouter": {"reasoning": {"effort": "medium"}},
    "xai": {"reasoning_effort": "high"},
    "qianfan": {"enable_thinking": True},
    "dashscope": {"enable_thinking": True},
}


async def test_each_is_told_in_its_own_words_how_hard_to_think(vendor, provider, server):
    names = {"reasoning_effort", "thinking", "reasoning", "enable_thinking"}
    await Recorder(provider.converse(request_of(), "text")).play()
    await provider.aclose()
    said = {name: value for name, value in server.last.body.items() if name in names}
    assert said == EFFORTS.get(vendor, {"reasoning_effort": "medium"})


async def test_a_client_that_speaks_to_the_vendor_is_not_corrected(server):
    provider = build_provider("d", "deepseek", ProviderConfig(base_url=server.url, api_key=KEY), {})
    body = {**RICH, "thinking": {"type": "disabled"}, "max_tokens": 3}
    await Recorder(provider.converse(request_of(body), "text")).play()
    await provider.aclose()
    assert server.last.body["thinking"] == {"type": "disabled"}
    assert server.last.body["max_tokens"] == 3


def test_several_answers_of_one_that_gives_one_are_refused(server):
    provider = build_provider("glm", "zhipu", ProviderConfig(base_url=server.url, api_key=KEY), {})
    with pytest.raises(ClientError) as caught:
        provider.converse(request_of({**RICH, "n": 2}), "text")
    assert caught.value.param == "n"


def test_by_the_strict_rule_what_is_lacking_is_refused(server):
    config = ProviderConfig(base_url=server.url, api_key=KEY, unsupported="refuse")
    provider = build_provider("groq", "groq", config, {})
    with pytest.raises(ClientError) as caught:
        provider.converse(request_of(), "text")
    assert caught.value.code == "unsupported_parameter"


async def test_every_form_of_answer_is_understood_over_a_socket(server):
    """All that vendors were seen to send, cut anywhere, through the whole of a provider."""
    provider = build_provider("any", "openai", ProviderConfig(base_url=server.url, api_key=KEY), {})
    for vector in load("openai_chat"):
        recorder = Recorder(provider.converse(request_of(), vector.name))
        error = await recorder.play()
        assert recorder.events == expected(vector), vector.name
        assert (error is None) == ("error" not in vector.content), vector.name
    await provider.aclose()


def test_all_vendors_are_kinds_with_a_title_and_an_address():
    for name, made in PROFILES.items():
        assert KINDS[name].base_url == made.base_url
        assert made.base_url.startswith("https://" if made.keys else "http://127.0.0.1:")
        assert made.title
    variables = [variable for kind in KINDS.values() for variable in kind.keys]
    assert len(variables) == len({*variables})


@pytest.mark.parametrize("id_", ["call_1", "", "x" * 500, "Déjà"])
def test_an_id_of_another_length_becomes_the_same_one_each_time(id_):
    made = short_id(id_, 9)
    assert made == short_id(id_, 9)
    assert len(made) == 9
    assert made.isascii()
    assert made.isalnum()
    assert short_id(made, 9) == made


def test_the_guide_has_a_row_for_every_kind_with_its_keys_and_models():
    page = (Path(__file__).parents[2] / "docs" / "guide" / "providers.md").read_text()
    rows = [line for line in page.split("\n## Vendors")[1].split("\n## ")[0].splitlines() if line[:2] == "| "]
    for name, kind in KINDS.items():
        if name == "scripted":
            continue
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        if kind.keys:
            cells = [cell.strip() for cell in row.split("|")]
            assert cells[3] == ", ".join(f"`{key}`" for key in kind.keys)
            assert cells[4] == ", ".join(f"`{pattern}`" for pattern in kind.models)
