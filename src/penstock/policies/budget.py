"""Budgets: what a key, a team or everybody may spend in a day, a week, a month or at all.

An `Account` is one purse in one period: what was spent, as settled, and what is held for calls that go
on. A call is refused when nothing is left; while its answer grows, what is held for it grows too, and
the answer ends when the purse is empty. Every hold is given back at settlement, so what is left is exact
however calls end. Pure: times are passed in.
"""

import calendar
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.policies.policy import FilterStop
from penstock.types.errors import ClientError
from penstock.types.estimates import BYTES_PER_TOKEN
from penstock.types.events import AnyEvent, TextDelta
from penstock.types.usage import USD, Bill, Payer, Purse

By: TypeAlias = Literal["key", "team", "all"]
Period: TypeAlias = Literal["day", "week", "month", "ever"]

HOLD_CHARACTERS: Final = 256
"""Of an answer, after which what is held for it is looked at again."""


class Budget(msgspec.Struct, frozen=True):
    """One rule: ``limit`` nano-dollars in each ``period`` for each key (team) whose name fits ``match``.

    Keys are meant by their principal's name; what a page or user of theirs spends counts as theirs.
    """

    by: By
    limit: int
    period: Period = "month"
    match: str = "*"

    def subject(self, bill: Bill) -> str | None:
        """Return whose purse of this rule pays for ``bill``; None for nobody's."""
        name = {"key": bill.owner, "team": bill.payer.team, "all": "everybody"}[self.by]
        return name if name and (self.by == "all" or fnmatchcase(name, self.match)) else None


def period_start(period: Period, now: float) -> float:
    """Return when the period around ``now`` began, in UTC; weeks begin on Monday."""
    if period == "ever":
        return 0.0
    moment = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        moment -= timedelta(days=moment.weekday())
    elif period == "month":
        moment = moment.replace(day=1)
    return moment.timestamp()


def period_end(period: Period, now: float) -> float | None:
    """Return when it ends; None for never."""
    if period == "ever":
        return None
    start = datetime.fromtimestamp(period_start(period, now), UTC)
    days = {"day": 1, "week": 7, "month": calendar.monthrange(start.year, start.month)[1]}[period]
    return (start + timedelta(days=days)).timestamp()


class Account:
    """One purse in one period. Nano-dollars."""

    __slots__ = ("held", "limit", "name", "resets_at", "spent", "start")

    def __init__(self, name: str, limit: int, start: float, resets_at: float | None, spent: int = 0) -> None:
        """``name`` is for people."""
        self.name = name
        self.limit = limit
        self.start = start
        self.resets_at = resets_at
        self.spent = spent
        self.held = 0

    def __repr__(self) -> str:
        """Say what is left."""
        return f"<Account {self.name} {self.spent}+{self.held} of {self.limit}>"

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return self.spent + self.held >= self.limit


class Hold:
    """What is held in several purses for one call."""

    __slots__ = ("_accounts", "_amount")

    def __init__(self, accounts: Sequence[Account], amount: int) -> None:
        """Take ``amount`` from each."""
        self._accounts = accounts
        self._amount = 0
        self.raise_to(amount)

    def raise_to(self, amount: int) -> Account | None:
        """Hold ``amount`` in all; return a purse that has no more than that, if there is one."""
        more = amount - self._amount
        if more > 0:
            self._amount = amount
            for account in self._accounts:
                account.held += more
        return next((one for one in self._accounts if one.spent + one.held > one.limit), None)

    def settle(self, cost: int) -> None:
        """Give back what is held, and pay."""
        for account in self._accounts:
            account.held -= self._amount
            account.spent += cost
        self._amount = 0
        self._accounts = ()


class Budgets:
    """All purses there are at the moment."""

    def __init__(self, rules: Sequence[Budget], wall: Callable[[], float]) -> None:
        """``wall`` is Unix time."""
        self.rules = tuple(rules)
        self._wall = wall
        self._accounts: dict[tuple[int, str], Account] = {}
        self._tokens: dict[str, Account] = {}

    def __repr__(self) -> str:
        """Count them."""
        return f"<Budgets {len(self.rules)} rules, {len(self._accounts)} purses>"

    def purses(self) -> list[Purse]:
        """Return the purses of the current periods, the fullest last."""
        now = self._wall()
        found = [
            Purse(one.name, one.limit, one.spent, one.held, one.resets_at)
            for (number, _), one in self._accounts.items()
            if one.start == period_start(self.rules[number].period, now)
        ]
        return sorted(found, key=lambda purse: purse.limit - purse.spent)

    def held(self) -> int:
        """Return what is held in all purses for calls that go on."""
        return sum(one.held for one in (*self._accounts.values(), *self._tokens.values()))

    def use(self, rules: Sequence[Budget], spent: Mapping[float, Iterable[tuple[str, str, int]]]) -> None:
        """Pay by ``rules`` from now on. A rule that is the same but for its limit keeps its purses; for a new
        one ``spent`` is as for `restore`, since `missing`."""
        before = dict(enumerate(self.rules))
        accounts, new = {}, []
        for number, rule in enumerate(rules):
            same = next((n for n, one in before.items() if _alike(one, rule)), None)
            if same is None:
                new.append(number)
                continue
            del before[same]
            for (of, subject), account in self._accounts.items():
                if of == same:
                    account.limit, account.name = rule.limit, _name(rule, subject)
                    accounts[number, subject] = account
        self.rules, self._accounts = tuple(rules), accounts
        self._restore(new, spent)

    def missing(self, rules: Sequence[Budget]) -> list[float]:
        """Return since when it must be known what was spent, for those of ``rules`` that are new."""
        known = list(self.rules)
        new = []
        for rule in rules:
            same = next((one for one in known if _alike(one, rule)), None)
            if same is None:
                new.append(period_start(rule.period, self._wall()))
            else:
                known.remove(same)
        return new

    def starts(self) -> list[float]:
        """Return when the current period of each rule began."""
        return [period_start(rule.period, self._wall()) for rule in self.rules]

    def restore(
        self, spent: Mapping[float, Iterable[tuple[str, str, int]]], tokens: Mapping[str, int]
    ) -> None:
        """Take over what was spent before this process began: principal, team and nano-dollars, since the
        `starts`; and by tokens, whose limits are known when they come."""
        self._restore(range(len(self.rules)), spent)
        for account, cost in tokens.items():
            self.charge_token(account, cost)

    def _restore(self, numbers: Iterable[int], spent: Mapping[float, Iterable[tuple[str, str, int]]]) -> None:
        now = self._wall()
        for number in numbers:
            rule = self.rules[number]
            for owner, team, cost in spent.get(period_start(rule.period, now), ()):
                subject = rule.subject(Bill(owner, "", "", Payer(team=team)))
                if subject is not None:
                    self._account(number, subject).spent += cost

    def charge_token(self, account: str, cost: int) -> None:
        """A token spent ``cost`` in a life before this one."""
        self._tokens.setdefault(account, Account("this token", 0, 0.0, None)).spent += cost

    def of(self, bill: Bill, spend: int | None, ends_at: float | None) -> list[Account]:
        """Return the purses that pay for ``bill``. ``spend``: the limit of its token, which ends then."""
        found = [
            self._account(number, subject)
            for number, rule in enumerate(self.rules)
            if (subject := rule.subject(bill)) is not None
        ]
        if spend is not None:
            self._forget_tokens()
            account = self._tokens.get(bill.payer.account)
            if account is None:
                account = self._tokens[bill.payer.account] = Account("this token", spend, 0.0, ends_at)
            account.limit, account.resets_at = spend, ends_at
            found.append(account)
        return found

    def _account(self, number: int, subject: str) -> Account:
        rule, now = self.rules[number], self._wall()
        start = period_start(rule.period, now)
        account = self._accounts.get((number, subject))
        if account is None or account.start != start:
            account = Account(_name(rule, subject), rule.limit, start, period_end(rule.period, now))
            self._accounts[number, subject] = account
        return account

    def _forget_tokens(self) -> None:
        """Tokens end within a day: those that have are forgotten, once there are many."""
        if len(self._tokens) > 10_000:
            now = self._wall()
            gone = [n for n, a in self._tokens.items() if a.resets_at is not None and a.resets_at < now]
            for name in gone:
                if not self._tokens[name].held:
                    del self._tokens[name]


def _alike(one: Budget, other: Budget) -> bool:
    """Say whether two rules have the same purses, whatever is in them."""
    return (one.by, one.match, one.period) == (other.by, other.match, other.period)


def _name(rule: Budget, subject: str) -> str:
    every = {"ever": "in all", "day": "a day"}.get(rule.period, f"a {rule.period}")
    whose = "everybody" if rule.by == "all" else f"the {rule.by} '{subject}'"
    return f"{whose} (${_dollars(rule.limit)} {every})"


def _dollars(limit: float) -> str:
    """Write it with as many digits as it has; cents at least."""
    whole, _, digits = f"{limit / USD:,.6f}".partition(".")
    return f"{whole}.{digits.rstrip('0'):0<2}"


def exceeded(account: Account) -> ClientError:
    """Return the refusal of a call for which there is no money."""
    when = ""
    if account.resets_at is not None and account.start:
        moment = datetime.fromtimestamp(account.resets_at, UTC)
        when = f" There is more from {moment:%Y-%m-%d %H:%M} UTC on."
    # Not 429: SDKs would try again at once, and again.
    message = f"The budget of {account.name} is used up.{when}"
    return ClientError(message, code="budget_exceeded", status=402)


def first_empty(accounts: Iterable[Account]) -> Account | None:
    """Return a purse with nothing left."""
    return next((account for account in accounts if account.empty), None)


class BudgetFilter:
    """An `EventFilter` that changes nothing: it holds more money while an answer grows, and ends it when
    there is no more."""

    __slots__ = ("_characters", "_hold", "_input", "_next", "_rate")

    def __init__(self, hold: Hold, input_cost: float, output_rate: float) -> None:
        """``output_rate``: nano-dollars a token."""
        self._hold = hold
        self._input = input_cost
        self._rate = output_rate / BYTES_PER_TOKEN
        self._characters = 0
        self._next = HOLD_CHARACTERS

    def feed(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """See `EventFilter`."""
        for event in events:
            delta = event.delta if type(event) is TextDelta else getattr(event, "delta", "")
            self._characters += len(delta)
        if self._characters >= self._next:
            self._next = self._characters + HOLD_CHARACTERS
            empty = self._hold.raise_to(round(self._input + self._characters * self._rate))
            if empty is not None:
                raise FilterStop(events, exceeded(empty))
        return events

    def flush(self) -> Sequence[AnyEvent]:
        """Nothing is held back."""
        return ()
