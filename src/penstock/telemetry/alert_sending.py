"""Messages of alerts on their way to people: each target has a thread and a short queue of its own.

A target that is slow or broken holds up nothing but its own messages. What cannot be sent is tried again a
few times, then given up and logged, without the address: that holds a secret.
"""

import queue
import threading
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, Protocol

import structlog

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 100
"""Messages that may wait for one target."""

PAUSES: Final = (2.0, 15.0)
"""Seconds before each further try."""

LAST_WORDS: Final = 3.0
"""Seconds that a leaving process waits for messages."""


class Message(NamedTuple):
    """What is said; ``to`` are names of targets, none for all."""

    kind: Literal["fires", "still", "recovered", "test"]
    title: str
    body: str
    to: tuple[str, ...] = ()


class Target(Protocol):
    """Where messages go (`penstock.telemetry.alert_targets`)."""

    def send(self, message: Message) -> bool:
        """Say whether it was taken; waits, and raises nothing."""
        ...


class _Courier:
    """One target's thread."""

    def __init__(self, name: str, target: Target, pauses: tuple[float, ...]) -> None:
        self._name = name
        self._target = target
        self._pauses = pauses
        self._waiting: queue.Queue[Message | None] = queue.Queue(MAX_WAITING)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"penstock-alerts-{name}", daemon=True)
        self._thread.start()

    def post(self, message: Message) -> None:
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            log.error("alert_dropped", target=self._name, title=message.title)

    def close(self, patience: float) -> None:
        self._leaving.set()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(patience)

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            for pause in (*self._pauses, None):
                if self._target.send(message):
                    log.info("alert_sent", target=self._name, title=message.title)
                    break
                if pause is None or self._leaving.wait(pause):
                    log.error("alert_not_sent", target=self._name, title=message.title)
                    break


class Messengers:
    """All targets."""

    def __init__(self, targets: Mapping[str, Target], *, pauses: tuple[float, ...] = PAUSES) -> None:
        """Nothing runs before `open`."""
        self._targets = targets
        self._pauses = pauses
        self._couriers: dict[str, _Courier] = {}

    def open(self) -> None:
        """Be ready."""
        self._couriers = {name: _Courier(name, one, self._pauses) for name, one in self._targets.items()}

    def post(self, message: Message) -> None:
        """Have a message sent. Never waits."""
        for name, courier in self._couriers.items():
            if not message.to or name in message.to:
                courier.post(message)

    def close(self, patience: float = LAST_WORDS) -> None:
        """Send what waits, for so many seconds; waits for that."""
        for courier in self._couriers.values():
            courier.close(patience / len(self._couriers))
