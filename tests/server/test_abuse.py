"""What strangers try at the door, as a table: all is refused in words, starts nothing and leaks nothing.

Forged, expired, swapped and replayed credentials; other people's streams, keys, presets and
administration; names and ids that would break a header. No attempt may end in a 5xx, in a stream, or in a
secret in an answer or a log.
"""

import base64
import json

import jwt
import pytest
from structlog.testing import capture_logs

from penstock.types.keys import TokenOrder
from penstock.types.principals import Principal
from tests.server.conftest import config
from tests.server.raw import connected, request

ADMIN, APP, OTHER = "admin-secret-0001", "app-secret-0002", "other-secret-0003"
SHARED = "a secret of thirty-two bytes, or more"
PROMPT = "a prompt that nobody else may read"
CHAT = {"model": "demo-echo", "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture
def settings():
    keys = {"root": {"key": ADMIN, "admin": True}, "app": APP, "other": OTHER}
    issuer = {"algorithms": ["HS256"], "secret": SHARED, "issuer": "https://id.example", "audience": ["us"]}
    presets = {"mine": {"model": "demo-echo", "system": "the operator's own words"}}
    return config(keys=keys, jwt={"corp": issuer}, presets=presets)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def b64(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def token(gateway, **order):
    return gateway.system.context.minter.make(Principal("app", key="config.app"), TokenOrder(**order)).token


def forged(gateway):
    """Credentials that open nothing, by what is wrong with them."""
    claims = {"iss": "https://id.example", "aud": "us", "sub": "root", "exp": 4_000_000_000}
    good = token(gateway)
    said, _, mac = good.partition(".")
    other_said = token(gateway, user="root").partition(".")[0]
    key = ADMIN
    return {
        "a prefix": key[:-1],
        "a suffix": key + "x",
        "another case": key.upper(),
        "the hash of one": "sha256:" + "0" * 64,
        "a key of ours that was never made": "pk_0123456789_" + "A" * 43,
        "a principal's name": "root",
        "a wildcard": "*",
        "SQL": "' OR '1'='1",
        "another's body under this mac": f"{other_said}.{mac}",
        "this body under no mac": f"{said}.{'A' * 43}",
        "a token without a mac": said,
        "no algorithm": f"{b64({'alg': 'none'})}.{b64(claims)}.",
        "another secret": jwt.encode(claims, "x" * 32, "HS256"),
        "another audience": jwt.encode({**claims, "aud": "them"}, SHARED, "HS256"),
        "another issuer": jwt.encode({**claims, "iss": "https://evil.example"}, SHARED, "HS256"),
        "expired": jwt.encode({**claims, "exp": 1}, SHARED, "HS256"),
        "a subject of another's": jwt.encode({**claims, "sub": "app/x"}, SHARED, "HS256"),
        "deep": "eyJ" + "[" * 4_000 + ".e30.e30",
        "long": "A" * 30_000,
    }


PATHS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/streams"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/presets/mine"),
    ("POST", "/v1/tokens"),
    ("POST", "/v1/admin/keys"),
    ("GET", "/v1/admin/usage"),
    ("GET", "/v1/streams"),
    ("GET", "/v1/models"),
]


async def test_no_forged_expired_or_swapped_credential_opens_anything(gateway):
    with capture_logs() as logs:
        for what, credential in forged(gateway).items():
            for method, path in PATHS:
                for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key"):
                    value = f"Bearer {credential}" if name == "authorization" else credential
                    answer = await gateway.client.request(method, path, json=CHAT, headers={name: value})
                    assert answer.status_code == 401, (what, path, name, answer.text)
                    if len(credential) > 20:
                        assert credential not in answer.text
    assert gateway.system.gateway.open_streams == 0
    listed = await gateway.client.get("/v1/streams", headers=bearer(ADMIN))
    assert listed.json()["data"] == []
    assert not [log for log in logs if log["log_level"] == "error"]


async def test_a_token_that_was_good_is_not_when_it_is_replayed_after_its_time(gateway, monkeypatch):
    good = token(gateway, ttl=60)
    assert (await gateway.client.get("/v1/models", headers=bearer(good))).status_code == 200
    minter = gateway.system.context.minter
    late = minter._wall() + 61
    monkeypatch.setattr(minter, "_wall", lambda: late)
    answer = await gateway.client.get("/v1/models", headers=bearer(good))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "expired_token")


async def test_two_credentials_that_disagree_are_no_way_to_be_two(gateway):
    headers = {**bearer(APP), "x-api-key": ADMIN}
    answer = await gateway.client.get("/v1/admin/keys", headers=headers)
    assert answer.json()["error"]["code"] == "admin_required"
    headers = {**bearer("wrong"), "x-api-key": ADMIN}
    assert (await gateway.client.get("/v1/admin/keys", headers=headers)).status_code == 401


async def test_nobody_reaches_what_is_anothers_by_any_route(gateway):
    made = await gateway.client.post("/v1/chat/completions", json=CHAT, headers=bearer(APP))
    stream = made.headers["stream-id"]
    cursor = f"{stream}~0000000000000001"
    reader = (await gateway.client.post(f"/v1/streams/{stream}/links", json={}, headers=bearer(APP))).json()
    page = token(gateway, user="alice")
    base = f"/v1/streams/{stream}"
    attempts = [
        ("GET", base),
        ("GET", f"{base}/events"),
        ("GET", f"{base}/entries"),
        ("HEAD", base),
        ("POST", f"{base}/cancel"),
        ("DELETE", base),
        ("POST", f"{base}/links"),
        ("GET", f"/v1/chat/completions/chatcmpl-{stream[2:]}"),
        ("GET", f"/v1/responses/resp_{stream[2:]}"),
        ("POST", f"{base}/cancel?token={reader['token']}x"),
        ("GET", f"/v1/streams/{stream}/../{stream}"),
    ]
    for who in (OTHER, page):
        for method, path in attempts:
            answer = await gateway.client.request(method, path, json={}, headers=bearer(who))
            assert answer.status_code in (403, 404), (method, path, answer.status_code)
            assert PROMPT not in answer.text
        resumed = await gateway.client.post(
            "/v1/chat/completions", json=CHAT, headers={**bearer(who), "last-event-id": cursor}
        )
        assert resumed.json()["error"]["code"] == "stream_not_found"
        assert (await gateway.client.get("/v1/streams", headers=bearer(who))).json()["data"] == []
    assert (await gateway.client.get(base, headers=bearer(APP))).json()["status"] == "completed"


async def test_an_idempotency_key_of_another_is_ones_own(gateway):
    key = {"idempotency-key": "the same"}
    mine = await gateway.client.post("/v1/chat/completions", json=CHAT, headers={**bearer(APP), **key})
    theirs = await gateway.client.post("/v1/chat/completions", json=CHAT, headers={**bearer(OTHER), **key})
    assert mine.headers["stream-id"] != theirs.headers["stream-id"]
    stopped = await gateway.client.post("/v1/streams/cancel", headers={**bearer(ADMIN), **key})
    assert stopped.status_code == 404


@pytest.mark.parametrize(
    "name",
    ["demo\r\nx-evil: 1", "demo\nset-cookie: a=b", "demo\x00", "\u2028x-evil: 1", "a" * 100_000, "é\r\n"],
)
async def test_names_that_would_break_a_header_break_none(gateway, name):
    answers = [
        await gateway.client.post("/v1/chat/completions", json={**CHAT, "model": name}, headers=bearer(APP)),
        await gateway.client.post("/v1/tokens", json={"user": name}, headers=bearer(APP)),
        await gateway.client.post("/v1/tokens", json={"preset": name}, headers=bearer(APP)),
        await gateway.client.post("/v1/admin/keys", json={"name": name}, headers=bearer(ADMIN)),
        await gateway.client.get("/v1/admin/usage", params={"by": name[:2_000]}, headers=bearer(ADMIN)),
        await gateway.client.get("/v1/presets/mine", params={"content": "x", "token": name[:2_000]}),
        await gateway.client.get("/v1/presets/mine", params={name[:2_000]: "x"}, headers=bearer(APP)),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500, answer.text
        assert not {"x-evil", "set-cookie"} & set(answer.headers)


@pytest.mark.parametrize(
    "head",
    [
        b"authorization: Bearer " + b"\xff" * 40,
        b"authorization: Bearer\t" + APP.encode() + b"x",
        b"authorization: " + b"Bearer " * 500 + APP.encode(),
        b"x-api-key: " + "é".encode() * 100,
        b"x-api-key: a\x0bb",
        b"authorization: Bearer a\x00b",
        b"sec-websocket-protocol: " + b"penstock.key.," * 300,
    ],
)
async def test_headers_that_no_client_sends_are_met_with_a_refusal(gateway, head):
    async with connected(gateway.port) as client:
        sent = request("GET", "/v1/models").replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n\r\n")
        client.send(sent)
        answer = await client.until(b"\r\n\r\n")
        assert answer.split(b" ")[1] in (b"400", b"401", b"431")


async def test_secrets_stay_secret(gateway):
    """Keys, tokens and prompts that went through are in no log, no error and no list."""
    with capture_logs() as logs:
        made = await gateway.client.post("/v1/admin/keys", json={"name": "n"}, headers=bearer(ADMIN))
        key = made.json()["key"]
        page = (await gateway.client.post("/v1/tokens", json={"user": "u"}, headers=bearer(key))).json()[
            "token"
        ]
        link = (await gateway.client.post("/v1/presets/mine/links", json={}, headers=bearer(key))).json()
        get, post = gateway.client.get, gateway.client.post
        for who in (key, page):
            await post("/v1/chat/completions", json=CHAT, headers=bearer(who))
        await get(f"{link['url']}&content={PROMPT}")
        paths = ("/v1/admin/keys", "/v1/admin/usage?by=key", "/v1/admin/budgets", "/v1/presets", "/v1/none")
        answers = [await get(path, headers=bearer(ADMIN)) for path in paths]
        answers.append(await post("/v1/chat/completions", content=b"{", headers=bearer(key)))
    said = "".join(f"{answer.headers}{answer.text}" for answer in answers) + str(logs)
    for secret in (
        key,
        key.rpartition("_")[2],
        page,
        link["token"],
        ADMIN,
        PROMPT,
        "the operator's own words",
    ):
        assert secret not in said
