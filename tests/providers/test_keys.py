"""Several keys of one provider: their turns, and how long each is passed over."""

import pytest

from penstock.providers.keys import (
    HELD_BACK_FOR,
    MAX_COOL_DOWN,
    MAX_RETRY_AFTER,
    REFUSED_FOR,
    ProviderKeys,
)
from penstock.types.errors import ClientError, UpstreamError, upstream_reset


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def ring(clock, *keys):
    return ProviderKeys(keys or ("one", "two", "three"), clock)


def refusal(status=401, code="invalid_api_key", retry_after=None):
    return UpstreamError("no", code=code, status=status, upstream_status=status, retry_after=retry_after)


def test_keys_are_used_in_turn(clock):
    keys = ring(clock)
    assert [keys.use().value for _ in range(4)] == ["one", "two", "three", "one"]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (refusal(), REFUSED_FOR),
        (refusal(402, "insufficient_quota"), REFUSED_FOR),
        (refusal(403, "permission_denied"), REFUSED_FOR),
        (refusal(429, "insufficient_quota"), REFUSED_FOR),
        (refusal(429, "rate_limit_exceeded"), HELD_BACK_FOR),
        (refusal(429, "rate_limit_exceeded", 3.0), 3.0),
        (refusal(429, "rate_limit_exceeded", 86_400.0), MAX_RETRY_AFTER),
        (UpstreamError("in a 200", code="rate_limit_exceeded", status=429), HELD_BACK_FOR),
    ],
)
def test_a_key_that_is_refused_is_passed_over_for_its_time(clock, error, seconds):
    keys = ring(clock)
    assert keys.use().failed(error)
    clock.now += seconds - 0.01
    assert {keys.use().value for _ in range(5)} == {"two", "three"}
    clock.now += 0.02
    assert "one" in {keys.use().value for _ in range(3)}


@pytest.mark.parametrize(
    "error",
    [
        upstream_reset("a"),
        refusal(500, "upstream_error"),
        refusal(400, "invalid_request"),
        refusal(404, "model_not_found"),
        ClientError("bad"),
    ],
)
def test_what_does_not_speak_of_the_key_changes_nothing(clock, error):
    keys = ring(clock)
    assert not keys.use().failed(error)
    assert keys.ready == 3


def test_refusals_in_a_row_double_the_time_until_it_works(clock):
    keys = ring(clock, "one", "two")
    spans = []
    for _ in range(7):
        keys.use()
        use = next(use for use in iter(keys.use, None) if use.value == "one")
        use.failed(refusal())
        began = clock.now
        while {keys.use().value for _ in range(2)} == {"two"}:
            clock.now += 1
        spans.append(clock.now - began)
    assert spans[:4] == [60, 120, 240, 480]
    assert spans[-1] == MAX_COOL_DOWN
    use.worked()
    use.failed(refusal())
    clock.now += 60
    assert keys.ready == 2


def test_a_refusal_of_many_at_once_counts_once(clock):
    keys = ring(clock, "one", "two")
    uses = [use for use in (keys.use() for _ in range(20)) if use.value == "one"]
    for use in uses:
        use.failed(refusal())
    clock.now += REFUSED_FOR
    assert keys.ready == 2


def test_where_all_cool_down_the_first_to_be_ready_is_used(clock):
    keys = ring(clock, "one", "two")
    assert keys.use().failed(refusal(429, "rate_limit_exceeded", 50.0))
    assert not keys.use().failed(refusal(429, "rate_limit_exceeded", 20.0))
    assert keys.use().value == "two"
    assert keys.ready == 0


def test_no_repr_shows_a_key(clock):
    keys = ring(clock, "geheim")
    assert "geheim" not in repr(keys) + repr(keys.use())
