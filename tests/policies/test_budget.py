"""Budgets: whose purse pays, in which period, and what an answer that grows may hold."""

from datetime import UTC, datetime

import pytest

from penstock.policies.budget import (
    HOLD_CHARACTERS,
    Budget,
    BudgetFilter,
    Budgets,
    Hold,
    exceeded,
    first_empty,
    period_end,
    period_start,
)
from penstock.policies.policy import FilterStop
from penstock.types.events import TextDelta
from penstock.types.usage import USD, Bill, Payer

THURSDAY = datetime(2026, 11, 26, 15, 30, tzinfo=UTC).timestamp()


class Wall:
    now = THURSDAY

    def __call__(self):
        return self.now


@pytest.fixture
def wall():
    return Wall()


def bill(principal="app", team="", account=""):
    return Bill(principal, "r", "m", Payer(team=team, account=account))


def day(text):
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("day", "2026-11-26", "2026-11-27"),
        ("week", "2026-11-23", "2026-11-30"),
        ("month", "2026-11-01", "2026-12-01"),
    ],
)
def test_periods_begin_and_end_in_utc(period, start, end):
    assert (period_start(period, THURSDAY), period_end(period, THURSDAY)) == (day(start), day(end))
    assert period_start(period, day(end)) == day(end)
    assert period_end(period, day(end) - 1) == day(end)


def test_what_a_page_spends_its_back_end_pays(wall):
    budgets = Budgets([Budget("key", 100), Budget("team", 50, match="res*")], wall)
    accounts = budgets.of(bill("app/alice", team="research"), None, None)
    assert budgets.of(bill("app", team="research"), None, None) == accounts
    Hold(accounts, 10).settle(30)
    assert [account.spent for account in accounts] == [30, 30]
    assert len(budgets.of(bill("app", team="sales"), None, None)) == 1
    assert len(budgets.of(bill("app"), None, None)) == 1


def test_everybody_shares_one_purse(wall):
    budgets = Budgets([Budget("all", 100)], wall)
    assert budgets.of(bill("a"), None, None) == budgets.of(bill("b"), None, None)


def test_a_new_period_begins_with_a_full_purse_and_old_holds_go_where_they_came_from(wall):
    budgets = Budgets([Budget("key", 100, "day")], wall)
    (yesterday,) = budgets.of(bill(), None, None)
    hold = Hold([yesterday], 100)
    assert first_empty([yesterday]) is yesterday
    wall.now += 86_400
    (today,) = budgets.of(bill(), None, None)
    assert (today.spent, today.held) == (0, 0)
    hold.settle(70)
    assert (today.spent, yesterday.spent, yesterday.held) == (0, 70, 0)


def test_a_tokens_own_limit_holds_beside_its_keys(wall):
    budgets = Budgets([Budget("key", 100)], wall)
    paying = bill("app/a", account="token:1")
    accounts = budgets.of(paying, 5, wall.now + 60)
    assert [account.limit for account in accounts] == [100, 5]
    Hold(accounts, 0).settle(5)
    assert first_empty(budgets.of(paying, 5, wall.now + 60)) is accounts[1]
    assert first_empty(budgets.of(bill("app/b", account="token:2"), 5, wall.now + 60)) is None


def test_what_was_spent_before_a_start_is_still_spent(wall):
    budgets = Budgets([Budget("key", 100, "day"), Budget("team", 100, match="t")], wall)
    spent = {budgets.starts()[0]: [("app", "t", 7), ("app", "u", 1)], budgets.starts()[1]: [("app", "t", 9)]}
    budgets.restore(spent, {"token:1": 3})
    accounts = budgets.of(bill("app", team="t", account="token:1"), 10, None)
    assert [account.spent for account in accounts] == [8, 9, 3]


def test_the_refusal_says_whose_budget_and_until_when(wall):
    budgets = Budgets([Budget("key", 5 * USD, "day")], wall)
    error = exceeded(budgets.of(bill(), None, None)[0])
    assert (error.status, error.code, error.retryable) == (402, "budget_exceeded", False)
    assert error.message == (
        "The budget of the key 'app' ($5.00 a day) is used up. There is more from 2026-11-27 00:00 UTC on."
    )


def test_a_budget_of_less_than_a_cent_is_told_as_what_it_is(wall):
    budgets = Budgets([Budget("key", USD // 250)], wall)
    assert "($0.004 a month)" in exceeded(budgets.of(bill(), None, None)[0]).message


def test_an_answer_ends_when_the_purse_is_empty_and_shows_what_was_paid_for(wall):
    budgets = Budgets([Budget("key", 1_000)], wall)
    hold = Hold(budgets.of(bill(), None, None), 100)
    growing = BudgetFilter(hold, 100, output_rate=4.0)  # one nano-dollar a character
    piece = [TextDelta("x" * HOLD_CHARACTERS)]
    for _ in range(900 // HOLD_CHARACTERS):
        assert growing.feed(piece) == piece
    with pytest.raises(FilterStop) as stopped:
        growing.feed(piece)
    assert stopped.value.events == piece
    assert stopped.value.error.code == "budget_exceeded"
    assert growing.flush() == ()


def test_many_that_grow_at_once_do_not_spend_more_than_there_is(wall):
    budgets = Budgets([Budget("key", 10_000)], wall)
    growing = [BudgetFilter(Hold(budgets.of(bill(), None, None), 0), 0, 4.0) for _ in range(50)]
    stopped = 0
    for _ in range(20):
        for number, one in enumerate(growing):
            if one is not None:
                try:
                    one.feed([TextDelta("x" * HOLD_CHARACTERS)])
                except FilterStop:
                    growing[number] = None
                    stopped += 1
    assert stopped == 50
    assert budgets.held() <= 10_000 + 50 * HOLD_CHARACTERS


def test_a_budget_with_another_limit_keeps_its_purses_and_a_new_one_hears_what_was_spent(wall):
    month = day("2026-11-01")
    budgets = Budgets([Budget("key", 100), Budget("team", 50)], wall)
    (account,) = budgets.of(bill(), None, None)
    hold = Hold([account], 40)
    account.spent = 30
    rules = [Budget("all", 500), Budget("key", 60)]
    assert budgets.missing(rules) == [month]
    budgets.use(rules, {month: [("app", "", 70)]})
    everybody, mine = budgets.of(bill(), None, None)
    assert (everybody.spent, everybody.limit) == (70, 500)
    assert mine is account
    assert (mine.limit, mine.empty) == (60, True)
    hold.settle(10)
    assert (mine.spent, mine.held, mine.empty) == (40, 0, False)
    assert "$0.00 a month" in exceeded(mine).message
