"""Requests as they are written, responses as they come in, and every way in which they go wrong."""

import asyncio
import gzip
import itertools
import os
import zlib

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import ClientError, UpstreamError, WireError
from penstock.upstream.http1 import Origin, Request, render_head, split_url
from penstock.upstream.pool import Pool, PoolSettings
from tests.upstream.conftest import FILES
from tests.upstream.servers import (
    CHUNKED,
    Peer,
    Recorder,
    chunked,
    client_sockets,
    eventually,
    finish,
    response,
    serve,
    turns,
)

HOST = Origin("http", "127.0.0.1", 8080)


async def ask(pool, request, **options):
    """Send a request and return the sink with the whole response."""
    sink = Recorder()
    return await finish(await pool.open(request, sink, **options), sink)


async def fail(pool, request, **options):
    """Send a request and return the error of its response, and the sink."""
    sink = Recorder()
    exchange = await pool.open(request, sink, **options)
    try:
        return await sink.error(), sink
    finally:
        exchange.abort()


def sending(*pieces, close=True):
    """A handler that reads a request, sends the pieces and closes, or waits for the client to."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        if close:
            peer.close()
        else:
            await peer.wait_gone()

    return handle


# Addresses and requests


@pytest.mark.parametrize(
    ("url", "origin", "target", "printed"),
    [
        ("https://api.openai.com", ("https", "api.openai.com", 443), "", "https://api.openai.com"),
        ("http://HOST:80/v1?x=1", ("http", "host", 80), "/v1?x=1", "http://host"),
        ("http://[::1]:11434/api", ("http", "::1", 11434), "/api", "http://[::1]:11434"),
        ("https://bücher.example/", ("https", "xn--bcher-kva.example", 443), "/", None),
    ],
)
def test_url_is_split_into_origin_and_target(url, origin, target, printed):
    assert split_url(url) == (Origin(*origin), target)
    assert str(split_url(url)[0]) == printed or printed is None


@pytest.mark.parametrize(
    "url", ["ftp://host/", "host:80", "https://", "http://a:b@host/", "http://h:x/", "http://a b/"]
)
def test_url_of_another_kind_is_refused(url):
    with pytest.raises(ValueError):
        split_url(url)


def test_request_gets_the_fields_that_it_lacks():
    request = Request("POST", HOST, "/v1/x?y=1", (("Authorization", "Bearer a"),), b"{}")
    assert render_head(request) == (
        b"POST /v1/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer a\r\n"
        b"Accept-Encoding: identity\r\nContent-Length: 2\r\n\r\n"
    )


def test_request_keeps_the_fields_that_it_has():
    head = render_head(Request("GET", HOST, "/", (("HOST", "other"), ("accept-encoding", "gzip"))))
    assert head == b"GET / HTTP/1.1\r\nHOST: other\r\naccept-encoding: gzip\r\n\r\n"


def test_ipv6_address_stands_in_brackets_in_the_host_field():
    assert b"\r\nHost: [::1]:8000\r\n" in render_head(Request("GET", Origin("http", "::1", 8000), "/", ()))


def test_request_without_a_body_says_so_where_one_is_expected():
    assert b"Content-Length: 0\r\n" in render_head(Request("POST", HOST, "/", ()))


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/", (("X", "a\r\nY: b"),)),
        ("GET", "/", (("X", "key\n"),)),
        ("GET", "/", (("X", "a\x00b"),)),
        ("GET", "/", (("X", "snow ☃"),)),
        ("GET", "/", (("X Y", "a"),)),
        ("GET", "/", (("X:", "a"),)),
        ("GET", "/", (("Content-Length", "3"),)),
        ("GET", "/", (("Transfer-Encoding", "chunked"),)),
        ("GET", "/a b", ()),
        ("GET", "/a\r\nX: b", ()),
        ("GET", "/ü", ()),
        ("GET", "", ()),
        ("GET", "http://elsewhere/", ()),
        ("G ET", "/", ()),
        ("get", "/", ()),
    ],
)
def test_request_that_http_cannot_carry_is_refused(method, target, headers):
    with pytest.raises(ClientError):
        render_head(Request(method, HOST, target, headers))


# Whole responses


@pytest.mark.parametrize(
    "raw",
    [
        response(b"hello"),
        CHUNKED + chunked(b"hello"),
        CHUNKED + chunked(b"h", b"ell", b"o"),
        CHUNKED + b"5;name=value\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
        CHUNKED + b"5   \r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + response(b"hello"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + chunked(b"hello"),
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.1 200\r\ncontent-length:5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    ],
)
async def test_response_is_whole_however_its_end_is_marked(pool, raw):
    async with serve(sending(raw)) as server:
        sink = await ask(pool, server.request())
    assert (sink.status, sink.body, sink.calls[0]) == (200, b"hello", "head")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_status_without_a_body_ends_with_its_head(pool, status):
    raw = f"HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n".encode()
    async with serve(sending(raw, close=False)) as server:
        sink = await ask(pool, server.request())
    assert sink.calls == ["head", "end"]


async def test_response_to_head_ends_with_its_head(pool):
    async with serve(sending(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", close=False)) as server:
        sink = await ask(pool, server.request("HEAD"))
        assert sink.calls == ["head", "end"]
        assert sink.headers["content-length"] == "5"


async def test_header_names_come_in_lower_case_and_repeated_fields_joined(pool):
    fields = "Set-Cookie: a=1\r\nX-Request-ID: r\xe91\r\nset-cookie: b=2\r\nEmpty:\r\n"
    async with serve(sending(response(fields=fields))) as server:
        sink = await ask(pool, server.request())
    assert sink.headers == {
        "set-cookie": "a=1, b=2",
        "x-request-id": "r\xe91",
        "empty": "",
        "content-length": "2",
    }


async def test_trailers_do_not_show_among_the_headers(pool):
    raw = CHUNKED + b"2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n"
    async with serve(sending(raw)) as server:
        sink = await ask(pool, server.request())
    assert sink.headers == {"transfer-encoding": "chunked"}


async def test_body_of_one_read_comes_in_one_call(pool):
    async with serve(sending(CHUNKED + chunked(*[b"x"] * 1000))) as server:
        sink = await ask(pool, server.request())
    assert sink.reads == [b"x" * 1000]


async def test_one_read_is_never_longer_than_the_setting(make_pool):
    pool = make_pool(read_bytes=1000)
    async with serve(sending(response(b"x" * 100_000))) as server:
        sink = await ask(pool, server.request())
    assert len(sink.body) == 100_000
    assert max(map(len, sink.reads)) <= 1000


async def test_body_is_delivered_as_it_comes(pool):
    go_on = asyncio.Event()

    async def handle(peer):
        await peer.request()
        await peer.send(CHUNKED, b"3\r\none\r\n")
        await go_on.wait()
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")

    async with serve(handle) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        await sink.wait_for(lambda sink: sink.reads == [b"one"])
        go_on.set()
        await finish(exchange, sink)
    assert sink.reads == [b"one", b"two"]


async def test_request_arrives_whole_with_its_body(pool):
    seen = []

    async def handle(peer):
        seen.append(await peer.request())
        await peer.send(response())

    body = bytes(range(256)) * 12_000
    async with serve(handle) as server:
        await ask(pool, server.request("POST", "/v1/chat?x=%20", body=body, headers=(("X-A", "b"),)))
    assert seen[0].line == "POST /v1/chat?x=%20 HTTP/1.1"
    assert seen[0].headers["x-a"] == "b"
    assert seen[0].body == body


# Cut anywhere


WHOLE = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunked(b"data: 1\n\n", b"data: \xe4\xbd\xa0\n\n" * 3, b"data: [DONE]\n\n").removesuffix(b"\r\n")
    + b"X-Trailer: yes\r\n\r\n"
)
WHOLE_BODY = b"data: 1\n\n" + b"data: \xe4\xbd\xa0\n\n" * 3 + b"data: [DONE]\n\n"


def cut(data, places):
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


async def each_cutting(cuttings):
    async def handle(peer):
        while True:
            await peer.request()
            await peer.send(*cut(WHOLE, next(left)))

    left = iter(cuttings)
    pool = Pool(PoolSettings())
    async with serve(handle) as server:
        for _ in cuttings:
            sink = await ask(pool, server.request())
            assert (sink.status, sink.body, len(sink.headers)) == (200, WHOLE_BODY, 2)
        assert len(server.peers) == 1
    await pool.aclose()


async def test_response_cut_in_two_anywhere_is_read_alike():
    await each_cutting([[place] for place in range(1, len(WHOLE))])


async def test_response_that_comes_byte_by_byte_is_read_alike():
    await each_cutting([range(1, len(WHOLE))])


@given(st.lists(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12), min_size=1, max_size=4))
def test_response_cut_anywhere_is_read_alike(cuttings):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(each_cutting(cuttings))


# Lost connections


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        CHUNKED,
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_response_that_is_cut_short_is_a_reset(pool, raw, how):
    async def handle(peer):
        await peer.request()
        if raw:
            await peer.send(raw)
        getattr(peer, how)()

    async with serve(handle) as server:
        error, sink = await fail(pool, server.request())
        assert (error.code, error.status, error.retryable) == ("upstream_reset", 502, True)
        assert len(server.peers) == 1, "a first request is never sent twice"
        assert sink.calls[-1] == "error"


async def test_reset_does_not_end_a_body_that_lasts_until_close(pool):
    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        peer.reset()

    async with serve(handle) as server:
        error, sink = await fail(pool, server.request())
    assert (error.code, sink.body) == ("upstream_reset", b"hello")


async def test_body_before_a_loss_is_delivered(pool):
    async with serve(sending(CHUNKED + b"5\r\nhello\r\n5\r\nwor")) as server:
        error, sink = await fail(pool, server.request())
    assert (error.code, sink.body) == ("upstream_reset", b"hellowor")


# Broken responses


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        CHUNKED + b"xyz\r\nabc\r\n",
        CHUNKED + b"-3\r\nabc\r\n",
        CHUNKED + b"3\r\nabcdef\r\n",
        CHUNKED + b"fffffffffffffffff\r\nabc",
    ],
)
async def test_response_that_breaks_the_format_is_a_wire_error(pool, raw):
    async with serve(sending(raw, close=False)) as server:
        error, _ = await fail(pool, server.request())
        assert isinstance(error, WireError)
        assert str(server.origin) in error.message
        await server.settle()


async def test_body_before_a_break_of_the_format_is_delivered(pool):
    async with serve(sending(CHUNKED + b"5\r\nhello\r\nzzz\r\n")) as server:
        error, sink = await fail(pool, server.request())
    assert (error.code, sink.body) == ("upstream_malformed", b"hello")


@pytest.mark.parametrize(
    "endless",
    [
        b"X-Field: value\r\n",
        b"x" * 50,
        b"A" * 50 + b": b\r\n",
    ],
)
async def test_head_over_the_limit_is_a_wire_error(make_pool, endless):
    async def handle(peer):
        await peer.request()
        peer.writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            await peer.send(endless * 20)

    async with serve(handle) as server:
        error, sink = await fail(make_pool(max_head_bytes=4096), server.request())
    assert (error.code, sink.calls) == ("upstream_malformed", ["error"])


async def test_long_head_that_comes_in_one_read_is_a_wire_error_too(make_pool):
    raw = response(fields=f"X: {'a' * 5000}\r\n")
    async with serve(sending(raw)) as server:
        error, _ = await fail(make_pool(max_head_bytes=4096), server.request())
    assert error.code == "upstream_malformed"


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (CHUNKED + b"5;", b"extension;"),
        (CHUNKED + b"0\r\n", b"X-Trailer: a\r\n"),
        (CHUNKED + b"0\r\nX-Trailer: ", b"aaaaaaaaaa"),
    ],
)
async def test_endless_bytes_without_a_body_in_them_are_a_wire_error(make_pool, start, endless):
    async def handle(peer):
        await peer.request()
        await peer.send(start)
        while True:
            await peer.send(endless * 20)

    async with serve(handle) as server:
        error, _ = await fail(make_pool(max_head_bytes=4096), server.request())
    assert error.code == "upstream_malformed"


# Timeouts


async def test_server_that_never_answers_is_given_up(pool):
    async with serve(sending(close=False)) as server:
        error, sink = await fail(pool, server.request(), head_timeout=0.02)
        assert (error.code, error.status, sink.calls) == ("upstream_timeout", 504, ["error"])
        await server.settle()


async def test_server_whose_head_never_ends_is_given_up(make_pool):
    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")
        while True:
            await peer.send(b"x")

    async with serve(handle) as server:
        error, _ = await fail(make_pool(head_timeout=0.05), server.request())
    assert error.code in ("upstream_timeout", "upstream_malformed")


async def test_server_that_does_not_read_the_request_is_given_up(pool):
    never = asyncio.Event()

    async def handle(peer):
        await never.wait()

    async with serve(handle) as server:
        sink = Recorder()
        with pytest.raises(UpstreamError) as caught:
            await pool.open(server.request("POST", body=bytes(30_000_000)), sink, head_timeout=0.05)
        assert caught.value.code == "upstream_timeout"
        assert sink.calls == [], "what open raises, the sink does not hear"


async def test_head_timeout_does_not_bound_the_body(pool):
    go_on = asyncio.Event()

    async def handle(peer):
        await peer.request()
        await peer.send(CHUNKED)
        await go_on.wait()
        await peer.send(chunked(b"late"))

    async with serve(handle) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink, head_timeout=0.25)
        await sink.wait_for(lambda sink: sink.status)
        await asyncio.sleep(0.3)
        go_on.set()
        await finish(exchange, sink)
    assert sink.body == b"late"


# Early answers


async def test_answer_to_a_request_that_is_still_being_written_is_delivered(pool):
    async def handle(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(response(b"too large", status="413 Content Too Large"))
        await peer.wait_gone()

    async with serve(handle) as server:
        sink = await ask(pool, server.request("POST", body=bytes(30_000_000)))
        assert (sink.status, sink.body) == (413, b"too large")
        await server.settle()
    assert pool.statistics().idle == 0


async def test_early_head_does_not_stop_the_request(pool):
    body = bytes(3_000_000)

    async def handle(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(CHUNKED)
        received = await peer.reader.readexactly(len(body))
        await peer.send(chunked(b"%d" % len(received)))
        await peer.request()

    async with serve(handle) as server:
        sink = await ask(pool, server.request("POST", body=body))
        assert sink.body == b"3000000"
    assert pool.statistics().opened == 1


async def test_answer_that_comes_before_the_request_is_taken_for_it(pool):
    async def handle(peer):
        await peer.send(response(b"busy", status="503 Service Unavailable", fields="Connection: close\r\n"))
        peer.close()

    async with serve(handle) as server:
        sink = await ask(pool, server.request())
    assert sink.status == 503


# Pausing and aborting


async def test_paused_exchange_delivers_nothing_and_goes_on_where_it_was(pool):
    async def handle(peer):
        await peer.request()
        await peer.send(CHUNKED)
        for count in range(2000):
            peer.writer.write(b"3e8\r\n%s\r\n" % (b"%010d" % count * 100))
        await peer.send(b"0\r\n\r\n")
        await peer.wait_gone()

    async with serve(handle) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        sink.on_call = lambda name: exchange.pause() if len(sink.reads) == 3 else None
        await sink.wait_for(lambda sink: len(sink.reads) == 3)
        await turns(50)
        assert len(sink.reads) == 3
        exchange.resume()
        await sink.end()
    assert sink.body == b"".join(b"%010d" % count * 100 for count in range(2000))


async def test_end_waits_while_the_exchange_is_paused(pool):
    async with serve(sending(response(b"all at once"), close=False)) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        sink.on_call = lambda name: exchange.pause()
        await sink.wait_for(lambda sink: sink.reads)
        await turns()
        assert sink.calls == ["head", "body"]
        assert pool.statistics().idle == 1, "the connection does not wait for the sink"
        exchange.resume()
        assert not sink.ended, "resume does not call the sink itself"
        await sink.end()


async def test_error_waits_while_the_exchange_is_paused(pool):
    async with serve(sending(CHUNKED + b"2\r\nok\r\nzzz\r\n", close=False)) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        sink.on_call = lambda name: exchange.pause()
        await sink.wait_for(lambda sink: sink.reads)
        await turns()
        assert not sink.ended
        exchange.resume()
        assert (await sink.error()).code == "upstream_malformed"


@pytest.mark.parametrize("moment", ["head", "body"])
async def test_sink_may_abort_from_within_a_call(pool, moment):
    async with serve(sending(response(b"all at once"), close=False)) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        sink.on_call = lambda name: exchange.abort() if name == moment else None
        await sink.wait_for(lambda sink: moment in sink.calls)
        await server.settle()
    assert sink.calls[-1] == moment


async def test_aborted_connection_is_closed_before_abort_returns(pool):
    """No turn of the loop passes between the abort and the server's end of input."""
    async with serve(sending(CHUNKED, close=False)) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        await sink.wait_for(lambda sink: sink.status)
        theirs = server.peers[0].writer.get_extra_info("socket").fileno()
        exchange.abort()
        assert read_now(theirs) == b""
        exchange.abort()
        assert pool.statistics()[:4] == (0, 0, 0, 0)
        await eventually(lambda: client_sockets(server.origin.port) == 0)
    assert sink.calls == ["head"]


def read_now(descriptor):
    """Read a server's socket past its transport, without waiting."""
    try:
        return os.read(descriptor, 10)
    except ConnectionResetError:
        return b""


async def test_abort_after_the_end_leaves_the_connection_to_others(pool):
    async def handle(peer):
        await peer.answer()
        await peer.answer()

    async with serve(handle) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        await sink.end()
        exchange.abort()
        exchange.resume()
        assert pool.statistics().idle == 1
        await ask(pool, server.request())
        assert len(server.peers) == 1


@pytest.mark.parametrize("moment", ["head", "body", "end", "error"])
async def test_exception_of_a_sink_aborts_and_reaches_the_exception_handler(pool, loop_errors, moment):
    class BrokenSink(Exception):
        pass

    def break_down(name):
        if name == moment:
            raise BrokenSink

    raw = CHUNKED + b"2\r\nok\r\n" + (b"zzz\r\n" if moment == "error" else b"0\r\n\r\n")
    async with serve(sending(raw, close=False)) as server:
        sink = Recorder()
        sink.on_call = break_down
        exchange = await pool.open(server.request(), sink)
        await server.settle()
        await eventually(lambda: loop_errors)
        exchange.abort()
    assert sink.calls[-1] == moment
    assert any("sink raised" in message for message in loop_errors)
    loop_errors.clear()


# Content codings


def deflated(data, wbits):
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


TEXT = b"".join(b"data: %d\n\n" % count for count in range(1500))


def gzipped(data: bytes) -> bytes:
    """Without the time in its header: parameters become test ids, which must be equal in all workers."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzipped(TEXT)),
        ("X-GZIP", gzipped(TEXT)),
        ("gzip", gzipped(TEXT[:100]) + gzipped(TEXT[100:])),
        ("gzip", gzipped(TEXT) + bytes(20)),
        ("deflate", deflated(TEXT, 15)),
        ("deflate", deflated(TEXT, -15)),
        ("identity", TEXT),
    ],
)
@pytest.mark.parametrize("size", [13, 100_000])
async def test_content_coding_is_undone(pool, coding, packed, size):
    chunks = [packed[start : start + size] for start in range(0, len(packed), size)]
    raw = CHUNKED.replace(b"\r\n\r\n", f"\r\nContent-Encoding: {coding}\r\n\r\n".encode())
    async with serve(sending(raw, *[b"%x\r\n%s\r\n" % (len(c), c) for c in chunks], b"0\r\n\r\n")) as server:
        sink = await ask(pool, server.request())
    assert sink.body == TEXT
    assert sink.headers.get("content-encoding") in (None, "identity")


async def test_compressed_events_are_not_held_back(pool):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(b"data: 2\n\n") + packer.flush()
    go_on = asyncio.Event()

    async def handle(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", first)
        await go_on.wait()
        await peer.send(rest)
        peer.close()

    async with serve(handle) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        await sink.wait_for(lambda sink: sink.reads == [b"data: 1\n\n"])
        go_on.set()
        await finish(exchange, sink)
    assert sink.body == b"data: 1\n\ndata: 2\n\n"


async def test_compression_bomb_comes_in_bounded_pieces_that_can_be_paused(make_pool):
    bomb = gzip.compress(bytes(20_000_000))
    pool = make_pool(read_bytes=10_000)
    async with serve(sending(response(bomb, fields="Content-Encoding: gzip\r\n"))) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        sink.on_call = lambda name: exchange.pause() if len(sink.reads) == 5 else None
        await sink.wait_for(lambda sink: len(sink.reads) == 5)
        await turns(20)
        assert len(sink.reads) == 5
        exchange.resume()
        await sink.end()
        exchange.abort()
    assert max(map(len, sink.reads)) <= 10_000
    assert len(sink.body) == 20_000_000


async def test_bomb_can_be_aborted_in_mid_step(make_pool):
    bomb = gzip.compress(bytes(20_000_000))
    async with serve(sending(response(bomb, fields="Content-Encoding: gzip\r\n"))) as server:
        sink = Recorder()
        exchange = await make_pool().open(server.request(), sink)
        sink.on_call = lambda name: exchange.abort() if len(sink.reads) == 2 else None
        await sink.wait_for(lambda sink: len(sink.reads) == 2)
        await turns(20)
    assert sink.calls == ["head", "body", "body"]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"\x0b\x02\x80hello\x03"),
        ("gzip, gzip", gzipped(gzipped(b"x"))),
        ("gzip", b"not compressed"),
        ("gzip", gzipped(TEXT)[:-20]),
        ("gzip", gzipped(TEXT)[:1]),
        ("deflate", b"\x78\x9cnot compressed"),
    ],
)
async def test_body_that_cannot_be_unpacked_is_a_wire_error(pool, coding, body):
    async with serve(sending(response(body, fields=f"Content-Encoding: {coding}\r\n"))) as server:
        error, sink = await fail(pool, server.request())
    assert (error.code, sink.status) == ("upstream_malformed", 200)


async def test_empty_body_has_no_coding(pool):
    async with serve(sending(response(b"", fields="Content-Encoding: gzip\r\n"))) as server:
        assert (await ask(pool, server.request())).calls == ["head", "end"]


# Real servers


def at(port, target, method="GET", body=b"", headers=()):
    return Request(method, Origin("http", "127.0.0.1", port), target, headers, body)


async def test_node_streams_in_pieces(pool, node):
    sink = await ask(pool, at(node, "/pieces"))
    assert sink.body == b"".join(b"data: %d\n\n" % count for count in range(5))
    assert len(sink.reads) > 1


async def test_node_sends_many_chunks_at_once(pool, node):
    sink = await ask(pool, at(node, "/burst"))
    assert sink.body == b"".join(b"%d," % count for count in range(1000))


async def test_node_sends_trailers(pool, node):
    assert (await ask(pool, at(node, "/trailers"))).body == b"body"


async def test_node_sends_several_interim_responses(pool, node):
    sink = await ask(pool, at(node, "/hints"))
    assert (sink.status, sink.body) == (200, b"after hints")
    assert sink.headers["set-cookie"] == "a=1, b=2"
    assert "link" not in sink.headers


@pytest.mark.parametrize("target", ["/destroy", "/destroy-length", "/destroy-early"])
async def test_node_destroys_the_socket(pool, node, target):
    error, _ = await fail(pool, at(node, target))
    assert error.code == "upstream_reset"


async def test_node_takes_a_long_body_and_keeps_the_connection(pool, node):
    body = bytes(range(256)) * 10_000
    for _ in range(3):
        assert (await ask(pool, at(node, "/echo", "POST", body))).body == body
    assert pool.statistics()[:3] == (0, 0, 1)


async def test_node_closes_when_it_says_so(pool, node):
    assert (await ask(pool, at(node, "/close"))).body == b"bye"
    assert pool.statistics().idle == 0


async def test_uvicorn_streams_and_keeps_the_connection(pool, uvicorn):
    for _ in range(3):
        sink = await ask(pool, at(uvicorn, "/", "POST", b"x" * 100_000))
        assert sink.body == b"".join(b"data: %d\n\n" % count for count in range(20))
        assert sink.headers["x-length"] == "100000"
    assert pool.statistics().opened == 1


async def test_nginx_sees_host_and_identity(pool, nginx):
    sink = await ask(pool, at(nginx.plain, "/echo"))
    assert sink.body == b"127.0.0.1:%d identity GET" % nginx.plain


async def test_nginx_closes_after_some_requests_and_nobody_notices(pool, nginx):
    for _ in range(10):
        assert (await ask(pool, at(nginx.plain, "/echo"))).status == 200
    assert pool.statistics().opened == 4


async def test_nginx_compresses_and_it_is_undone(pool, nginx):
    for name in ("text", "zeros"):
        sink = await ask(pool, at(nginx.plain, f"/packed/{name}", headers=(("Accept-Encoding", "gzip"),)))
        assert sink.body == FILES[name]
        assert "content-encoding" not in sink.headers


async def test_nginx_answers_without_a_body(pool, nginx):
    assert (await ask(pool, at(nginx.plain, "/gone"))).calls == ["head", "end"]
    assert (await ask(pool, at(nginx.plain, "/files/text", "HEAD"))).calls == ["head", "end"]


async def test_nginx_refuses_a_body_before_it_has_read_it(pool, nginx):
    sink = await ask(pool, at(nginx.plain, "/echo", "POST", bytes(3_000_000)))
    assert sink.status == 413


async def test_nginx_relays_a_stream(pool, nginx):
    for folder in ("node", "node10"):
        sink = await ask(pool, at(nginx.plain, f"/{folder}/pieces"))
        assert sink.body == b"".join(b"data: %d\n\n" % count for count in range(5))
