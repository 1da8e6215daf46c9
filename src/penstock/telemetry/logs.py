"""Logs: one line per event, as JSON for machines or in colours for a person, with secrets taken out.

Everything that this process logs comes through here: our own events, what libraries say by the standard
library's loggers, and exceptions that nobody caught. Nothing here waits (`log_writer`); what a line must not
hold is taken out last (`redaction`), what an exception may say is decided in `exceptions`.
"""

import json
import logging
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, TextIO, TypeAlias, cast

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from penstock.telemetry.exceptions import message_of, trace_of
from penstock.telemetry.log_writer import LogWriter
from penstock.telemetry.redaction import Redactor

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Form: TypeAlias = Literal["auto", "json", "console"]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

MAX_VALUE: Final = 16_000
"""Characters of one value in a line."""

_FIRST: Final = ("timestamp", "level", "event")

log = structlog.get_logger(__name__)


class LogSettings(msgspec.Struct, frozen=True):
    """``format``: ``auto`` is ``console`` on a terminal, else ``json``. ``level``: the least that is told."""

    format: Form = "auto"
    level: Level = "info"


@contextmanager
def logging_to(file: TextIO, settings: LogSettings, redact: Redactor) -> Iterator[LogWriter]:
    """Have everything that this process logs written to ``file``, until the context ends."""
    plain = settings.format == "json" or (settings.format == "auto" and not file.isatty())
    render = _to_json if plain else _Console(colors=file.isatty())
    steps: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        _add_time,
        tell_exception,
        _bound,
        render,
        lambda _, __, line: redact(cast("str", line)),
    ]

    def lost(count: int) -> str:
        said: Any = {"event": "log_lines_lost", "count": count}
        for step in steps:
            said = step(None, "warning", said)
        return f"{said}\n"

    file.flush()
    writer = LogWriter(file.fileno(), lost)
    structlog.configure(
        processors=steps,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", writer)),
    )
    handler = _FromLibraries()
    handler.setLevel(max(LEVELS[settings.level], logging.WARNING))
    root = logging.getLogger()
    root.addHandler(handler)
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    try:
        yield writer
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        root.removeHandler(handler)
        writer.close()


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    log.error("uncaught", exc_info=error if error is not None else kind())


class _FromLibraries(logging.Handler):
    """What others say by the standard library's loggers, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say who said it, and what."""
        error = record.exc_info[1] if record.exc_info else None
        said = {"exc_info": error} if error is not None else {}
        level = next((name for name, number in LEVELS.items() if record.levelno <= number), "error")
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - of a library's own making: its words do not fit together
            text = str(record.msg)
        getattr(log, level)("library", logger=record.name, said=text[:MAX_VALUE], **said)


def _add_time(_: WrappedLogger, __: str, said: EventDict) -> EventDict:
    said["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return said


def tell_exception(_: WrappedLogger, __: str, said: EventDict) -> EventDict:
    """Say in an event what was raised, and where."""
    error = said.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        said["error"] = message_of(error)
        said["exception"] = trace_of(error)
    return said


def _bound(_: WrappedLogger, __: str, said: EventDict) -> EventDict:
    for name, value in said.items():
        if type(value) is str and len(value) > MAX_VALUE:
            said[name] = value[:MAX_VALUE] + "…"
    return said


_encode = msgspec.json.Encoder(enc_hook=repr).encode


def _to_json(_: WrappedLogger, __: str, said: EventDict) -> str:
    line = {name: said.pop(name) for name in _FIRST if name in said} | dict(said)
    try:
        return _encode(line).decode()
    except (TypeError, ValueError):  # half a character, a number of no end
        return json.dumps(line, default=repr)


class _Console:
    """Lines for a person; what could steer the terminal is written out."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24)

    def __call__(self, logger: WrappedLogger, name: str, said: MutableMapping[str, Any]) -> str:
        for key, value in said.items():
            if isinstance(value, str) and key != "exception" and not value.isprintable():
                said[key] = ascii(value)[1:-1]
        trace = said.pop("exception", "")
        shown = "".join(char if char.isprintable() or char == "\n" else "?" for char in trace)
        line = str(self._render(logger, name, said))
        return f"{line}\n{shown}" if shown else line
