"""Whom we take a client for, behind proxies and behind people who pretend to be some."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.server.proxies import apply, parse_network
from penstock.types.keys import hash_key
from tests.server.conftest import config

TRUSTED = [parse_network("10.0.0.0/8"), parse_network("::1"), parse_network("2001:db8:ffff::/48")]


def seen(peer, *headers, kind="http", scheme="http"):
    scope = {
        "type": kind,
        "client": (peer, 1234),
        "scheme": scheme,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    apply(scope, TRUSTED)
    return scope["client"][0], scope["scheme"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7, 10.1.1.1, 10.2.2.2", "203.0.113.7"),
        ("203.0.113.7:51234", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, unknown", "10.0.0.1"),
        ("6.6.6.6, _hidden, 10.1.1.1", "10.1.1.1"),
        ("10.3.3.3, 10.1.1.1", "10.3.3.3"),
        ("", "10.0.0.1"),
        (",,,", "10.0.0.1"),
    ],
)
def test_the_first_address_that_is_no_trusted_proxys_counts(said, expected):
    assert seen("10.0.0.1", ("x-forwarded-for", said))[0] == expected


def test_a_stranger_is_who_he_is_whatever_he_says():
    said = [("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1;proto=https")]
    assert seen("203.0.113.7", *said, ("x-forwarded-proto", "https")) == ("203.0.113.7", "http")


def test_several_headers_are_one_list():
    said = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7, 10.1.1.1")]
    assert seen("10.0.0.1", *said)[0] == "203.0.113.7"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ('for="[2001:db8::17]:4711";proto=https;by=10.0.0.2', "2001:db8::17"),
        ("for=6.6.6.6, For=203.0.113.7;proto=http, for=10.1.1.1", "203.0.113.7"),
        ("for=6.6.6.6, proto=https", "10.0.0.1"),
        ("for=6.6.6.6, for=_secret", "10.0.0.1"),
    ],
)
def test_the_standard_header_says_the_same(said, expected):
    assert seen("10.0.0.1", ("forwarded", said))[0] == expected


@pytest.mark.parametrize(
    ("headers", "kind", "expected"),
    [
        ([("x-forwarded-proto", "https")], "http", "https"),
        ([("x-forwarded-proto", "https")], "websocket", "wss"),
        ([("x-forwarded-proto", "http, HTTPS")], "http", "https"),
        ([("x-forwarded-proto", "gopher")], "http", "http"),
        ([("forwarded", "for=203.0.113.7;proto=https")], "http", "https"),
    ],
)
def test_how_the_client_came_to_the_proxy_is_believed_too(headers, kind, expected):
    assert seen("10.0.0.1", *headers, kind=kind)[1] == expected


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_is_said_there_is_an_address(forwarded_for, forwarded):
    encoded = [
        ("x-forwarded-for", forwarded_for.encode("latin-1", "ignore").decode("latin-1")),
        ("forwarded", forwarded.encode("latin-1", "ignore").decode("latin-1")),
    ]
    scope = {
        "type": "http",
        "client": ("10.0.0.1", 1),
        "scheme": "http",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in encoded],
    }
    apply(scope, TRUSTED)
    ipaddress.ip_address(scope["client"][0])


class TestBehindAProxy:
    @pytest.fixture
    def settings(self):
        key = {"key": f"sha256:{hash_key('a-key-for-one-network')}", "addresses": ["203.0.113.0/24"]}
        listen = {"port": 0, "drain": 0, "trusted_proxies": ["127.0.0.1", "::1"]}
        return config(keys={"app": key}, listen=listen)

    async def ask(self, gateway, said):
        headers = {"authorization": "Bearer a-key-for-one-network", "x-forwarded-for": said}
        return await gateway.client.get("/v1/models", headers=headers)

    async def test_a_key_of_one_network_is_good_for_clients_from_there(self, gateway):
        assert (await self.ask(gateway, "203.0.113.7")).status_code == 200
        refused = await self.ask(gateway, "203.0.113.7, 198.51.100.1")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "address_not_allowed")


class TestWithoutOne:
    @pytest.fixture
    def settings(self):
        key = {"key": f"sha256:{hash_key('a-key-for-one-network')}", "addresses": ["203.0.113.0/24"]}
        return config(keys={"app": key})

    async def test_nobody_can_say_to_be_from_elsewhere(self, gateway):
        headers = {"authorization": "Bearer a-key-for-one-network", "x-forwarded-for": "203.0.113.7"}
        refused = await gateway.client.get("/v1/models", headers=headers)
        assert refused.json()["error"]["code"] == "address_not_allowed"
