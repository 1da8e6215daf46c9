"""Counting tokens: who is asked, and what is estimated."""

import pytest

from penstock.assembly.system import assemble
from penstock.config import Config, ProviderConfig, StoreConfig, TargetConfig
from penstock.gateway.counting import Count, estimate
from penstock.types.calls import Call
from penstock.types.errors import ClientError
from penstock.types.principals import EVERYTHING, Grant, Principal
from penstock.types.requests import (
    GenerationRequest,
    ImagePart,
    Message,
    OpaquePart,
    TextPart,
    Tool,
    ToolCall,
)
from tests.clients.anthropic_server import KEY, running
from tests.clients.ollama_server import running as ollama


def asking(model="demo", text="Hello", **more):
    return GenerationRequest(model, (Message("user", text),), **more)


def call(request, grant=EVERYTHING):
    return Call(Principal("me", grant=grant), request.dialect, request, "req_1")


@pytest.fixture(scope="module")
def servers():
    with running() as claude, ollama() as near:
        yield claude, near


@pytest.fixture
def system(servers):
    claude, near = servers
    providers = {
        "claude": ProviderConfig("anthropic", claude.url, KEY),
        "near": ProviderConfig("ollama", f"http://{near.host}"),
    }
    models = {"mixed": [TargetConfig("claude", "claude-echo"), TargetConfig("demo", "demo-echo")]}
    config = Config(store=StoreConfig(kind="memory"), providers=providers, models=models, discover=False)
    return assemble(config, {})


async def test_a_provider_that_can_count_is_asked(system, servers):
    async with system.gateway:
        count = await system.context.counter.count(call(asking("mixed")))
        assert count == Count(14, False)
        assert servers[0].asked[-1].body["model"] == "claude-echo"


async def test_any_other_is_estimated(system):
    async with system.gateway:
        for model in ("demo", "near/echo", "echo"):
            count = await system.context.counter.count(call(asking(model)))
            assert count == Count(estimate(asking()), True)


async def test_a_name_that_nobody_answers_to_is_not_found(system):
    async with system.gateway:
        with pytest.raises(ClientError) as raised:
            await system.context.counter.count(call(asking("nope")))
        assert raised.value.code == "model_not_found"


def test_everything_that_is_sent_counts():
    plain = estimate(asking())
    longer = estimate(asking(text="Hello" * 100))
    assert 0 < plain < longer < 500
    assert estimate(asking(tools=(Tool("f", "does", {"type": "object"}),))) > plain
    said = Message("assistant", None, tool_calls=(ToolCall("a", "f", '{"a": "' + "x" * 100 + '"}'),))
    assert estimate(GenerationRequest("m", (said,))) > 20
    parts = (TextPart("Hello"), ImagePart(data="A" * 100_000), OpaquePart("x", {"a": "b" * 100}))
    assert 1_600 < estimate(GenerationRequest("m", (Message("user", parts),))) < 2_000


async def test_a_model_that_a_key_may_not_use_is_not_counted_for_it(system):
    async with system.gateway:
        for model in ("mixed", "nope"):
            with pytest.raises(ClientError) as refused:
                await system.context.counter.count(call(asking(model), Grant(models=("other",))))
            assert refused.value.code == "model_not_allowed"
