"""Which proxy leads to an origin, as the environment says.

Reads ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``; the lower-case name wins where
both are set, and ``HTTP_PROXY`` is not read in a CGI environment, where a request can set it. There
is no standard: where curl, httpx and Go differ, the reading that surprises fewer is taken, and a
loopback address is never sent to a proxy (Go's rule: the local model server is not behind one).

The environment is passed in. No socket enters here.
"""

import base64
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from penstock.types.errors import UpstreamError
from penstock.upstream.http1 import Origin, split_url


class Proxy(msgspec.Struct, frozen=True):
    """A proxy's address, and the value of ``Proxy-Authorization`` (empty: none)."""

    origin: Origin
    authorization: str = ""

    def __str__(self) -> str:
        """Print the address; never the credentials."""
        return str(self.origin)

    def __repr__(self) -> str:
        """Show no more than `str` does."""
        return f"<Proxy {self.origin}>"


class _Exception(NamedTuple):
    """One entry of ``NO_PROXY``: a name with its subdomains, an address or a network; 0: any port."""

    name: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    port: int

    def covers(
        self, host: str, address: "ipaddress.IPv4Address | ipaddress.IPv6Address | None", port: int
    ) -> bool:
        if self.port and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return host == self.name or host.endswith("." + self.name)


class Proxies:
    """The proxy settings of one environment."""

    __slots__ = ("_everything", "_exceptions", "_urls")

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Take the settings from ``environ``; nothing is read later."""

        def value(name: str) -> str:
            lower = environ.get(name)
            return (environ.get(name.upper(), "") if lower is None else lower).strip()

        fallback = value("all_proxy")
        plain = environ.get("http_proxy", "").strip() if "REQUEST_METHOD" in environ else value("http_proxy")
        self._urls = {"http": plain or fallback, "https": value("https_proxy") or fallback}
        entries = value("no_proxy").replace(",", " ").lower().split()
        self._everything = "*" in entries
        self._exceptions = tuple(_parse_exception(entry) for entry in entries if entry != "*")

    def find(self, origin: Origin) -> Proxy | None:
        """Return the proxy that leads to ``origin``, None for a direct connection.

        Raises `UpstreamError` (``upstream_proxy``) when the setting cannot be used.
        """
        url = self._urls.get(origin.scheme, "")
        if not url or self._everything:
            return None
        host = origin.host.lower().rstrip(".")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if (
            host == "localhost"
            or host.endswith(".localhost")
            or (address is not None and address.is_loopback)
        ):
            return None
        if any(entry.covers(host, address, origin.port) for entry in self._exceptions):
            return None
        return parse_proxy(url)


def parse_proxy(url: str) -> Proxy:
    """Read a proxy's URL; ``host:port`` alone means http. Raises `UpstreamError`."""
    if "://" not in url:
        url = "http://" + url
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise _unusable(f"its scheme is {parts.scheme}, and only http and https are supported")
        origin, _ = split_url(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    except ValueError:
        raise _unusable("it is not a URL") from None
    if parts.username is None:
        return Proxy(origin)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(origin, "Basic " + base64.b64encode(pair.encode()).decode())


def _unusable(reason: str) -> UpstreamError:
    return UpstreamError(
        f"The proxy set in the environment cannot be used: {reason}.", code="upstream_proxy", retryable=False
    )


def _parse_exception(entry: str) -> _Exception:
    try:
        return _Exception("", ipaddress.ip_network(entry.strip("[]"), strict=False), 0)
    except ValueError:
        pass
    name, colon, digits = entry.rpartition(":")
    if not colon or not digits.isdigit():
        name, digits = entry, "0"
    try:
        return _Exception("", ipaddress.ip_network(name.strip("[]"), strict=False), int(digits))
    except ValueError:
        return _Exception(name.removeprefix("*").strip("."), None, int(digits))
