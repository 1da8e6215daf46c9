"""What is accounted for a generation: one row for each attempt, whoever pays for it, and in which money.

Money is in nano-dollars, whole numbers, so that sums are exact: 9 billion dollars fit.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.types.calls import Call
from penstock.types.outcomes import AttemptUse, Outcome
from penstock.types.principals import OF

USD: Final = 1_000_000_000
"""Nano-dollars."""


class Payer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who pays for a stream, besides its principal; kept with it, so that a crash forgets nobody.

    ``account`` is of a token that may spend so much, ``input_tokens`` an estimate of the request.
    """

    key: str = ""
    team: str = ""
    account: str = ""
    preset: str = ""
    input_tokens: int = 0


def payer_of(call: Call) -> Payer:
    """Return who pays for ``call``."""
    principal = call.principal
    return Payer(principal.key, principal.team, principal.grant.account, call.preset, call.input_tokens)


class UsageRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt, as it is kept. ``at`` is Unix time; ``cost`` is None where nobody knows the price."""

    stream: str
    attempt: int
    at: float
    principal: str
    key: str = ""
    team: str = ""
    account: str = ""
    route: str = ""
    preset: str = ""
    model: str = ""
    target: str = ""
    provider: str = ""
    provider_model: str = ""
    status: str = ""
    code: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost: int | None = None
    total_ms: float = 0.0
    first_output_ms: float = 0.0


class Bill(msgspec.Struct, frozen=True):
    """What is known of a generation besides how it ended."""

    principal: str
    route: str
    model: str
    payer: Payer

    @property
    def owner(self) -> str:
        """The principal that vouches for this one, or itself."""
        return self.principal.partition(OF)[0]

    def rows(self, outcome: Outcome, costs: Sequence[int | None]) -> list[UsageRow]:
        """Return the rows of ``outcome``, one at least; ``costs`` are of its attempts."""
        payer = self.payer
        attempts: Sequence[AttemptUse | None] = outcome.attempts or (None,)
        rows = []
        for number, attempt in enumerate(attempts, 1 if outcome.attempts else 0):
            row = UsageRow(
                outcome.stream,
                number,
                outcome.started_at,
                self.principal,
                key=payer.key,
                team=payer.team,
                account=payer.account,
                route=self.route,
                preset=payer.preset,
                model=self.model,
                status=outcome.status,
                code=outcome.code,
                total_ms=outcome.total_ms,
                first_output_ms=outcome.first_output_ms,
            )
            if attempt is not None:
                used = attempt.usage
                row = msgspec.structs.replace(
                    row,
                    target=attempt.target,
                    provider=attempt.provider,
                    provider_model=attempt.model,
                    code=attempt.code or outcome.code,
                    input_tokens=used.input_tokens,
                    output_tokens=used.output_tokens,
                    cached_tokens=used.cached_tokens,
                    cache_write_tokens=used.cache_write_tokens,
                    reasoning_tokens=used.reasoning_tokens,
                    estimated=used.estimated,
                    cost=costs[number - 1],
                )
            rows.append(row)
        return rows


By: TypeAlias = Literal[
    "total", "day", "key", "principal", "team", "model", "provider", "target", "route", "preset", "status"
]
"""What sums are taken over."""


class Question(msgspec.Struct, frozen=True):
    """Which rows, and how they are put together; times are Unix seconds, empty names mean all."""

    by: By = "total"
    since: float = 0.0
    until: float | None = None
    principal: str = ""
    team: str = ""
    model: str = ""


class Sum(msgspec.Struct, frozen=True):
    """The sum over one group. ``cost`` is in nano-dollars; ``unpriced`` counts attempts without a price."""

    name: str
    generations: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    estimated: int
    cost: int
    unpriced: int

    def body(self) -> dict[str, object]:
        """Return the sum as JSON has it."""
        body = msgspec.structs.asdict(self)
        return {
            **{name: value for name, value in body.items() if name != "cost"},
            "cost_usd": self.cost / USD,
        }


class Purse(msgspec.Struct, frozen=True):
    """A budget of somebody's in the current period, as it stands. Nano-dollars, Unix time."""

    name: str
    limit: int
    spent: int
    held: int
    resets_at: float | None
