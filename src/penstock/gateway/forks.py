"""What a fork begins with: a place in another publication, and whose entries come before it.

Plain functions and reads from the log. That what is read here stays as it is, neither trimmed nor erased
before the fork is made, is up to whoever calls (`Publication.pinned`).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.gateway.pieces import beginning, mode_of
from penstock.gateway.publication import Config, Publication
from penstock.streams.parcels import LAST, MORE, ByteStream, Mark, Part, Piece, Trimmed, decode_parcel
from penstock.types.errors import ClientError

MAX_FORK_DEPTH: Final = 16
"""Forks of forks."""


def bad_fork(message: str) -> ClientError:
    """Return the error for what cannot be forked so."""
    return ClientError(message, code="invalid_fork", param="Stream-Fork-Offset")


def parts_before(source: Publication, at: Mark) -> tuple[Part, ...]:
    """Return whose entries a fork of ``source`` at ``at`` begins with. Raises `ClientError`."""
    parts, base = source.config.parts, source.open.base
    if len(parts) >= MAX_FORK_DEPTH:
        raise bad_fork(f"A fork of a fork may be {MAX_FORK_DEPTH} deep, not deeper.")
    inherited = tuple(
        msgspec.structs.replace(part, upto=min(part.upto, at.entries))
        for part in parts
        if part.offset < at.entries
    )
    return (*inherited, Part(source.id, base, at.entries)) if at.entries > base else inherited


async def check_place(stream: ByteStream, at: Mark, config: Config) -> None:
    """See that ``at`` is a place that the stream has, at the end of something.

    Raises `ClientError` `invalid_fork`, `StorageError`, `LogDamaged`.
    """
    if at.entries > stream.tail.entries:
        raise bad_fork("Stream-Fork-Offset lies beyond the end of that stream.")
    if not at.entries:
        return
    try:
        found = await stream.read(at.entries - 1, 1)
    except Trimmed:
        found = []
    if not found:
        raise bad_fork("What that stream had up to Stream-Fork-Offset is gone: fork it further on.")
    parcel = decode_parcel(found[0].line)
    if parcel.end != at.bytes or (mode_of(config.content_type) == "json" and not parcel.flags & LAST):
        raise bad_fork("Stream-Fork-Offset is no offset of that stream.")


async def begun(stream: ByteStream, at: Mark, config: Config, count: int) -> Sequence[Piece]:
    """Return the first ``count`` messages, or bytes, of what was appended at ``at``.

    Raises `ClientError` `invalid_fork`, `StorageError`, `LogDamaged`.
    """
    parcels: list[tuple[int, bytes]] = []
    after, more = at.entries, True
    while more and after < stream.tail.entries:
        try:
            entries = await stream.read(after)
        except Trimmed:
            break
        for entry in entries:
            parcel = decode_parcel(entry.line)
            parcels.append((parcel.flags, parcel.content))
            after, more = entry.seq, bool(parcel.flags & MORE)
            if not more:
                break
    pieces = beginning(parcels, mode_of(config.content_type), count)
    if pieces is None:
        raise bad_fork("Stream-Fork-Sub-Offset lies beyond the append that it is to cut.")
    return pieces
