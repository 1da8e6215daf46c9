"""Our HTTP protocol, on bare sockets: its bounds, and every odd shape of a request."""

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from penstock.server.addresses import DoorStatistics
from penstock.server.context import ServerSettings
from tests.server.conftest import config, running
from tests.server.raw import connected, events, eventually, request, unchunked

HELLO = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}
STALL = {**HELLO, "model": "demo-stall"}
GET = request("GET", "/healthz")


@pytest.fixture
async def hasty(system, settings):
    """A gateway without patience for heads, nor for idle connections."""
    async with running(system, settings, head_timeout=0.2, idle_timeout=0.2, max_head_bytes=4096) as served:
        yield served


async def answered(gateway, data, *more):
    """Send ``data`` and what follows it, a piece at a time; return the connection once it has ended."""
    async with connected(gateway.port) as client:
        for piece in (data, *more):
            client.send(piece)
            await asyncio.sleep(0.01)
        await client.to_end()
        return client


# --- bounds ------------------------------------------------------------------------------------------


async def test_a_head_that_comes_byte_by_byte_is_cut_off_in_time(hasty):
    async with connected(hasty.port) as client:
        for byte in b"GET /" + b"x" * 1000:
            if client.ended:
                break
            client.send(bytes([byte]))
            with suppress(TimeoutError):
                await asyncio.wait_for(client._more(), 0.01)
    assert client.statuses == [408]


async def test_a_connection_that_says_nothing_is_closed(hasty):
    async with connected(hasty.port) as client:
        assert await client.to_end() == b""


async def test_a_connection_that_falls_idle_is_closed(hasty):
    async with connected(hasty.port) as client:
        client.send(GET)
        await client.to_end()
        assert client.statuses == [200]


async def test_a_stray_line_end_does_not_keep_an_idle_connection_for_ever(hasty):
    async with connected(hasty.port) as client:
        client.send(GET)
        await client.until(b'"ok"}')
        client.send(b"\r\n")
        await client.to_end()
        assert client.statuses[0] == 200


async def test_a_body_that_nobody_reads_does_not_keep_a_connection_for_ever(hasty):
    async with connected(hasty.port) as client:
        client.send(request("GET", "/healthz", Content_Length=1000))
        await client.until(b'"ok"}')
        while not client.ended:
            client.send(b"x")
            with suppress(TimeoutError):
                await asyncio.wait_for(client._more(), 0.02)
        assert client.statuses == [200]


async def test_a_second_head_may_not_be_slow_either(hasty):
    async with connected(hasty.port) as client:
        client.send(GET)
        await client.until(b'"ok"}')
        client.send(GET[:10])
        await client.to_end()
        assert client.statuses == [200, 408]


async def test_a_head_that_is_late_does_not_hurt_the_answer_before_it(hasty):
    async with connected(hasty.port) as client:
        client.send(request("POST", "/v1/streams", {"request": STALL}) + GET[:10])
        await client.until(b"event: delta")
        await asyncio.sleep(0.4)  # twice the time a head may take
        assert not client.reader.at_eof()
        assert hasty.system.gateway.open_streams == 1
        assert client.statuses == [200]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 5000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 500 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"name: value of a header\r\n" * 180 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"x" * 500_000,
        b"GET " + b"x" * 500_000,
    ],
    ids=["header", "header-", "url", "url-", "many", "sum", "name without end", "url without end"],
)
@pytest.mark.parametrize("step", [1000, 1_000_000])
async def test_a_head_over_the_bound_is_431_and_the_end_whatever_its_shape(hasty, head, step):
    async with connected(hasty.port) as client:
        for start in range(0, len(head), step):
            client.send(head[start : start + step])
        await client.to_end()
    assert client.statuses == [431]


async def test_a_large_body_that_comes_with_its_head_is_no_large_head(hasty):
    body = {"request": {**HELLO, "metadata": {"x": "y" * 200_000}}}
    async with connected(hasty.port) as client:
        client.send(request("POST", "/v1/streams", body, Prefer="respond-async"))
        await client.until(b"events_url")
        assert client.statuses == [201]


async def test_more_connections_than_allowed_are_closed_and_the_others_served(system, settings):
    async with (
        running(system, settings, max_connections=2) as served,
        connected(served.port) as one,
        connected(served.port) as two,
    ):
        for client in (one, two):
            client.send(GET)
            await client.until(b'"ok"}')
        async with connected(served.port) as three:
            assert await three.to_end() == b""
        assert served.server.statistics() == DoorStatistics(2, refused_address=0, refused_total=1)
        one.send(GET)
        await one.until(b'"ok"}HTTP')
        assert one.statuses == [200, 200]


async def test_many_that_say_nothing_or_half_of_it_are_closed_and_keep_nobody_waiting(system, settings):
    async with running(system, settings, head_timeout=1.0) as served, AsyncExitStack() as crowd:
        silent, half = [], []
        for number in range(150):
            client = await crowd.enter_async_context(connected(served.port))
            if number % 3:
                silent.append(client)
            else:
                client.send(GET[:20])
                half.append(client)
        over = asyncio.gather(*(client.to_end() for client in (*silent, *half)))
        answers = 0
        while not over.done() or not answers:
            answer = await served.client.post("/v1/chat/completions", json=HELLO)
            assert answer.json()["choices"][0]["message"]["content"] == "one two three"
            answers += 1
        await over
        assert all(client.got == b"" for client in silent)
        assert all(client.statuses == [408] for client in half)
        await eventually(lambda: served.server.statistics().connections <= 1)


async def test_a_body_that_is_slow_is_408(gateway):
    gateway.system.context.settings = ServerSettings(body_timeout=0.1)
    async with connected(gateway.port) as client:
        client.send(request("POST", "/v1/streams", b"{", Content_Length=1000))
        await client.until(b"body_timeout")
        assert client.statuses == [408]


class TestTimesThatAreSet:
    @pytest.fixture
    def settings(self):
        return config(listen={"port": 0, "head_timeout": 0.3, "idle_timeout": 0.2, "body_timeout": 0.1})

    async def test_the_head_the_body_and_what_is_idle_have_them(self, gateway):
        async with connected(gateway.port) as head, connected(gateway.port) as body:
            head.send(GET[:-2])
            await head.to_end()
            body.send(request("POST", "/v1/streams", b"{", Content_Length=1000))
            await body.until(b"body_timeout")
            async with connected(gateway.port) as idle:
                idle.send(GET)
                await idle.to_end()
            assert (head.statuses, body.statuses, idle.statuses) == ([408], [408], [200])


@pytest.mark.parametrize(("extra", "status"), [(0, 400), (1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_may_be_exactly_as_long_as_the_limit(gateway, extra, status, chunked):
    gateway.system.context.settings = ServerSettings(max_body_bytes=1000)
    body = b" " * (1000 + extra)  # no JSON: what is not too large gets 400
    if chunked:
        data = request("POST", "/v1/streams", Content_Type="application/json", Transfer_Encoding="chunked")
        data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        data = request("POST", "/v1/streams", body)
    async with connected(gateway.port) as client:
        client.send(data)
        await client.until(b'"error"')
        assert client.statuses == [status]


async def test_a_client_that_leaves_in_mid_upload_is_no_crash(gateway, capfd, caplog):
    async with connected(gateway.port) as client:
        client.send(request("POST", "/v1/streams", b"{", Content_Length=1000))
        await asyncio.sleep(0.05)
    await eventually(lambda: not gateway.server._state.tasks)
    assert "crashed" not in "".join(capfd.readouterr())
    assert "uvicorn.error" not in {record.name for record in caplog.records}


# --- what is not HTTP, or tries to be two requests ----------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # a TLS hello
        b"hello\r\n\r\n",
        b"GET / SPDY/9\r\n\r\n",
        b"GET\x00/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_400_and_the_end(gateway, data):
    client = await answered(gateway, data)
    assert client.statuses == [400]


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 0\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
    ],
)
async def test_a_body_of_doubtful_length_is_400_and_nothing_behind_it_is_served(gateway, headers):
    data = b"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers
    client = await answered(gateway, data + b"\r\n0\r\n\r\n" + SMUGGLED)
    assert client.statuses == [400]
    assert b"smuggled" not in client.got


@pytest.mark.parametrize(
    "chunk", [b"zz\r\n", b"-1\r\n", b"0x5\r\n", b"5;" + b"e" * 10 + b"\n", b"5 \r\n", b"f" * 17]
)
async def test_a_chunk_of_doubtful_size_is_not_read_past(gateway, chunk):
    head = request("POST", "/v1/streams", Content_Type="application/json", Transfer_Encoding="chunked")
    client = await answered(gateway, head, chunk + b"12345\r\n0\r\n\r\n" + SMUGGLED)
    assert b"smuggled" not in client.got
    assert len(client.statuses) <= 1  # its handler waits for the body: 400, or cut


async def test_a_folded_header_is_refused_or_one_header(gateway):
    data = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\nConnection: close\r\n\r\n"
    client = await answered(gateway, data)
    assert client.statuses in ([400], [200])


async def test_lines_that_end_with_lf_alone_are_refused_or_one_request(gateway):
    client = await answered(gateway, b"GET /healthz HTTP/1.1\nHost: localhost\nConnection: close\n\n")
    assert client.statuses in ([400], [200])


async def test_rubbish_after_a_request_does_not_land_in_its_answer(gateway):
    async with connected(gateway.port) as client:
        client.send(request("POST", "/v1/streams", {"request": STALL}))
        await client.until(b"event: delta")
        client.send(b"\x00\x00 rubbish \r\n\r\n")
        await client.to_end()
    assert client.statuses == [200]
    assert not unchunked(client.got)[1], "a cut answer must not look whole"


# --- requests of every kind --------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(gateway):
    asks = [request("POST", "/v1/streams", {"request": HELLO}), GET, request("GET", "/nothing"), GET]
    async with connected(gateway.port) as client:
        client.send(b"".join(asks))
        await client.until(b'"ok"}HTTP/1.1 404')
        await client.until(b'not_found"}}HTTP', b"/openapi.json")
        while len(client.statuses) < 4:
            await client._more()
        assert client.statuses == [200, 200, 404, 200]
    assert client.got.index(b"event: done") < client.got.index(b'"ok"}') < client.got.index(b"not_found")


async def test_a_client_that_leaves_with_requests_in_line_is_noticed(gateway):
    async with connected(gateway.port) as client:
        body = {**STALL, "stream": True}
        client.send(request("POST", "/v1/chat/completions", body) + GET * 3)
        await client.until(b"data: ")
        assert gateway.system.gateway.open_streams == 1
    await eventually(lambda: gateway.system.gateway.open_streams == 0)


async def test_expect_continue_is_answered_before_the_body_is_sent(gateway):
    whole = request("POST", "/v1/chat/completions", HELLO, Expect="100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    async with connected(gateway.port) as client:
        client.send(head + b"\r\n\r\n")
        assert (await client.until(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        await client.until(b"one two three")
        assert client.statuses == [200]


async def test_a_body_that_will_be_refused_is_not_asked_for(gateway):
    head = request("POST", "/v1/streams", Content_Type="text/plain", Content_Length=9, Expect="100-continue")
    async with connected(gateway.port) as client:
        client.send(head)
        await client.until(b"unsupported_media_type")
        assert b" 100 " not in client.got


async def test_http_1_0_is_answered_and_closed(gateway):
    client = await answered(gateway, request("GET", "/healthz", version="1.0", Connection="keep-alive"))
    assert client.statuses == [200]
    assert client.got.endswith(b'{"status":"ok"}')


async def test_head_gets_the_head_alone(gateway):
    async with connected(gateway.port) as client:
        client.send(request("HEAD", "/healthz") + GET)
        await client.until(b'"ok"}')
        assert client.statuses == [200, 200]
        assert client.got.count(b'"ok"') == 1


async def test_head_of_a_stream_tells_its_state_and_reads_nothing(gateway):
    async with connected(gateway.port) as client:
        client.send(request("POST", "/v1/streams", {"request": STALL}, Prefer="respond-async"))
        await client.until(b"events_url")
        stream = client.got.split(b"stream-id: ")[1].split(b"\r\n")[0].decode()
    client = await answered(gateway, request("HEAD", f"/v1/streams/{stream}/events", Connection="close"))
    head, _, rest = client.got.partition(b"\r\n\r\n")
    assert b"stream-status: open" in head
    assert rest == b""


async def test_head_of_the_simple_route_starts_nothing(gateway):
    client = await answered(gateway, request("HEAD", "/stream?content=hello", Connection="close"))
    assert client.statuses == [405]
    assert gateway.system.gateway.open_streams == 0


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "DELETE", "PUT"])
async def test_methods_that_are_not_there_are_405(gateway, method):
    client = await answered(gateway, request(method, "/v1/chat/completions", Connection="close"))
    assert client.statuses == [405]


async def test_the_absolute_form_of_a_url_is_understood(gateway):
    client = await answered(gateway, request("GET", "http://localhost/healthz", Connection="close"))
    assert client.statuses == [200]


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def test_a_websocket_where_there_is_none_is_told_so(gateway):
    client = await answered(gateway, request("GET", "/v1/streams", **UPGRADE))
    assert client.statuses == [404]
    assert b'"code":"not_found"' in client.got


async def test_a_websocket_cannot_begin_before_an_answer_has_ended(gateway):
    async with connected(gateway.port) as client:
        client.send(
            request("GET", "/stream?content=x&model=demo-stall") + request("GET", "/v1/ws", **UPGRADE)
        )
        await client.to_end()
    assert b"101 Switching" not in client.got


async def test_another_protocol_is_not_switched_to(gateway):
    client = await answered(gateway, request("GET", "/healthz", Connection="Upgrade", Upgrade="h2c"))
    assert client.statuses == [200]


# --- clients that end their side ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        request("GET", "/healthz"),
        request("POST", "/v1/chat/completions", HELLO),
        request("POST", "/v1/streams", {"request": {**HELLO, "model": "demo"}}),
        request("POST", "/v1/chat/completions", {**HELLO, "stream": True}),
        GET + request("POST", "/v1/streams", {"request": HELLO}),
    ],
    ids=["short", "whole", "native", "chat", "pipelined"],
)
async def test_a_client_that_ends_its_side_after_asking_is_answered(gateway, ask):
    async with connected(gateway.port) as client:
        client.send(ask)
        client.half_close()
        await client.to_end()
    assert set(client.statuses) == {200}
    assert b'"ok"' in client.got or b"[DONE]" in client.got or b"done" in client.got or b"stop" in client.got


@pytest.mark.parametrize("model", ["demo-stall", "demo-slow-start"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_noticed_while_nothing_is_sent(gateway, model, stream):
    async with connected(gateway.port) as client:
        body = {**HELLO, "model": model, "stream": stream}
        client.send(request("POST", "/v1/chat/completions", body))
        await eventually(lambda: gateway.system.gateway.open_streams == 1)
        await asyncio.sleep(0.05)
    await eventually(lambda: gateway.system.gateway.open_streams == 0)


async def test_a_reader_that_ended_its_side_gets_everything_however_long_it_takes(gateway):
    async with connected(gateway.port) as client:
        client.send(request("POST", "/v1/streams", {"request": {**STALL, "model": "demo-stall"}}))
        client.half_close()
        await client.until(b"event: delta")
        await asyncio.sleep(1.2)  # the beats that look whether it has left
        stream = client.got.split(b"stream-id: ")[1].split(b"\r\n")[0].decode()
        await gateway.client.post(f"/v1/streams/{stream}/cancel")
        await client.to_end()
    assert events(client.got)[-1].name == "fail"
    assert unchunked(client.got)[1]


async def test_an_upload_that_ends_too_early_is_not_answered(gateway):
    async with connected(gateway.port) as client:
        client.send(request("POST", "/v1/streams", b"{", Content_Length=1000))
        client.half_close()
        assert await client.to_end() == b""


@pytest.fixture
def settings():
    return config()
