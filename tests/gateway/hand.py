"""Parts that a test plays by hand: sources that deliver when told, a store that commits when told.

They keep the protocols of `penstock.providers.provider` and `penstock.streams.store`, nothing is patched.
"""

import asyncio
import time
from types import MappingProxyType

import msgspec

from penstock.gateway.gateway import Gateway, GatewaySettings
from penstock.gateway.router import Routing
from penstock.gateway.run import RunSettings
from penstock.providers.provider import Conversation, Model, Target
from penstock.streams.store import TERMINAL, KeyTaken, Record, StoreFailure, terminal_status
from penstock.types.calls import Call
from penstock.types.errors import StorageError, UpstreamError, upstream_truncated
from penstock.types.events import Finished, Started, TextDelta, decode_line
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest, Message
from penstock.types.timers import Timers

ME = Principal("me")


class HandSource:
    """A source that notes what is asked of it. ``opening`` is awaited in `open`, with the source."""

    def __init__(self, opening=None):
        self.asked = []
        self.done = False
        self.sink = None
        self.opened = asyncio.Event()
        self._opening = opening

    @property
    def talks(self):
        """Whether it was opened and is not over."""
        return bool(self.asked) and "abort" not in self.asked and not self.done

    async def open(self, sink):
        self.asked.append("open")
        self.sink = sink
        self.opened.set()
        if self._opening is not None:
            await self._opening(self)

    def pause(self):
        self.asked.append("pause")

    def resume(self):
        self.asked.append("resume")

    def abort(self):
        self.asked.append("abort")

    def say(self, *texts):
        """One step with a delta for each of ``texts``."""
        self.sink.feed([TextDelta(text) for text in texts])

    def finish(self):
        """The whole end of an answer: a finish reason, then the end of the transport."""
        self.done = True
        self.sink.feed([Finished("stop")])
        self.sink.end()


class HandDecoder:
    """Takes lists of events, and raises what is an exception; finished after `Finished`."""

    finished = False

    def feed(self, data):
        if isinstance(data, Exception):
            raise data
        self.finished = self.finished or any(type(event) is Finished for event in data)
        return data

    def flush(self):
        if not self.finished:
            raise upstream_truncated()
        return ()


class PatientDecoder(HandDecoder):
    """Waits after a `Finished`, as for usage that may still come."""

    seen = False

    def feed(self, data):
        events = super().feed(data)
        self.seen, self.finished = self.seen or self.finished, False
        return events

    def flush(self):
        if not self.seen:
            raise upstream_truncated()
        return ()


class HandProvider:
    """Converses with the sources in ``next``, made on demand; keeps them all in ``sources``."""

    def __init__(self, name):
        self.name = name
        self.decoder = HandDecoder
        self.next = []
        self.sources = []
        self.requests = []
        self.listing = lambda: ["m"]

    def converse(self, request, model):
        source = self.next.pop(0) if self.next else HandSource()
        if isinstance(source, Exception):
            raise source
        self.sources.append(source)
        self.requests.append(request)
        return Conversation(source, self.decoder())

    async def models(self):
        listed = self.listing()
        names = await listed if asyncio.iscoroutine(listed) else listed
        return [name if isinstance(name, Model) else Model(name) for name in names]

    async def aclose(self):
        pass


class HandLog:
    def __init__(self, store, info, on_commit):
        self.store, self.info, self.on_commit = store, info, on_commit
        self.uncommitted = 0
        self.waiting = []

    def append_nowait(self, seq, kind, data):
        self.waiting.append(Record(seq, kind, data))
        self.uncommitted += len(data)
        if self.store.by_itself:
            asyncio.get_running_loop().call_soon(self.store.commit)

    def release_key(self):
        self.store.keys.pop((self.info.principal, self.info.idempotency_key), None)


class HandStore:
    """A store in memory that commits ``by_itself``, or when told. ``creating`` is awaited in `create`."""

    healthy = True
    secret = b"32 bytes that nobody would guess"

    def __init__(self, orphans=()):
        self.journal = self.catalogue = self
        self.by_itself = True
        self.logs, self.keys = {}, {}
        self.infos = {orphan.id: orphan for orphan in orphans}
        self.records = {orphan.id: [] for orphan in orphans}
        self.orphans = orphans
        self.creating = None
        self.failing = None

    async def open(self):
        self.infos.update({info.id: info for info in self.orphans})
        return self.orphans

    async def aclose(self):
        self.commit()

    def commit(self):
        """Commit what waits, or report ``failing``."""
        for log in list(self.logs.values()):
            if not log.waiting:
                continue
            records = self.records[log.info.id]
            if self.failing is not None:
                log.on_commit(len(records), self.failing)
                continue
            records += log.waiting
            log.waiting, log.uncommitted = [], 0
            last = records[-1]
            changes = {"tail": last.seq}
            if last.kind == TERMINAL:
                changes["status"] = terminal_status(last.data)
            self.infos[log.info.id] = msgspec.structs.replace(self.infos[log.info.id], **changes)
            log.on_commit(last.seq, None)

    def fail(self, *, final):
        """Report that the batch cannot be committed."""
        self.failing = StoreFailure("disk full", final)
        self.commit()

    def recover(self):
        self.failing = None
        self.commit()

    async def create(self, info, on_commit):
        if info.idempotency_key:
            key = (info.principal, info.idempotency_key)
            if key in self.keys:
                raise KeyTaken(self.infos[self.keys[key]])
            self.keys[key] = info.id
        if self.failing is not None:
            raise StorageError
        self.infos[info.id] = info
        self.records[info.id] = []
        self.logs[info.id] = HandLog(self, info, on_commit)
        await asyncio.sleep(0)
        if self.creating is not None:
            await self.creating()
        return self.logs[info.id]

    has_room = True

    async def wait_room(self):
        pass

    async def list(self, principal, before, limit):
        return ()

    async def reopen(self, info, on_commit):
        self.logs[info.id] = HandLog(self, info, on_commit)
        return self.logs[info.id]

    async def read(self, stream, after, limit):
        return self.records[stream][after : after + limit]

    async def find(self, stream):
        return self.infos.get(stream)

    async def find_key(self, principal, key):
        return self.infos.get(self.keys.get((principal, key)))

    async def was_deleted(self, stream):
        return stream == "gone"


PATIENT = Timers(first_output=0, stall=0, total=0)


class House(Gateway):
    """A gateway over parts played by hand; every model goes to provider ``a``, then ``b``."""

    def __init__(
        self,
        store=None,
        *,
        run=None,
        timers=PATIENT,
        target=MappingProxyType({}),
        hedged=(),
        resumed=(),
        policy=None,
        review=lambda _: None,
        on_orphan=None,
        observe=None,
        wall=time.time,
        **settings,
    ):
        self.a, self.b = HandProvider("a"), HandProvider("b")
        targets = tuple(Target(f"{name}/m", name, "m", timers=timers, **target) for name in "ab")
        loop = asyncio.get_running_loop()
        super().__init__(
            store or HandStore(),
            {"a": self.a, "b": self.b},
            Routing({"m": targets}, hedged=frozenset(hedged), resumed=frozenset(resumed)),
            GatewaySettings(run=run or RunSettings(), **settings),
            policy=policy,
            review=review,
            on_orphan=on_orphan or (lambda bill, outcome: None),
            observe=observe,
            clock=loop.time,
            wall=wall,
        )

    async def begin(self, content="hello", **more):
        """Start a call and wait until its first source is open; return the stream and the source."""
        stream = (await self.start(call(content, **more))).stream
        await turns()
        return stream, self.a.sources[-1]


def call(content="hello", n=1, **more):
    request = GenerationRequest("m", (Message("user", content),), n=n)
    return Call(**{"principal": ME, "route": "r", "request": request, "body_sha256": content, **more})


async def turns(count=5):
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def logged(store, stream):
    """The events of a stream that are committed."""
    return [decode_line(record.data) for record in store.records[stream.id]]


def texts(store, stream):
    return [event.delta for event in logged(store, stream) if type(event) is TextDelta]


STARTED = Started("m")
BROKEN = UpstreamError("It broke.", code="upstream_error")
