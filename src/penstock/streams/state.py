"""The states of a stream and the ways between them, as a table; pure.

A stream is open until its terminal entry is committed, and that is for good: there is no way back
and no way from one end to another.
"""

from typing import Final, Literal, TypeAlias

from penstock.types.events import Status

State: TypeAlias = Literal["open"] | Status

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    "open": frozenset({"completed", "failed", "cancelled", "interrupted", "expired"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "interrupted": frozenset(),
    "expired": frozenset(),
}


class IllegalTransition(RuntimeError):
    """A stream that has ended was asked to end again or to go on: a bug of the caller."""


def advance(state: State, to: State) -> State:
    """Return ``to`` if the table allows to go there from ``state``; raises `IllegalTransition`."""
    if to not in TRANSITIONS[state]:
        raise IllegalTransition(f"{state} → {to}")
    return to
