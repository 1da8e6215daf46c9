"""Limits over HTTP: what refusals and answers tell, and that official SDKs back off and come through."""

import anthropic
import openai
import pytest
from structlog.testing import capture_logs

from penstock.policies.limits import Limit, Limits
from penstock.types.outcomes import Outcome
from penstock.types.principals import Principal
from tests.gateway.hand import call
from tests.server.conftest import config

CHAT = {"model": "demo-echo", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def settings():
    return config(
        keys={"app": "the key of app", "other": "the key of another"},
        limits=[{"by": "key", "match": "app", "requests_per_minute": 2, "tokens_per_day": 1_000_000}],
    )


def bearer(key="the key of app"):
    return {"authorization": f"Bearer {key}"}


async def ask(gateway, path="/v1/chat/completions", key="the key of app", **more):
    return await gateway.client.post(path, json={**CHAT, "max_tokens": 9, **more}, headers=bearer(key))


async def test_answers_say_what_is_left_in_the_manner_of_their_dialect(gateway):
    answer = await ask(gateway, stream=True)
    assert answer.headers["x-ratelimit-limit-requests"] == "2"
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    assert answer.headers["x-ratelimit-reset-requests"] in ("1m0s", "1m1s", "60s")
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000000"
    message = await ask(gateway, "/v1/messages")
    assert message.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert message.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert "x-ratelimit-limit-requests" not in message.headers
    free = await ask(gateway, key="the key of another")
    assert not [name for name in free.headers if "ratelimit" in name]


async def test_a_refusal_says_when_to_come_back_and_reading_goes_on(gateway):
    first = await ask(gateway)
    await ask(gateway)
    for path, kind in (("/v1/chat/completions", "rate_limit_error"), ("/v1/messages", "rate_limit_error")):
        refused = await ask(gateway, path)
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["type"], error["code"], error["fault"]) == (kind, "rate_limit_exceeded", "client")
        assert 55 <= int(refused.headers["retry-after"]) <= 62
        assert int(refused.headers["retry-after-ms"]) <= 62_000
    for path in ("", "/events", "/entries"):
        url = first.headers["location"] + path
        assert (await gateway.client.get(url, headers=bearer())).status_code == 200


async def test_a_model_whose_name_would_break_a_header_breaks_none(gateway):
    answer = await ask(gateway, model="demo-echo\r\nx-evil: 1")
    assert answer.status_code == 404
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
async def test_an_sdk_backs_off_by_itself_and_comes_through(gateway, monkeypatch, sdk):
    limits = next(p for p in gateway.system.gateway.setup.policy._policies if isinstance(p, Limits))
    limits.__init__([Limit(concurrent=1)], limits._clock)
    held = await limits.admit(call(principal=Principal("app")))

    class Freeing(list):
        """The slot that is taken is free once somebody was refused for it."""

        def append(self, refusal):
            super().append(refusal)
            held.settle(Outcome("completed"))

    refusals = Freeing()
    refuse = limits._refusal
    monkeypatch.setattr(limits, "_refusal", lambda *args: refusals.append(args) or refuse(*args))
    key = "the key of app"
    with capture_logs():
        if sdk == "openai":
            async with openai.AsyncOpenAI(api_key=key, base_url=f"{gateway.url}/v1") as client:
                answer = await client.chat.completions.create(**CHAT)
                assert answer.choices[0].message.content == "hello"
        else:
            async with anthropic.AsyncAnthropic(api_key=key, base_url=gateway.url) as client:
                message = await client.messages.create(**CHAT, max_tokens=9)
                assert message.content[0].text == "hello"
    assert len(refusals) == 1


async def test_streams_at_once_are_given_back_by_a_reader_that_leaves(gateway):
    limits = next(p for p in gateway.system.gateway.setup.policy._policies if isinstance(p, Limits))
    limits.__init__([Limit(concurrent=1)], limits._clock)
    body = {**CHAT, "model": "demo-slow-start", "stream": True}
    for _ in range(3):
        with capture_logs():
            request = gateway.client.build_request(
                "POST", "/v1/streams", json={"request": body, "on_disconnect": "cancel"}, headers=bearer()
            )
            response = await gateway.client.send(request, stream=True)
            assert response.status_code == 200, await response.aread()
            stream = response.headers["stream-id"]
            await response.aclose()
            url = f"/v1/streams/{stream}/entries"
            page = await gateway.client.get(url, params={"wait": 30}, headers=bearer())
            while page.json()["status"] == "open":
                page = await gateway.client.get(
                    url, params={"wait": 30, "after": page.json()["cursor"]}, headers=bearer()
                )
    assert limits.running == 0
