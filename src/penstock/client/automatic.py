"""A WebSocket where one can be had, events by SSE where none can: a `Carrier` that finds its way back.

A socket counts once the gateway has answered a ping through it: proxies refuse the upgrade, never answer
it, or open a socket and hand nothing on. Nothing is asked before that, so a trial that fails has started
nothing. It is not tried again for a while, which is longer each time. What the gateway itself refuses, or
a gateway that is not there, says nothing of the way.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from penstock.client.connection import Ask, Broken, Received, Refused, Unanswered
from penstock.client.sockets import Sockets

TRIAL: Final = 3.0
"""Seconds that opening a socket may take, and the answer to its ping."""

BLOCKED: Final = 30.0
MOST_BLOCKED: Final = 600.0
"""Seconds for which sockets are not tried after one that did not work: at first, and at most."""

_NO_UPGRADE: Final = frozenset({400, 404, 405, 426})
"""What a gateway answers that was asked without the upgrade, which a proxy took away."""


class Automatic:
    """The WebSockets to one gateway, where there are any."""

    def __init__(
        self, sockets: Sockets, *, trial: float = TRIAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``trial``: see `TRIAL`. Nothing is dialled before something is asked."""
        self._sockets = sockets
        self._trial = trial
        self._clock = clock
        self._blocked_until = 0.0
        self._block = 0.0

    def __repr__(self) -> str:
        """Say whether sockets are tried."""
        blocked = self._clock() < self._blocked_until
        return f"<Automatic {'SSE for now' if blocked else self._sockets}>"

    async def aclose(self) -> None:
        """Close what is open."""
        await self._sockets.aclose()

    async def events(self, ask: Ask) -> AsyncGenerator[Received, None]:
        """See `Carrier`."""
        if not await self._works():
            raise Unanswered
        async with aclosing(self._sockets.events(ask)) as events:
            async for received in events:
                yield received

    async def _works(self) -> bool:
        if self._clock() < self._blocked_until:
            return False
        try:
            await self._sockets.prove(self._trial)
        except (Broken, Refused, TimeoutError) as failure:
            if not _says_nothing(failure):
                self._block = min(self._block * 2 or BLOCKED, MOST_BLOCKED)
                self._blocked_until = self._clock() + self._block
            return False
        self._block = 0.0
        return True


def _says_nothing(failure: Exception) -> bool:
    """Whether a trial failed by the gateway's own word, or because nobody was there."""
    match failure:
        case Refused(status=status, code=code):
            return bool(code) and status not in _NO_UPGRADE
        case Broken(sent=sent):
            return not sent
    return False
