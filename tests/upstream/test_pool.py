"""Which connection a request takes, how many there are, and when they go."""

import asyncio

import pytest

from penstock.types.errors import UpstreamError
from penstock.upstream.http1 import Origin, Request
from tests.upstream.servers import (
    CHUNKED,
    Recorder,
    chunked,
    client_sockets,
    eventually,
    finish,
    forward_proxy,
    free_port,
    full_backlog,
    response,
    serve,
    turns,
)
from tests.upstream.test_http1 import ask, fail, sending


async def answering(peer):
    """A handler that answers every request."""
    while True:
        await peer.answer(b"%d" % peer.number)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


# Reuse


async def test_connection_is_used_again(pool):
    async with serve(answering) as server:
        for _ in range(3):
            assert (await ask(pool, server.request())).body == b"0"
        assert pool.statistics() == (0, 0, 1, 0, 1, 0, 2, 0)


async def test_next_request_may_start_from_within_the_end_of_the_last(pool):
    """The connection is back in the pool when the sink hears of the end."""
    async with serve(answering) as server:
        sink = Recorder()
        idle = []
        sink.on_call = lambda name: idle.append(pool.statistics().idle)
        await pool.open(server.request(), sink)
        await sink.end()
    assert idle[-1] == 1


async def test_connections_of_two_origins_are_kept_apart(pool):
    async with serve(answering) as one, serve(answering) as other:
        await ask(pool, one.request())
        await ask(pool, other.request())
        assert (len(one.peers), len(other.peers)) == (1, 1)


async def test_connection_used_last_is_used_first(pool):
    async with serve(answering) as server:
        sinks = [Recorder() for _ in range(3)]
        ended = []
        for sink in sinks:
            sink.on_call = lambda name, sink=sink: ended.append(sink) if name == "end" else None
            await pool.open(server.request(), sink)
        for sink in sinks:
            await sink.end()
        for _ in range(3):
            assert (await ask(pool, server.request())).body == ended[-1].body


@pytest.mark.parametrize(
    "raw",
    [
        response(fields="Connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        response() + b"HTTP/1.1 200 OK\r\n",
        response() + response(),
        CHUNKED + chunked(b"ok") + b"garbage",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay",
    ],
)
async def test_connection_is_not_used_again_after_a_doubtful_response(pool, raw):
    async with serve(sending(raw, close=False)) as server:
        sink = await ask(pool, server.request())
        await eventually(lambda: pool.statistics().idle == 0)
        await server.settle()
    assert sink.body == b"ok"


async def test_request_may_ask_for_the_connection_to_be_closed(pool):
    async with serve(answering) as server:
        await ask(pool, server.request(headers=(("Connection", "close"),)))
        assert pool.statistics().idle == 0


async def test_bytes_on_an_idle_connection_drop_it(pool):
    async def handle(peer):
        await peer.answer()
        await peer.send(response(b"unasked"))
        await peer.wait_gone()

    async with serve(handle) as server:
        await ask(pool, server.request())
        await server.settle()
        assert pool.statistics().idle == 0
        assert (await ask(pool, server.request())).body == b"ok"


# Stale connections


async def test_connection_closed_while_idle_is_dropped(pool):
    async def handle(peer):
        await peer.answer(b"%d" % peer.number)
        peer.close()

    async with serve(handle) as server:
        await ask(pool, server.request())
        await eventually(lambda: pool.statistics().idle == 0)
        assert (await ask(pool, server.request())).body == b"1"
    assert pool.statistics().resent == 0


async def test_connection_closed_in_the_same_moment_is_noticed_when_it_is_taken(pool):
    """The end of input is in the socket, and the loop has had no turn to read it."""
    async with serve(answering) as server:
        await ask(pool, server.request())
        peer = server.peers[0].writer.get_extra_info("socket").dup()
        peer.shutdown(2)
        peer.close()
        assert (await ask(pool, server.request())).body == b"1"
    assert pool.statistics().resent == 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("size", [0, 20_000_000])
async def test_request_is_sent_again_when_its_idle_connection_turns_out_stale(pool, how, size):
    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
            await peer.reader.readuntil(b"\r\n\r\n")
            getattr(peer, how)()
        else:
            received = await peer.request()
            await peer.send(response(b"%d" % len(received.body)))

    async with serve(handle) as server:
        await ask(pool, server.request())
        sink = await ask(pool, server.request("POST", body=bytes(size)))
        assert sink.body == b"%d" % size
        assert sink.calls == ["head", "body", "end"]
    statistics = pool.statistics()
    assert (statistics.opened, statistics.resent) == (2, 1)


@pytest.mark.parametrize("how", ["close", "cut"])
async def test_stale_connection_is_noticed_under_tls_too(make_pool, certificates, how):
    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
            await peer.request()
            getattr(peer, how)()
        else:
            await peer.answer(b"again")
            await peer.wait_gone()

    pool = make_pool(ca_file=certificates.file)
    async with serve(handle, context=certificates.context("127.0.0.1")) as server:
        await ask(pool, server.request())
        assert (await ask(pool, server.request())).body == b"again"
        statistics = pool.statistics()
    assert (statistics.opened, statistics.resumed, statistics.resent) == (2, 1, 1)


async def test_request_is_sent_again_only_once(pool):
    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
        await peer.request()
        peer.close()

    async with serve(handle) as server:
        await ask(pool, server.request())
        error, _ = await fail(pool, server.request())
        assert error.code == "upstream_reset"
        assert len(server.peers) == 2


@pytest.mark.parametrize(
    "start", [b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n", CHUNKED, CHUNKED + b"1\r\na\r\n"]
)
async def test_request_is_not_sent_again_once_something_came_back(pool, start):
    async def handle(peer):
        await peer.answer()
        await peer.request()
        await peer.send(start)
        peer.close()

    async with serve(handle) as server:
        await ask(pool, server.request())
        error, _ = await fail(pool, server.request())
        assert error.code == "upstream_reset"
        assert len(server.peers) == 1
    assert pool.statistics().resent == 0


async def test_abort_stops_a_request_that_is_sent_again(make_pool):
    pool = make_pool()
    again = asyncio.Event()

    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
            await peer.request()
            peer.close()
        else:
            again.set()
            await peer.wait_gone()

    async with serve(handle) as server:
        await ask(pool, server.request())
        sink = Recorder()
        exchange = await pool.open(server.request("POST", body=bytes(20_000_000)), sink)
        await again.wait()
        exchange.abort()
        await eventually(lambda: client_sockets(server.origin.port) == 0)
    assert (sink.calls, pool.statistics()[:4]) == ([], (0, 0, 0, 0))


async def test_failure_to_send_again_is_told_to_the_sink(make_pool):
    pool = make_pool()

    async def handle(peer):
        await peer.answer()
        await peer.request()
        closing.set()
        await closed.wait()
        peer.close()

    closing, closed = asyncio.Event(), asyncio.Event()
    async with serve(handle) as server:
        await ask(pool, server.request())
        sink = Recorder()
        await pool.open(server.request(), sink)
        await closing.wait()
        server.stop()
        closed.set()
        assert (await sink.error()).code == "upstream_unreachable"


async def test_head_timeout_counts_from_the_first_sending(pool):
    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
            await peer.request()
            peer.close()
        await peer.wait_gone()

    async with serve(handle) as server:
        await ask(pool, server.request())
        error, _ = await fail(pool, server.request(), head_timeout=0.3)
        assert error.code == "upstream_timeout"
        assert len(server.peers) == 2


# Idle connections


async def test_idle_connection_is_closed_in_time(make_pool):
    clock = Clock()
    pool = make_pool(clock=clock, idle_timeout=0.04)
    async with serve(answering) as server:
        await ask(pool, server.request())
        await asyncio.sleep(0.03)
        assert pool.statistics().idle == 1, "by its own clock, no time has passed"
        clock.now += 1
        await eventually(lambda: pool.statistics().idle == 0)
        await server.settle()


async def test_idle_connection_is_too_old_to_be_taken(make_pool):
    clock = Clock()
    pool = make_pool(clock=clock)
    async with serve(answering) as server:
        for number in (b"0", b"1"):
            assert (await ask(pool, server.request())).body == number
            clock.now += 61


async def test_connection_goes_before_the_server_closes_it(make_pool):
    clock = Clock()
    pool = make_pool(clock=clock)

    async def handle(peer):
        while True:
            await peer.answer(b"%d" % peer.number, fields="Keep-Alive: timeout=5, max=100\r\n")

    async with serve(handle) as server:
        assert (await ask(pool, server.request())).body == b"0"
        clock.now += 3.9
        assert (await ask(pool, server.request())).body == b"0"
        clock.now += 4.1
        assert (await ask(pool, server.request())).body == b"1"


async def test_only_so_many_idle_connections_are_kept(make_pool):
    pool = make_pool(max_idle_per_origin=2)
    async with serve(answering) as server:
        sinks = [Recorder() for _ in range(5)]
        for sink in sinks:
            await pool.open(server.request(), sink)
        for sink in sinks:
            await sink.end()
        assert pool.statistics()[:3] == (0, 0, 2)


# Limits


async def test_request_waits_for_a_place_in_turn(make_pool):
    pool = make_pool(max_connections_per_origin=1)
    order = []

    async def one(number):
        sink = await ask(pool, server.request(target=f"/{number}"))
        order.append((number, sink.body))

    async with serve(answering) as server:
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(one(number))
            await turns(2)
            assert pool.statistics().waiting == 4
        assert len(server.peers) == 1
    assert order == [(number, b"0") for number in range(5)]


async def test_place_of_a_connection_that_closes_goes_to_whoever_waits(make_pool):
    pool = make_pool(max_connections_per_origin=1)

    async def handle(peer):
        await peer.answer(b"%d" % peer.number, fields="Connection: close\r\n")
        peer.close()

    async with serve(handle) as server, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(pool, server.request())) for _ in range(3)]
    assert sorted(task.result().body for task in tasks) == [b"0", b"1", b"2"]


async def test_wait_for_a_place_is_bounded(make_pool):
    pool = make_pool(max_connections_per_origin=1, connect_timeout=0.5)
    async with serve(sending(CHUNKED, close=False)) as server:
        exchange = await pool.open(server.request(), Recorder())
        with pytest.raises(UpstreamError) as caught:
            await pool.open(server.request(), Recorder())
        assert caught.value.code == "upstream_connect_timeout"
        assert pool.statistics().waiting == 0
        exchange.abort()


async def test_only_so_many_may_wait_for_a_place(make_pool):
    pool = make_pool(max_connections_per_origin=1, max_waiting_per_origin=0)
    async with serve(sending(CHUNKED, close=False)) as server:
        exchange = await pool.open(server.request(), Recorder())
        with pytest.raises(UpstreamError) as caught:
            await pool.open(server.request(), Recorder())
        assert (caught.value.code, caught.value.status) == ("upstream_busy", 503)
        exchange.abort()


async def test_whoever_gives_up_waiting_passes_the_place_on(make_pool):
    """The place is given and the wait is cancelled in the same turn of the loop."""
    pool = make_pool(max_connections_per_origin=1)
    async with serve(sending(CHUNKED, close=False)) as server:
        first = await pool.open(server.request(), Recorder())
        async with asyncio.TaskGroup() as group:
            second = group.create_task(pool.open(server.request(), Recorder()))
            third = group.create_task(pool.open(server.request(), Recorder()))
            await turns(2)
            first.abort()
            second.cancel()
        assert second.cancelled()
        assert pool.statistics().active == 1
        third.result().abort()


async def test_hundred_streams_at_once(pool):
    body = [b"data: %d\n\n" % count for count in range(30)]

    async def handle(peer):
        await peer.request()
        await peer.send(CHUNKED)
        for piece in body:
            await peer.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        await peer.send(b"0\r\n\r\n")
        await peer.wait_gone()

    async with serve(handle) as server, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(pool, server.request())) for _ in range(100)]
    assert {task.result().body for task in tasks} == {b"".join(body)}


# Connecting


async def test_port_that_nobody_listens_on_is_unreachable(pool):
    with pytest.raises(UpstreamError) as caught:
        await pool.open(Request("GET", Origin("http", "127.0.0.1", free_port()), "/", ()), Recorder())
    assert (caught.value.code, caught.value.retryable) == ("upstream_unreachable", True)


async def test_name_that_nobody_has_is_unreachable(pool):
    with pytest.raises(UpstreamError) as caught:
        await pool.open(Request("GET", Origin("http", "name.invalid", 80), "/", ()), Recorder())
    assert caught.value.code == "upstream_unreachable"


async def test_connecting_is_bounded(make_pool):
    with full_backlog() as origin:
        with pytest.raises(UpstreamError) as caught:
            await make_pool(connect_timeout=0.05).open(Request("GET", origin, "/", ()), Recorder())
        assert (caught.value.code, caught.value.status) == ("upstream_connect_timeout", 504)
        with pytest.raises(UpstreamError) as caught:
            await make_pool().open(Request("GET", origin, "/", ()), Recorder(), connect_timeout=0.05)
        assert caught.value.code == "upstream_connect_timeout"


async def test_handshake_is_bounded_with_connecting(make_pool):
    async def handle(peer):
        await peer.wait_gone()

    async with serve(handle) as server:
        origin = server.origin._replace(scheme="https")
        with pytest.raises(UpstreamError) as caught:
            await make_pool(connect_timeout=0.05).open(Request("GET", origin, "/", ()), Recorder())
        assert caught.value.code == "upstream_connect_timeout"
        await server.settle()


async def test_ipv6_address_is_connected_to(pool):
    async with serve(answering, host="::1") as server:
        request = Request("GET", Origin("http", "::1", server.origin.port), "/", ())
        assert (await ask(pool, request)).body == b"0"


async def test_name_is_resolved(pool):
    async with serve(answering, name="localhost") as server:
        assert (await ask(pool, server.request())).body == b"0"


async def test_plain_request_goes_through_the_proxy_with_its_whole_url(make_pool):
    async with (
        serve(sending(response(b"by proxy")), name="model.test") as server,
        forward_proxy({"model.test": server.origin.port}, name="localhost") as proxy,
    ):
        pool = make_pool(environ={"http_proxy": f"http://me:secret@localhost:{proxy.origin.port}"})
        sink = await ask(pool, server.request("POST", "/v1?a=b", body=b"{}"))
        await pool.aclose()
    assert sink.body == b"by proxy"
    seen = proxy.requests[0]
    assert seen.line == f"POST {server.origin}/v1?a=b HTTP/1.1"
    assert seen.headers["host"] == server.origin.authority
    assert seen.headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"


# Fetch


async def test_fetch_returns_the_whole_response(pool, node):
    request = Request("GET", Origin("http", "127.0.0.1", node), "/burst", ())
    whole = await pool.fetch(request)
    assert whole.status == 200
    assert whole.headers["transfer-encoding"] == "chunked"
    assert whole.body == b"".join(b"%d," % count for count in range(1000))
    assert pool.statistics().idle == 1


async def test_fetch_returns_an_error_status_like_any_other(pool, nginx):
    whole = await pool.fetch(Request("GET", Origin("http", "127.0.0.1", nginx.plain), "/limited", ()))
    assert (whole.status, whole.headers["retry-after"], whole.body) == (429, "7", b"slow down")


async def test_fetch_gives_up_a_long_body(pool, nginx):
    """Eight megabytes of zeros, in eight kilobytes on the wire."""
    request = Request(
        "GET", Origin("http", "127.0.0.1", nginx.plain), "/packed/zeros", (("Accept-Encoding", "gzip"),)
    )
    with pytest.raises(UpstreamError) as caught:
        await pool.fetch(request, limit=1_000_000)
    assert caught.value.code == "upstream_too_large"
    assert pool.statistics()[:4] == (0, 0, 0, 0)


async def test_fetch_is_bounded_in_time(make_pool):
    async with serve(sending(CHUNKED, b"1\r\na\r\n", close=False)) as server:
        pool = make_pool(fetch_timeout=0.05)
        with pytest.raises(UpstreamError) as caught:
            await pool.fetch(server.request())
        assert caught.value.code == "upstream_timeout"
        await server.settle()


async def test_fetch_raises_what_went_wrong(pool):
    async with serve(sending(CHUNKED)) as server:
        with pytest.raises(UpstreamError) as caught:
            await pool.fetch(server.request())
    assert caught.value.code == "upstream_reset"


# The end


async def test_closing_the_pool_closes_everything(make_pool):
    pool = make_pool(max_connections_per_origin=2)

    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
        await peer.request()
        await peer.send(CHUNKED)
        await peer.wait_gone()

    async with serve(handle) as server:
        await ask(pool, server.request())
        sinks = [Recorder(), Recorder()]
        exchanges = [await pool.open(server.request(), sink) for sink in sinks]
        exchanges[0].pause()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(fail_to_open(pool, server.request()))
            await turns(2)
            assert pool.statistics().waiting == 1
            await pool.aclose()
        assert client_sockets(server.origin.port) == 0
        assert waiting.result().code == "upstream_closed"
        assert (await sinks[1].error()).code == "upstream_closed"
        assert not sinks[0].ended, "paused: told when it resumes"
        exchanges[0].resume()
        assert (await sinks[0].error()).code == "upstream_closed"
        assert (await fail_to_open(pool, server.request())).code == "upstream_closed"


async def fail_to_open(pool, request):
    with pytest.raises(UpstreamError) as caught:
        await pool.open(request, Recorder())
    return caught.value


async def test_closing_the_pool_stops_a_request_that_is_sent_again(make_pool):
    pool = make_pool()
    again = asyncio.Event()

    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
            await peer.request()
            peer.close()
        else:
            again.set()
            await peer.wait_gone()

    async with serve(handle) as server:
        await ask(pool, server.request())
        sink = Recorder()
        await pool.open(server.request("POST", body=bytes(20_000_000)), sink)
        await again.wait()
        await pool.aclose()
        assert (await sink.error()).code == "upstream_closed"
        assert client_sockets(server.origin.port) == 0


async def test_pool_prints_its_counts(pool):
    async with serve(answering) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(target="/a?key=secret"), sink)
        assert repr(exchange) == f"<Exchange GET {server.origin}/a open>"
        await finish(exchange, sink)
        assert "idle=1" in repr(pool)
