"""What a policy is: it admits calls, settles them, and may filter the events of their answers.

    admit(call)   may wait, change the call, or refuse it with a `PenstockError`. What it takes for the
                  call (a slot, a reservation) it gives back in the `settle` that it returns.
    settle        is called exactly once, with the `Outcome`, whatever ended the call. It does not wait:
                  a slot is free in the very step in which its stream ended, and no cancellation can
                  come between.
    filter(call)  gives what the answer's events pass through, or None.

Policies are admitted in order and settled in reverse. They see calls, outcomes and events; no HTTP, no
store, no provider.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from penstock.types.calls import Call
from penstock.types.decisions import Decision
from penstock.types.errors import PenstockError
from penstock.types.events import AnyEvent
from penstock.types.outcomes import Outcome


def nothing(outcome: Outcome) -> None:
    """Settle a call for which nothing was taken."""


class Admission(NamedTuple):
    """A call that may start: as the policy wants it, what ends the policy's interest in it, and what it
    decided, for whoever asks later; nothing where it had nothing to decide."""

    call: Call
    settle: Callable[[Outcome], None] = nothing
    decisions: tuple[Decision, ...] = ()


class FilterStop(Exception):
    """A filter ends the answer: ``events`` are still shown, then it is over.

    With ``error`` the stream ends as failed with that; without, as completed, and then the last of
    ``events`` should be a `Finished` that says why.
    """

    def __init__(self, events: Sequence[AnyEvent] = (), error: PenstockError | None = None) -> None:
        """See the class."""
        super().__init__(error.code if error else "finished")
        self.events = events
        self.error = error


class EventFilter(Protocol):
    """A sans-I/O transformer of one answer's events, inside the step: it must be quick and cannot wait."""

    def feed(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """Return what may be shown by now; may hold back a bounded tail. Raises `FilterStop`."""
        ...

    def flush(self) -> Sequence[AnyEvent]:
        """Return what is held back. More may be fed afterwards (another target goes on with the answer).
        Raises `FilterStop`."""
        ...


class Policy(Protocol):
    """See the module's head."""

    async def admit(self, call: Call) -> Admission:
        """Let ``call`` in. Whoever is cancelled in here leaves nothing behind. Raises `PenstockError`."""
        ...

    def filter(self, call: Call) -> EventFilter | None:
        """Return what the answer to ``call`` passes through. ``call`` is as the policies left it."""
        ...
