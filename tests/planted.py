"""Secrets and prompts that tests plant, and the search for them in everything that is logged meanwhile.

The keys, passwords and prompts of tests have one of `WORDS` in them. What our processes log (in this process,
captured or printed, and in the files of the gateways that tests start) is searched for these words as it
comes; a test in whose time one is found fails, whatever it is about. A test of a new secret puts such a word
into it and is covered. Redaction has tests of its own, whose subject are secrets in lines: see `conftest`.
"""

from pathlib import Path
from typing import Any, Final

import structlog.testing

from tests.events import nameless

WORDS: Final = (
    "planted-",
    "planted prompt",
    "planted question",
    "planted answer",
    "planted argument",
    "-secret-000",
    "small-secret-004",
    "nobody else may read",
    "the operator's own words",
    "secret of thirty-two bytes",
    "secret-password",
    "very-secret-key",
    "key-for-some-0001",
    "key-for-all-00002",
)


class Search:
    """Collects where something was found."""

    def __init__(self) -> None:
        """Nothing was."""
        self.found: list[str] = []

    def text(self, whence: str, said: str) -> None:
        """Look at what was said there."""
        for word in WORDS:
            if (at := said.find(word)) >= 0:
                self.found.append(f"{whence}: …{said[max(0, at - 200) : at + 100]}…")

    def file(self, path: Path) -> None:
        """Look at a log, whose lines must also say whom they are about (`tests.events`)."""
        if path.is_file():  # and no pipe
            text = path.read_text(errors="replace")
            self.text(path.name, text)
            self.found += {f"{path.name}: {wrong}" for wrong in nameless(text)}

    def take(self) -> list[str]:
        """Return what was found since it was last asked."""
        found, self.found = self.found, []
        return found


SEARCH: Final = Search()
"""Of this process, as its logging is."""


class Capture(structlog.testing.LogCapture):
    """What `structlog.testing.capture_logs` collects by, and a search of it."""

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        """Look at one event."""
        SEARCH.text(f"the event {event.get('event')}", repr(event))
        return super().__call__(logger, method, event)
