"""The events of the log, as the guide lists them; and what a line must name of whom it is about."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parents[1] / "docs/guide/logs.md"

ABOUT: Final = {
    "stream": ("request_id", "stream"),
    "request": ("request_id",),
    "publication": ("stream",),
    "process": (),
}
"""What is named in lines about each."""


def documented() -> Iterator[tuple[str, str]]:
    """Yield each event of the guide's table, and what it is about."""
    table = GUIDE.read_text().partition("## All events")[2].partition("\n## ")[0]
    for row in table.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| `"):
            for event in re.findall(r"`(\w+)`", cells[0]):
                yield event, cells[2]


EVENTS: Final = dict(documented())


def nameless(text: str) -> Iterator[str]:
    """Yield what is wrong with the lines of a log, as `penstock serve` writes it: events that are not in the
    guide, and lines without the ids of whom they are about. A line that was cut off says nothing."""
    for line in text.splitlines():
        try:
            said = json.loads(line)
            event = said["event"]
        except (ValueError, KeyError, TypeError):
            continue
        if event not in EVENTS:
            yield f"{event} is not in {GUIDE.name}"
            continue
        missing = [name for name in ABOUT[EVENTS[event]] if not said.get(name)]
        if missing:
            yield f"{event} without {' and '.join(missing)}"
