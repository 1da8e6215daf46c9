"""A publication: what it is to be, what is stored of it, and what is known while it is there.

Values and one object, in no relation to each other; `penstock.gateway.publications` has them all.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import msgspec

from penstock.gateway.writers import Writers
from penstock.streams.parcels import ByteStream, Mark, Part
from penstock.types.errors import ClientError

MAX_PATH: Final = 512


class Fork(msgspec.Struct, frozen=True):
    """What a publication was forked from, as its creator said it: None for what was not said."""

    path: str
    offset: Mark | None = None
    sub_offset: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """What a publication is to be. ``content_type`` is empty for that of what it is forked from.

    ``ttl``: seconds without a read or a write after which it goes; ``expires_at``: Unix seconds at which
    it does. ``keep``: bytes that it keeps, the newest ones; all if it is None.
    """

    content_type: str
    closed: bool = False
    ttl: int | None = None
    expires_at: float | None = None
    fork: Fork | None = None
    keep: int | None = None


class Config(msgspec.Struct, frozen=True):
    """What is stored of a publication beside its content. ``ttl`` and ``expires_at`` may be inherited."""

    owner: str
    path: str
    wanted: Wanted
    content_type: str
    ttl: int | None = None
    expires_at: float | None = None
    source: str = ""
    parts: tuple[Part, ...] = ()
    inherited: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Whose it is, and where."""
        return (self.owner, self.path)

    @property
    def sources(self) -> Sequence[str]:
        """The streams that must not go before this one, the nearest first."""
        nearest = (self.source,) if self.source else ()
        return list(dict.fromkeys((*nearest, *(part.stream for part in reversed(self.parts)))))


class StreamClosed(ClientError):
    """What was appended came too late."""

    def __init__(self, mark: Mark, epoch: int) -> None:
        """409, with where the stream ends."""
        super().__init__("The stream is closed.", code="stream_closed", status=409)
        self.mark = mark
        self.epoch = epoch


class Appended(NamedTuple):
    """What became of an append. ``seq``: the last number of its producer that is there."""

    mark: Mark
    closed: bool
    duplicate: bool = False
    seq: int | None = None


class Publication:
    """One of them. ``stream`` is None until somebody wants it.

    ``complete``: where the last of its entries begins whose note says all there is to know of its writers,
    if it was written by this process. ``forks``: how many began, or are just about to begin, with what is in
    it. ``trimming`` is held while its oldest bytes go.
    """

    __slots__ = (
        "closed",
        "complete",
        "config",
        "created_at",
        "deleted",
        "digest",
        "forks",
        "id",
        "loading",
        "readers",
        "size",
        "stream",
        "trimming",
        "used_at",
        "writers",
    )

    def __init__(self, id: str, config: Config, now: float) -> None:
        """``now`` is Unix time."""
        self.id = id
        self.config = config
        self.stream: ByteStream | None = None
        self.writers = Writers()
        self.closed = False
        self.complete: Mark | None = None
        self.created_at = now
        self.digest = ""
        self.deleted = False
        self.forks = 0
        self.readers = 0
        self.used_at = now
        self.size = 0
        self.loading: asyncio.Future[None] | None = None
        self.trimming = asyncio.Lock()

    def __repr__(self) -> str:
        """Say which; no content."""
        return f"<Publication {self.id} {self.stream!r}>"

    @property
    def open(self) -> ByteStream:
        """The stream, which is there for whom `Publications.find` gave this."""
        assert self.stream is not None
        return self.stream

    def attach(self) -> Callable[[], None]:
        """Count a reader, while which it does not go by disuse; call the result once when it leaves."""
        self.readers += 1

        def left() -> None:
            self.readers -= 1

        return left

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[None]:
        """Keep what is in it from being trimmed and erased; a trimming that has begun ends first."""
        self.forks += 1
        try:
            async with self.trimming:
                pass
            yield
        finally:
            self.forks -= 1


def check_path(path: str) -> str:
    """Return ``path`` if a publication can be there; raises `ClientError` 400 `invalid_path`."""
    names = path.split("/")
    if (
        not path.isprintable()
        or len(path.encode("utf-8", "replace")) > MAX_PATH
        or any(name in ("", ".", "..") for name in names)
        or names[0].startswith("__")
    ):
        raise ClientError(
            f"A path has names divided by slashes, {MAX_PATH} bytes in all, of printable characters; "
            "none is empty, '.' or '..', and the first does not begin with '__'.",
            code="invalid_path",
            param="path",
        )
    return path


def content_type_mismatch(wanted: str) -> ClientError:
    """Return the error for content of another kind than the stream's."""
    message = f"The Content-Type of this stream is '{wanted[:100]}'."
    return ClientError(message, code="content_type_mismatch", status=409, param="Content-Type")
