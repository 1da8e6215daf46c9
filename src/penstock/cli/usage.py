"""``penstock usage``: what was used and what it cost, as a table, CSV or JSON, from the ledger itself."""

import csv
import json
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from penstock.cli.configuration import ConfigFile
from penstock.cli.keys import Opened, seconds
from penstock.cli.options import Json
from penstock.cli.output import harmless
from penstock.ledger.usage import summarize
from penstock.types.usage import USD, By, Question, Sum

COLUMNS: Final = (
    *("generations", "attempts", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "estimated", "unpriced"),
)


def usage(
    by: Annotated[By, typer.Option(help="What sums are taken over.")] = "model",
    since: Annotated[
        str,
        typer.Option(metavar="WHEN", help="From then on: a span (30d, 12h) or a day (2026-11-01, in UTC)."),
    ] = "30d",
    until: Annotated[str, typer.Option(metavar="WHEN", help="Until then; now.")] = "",
    principal: Annotated[
        str, typer.Option(metavar="NAME", help="Of this principal, and of its own pages and users.")
    ] = "",
    team: Annotated[str, typer.Option(metavar="NAME", help="Of this team.")] = "",
    model: Annotated[str, typer.Option(metavar="NAME", help="Of this model, as it was asked for.")] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, for spreadsheets.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show what was used, and what it cost.

    A generation counts once, its attempts each; tokens that no provider reported are estimated, and how
    many attempts are is told, as is how many have no price.

    \b
    penstock usage
    penstock usage --by day --since 7d --team research
    penstock usage --by principal --since 2026-11-01 --csv > november.csv
    """
    now = time.time()
    question = Question(by, when(since, now), when(until, now) if until else None, principal, team, model)
    with Opened(config) as database:
        sums = database.run(summarize, question)
    if as_json:
        print(json.dumps([one.body() for one in sums], indent=2))
    elif as_csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow([by, *COLUMNS, "cost_usd"])
        rows.writerows(
            [_cell(one.name), *(getattr(one, n) for n in COLUMNS), f"{one.cost / USD:.9f}"] for one in sums
        )
    else:
        print("\n".join(table(by, sums)))


def _cell(name: str) -> str:
    """Return ``name`` so that no spreadsheet takes it for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


def when(text: str, now: float) -> float:
    """Read a time: a span before ``now``, or a day; raises `typer.BadParameter`."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return now - seconds(text)


def table(by: str, sums: list[Sum]) -> list[str]:
    """Return the lines of a table for people."""
    if not sums:
        return ["Nothing was used in that time."]
    rows = [(by, "generations", "attempts", "input", "output", "cost (USD)")]
    for one in sums:
        counts = (f"{one.generations:,}", f"{one.attempts:,}")
        about = "~" if one.estimated else ""
        tokens = (f"{about}{one.input_tokens:,}", f"{about}{one.output_tokens:,}")
        cost = f"{one.cost / USD:,.4f}" + ("+?" if one.unpriced else "")
        rows.append((harmless(one.name) or "–", *counts, *tokens, cost))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    if any(one.estimated for one in sums):
        lines.append("~ in part estimated: the provider did not report it")
    if any(one.unpriced for one in sums):
        lines.append("+? with attempts whose price is not known: see `prices` in the configuration")
    return lines
