"""``penstock explain``: a generation told as a story: who, by which rules, where, why, and how long."""

import json
import shutil
import sys
from typing import Annotated

import msgspec
import typer

from penstock.cli import exits
from penstock.cli.exits import Failure
from penstock.cli.options import Json, Key, Url
from penstock.cli.output import harmless
from penstock.cli.running import address, run
from penstock.cli.story import story
from penstock.client.addresses import DEFAULT_URL, target_of
from penstock.client.connection import Connection
from penstock.types.explanations import Explanation

WIDTH = 100
"""Columns that a story takes at most, and where the output is no terminal."""

_decode = msgspec.json.Decoder(Explanation).decode


def explain(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Its id (s_…, chatcmpl-…) or its URL.")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Tell how a stream came about.

    Who asked, what each policy decided, which targets were tried and why, what was waited for in
    milliseconds, what it used and cost, how it ended, and who reads it now. Of an open stream: what goes
    on at the moment. The words of the prompt and of the answer are not told.

    For whoever created the stream, and for administrators.

    \b
    penstock explain s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F
    penstock explain s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F --json | jq .timing

    \b
    Exit codes: 0 told, 2 wrongly typed, 66 no such stream, 69 no gateway, 77 key missing or wrong.
    """
    try:
        target = target_of(stream, address(url, key))
    except ValueError as error:
        raise Failure(f"{error}.", code=exits.USAGE) from None

    async def work(connection: Connection) -> int:
        reply = await connection.explain(target.stream)
        if as_json:
            print(json.dumps(json.loads(reply.body), ensure_ascii=False, indent=2))
            return exits.OK
        width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
        try:
            told = _decode(reply.body)
        except msgspec.DecodeError:
            hint = f"Is {connection.address.base} the address of a Penstock gateway of this version?"
            raise Failure("the explanation cannot be read.", code=exits.UNAVAILABLE, hint=hint) from None
        print(harmless("\n".join(story(told, min(width, WIDTH)))))
        return exits.OK

    raise typer.Exit(run(target.address, 0.0, work))
