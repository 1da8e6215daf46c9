"""Running a command that talks to a gateway: its loop, Ctrl-C, and refusals as sentences.

`run` opens the connection and turns what the gateway refuses, or its absence, into a `Failure`.
`receive` reads one answer to its end and hands it to a view; the first Ctrl-C stops it by the verb it was
given (cancelling at the gateway, and keeping what came), the second does not wait for that.
"""

import asyncio
import difflib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from penstock.cli import exits
from penstock.cli.answers import Answer
from penstock.cli.exits import Failure
from penstock.cli.views import View, ticking
from penstock.client.addresses import DEFAULT_URL, Address, address_of
from penstock.client.connection import Back, Connection, Happening, Lost, Refused, Unreachable

STOP_TIMEOUT: Final = 5.0
"""Seconds for the gateway to take a cancel, and again for the answer to end after it."""


def address(url: str, key: str) -> Address:
    """Return the address of the gateway that the options name."""
    try:
        return address_of(url, key)
    except ValueError as error:
        raise Failure(f"--url: {error}.", code=exits.USAGE) from None


def run(at: Address, patience: float, work: Callable[[Connection], Awaitable[int]]) -> int:
    """Do ``work`` with a connection to the gateway; return its exit code. Raises `Failure`."""

    async def connected() -> int:
        async with Connection(at, patience=patience) as connection:
            try:
                return await work(connection)
            except Refused as refused:
                raise await explained(connection, refused) from None
            except Unreachable as error:
                raise unreachable(error) from None

    with asyncio.Runner() as runner:
        return runner.run(connected())


def unreachable(error: Unreachable) -> Failure:
    """Say that there is no gateway, or none any more."""
    if error.cursor:
        message = f"the gateway at {error.base} was lost ({error.why}) and did not come back."
        return Failure(message, code=exits.UNAVAILABLE, hint=go_on(error.cursor, error.base))
    hint = "Is it running? `penstock serve` starts one; --url or PENSTOCK_URL names another."
    return Failure(f"no gateway at {error.base}: {error.why}.", code=exits.UNAVAILABLE, hint=hint)


def go_on(cursor: str, base: str) -> str:
    """Return the command by which a stream is read on."""
    where = "" if base == DEFAULT_URL else f" --url {base}"
    return f"Read on with: penstock read '{cursor}'{where}"


async def explained(connection: Connection, refused: Refused, model: str = "") -> Failure:
    """Say what the gateway refused and what to do about it."""
    code, hint = exits.FAILED, ""
    match refused.code:
        case "missing_api_key":
            code, hint = exits.NOT_ALLOWED, "Set PENSTOCK_KEY, or use --key."
        case "invalid_api_key":
            code, hint = exits.NOT_ALLOWED, "Check PENSTOCK_KEY, or --key."
        case "model_not_found":
            code, hint = exits.NO_INPUT, await _near(connection, refused.message, model)
        case "stream_not_found":
            code, hint = exits.NO_INPUT, "Only the key that created a stream can read it."
        case "stream_gone":
            code = exits.NO_INPUT
        case "cursor_ahead" | "log_lost":
            hint = "Read it from its start with --from start."
        case _ if refused.status in (401, 403):
            code = exits.NOT_ALLOWED
        case "" if refused.status < 400 or refused.status == 404:
            code = exits.UNAVAILABLE
            hint = f"Is {connection.address.base} the address of a Penstock gateway?"
        case _ if refused.passes:
            code = exits.UNAVAILABLE
            hint = (
                f"Try again in {refused.retry_after} s." if refused.retry_after else "Try again in a moment."
            )
    return Failure(refused.message, code=code, hint=hint)


async def _near(connection: Connection, message: str, model: str) -> str:
    hint = "`penstock models` lists those there are."
    if model and "did you mean" not in message.lower():
        with suppress(Refused, Unreachable):
            names = [known.id for known in await connection.models()]
            if near := difflib.get_close_matches(model, names, 3, 0.5):
                return f"Did you mean {' or '.join(near)}? {hint}"
    return hint


class Interrupts:
    """Ctrl-C while an answer comes: counted, instead of ending the program.

    Being told to end (SIGTERM), or a terminal that was closed (SIGHUP), counts as two: it stops the answer,
    does not wait for its end, and leaves the terminal as it was.
    """

    def __init__(self) -> None:
        """None so far."""
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def __enter__(self) -> Self:
        """Take the signals over."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give them back."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)

    def _end(self) -> None:
        self.first.set()
        self.second.set()

    def _interrupt(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


class Outcome(NamedTuple):
    """How a read went: whether the person stopped it, and what it failed of, if it did."""

    stopped: bool
    error: Exception | None


async def receive(
    happenings: AsyncGenerator[Happening, None],
    answer: Answer,
    view: View,
    stop: Callable[[], Awaitable[object]] | None = None,
) -> Outcome:
    """Read to the end, into ``answer`` and ``view``; ``stop`` is what the first Ctrl-C does.

    Without ``stop``, Ctrl-C ends the reading alone. The view is closed in any case.
    """
    with Interrupts() as interrupts:
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(_read(happenings, answer, view))
                others = [
                    group.create_task(ticking(view)),
                    group.create_task(_stop(interrupts, reading, view, stop)),
                ]
                await asyncio.wait([reading])
                for other in others:
                    other.cancel()
            error = None if reading.cancelled() else reading.result()
        except BaseException:
            with suppress(BrokenPipeError):
                view.close()
            raise
        try:
            view.close()
        except BrokenPipeError as broken:
            error = error or broken
        return Outcome(interrupts.first.is_set(), error)


async def _read(
    happenings: AsyncGenerator[Happening, None], answer: Answer, view: View
) -> Refused | Unreachable | BrokenPipeError | None:
    """Return, not raise, what the caller must hear of: a task group would wrap it."""
    try:
        async with aclosing(happenings):
            async for happening in happenings:
                match happening:
                    case Lost():
                        view.lost(happening)
                    case Back():
                        view.back()
                    case _:
                        view.take(happening, answer.feed(happening))
    except (Refused, Unreachable, BrokenPipeError) as error:
        return error
    return None


async def _stop(
    interrupts: Interrupts,
    reading: asyncio.Task[Refused | Unreachable | BrokenPipeError | None],
    view: View,
    stop: Callable[[], Awaitable[object]] | None,
) -> None:
    await interrupts.first.wait()
    if stop is not None:
        view.stopping()
        with suppress(Refused, Unreachable, TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT):
                await stop()
            async with asyncio.timeout(STOP_TIMEOUT):
                await interrupts.second.wait()
    reading.cancel()
