"""``penstock keys``: makes, lists, replaces and ends API keys, in the ledger that the configuration names.

It works on the ledger itself, whether a gateway runs or not; one that runs hears of it within seconds. A
key is printed when it is made and never again.
"""

import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from penstock.cli import exits
from penstock.cli.configuration import ConfigFile, settled
from penstock.cli.exits import Failure
from penstock.cli.options import Json
from penstock.ledger.database import Database
from penstock.ledger.keys import create_key, list_keys, revoke_key, rotate_key
from penstock.server.admin import shown
from penstock.server.guard import is_origin, normal_origin
from penstock.types.errors import ClientError, PenstockError
from penstock.types.keys import NAME, KeyOrder, KeyRecord, NewKey
from penstock.types.principals import Grant, is_network

_SPAN: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

app = typer.Typer(
    name="keys",
    help="Make, list, replace and end API keys.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def seconds(text: str) -> float:
    """Read a span such as ``90d``; raises `typer.BadParameter`."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter("write a number and s, m, h or d: 90d")
    return float(int(found[1]) * _UNITS[found[2]])


class Opened:
    """The ledger, opened for a command; what goes wrong with it ends the command."""

    def __init__(self, config: Any) -> None:
        self._database = Database(settled(config, os.environ).config.ledger_url)

    def __enter__(self) -> Database:
        if not self._database.at_rest:
            message = "the configured store is in memory, so keys would be gone with this command."
            hint = "Name a ledger.url, or put keys into the file."
            raise Failure(message, code=exits.BAD_CONFIG, hint=hint)
        try:
            self._database.open()
        except PenstockError as error:
            raise Failure(error.message, code=exits.UNAVAILABLE) from None
        return self._database

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._database.close()
        if isinstance(error, ClientError):  # of the key that was named
            hint = "`penstock keys list` lists those there are."
            raise Failure(error.message, code=exits.NO_INPUT, hint=hint) from None
        if isinstance(error, PenstockError):
            raise Failure(error.message, code=exits.UNAVAILABLE) from None


def _tell(made: NewKey, as_json: bool) -> None:
    record = made.record
    if as_json:
        print(json.dumps({"key": made.key, **shown(record, time.time())}))
        return
    print(made.key)
    print(f"This is the key of '{record.name}'. It is shown once: keep it now.", file=sys.stderr)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is: streams belong to names.")],
    team: Annotated[str, typer.Option(metavar="TEAM", help="For limits and budgets that teams share.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="May see all streams, and manage keys.")] = False,
    expires: Annotated[str, typer.Option(metavar="SPAN", help="Ends after so long: 90d, 12h.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="A model it may use; may be repeated.")
    ] = None,
    route: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="A route it may use; may be repeated.")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Whose pages may use it; may be repeated.")
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(metavar="NETWORK", help="Where it may be used; may be repeated.")
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a key, and print it: this once.

    \b
    penstock keys create web-app
    penstock keys create night-batch --team research --model 'gpt-*' --expires 90d
    penstock keys create me --admin
    """
    for text in (name, *([team] if team else [])):
        if not NAME.fullmatch(text):
            raise typer.BadParameter("a name has up to 64 letters, digits and . _ @ : -")
    for one in origin or ():
        if not is_origin(one):
            raise typer.BadParameter(f"{one} is no origin: write https://app.example.com")
    for one in address or ():
        if not is_network(one):
            raise typer.BadParameter(f"{one} is no address or network: write 10.0.0.0/8")
    grant = Grant(
        tuple(model or ()), tuple(route or ()), tuple(map(normal_origin, origin or ())), tuple(address or ())
    )
    order = KeyOrder(name, team, admin, grant, seconds(expires) if expires else None)
    with Opened(config) as database:
        _tell(database.run(create_key, order, time.time()), as_json)


@app.command("list")
def list_(config: ConfigFile = None, as_json: Json = False) -> None:
    """List the keys, without the keys: id, name, state, and what they are limited to.

    Those of the configuration stand there.

    \b
    penstock keys list
    penstock keys list --json | jq -r '.[] | select(.state == "active") | .id'
    """
    now = time.time()
    with Opened(config) as database:
        records = database.run(list_keys)
    if as_json:
        print(json.dumps([shown(record, now) for record in records], indent=2))
    elif sys.stdout.isatty() and not records:
        print("There are none. `penstock keys create NAME` makes one.")
    else:
        for record in records:
            print("\t".join(_row(record, now)))


def _row(record: KeyRecord, now: float) -> tuple[str, ...]:
    ends = record.revoked_at or record.expires_at
    when = "" if ends is None else datetime.fromtimestamp(ends, UTC).strftime("until %Y-%m-%d %H:%M")
    grant = record.grant
    said = [
        f"{name}={','.join(getattr(grant, name))}" for name in ("models", "routes", "origins", "addresses")
    ]
    limits = " ".join(text for text in said if not text.endswith("="))
    role = "admin" if record.admin else ""
    return record.id, record.name, record.team, record.state(now), role, when, limits


@app.command()
def rotate(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id: what stands after pk_.")],
    grace: Annotated[str, typer.Option(metavar="SPAN", help="How long the old one still works: 24h.")] = "0s",
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a key that may what another may, and end that one, at once or after a grace.

    \b
    penstock keys rotate 4kq8z1m0xw --grace 24h
    """
    with Opened(config) as database:
        _tell(database.run(rotate_key, _id(key), seconds(grace), time.time()), as_json)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id: what stands after pk_.")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """End a key. A gateway that runs refuses it within five seconds.

    \b
    penstock keys revoke 4kq8z1m0xw
    """
    with Opened(config) as database:
        record = database.run(revoke_key, _id(key), time.time())
    if as_json:
        print(json.dumps(shown(record, time.time())))
    else:
        print(f"The key {record.id} of '{record.name}' works no more.", file=sys.stderr)


def _id(text: str) -> str:
    """Return the id that is meant, also where somebody pasted more of the key."""
    return text.removeprefix("pk_").partition("_")[0]
