"""Newline-delimited JSON: bytes to lines and back.

Owns the framing and its limit; what a line says is its reader's business, no JSON is parsed here.
Strategy: one C split per read, and the line that has not ended waits in one growing buffer, so that a
line of any length costs linear time in any pieces. Only LF, or CR and LF, ends a line; neither a UTF-8
sequence nor U+2028 contains one.

Source: https://github.com/ndjson/ndjson-spec, version 1.0.
"""

from typing import Final

from penstock.types.errors import WireError

MAX_LINE: Final = 8 * 1024 * 1024
"""Bytes of one line without its LF; as much as an SSE frame may have, since it carries the same."""

_BLANK: Final = b" \t\r"
_LF: Final = 10
_CR: Final = 13


class NdjsonDecoder:
    """Turns the body of one ``application/x-ndjson`` response into lines; a new body takes a new one.

    Lines end with LF or CRLF and are returned without it; blank ones are skipped. They depend on the
    bytes alone, never on how these were cut. ``max_line`` is in bytes. Over it, the lines before are
    still returned; then this call, or the next if there were any, raises `WireError`
    ``upstream_frame_too_large``, and so does every later one.
    """

    __slots__ = ("_failed", "_max_line", "_partial")

    def __init__(self, *, max_line: int = MAX_LINE) -> None:
        """Stand at the start of a body."""
        self._max_line = max_line
        self._failed = False
        self._partial = bytearray()  # the line that has not ended

    def __repr__(self) -> str:
        """Show where the decoder stands, in sizes: never what a provider sent."""
        return f"NdjsonDecoder(held={len(self._partial)}, failed={self._failed})"

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes. Raises `WireError` over the limit."""
        if self._failed:
            raise self._too_large()
        raw = data.split(b"\n")
        rest = raw.pop()
        partial = self._partial
        if raw and partial:
            partial += raw[0]
            raw[0] = bytes(partial)
            partial.clear()
        lines: list[bytes] = []
        for line in raw:
            if len(line) > self._max_line:
                self._failed = True
                break
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.strip(_BLANK):
                lines.append(line)
        else:
            partial += rest
            if len(partial) > self._max_line:
                self._failed = True
                partial.clear()
        if self._failed and not lines:
            raise self._too_large()
        return lines

    def flush(self) -> list[bytes]:
        """The body ended: return the last line if it had no line end. Raises `WireError` as `feed` does.

        Such a line may be cut short; that shows when it is parsed, since no proper prefix of a JSON
        object is JSON.
        """
        if self._failed:
            raise self._too_large()
        line = bytes(self._partial).removesuffix(b"\r")
        self._partial.clear()
        return [line] if line.strip(_BLANK) else []

    def _too_large(self) -> WireError:
        return WireError("The provider sent a line that is too large.", code="upstream_frame_too_large")


def encode(data: bytes) -> bytes:
    """Return the JSON text ``data`` as one line. Raises `ValueError` if it holds a raw CR or LF."""
    if _LF in data or _CR in data:
        raise ValueError("a line cannot hold CR or LF")
    return data + b"\n"
