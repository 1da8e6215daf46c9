"""Everything that is known of one generation, in one value: who, by which rules, where, why, how long.

Put together from what is stored with the stream and, while it goes on, from its run; so a closed stream
says after a restart what it said before. The words of the prompt and of the answer are not in it. Times
are in milliseconds since the call was accepted, but for ``at``, which is Unix time in seconds.
"""

from typing import Literal, TypeAlias

import msgspec

from penstock.types.decisions import Decision
from penstock.types.events import Fault, Status, Timing, UsageReported

Doing: TypeAlias = Literal["waiting", "streaming", "pausing", "ending"]
"""What a run does: waits for a provider's first output; takes the answer in; pauses before another attempt;
its end is being stored."""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked for what, and when. ``input_tokens`` is the gateway's estimate of the request."""

    at: float
    principal: str
    route: str
    dialect: str
    model: str
    key: str = ""
    team: str = ""
    preset: str = ""
    request_id: str = ""
    input_tokens: int = 0
    idempotent: bool = False
    at_rest: str = ""
    metadata: dict[str, str] | None = None


class Way(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the call was to go: targets in the order in which they were to be tried, and who came last for
    an open breaker."""

    targets: tuple[str, ...] = ()
    balance: str = "order"
    passed_over: tuple[str, ...] = ()
    hedged: bool = False


class AttemptSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt. ``code``: how it failed. ``open``: it goes on. ``timed``: its times are known, which they
    are not for those that a process before this one made."""

    number: int
    target: str
    reason: str = ""
    code: str = ""
    open: bool = False
    timed: bool = False
    began_ms: float = 0.0
    ended_ms: float = 0.0
    connect_ms: float = 0.0
    wait_ms: float = 0.0
    usage: UsageReported | None = None
    cost_usd: float | None = None


class SeamSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where another attempt went on: the seam is the entry number ``entry``."""

    entry: int
    mode: str
    target: str = ""
    code: str = ""


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """How it ended, and what the client was told: ``http_status`` is of the response that it would have been,
    and was where nothing had been shown."""

    status: Status
    shown: bool
    code: str = ""
    message: str = ""
    fault: Fault | None = None
    retryable: bool = False
    http_status: int = 0
    finish_reason: str = ""
    finish_detail: str = ""
    at: float | None = None


class ReaderSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody who reads it now: has ``entries`` of them, and lags by ``lag``. ``format`` is how it wants
    them. Whoever came with a link has no name of its own."""

    principal: str
    format: str
    cursor: str
    entries: int
    lag: int = 0
    for_ms: float = 0.0


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """See the module's head. ``silent_ms``: since its last output, while it goes on."""

    id: str
    status: Status | Literal["open"]
    cursor: str
    entries: int
    asked: Asked
    policies: tuple[Decision, ...] = ()
    way: Way = Way()
    attempts: tuple[AttemptSeen, ...] = ()
    seams: tuple[SeamSeen, ...] = ()
    timing: Timing | None = None
    usage: UsageReported | None = None
    cost_usd: float | None = None
    answered_as: str = ""
    dropped: tuple[str, ...] = ()
    doing: Doing | None = None
    silent_ms: float = 0.0
    end: Ending | None = None
    readers: tuple[ReaderSeen, ...] = ()
