"""Who is calling, and what it may. A principal owns the streams it creates.

A principal whose id begins with another's and a slash is one of its own (`web-app/alice` of `web-app`):
a page or a user that it vouches for. What they create, it may use as well.
"""

import ipaddress
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

import msgspec

OF: Final = "/"
"""Stands between a principal's id and the name that it gave one of its own."""


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a principal may do; empty for everything.

    ``models`` and ``routes`` are patterns, ``origins`` whole, ``addresses`` networks (`10.0.0.0/8`).
    ``preset``: this one and nothing else; ``once``: one call. ``spend``: nano-dollars that everything
    under ``account`` may cost in all. ``ends_at`` is Unix time.
    """

    models: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    preset: str = ""
    once: bool = False
    spend: int | None = None
    account: str = ""
    ends_at: float | None = None

    def allows_model(self, model: str) -> bool:
        """Say whether ``model`` may be asked for."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def reaches_model(self, model: str) -> bool:
        """Say whether a call may be for ``model``: a preset's bearer did not choose the one that it names."""
        return bool(self.preset) or self.allows_model(model)

    def shows_model(self, model: str) -> bool:
        """Say whether its bearer may hear of ``model``: whoever is for one preset asks for none by name."""
        return not self.preset and self.allows_model(model)

    def allows_route(self, route: str) -> bool:
        """Say whether calls may come in by ``route``."""
        return not self.routes or any(fnmatchcase(route, pattern) for pattern in self.routes)


EVERYTHING: Final = Grant()


class Principal(msgspec.Struct, frozen=True):
    """An identity that a client proved; ``id`` is stable, safe to store and never a secret.

    ``stream`` is set for the bearer of a link: it creates nothing and may use that one stream. ``key`` is
    the public part of the API key, ``address`` where the request came from. ``admin``: every stream, and
    the keys of others.
    """

    id: str
    stream: str = ""
    key: str = ""
    team: str = ""
    admin: bool = False
    grant: Grant = EVERYTHING
    address: str = ""

    def may_use(self, owner: str, stream: str) -> bool:
        """Say whether the stream that the principal ``owner`` created is open to this one."""
        if self.stream:
            return self.stream == stream
        return self.admin or self.id == owner or owner.startswith(self.id + OF)


ANONYMOUS = Principal("anonymous")


class Whence(NamedTuple):
    """Where a request comes from: the client's address, and the page's origin; empty if nobody said."""

    address: str = ""
    origin: str = ""


def is_network(text: str) -> bool:
    """Say whether ``text`` is an address, or a network of them (`10.0.0.0/8`)."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
