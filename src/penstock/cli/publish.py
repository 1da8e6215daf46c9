"""``penstock publish``: lines as they come, or a file, to a publication."""

import asyncio
import base64
import hashlib
import mimetypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from penstock.cli import exits
from penstock.cli.exits import Failure
from penstock.cli.options import PATIENCE, Key, Patience, Url
from penstock.cli.publishing import (
    BATCH,
    About,
    Batches,
    Publisher,
    Source,
    about,
    any_bytes,
    whole_lines,
)
from penstock.cli.running import address, run
from penstock.client.addresses import DEFAULT_URL
from penstock.client.connection import Connection, Lost, Refused, Unreachable

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"
_SIZE = re.compile(r"([0-9]{1,15})([KMG]?)(?:i?B)?", re.IGNORECASE)


class Kept(NamedTuple):
    """How long what is published stays, in seconds, and how much of it, in bytes."""

    ttl: int | None
    keep: int | None


def publish(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Where: names divided by slashes, such as logs/app.")
    ],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A file, instead of standard input; the stream is closed at its end.",
        ),
    ] = None,
    content_type: Annotated[
        str,
        typer.Option(
            "--type",
            metavar="TYPE",
            show_default=False,
            help="What the content is. Default: text for standard input, for a file by its name.",
        ),
    ] = "",
    close: Annotated[
        bool | None,
        typer.Option(
            "--close/--no-close",
            show_default=False,
            help="Whether nothing will follow. Default: --close for a file, --no-close else.",
        ),
    ] = None,
    ttl: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            show_default=False,
            help="Let the stream go when it was neither read nor written for so long.",
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            show_default=False,
            help="Keep the newest bytes only, so many: 50M, 2G. For logs that never end.",
        ),
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a file of which a part is there already.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    patience: Patience = PATIENCE,
) -> None:
    """Publish a log, a file or anything else that comes in order, for others to follow.

    Lines are sent as they come, many at once when they come fast; each is there once, also when the
    gateway is restarted meanwhile. With --type application/json each line is a message. Any other type
    than text is sent as it is.

    \b
    tail -f app.log | penstock publish logs/app --keep 50M
    make 2>&1 | penstock publish builds/42 --close
    penstock publish --file big.bin files/big
    penstock read logs/app

    \b
    Exit codes: 0 all of it is stored, 1 refused, 2 wrongly typed, 69 no gateway, 77 key missing or
    wrong, 130 Ctrl-C.
    """
    if resume and file is None:
        raise Failure("--resume is for a file.", code=exits.USAGE)
    how = Kept(ttl, size_of(keep) if keep else None)

    async def work(connection: Connection) -> int:
        if file is None:
            return await _publish_input(connection, path, content_type or TEXT, how, close=bool(close))
        kind = content_type or _kind_of(file)
        return await _publish_file(connection, path, file, kind, how, close=close is not False, resume=resume)

    raise typer.Exit(run(address(url, key), patience, work))


def size_of(text: str) -> int:
    """Return a number of bytes: ``1048576``, ``50M``, ``2G``, ``64KiB``. Raises `Failure`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise Failure("--keep takes a number of bytes above 0, such as 500K, 50M or 2G.", code=exits.USAGE)
    return int(found[1]) << 10 * " KMG".index(found[2].upper() or " ")


def _kind_of(file: Path) -> str:
    """Return a file's type by its name; JSON is left as it is, since it is one document, not messages."""
    guessed = mimetypes.guess_type(file.name)[0] or BYTES
    return BYTES if guessed == JSON else guessed


def tell_lost(lost: Lost) -> None:
    """Say on standard error that the gateway is being looked for."""
    if lost.attempt == 1:
        print(f"penstock: {lost.why}; trying again.", file=sys.stderr)


async def _there(connection: Connection, path: str) -> About | None:
    """Return what is at ``path`` already. Raises `Failure` for what cannot be appended to."""
    try:
        found = await about(connection, path)
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
    if found.closed:
        raise Failure(f"{path} is there and closed.", code=exits.FAILED, hint="Name another path.")
    return found


async def _publish_input(
    connection: Connection, path: str, content_type: str, how: Kept, *, close: bool
) -> int:
    found = await _there(connection, path)
    kind = found.content_type if found else content_type
    publisher = Publisher(connection, path, kind, tell_lost)
    if found is None:
        await publisher.create(*how)
    messages = kind.split(";")[0].strip().lower() == JSON
    cut = whole_lines if messages or kind.lower().startswith("text/") else any_bytes
    batches = Batches(Source(sys.stdin.fileno()), cut)
    async with asyncio.TaskGroup() as group:
        gathering = group.create_task(batches.gather())
        failure = await _send(batches, publisher, messages=messages)
        gathering.cancel()
    if failure is not None:
        raise failure
    if close:
        await publisher.close()
    return exits.OK


async def _send(batches: Batches, publisher: Publisher, *, messages: bool) -> Refused | Unreachable | None:
    """Return, not raise, why not all could be sent: a task group would wrap it."""
    while batch := await batches.take():
        if messages:
            lines = [line for line in batch.split(b"\n") if line.strip()]
            if not lines:
                continue
            batch = b"[" + b",".join(lines) + b"]"
        try:
            await publisher.append(batch)
        except (Refused, Unreachable) as failure:
            return failure
    return None


async def _publish_file(
    connection: Connection,
    path: str,
    file: Path,
    content_type: str,
    how: Kept,
    *,
    close: bool,
    resume: bool,
) -> int:
    found = await _there(connection, path)
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if found is not None and found.size and not resume:
            hint = "Go on with --resume if it is a part of this file, or name another path."
            raise Failure(f"{path} is there and has {found.size} bytes.", code=exits.FAILED, hint=hint)
        if found is not None and found.size > size:
            raise Failure(f"{path} has more bytes than the file.", code=exits.FAILED)
        publisher = Publisher(connection, path, found.content_type if found else content_type, tell_lost)
        if found is None:
            await publisher.create(*how)
        digest = hashlib.sha256()
        text = content_type.startswith("text/")
        with progress(file.name, size) as advance:
            for block, is_there in _blocks(opened, found.size if found else 0, text=text):
                digest.update(block)
                if not is_there:
                    await publisher.append(block)
                advance(len(block))
        if close:
            encoded = base64.b64encode(digest.digest()).decode()
            await publisher.close(f"sha-256=:{encoded}:")
    print(f"{digest.hexdigest()}  {path}")
    return exits.OK


def _blocks(opened: BinaryIO, there: int, *, text: bool) -> Iterator[tuple[bytes, bool]]:
    """Yield a file's bytes, and whether they are there already; text is cut at the ends of lines."""
    while there > 0 and (block := opened.read(min(BATCH, there))):
        there -= len(block)
        yield block, True
    rest = b""
    while block := opened.read(BATCH - len(rest)):
        block = rest + block
        end = block.rfind(b"\n") + 1 if text and len(block) == BATCH else 0
        block, rest = (block[:end], block[end:]) if end else (block, b"")
        yield block, False
    if rest:
        yield rest, False


class progress(AbstractContextManager[Callable[[int], None]]):
    """A bar on a terminal's standard error; ``with progress(name, size) as advance``."""

    def __init__(self, name: str, size: int) -> None:
        """``size`` is in bytes."""
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=size)

    def __enter__(self) -> Callable[[int], None]:
        """Show it."""
        self._bar.start()
        return lambda more: self._bar.advance(self._task, more)

    def __exit__(self, *_: object) -> None:
        """Leave it as it is."""
        self._bar.stop()
