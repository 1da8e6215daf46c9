"""Renderings: one stream in one format, encoded once and shared by all readers at the tail.

A format is a dialect's encoder plus a framing (SSE with or without ids, NDJSON, WebSocket messages,
plain text). A rendering is a pure function of the log: at a given position, every rendering of one
format holds the same encoder state, so a reader that has caught up joins the one that is there and
drops its own.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec

from penstock.streams.stream import Stream
from penstock.types.events import AnyEvent, Closed, Entry, TextDelta, encode_line
from penstock.wire import envelope, ndjson, sse
from penstock.wire.dialect import Answer, EventEncoder, Frame

Framing: TypeAlias = Callable[[int, Sequence[Frame]], bytes]
"""Bytes of an entry's frames, given the entry's sequence number."""


class Format(NamedTuple):
    """What a reader asked for. ``with_ids``: each SSE event carries its cursor.

    ``ends_cleanly``: a body in this format may end properly after any terminal entry, because its
    last frame says how it ended; if not, it does so after `completed` only.
    ``stateless``: an encoder needs no knowledge of earlier entries. ``never_cut``: a body in it always ends
    properly, since what it holds says how far it goes. ``frame`` is its own framing. ``opening``: frames
    that stand before the log's first entry and go out as soon as the status line does. ``headers`` are this
    format's own.
    """

    name: str
    media_type: bytes
    encoder: Callable[[Answer], EventEncoder]
    framing: str  # "sse" | "text" | "ndjson" | "plain" | "array" | "lines" | "envelope"
    with_ids: bool = True
    ends_cleanly: bool = True
    stateless: bool = True
    opening: Callable[[Answer], Sequence[Frame]] | None = None
    never_cut: bool = False
    frame: Callable[[Stream], Framing] | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


def sse_with_ids(stream: Stream, *, split: bool = False) -> Framing:
    """``event``, ``data``, ``id``: the cursor after the entry, or inside it for its first frames."""
    epoch = f"{stream.id}~{stream.info.epoch:04d}".encode()

    def frame(seq: int, frames: Sequence[Frame]) -> bytes:
        if len(frames) == 1 and not split:
            event, data = frames[0]
            if event:
                return b"event: %b\ndata: %b\nid: %b%012d\n\n" % (event, data, epoch, seq)
            return b"data: %b\nid: %b%012d\n\n" % (data, epoch, seq)
        out = []
        for part, (event, data) in enumerate(frames, 1):
            if part == len(frames):
                id_ = b"%b%012d" % (epoch, seq)
            else:
                id_ = b"%b%012d.%d" % (epoch, seq - 1, part)
            if split and not event:
                out.append(sse.encode_text(data.decode(), id=id_))
            else:
                out.append(sse.encode(data, event=event, id=id_))
        return b"".join(out)

    return frame


def sse_without_ids(seq: int, frames: Sequence[Frame]) -> bytes:
    """``event`` and ``data`` only, for readers that cannot come back and may stumble over ids."""
    if len(frames) == 1:
        event, data = frames[0]
        return b"event: %b\ndata: %b\n\n" % (event, data) if event else b"data: %b\n\n" % data
    return b"".join(sse.encode(data, event=event) for event, data in frames)


def ndjson_lines(stream: Stream) -> Framing:
    """``{"c": cursor, "ev": event, "d": data}`` a line."""
    epoch = f"{stream.id}~{stream.info.epoch:04d}".encode()

    def frame(seq: int, frames: Sequence[Frame]) -> bytes:
        return b"".join(
            ndjson.encode(b'{"c":"%b%012d","ev":"%b","d":%b}' % (epoch, seq, event, data))
            for event, data in frames
        )

    return frame


def envelopes(stream: Stream) -> Framing:
    """What all readers of a WebSocket are sent, each behind its own rid; a line a message."""
    epoch = f"{stream.id}~{stream.info.epoch:04d}".encode()

    def frame(seq: int, frames: Sequence[Frame]) -> bytes:
        return b"".join(envelope.line(b"%b%012d" % (epoch, seq), event, data) for event, data in frames)

    return frame


class Enveloped:
    """An encoder whose frames hold JSON, and say whether they are a stream's last. ``texts``: see `_json`."""

    def __init__(self, encoder: EventEncoder, *, texts: bool) -> None:
        """Around another one."""
        self._encoder = encoder
        self._texts = texts

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of an entry; at least one of the terminal entry."""
        ends = type(event) is Closed
        frames = self._encoder.encode(event, line)
        if ends and not frames:
            return ((_LAST, b"null"),)
        last = len(frames) - 1
        return [
            ((_LAST if ends and index == last else b"") + name, _json(data, texts=self._texts))
            for index, (name, data) in enumerate(frames)
        ]

    def heartbeat(self) -> bytes:
        """The socket has pings of its own."""
        return b""


_LAST: Final = b"\0"
"""What the name of a stream's last frame begins with, between `Enveloped` and its framing."""


def in_envelopes(format: Format) -> Format:
    """Return ``format`` as messages of a WebSocket; as by SSE, the cursors within an entry have parts.

    However the log ends, its end is a message.
    """
    texts, before = format.framing == "text", format.opening

    def encoder(answer: Answer) -> EventEncoder:
        return Enveloped(format.encoder(answer), texts=texts)

    def framing(stream: Stream) -> Framing:
        epoch = f"{stream.id}~{stream.info.epoch:04d}".encode()

        def frame(seq: int, frames: Sequence[Frame]) -> bytes:
            out = []
            for part, (event, data) in enumerate(frames, 1):
                whole = part == len(frames)
                cursor = b"%b%012d" % (epoch, seq) if whole else b"%b%012d.%d" % (epoch, seq - 1, part)
                ends = event.startswith(_LAST)
                out.append(envelope.rendered_line(cursor, event.removeprefix(_LAST), data, ends=ends))
            return b"".join(out)

        return frame

    def opening(answer: Answer) -> Sequence[Frame]:
        return [(name, _json(data, texts=texts)) for name, data in before(answer)] if before else ()

    return format._replace(
        name=f"envelope:{format.name}",
        framing="envelope",
        encoder=encoder,
        frame=framing,
        opening=opening,
        ends_cleanly=True,
    )


def _json(data: bytes, *, texts: bool) -> bytes:
    """Return what a frame holds as JSON: what is none (a text, the ``[DONE]`` of some) as a string."""
    is_json = not texts and data[:1] == b"{"
    return data if is_json else msgspec.json.encode(data.decode("utf-8", "replace"))


def plain_text(seq: int, frames: Sequence[Frame]) -> bytes:
    """The text and nothing else."""
    return b"".join(data for event, data in frames if not event)


def bare_lines(seq: int, frames: Sequence[Frame]) -> bytes:
    """The data of each frame on a line of its own."""
    return b"".join(ndjson.encode(data) for _, data in frames)


_ARRAY: Final = {
    b"first": (b"[", b""),
    b"next": (b",\n", b""),
    b"last": (b",\n", b"]"),
    b"only": (b"[", b"]"),
}


def json_array(seq: int, frames: Sequence[Frame]) -> bytes:
    """Elements of one array; their names say where in it they stand."""
    return b"".join(data.join(_ARRAY[event]) for event, data in frames)


def framing(format: Format, stream: Stream) -> Framing:
    """Return the framing of ``format`` for ``stream``."""
    if format.frame is not None:
        return format.frame(stream)
    match format.framing:
        case "ndjson":
            return ndjson_lines(stream)
        case "envelope":
            return envelopes(stream)
        case "plain":
            return plain_text
        case "array":
            return json_array
        case "lines":
            return bare_lines
        case "text":
            return sse_with_ids(stream, split=True)
    return sse_with_ids(stream) if format.with_ids else sse_without_ids


def coalesced(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return ``entries`` with adjacent text deltas merged into one that bears the last one's number.

    The first of a run stays as it is: with it an encoder may say more than the text, in several frames,
    and the ids of those stand for positions that a merged entry does not have.
    """
    merged: list[Entry] = []
    run: list[Entry] = []

    def flush() -> None:
        if len(run) > 1:
            first, last = run[0].event, run[-1]
            assert type(first) is TextDelta
            text = "".join(entry.event.delta for entry in run)  # type: ignore[union-attr]
            event = TextDelta(text, first.index, first.part)
            merged.append(Entry(last.seq, event, encode_line(last.seq, event)))
        else:
            merged.extend(run)
        run.clear()

    before: tuple[int, int] | None = None
    for entry in entries:
        event = entry.event
        plain = type(event) is TextDelta and event.logprobs is None and event.extra is None
        place = (event.index, event.part) if plain else None  # type: ignore[union-attr]
        if plain and place == before:
            run.append(entry)
        else:
            flush()
            merged.append(entry)
        before = place
    flush()
    return merged


class TailReader(Protocol):
    """A reader that has caught up."""

    def deliver(self, data: bytes, closed: Closed | None) -> None:
        """Take the next bytes; ``closed`` when they end the stream. ``b""`` may come alone."""
        ...

    def dropped(self) -> None:
        """The stream lost its writer, or rendering it failed: there will be no end."""
        ...


class Rendering:
    """An encoder at a position of a stream, and the readers that are there with it."""

    __slots__ = ("_frame", "encoder", "format", "position", "readers", "stream")

    def __init__(self, stream: Stream, format: Format) -> None:
        """Stand at the start of the log."""
        self.stream = stream
        self.format = format
        self.position = 0
        info = stream.info
        self.encoder = format.encoder(Answer(info.id, int(info.created_at), info.model))
        self.readers: list[TailReader] = []
        self._frame = framing(format, stream)

    def render(self, entries: Sequence[Entry], skip: int = 0) -> bytes:
        """Return the bytes of the next ``entries``, without the first ``skip`` frames of the first one."""
        if len(entries) == 1 and not skip:  # the usual case at the tail
            entry = entries[0]
            self.position = entry.seq
            frames = self.encoder.encode(entry.event, entry.line)
            return self._frame(entry.seq, frames) if frames else b""
        out = []
        for entry in entries:
            seq = entry.seq
            frames = self.encoder.encode(entry.event, entry.line)
            if skip:
                if skip < len(frames):
                    # Its ids still count from the entry's first frame, so frame first, then drop.
                    separator = b"\n" if self.format.framing == "envelope" else b"\n\n"
                    out.append(_after(self._frame(seq, frames), skip, separator))
                    skip = 0
                    continue
                skip = 0
            if frames:
                out.append(self._frame(seq, frames))
        self.position = entries[-1].seq
        return b"".join(out)

    def on_batch(self, entries: Sequence[Entry]) -> None:
        """A commit: encode once, hand to every reader at the tail."""
        if not entries:
            self._drop()
            return
        try:
            data = self.render(entries)
        except Exception:
            self._drop()
            raise
        last = entries[-1].event
        closed = last if type(last) is Closed else None
        if data or closed is not None:
            for reader in tuple(self.readers):  # a reader that is slow leaves in the middle of this
                reader.deliver(data, closed)

    def _drop(self) -> None:
        for reader in tuple(self.readers):
            reader.dropped()


def _after(framed: bytes, skip: int, separator: bytes) -> bytes:
    return separator.join(framed.split(separator)[skip:])


class Renderings:
    """The shared renderings of this process, by stream and format."""

    def __init__(self) -> None:
        """None yet: they come and go with their readers."""
        self._shared: dict[tuple[str, str, bool], Rendering] = {}

    def __len__(self) -> int:
        """How many renderings have readers."""
        return len(self._shared)

    def join(self, own: Rendering, reader: TailReader) -> Rendering:
        """Let ``reader`` follow the tail; return the rendering that it now shares.

        ``own`` must stand at the stream's commit mark, and no await may lie between that check and
        this call: this is what makes the way from replay to live without a gap or a repeat.
        """
        key = _key(own)
        shared = self._shared.get(key)
        if shared is None or shared.position != own.position:
            shared = self._shared[key] = own
            own.stream.follow(own.on_batch)
        shared.readers.append(reader)
        return shared

    def leave(self, shared: Rendering, reader: TailReader) -> None:
        """``reader`` follows no more. Nothing happens if it did not."""
        if reader in shared.readers:
            shared.readers.remove(reader)
        if not shared.readers:
            shared.stream.unfollow(shared.on_batch)
            if self._shared.get(_key(shared)) is shared:
                del self._shared[_key(shared)]

    def part(self, shared: Rendering, reader: TailReader) -> Rendering:
        """``reader`` cannot keep up: return a rendering of its own that stands where the shared one does."""
        self.leave(shared, reader)
        if not shared.readers:
            return shared
        own = Rendering(shared.stream, shared.format)
        own.encoder, own.position = copy.deepcopy(shared.encoder), shared.position
        return own


def _key(rendering: Rendering) -> tuple[str, str, bool]:
    return (rendering.stream.id, rendering.format.name, rendering.format.with_ids)
