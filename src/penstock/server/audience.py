"""Who reads which stream at the moment, and how far each has come: for those who explain and watch.

A seat is taken when a reader comes and given back when it leaves; nothing is done in between. Where a
reader stands is asked of it only when somebody wants to know. As many seats as connections (and rids of
WebSockets) at most. Readers of publications, and polls, have none.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from penstock.streams.stream import Stream
from penstock.types.explanations import ReaderSeen
from penstock.types.positions import Cursor
from penstock.types.principals import Principal

MAX_SEEN: Final = 1_000
"""Readers of one stream that are told of."""


class Seat(NamedTuple):
    """One reader's. ``position`` says how many entries it has."""

    number: int
    stream: Stream
    principal: Principal
    format: str
    position: Callable[[], int]
    since: float


class Audience:
    """See the module's head."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody is there."""
        self._clock = clock
        self._seats: dict[str, dict[int, Seat]] = {}
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        """Say how many read how many streams."""
        return f"<Audience {self.readers} readers of {len(self._seats)} streams>"

    @property
    def readers(self) -> int:
        """How many there are."""
        return sum(map(len, self._seats.values()))

    def enter(self, stream: Stream, principal: Principal, format: str, position: Callable[[], int]) -> Seat:
        """A reader came; give its seat to `leave` when it goes."""
        seat = Seat(next(self._numbers), stream, principal, format, position, self._clock())
        self._seats.setdefault(stream.id, {})[seat.number] = seat
        return seat

    def leave(self, seat: Seat) -> None:
        """The reader left."""
        seats = self._seats.get(seat.stream.id)
        if seats is not None and seats.pop(seat.number, None) is not None and not seats:
            del self._seats[seat.stream.id]

    def of(self, stream: Stream) -> tuple[ReaderSeen, ...]:
        """Return who reads ``stream``, the first that came first."""
        now = self._clock()
        seats = itertools.islice(self._seats.get(stream.id, {}).values(), MAX_SEEN)
        return tuple(_seen(seat, now) for seat in seats)

    def lags(self, stream: str) -> tuple[int, int]:
        """Return how many read the stream, and how far the last of them lags."""
        seats = self._seats.get(stream, {})
        return len(seats), max(
            (seat.stream.committed - seat.position() for seat in seats.values()), default=0
        )

    def standing(self) -> tuple[int, int]:
        """Return how many read anything, and how far the last of all lags."""
        count = lag = 0
        for seats in self._seats.values():
            count += len(seats)
            for seat in seats.values():
                lag = max(lag, seat.stream.committed - seat.position())
        return count, lag

    def __iter__(self) -> Iterator[Seat]:
        """Yield all seats."""
        for seats in list(self._seats.values()):
            yield from list(seats.values())


def _seen(seat: Seat, now: float) -> ReaderSeen:
    stream, entries = seat.stream, seat.position()
    return ReaderSeen(
        "a link" if seat.principal.stream else seat.principal.id,
        seat.format,
        str(Cursor(stream.id, stream.position(entries))),
        entries,
        max(0, stream.committed - entries),
        round((now - seat.since) * 1000, 3),
    )
