"""What may go of a publication that keeps its newest bytes only. Reads from the log, and changes nothing.

Nothing but the log says where which byte is, so that this costs no memory and holds over restarts: the
entry where the newest bytes begin is searched for, which takes some twenty reads however long the log is.
"""

from typing import Final

from penstock.streams.parcels import ByteStream, Trimmed, decode_parcel

SLACK: Final = 256 * 1024
"""Bytes beyond those to be kept that gather before some go; an eighth of what is kept where that is more."""


def slack(keep: int) -> int:
    """Return how many bytes more than ``keep`` are no reason to do anything."""
    return max(SLACK, keep // 8)


def too_many(held: int, keep: int) -> bool:
    """Say whether it is time to let some of ``held`` bytes go."""
    return held > keep + slack(keep)


async def horizon(stream: ByteStream, keep: int) -> int:
    """Return after how many entries at the most the newest ``keep`` bytes begin.

    Raises `StorageError`, `LogDamaged`.
    """
    tail = stream.tail
    low, high = await entries_gone(stream), tail.entries
    while low < high:  # up to `low` entries may go, beyond `high` none
        middle = (low + high + 1) // 2
        if tail.bytes - await _bytes_up_to(stream, middle) >= keep:
            low = middle
        else:
            high = middle - 1
    return low


async def bytes_gone(stream: ByteStream) -> int:
    """Return how many bytes of content there were before those that there are. Raises as `horizon`."""
    before = await entries_gone(stream)
    if before >= stream.tail.entries:
        return stream.tail.bytes
    (entry,) = await stream.read(before, 1)
    parcel = decode_parcel(entry.line)
    return parcel.end - len(parcel.content)


async def entries_gone(stream: ByteStream) -> int:
    """Return how many entries are gone."""
    try:
        await stream.read(stream.base, 1)
    except Trimmed as trimmed:
        return trimmed.earliest - 1
    return stream.base


async def _bytes_up_to(stream: ByteStream, entries: int) -> int:
    (entry,) = await stream.read(entries - 1, 1)
    return decode_parcel(entry.line).end
