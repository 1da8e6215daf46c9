"""Nothing is left behind when a request is cancelled, wherever it waits."""

import asyncio

import pytest

from penstock.upstream.http1 import Request
from tests.upstream.servers import (
    CHUNKED,
    Recorder,
    client_sockets,
    eventually,
    forward_proxy,
    full_backlog,
    serve,
    turns,
)
from tests.upstream.test_http1 import sending

NOTHING = (0, 0, 0, 0)


async def cancel(task, *, after=None):
    """Cancel ``task`` when ``after`` holds."""
    if after is not None:
        await eventually(after)
    await turns()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def nothing_left(pool, port):
    """The pool is empty at once; the sockets are closed by the loop's next turns."""
    assert pool.statistics()[:4] == NOTHING
    await eventually(lambda: client_sockets(port) == 0)


async def silent(peer):
    """A handler that takes no notice of anything."""
    await asyncio.Event().wait()


async def test_cancelled_while_connecting(pool):
    with full_backlog() as origin:
        before = client_sockets(origin.port)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(pool.open(Request("GET", origin, "/", ()), Recorder()))
            await cancel(task, after=lambda: client_sockets(origin.port) > before)
        assert pool.statistics()[:4] == NOTHING
        await eventually(lambda: client_sockets(origin.port) == before)


async def test_cancelled_while_a_name_is_resolved(pool):
    async with serve(silent, name="localhost") as server, asyncio.TaskGroup() as group:
        task = group.create_task(pool.open(server.request(), Recorder()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await nothing_left(pool, server.origin.port)


async def test_cancelled_in_the_handshake(pool):
    async with serve(silent) as server, asyncio.TaskGroup() as group:
        origin = server.origin._replace(scheme="https")
        task = group.create_task(pool.open(Request("GET", origin, "/", ()), Recorder()))
        await cancel(task, after=lambda: server.peers)
        await nothing_left(pool, origin.port)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancelled_while_a_proxy_is_asked(make_pool, certificates, scheme):
    async with serve(silent, name="localhost") as proxy, asyncio.TaskGroup() as group:
        url = f"{scheme}://localhost:{proxy.origin.port}"
        pool = make_pool(environ={"https_proxy": url})
        request = Request("GET", proxy.origin._replace(scheme="https", host="model.test"), "/", ())
        task = group.create_task(pool.open(request, Recorder()))
        await cancel(task, after=lambda: proxy.peers)
        await nothing_left(pool, proxy.origin.port)


async def test_cancelled_in_the_handshake_within_a_tunnel(make_pool):
    async with (
        serve(silent, name="model.test") as server,
        forward_proxy({"model.test": server.origin.port}, name="localhost") as proxy,
        asyncio.TaskGroup() as group,
    ):
        pool = make_pool(environ={"https_proxy": str(proxy.origin)})
        request = Request("GET", server.origin._replace(scheme="https"), "/", ())
        task = group.create_task(pool.open(request, Recorder()))
        await cancel(task, after=lambda: server.peers)
        await nothing_left(pool, proxy.origin.port)


@pytest.mark.parametrize("tls", [False, True])
async def test_cancelled_while_writing(make_pool, certificates, tls):
    pool = make_pool(ca_file=certificates.file)
    context = certificates.context("127.0.0.1") if tls else None
    sink = Recorder()
    async with serve(silent, context=context) as server, asyncio.TaskGroup() as group:
        task = group.create_task(pool.open(server.request("POST", body=bytes(30_000_000)), sink))
        await cancel(task, after=lambda: server.peers and pool.statistics().active)
        await nothing_left(pool, server.origin.port)
    assert sink.calls == []


async def test_cancelled_while_waiting_for_a_place(make_pool):
    pool = make_pool(max_connections_per_origin=1)
    async with serve(silent) as server, asyncio.TaskGroup() as group:
        exchange = await pool.open(server.request(), Recorder())
        task = group.create_task(pool.open(server.request(), Recorder()))
        await cancel(task, after=lambda: pool.statistics().waiting)
        assert pool.statistics()[:4] == (0, 1, 0, 0)
        exchange.abort()
        await nothing_left(pool, server.origin.port)


async def test_cancelled_while_sending_again(pool):
    """The idle connection goes stale in the middle of a long request."""

    async def handle(peer):
        if peer.number == 0:
            await peer.answer()
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.reset()
        else:
            await silent(peer)

    async with serve(handle) as server, asyncio.TaskGroup() as group:
        sink = Recorder()
        await pool.open(server.request(), sink)
        await sink.end()
        task = group.create_task(pool.open(server.request("POST", body=bytes(30_000_000)), Recorder()))
        await cancel(task, after=lambda: len(server.peers) == 2)
        await nothing_left(pool, server.origin.port)


@pytest.mark.parametrize("turn", range(12))
@pytest.mark.parametrize("tls", [False, True])
async def test_cancelled_after_any_turn_of_the_loop(make_pool, certificates, tls, turn):
    """Whatever step of opening the cancellation meets, in whatever state that step is."""
    pool = make_pool(ca_file=certificates.file)
    context = certificates.context("127.0.0.1") if tls else None
    sink = Recorder()
    async with serve(silent, context=context) as server:
        task = asyncio.ensure_future(pool.open(server.request("POST", body=bytes(30_000_000)), sink))
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await nothing_left(pool, server.origin.port)


async def test_aborted_while_the_head_is_awaited(pool):
    async with serve(sending(close=False)) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink, head_timeout=0.02)
        exchange.abort()
        await nothing_left(pool, server.origin.port)
        await asyncio.sleep(0.03)
        await server.settle()
    assert sink.calls == [], "the timer went with it"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("paused", [False, True])
async def test_aborted_in_the_body(make_pool, certificates, tls, paused):
    async def handle(peer):
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            await peer.send(b"3e8\r\n" + bytes(1000) + b"\r\n")

    pool = make_pool(ca_file=certificates.file)
    context = certificates.context("127.0.0.1") if tls else None
    async with serve(handle, context=context) as server:
        sink = Recorder()
        exchange = await pool.open(server.request(), sink)
        await sink.wait_for(lambda sink: len(sink.reads) > 3)
        if paused:
            exchange.pause()
            await turns(20)
        exchange.abort()
        heard = len(sink.calls)
        await nothing_left(pool, server.origin.port)
        await server.settle()
        assert len(sink.calls) == heard


async def test_cancelled_fetch_leaves_nothing(pool):
    async with serve(sending(CHUNKED, close=False)) as server, asyncio.TaskGroup() as group:
        task = group.create_task(pool.fetch(server.request()))
        await cancel(task, after=lambda: pool.statistics().active)
        await nothing_left(pool, server.origin.port)
