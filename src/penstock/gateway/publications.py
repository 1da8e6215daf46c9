"""Publications: streams that writers outside fill with bytes, under paths of their own.

A principal owns what it publishes; nobody else sees it. All publications are in memory by owner and
path, since there is a bound to their number; their content is in the store like any stream's. To the
catalogue they belong to one owner, `OWNER`, with owner and path as the idempotency key: that makes a
path unique there too, and finds all of them again after a restart. They stay open over restarts: their
writer is whoever sends the next append. It knows neither HTTP nor what the bytes mean.

A publication that others were forked from is *deleted* first and erased when the last fork is: until
then its path stays taken.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal

import msgspec
import structlog

from penstock.gateway.forks import bad_fork, begun, check_place, parts_before
from penstock.gateway.pieces import media_type
from penstock.gateway.publication import (
    Appended,
    Config,
    Fork,
    Publication,
    StreamClosed,
    Wanted,
    content_type_mismatch,
)
from penstock.gateway.trimming import bytes_gone, horizon, slack, too_many
from penstock.gateway.writers import Producer, Writers
from penstock.streams.parcels import ByteStream, Mark, Piece
from penstock.streams.store import Store, StoreFailure, StreamInfo
from penstock.types.calls import AtRest
from penstock.types.errors import ClientError, GatewayError, PenstockError, StorageError, StreamGone
from penstock.types.events import Status
from penstock.types.positions import new_stream_id
from penstock.types.principals import Principal

log = structlog.get_logger(__name__)

OWNER: Final = "\x1fpublications"
"""Whose the publications are to the catalogue: no principal's name."""

FOREVER: Final = 1e12
"""Seconds of retention in the store: when they go is decided here."""

ROOM_PATIENCE: Final = 30.0
"""Seconds that an append waits for the store to keep up."""

SWEEP: Final = 1.0
LOAD: Final = 500


class PublicationSettings(msgspec.Struct, frozen=True):
    """Bounds of publications. Bytes and seconds.

    ``retention``: from the end of one on, or from its last use where that is later; 0 for no end.
    """

    max_stream_bytes: int = 4 << 30
    max_bytes: int = 5 << 30
    max_streams: int = 10_000
    max_streams_per_owner: int = 2_000
    retention: float = 30 * 86_400.0
    at_rest: AtRest | Literal[""] = ""


class Publications:
    """All of them. Open it once the store is."""

    def __init__(
        self, store: Store, settings: PublicationSettings, *, wall: Callable[[], float] = time.time
    ) -> None:
        """``wall`` is Unix time in seconds."""
        self.settings = settings
        self._store = store
        self._wall = wall
        self._by_path: dict[tuple[str, str], Publication] = {}
        self._by_id: dict[str, Publication] = {}
        self._busy: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._size = 0
        self._some = asyncio.Event()
        self._leaving = False

    def __repr__(self) -> str:
        """Say how many there are, and how large."""
        return f"<Publications {len(self._by_id)}, {self._size} bytes>"

    # --- life cycle ---------------------------------------------------------------------------

    async def open(self) -> None:
        """Find what there is in the store. Raises `StorageError`."""
        before = ""
        while found := await self._store.catalogue.list(OWNER, before, LOAD):
            for info in found:
                self._load(info)
            before = found[-1].id
        for publication in self._by_id.values():
            self._count_fork(publication.config, 1)

    def _load(self, info: StreamInfo) -> None:
        try:
            config = msgspec.json.decode((info.metadata or {})["publication"], type=Config)
        except (KeyError, ValueError) as error:
            log.error("publication_unreadable", stream=info.id, error=str(error))
            return
        publication = Publication(info.id, config, self._wall())
        publication.size = info.bytes
        publication.created_at = info.created_at
        publication.closed = info.status is not None
        self._size += info.bytes
        self._by_id[info.id] = publication
        self._some.set()
        # One that is deleted gave its path away in the store, but keeps it here while it has forks.
        publication.deleted = not info.idempotency_key or info.status not in (None, "completed")
        known = self._by_path.get(config.key)
        if known is None or known.deleted:
            self._by_path[config.key] = publication

    async def run(self) -> None:
        """Erase what is due, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(SWEEP)
            await self.sweep()

    async def sweep(self) -> None:
        """Erase what is due now; what cannot be is left for the next time."""
        for publication in [p for p in self._by_id.values() if self._is_due(p)]:
            try:
                await self._remove(publication, "expired")
            except PenstockError as error:
                log.info("publication_not_erased", stream=publication.id, error=repr(error))
        for publication in [p for p in self._by_id.values() if self._has_too_much(p)]:
            try:
                await self._trim(publication)
            except PenstockError as error:
                log.info("publication_not_trimmed", stream=publication.id, error=repr(error))

    def _has_too_much(self, publication: Publication) -> bool:
        keep = publication.config.wanted.keep
        if keep is None or publication.deleted or publication.forks:  # forks begin with what is there
            return False
        return too_many(publication.size, keep) and (publication.closed or publication.complete is not None)

    async def _trim(self, publication: Publication) -> None:
        """Let the oldest bytes go, in whole groups of entries, as the store has them."""
        keep, stream = publication.config.wanted.keep, await self._warm(publication)
        if keep is None:
            return
        async with publication.trimming:
            upto = await horizon(stream, keep)
            if stream.is_open:  # what is known of its writers must be found again
                upto = min(upto, publication.complete.entries if publication.complete else 0)
            if publication.forks or upto <= 0 or not await self._store.journal.trim(stream.id, upto):
                return
        gone = await bytes_gone(stream)
        if publication.id not in self._by_id:  # erased meanwhile
            return
        size = stream.end - gone  # with what was appended meanwhile
        self._size += size - publication.size
        publication.size = size

    def leave(self) -> None:
        """Take no more appends, and let the readers go, who come back to whoever is here then."""
        self._leaving = True
        for publication in self._by_id.values():
            if publication.stream is not None and publication.stream.is_open:
                publication.stream.abandon()

    # --- create -------------------------------------------------------------------------------

    async def create(
        self, principal: Principal, path: str, wanted: Wanted, pieces: Sequence[Piece]
    ) -> tuple[Publication, bool]:
        """Return the publication at ``path``, and whether it was made now, with ``pieces`` in it.

        One that is there has to be as ``wanted`` says. Raises `ClientError` (409 `stream_exists`,
        `stream_deleted`, 404 and 400 for what cannot be forked, 403 and 413 for too many or too much)
        and `StorageError`.
        """
        self._refuse_when_leaving()
        key = (principal.id, path)
        async with self._alone(key):
            if (known := self._by_path.get(key)) and not await self._gone(known):
                if known.deleted:
                    raise _deleted()
                return await self._same(known, wanted), False
            self._refuse_when_full(principal)
            async with self._configured(principal, path, wanted) as (config, first):
                publication = await self._made(config, [*first, *pieces])
            return publication, True

    async def _made(self, config: Config, pieces: Sequence[Piece]) -> Publication:
        self._refuse_when_large(0, sum(len(piece.content) for piece in pieces))
        now = self._wall()
        info = StreamInfo(
            id=new_stream_id(now=now),
            principal=OWNER,
            created_at=now,
            retention=FOREVER,
            route="publications",
            idempotency_key="\x1f".join(config.key),
            metadata={"publication": msgspec.json.encode(config).decode()},
            at_rest=self.settings.at_rest,
            epoch=await self._epoch_of(config),
        )
        publication = Publication(info.id, config, now)
        stream = ByteStream(info, self._store.journal, config.parts, config.inherited)
        stream.on_failure = lambda failure: self._failed(publication, failure)
        stream.attach(await self._store.journal.create(info, stream.committed_to))
        publication.stream = stream
        self._by_path[config.key] = self._by_id[info.id] = publication
        self._some.set()
        self._count_fork(config, 1)
        if pieces:
            self._write(publication, pieces, None, "")
        if config.wanted.closed:
            stream.finish("completed")
            publication.closed = True
        await self._stored(publication)
        return publication

    async def _same(self, known: Publication, wanted: Wanted) -> Publication:
        stream = await self._warm(known)
        await stream.wait_beyond(stream.appended - 1)
        made = known.config.wanted
        alike = wanted.closed == (not stream.is_open) and (
            not wanted.content_type
            or media_type(wanted.content_type) == media_type(known.config.content_type)
        )
        rest = msgspec.structs.replace(wanted, content_type=made.content_type, closed=made.closed)
        if not alike or rest != made:
            message = "There is a stream at this path already, and it is not as this one is to be."
            raise ClientError(message, code="stream_exists", status=409)
        return known

    @asynccontextmanager
    async def _configured(
        self, principal: Principal, path: str, wanted: Wanted
    ) -> AsyncIterator[tuple[Config, Sequence[Piece]]]:
        """Give what is to be stored, and what a fork in the middle of an append has of that append.

        Meanwhile what is to be forked stays as it is.
        """
        if wanted.fork is None:
            content_type = wanted.content_type or "application/octet-stream"
            yield Config(principal.id, path, wanted, content_type, wanted.ttl, wanted.expires_at), ()
            return
        if wanted.keep is not None:
            raise bad_fork("A fork keeps all it has: Stream-Keep-Bytes is for streams of their own.")
        source = self._by_path.get((principal.id, wanted.fork.path))
        if source is not None and source.deleted:
            raise _deleted()
        if source is None or await self._gone(source):
            message = "There is no such stream to fork."
            raise ClientError(message, code="stream_not_found", status=404, param="Stream-Forked-From")
        async with source.pinned():
            yield await self._forked(principal, path, wanted, wanted.fork, source)

    async def _forked(
        self, principal: Principal, path: str, wanted: Wanted, fork: Fork, source: Publication
    ) -> tuple[Config, Sequence[Piece]]:
        stream = await self._warm(source)
        content_type = wanted.content_type or source.config.content_type
        if media_type(content_type) != media_type(source.config.content_type):
            raise content_type_mismatch(source.config.content_type)
        at = fork.offset or stream.tail
        await check_place(stream, at, source.config)
        parts = parts_before(source, at)
        first: Sequence[Piece] = ()
        if fork.sub_offset:
            first = await begun(stream, at, source.config, fork.sub_offset)
        ttl, expires_at = wanted.ttl, wanted.expires_at
        if ttl is None and expires_at is None:
            ttl, expires_at = source.config.ttl, source.config.expires_at
        config = Config(
            principal.id,
            path,
            wanted,
            source.config.content_type,
            ttl,
            expires_at,
            source.id,
            parts,
            at.bytes,
        )
        return config, first

    async def _epoch_of(self, config: Config) -> int:
        """Return the epoch under which a fork's positions go on."""
        if not config.parts:
            return 0
        source = self._by_id.get(config.parts[-1].stream)
        return source.open.info.epoch if source and source.stream else 0

    # --- find ---------------------------------------------------------------------------------

    async def find(self, principal: Principal, path: str, *, use: bool = True) -> Publication:
        """Return the publication with its stream, for reading and writing by ``principal``.

        ``use``: this keeps one from going that goes by disuse. Raises `ClientError` (404, 410) and
        `StorageError`.
        """
        publication = self._by_path.get((principal.id, path))
        if publication is None or await self._gone(publication):
            raise ClientError("There is no such stream.", code="stream_not_found", status=404)
        if publication.deleted:
            raise StreamGone
        if use:
            publication.used_at = self._wall()
        await self._warm(publication)
        return publication

    def owned(self, principal: Principal, stream: str) -> Publication | None:
        """Return the publication that is the stream with this id, if it is the principal's."""
        found = self._by_id.get(stream)
        return found if found is not None and found.config.owner == principal.id else None

    async def find_linked(self, stream: str) -> Publication:
        """As `find`, by the id of its stream, for whoever has a link to it."""
        if (publication := self._by_id.get(stream)) is None:
            raise ClientError("There is no such stream.", code="stream_not_found", status=404)
        owner, path = publication.config.key
        if (found := await self.find(Principal(owner), path)) is not publication:
            raise StreamGone
        return found

    def list(self, principal: Principal, prefix: str, after: str, limit: int) -> Sequence[Publication]:
        """Return the principal's own, by path, those behind ``after`` whose paths begin with ``prefix``."""
        own = sorted(
            path
            for (owner, path), publication in self._by_path.items()
            if owner == principal.id and path > after and path.startswith(prefix) and not publication.deleted
        )
        return [self._by_path[principal.id, path] for path in own[:limit]]

    async def _warm(self, publication: Publication) -> ByteStream:
        """Return the publication's stream, with its writer's end while it is open."""
        while (stream := publication.stream) is None or stream.lost:
            if self._leaving:
                raise _leaving()
            if publication.loading is not None:
                await asyncio.wait([publication.loading])
                continue
            publication.loading = asyncio.get_running_loop().create_future()
            try:
                await self._wake(publication)
            finally:
                publication.loading.set_result(None)
                publication.loading = None
        return stream

    async def _wake(self, publication: Publication) -> None:
        info = await self._store.catalogue.find(publication.id)
        if info is None:  # too much was stored, and it was among the oldest
            self._forget(publication)
            raise StreamGone
        config = publication.config
        stream = ByteStream(info, self._store.journal, config.parts, config.inherited)
        stream.on_failure = lambda failure: self._failed(publication, failure)
        if info.status is None:
            stream.attach(await self._store.journal.reopen(info, stream.committed_to))
        parcels, end = await stream.restore()
        writers = Writers()
        writers.restore(parcels, end)
        publication.stream, publication.writers = stream, writers
        publication.closed, publication.digest = end is not None, end.digest if end else ""

    def _failed(self, publication: Publication, failure: StoreFailure | None) -> None:
        """The store gave up: what was appended and not committed is gone, and who waits is told."""
        if failure is not None and failure.final and publication.stream is not None:
            publication.stream.abandon()

    # --- append -------------------------------------------------------------------------------

    async def append(
        self,
        publication: Publication,
        pieces: Sequence[Piece],
        *,
        producer: Producer | None = None,
        stream_seq: str = "",
        close: bool = False,
        digest: str = "",
    ) -> Appended:
        """Append ``pieces`` and, with ``close``, the end; return once that is committed.

        What a producer sent before is not appended again. Raises `ClientError` (`StreamClosed`, those of
        `Writers`, 413 `stream_full`), `GatewayError` and `StorageError`.
        """
        self._refuse_when_leaving()
        stream = await self._warm(publication)
        if not self._store.has_room:
            await self._wait_for_room()
            stream = await self._warm(publication)
        publication.used_at = self._wall()
        # From here to the append nothing waits: what is decided holds.
        writers = publication.writers
        if producer is not None and (seq := writers.duplicate_of(producer)) is not None:
            await self._stored(publication)
            return Appended(stream.tail, not stream.is_open, duplicate=True, seq=seq)
        if stream.closing is not None or not stream.is_open:
            await self._stored(publication)
            if close and not pieces and producer is None:
                return Appended(stream.tail, closed=True)
            raise StreamClosed(stream.tail, stream.info.epoch)
        writers.check(producer, stream_seq)
        size = sum(len(piece.content) for piece in pieces)
        self._refuse_when_large(
            stream.end if publication.config.wanted.keep is None else publication.size, size
        )
        note = ""
        if pieces:
            mark = self._write(publication, pieces, producer, stream_seq)
        else:
            mark = Mark(stream.appended, stream.end)
            note = writers.accept(producer, stream_seq, 1).decode()
        if close:
            stream.finish("completed", note, digest)
            publication.closed, publication.digest = True, digest
        await self._stored(publication)
        return Appended(mark, close, seq=producer.seq if producer else None)

    def _write(
        self, publication: Publication, pieces: Sequence[Piece], producer: Producer | None, stream_seq: str
    ) -> Mark:
        keep, here = publication.config.wanted.keep, Mark(publication.open.appended, publication.open.end)
        since = here.bytes - publication.complete.bytes if publication.complete is not None else 0
        if keep is not None and since >= slack(keep):
            # Nothing goes from a complete note on: so there has to be one among the newest bytes.
            publication.writers.want_complete()
        complete = publication.writers.wants_complete
        if complete:
            publication.complete = here
        note = publication.writers.accept(producer, stream_seq, len(pieces))
        size = sum(len(piece.content) for piece in pieces)
        publication.size += size
        self._size += size
        return publication.open.write(pieces, note, complete=complete)

    async def _stored(self, publication: Publication) -> None:
        """Return once what is appended is committed. Raises `StorageError` when it cannot be."""
        stream = publication.open
        await stream.wait_beyond(stream.appended - 1)
        if stream.lost:
            raise _leaving() if self._leaving else StorageError()

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(ROOM_PATIENCE):
                await self._store.wait_room()
        except TimeoutError:
            raise StorageError from None

    # --- erase --------------------------------------------------------------------------------

    async def erase(self, publication: Publication) -> None:
        """Erase a publication, or what can be seen of it while it has forks; readers see its end.

        Raises `ClientError` 410 when it is deleted already, and `StorageError`.
        """
        async with self._alone(publication.config.key):
            if publication.deleted or publication.id not in self._by_id:
                raise StreamGone
            await self._remove(publication, "cancelled")

    async def _remove(self, publication: Publication, status: Status) -> None:
        if not publication.deleted:
            stream = await self._warm(publication)
            if stream.is_open and stream.closing is None:
                stream.finish(status)
                await self._stored(publication)
            publication.deleted = True
        if publication.forks:
            await self._store.catalogue.release_key(publication.id)
            return
        await self._store.catalogue.delete(publication.id)
        self._forget(publication)
        for stream_id in publication.config.sources:
            source = self._by_id.get(stream_id)
            if source is not None and source.deleted and not source.forks:
                await self._remove(source, status)

    def _forget(self, publication: Publication) -> None:
        if self._by_id.pop(publication.id, None) is None:
            return
        self._size -= publication.size
        if not self._by_id:
            self._some.clear()
        if self._by_path.get(publication.config.key) is publication:
            del self._by_path[publication.config.key]
        self._count_fork(publication.config, -1)

    def _count_fork(self, config: Config, change: int) -> None:
        for stream in config.sources:
            if source := self._by_id.get(stream):
                source.forks += change

    async def _gone(self, publication: Publication) -> bool:
        """Say whether there is nothing at its path any more; what is due goes now."""
        if self._is_due(publication):
            await self._remove(publication, "expired")
        return publication.id not in self._by_id

    def _is_due(self, publication: Publication) -> bool:
        if publication.deleted:
            return not publication.forks
        now, config = self._wall(), publication.config
        if config.expires_at is not None and now >= config.expires_at:
            return True
        if publication.readers:
            publication.used_at = now
        unused = now - publication.used_at
        if config.ttl is not None and unused >= config.ttl:
            return True
        return bool(self.settings.retention) and publication.closed and unused >= self.settings.retention

    # --- inner workings -----------------------------------------------------------------------

    @asynccontextmanager
    async def _alone(self, key: tuple[str, str]) -> AsyncIterator[None]:
        """Be the only one that makes or unmakes what is at a path."""
        while busy := self._busy.get(key):
            await asyncio.wait([busy])
        done = self._busy[key] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._busy[key]
            done.set_result(None)

    def _refuse_when_leaving(self) -> None:
        if self._leaving:
            raise _leaving()

    def _refuse_when_full(self, principal: Principal) -> None:
        own = sum(publication.config.owner == principal.id for publication in self._by_id.values())
        settings = self.settings
        if own >= settings.max_streams_per_owner or len(self._by_id) >= settings.max_streams:
            message = "There are as many streams as there may be. Delete some that are not needed any more."
            raise ClientError(message, code="too_many_streams", status=403)

    def _refuse_when_large(self, held: int, more: int) -> None:
        settings = self.settings
        if held + more > settings.max_stream_bytes:
            message = f"A stream may have {settings.max_stream_bytes} bytes; this would be more."
            raise ClientError(message, code="stream_full", status=413)
        if self._size + more > settings.max_bytes:
            message = "All streams together have as many bytes as they may. Delete some first."
            raise ClientError(message, code="stream_full", status=413)


def _deleted() -> ClientError:
    message = "The stream was deleted, but its path is not free before those forked from it are deleted too."
    return ClientError(message, code="stream_deleted", status=409)


def _leaving() -> GatewayError:
    return GatewayError(
        "The gateway is shutting down. Try again shortly.",
        code="draining",
        status=503,
        retryable=True,
        retry_after=1,
    )
