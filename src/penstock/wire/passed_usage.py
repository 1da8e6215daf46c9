"""What an answer that was passed on says it used: read from its bytes on their way, without holding them.

Embeddings, pictures and speech are no generations: nobody decodes them, and they may be many megabytes.
Their `usage` stands beside the content, before it or after, or in the last event of a stream. So the first
and the last bytes of an answer are kept, the whole of a small one, and only a `usage` at the top of the
object counts: what is deeper, or in a text, may be a client's own words.

Forms: OpenAI's `{prompt_tokens, completion_tokens, total_tokens}` of embeddings, its `{input_tokens,
output_tokens, …}` of images and audio, `{total_tokens}` of rerankers; `{type: "duration", seconds}` has no
tokens and says nothing here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from penstock.types.estimates import tokens_of
from penstock.types.events import UsageReported

MAX_HEAD: Final = 16 << 10
MAX_TAIL: Final = 64 << 10
"""Bytes of the beginning and of the end of an answer that are kept."""

MAX_TOKENS: Final = 1 << 40
"""More than this nobody has used."""

_USAGE: Final = re.compile(rb'(?<!\\)"usage"\s*:\s*\{')
_DATA: Final = re.compile(rb"^data:", re.MULTILINE)
MAX_LOOKED_AT: Final = 16
"""Places in a head or a tail that may be the `usage`."""

_ASKED: Final = ("input", "prompt", "instructions", "query", "documents", "texts")
"""Fields of a request that a provider counts the tokens of."""


class _Object(msgspec.Struct):
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Object).decode


class UsageReader:
    """Takes an answer's bytes, and says at its end what it used."""

    __slots__ = ("_events", "_head", "_size", "_tail")

    def __init__(self, content_type: str) -> None:
        """Of what is neither JSON nor events nothing is kept."""
        kind = content_type.partition(";")[0].strip().lower()
        self._events = kind == "text/event-stream"
        reads = self._events or kind == "application/json" or kind.endswith("+json")
        self._head: bytearray | None = bytearray() if reads else None
        self._tail = bytearray()
        self._size = 0

    def __repr__(self) -> str:
        """Say how much is kept of how much."""
        kept = len(self._tail) + len(self._head or b"")
        return f"<UsageReader {kept} of {self._size} bytes>"

    def feed(self, data: bytes) -> None:
        """Look at the next piece."""
        head = self._head
        if head is None:
            return
        self._size += len(data)
        if (left := MAX_HEAD - len(head)) > 0:
            head += data[:left]
        tail = self._tail
        tail += data[-MAX_TAIL:]
        if len(tail) > 2 * MAX_TAIL:  # not at each piece
            del tail[:-MAX_TAIL]

    def usage(self) -> UsageReported | None:
        """Return what was said so far; None where nothing was that is counted in tokens."""
        if not self._head:
            return None
        if self._events:
            return self._last_event()
        if self._size == len(self._tail):
            return _of_object(bytes(self._tail))
        return _at_the_end(bytes(self._tail)) or _at_the_beginning(bytes(self._head))

    def _last_event(self) -> UsageReported | None:
        """Return what the last event with a usage says; the first that is kept may lack its beginning."""
        tail = bytes(self._tail)
        whole = self._size == len(tail)
        for found in reversed([*_DATA.finditer(tail)][-MAX_LOOKED_AT:]):
            line = tail[found.end() :].partition(b"\n")[0]
            if (usage := _of_object(line)) is not None:
                return usage
        return None if whole else _at_the_end(tail.partition(b"\n")[0])


def _of_object(data: bytes) -> UsageReported | None:
    try:
        said = _decode(data).usage
        return None if isinstance(said, msgspec.UnsetType) else usage_of(msgspec.json.decode(said))
    except (ValueError, RecursionError):
        return None


def _at_the_end(tail: bytes) -> UsageReported | None:
    """Read the end of an object whose beginning is not there; what stands at its top has one brace to go."""
    for found in reversed([*_USAGE.finditer(tail)][-MAX_LOOKED_AT:]):
        if (usage := _of_object(b"{" + tail[found.start() :])) is not None:
            return usage
    return None


def _at_the_beginning(head: bytes) -> UsageReported | None:
    """Read the beginning of an object whose end is not there."""
    for found in [*_USAGE.finditer(head)][:MAX_LOOKED_AT]:
        end = head.find(b"}", found.end())
        for _ in range(4):  # it may have details in it
            if end < 0:
                break
            if (usage := _of_object(head[: end + 1] + b"}")) is not None:
                return usage
            end = head.find(b"}", end + 1)
    return None


def usage_of(said: object) -> UsageReported | None:
    """Return what a `usage` says, in any of the forms; None for one without tokens."""
    if not isinstance(said, Mapping):
        return None
    given = dict(_counts(said))
    if not given:
        return None
    read = max(given.get("input_tokens", 0), given.get("prompt_tokens", 0))
    written = max(given.get("output_tokens", 0), given.get("completion_tokens", 0))
    read = max(read, given.get("total_tokens", 0) - written)
    cached = 0
    for name in ("prompt_tokens_details", "input_tokens_details"):
        if isinstance(details := said.get(name), Mapping):
            cached = max(cached, dict(_counts(details)).get("cached_tokens", 0))
    return UsageReported(read, written, cached_tokens=min(cached, read))


def _counts(said: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in said.items():
        if name.endswith("_tokens") and type(value) is int and 0 <= value <= MAX_TOKENS:
            yield name, value


def tokens_asked(body: Mapping[str, Any]) -> int:
    """Return about how many tokens a request has: what it wants embedded, ranked, spoken or drawn."""
    return sum(_tokens_in(body[name], depth=3) for name in _ASKED if name in body)


def _tokens_in(value: object, *, depth: int) -> int:
    if isinstance(value, str):
        return tokens_of(len(value.encode(errors="replace")))
    if isinstance(value, list) and depth:
        if value and type(value[0]) is int:  # they are tokens
            return len(value)
        return sum(_tokens_in(one, depth=depth - 1) for one in value)
    if isinstance(value, Mapping) and depth:
        return sum(_tokens_in(one, depth=depth - 1) for one in value.values())
    return 0
