"""Which proxy the environment names for an origin."""

import pytest

from penstock.types.errors import UpstreamError
from penstock.upstream.http1 import Origin
from penstock.upstream.proxies import Proxies, Proxy, parse_proxy

HTTP = Origin("http", "model.example", 80)
HTTPS = Origin("https", "model.example", 443)


def found(environ, origin=HTTPS):
    proxy = Proxies(environ).find(origin)
    return proxy and str(proxy)


@pytest.mark.parametrize(
    ("environ", "plain", "secure"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1", None),
        ({"https_proxy": "http://p:1"}, None, "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1", "http://p:1"),
        ({"all_proxy": "http://p:1", "http_proxy": "http://q:2"}, "http://q:2", "http://p:1"),
        ({"HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:1"}, None, "http://lower:1"),
        ({"HTTPS_PROXY": "http://upper:1", "https_proxy": ""}, None, None),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://p:1", None),
        ({"https_proxy": "p:3128"}, None, "http://p:3128"),
        ({"https_proxy": "https://p"}, None, "https://p"),
        ({"https_proxy": "http://[::1]:8080/"}, None, "http://[::1]:8080"),
    ],
)
def test_variable_is_chosen_by_scheme(environ, plain, secure):
    assert (found(environ, HTTP), found(environ, HTTPS)) == (plain, secure)


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "direct"),
    [
        ("*", "a.example", 443, True),
        ("example", "a.example", 443, True),
        ("a.example", "a.example", 443, True),
        ("a.example", "b.a.example", 443, True),
        (".a.example", "b.a.example", 443, True),
        (".a.example", "a.example", 443, True),
        ("*.a.example", "b.a.example", 443, True),
        ("a.example", "aa.example", 443, False),
        ("A.Example", "a.EXAMPLE.", 443, True),
        ("other, a.example", "a.example", 443, True),
        ("other a.example", "a.example", 443, True),
        ("a.example:443", "a.example", 443, True),
        ("a.example:8443", "a.example", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "a.example", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:443", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("fd00::/8", "fd00::1", 443, True),
        ("fd00::1", "fd00::1", 443, True),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("[fd00::1]", "fd00::2", 443, False),
        ("", "127.0.0.1", 443, True),
        ("", "::1", 443, True),
        ("", "localhost", 443, True),
        (",, ,", "a.example", 443, False),
    ],
)
def test_exceptions_go_direct(exceptions, host, port, direct):
    environ = {"https_proxy": "http://p:1", "NO_PROXY": exceptions}
    assert (found(environ, Origin("https", host, port)) is None) == direct


def test_credentials_become_a_header_and_are_not_printed():
    proxy = parse_proxy("http://us%3Aer:p%40ss@p:1")
    assert proxy == Proxy(Origin("http", "p", 1), "Basic dXM6ZXI6cEBzcw==")
    assert "cEBz" not in f"{proxy} {proxy!r}"


@pytest.mark.parametrize("url", ["socks5://p:1", "http://", "http://p:port", "ftp://p"])
def test_unusable_proxy_is_an_error_when_it_is_needed(url):
    proxies = Proxies({"https_proxy": url.replace("//", "//user:secret@")})
    assert proxies.find(HTTP) is None
    with pytest.raises(UpstreamError) as caught:
        proxies.find(HTTPS)
    assert caught.value.code == "upstream_proxy"
    assert "secret" not in caught.value.message
