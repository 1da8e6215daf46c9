"""One run: it makes attempts at targets and writes what they yield into one stream.

The rule that makes it fast and simple: from a provider's socket to the log there is no await. A
*step* is `Attempt.feed`: bytes → events → (gate) → append. `Attempt.feed` is also the only catcher:
an `UpstreamError` fails the attempt, anything else is our own bug and fails the run.

*The gate.* An attempt's events wait in the attempt's own bounded buffer until the first one with
output; then it becomes the run's *leader* and only the leader appends. Until then every failure can
be answered by another attempt, unseen.

*Back-pressure.* Above a high-water mark of uncommitted bytes the leader's source is paused, below
the low one it goes on. Readers play no part in it: they read the log at their own pace.

The run's task exists around the steps only: it opens attempts, waits for their outcomes and asks
`rescue` what to do. Whoever stops a run (`Run.stop`) closes the provider's socket in that call.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from penstock.gateway.attendance import Attendance
from penstock.gateway.meter import Meter
from penstock.gateway.rescue import GiveUp, NextTarget, Situation, decide
from penstock.providers.provider import Conversation, Target
from penstock.streams.store import StoreFailure
from penstock.streams.stream import Stream
from penstock.types.calls import Call
from penstock.types.errors import ClientError, GatewayError, PenstockError, UpstreamError
from penstock.types.events import (
    MAX_DELTA_CHARS,
    AnyEvent,
    Closed,
    Started,
    Status,
    TextDelta,
    has_output,
    split_long,
)

log = structlog.get_logger(__name__)

LINGER = 1.0
"""Seconds that a finished answer's connection may take to end by itself, so that it can be reused."""

ENTRY_BYTES = 64
"""About what an entry takes besides its text, for the bound on a stream's size."""


class RunSettings(msgspec.Struct, frozen=True):
    """Bounds of a run. Bytes, entries and seconds."""

    gate_events: int = 1024
    high_water: int = 1 << 20
    low_water: int = 256 << 10
    max_stream_bytes: int = 64 << 20
    max_detached: float = 3600.0


class Attempt:
    """One try at one target: the sink of its source, and the buffer before the gate."""

    __slots__ = ("_buffer", "_decoder", "_linger", "_run", "outcome", "source", "target")

    def __init__(self, run: "Run", target: Target, conversation: Conversation) -> None:
        """Nothing is sent yet; see `open`."""
        self.target = target
        self.source = conversation.source
        self.outcome: asyncio.Future[PenstockError | None] = asyncio.get_running_loop().create_future()
        self._decoder = conversation.decoder
        self._run = run
        self._buffer: list[AnyEvent] = []
        self._linger: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Send the request; the rest comes through the sink's methods."""
        await self.source.open(self)

    # --- Sink --------------------------------------------------------------------------------

    def feed(self, data: Any) -> None:
        """One step. Never raises."""
        if self.outcome.done():
            return
        try:
            events = self._decoder.feed(data)
            if events:
                if self._run.leader is self:
                    self._run.show(events)
                else:
                    self._pass_gate(events)
            if self._decoder.finished:
                self._complete()
                self._linger = asyncio.get_running_loop().call_later(LINGER, self.source.abort)
        except UpstreamError as error:
            self.fail(error)
        except Exception as bug:  # noqa: BLE001  the widest catch: our own bug ends this run, not the loop
            self.fail(crashed(self._run, bug))

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
            self.fail(crashed(self._run, bug))

    def fail(self, error: PenstockError) -> None:
        """The attempt is over, without a whole answer."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self.outcome.done():
            self.source.abort()
            self.outcome.set_result(error)

    def abort(self) -> None:
        """Somebody else decided that the attempt is over: close its connection now."""
        self.source.abort()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self.outcome.done():
            self.outcome.set_result(None)  # the run was ended from outside: there is nothing to say

    def _complete(self) -> None:
        """The answer should be whole: check that, show what was held back, and say so."""
        self._buffer.extend(self._decoder.flush())
        self._lead()  # also with nothing that anyone could act on: the answer is whole
        self.outcome.set_result(None)

    def _pass_gate(self, events: Sequence[AnyEvent]) -> None:
        """Hold ``events`` back until there is output among them; then lead, and show all."""
        run = self._run
        self._buffer.extend(events)
        for event in events:
            if has_output(event):
                self._lead()
                return
        if len(self._buffer) > run.settings.gate_events:
            raise UpstreamError("The provider sent much and said nothing.", code="upstream_malformed")

    def _lead(self) -> None:
        self._run.lead(self)
        if self._buffer:
            buffer, self._buffer = self._buffer, []
            self._run.show(buffer)


class Run:
    """Produces one stream. Made by the gateway, which also owns its task."""

    __slots__ = (
        "_attempt",
        "_attempts",
        "_clock",
        "_ended",
        "_meter",
        "_paused",
        "_prepare",
        "_shown_bytes",
        "_targets",
        "attendance",
        "call",
        "leader",
        "settings",
        "stream",
        "task",
    )

    def __init__(
        self,
        stream: Stream,
        call: Call,
        targets: Sequence[Target],
        prepare: Callable[[Target], Conversation],
        settings: RunSettings,
        clock: Callable[[], float],
    ) -> None:
        """``prepare`` renders the request for a target; ``clock`` gives seconds, any origin."""
        self.stream = stream
        self.call = call
        self.settings = settings
        self.leader: Attempt | None = None
        self.task: asyncio.Task[None] | None = None
        self.attendance = Attendance(call.on_disconnect, settings.max_detached, self._deserted)
        self._targets = targets
        self._prepare = prepare
        self._clock = clock
        self._meter = Meter(clock())
        self._attempt: Attempt | None = None
        self._attempts = 0
        self._paused = False
        self._shown_bytes = 0
        self._ended = False
        stream.on_failure = self._storage

    def __repr__(self) -> str:
        """Say which stream and which attempt."""
        return f"<Run {self.stream.id} attempt {self._attempts}/{len(self._targets)}>"

    # --- the step: called by attempts ----------------------------------------------------------

    def lead(self, attempt: Attempt) -> None:
        """``attempt`` has output: from now on only it appends."""
        self.leader = attempt

    def show(self, events: Sequence[AnyEvent]) -> None:
        """Append ``events``, the leader's, to the log."""
        stream = self.stream
        if self._ended or stream.lost:
            return
        size = 0
        output = False
        for event in events:
            if type(event) is TextDelta:
                delta = event.delta
                output = output or delta != ""
            else:
                delta = getattr(event, "delta", "")
                output = output or has_output(event)
                if type(event) is Started and not event.provider and self.leader is not None:
                    event = msgspec.structs.replace(event, provider=self.leader.target.provider)
                self._meter.report(event)
            if len(delta) > MAX_DELTA_CHARS:
                for piece in split_long(event):
                    stream.append(piece)
            else:
                stream.append(event)
            size += len(delta) + ENTRY_BYTES
        if output:
            self._meter.output(self._clock())
        if stream.uncommitted > self.settings.high_water and not self._paused:
            self._pause()
        self._shown_bytes += size
        if self._shown_bytes > self.settings.max_stream_bytes:
            message = "The answer is longer than the gateway stores."
            raise UpstreamError(message, code="stream_too_large", retryable=False)

    # --- the task ------------------------------------------------------------------------------

    async def main(self) -> None:
        """Make attempts until one is whole or `rescue` gives up; close the stream. Never raises
        but for its cancellation, which leaves the stream to whoever cancelled it."""
        error: PenstockError | None
        try:
            try:
                error = await self._attempt_all()
            except ClientError as refused:
                error = refused
            except Exception as bug:  # noqa: BLE001  the task's one wide catch
                error = crashed(self, bug)
            if error is None:
                self.close("completed")
            else:
                self.close("failed", error)
        except Exception as bug:  # noqa: BLE001  not even a log that fails may take the other runs along
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a run could not end", "exception": bug})

    async def _attempt_all(self) -> PenstockError | None:
        for number, target in enumerate(self._targets, 1):
            self._attempts = number
            attempt = self._attempt = Attempt(self, target, self._prepare(target))
            error = await self._outcome_of(attempt)
            if error is None or self._ended:
                return None
            shown = self.leader is not None
            left = len(self._targets) - number
            match decide(Situation(error, number, left, shown)):
                case GiveUp(final):
                    return final
                case NextTarget():
                    log.info("fallback", stream=self.stream.id, target=target.name, code=error.code)
        return error

    async def _outcome_of(self, attempt: Attempt) -> PenstockError | None:
        try:
            await attempt.open()
        except PenstockError as error:
            attempt.abort()
            return error
        except BaseException:  # cancelled, or a bug: the socket must not outlive us either way
            attempt.abort()
            raise
        return await attempt.outcome

    # --- ending --------------------------------------------------------------------------------

    def close(self, status: Status, error: PenstockError | None = None) -> None:
        """Append the terminal entry, once."""
        if self._ended:
            return
        self._ended = True
        self.attendance.close()
        if self.stream.lost:
            return
        attempt = self._attempt
        if status == "failed" and self.leader is None:
            self.stream.release_key()  # nothing was shown: the same request may be tried anew
        self.stream.close(
            Closed(
                status=status,
                code=error.code if error else "",
                message=error.message if error else "",
                fault=error.fault if error else None,
                retryable=error.retryable if error else False,
                attempts=self._attempts,
                target=attempt.target.name if attempt else "",
                usage=self._meter.usage,
                timing=self._meter.timing(self._clock()),
                http_status=error.status if error else 0,
                error_type=error.type if error else "",
                param=(error.param or "") if error else "",
                retry_after=error.retry_after if error else None,
            )
        )

    def stop(self, status: Status, error: PenstockError) -> None:
        """End the run now, from outside: the provider's socket is closed before this returns.
        Nothing happens when it has ended."""
        if self._ended:
            return
        if self._attempt is not None:
            self._attempt.abort()
        self.close(status, error)
        if self.task is not None:
            self.task.cancel()

    def cancel(self) -> None:
        """A client asked to stop."""
        self.stop("cancelled", ClientError("The generation was cancelled.", code="cancelled", status=499))

    def interrupt(self, message: str, code: str) -> None:
        """The gateway has to stop; the reader may try again."""
        self.stop("interrupted", GatewayError(message, code=code, status=503, retryable=True))

    def _deserted(self) -> None:
        message = "Nobody was reading any more."
        self.stop("cancelled", ClientError(message, code="client_disconnected", status=499))

    # --- back-pressure and storage -------------------------------------------------------------

    def _pause(self) -> None:
        self._paused = True
        if self._attempt is not None:
            self._attempt.source.pause()
        self.stream.follow(self._drained)

    def _drained(self, _: object) -> None:
        if self._paused and self.stream.uncommitted <= self.settings.low_water:
            self._paused = False
            self.stream.unfollow(self._drained)
            if self._attempt is not None:
                self._attempt.source.resume()

    def _storage(self, failure: StoreFailure | None) -> None:
        """The store's trouble: pause while it tries again; give up without an end when it gives up."""
        if failure is None:
            self._drained(())
        elif failure.final:
            log.error("stream_lost", stream=self.stream.id, reason=failure.reason)
            if self._attempt is not None:
                self._attempt.abort()
            self._ended = True
            self.attendance.close()
            self.stream.abandon()
            if self.task is not None:
                self.task.cancel()
        elif not self._paused:
            self._pause()


def crashed(run: Run, bug: Exception) -> GatewayError:
    """Log a bug of ours and return what the run's clients are told of it."""
    log.error("run_crashed", run=repr(run), exc_info=bug)
    return GatewayError("The gateway failed while relaying this answer.", code="internal_error")
