"""One attempt: one try at one target, from its request to its outcome.

It is the sink of its provider's source, and `Attempt.feed` is the *step*: bytes → events → (gate) →
append, with no await in between. It is also the only catcher there: an `UpstreamError` fails the
attempt, anything else is our own bug and fails the run.

*The gate.* Events wait in the attempt's own bounded buffer until the first one with output; then it
leads, and its owner, the run, appends what it brings. Until then a failure is unseen. What to do after a
failure is not decided here.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from penstock.gateway.health import Trial
from penstock.gateway.rescue import remedy
from penstock.gateway.watch import Progress, Watch
from penstock.providers.provider import Conversation, Target
from penstock.types.errors import GatewayError, PenstockError, UpstreamError, upstream_truncated
from penstock.types.events import AnyEvent, has_output
from penstock.types.timers import Timers

LINGER = 1.0
"""Seconds that a finished answer's connection may take to end by itself, so that it can be reused."""


TAIL = 5.0
"""Seconds that a provider has after the finish of an answer for what is still to come: usage, mostly."""


class Owner(Protocol):
    """What an attempt needs of its run. ``gate_events``: how many events may wait before the gate."""

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, any origin."""

    @property
    def gate_events(self) -> int:
        """See above."""

    @property
    def leader(self) -> "Attempt | None":
        """The attempt whose events are appended."""

    def lead(self, attempt: "Attempt", began: float, sent: float) -> None:
        """``attempt`` has output: from now on only it appends."""

    def show(self, events: Sequence[AnyEvent]) -> bool:
        """Append ``events``, the leader's, to the log; say whether every choice was shown to its finish."""

    def progress_of(self, attempt: "Attempt") -> Progress:
        """Return what ``attempt`` has brought, for its watch."""

    def crashed(self, bug: Exception) -> GatewayError:
        """Log a bug of ours and return what the run's clients are told of it."""


class Attempt:
    """One try at one target: the sink of its source, and the buffer before the gate."""

    __slots__ = (
        "_answered",
        "_began",
        "_buffer",
        "_conceal",
        "_decoder",
        "_key",
        "_linger",
        "_owner",
        "_sent",
        "_tail",
        "_timers",
        "_trial",
        "_watch",
        "dropped",
        "outcome",
        "source",
        "spare_key",
        "target",
    )

    def __init__(
        self, owner: Owner, target: Target, conversation: Conversation, trial: Trial, timers: Timers
    ) -> None:
        """Nothing is sent yet; see `open`. ``trial`` is told how it goes."""
        self._timers = timers
        self._answered = False
        self._tail: asyncio.TimerHandle | None = None
        self.target = target
        self.source = conversation.source
        self.outcome: asyncio.Future[PenstockError | None] = asyncio.get_running_loop().create_future()
        self.spare_key = False  # it failed by its key, and its target has another one that is ready
        self.dropped = conversation.dropped
        self._decoder = conversation.decoder
        self._key = conversation.key
        self._conceal = conversation.conceal
        self._owner = owner
        self._buffer: list[AnyEvent] = []
        self._linger: asyncio.TimerHandle | None = None
        self._trial = trial
        self._began = self._sent = 0.0
        self._watch: Watch | None = None

    async def open(self) -> None:
        """Send the request; the rest comes through the sink's methods."""
        self._began = self._sent = self._owner.clock()
        timers = self._timers
        if timers.connect is not None or timers.head is not None:
            self.source.limit(timers.connect, timers.head)
        self._watch = Watch(timers, self._progress, self.fail, self._owner.clock)
        await self.source.open(self)
        self._sent = self._owner.clock()

    def close(self, error: PenstockError | None) -> None:
        """The attempt is over, for the run as well; ``error`` is how it failed. Exactly once."""
        self._unwatch()
        if error is not None:
            self.spare_key = self._key is not None and self._key.failed(error)
            if not self.spare_key and remedy(error) in ("retry", "fallback"):
                self._trial.fail()
        self._trial.end()

    def _progress(self) -> Progress:
        return self._owner.progress_of(self)

    def _stop_timers(self) -> None:
        self._unwatch()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _unwatch(self) -> None:
        if self._tail is not None:
            self._tail.cancel()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # --- Sink --------------------------------------------------------------------------------

    def feed(self, data: Any) -> None:
        """One step. Never raises."""
        if self.outcome.done():
            return
        try:
            events = self._decoder.feed(data)
            if events:
                if self._owner.leader is self:
                    answered = self._owner.show(events)
                else:
                    answered = self._pass_gate(events)
                if answered and not self._answered:
                    self._answered = True
                    self._tail = asyncio.get_running_loop().call_later(TAIL, self._is_late)
            if self._decoder.finished and not self.outcome.done():  # what it showed may have ended the run
                self._complete()
                self._linger = asyncio.get_running_loop().call_later(LINGER, self.source.abort)
        except UpstreamError as error:
            self.fail(error)
        except Exception as bug:  # noqa: BLE001  the widest catch: our own bug ends this run, not the loop
            self.fail(self._owner.crashed(bug))

    def end(self) -> None:
        """The transport says that the response is whole."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self.outcome.done():
            return
        try:
            self._complete()
        except UpstreamError as error:
            self.fail(error)
        except Exception as bug:  # noqa: BLE001  as in `feed`
            self.fail(self._owner.crashed(bug))

    def fail(self, error: PenstockError) -> None:
        """The attempt is over, without a whole answer, unless that was shown already: then nothing that
        may be missing matters."""
        self._stop_timers()
        if not self.outcome.done():
            self.source.abort()
            if self._conceal is not None and error.fault == "upstream":
                error.message, error.type = self._conceal(error.message), self._conceal(error.type)
            if self._answered and error.fault == "upstream":
                with suppress(UpstreamError):
                    self._owner.show(self._decoder.flush())
                self.outcome.set_result(None)
            else:
                self.outcome.set_result(error)

    def _is_late(self) -> None:
        self.fail(upstream_truncated())

    def abort(self) -> None:
        """Somebody else decided that the attempt is over: close its connection now."""
        self.source.abort()
        self._stop_timers()
        if not self.outcome.done():
            self.outcome.set_result(None)  # the run was ended from outside: there is nothing to say

    def _complete(self) -> None:
        """The answer should be whole: check that, show what was held back, and say so."""
        self._buffer.extend(self._decoder.flush())
        self._lead()  # also with nothing that anyone could act on: the answer is whole
        self._unwatch()
        self.outcome.set_result(None)

    def _pass_gate(self, events: Sequence[AnyEvent]) -> bool:
        """Hold ``events`` back until there is output among them; then lead, and show all."""
        self._buffer.extend(events)
        for event in events:
            if has_output(event):
                return self._lead()
        if len(self._buffer) > self._owner.gate_events:
            raise UpstreamError("The provider sent much and said nothing.", code="upstream_malformed")
        return False

    def _lead(self) -> bool:
        if self._owner.leader is not self:
            self._trial.output()
            if self._key is not None:
                self._key.worked()
            self._owner.lead(self, self._began, self._sent)
        if self._buffer:
            buffer, self._buffer = self._buffer, []
            return self._owner.show(buffer)
        return False
