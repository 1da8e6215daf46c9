"""Whose pages may call us from elsewhere."""

import pytest
from structlog.testing import capture_logs

from penstock.config import Config, check
from penstock.server.origins import compile_origins
from tests.server.conftest import config

SAID = ["https://app.example.com", "https://*.pages.example", "http://localhost:*", "capacitor://localhost"]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://app.example.com", True),
        ("http://app.example.com", False),
        ("https://app.example.com:8443", False),
        ("https://app.example.com.evil.test", False),
        ("https://evil.test/app.example.com", False),
        ("https://appxexample.com", False),
        ("https://a.pages.example", True),
        ("https://a.b.pages.example", True),
        ("https://pages.example", False),
        ("https://evilpages.example", False),
        ("https://evil.test#.pages.example", False),
        ("https://evil.test\\.pages.example", False),
        ("https://a.pages.example.evil.test", False),
        ("https://a..pages.example", False),
        ("http://localhost:5173", True),
        ("http://localhost", False),
        ("http://localhost:5173.evil.test", False),
        ("http://localhost:", False),
        ("capacitor://localhost", True),
        ("null", False),
        ("", False),
    ],
)
def test_patterns_mean_what_they_say(origin, expected):
    assert bool(compile_origins(SAID).fullmatch(origin)) == expected


@pytest.mark.parametrize(
    "said",
    ["app.example.com", "https://", "https://*", "https://a.*.b", "https://x/path", "*.example.com", "null"],
)
def test_what_means_no_origin_is_refused_with_the_reason(said):
    (problem,) = check(Config(listen=_listen(said)))
    assert problem.where == "listen.allowed_origins[0]"
    assert "https://app.example.com" in problem.what


def _listen(*origins, **more):
    return config(listen={"port": 0, "allowed_origins": list(origins), **more}).listen


def test_every_page_may_come_in_with_a_key_and_not_without():
    assert [p.where for p in check(Config(listen=_listen("*")))] == ["listen.allowed_origins[0]"]
    assert not check(Config(listen=_listen("*"), anonymous=False))
    listen = _listen("*", allow_credentials=True)
    assert [p.where for p in check(Config(listen=listen, anonymous=False))] == ["listen.allowed_origins[0]"]


class TestOnTheWire:
    @pytest.fixture
    def settings(self):
        listen = {"port": 0, "drain": 0, "allowed_origins": SAID, "allow_credentials": True}
        return config(listen=listen)

    async def preflight(self, gateway, origin, **more):
        headers = {"origin": origin, "access-control-request-method": "POST", **more}
        headers["access-control-request-headers"] = "authorization, last-event-id"
        return await gateway.client.options("/v1/chat/completions", headers=headers)

    async def test_a_page_that_is_meant_may_ask_and_read(self, gateway):
        asked = await self.preflight(gateway, "https://a.pages.example")
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == "https://a.pages.example"
        assert asked.headers["access-control-allow-credentials"] == "true"
        assert asked.headers["access-control-max-age"] == "7200"
        read = await gateway.client.get("/v1/models", headers={"origin": "https://a.pages.example"})
        assert read.headers["access-control-allow-origin"] == "https://a.pages.example"
        exposed = {name.strip().lower() for name in read.headers["access-control-expose-headers"].split(",")}
        assert {"stream-id", "retry-after", "x-ratelimit-remaining-requests", "x-request-id"} <= exposed

    async def test_errors_can_be_read_by_the_page_too(self, gateway):
        origin = {"origin": "https://app.example.com"}
        for path in ("/v1/streams/s_nothing", "/nothing"):
            refused = await gateway.client.get(path, headers=origin)
            assert refused.status_code in (400, 404)
            assert refused.headers["access-control-allow-origin"] == "https://app.example.com"

    async def test_another_page_may_not(self, gateway):
        asked = await self.preflight(gateway, "https://evil.test")
        assert asked.status_code == 400
        assert "access-control-allow-origin" not in asked.headers
        read = await gateway.client.get("/v1/models", headers={"origin": "https://evil.test"})
        assert read.status_code == 403

    async def test_a_page_of_the_internet_may_reach_a_gateway_at_home_if_it_is_meant(self, gateway):
        asked = await self.preflight(
            gateway, "https://app.example.com", **{"access-control-request-private-network": "true"}
        )
        assert asked.headers["access-control-allow-private-network"] == "true"

    async def test_what_nobody_foresaw_can_be_read_by_the_page_too(self, gateway, monkeypatch):
        async def broken(scope):
            raise RuntimeError("a bug")

        monkeypatch.setattr(gateway.system.context, "identify", broken)
        with capture_logs():
            refused = await gateway.client.get("/v1/models", headers={"origin": "https://app.example.com"})
        assert refused.status_code == 500
        assert refused.headers["access-control-allow-origin"] == "https://app.example.com"
