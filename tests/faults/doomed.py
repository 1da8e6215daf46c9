"""`penstock serve` with small files, which kills itself at the point that PENSTOCK_DOOM names.

``point/n``: at the n-th time the process gets there. Small files and segments let what is rare
happen all the time. Points, each the worst moment of something:

    header:half                         a new journal file, with half of its header
    created:… records:… closing:…       a batch with such a frame, of which half is written, or all and
      half, whole                       nobody told
    sealing:before, within, after       the transaction that brings records into the catalogue
    clearing:noted, unlinked            letting go of a journal file
    recovery:within, committed, unlinked    what a start does with the journal of the life before
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from penstock.assembly import system as assembly
from penstock.cli.serve import run_gateway
from penstock.config import read_file
from penstock.streams import catalogue, journal, recovery
from penstock.streams.committer import CommitSettings
from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.telemetry.logs import LogSettings, logging_to
from penstock.telemetry.redaction import Redactor

HEAD = 16  # bytes of a frame before its body, whose first byte is its type
FRAMES = {"created": journal.CREATED, "records": journal.RECORDS, "closing": journal.CLOSING}
SETTINGS = EmbeddedSettings(
    commit=CommitSettings(seal_records=32, commit_grace=0.4, retry_interval=0.02, probe_interval=0.05),
    rotate_bytes=12_000,
    reserve_bytes=256 * 1024,
)


class Doom:
    """Dies at the n-th call."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __call__(self) -> bool:
        """Say whether this is the time."""
        self._left -= 1
        return self._left == 0


def die() -> None:
    word = {"level": "info", "event": "doomed", "point": os.environ["PENSTOCK_DOOM"]}
    os.write(2, json.dumps(word).encode() + b"\n")
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class FatalOs:
    """`os` as the journal sees it."""

    def __init__(self, wanted: Callable[[bytes], bool], doom: Doom, part: str) -> None:
        self._wanted = wanted
        self._doom = doom
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        if self._wanted(data) and self._doom():
            os.write(fd, data if self._part == "whole" else data[: len(data) // 2])
            die()
        return os.write(fd, data)


def types(batch: bytes) -> set[int]:
    """Return the types of the frames in what is written at once."""
    found = set()
    at = 0
    while at < len(batch):
        found.add(batch[at + HEAD])
        at += HEAD + int.from_bytes(batch[at + 4 : at + 8], "little")
    return found


def fatal(function: Callable[..., Any], doom: Doom, *, before: bool) -> Callable[..., Any]:
    """Return ``function``, which kills the process before or after its doomed call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        doomed = doom()
        if doomed and before:
            die()
        result = function(*args, **kwargs)
        if doomed:
            die()
        return result

    return call


def prepare(point: str) -> None:
    """Make the process die at ``point``."""
    what, _, left = point.partition("/")
    doom = Doom(int(left))
    match what.split(":"):
        case ["header", part]:
            journal.os = FatalOs(lambda data: data.startswith(b"PENSTOCK"), doom, part)
        case [("created" | "records" | "closing") as name, part]:
            kind = FRAMES[name]
            wanted = lambda data: not data.startswith(b"PENSTOCK") and kind in types(data)  # noqa: E731
            journal.os = FatalOs(wanted, doom, part)
        case ["sealing", ("before" | "after") as when]:
            catalogue.write = fatal(catalogue.write, doom, before=when == "before")
        case ["sealing" | "recovery", "within"]:  # the first time is the recovery's
            catalogue.apply = fatal(catalogue.apply, doom, before=False)
        case ["clearing", "noted"]:
            catalogue.note_journal = fatal(catalogue.note_journal, doom, before=False)
        case ["recovery", "committed"]:
            recovery.recover = fatal(recovery.recover, doom, before=False)
        case ["clearing" | "recovery", "unlinked"]:
            Path.unlink = fatal(Path.unlink, doom, before=False)
        case _:
            raise ValueError(point)


def main() -> None:
    if point := os.environ.get("PENSTOCK_DOOM", ""):
        prepare(point)
    config = read_file(Path(sys.argv[sys.argv.index("--config") + 1]), os.environ)
    assembly.build_store = lambda config, commits: EmbeddedStore(config.store.path, SETTINGS)
    system = assembly.assemble(config)
    with (
        logging_to(sys.stderr, LogSettings(), Redactor()),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(run_gateway(config, system))


if __name__ == "__main__":
    main()
