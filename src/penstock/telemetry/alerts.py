"""Alerts: rules looked at every few seconds, and messages about those that hold.

An observer of the core that lives with the gateway. What a rule sees is `alert_rules`', who is told is
`alert_sending`'s; here is the look, in the loop's thread, and what it takes to look: the budgets, the store,
and the disk, which is asked in a thread since it may hang.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from penstock.telemetry.alert_rules import Alert, AlertRule, Reading, Said, Standing, Watch, span
from penstock.telemetry.alert_sending import Message, Messengers
from penstock.types.signals import AnySignal
from penstock.types.usage import Purse

log = structlog.get_logger(__name__)

MAX_TICK: Final = 5.0
MIN_TICK: Final = 0.5
"""Seconds between looks."""


class Alerts:
    """All rules."""

    def __init__(
        self,
        rules: Sequence[AlertRule],
        messengers: Messengers,
        *,
        purses: Callable[[], Sequence[Purse]],
        disk_used: Callable[[], float | None],
        healthy: Callable[[], bool],
        breakers: Callable[[], Sequence[str]],
        host: str,
        clock: Callable[[], float],
    ) -> None:
        """``disk_used`` is called in a thread, and returns a share; ``breakers`` are targets whose breaker
        is open; ``host`` names this gateway to people; ``clock`` is in seconds."""
        self._watches = [(Watch(rule), Alert(rule)) for rule in rules]
        self._messengers = messengers
        self._purses = purses
        self._disk_used = disk_used
        self._healthy = healthy
        self._breakers = breakers
        self._host = host
        self._clock = clock
        self._tick = min([MAX_TICK, *(max(MIN_TICK, rule.after / 5) for rule in rules)])
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Say which are on."""
        return f"<Alerts {', '.join(self.firing) or 'none firing'}>"

    @property
    def firing(self) -> list[str]:
        """Names of the rules that hold."""
        return [watch.rule.name for watch, alert in self._watches if alert.firing]

    def __call__(self, signal: AnySignal) -> None:
        """Hear what happens."""
        now = self._clock()
        for watch, _ in self._watches:
            watch.observe(signal, now)

    async def open(self) -> None:
        """Begin to look."""
        self._messengers.open()
        await self._group.__aenter__()
        self._task = self._group.create_task(self._run())

    async def aclose(self) -> None:
        """Look no more; send what waits."""
        if self._task is not None:
            self._task.cancel()
            await self._group.__aexit__(None, None, None)
            await asyncio.to_thread(self._messengers.close)

    async def _run(self) -> None:
        wants_disk = any(watch.rule.when == "disk" for watch, _ in self._watches)
        while True:
            await asyncio.sleep(self._tick)
            used = None
            if wants_disk:
                try:
                    used = await asyncio.to_thread(self._disk_used)
                except OSError as error:
                    log.warning("disk_not_read", error=repr(error))
            self.look(Standing(self._purses(), used, self._healthy(), self._breakers()))

    def look(self, standing: Standing) -> None:
        """Look at every rule, and post what is to be told."""
        now = self._clock()
        for watch, alert in self._watches:
            reading = watch.read(standing, now)
            breached = reading is not None and reading.value > watch.rule.above
            if (said := alert.look(breached, now)) is not None:
                self._tell(watch.rule, said, reading)

    def _tell(self, rule: AlertRule, said: Said, reading: Reading | None) -> None:
        says = reading.says if reading is not None else "Too little happened lately to say more."
        write = log.info if said == "recovered" else log.warning
        write(f"alert_{said}", rule=rule.name, says=says)
        self._messengers.post(message(rule, said, says, self._host))


def message(rule: AlertRule, said: Said, says: str, host: str) -> Message:
    """Return what people are told."""
    ending = {"fires": "", "still": " goes on", "recovered": " is over"}[said]
    lasting = f", for {span(rule.after)}" if rule.after else ""
    return Message(
        said,
        f"Penstock on {host}: {rule.name}{ending}",
        f"{says}\nRule: {rule.when} above {rule.above:g}{lasting}.",
        rule.to,
    )
