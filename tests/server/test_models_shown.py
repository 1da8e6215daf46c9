"""Whom which models are shown: a key that is for some hears of no others, in no dialect."""

import json

import pytest
from websockets.asyncio import client as sockets

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


def asked(name):
    """A generation, and what is as good as one, in every dialect: a path and a body for each."""
    said = [{"role": "user", "content": "Hi"}]
    part = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    contents = {"contents": [{"parts": [{"text": "Hi"}]}]}
    return {
        "/v1/streams": {"request": {"model": name, "messages": said}},
        "/v1/chat/completions": {"model": name, "messages": said},
        "/v1/completions": {"model": name, "prompt": "Hi"},
        "/v1/responses": {"model": name, "input": "Hi"},
        "/v1/responses/input_tokens": {"model": name, "input": "Hi"},
        "/v1/messages": {"model": name, "messages": said, "max_tokens": 9},
        "/v1/messages/count_tokens": {"model": name, "messages": said},
        f"/v1beta/models/{name}:generateContent": contents,
        f"/v1beta/models/{name}:streamGenerateContent": contents,
        f"/v1beta/models/{name}:countTokens": contents,
        "/api/chat": {"model": name, "messages": said},
        "/api/generate": {"model": name, "prompt": "Hi"},
        "/ui/chat": {"id": "c", "model": name, "messages": [part]},
        "/v1/embeddings": {"model": name, "input": "Hi"},
    }


@pytest.mark.parametrize("path", asked("x"))
async def test_in_no_dialect_a_refusal_tells_a_hidden_model_from_none(gateway, path):
    async def refused(name):
        (where, body) = [*asked(name).items()][[*asked("x")].index(path)]
        answer = await gateway.client.post(where, json=body, headers={"authorization": f"Bearer {SOME}"})
        assert "demo-" not in answer.text.replace(name, "")
        request_id = answer.headers["x-request-id"]
        return answer.status_code, answer.text.replace(name, "…").replace(request_id, "")

    assert await refused("demo-error") == await refused("demo-errox")


async def test_a_name_like_those_that_may_be_used_is_told_which_they_are(gateway):
    for path, body in asked("demo-stal").items():
        headers = {"authorization": f"Bearer {SOME}"}
        answer = await gateway.client.post(path, json=body, headers=headers)
        assert answer.status_code == 404, path
        assert "Did you mean 'demo-stall'?" in answer.text, path
        assert "demo-slow-start" not in answer.text, path


async def test_a_websocket_hints_at_no_model_that_is_hidden(gateway):
    async with sockets.connect(
        f"ws://127.0.0.1:{gateway.port}/v1/ws", subprotocols=[f"penstock.key.{SOME}"], proxy=None
    ) as ws:
        told = []
        for name in ("demo-error", "demo-errox", "demo-stal"):
            request = asked(name)["/v1/chat/completions"]
            await ws.send(json.dumps({"type": "create", "rid": "1", "request": request}))
            told.append(json.loads(await ws.recv())["message"].replace(f"'{name}'", "…"))
    assert told[0] == told[1]
    assert "demo-" not in told[0]
    assert "'demo-stall'" in told[2]


async def test_a_token_for_one_preset_is_shown_no_model(gateway):
    order = TokenOrder(user="u", preset="greet")
    token = gateway.system.context.minter.make(Principal("all", key="config.all"), order).token
    shown = await ask(gateway, "/v1/models", token)
    assert shown.json() == {"object": "list", "data": []}
    assert (await ask(gateway, "/v1/models/demo-echo", token)).status_code == 404
