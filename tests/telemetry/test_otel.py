"""OTLP from a gateway that serves, received by HTTP: the trace goes through it, and nothing that was said."""

import pytest

from tests.server.conftest import config, running
from tests.server.conftest import system as system
from tests.telemetry.collector import attributes, listening

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "nobody else's business"
ANSWER = "the answer"
CHAT = {"model": "near/m", "messages": [{"role": "user", "content": SECRET}]}


@pytest.fixture
def received():
    with listening() as found:
        yield found


@pytest.fixture
def otel():
    return {}


@pytest.fixture
def settings(received, otel):
    otel = {"enabled": True, "endpoint": received.url, "headers": {"x-tenant": "t"}, **otel}
    provider = {"base_url": f"{received.url}/provider/v1", "api_key": "sk-planted-secret-of-a-provider"}
    return config(providers={"near": provider}, telemetry={"otel": otel})


async def play(system, settings):
    async with running(system, settings) as gateway:
        headers = {"traceparent": PARENT}
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, ANSWER)


@pytest.mark.parametrize("otel", [{"propagate": ["near"]}])
async def test_a_trace_goes_through_the_gateway(system, settings, received):
    await play(system, settings)
    call, attempt = received.span("penstock openai_chat"), received.span("chat m")
    assert call.trace_id.hex() == attempt.trace_id.hex() == PARENT.split("-")[1]
    assert call.parent_span_id.hex() == PARENT.split("-")[2]
    assert attempt.parent_span_id == call.span_id
    (sent,) = [headers for path, headers in received.headers if path.startswith("/provider")]
    assert sent["traceparent"].split("-")[2] == attempt.span_id.hex()
    said = attributes(attempt)
    assert (said["gen_ai.provider.name"], said["server.address"]) == ("openai", "127.0.0.1")
    assert (said["gen_ai.response.model"], said["gen_ai.usage.output_tokens"]) == ("m-2026-01", 7)
    assert received.resources[0]["service.name"] == "penstock"
    assert "gen_ai.client.operation.duration" in received.metrics
    assert {headers["x-tenant"] for path, headers in received.headers if path.startswith("/v1/")} == {"t"}


@pytest.mark.parametrize("otel", [{"propagate": ["near"]}])
async def test_what_is_passed_on_is_in_the_trace_too(system, settings, received):
    asked = {"model": "near/bge", "input": SECRET}
    async with running(system, settings) as gateway:
        answer = await gateway.client.post("/v1/embeddings", json=asked, headers={"traceparent": PARENT})
        assert answer.status_code == 200
    call, attempt = received.span("penstock relay"), received.span("embeddings bge")
    assert call.trace_id.hex() == PARENT.split("-")[1]
    assert attempt.parent_span_id == call.span_id
    (sent,) = [headers for path, headers in received.headers if path.startswith("/provider")]
    assert sent["traceparent"].split("-")[2] == attempt.span_id.hex()
    assert attributes(attempt)["server.address"] == "127.0.0.1"
    assert SECRET not in f"{received.spans}{received.metrics}"


async def test_by_default_no_provider_is_told_and_nothing_that_was_said_leaves(system, settings, received):
    await play(system, settings)
    (sent,) = [headers for path, headers in received.headers if path.startswith("/provider")]
    assert "traceparent" not in {name.lower() for name in sent}
    told = f"{received.spans}{received.metrics}{received.resources}"
    assert received.spans
    for planted in (SECRET, ANSWER, "sk-planted"):
        assert planted not in told


@pytest.mark.parametrize("otel", [{"content": True, "metrics": False}])
async def test_what_was_said_is_told_where_that_is_wanted(system, settings, received):
    await play(system, settings)
    said = attributes(received.span("chat m"))
    assert SECRET in said["gen_ai.input.messages"]
    assert '"content":"the answer"' in said["gen_ai.output.messages"]
    assert '"finish_reason":"stop"' in said["gen_ai.output.messages"]
    assert received.metrics == {}
