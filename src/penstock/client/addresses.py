"""Where a gateway is, and what people name to be read there: ids, cursors, URLs with either. Pure."""

import ipaddress
import re
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from penstock.types.positions import parse_cursor, stream_of

DEFAULT_URL: Final = "http://localhost:8080"


class Address(NamedTuple):
    """Where a gateway is and how to be let in. ``token`` is that of a signed link."""

    base: str
    key: str = ""
    token: str = ""


class Target(NamedTuple):
    """What a person named to be read: a stream, and perhaps from where and at which gateway."""

    address: Address
    stream: str
    cursor: str = ""


def address_of(url: str, key: str = "") -> Address:
    """Return the address of the gateway at ``url``, which may lack its scheme or end in ``/v1``.

    Raises `ValueError` with a sentence.
    """
    text = url.strip()
    if "://" not in text:
        text = f"http://{text}"
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            path = re.sub(r"/(v1/?)?$", "", parts.path)
            return Address(f"{parts.scheme}://{parts.netloc}{path}", key)
    raise ValueError("write it as http://host:port")


def target_of(text: str, default: Address) -> Target:
    """Return what ``text`` names: a stream's id (any dialect's), a full cursor, or a URL with either.

    Raises `ValueError` with a sentence.
    """
    text = text.strip()
    if "://" not in text:
        stream = stream_of(text.partition("~")[0])
        if not stream:
            raise ValueError("a stream is named by its id (s_…), by a cursor (s_…~…) or by its URL")
        return Target(default, stream, _cursor(text) if "~" in text else "")
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    prefix, _, rest = parts.path.partition("/v1/")
    words = [*rest.split("/"), *parts.fragment.split("/")]
    stream = next((found for word in words if (found := stream_of(word))), "")
    if parts.scheme not in ("http", "https") or not parts.hostname or not stream:
        raise ValueError("a stream's URL is http://host:port/v1/streams/s_…")
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    base = f"{parts.scheme}://{parts.netloc}{prefix.rstrip('/')}"
    # A key is for the gateway it was given for; an address in a link may be anybody's.
    key = default.key if base == default.base else ""
    return Target(Address(base, key, query.get("token", "")), stream, query.get("after", ""))


def _cursor(text: str) -> str:
    try:
        parse_cursor(text)
    except ValueError as error:
        raise ValueError(f"the cursor cannot be read: {error}") from None
    return text


def is_loopback(base: str) -> bool:
    """Say whether a gateway's address leads to this machine."""
    host = urlsplit(base).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
