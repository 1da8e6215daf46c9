"""The gateway: start, read and cancel generations.

It knows streams, providers and the rules of who may do what; it knows neither HTTP nor any wire
format. It owns the tasks of all runs: enter it as an async context manager, and when that ends no
run is left. State: the open streams of this process by id, and the runs that write them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from fnmatch import fnmatchcase
from itertools import islice
from types import TracebackType
from typing import Self, TypeAlias

import msgspec
import structlog

from penstock.gateway.balance import ordered
from penstock.gateway.health import Health, HealthSettings
from penstock.gateway.listings import SOON, Listings
from penstock.gateway.meter import Meter
from penstock.gateway.publications import OWNER, Publications, PublicationSettings
from penstock.gateway.recovery import RESTARTED, UNSTORED, Orphans
from penstock.gateway.router import ModelList, Routing
from penstock.gateway.run import Account, Glance, Run, RunSettings
from penstock.gateway.setup import Companion, Setup, Setups, Tenure
from penstock.gateway.signals import Signals
from penstock.gateway.takeover import RESTARTED as RESTART
from penstock.gateway.takeover import Inherited, Step, completed, find_out, keep
from penstock.gateway.turnstile import Turnstile
from penstock.policies.chain import Chain, Settlement
from penstock.policies.policy import Admission, Policy
from penstock.policies.review import Review
from penstock.providers.provider import Conversation, Model, Provider, Target
from penstock.streams.store import KeyTaken, Store, StreamInfo
from penstock.streams.stream import Stream
from penstock.types.buckets import Buckets
from penstock.types.calls import Call, ids
from penstock.types.decisions import Admitted
from penstock.types.errors import ClientError, GatewayError, PenstockError, StorageError, StreamGone
from penstock.types.estimates import estimate
from penstock.types.events import Seam
from penstock.types.outcomes import UNSTARTED, Outcome
from penstock.types.positions import new_stream_id
from penstock.types.principals import Grant, Principal
from penstock.types.requests import GenerationRequest
from penstock.types.signals import (
    AttemptBegan,
    CallAccepted,
    CallRefused,
    NamesChanged,
    Observer,
    ReaderJoined,
    ReaderLeft,
    StreamEnded,
    Subject,
    subject_of,
)
from penstock.types.usage import Bill, payer_of

log = structlog.get_logger(__name__)


NO_NEWS = 1.0
"""Seconds within which an unknown name is not asked about again: no model comes that soon."""

TAKEN_AT_ONCE = 16
"""Logs that are read at the same time after a start, to go on with their streams."""


class GatewaySettings(msgspec.Struct, frozen=True):
    """Bounds of the gateway. Seconds and counts.

    ``join_window``: how long an equal `GET /stream` joins one none of whose ids was sent.
    ``linger``: how long a stream of which nothing is to be kept stays for readers that are behind.
    ``join``: models, as patterns, whose equal calls are answered by one run while it goes on.
    ``recovery_patience``: how long a start waits for the store to close what was left open.
    """

    retention: float = 86_400.0
    max_retention: float = 30 * 86_400.0
    max_open_streams: int = 10_000
    linger: float = 30.0
    join_window: float = 30.0
    join: tuple[str, ...] = ()
    recovery_patience: float = 10.0
    model_list_timeout: float = 3.0
    model_list_ttl: float = 30.0
    run: RunSettings = RunSettings()
    publications: PublicationSettings = PublicationSettings()
    health: HealthSettings = HealthSettings()


Equal: TypeAlias = tuple[str, str, str]
"""What makes two calls equal: principal, route, and the hash of what was asked."""


class Started(msgspec.Struct, frozen=True):
    """What `Gateway.start` gives: the stream, and whether it had been started by an equal call."""

    stream: Stream
    existing: bool


class ModelInfo(msgspec.Struct, frozen=True):
    """One model that can be asked for, and who answers."""

    id: str
    provider: str
    description: str = ""
    created: int = 0
    aliases: tuple[str, ...] = ()


def _unheard(bill: Bill, outcome: Outcome) -> None:
    """Nobody accounts for anything."""


class Gateway:
    """See the module's head."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        routing: Routing,
        settings: GatewaySettings | None = None,
        *,
        policy: Policy | None = None,
        review: Callable[[Call], Review | None] = lambda _: None,
        rule_companions: Sequence[Companion] = (),
        companions: Sequence[Companion] = (),
        on_orphan: Callable[[Bill, Outcome], None] = _unheard,
        observe: Observer | None = None,
        parent_of: Callable[[AttemptBegan], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``policy`` is asked before a stream is made; ``review`` gives what its answer waits for;
        ``rule_companions`` live as long as those two, ``companions`` as long as the gateway.

        ``on_orphan`` is told what a stream used that a process left open, ``observe`` what happens
        (`penstock.types.signals`); ``parent_of`` gives the W3C `traceparent` that an attempt sends, empty for
        none. ``clock`` measures spans, ``wall``
        is Unix time; both in seconds.
        """
        self.store = store
        self.settings = settings or GatewaySettings()
        self._companions = companions
        self._around = AsyncExitStack()
        self._clock = clock
        self._wall = wall
        self._streams: dict[str, Stream] = {}
        self._runs: dict[str, Run] = {}
        self._characters = 0
        self._observe = observe
        self._parent_of = parent_of
        self._on_orphan = on_orphan
        self._readers = 0
        self.gaps: dict[str, Buckets] = {}
        """Between the pieces of answers, by target, in seconds; counted where somebody observes."""
        self._orphans = Orphans(store, self._orphan_ended)
        self.publications = Publications(store, self.settings.publications, wall=wall)
        self._closers: Sequence[asyncio.Task[None]] = ()
        self._taking: list[asyncio.Task[None]] = []
        self._looking = asyncio.Semaphore(TAKEN_AT_ONCE)
        self._group = asyncio.TaskGroup()
        setup = Setup(providers, routing, policy or Chain(), review, rule_companions)
        self.setups = Setups(setup, self._group.create_task, self._forget_names)
        self._unnamed: OrderedDict[Equal, tuple[float, Stream]] = OrderedDict()
        self._joinable: dict[Equal, Stream] = {}
        self.health = Health(self.settings.health, clock, observe)
        self._turnstile = Turnstile(clock)
        self._births: dict[str, asyncio.Future[None]] = {}
        self._listings = Listings(
            providers,
            self._group.create_task,
            clock,
            timeout=self.settings.model_list_timeout,
            ttl=self.settings.model_list_ttl,
        )
        self.draining = False

    async def __aenter__(self) -> Self:
        """Open the store, close what the last process left open or go on with it, be ready for calls."""
        left = []
        for info in await self.store.open():
            if info.kept and self._routing.resumes(info.model):
                left.append(info)
            elif info.principal != OWNER:  # a publication's writer may be anywhere, and come back
                self._orphans.add(info.id, RESTARTED)
        try:
            await self.publications.open()
            for companion in self._companions:
                await companion.open()
                self._around.push_async_callback(companion.aclose)
            await self.setups.open(self.setup)
            self._around.push_async_callback(self.setups.aclose)
            with suppress(StorageError, TimeoutError):  # the disk may be full: then they are closed later
                async with asyncio.timeout(self.settings.recovery_patience):
                    await self._orphans.close_all()
            await self._group.__aenter__()
        except BaseException:
            await self._around.aclose()
            await self.store.aclose()
            raise
        self._closers = [
            self._group.create_task(self._orphans.run()),
            self._group.create_task(self.publications.run()),
        ]
        self._taking = [self._group.create_task(self._take_up(info)) for info in left]
        if left:  # so that whoever comes back finds them; what a policy lets wait goes on by itself
            await asyncio.wait(self._taking, timeout=self.settings.recovery_patience)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Interrupt the runs that are left, wait for them, close providers and store."""
        self.draining = True
        self.setups.stop()
        try:
            for task in self._taking:
                task.cancel()
            self._stop_all()
            self.publications.leave()
            for closer in self._closers:
                closer.cancel()
            self._listings.close()
            await self._group.__aexit__(kind, error, trace)
        finally:
            try:
                await self._around.aclose()
            finally:
                await self.store.aclose()

    @property
    def setup(self) -> Setup:
        """Who answers calls that come now, and by which rules."""
        return self.setups.current.setup

    @property
    def _routing(self) -> Routing:
        return self.setup.routing

    def use(self, setup: Setup, settings: GatewaySettings) -> None:
        """Answer by ``setup``, which is open, what comes from now on; what is under way keeps its own.

        Of ``settings`` those of publications need another gateway.
        """
        self.settings = msgspec.structs.replace(settings, publications=self.settings.publications)
        self.health.use(settings.health)
        self._listings.use(setup.providers)
        self.setups.use(setup)

    def _forget_names(self) -> None:
        """What is kept by the names of targets and models is kept of those only that there still are: in the
        configuration, or in a run that began before it changed."""
        living = self.setups.routings
        self.health.keep(living[-1].targets)
        targets = frozenset[str]().union(*(one.targets for one in living))
        self.gaps = {name: found for name, found in self.gaps.items() if name in targets}
        if self._observe is not None:
            self._observe(NamesChanged(targets, frozenset[str]().union(*(one.rules for one in living))))

    @property
    def open_streams(self) -> int:
        """How many runs are going on."""
        return len(self._runs)

    # --- start ---------------------------------------------------------------------------------

    async def start(self, call: Call) -> Started:
        """Accept ``call``: create its stream and start its run.

        Returns as soon as the stream's creation is stored; nothing was asked of a provider yet.
        With an idempotency key that its principal has used for the same request, returns that
        stream; with `Call.join`, that of an equal call whose run goes on and which wanted it too.
        Raises `ClientError` (unknown model; the key was used for another request, 422),
        `GatewayError` (draining or full, 503), `StorageError`, or what a policy refuses with.
        """
        meter = Meter(self._clock())
        await self._learn(call.request.model, call.principal.grant)
        equal = self._joinable.get(_equal(call)) if self._joins(call) else None
        return await self._start_or_join(call, equal, meter)

    async def start_or_join(self, call: Call) -> Started:
        """As `start`, but an equal call whose stream was never named to anyone is joined, not paid again.

        For clients that repeat a request because they were cut before they learnt its stream's id.
        """
        now = self._clock()
        meter = Meter(now)
        await self._learn(call.request.model, call.principal.grant)
        while self._unnamed and now - next(iter(self._unnamed.values()))[0] > self.settings.join_window:
            self._unnamed.popitem(last=False)
        _, equal = self._unnamed.get(_equal(call), (0.0, None))
        unnamed = None if equal is None or equal.holders else equal
        return await self._start_or_join(call, unnamed, meter, repeats=True)

    async def _start_or_join(
        self, call: Call, equal: Stream | None, meter: Meter, *, repeats: bool = False
    ) -> Started:
        try:
            started = await self._find_or_start(call, equal, meter, repeats=repeats)
        except PenstockError as error:
            if self._observe is not None:
                self._observe(CallRefused(subject_of(call), error.code, error.fault, error.status))
            raise
        if started.existing and self._observe is not None:
            self._observe(CallAccepted(subject_of(call, started.stream.id), existing=True))
        return started

    async def _find_or_start(
        self, call: Call, equal: Stream | None, meter: Meter, *, repeats: bool
    ) -> Started:
        if call.idempotency_key:
            if known := await self._by_key(call):
                return Started(known, existing=True)
        elif equal is not None and await self._born(equal):
            return Started(equal, existing=True)
        self._refuse_when_full()
        with self.setups.hold() as tenure:
            return await self._start(call, meter, tenure, repeats=repeats)

    async def _start(self, call: Call, meter: Meter, tenure: Tenure, *, repeats: bool) -> Started:
        setup = tenure.setup
        targets = setup.routing.route(call.request.model, self._listings.known, call.principal.grant)
        wall = self._wall()
        retention = self.settings.retention if call.ttl is None else call.ttl
        if call.at_rest == "none":
            retention = min(retention, self.settings.linger)
        stream_id = new_stream_id(now=wall)
        call = msgspec.structs.replace(call, input_tokens=estimate(call.request), stream=stream_id)
        info = StreamInfo(
            id=stream_id,
            principal=call.principal.id,
            created_at=wall,
            retention=min(retention, self.settings.max_retention),
            route=call.route,
            dialect=call.request.dialect,
            model=call.request.model,
            idempotency_key=call.idempotency_key,
            body_sha256=call.body_sha256,
            metadata=call.metadata,
            at_rest=call.at_rest,
            payer=payer_of(call),
        )
        kept = keep(call) if setup.routing.resumes(call.request.model) else ""
        stream = Stream(info, self.store.journal)
        # An equal call may find the stream before this one goes on: it must get this very object, since a
        # second one would never hear of a commit.
        self._streams[stream.id] = stream
        self._births[stream.id] = asyncio.get_running_loop().create_future()
        if self._joins(call):
            self._joinable[_equal(call)] = stream
        if repeats:
            self._unnamed[_equal(call)] = (self._clock(), stream)
            self._unnamed.move_to_end(_equal(call))
        held = Settlement(call.ids)
        try:
            # From here on equal calls find this one, so that of two that have to wait only one is let in.
            asked = self._clock()
            admitted = await setup.policy.admit(call)
            meter.queued(self._clock() - asked)
            held.add(admitted.settle)
            self._refuse_when_full()  # it may have waited
            targets = self._ordered(call, targets, setup.routing)
            kept_of = self._admitted(admitted, targets, setup.routing)
            stream.info = info = msgspec.structs.replace(info, admitted=kept_of)
            stored = msgspec.structs.replace(info, kept=kept) if kept else info
            stream.attach(await self.store.journal.create(stored, stream.committed_to))
        except KeyTaken as taken:  # somebody was quicker between the look-up and the creation
            held.settle(UNSTARTED)
            self._unmake(stream, call)
            return Started(self._same_request(call, taken.existing), existing=True)
        except BaseException:
            held.settle(UNSTARTED)
            self._unmake(stream, call)
            raise
        finally:
            self._births.pop(stream.id).set_result(None)
        self._launch(stream, admitted.call, targets, held, tenure, meter=meter, kept=kept != "")
        return Started(stream, existing=False)

    def _ordered(self, call: Call, targets: Sequence[Target], routing: Routing) -> Sequence[Target]:
        return ordered(targets, routing.balance.get(call.request.model, "order"), self.health)

    def _admitted(self, admission: Admission, targets: Sequence[Target], routing: Routing) -> Admitted:
        """Return what is kept of how a call was let in, and where it is to go."""
        call = admission.call
        names = tuple(target.name for target in targets)
        return Admitted(
            call.request_id,
            admission.decisions,
            names,
            routing.balance.get(call.request.model, "order"),
            tuple(name for name in names if not self.health.of(name).available) if len(names) > 1 else (),
            call.request.model in routing.hedged,
        )

    async def admit(self, call: Call) -> Admission:
        """Ask the policies for a call that is no generation; its end is to be told to what they return.

        Raises as they do, and `GatewayError` while the gateway takes no calls.
        """
        self._refuse_when_full()
        return await self.setup.policy.admit(call)

    def _joins(self, call: Call) -> bool:
        if call.join is not None:
            return call.join
        return any(fnmatchcase(call.request.model, pattern) for pattern in self.settings.join)

    def _unmake(self, stream: Stream, call: Call) -> None:
        """The stream's creation was not stored."""
        del self._streams[stream.id]
        self._join_no_more(stream, call)
        stream.abandon()

    def _join_no_more(self, stream: Stream, call: Call) -> None:
        if self._joinable.get(_equal(call)) is stream:
            del self._joinable[_equal(call)]

    async def _born(self, stream: Stream) -> bool:
        """Say whether ``stream`` can be joined, once its creation is stored."""
        if birth := self._births.get(stream.id):
            await asyncio.wait([birth])
        return not stream.lost

    def _refuse_when_full(self) -> None:
        if self.draining:
            raise GatewayError(
                "The gateway is shutting down. Try again shortly.",
                code="draining",
                status=503,
                retryable=True,
                retry_after=1,
            )
        if len(self._runs) >= self.settings.max_open_streams:
            raise GatewayError(
                "The gateway has as many open streams as it may. Try again shortly.",
                code="overloaded",
                status=503,
                retryable=True,
                retry_after=1,
            )

    async def _take_up(self, info: StreamInfo) -> None:
        """Go on with a stream that the last process left open, or see to its end. Never raises."""
        held = Settlement(_ids_of(info))
        try:
            async with self._looking:
                stream, call, inherited, step = await find_out(info, self.store.journal, self._wall())
            if step is Step.WHOLE:
                self._orphans.add(info.id, completed(inherited))
                return
            if step is not Step.END:
                with self.setups.hold() as tenure:
                    admitted = await tenure.setup.policy.admit(call)
                    held.add(admitted.settle)
                    await self._turnstile.turn()  # their providers get them one after the other
                    routing = tenure.setup.routing
                    targets = routing.route(call.request.model, self._listings.known)
                    targets = self._ordered(call, targets, routing)
                    stream.append(Seam("", "resumed", RESTART))
                    self._streams[stream.id] = stream
                    self._launch(stream, admitted.call, targets, held, tenure, kept=True, left=inherited)
                self._runs[stream.id].attendance.start_alone()
                log.info("taken_up", **_ids_of(info), step=step.name.lower(), entries=info.tail)
                return
        except asyncio.CancelledError:  # it is the next process's
            held.settle(UNSTARTED)
            raise
        except Exception as error:  # noqa: BLE001  one stream must not keep the gateway from starting
            held.settle(UNSTARTED)
            log.warning("not_taken_up", **_ids_of(info), error=repr(error))
        self._orphans.add(info.id, RESTARTED)

    def _launch(
        self,
        stream: Stream,
        call: Call,
        targets: Sequence[Target],
        held: Settlement,
        tenure: Tenure,
        *,
        meter: Meter | None = None,
        kept: bool = False,
        left: Inherited | None = None,
    ) -> None:
        setup = tenure.setup

        def prepare(request: GenerationRequest, target: Target) -> Conversation:
            return setup.providers[target.provider].converse(request, target.model)

        hedges = call.request.model in setup.routing.hedged
        signals = None
        if self._observe is not None:
            subject = subject_of(call, stream.id)
            signals = Signals(subject, self._observe, self._gaps_of, self._clock, self._parent_of)
            queued = meter.queued_ms if meter is not None else 0.0
            self._observe(CallAccepted(subject, queued, taken_up=left is not None))
        run = Run(
            stream,
            call,
            targets,
            prepare,
            self.settings.run,
            self.health,
            self._clock,
            hedges=hedges,
            filter=setup.policy.filter(call),
            review=setup.review(call),
            settle=held.settle,
            turn=self._turnstile.turn,
            asked_model=call.request.model if setup.routing.veils(call.request.model) else "",
            meter=meter,
            kept=kept,
            left=left,
            signals=signals,
        )
        self._runs[stream.id] = run
        run.task = self._group.create_task(run.main())
        # Not in `main`: a task that is cancelled before its first step never runs its body.
        leave = self.setups.take(tenure)
        run.task.add_done_callback(lambda _: self._settle(run, call, leave))

    def _settle(self, run: Run, call: Call, leave: Callable[[], None]) -> None:
        stream = run.stream
        run.release()
        leave()
        self._runs.pop(stream.id, None)
        self._characters += run.characters
        self._join_no_more(stream, call)
        if stream.is_open and not stream.lost:
            stream.follow(lambda _: self._forget(stream))
        else:
            self._forget(stream, orphaned=not run.handed_over)

    def _forget(self, stream: Stream, *, orphaned: bool = True) -> None:
        if stream.is_open and not stream.lost:
            return
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
            if stream.lost and orphaned:
                self._orphans.add(stream.id, UNSTORED, settled=True)
            closing = stream.closing
            log.info(
                "stream_closed",
                **_ids_of(stream.info),
                status="lost" if stream.lost else stream.state,
                code=closing.code if closing else "",
                model=stream.info.model,
                target=closing.target if closing else "",
                entries=stream.committed,
                ms=closing.timing.total_ms if closing and closing.timing else 0,
            )

    def _gaps_of(self, target: str) -> Buckets:
        found = self.gaps.get(target)
        if found is None:
            found = self.gaps[target] = Buckets()
        return found

    def _orphan_ended(self, bill: Bill, outcome: Outcome) -> None:
        self._on_orphan(bill, outcome)
        if self._observe is not None:
            payer = bill.payer
            subject = Subject(
                outcome.stream,
                bill.principal,
                bill.route,
                bill.model,
                key=payer.key,
                team=payer.team,
                preset=payer.preset,
            )
            self._observe(StreamEnded(subject, outcome, fault="gateway"))

    async def _by_key(self, call: Call) -> Stream | None:
        info = await self.store.catalogue.find_key(call.principal.id, call.idempotency_key)
        return self._same_request(call, info) if info else None

    def _same_request(self, call: Call, info: StreamInfo) -> Stream:
        if (info.route, info.body_sha256) != (call.route, call.body_sha256):
            raise ClientError(
                "This idempotency key was used for another request.",
                code="idempotency_key_reused",
                status=422,
            )
        return self._stream_of(info)

    # --- read ----------------------------------------------------------------------------------

    async def find(self, stream_id: str, principal: Principal) -> Stream:
        """Return the stream, open or closed, for reading by ``principal``.

        Raises `ClientError`: 404 `stream_not_found` when there is none or it is somebody else's,
        410 `stream_gone` when it was deleted or its retention ran out.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            info = await self.store.catalogue.find(stream_id)
            if info is not None and info.status is None and stream_id not in self._streams:
                # Its last entry may have been committed, and the stream forgotten here, meanwhile.
                info = await self.store.catalogue.find(stream_id)
            if info is None:
                if await self.store.catalogue.was_deleted(stream_id):
                    raise StreamGone
                raise ClientError("There is no such stream.", code="stream_not_found", status=404)
            if principal.may_use(info.principal, stream_id):
                return self._stream_of(info)
        elif principal.may_use(stream.info.principal, stream_id):
            return stream
        raise ClientError("There is no such stream.", code="stream_not_found", status=404)

    def _stream_of(self, info: StreamInfo) -> Stream:
        """Return the stream that a look-up found: ours if it was created here while that waited."""
        if stream := self._streams.get(info.id):
            return stream
        if info.status is None:
            raise StorageError("The stream has no writer at the moment. Try again shortly.")
        return Stream(info, self.store.journal)

    @property
    def characters(self) -> int:
        """Characters of output that were shown by all runs of this process."""
        return self._characters + sum(run.characters for run in self._runs.values())

    def glances(self, limit: int) -> list[Glance]:
        """Return how up to ``limit`` runs stand, the oldest first."""
        return [run.glance() for run in islice(self._runs.values(), limit)]

    def account(self, stream: Stream) -> Account | None:
        """Say how the run of ``stream`` goes; None where it has none in this process."""
        run = self._runs.get(stream.id)
        return run.account() if run is not None else None

    def attach_reader(self, stream: Stream, principal: Principal) -> Callable[[], None]:
        """Count a reader of ``stream``; call the result when it leaves, exactly once."""
        run = self._runs.get(stream.id)
        leave = _nothing
        if run is not None and stream.info.principal == principal.id:
            run.attendance.attach()
            leave = run.attendance.detach
        if (observe := self._observe) is None:
            return leave
        self._readers += 1
        joined = ReaderJoined(stream.id, self._readers, principal.id)
        observe(joined)

        def left() -> None:
            leave()
            observe(ReaderLeft(joined.stream, joined.reader, joined.principal))

        return left

    def leave_alone(self, stream: Stream) -> None:
        """The call that started ``stream`` will not read it (it was answered at once)."""
        if run := self._runs.get(stream.id):
            run.attendance.start_alone()

    async def list(self, principal: Principal, before: str, limit: int) -> Sequence[Stream]:
        """Return the principal's own streams, newest first, with ids below ``before`` (``""``: all).

        For looking at: of one that has lost its writer nothing more will be heard.
        """
        found = await self.store.catalogue.list(principal.id, before, limit)
        return [self._streams.get(info.id) or Stream(info, self.store.journal) for info in found]

    # --- cancel --------------------------------------------------------------------------------

    async def cancel(self, stream_id: str, principal: Principal) -> Stream:
        """Stop a generation; its provider's socket is closed when this returns.

        Idempotent: a closed stream is returned as it is. Raises as `find` does.
        """
        stream = await self.find(stream_id, principal)
        if run := self._runs.get(stream_id):
            run.cancel()
            await stream.wait_closed()
        return stream

    async def cancel_key(self, key: str, principal: Principal) -> Stream:
        """As `cancel`, for a stream that is known by its idempotency key only."""
        info = await self.store.catalogue.find_key(principal.id, key)
        if info is None:
            raise ClientError("No stream was created with this key.", code="stream_not_found", status=404)
        return await self.cancel(info.id, principal)

    async def erase(self, stream_id: str, principal: Principal) -> None:
        """Cancel the stream if it is open, and erase it; attached readers see its end.

        Raises as `find` does, and `StorageError` when it cannot be erased now.
        """
        stream = await self.cancel(stream_id, principal)
        if stream.is_open:
            raise StorageError("The stream cannot be erased while its end is not stored. Try again shortly.")
        await self.store.catalogue.delete(stream_id)

    # --- models, drain -------------------------------------------------------------------------

    async def models(self) -> Sequence[ModelInfo]:
        """Return what can be asked for: configured names, and what providers list, as they list it.

        A provider is asked again once its list is old, and left out while it cannot be reached. Nobody
        slow is waited for but the first time.
        """
        lists = await self._listings.at_hand(self._routing.providers)
        found = []
        for offer in self._routing.offers(lists):
            listed = lists.get(offer.provider, ModelList()).find(offer.model) or Model(offer.model)
            about = (listed.description, listed.created)
            found.append(ModelInfo(offer.name, offer.provider, *about, offer.aliases))
        return found

    def unknown_model(self, model: str, grant: Grant) -> ClientError:
        """Return the error for a name that `models` does not offer, as ``grant`` lets its bearer hear it."""
        return self._routing.unknown(model, self._listings.known, grant)

    async def _learn(self, model: str, grant: Grant) -> None:
        """Ask providers about ``model`` where the answer decides who is to answer.

        Not about a name that the configuration knows, nor for who may not use it anyway. One that a
        provider lists is so by a list that is not old; one that nobody lists takes the route of the rest at
        once, or is asked about.
        """
        routing = self._routing
        asked = routing.asked
        if not asked or routing.route_configured(model) or not grant.reaches_model(model):
            return
        rest = routing.route_rest(model)
        lists = await self._listings.at_hand(asked, patience=SOON if rest else None)
        if routing.route_listed(model, lists):
            await self._listings.fresh(asked)
        elif not rest:
            await self._listings.fresh(asked, NO_NEWS)

    @property
    def unready(self) -> str:
        """Why new calls are not taken; empty when they are."""
        if self.draining:
            return "draining"
        return "" if self.store.healthy else "storage_unavailable"

    async def drain(self, deadline: float) -> None:
        """Take no more calls; let runs end for up to ``deadline`` seconds, then interrupt them, or leave
        them to the next process where that goes on with them."""
        self.draining = True
        self.publications.leave()
        until = self._clock() + deadline
        while self._runs and (left := until - self._clock()) > 0:
            tasks = [run.task for run in self._runs.values() if run.task is not None]
            await asyncio.wait(tasks, timeout=left)
        self._stop_all()

    def _stop_all(self) -> None:
        for run in list(self._runs.values()):
            if run.kept:
                run.hand_over()
            else:
                run.interrupt("The gateway is shutting down.", "gateway_shutdown")


def _ids_of(info: StreamInfo) -> dict[str, str]:
    return ids(info.admitted.request_id if info.admitted else "", info.id)


def _equal(call: Call) -> Equal:
    return (call.principal.id, call.route, call.body_sha256)


def _nothing() -> None:
    return None
