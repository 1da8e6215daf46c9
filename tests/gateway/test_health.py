"""A target's record: when it is passed over, when it is tried again, what its retries may cost."""

import pytest

from penstock.gateway.health import OUTCOMES, Health, HealthSettings


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def target(clock):
    return Health(HealthSettings(), clock).of("a")


def play(target, *, good):
    trial = target.begin()
    trial.output() if good else trial.fail()
    trial.end()


def fail(target, times=1):
    for _ in range(times):
        play(target, good=False)


def test_failures_in_a_row_open_the_breaker(target):
    fail(target, 4)
    assert target.available
    fail(target)
    assert (target.state, target.available) == ("open", False)


def test_one_success_breaks_the_row(target):
    fail(target, 4)
    play(target, good=True)
    fail(target, 4)
    assert target.state == "closed"


def test_too_large_a_share_of_failures_opens_it_without_a_row(target):
    for _ in range(OUTCOMES // 2):
        play(target, good=True)
        fail(target)
    assert target.state == "open"


def test_failures_of_long_ago_do_not_count(target, clock):
    for _ in range(OUTCOMES // 2 - 1):
        play(target, good=True)
        fail(target)
    clock.now += 31
    play(target, good=True)
    fail(target)
    assert target.state == "closed"


def test_half_open_lets_one_probe_through_which_closes_it(target, clock):
    fail(target, 5)
    clock.now += 2
    assert target.state == "half_open"
    probe = target.begin()
    assert not target.available
    probe.output()
    probe.end()
    assert (target.state, target.available) == ("closed", True)


def test_probe_that_fails_doubles_the_wait_up_to_a_bound(target, clock):
    fail(target, 5)
    for wait in (2, 4, 8, 15, 15):
        clock.now += wait - 0.01
        assert target.state == "open"
        clock.now += 0.01
        assert target.state == "half_open"
        fail(target)
    assert target.state == "open"


def test_probe_that_is_given_up_leaves_room_for_another(target, clock):
    fail(target, 5)
    clock.now += 2
    target.begin().end()
    assert target.available


def test_attempt_from_before_the_opening_does_not_close_it(target):
    early = target.begin()
    fail(target, 5)
    early.output()
    early.end()
    assert target.state == "open"


def test_recovered_target_begins_with_a_clean_record(target, clock):
    fail(target, 5)
    clock.now += 2
    play(target, good=True)
    fail(target, 4)
    assert target.state == "closed"


def test_running_attempts_are_counted(target):
    trials = [target.begin() for _ in range(3)]
    assert target.running == 3
    for trial in trials:
        trial.output()
        trial.fail()
        trial.end()
    assert target.running == 0


def test_retries_are_paid_by_first_tries(target):
    for _ in range(10):
        assert target.can_retry
        target.pay_retry()
    assert not target.can_retry
    for _ in range(5):
        target.begin().end()
    assert target.can_retry
    target.pay_retry()
    assert not target.can_retry
    target.begin(retry=True).end()
    assert not target.can_retry


def test_times_to_first_output_are_remembered(target, clock):
    assert target.first_output(0.95) == 0
    for tenths in range(1, 101):
        trial = target.begin()
        clock.now += tenths / 10
        trial.output()
        clock.now += 100  # the rest of the answer does not count
        trial.end()
    assert 6.5 < target.first_output(0.5) < 7.2  # of the last 64
    assert 9.5 < target.first_output(0.95) < 10
