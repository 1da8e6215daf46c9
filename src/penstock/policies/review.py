"""One answer under review: what a moderator outside has yet to say a word about.

The answer's text goes to the moderator in *windows*, one at a time, each with the end of the one before, so
that nothing hides on a border. The *release mark* moves behind what was found good. **Closed**: no event
beyond the mark is shown. **Open**: text is shown as it comes, but its finish waits for the last word, and a
block ends the answer there. Either way at most ``max_held`` characters wait: then the provider is paused.

`feed` belongs to the step and never waits; `main` is the task that does. What happens to the run when the
answer is blocked is not decided here.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import structlog

from penstock.policies.policy import FilterStop
from penstock.types.errors import GatewayError
from penstock.types.events import (
    AnyEvent,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from penstock.types.signals import ContentMatched, Observer

log = structlog.get_logger(__name__)

Where: TypeAlias = Literal["input", "output"]

RULE: Final = "moderator"

MAX_WINDOW: Final = 8_000
"""Characters of one question to a moderator, without the end of the one before."""


class Passage(NamedTuple):
    """What a moderator is asked about. ``context`` stood before it and was found good."""

    text: str
    context: str
    where: Where
    model: str
    request_id: str


class Verdict(NamedTuple):
    """``reason`` names what was found, never quotes it."""

    flagged: bool
    reason: str = ""


class ModerationFailed(Exception):
    """The moderator gave no answer that can be used; the text says how."""


class ReviewSettings(msgspec.Struct, frozen=True):
    """Characters and seconds. ``interval``: how long text waits for a window to fill."""

    closed: bool = True
    window: int = 400
    overlap: int = 200
    interval: float = 1.0
    max_held: int = 16_384
    reasoning: bool = True
    tools: bool = False


class Run(NamedTuple):
    """What a review does to its run: shows events, ends the answer, holds the provider back or lets it go."""

    release: Callable[[Sequence[AnyEvent]], None]
    stop: Callable[[FilterStop], None]
    hold: Callable[[bool], None]


class _Held(NamedTuple):
    """An event that waits, its text, and whether it was shown all the same."""

    event: AnyEvent
    text: str
    shown: bool


class Review:
    """See the module's head."""

    def __init__(
        self,
        name: str,
        ask: Callable[[Passage], Awaitable[Verdict]],
        settings: ReviewSettings,
        *,
        model: str,
        ids: Mapping[str, str],
        observe: Observer | None = None,
    ) -> None:
        """``ask`` raises `ModerationFailed` when there is no word to be had; it bounds its own time. ``ids``
        are the call's, for the log."""
        self._name = name
        self._ask = ask
        self._settings = settings
        self._model = model
        self._ids = ids
        self._observe = observe
        self._run: Run | None = None
        self._held: deque[_Held] = deque()
        self._characters = 0  # that wait
        self._context = ""
        self._choices: set[int] = set()  # that go on
        self._holding = False
        self._asking = False
        self._over = False  # no more comes for now: windows need not fill
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        """How much waits."""
        return f"<Review {self._name} {self._characters} characters wait>"

    def bind(self, run: Run) -> None:
        """Say once what it acts on."""
        self._run = run

    # --- in the step ---------------------------------------------------------------------------

    def feed(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """Return what may be shown at once."""
        now: list[AnyEvent] = []
        for event in events:
            text = self._text_of(event)
            if text:
                self._choices.add(event.index)  # type: ignore[union-attr]
                self._characters += len(text)
            elif type(event) is Finished:
                self._over = True
            nothing_before = not self._held and not self._asking
            shown = nothing_before and not text
            if not self._settings.closed:  # all but a finish, and what stands behind one
                last = self._held[-1] if self._held else None
                shown = shown or (type(event) is not Finished and (last is None or last.shown))
            if shown:
                now.append(event)
            if text or not shown:
                self._held.append(_Held(event, text, shown))
        if self._held:
            self._idle.clear()
            self._some.set()
            if self._over or self._characters >= self._settings.window:
                self._full.set()
            if self._characters > self._settings.max_held and not self._holding:
                self._hold(on=True)
        return now

    def _text_of(self, event: AnyEvent) -> str:
        match event:
            case TextDelta() | RefusalDelta():
                return event.delta
            case ReasoningDelta():
                return event.delta if self._settings.reasoning else ""
            case ToolCallDelta():
                return event.delta if self._settings.tools else ""
        return ""

    def drop(self) -> None:
        """The answer is over, whatever the moderator would say: what waits is never shown."""
        self._held.clear()
        self._characters = 0
        self._some.clear()
        self._idle.set()

    # --- in the run's task ---------------------------------------------------------------------

    async def reviewed(self) -> None:
        """Wait until nothing waits any more. Bounded by the moderator's time."""
        self._over = True
        self._full.set()
        await self._idle.wait()
        self._over = False

    async def main(self) -> None:
        """Ask, until cancelled."""
        while True:
            await self._some.wait()
            if not self._over and self._characters < self._settings.window:
                try:
                    async with asyncio.timeout(self._settings.interval):
                        await self._full.wait()
                except TimeoutError:
                    pass
            await self._next()

    async def _next(self) -> None:
        taken, text = self._take()
        if text:
            self._asking = True
            request_id = self._ids.get("request_id", "")
            passage = Passage(text, self._context, "output", self._model, request_id)
            try:
                verdict = await self._ask(passage)
            except ModerationFailed as failure:
                report_failure(self._name, failure, self._ids)
                if self._settings.closed:
                    self._stop(FilterStop((), unavailable(self._name)))
                    return
            else:
                if verdict.flagged:
                    report(self._name, "output", verdict, self._ids, self._observe)
                    raw = f"penstock:{self._name}"
                    self._stop(
                        FilterStop(
                            [Finished("content_filter", index, raw) for index in sorted(self._choices)]
                        )
                    )
                    return
            finally:
                self._asking = False
            self._context = (
                (self._context + text)[-self._settings.overlap :] if self._settings.overlap else ""
            )
        self._release(taken)

    def _take(self) -> tuple[list[_Held], str]:
        """Take the next window: whole events, and what has no text behind them."""
        taken: list[_Held] = []
        characters = 0
        while self._held and (characters < MAX_WINDOW or not self._held[0].text):
            taken.append(self._held.popleft())
            characters += len(taken[-1].text)
        self._full.clear()
        return taken, "".join(held.text for held in taken)

    def _release(self, taken: list[_Held]) -> None:
        """What was ``taken`` was found good."""
        for held in taken:
            self._characters -= len(held.text)
            if type(held.event) is Finished:
                self._choices.discard(held.event.index)
        if self._holding and self._characters <= self._settings.max_held // 2:
            self._hold(on=False)
        if not self._held:
            self._some.clear()
        elif self._over or self._characters >= self._settings.window:
            self._full.set()
        events = [held.event for held in taken if not held.shown]
        if events and self._run is not None:
            self._run.release(events)
        if not self._held:
            self._idle.set()

    def _stop(self, stop: FilterStop) -> None:
        self.drop()
        if self._run is not None:
            self._run.stop(stop)

    def _hold(self, *, on: bool) -> None:
        self._holding = on
        if self._run is not None:
            self._run.hold(on)


def unavailable(name: str) -> GatewayError:
    """Return what is said when a moderator that has to be heard is not."""
    message = f"The moderator '{name}' cannot be reached; nothing is let through unseen. Try again shortly."
    return GatewayError(message, code="moderation_unavailable", status=503, retryable=True, retry_after=5)


def report(
    name: str, where: Where, verdict: Verdict, ids: Mapping[str, str], observe: Observer | None = None
) -> None:
    """Log a block, without what was said, and tell who observes. A moderator's words are as many as it likes,
    so they are no rule's name."""
    if observe is not None:
        observe(ContentMatched(name, RULE, "block", where, 1, ids.get("request_id", "")))
    log.info(
        "content_matched",
        **ids,
        filter=name,
        rule=verdict.reason,
        action="block",
        where=where,
        count=1,
    )


def report_failure(name: str, failure: ModerationFailed, ids: Mapping[str, str]) -> None:
    """Log that a moderator gave no answer."""
    log.warning("moderation_failed", **ids, moderator=name, reason=str(failure))
