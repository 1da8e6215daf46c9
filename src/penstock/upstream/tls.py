"""TLS between a socket and HTTP, over `ssl.MemoryBIO`: a codec, not a transport.

Sans-I/O: ciphertext in, plaintext out, and back; whoever owns the socket moves the bytes. So one push
of the socket is still one step up to the log, and layers stack (TLS to a proxy, TLS inside it).

Memory is why this exists. OpenSSL's memory buffers grow to the largest write and never shrink, so
they are fed in pieces of 4 KiB; plaintext is read into a buffer that all connections share. An idle
connection then costs about half of what it does with the event loop's own TLS.

Origins, requests and timeouts do not enter here.
"""

import contextlib
import ssl
from collections.abc import Callable
from typing import Final, cast

from penstock.types.errors import UpstreamError

PIECE_BYTES: Final = 4096
"""What is handed to OpenSSL at a time, in either direction; it bounds what a BIO retains."""

MAX_RECORD_BYTES: Final = 16_384 + 256
"""A TLS record's plaintext limit, with room for what TLS 1.2 ciphers may add (RFC 8446 §5.2)."""

_REASONS: Final = {
    10: "its certificate has expired",
    9: "its certificate is not valid yet",
    18: "its certificate is self-signed",
    19: "a self-signed certificate stands at the end of its chain",
    20: "its certificate is from an authority that is not trusted here",
    21: "its certificate is from an authority that is not trusted here",
    62: "its certificate is for another host",
    64: "its certificate is for another address",
}
"""X509_V_ERR_* of <openssl/x509_vfy.h>, as far as somebody can act on them."""


def tls_failed(peer: str, reason: str) -> UpstreamError:
    """No secure connection: what ``peer`` showed, or said, is not acceptable."""
    return UpstreamError(
        f"No secure connection to {peer}: {reason}.", code="upstream_tls", status=502, retryable=False
    )


def create_context(*, ca_file: str = "", verify: bool = True) -> ssl.SSLContext:
    """Return the context for connections to providers.

    The system's authorities are trusted (or those of ``SSL_CERT_FILE``), and those in ``ca_file``
    besides. Reads files: call it when the process starts. Raises `OSError` or `ssl.SSLError` when
    ``ca_file`` cannot be read.
    """
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


class TlsLayer:
    """One end of one TLS connection, the client's.

    ``closed`` turns true when the peer said that it will send nothing more (close_notify); an end of
    the socket without it is a truncation (RFC 8446 §6.1).
    """

    __slots__ = ("_below", "_incoming", "_outgoing", "_peer", "_plain", "_read", "_ssl", "_unread", "closed")

    def __init__(
        self,
        context: ssl.SSLContext,
        host: str,
        peer: str,
        plain: memoryview,
        *,
        session: ssl.SSLSession | None = None,
        below: "TlsLayer | None" = None,
    ) -> None:
        """``host`` is verified and sent as SNI; ``peer`` names the other end in errors.

        ``plain`` is where plaintext is put: it may be shared, and must take one read of the socket
        and two records more. ``below`` is the layer that carries this one.
        """
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host, session=session)
        # typeshed knows only the form of `read` that returns bytes.
        self._read = cast("Callable[[int, memoryview], int]", self._ssl.read)
        self._unread = self._ssl.pending
        self._plain = plain
        self._peer = peer
        self.closed = False

    def __repr__(self) -> str:
        """Show the peer and what was agreed on."""
        return f"<TlsLayer {self._peer} {self._ssl.version()} resumed={self._ssl.session_reused}>"

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection to the same peer can resume from. Takes some 50 µs: copies it."""
        session = self._ssl.session
        return session if session is not None and session.has_ticket else None

    @property
    def resumed(self) -> bool:
        """Say whether the handshake resumed an earlier session."""
        return bool(self._ssl.session_reused)

    def handshake(self, data: bytes = b"") -> tuple[bool, bytes]:
        """Take what came, if anything; return whether the handshake is done, and what to send.

        Raises `UpstreamError` (``upstream_tls``); what the alert to the peer would be is not sent.
        """
        if data:
            self._incoming.write(data if self._below is None else self._below.decrypt(data))
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        except ssl.SSLCertVerificationError as exc:
            reason = _REASONS.get(exc.verify_code, "its certificate could not be verified")
            raise tls_failed(self._peer, reason) from exc
        except ssl.SSLError as exc:
            raise tls_failed(self._peer, "the TLS handshake failed") from exc
        else:
            done = True
        return done, self.output()

    def decrypt(self, data: memoryview | bytes) -> memoryview:
        """Return the plaintext that ``data`` completes; it is valid until the next call of any layer
        that shares the buffer.

        Raises `UpstreamError` (``upstream_tls``) when the records are not authentic.
        """
        if self._below is not None:
            data = self._below.decrypt(data)
            self.closed |= self._below.closed
        if len(data) <= PIECE_BYTES:
            return self._plain[: self._decrypt_piece(data, self._plain)]
        filled = 0
        for start in range(0, len(data), PIECE_BYTES):
            filled += self._decrypt_piece(data[start : start + PIECE_BYTES], self._plain[filled:])
        return self._plain[:filled]

    def _decrypt_piece(self, data: memoryview | bytes, plain: memoryview) -> int:
        incoming = self._incoming
        incoming.write(data)
        filled = 0
        try:
            while True:
                count = self._read(len(plain), plain)
                if not count:
                    self.closed = True
                    break
                filled += count
                # Asking once more would raise SSLWantReadError, which costs more than the read did.
                if not incoming.pending and not self._unread():
                    break
                plain = plain[count:]
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            raise tls_failed(self._peer, "what it sent is not valid TLS") from exc
        return filled

    def encrypt(self, data: memoryview | bytes) -> bytes:
        """Return ``data`` as records for the socket."""
        records = []
        for start in range(0, len(data), PIECE_BYTES):
            self._ssl.write(data[start : start + PIECE_BYTES])
            records.append(self._outgoing.read())
        sealed = b"".join(records)
        return sealed if self._below is None else self._below.encrypt(sealed)

    def output(self) -> bytes:
        """Return what TLS itself wants sent (handshake, key updates); mostly nothing."""
        data = self._outgoing.read() if self._outgoing.pending else b""
        below = self._below
        if below is None:
            return data
        return (below.encrypt(data) if data else b"") + below.output()

    def close(self) -> bytes:
        """Return the close_notify to send before the socket is closed."""
        with contextlib.suppress(ssl.SSLError):  # the peer's own close_notify is not waited for
            self._ssl.unwrap()
        return self.output()
