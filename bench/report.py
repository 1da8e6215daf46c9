"""What the figures say: windows put together, objections, verdicts, the table.

Pure; nothing in here measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

from bench.histogram import Histogram

MAX_OWN_SHARE = 0.85  # of a core, for the load generator and for the upstream
MAX_SHARED_SHARE = 0.95  # of the core that both run on
MAX_SEND_LATE_MS = 5.0  # the upstream's own lateness, p99
MAX_OTHERS_SHARE = 0.10  # of a core, taken by what is not part of the measurement

REFERENCE_STREAMS = 500


@dataclass(frozen=True)
class Window:
    """One measured window of one system; shares are of one core, times in the unit of their name."""

    system: str
    streams: int
    tls: bool
    round: int
    seconds: float
    tokens: int
    reads: int
    cpu_s: float
    latency: Histogram
    first_chunk: Histogram
    last_late_median: float  # as a share of the stream's ideal duration
    last_late_max: float
    pss_before: int  # bytes, after a warm-up and before the streams
    pss_start: int  # with all streams open, as the window begins
    pss_end: int
    load_share: float
    upstream_share: float
    send_late_p99_ms: float
    others_share: float  # the busier core's
    losses: tuple[str, ...]

    def objections(self) -> list[str]:
        """Return why these figures must not be used; none when they may."""
        found = list(self.losses)
        for name, share in (("load generator", self.load_share), ("upstream", self.upstream_share)):
            if share > MAX_OWN_SHARE:
                found.append(f"the {name} was saturated: {share:.0%} of its core")
        both = self.load_share + self.upstream_share
        if both > MAX_SHARED_SHARE:
            found.append(f"the core of load generator and upstream was saturated: {both:.0%}")
        if self.send_late_p99_ms > MAX_SEND_LATE_MS:
            found.append(f"the upstream itself was late: p99 {self.send_late_p99_ms:.1f} ms")
        return found

    @property
    def disturbed(self) -> bool:
        return self.others_share > MAX_OTHERS_SHARE

    def to_json(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("latency", "first_chunk"):
            data[name] = getattr(self, name).to_json()
            data[f"{name}_ms"] = getattr(self, name).summary()
        data["cpu_us_per_token"] = self.cpu_s / self.tokens * 1e6 if self.tokens else None
        data["objections"] = self.objections()
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` returned."""
        known = {name: data[name] for name in cls.__dataclass_fields__}
        for name in ("latency", "first_chunk"):
            known[name] = Histogram.from_json(known[name])
        return cls(**known | {"losses": tuple(known["losses"])})


@dataclass(frozen=True)
class IdleMemory:
    """What one silent stream costs a system in memory."""

    system: str
    tls: bool
    streams: int
    bytes_per_stream: float


@dataclass(frozen=True)
class Cell:
    """All good windows of one system at one number of streams."""

    system: str
    streams: int
    tls: bool
    cpu_us: float  # per relayed token
    cpu_us_rounds: tuple[float, ...]
    cpu_share: float
    latency: Histogram
    first_chunk: Histogram
    last_late_max: float
    active_bytes: float  # growth per open stream
    growth_bytes: float  # per stream within the window
    reads_per_token: float
    load_share: float
    upstream_share: float
    send_late_p99_ms: float
    disturbed: bool


@dataclass
class Results:
    """Everything one run of the harness found."""

    machine: dict[str, Any]
    options: dict[str, Any]
    windows: list[Window] = field(default_factory=list)
    idle: list[IdleMemory] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return everything found and what follows from it, in a form `from_json` reads."""
        return {
            "machine": self.machine,
            "options": self.options,
            "verdicts": [asdict(verdict) | {"outcome": verdict.outcome} for verdict in verdicts(self)],
            "refused": self.refusals(),
            "windows": [window.to_json() for window in self.windows],
            "idle": [asdict(idle) for idle in self.idle],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` returned; verdicts and refusals are drawn anew."""
        windows = [Window.from_json(window) for window in data["windows"]]
        idle = [IdleMemory(**memory) for memory in data["idle"]]
        return cls(data["machine"], data["options"], windows, idle)

    def cells(self) -> dict[tuple[str, int, bool], Cell]:
        """Put the good windows together: CPU over all their tokens, latencies merged, the worst lateness."""
        groups: dict[tuple[str, int, bool], list[Window]] = {}
        for window in self.windows:
            if not window.objections():
                groups.setdefault((window.system, window.streams, window.tls), []).append(window)
        return {key: _cell(windows) for key, windows in groups.items()}

    def refusals(self) -> list[str]:
        return [
            f"{window.system} at {window.streams} streams{' over TLS' if window.tls else ''}, "
            f"round {window.round}: {objection}"
            for window in self.windows
            for objection in window.objections()
        ]


def _cell(windows: Sequence[Window]) -> Cell:
    latency, first_chunk = Histogram(), Histogram()
    for window in windows:
        latency.merge(window.latency)
        first_chunk.merge(window.first_chunk)
    first = windows[0]
    tokens = sum(window.tokens for window in windows)
    return Cell(
        system=first.system,
        streams=first.streams,
        tls=first.tls,
        cpu_us=sum(window.cpu_s for window in windows) / tokens * 1e6,
        cpu_us_rounds=tuple(window.cpu_s / window.tokens * 1e6 for window in windows),
        cpu_share=sum(window.cpu_s for window in windows) / sum(window.seconds for window in windows),
        latency=latency,
        first_chunk=first_chunk,
        last_late_max=max(window.last_late_max for window in windows),
        active_bytes=median(window.pss_start - window.pss_before for window in windows) / first.streams,
        growth_bytes=median(window.pss_end - window.pss_start for window in windows) / first.streams,
        reads_per_token=sum(window.reads for window in windows) / tokens,
        load_share=max(window.load_share for window in windows),
        upstream_share=max(window.upstream_share for window in windows),
        send_late_p99_ms=max(window.send_late_p99_ms for window in windows),
        disturbed=any(window.disturbed for window in windows),
    )


@dataclass(frozen=True)
class Verdict:
    """One budget of the architecture and what was measured."""

    budget: str
    unit: str
    bar: float
    goal: float | None
    figure: float | None

    @property
    def outcome(self) -> str:
        """Return `goal`, `pass`, `miss` or `not measured`."""
        if self.figure is None:
            return "not measured"
        if self.figure > self.bar:
            return "miss"
        return "goal" if self.goal is not None and self.figure <= self.goal else "pass"


def verdicts(results: Results, system: str = "penstock") -> list[Verdict]:
    """Hold the figures against the budgets of the architecture's section on speed."""
    cells = results.cells()
    idle = {(memory.system, memory.tls): memory.bytes_per_stream / 1024 for memory in results.idle}

    def ratio(over: str, under: str, *, tls: bool = False) -> float | None:
        first, second = (cells.get((name, REFERENCE_STREAMS, tls)) for name in (over, under))
        return first.cpu_us / second.cpu_us if first and second else None

    def late(streams: int) -> float | None:
        cell = cells.get((system, streams, False))
        return cell.last_late_max * 100 if cell else None

    mine = cells.get((system, REFERENCE_STREAMS, False))
    direct = cells.get(("direct", REFERENCE_STREAMS, False))
    added = mine.latency.ms(99) - direct.latency.ms(99) if mine and direct else None
    return [
        Verdict("CPU per token at 500 streams, against nginx", "×", 2.25, 2.0, ratio(system, "nginx")),
        Verdict("the same over TLS upstream", "×", 2.5, None, ratio(system, "nginx", tls=True)),
        Verdict("all policies on, against none, at 500 streams", "×", 1.25, None, ratio("overlay", system)),
        Verdict("700 streams in real time: last token late", "%", 5.0, None, late(700)),
        Verdict("1,000 streams in real time (a goal): last token late", "%", 5.0, None, late(1000)),
        Verdict("p99 added to a token at 500 streams", "ms", 5.0, None, added),
        Verdict("memory per idle stream", "KB", 25.0, None, idle.get((system, False))),
        Verdict("memory per idle stream, TLS upstream", "KB", 40.0, None, idle.get((system, True))),
        *(
            Verdict(f"{name}: CPU per token at 500 streams, against chat to chat", "×", 1.3, None, figure)
            for name in dict.fromkeys(window.system for window in results.windows)
            if name.startswith(("to-", "from-")) and (figure := ratio(name, system))
        ),
    ]


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return [texts[0], "-" * len(texts[0]), *texts[1:]]


def table(results: Results) -> str:
    """Return the figures, the budgets and the refusals as text."""
    cells = results.cells()
    rows = []
    for (system, streams, tls), cell in sorted(cells.items(), key=lambda item: (item[0][2], item[0][1])):
        nginx, direct = cells.get(("nginx", streams, tls)), cells.get(("direct", streams, False))
        behind = system != "direct"
        rows.append(
            [
                f"{streams:,} {'TLS ' if tls else ''}{system}{' (disturbed)' if cell.disturbed else ''}",
                f"{cell.cpu_us:.2f}" if behind else "",
                "–".join(
                    f"{figure:.1f}" for figure in sorted({min(cell.cpu_us_rounds), max(cell.cpu_us_rounds)})
                )
                if behind
                else "",
                f"{cell.cpu_us / nginx.cpu_us:.2f}" if behind and nginx else "",
                f"{cell.cpu_share:.0%}" if behind else "",
                f"{cell.latency.ms(50):.2f}",
                f"{cell.latency.ms(99):.2f}",
                f"{cell.latency.max_ns / 1e6:.1f}",
                f"{cell.latency.ms(50) - direct.latency.ms(50):.2f}" if behind and direct else "",
                f"{cell.latency.ms(99) - direct.latency.ms(99):.2f}" if behind and direct else "",
                f"{cell.first_chunk.ms(50):.1f}",
                f"{cell.first_chunk.ms(99):.1f}",
                f"{cell.last_late_max:.2%}",
                f"{cell.active_bytes / 1024:.1f}" if behind else "",
                f"{cell.growth_bytes / 1024:.1f}" if behind else "",
                f"{cell.load_share:.0%}",
                f"{cell.upstream_share:.0%}",
                f"{cell.send_late_p99_ms:.2f}",
            ]
        )
    head = ["streams, system", "µs/token", "rounds", "× nginx", "core", "p50 ms", "p99 ms", "max ms"]
    head += ["+p50", "+p99", "first p50", "first p99", "last late", "KB/stream", "growth KB"]
    head += ["load", "upstream", "sends late p99"]
    parts = [*_grid(head, rows)] if rows else []
    if results.idle:
        memory = [
            [
                f"{idle.streams:,} {'TLS ' if idle.tls else ''}{idle.system}",
                f"{idle.bytes_per_stream / 1024:.1f}",
            ]
            for idle in results.idle
        ]
        parts += ["", *_grid(["idle streams, system", "KB/stream"], memory)]
    budgets = [verdict for verdict in verdicts(results) if verdict.figure is not None]
    if budgets:
        lines = [
            [
                verdict.budget,
                f"{verdict.figure:.2f} {verdict.unit}",
                f"{verdict.bar:g}",
                "" if verdict.goal is None else f"{verdict.goal:g}",
                verdict.outcome,
            ]
            for verdict in budgets
        ]
        parts += ["", *_grid(["budget", "measured", "bar", "goal", "outcome"], lines)]
    if refusals := results.refusals():
        parts += ["", "Refused, and left out above:", *(f"  {refusal}" for refusal in refusals)]
    return "\n".join(parts)
