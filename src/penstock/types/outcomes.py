"""How a call ended, for whoever has to account for it: once for every call that was admitted.

An `Outcome` exists in every ending: completed, failed, cancelled, the client gone, filtered, interrupted,
expired, lost with the store, or never started. Its ``attempts`` say what each provider will want money
for; counts that no provider reported are marked as estimated.
"""

from typing import Literal, TypeAlias

import msgspec

from penstock.types.events import Status, UsageReported

Ending: TypeAlias = Status | Literal["lost", "unstarted", "handed_over", "aside"]
"""A stream's final state; ``lost``: the store took no more of it; ``unstarted``: there was no run;
``handed_over``: another process goes on with it, and settles it; ``aside``: it needed no run, and was
answered all the same."""


class AttemptUse(msgspec.Struct, frozen=True, gc=False):
    """What one attempt at a target used. ``code``: how it failed, empty when it did not."""

    target: str
    provider: str
    model: str
    usage: UsageReported
    code: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """``started_at`` is Unix time; ``milliseconds`` since then, 0 for what there was none of."""

    status: Ending
    stream: str = ""
    code: str = ""
    attempts: tuple[AttemptUse, ...] = ()
    started_at: float = 0.0
    total_ms: float = 0.0
    first_output_ms: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether this is to be written down: something was, or may have been, asked of a provider."""
        return self.status not in ("unstarted", "handed_over", "aside")

    @property
    def input_tokens(self) -> int:
        """Over all attempts."""
        return sum(attempt.usage.input_tokens for attempt in self.attempts)

    @property
    def output_tokens(self) -> int:
        """Over all attempts."""
        return sum(attempt.usage.output_tokens for attempt in self.attempts)


UNSTARTED = Outcome("unstarted")
"""Of a call that was admitted and found no need, or no way, to start."""

ASIDE = Outcome("aside")
"""Of a call that was a request as any other, and used nothing that anybody wants money for."""
