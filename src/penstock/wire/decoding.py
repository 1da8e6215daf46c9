"""What the dialects' decoders share: everything about a body but the meaning of its chunks.

Owns the choice of the framing, the order of events and errors, chunks that are no JSON, and bodies
that are no stream at all: some providers answer a request for server-sent events with status 200 and
one JSON document. A dialect adds `_chunk` (one frame), `_document` (such a body) and `_end` (what is
still held, and whether the answer was whole). No provider's field is named here.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from penstock.types.errors import UpstreamError, WireError, upstream_truncated
from penstock.types.events import AnyEvent, UsageReported
from penstock.wire.json_array import JsonArrayDecoder
from penstock.wire.ndjson import NdjsonDecoder
from penstock.wire.provider_errors import Problem, find_problem, upstream_error
from penstock.wire.sse import SseDecoder

MAX_DOCUMENT: Final = 16 * 1024 * 1024
"""Bytes of a body that is one JSON document instead of a stream."""

Events: TypeAlias = list[AnyEvent]


def read_json(data: bytes) -> Any:
    r"""Return the value of a JSON text. Raises `msgspec.DecodeError` for anything else.

    Half a surrogate pair (``\ud83d`` alone: servers written in JavaScript cut emoji in two) becomes
    U+FFFD; it could be neither stored nor sent.
    """
    try:
        return msgspec.json.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError("not UTF-8") from error
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error
    except msgspec.DecodeError:
        if b"\\u" not in data:
            raise
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
        return msgspec.json.decode(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError("not JSON") from error


def as_text(value: Any) -> str:
    """Return ``value`` if it is a text, else ``""``."""
    return value if isinstance(value, str) else ""


def as_count(value: Any) -> int:
    """Return ``value`` if it is a positive integer, else 0."""
    return value if type(value) is int and value > 0 else 0


def as_objects(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of a list; none of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def token_logprobs(logprobs: Any) -> list[dict[str, Any]]:
    """Return what is said of each token of a text (`TextDelta.logprobs`), and of its alternatives, as far as
    it is in the form that OpenAI gave it: providers differ."""
    found = as_objects(logprobs.get("content")) if isinstance(logprobs, dict) else []
    return [
        {**token, "top_logprobs": [one for one in as_objects(top) if isinstance(one.get("token"), str)]}
        if (top := token.get("top_logprobs"))
        else token
        for token in found
        if isinstance(token.get("token"), str)
    ]


class Frames(Protocol):
    """A framing: cuts a body into frames, each a name (``b""`` for none), its data, and maybe more."""

    def feed(self, data: bytes) -> Sequence[tuple[bytes, ...]]:
        """Return the frames that ``data`` completes. Raises `WireError` over a limit."""
        ...

    def flush(self, *, lenient: bool) -> Sequence[tuple[bytes, ...]]:
        """The body ended: return the last frame, if it may count (see `SseDecoder.flush`)."""
        ...


class NdjsonFrames:
    """Newline-delimited JSON as a framing: each line is a frame without a name."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        """Stand at the start of a body."""
        self._lines = NdjsonDecoder()

    def __repr__(self) -> str:
        """Show where the lines stand."""
        return f"NdjsonFrames({self._lines})"

    def feed(self, data: bytes) -> list[tuple[bytes, ...]]:
        """Return the lines that ``data`` completes. Raises `WireError` over the limit."""
        return [(b"", line) for line in self._lines.feed(data)]

    def flush(self, *, lenient: bool) -> list[tuple[bytes, ...]]:
        """Return the line that has no end, if ``lenient``. Raises `WireError` as `feed` does."""
        return [(b"", line) for line in self._lines.flush() if lenient]


class ArrayFrames:
    """One JSON array as a framing: each element is a frame without a name."""

    __slots__ = ("_elements",)

    def __init__(self) -> None:
        """Stand at the start of a body."""
        self._elements = JsonArrayDecoder()

    def __repr__(self) -> str:
        """Show where the elements stand."""
        return f"ArrayFrames({self._elements})"

    @property
    def closed(self) -> bool:
        """Whether the array's end has come."""
        return self._elements.closed

    def feed(self, data: bytes) -> list[tuple[bytes, ...]]:
        """Return the elements that ``data`` completes. Raises `WireError` over the limit."""
        return [(b"", element) for element in self._elements.feed(data)]

    def flush(self, *, lenient: bool) -> list[tuple[bytes, ...]]:
        """Nothing: an element without an end is dropped. Raises `WireError` as `feed` does."""
        return [(b"", element) for element in self._elements.flush()]


class BodyDecoder(ABC):
    """One response body on its way to events.

    When events precede an error in one ``feed``, they are returned, `finished` becomes true and the
    next ``feed`` or ``flush`` raises the error. `skipped` counts chunks that were no JSON: they are
    passed over, and only a stream that then lacks its end is called malformed. `usage` is the last
    report seen, given out or not: for a run that ends before the body does.
    """

    __slots__ = ("_document_bytes", "_failure", "_frames", "_sniffing", "finished", "skipped", "usage")

    def __init__(self, frames: Frames | None = None) -> None:
        """Stand at the start of a body of server-sent events, or of ``frames``.

        Only of the former can a JSON document in their place be told by its first byte.
        """
        self.finished = False
        self.skipped = 0
        self.usage: UsageReported | None = None
        self._frames: Frames = frames or SseDecoder()
        self._failure: UpstreamError | None = None
        self._document_bytes: bytearray | None = None
        self._sniffing = frames is None

    def __repr__(self) -> str:
        """Show how far the body has come."""
        return f"{type(self).__name__}(finished={self.finished}, skipped={self.skipped})"

    def feed(self, data: bytes) -> Sequence[AnyEvent]:
        """Return the events that ``data`` completes. Raises `UpstreamError`, `WireError` among them."""
        if self.finished:
            if self._failure is not None:
                raise self._failure
            return ()
        if self._sniffing and self._sniff(data):
            return ()
        events: Events = []
        for frame in self._frames.feed(data):
            if self._take(frame[0], frame[1], events):
                if self._failure is not None and not events:
                    raise self._failure
                break
        return events

    def flush(self) -> Sequence[AnyEvent]:
        """The body ended: return what was held back. Raises `UpstreamError` when it was not whole."""
        events: Events = []
        if self._document_bytes is not None:
            self._read_document(bytes(self._document_bytes), events)
        elif not self.finished:
            seen = self.skipped
            for frame in self._frames.flush(lenient=True):
                self._take(frame[0], frame[1], events)
            self.skipped = seen  # a last line that was cut off is missing, not malformed
        if self._failure is not None:
            raise self._failure
        self.finished = True
        self._end(events)
        return events

    def _take(self, name: bytes, data: bytes, events: Events) -> bool:
        """Interpret one frame; say whether it was the last that matters."""
        try:
            self._chunk(name, data, events)
        except msgspec.DecodeError:
            if name == b"error":
                self._fail(upstream_error(Problem(data.decode("utf-8", "replace"))))
            else:
                self.skipped += 1
        except UpstreamError as error:
            self._hold(events)
            self._fail(error)
        return self.finished

    def _fail(self, error: UpstreamError) -> None:
        self._failure = error
        self.finished = True

    def _sniff(self, data: bytes) -> bool:
        """Look at the first byte that is no space; say whether the body is a JSON document."""
        if self._document_bytes is None:
            start = data.lstrip(b"\xef\xbb\xbf \t\r\n")
            if not start:
                return False
            array = self._array_frames() if start[0] == 0x5B else None
            self._frames = array or self._frames
            if array is not None or start[0] not in b"{[":
                self._sniffing = False
                return False
            self._document_bytes = bytearray()
            data = start
        self._document_bytes += data
        if len(self._document_bytes) > MAX_DOCUMENT:
            raise WireError(
                "The provider sent a document that is too large.", code="upstream_frame_too_large"
            )
        return True

    def _read_document(self, data: bytes, events: Events) -> None:
        try:
            value = read_json(data)
        except msgspec.DecodeError:
            self._fail(upstream_truncated())
            return
        try:
            self._document(value, events)
        except UpstreamError as error:
            self._fail(error)

    def _truncated(self) -> UpstreamError:
        """Return the error of a body that ended without the answer's end."""
        if self.skipped:
            return WireError("The provider sent chunks that cannot be read, and no end.")
        return upstream_truncated()

    # --- what a dialect adds -------------------------------------------------------------------

    @abstractmethod
    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        """Add the events of one frame. Raises `UpstreamError` for an error in it, `DecodeError` if
        it is no JSON; what was added before stays."""

    def _document(self, value: Any, events: Events) -> None:
        """Add the events of a whole answer; raises `UpstreamError` for anything else."""
        problem = find_problem(value)
        if problem is None:
            raise WireError("The provider sent a document that is no answer.")
        raise upstream_error(problem)

    def _array_frames(self) -> Frames | None:
        """Return the framing of a body that is one JSON array; None where that is a document."""
        return None

    def _hold(self, events: Events) -> None:  # noqa: B027  most dialects hold nothing back
        """An error follows: add what was held back and is true all the same, such as usage."""

    @abstractmethod
    def _end(self, events: Events) -> None:
        """Add what was held back; raises `UpstreamError` when the answer is not whole."""
