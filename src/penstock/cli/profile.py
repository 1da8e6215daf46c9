"""``penstock profile``: records what a running gateway does, into a file with a flame graph."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from penstock.cli import exits
from penstock.cli.exits import Failure
from penstock.cli.options import Key, Url
from penstock.cli.running import address, run
from penstock.client.addresses import DEFAULT_URL
from penstock.client.connection import Connection
from penstock.server.profiling import DEFAULT_SECONDS, MAX_SECONDS

RENDERING: float = 60.0
"""Seconds that a busy gateway may take to draw it."""

Form = Literal["html", "speedscope"]


def profile(
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=MAX_SECONDS, help="How long to record.")
    ] = DEFAULT_SECONDS,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write it; '-' is standard output.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="A page, or JSON for speedscope.app.")] = "html",
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Record what a running gateway spends its time with, as a flame graph.

    The gateway serves on meanwhile, a little slower. With keys, an administrator's is wanted.

    \b
    penstock profile
    penstock profile --seconds 30 --output profile.html
    penstock profile --format speedscope -o - > profile.json
    """
    ending = {"html": "html", "speedscope": "speedscope.json"}[form]
    named = output or Path(f"penstock-profile-{datetime.now():%Y%m%d-%H%M%S}.{ending}")

    async def work(connection: Connection) -> int:
        if sys.stderr.isatty():
            print(f"Recording for {seconds:g} s …", file=sys.stderr)
        query = {"seconds": f"{seconds:g}", "format": form}
        body = await connection.fetch("POST", "/v1/admin/profile", query=query, patience=seconds + RENDERING)
        if str(named) == "-":
            sys.stdout.buffer.write(body)
            return exits.OK
        try:
            named.write_bytes(body)
        except OSError as error:
            raise Failure(f"cannot write {named}: {error.strerror}.", code=exits.CANNOT_WRITE) from None
        print(named)
        return exits.OK

    raise typer.Exit(run(address(url, key), 0.0, work))
