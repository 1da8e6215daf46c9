"""The program ``penstock``: its table of commands, its entry point, and what becomes of errors.

A command's module is loaded by name when it was typed, and only then: ``penstock serve`` starts without
what a chat needs, and ``penstock --help`` without either. The names stand in `COMMANDS`; a test imports
each. The one wide catch of the command line stands here: nobody is shown a traceback.
"""

import os
import pkgutil
import sys
from collections.abc import Callable
from io import TextIOWrapper
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from penstock import __version__
from penstock.cli import exits
from penstock.cli.exits import Failure
from penstock.cli.output import forget_output


class Listed(NamedTuple):
    """A command: where its function stands (``module:function``) and what the list says of it."""

    target: str
    summary: str


COMMANDS: Final = MappingProxyType(
    {
        "serve": Listed("penstock.cli.serve:serve", "Run the gateway."),
        "chat": Listed("penstock.cli.chat:chat", "Talk to a model, or ask one question."),
        "read": Listed("penstock.cli.read:read", "Follow a stream from any point."),
        "publish": Listed("penstock.cli.publish:publish", "Publish a log or a file for others to follow."),
        "verify": Listed("penstock.cli.verify:verify", "Check that a stream is whole."),
        "explain": Listed(
            "penstock.cli.explain:explain", "Tell how a stream came about: who, where, why, how long."
        ),
        "models": Listed("penstock.cli.models:models", "List the models that can be asked for."),
        "keys": Listed("penstock.cli.keys:app", "Make, list, replace and end API keys."),
        "usage": Listed("penstock.cli.usage:usage", "Show what was used, and what it cost."),
        "top": Listed("penstock.cli.top:top", "Watch a running gateway."),
        "alerts": Listed("penstock.cli.alerts:app", "Try whether alerts arrive."),
        "profile": Listed("penstock.cli.profile:profile", "Record what a running gateway does."),
        "check-config": Listed(
            "penstock.cli.check_config:check_config", "Say what is wrong with a configuration."
        ),
        "reload": Listed("penstock.cli.reload:reload", "Have a gateway read its configuration again."),
        "version": Listed("penstock.cli.version:version", "Print the version."),
    }
)

CONTEXT: Final = MappingProxyType({"help_option_names": ["-h", "--help"], "max_content_width": 100})


class Commands(TyperGroup):
    """The group of all commands, of which those that were not typed are known by name only."""

    def __init__(self, **settings: Any) -> None:
        """What help, completion and near names need to know of a command stands in the table."""
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=listed.summary) for name, listed in COMMANDS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is about to run, loaded."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what goes wrong becomes lines on stderr and an exit code."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except Failure as failure:
            print(f"penstock: {failure.message}", file=sys.stderr)
            if failure.hint:
                print(failure.hint, file=sys.stderr)
            raise typer.Exit(failure.code) from None
        except BrokenPipeError:
            forget_output()
            raise typer.Exit(exits.BROKEN_PIPE) from None
        except KeyboardInterrupt:
            raise typer.Exit(exits.STOPPED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if "PENSTOCK_DEBUG" in os.environ or hasattr(error, "exit_code"):
                raise
            print(f"penstock: a defect of this program: {type(error).__name__}.", file=sys.stderr)
            print("Set PENSTOCK_DEBUG=1 to see where, and report it.", file=sys.stderr)
            raise typer.Exit(exits.DEFECT) from None


def load(name: str) -> Any:
    """Return the command called ``name``, as its module defines it."""
    function: Callable[..., None] | typer.Typer = pkgutil.resolve_name(COMMANDS[name].target)
    if isinstance(function, typer.Typer):  # a command with commands of its own
        return typer.main.get_command(function)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command(name, context_settings=dict(CONTEXT))(function)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=Commands,
    name="penstock",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=dict(CONTEXT),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def penstock(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version and leave.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """A streaming gateway for language models.

    \b
    penstock serve                    runs it, on http://localhost:8080
    penstock chat                     talks to it
    penstock chat "Why is it blue?"   asks one question
    penstock COMMAND --help           says more about a command
    """


def main() -> None:
    """The program's entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what the locale cannot write is no reason to fail
            stream.reconfigure(errors="replace")
    app(prog_name="penstock")
