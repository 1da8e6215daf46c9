"""What policies decided about a call, and where it was to go: kept with its stream, for who asks later.

Written once, when the call is let in. Stored with the stream, so it is a file format: fields are added,
never renamed. No prompt, no answer and no credential is in here; names and numbers are the
configuration's and the gateway's own.
"""

from typing import Literal, TypeAlias

import msgspec

Verdict: TypeAlias = Literal["passed", "waited", "held", "masked", "watches"]
"""A call was let in at once, or after a wait; money is held for it; something in the request was replaced;
the answer will be looked at."""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one policy decided. ``policy`` is its kind, and the name it has in the configuration;
    ``detail`` is for people."""

    policy: str
    verdict: Verdict
    detail: str = ""
    waited_ms: float = 0.0


class Admitted(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How a call was let in. ``route``: its targets, in the order in which they were to be tried, by
    ``balance``; ``passed_over`` are those that come last since their breaker was open. ``hedged``: a slow
    target gets a rival."""

    request_id: str = ""
    decisions: tuple[Decision, ...] = ()
    route: tuple[str, ...] = ()
    balance: str = "order"
    passed_over: tuple[str, ...] = ()
    hedged: bool = False
