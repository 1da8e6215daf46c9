"""How much a client may still use: what headers tell it, in each dialect's manner."""

from typing import NamedTuple


class Quota(NamedTuple):
    """One limit: how much there is in all, how much is left, and in how many seconds all is there again."""

    limit: int
    remaining: int
    resets_in: float


class Allowance(NamedTuple):
    """Of requests and of tokens, the tightest limit each; None where there is none."""

    requests: Quota | None
    tokens: Quota | None
