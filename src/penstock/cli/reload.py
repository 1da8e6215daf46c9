"""``penstock reload``: a gateway that runs reads its configuration again."""

import json

import typer

from penstock.cli import exits
from penstock.cli.exits import Failure
from penstock.cli.options import Json, Key, Url
from penstock.cli.output import harmless
from penstock.cli.running import address, run
from penstock.client.addresses import DEFAULT_URL
from penstock.client.connection import Connection, Refused


def reload(url: Url = DEFAULT_URL, key: Key = "", as_json: Json = False) -> None:
    """Have a gateway read its configuration again, and say what changed.

    What is wrong is said as `check-config` says it, with exit code 78; then the old configuration stays.
    With keys, it takes one of an administrator's.

    \b
    penstock reload
    penstock reload --url https://llm.example.com --json
    """

    async def work(connection: Connection) -> int:
        try:
            done = await connection.call("POST", "/v1/admin/reload", dict)
        except Refused as refused:
            if refused.code == "bad_config":
                raise Failure(refused.message, code=exits.BAD_CONFIG) from None
            raise
        if as_json:
            print(json.dumps(done))
            return exits.OK
        waiting = done.get("needs_restart", [])
        for name in done.get("changed", []):
            print(harmless(name) + ("  (after a restart)" if name in waiting else ""))
        if not done.get("changed"):
            print("Nothing changed.")
        return exits.OK

    raise typer.Exit(run(address(url, key), 0.0, work))
