"""Undoes the content codings that a server may apply unasked: gzip and deflate (RFC 9110 §8.4.1).

Sans-I/O and bounded: one `feed` returns at most ``step_bytes`` however well the input was packed, and
keeps what is left, which is never more than one read's worth of compressed bytes. Whoever feeds stops
reading while something is `pending`, so a compression bomb costs its receiver no memory.

No socket and no loop enter here.
"""

import zlib
from typing import Final

from penstock.types.errors import WireError

CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})

_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f\x8b"
_DEFLATED: Final = 8  # the compression method in a zlib header's low four bits (RFC 1950 §2.2)


class Inflater:
    """Decodes one body."""

    __slots__ = ("_decoder", "_gzip", "_rest", "_step_bytes", "pending")

    def __init__(self, coding: str, step_bytes: int) -> None:
        """``coding`` is one of `CODINGS`; ``step_bytes`` bounds what one `feed` returns."""
        self._gzip = coding != "deflate"
        self._decoder: zlib._Decompress | None = None
        self._rest = b""
        self._step_bytes = step_bytes
        self.pending = False

    @property
    def whole(self) -> bool:
        """Say whether the body is complete; an empty one is."""
        return not self.pending and (self._decoder is None or self._decoder.eof)

    def feed(self, data: bytes) -> bytes:
        """Return what ``data`` decodes to, up to the bound; call with ``b""`` while `pending`.

        Raises `WireError` for data that is not in the coding.
        """
        if self._rest:
            data = self._rest + data
        decoder = self._decoder
        if decoder is None:
            if not data:
                return b""
            decoder = self._decoder = self._start(data)
        if decoder.eof:
            data = self._next_member(data)
            if not data:
                return b""
            decoder = self._decoder = zlib.decompressobj(_GZIP)
        try:
            out = decoder.decompress(data, self._step_bytes)
        except zlib.error as exc:
            raise WireError("The provider's compressed answer cannot be unpacked.") from exc
        self._rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        # A full step may leave output inside zlib even when all input is consumed.
        self.pending = bool(self._rest) or (len(out) >= self._step_bytes and not decoder.eof)
        return out

    def _start(self, data: bytes) -> "zlib._Decompress":
        if self._gzip:
            return zlib.decompressobj(_GZIP)
        # "deflate" means the zlib format, but some servers send the bare one.
        bare = data[0] & 0x0F != _DEFLATED
        return zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS)

    def _next_member(self, data: bytes) -> bytes:
        """Return ``data`` if another gzip member begins with it, else drop it (padding)."""
        if self._gzip and data[:2] == _GZIP_MAGIC[: len(data)]:
            return data
        self._rest = b""
        self.pending = False
        return b""
