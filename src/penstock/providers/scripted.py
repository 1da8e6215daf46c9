"""The embedded model: plays scripts at the pace of a real model, and misbehaves on request.

Owns the timing. A source has one timer at a time and no task; what is due is delivered in steps, just as
a socket would be read. While it is paused the model goes on, as a real one does: what became due
meanwhile comes in order afterwards. What is said is decided in `penstock.providers.script`.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from penstock.providers.provider import Conversation, Model, Sink
from penstock.providers.script import MODELS, PROVIDER, Cue, Ending, compose, load_texts
from penstock.types.errors import UpstreamError, upstream_truncated
from penstock.types.events import AnyEvent, Finished
from penstock.types.requests import GenerationRequest

MAX_STEP_EVENTS: Final = 256
"""No step is longer, however much became due while the source was paused."""

INSTANT_STEP_EVENTS: Final = 16
"""The length of a step when time plays no part, so that an answer still comes in several steps."""

DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {name: model.description for name, model in MODELS.items()}
)
"""The scripted models, each with a line for people, in the order in which they should be shown."""


class ScriptedProvider:
    """Answers from scripts. Costs nothing and needs no network.

    ``speed`` divides all times: 2 is twice as fast; 0 or infinity plays without waiting, a step per turn
    of the loop. ``clock`` gives seconds and is the loop's own unless a test wants to decide what is due.
    """

    name = PROVIDER

    def __init__(self, *, clock: Callable[[], float] | None = None, speed: float = 1.0) -> None:
        """Read the texts. Raises `ValueError` for a negative speed."""
        if not speed >= 0:
            raise ValueError("speed must not be negative")
        self._clock = clock
        self._pace = 1.0 / speed if speed else 0.0
        self._texts = load_texts()

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Return the answer of ``model``, which may carry settings (see `ScriptSettings`).

        Raises `ClientError`: 404 for an unknown model, 400 for settings out of range.
        """
        cues = compose(request, model, self._texts)
        return Conversation(ScriptedSource(cues, self._pace, self._clock), ScriptedDecoder(request.n))

    async def models(self) -> Sequence[Model]:
        """Return all scripted models."""
        return tuple(Model(name, description=line) for name, line in DESCRIPTIONS.items())

    async def aclose(self) -> None:
        """Nothing is open."""


class ScriptedDecoder:
    """Hands events on as they are, raises an error that came in their place, and counts the finishes."""

    def __init__(self, choices: int) -> None:
        """``choices`` must finish for the answer to be whole."""
        self._unfinished = choices

    @property
    def finished(self) -> bool:
        """Whether every choice has finished."""
        return self._unfinished <= 0

    def feed(self, data: list[AnyEvent] | UpstreamError) -> Sequence[AnyEvent]:
        """Return the events of a step. Raises the model's own error where it sends one."""
        if isinstance(data, UpstreamError):
            raise data
        for event in data:
            if type(event) is Finished:
                self._unfinished -= 1
        return data

    def flush(self) -> Sequence[AnyEvent]:
        """Raises `UpstreamError` `upstream_truncated` unless every choice has finished."""
        if not self.finished:
            raise upstream_truncated()
        return ()


class ScriptedSource:
    """Plays cues into a sink. ``pace`` is what gaps are multiplied by; 0 for no waiting."""

    def __init__(self, cues: Iterator[Cue], pace: float, clock: Callable[[], float] | None) -> None:
        """Nothing moves before `open`."""
        self._cues = cues
        self._pace = pace
        self._clock = clock
        self._sink: Sink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next: Cue | None = None
        self._due = 0.0
        self._paused = False
        self._aborted = False

    def __repr__(self) -> str:
        """Show the state."""
        state = "aborted" if self._aborted else "idle" if self._sink is None else "open"
        return f"<ScriptedSource {state}{', paused' if self._paused else ''}>"

    def limit(self, connect: float | None, head: float | None) -> None:
        """There is neither a connection nor a head."""

    async def open(self, sink: Sink) -> None:
        """Begin. Nothing is delivered before this returns."""
        if self._aborted:
            return
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._due = self._now()
        self._advance()
        self._schedule()

    def pause(self) -> None:
        """Deliver nothing until `resume`; the script's time goes on."""
        self._paused = True
        self._cancel_timer()

    def resume(self) -> None:
        """Deliver again, from the loop's next turn, beginning with what became due meanwhile."""
        if self._paused:
            self._paused = False
            self._schedule()

    def abort(self) -> None:
        """Stop for good. Idempotent."""
        self._aborted = True
        self._cancel_timer()
        self._sink = None
        self._next = None
        self._cues = iter(())

    def _now(self) -> float:
        if self._clock is not None:
            return self._clock()
        assert self._loop is not None
        return self._loop.time()

    def _advance(self) -> None:
        self._next = next(self._cues, None)
        if self._next is not None:
            self._due += self._next.gap * self._pace

    def _schedule(self) -> None:
        if self._next is None or self._paused or self._timer is not None:
            return
        assert self._loop is not None
        delay = max(0.0, self._due - self._now()) if self._pace else 0.0
        self._timer = self._loop.call_later(delay, self._step)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        self._timer = None
        cue, sink = self._next, self._sink
        assert cue is not None
        assert sink is not None
        if isinstance(cue.action, Ending):
            self._end(sink, cue.action)
            return
        # The cue that the timer was set for is due, even where a timer fires a little early.
        now = self._now()
        limit = MAX_STEP_EVENTS if self._pace else INSTANT_STEP_EVENTS
        events = cue.action
        self._advance()
        while (cue := self._next) is not None and not isinstance(cue.action, Ending):
            if (self._pace and self._due > now) or len(events) + len(cue.action) > limit:
                break
            events += cue.action
            self._advance()
        sink.feed(events)
        self._schedule()

    def _end(self, sink: Sink, ending: Ending) -> None:
        self._sink = None
        self._next = None
        if ending.error is None:
            sink.end()
        elif ending.in_band:
            sink.feed(ending.error)
        else:
            sink.fail(ending.error)
