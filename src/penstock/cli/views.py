"""How an answer is shown while it comes: as plain words, as JSON, or live on a terminal.

All views take the same calls in the same order: `take` for each event, `lost` and `back` around a lost
connection, `tick` some times a second, `close` once. Only a `TerminalView` draws; the others write what a
program or a file should get, and nothing else.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol

from rich.console import Console

from penstock.cli.answers import Answer
from penstock.cli.blocks import Block, Blocks
from penstock.cli.markdown import Painter
from penstock.cli.output import harmless
from penstock.cli.screen import Screen
from penstock.client.connection import Lost, Received
from penstock.types.events import AnyEvent, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

FRAME: Final = 0.05
"""Seconds between two looks at what is to be drawn."""

COST_SHARE: Final = 4.0
"""A drawing that took a while is not repeated before this many times as long: long blocks cost more."""

PATIENT: Final = 1.0
"""Seconds of silence before it is said that we wait."""


class View(Protocol):
    """See the module's head."""

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Show one event; ``event`` is None for what is no entry, or not known."""
        ...

    def lost(self, lost: Lost) -> None:
        """The connection is lost and will be tried again."""
        ...

    def back(self) -> None:
        """The connection is there again."""
        ...

    def stopping(self) -> None:
        """The person asked to stop, and the gateway was told."""
        ...

    def tick(self) -> None:
        """Time has passed."""
        ...

    def close(self) -> None:
        """Nothing follows."""
        ...


class QuietView:
    """Shows nothing but, on standard error, that a connection was lost. The base of views for programs."""

    def __init__(self) -> None:
        """Nothing was lost yet."""
        self._away = False

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Nothing."""

    def lost(self, lost: Lost) -> None:
        """Say it once, and not each try."""
        if not self._away:
            self._away = True
            print("penstock: the connection was lost; trying again …", file=sys.stderr, flush=True)

    def back(self) -> None:
        """Say that it goes on."""
        self._away = False
        print("penstock: connected again.", file=sys.stderr, flush=True)

    def stopping(self) -> None:
        """Nothing."""

    def tick(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class WordsView(QuietView):
    """The answer's text as it comes, and a line end after the last word."""

    def __init__(self) -> None:
        """Control characters stay unless a terminal would act on them."""
        super().__init__()
        self._clean: Callable[[str], str] = harmless if sys.stdout.isatty() else str
        self._last = ""
        self._calls: dict[int, str] = {}

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Write text; note tool calls, which go to standard error in the end."""
        if isinstance(event, TextDelta | RefusalDelta) and event.index == 0 and event.delta:
            sys.stdout.write(self._clean(event.delta))
            sys.stdout.flush()
            self._last = event.delta[-1]
        elif isinstance(event, ToolCallDelta) and event.index == 0:
            said = self._calls.get(event.call, "")
            self._calls[event.call] = said + (f"{event.name} " if event.name else "") + event.delta

    def close(self) -> None:
        """End the last line."""
        if self._last not in ("", "\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
        for said in self._calls.values():
            print(f"tool call: {harmless(said)}", file=sys.stderr)


class EventsView(QuietView):
    """One line of JSON for each event, as the gateway's own NDJSON has it: ``{"c":…,"ev":…,"d":…}``.

    What comes is one stream, however many reads it took: the openings of all but the first are left out.
    """

    def __init__(self) -> None:
        """Nothing was opened yet."""
        super().__init__()
        self._opened = False

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Write the event."""
        if received.event == "stream" and self._opened:
            return
        self._opened = True
        data = received.data.decode("utf-8", "replace")
        sys.stdout.write(f'{{"c":"{received.cursor}","ev":"{received.event}","d":{data}}}\n')
        sys.stdout.flush()


class TerminalView:
    """Live Markdown: what is finished scrolls away, the last block is drawn again as it grows."""

    def __init__(self, console: Console, screen: Screen, model: str) -> None:
        """``screen`` is entered; ``model`` is what is waited for."""
        self._painter = Painter(console)
        self._screen = screen
        self._model = model
        self._text = Blocks()
        self._begun = False  # whether a block of the text is done
        self._reasoning = ""
        self._calls: dict[int, list[str]] = {}
        self._kind = ""
        self._done: list[str] = []
        self._dirty = False
        self._began = time.monotonic()
        self._next = 0.0
        self._note = ""
        self._spoke = False
        self.losses = 0

    def take(self, received: Received, event: AnyEvent | None) -> None:
        """Add the event to its section; a new kind of section finishes the one before."""
        match event:
            case TextDelta(index=0, delta=delta) | RefusalDelta(index=0, delta=delta) if delta:
                self._turn_to("text")
                for block in self._text.feed(delta):
                    self._finish(block)
            case ReasoningDelta(index=0, delta=delta) if delta:
                self._turn_to("reasoning")
                whole, end, self._reasoning = (self._reasoning + delta).rpartition("\n")
                if end:
                    self._done += self._painter.words(whole, "dim")
            case ToolCallDelta(index=0, call=call):
                self._turn_to("calls")
                said = self._calls.setdefault(call, ["", ""])
                said[0] += event.name
                said[1] += event.delta
            case _:
                return
        self._spoke = self._dirty = True

    def lost(self, lost: Lost) -> None:
        """Say below the answer that it goes on in a moment."""
        self.losses += lost.attempt == 1
        again = f", try {lost.attempt}" if lost.attempt > 1 else ""
        self._note = f"connection lost{again}; going on by itself …"
        self._dirty = True

    def back(self) -> None:
        """Forget the note."""
        self._note = ""
        self._dirty = True

    def stopping(self) -> None:
        """Say that it stops."""
        self._note = "stopping …"
        self._dirty = True
        self._next = 0.0
        self.tick()

    def tick(self) -> None:
        """Draw, if there is something new and the last time is long enough ago."""
        now = time.monotonic()
        if not self._spoke and not self._note and now - self._began > PATIENT:
            self._dirty = True
        if self._dirty and now >= self._next:
            self._dirty = False
            self._draw()
            self._next = time.monotonic() + COST_SHARE * (time.monotonic() - now)

    def close(self) -> None:
        """Finish what is open and leave it on the screen."""
        self._turn_to("")
        self._note = ""
        self._spoke = True
        self._screen.draw(self._done, [])
        self._done = []

    def _draw(self) -> None:
        live = self._live()
        if self._note:
            live += self._painter.words(self._note, "dim")
        elif not self._spoke:
            waited = time.monotonic() - self._began
            live += self._painter.words(f"waiting for {self._model} … {waited:.0f} s", "dim")
        self._screen.draw(self._done, live)
        self._done = []

    def _live(self) -> list[str]:
        match self._kind:
            case "text":
                return self._paint(rest) if (rest := self._text.rest) else []
            case "reasoning":
                return self._painter.words(self._reasoning, "dim") if self._reasoning else []
            case "calls":
                return [
                    line
                    for name, arguments in self._calls.values()
                    for line in self._painter.words(f"→ {name} {arguments}", "magenta")
                ]
        return []

    def _paint(self, block: Block) -> list[str]:
        """Nothing stands above the first block of a section, so no blank line does."""
        return self._painter.markdown(block._replace(apart=block.apart and self._begun))

    def _finish(self, block: Block) -> None:
        self._done += self._paint(block)
        self._begun = True

    def _turn_to(self, kind: str) -> None:
        if kind == self._kind:
            return
        if self._kind == "text":
            for block in self._text.flush():
                self._finish(block)
        else:
            self._done += self._live()
        if self._kind and kind:
            self._done.append("")
        self._reasoning = ""
        self._calls = {}
        self._text = Blocks()
        self._begun = False
        self._kind = kind


async def ticking(view: View) -> None:
    """Let time pass for ``view``, until it is cancelled."""
    while True:
        await asyncio.sleep(FRAME)
        view.tick()


def final(answer: Answer) -> str:
    """Return the figures of an answer, for a person."""
    parts = [answer.model] if answer.model else []
    if answer.usage and answer.usage.output_tokens:
        about = "about " if answer.usage.estimated else ""
        parts.append(f"{about}{answer.usage.output_tokens} tokens")
    timing = answer.closed.timing if answer.closed else None
    if timing and timing.total_ms:
        parts.append(f"{timing.total_ms / 1000:.1f} s")
    return " · ".join(parts)
