"""Which streams a page's chat has, for clients that know their chat and no stream.

In memory, by principal and chat, bounded: the newest stream, those that may still be open, and whether a
reader has been given the newest one's end. What is not known here (the process is young, or there were too
many chats) is looked for among the principal's newest streams, whose metadata names their chat.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, TypeAlias

from penstock.gateway.gateway import Gateway
from penstock.server.downstream import Downstream
from penstock.streams.stream import Stream
from penstock.types.errors import ClientError
from penstock.types.principals import Principal

CHAT: Final = "chat_id"
"""Where in a stream's metadata its chat stands."""

MAX_CHATS: Final = 10_000
"""Chats that are remembered; those that nobody asked for in the longest time go first."""

MAX_OPEN: Final = 64
"""Streams of one chat that are remembered until they are stopped."""

LOOK_BACK: Final = 400
PAGE: Final = 100
"""How many of a principal's newest streams are looked through for a chat, and at a time."""

CONFIRM_AFTER: Final = (1.0, 4.0, 25.0)
"""Seconds after an end was written, each from the one before, when it is asked whether it was taken."""

Key: TypeAlias = tuple[str, str]


class Chat:
    """One chat of one principal."""

    __slots__ = ("_newest", "_unconfirmed", "given", "open", "starting")

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.starting = asyncio.Lock()
        """Held while a stream is started: who wants to stop it must wait until it has a name."""
        self.given = False
        self.open: list[str] = []
        self._newest = ""
        self._unconfirmed: list[Downstream] = []

    @property
    def newest(self) -> str:
        """The id of its last stream."""
        return self._newest

    def add(self, stream: Stream) -> None:
        """A stream was started, or found."""
        if stream.id > self._newest:  # ids grow with time
            self._newest, self.given = stream.id, False
            self._unconfirmed.clear()
        if stream.is_open and stream.id not in self.open:
            self.open = [*self.open[1 - MAX_OPEN :], stream.id]

    def ended(self, stream: str, down: Downstream) -> None:
        """The end of ``stream`` was written to a reader, who may be gone for all we know."""
        if stream == self._newest and not self.given:
            self._unconfirmed.append(down)
            asyncio.get_running_loop().call_later(CONFIRM_AFTER[0], self._confirm, CONFIRM_AFTER[1:])

    def was_given(self) -> bool:
        """Say whether a reader has the end of the newest stream, as far as can be known."""
        self._unconfirmed = [down for down in self._unconfirmed if not down.gone]
        if any(down.taken for down in self._unconfirmed):
            self.given = True
        if self.given:
            self._unconfirmed.clear()
        return self.given

    def _confirm(self, delays: Sequence[float]) -> None:
        if not self.was_given() and delays:
            asyncio.get_running_loop().call_later(delays[0], self._confirm, delays[1:])
        elif not delays:
            self._unconfirmed.clear()


class Chats:
    """See the module's head."""

    def __init__(self, *, max_chats: int = MAX_CHATS) -> None:
        """Know none."""
        self._chats: OrderedDict[Key, Chat] = OrderedDict()
        self._max_chats = max_chats

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._chats)

    def of(self, principal: Principal, chat: str) -> Chat:
        """Return the chat, and remember it."""
        key = (principal.id, chat)
        found = self._chats.get(key)
        if found is None:
            found = self._chats[key] = Chat()
        self._chats.move_to_end(key)
        while len(self._chats) > self._max_chats:
            self._chats.popitem(last=False)
        return found

    async def newest(self, gateway: Gateway, principal: Principal, chat: str) -> Stream | None:
        """Return the last stream of a chat; None where there is none, or it is gone."""
        known = self._chats.get((principal.id, chat))
        if known is None or not known.newest:
            found = await look_for(gateway, principal, chat)
            if found is None:
                return None
            known = self.of(principal, chat)
            known.add(found)
        try:
            return await gateway.find(known.newest, principal)
        except ClientError:  # erased, or its retention is over
            return None


async def look_for(gateway: Gateway, principal: Principal, chat: str) -> Stream | None:
    """Return the newest stream of ``chat`` among the principal's last ones."""
    before = ""
    for _ in range(LOOK_BACK // PAGE):
        page = await gateway.list(principal, before, PAGE)
        for stream in page:
            if (stream.info.metadata or {}).get(CHAT) == chat:
                return stream
        if len(page) < PAGE:
            break
        before = page[-1].id
    return None
