"""``penstock check-config``: reads a configuration as ``serve`` would, and starts nothing."""

import typer

from penstock.cli import exits
from penstock.cli.serve import ConfigFile, complain, load
from penstock.config import BadConfig, check


def check_config(config: ConfigFile = None) -> None:
    """Check a configuration without starting anything; exit code 0 when it can be used."""
    try:
        problems = check(load(config))
    except BadConfig as error:
        problems = error.problems
    if problems:
        complain(problems)
        raise typer.Exit(exits.BAD_CONFIG)
    print("The configuration is good.")
