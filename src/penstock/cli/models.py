"""``penstock models``: what a gateway can be asked for."""

import json
import shutil
import sys
import textwrap

import typer
from rich.cells import cell_len, set_cell_size

from penstock.cli import exits
from penstock.cli.options import Json, Key, Url
from penstock.cli.output import harmless
from penstock.cli.running import address, run
from penstock.client.addresses import DEFAULT_URL
from penstock.client.connection import Connection, Model


def models(url: Url = DEFAULT_URL, key: Key = "", as_json: Json = False) -> None:
    """List the models that can be asked for, with who provides them.

    Where the output is no terminal, a line is a model's name, its provider and its description, with
    tabs between them.

    \b
    penstock models
    penstock models | cut -f1
    penstock models --json | jq -r '.[].id'
    """

    async def work(connection: Connection) -> int:
        found = await connection.models()
        if as_json:
            rows = [{"id": one.id, "provider": one.owned_by, "description": one.description} for one in found]
            print(json.dumps(rows, ensure_ascii=False, indent=2))
        elif sys.stdout.isatty():
            print("\n".join(table(found, shutil.get_terminal_size().columns)))
        else:
            for one in found:
                print("\t".join(" ".join(part.split()) for part in one_row(one)))
        return exits.OK

    raise typer.Exit(run(address(url, key), 0.0, work))


def one_row(model: Model) -> tuple[str, str, str]:
    """Return the columns of a model."""
    return harmless(model.id), harmless(model.owned_by), harmless(model.description)


def table(found: list[Model], width: int) -> list[str]:
    """Return the lines of a table that is no wider than ``width``; descriptions are wrapped."""
    if not found:
        return ["The gateway lists no models."]
    rows = [one_row(model) for model in found]
    name = max(cell_len(row[0]) for row in rows)
    provider = max(cell_len(row[1]) for row in rows)
    left = width - name - provider - 4
    if left < 24:  # too narrow for columns: the description goes below
        lines = []
        for row in rows:
            lines.append(f"{row[0]}  ({row[1]})")
            lines += textwrap.wrap(row[2], max(10, width - 2), initial_indent="  ", subsequent_indent="  ")
        return lines
    lines = []
    for row in rows:
        said = textwrap.wrap(row[2], left) or [""]
        head = f"{set_cell_size(row[0], name)}  {set_cell_size(row[1], provider)}  "
        lines.append((head + said[0]).rstrip())
        lines += [" " * (name + provider + 4) + more for more in said[1:]]
    return lines
