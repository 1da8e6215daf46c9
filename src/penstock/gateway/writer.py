"""What a run writes into its stream: the leader's events, through the filter, cut to size, counted.

The inner part of the step: plain calls from an attempt's `feed` to `Stream.append`, with no await. Behind
a filter the text as the model wrote it is kept as well, since the next model goes on from that and not from
what the filter made of it; without one the log is read back instead, and nothing is kept.

Who may write, and what a full log or a filter's word means for the run, is not decided here.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.gateway.continuation import Spoken
from penstock.gateway.meter import Meter
from penstock.gateway.tally import Use
from penstock.policies.policy import EventFilter, FilterStop
from penstock.policies.review import Review
from penstock.providers.provider import Target
from penstock.streams.stream import Stream
from penstock.types.errors import UpstreamError
from penstock.types.events import (
    MAX_DELTA_CHARS,
    AnyEvent,
    Finished,
    Started,
    TextDelta,
    has_output,
    split_long,
)

ENTRY_BYTES: Final = 64
"""About what an entry takes besides its text, for the bound on a stream's size."""


class Writer:
    """See the module's head."""

    __slots__ = (
        "_asked_model",
        "_begun",
        "_bytes",
        "_choices",
        "_filter",
        "_finished",
        "_max_bytes",
        "_meter",
        "_review",
        "_stream",
        "answered",
        "characters",
        "spoken",
        "target",
        "use",
    )

    def __init__(
        self,
        stream: Stream,
        meter: Meter,
        filter: EventFilter | None,
        *,
        choices: int,
        max_bytes: int,
        asked_model: str = "",
        begun: bool = False,
        review: Review | None = None,
    ) -> None:
        """``choices`` are in the answer; ``asked_model`` stands for the name of the one that answers, if it
        is not empty. ``begun``: the log has its `Started` already. ``review`` comes behind ``filter``."""
        self.characters = 0
        self.target: Target | None = None  # that of the leader
        self.use: Use | None = None
        self.spoken = Spoken() if filter is not None or review is not None else None
        self._review = review
        self._stream = stream
        self._meter = meter
        self._filter = filter
        self._choices = choices
        self.answered = False  # every choice was shown to its finish
        self._finished: set[int] = set()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._asked_model = asked_model
        self._begun = begun

    def show(self, events: Sequence[AnyEvent], now: float) -> FilterStop | None:
        """Append ``events`` as far as the filter lets them through; return why it wants to stop, if it does.

        Raises `UpstreamError` when the stream is longer than it may be.
        """
        stopped = None
        if self._filter is None and self._review is None:
            self._append(events, now)
        else:
            if any(map(has_output, events)):  # what is held back is no stall
                self._meter.output(now)
            if self.spoken is not None:
                for event in events:
                    self.spoken.hear(event)
            try:
                self._pass(events if self._filter is None else self._filter.feed(events), now)
            except FilterStop as stop:
                self._pass(stop.events, now)
                stopped = stop
        if self._bytes > self._max_bytes:
            message = "The answer is longer than the gateway stores."
            raise UpstreamError(message, code="stream_too_large", retryable=False)
        return stopped

    def flush(self, now: float) -> FilterStop | None:
        """Append what the filter holds back; return why it wants to stop, if it does."""
        if self._filter is None:
            return None
        try:
            self._pass(self._filter.flush(), now)
        except FilterStop as stop:
            self._pass(stop.events, now)
            return stop
        return None

    def release(self, events: Sequence[AnyEvent], now: float) -> None:
        """Append ``events``, which the review let go."""
        self._append(events, now, counted=True)

    def _pass(self, events: Sequence[AnyEvent], now: float) -> None:
        """Give ``events`` to the review, if there is one. What they cost counts already, shown or not."""
        if self._review is None:
            self._append(events, now)
            return
        characters = 0
        for event in events:
            characters += len(getattr(event, "delta", ""))
            self._count(event)
        self._weigh(characters, len(events))
        self._append(self._review.feed(events), now, counted=True)

    def _count(self, event: AnyEvent) -> None:
        if type(event) is Finished:
            self._finished.add(event.index)
            self.answered = len(self._finished) >= self._choices
        self._meter.report(event)
        if self.use is not None:
            self.use.report(event)

    def _weigh(self, characters: int, entries: int) -> None:
        self.characters += characters
        if self.use is not None:
            self.use.characters += characters
        self._bytes += characters + ENTRY_BYTES * entries

    def _append(self, events: Sequence[AnyEvent], now: float, *, counted: bool = False) -> None:
        stream = self._stream
        characters = 0
        output = False
        for event in events:
            if type(event) is TextDelta:
                delta = event.delta
                output = output or delta != ""
            else:
                delta = getattr(event, "delta", "")
                output = output or has_output(event)
                if type(event) is Started:
                    if self._begun:  # before a restart, of which nothing but this was shown
                        continue
                    self._begun = True
                    event = self._named(event)
                if not counted:
                    self._count(event)
            if len(delta) > MAX_DELTA_CHARS:
                for piece in split_long(event):
                    stream.append(piece)
            else:
                stream.append(event)
            characters += len(delta)
        if output:
            self._meter.output(now)
        if not counted:
            self._weigh(characters, len(events))

    def _named(self, event: Started) -> Started:
        target = self.target
        if target is None:
            return event
        model, provider = self._asked_model or event.model, event.provider or target.provider
        dropped = self._stream.dropped
        return msgspec.structs.replace(
            event, model=model, provider=provider, target=target.name, dropped=dropped
        )
