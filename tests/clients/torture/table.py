"""What was measured, one line for each reader and route, to be printed at the end."""

from dataclasses import dataclass

ROUTES = {"down": "create, cut on the way down", "up": "create, cut on the way up"}
"""Of answers that are cut on the way to a client, and to the gateway."""


@dataclass
class Row:
    """One reader on one route.

    ``every``: the bytes of an answer, where it was cut at each of them. ``window``: cuts after which this
    reader's own code loses an event. ``verified``: answers whose order and digests the reader checked by
    itself; most readers do not.
    """

    reader: str
    transport: str
    route: str
    readers: int = 0
    cuts: int = 0
    every: int = 0
    window: int = 0
    lost: int = 0
    repeated: int = 0
    verified: int = 0
    calls: int = 0

    def cells(self) -> dict[str, str]:
        """Return what is printed, by the columns' heads."""
        return {
            "client": self.reader,
            "transport": self.transport,
            "route": self.route,
            "answers": f"{self.readers:,}",
            "cuts": f"{self.cuts:,}",
            "at every byte of": f"{self.every:,}" if self.every else "–",
            "in its window": f"{self.window:,}",
            "lost": f"{self.lost:,}",
            "repeated": f"{self.repeated:,}",
            "verified": f"{self.verified:,}" if self.verified else "–",
            "upstream calls": f"{self.calls:,}",
        }


def printed(rows: list[Row]) -> list[str]:
    """Return the table's lines, in Markdown."""
    lines = [row.cells() for row in rows]
    columns = {head: max(len(head), *(len(line[head]) for line in lines)) for head in lines[0]}
    heads = {head: head for head in columns}
    rules = {head: "-" * width for head, width in columns.items()}
    return [
        f"| {' | '.join(line[head].ljust(width) for head, width in columns.items())} |"
        for line in (heads, rules, *lines)
    ]
