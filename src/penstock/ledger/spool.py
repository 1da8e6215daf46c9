"""Rows on their way to the database: a file that they are appended to at once, in the loop.

A row is one line of JSON, written by one `write` into the page cache: it survives a killed process from
then on. What is in the file is put into the database in batches, by the ledger's thread, which takes the
file away and leaves a new one. At a start the files that are left are put in first; rows that are there
already change nothing.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock.types.usage import UsageRow

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 1 << 30
"""Of rows that wait, while the database cannot be reached; about two million."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(UsageRow).decode


class Spool:
    """The files in ``folder``. All but `append` blocks, and is for the ledger's thread."""

    def __init__(self, folder: Path) -> None:
        """Touches nothing."""
        self._folder = folder
        self._file = -1
        self._number = 0
        self._path = folder
        self.bytes = 0

    def open(self) -> None:
        """Make the folder, and a file of its own. Raises `OSError`."""
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        left = self.left()
        self._number = max((int(path.stem) for path in left), default=0)
        self.bytes = sum(path.stat().st_size for path in left)
        self.use(self.prepare())

    def left(self) -> Sequence[Path]:
        """Return the files, oldest first."""
        return sorted(self._folder.glob("[0-9]*.jsonl"), key=lambda path: int(path.stem))

    def prepare(self) -> tuple[int, Path]:
        """Make the next file. Raises `OSError`."""
        self._number += 1
        path = self._folder / f"{self._number}.jsonl"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), path

    def use(self, made: tuple[int, Path]) -> tuple[int, Path]:
        """Append to what `prepare` made from now on; return what was appended to before. Does not block."""
        before = (self._file, self._path)
        self._file, self._path = made
        return before

    def append(self, rows: Sequence[UsageRow]) -> bool:
        """Write ``rows``, in the loop; say whether that could be done."""
        data = b"".join([_encode(row) + b"\n" for row in rows])
        if self._file < 0 or self.bytes + len(data) > MAX_BYTES:
            return False
        try:
            written = os.write(self._file, data)
        except OSError:
            return False
        self.bytes += written
        if written < len(data):  # the disk is full: the line that is cut is passed over when it is read
            with contextlib.suppress(OSError):
                os.write(self._file, b"\n")
            return False
        return True

    def remove(self, path: Path) -> None:
        """The rows in ``path`` are in the database."""
        with contextlib.suppress(OSError):
            self.bytes = max(0, self.bytes - path.stat().st_size)
            path.unlink()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read_rows(path: Path, most: int) -> Iterator[list[UsageRow]]:
    """Yield the rows in ``path``, so many at a time; a line that was cut by the end of a life is left out."""
    rows: list[UsageRow] = []
    with path.open("rb") as file:
        for line in file:
            try:
                rows.append(_decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                if line.strip():
                    log.warning("usage_row_unreadable", file=path.name)
            if len(rows) >= most:
                yield rows
                rows = []
    if rows:
        yield rows
