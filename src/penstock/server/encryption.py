"""Our own end of TLS: certificates from files, taken anew when the files change.

A renewed certificate is for new connections; those that are open keep theirs. Files that do not go together
(a renewal writes one after the other) leave everything as it is, and are looked at again.

Who speaks plain HTTP to us is told so in plain HTTP: else a wrong scheme looks like a dead server.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog

log = structlog.get_logger(__name__)

INTERVAL: Final = 5.0
"""Seconds between two looks at the files."""

HANDSHAKE_TIMEOUT: Final = 10.0

_SENTENCE: Final = b"This port speaks HTTPS: ask it by https:// in place of http://."
PLAIN: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)
"""What somebody is told who speaks HTTP without encryption."""


class TlsSettings(msgspec.Struct, frozen=True):
    """Paths of PEM files. ``client_ca``: clients need a certificate that one of these has signed."""

    certificate: str
    key: str
    minimum: Literal["1.2", "1.3"] = "1.2"
    client_ca: str = ""


class BadTls(ValueError):
    """Files that cannot be used: which setting, and what is wrong."""

    def __init__(self, part: str, what: str) -> None:
        """``part`` is the setting's name."""
        super().__init__(f"{part}: {what}")
        self.part = part
        self.what = what


def load(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context. Reads files. Raises `BadTls`."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[settings.minimum]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for part in ("certificate", "key", "client_ca"):
        path = getattr(settings, part)
        if path or part != "client_ca":
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise BadTls(part, f"{path} cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
    except _Encrypted:
        raise BadTls("key", f"{settings.key} has a password: store it without one") from None
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise BadTls("key", f"{settings.key} is not the key of {settings.certificate}") from None
        raise BadTls("certificate", "certificate and key have to be PEM files") from None
    if settings.client_ca:
        try:
            context.load_verify_locations(settings.client_ca)
        except ssl.SSLError:
            raise BadTls("client_ca", f"{settings.client_ca} is no PEM file with certificates") from None
        context.verify_mode = ssl.CERT_REQUIRED
        # Who resumes a session is not asked for a certificate again, which may be good no more.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


class _Greeting(ssl.SSLObject):
    """Our end of one connection. ``ways``: what came from the peer, and what goes to it."""

    ways: tuple[ssl.MemoryBIO, ssl.MemoryBIO]
    told = False

    def do_handshake(self) -> None:
        """As OpenSSL does it; one that begins with a request in plain HTTP is answered and gets nowhere.

        The loop believes that the handshake goes on: so it sends the answer, and closes when the peer does
        or the time for handshakes is over.
        """
        if not self.told:
            try:
                super().do_handshake()
                return
            except ssl.SSLError as error:
                if error.reason != "HTTP_REQUEST":
                    raise
            self.told = True
            log.info("request_refused", status=400, why=_SENTENCE.decode())
            self.ways[1].write(PLAIN)
        self.ways[0].read()
        raise ssl.SSLWantReadError


class _Context(ssl.SSLContext):
    """Makes these."""

    sslobject_class = _Greeting

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any
    ) -> ssl.SSLObject:
        """Return our end of a connection."""
        made = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        if isinstance(made, _Greeting):
            made.ways = incoming, outgoing
        return made


class _Encrypted(Exception):
    """The key has a password, for which OpenSSL would ask on a terminal."""


def _no_password() -> str:
    raise _Encrypted


class Certificate:
    """The context of a server's sockets, kept up to date."""

    def __init__(self, settings: TlsSettings) -> None:
        """Reads the files: make it before the loop runs. Raises `BadTls`."""
        self._settings = settings
        self._seen = self._look()
        self.context = self._current = load(settings)
        # Of a context that is in use an authority cannot be taken away: each handshake gets the newest.
        self.context.sni_callback = self._greet

    def _greet(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    async def watch(self) -> None:
        """Look after the files until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await asyncio.to_thread(self.reload)

    def reload(self) -> bool:
        """Take the files anew if they were changed; say whether they were taken."""
        seen = self._look()
        if seen == self._seen:
            return False
        try:
            self._current = load(self._settings)
        except BadTls as bad:
            log.error("certificate_not_reloaded", setting=bad.part, reason=bad.what)
            return False
        self._seen = seen
        log.info("certificate_reloaded")
        return True

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in (self._settings.certificate, self._settings.key, self._settings.client_ca):
            try:
                stat = Path(path).stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)
