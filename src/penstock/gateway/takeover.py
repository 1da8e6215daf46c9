"""Going on with an answer whose process is gone: what is kept for that, and what its log allows.

*Kept*, where a model's setting wants it (`on_restart: continue`), is the request as it came, in the
store, until the stream ends; not where the route forbids it to be at rest, nor for a client that said
that leaving it means to stop. *Inherited* is what the log says: the text so far, whether the model was
done, what was used. The log notes each restart as a `Seam` without a target, and that is also the bound:
an answer that ends a process is not gone on with for ever.

Pure but for `find_out`, which reads a stream.
"""

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from penstock.gateway.continuation import Shown, may_continue, shown
from penstock.gateway.meter import milliseconds
from penstock.streams.store import Journal, StreamInfo
from penstock.streams.stream import Stream
from penstock.types.calls import Call, OnDisconnect
from penstock.types.errors import GatewayError
from penstock.types.estimates import tokens_of
from penstock.types.events import AnyEvent, Closed, Finished, Seam, Started, Timing, UsageReported, has_output
from penstock.types.outcomes import AttemptUse
from penstock.types.principals import Grant, Principal
from penstock.types.requests import GenerationRequest

MAX_KEPT_BYTES: Final = 1 << 20
"""Of a request in the store; the answer to a larger one is not gone on with."""

MAX_RESTARTS: Final = 3
"""Times that one answer is taken up."""

RESTARTED: Final = "gateway_restarted"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What another process needs to go on. Stored: fields are added, never renamed."""

    request: GenerationRequest
    request_id: str = ""
    on_disconnect: OnDisconnect = "continue"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Kept).decode


class Step(enum.Enum):
    """What is done with an answer that was left open."""

    ANEW = enum.auto()  # nothing was shown: as if it came now
    GO_ON = enum.auto()  # from what was shown
    WHOLE = enum.auto()  # the model was done, only the end is missing
    END = enum.auto()  # it cannot be gone on with


class Inherited(NamedTuple):
    """What a stream's log says. ``begun``: it has its `Started`; ``finished``: choices that are done;
    ``age``: seconds since the call."""

    so_far: Shown
    begun: bool = False
    output: bool = False
    finished: int = 0
    restarts: int = 0
    uses: tuple[AttemptUse, ...] = ()
    usage: UsageReported | None = None
    age: float = 0.0


class Found(NamedTuple):
    """A stream that was left open, the call it answers, and what to do with it."""

    stream: Stream
    call: Call
    inherited: Inherited
    step: Step


def restarted() -> GatewayError:
    """Return what broke the answer."""
    return GatewayError(
        "The gateway was restarted before this answer was complete.",
        code=RESTARTED,
        status=503,
        retryable=True,
    )


def completed(inherited: Inherited) -> Closed:
    """Return the end of an answer of which nothing but that was missing."""
    uses = inherited.uses
    return Closed(
        "completed",
        attempts=len(uses),
        target=uses[-1].target if uses else "",
        usage=inherited.usage,
        timing=Timing(total_ms=milliseconds(inherited.age)),
    )


def keep(call: Call) -> str:
    """Return what is kept of ``call``; empty when it must not be, or is too large."""
    if call.at_rest in ("none", "memory") or call.on_disconnect in ("cancel", 0):
        return ""
    try:
        data = _encode(Kept(call.request, call.request_id, call.on_disconnect))
    except (TypeError, ValueError):  # a number or a text that JSON has no words for
        return ""
    return data.decode() if len(data) <= MAX_KEPT_BYTES else ""


def recall(info: StreamInfo) -> Call:
    """Return the call whose answer ``info`` is. Raises `ValueError`."""
    kept, payer = _decode(info.kept), info.payer
    return Call(
        principal=Principal(
            info.principal, key=payer.key, team=payer.team, grant=Grant(account=payer.account)
        ),
        route=info.route,
        request=kept.request,
        request_id=kept.request_id,
        body_sha256=info.body_sha256,
        idempotency_key=info.idempotency_key,
        on_disconnect=kept.on_disconnect,
        ttl=info.retention,
        join=False,
        at_rest=info.at_rest,
        preset=payer.preset,
        input_tokens=payer.input_tokens,
        metadata=info.metadata,
        stream=info.id,
    )


async def find_out(info: StreamInfo, journal: Journal, now: float) -> Found:
    """Look at a stream that was left open, and be its writer from now on; ``now`` is Unix time.

    Raises `StorageError`, `LogDamaged`, and `ValueError` for what is kept of no call.
    """
    call = recall(info)
    stream = Stream(msgspec.structs.replace(info, kept=""), journal)
    stream.attach(await journal.reopen(info, stream.committed_to))
    events: list[AnyEvent] = []
    while entries := await stream.read(len(events)):
        stream.replay(entries)
        events += [entry.event for entry in entries]
    inherited = inherit(events, max(0.0, now - info.created_at))
    return Found(stream, call, inherited, next_step(inherited, call.request))


def inherit(events: Sequence[AnyEvent], age: float = 0.0) -> Inherited:
    """Return what a log of ``events`` says."""
    uses = _Uses()
    for event in events:
        uses.hear(event)
    return Inherited(
        so_far=shown(events),
        begun=any(type(event) is Started for event in events),
        output=any(map(has_output, events)),
        finished=len({event.index for event in events if type(event) is Finished}),
        restarts=sum(type(event) is Seam and event.mode == "resumed" for event in events),
        uses=tuple(uses.found()),
        usage=uses.usage,
        age=age,
    )


def next_step(inherited: Inherited, request: GenerationRequest) -> Step:
    """Return what is to be done."""
    if inherited.finished >= request.n:
        return Step.WHOLE
    if inherited.restarts >= MAX_RESTARTS:
        return Step.END
    if not inherited.output:
        return Step.ANEW
    return Step.GO_ON if inherited.so_far.sewable and may_continue(request) else Step.END


class _Uses:
    """What attempts of lives before have used, as far as the log tells: one for each that was shown."""

    def __init__(self) -> None:
        self.usage: UsageReported | None = None
        self._done: list[AttemptUse] = []
        self._target = ""
        self._characters = 0
        self._input_tokens = 0

    def hear(self, event: AnyEvent) -> None:
        match event:
            case Started(target=target, input_tokens=tokens):
                self._target = target
                self._input_tokens = tokens
            case Seam(target=target, code=code):
                self._finish(code)
                self._target = target
            case UsageReported():
                self.usage = event
            case _:
                self._characters += len(getattr(event, "delta", ""))

    def found(self) -> Sequence[AttemptUse]:
        finished = self.usage
        self._finish(RESTARTED)
        self.usage = finished
        return self._done

    def _finish(self, why: str) -> None:
        if self._characters or self.usage:
            usage = self.usage
            if usage is None or not usage.output_tokens:
                tokens = usage.input_tokens if usage else self._input_tokens
                usage = UsageReported(tokens, tokens_of(self._characters), estimated=True)
            provider, _, model = self._target.partition("/")
            self._done.append(AttemptUse(self._target, provider, model, usage, why))
        self.usage = None
        self._target, self._characters, self._input_tokens = "", 0, 0
