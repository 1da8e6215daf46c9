"""Who may come in: credentials, and what keeps web pages from spending through a gateway without keys.

Without a key known, the server is for this machine's user alone: it takes requests for its own names
only (a page elsewhere can point its DNS name at 127.0.0.1), from its own pages or configured origins
only, and creating bodies as JSON only. With a key, every route that touches streams wants one. Whose a
credential is, `Identifies` knows; where it stands in a request is known here.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, Protocol, TypeAlias

import msgspec
from starlette.requests import HTTPConnection

from penstock.server.origins import compile_origins
from penstock.types.errors import ClientError, PenstockError
from penstock.types.principals import ANONYMOUS, Principal, Whence

Found: TypeAlias = Principal | PenstockError | None
"""Who came with a credential, or what is wrong with it; None where there was none."""

SUBPROTOCOLS: Final = ("penstock.key.", "openai-insecure-api-key.")
"""What a credential stands behind among the subprotocols of a WebSocket: browsers can send no header."""

MAX_CREDENTIAL: Final = 16_384

KEY_HEADERS: Final = ("x-api-key", "api-key", "x-goog-api-key")
"""Where a key may stand besides ``Authorization``."""

LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


ORIGIN: Final = r"https?://[^/\s?#@]{1,255}/?"


def is_origin(text: str) -> bool:
    """Say whether ``text`` is an origin, but for its capitals and a slash at the end."""
    return bool(re.fullmatch(ORIGIN, text))


class GuardSettings(msgspec.Struct, frozen=True):
    """``hosts`` and ``origins``: beyond our own. ``anonymous``: whether somebody without a credential may
    come in; None for as long as there is no key."""

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    anonymous: bool | None = None


class Identifies(Protocol):
    """What the guard needs of whoever knows credentials."""

    @property
    def any(self) -> bool:
        """Whether somebody could come in with something."""
        ...

    async def fresh(self, credential: str = "") -> None:
        """Hear of keys that were made elsewhere, if that is due; ``credential`` may be the first one."""
        ...

    async def identify(self, credential: str, whence: Whence) -> Principal:
        """Return who comes with ``credential``. Raises `PenstockError`."""
        ...


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_near(connection: HTTPConnection) -> bool:
    """Say whether somebody comes from this machine, and no proxy says that it passes on another's request."""
    headers = connection.headers
    if connection.client is None or "forwarded" in headers or "x-forwarded-for" in headers:
        return False
    return is_loopback(connection.client.host)


def normal_origin(origin: str) -> str:
    """Return ``origin`` as browsers send it, however an operator wrote it."""
    return origin.rstrip("/").lower()


class Guard:
    """Admits requests; immutable."""

    def __init__(self, settings: GuardSettings, identities: Identifies | None = None) -> None:
        """Without ``identities`` there are no keys."""
        self._identities = identities
        self._anonymous = settings.anonymous
        self._hosts = LOCAL_NAMES | {host.lower() for host in settings.hosts}
        self._origins = compile_origins(settings.origins)

    @property
    def wants_key(self) -> bool:
        """Say whether nobody comes in without a credential."""
        if self._anonymous is None:
            return self._identities is not None and self._identities.any
        return not self._anonymous

    @property
    def private(self) -> bool:
        """Say whether there is no key and nobody wants strangers: then only this machine's user comes in."""
        return self._anonymous is None and not self.wants_key

    async def identify(self, headers: Mapping[str, str], address: str = "") -> Found:
        """Return whose the credential in ``headers`` is. Never raises; see `admit`."""
        if self._identities is None:
            return None
        credential = presented(headers)
        await self._identities.fresh(credential)  # the first key closes the door
        if not credential or not (self._identities.any or self.wants_key):
            return None
        return await self.authenticate(credential, headers, address)

    async def authenticate(self, credential: str, headers: Mapping[str, str], address: str = "") -> Found:
        """As `identify`, for a credential that came in another way, such as a WebSocket's first message."""
        if self._identities is None:
            return None
        if len(credential) > MAX_CREDENTIAL:
            return ClientError("This is no API key.", code="invalid_api_key", status=401)
        try:
            return await self._identities.identify(credential, Whence(address, _origin_of(headers)))
        except PenstockError as error:
            return error

    def admit(
        self, headers: Mapping[str, str], found: Found = None, *, spends: bool, address: str = ""
    ) -> Principal:
        """Return who is calling; ``found`` is from `identify`. ``spends``: the request may start or stop a
        generation.

        Raises `ClientError`: 401 `missing_api_key` or what `found` says, 403 `host_not_allowed`,
        `origin_not_allowed`, `cross_site_request` or `unasked_request`.
        """
        if isinstance(found, PenstockError):
            raise found
        if found is not None:
            return found
        if self.wants_key:
            message = "This gateway wants an API key: send it as 'Authorization: Bearer <key>'."
            raise ClientError(message, code="missing_api_key", status=401)
        self._check_host(headers.get("host", ""))
        if spends:
            self._check_asked(headers)
        if spends or not _opens_page(headers):
            self._check_origin(headers)
        return msgspec.structs.replace(ANONYMOUS, address=address) if address else ANONYMOUS

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Refuse pages of other sites, whoever they say they are: for what CORS does not hold back.

        Raises `ClientError` 403 `origin_not_allowed` or `cross_site_request`.
        """
        self._check_origin(headers)

    def admit_identified(
        self, principal: Principal | None, headers: Mapping[str, str], *, spends: bool
    ) -> Principal:
        """As `admit`, where the application around us says who is calling, maybe by a cookie.

        Raises `ClientError`: 401 `not_identified`, 403 `origin_not_allowed`, `cross_site_request` or
        `unasked_request`.
        """
        if principal is None:
            message = "This application does not know who is calling: sign in first."
            raise ClientError(message, code="not_identified", status=401)
        if spends:
            self._check_asked(headers)
        if spends or not _opens_page(headers):
            self._check_origin(headers)
        return principal

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Without keys, refuse names that are not ours, also to the bearer of a link."""
        if not self.wants_key:
            self._check_host(headers.get("host", ""))

    def _check_host(self, host: str) -> None:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name.lower() not in self._hosts:
            raise ClientError(
                f"This gateway has no key configured, so it answers to its local names only, not to "
                f"'{name[:100]}'. Configure a key, or add the name to allowed_hosts.",
                code="host_not_allowed",
                status=403,
            )

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin is not None:
            if not self._is_ours(origin, headers):
                raise ClientError(
                    f"Pages of '{origin[:100]}' may not use this gateway. Add it to allowed_origins "
                    f"(--allow-origin) if they should.",
                    code="origin_not_allowed",
                    status=403,
                )
            return
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise _cross_site()

    def _check_asked(self, headers: Mapping[str, str]) -> None:
        """Refuse what nobody here may have asked for, where neither origin nor site tells."""
        if "prefetch" in headers.get("sec-purpose", "") or headers.get("purpose") == "prefetch":
            message = "This was asked for ahead of its user, who may never want it; it starts nothing."
            raise ClientError(message, code="unasked_request", status=403)
        told = "origin" in headers or "sec-fetch-site" in headers
        if not told and headers.get("user-agent", "").startswith("Mozilla/"):
            # An old browser, or one that reached us by plain HTTP under another name than localhost. An
            # image on a page elsewhere looks the same, but cannot show a Referer of ours.
            scheme, _, rest = headers.get("referer", "").partition("://")
            if not self._is_ours(f"{scheme}://{rest.partition('/')[0]}", headers):
                raise _cross_site()

    def _is_ours(self, origin: str, headers: Mapping[str, str]) -> bool:
        if self._origins.fullmatch(normal_origin(origin)):
            return True
        host = headers.get("host", "").lower()
        return bool(host) and origin.lower().partition("://")[2] == host


def _opens_page(headers: Mapping[str, str]) -> bool:
    """Say whether a browser shows the answer as a page of its own: no other page can read it there."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _cross_site() -> ClientError:
    message = "Another site's page may have made this request; it may not use this gateway."
    return ClientError(message, code="cross_site_request", status=403)


def presented(headers: Mapping[str, str]) -> str:
    """Return the credential that a request carries, wherever its dialect puts it; empty without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for name in KEY_HEADERS:
        if key := headers.get(name, ""):
            return key
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        for prefix in SUBPROTOCOLS:
            if protocol.strip().startswith(prefix):
                return protocol.strip().removeprefix(prefix)
    return ""


def _origin_of(headers: Mapping[str, str]) -> str:
    """Return the origin of the page that sent a request; browsers leave it out of their own pages' reads."""
    origin = headers.get("origin", "")
    if not origin and headers.get("sec-fetch-site") == "same-origin":
        scheme, _, rest = headers.get("referer", "").partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"
    return origin
