"""Whom which models are shown: a key that is for some hears of no others, in no dialect."""

import pytest

from penstock.types.keys import TokenOrder
from penstock.types.principals import Principal
from tests.server.conftest import config

SOME, ALL = "key-for-some-0001", "key-for-all-00002"
LISTS = ["/v1/models", "/v1beta/models", "/api/tags"]


@pytest.fixture
def settings():
    keys = {"some": {"key": SOME, "models": ["demo-echo", "demo-st*"]}, "all": ALL}
    return config(keys=keys, presets={"greet": {"model": "demo-echo"}})


async def ask(gateway, path, key=SOME, **more):
    return await gateway.client.get(path, headers={"authorization": f"Bearer {key}", **more})


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("anthropic", [False, True])
async def test_a_list_shows_what_may_be_asked_for(gateway, path, anthropic):
    more = {"anthropic-version": "2023-06-01"} if anthropic else {}
    everything = await ask(gateway, path, ALL, **more)
    shown = await ask(gateway, path, **more)
    assert "demo-error" in everything.text
    assert "demo-echo" in shown.text
    assert "demo-stall" in shown.text
    assert "demo-error" not in shown.text
    assert "demo-rate" not in shown.text


@pytest.mark.parametrize("path", ["/v1/models/{}", "/v1beta/models/{}"])
async def test_another_model_is_as_if_it_were_not_there(gateway, path):
    assert (await ask(gateway, path.format("demo-echo"))).status_code == 200
    hidden = await ask(gateway, path.format("demo-error"))
    missing = await ask(gateway, path.format("demo-errox"))
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace("demo-error", "") == missing.text.replace("demo-errox", "")


async def test_ollama_is_told_of_no_other_model_either(gateway):
    headers = {"authorization": f"Bearer {SOME}"}
    show = [
        await gateway.client.post("/api/show", json={"model": name}, headers=headers)
        for name in ("demo-echo", "demo-error")
    ]
    assert [one.status_code for one in show] == [200, 404]


@pytest.mark.parametrize("name", ["demo-error", "demo-errox", "demo-rate-limite"])
async def test_a_refusal_names_no_other_model(gateway, name):
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"authorization": f"Bearer {SOME}"}
    refused = await gateway.client.post("/v1/chat/completions", json=body, headers=headers)
    assert refused.status_code in (403, 404)
    assert "demo-" not in refused.text.replace(f"'{name}'", "")


async def test_a_token_for_one_preset_is_shown_no_model(gateway):
    order = TokenOrder(user="u", preset="greet")
    token = gateway.system.context.minter.make(Principal("all", key="config.all"), order).token
    shown = await ask(gateway, "/v1/models", token)
    assert shown.json() == {"object": "list", "data": []}
    assert (await ask(gateway, "/v1/models/demo-echo", token)).status_code == 404
