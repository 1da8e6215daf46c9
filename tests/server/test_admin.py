"""Keys and tokens for pages over HTTP: made, used, ended; and nobody's but those whose they are."""

import pytest
from structlog.testing import capture_logs

from penstock.types.keys import KeyOrder
from tests.server.conftest import config

ADMIN, APP = "the key of an administrator", "the key of an application"
CHAT = {"model": "demo-echo", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def settings():
    keys = {"root": {"key": ADMIN, "admin": True}, "app": {"key": APP, "models": ["demo*"], "team": "shop"}}
    return config(keys=keys)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def post(gateway, path, key, **body):
    return await gateway.client.post(path, json=body, headers=bearer(key))


async def chat(gateway, key, **more):
    return await post(gateway, "/v1/chat/completions", key, **{**CHAT, **more})


def code(response):
    return response.status_code, response.json()["error"]["code"]


async def test_a_key_is_told_once_works_at_once_and_ends_at_once(gateway):
    made = await post(gateway, "/v1/admin/keys", ADMIN, name="new", team="t", models=["demo-echo"])
    assert made.status_code == 201
    key = made.json()["key"]
    with capture_logs() as logs:
        assert (await chat(gateway, key)).status_code == 200
        assert code(await chat(gateway, key, model="demo")) == (403, "model_not_allowed")
        listed = await gateway.client.get("/v1/admin/keys", headers=bearer(ADMIN))
        ended = await gateway.client.delete(f"/v1/admin/keys/{made.json()['id']}", headers=bearer(ADMIN))
        assert ended.json()["state"] == "revoked"
        assert code(await chat(gateway, key)) == (401, "invalid_api_key")
    assert [one["name"] for one in listed.json()["data"]] == ["new"]
    assert key not in f"{listed.text}{ended.text}{logs}"


async def test_a_replaced_key_works_until_its_grace_is_over_and_streams_stay_whose_they_were(gateway):
    made = (await post(gateway, "/v1/admin/keys", ADMIN, name="new")).json()
    answer = await chat(gateway, made["key"])
    replaced = await post(gateway, f"/v1/admin/keys/{made['id']}/rotate", ADMIN, grace_s=3600)
    assert (await chat(gateway, made["key"])).status_code == 200
    url = answer.headers["location"]
    assert (await gateway.client.get(url, headers=bearer(replaced.json()["key"]))).status_code == 200
    assert (await post(gateway, f"/v1/admin/keys/{made['id']}/rotate", ADMIN)).status_code == 201
    assert (await chat(gateway, made["key"])).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a b"},
        {"name": "a/b"},
        {"name": "a\r\nx-admin: 1"},
        {"name": "x" * 65},
        {"name": "a", "team": "\n"},
        {"name": "a", "admin": "yes"},
        {"name": "a", "ttl_s": 0},
        {"name": "a", "ttl_s": 1e12},
        {"name": "a", "models": ["x"] * 101},
        {"name": "a", "origins": ["app.example"]},
        {"name": "a", "addresses": ["10.0.0.0/99"]},
        {"name": "a", "grant": {}},
    ],
)
async def test_a_key_that_cannot_be_is_refused(gateway, body):
    assert (await post(gateway, "/v1/admin/keys", ADMIN, **body)).status_code == 400


async def test_keys_are_for_administrators(gateway):
    for method, path in [
        ("GET", "/v1/admin/keys"),
        ("POST", "/v1/admin/keys"),
        ("POST", "/v1/admin/keys/0123456789/rotate"),
        ("DELETE", "/v1/admin/keys/0123456789"),
    ]:
        response = await gateway.client.request(method, path, json={"name": "x"}, headers=bearer(APP))
        assert code(response) == (403, "admin_required")


async def test_an_administrator_sees_every_stream_and_others_their_own(gateway):
    url = (await chat(gateway, APP)).headers["location"]
    assert (await gateway.client.get(url, headers=bearer(ADMIN))).status_code == 200
    own = (await chat(gateway, ADMIN)).headers["location"]
    for path in ("", "/events", "/entries"):
        assert code(await gateway.client.get(own + path, headers=bearer(APP))) == (404, "stream_not_found")
    for method, path in (("POST", "/cancel"), ("DELETE", ""), ("POST", "/links")):
        response = await gateway.client.request(method, own + path, json={}, headers=bearer(APP))
        assert code(response) == (404, "stream_not_found")


async def test_whose_streams_are_listed_is_a_matter_of_who_asks(gateway):
    page = (await post(gateway, "/v1/tokens", APP, user="alice")).json()["token"]
    mine, pages, chiefs = [(await chat(gateway, key)).headers["stream-id"] for key in (APP, page, ADMIN)]

    async def listed(key, whose):
        query = {"principal": whose} if whose else {}
        answer = await gateway.client.get("/v1/streams", params=query, headers=bearer(key))
        if answer.status_code != 200:
            return code(answer)[1]
        return [stream["id"] for stream in answer.json()["data"]]

    assert await listed(APP, "") == [mine]
    assert await listed(APP, "app/alice") == [pages]
    assert await listed(ADMIN, "app") == [mine]
    assert await listed(ADMIN, "") == [chiefs]
    for key, whose in ((APP, "root"), (APP, "apple"), (page, "app"), (page, "app/bob"), (APP, "*")):
        assert await listed(key, whose) == "admin_required"


# --- tokens for pages ----------------------------------------------------------------------------------


async def test_a_page_asks_with_its_token_and_its_back_end_finds_the_stream(gateway):
    made = await post(gateway, "/v1/tokens", APP, user="alice", models=["demo-echo"])
    assert (made.status_code, made.json()["principal"]) == (201, "app/alice")
    token = made.json()["token"]
    answer = await chat(gateway, token)
    assert answer.status_code == 200
    url = answer.headers["location"]
    for key in (token, APP, ADMIN):
        assert (await gateway.client.get(url, headers=bearer(key))).status_code == 200
    bob = (await post(gateway, "/v1/tokens", APP, user="bob")).json()["token"]
    assert code(await gateway.client.get(url, headers=bearer(bob))) == (404, "stream_not_found")
    assert code(await chat(gateway, token, model="demo")) == (403, "model_not_allowed")
    assert code(await post(gateway, "/v1/tokens", token)) == (403, "key_required")
    assert code(await post(gateway, "/v1/admin/keys", token, name="x")) == (403, "admin_required")


async def test_a_token_is_never_in_a_url_nor_is_a_key(gateway):
    token = (await post(gateway, "/v1/tokens", APP)).json()["token"]
    for name in ("key", "api_key", "access_token", "token"):
        response = await gateway.client.get("/stream", params={"content": "x", name: token})
        assert code(response) == (401, "missing_api_key")


async def test_a_token_works_on_the_pages_that_it_was_made_for(gateway):
    token = (await post(gateway, "/v1/tokens", APP, origins=["https://App.example/"])).json()["token"]
    there = {**bearer(token), "origin": "https://app.example"}
    assert (await gateway.client.get("/v1/models", headers=there)).status_code == 200
    for origin in ("https://evil.example", "null"):
        elsewhere = {**bearer(token), "origin": origin}
        assert code(await gateway.client.get("/v1/models", headers=elsewhere)) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    "body",
    [{"user": "a/b"}, {"user": "a\n"}, {"ttl_s": -1}, {"ttl_s": 1e6}, {"spend_usd": -1}, {"origins": ["x"]}],
)
async def test_a_token_that_cannot_be_is_refused(gateway, body):
    assert (await post(gateway, "/v1/tokens", APP, **body)).status_code == 400


async def test_what_an_sdk_of_another_dialect_sends_is_taken(gateway):
    for name in ("x-api-key", "api-key", "x-goog-api-key"):
        assert (await gateway.client.get("/v1/models", headers={name: APP})).status_code == 200
    refused = await gateway.client.post("/v1/messages", json={}, headers={"x-api-key": "wrong"})
    assert refused.json()["error"]["type"] == "authentication_error"


class TestWithoutKeys:
    @pytest.fixture
    def settings(self):
        return config()

    async def test_nobody_needs_a_token_and_keys_are_the_command_lines(self, gateway):
        assert code(await gateway.client.post("/v1/tokens", json={})) == (403, "key_required")
        response = await gateway.client.post("/v1/admin/keys", json={"name": "x"})
        assert code(response) == (403, "admin_required")

    async def test_the_description_says_that_a_key_is_wanted_once_there_is_one(self, gateway):
        def wanted(document):
            return "bearer" in document["components"]["securitySchemes"]

        assert not wanted((await gateway.client.get("/openapi.json")).json())
        desk = gateway.system.context.desk
        made = await desk.create(KeyOrder("a"))
        await gateway.system.context.keys_changed()
        assert wanted((await gateway.client.get("/openapi.json")).json())
        assert (await gateway.client.get("/v1/models")).status_code == 401
        assert (await gateway.client.get("/v1/models", headers=bearer(made.key))).status_code == 200
