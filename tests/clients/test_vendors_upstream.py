"""Vendors behind the gateway, found by their keys alone, with OpenAI's SDK in front."""

import openai
import pytest

from tests.clients.gateway import PATIENCE, serving
from tests.clients.vector_server import Refused, answer, running

KEY = "sk-geheim-0123456789"


def judge(server, asked):
    """What the vendors have in common; `groq` refuses what Groq refuses."""
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        raise Refused(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    if asked.body["model"] == "limited":
        raise Refused(429, {"error": {"message": "Slow down", "code": "rate_limit"}}, {"retry-after": "17"})
    if unknown := {"logprobs", "top_logprobs", "logit_bias"} & asked.body.keys():
        raise Refused(400, {"error": {"message": f"property '{unknown.pop()}' is unsupported"}})
    return answer("openai_chat", asked.body["model"])


@pytest.fixture(scope="module")
def server():
    with running(judge) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server, tmp_path_factory):
    """A gateway that was told nothing but keys, as the vendors' own SDKs are."""
    told = {f"{name}_API_KEY": KEY for name in ("GROQ", "MISTRAL")}
    told |= {f"{name}_BASE_URL": server.url for name in ("GROQ", "MISTRAL")}
    settings = {
        "retry": {"tries": 1},
        "providers": {"strict": {"kind": "groq", "base_url": server.url, "unsupported": "refuse"}},
    }
    with serving(tmp_path_factory.mktemp("gateway"), settings, **told) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def sdk(gateway):
    with openai.OpenAI(base_url=gateway.api, api_key="none", max_retries=0, timeout=PATIENCE) as sdk:
        yield sdk.chat.completions


def says(model="groq/text", **more):
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


def test_what_was_left_out_is_told_in_a_header_and_in_the_stream(sdk, gateway):
    asked = says(seed=3, logprobs=True, top_logprobs=1, logit_bias={"1": 1})
    for stream in (False, True):
        answer = sdk.with_raw_response.create(**asked, stream=stream)
        dropped = answer.headers["stream-dropped"].split(", ")
        assert sorted(dropped) == ["logit_bias", "logprobs", "top_logprobs"]
        answer.parse() if not stream else list(answer.parse())
        first = gateway.get(f"/v1/streams/{answer.headers['stream-id']}/entries")["entries"][0]
        assert sorted(first["dropped"]) == sorted(dropped)


def test_nothing_is_told_where_nothing_was_left_out(sdk, server):
    answer = sdk.with_raw_response.create(**says(seed=3))
    assert "stream-dropped" not in answer.headers
    assert server.last.body["seed"] == 3


def test_a_strict_provider_refuses_what_it_cannot_be_told(sdk, server):
    before = len(server.asked)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.create(**says("strict/text", logprobs=True))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "logprobs")
    assert len(server.asked) == before


def test_a_name_leads_to_who_made_the_model_and_any_to_its_prefix(sdk, server):
    with pytest.raises(openai.NotFoundError):
        sdk.create(**says("mistral-nope"))
    assert server.last.body["model"] == "mistral-nope"
    assert sdk.create(**says("mistral/tools_mistral")).choices[0].message.tool_calls
    assert "stream_options" not in server.last.body


def test_a_rate_limit_is_told_with_its_time(sdk):
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.create(**says("groq/limited"))
    assert caught.value.response.headers["retry-after"] == "17"
    assert "Slow down" in caught.value.message


def test_an_answer_that_breaks_off_is_an_error(sdk):
    with pytest.raises(openai.APIError) as caught:
        list(sdk.create(**says("groq/cut:text"), stream=True))
    assert caught.value.code in ("upstream_reset", "upstream_truncated")
