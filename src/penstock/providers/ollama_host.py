"""Where Ollama is, by the variable that its own programs read.

Owns the forms of ``OLLAMA_HOST``. It is a place to listen on as well as one to connect to, so that an
address that means "everywhere" is taken as this machine. No I/O.

Source: envconfig/config.go of github.com/ollama/ollama, version 0.17.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

BASE_URL: Final = "http://127.0.0.1:11434"

_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")
_PORT: Final = re.compile(r"[0-9]{1,5}")

_ANY_ADDRESS: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server that listens everywhere is found from its own machine."""


def find_address(host: str) -> str:
    """Return the base URL that ``OLLAMA_HOST`` names, read as Ollama's own client reads it.

    Known are a host, ``host:port``, ``:port``, any of them after ``http://`` or ``https://``, and IPv6 in
    brackets or not. An address to listen on everywhere is taken as loopback. Empty: `BASE_URL`. Raises
    `ValueError` with a sentence for whoever set it.
    """
    text = host.strip().strip("\"'").strip()
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest, port = "http", text, "11434"
        if text == "ollama.com":
            scheme, port = "https", "443"
    else:
        port = {"http": "80", "https": "443"}.get(scheme, "")
    place, slash, path = rest.partition("/")
    name, colon, number = place.rpartition(":")
    bare_ipv6 = place.count(":") > 1 and not place.startswith("[")
    if not colon or bare_ipv6 or place.endswith("]"):
        name, number = place, port
    name = name.strip("[]") or "127.0.0.1"
    if not port or not _PORT.fullmatch(number) or int(number) > 65535 or not _HOST.fullmatch(name):
        raise ValueError("OLLAMA_HOST is no address: expected [http://]host[:port].")
    if ":" in name:  # what has colons and is no IPv6 address would make a URL that nobody can read
        try:
            ipaddress.IPv6Address(name)
        except ValueError:
            raise ValueError("OLLAMA_HOST is no address: expected [http://]host[:port].") from None
    name = _ANY_ADDRESS.get(name, name)
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{number}{slash}{path}".rstrip("/")
