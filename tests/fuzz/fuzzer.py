"""Tries a target with spoiled examples; keeps those with new outcomes, writes down those that break it."""

import hashlib
import random
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz.mutations import spoil
from tests.fuzz.targets import Target

MAX_POOL: Final = 2_000
"""Examples that are kept to be spoiled further."""

PATIENCE: Final = 10
"""Seconds that one input may take: a parser that takes longer is a defect, too."""


class Crash(NamedTuple):
    """An input that did what none may; ``trace`` says what."""

    target: str
    data: bytes
    trace: str

    def write(self, folder: Path) -> Path:
        """Write the input, and beside it what happened; return the input's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:16]}"
        path.write_bytes(self.data)
        path.with_suffix(".txt").write_text(self.trace)
        return path


class Slow(Exception):
    """One input took too long."""


def attempt(target: Target, data: bytes, *, patience: int = 0) -> tuple[object, Crash | None]:
    """Try one input; ``patience``: seconds, 0 without a limit. Return its outcome, or what it broke."""
    if patience:
        signal.signal(signal.SIGALRM, _too_slow)
        signal.alarm(patience)
    try:
        return target.try_(data), None
    except Exception:  # noqa: BLE001  any at all is what is looked for
        return None, Crash(target.name, data, traceback.format_exc())
    finally:
        if patience:
            signal.alarm(0)


def _too_slow(number: int, frame: object) -> None:
    raise Slow(f"more than {PATIENCE} seconds")


class Fuzzer:
    """One target, its examples and what came of them so far."""

    def __init__(self, target: Target, seed: int) -> None:
        """The same seed tries the same inputs."""
        self.target = target
        self.tried = 0
        self.outcomes: set[object] = set()
        self.crashes: dict[str, Crash] = {}
        """By the place of the failure: one of each is enough."""
        self._pool = list(target.examples)
        self._rng = random.Random(f"{target.name}/{seed}")

    def begin(self) -> None:
        """Try the examples themselves."""
        for data in self.target.examples:
            self._try(data, 0)

    def step(self, patience: int = 0) -> None:
        """Try one more."""
        data = spoil(self._rng.choice(self._pool), self.target.examples, self._rng)
        if self._try(data, patience):
            self._pool.append(data)
            if len(self._pool) > MAX_POOL:
                self._pool.pop(self._rng.randrange(len(self.target.examples), len(self._pool)))

    def _try(self, data: bytes, patience: int) -> bool:
        self.tried += 1
        outcome, crash = attempt(self.target, data, patience=patience)
        if crash is not None:
            self.crashes.setdefault(_place(crash.trace), crash)
            return False
        if outcome in self.outcomes:
            return False
        self.outcomes.add(outcome)
        return True


def _place(trace: str) -> str:
    """Return what tells one defect from another: its last frames of ours, and its kind."""
    lines = [line.strip() for line in trace.splitlines()]
    frames = [line for line in lines if line.startswith('File "') and ("penstock" in line or "fuzz" in line)]
    return " ".join([*frames[-2:], lines[-1].partition(":")[0]])


def search(target: Target, seed: int, go_on: Callable[[Fuzzer], bool], patience: int = 0) -> Fuzzer:
    """Try for as long as ``go_on`` says so."""
    fuzzer = Fuzzer(target, seed)
    fuzzer.begin()
    while go_on(fuzzer):
        fuzzer.step(patience)
    return fuzzer
