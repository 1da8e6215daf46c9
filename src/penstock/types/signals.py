"""What happens in the core, told to those who watch: metrics, traces, the dashboard, alerts.

An `Observer` is one function. The core calls it in the loop's thread, in the moment that something
happens, and a few times for a call, an attempt or a reader: never for a token. What there is too much of
to be told (the gaps between pieces, the times of commits) is counted in `penstock.types.buckets`.

The order for one generation, whatever becomes of it:

    CallRefused                                        or
    CallAccepted ─► (AttemptBegan ─► AttemptEnded)+ ─► StreamEnded
                             └► FirstOutput, once, in the attempt that leads

Attempts of one generation overlap when a slow target gets a rival. A call that was answered by a stream
that there was already has only `CallAccepted(existing=True)`. A stream that a crash left open and that is
only closed after the start has only `StreamEnded`; one that is gone on with begins again, with
`CallAccepted(taken_up=True)`. `ReaderJoined` and `ReaderLeft` come in pairs.

Rules. An observer is quick, does not wait, and raises nothing (one that does is logged and goes on being
called). It is given no time: it has a clock. No prompt, no answer, no credential is in a signal, so any of
them can be logged or shown to an administrator. ``model`` and ``preset`` of a `Subject`, and codes, come
from outside: whoever keeps something by them must bound that. Targets, providers and routes are the
configuration's. New kinds may come: an observer leaves alone what it does not know.
"""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.types.calls import Call
from penstock.types.events import Fault, Timing, UsageReported
from penstock.types.outcomes import Outcome

Reason: TypeAlias = Literal["first", "retry", "fallback", "continuation", "hedge"]
"""Why an attempt is made: the first; again, or elsewhere, while nothing was shown; going on with what was
shown; beside one that is slow."""


CHAT: Final = "chat"
"""The operation that a generation is, whatever its dialect."""


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which generation, and whose; made once and in all its signals.

    ``stream`` is empty for a call that was refused. ``key`` is the public part of an API key. ``model``
    is the one that was asked for. ``trace`` is the W3C `traceparent` that came with the request.
    ``operation`` is what was asked for, in OpenTelemetry's words where it has one: anything but a chat is
    passed on, in one attempt and without a stream, and ``stream`` is an id for itself.
    """

    stream: str
    principal: str
    route: str
    model: str
    dialect: str = ""
    key: str = ""
    team: str = ""
    preset: str = ""
    request_id: str = ""
    trace: str = ""
    operation: str = CHAT

    @property
    def passed_on(self) -> bool:
        """Whether this is no generation, and nothing of it is stored."""
        return self.operation != CHAT


class Signal(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="signal"):
    """Something that happened."""


class CallRefused(Signal, frozen=True, tag="call_refused"):
    """A call was not let in: by a policy, a full or leaving gateway, an unknown model, or the store."""

    subject: Subject
    code: str
    fault: Fault
    status: int


class CallAccepted(Signal, frozen=True, tag="call_accepted"):
    """A call has its stream. ``queued_ms``: how long policies let it wait.

    ``existing``: the stream was there, for an equal call; ``taken_up``: from before a restart.
    """

    subject: Subject
    queued_ms: float = 0.0
    existing: bool = False
    taken_up: bool = False


class AttemptBegan(Signal, frozen=True, tag="attempt_began"):
    """``number`` counts the attempts of this run from 1; ``model`` is what the provider is asked for."""

    subject: Subject
    number: int
    reason: Reason
    target: str
    provider: str
    model: str


class FirstOutput(Signal, frozen=True, tag="first_output"):
    """The answer begins: the attempt ``number`` leads from here on. ``timing`` is as of now."""

    subject: Subject
    number: int
    target: str
    timing: Timing


class AttemptEnded(Signal, frozen=True, tag="attempt_ended"):
    """An attempt is over. ``code``: why it did not bring the answer to its end; empty when it did, and
    ``superseded`` when another was quicker. ``led``: its output was shown.

    ``connect_ms`` until the request was sent, ``wait_ms`` from there to its first output, 0 where it came
    to none. ``response_model``, ``response_id`` and ``finish_reasons`` are the provider's own words.
    """

    subject: Subject
    number: int
    reason: Reason
    target: str
    provider: str
    model: str
    code: str = ""
    led: bool = False
    connect_ms: float = 0.0
    wait_ms: float = 0.0
    total_ms: float = 0.0
    usage: UsageReported | None = None
    response_model: str = ""
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()


class StreamEnded(Signal, frozen=True, tag="stream_ended"):
    """A run is over; its end may still have to be stored. ``outcome`` says how, and what each attempt used.

    ``target`` is the last that was asked, ``usage`` the last report of the one that led, ``costs``
    nano-dollars for each attempt of the outcome, None where nobody knows. ``timing`` is None for a stream
    whose run ended with a process before this one.
    """

    subject: Subject
    outcome: Outcome
    target: str = ""
    fault: Fault | None = None
    timing: Timing | None = None
    usage: UsageReported | None = None
    costs: tuple[int | None, ...] = ()


class ReaderJoined(Signal, frozen=True, tag="reader_joined"):
    """Somebody reads ``stream``; ``reader`` tells the readers of this process apart."""

    stream: str
    reader: int
    principal: str


class ReaderLeft(Signal, frozen=True, tag="reader_left"):
    """A reader has what it wanted, or went away."""

    stream: str
    reader: int
    principal: str


class ContentMatched(Signal, frozen=True, tag="content_matched"):
    """A content filter found something ``count`` times; ``where`` is ``input`` or ``output``."""

    filter: str
    rule: str
    action: str
    where: str
    count: int
    request_id: str


class BreakerChanged(Signal, frozen=True, tag="breaker_changed"):
    """A target's breaker opened, or closed; an open one lets a probe through once its time is over."""

    target: str
    state: Literal["open", "closed"]


class NamesChanged(Signal, frozen=True, tag="names_changed"):
    """A reload took names away: ``targets`` and ``models`` (as configured, patterns too) are those that there
    still are, in the configuration or in a run that began before it changed."""

    targets: frozenset[str]
    models: frozenset[str]


AnySignal: TypeAlias = (
    CallRefused
    | CallAccepted
    | AttemptBegan
    | FirstOutput
    | AttemptEnded
    | StreamEnded
    | ReaderJoined
    | ReaderLeft
    | ContentMatched
    | BreakerChanged
    | NamesChanged
)

Observer: TypeAlias = Callable[[AnySignal], None]
"""See the module's head."""


def subject_of(call: Call, stream: str = "") -> Subject:
    """Return what signals say of ``call``."""
    principal, request = call.principal, call.request
    return Subject(
        stream,
        principal.id,
        call.route,
        request.model,
        request.dialect,
        principal.key,
        principal.team,
        call.preset,
        call.request_id,
        call.trace,
    )
