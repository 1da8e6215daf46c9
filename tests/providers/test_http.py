"""The HTTP source, driven by hand: the order of reads, pauses and ends is what is tested here.

That it fits the real pool and a real socket is tested in test_compatible.py.
"""

import asyncio

import pytest

from penstock.providers.http import (
    ERROR_BODY_TIMEOUT,
    MAX_ERROR_BYTES,
    MAX_STEP_BYTES,
    HttpSource,
    parse_base_url,
)
from penstock.providers.provider import Conversation
from penstock.types.errors import UpstreamError, upstream_reset
from penstock.upstream.http1 import Origin, Request
from tests.providers.recorder import Recorder, turns

REQUEST = Request("POST", Origin("http", "example.com", 80), "/v1/x", (("authorization", "Bearer sk-1"),))
EVENT_STREAM = {"content-type": "text/event-stream"}
TURNS = 200


class HandExchange:
    """An exchange and the pool that opens it; says in ``calls`` what was asked of it."""

    def __init__(self):
        self.calls = []
        self.during_open = lambda sink: None
        self.head_timeout = None

    async def open(self, request, sink, *, head_timeout=None, connect_timeout=None):
        self.head_timeout = head_timeout
        await asyncio.sleep(0)
        self.during_open(sink)
        return self

    def pause(self):
        self.calls.append("pause")

    def resume(self):
        self.calls.append("resume")

    def abort(self):
        self.calls.append("abort")


class Bytes:
    """A decoder that keeps bytes as they are."""

    finished = False

    def feed(self, data):
        assert type(data) is bytes
        return [data]

    def flush(self):
        return []


def parse_error(status, headers, body):
    return UpstreamError(body[:20].decode(), code=f"was_{status}", upstream_status=status)


@pytest.fixture
def exchange():
    return HandExchange()


@pytest.fixture
async def sink(exchange):
    return Recorder(Conversation(HttpSource(exchange, REQUEST, parse_error, head_timeout=7), Bytes()))


@pytest.fixture
async def opened(sink):
    await sink.source.open(sink)
    return sink


def sizes(sink):
    return [len(step) for step in sink.steps]


BIG = bytes(range(256)) * (5 * MAX_STEP_BYTES // 512)  # two steps and a half


async def test_a_small_read_is_fed_at_once(opened, exchange):
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.on_body(b"data: 1\n\n")
    assert opened.steps == [b"data: 1\n\n"]
    opened.source.on_end()
    assert await opened.outcome() is None
    assert exchange.calls == []
    assert exchange.head_timeout == 7


async def test_a_big_read_is_fed_in_steps_while_the_socket_waits(opened, exchange):
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.on_body(BIG)
    assert sizes(opened) == [MAX_STEP_BYTES]
    assert exchange.calls == ["pause"]
    await turns(1)
    assert sizes(opened) == [MAX_STEP_BYTES] * 2
    await turns(TURNS)
    assert b"".join(opened.steps) == BIG
    assert exchange.calls == ["pause", "resume"]


async def test_the_end_waits_for_the_rest_of_a_big_read(opened):
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.on_body(BIG)
    opened.source.on_end()
    assert not opened.ended
    assert await opened.outcome() is None
    assert b"".join(opened.steps) == BIG


async def test_an_error_waits_for_the_rest_of_a_big_read(opened):
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.on_body(BIG)
    opened.source.on_error(upstream_reset("x"))
    assert not opened.ended
    error = await opened.outcome()
    assert error is not None
    assert error.code == "upstream_reset"
    assert b"".join(opened.steps) == BIG


async def test_an_abort_drops_the_rest_of_a_big_read(opened, exchange):
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.on_body(BIG)
    opened.source.abort()
    opened.source.abort()
    await turns(TURNS)
    assert sizes(opened) == [MAX_STEP_BYTES]
    assert exchange.calls == ["pause", "abort"]


async def test_an_abort_within_a_step_is_the_last_that_happens(opened):
    opened.after_each = opened.source.abort
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.on_body(BIG)
    opened.source.on_body(b"more")
    opened.source.on_end()
    await turns(TURNS)
    assert len(opened.steps) == 1
    assert not opened.ended


async def test_a_pause_within_a_big_read_outlasts_it(opened, exchange):
    opened.after_each = opened.source.pause
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.on_body(BIG)
    await turns(TURNS)
    assert sizes(opened) == [MAX_STEP_BYTES]
    opened.source.resume()
    await turns(TURNS)
    assert sizes(opened) == [MAX_STEP_BYTES] * 2
    assert exchange.calls == ["pause"], "the socket is not read before all is fed and nobody waits"
    opened.source.resume()
    await turns(TURNS)
    opened.source.resume()
    await turns(TURNS)
    assert b"".join(opened.steps) == BIG
    assert exchange.calls == ["pause", "resume"]


async def test_nothing_is_delivered_while_paused_and_all_of_it_after(opened, exchange):
    opened.source.on_head(200, EVENT_STREAM)
    opened.source.pause()
    opened.source.on_body(b"one ")
    opened.source.on_body(b"two")
    opened.source.on_end()
    await turns(TURNS)
    assert opened.steps == []
    assert not opened.ended
    opened.source.resume()
    assert opened.steps == [], "resume itself delivers nothing"
    assert await opened.outcome() is None
    assert b"".join(opened.steps) == b"one two"
    assert exchange.calls == ["pause"], "the exchange is over: its connection may serve another request"


async def test_a_pause_before_open_reaches_the_exchange(sink, exchange):
    sink.source.pause()
    await sink.source.open(sink)
    assert exchange.calls == ["pause"]
    sink.source.resume()
    assert exchange.calls == ["pause", "resume"]


async def test_an_abort_before_open_sends_nothing(sink, exchange):
    sink.source.abort()
    await sink.source.open(sink)
    assert exchange.head_timeout is None


async def test_an_abort_while_opening_closes_the_exchange_that_comes_of_it(sink, exchange):
    exchange.during_open = lambda _: sink.source.abort()
    await sink.source.open(sink)
    assert exchange.calls == ["abort"]


async def test_an_answer_may_come_whole_while_the_request_is_still_sent(sink, exchange):
    def answer(response):
        response.on_head(413, {})
        response.on_body(b"too large")
        response.on_end()

    exchange.during_open = answer
    await sink.source.open(sink)
    error = await sink.outcome()
    assert error is not None
    assert error.code == "was_413"


async def test_a_refusal_while_the_request_is_still_sent_closes_the_exchange(sink, exchange):
    exchange.during_open = lambda response: response.on_head(302, {})
    await sink.source.open(sink)
    error = await sink.outcome()
    assert error is not None
    assert error.code == "upstream_redirect"
    assert exchange.calls == ["abort"]


async def test_an_error_response_is_read_by_the_dialect(opened):
    opened.source.on_head(429, {"retry-after": "3"})
    opened.source.on_body(b"slow ")
    opened.source.on_body(b"down")
    assert not opened.ended
    opened.source.on_end()
    error = await opened.outcome()
    assert error is not None
    assert (error.code, error.message) == ("was_429", "slow down")
    assert opened.steps == []


async def test_an_error_response_is_read_to_its_bound(opened, exchange):
    opened.source.on_head(500, {})
    opened.source.on_body(b"x" * (MAX_ERROR_BYTES - 1))
    assert not opened.ended
    opened.source.on_body(b"yy")
    assert opened.ended
    assert exchange.calls == ["abort"]


async def test_a_cut_error_response_still_says_what_its_status_was(opened):
    opened.source.on_head(503, {})
    opened.source.on_body(b"over")
    opened.source.on_error(upstream_reset("x"))
    error = await opened.outcome()
    assert error is not None
    assert (error.code, error.message) == ("was_503", "over")


async def test_the_body_of_an_error_response_is_not_waited_for_long(opened, exchange):
    loop = asyncio.get_running_loop()
    opened.source.on_head(500, {})
    (timer,) = [timer for timer in loop._scheduled if not timer.cancelled()]
    assert timer.when() - loop.time() <= ERROR_BODY_TIMEOUT
    timer._run()
    timer.cancel()
    error = await opened.outcome()
    assert error is not None
    assert error.code == "was_500"
    assert exchange.calls == ["abort"]


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
async def test_redirects_are_errors(opened, exchange, status):
    opened.source.on_head(status, {"location": "http://elsewhere.example/"})
    error = await opened.outcome()
    assert isinstance(error, UpstreamError)
    assert (error.code, error.upstream_status, error.retryable) == ("upstream_redirect", status, False)
    assert exchange.calls == ["abort"]


async def test_a_web_page_is_no_answer(opened):
    opened.source.on_head(200, {"content-type": "text/html; charset=utf-8"})
    error = await opened.outcome()
    assert error is not None
    assert error.code == "upstream_malformed"
    assert "base URL" in error.message


async def test_a_repr_shows_the_host_and_no_header(opened):
    assert repr(opened.source) == "<HttpSource POST example.com waiting>"
    assert "sk-1" not in repr(opened.source)


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://api.example.com/v1", Origin("https", "api.example.com", 443), "/v1"),
        ("https://api.example.com/v1/", Origin("https", "api.example.com", 443), "/v1"),
        ("http://localhost:11434", Origin("http", "localhost", 11434), ""),
        (" http://[::1]:8000/a/b// ", Origin("http", "::1", 8000), "/a/b"),
        ("HTTP://Example.COM", Origin("http", "example.com", 80), ""),
    ],
)
def test_base_urls_are_read(url, origin, path):
    assert parse_base_url(url) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "ftp://example.com",
        "https://",
        "https:///v1",
        "https://u:geheim@example.com",
        "https://u:geheim",
        "https://example.com/v1?key=geheim",
        "https://example.com/v1#geheim",
        "http://example.com:port",
        "http://example.com:99999",
    ],
)
def test_base_urls_that_cannot_be_used_are_refused_without_quoting_them(url):
    with pytest.raises(ValueError, match="base URL") as caught:
        parse_base_url(url)
    assert "geheim" not in str(caught.value)
