"""What to do after a failed attempt: every case of the decision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.rescue import (
    EARLY,
    Continue,
    GiveUp,
    RetrySettings,
    Tried,
    Try,
    decide,
    pause,
    remedy,
)
from penstock.types.errors import ClientError, GatewayError, UpstreamError, WireError, upstream_reset

SETTINGS = RetrySettings()
DOWN = upstream_reset("a")
BUSY = UpstreamError("busy", code="overloaded", status=503, retry_after=2.0)
AWAY = UpstreamError("busy", code="rate_limit_exceeded", status=429, retry_after=60.0)
KEY = UpstreamError("key", code="invalid_api_key", status=401, retryable=False, upstream_status=401)
LONG = UpstreamError("long", code="context_length_exceeded", status=400, retryable=False)
REFUSED = UpstreamError("no", code="content_filter", status=400, retryable=False)
BAD = UpstreamError("bad", code="invalid_request", status=400, retryable=False, upstream_status=400)
FRESH = Tried()


def failed(error=DOWN, tries=1, **more):
    return Tried(tries=tries, error=error, **more)


def judge(*targets, last=0, **more):
    return decide(targets, last, SETTINGS, chance=lambda: 0.5, **more)


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (DOWN, "retry"),
        (BUSY, "retry"),
        (WireError("bad"), "retry"),
        (KEY, "fallback"),
        (UpstreamError("r", code="upstream_redirect", retryable=False), "fallback"),
        (LONG, "larger"),
        (REFUSED, "never"),
        (BAD, "never"),
        (ClientError("bad"), "never"),
        (GatewayError("bug", code="internal_error"), "never"),
    ],
)
def test_what_helps_against_each_kind_of_error(error, helps):
    assert remedy(error) == helps


@pytest.mark.parametrize("error", [DOWN, BUSY, AWAY, KEY])
def test_targets_that_were_not_tried_come_first_and_at_once(error):
    assert judge(failed(error), FRESH, FRESH) == Try(1)


def test_target_whose_breaker_is_open_is_passed_over():
    assert judge(failed(), Tried(available=False), FRESH) == Try(2)


def test_open_breaker_is_tried_when_nothing_else_is_left():
    assert judge(failed(KEY), Tried(available=False)) == Try(1)


def test_alone_a_target_is_tried_again_after_a_pause():
    assert judge(failed(DOWN)) == Try(0, 0.25)
    assert judge(failed(BUSY)) == Try(0, 2.0)


def test_the_one_with_the_shortest_pause_is_tried_again():
    assert judge(failed(BUSY), failed(DOWN), last=0) == Try(1, 0.25)


@pytest.mark.parametrize("error", [REFUSED, BAD, ClientError("bad")])
def test_what_was_refused_is_asked_of_nobody_else(error):
    assert judge(failed(error), FRESH) == GiveUp()


@pytest.mark.parametrize(
    "target",
    [
        failed(KEY),
        failed(AWAY),
        failed(DOWN, tries=3, since_first=60),
        failed(DOWN, paid=False),
        failed(DOWN, limit=1),
    ],
    ids=["same again", "asks for too long", "tried often enough", "no budget", "its own limit"],
)
def test_alone_with_what_no_try_helps_it_is_given_up(target):
    assert judge(target) == GiveUp()


def test_tries_in_all_are_bounded():
    assert judge(failed(tries=3), failed(tries=3), FRESH) == GiveUp()


def test_request_that_did_not_fit_goes_to_a_larger_target_only():
    assert judge(failed(LONG, context=8), Tried(context=8), Tried(context=32)) == Try(2)
    assert judge(failed(LONG, context=8), Tried(context=8), Tried()) == GiveUp()


def test_shown_output_is_continued_by_another_target():
    assert judge(failed(), FRESH, shown=True, continuable=True) == Continue(1)
    assert judge(failed(), failed(DOWN), FRESH, shown=True, continuable=True) == Continue(2)
    assert judge(failed(), failed(DOWN), shown=True, continuable=True) == Continue(1)


@pytest.mark.parametrize(
    ("targets", "continuable"),
    [
        ((failed(), FRESH), False),
        ((failed(limit=1),), True),
        ((failed(tries=3), Tried(continues=False)), True),
        ((failed(paid=False), Tried(available=False)), True),
        ((failed(AWAY),), True),
        ((failed(available=False),), True),
        ((failed(continues=False), failed(KEY)), True),
        ((failed(REFUSED), FRESH), True),
        ((failed(LONG), FRESH), True),
    ],
)
def test_shown_output_that_cannot_be_continued_ends(targets, continuable):
    assert judge(*targets, shown=True, continuable=continuable) == GiveUp()


@pytest.mark.parametrize(
    "others", [(), (Tried(continues=False),), (Tried(available=False),), (failed(KEY),), (failed(tries=3),)]
)
def test_shown_output_is_continued_by_the_same_target_after_a_pause_where_no_other_can(others):
    assert judge(failed(), *others, shown=True, continuable=True) == Continue(0, 0.25)
    twice = failed(tries=2, since_first=0.4)
    assert judge(twice, *others, shown=True, continuable=True) == Continue(0, EARLY - 0.4)


@given(st.integers(1, 8), st.floats(0, 100), st.floats(0, 1), st.floats(0, 20))
def test_pauses_are_bounded_and_heed_what_was_asked(tries, since_first, chance, asked):
    error = UpstreamError("x", code="overloaded", retry_after=asked)
    delay = pause(Tried(tries, since_first, error), SETTINGS, lambda: chance)
    if asked > SETTINGS.max_retry_after:
        assert delay is None
        return
    assert asked <= delay <= max(SETTINGS.max_delay, SETTINGS.max_retry_after)
    if tries >= 2:
        assert since_first + delay >= EARLY


def test_a_target_with_another_key_is_tried_with_that_before_others_and_at_once():
    assert judge(failed(KEY, spare_key=True), FRESH) == Try(0)
    assert judge(failed(AWAY, spare_key=True), FRESH) == Try(0)
    assert judge(failed(KEY, tries=2, since_first=0.5, spare_key=True), FRESH) == Try(0, EARLY - 0.5)
    assert judge(failed(KEY, tries=3, spare_key=True), FRESH) == Try(1)
    assert judge(failed(KEY, limit=1, spare_key=True), FRESH) == Try(1)
