"""Servers that complete texts, over a socket that cuts anywhere, and OpenAI's SDK as the judge of that."""

import openai
import pytest

from penstock.assembly.providers import build_provider
from penstock.config import Config, ProviderConfig, check
from penstock.types.errors import ClientError
from penstock.types.requests import GenerationRequest, Message
from penstock.wire.openai_completions import NAME
from tests.clients.vector_server import Refused, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

KEY = "sk-geheim-0123456789"


def judge(server, asked):
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise Refused(401, {"error": {"message": f"Incorrect API key: {KEY}", "code": "invalid_api_key"}})
    assert asked.path == "/v1/completions"
    assert asked.body["stream"] is True
    assert isinstance(asked.body["prompt"], str)
    return answer("openai_completions", asked.body["model"])


@pytest.fixture(scope="module")
def server():
    with running(judge) as made:
        yield made


@pytest.fixture
def make(server):
    def made(key=KEY, **settings):
        config = ProviderConfig(base_url=f"{server.url}/v1", api_key=key, api="completions", **settings)
        return build_provider("box", "vllm", config, {})

    return made


ASKED = GenerationRequest("m", (Message("user", "Once upon a"),), dialect=NAME)
CHAT = GenerationRequest("m", (Message("user", "Hi"),))


async def test_all_forms_of_answer_are_understood(make, server):
    provider, wrong = make(), make("sk-wrong-0123456789")
    for vector in load("openai_completions"):
        recorder = Recorder(provider.converse(ASKED, vector.name))
        error = await recorder.play()
        assert recorder.events == expected(vector), vector.name
        assert (error is None) == ("error" not in vector.content), vector.name
    assert server.last.body["prompt"] == "Once upon a"
    error = await Recorder(provider.converse(ASKED, "cut:text")).play()
    assert error.code in ("upstream_reset", "upstream_truncated")
    error = await Recorder(wrong.converse(ASKED, "text")).play()
    assert (error.code, KEY in error.message) == ("invalid_api_key", True)  # it is not ours there
    await provider.aclose()
    await wrong.aclose()


async def test_conversations_are_refused_or_written_by_a_template(make, server):
    plain, chatml = make(), make(template="chatml")
    with pytest.raises(ClientError, match="takes no conversations"):
        plain.converse(CHAT, "text")
    assert await Recorder(chatml.converse(CHAT, "text")).play() is None
    assert server.last.body["prompt"] == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    await plain.aclose()
    await chatml.aclose()


def test_a_template_without_texts_is_a_mistake():
    (problem,) = check(Config(providers={"vllm": ProviderConfig(template="chatml")}))
    assert problem.where == "providers.vllm.template"


def test_openai_s_sdk_reads_the_same_in_this_server(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        for vector in load("openai_completions"):
            if "error" in vector.content or vector.name in ("whole", "chat_instead"):
                continue
            text, reason = "", None
            for chunk in client.completions.create(model=vector.name, prompt="Hi", stream=True):
                for choice in chunk.choices:
                    if choice.index == 0:
                        text += choice.text
                        reason = reason or choice.finish_reason
            events = vector.content["events"]
            said = [e for e in events if e["type"] == "text" and not e.get("index")]
            assert text == "".join(e["delta"] for e in said), vector.name
            assert reason is not None
