"""One JSON array, piece by piece: bytes to its elements, each as soon as it is there.

Owns the framing and its limit; what an element says is its reader's business, and so is whether it is JSON.
Strategy: brackets are counted and strings passed over by one regular expression, so that a body costs linear
time in any pieces. An element that is an object or an array ends with its bracket, not with the comma after
it, which some servers send with the next one.

Source: RFC 8259.
"""

import re
from typing import Final

from penstock.types.errors import WireError

MAX_ELEMENT: Final = 8 * 1024 * 1024
"""Bytes of one element; as much as an SSE frame may have, since it carries the same."""

_BLANK: Final = b" \t\r\n"
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},"]', re.DOTALL)
"""A whole string, or a mark; a lone quote begins a string that is not whole yet."""

_IN_STRING: Final = re.compile(rb'["\\]')


class JsonArrayDecoder:
    """Turns the body that is one JSON array into its elements; a new body takes a new one.

    Elements depend on the bytes alone, never on how these were cut; white space around them is left out. What
    stands before the array, or behind it, is passed over. ``closed``: its end has come. ``max_element`` is in
    bytes. Over it, the elements before are still returned; then this call, or the next if there were any,
    raises `WireError` ``upstream_frame_too_large``, and so does every later one.
    """

    __slots__ = ("_depth", "_escaped", "_failed", "_in_string", "_max_element", "_partial", "closed")

    def __init__(self, *, max_element: int = MAX_ELEMENT) -> None:
        """Stand at the start of a body."""
        self.closed = False
        self._max_element = max_element
        self._failed = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._partial = bytearray()  # the element that has not ended

    def __repr__(self) -> str:
        """Show where the decoder stands, in sizes: never what a provider sent."""
        return f"JsonArrayDecoder(held={len(self._partial)}, closed={self.closed}, failed={self._failed})"

    def feed(self, data: bytes) -> list[bytes]:
        """Return the elements that ``data`` completes. Raises `WireError` over the limit."""
        if self._failed:
            raise self._too_large()
        if self.closed:
            return []
        elements: list[bytes] = []
        start, at = 0, self._skip_string(data, 0)
        fits = True
        while fits and at < len(data) and (found := _TOKEN.search(data, at)) is not None:
            at = found.end()
            match data[found.start()]:
                case 0x22:  # "
                    if at - found.start() == 1:
                        self._in_string = True
                        at = self._skip_string(data, at)
                case 0x5B if not self._depth:  # [
                    self._depth = 1
                    start = at
                case 0x5B | 0x7B if self._depth:  # [ {
                    self._depth += 1
                case 0x2C if self._depth == 1:  # ,
                    fits = self._take(data[start : at - 1], elements)
                    start = at
                case 0x5D | 0x7D if self._depth:  # ] }
                    self._depth -= 1
                    if self._depth == 1:
                        fits = self._take(data[start:at], elements)
                        start = at
                    elif self._depth == 0:
                        fits = self._take(data[start : at - 1], elements)
                        self.closed = True
                        break
        if fits and self._depth:
            self._partial += data[start:]
            fits = len(self._partial) <= self._max_element
        if not fits:
            self._failed = True
            self._partial.clear()
            if not elements:
                raise self._too_large()
        return elements

    def flush(self) -> list[bytes]:
        """The body ended: an element that has no end is dropped. Raises `WireError` as `feed` does."""
        if self._failed:
            raise self._too_large()
        self._partial.clear()
        return []

    def _skip_string(self, data: bytes, at: int) -> int:
        """Return where the string ends that ``data`` is in the middle of at ``at``."""
        while self._in_string and at < len(data):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = _IN_STRING.search(data, at)
            if found is None:
                return len(data)
            at = found.end()
            if data[at - 1] == 0x22:
                self._in_string = False
            else:
                self._escaped = True
        return at

    def _take(self, rest: bytes, elements: list[bytes]) -> bool:
        """Add the element that ends with ``rest``, if there is one; say whether it was within the limit."""
        element = (bytes(self._partial) + rest if self._partial else rest).strip(_BLANK)
        self._partial.clear()
        if len(element) > self._max_element:
            return False
        if element:
            elements.append(element)
        return True

    def _too_large(self) -> WireError:
        return WireError("The provider sent an element that is too large.", code="upstream_frame_too_large")
