"""What calls use is written down, and paid from budgets: one settlement in every ending.

A call is refused when a purse that would pay for it is empty; a purse that runs empty ends the answer.
Rows go to a `Recorder`, which is quick and writes later. A stream that a crash left open is settled by
whoever closes it, from what its log has (`settle_orphan`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.policies.budget import BudgetFilter, Budgets, Hold, exceeded, first_empty
from penstock.policies.policy import Admission, EventFilter
from penstock.policies.prices import Prices, Rates
from penstock.types.calls import Call
from penstock.types.decisions import Decision
from penstock.types.outcomes import Outcome
from penstock.types.usage import USD, Bill, UsageRow, payer_of


class Recorder(Protocol):
    """Where rows go."""

    def record_nowait(self, rows: Sequence[UsageRow]) -> None:
        """Keep ``rows``, so that a killed process does not lose them; never raises."""
        ...


def bill_of(call: Call) -> Bill:
    """Return what is known of a generation before it begins."""
    return Bill(call.principal.id, call.route, call.request.model, payer_of(call))


class Accounting:
    """A `Policy`; see the module's head."""

    def __init__(
        self,
        prices: Prices,
        budgets: Budgets,
        recorder: Recorder,
        target_of: Callable[[str], tuple[str, str] | None],
    ) -> None:
        """``target_of``: provider and model that a model's calls go to first, for what they may cost.

        ``prices`` may be replaced: calls are settled by those that they were admitted with.
        """
        self.prices = prices
        self.budgets = budgets
        self._recorder = recorder
        self._target_of = target_of
        self._holds: dict[int, tuple[Hold, Rates, float]] = {}

    async def admit(self, call: Call) -> Admission:
        """Raises `ClientError` 402 `budget_exceeded`."""
        bill, grant, prices = bill_of(call), call.principal.grant, self.prices
        accounts = self.budgets.of(bill, grant.spend, grant.ends_at)
        if not accounts:
            return Admission(call, lambda outcome: self._note(bill, prices, outcome))
        if (empty := first_empty(accounts)) is not None:
            raise exceeded(empty)
        target = self._target_of(call.request.model)
        rates = prices.rates(*target) if target is not None else None
        input_cost = rates.input * call.input_tokens if rates is not None else 0.0
        hold = Hold(accounts, round(input_cost))
        if rates is not None:
            self._holds[id(call)] = (hold, rates, input_cost)

        def settle(outcome: Outcome) -> None:
            self._holds.pop(id(call), None)
            self._pay(bill, prices, outcome, hold)

        left = "; ".join(
            f"${max(0, one.limit - one.spent - one.held) / USD:,.4f} left of {one.name}" for one in accounts
        )
        held = f"${round(input_cost) / USD:,.6f} held for the request; " if rates is not None else ""
        return Admission(call, settle, (Decision("budget", "held", held + left),))

    def filter(self, call: Call) -> EventFilter | None:
        """Return what ends the answer when there is no more money, if it costs any."""
        held = self._holds.get(id(call))
        if held is None:
            return None
        hold, rates, input_cost = held
        return BudgetFilter(hold, input_cost, rates.output)

    def settle_orphan(self, bill: Bill, outcome: Outcome) -> None:
        """Settle a stream that a crash left open: it was in no purse of this process."""
        hold = Hold(self.budgets.of(bill, None, None), 0)
        cost = self._pay(bill, self.prices, outcome, hold)
        if bill.payer.account:
            self.budgets.charge_token(bill.payer.account, cost)

    def _note(self, bill: Bill, prices: Prices, outcome: Outcome) -> None:
        self._pay(bill, prices, outcome, None)

    def _pay(self, bill: Bill, prices: Prices, outcome: Outcome, hold: Hold | None) -> int:
        """Write down and pay; return what it cost."""
        costs: list[int | None] = []
        if outcome.counts:
            costs = [prices.cost(one.provider, one.model, one.usage) for one in outcome.attempts]
        cost = sum(each or 0 for each in costs)
        if hold is not None:
            hold.settle(cost)
        if outcome.counts:
            self._recorder.record_nowait(bill.rows(outcome, costs))
        return cost
