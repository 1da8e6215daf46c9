"""What the judges in Python share: they put each question in each of their ways, and tell what they saw.

A *way* is a function ``(question, seen)`` that asks with one call of an SDK, as its users write it, and notes
what it was given. This runs under the interpreter and with the packages that it is started with, so that an
old SDK can be asked too: nothing of the gateway's own and nothing newer than Python 3.11 is imported.
"""

import asyncio
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache, wraps
from typing import Any, TypeVar

T = TypeVar("T")

AT_ONCE = 48
PATIENCE = 30.0
"""Seconds that an answer may take."""
BORNE = 3.0
"""Seconds of silence that a client bears which is asked about silence; the model is silent for longer."""
HURRY = 0.5
"""Seconds after which a client gives an answer up that it has asked for as a whole."""
ENOUGH = 3
"""Pieces of an answer that is left after them."""

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION = "How is it?"


@dataclass
class Question:
    """One question: ``model`` decides what comes. ``stops``: the answer is left in its middle."""

    url: str
    model: str
    borne: float = PATIENCE
    stops: bool = False
    calls: bool = False

    @property
    def patience(self) -> float:
        """Seconds until a client that waits for a whole answer gives up."""
        return HURRY if self.stops else PATIENCE


@dataclass
class Seen:
    """What a user of the SDK is given. ``error`` is the exception that reached them."""

    text: str = ""
    reasoning: str = ""
    calls: list[list[Any]] = field(default_factory=list)
    reason: str | None = None
    usage: list[int] | None = None
    error: dict[str, Any] | None = None
    pieces: int = 0

    def say(self, text: str | None) -> bool:
        """Note a piece of text; whether the answer is to be left now, when it is one that is left."""
        if text:
            self.text += text
            self.pieces += 1
        return self.pieces >= ENOUGH

    def call(self, name: str, arguments: Any) -> None:
        """Note a whole call."""
        self.calls.append([name, json.loads(arguments) if isinstance(arguments, str) else arguments])


def once(make: Callable[..., T]) -> Callable[..., T]:
    """Make one client of each kind: threads share it, as applications do."""
    making, made = threading.Lock(), cache(make)

    @wraps(make)
    def get(*arguments: Any) -> T:
        with making:
            return made(*arguments)

    return get


@once
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the loop of all of them."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


Way = Callable[[Question, Seen], None]

QUESTIONS: dict[str, dict[str, Any]] = {
    "quiet": {"borne": BORNE},
    "plain": {},
    "calling": {"calls": True},
    "thinking": {},
    "refusing": {},
    "broken": {},
    "cut": {},
    "truncated": {},
    "endless": {"stops": True},
}
"""The kinds of models of `tests.clients.upstream` that all are asked, and what the client does; first the
one that takes its time."""


def _judge(url: str, row: str, name: str, way: Way, kind: str) -> dict[str, Any]:
    seen = Seen()
    question = Question(url, f"upstream/{kind}:{row}:{name}".replace(" ", "-"), **QUESTIONS[kind])
    try:
        way(question, seen)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the user gets
        told = {"kind": type(error).__name__, "message": str(error)}
        for part in ("code", "status_code"):
            told[part] = getattr(error, part, None)
        seen.error = told
    return asdict(seen)


def main(modules: list[str]) -> None:
    """Let the judges in ``modules`` ask all questions, side by side, and print what they saw."""
    url, old = os.environ["PENSTOCK_URL"], os.environ.get("PENSTOCK_PAST", "")
    rows: dict[str, dict[str, Way]] = {}
    for module in modules:
        ways = importlib.import_module(f"tests.clients.judges.{module}").WAYS
        rows |= {f"old {row}" if old else row: found for row, found in ways.items()}
    asked = [(kind, row, name) for kind in QUESTIONS for row, ways in rows.items() for name in ways]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = pool.map(lambda one: _judge(url, one[1], one[2], rows[one[1]][one[2]], one[0]), asked)
    told: dict[str, dict[str, dict[str, Any]]] = {row: {name: {} for name in rows[row]} for row in rows}
    for (kind, row, name), found in zip(asked, seen, strict=True):
        told[row][name][kind] = found
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
