"""Server-sent events: bytes to frames and back, by the WHATWG rules for event streams.

Owns the framing and its limits. Strategy: line ends are normalised to LF as bytes arrive, lines are
split in one C call, and what is unfinished waits in one growing buffer, so that a line of any length
costs linear time in any pieces. Almost every read from a provider is exactly one whole block of one
``data`` line, maybe with an ``event`` line before it; `SseDecoder.feed` answers that case with a slice. No
text decoding and no JSON enters: values are bytes, since neither a UTF-8 sequence nor U+2028 can contain a
line end.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 and 9.2.6.
"""

from typing import Final, NamedTuple

from penstock.types.errors import WireError

MAX_LINE: Final = 8 * 1024 * 1024
"""Bytes of one line without its end. A provider sends an image as base64 in one ``data`` line, of
several MiB, so a bound sized for text would cut off answers that are right."""

MAX_FRAME: Final = 8 * 1024 * 1024
"""Bytes of one frame's data, however many lines it came in."""

MAX_RETRY_DIGITS: Final = 15
"""A longer ``retry`` is ignored: no one waits 30,000 years, and JavaScript still holds it exactly."""

HEARTBEAT_WITH_IDS: Final = b":\n"
"""A heartbeat for readers that are sent ids: a comment line, and no blank line after it.

The decoder of the OpenAI Python SDK, which httpx-sse shares, keeps the last id, so a blank line after
a comment dispatches an event with empty data, and the SDK raises on ``json.loads("")``.
"""

HEARTBEAT: Final = b": keep-alive\n\n"
"""A heartbeat for readers that are sent no ids: the SDKs of OpenAI (Python, Node), Anthropic and Vercel
skip it as long as no id ever came, and it is a whole block to readers that cut at blank lines."""

_BOM: Final = b"\xef\xbb\xbf"

# Searched for as integers: `13 in data` is a memchr, `b"\r" in data` raises and drops an exception on
# the way there (13 against 97 ns for 200 bytes in CPython 3.11).
_NUL: Final = 0
_LF: Final = 10
_CR: Final = 13


class SseFrame(NamedTuple):
    """One dispatched block.

    ``event`` is the event type, ``b""`` for none; ``data`` the data lines joined by LF; ``id`` the last
    event id at dispatch, which persists from block to block, ``b""`` for none.
    """

    event: bytes
    data: bytes
    id: bytes


_frame: Final = tuple.__new__  # what SseFrame(…) does, without the Python frame in between: 0.2 µs


class SseDecoder:
    """Turns the body of one ``text/event-stream`` response into frames; a new body takes a new one.

    Frames depend on the bytes alone, never on how they were cut. ``max_line`` and ``max_frame`` are
    in bytes (see `MAX_LINE`, `MAX_FRAME`). Over a limit, the frames before it are still returned;
    then this call, or the next if there were any, raises `WireError` ``upstream_frame_too_large``,
    and so does every later one.

    ``retry`` is the reconnection time in milliseconds that the server last asked for, or None;
    ``last_event_id`` is the id that a reader sends to resume after what has been dispatched; ``comment``
    is the last comment, and ``stray`` the last line that is JSON and no field, which mean nothing to the
    format: some servers say there what went wrong.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_event",
        "_failed",
        "_id",
        "_max_frame",
        "_max_line",
        "_max_short",
        "_partial",
        "_resting",
        "comment",
        "last_event_id",
        "retry",
        "stray",
    )

    def __init__(self, *, max_line: int = MAX_LINE, max_frame: int = MAX_FRAME) -> None:
        """Stand at the start of a body."""
        self.retry: int | None = None
        self.last_event_id = b""
        self.comment = b""
        self.stray = b""
        self._max_line = max_line
        self._max_frame = max_frame
        self._max_short = min(max_line, max_frame)
        self._failed = False
        self._at_start = True  # a byte order mark may still come
        self._after_cr = False  # the last byte was CR: an LF that follows belongs to it
        self._resting = False  # between two blocks with nothing held: the fast path is open
        self._partial = bytearray()  # the line that has not ended
        self._event = b""  # the block's three buffers, as the specification names them
        self._data: bytes | bytearray | None = None
        self._id = b""

    def __repr__(self) -> str:
        """Show where the decoder stands, in sizes: never what a provider sent."""
        held = len(self._partial) + len(self._data or b"")
        return f"SseDecoder(held={held}, retry={self.retry}, failed={self._failed})"

    def feed(self, data: bytes) -> list[SseFrame]:
        """Return the frames that ``data`` completes. Raises `WireError` over a limit."""
        if self._resting and len(data) <= self._max_short:
            if (
                data.startswith(b"data: ")
                and data.endswith(b"\n\n")
                and data.find(b"\n") == len(data) - 2
                and _CR not in data
            ):
                return [_frame(SseFrame, (b"", data[6:-2], self.last_event_id))]
            if (frame := self._whole(data)) is not None:
                return [frame]
        if self._failed:
            raise self._fail()
        if self._at_start:
            data = self._after_bom(data)
        if not data:
            return []
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
            if not data:
                return []
        self._after_cr = data.endswith(b"\r")
        if _CR in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        partial = self._partial
        if lines and partial:
            partial += lines[0]
            lines[0] = bytes(partial)
            partial.clear()
        frames: list[SseFrame] = []
        fits = self._take(lines, frames)
        if fits and rest:
            partial += rest
            fits = len(partial) <= self._max_line
        if not fits:
            error = self._fail()
            if not frames:
                raise error
            return frames
        self._resting = not (
            partial
            or self._after_cr
            or self._data is not None
            or self._event
            or self._id is not self.last_event_id
        )
        return frames

    def _whole(self, data: bytes) -> SseFrame | None:
        """Return the frame that ``data`` is in one of the other two forms that providers use: with a name
        (Anthropic, Responses, Cohere), or with CRLF (Gemini); None for anything else."""
        if data.startswith(b"event: ") and data.endswith(b"\n\n") and _CR not in data:
            name, _, rest = data[7:-2].partition(b"\n")
            if rest.startswith(b"data: ") and _LF not in rest:
                return _frame(SseFrame, (name, rest[6:], self.last_event_id))
        elif data.startswith(b"data: ") and data.endswith(b"\r\n\r\n") and data.find(b"\r") == len(data) - 4:
            value = data[6:-4]
            if _LF not in value:
                return _frame(SseFrame, (b"", value, self.last_event_id))
        return None

    def flush(self, *, lenient: bool) -> list[SseFrame]:
        """The body ended: return the last frame, if it may count. Raises `WireError` as `feed` does.

        Strictly, by the specification, a block without its blank line is discarded: a reader that
        resumes must do so, since what it has may be cut short. ``lenient`` takes the end of the body
        for the end of the line and of the block: some providers and proxies leave the last blank line
        out (after ``data: [DONE]``; kong#14499). Its caller must be able to tell whole data from cut.
        """
        if self._failed:
            raise self._fail()
        frames: list[SseFrame] = []
        if lenient:
            if self._partial and not self._take([bytes(self._partial)], frames):
                raise self._fail()
            if self._data is not None:
                self._take([b""], frames)
        self._partial.clear()
        self._data = None
        return frames

    def _take(self, lines: list[bytes], frames: list[SseFrame]) -> bool:
        """Interpret whole ``lines``, without their ends; add what is dispatched to ``frames``.

        Say whether all was within the limits; what followed the first thing over one is not looked at.
        """
        max_line = self._max_line
        data = self._data
        for line in lines:
            if not line:
                self.last_event_id = self._id
                if data is not None:
                    if type(data) is bytearray:
                        data = bytes(data)
                    frames.append(_frame(SseFrame, (self._event, data, self._id)))
                    data = None
                if self._event:
                    self._event = b""
                continue
            if len(line) > max_line:
                return False
            if line.startswith(b"data: "):
                value = line[6:]
            else:
                name, _, value = line.partition(b":")
                if value.startswith(b" "):
                    value = value[1:]
                if name != b"data":
                    if name == b"event":
                        self._event = value
                    elif name == b"id":
                        if _NUL not in value:
                            self._id = value
                    elif name == b"retry" and value.isdigit() and len(value) <= MAX_RETRY_DIGITS:
                        self.retry = int(value)
                    elif not name:
                        self.comment = value
                    elif name.startswith(b"{"):
                        self.stray = line
                    continue  # a comment, or a field that the format does not know
            if data is None:
                data = value
            else:
                if type(data) is not bytearray:
                    data = bytearray(data)
                data += b"\n"
                data += value
            if len(data) > self._max_frame:
                return False
        self._data = data
        return True

    def _after_bom(self, data: bytes) -> bytes:
        """Return what ``data`` adds after a byte order mark, holding back what may yet be one."""
        head = bytes(self._partial) + data
        if _BOM.startswith(head):
            self._partial[:] = head
            return b""
        self._at_start = False
        self._partial.clear()
        return head.removeprefix(_BOM)

    def _fail(self) -> WireError:
        """Give up for good, let go of what is held and return the error to raise."""
        self._failed = True
        self._resting = False
        self._partial.clear()
        self._data = None
        return WireError("The provider sent an event that is too large.", code="upstream_frame_too_large")


def encode(data: bytes, *, event: bytes = b"", id: bytes = b"") -> bytes:
    """Return one frame: ``event``, ``data`` and ``id`` in this order, then a blank line, with LF only.

    The order matters: fetch-event-source stores an id when its *line* is parsed. With the id first, a
    connection cut after it loses the event on resume (15 of 22 cut positions did); with the id last,
    only a cut between the frame's last two bytes can. For the same reason a frame is sent in one write.
    ``event`` and ``id`` are left out when empty.

    Raises `ValueError` for CR or LF anywhere, and for NUL in ``event`` or ``id``.
    """
    if _LF in data or _CR in data:
        raise ValueError("data of one line cannot hold CR or LF")
    return _encode(data, event, id)


def encode_text(text: str, *, event: bytes = b"", id: bytes = b"") -> bytes:
    """Return one frame whose data is ``text``: one data line for each line of it.

    Lines end with CRLF, CR or LF; readers join them with LF, so that is what every line end becomes.
    CR must split as well, since a raw one would begin a new field. A CRLF that is cut into two texts
    is two line ends. Raises `ValueError` as `encode` does.
    """
    data = text.encode()
    if _CR in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return _encode(data.replace(b"\n", b"\ndata: "), event, id)


def _encode(data: bytes, event: bytes, id: bytes) -> bytes:
    """Put a frame together from ``data`` that is safe already."""
    head = b"data: "
    if event:
        _check_name(event)
        head = b"event: %b\ndata: " % event
    if id:
        _check_name(id)
        return b"%b%b\nid: %b\n\n" % (head, data, id)
    return b"%b%b\n\n" % (head, data)


def _check_name(value: bytes) -> None:
    if _LF in value or _CR in value or _NUL in value:
        raise ValueError("an event name or id cannot hold CR, LF or NUL")
