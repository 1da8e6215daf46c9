"""gzip for what is no stream: lists, descriptions, the pages and their parts.

A stream is never compressed: a compressor holds tokens back. Nor is what came to a POST, so that a secret in
an answer never shares a compressor with what a stranger had written into the question. Only answers that are
written in one piece are looked at; whoever sends in pieces is left alone.
"""

import asyncio
import gzip
import re
from collections import OrderedDict
from typing import Final

from starlette.types import Message, Scope, Send

from penstock.server.downstream import Headers

MIN_BYTES: Final = 1_024
"""Below that a packet is a packet."""

INLINE_BYTES: Final = 64 << 10
"""More is compressed in a thread: 64 KiB take a millisecond."""

KEPT: Final = 64
"""Files whose compressed form is kept, by their ETag: the pages have about fifty."""

LEVEL: Final = 6

_TYPES: Final = re.compile(rb"text/(?!event-stream)|application/(json|javascript)\b|image/svg\+xml")
_ACCEPTED: Final = re.compile(
    r"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q=(?!0(?:\.0{0,3})?\s*(?:,|$))[0-9.]+\s*)?(?:,|$)"
)


class Compression:
    """See the module's head; holds the compressed files."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    def around(self, scope: Scope, send: Send) -> Send:
        """Return a ``send`` that compresses where the client takes it; ``send`` itself where it does not."""
        if scope["method"] not in ("GET", "HEAD"):
            return send
        if not _takes_gzip(scope):
            return _varying(send)
        start: Message | None = None

        async def compressed(message: Message) -> None:
            nonlocal start
            if start is None:
                if message["type"] != "http.response.start" or not _may_be(message):
                    await send(message)
                    return
                start = message
                return
            head, start = start, {"type": "done"}
            if head["type"] == "done":
                await send(message)
                return
            body: bytes = message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                if len(body) >= MIN_BYTES:
                    head, body = await self._squeeze(head, body)
                message = {**message, "body": body}
            await send(head)
            await send(message)

        return compressed

    async def _squeeze(self, head: Message, body: bytes) -> tuple[Message, bytes]:
        headers: Headers = head["headers"]
        tag = next((value for name, value in headers if name == b"etag"), b"")
        squeezed = self._kept.get(tag) if tag else None
        if squeezed is None:
            if len(body) > INLINE_BYTES:
                squeezed = await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)
            else:
                squeezed = gzip.compress(body, LEVEL, mtime=0)
            if tag:
                self._kept[tag] = squeezed
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        kept = [pair for pair in _varied(headers) if pair[0] != b"content-length"]
        kept += [(b"content-length", b"%d" % len(squeezed)), (b"content-encoding", b"gzip")]
        return {**head, "headers": kept}, squeezed


def _varied(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return ``headers``, and that the answer depends on what the client takes."""
    kept = [(bytes(name), value) for name, value in headers if name != b"vary"]
    said = [value for name, value in headers if name == b"vary"]
    return [*kept, (b"vary", b", ".join([*said, b"accept-encoding"]))]


def _varying(send: Send) -> Send:
    """Return a ``send`` that says of what would be compressed for others that it would be."""

    async def varying(message: Message) -> None:
        if message["type"] == "http.response.start" and _may_be(message):
            message = {**message, "headers": _varied(message["headers"])}
        await send(message)

    return varying


def _takes_gzip(scope: Scope) -> bool:
    said = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    return bool(said) and _ACCEPTED.search(said[:1_000].decode("latin-1").lower()) is not None


def _may_be(start: Message) -> bool:
    """Say whether the answer that begins so is of a kind that is compressed."""
    if start["status"] != 200:
        return False
    found = {}
    for name, value in start["headers"]:
        found[bytes(name)] = value
    if not found.get(b"etag", b"W/").startswith(b"W/"):  # a strong one is of these very bytes
        return False
    if b"content-encoding" in found or int(found.get(b"content-length", b"0")) < MIN_BYTES:
        return False
    return _TYPES.match(found.get(b"content-type", b"")) is not None
