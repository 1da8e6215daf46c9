"""Reading the configuration again while the gateway runs: on request, at SIGHUP, when a file changed.

Owns the one task in which that happens, one reload after the other, and what is compared: the settings
before and after, and the files as they look (time of change, size, inode), which editors that replace a
file and mounted volumes that swap a link change as well. A file must look the same twice before it is
read, so none is taken that is half written. What cannot be used is refused as a whole, with the words of
``check-config``, and everything stays as it was. What it means to put settings into force is the assembly's.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from penstock.assembly.parts import Parts
from penstock.assembly.system import System, reassemble
from penstock.config import BadConfig, Config, Draft, located
from penstock.server.context import ReloadCounts, Reloaded
from penstock.types.errors import ClientError, PenstockError

log = structlog.get_logger(__name__)

Read: TypeAlias = Callable[[], Draft]
"""Reads file, environment and options, as at the start. Called in a thread."""

RESTART: Final = (
    *(f"listen.{name}" for name in ("host", "port", "drain", "max_connections", "max_websockets", "ping")),
    "listen.max_connections_per_address",
    "listen.send_timeout",
    "listen.tls",
    *(f"store.{name}" for name in ("kind", "path", "durability", "max_streams", "max_bytes")),
    "store.max_memory_bytes",
    *(f"publications.{name}" for name in ("max_stream_bytes", "max_bytes", "max_streams")),
    *(f"publications.{name}" for name in ("max_streams_per_owner", "retention", "at_rest")),
    "ledger.url",
    "telemetry",
    "alerts",
    "log.format",
    "log.level",
)
"""Settings of sockets and of what is at rest: a change of them waits for a restart. So does a route's
``at_rest``."""

_Look: TypeAlias = tuple[int, int, int] | None


def _nothing(config: Config) -> None:
    return None


class Reloader:
    """See the module's head; a `Reloads` for the server."""

    def __init__(
        self,
        system: System,
        read: Read,
        environ: Mapping[str, str],
        *files: Path,
        expect: Callable[[Config], None] = _nothing,
    ) -> None:
        """``system`` was assembled from what ``read`` gave; ``files`` are looked at whatever it reads.
        ``expect`` is told of settings before they are put into force."""
        self._expect = expect
        self._system = system
        self._parts = system.parts
        self._read = read
        self._environ = environ
        self._named = files
        self._files: tuple[str, ...] = ()
        self._seen: dict[str, _Look] = {}
        self._next: dict[str, _Look] | None = None
        self._asked: list[asyncio.Future[Reloaded]] = []
        self._wanted = asyncio.Event()
        self._reloads = self._refused = 0

    def __repr__(self) -> str:
        """Say what it looks at."""
        return f"<Reloader {len(self._files)} files, {self._reloads} reloads, {self._refused} refused>"

    def statistics(self) -> ReloadCounts:
        """Count what happened."""
        return ReloadCounts(self._reloads, self._refused)

    def want(self) -> None:
        """Read again soon: somebody sent SIGHUP."""
        self._wanted.set()

    async def reload(self) -> Reloaded:
        """Read again and say what changed. Raises `ClientError` 422 `bad_config`."""
        answer: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._wanted.set()
        return await answer

    async def run(self, draft: Draft) -> None:
        """Look and reload until cancelled; ``draft`` is what the system was assembled from."""
        self._look_after(draft)
        self._seen = await asyncio.to_thread(_look, self._files)
        try:
            while True:
                cause = await self._cause()
                asked, self._asked = self._asked, []
                self._wanted.clear()
                try:
                    done = await self._reload(cause)
                except ClientError as refusal:
                    for answer in asked:
                        if not answer.done():
                            answer.set_exception(refusal)
                else:
                    for answer in asked:
                        if not answer.done():
                            answer.set_result(done)
        finally:
            for answer in self._asked:
                answer.cancel()

    async def _cause(self) -> str:
        """Wait until there is a reason to read again, and return it."""
        while True:
            watch = self._parts.config.reload.watch
            try:
                async with asyncio.timeout(watch or None):
                    await self._wanted.wait()
                return "request" if self._asked else "signal"
            except TimeoutError:
                if await self._changed():
                    return "file"

    async def _changed(self) -> bool:
        """Say whether a file changed, and looks now as it looked a moment ago."""
        look = await asyncio.to_thread(_look, self._files)
        if look == self._seen:
            self._next = None
            return False
        if look != self._next:
            self._next = look
            return False
        return True

    async def _reload(self, cause: str) -> Reloaded:
        """Read, compare, put into force. Raises `ClientError`, which says what is wrong."""
        before = self._parts
        seen = await asyncio.to_thread(_look, self._files)
        draft = await asyncio.to_thread(self._read)
        self._look_after(draft)
        # As they looked before they were read: what changes meanwhile is read once more.
        self._seen = {**await asyncio.to_thread(_look, self._files), **seen}
        self._seen = {name: self._seen[name] for name in self._files}
        self._next = None
        problems = draft.problems
        changed = tuple(changes(before.config, draft.config))
        kept = tuple(name for name in changed if needs_restart(name))
        try:
            if problems:
                raise BadConfig(problems)
            self._expect(draft.config)
            self._parts = await reassemble(
                self._system, without_restart(before.config, draft.config), self._environ, before
            )
        except PenstockError as error:
            self._refused += 1
            lines = [error.message]
            if isinstance(error, BadConfig):
                lines = [str(one) for one in located(error.problems, draft.origins)]
            log.error("config_refused", cause=cause, problems=lines)
            message = "The configuration cannot be used, and the old one stays:\n" + "\n".join(lines)
            raise ClientError(message, code="bad_config", status=422) from None
        self._reloads += 1
        renewed = tuple(_renewed(before, self._parts, changed))
        log.info("config_reloaded", cause=cause, changed=[*changed, *renewed])
        if kept:
            log.warning("restart_needed", settings=list(kept))
        return Reloaded((*changed, *renewed), kept)

    def _look_after(self, draft: Draft) -> None:
        config = draft.config
        mounted = [one.api_key_file for one in config.providers.values()]
        mounted += [one.ca_file for one in config.providers.values()]
        mounted += [one.public_key_file for one in config.jwt.values()]
        # A file that cannot be read says nothing of the others: they are looked at until one can.
        before = self._files if draft.problems else ()
        named = (*map(str, self._named), *draft.files, *filter(None, mounted), *before)
        self._files = tuple(dict.fromkeys(named))


def _look(files: tuple[str, ...]) -> dict[str, _Look]:
    """Return how files look; None for one that is not there."""
    found: dict[str, _Look] = {}
    for name in files:
        try:
            stat = Path(name).stat()
            found[name] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            found[name] = None
    return found


def _renewed(before: Parts, after: Parts, changed: tuple[str, ...]) -> Iterator[str]:
    """Yield the providers whose settings stayed, and whose files did not."""
    for name, made in after.providers.items():
        was, path = before.providers.get(name), f"providers.{name}"
        if was is not None and was is not made and path not in changed:
            yield path


def changes(before: Config, after: Config) -> Iterator[str]:
    """Yield the paths of the settings that differ: of named things one each, of others each setting."""
    yield from _changes("", before, after)


def _changes(where: str, before: Any, after: Any) -> Iterator[str]:
    dot = f"{where}." if where else ""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"{dot}{name}"
        if before == after and list(before) != list(after):
            yield where  # only their order, which may matter
    elif isinstance(before, msgspec.Struct) and type(before) is type(after):
        for name in before.__struct_fields__:
            yield from _changes(f"{dot}{name}", getattr(before, name), getattr(after, name))
    elif before != after:
        yield where


def needs_restart(name: str) -> bool:
    """Say whether a change of the setting ``name`` waits for a restart."""
    at_rest = name.startswith("routes.") and name.endswith(".at_rest")
    return at_rest or any(f"{name}.".startswith(f"{one}.") for one in RESTART)


def without_restart(before: Config, after: Config) -> Config:
    """Return ``after`` with what needs a restart as in ``before``."""
    parts: dict[str, dict[str, Any]] = {}
    for name in RESTART:
        part, _, setting = name.partition(".")
        if setting:
            parts.setdefault(part, {})[setting] = getattr(getattr(before, part), setting)
    kept: dict[str, Any] = {
        part: msgspec.structs.replace(getattr(after, part), **settings) for part, settings in parts.items()
    }
    whole = {name: getattr(before, name) for name in RESTART if "." not in name}
    routes = {}
    for name in after.routes.__struct_fields__:
        at_rest = getattr(before.routes, name).at_rest
        routes[name] = msgspec.structs.replace(getattr(after.routes, name), at_rest=at_rest)
    return msgspec.structs.replace(
        after, **kept, **whole, routes=msgspec.structs.replace(after.routes, **routes)
    )
