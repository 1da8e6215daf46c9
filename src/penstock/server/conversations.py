"""What Responses were asked, kept in memory for clients that go on from them by their id.

A response is more than its stream: it repeats what was asked, its input can be listed, and another
request may go on from it. None of that is in the log, where a link would show it to others; so it is here,
bounded, for as long as there is room, and gone with the process. What was asked with ``store: false`` is
never here.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

MAX_BYTES: Final = 64 << 20
"""Of requests that are kept; the oldest go first."""

MAX_REQUESTS: Final = 10_000


class Kept(NamedTuple):
    """A request: the items of its whole conversation, how many came with earlier responses, and its echo."""

    items: Sequence[dict[str, Any]]
    earlier: int
    echo: Mapping[str, Any]
    size: int


NOTHING: Final = Kept((), 0, {}, 0)


class Conversations:
    """See the module's head. By the id of the stream."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        """Hold nothing yet."""
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        """How many requests are kept."""
        return len(self._kept)

    def keep(self, stream: str, kept: Kept) -> None:
        """Keep a request, and drop the oldest ones that leave it no room."""
        self.drop(stream)
        if kept.size > self._max_bytes:
            return
        self._kept[stream] = kept
        self._bytes += kept.size
        while self._bytes > self._max_bytes or len(self._kept) > MAX_REQUESTS:
            self._bytes -= self._kept.popitem(last=False)[1].size

    def find(self, stream: str) -> Kept | None:
        """Return what was kept of ``stream``."""
        return self._kept.get(stream)

    def drop(self, stream: str) -> None:
        """Forget ``stream``, if it is here."""
        if (kept := self._kept.pop(stream, None)) is not None:
            self._bytes -= kept.size
