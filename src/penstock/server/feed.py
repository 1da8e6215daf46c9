"""The dashboard's feed: a bounded stream of our own, in memory, to which a frame is appended each second.

It is read as streams are: over SSE, from a cursor on, then live. A cursor is ``activity~<epoch>_<number>``;
the epoch is the process's. Whoever comes without one, or with one whose frames are gone, is first given
`history`: the last hour and all that frames only add to. In the second case a `gap` says so before.

Frames are made by whoever waits for the next one, so that none is made where nobody watches. The rows of
streams in them are the oldest ones'; a watcher that asks for others is given those in the newest frame, and
none in the frames that it missed.
"""

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from penstock.gateway.gateway import Gateway
from penstock.server.activity import (
    HISTORY_EVERY,
    HISTORY_POINTS,
    Activity,
    Mark,
    Point,
    Sampler,
    targets,
)
from penstock.server.audience import Audience
from penstock.server.roster import OLDEST, Roster, Wanted, roster
from penstock.types.usage import Sum
from penstock.wire import sse

FRAME_EVERY: Final = 1.0
MAX_FRAMES: Final = 120
MAX_BYTES: Final = 4 << 20
"""What is kept for watchers that come back: frames, and their bytes."""

SPEND_EVERY: Final = 15.0
SPEND_OF: Final = 86_400.0
MAX_SPENDERS: Final = 8
"""How often sums are asked of the ledger while somebody watches, over how many seconds, and how many."""

MAX_WATCHERS: Final = 64

LATELY: Final = 60.0
"""Seconds that count as lately."""

STRIP: Final = 60
"""Frames of which is kept how many characters each stream of the rows had, for who opens the dashboard."""

_CURSOR: Final = re.compile(r"activity~([0-9]{1,12})_([0-9]{1,12})")
_encode = msgspec.json.Encoder().encode


class Frame(NamedTuple):
    """One entry of the feed: an object without, and one with nothing but, the rows of streams."""

    number: int
    data: bytes
    rows: bytes


class Feed:
    """See the module's head."""

    def __init__(self, gateway: Gateway, audience: Audience, activity: Activity) -> None:
        """No frame was made yet."""
        self.epoch = int(activity.since)
        self.watchers = 0
        self.number = 0
        self.activity = activity
        self._gateway = gateway
        self._audience = audience
        self._history: deque[Point] = deque(maxlen=HISTORY_POINTS)
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._slow = Sampler(gateway, audience, activity)
        self._fast = Sampler(gateway, audience, activity)
        self._marks: deque[Mark] = deque([self._slow.mark], maxlen=int(LATELY / HISTORY_EVERY))
        self._strips: dict[str, deque[int]] = {}
        self._rows: dict[Wanted, bytes] = {}
        self._kept_at = self._made_at = activity.clock()
        self._told = (0, 0)
        self._spend: dict[str, Any] | None = None
        self._spend_new = False
        self._spend_at = float("-inf")

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"<Feed {self.number} frames, {self.watchers} watchers>"

    @property
    def over(self) -> bool:
        """Whether nothing more is to come: the gateway leaves, and nothing goes on."""
        return self._gateway.draining and not self._gateway.open_streams

    # --- making ------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Keep a point of the history, if it is time. Called by the server's heart."""
        now = self.activity.clock()
        if now - self._kept_at >= HISTORY_EVERY:
            self._kept_at = now
            self._history.append(self._slow.point())
            self._marks.append(self._slow.mark)

    def watch(self) -> None:
        """Somebody watches from now on."""
        if not self.watchers:  # what is between was not of a second
            self._fast.point()
            if self.due_in <= 0:
                self._strips.clear()
            self._made_at = self.activity.clock()
        self.watchers += 1

    def unwatch(self) -> None:
        """Somebody watches no more."""
        self.watchers -= 1

    @property
    def due_in(self) -> float:
        """Seconds until the next frame is to be made."""
        return max(0.0, self._made_at + FRAME_EVERY - self.activity.clock())

    def make(self) -> None:
        """Append a frame, if it is time."""
        if self.due_in > 0:
            return
        self._made_at = self.activity.clock()
        found = roster(self._gateway, self._audience)
        self._strips = {
            row["id"]: self._strips.get(row["id"]) or deque(maxlen=STRIP) for row in found.streams
        }
        for row in found.streams:
            self._strips[row["id"]].append(row["characters"])
        self._append(self._frame(), found)

    def _frame(self) -> dict[str, Any]:
        activity = self.activity
        ended, happened = self._told
        self._told = (activity.ended_count, activity.happened_count)
        frame = {
            "point": self._fast.point(),
            "totals": activity.totals(),
            "lately": self._fast.lately(self._marks[0]),
            "targets": targets(self._gateway, activity),
            "ended": _last(activity.last_ended, activity.ended_count - ended),
            "happened": _last(activity.happened, activity.happened_count - happened),
            "unready": self._gateway.unready,
            "watchers": self.watchers,
        }
        if self._spend_new:
            self._spend_new = False
            frame["spend"] = self._spend
        return frame

    def _append(self, frame: dict[str, Any], found: Roster) -> None:
        self.number += 1
        made = Frame(self.number, _encode(frame), _encode(found._asdict()))
        self._rows = {OLDEST: made.rows}
        self._frames.append(made)
        self._bytes += len(made.data) + len(made.rows)
        while len(self._frames) > MAX_FRAMES or (self._bytes > MAX_BYTES and len(self._frames) > 1):
            gone = self._frames.popleft()
            self._bytes -= len(gone.data) + len(gone.rows)

    # --- spend: asked by whoever waits, at most so often ---------------------------------------------

    def spend_is_due(self) -> bool:
        """Say whether the ledger is to be asked; then whoever asked this does it."""
        now = self.activity.clock()
        if now - self._spend_at < SPEND_EVERY:
            return False
        self._spend_at = now
        return True

    def spent(self, by_key: Sequence[Sum], by_model: Sequence[Sum]) -> None:
        """Take what the ledger said into the next frame."""
        self._spend = {
            "hours": SPEND_OF / 3600,
            "key": [one.body() for one in by_key[:MAX_SPENDERS]],
            "model": [one.body() for one in by_model[:MAX_SPENDERS]],
        }
        self._spend_new = True

    # --- reading -----------------------------------------------------------------------------------

    def opening(self, cursor: str) -> tuple[bytes, int]:
        """Return what a reader with ``cursor`` is given first, and the number of the last frame it has."""
        found = _CURSOR.fullmatch(cursor)
        if found is not None and int(found[1]) == self.epoch and self.holds(int(found[2])):
            return b"", int(found[2])
        gap = b""
        if found is not None:
            gap = sse.encode(_encode({"requested": cursor, "earliest": self.cursor()}), event=b"gap")
        return gap + self._told_so_far(), self.number

    def holds(self, number: int) -> bool:
        """Say whether all frames after the one with ``number`` are there."""
        first = self._frames[0].number if self._frames else self.number + 1
        return first - 1 <= number <= self.number

    def _told_so_far(self) -> bytes:
        activity = self.activity
        ended, happened = self._told  # the next frame brings what came since
        body = {
            "points": list(self._history),
            "every": HISTORY_EVERY,
            "totals": activity.totals(),
            "ended": _before(activity.last_ended, activity.ended_count - ended),
            "happened": _before(activity.happened, activity.happened_count - happened),
            "spend": self._spend,
            "strips": {name: list(strip) for name, strip in self._strips.items()},
        }
        return sse.encode(_encode(body), event=b"history", id=self.cursor().encode())

    def cursor(self, number: int | None = None) -> str:
        """Return the cursor after a frame; the last, if none is named."""
        return f"activity~{self.epoch}_{self.number if number is None else number}"

    def after(self, number: int) -> list[Frame]:
        """Return the frames after the one with ``number``."""
        return [frame for frame in self._frames if frame.number > number]

    def event(self, frame: Frame, asked: Wanted = OLDEST) -> bytes:
        """Return ``frame`` as it is sent to who wants to see these streams."""
        rows = frame.rows if asked == OLDEST else b""
        if not rows and frame.number == self.number:
            if (known := self._rows.get(asked)) is None:
                found = roster(self._gateway, self._audience, asked)
                known = self._rows[asked] = _encode(found._asdict())
            rows = known
        data = frame.data[:-1] + b"," + rows[1:] if rows else frame.data
        return sse.encode(data, event=b"frame", id=self.cursor(frame.number).encode())


def _last(kept: deque[Any], count: int) -> list[Any]:
    return list(kept)[-count:] if count > 0 else []


def _before(kept: deque[Any], count: int) -> list[Any]:
    return list(kept)[: max(0, len(kept) - count)]
