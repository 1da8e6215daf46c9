"""How large and how slow a request's body may be, on a clock that jumps."""

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from penstock.server.bodies import arriving
from penstock.types.errors import ClientError
from tests.virtual_time import run_virtually


def request(pieces, **headers):
    """A request whose body comes as ``pieces`` of (seconds to wait, bytes)."""
    coming = iter(pieces)

    async def receive():
        wait, size = next(coming, (0.0, None))
        await asyncio.sleep(wait)
        return {"type": "http.request", "body": bytes(size or 0), "more_body": size is not None}

    named = [(name.replace("_", "-").encode(), str(value).encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": named}, receive)


def read(pieces, *, most=1 << 30, timeout=10.0, rate=1000, busy=0.0, **headers):
    """Return how many bytes came, how it ended and when. ``busy``: seconds that we take for each piece."""

    async def reading():
        pace, got = SimpleNamespace(body_timeout=timeout, body_rate=rate), 0
        loop = asyncio.get_running_loop()
        try:
            async with aclosing(arriving(request(pieces, **headers), most, pace)) as body:
                async for piece in body:
                    got += len(piece)
                    await asyncio.sleep(busy)
        except ClientError as error:
            return got, error.code, loop.time()
        return got, "", loop.time()

    return run_virtually(reading())


def test_a_body_that_never_comes_is_refused_when_its_time_is_up():
    assert read([(1e6, 1)]) == (0, "body_timeout", pytest.approx(10))


def test_a_body_that_comes_byte_by_byte_is_refused_soon():
    got, code, took = read([(1.0, 1)] * 1000)
    assert (got, code) == (10, "body_timeout")
    assert took == pytest.approx(10, abs=0.1)


def test_a_large_body_on_a_slow_line_has_the_time_that_it_needs():
    assert read([(2.0, 2000)] * 100) == (200_000, "", pytest.approx(200))


def test_a_body_that_was_fast_may_not_stop_for_longer_than_one_that_has_not_begun():
    assert read([(0.0, 1 << 20), (1e6, 1)]) == (1 << 20, "body_timeout", pytest.approx(10))


def test_a_line_that_is_away_for_a_moment_is_borne():
    assert read([(9.0, 1), (0.001, 9000), (9.0, 1), (0.0, 9000)])[1] == ""


def test_without_a_rate_the_time_is_for_the_whole_body():
    assert read([(3.0, 1 << 20)] * 4, rate=0) == (3 << 20, "body_timeout", pytest.approx(10))


def test_the_time_that_we_take_is_not_the_clients():
    assert read([(0.0, 10)] * 10, busy=60.0) == (100, "", pytest.approx(600))


def test_a_body_that_is_too_large_is_refused_by_its_length_or_as_it_comes():
    assert read([(1.0, 10)], most=9, content_length=10) == (0, "body_too_large", 0)
    assert read([(1.0, 5)] * 3, most=10) == (10, "body_too_large", pytest.approx(3))
    assert read([(1.0, 5)] * 2, most=10, content_length=10)[:2] == (10, "")


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 20_000)), max_size=30))
def test_no_body_is_further_behind_its_rate_than_it_may_be(pieces):
    got, code, took = read(pieces)
    assert took <= 10 + got / 1000 + 1e-6
    if all(size >= wait * 1000 for wait, size in pieces) and all(wait < 10 for wait, _ in pieces):
        assert code == ""
