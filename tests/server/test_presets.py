"""Presets over HTTP: asked for with keys and by links; whose they are, what they show, and how often."""

import json
import re
from urllib.parse import urlencode

import pytest
from structlog.testing import capture_logs

from tests.server.conftest import config

APP, LIMITED, ADMIN = "the key of an application", "the key of somebody limited", "the key of a chief"
SECRET = "You are a pirate who knows the secret word"
PRESETS = {
    "echo": {
        "model": "demo-echo",
        "system": SECRET,
        "content": "<{{content}}> {{word}}",
        "variables": {"word": {"default": "please"}},
    },
    "other": {"model": "demo-echo"},
}


@pytest.fixture
def settings():
    keys = {
        "app": APP,
        "limited": {"key": LIMITED, "models": ["demo"]},
        "chief": {"key": ADMIN, "admin": True},
    }
    return config(keys=keys, presets=PRESETS, prices={"*": {"input": 10, "output": 10}})


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def ask(gateway, name="echo", key=APP, accept="text/plain", **body):
    headers = {**bearer(key), "accept": accept}
    return await gateway.client.post(
        f"/v1/presets/{name}", json={"content": "hello", **body}, headers=headers
    )


def code(response):
    return response.status_code, response.json()["error"]["code"]


async def test_what_is_said_goes_into_its_places(gateway):
    answer = await ask(gateway, variables={"word": "now"})
    assert (answer.status_code, answer.text) == (200, "<hello> now")
    native = await ask(gateway, accept="text/event-stream")
    assert native.text.startswith("retry: 1000\nevent: stream\n")
    stream = (await gateway.client.get(native.headers["location"], headers=bearer(APP))).json()
    assert (stream["text"], stream["model"]) == ("<hello> please", "demo-echo")


async def test_the_list_shows_no_prompt(gateway):
    listed = await gateway.client.get("/v1/presets", headers=bearer(APP))
    assert [one["name"] for one in listed.json()["data"]] == ["echo", "other"]
    assert listed.json()["data"][0]["variables"]["word"] == {
        "required": False,
        "default": "please",
        "max_chars": 1000,
    }
    assert SECRET not in listed.text


@pytest.mark.parametrize("name", ["none", "ECHO", "echo%0d%0ax-evil: 1", "..", "echo%00"])
async def test_a_preset_that_is_none_is_not_found(gateway, name):
    answer = await ask(gateway, name)
    assert answer.status_code == 404
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        {"content": 5},
        {"content": ""},
        {"variables": {"nothing": "x"}},
        {"variables": {"word": 5}},
        {"variables": {f"v{n}": "" for n in range(65)}},
        {"model": "dear"},
        {"system": "x"},
        {"ttl_s": -1},
    ],
)
async def test_what_cannot_be_asked_is_refused(gateway, body):
    assert (await ask(gateway, **body)).status_code == 400


async def test_a_key_that_may_not_use_the_model_may_not_use_the_preset(gateway):
    assert code(await ask(gateway, key=LIMITED)) == (403, "model_not_allowed")


async def test_the_same_key_makes_one_stream(gateway):
    headers = {**bearer(APP), "idempotency-key": "k"}
    body = {"content": "hello"}
    one, two = [await gateway.client.post("/v1/presets/echo", json=body, headers=headers) for _ in range(2)]
    assert one.headers["stream-id"] == two.headers["stream-id"]
    third = await gateway.client.post("/v1/presets/echo", json={"content": "else"}, headers=headers)
    assert code(third) == (422, "idempotency_key_reused")
    other = await gateway.client.post("/v1/presets/other", json=body, headers=headers)
    assert code(other) == (422, "idempotency_key_reused")


async def test_a_token_for_a_preset_is_good_for_that_alone(gateway):
    made = await gateway.client.post("/v1/tokens", json={"preset": "echo"}, headers=bearer(APP))
    token = made.json()["token"]
    assert (await ask(gateway, key=token)).status_code == 200
    assert code(await ask(gateway, "other", key=token)) == (403, "preset_not_allowed")
    chat = {"model": "demo-echo", "messages": [{"role": "user", "content": "x"}]}
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        body = {**chat, "max_tokens": 5} if path != "/v1/responses" else {"model": "demo-echo", "input": "x"}
        assert code(await gateway.client.post(path, json=body, headers=bearer(token)))[0] == 403
    written = await gateway.client.put("/v1/stream/logs", content=b"x", headers=bearer(token))
    assert code(written) == (403, "preset_not_allowed")
    listed = await gateway.client.get("/v1/presets", headers=bearer(token))
    assert [one["name"] for one in listed.json()["data"]] == ["echo"]
    unknown = await gateway.client.post("/v1/tokens", json={"preset": "none"}, headers=bearer(APP))
    assert code(unknown) == (404, "preset_not_found")


async def follow(gateway, url, headers=None, **query):
    """Ask by a link: what is said besides stands behind its token."""
    return await gateway.client.get(f"{url}&{urlencode(query)}", headers=headers or {})


# --- links ---------------------------------------------------------------------------------------------


async def link(gateway, name="echo", key=APP, **body):
    made = await gateway.client.post(f"/v1/presets/{name}/links", json=body, headers=bearer(key))
    assert made.status_code == 201, made.text
    return made.json()


async def test_a_link_starts_one_answer_and_goes_on_with_it(gateway):
    made = await link(gateway)
    with capture_logs() as logs:
        first = await follow(gateway, made["url"], content="hi", format="json")
        again = await follow(gateway, made["url"], content="hi", format="json")
        other = await follow(gateway, made["url"], content="another", format="json")
    assert first.status_code == 200
    assert "<hi> " in "".join(
        json.loads(d).get("delta", "") for d in re.findall(r"^data: (.*)$", first.text, re.M)
    )
    assert again.headers["stream-id"] == first.headers["stream-id"]
    assert code(other) == (422, "idempotency_key_reused")
    ids = re.findall(r"^id: (.*)$", first.text, re.M)
    headers = {"last-event-id": ids[2]}
    rest = await follow(gateway, made["url"], content="hi", format="json", headers=headers)
    assert re.findall(r"^id: (.*)$", rest.text, re.M)[1:] == ids[3:]
    end = await follow(gateway, made["url"], content="hi", format="json", headers={"last-event-id": ids[-1]})
    assert end.status_code == 204
    assert made["token"] not in f"{logs}"


async def test_what_a_link_started_is_its_makers_too(gateway):
    made = await link(gateway)
    first = await follow(gateway, made["url"], content="hi")
    assert (await gateway.client.get(first.headers["location"], headers=bearer(APP))).status_code == 200
    assert (await gateway.client.get(first.headers["location"], headers=bearer(LIMITED))).status_code == 404


async def test_a_link_is_good_for_its_preset_its_time_and_its_money(gateway, monkeypatch):
    made = await link(gateway)
    elsewhere = made["url"].replace("/echo", "/other")
    assert code(await follow(gateway, elsewhere, content="hi")) == (403, "preset_not_allowed")
    poor = await link(gateway, spend_usd=0)
    assert code(await follow(gateway, poor["url"], content="hi")) == (402, "budget_exceeded")
    tokens = gateway.system.context.minter
    late = tokens._wall() + 601
    monkeypatch.setattr(tokens, "_wall", lambda: late)
    assert code(await follow(gateway, made["url"], content="hi")) == (403, "link_expired")


async def test_no_other_token_works_in_a_url(gateway):
    page = (await gateway.client.post("/v1/tokens", json={}, headers=bearer(APP))).json()["token"]
    made = (await link(gateway))["token"]
    for token in (page, APP, "pt_x", made[:-1], made + "A", "read.1.x"):
        answer = await gateway.client.get("/v1/presets/echo", params={"content": "x", "token": token})
        assert code(answer) == (403, "invalid_link"), token
    # Nor does a link open anything else.
    for path in ("/stream", "/v1/streams"):
        answer = await gateway.client.get(path, params={"content": "x", "token": made})
        assert answer.status_code == 401


async def test_a_links_token_in_a_header_is_one_use_as_well(gateway):
    made = (await link(gateway))["token"]
    assert (await ask(gateway, key=made)).status_code == 200
    another = await ask(gateway, key=made, content="another")
    assert code(another) == (422, "idempotency_key_reused")
    assert "This link has asked its question" in another.json()["error"]["message"]
    chat = {"model": "demo-echo", "messages": [{"role": "user", "content": "x"}]}
    refused = await gateway.client.post("/v1/chat/completions", json=chat, headers=bearer(made))
    assert code(refused) == (403, "preset_not_allowed")
    assert code(await gateway.client.post("/v1/presets/echo/links", json={}, headers=bearer(made))) == (
        403,
        "key_required",
    )


async def test_usage_bears_the_presets_name(gateway):
    await ask(gateway)
    asked = {"by": "preset"}
    found = (await gateway.client.get("/v1/admin/usage", params=asked, headers=bearer(ADMIN))).json()["data"]
    assert [one["name"] for one in found] == ["echo"]


class TestWithoutKeys:
    @pytest.fixture
    def settings(self):
        return config(presets=PRESETS)

    async def test_an_event_source_needs_no_more_than_the_url(self, gateway):
        answer = await gateway.client.get("/v1/presets/echo?content=hi&word=now")
        assert re.findall(r"^data: (<hi> ?|now)$", answer.text, re.M)
        assert answer.text.count("event: done") == 1

    async def test_a_link_works_here_too(self, gateway):
        made = (await gateway.client.post("/v1/presets/echo/links", json={})).json()
        assert (await follow(gateway, made["url"], content="hi")).status_code == 200
        answer = await follow(gateway, made["url"], content="hi", headers={"host": "evil.example"})
        assert code(answer) == (403, "host_not_allowed")
