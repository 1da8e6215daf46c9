"""``penstock read``: a stream from any point, in any form, to its end."""

import json
import os
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from penstock.cli import exits
from penstock.cli.answers import Answer
from penstock.cli.asking import raise_failure
from penstock.cli.exits import Failure
from penstock.cli.fetching import fetch, publication_of
from penstock.cli.markdown import THEME
from penstock.cli.options import PATIENCE, Key, Patience, Url
from penstock.cli.running import address, go_on, receive, run
from penstock.cli.screen import Screen
from penstock.cli.views import EventsView, QuietView, TerminalView, View, WordsView
from penstock.client.addresses import DEFAULT_URL, Target, target_of
from penstock.client.connection import Connection, Happening, Received
from penstock.types.events import AnyEvent
from penstock.types.positions import parse_cursor
from penstock.wire import sse


class Format(StrEnum):
    """What a stream can be read as."""

    text = "text"
    markdown = "markdown"
    events = "events"
    json = "json"
    openai = "openai"
    sse = "sse"
    sse_text = "sse-text"
    sse_openai = "sse-openai"


_DIALECTS = {Format.openai: "openai_chat", Format.sse_openai: "openai_chat", Format.sse_text: "text"}


def read(
    stream: Annotated[
        str,
        typer.Argument(
            metavar="STREAM",
            help="Its id (s_…, chatcmpl-…), a cursor in it, the path of a publication, or the URL of either.",
        ),
    ],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="CURSOR",
            show_default=False,
            help="Where to begin: a cursor or offset, a number of entries, 'start' or 'now'. Default: the "
            "cursor that STREAM is, else the start.",
        ),
    ] = "",
    format: Annotated[
        Format | None,
        typer.Option(
            "--format", "-F", show_default=False, help="Default: markdown on a terminal, else text."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Wait for what is still to come.")] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            show_default=False,
            help="Where a publication goes, in place of what the file held. Default: standard output.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    patience: Patience = PATIENCE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Follow a stream from any point, until it ends.

    Of a publication, which is named by its path, the content is written as it is; of one of JSON, a
    message a line. Where it was closed with a digest, that is checked.

    A lost connection is taken up again by itself. Ctrl-C stops reading, not the answer, and says how to
    read on.

    \b
    text        the words of the answer
    markdown    the same, rendered (on a terminal)
    events      every event as one line of JSON: {"c":<cursor>,"ev":<event>,"d":<data>}
    json        the whole answer as one object, once it has ended
    openai      chunks in OpenAI's form, one line of JSON each
    sse         server-sent events as the gateway sends them
    sse-text    the same, with the words alone
    sse-openai  the same, in OpenAI's form

    \b
    penstock read s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F
    penstock read s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F --from now
    penstock read s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F --format events --no-follow
    penstock read logs/app --from now
    penstock read files/big --output big.bin

    \b
    Exit codes: 0 complete (or open, with --no-follow), 1 failed or expired, 2 wrongly typed,
    3 cancelled, 4 interrupted, 66 no such stream, 69 no gateway, 73 cannot write the file, 77 key missing
    or wrong, 130 Ctrl-C.
    """
    if publication := publication_of(stream, address(url, key)):
        if format is not None or as_json:
            raise Failure("--format is for generations.", code=exits.USAGE)
        at, path = publication

        async def fetching(connection: Connection) -> int:
            return await fetch(connection, path, start, output, follow=follow)

        raise typer.Exit(run(at, patience, fetching))
    if output is not None:
        raise Failure("--output is for publications.", code=exits.USAGE)
    if as_json:
        format = Format.json
    if format is None:
        format = Format.markdown if _can_draw() else Format.text
    if not follow and format in _DIALECTS:
        raise Failure(f"--no-follow cannot be had with --format {format}.", code=exits.USAGE)
    try:
        target = target_of(stream, address(url, key))
    except ValueError as error:
        raise Failure(f"{error}.", code=exits.USAGE) from None
    after = _after(start or target.cursor)

    async def work(connection: Connection) -> int:
        return await _read(connection, target, after, format, follow=follow)

    raise typer.Exit(run(target.address, patience, work))


def _can_draw() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _after(text: str) -> str:
    if text in ("", "start"):
        return "0"
    try:
        parse_cursor(text)
    except ValueError:
        message = "--from takes a cursor (s_…~…), a number of entries, 'start' or 'now'."
        raise Failure(message, code=exits.USAGE) from None
    return text


async def _read(connection: Connection, target: Target, after: str, format: Format, *, follow: bool) -> int:
    dialect = _DIALECTS.get(format, "")
    answer = Answer(native=not dialect)
    happenings = connection.follow(target.stream, after, dialect)
    if not follow:
        snapshot = await connection.snapshot(target.stream)
        happenings = _until(happenings, int(snapshot["entries"]))
    if format is Format.markdown and _can_draw():
        with Screen(sys.stdout, shutil.get_terminal_size) as screen:
            view: View = TerminalView(Console(theme=THEME, highlight=False), screen, "the stream")
            outcome = await receive(happenings, answer, view)
    else:
        outcome = await receive(happenings, answer, _view(format))
    await raise_failure(connection, outcome.error, "")
    base = connection.address.base
    if outcome.stopped:
        print(f"\npenstock: stopped reading. {go_on(answer.cursor or after, base)}", file=sys.stderr)
        return exits.STOPPED
    if format is Format.json:
        print(json.dumps(answer.result(), ensure_ascii=False))
    if dialect:
        status = (await connection.snapshot(target.stream))["status"]
        return exits.OF_STATUS.get(status, exits.FAILED)
    if said := answer.ending():
        print(f"penstock: {said}", file=sys.stderr)
    elif answer.closed is None:
        print(f"penstock: the stream is open. {go_on(answer.cursor or after, base)}", file=sys.stderr)
    return answer.exit_code()


async def _until(
    happenings: AsyncGenerator[Happening, None], entries: int
) -> AsyncGenerator[Happening, None]:
    """Yield up to the entry number ``entries``, the last there was."""
    async with aclosing(happenings):
        async for happening in happenings:
            if not isinstance(happening, Received):
                yield happening
                continue
            yield happening
            position = parse_cursor(happening.cursor).position if happening.cursor else None
            if position and position.entries >= entries:
                return


def _view(format: Format) -> View:
    match format:
        case Format.events:
            return EventsView()
        case Format.json:
            return QuietView()
        case Format.openai:
            return ChunksView()
        case Format.sse | Format.sse_text | Format.sse_openai:
            return FramesView()
    return WordsView()


class ChunksView(QuietView):
    """Chunks in OpenAI's form, one line each."""

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Write the chunk; ``[DONE]`` is no JSON, and the end shows."""
        if received.data != b"[DONE]":
            sys.stdout.write(received.data.decode("utf-8", "replace") + "\n")
            sys.stdout.flush()


class FramesView(QuietView):
    """Server-sent events, as `EventsView` has them."""

    def __init__(self) -> None:
        """Nothing was opened yet."""
        super().__init__()
        self._opened = False

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Write the event as the gateway framed it."""
        if received.event == "stream" and self._opened:
            return
        self._opened = True
        frame: Any = {"event": received.event.encode(), "id": received.cursor.encode()}
        text = received.data.decode("utf-8", "replace")
        sys.stdout.write(sse.encode_text(text, **frame).decode("utf-8", "replace"))
        sys.stdout.flush()
