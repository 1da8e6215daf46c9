"""Several keys of one provider: whose turn it is, and which are left alone for a while.

A key that the provider refuses (401, 402, 403) or holds back (429) *cools down*: it is passed over until
its time is over. That is as long as the provider asks for, up to a bound, else longer with each refusal
in a row. Where all cool down, the one whose time is over first is used all the same: an answer that may
come is better than none. Which attempt is made next is not decided here (`penstock.gateway.rescue`).

Pure over (failure, now); no key is in a `repr`.
"""

from collections.abc import Callable, Sequence
from typing import Final

from penstock.types.errors import PenstockError, UpstreamError

MAX_KEYS: Final = 100
"""Of one provider."""

REFUSED: Final = frozenset({401, 402, 403})
"""Statuses that speak of a key; 429 does so for a while."""

HELD_BACK: Final = 429

REFUSED_FOR: Final = 60.0
HELD_BACK_FOR: Final = 10.0
MAX_COOL_DOWN: Final = 900.0
"""Seconds that a key cools down where the provider asks for nothing; twice as long each time in a row."""

MAX_RETRY_AFTER: Final = 3_600.0
"""Seconds that a provider may ask for."""


class _Key:
    """One key, and until when it cools down."""

    __slots__ = ("free_at", "row", "value")

    def __init__(self, value: str) -> None:
        self.value = value
        self.free_at = 0.0
        self.row = 0  # refusals since it last worked


class KeyUse:
    """One key in use by one attempt. Tell it how that went."""

    __slots__ = ("_key", "_ring")

    def __init__(self, ring: "ProviderKeys", key: _Key) -> None:
        """See `ProviderKeys.use`."""
        self._ring = ring
        self._key = key

    @property
    def value(self) -> str:
        """The key itself."""
        return self._key.value

    def worked(self) -> None:
        """The provider answers."""
        self._key.row = 0

    def failed(self, error: PenstockError) -> bool:
        """Let the key cool down if ``error`` speaks of it; say whether it did, and another is ready."""
        return self._ring.cool(self._key, error)


class ProviderKeys:
    """The keys of one provider, each in its turn."""

    def __init__(self, keys: Sequence[str], clock: Callable[[], float]) -> None:
        """At least one key; ``clock`` is monotonic, in seconds."""
        self._keys = [_Key(value) for value in keys]
        self._clock = clock
        self._next = 0

    def __repr__(self) -> str:
        """Say how many there are, and how many are ready."""
        return f"<ProviderKeys {self.ready} of {len(self._keys)} ready>"

    @property
    def ready(self) -> int:
        """How many keys do not cool down."""
        now = self._clock()
        return sum(key.free_at <= now for key in self._keys)

    def use(self) -> KeyUse:
        """Return the next key that is ready; if none is, the one that will be first."""
        now, count = self._clock(), len(self._keys)
        turn = [self._keys[(self._next + step) % count] for step in range(count)]
        chosen = min(turn, key=lambda key: max(key.free_at - now, 0.0))
        self._next = (self._keys.index(chosen) + 1) % count
        return KeyUse(self, chosen)

    def cool(self, key: _Key, error: PenstockError) -> bool:
        """See `KeyUse.failed`."""
        now = self._clock()
        cooling = key.free_at > now  # others used it at the same time: that is one refusal
        seconds = _cool_down(error, key.row - cooling)
        if not seconds:
            return False
        key.row += not cooling
        key.free_at = max(key.free_at, now + seconds)
        return self.ready > 0


def _cool_down(error: PenstockError, row: int) -> float:
    """Return the seconds that a key with ``row`` refusals in a row cools down after ``error``; maybe 0."""
    if not isinstance(error, UpstreamError):
        return 0.0
    status = error.upstream_status or error.status  # an error inside a 200 has its own word only
    if status in REFUSED or error.code in ("invalid_api_key", "permission_denied", "insufficient_quota"):
        usual = REFUSED_FOR
    elif status == HELD_BACK:
        usual = HELD_BACK_FOR
    else:
        return 0.0
    asked = min(error.retry_after or 0.0, MAX_RETRY_AFTER)
    return asked or min(usual * 2 ** min(row, 8), MAX_COOL_DOWN)
