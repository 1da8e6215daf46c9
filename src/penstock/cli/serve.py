"""``penstock serve``: settles the configuration, sets the process up, runs the gateway until it is stopped.

Nothing but that: what the configuration means is `penstock.config`'s, how a system is built from it is
`penstock.assembly`'s, and how it is served and stopped is `penstock.server.serving`'s.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import typer
import uvloop

from penstock import __version__
from penstock.assembly.settings import log_settings, serving
from penstock.assembly.system import System, assemble
from penstock.cli import exits
from penstock.cli.configuration import DEFAULT_FILE, ConfigFile, Options, complain, settle, settled
from penstock.config import BadConfig, Config, Draft, located, secrets_of
from penstock.reloading import Reloader
from penstock.server.descriptors import affordable
from penstock.server.serving import Server, listen
from penstock.telemetry.logs import logging_to
from penstock.telemetry.redaction import Redactor
from penstock.types.errors import PenstockError

log = structlog.get_logger(__name__)


def serve(
    config: ConfigFile = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; beyond loopback a key is required.")
    ] = "",
    port: Annotated[int | None, typer.Option(metavar="PORT", help="Port to listen on; 0 for any.")] = None,
    upstream: Annotated[
        str, typer.Option(metavar="URL", help="An OpenAI-compatible server: http://host:8000/v1.")
    ] = "",
    api_key: Annotated[
        str, typer.Option(metavar="KEY", help="Its API key.", envvar="PENSTOCK_UPSTREAM_KEY")
    ] = "",
    model: Annotated[str, typer.Option(metavar="NAME", help="The model it answers; any if not given.")] = "",
    key: Annotated[
        str, typer.Option(metavar="KEY", help="The API key that clients must send.", envvar="PENSTOCK_KEY")
    ] = "",
    data: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for streams.")] = "",
    store: Annotated[
        str, typer.Option(metavar="KIND", help="'embedded' (a folder) or 'memory' (gone with the process).")
    ] = "",
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose pages may call the gateway; may be repeated."),
    ] = None,
) -> None:
    """Run the gateway until it is stopped with Ctrl-C or SIGTERM.

    Without any configuration the embedded demo models answer. Settings come from the file, then from
    the environment, then from these options; the later one wins.

    \b
    penstock serve
    penstock serve --port 9000 --upstream http://localhost:11434/v1
    penstock serve --config /etc/penstock.yaml
    """
    options = Options(
        host=host,
        port=port,
        upstream=upstream,
        api_key=api_key,
        model=model,
        key=key,
        data=data,
        store=store,
        allow_origin=tuple(allow_origin or ()),
    )
    draft = settled(config, os.environ, options)

    def read() -> Draft:
        return settle(config, os.environ, options)

    settings = draft.config
    # Other threads (the store's) hand the interpreter back sooner, so a token never waits 5 ms for it.
    sys.setswitchinterval(0.0005)
    try:
        redactor = Redactor(secrets_of(settings))
        with logging_to(sys.stderr, log_settings(settings), redactor):
            _serve(draft, read, config or Path(DEFAULT_FILE), redactor)
    except BadConfig as error:
        complain(located(error.problems, draft.origins))
        raise typer.Exit(exits.BAD_CONFIG) from None
    except PenstockError as error:
        print(f"penstock: {error.message}", file=sys.stderr)
        raise typer.Exit(exits.UNAVAILABLE) from None
    except OSError as error:
        where = f"{settings.listen.host}:{settings.listen.port}"
        print(f"penstock: cannot listen on {where}: {error.strerror}.", file=sys.stderr)
        print("Choose another address with --host and --port.", file=sys.stderr)
        raise typer.Exit(exits.UNAVAILABLE) from None


def _serve(draft: Draft, read: Callable[[], Draft], file: Path, redactor: Redactor) -> None:
    """Run the gateway; what nobody foresaw is logged. Raises `typer.Exit` and what `serve` tells of."""
    try:
        system = assemble(draft.config)
        reloader = Reloader(
            system, read, os.environ, file, expect=lambda new: redactor.learn(secrets_of(new))
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_gateway(draft.config, system, reloader, draft))
    except (PenstockError, OSError):
        raise
    except Exception as error:
        log.error("gateway_crashed", exc_info=error)
        raise typer.Exit(exits.DEFECT) from None


async def run_gateway(
    config: Config, system: System, reloader: Reloader | None = None, draft: Draft | None = None
) -> None:
    """Serve ``system`` until it is stopped by a signal. With ``reloader``, SIGHUP has the configuration read
    again, which ``draft`` is now."""
    settings = serving(config)
    settings = msgspec.structs.replace(settings, http=affordable(settings.http))
    sockets = listen(settings)
    try:
        async with system.gateway:
            server = Server(system.app, system.gateway, system.context.heart, sockets, settings)
            system.context.door = server
            # What was built so far lives as long as the process: keep it out of every collection.
            gc.collect()
            gc.freeze()
            # A token leaves no cycles behind; collecting as often as the default does costs 5 % of the CPU
            # and, with many streams open, pauses of tens of milliseconds.
            gc.set_threshold(50_000, 50, 100)

            def ready() -> None:
                _greet(config, sockets[0].getsockname()[1])

            if reloader is None or draft is None:
                await server.serve(ready)
                return
            system.context.reload = reloader
            async with asyncio.TaskGroup() as group:
                reloading = group.create_task(reloader.run(draft))
                hung_up = partial(_hung_up, server, reloader, had_terminal=sys.stdin.isatty())
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
                await server.serve(ready)
                reloading.cancel()
    finally:
        for sock in sockets:
            sock.close()


def _hung_up(server: Server, reloader: Reloader, *, had_terminal: bool) -> None:
    """SIGHUP: from an operator it means reload; from a terminal that was closed, that nobody is there."""
    if had_terminal:
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError:
            server.stop()
            return
    reloader.want()


def _greet(config: Config, port: int) -> None:
    host = config.listen.host
    shown = "localhost" if host in ("127.0.0.1", "::1", "localhost") else host
    base = f"{'http' if config.listen.tls is None else 'https'}://{shown}:{port}"
    if config.store.kind == "memory":
        kept = "in memory (gone when the process ends)"
    else:
        survives = "a power failure" if config.store.durability == "host" else "a killed process"
        kept = f"{config.store.path} (survives {survives})"
    model = config.default_model or next((m for m in config.models if "*" not in m), "demo")
    key = ' -H "Authorization: Bearer $PENSTOCK_KEY"' if config.has_keys else ""
    print(
        f"Penstock {__version__}\n"
        f"  page    {base}/\n"
        f"  API     {base}/v1   (OpenAI-compatible: point any OpenAI SDK here)\n"
        f"  try     curl -N{key} '{base}/stream?content=Hello'\n"
        f"  model   {model} by default; all of them: {base}/v1/models\n"
        f"  stored  {kept}\n"
        f"Ctrl-C stops it.",
        flush=True,
    )
