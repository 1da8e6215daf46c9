"""Thousands of streams that end in every way there is: no slot, no hold and no row is lost or doubled.

PENSTOCK_SETTLEMENTS says how many (10,000 by `make torture`); a sample of that runs in the suite.
"""

import asyncio
import os
import random

import msgspec
import pytest
from structlog.testing import capture_logs

from penstock.policies.accounting import Accounting
from penstock.policies.budget import Budget, Budgets
from penstock.policies.chain import Chain
from penstock.policies.policy import Admission, FilterStop
from penstock.policies.prices import Price, Prices
from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import UsageReported
from penstock.types.principals import Grant, Principal
from penstock.types.usage import Bill, Payer
from tests.gateway.hand import BROKEN, STARTED, HandStore, House, call, turns
from tests.policies.test_chain import REFUSAL, Replacing

STREAMS = int(os.environ.get("PENSTOCK_SETTLEMENTS", "400"))
ME = Principal("app/me", key="k", team="team", grant=Grant(account="token:1", spend=10**15))
PRICES = Prices({"a/m": Price(1, 2), "b/m": Price(3, 4)}, {})


class Rows(list):
    def record_nowait(self, rows):
        self.extend(rows)


class Slots:
    """A policy with slots, behind which some calls wait, and a filter that stops some answers."""

    def __init__(self, chance):
        self.taken = self.given = 0
        self.chance = chance

    async def admit(self, call):
        if self.chance.random() < 0.05:
            raise REFUSAL
        if self.chance.random() < 0.2:
            await asyncio.sleep(0)
        self.taken += 1

        def settle(outcome):
            self.given += 1

        return Admission(call, settle)

    def filter(self, call):
        if self.chance.random() < 0.3:
            return Replacing("a", "b", stop_at="!", error=self.chance.choice([None, REFUSAL]))
        return None


def accounting(rows, budgets=None):
    return Accounting(PRICES, budgets or Budgets([], lambda: 0.0), rows, lambda model: ("a", "m"))


async def play(house, store, chance, number):
    """Begin a stream and end it in a way that chance decides."""
    wishes = {"idempotency_key": f"{chance.randrange(50)}"} if chance.random() < 0.1 else {}
    wishes |= {"on_disconnect": "cancel"} if chance.random() < 0.3 else {}
    asked = call("x" * chance.randrange(200), principal=ME, **wishes)
    begun = asyncio.ensure_future(house.start(asked))
    if chance.random() < 0.05:
        await turns(chance.randrange(4))
        begun.cancel()
    try:
        stream = (await begun).stream
    except (PenstockError, asyncio.CancelledError):
        return
    await turns()
    if chance.random() < 0.03:
        await house.cancel(stream.id, ME)
        return
    run = house._runs.get(stream.id)
    if run is None:
        return
    while run.task is not None and not run.task.done():
        source = next(
            (s for s in (*house.a.sources[-30:], *house.b.sources[-30:]) if s.talks and s.sink._owner is run),
            None,
        )
        if source is None:
            await turns()
            if run.task.done():
                return
            if all(
                s.sink is None or s.sink._owner is not run or not s.talks
                for s in (*house.a.sources, *house.b.sources)
            ):
                run._expire(1.0)
            continue
        match chance.randrange(10):
            case 0:
                source.sink.fail(
                    chance.choice(
                        [
                            BROKEN,
                            UpstreamError("No.", code="upstream_error", upstream_status=500, retryable=False),
                        ]
                    )
                )
            case 1:
                source.sink.feed(ZeroDivisionError())
            case 2:
                await house.cancel(stream.id, ME)
            case 3:
                run._expire(1.0)
            case 4:
                house.attach_reader(stream, ME)()
            case 5:
                run.interrupt("Stop.", "gateway_shutdown")
            case 6:
                source.say("!")
            case 7:
                source.sink.feed([UsageReported(input_tokens=7, output_tokens=chance.randrange(9))])
            case _:
                source.say("a" * chance.randrange(1, 40))
                if chance.random() < 0.6:
                    source.finish()
        await turns(chance.randrange(1, 3))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("continuation", ["none", "prompt"])
async def test_slots_budgets_and_rows_are_exact_however_streams_end(loop_errors, continuation):
    chance = random.Random(17)
    rows, slots = Rows(), Slots(chance)
    budgets = Budgets(
        [Budget("key", 10**15), Budget("team", 10**15, "day"), Budget("all", 10**15, "ever")], lambda: 0.0
    )
    policy = Chain([slots, accounting(rows, budgets)])
    store = HandStore()
    with capture_logs():
        async with House(store, policy=policy, target={"continuation": continuation}) as house:
            for start in range(0, STREAMS, 20):
                async with asyncio.TaskGroup() as group:
                    for number in range(start, min(start + 20, STREAMS)):
                        group.create_task(play(house, store, chance, number))
                house.a.sources.clear()
                house.b.sources.clear()
            assert house.open_streams == 0
            assert budgets.held() == 0
    assert slots.taken == slots.given > STREAMS / 2
    cost = sum(row.cost or 0 for row in rows)
    assert cost > 0
    purses = {purse.name.partition(" (")[0]: purse.spent for purse in budgets.purses()}
    assert purses == {"the key 'app'": cost, "the team 'team'": cost, "everybody": cost}
    assert len({(row.stream, row.attempt) for row in rows}) == len(rows)
    assert {row.stream for row in rows} == {info.id for info in store.infos.values() if info.status}
    assert max(row.attempt for row in rows) > 1, "none was rescued"
    statuses = {row.status for row in rows}
    assert statuses >= {"completed", "failed", "cancelled", "expired", "interrupted"}


async def test_no_money_no_call():
    rows, budgets = Rows(), Budgets([Budget("key", 5)], lambda: 0.0)
    async with House(policy=accounting(rows, budgets)) as house:
        budgets.of(Bill("app", "", "", Payer()), None, None)[0].spent = 5
        with pytest.raises(PenstockError) as refused:
            await house.start(call(principal=ME))
        assert (refused.value.code, house.open_streams, rows) == ("budget_exceeded", 0, [])


async def test_an_answer_ends_in_mid_stream_when_the_money_does():
    rows, budgets = Rows(), Budgets([Budget("key", 1_000_000)], lambda: 0.0)
    async with House(policy=accounting(rows, budgets)) as house:
        stream, source = await house.begin(principal=ME)
        for _ in range(100):
            source.say("x" * 100)
        await stream.wait_closed()
        assert (stream.closing.status, stream.closing.code) == ("failed", "budget_exceeded")
        assert source.asked[-1] == "abort"
    assert budgets.held() == 0
    (purse,) = budgets.purses()
    assert 1_000_000 <= purse.spent == rows[0].cost < 1_300_000


async def test_a_price_that_nobody_knows_is_no_obstacle_and_marked():
    rows, budgets = Rows(), Budgets([Budget("key", 1)], lambda: 0.0)
    policy = Accounting(Prices({}, {}), budgets, rows, lambda model: ("a", "m"))
    async with House(policy=policy) as house:
        stream, source = await house.begin(principal=ME)
        source.say("hello")
        source.finish()
        await stream.wait_closed()
    assert (rows[0].cost, rows[0].estimated, budgets.held()) == (None, True, 0)


async def test_what_a_crash_left_open_is_settled_from_its_log():
    store, rows = HandStore(), Rows()
    async with House(store, policy=accounting(rows)) as house:
        stream, source = await house.begin(principal=ME)
        source.sink.feed([STARTED])
        source.say("hello there")
        await turns()
    info = store.infos[stream.id]
    again = HandStore([msgspec.structs.replace(info, status=None, tail=2)])
    again.records[stream.id] = store.records[stream.id][:2]
    rows.clear()
    paid = Budgets([Budget("key", 10**12)], lambda: 0.0)
    books = accounting(rows, paid)
    async with House(again, policy=books, on_orphan=books.settle_orphan):
        pass
    (row,) = rows
    assert (row.stream, row.principal, row.key, row.team, row.status) == (
        stream.id,
        "app/me",
        "k",
        "team",
        "interrupted",
    )
    assert (row.output_tokens, row.estimated, row.code) == (3, True, "gateway_restarted")
    assert row.input_tokens > 0
    assert paid.purses()[0].spent == (row.cost or 0)


def test_stopping_is_not_an_error_by_itself():
    assert FilterStop().error is None
