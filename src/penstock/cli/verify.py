"""``penstock verify``: whether a stream is whole, and as the gateway stored it."""

import json
import sys
from typing import Annotated

import typer

from penstock.cli import exits
from penstock.cli.answers import Answer
from penstock.cli.asking import raise_failure
from penstock.cli.exits import Failure
from penstock.cli.options import PATIENCE, Json, Key, Patience, Url
from penstock.cli.running import address, go_on, receive, run
from penstock.cli.views import QuietView
from penstock.client.addresses import DEFAULT_URL, Target, target_of
from penstock.client.connection import Connection, Received
from penstock.types.events import AnyEvent
from penstock.wire.verification import Verifier


def verify(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Its id (s_…, chatcmpl-…) or its URL.")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    patience: Patience = PATIENCE,
    as_json: Json = False,
) -> None:
    """Read a stream from its start and check it: order, completeness, digests.

    An open stream is followed to its end first. A stream that failed or was cancelled can be as good as
    any: what is checked is that everything is there that was stored, and nothing else.

    \b
    penstock verify s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F

    \b
    Exit codes: 0 good, 1 not as it was stored, 2 wrongly typed, 66 no such stream, 69 no gateway,
    77 key missing or wrong, 130 Ctrl-C.
    """
    try:
        target = target_of(stream, address(url, key))
    except ValueError as error:
        raise Failure(f"{error}.", code=exits.USAGE) from None

    async def work(connection: Connection) -> int:
        return await _verify(connection, target, as_json=as_json)

    raise typer.Exit(run(target.address, patience, work))


async def _verify(connection: Connection, target: Target, *, as_json: bool) -> int:
    verifier, answer = Verifier(), Answer()
    outcome = await receive(connection.follow(target.stream), answer, _Checks(verifier))
    await raise_failure(connection, outcome.error, "")
    if outcome.stopped:
        where = go_on(answer.cursor or "0", connection.address.base)
        print(f"\npenstock: stopped before the stream's end. {where}", file=sys.stderr)
        return exits.STOPPED
    verdict = verifier.verdict()
    if as_json:
        found = {
            "stream": target.stream,
            "good": verdict.good,
            "status": verdict.status,
            "entries": verdict.entries,
            "characters": verdict.characters,
            "problems": verdict.problems,
        }
        print(json.dumps(found))
    elif verdict.good:
        print(f"good: {verdict.status}, {verdict.entries} entries, {verdict.characters} characters")
    for problem in () if as_json else verdict.problems:
        print(f"penstock: {problem}", file=sys.stderr)
    return exits.OK if verdict.good else exits.FAILED


class _Checks(QuietView):
    """Shows nothing, and hands every entry to the verifier."""

    def __init__(self, verifier: Verifier) -> None:
        super().__init__()
        self._verifier = verifier

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Check an entry; the opening is none."""
        if received.event != "stream":
            self._verifier.feed(received.data)
