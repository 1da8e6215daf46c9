"""Publications as the command line has them: written so that each append is there once, read to any end.

What is sent bears a producer's number, so that it can be sent again when its answer was lost, and is
not there twice; this goes on over a restart of the gateway. Reading asks for page after page, which wait
for what is new where there is nothing; so content is exact, whatever it is. Bounded: a page, a batch.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from penstock.client.connection import Connection, Lost, Refused
from penstock.wire.durable_streams import CLOSED, CURSOR, KEEP, NEXT_OFFSET, TTL, UP_TO_DATE

BATCH: Final = 1 << 20
"""Bytes that are sent at once, and that wait to be sent, about."""

READ: Final = 256 * 1024
"""Bytes that are read at a time."""


PAUSE: Final = 0.5
"""Seconds without input after which the rest of it is not waited for, when asked to leave."""


class About(NamedTuple):
    """What a gateway says of a publication. ``size``: bytes of content."""

    content_type: str
    offset: str
    size: int
    closed: bool
    digest: str


def address_of_path(path: str) -> str:
    """Return the path in a URL of the publication at ``path``."""
    return f"/v1/stream/{quote(path)}"


async def about(connection: Connection, path: str, on_lost: Callable[[Lost], None] | None = None) -> About:
    """Return what is known of a publication; with ``on_lost``, also wait for a gateway that is not there.

    Raises `Refused`, `Unreachable`.
    """
    # Not HEAD, whose refusals have no words.
    query = {"offset": "now", **_token(connection)}
    reply = await connection.ask(
        "GET", address_of_path(path), query=query, on_lost=on_lost, insist=on_lost is not None
    )
    offset = reply.headers.get(NEXT_OFFSET, "")
    size = offset.partition("_")[2]
    if not size.isdecimal():
        message = "There is a server, but it does not answer as a Penstock gateway does."
        raise Refused(reply.status, "", message)
    return About(
        reply.headers.get("content-type", ""),
        offset,
        int(size),
        reply.headers.get(CLOSED) == "true",
        reply.headers.get("repr-digest", ""),
    )


async def kept(connection: Connection, path: str) -> tuple[int | None, int | None]:
    """Return for how long a publication stays (`TTL`), and how much of it (`KEEP`). Raises as `about`."""
    headers = (await connection.ask("HEAD", address_of_path(path))).headers
    ttl, keep = headers.get(TTL), headers.get(KEEP)
    return int(ttl) if ttl else None, int(keep) if keep else None


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.split(";")[0].strip().lower()


def _token(connection: Connection) -> dict[str, str]:
    token = connection.address.token
    return {"token": token} if token else {}


class Writer(NamedTuple):
    """By what the gateway knows again what one writer sent: a producer, its epoch, its next number."""

    producer: str
    epoch: int = 0
    seq: int = 0


def new_writer() -> Writer:
    """Return one that never wrote anything."""
    return Writer(f"penstock-{secrets.token_hex(8)}")


class Publisher:
    """The writer of one publication. ``writer`` says what comes next."""

    def __init__(
        self,
        connection: Connection,
        path: str,
        content_type: str,
        on_lost: Callable[[Lost], None],
        writer: Writer | None = None,
    ) -> None:
        """``on_lost`` hears of each try that came to nothing. ``writer``: one that is to be gone on with."""
        self._connection = connection
        self._url = address_of_path(path)
        self._content_type = content_type
        self._on_lost = on_lost
        self.writer = writer or new_writer()

    async def create(self, ttl: int | None = None, keep: int | None = None) -> None:
        """Make the publication. Raises `Refused` when there is one that is not as this one is to be."""
        headers = {"content-type": self._content_type}
        if ttl is not None:
            headers[TTL] = str(ttl)
        if keep is not None:
            headers[KEEP] = str(keep)
        await self._connection.ask("PUT", self._url, headers=headers, on_lost=self._on_lost, insist=True)

    def begin_anew(self) -> None:
        """Number what comes from 0 again, in a new epoch: nothing of it is taken for what was sent before."""
        self.writer = Writer(self.writer.producer, self.writer.epoch + 1)

    async def append(self, content: bytes, *, upto: int | None = None) -> None:
        """Append ``content``, once; return when it is stored. Raises `Refused`, `Unreachable`.

        ``upto``: so many bytes are there with it, which no two writers can say of different content.
        """
        headers = {"content-type": self._content_type}
        if upto is not None:
            headers["stream-seq"] = f"{upto:016d}"
        await self._send(content, headers)

    async def close(self, digest: str = "") -> None:
        """Say that nothing will follow. ``digest``: of the whole content."""
        headers = {CLOSED: "true"}
        if digest:
            headers["repr-digest"] = digest
        await self._send(b"", headers)

    async def _send(self, content: bytes, headers: dict[str, str]) -> None:
        producer, epoch, seq = self.writer
        headers |= {"producer-id": producer, "producer-epoch": str(epoch), "producer-seq": str(seq)}
        await self._connection.ask(
            "POST", self._url, content=content, headers=headers, on_lost=self._on_lost, insist=True
        )
        self.writer = Writer(producer, epoch, seq + 1)


def as_messages(lines: bytes) -> bytes:
    """Return lines, each of which is a message, as one append of them; nothing for empty ones."""
    messages = [line for line in lines.split(b"\n") if line.strip()]
    return b"[" + b",".join(messages) + b"]" if messages else b""


# --- what is to be published ---------------------------------------------------------------------------


class Cutter(Protocol):
    """Decides what of the bytes at hand can be sent now."""

    def __call__(self, data: bytearray, *, at_end: bool) -> int:
        """Return how many bytes; 0 to wait for more."""
        ...


def any_bytes(data: bytearray, *, at_end: bool) -> int:
    """Send what there is."""
    return min(len(data), BATCH)


def whole_lines(data: bytearray, *, at_end: bool) -> int:
    """Send whole lines; of one that is longer than a batch, a batch."""
    end = data.rfind(b"\n", 0, BATCH) + 1
    if not end and (at_end or len(data) >= BATCH):
        return min(len(data), BATCH)
    return min(len(data), BATCH) if at_end and len(data) <= BATCH else end


class Source:
    """A file descriptor, read as bytes come, so that what waits here is bounded."""

    def __init__(self, fd: int) -> None:
        """A pipe, a terminal, or a file."""
        self._fd = fd
        self._waits = True
        self._waiting: asyncio.Future[bool] | None = None
        self._leaving = False
        self.ended = False

    def leave(self) -> None:
        """Read what comes without a pause, and nothing after that."""
        self._leaving = True
        if self._waiting is not None:
            asyncio.get_running_loop().call_later(PAUSE, _settle, self._waiting, False)

    async def read(self) -> bytes:
        """Return what there is, once there is some; empty at the end (``ended``), or when leaving."""
        if self._waits and not await self._is_ready():
            return b""
        await asyncio.sleep(0)
        piece = os.read(self._fd, READ)
        self.ended = not piece
        return piece

    async def _is_ready(self) -> bool:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[bool] = loop.create_future()
        self._waiting = ready
        try:
            loop.add_reader(self._fd, _settle, ready, True)
        except PermissionError:  # a file: it is always ready
            self._waits, self._waiting = False, None
            return True
        if self._leaving:
            self.leave()
        try:
            return await ready
        finally:
            loop.remove_reader(self._fd)
            self._waiting = None


def _settle(waiting: asyncio.Future[bool], is_ready: bool) -> None:
    if not waiting.done():
        waiting.set_result(is_ready)


class Batches:
    """What comes, a batch at a time: while one is being sent, the next gathers, within a bound."""

    def __init__(self, source: Source, cut: Cutter) -> None:
        """``gather`` has to run beside."""
        self._source = source
        self._cut = cut
        self._data = bytearray()
        self._ended = False
        self._some = asyncio.Event()
        self._room = asyncio.Event()

    async def gather(self) -> None:
        """Read to the end."""
        while piece := await self._source.read():
            self._data += piece
            self._some.set()
            while len(self._data) >= BATCH:
                self._room.clear()
                await self._room.wait()
        self._ended = True
        self._some.set()

    async def take(self) -> bytes:
        """Return the next batch, once there is one; empty at the end."""
        while not (size := self._cut(self._data, at_end=self._ended)):
            if self._ended:
                return b""
            self._some.clear()
            await self._some.wait()
        batch = bytes(self._data[:size])
        del self._data[:size]
        self._room.set()
        return batch


# --- reading -------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """Content, and where it ends. ``closed``: nothing follows; ``at_tail``: nothing follows yet.

    ``gap``: what was to be read before it is gone.
    """

    content: bytes
    offset: str
    at_tail: bool
    closed: bool
    gap: bool = False


async def pages(
    connection: Connection, path: str, offset: str, on_lost: Callable[[Lost], None]
) -> AsyncGenerator[Page, None]:
    """Yield content after ``offset`` as it comes, to the end, from a gateway that was there.

    Raises `Refused`, `Unreachable`.
    """
    url, cursor, gap = address_of_path(path), "", False
    while True:
        query = {"offset": offset, "live": "long-poll", **_token(connection)}
        if cursor:
            query["cursor"] = cursor
        try:
            reply = await connection.ask("GET", url, query=query, on_lost=on_lost, insist=True)
        except Refused as refused:
            if refused.code != "offset_gone" or gap:
                raise
            offset, gap = "-1", True  # the earliest there is
            continue
        offset = reply.headers.get(NEXT_OFFSET, offset)
        cursor = reply.headers.get(CURSOR, "")
        at_tail = UP_TO_DATE in reply.headers
        page = Page(reply.body, offset, at_tail, reply.headers.get(CLOSED) == "true", gap)
        gap = False
        yield page
        if page.closed:
            return
