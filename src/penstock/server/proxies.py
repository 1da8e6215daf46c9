"""Who a request really comes from, where proxies stand before us.

What ``X-Forwarded-For``, ``X-Forwarded-Proto`` and ``Forwarded`` (RFC 7239) say is anybody's word: it is
believed only as far as the network that said it is one of the trusted ones. From the right, the first address
that is not a trusted proxy's is the client's; whatever stands left of it, that client wrote itself.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from starlette.datastructures import Headers
from starlette.types import Scope

MAX_HOPS: Final = 32
"""Proxies that are followed back; nobody has more."""

MAX_FORWARDED: Final = 4_096

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_FOR: Final = re.compile(r'(?:^|;)\s*for=("[^"]{0,64}"|[^;,"\s]{1,64})', re.IGNORECASE)
_PROTO: Final = re.compile(r'(?:^|;)\s*proto="?(https?)"?\s*(?:;|$)', re.IGNORECASE)


def parse_network(text: str) -> Network:
    """Read an address or a network. Raises `ValueError`."""
    return ipaddress.ip_network(text.strip(), strict=False)


def apply(scope: Scope, trusted: Sequence[Network]) -> None:
    """Set ``client`` and ``scheme`` of a request's scope to what its trusted proxies say."""
    client = scope.get("client")
    peer = _address(client[0]) if client else None
    if peer is None or not _within(peer, trusted):
        return
    headers = Headers(scope=scope)
    found = origin(peer, list(_hops(headers)), trusted)
    scope["client"] = (str(found), 0)
    if (scheme := _scheme(headers)) and scope["type"] in ("http", "websocket"):
        secure = scheme == "https"
        scope["scheme"] = scheme if scope["type"] == "http" else ("wss" if secure else "ws")


def origin(peer: Address, hops: Sequence[str], trusted: Sequence[Network]) -> Address:
    """Return the client's address. ``hops``, nearest last, were said by ``peer``, which is trusted."""
    found = peer
    for hop in reversed(hops[-MAX_HOPS:]):
        said = _address(hop)
        if said is None:  # hidden or garbled: nothing left of it can be placed
            return found
        found = said
        if not _within(found, trusted):
            return found
    return found


def _hops(headers: Headers) -> Iterator[str]:
    if said := headers.getlist("x-forwarded-for"):
        yield from ",".join(said)[-MAX_FORWARDED:].split(",")
        return
    for element in ",".join(headers.getlist("forwarded"))[-MAX_FORWARDED:].split(","):
        if found := _FOR.search(element):
            yield found[1].strip('"')
        elif element.strip():
            yield ""


def _scheme(headers: Headers) -> str:
    """Return what the nearest proxy says of its own client."""
    if said := headers.getlist("x-forwarded-proto"):
        last = said[-1].rpartition(",")[2].strip().lower()
        return last if last in ("http", "https") else ""
    if said := headers.getlist("forwarded"):
        found = _PROTO.search(said[-1].rpartition(",")[2])
        return found[1].lower() if found else ""
    return ""


def _address(text: str) -> Address | None:
    """Read ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``, ``[2001:db8::1]`` or ``[2001:db8::1]:80``."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
