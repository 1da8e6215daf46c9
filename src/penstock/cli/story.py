"""An explanation as lines for people, with a small time line. Pure: a value and a width in, lines out."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.cells import cell_len

from penstock.types.decisions import Decision
from penstock.types.events import Timing, UsageReported
from penstock.types.explanations import AttemptSeen, Ending, Explanation

MIN_WIDTH: Final = 60
"""Columns that a story needs."""

INDENT: Final = 3

SILENT: Final = 1_000
"""Milliseconds of silence that are worth a word."""

REASONS: Final = {
    "first": "first choice",
    "retry": "again, after it failed",
    "fallback": "instead of what failed",
    "continuation": "went on with the answer",
    "hedge": "rival of a slow one",
}

MODES: Final = {
    "prefill": "went on from the text, given as a beginning",
    "prompt": "went on from the text, asked by a prompt",
    "restart": "began the answer anew",
    "resumed": "the gateway was started again, and took the answer up",
}

BALANCES: Final = {
    "order": "as configured",
    "weighted": "at random by weight",
    "least_busy": "the least busy first",
    "fastest": "the faster of two first",
}

DOING: Final = {
    "waiting": "waits for the provider's first output",
    "streaming": "takes the answer in",
    "pausing": "pauses before the next attempt",
    "ending": "is done; its end is being stored",
}

UNSENT: Final = frozenset(
    {"upstream_unreachable", "upstream_connect_timeout", "upstream_tls", "upstream_proxy"}
)
"""Codes of attempts that never got as far as to wait for an answer."""

KEY: Final = "─ connecting   ░ waiting for output   █ output   ✗ failed"


def story(told: Explanation, width: int = 100) -> list[str]:
    """Return the lines."""
    width = max(width, MIN_WIDTH)
    return [
        *_title(told),
        *_wrapped(list(_gist(told)), width),
        "",
        *_asked(told, width),
        *_section("Policies", _policies(told.policies, width)),
        *_section("Targets", [*_way(told), *_line(told, width)]),
        *_section("Seams", _seams(told, width)),
        *_section("Time", _times(told.timing, told)),
        *_section("Used", _used(told)),
        *_section("End" if told.end is not None else "Now", [*_end(told.end), *_now(told)]),
        *_section("Readers now", _readers(told)),
    ]


def _section(name: str, lines: Sequence[str]) -> list[str]:
    return ["", name, *(f"  {line}" for line in lines)] if lines else []


def ms(value: float) -> str:
    """Return a span for people: milliseconds up to ten seconds, then seconds, then minutes."""
    if value < 10:
        return f"{value:.1f} ms"
    if value < 10_000:
        return f"{value:,.0f} ms"
    if value < 600_000:
        return f"{value / 1000:,.1f} s"
    return f"{value / 60_000:,.1f} min"


def usd(value: float) -> str:
    """Return money: cents where there are some, else as many digits as say something."""
    return f"${value:,.4f}" if value >= 0.01 or not value else f"${value:.6f}"


def _title(told: Explanation) -> Iterator[str]:
    code = f" ({told.end.code})" if told.end is not None and told.end.code else ""
    yield f"{told.id}  {told.status}{code}"


def _gist(told: Explanation) -> Iterator[str]:
    """The whole story in one line."""
    end, timing = told.end, told.timing
    if timing is not None:
        so_far = "so far " if end is None else ""
        yield f"{so_far}{ms(timing.total_ms)}"
        if timing.first_output_ms:
            yield f"first output after {ms(timing.first_output_ms)}"
        elif not told.seams:
            yield "no output"
    failed = [one for one in told.attempts if one.code and one.code != "superseded"]
    if len(told.attempts) > 1:
        yield (
            f"{len(told.attempts)} attempts, {len(failed)} of them failed"
            if failed
            else (f"{len(told.attempts)} attempts")
        )
    if told.cost_usd is not None:
        yield usd(told.cost_usd)
    if end is not None and end.fault:
        yield f"fault of the {end.fault}"
    if end is None and told.silent_ms >= SILENT:
        yield f"silent for {ms(told.silent_ms)}"


def _asked(told: Explanation, width: int) -> Iterator[str]:
    asked = told.asked
    when = datetime.fromtimestamp(asked.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    about = f", a request of about {asked.input_tokens:,} tokens" if asked.input_tokens else ""
    preset = f" by the preset '{asked.preset}'" if asked.preset else ""
    yield f"{when} UTC: {asked.principal} asked for {asked.model}{preset}{about}."
    facts = [f"route {asked.route}", f"dialect {asked.dialect}"]
    facts += [f"{name} {value}" for name in ("key", "team") if (value := getattr(asked, name))]
    facts += [f"request {asked.request_id}"] if asked.request_id else []
    facts += ["with an idempotency key"] if asked.idempotent else []
    facts += [f"kept: {asked.at_rest}"] if asked.at_rest else []
    facts += [f"{name}={value}" for name, value in (asked.metadata or {}).items()]
    yield from _wrapped(facts, width)
    if told.dropped:
        yield f"The provider was not told: {', '.join(told.dropped)} (it has no place for that)."


def _wrapped(facts: Sequence[str], width: int, between: str = " · ") -> Iterator[str]:
    line = ""
    for fact in facts:
        longer = f"{line}{between}{fact}" if line else fact
        if line and cell_len(longer) > width:
            yield line
            longer = fact
        line = longer
    if line:
        yield line


def _policies(decisions: Sequence[Decision], width: int) -> list[str]:
    if not decisions:
        return []
    name = max(cell_len(one.policy) for one in decisions)
    lines = []
    for one in decisions:
        waited = f" {ms(one.waited_ms)}" if one.waited_ms else ""
        verdict = f"{one.verdict}{waited if one.verdict == 'waited' else ''}"
        rest = f" (took{waited})" if waited and one.verdict != "waited" else ""
        said = [f"{part.strip()}" for part in f"{one.detail}{rest}".split(";")]
        head = f"{one.policy:<{name}}  {verdict:<14}"
        lines.append(f"{head}  {said[0]}")
        lines += [f"{'':<{len(head)}}  {more}" for more in said[1:]]
    return lines


def _way(told: Explanation) -> Iterator[str]:
    way = told.way
    if len(way.targets) > 1:
        yield f"To be tried, {BALANCES.get(way.balance, way.balance)}:"
        yield from (f"   {name}" for name in way.targets)
        if way.hedged:
            yield "A target that is slow to begin gets a rival."
        for name in way.passed_over:
            yield f"{name} comes last: its breaker was open."


def _line(told: Explanation, width: int) -> Iterator[str]:
    """The attempts, one under the other over one time line."""
    attempts = told.attempts
    if not attempts:
        return
    total = max([told.timing.total_ms if told.timing else 0.0, *(one.ended_ms for one in attempts)])
    room = width - 2 - INDENT
    drawn = any(one.timed for one in attempts) and total > 0
    indent = " " * INDENT
    queued = told.timing.queue_ms if told.timing else 0.0
    if drawn and (dots := round(queued / total * (room - 1))) > 1:
        yield f"{indent}{'·' * dots}"
        yield f"{indent}queued {ms(queued)}"
    for one in attempts:
        yield from _told_of(one, width)
        if drawn and one.timed:
            yield f"{indent}{_bar(one, total, room)}"
    if drawn:
        yield f"{indent}0{ms(total):>{room - 1}}"
        yield f"{indent}{KEY}"


def _told_of(one: AttemptSeen, width: int) -> Iterator[str]:
    """Who was tried, and how that went; on lines of their own where one is too short."""
    head, parts = f"{one.number:>2} {one.target}:", _why(one)
    whole = f"{head} {', '.join(parts)}"
    if cell_len(whole) <= width - 2:
        yield whole
        return
    yield f"{head} {parts[0]}"
    indent = " " * INDENT
    yield from (f"{indent}{line}" for line in _wrapped(parts[1:], width - 2 - INDENT, ", "))


def _bar(one: AttemptSeen, total: float, room: int) -> str:
    def at(value: float) -> int:
        return min(room - 1, round(value / total * (room - 1)))

    began, ended = at(one.began_ms), at(one.ended_ms)
    sent = at(one.began_ms + one.connect_ms)
    first = at(one.began_ms + one.connect_ms + one.wait_ms) if one.wait_ms else ended + 1
    if not one.wait_ms and not one.connect_ms and one.code in UNSENT:
        sent = ended + 1
    columns = range(began, ended + 1)
    cells = ["█" if column >= first else "░" if column >= sent else "─" for column in columns]
    if one.code and one.code != "superseded":
        cells[-1] = "✗"
    return " " * began + "".join(cells)


def _why(one: AttemptSeen) -> list[str]:
    parts = [REASONS.get(one.reason, one.reason or "before a restart of the gateway")]
    if one.timed:
        if one.connect_ms:
            parts.append(f"sent after {ms(one.connect_ms)}")
        if one.wait_ms:
            parts.append(f"first output {ms(one.wait_ms)} later")
        took = ms(one.ended_ms - one.began_ms)
        if one.open:
            parts.append(f"goes on since {took}")
        elif one.code == "superseded":
            parts.append(f"left after {took}: another was quicker")
        elif one.code:
            parts.append(f"{one.code} after {took}")
        else:
            parts.append(f"done after {took}")
    elif one.code:
        parts.append(one.code)
    if one.cost_usd is not None:
        parts.append(usd(one.cost_usd))
    return parts


def _seams(told: Explanation, width: int) -> list[str]:
    lines: list[str] = []
    for seam in told.seams:
        parts = [f"entry {seam.entry:,}:", seam.target, MODES.get(seam.mode, seam.mode)]
        if seam.code:
            parts[-1] += ","
            parts.append(f"after {seam.code}")
        lines += _wrapped([part for part in parts if part], width - 2, " ")
    return lines


def _times(timing: Timing | None, told: Explanation) -> list[str]:
    if timing is None:
        return []
    spans = [
        ("queue", timing.queue_ms, "until policies let the call in"),
        ("failed", timing.failed_ms, "attempts that brought nothing, and pauses after them"),
        ("connect", timing.connect_ms, "until the request was sent"),
        ("wait", timing.wait_ms, "until the provider's first output"),
        ("stream", timing.stream_ms, "from the first output until the provider was done"),
        ("gateway", timing.gateway_ms, "our own work"),
    ]
    known = [(name, value, what) for name, value, what in spans if value > 0]
    width = max((len(ms(value)) for _, value, _ in known), default=0)
    width = max(width, len(ms(timing.total_ms)))
    lines = [f"{name:<8} {ms(value):>{width}}  {what}" for name, value, what in known]
    notes = ["so far"] if told.end is None else []
    notes += [f"the longest gap was {ms(timing.max_gap_ms)}"] if timing.max_gap_ms else []
    notes += ["what was before a restart is not known apart"] if told.seams and not known else []
    return [*lines, f"{'total':<8} {ms(timing.total_ms):>{width}}  {'; '.join(notes)}".rstrip()]


def _used(told: Explanation) -> list[str]:
    usage = told.usage or _sum(told.attempts)
    lines = [_tokens(usage)] if usage is not None else []
    if told.cost_usd is not None:
        lines.append(f"{usd(told.cost_usd)} in all attempts")
    return lines


def _sum(attempts: Sequence[AttemptSeen]) -> UsageReported | None:
    """What all attempts used, where the answer did not come as far as to say it."""
    found = [one.usage for one in attempts if one.usage is not None]
    if not found:
        return None
    return UsageReported(
        sum(one.input_tokens for one in found),
        sum(one.output_tokens for one in found),
        cached_tokens=sum(one.cached_tokens for one in found),
        reasoning_tokens=sum(one.reasoning_tokens for one in found),
        estimated=any(one.estimated for one in found),
    )


def _tokens(usage: UsageReported) -> str:
    parts = [f"{usage.input_tokens:,} tokens in"]
    parts += [f"{usage.cached_tokens:,} of them cached"] if usage.cached_tokens else []
    parts.append(f"{usage.output_tokens:,} out")
    parts += [f"{usage.reasoning_tokens:,} of them reasoning"] if usage.reasoning_tokens else []
    return ", ".join(parts) + (" (estimated)" if usage.estimated else "")


def _end(end: Ending | None) -> Iterator[str]:
    if end is None:
        return
    finish = f", finish reason {end.finish_reason}" if end.finish_reason else ""
    finish += f" ({end.finish_detail})" if end.finish_detail else ""
    yield f"{end.status}{finish}"
    if end.status == "completed":
        return
    whose = f", fault of the {end.fault}" if end.fault else ""
    again = ", may be tried again" if end.retryable else ""
    yield f"{end.code}{whose}{again}: {end.message}"
    if end.shown:
        yield "The client had output before that, and was told in the stream."
    elif end.http_status:
        yield f"The client had nothing before that, and was told as HTTP {end.http_status} where it could be."


def _now(told: Explanation) -> Iterator[str]:
    if told.end is None:
        doing = DOING.get(told.doing or "", "has no writer at the moment")
        yield f"open, {told.entries:,} entries: {doing}"
        if told.silent_ms:
            yield f"silent for {ms(told.silent_ms)}"


def _readers(told: Explanation) -> list[str]:
    return [
        f"{one.principal} ({one.format}) has {one.entries:,} of {told.entries:,} entries, "
        + (f"lags by {one.lag:,}" if one.lag else "caught up")
        + f", for {ms(one.for_ms)}"
        for one in told.readers
    ]
