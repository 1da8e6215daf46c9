"""``penstock top``: a running gateway at a glance, live: rates, times, targets, streams, what went wrong.

It reads the feed that the dashboard is drawn from. What is shown is `penstock.cli.glance`'s; here is how it
is followed: live on a terminal until Ctrl-C, as text once elsewhere, as JSON a line each for scripts.
"""

import asyncio
import shutil
import sys
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

import msgspec
import typer
from rich.console import Console
from rich.live import Live

from penstock.cli import exits
from penstock.cli.glance import Frame, History, picture
from penstock.cli.options import Key, Url
from penstock.cli.running import Interrupts, address, run
from penstock.client.addresses import DEFAULT_URL
from penstock.client.connection import Back, Connection, Lost, Received

PATH: Final = "/v1/admin/activity"

Order = Literal["age", "newest", "silent", "lag", "readers", "entries", "attempts"]

_decode = msgspec.json.Decoder(Frame).decode


def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once and leave.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON, a line each second, for scripts.")
    ] = False,
    find: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            show_default=False,
            help="Only streams with all these words; model:x looks in one field.",
        ),
    ] = "",
    sort: Annotated[Order, typer.Option(help="Which streams come first.")] = "age",
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Watch a running gateway: streams, rates, time to first output, errors, targets.

    With keys, an administrator's is wanted. A gateway that goes away is waited for; Ctrl-C ends it. Where
    the output is no terminal, it is shown once.

    \b
    penstock top
    penstock top --once
    penstock top --find model:chat --sort silent
    penstock top --json | jq '.point.open'
    """
    live = sys.stdout.isatty() and not (once or as_json)
    at = address(url, key)

    async def work(connection: Connection) -> int:
        path = f"{PATH}?{urlencode({'q': find, 'sort': sort})}"
        watch = _watch(connection, path, live=live, as_json=as_json, once=once)
        with Interrupts() as interrupts:
            watching = asyncio.ensure_future(watch)
            stopping = asyncio.ensure_future(interrupts.first.wait())
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, stopping):
                task.cancel()
            await asyncio.wait({watching, stopping})
            if not watching.cancelled():
                watching.result()
        return exits.OK

    raise typer.Exit(run(at, float("inf"), work))


async def _watch(connection: Connection, path: str, *, live: bool, as_json: bool, once: bool) -> None:
    """Show frame after frame. Raises `Refused`, `Unreachable`."""
    base, history, trouble = connection.address.base, History(), ""
    screen = Live(console=Console(), screen=True, auto_refresh=False) if live else None
    if screen is not None:
        screen.start()
    try:
        async with aclosing(connection.watch(path)) as happenings:
            async for happening in happenings:
                match happening:
                    case Lost():
                        trouble = f"lost: {happening.why}; trying again"
                    case Back():
                        trouble = ""
                    case Received(event="frame"):
                        if as_json:
                            print(happening.data.decode(), flush=True)
                            if once:
                                return
                            continue
                        history.add(_decode(happening.data))
                    case Received(event="history"):
                        history.begin(msgspec.json.decode(happening.data))
                if not history.frame or as_json:
                    continue
                size = shutil.get_terminal_size()
                now = f"{datetime.now():%H:%M:%S}"
                lines = picture(history, base, now, trouble, size.columns, size.lines if live else 0)
                if screen is not None:
                    screen.update(lines, refresh=True)
                else:
                    Console(width=max(100, size.columns), no_color=True, highlight=False).print(lines)
                    return
    finally:
        if screen is not None:
            screen.stop()
