"""How long each part of an answer may take: six timers, each with a code of its own when it is up."""

from typing import Final

import msgspec


class Timers(msgspec.Struct, frozen=True):
    """Seconds; 0 turns one off. Only output of the model feeds them: no comment, ping or role does.

    ``first_output``: from the request to the first output. ``stall``: between two. ``min_rate``:
    characters a second, over each ``window``, that an answer may not fall below. ``total``: of the whole
    generation, over all attempts. ``connect``: until the connection is there; ``head``: from the request
    to the head of the response; both None for as the provider's own settings say.
    """

    first_output: float = 300.0
    stall: float = 120.0
    min_rate: float = 0.0
    window: float = 30.0
    total: float = 3600.0
    connect: float | None = None
    head: float | None = None


USUAL: Final = Timers()

THINKING: Final = Timers(first_output=900.0, stall=300.0)
"""The defaults for models that think before they speak, some of them in silence."""
