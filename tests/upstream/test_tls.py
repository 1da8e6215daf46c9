"""TLS: what is refused, what a lost connection means under it, and what is resumed."""

import contextlib
import socket
import ssl

import pytest

from penstock.types.errors import UpstreamError
from penstock.upstream.http1 import Origin, Request
from penstock.upstream.tls import PIECE_BYTES, TlsLayer, create_context
from tests.upstream.conftest import FILES
from tests.upstream.servers import CHUNKED, Recorder, chunked, eventually, forward_proxy, response, serve
from tests.upstream.test_http1 import ask, cut, fail, sending


@pytest.fixture
def trusting(make_pool, certificates):
    """A pool that trusts the tests' authority."""
    return make_pool(ca_file=certificates.file)


async def test_response_comes_over_tls(trusting, certificates):
    body = bytes(range(256)) * 5000
    async with serve(sending(response(body)), context=certificates.context("127.0.0.1")) as server:
        sink = await ask(trusting, server.request())
        assert str(server.origin).startswith("https://")
    assert sink.body == body


async def test_long_request_goes_over_tls(trusting, certificates):
    seen = []

    async def handle(peer):
        seen.append(await peer.request())
        await peer.send(response())

    body = bytes(range(256)) * 20_000
    async with serve(handle, context=certificates.context("127.0.0.1")) as server:
        await ask(trusting, server.request("POST", body=body))
    assert seen[0].body == body


async def test_server_learns_the_name_and_that_http_1_is_spoken(trusting, certificates):
    context = certificates.context("localhost")
    context.set_alpn_protocols(["h2", "http/1.1"])
    names = []
    context.sni_callback = lambda sslobj, name, ctx: names.append(name)
    chosen = []

    async def handle(peer):
        chosen.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await peer.answer()

    async with serve(handle, context=context, name="localhost") as server:
        await ask(trusting, server.request())
    assert (names, chosen) == (["localhost"], ["http/1.1"])


@pytest.mark.parametrize(
    ("make_context", "host", "reason"),
    [
        (lambda c: c.context("other.example"), "127.0.0.1", "another address"),
        (lambda c: c.context("other.example"), "localhost", "another host"),
        (lambda c: c.expired("127.0.0.1"), "127.0.0.1", "expired"),
    ],
)
async def test_certificate_that_does_not_fit_is_refused(trusting, certificates, make_context, host, reason):
    async with serve(sending(response()), context=make_context(certificates), name=host) as server:
        with pytest.raises(UpstreamError, match=reason) as caught:
            await trusting.open(server.request(), Recorder())
    assert (caught.value.code, caught.value.retryable) == ("upstream_tls", False)
    assert trusting.statistics()[:4] == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("make_context", "reason"),
    [(lambda c: c.context("127.0.0.1"), "not trusted"), (lambda c: c.self_signed(), "self-signed")],
)
async def test_certificate_of_an_unknown_authority_is_refused(pool, certificates, make_context, reason):
    async with serve(sending(response()), context=make_context(certificates)) as server:
        with pytest.raises(UpstreamError, match=reason) as caught:
            await pool.open(server.request(), Recorder())
    assert caught.value.code == "upstream_tls"


async def test_any_certificate_will_do_when_verification_is_off(make_pool, certificates):
    async with serve(sending(response()), context=certificates.expired("other.example")) as server:
        assert (await ask(make_pool(verify=False), server.request())).status == 200


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28"]
)
async def test_server_without_tls_is_a_tls_error(trusting, greeting):
    async def handle(peer):
        await peer.reader.read(1)
        await peer.send(greeting)
        peer.close()

    async with serve(handle) as server:
        origin = server.origin._replace(scheme="https")
        with pytest.raises(UpstreamError) as caught:
            await trusting.open(Request("GET", origin, "/", ()), Recorder())
    assert caught.value.code == "upstream_tls"


@pytest.mark.parametrize("raw", [CHUNKED + b"5\r\nhel", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"])
@pytest.mark.parametrize("how", ["close", "cut", "reset"])
async def test_response_cut_short_is_a_reset_however_tls_ends(trusting, certificates, raw, how):
    async def handle(peer):
        await peer.request()
        await peer.send(raw)
        getattr(peer, how)()

    async with serve(handle, context=certificates.context("127.0.0.1")) as server:
        error, _ = await fail(trusting, server.request())
    assert error.code == "upstream_reset"


async def test_body_that_lasts_until_close_ends_with_close_notify(trusting, certificates):
    raw = b"HTTP/1.1 200 OK\r\n\r\nhello"
    async with serve(sending(raw), context=certificates.context("127.0.0.1")) as server:
        assert (await ask(trusting, server.request())).body == b"hello"


async def test_body_that_lasts_until_close_does_not_end_without_close_notify(trusting, certificates):
    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        peer.cut()

    async with serve(handle, context=certificates.context("127.0.0.1")) as server:
        error, sink = await fail(trusting, server.request())
    assert (error.code, sink.body) == ("upstream_reset", b"hello")


async def test_response_with_its_length_is_whole_even_if_tls_is_cut(trusting, certificates):
    async def handle(peer):
        await peer.request()
        await peer.send(response(b"hello"))
        peer.cut()

    async with serve(handle, context=certificates.context("127.0.0.1")) as server:
        assert (await ask(trusting, server.request())).body == b"hello"


async def test_records_that_are_not_authentic_are_a_tls_error(trusting, certificates):
    async def handle(peer):
        await peer.request()
        await peer.send(CHUNKED)
        raw = peer.writer.get_extra_info("socket").dup()
        raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        raw.close()
        await peer.wait_gone()

    async def quiet(peer):
        with contextlib.suppress(ssl.SSLError):
            await handle(peer)

    async with serve(quiet, context=certificates.context("127.0.0.1")) as server:
        error, sink = await fail(trusting, server.request())
    assert (error.code, sink.calls) == ("upstream_tls", ["head", "error"])


async def test_server_is_told_when_an_idle_connection_is_closed(make_pool, certificates):
    """asyncio reports a TLS connection without close_notify as an error of its reader."""
    ends = []

    async def handle(peer):
        await peer.answer()
        ends.append(await peer.reader.read())

    now = [0.0]
    pool = make_pool(ca_file=certificates.file, clock=lambda: now[0])
    async with serve(handle, context=certificates.context("127.0.0.1")) as server:
        await ask(pool, server.request())
        now[0] = 1000
        await ask(pool, server.request())
        await eventually(lambda: ends)
        assert len(server.peers) == 2
    assert ends == [b""]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_second_connection_resumes_the_session_of_the_first(trusting, certificates, version):
    context = certificates.context("127.0.0.1")
    context.minimum_version = context.maximum_version = version

    async def handle(peer):
        await peer.answer(fields="Keep-Alive: timeout=0\r\n")
        await peer.wait_gone()

    async with serve(handle, context=context) as server:
        for _ in range(3):
            await ask(trusting, server.request())
    statistics = trusting.statistics()
    assert (statistics.opened, statistics.resumed) == (3, 2)


async def test_session_that_the_server_forgot_is_no_error(trusting, certificates):
    contexts = [certificates.context("localhost"), certificates.context("localhost")]
    context = certificates.context("localhost")
    context.sni_callback = lambda sslobj, name, ctx: setattr(sslobj, "context", contexts.pop())

    async def handle(peer):
        await peer.answer(fields="Keep-Alive: timeout=0\r\n")
        await peer.wait_gone()

    async with serve(handle, context=context, name="localhost") as server:
        for _ in range(2):
            assert (await ask(trusting, server.request())).status == 200


async def test_nginx_speaks_tls(trusting, nginx):
    for _ in range(5):
        sink = await ask(trusting, Request("GET", Origin("https", "localhost", nginx.tls), "/files/text", ()))
        assert sink.body == FILES["text"]


async def test_tls_goes_through_a_tunnel(make_pool, certificates):
    context = certificates.context("model.test")
    async with (
        serve(sending(CHUNKED + chunked(b"tunnelled")), context=context, name="model.test") as server,
        forward_proxy({"model.test": server.origin.port}, name="localhost") as proxy,
    ):
        environ = {"HTTPS_PROXY": f"http://user:p%40ss@localhost:{proxy.origin.port}"}
        pool = make_pool(ca_file=certificates.file, environ=environ)
        sink = await ask(pool, server.request())
        await pool.aclose()
    assert sink.body == b"tunnelled"
    request = proxy.requests[0]
    assert request.line == f"CONNECT model.test:{server.origin.port} HTTP/1.1"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


async def test_tls_goes_through_tls_to_the_proxy(make_pool, certificates):
    body = bytes(range(256)) * 3000
    async with (
        serve(
            sending(response(body)), context=certificates.context("model.test"), name="model.test"
        ) as server,
        forward_proxy(
            {"model.test": server.origin.port}, context=certificates.context("localhost"), name="localhost"
        ) as proxy,
    ):
        environ = {"https_proxy": str(proxy.origin)}
        pool = make_pool(ca_file=certificates.file, environ=environ)
        sink = await ask(pool, server.request("POST", body=body))
        await pool.aclose()
    assert sink.body == body


@pytest.mark.parametrize(
    ("refusal", "retryable", "reason"),
    [
        ("407 Proxy Authentication Required", False, "credentials"),
        ("403 Forbidden", False, "status 403"),
        ("502 Bad Gateway", True, "status 502"),
        ("nonsense", True, "not that of a proxy"),
    ],
)
async def test_proxy_that_refuses_is_named(make_pool, certificates, refusal, retryable, reason):
    async with forward_proxy({}, refuse=refusal, name="localhost") as proxy:
        pool = make_pool(environ={"https_proxy": f"http://user:secret@localhost:{proxy.origin.port}"})
        with pytest.raises(UpstreamError, match=reason) as caught:
            await pool.open(Request("GET", Origin("https", "model.test", 443), "/", ()), Recorder())
    error = caught.value
    assert (error.code, error.retryable) == ("upstream_proxy", retryable)
    assert "secret" not in error.message


async def test_proxy_that_is_not_there_is_named(make_pool):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        pool = make_pool(environ={"https_proxy": f"http://127.0.0.1:{port}"})
        with pytest.raises(UpstreamError, match=f"the proxy http://127.0.0.1:{port}") as caught:
            await pool.open(Request("GET", Origin("https", "model.test", 443), "/", ()), Recorder())
    assert caught.value.code == "upstream_unreachable"


def test_unreadable_authority_file_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        create_context(ca_file=str(tmp_path / "missing.pem"))


def test_ciphertext_may_be_cut_anywhere(certificates):
    """The codec alone: both ends in memory, every size of piece."""
    body = bytes(range(256)) * 300
    for size in (1, 5, 100, PIECE_BYTES, PIECE_BYTES + 1, 65_536):
        layer = TlsLayer(
            create_context(ca_file=certificates.file), "a.test", "a.test", memoryview(bytearray(131_072))
        )
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = certificates.context("a.test").wrap_bio(incoming, outgoing, server_side=True)
        done, sent = layer.handshake()
        while not done:
            incoming.write(sent)
            with contextlib.suppress(ssl.SSLWantReadError):
                server.do_handshake()
            done, sent = layer.handshake(outgoing.read())
        incoming.write(sent)
        server.do_handshake()
        server.write(body)
        sealed = outgoing.read()
        plain = b"".join(bytes(layer.decrypt(piece)) for piece in cut(sealed, range(size, len(sealed), size)))
        assert plain == body
        assert not layer.closed
