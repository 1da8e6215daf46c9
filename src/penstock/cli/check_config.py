"""``penstock check-config``: reads a configuration as ``serve`` would, builds everything, starts nothing."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.assembly.system import assemble
from penstock.cli import exits
from penstock.cli.configuration import DEFAULT_FILE, ConfigFile, complain, settle
from penstock.config import BadConfig, Config, Draft, Problem, ProviderConfig, located


def check_config(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="The file; ./penstock.yaml when there is one.", show_default=False
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """Say what is wrong with a configuration, or what was understood.

    Nothing is started. Each problem comes with its line, or with the variable that it comes from; the
    exit code is 78 when there are any, else 0.

    \b
    penstock check-config
    penstock check-config /etc/penstock.yaml --json
    """
    draft = settle(file or config, os.environ)
    problems = draft.problems
    if not problems:
        try:
            assemble(draft.config)
        except BadConfig as error:
            problems = located(error.problems, draft.origins)
    if as_json:
        print(json.dumps(_report(draft, problems), ensure_ascii=False))
    elif problems:
        complain(problems)
    else:
        named = file or config or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None)
        print(f"{named} is good." if named else f"There is no {DEFAULT_FILE} here: these are the defaults.")
        print("\n".join(_summary(draft.config)))
    if problems:
        raise typer.Exit(exits.BAD_CONFIG)


def _report(draft: Draft, problems: list[Problem]) -> dict[str, Any]:
    found = [
        {
            "where": problem.where,
            "what": problem.what,
            "origin": problem.origin.name if problem.origin else None,
            "line": (problem.origin and problem.origin.line) or None,
            "column": (problem.origin and problem.origin.column) or None,
        }
        for problem in problems
    ]
    report: dict[str, Any] = {"good": not problems, "problems": found}
    if not problems:
        config = draft.config
        report["listen"] = {"host": config.listen.host, "port": config.listen.port}
        report["store"] = {"kind": config.store.kind, "path": config.store.path}
        report["keys"] = sorted(config.keys)
        report["jwt"] = sorted(config.jwt)
        report["providers"] = {
            name: {"kind": config.kind(name), "base_url": made.base_url, "has_key": has_key(made)}
            for name, made in config.providers.items()
        }
        report["models"] = {
            name: [
                {"provider": target.provider, "model": target.model} for target in config.model(name).targets
            ]
            for name in config.models
        }
        report["default_model"] = default_model(config)
    return report


def _summary(config: Config) -> list[str]:
    """Return what was understood, in lines; of secrets, whether there are any."""
    rows = [
        ("listen", f"{config.listen.host}:{config.listen.port}"),
        ("keys", _whose(config)),
        ("store", "memory" if config.store.kind == "memory" else f"{config.store.path} (embedded)"),
    ]
    for name, made in config.providers.items():
        scripted = config.kind(name) == "scripted"
        where = "embedded" if scripted else made.base_url
        key = "" if scripted else ", with a key" if has_key(made) else ", without a key"
        rows.append(("provider", f"{name}: {where}{key}"))
    if config.demo and "demo" not in config.providers:
        rows.append(("provider", "demo: embedded"))
    for name in config.models:
        said = config.model(name)
        joint = ", then " if said.balance == "order" else ", or "
        tried = joint.join(f"{target.provider}/{target.model}" for target in said.targets)
        rows.append(("model", f"{name} → {tried}"))
    rows.append(("default", default_model(config)))
    return [f"  {name:<8}  {what}" for name, what in rows]


def _whose(config: Config) -> str:
    """Return who comes in, as far as the configuration says."""
    named = [*sorted(config.keys), *(f"{name} (tokens)" for name in sorted(config.jwt))]
    if config.anonymous is False:
        named.append("those of `penstock keys`")
    elif config.anonymous or not named:
        named.append("none: for this machine only" if config.anonymous is None else "none wanted")
    return ", ".join(named)


def has_key(made: ProviderConfig) -> bool:
    """Say whether a provider is told who we are."""
    return bool(made.api_key or made.api_key_file)


def default_model(config: Config) -> str:
    """Return the model of a request that names none."""
    return config.default_model or next((name for name in config.models if "*" not in name), "demo")
