"""Streams that are open and that nobody writes any more are closed, so that no reader waits for ever.

There are two ways to become one: the process before this one left it open, or its run gave up because
the store did (docs/architecture.md, section 2). Each is closed as `interrupted` with digests over
what is there, as soon as the store takes that; until then, whoever asks for it is told to come back.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from penstock.gateway.takeover import inherit
from penstock.streams.store import Store, StoreFailure, StreamInfo
from penstock.streams.stream import Stream
from penstock.types.calls import ids
from penstock.types.errors import LogDamaged, StorageError
from penstock.types.events import AnyEvent, Closed
from penstock.types.outcomes import Outcome
from penstock.types.usage import Bill

log = structlog.get_logger(__name__)

RETRY: Final = 1.0
"""Seconds until what the store refused is tried again."""

RESTARTED: Final = Closed(
    "interrupted",
    code="gateway_restarted",
    message="The gateway was restarted before this answer was complete.",
    fault="gateway",
    retryable=True,
)
UNSTORED: Final = Closed(
    "interrupted",
    code="storage_unavailable",
    message="The gateway could not store the rest of this answer.",
    fault="gateway",
    retryable=True,
)


class Orphans:
    """Streams that wait for their end. What is waiting is bounded by the store's open streams."""

    def __init__(self, store: Store, settle: Callable[[Bill, Outcome], None]) -> None:
        """Nothing waits yet. ``settle`` is told of those that nobody else settled."""
        self._store = store
        self._settle = settle
        self._settled: set[str] = set()
        self._waiting: dict[str, Closed] = {}
        self._some = asyncio.Event()

    def __repr__(self) -> str:
        """Say how many wait."""
        return f"<Orphans {len(self._waiting)} waiting>"

    def add(self, stream: str, end: Closed, *, settled: bool = False) -> None:
        """Close ``stream`` with ``end``. ``settled``: its run told already what was used."""
        self._waiting[stream] = end
        if settled:
            self._settled.add(stream)
        self._some.set()

    async def run(self) -> None:
        """Close what is added, until cancelled; what is left then is the next start's."""
        while True:
            await self._some.wait()
            try:
                await self.close_all()
            except StorageError:
                await asyncio.sleep(RETRY)

    async def close_all(self) -> None:
        """Close all that wait. Raises `StorageError` when that cannot be now; it can be tried again."""
        self._some.set()  # until all is done, also if this is cancelled
        count = 0
        while waiting := dict(self._waiting):
            # The ends of all first: they may then be stored together.
            closing = [await self._end(stream, end) for stream, end in waiting.items()]
            for stream, ended in zip(waiting, closing, strict=True):
                if ended is not None:
                    await ended.wait_closed()
                    if ended.is_open:
                        raise StorageError
                    count += 1
                del self._waiting[stream]
                self._settled.discard(stream)
        self._some.clear()
        if count:
            log.warning("orphans_closed", count=count)

    async def _end(self, stream: str, end: Closed) -> Stream | None:
        """Append ``end``; None when there is no such open stream, or none that can be read."""
        info = await self._store.catalogue.find(stream)
        if info is None or info.status is not None:
            return None
        orphan = Stream(info, self._store.journal)
        orphan.on_failure = lambda failure: _give_up(orphan, failure)
        orphan.attach(await self._store.journal.reopen(info, orphan.committed_to))
        events: list[AnyEvent] = []
        try:
            while entries := await orphan.read(len(events)):
                orphan.replay(entries)
                events += [entry.event for entry in entries]
        except LogDamaged as error:  # it stays open: an end with wrong digests would be a lie
            request_id = info.admitted.request_id if info.admitted else ""
            log.error("orphan_unreadable", **ids(request_id, stream), error=str(error))
            return None
        orphan.close(end)
        if stream not in self._settled:
            self._settled.add(stream)
            bill = Bill(info.principal, info.route, info.model, info.payer)
            self._settle(bill, outcome_of(info, events, end))
        return orphan


def outcome_of(info: StreamInfo, events: Sequence[AnyEvent], end: Closed) -> Outcome:
    """Return what a stream used whose run is gone, as far as its log of ``events`` tells."""
    uses = [
        use
        if use.usage.input_tokens
        else msgspec.structs.replace(
            use,
            usage=msgspec.structs.replace(use.usage, input_tokens=info.payer.input_tokens, estimated=True),
        )
        for use in inherit(events).uses
    ]
    return Outcome(
        end.status,
        info.id,
        end.code,
        tuple(uses),
        info.created_at,
        end.timing.total_ms if end.timing else 0.0,
    )


def _give_up(orphan: Stream, failure: StoreFailure | None) -> None:
    if failure is not None and failure.final:
        orphan.abandon()
