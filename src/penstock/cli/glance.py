"""A gateway at a glance: what its feed of activity says, as lines of a terminal. Pure.

What the feed has and this does not know is left alone, and what it lacks is shown as nothing: the gateway may
be older or newer than the command.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.cli.output import harmless

BARS: Final = " ▁▂▃▄▅▆▇█"

SPARK: Final = 60
"""Seconds of tokens that are drawn."""

HEAD: Final = 4
"""Lines above the tables."""

GROWING: Final = frozenset({"MODEL", "TARGET", "WHOSE"})
"""Columns with names that may be long."""

MAX_TARGETS: Final = 8
MAX_LAST: Final = 5
MAX_NOTED: Final = 100


class Point(msgspec.Struct, frozen=True):
    """A second: what there is, and what happened in it."""

    open: int = 0
    readers: int = 0
    lag: int = 0
    started: float = 0.0
    ended: float = 0.0
    failed: float = 0.0
    tokens: float = 0.0
    first50: float | None = None
    first95: float | None = None
    gap50: float | None = None
    gap99: float | None = None


class Target(msgspec.Struct, frozen=True):
    """How a target stands."""

    name: str = ""
    state: str = ""
    running: int = 0
    first50: float = 0.0
    first95: float = 0.0
    attempts: int = 0
    failed: int = 0


class Row(msgspec.Struct, frozen=True):
    """A stream that goes on."""

    id: str = ""
    principal: str = ""
    model: str = ""
    target: str = ""
    attempts: int = 0
    doing: str = ""
    entries: int = 0
    age: float = 0.0
    silent: float = 0.0
    readers: int = 0
    lag: int = 0


class Last(msgspec.Struct, frozen=True):
    """A stream that ended, or something that happened."""

    at: float = 0.0
    status: str = ""
    kind: str = ""
    code: str = ""
    model: str = ""
    target: str = ""
    stream: str = ""
    id: str = ""


class Frame(msgspec.Struct, frozen=True):
    """One frame of the feed."""

    point: Point = Point()
    totals: dict[str, Any] = {}
    targets: list[Target] = []
    streams: list[Row] = []
    more: int = 0
    ended: list[Last] = []
    happened: list[Last] = []
    unready: str = ""


class History:
    """What was seen so far."""

    def __init__(self) -> None:
        """Nothing."""
        self.frame: Frame | None = None
        self.tokens: deque[float] = deque(maxlen=SPARK)
        self.last: deque[Last] = deque(maxlen=MAX_LAST)
        self._noted: deque[Last] = deque(maxlen=MAX_NOTED)

    def begin(self, told: dict[str, Any]) -> None:
        """Take what the feed begins with: what went wrong lately."""
        found = msgspec.convert(
            {"ended": told.get("ended") or [], "happened": told.get("happened") or []}, Frame
        )
        self.last.clear()
        self._noted.clear()
        self._note(found)

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        self.frame = frame
        self.tokens.append(frame.point.tokens)
        self._note(frame)

    def _note(self, frame: Frame) -> None:
        wrong = [one for one in frame.ended if one.status not in ("completed", "cancelled")]
        for one in sorted([*wrong, *frame.happened], key=lambda one: one.at):
            if one not in self._noted:  # the first frame says again what the feed began with
                self._noted.append(one)
                self.last.append(one)


def picture(history: History, base: str, now: str, trouble: str, width: int, height: int) -> RenderableType:
    """Return what is shown in ``width`` columns; ``height`` 0 is for as many lines as it takes."""
    frame = history.frame or Frame()
    state = trouble or (f"not ready: {frame.unready}" if frame.unready else "ready")
    style = "green" if state == "ready" else "bold red"
    head = Text.assemble(
        ("penstock", "bold"), f"  {base.partition('://')[2]}  {now}  ", (harmless(state), style)
    )
    targets, rows, last = _fitting(frame, list(history.last), height)
    parts: list[RenderableType] = [head, *_figures(frame, history.tokens), Text()]
    if targets:
        parts += [_targets(targets), Text()]
    parts.append(_streams(rows))
    if more := len(frame.streams) - len(rows) + frame.more:
        parts.append(Text(f"and {more} more", style="dim"))
    if last:
        parts += [Text(), *(_line(one) for one in reversed(last))]
    for part in parts:
        if isinstance(part, Text):
            part.truncate(width, overflow="ellipsis")
            part.no_wrap = True
    return Group(*parts)


def _fitting(
    frame: Frame, last: list[Last], height: int
) -> tuple[Sequence[Target], Sequence[Row], Sequence[Last]]:
    """Return what of targets, streams and happenings there is room for in ``height`` lines; 0 for all."""
    if not height:
        return frame.targets[:MAX_TARGETS], frame.streams, last
    room = height - HEAD - 2  # the names of the streams' columns, and how many more there are
    last = last[-max(1, room // 5) :]
    targets = frame.targets[: min(MAX_TARGETS, max(1, room // 3 - 2))]
    left = room - (len(targets) + 2 if targets else 0) - (len(last) + 1 if last else 0)
    return targets, frame.streams[: max(1, left)], last


def _figures(frame: Frame, tokens: Sequence[float]) -> list[RenderableType]:
    point = frame.point
    failed = ("bold red" if point.failed else "", f"{point.failed:g}")
    cost = frame.totals.get("cost_usd")
    first = Text.assemble(
        f"streams {point.open}   readers {point.readers}   started {point.started:g}/s   "
        f"ended {point.ended:g}/s   failed ",
        (failed[1], failed[0]),
        f"/s   tokens {point.tokens:,.0f}/s ",
        (sparkline(tokens), "cyan"),
    )
    second = Text(
        f"first output {milliseconds(point.first50)} (95 %: {milliseconds(point.first95)})   "
        f"gaps {milliseconds(point.gap50)} (99 %: {milliseconds(point.gap99)})"
        + (f"   spent {cost:,.2f} USD" if isinstance(cost, int | float) and cost else "")
    )
    return [first, second]


def sparkline(values: Sequence[float]) -> str:
    """Return ``values`` as a row of bars."""
    most = max(values, default=0.0)
    return "".join(BARS[round(value / most * (len(BARS) - 1))] for value in values) if most else ""


def milliseconds(value: float | None) -> str:
    """Return a time as people read it."""
    if value is None:
        return "–"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms"


def seconds(value: float) -> str:
    """Return an age."""
    if value < 100:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.0f} h"


def _table(*names: tuple[str, int]) -> Table:
    """Return a table without rows. A column is as wide as said, to the right where that is negative; those in
    `GROWING` share what is left."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name, width in names:
        least = max(len(name), abs(width))
        side: JustifyMethod = "right" if width < 0 else "left"
        most = None if name in GROWING else least
        table.add_column(
            name, justify=side, min_width=least, max_width=most, no_wrap=True, overflow="ellipsis"
        )
    return table


def _cell(text: str) -> Text:
    return Text(harmless(text))  # not a string: that may have markup in it


def _targets(targets: Sequence[Target]) -> Table:
    table = _table(
        *(("TARGET", 12), ("BREAKER", 9), ("RUNNING", -7), ("FIRST", -7), ("95 %", -7)),
        *(("ATTEMPTS", -10), ("FAILED", -8)),
    )
    for one in targets:
        style = {"open": "bold red", "half_open": "yellow"}.get(one.state, "")
        table.add_row(
            _cell(one.name),
            Text(harmless(one.state), style=style),
            str(one.running),
            milliseconds(one.first50 or None),
            milliseconds(one.first95 or None),
            f"{one.attempts:,}",
            Text(f"{one.failed:,}", style="red" if one.failed else ""),
        )
    return table


def _streams(rows: Sequence[Row]) -> Table:
    table = _table(
        *(("STREAM", 9), ("AGE", -6), ("MODEL", 12), ("TARGET", 12), ("TRY", -3), ("DOING", 9)),
        *(("ENTRIES", -7), ("SILENT", -6), ("READERS", -7), ("LAG", -5), ("WHOSE", 8)),
    )
    for one in rows:
        table.add_row(
            _cell(f"…{one.id[-8:]}"),
            seconds(one.age),
            _cell(one.model),
            _cell(one.target),
            str(one.attempts),
            _cell(one.doing),
            f"{one.entries:,}",
            Text(seconds(one.silent), style="yellow" if one.silent >= 10 else ""),
            str(one.readers),
            str(one.lag),
            _cell(one.principal),
        )
    return table


def _line(one: Last) -> Text:
    what = one.status or one.kind.replace("_", " ")
    parts = [what, one.code, one.model, one.target, (one.id or one.stream)[-8:]]
    return Text(" · ".join(harmless(part) for part in parts if part), style="dim")
