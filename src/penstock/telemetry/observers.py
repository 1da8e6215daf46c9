"""Several observers as one, which is what the core is given.

Owns what must hold whatever a single observer does: one that raises is logged and costs neither the call
nor the other observers anything. Adds to the end of a stream what it cost, which only the assembly can
know. Without observers there is none of this: the core is given None, and does nothing.
"""

from collections.abc import Callable, Sequence

import msgspec
import structlog

from penstock.types.calls import ids
from penstock.types.events import UsageReported
from penstock.types.signals import AnySignal, Observer, StreamEnded

log = structlog.get_logger(__name__)


class Observers:
    """An `Observer` made of others, told in their order."""

    def __init__(
        self,
        observers: Sequence[Observer],
        price: Callable[[str, str, UsageReported], int | None] | None = None,
    ) -> None:
        """``price``: provider, model and usage → nano-dollars, None where nobody knows."""
        self._observers = tuple(observers)
        self._price = price

    def __repr__(self) -> str:
        """Name them."""
        return f"<Observers {', '.join(map(repr, self._observers))}>"

    def __call__(self, signal: AnySignal) -> None:
        """Tell all of them."""
        if type(signal) is StreamEnded and self._price is not None:
            used = signal.outcome.attempts
            costs = tuple(self._price(one.provider, one.model, one.usage) for one in used)
            signal = msgspec.structs.replace(signal, costs=costs)
        for observe in self._observers:
            try:
                observe(signal)
            except Exception as bug:  # who watches must not change what is watched
                name = type(signal).__name__
                log.error(
                    "observer_failed", **_ids(signal), observer=repr(observe), signal=name, exc_info=bug
                )


def _ids(signal: AnySignal) -> dict[str, str]:
    subject = getattr(signal, "subject", signal)
    return ids(getattr(subject, "request_id", ""), getattr(subject, "stream", ""))
