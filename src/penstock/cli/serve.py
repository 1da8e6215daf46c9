"""``penstock serve``: settles the configuration, sets the process up, runs the gateway until it is stopped.

Nothing but that: what the configuration means is `penstock.config`'s, how a system is built from it is
`penstock.assembly`'s, and how it is served and stopped is `penstock.server.serving`'s.
"""

import asyncio
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TextIO, cast

import msgspec
import structlog
import typer
import uvloop

from penstock import __version__
from penstock.assembly import System, assemble, serving, upstream_config
from penstock.cli import exits
from penstock.config import BadConfig, Config, Problem, check, read_file, with_environment
from penstock.server.serving import Server, listen
from penstock.types.errors import PenstockError

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; ./penstock.yaml when there is one.")
]


def serve(
    config: ConfigFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback a key is required.")] = "",
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    upstream: Annotated[str, typer.Option(help="An OpenAI-compatible server: http://host:8000/v1.")] = "",
    api_key: Annotated[str, typer.Option(help="Its API key.", envvar="PENSTOCK_UPSTREAM_KEY")] = "",
    model: Annotated[str, typer.Option(help="The model it answers; any name if not given.")] = "",
    key: Annotated[str, typer.Option(help="The API key that clients must send.", envvar="PENSTOCK_KEY")] = "",
    data: Annotated[str, typer.Option(help="Folder for streams.")] = "",
    store: Annotated[str, typer.Option(help="'embedded' (a folder) or 'memory'.")] = "",
    allow_origin: Annotated[list[str] | None, typer.Option(help="Origin whose pages may call us.")] = None,
) -> None:
    """Run the gateway."""
    try:
        settings = load(config)
        changed = settings.listen
        if host:
            changed = msgspec.structs.replace(changed, host=host)
        if port is not None:
            changed = msgspec.structs.replace(changed, port=port)
        if allow_origin:
            origins = (*changed.allowed_origins, *allow_origin)
            changed = msgspec.structs.replace(changed, allowed_origins=origins)
        kept = settings.store
        if data:
            kept = msgspec.structs.replace(kept, path=data)
        if store:
            if store not in ("embedded", "memory"):
                raise BadConfig([Problem("--store", "write 'embedded' or 'memory'")])
            kept = msgspec.structs.replace(kept, kind=store)
        keys = {**settings.keys, "default": key} if key else settings.keys
        settings = msgspec.structs.replace(settings, listen=changed, store=kept, keys=keys)
        if upstream:
            settings = upstream_config(settings, upstream, api_key, model)
        elif model or api_key:
            raise BadConfig([Problem("--upstream", "--model and --api-key say more about an --upstream URL")])
        if problems := check(settings):
            raise BadConfig(problems)
    except BadConfig as error:
        complain(error.problems)
        raise typer.Exit(exits.BAD_CONFIG) from None
    configure_logs()
    # Other threads (the store's) hand the interpreter back sooner, so a token never waits 5 ms for it.
    sys.setswitchinterval(0.0005)
    try:
        system = assemble(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_gateway(settings, system))
    except BadConfig as error:
        complain(error.problems)
        raise typer.Exit(exits.BAD_CONFIG) from None
    except PenstockError as error:
        print(f"penstock: {error.message}", file=sys.stderr)
        raise typer.Exit(exits.UNAVAILABLE) from None
    except OSError as error:
        where = f"{settings.listen.host}:{settings.listen.port}"
        print(f"penstock: cannot listen on {where}: {error.strerror}.", file=sys.stderr)
        print("Choose another address with --host and --port.", file=sys.stderr)
        raise typer.Exit(exits.UNAVAILABLE) from None


def load(path: Path | None) -> Config:
    """Return the configuration of the file at ``path`` or the usual one, and of the environment."""
    default = Path("penstock.yaml")
    if path is None and default.is_file():
        path = default
    config = read_file(path, os.environ) if path else Config()
    return with_environment(config, os.environ)


def complain(problems: list[Problem]) -> None:
    """Say on standard error what is wrong."""
    print("penstock: the configuration cannot be used:", file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)


def configure_logs() -> None:
    """Log events to standard error: one JSON object a line, or coloured for a person who watches."""
    if sys.stderr.isatty():
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer()
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
    )


class _Unfailing:
    """A file for logs that may stand on the disk that is full: what it cannot take is lost, and no more."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


async def run_gateway(config: Config, system: System) -> None:
    """Serve ``system`` until it is stopped by a signal."""
    settings = serving(config)
    sockets = listen(settings)
    try:
        async with system.gateway:
            server = Server(system.app, system.gateway, system.context.heart, sockets, settings)
            # What was built so far lives as long as the process: keep it out of every collection.
            gc.collect()
            gc.freeze()
            # A token leaves no cycles behind; collecting as often as the default does costs 5 % of the CPU
            # and, with many streams open, pauses of tens of milliseconds.
            gc.set_threshold(50_000, 50, 100)
            await server.serve(lambda: _greet(config, sockets[0].getsockname()[1]))
    finally:
        for sock in sockets:
            sock.close()


def _greet(config: Config, port: int) -> None:
    host = config.listen.host
    shown = "localhost" if host in ("127.0.0.1", "::1", "localhost") else host
    base = f"http://{shown}:{port}"
    if config.store.kind == "memory":
        kept = "in memory (gone when the process ends)"
    else:
        survives = "a power failure" if config.store.durability == "host" else "a killed process"
        kept = f"{config.store.path} (survives {survives})"
    model = config.default_model or next((m for m in config.models if "*" not in m), "demo")
    key = ' -H "Authorization: Bearer $PENSTOCK_KEY"' if config.keys else ""
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
