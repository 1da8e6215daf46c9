"""How many connections each client address has: one that has too many is turned away at the door.

Whoever is turned away is counted, be it for its address or because there is no place left at all.

An address of IPv6 counts by its /64, which is what one customer gets. Whoever speaks for many,
a proxy that is trusted and this machine itself, is not counted.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from penstock.server.proxies import Network, parse_network

OWN: Final = tuple(map(parse_network, ("127.0.0.0/8", "::1")))
"""This machine's."""

log = structlog.get_logger(__name__)

PREFIX: Final = 64


class DoorStatistics(msgspec.Struct, frozen=True):
    """Connections at the moment, WebSockets among them; and since the start, those turned away: for what
    their address has, and because there were too many of all."""

    connections: int
    refused_address: int
    refused_total: int


class Places:
    """The connections of each address. Holds one entry for an address that has any."""

    def __init__(self, most: int, exempt: Sequence[Network] = ()) -> None:
        """``most``: connections of one address; 0 for no bound. ``exempt`` are not counted."""
        self.refused = 0
        self.crowded = 0
        self._most = most
        self._exempt = tuple(exempt)
        self._taken: dict[str, int] = {}
        self._told: set[str] = set()  # of those that are in `_taken`
        self._told_crowded = False

    def __repr__(self) -> str:
        """Say of how many addresses there are connections."""
        return f"<Places {len(self._taken)} addresses, {self.refused} refused>"

    def whose(self, peer: object) -> str:
        """Return under what a connection from ``peer``, as the socket names it, is counted; empty for not."""
        if not self._most or not isinstance(peer, tuple) or not isinstance(peer[0], str):
            return ""  # a socket of this machine's files
        try:
            address = ipaddress.ip_address(peer[0].partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._exempt):
            return ""
        if address.version == 4:
            return str(address)
        return str(ipaddress.ip_network((address, PREFIX), strict=False))

    def has_room(self, whose: str) -> bool:
        """Say whether one more connection may be taken; a refusal is counted, and logged once."""
        if not whose or self._taken.get(whose, 0) < self._most:
            return True
        self.refused += 1
        if whose not in self._told:
            self._told.add(whose)
            log.warning("too_many_connections", address=whose, connections=self._most)
        return False

    def turn_away(self, most: int) -> None:
        """Count one that came when there were ``most`` of all; logged once, until there was room again."""
        self.crowded += 1
        if not self._told_crowded:
            self._told_crowded = True
            log.warning("no_connection_left", connections=most)

    def take(self, whose: str) -> None:
        """Count a connection. Each is to be given back once."""
        self._told_crowded = False
        if whose:
            self._taken[whose] = self._taken.get(whose, 0) + 1

    def give_back(self, whose: str) -> None:
        """A connection is no more."""
        if not whose:
            return
        left = self._taken[whose] - 1
        if left:
            self._taken[whose] = left
        else:
            del self._taken[whose]
            self._told.discard(whose)
