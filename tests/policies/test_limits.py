"""Limits: who passes, who waits and for how long, in which order, and that nothing taken is ever lost."""

import asyncio
import random

import pytest

from penstock.policies.limits import Limit, Limits, neighbourhood
from penstock.types.errors import PenstockError
from penstock.types.events import UsageReported
from penstock.types.outcomes import UNSTARTED, AttemptUse, Outcome
from penstock.types.principals import Principal
from tests.gateway.hand import call, turns
from tests.virtual_time import run_virtually

DONE = Outcome("completed")


def used(tokens):
    return Outcome("completed", attempts=(AttemptUse("t", "p", "m", UsageReported(output_tokens=tokens)),))


def of(name="app", tokens=1, **more):
    return call(principal=Principal(name, **more), input_tokens=tokens)


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


async def refused(limits, asked):
    with pytest.raises(PenstockError) as error:
        await limits.admit(asked)
    return error.value


async def test_requests_are_let_in_until_the_minute_is_full(clock):
    limits = Limits([Limit(requests_per_minute=3)], clock)
    for _ in range(3):
        (await limits.admit(of())).settle(DONE)
    error = await refused(limits, of())
    assert (error.status, error.code, error.retryable) == (429, "rate_limit_exceeded", True)
    assert 59 <= error.retry_after <= 61
    assert "3 requests a minute for the key 'app'" in error.message
    await limits.admit(of("other"))
    clock.now += error.retry_after
    await limits.admit(of())


async def test_pages_of_a_key_share_its_limit_and_have_their_own(clock):
    limits = Limits([Limit("key", requests_per_minute=3), Limit("principal", requests_per_minute=2)], clock)
    for name in ("app/a", "app/a", "app/b"):
        await limits.admit(of(name))
    assert "the key 'app'" in (await refused(limits, of("app/b"))).message


@pytest.mark.parametrize(
    ("rule", "one", "other"),
    [
        (Limit("team", concurrent=1), of(team="a"), of("b", team="b")),
        (Limit("address", concurrent=1), of(address="10.0.0.1"), of(address="10.0.0.2")),
        (Limit("key", "a*", concurrent=1), of("a"), of("b")),
    ],
)
async def test_each_subject_has_its_own_gate(clock, rule, one, other):
    limits = Limits([rule], clock)
    await limits.admit(one)
    await limits.admit(other)
    error = await refused(limits, one)
    assert (error.code, error.status, error.retryable, error.retry_after) == (
        "concurrency_limit_exceeded",
        429,
        True,
        1.0,
    )


async def test_who_has_no_team_is_in_none(clock):
    limits = Limits([Limit("team", concurrent=1)], clock)
    for _ in range(3):
        await limits.admit(of())


async def test_a_call_passes_all_gates_or_none(clock):
    limits = Limits([Limit("all", requests_per_minute=10), Limit("key", concurrent=1)], clock)
    first = await limits.admit(of())
    for _ in range(20):
        await refused(limits, of())
    first.settle(DONE)
    for number in range(9):
        (await limits.admit(of(f"k{number}"))).settle(DONE)
    assert (await refused(limits, of("last"))).code == "rate_limit_exceeded"


async def test_tokens_are_corrected_by_what_was_used(clock):
    limits = Limits([Limit(tokens_per_minute=100)], clock)
    first = await limits.admit(of(tokens=60))
    assert (await refused(limits, of(tokens=60))).code == "rate_limit_exceeded"
    first.settle(used(10))
    second = await limits.admit(of(tokens=60))
    second.settle(used(500))
    error = await refused(limits, of(tokens=1))
    assert error.retry_after > 50
    assert limits.allowance(Principal("app")).tokens.remaining == 0


async def test_a_request_that_never_fits_is_told_so_and_not_to_come_again(clock):
    limits = Limits([Limit(tokens_per_minute=100, queue=10)], clock)
    error = await refused(limits, of(tokens=101))
    assert (error.status, error.code, error.retryable) == (413, "request_too_large", False)


async def test_a_call_that_found_no_need_to_start_is_not_counted(clock):
    limits = Limits([Limit(requests_per_minute=1, tokens_per_day=100)], clock)
    (await limits.admit(of(tokens=100))).settle(UNSTARTED)
    await limits.admit(of(tokens=100))


async def test_a_days_tokens_are_known_after_a_restart(clock):
    limits = Limits([Limit("team", tokens_per_day=100)], clock)
    limits.restore([("app", "t", "m", 80_000.0, 50), ("app", "t", "m", 10.0, 30), ("app", "", "m", 0.0, 99)])
    assert limits.allowance(Principal("x", team="t")).tokens.remaining == 20
    clock.now += 10_000
    assert limits.allowance(Principal("x", team="t")).tokens.remaining == 70


async def test_what_is_left_is_told_by_the_tightest_limit(clock):
    rules = [Limit(requests_per_minute=10), Limit("all", requests_per_minute=2), Limit("model", concurrent=1)]
    limits = Limits(rules, clock)
    assert limits.allowance(Principal("app")).requests[:2] == (2, 2)
    await limits.admit(of())
    requests, tokens = limits.allowance(Principal("app"))
    assert (requests.limit, requests.remaining, tokens) == (2, 1, None)
    assert 59 <= requests.resets_in <= 61
    assert Limits([Limit(concurrent=1)], clock).allowance(Principal("app")) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_one_site_of_ipv6_is_one_address(address, expected):
    assert neighbourhood(address) == expected


# --- waiting, in virtual time ----------------------------------------------------------------------------


def virtually(test):
    """Run an async test in virtual time, given limits' clock."""

    def run():
        async def main():
            await test(asyncio.get_running_loop().time)

        run_virtually(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtually
async def test_who_waits_is_served_in_turn_by_principal(clock):
    limits = Limits([Limit("all", concurrent=1, queue=100, wait=600)], clock)
    held = await limits.admit(of("greedy"))
    order = []

    async def wait(name):
        admission = await limits.admit(of(name))
        order.append(name)
        await asyncio.sleep(1)
        admission.settle(DONE)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(wait("greedy"))
        await turns()
        for name in ("modest", "humble"):
            group.create_task(wait(name))
        await turns()
        held.settle(DONE)
    assert order == ["greedy", "modest", "humble", "greedy", "greedy", "greedy", "greedy"]
    assert (limits.waiting, limits.running) == (0, 0)


@virtually
async def test_who_comes_later_does_not_overtake(clock):
    limits = Limits([Limit("all", concurrent=1, queue=10, wait=600)], clock)
    held = await limits.admit(of("a"))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(limits.admit(of("b")))
        await turns()
        held.settle(DONE)
        later = group.create_task(limits.admit(of("c")))
        await turns()
        assert waiting.done()
        assert not later.done()
        (await waiting).settle(DONE)


@virtually
async def test_a_window_opens_by_itself(clock):
    limits = Limits([Limit(requests_per_minute=1, queue=10, wait=600)], clock)
    for _ in range(3):
        await limits.admit(of())
    assert 120 <= clock() <= 123


@virtually
async def test_nobody_waits_longer_than_is_allowed_nor_in_vain(clock):
    limits = Limits([Limit(requests_per_minute=1, concurrent=2, queue=10, wait=5)], clock)
    await limits.admit(of())
    assert (await refused(limits, of())).code == "rate_limit_exceeded"
    assert clock() == 0  # it would have been a minute
    limits = Limits([Limit(concurrent=1, queue=10, wait=5)], clock)
    await limits.admit(of())
    assert (await refused(limits, of())).code == "concurrency_limit_exceeded"
    assert clock() == 5
    assert limits.waiting == 0


@virtually
async def test_no_more_wait_than_may(clock):
    limits = Limits([Limit(concurrent=1, queue=2, wait=5)], clock)
    await limits.admit(of())
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(refused(limits, of())) for _ in range(2)]
        await turns()
        assert (await refused(limits, of())).code == "concurrency_limit_exceeded"
        assert clock() == 0
    assert all(task.done() for task in waiting)


@virtually
async def test_one_limit_without_a_queue_refuses_where_others_would_let_wait(clock):
    limits = Limits([Limit(concurrent=1, queue=5, wait=50), Limit("all", concurrent=1)], clock)
    await limits.admit(of())
    await refused(limits, of())
    assert clock() == 0


@virtually
async def test_whoever_leaves_while_waiting_or_just_as_it_is_served_leaves_nothing(clock):
    chance = random.Random(3)
    limits = Limits(
        [
            Limit(concurrent=2, requests_per_minute=500, queue=100, wait=20),
            Limit("all", concurrent=3, queue=100, wait=20),
        ],
        clock,
    )
    ended = 0

    async def one(name):
        nonlocal ended
        try:
            admission = await limits.admit(of(name, tokens=chance.randrange(5)))
        except PenstockError:
            return
        try:
            await asyncio.sleep(chance.choice([0, 0, 1, 3]))
        finally:
            admission.settle(chance.choice([DONE, UNSTARTED, used(9)]))
            ended += 1

    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(600):
            tasks.append(group.create_task(one(f"k{number % 7}")))
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0, 0, 0.5]))
    assert ended > 100
    assert (limits.waiting, limits.running) == (0, 0)
    assert all(gate.waiting == 0 for gate in limits._gates.values())
    await limits.admit(of("k0"))


async def test_gates_where_nothing_goes_on_are_forgotten(clock, monkeypatch):
    monkeypatch.setattr("penstock.policies.limits.MAX_GATES", 10)
    limits = Limits([Limit("address", requests_per_minute=5, concurrent=5)], clock)
    busy = await limits.admit(of(address="10.9.9.9"))
    for number in range(50):
        clock.now += 100
        (await limits.admit(of(address=f"10.0.0.{number}"))).settle(DONE)
    assert len(limits._gates) <= 11
    busy.settle(DONE)
    assert limits.running == 0


@virtually
async def test_what_was_decided_tells_how_full_it_is_and_how_long_that_took(clock):
    limits = Limits([Limit("all", concurrent=1, requests_per_minute=60, queue=10, wait=600)], clock)
    held = await limits.admit(of("a"))
    (decided,) = held.decisions
    assert (decided.policy, decided.verdict, decided.waited_ms) == ("limits", "passed", 0)
    assert decided.detail == "1 of 60 requests a minute, 1 of 1 streams at once for everybody"
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(limits.admit(of("b")))
        await asyncio.sleep(2)
        held.settle(DONE)
    (decided,) = waiting.result().decisions
    assert (decided.verdict, decided.waited_ms) == ("waited", 2000)
    waiting.result().settle(DONE)


# --- other rules while calls go on ---------------------------------------------------------------------


async def test_a_rule_with_another_limit_keeps_what_it_has_counted(clock):
    limits = Limits([Limit(requests_per_minute=3), Limit("all", concurrent=5)], clock)
    held = [await limits.admit(of()) for _ in range(2)]
    limits.use([Limit("all", concurrent=2), Limit(requests_per_minute=9, tokens_per_day=10)])
    assert (await refused(limits, of())).code == "concurrency_limit_exceeded"
    for one in held:
        one.settle(DONE)
    assert limits.allowance(Principal("app")).requests.remaining == 7
    limits.use([Limit(requests_per_minute=2)])
    assert (await refused(limits, of())).code == "rate_limit_exceeded"
    assert limits.running == 0


async def test_who_waits_at_a_gate_that_is_taken_away_passes(clock):
    limits = Limits([Limit(concurrent=1, queue=5)], clock)
    held = await limits.admit(of())
    waiting = asyncio.ensure_future(limits.admit(of()))
    await turns()
    limits.use([])
    (await waiting).settle(DONE)
    held.settle(DONE)
    assert (limits.running, limits.waiting) == (0, 0)


async def test_who_waits_passes_where_the_limit_was_raised(clock):
    limits = Limits([Limit(concurrent=1, queue=5)], clock)
    await limits.admit(of())
    waiting = asyncio.ensure_future(limits.admit(of()))
    await turns()
    limits.use([Limit(concurrent=2, queue=5)])
    await waiting
    assert limits.running == 2
