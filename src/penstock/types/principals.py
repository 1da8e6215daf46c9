"""Who is calling. A principal owns the streams it creates."""

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """An identity that a client proved; ``id`` is stable, safe to store and never a secret.

    ``stream`` is set for the bearer of a link: it creates nothing and may use that one stream.
    """

    id: str
    stream: str = ""

    def may_use(self, owner: str, stream: str) -> bool:
        """Say whether the stream that the principal ``owner`` created is open to this one."""
        return self.stream == stream if self.stream else self.id == owner


ANONYMOUS = Principal("anonymous")
