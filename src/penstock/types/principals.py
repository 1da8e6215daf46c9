"""Who is calling. A principal owns the streams it creates."""

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """An identity that a client proved; ``id`` is stable, safe to store and never a secret."""

    id: str


ANONYMOUS = Principal("anonymous")
