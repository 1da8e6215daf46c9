"""``penstock alerts``: whether messages of alerts arrive, and which rules there are."""

import os
import platform

import typer

from penstock.assembly.telemetry import alert_rules, alert_targets
from penstock.cli import exits
from penstock.cli.configuration import ConfigFile, complain, settled
from penstock.config import BadConfig, located
from penstock.telemetry.alert_rules import span
from penstock.telemetry.alert_sending import Message

app = typer.Typer(
    name="alerts",
    help="Try whether alerts arrive.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command("test")
def send_test(config: ConfigFile = None) -> None:
    """Send a message to everybody that the configuration names.

    No gateway needs to run. The exit code is 1 when one of them did not take it.

    \b
    penstock alerts test
    penstock alerts test --config /etc/penstock.yaml
    """
    draft = settled(config, os.environ)
    try:
        targets = alert_targets(draft.config)
    except BadConfig as error:
        complain(located(error.problems, draft.origins))
        raise typer.Exit(exits.BAD_CONFIG) from None
    if not targets:
        print("Nobody is to be told: there is no alerts.send in the configuration.")
        return
    title = f"Penstock on {platform.node()}: a test"
    message = Message("test", title, "This is what an alert would look like. Nothing is wrong.")
    failed = False
    for name, target in targets.items():
        taken = target.send(message)
        failed |= not taken
        print(f"{name}: {'sent' if taken else 'not taken'}", flush=True)
    if failed:
        raise typer.Exit(exits.FAILED)


@app.command()
def rules(config: ConfigFile = None) -> None:
    """List the rules, one a line: its name, what it is about, and what is too much."""
    said = settled(config, os.environ).config
    for rule in alert_rules(said):
        lasting = f"for {span(rule.after)}" if rule.after else "at once"
        to = ", ".join(rule.to or said.alerts.send)
        print(f"{rule.name}\t{rule.when} above {rule.above:g}\t{lasting}\t{to}")
