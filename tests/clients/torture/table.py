"""What was measured, one line for each reader and route, to be printed at the end."""

from dataclasses import dataclass


@dataclass
class Row:
    """One reader on one route. ``window``: cuts after which this reader's own code loses an event."""

    reader: str
    route: str
    readers: int = 0
    cuts: int = 0
    window: int = 0
    lost: int = 0
    repeated: int = 0
    calls: int = 0


def printed(rows: list[Row]) -> list[str]:
    """Return the table's lines."""
    heads = ["client", "route", "readers", "cuts", "in its window", "lost", "repeated", "upstream calls"]
    lines = [
        [row.reader, row.route, row.readers, row.cuts, row.window, row.lost, row.repeated, row.calls]
        for row in rows
    ]
    cells = [heads, *([str(cell) for cell in line] for line in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
