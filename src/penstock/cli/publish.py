"""``penstock publish``: lines as they come, or a file, to a publication."""

import asyncio
import base64
import hashlib
import math
import mimetypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from enum import StrEnum
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
from penstock.cli.following import POLL, Checkpoint, Followed, Store
from penstock.cli.leaving import Leaving
from penstock.cli.options import PATIENCE, Key, Url
from penstock.cli.publishing import (
    BATCH,
    About,
    Batches,
    Publisher,
    Source,
    Writer,
    about,
    any_bytes,
    as_messages,
    kept,
    media_type,
    whole_lines,
)
from penstock.cli.running import address, run
from penstock.client.addresses import DEFAULT_URL
from penstock.client.connection import Connection, Lost, Refused, Unreachable

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"
_SIZE = re.compile(r"([0-9]{1,15})([KMG]?)(?:i?B)?", re.IGNORECASE)


class Start(StrEnum):
    """Where the publishing of a file that grows begins."""

    start = "start"
    end = "end"


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
    follow: Annotated[
        Path | None,
        typer.Option(
            "--follow",
            metavar="FILE",
            dir_okay=False,
            help="A file that grows, instead of standard input: its lines, without an end, also when it "
            "is rotated. Started again, it goes on where it was.",
        ),
    ] = None,
    start: Annotated[
        Start,
        typer.Option("--from", help="With --follow: where to begin, the first time."),
    ] = Start.start,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            show_default=False,
            help="With --follow: what keeps how far it got. Default: a file in ~/.local/state/penstock.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    patience: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            show_default=False,
            help="How long a gateway that was lost is looked for. Default: 120; for ever with --follow.",
        ),
    ] = None,
) -> None:
    """Publish a log, a file or anything else that comes in order, for others to follow.

    Lines are sent as they come, many at once when they come fast; each is there once, also when the
    gateway is restarted meanwhile. With --type application/json each line is a message. Any other type
    than text is sent as it is. Ctrl-C ends it once what came is stored, a second one at once.

    \b
    penstock publish logs/app --follow app.log --keep 50M
    tail -F app.log | penstock publish logs/app --keep 50M
    make 2>&1 | penstock publish builds/42 --close
    penstock publish --file big.bin files/big
    penstock read logs/app

    \b
    Exit codes: 0 all of it is stored, 1 refused, 2 wrongly typed, 66 the file cannot be read, 69 no
    gateway, 73 cannot write --state, 77 key missing or wrong, 130 Ctrl-C.
    """
    if resume and file is None:
        raise Failure("--resume is for a file.", code=exits.USAGE)
    if follow is not None and (file is not None or close is not None):
        raise Failure("--follow has no end: it goes with neither --file nor --close.", code=exits.USAGE)
    if follow is None and (state is not None or start is not Start.start):
        raise Failure("--from and --state are for --follow.", code=exits.USAGE)
    how = Kept(ttl, size_of(keep) if keep else None)
    at = address(url, key)

    async def work(connection: Connection) -> int:
        if follow is not None:
            kept_in = state or default_state(at.base, path, follow)
            at_end = start is Start.end
            return await _publish_growing(connection, path, follow, content_type, how, kept_in, at_end=at_end)
        if file is None:
            return await _publish_input(connection, path, content_type, how, close=bool(close))
        return await _publish_file(
            connection, path, file, content_type, how, close=close is not False, resume=resume
        )

    if patience is None:
        patience = PATIENCE if follow is None else math.inf
    raise typer.Exit(run(at, patience, work))


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


def tell(sentence: str) -> None:
    """Say something on standard error."""
    print(f"penstock: {sentence}", file=sys.stderr, flush=True)


def tell_lost(lost: Lost) -> None:
    """Say on standard error that the gateway is being looked for."""
    if lost.attempt == 1:
        tell(f"{lost.why.removesuffix('.')}; trying again.")


async def _there(
    connection: Connection, path: str, content_type: str, how: Kept, *, insist: bool = False
) -> About | None:
    """Return what is at ``path`` already. Raises `Failure` for what cannot be appended to.

    ``insist``: wait for a gateway that is not there.
    """
    try:
        found = await about(connection, path, tell_lost if insist else None)
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
    if found.closed:
        raise Failure(f"{path} is there and closed.", code=exits.FAILED, hint="Name another path.")
    if content_type and media_type(content_type) != media_type(found.content_type):
        message = f"{path} is there and is {found.content_type}, not {content_type}."
        raise Failure(message, code=exits.FAILED, hint="Name another path, or leave --type out.")
    if how != Kept(None, None) and how != await kept(connection, path):
        tell(f"{path} is there already; --keep and --ttl are for new ones, and it stays as it is.")
    return found


async def _publish_input(
    connection: Connection, path: str, content_type: str, how: Kept, *, close: bool
) -> int:
    found = await _there(connection, path, content_type, how)
    kind = found.content_type if found else content_type or TEXT
    publisher = Publisher(connection, path, kind, tell_lost)
    if found is None:
        await publisher.create(*how)
    lines = media_type(kind) == JSON or kind.lower().startswith("text/")
    source = Source(sys.stdin.fileno())
    batches = Batches(source, whole_lines if lines else any_bytes)

    def leave() -> None:
        tell("stopping once what came is stored. Again to stop at once.")
        source.leave()

    with Leaving(leave) as leaving:
        async with asyncio.TaskGroup() as group:
            gathering = group.create_task(batches.gather())
            failure = await _send(batches, publisher, messages=media_type(kind) == JSON)
            gathering.cancel()
        if failure is not None:
            raise failure
        if close and source.ended:
            await publisher.close()
    return leaving.end() if leaving.asked else exits.OK


async def _send(batches: Batches, publisher: Publisher, *, messages: bool) -> Refused | Unreachable | None:
    """Return, not raise, why not all could be sent: a task group would wrap it."""
    while batch := await batches.take():
        if messages and not (batch := as_messages(batch)):
            continue
        try:
            await publisher.append(batch)
        except (Refused, Unreachable) as failure:
            return failure
    return None


# --- a file that grows ---------------------------------------------------------------------------------


def default_state(base: str, path: str, file: Path) -> Path:
    """Return where it is kept how far ``file`` is published as ``path``: one place for the three of them."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    which = "\0".join((base, path, str(file.absolute())))
    return home / "penstock" / f"publish-{hashlib.sha256(which.encode()).hexdigest()[:24]}.json"


async def _publish_growing(
    connection: Connection,
    path: str,
    file: Path,
    content_type: str,
    how: Kept,
    state: Path,
    *,
    at_end: bool,
) -> int:
    with Store(state) as store, closing(Followed(file, tell)) as followed:
        known = store.load()
        found = await _there(connection, path, content_type, how, insist=True)
        kind = found.content_type if found else content_type or TEXT
        messages = media_type(kind) == JSON
        if not messages and not kind.lower().startswith("text/"):
            raise Failure(f"--follow is for lines, and {path} is {kind}.", code=exits.USAGE)
        writer = Writer(known.producer, known.epoch, known.seq) if known else None
        publisher = Publisher(connection, path, kind, tell_lost, writer)
        if found is None:
            await publisher.create(*how)
        batch = None
        if known is None:
            followed.begin(at_end=at_end)
            store.save(Checkpoint(*publisher.writer, followed.place))
        else:
            batch = followed.resume(known)
            if found is None:
                tell(f"{path} is new; what was published before is not in it. To begin anew, remove {state}.")
            if found is None or (known.pending and batch is None):
                publisher.begin_anew()
        while True:
            batch = batch or followed.take()
            if batch is None:
                await asyncio.sleep(POLL)
                continue
            if content := as_messages(batch.content) if messages else batch.content:
                store.save(Checkpoint(*publisher.writer, batch.place, batch.size, batch.ended))
                await _append_known(publisher, content)
            followed.done(batch)
            store.save(Checkpoint(*publisher.writer, followed.place))
            batch = None


async def _append_known(publisher: Publisher, content: bytes) -> None:
    """Append; where the gateway does not know this writer (any more), begin anew."""
    try:
        await publisher.append(content)
    except Refused as refused:
        if refused.code != "producer_gap":
            raise
        publisher.begin_anew()
        await publisher.append(content)


# --- a whole file --------------------------------------------------------------------------------------


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
    found = await _there(connection, path, content_type, how)
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if found is not None and found.size and not resume:
            hint = "Go on with --resume if it is a part of this file, or name another path."
            raise Failure(f"{path} is there and has {found.size} bytes.", code=exits.FAILED, hint=hint)
        if found is not None and found.size > size:
            raise Failure(f"{path} has more bytes than the file.", code=exits.FAILED)
        kind = found.content_type if found else content_type or _kind_of(file)
        publisher = Publisher(connection, path, kind, tell_lost)
        if found is None:
            await publisher.create(*how)
        digest, upto = hashlib.sha256(), 0
        text = kind.startswith("text/")
        try:
            with progress(file.name, size) as advance:
                for block, is_there in _blocks(opened, found.size if found else 0, text=text):
                    digest.update(block)
                    upto += len(block)
                    if not is_there:
                        await _append_upto(connection, path, publisher, block, upto)
                    advance(len(block))
        except asyncio.CancelledError:
            tell(f"stopped. Go on with: penstock publish --file '{file}' '{path}' --resume")
            raise
        if close:
            encoded = base64.b64encode(digest.digest()).decode()
            await publisher.close(f"sha-256=:{encoded}:")
    print(f"{digest.hexdigest()}  {path}")
    return exits.OK


async def _append_upto(
    connection: Connection, path: str, publisher: Publisher, block: bytes, upto: int
) -> None:
    """Append a block of a file, with which ``upto`` bytes of it are there.

    What a process that was killed had sent may arrive after this one has looked how much is there.
    """
    try:
        await publisher.append(block, upto=upto)
    except Refused as refused:
        if refused.code != "stream_seq_conflict":
            raise
        if (await about(connection, path)).size != upto:
            message = f"Somebody else writes to {path}."
            raise Failure(message, code=exits.FAILED, hint="Name another path.") from None


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
