"""Who may come in: names, origins and keys, by themselves and on every route there is."""

import pytest
from starlette.routing import Route
from structlog.testing import capture_logs

from penstock.policies.api_keys import KeyRing
from penstock.policies.browser_tokens import BrowserTokens
from penstock.policies.identities import Identities
from penstock.server.app import routes
from penstock.server.guard import Guard, GuardSettings, is_loopback
from penstock.server.relay import FORM_ENDPOINTS, JSON_ENDPOINTS
from penstock.types.errors import ClientError
from penstock.types.keys import KeyRecord, hash_key
from tests.server.conftest import config
from tests.server.raw import connected, request

KEY = "sk-client-secret-1"
OTHER_KEY = "sk-client-secret-2"
OPEN = {
    "/",
    "/ui/{file:path}",
    "/client/penstock.js",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/dashboard",
}
SPENDING = {
    ("GET", "/stream"),
    ("POST", "/v1/streams"),
    ("POST", "/v1/streams/cancel"),
    ("DELETE", "/v1/streams/{stream}"),
    ("POST", "/v1/streams/{stream}/cancel"),
    ("POST", "/v1/streams/{stream}/links"),
    ("PUT", "/v1/stream/{path:path}"),
    ("POST", "/v1/stream/{path:path}"),
    ("DELETE", "/v1/stream/{path:path}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/ui/chat"),
    ("POST", "/ui/chat/{chat:path}/stop"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/completions"),
    *(
        ("POST", f"{where}/{{model:path}}/{what}")
        for where in ("/openai/deployments", "/v1/engines")
        for what in ("chat/completions", "completions", "embeddings")
    ),
    *(("POST", f"/v1/{path}") for path in (*JSON_ENDPOINTS, *FORM_ENDPOINTS)),
    ("POST", "/v1/files"),
    ("DELETE", "/v1/files/{id}"),
    ("POST", "/api/chat"),
    ("POST", "/api/generate"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/responses/input_tokens"),
    ("POST", "/v1/responses/{stream}/cancel"),
    ("DELETE", "/v1/responses/{stream}"),
    ("POST", "/v1/tokens"),
    ("POST", "/v1/presets/{preset}"),
    ("GET", "/v1/presets/{preset}"),
    ("POST", "/v1/presets/{preset}/links"),
    ("POST", "/v1/admin/keys"),
    ("POST", "/v1/admin/keys/{key}/rotate"),
    ("DELETE", "/v1/admin/keys/{key}"),
    ("POST", "/v1/admin/profile"),
    ("POST", "/v1/admin/reload"),
    ("DELETE", "/v1/responses/{stream}"),
    ("POST", "/v1/responses/{stream}/cancel"),
    *(
        ("POST", f"/{version}/models/{{model:path}}:{method}")
        for version in ("v1", "v1beta")
        for method in ("generateContent", "streamGenerateContent", "countTokens")
    ),
}
ADMIN = ("/v1/admin/", "/metrics")


def code_of(response):
    """The code of a refusal, in whichever shape it comes."""
    body = response.json()
    error = (body[0] if isinstance(body, list) else body)["error"]
    if isinstance(error, str):
        return body["code"]
    return error["details"][0]["reason"].lower() if "details" in error else error["code"]


def verdict(guard, *, spends=True, **headers):
    """What ``guard`` says: who is calling, or the code of its refusal."""
    try:
        return guard.admit({n.replace("_", "-"): v for n, v in headers.items()}, spends=spends).id
    except ClientError as error:
        if error.status != (401 if "key" in error.code else 403):
            raise
        return error.code


def guard(**more):
    return Guard(GuardSettings(**more))


def keyed(*, anonymous=None, **keys):
    """A guard that knows these keys, by whose they are."""
    records = [KeyRecord(f"config.{name}", name, hash_key(key)) for name, key in keys.items()]
    ring = KeyRing(records, clock=lambda: 0.0, wall=lambda: 0.0)
    identities = Identities(ring, None, BrowserTokens(lambda: b"secret", lambda: 0.0))
    return Guard(GuardSettings(anonymous=anonymous), identities)


async def verdict_on_key(guard, *, spends=True, **headers):
    """As `verdict`, once the credential in the headers is looked at."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = await guard.identify(named)
    try:
        return guard.admit(named, found, spends=spends).id
    except ClientError as error:
        if error.status != (401 if "key" in error.code else 403):
            raise
        return error.code


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LocalHost:8080",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8080",
        "Box:80",
    ],
)
@pytest.mark.parametrize("spends", [False, True])
def test_without_keys_its_own_names_are_answered(host, spends):
    assert verdict(guard(hosts=("bOx",)), host=host, spends=spends) == "anonymous"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "localhost@evil.example",
        "evil.example#localhost",
        "127.0.0.2",
        "2130706433",
        "[::ffff:7f00:1]",
        "::",
        ":8080",
        "[",
        "]",
        "[::1]evil",
        "[::1]:80:evil]",
    ],
)
@pytest.mark.parametrize("spends", [False, True])
def test_without_keys_no_other_name_is_answered(host, spends):
    assert verdict(guard(), host=host, spends=spends) == "host_not_allowed"


def test_a_request_without_a_host_is_refused():
    assert verdict(guard()) == "host_not_allowed"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host, expected):
    assert is_loopback(host) is expected


# --- origins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:8080", "anonymous"),
        ("http://LOCALHOST:8080", "anonymous"),
        ("http://localhost", "origin_not_allowed"),
        ("http://localhost:3000", "origin_not_allowed"),
        ("http://127.0.0.1:8080", "origin_not_allowed"),
        ("https://app.example", "anonymous"),
        ("https://app.example/", "anonymous"),
        ("http://app.example", "origin_not_allowed"),
        ("https://app.example:444", "origin_not_allowed"),
        ("https://app.example.evil", "origin_not_allowed"),
        ("https://evil.example", "origin_not_allowed"),
        ("https://localhost:8080@evil.example", "origin_not_allowed"),
        ("null", "origin_not_allowed"),
        ("", "origin_not_allowed"),
        ("http://[", "origin_not_allowed"),
        ("://", "origin_not_allowed"),
        ("localhost:8080", "origin_not_allowed"),
        ("chrome-extension://abcdef", "origin_not_allowed"),
    ],
)
def test_pages_come_in_only_from_our_origin_or_a_configured_one(origin, expected):
    guarded = guard(origins=("https://App.example/",))
    for spends in (False, True):
        assert verdict(guarded, host="localhost:8080", origin=origin, spends=spends) == expected


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("none", "anonymous"),
        ("same-origin", "anonymous"),
        ("same-site", "cross_site_request"),
        ("cross-site", "cross_site_request"),
        ("", "cross_site_request"),
    ],
)
@pytest.mark.parametrize("spends", [False, True])
def test_what_a_browser_says_of_a_request_without_origin_counts(site, expected, spends):
    assert verdict(guard(), host="localhost", sec_fetch_site=site, spends=spends) == expected


def test_a_link_elsewhere_may_show_and_may_not_spend():
    clicked = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert verdict(guard(), host="localhost", spends=False, **clicked) == "anonymous"
    assert verdict(guard(), host="localhost", spends=True, **clicked) == "cross_site_request"
    framed = {**clicked, "sec_fetch_dest": "iframe"}
    assert verdict(guard(), host="localhost", spends=False, **framed) == "cross_site_request"


def test_a_typed_address_is_the_users_own_doing():
    typed = {"sec_fetch_site": "none", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert verdict(guard(), host="localhost", **typed) == "anonymous"


@pytest.mark.parametrize(
    "ahead", [{"sec_purpose": "prefetch"}, {"sec_purpose": "prefetch;prerender"}, {"purpose": "prefetch"}]
)
def test_what_a_browser_fetches_ahead_starts_nothing(ahead):
    assert verdict(guard(), host="localhost", sec_fetch_site="none", **ahead) == "unasked_request"
    assert verdict(guard(), host="localhost", sec_fetch_site="none", spends=False, **ahead) == "anonymous"


@pytest.mark.parametrize(
    ("referer", "expected"),
    [
        ("http://box:8080/", "anonymous"),
        ("http://BOX:8080/chat?a=http://evil.example", "anonymous"),
        ("https://app.example/page", "anonymous"),
        ("http://evil.example/", "cross_site_request"),
        ("http://evil.example/http://box:8080/", "cross_site_request"),
        ("http://box:8080@evil.example/", "cross_site_request"),
        ("http://box:80800/", "cross_site_request"),
        ("about:blank", "cross_site_request"),
        ("", "cross_site_request"),
    ],
)
def test_a_browser_that_says_nothing_must_show_where_it_comes_from(referer, expected):
    guarded = guard(hosts=("box",), origins=("https://app.example",))
    browser = {"host": "box:8080", "user_agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    assert verdict(guarded, **browser, referer=referer) == expected
    assert verdict(guarded, **browser, referer=referer, spends=False) == "anonymous"
    assert verdict(guarded, host="box:8080", user_agent="curl/8.5.0", referer=referer) == "anonymous"


# --- keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x_api_key": KEY},
        {"api_key": KEY},
        {"authorization": "Basic dTpw", "x_api_key": KEY},
        {"x_goog_api_key": KEY},
        {"sec_websocket_protocol": f"penstock.v1+json, penstock.key.{KEY}"},
        {"sec_websocket_protocol": f"openai-insecure-api-key.{KEY},realtime"},
    ],
)
async def test_a_key_is_taken_where_sdks_send_it(headers):
    guarded = keyed(app=KEY, other=OTHER_KEY)
    assert await verdict_on_key(guarded, **headers) == "app"
    elsewhere = {"host": "evil.example", "origin": "https://evil.example"}
    assert await verdict_on_key(guarded, **headers, **elsewhere) == "app"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Bearer"}, "missing_api_key"),
        ({"authorization": "Bearer "}, "missing_api_key"),
        ({"authorization": KEY}, "missing_api_key"),
        ({"authorization": f"Basic {KEY}"}, "missing_api_key"),
        ({"authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY[:-1]}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {hash_key(KEY)}"}, "invalid_api_key"),
        ({"authorization": f"Bearer sha256:{hash_key(KEY)}"}, "invalid_api_key"),
        ({"x_api_key": "ÿ"}, "invalid_api_key"),
    ],
)
async def test_no_key_or_another_one_is_refused(headers, expected):
    for spends in (False, True):
        assert await verdict_on_key(keyed(app=KEY), spends=spends, **headers) == expected


async def test_who_has_no_key_is_let_in_where_that_is_configured_and_a_wrong_one_is_still_wrong():
    for guarded in (keyed(app=KEY, anonymous=True), keyed(anonymous=True)):
        assert await verdict_on_key(guarded, host="localhost") == "anonymous"
        assert await verdict_on_key(guarded, host="evil.example") == "host_not_allowed"
    assert await verdict_on_key(keyed(app=KEY, anonymous=True), x_api_key=KEY) == "app"
    assert await verdict_on_key(keyed(app=KEY, anonymous=True), x_api_key="other") == "invalid_api_key"
    # What an SDK sends to a gateway without keys is nobody's.
    assert await verdict_on_key(keyed(), host="localhost", x_api_key="anything") == "anonymous"


async def test_nobody_comes_in_where_that_is_configured_and_there_is_no_key_yet():
    assert await verdict_on_key(keyed(anonymous=False), host="localhost") == "missing_api_key"
    assert await verdict_on_key(keyed(anonymous=False), x_api_key="any") == "invalid_api_key"


def test_a_guard_shows_no_key():
    assert KEY not in repr(keyed(app=KEY).__dict__)


# --- on every route ----------------------------------------------------------------------------------


def every(route: Route):
    return [(method, route.path) for method in sorted(route.methods - {"HEAD"})]


EVERY = [pair for route in routes() for pair in every(route)]
GUARDED = [pair for pair in EVERY if pair[1] not in OPEN]


def path(pattern):
    stream = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
    values = {
        "{stream}": stream,
        "{key}": "0123456789",
        "{preset}": "none",
        "{model:path}": "demo",
        "{file:path}": "index.html",
        "{path:path}": "logs/app",
    }
    for name, value in values.items():
        pattern = pattern.replace(name, value)
    return pattern


def test_every_route_that_spends_or_stops_is_known_here():
    """A new route that is neither a read nor in the list must be thought about."""
    asks = ("POST", "/api/show")  # a read, in spite of its method
    spending = {pair for pair in GUARDED if pair[0] != "GET" and pair != asks}
    assert spending | {("GET", "/stream"), ("GET", "/v1/presets/{preset}")} == SPENDING


async def ask(gateway, method, pattern, **headers):
    query = "?content=hello" if pattern == "/stream" else ""
    return await gateway.client.request(method, path(pattern) + query, headers=headers)


@pytest.mark.parametrize(("method", "pattern"), GUARDED)
async def test_every_route_refuses_a_name_that_is_not_ours(gateway, method, pattern):
    response = await ask(gateway, method, pattern, host="evil.example")
    assert (response.status_code, code_of(response)) == (403, "host_not_allowed")


@pytest.mark.parametrize(("method", "pattern"), sorted(SPENDING))
async def test_every_route_that_spends_refuses_pages_of_others(gateway, method, pattern):
    response = await ask(gateway, method, pattern, origin="https://evil.example")
    assert code_of(response) == "origin_not_allowed"
    response = await ask(
        gateway, method, pattern, **{"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}
    )
    assert code_of(response) == "cross_site_request"
    assert gateway.system.gateway.open_streams == 0


@pytest.mark.parametrize(("method", "pattern"), [pair for pair in EVERY if pair[1] in OPEN])
async def test_the_page_and_the_probes_are_open(gateway, method, pattern):
    assert (await ask(gateway, method, pattern, host="gateway.internal")).status_code == 200


async def test_a_request_without_a_host_is_refused_on_the_wire(gateway):
    async with connected(gateway.port) as client:
        client.send(request("GET", "/v1/models").replace(b"Host: localhost\r\n", b""))
        assert b"host_not_allowed" in await client.until(b'"error"')


class TestWithKeys:
    @pytest.fixture
    def settings(self):
        keys = {"app": KEY, "other": f"sha256:{hash_key(OTHER_KEY)}"}
        return config(keys=keys, listen={"port": 0, "drain": 0, "allowed_origins": ["https://app.example/"]})

    @pytest.mark.parametrize(("method", "pattern"), GUARDED)
    async def test_every_route_wants_one_and_tells_it_to_nobody(self, gateway, method, pattern):
        with capture_logs() as logs:
            without = await ask(gateway, method, pattern)
            wrong = await ask(gateway, method, pattern, authorization=f"Bearer {KEY}-wrong")
            right = await ask(gateway, method, pattern, authorization=f"Bearer {KEY}")
        assert (without.status_code, code_of(without)) == (401, "missing_api_key")
        assert without.headers["www-authenticate"] == "Bearer"
        assert (wrong.status_code, code_of(wrong)) == (401, "invalid_api_key")
        if pattern.startswith(ADMIN):
            assert right.json()["error"]["code"] == "admin_required"
        elif pattern.startswith("/v1/files") and method != "POST":
            assert code_of(right) == "admin_required"
        elif pattern == "/v1/files":
            assert right.status_code == 403
        else:
            assert right.status_code not in (401, 403)
        assert KEY not in f"{logs}{without.text}{wrong.text}{right.text}"

    @pytest.mark.parametrize(("method", "pattern"), [pair for pair in EVERY if pair[1] in OPEN])
    async def test_the_page_and_the_probes_want_none(self, gateway, method, pattern):
        assert (await ask(gateway, method, pattern)).status_code == 200

    async def test_a_hashed_key_is_as_good_and_another_principal(self, gateway):
        headers = {"authorization": f"Bearer {KEY}", "prefer": "respond-async"}
        body = {"request": {"model": "demo-echo", "messages": [{"role": "user", "content": "x"}]}}
        mine = await gateway.client.post("/v1/streams", json=body, headers=headers)
        url = f"/v1/streams/{mine.json()['stream']}"
        assert (await gateway.client.get(url, headers={"x-api-key": KEY})).status_code == 200
        assert (await gateway.client.get(url, headers={"x-api-key": OTHER_KEY})).status_code == 404

    async def test_a_configured_origin_may_ask_first_and_then_read(self, gateway):
        asking = {
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, idempotency-key, last-event-id",
        }
        response = await gateway.client.options("/v1/streams", headers=asking)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "last-event-id" in response.headers["access-control-allow-headers"]
        headers = {"origin": "https://app.example", "authorization": f"Bearer {KEY}"}
        response = await gateway.client.get("/stream?content=hello", headers=headers)
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "Stream-Id" in response.headers["access-control-expose-headers"]

    async def test_another_origin_is_not_let_in_by_a_browser(self, gateway):
        asking = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        response = await gateway.client.options("/v1/streams", headers=asking)
        assert "access-control-allow-origin" not in response.headers
