"""Usage and budgets over HTTP: what was used is told to administrators, and who has no money is told so."""

import anthropic
import openai
import pytest
from structlog.testing import capture_logs

from tests.server.conftest import config

ADMIN, APP, POOR = "the key of an administrator", "the key of an application", "the key of somebody poor"
CHAT = {"model": "demo-echo", "messages": [{"role": "user", "content": "hello " * 50}]}


@pytest.fixture
def settings():
    keys = {
        "root": {"key": ADMIN, "admin": True},
        "app": {"key": APP, "team": "shop"},
        "poor": {"key": POOR},
    }
    prices = {"demo/*": {"input": 1_000, "output": 2_000}}
    budgets = [{"by": "key", "match": "poor", "usd": 0.000_001}, {"by": "team", "usd": 100, "period": "day"}]
    return config(keys=keys, prices=prices, budgets=budgets)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def ask(gateway, key=APP, path="/v1/chat/completions", **more):
    return await gateway.client.post(path, json={**CHAT, **more}, headers=bearer(key))


async def sums(gateway, **query):
    response = await gateway.client.get("/v1/admin/usage", params=query, headers=bearer(ADMIN))
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def test_what_was_used_is_told_by_what_is_asked_for(gateway):
    answer = (await ask(gateway)).json()
    await ask(gateway, ADMIN)
    (total,) = await sums(gateway)
    assert (total["generations"], total["attempts"], total["unpriced"]) == (2, 2, 0)
    (shop,) = await sums(gateway, by="team", team="shop")
    used = answer["usage"]
    assert (shop["input_tokens"], shop["output_tokens"]) == (used["prompt_tokens"], used["completion_tokens"])
    cost = used["prompt_tokens"] * 0.001 + used["completion_tokens"] * 0.002
    assert shop["cost_usd"] == pytest.approx(cost)
    assert {one["name"] for one in await sums(gateway, by="principal")} == {"app", "root"}
    assert await sums(gateway, since="2100-01-01") == []


async def test_budgets_show_what_is_left(gateway):
    await ask(gateway)
    response = await gateway.client.get("/v1/admin/budgets", headers=bearer(ADMIN))
    (shop,) = response.json()["data"]
    assert shop["name"] == "the team 'shop' ($100.00 a day)"
    assert 0 < shop["spent_usd"] < shop["limit_usd"] == 100
    assert shop["held_usd"] == 0


@pytest.mark.parametrize(
    "query", [{"by": "x"}, {"since": "yesterday"}, {"until": "2026-13-01"}, {"since": "-1"}]
)
async def test_a_question_that_cannot_be_is_refused(gateway, query):
    response = await gateway.client.get("/v1/admin/usage", params=query, headers=bearer(ADMIN))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")


async def test_usage_is_for_administrators(gateway):
    for path in ("/v1/admin/usage", "/v1/admin/budgets"):
        assert (await gateway.client.get(path, headers=bearer(APP))).json()["error"][
            "code"
        ] == "admin_required"


async def test_who_has_spent_all_is_told_so_in_words_that_an_sdk_does_not_repeat(gateway):
    await ask(gateway, POOR)
    refused = await ask(gateway, POOR)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")
    assert "the key 'poor'" in refused.json()["error"]["message"]
    client = openai.AsyncOpenAI(api_key=POOR, base_url=f"{gateway.url}/v1")
    claude = anthropic.AsyncAnthropic(api_key=POOR, base_url=gateway.url)
    with capture_logs():
        async with client, claude:
            with pytest.raises(openai.APIStatusError) as error:
                await client.chat.completions.create(**CHAT)
            assert (error.value.status_code, error.value.code) == (402, "budget_exceeded")
            with pytest.raises(anthropic.APIStatusError) as told:
                await claude.messages.create(**CHAT, max_tokens=10)
            assert (told.value.status_code, told.value.body["error"]["type"]) == (402, "billing_error")
    (total,) = await sums(gateway, principal="poor")
    assert total["generations"] == 1


async def test_a_pages_token_has_its_own_limit(gateway):
    made = await gateway.client.post(
        "/v1/tokens", json={"user": "alice", "spend_usd": 0.000_001}, headers=bearer(APP)
    )
    token = made.json()["token"]
    assert (await ask(gateway, token)).status_code in (200, 402)
    refused = await ask(gateway, token)
    assert refused.json()["error"]["code"] == "budget_exceeded"
    assert (await ask(gateway, APP)).status_code == 200


async def test_who_did_not_ask_for_usage_is_not_sent_it_and_it_is_counted(gateway):
    answer = await ask(gateway, stream=True)
    assert '"usage"' not in answer.text
    (total,) = await sums(gateway)
    assert total["output_tokens"] > 0
