"""One run: it makes attempts at targets and writes what they yield into one stream.

The rule that makes it fast and simple: from a provider's socket to the log there is no await
(`penstock.gateway.attempt`). The first attempt with output becomes the run's *leader*, and only the
leader appends. Until then every failure can be answered by another attempt, unseen.

*Back-pressure.* Above a high-water mark of uncommitted bytes the leader's source is paused, below
the low one it goes on. Readers play no part in it: they read the log at their own pace.

*The clock.* An attempt that brings no output, or too little, for too long is failed by its `Watch`;
a generation whose time is up closes as expired.

The run's task exists around the steps only: it opens attempts, waits for their outcomes and asks
`rescue` what to do. Whoever stops a run (`Run.stop`) closes the provider's socket in that call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from penstock.gateway.attempt import Attempt
from penstock.gateway.attendance import Attendance
from penstock.gateway.continuation import NOTHING, SeamDecoder, Shown, continued, may_continue, shown
from penstock.gateway.health import Health
from penstock.gateway.meter import Meter, milliseconds
from penstock.gateway.patience import timers_of
from penstock.gateway.rescue import Continue, GiveUp, RetrySettings, Tried, Try, decide
from penstock.gateway.signals import Signals
from penstock.gateway.takeover import Inherited, restarted
from penstock.gateway.tally import Tally, Use
from penstock.gateway.watch import Progress
from penstock.gateway.writer import Writer
from penstock.policies import review as reviewing
from penstock.policies.policy import EventFilter, FilterStop, nothing
from penstock.providers.provider import Conversation, Target
from penstock.streams.store import StoreFailure
from penstock.streams.stream import Standing, Stream
from penstock.types.calls import Call, ids
from penstock.types.errors import ClientError, GatewayError, PenstockError, StorageError
from penstock.types.estimates import estimate
from penstock.types.events import (
    AnyEvent,
    AttemptReport,
    Closed,
    Seam,
    Status,
    Timing,
    UsageReported,
)
from penstock.types.explanations import Doing
from penstock.types.outcomes import Ending, Outcome
from penstock.types.requests import GenerationRequest
from penstock.types.signals import Reason

log = structlog.get_logger(__name__)

HEDGE_SHARE = 0.95
"""Of a target's last answers, the share that began sooner than the time after which it gets a rival."""


class RunSettings(msgspec.Struct, frozen=True):
    """Bounds of a run. Bytes, entries and seconds."""

    gate_events: int = 1024
    high_water: int = 1 << 20
    low_water: int = 256 << 10
    max_stream_bytes: int = 64 << 20
    max_detached: float = 3600.0
    retry: RetrySettings = RetrySettings()


class Account(NamedTuple):
    """How a run goes. ``silent_ms``: since its last output, or its beginning. ``open``: the numbers, from 1,
    of the attempts that go on; their reports have their times so far."""

    attempts: tuple[AttemptReport, ...]
    open: frozenset[int]
    timing: Timing
    usage: UsageReported | None
    doing: Doing
    silent_ms: float


class Glance(NamedTuple):
    """A run as it stands. ``age`` and ``silent`` are seconds since its call, and since its last output."""

    stream: Stream
    target: str
    attempts: int
    doing: Doing
    characters: int
    age: float
    silent: float


async def _at_once() -> None:
    return None


class _Record:
    """One target of the route, as this run has seen it."""

    __slots__ = ("began", "error", "spare_key", "target", "tries")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.tries = 0
        self.began = 0.0
        self.error: PenstockError | None = None
        self.spare_key = False


class Run:
    """Produces one stream. Made by the gateway, which also owns its task."""

    __slots__ = (
        "_attempt",
        "_attempts",
        "_deadline",
        "_ended",
        "_health",
        "_hedges",
        "_left",
        "_meter",
        "_paused",
        "_prepare",
        "_racing",
        "_records",
        "_review",
        "_reviewing",
        "_settle",
        "_signals",
        "_stopped",
        "_tally",
        "_turn",
        "_writer",
        "attendance",
        "call",
        "clock",
        "handed_over",
        "kept",
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
        prepare: Callable[[GenerationRequest, Target], Conversation],
        settings: RunSettings,
        health: Health,
        clock: Callable[[], float],
        *,
        meter: Meter | None = None,
        hedges: bool = False,
        filter: EventFilter | None = None,
        review: reviewing.Review | None = None,
        settle: Callable[[Outcome], None] = nothing,
        turn: Callable[[], Awaitable[None]] = _at_once,
        asked_model: str = "",
        kept: bool = False,
        left: Inherited | None = None,
        signals: Signals | None = None,
    ) -> None:
        """``prepare`` renders a request for a target; ``clock`` gives seconds, any origin. ``hedges``: a
        target that is slower to begin than it mostly is gets a rival. ``meter`` runs since the call was
        accepted. ``filter``: what the answer passes through; ``review``: what it then waits for. ``settle``
        is told how it ended, once. ``turn`` is waited for before another attempt. ``asked_model`` stands
        for the one that answers, where clients are to see that. ``kept``: another process can go on with
        it; ``left``: what this one goes on from. ``signals``, where somebody watches."""
        self.stream = stream
        self.call = call
        self.settings = settings
        self.leader: Attempt | None = None
        self.task: asyncio.Task[None] | None = None
        self.attendance = Attendance(call.on_disconnect, settings.max_detached, self._deserted)
        self.clock = clock
        self._records = [_Record(target) for target in targets]
        self._prepare = prepare
        self._health = health
        self._hedges = hedges
        self._racing: list[Attempt] = []
        self._meter = meter or Meter(clock() - (left.age if left else 0.0))
        self._meter.begin(clock(), resumed=left is not None and left.output)
        self._deadline: asyncio.TimerHandle | None = None
        self._attempt: Attempt | None = None
        self._attempts = 0
        self._paused = False
        self._ended = False
        self._settle = settle
        self._turn = turn
        self._tally = Tally(lambda: estimate(call.request), left.uses if left else ())
        self.kept = kept
        self.handed_over = False
        self._left = left
        self._signals = signals
        self._writer = Writer(
            stream,
            self._meter,
            filter,
            choices=call.request.n,
            max_bytes=settings.max_stream_bytes,
            asked_model=asked_model,
            begun=left is not None and left.begun,
            review=review,
        )
        self._review = review
        self._reviewing = False  # it holds the provider back
        self._stopped: FilterStop | None = None
        if review is not None:
            review.bind(reviewing.Run(self._reviewed, self._refused, self._hold))
        stream.on_failure = self._storage

    def __repr__(self) -> str:
        """Say which stream and which attempt."""
        return f"<Run {self.stream.id} attempt {self._attempts}, {len(self._records)} targets>"

    @property
    def _ids(self) -> dict[str, str]:
        return ids(self.call.request_id, self.stream.id)

    # --- the step: called by attempts ----------------------------------------------------------

    @property
    def gate_events(self) -> int:
        """How many events of an attempt may wait before its first output."""
        return self.settings.gate_events

    def lead(self, attempt: Attempt, began: float, sent: float) -> None:
        """``attempt`` has output: from now on only it appends, and its rivals are left."""
        writer = self._writer
        writer.target, writer.use = attempt.target, self._tally.of(attempt.target)
        if writer.use is not None:
            writer.use.first = self.clock()
        self._meter.lead(began, sent)
        opening = self._meter.opening(self.clock())
        self.stream.standing = Standing(attempt.target.name, self._attempts, opening)
        self.stream.dropped = attempt.dropped
        self.leader = self._attempt = attempt
        if self._signals is not None:
            self._meter.gaps = self._signals.led(writer.use, opening)
        for rival in self._racing:
            if rival is not attempt:
                rival.abort()

    def show(self, events: Sequence[AnyEvent]) -> bool:
        """Append ``events``, the leader's, to the log, as far as the filter lets them through; say whether
        every choice was shown to its finish."""
        if self._ended or self._stopped is not None or self.stream.lost:
            return False
        stopped = self._writer.show(events, self.clock())
        if stopped is not None and self._review is not None:  # what came before still waits for a word
            self._stopped = stopped
            self._abort_all()
        elif stopped is not None:
            self._refused(stopped)
        if self.stream.uncommitted > self.settings.high_water and not self._paused:
            self._pause()
        return self._writer.answered

    def progress_of(self, attempt: Attempt) -> Progress:
        """Return what ``attempt`` has brought, for its watch."""
        if self.leader is not attempt:
            return Progress(None, 0, self._paused or self._reviewing)
        return Progress(self._meter.last, self._writer.characters, self._paused or self._reviewing)

    def crashed(self, bug: Exception) -> GatewayError:
        """Log a bug of ours and return what the run's clients are told of it."""
        log.error("run_crashed", **self._ids, run=repr(self), exc_info=bug)
        return GatewayError("The gateway failed while relaying this answer.", code="internal_error")

    # --- the task ------------------------------------------------------------------------------

    async def main(self) -> None:
        """Make attempts until one is whole or `rescue` gives up; close the stream. Never raises
        but for its cancellation, which leaves the stream to whoever cancelled it."""
        error: PenstockError | None
        total = self._records[0].target.timers.total
        if total:
            left = max(0.0, total - self._meter.age(self.clock()))
            self._deadline = asyncio.get_running_loop().call_later(left, self._expire, total)
        try:
            try:
                error = await self._answer()
            except ClientError as refused:
                error = refused
            except Exception as bug:  # noqa: BLE001  the task's one wide catch
                error = self.crashed(bug)
            if error is None:
                self.close("completed")
            elif self._left is not None and error.code == restarted().code:
                self.close("interrupted", error)
            else:
                self.close("failed", error)
        except Exception as bug:  # noqa: BLE001  not even a log that fails may take the other runs along
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a run could not end", "exception": bug})

    async def _answer(self) -> PenstockError | None:
        """Make attempts, while what they yield is reviewed; return what the client is told."""
        if self._review is None:
            return await self._attempt_all()
        error: PenstockError | None
        async with asyncio.TaskGroup() as group:
            reviewer = group.create_task(self._review.main())
            try:
                error = await self._attempt_all()
            except ClientError as refused:  # not as a group
                error = refused
            try:
                await self._word()
            finally:
                reviewer.cancel()
        if self._stopped is not None:
            return self._stopped.error
        return error

    async def _word(self) -> None:
        """Wait until what the filter gives out is reviewed as well."""
        if self._review is not None:
            if self._stopped is None:
                self._stopped = self._flush()
            await self._review.reviewed()

    async def _attempt_all(self) -> PenstockError | None:
        """Make attempts; return None when the answer is whole, else what the client is told."""
        number, so_far = 0, None
        name: Reason = "first"
        broken: PenstockError | None = None
        if self._left is not None and self._left.output:
            so_far, broken = self._left.so_far, restarted()
            able = [n for n, record in enumerate(self._records) if record.target.continuation != "none"]
            if not able:
                return broken
            number, name = able[0], "continuation"
        while True:
            error = await self._attempt_or_race(number, name, so_far, broken)
            if error is None or self._ended:
                return None
            await self._turn()
            if self.leader is not None:
                broken = broken or error
                so_far = await self._so_far()
            decision = self._decide(number, so_far)
            if isinstance(decision, GiveUp):
                # What broke the answer; else the last word of the target that was meant to give it. What a
                # last resort complains of is not the client's business.
                return broken or self._records[0].error or error
            following = self._records[decision.target]
            name = "retry" if following.tries else "fallback"
            if isinstance(decision, Continue):
                name = "continuation"
            target, failed = following.target.name, self._records[number].target.name
            log.info(name, **self._ids, target=target, failed=failed, code=error.code)
            if decision.delay:
                await asyncio.sleep(decision.delay)
            number = decision.target

    async def _attempt_or_race(
        self, number: int, reason: Reason, so_far: Shown | None, broken: PenstockError | None
    ) -> PenstockError | None:
        """Make an attempt; when it has shown nothing by the time that its target mostly has, make another
        beside it at the next target that was not tried. Whoever has output first leads."""
        record = self._records[number]
        patience = self._health.of(record.target.name).first_output(HEDGE_SHARE)
        rival = self._rival_of(record) if self._hedges and so_far is None and patience else None
        if rival is None:
            return await self._attempt_at(record, reason, so_far, broken)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(self._attempt_at(record, reason))
            await asyncio.wait([first], timeout=patience)
            if first.done() or self.leader is not None:
                return await first
            log.info("hedge", **self._ids, target=rival.target.name, slow=record.target.name)
            second = group.create_task(self._attempt_at(rival, "hedge"))
            await asyncio.wait([first, second])
        return second.result() if self._leads(rival) else first.result()

    def _leads(self, record: _Record) -> bool:
        return self.leader is not None and self.leader.target is record.target

    def _rival_of(self, record: _Record) -> _Record | None:
        return next(
            (
                other
                for other in self._records
                if other is not record and not other.tries and self._health.of(other.target.name).available
            ),
            None,
        )

    async def _attempt_at(
        self,
        record: _Record,
        reason: Reason,
        so_far: Shown | None = None,
        broken: PenstockError | None = None,
    ) -> PenstockError | None:
        """Make one attempt; return how it failed. With ``so_far``, it goes on from that."""
        target, health = record.target, self._health.of(record.target.name)
        self._attempts += 1
        if record.tries:
            health.pay_retry()
        else:
            record.began = self.clock()
        record.tries += 1
        trial = health.begin(retry=record.tries > 1, ids=self._ids)
        try:
            conversation = self._converse(target, so_far, broken)
        except BaseException as refused:  # it cannot say what is asked, or has a bug
            trial.end()
            if not isinstance(refused, PenstockError):
                raise
            record.error = refused
            return refused
        attempt = self._attempt = Attempt(
            self, target, conversation, trial, timers_of(target, self.call.request)
        )
        self.stream.dropped = conversation.dropped
        self._racing.append(attempt)
        began = self.clock()
        use = self._tally.begin(target, began, reason)
        self._meter.attempt(began)
        if self._signals is not None and (parent := self._signals.began(use, self._attempts, reason)):
            conversation.add_header("traceparent", parent)
        error = None
        try:
            error = record.error = await self._outcome_of(attempt, use)
        finally:
            self._racing.remove(attempt)
            ended = self.clock()
            use.end(error, ended)
            if not self._racing:
                self._meter.over(ended)
            if self._signals is not None:
                self._signals.ended(use, self._tally)
            attempt.close(error)
            record.spare_key = attempt.spare_key
        return error

    def _converse(self, target: Target, so_far: Shown | None, broken: PenstockError | None) -> Conversation:
        request = self.call.request
        mode = target.continuation
        if so_far is None or mode == "none":
            return self._prepare(request, target)
        seam = Seam(target.name, mode, broken.code if broken else "")
        conversation = self._prepare(continued(request, so_far, mode), target)
        mark = self.settings.retry.restart_mark
        return conversation._replace(decoder=SeamDecoder(conversation.decoder, so_far, seam, mark))

    def _decide(self, last: int, so_far: Shown | None) -> Try | Continue | GiveUp:
        continuable = so_far is not None and so_far.sewable and may_continue(self.call.request)
        now = self.clock()
        targets = []
        for record in self._records:
            health = self._health.of(record.target.name)
            targets.append(
                Tried(
                    tries=record.tries,
                    since_first=now - record.began,
                    error=record.error,
                    available=health.available,
                    paid=health.can_retry,
                    context=record.target.context,
                    continues=record.target.continuation != "none",
                    limit=record.target.tries,
                    spare_key=record.spare_key,
                )
            )
        shown = so_far is not None
        return decide(targets, last, self.settings.retry, shown=shown, continuable=continuable)

    async def _so_far(self) -> Shown:
        """Read back what the reader has: from the log, which knows it better than any memory of ours. Behind
        a filter the text is as the model wrote it, before it was masked."""
        stream = self.stream
        self._flush()
        if self._review is not None:
            await self._review.reviewed()
        await stream.wait_beyond(stream.appended - 1)
        events: list[AnyEvent] = []
        try:
            while len(events) < stream.appended and (entries := await stream.read(len(events))):
                events += [entry.event for entry in entries]
        except PenstockError:  # then nobody can go on from it
            return NOTHING
        if len(events) != stream.appended:
            return NOTHING
        spoken = self._writer.spoken
        return shown(events) if spoken is None else shown(events)._replace(text=spoken.text)

    async def _outcome_of(self, attempt: Attempt, use: Use) -> PenstockError | None:
        try:
            await attempt.open()
            use.sent = self.clock()
            self._meter.sent(use.sent)
        except PenstockError as error:
            attempt.abort()
            return error
        except BaseException:  # cancelled, or a bug: the socket must not outlive us either way
            attempt.abort()
            raise
        return await attempt.outcome

    @property
    def _doing(self) -> Doing:
        if self._ended:
            return "ending"
        if not self._racing:
            return "pausing"
        return "streaming" if self.leader in self._racing else "waiting"

    @property
    def characters(self) -> int:
        """Of output that was shown so far."""
        return self._writer.characters

    def glance(self) -> "Glance":
        """Say the least that tells how it goes, for who watches many."""
        now = self.clock()
        target = self._attempt.target.name if self._attempt is not None else ""
        return Glance(
            self.stream,
            target,
            self._attempts,
            self._doing,
            self.characters,
            self._meter.age(now),
            now - self._meter.last,
        )

    def account(self) -> "Account":
        """Say how it goes: what was tried, where the time went so far, what it does now."""
        now = self.clock()
        return Account(
            self._tally.reports(self._meter.started, now),
            self._tally.open,
            self._meter.timing(now),
            self._meter.usage,
            self._doing,
            milliseconds(now - self._meter.last),
        )

    # --- ending --------------------------------------------------------------------------------

    def close(self, status: Status, error: PenstockError | None = None) -> None:
        """Append the terminal entry, once."""
        if self._ended:
            return
        stopped = self._flush()
        if self._review is not None:
            self._review.drop()
        if stopped is not None and stopped.error is not None and status == "completed":
            status, error = "failed", stopped.error
        self._end(status, error)
        if self.stream.lost:
            return
        attempt, now = self._attempt, self.clock()
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
                timing=self._meter.timing(now),
                history=self._tally.history(self._meter.started, now, error.code if error else ""),
                http_status=error.status if error else 0,
                error_type=error.type if error else "",
                provider_code=error.provider_code if error else "",
                param=(error.param or "") if error else "",
                retry_after=error.retry_after if error else None,
            )
        )

    def _abort_all(self) -> None:
        for attempt in self._racing:
            attempt.abort()

    def _flush(self) -> FilterStop | None:
        """Append what the filter holds back; return why it wants to stop, if it does. Never raises."""
        if self.stream.lost:
            return None
        try:
            return self._writer.flush(self.clock())
        except Exception as bug:  # noqa: BLE001  the stream must end whatever a filter does
            return FilterStop((), self.crashed(bug))

    def release(self) -> None:
        """Nothing of the run is left: whoever holds something for it is told so, if it was not yet."""
        self._end("lost")

    def _end(self, ending: Ending, error: PenstockError | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        timing = self._meter.timing(self.clock())
        outcome = Outcome(
            ending,
            stream=self.stream.id,
            code=error.code if error else "",
            attempts=self._tally.attempts(),
            started_at=self.stream.info.created_at,
            total_ms=timing.total_ms,
            first_output_ms=timing.first_output_ms,
        )
        self._settle(outcome)
        if self._signals is not None:
            target = self._attempt.target.name if self._attempt else ""
            self._signals.over(outcome, error, self._tally, target, timing, self._meter.usage)
        self.attendance.close()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def stop(self, status: Status, error: PenstockError | None) -> None:
        """End the run now, from outside: the provider's socket is closed before this returns.
        Nothing happens when it has ended."""
        if self._ended:
            return
        self._abort_all()
        self.close(status, error)
        if self.task is not None:
            self.task.cancel()

    def cancel(self) -> None:
        """A client asked to stop."""
        self.stop("cancelled", ClientError("The generation was cancelled.", code="cancelled", status=499))

    def interrupt(self, message: str, code: str) -> None:
        """The gateway has to stop; the reader may try again."""
        self.stop("interrupted", GatewayError(message, code=code, status=503, retryable=True))

    def hand_over(self) -> None:
        """Stop without an end, and leave the stream to the process after this one."""
        if self._ended:
            return
        self._abort_all()
        if stopped := self._flush():
            self.close("failed" if stopped.error else "completed", stopped.error)
            return
        self.handed_over = True
        self._end("handed_over", GatewayError("The gateway is shutting down.", code="gateway_shutdown"))
        self.stream.abandon()
        if self.task is not None:
            self.task.cancel()

    def _expire(self, total: float) -> None:
        message = f"The answer was not complete after {total:g} s."
        self.stop("expired", GatewayError(message, code="generation_timeout", status=504, retryable=True))

    def _deserted(self) -> None:
        message = "Nobody was reading any more."
        self.stop("cancelled", ClientError(message, code="client_disconnected", status=499))

    # --- the review: called by it ---------------------------------------------------------------

    def _reviewed(self, events: Sequence[AnyEvent]) -> None:
        if not self._ended and not self.stream.lost:
            self._writer.release(events, self.clock())

    def _refused(self, stop: FilterStop) -> None:
        if self._review is not None:
            self._reviewed(stop.events)
        self.stop("failed" if stop.error else "completed", stop.error)

    def _hold(self, on: bool) -> None:
        self._reviewing = on
        if self._attempt is not None:
            if on:
                self._attempt.source.pause()
            elif not self._paused:
                self._attempt.source.resume()

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
            if self._attempt is not None and not self._reviewing:
                self._attempt.source.resume()

    def _storage(self, failure: StoreFailure | None) -> None:
        """The store's trouble: pause while it tries again; give up without an end when it gives up."""
        if failure is None:
            self._drained(())
        elif failure.final:
            log.error("stream_lost", **self._ids, reason=failure.reason)
            self._abort_all()
            self._end("lost", StorageError())
            self.stream.abandon()
            if self.task is not None:
                self.task.cancel()
        elif not self._paused:
            self._pause()
