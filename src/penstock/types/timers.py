"""How long each part of an answer may take. Six timers; two of them, for connecting and for the head of
the response, are the provider's settings, since they are about the way to it."""

import msgspec


class Timers(msgspec.Struct, frozen=True):
    """Seconds; 0 turns one off. Only output of the model feeds them: no comment, ping or role does.

    ``first_output``: from the request to the first output. ``stall``: between two. ``min_rate``:
    characters a second, over each ``window``, that an answer may not fall below. ``total``: of the whole
    generation, over all attempts.
    """

    first_output: float = 300.0
    stall: float = 120.0
    min_rate: float = 0.0
    window: float = 30.0
    total: float = 3600.0
