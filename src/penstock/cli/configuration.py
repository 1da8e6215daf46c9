"""The configuration as commands get it: file, then environment, then options; and what is said of it.

Whatever is wrong is said at once, each problem with the line, the variable or the option that it comes
from. ``serve`` and ``check-config`` say the same.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
import typer

from penstock.assembly.settings import upstream_config
from penstock.cli import exits
from penstock.config import (
    BadConfig,
    Config,
    Draft,
    Origin,
    Problem,
    check,
    environment_origins,
    located,
    read_draft,
    with_environment,
)

DEFAULT_FILE: Final = "penstock.yaml"

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Configuration file; ./penstock.yaml when there is one."
    ),
]


class Options(NamedTuple):
    """The options of ``serve`` that say what a file could say; empty when not given."""

    host: str = ""
    port: int | None = None
    upstream: str = ""
    api_key: str = ""
    model: str = ""
    key: str = ""
    data: str = ""
    store: str = ""
    allow_origin: tuple[str, ...] = ()


NO_OPTIONS: Final = Options()


def settle(path: Path | None, environ: Mapping[str, str], options: Options = NO_OPTIONS) -> Draft:
    """Return what is configured in all, with everything that is wrong with it."""
    if path is None and Path(DEFAULT_FILE).is_file():
        path = Path(DEFAULT_FILE)
    try:
        draft = read_draft(path, environ) if path else Draft(Config(), {}, [])
    except BadConfig as error:
        return Draft(Config(), {}, error.problems)
    config, origins, problems, files = draft
    origins = origins | environment_origins(config, environ) | _option_origins(options, environ)
    try:
        config = _with_options(with_environment(config, environ), options, environ)
    except BadConfig as error:
        problems = [*problems, *error.problems]
    else:
        # What was said of a setting says enough of the parts it stands in.
        said = [problem.where for problem in problems]
        more = [problem for problem in check(config) if not any(_within(problem.where, one) for one in said)]
        problems = sorted([*problems, *located(more, origins)], key=_in_order)
    return Draft(config, origins, problems, files)


def settled(path: Path | None, environ: Mapping[str, str], options: Options = NO_OPTIONS) -> Draft:
    """As `settle`; when something is wrong, say so on standard error and leave."""
    draft = settle(path, environ, options)
    if draft.problems:
        complain(draft.problems)
        raise typer.Exit(exits.BAD_CONFIG)
    return draft


def complain(problems: list[Problem]) -> None:
    """Say on standard error what is wrong, a line each."""
    print("penstock: the configuration cannot be used:", file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)


def _in_order(problem: Problem) -> int:
    return problem.origin.line if problem.origin else 0


def _within(one: str, other: str) -> bool:
    """Say whether one path is the other, or stands in it."""
    shorter, longer = sorted((one, other), key=len)
    return longer.startswith(shorter) and longer[len(shorter) : len(shorter) + 1] in ("", ".", "[")


def _option_origins(options: Options, environ: Mapping[str, str]) -> dict[str, Origin]:
    named = {
        "listen.host": ("--host", options.host),
        "listen.port": ("--port", options.port is not None),
        "listen.allowed_origins": ("--allow-origin", options.allow_origin),
        "store.path": ("--data", options.data),
        "store.kind": ("--store", options.store),
        "keys.default": ("--key", options.key not in ("", environ.get("PENSTOCK_KEY"))),
        "providers.upstream": ("--upstream", options.upstream),
    }
    return {where: Origin(name) for where, (name, given) in named.items() if given}


def _with_options(config: Config, options: Options, environ: Mapping[str, str]) -> Config:
    """Return ``config`` with what the command line says. Raises `BadConfig`."""
    listen, store = config.listen, config.store
    if options.host:
        listen = msgspec.structs.replace(listen, host=options.host)
    if options.port is not None:
        listen = msgspec.structs.replace(listen, port=options.port)
    if options.allow_origin:
        origins = (*listen.allowed_origins, *options.allow_origin)
        listen = msgspec.structs.replace(listen, allowed_origins=origins)
    if options.data:
        store = msgspec.structs.replace(store, path=options.data)
    match options.store:
        case "":
            pass
        case "embedded" | "memory" as kind:
            store = msgspec.structs.replace(store, kind=kind)
        case _:
            raise BadConfig([Problem("--store", "write 'embedded' or 'memory'")])
    keys = {**config.keys, "default": options.key} if options.key else config.keys
    config = msgspec.structs.replace(config, listen=listen, store=store, keys=keys)
    if options.upstream:
        return upstream_config(config, options.upstream, options.api_key, options.model)
    if options.model or options.api_key not in ("", environ.get("PENSTOCK_UPSTREAM_KEY")):
        raise BadConfig([Problem("--upstream", "--model and --api-key say more about an --upstream URL")])
    return config
