"""A sink that writes down what a source delivers, and stands in for the gateway's attempt."""

import asyncio
from collections.abc import Callable
from typing import Any

from penstock.providers.provider import Conversation
from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import AnyEvent, TextDelta


class Recorder:
    """Decodes as the gateway does. ``outcome`` is None for a whole answer, else the error."""

    def __init__(self, conversation: Conversation) -> None:
        self.source = conversation.source
        self.decoder = conversation.decoder
        self.steps: list[Any] = []
        self.events: list[AnyEvent] = []
        self.after_the_end = 0
        self.after_each: Callable[[], None] = lambda: None
        self._heard = asyncio.Event()
        self._outcome: asyncio.Future[PenstockError | None] = asyncio.get_running_loop().create_future()

    def feed(self, data: Any) -> None:
        self.steps.append(data)
        if self._outcome.done():
            self.after_the_end += 1
            return
        try:
            self.events += self.decoder.feed(data)
        except UpstreamError as error:
            self._outcome.set_result(error)
        self._called()

    def end(self) -> None:
        if self._outcome.done():
            self.after_the_end += 1
            return
        try:
            self.events += self.decoder.flush()
            self._outcome.set_result(None)
        except UpstreamError as error:
            self._outcome.set_result(error)
        self._called()

    def fail(self, error: PenstockError) -> None:
        if self._outcome.done():
            self.after_the_end += 1
            return
        self._outcome.set_result(error)
        self._called()

    def _called(self) -> None:
        self._heard.set()
        self.after_each()

    async def wait_call(self) -> None:
        """Wait until the source calls again, counted from the last wait."""
        await asyncio.wait_for(self._heard.wait(), 10)
        self._heard.clear()

    @property
    def ended(self) -> bool:
        return self._outcome.done()

    @property
    def text(self) -> str:
        return "".join(event.delta for event in self.events if isinstance(event, TextDelta))

    async def outcome(self) -> PenstockError | None:
        return await asyncio.wait_for(asyncio.shield(self._outcome), 10)

    async def play(self) -> PenstockError | None:
        await self.source.open(self)
        return await self.outcome()


async def turns(count: int) -> None:
    """Let the loop turn: timers without a delay fire, nothing that waits does."""
    for _ in range(count):
        await asyncio.sleep(0)
