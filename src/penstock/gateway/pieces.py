"""How what is appended to a publication becomes parcels, and comes back: pure.

Content is bytes, text, or JSON messages. Bytes are cut where a parcel is full, text so that no character
is cut. Messages are kept as they came, several to a parcel with commas between, so that a page of them is
an array once brackets are around it; one that is larger than a parcel goes over several, which are only
to be read together.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.streams.parcels import FIRST, LAST, MAX_PARCEL, Piece
from penstock.types.errors import ClientError
from penstock.types.events import escape_line_ends

Mode: TypeAlias = Literal["bytes", "text", "json"]

_messages: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_message: Final = msgspec.json.Decoder(msgspec.Raw).decode


def mode_of(content_type: str) -> Mode:
    """Return what the content of a stream of that type is made of."""
    kind = media_type(content_type)
    if kind == "application/json":
        return "json"
    return "text" if kind.startswith("text/") else "bytes"


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case: what has to be equal."""
    return content_type.split(";")[0].strip().lower()


def pieces_of(body: bytes, mode: Mode) -> Sequence[Piece]:
    """Return what an append of ``body`` becomes; nothing for no content. Raises `ClientError` 400."""
    if mode == "json":
        return list(of_messages(_parse(body))) if body else ()
    return list(_cut(body, text=mode == "text"))


def of_messages(messages: Iterable[bytes]) -> Iterator[Piece]:
    """Yield messages as pieces."""
    batch: list[bytes] = []
    size = 0
    for message in messages:
        if batch and size + len(message) > MAX_PARCEL:
            yield Piece(b",".join(batch))
            batch, size = [], 0
        if len(message) > MAX_PARCEL:
            for start in range(0, len(message), MAX_PARCEL):
                flags = FIRST * (start == 0) | LAST * (start + MAX_PARCEL >= len(message))
                yield Piece(message[start : start + MAX_PARCEL], flags)
        else:
            batch.append(message)
            size += len(message) + 1
    if batch:
        yield Piece(b",".join(batch))


def joined(pieces: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the flags and contents of parcels as one list of messages, without the brackets."""
    out: list[bytes] = []
    for flags, content in pieces:
        if out and flags & FIRST:
            out.append(b",")
        out.append(content)
    return b"".join(out)


def beginning(pieces: Iterable[tuple[int, bytes]], mode: Mode, count: int) -> Sequence[Piece] | None:
    """Return the first ``count`` messages, or bytes, of an append; None when it has fewer."""
    if mode == "json":
        messages = _messages(b"[" + joined(pieces) + b"]")
        return list(of_messages(map(bytes, messages[:count]))) if count <= len(messages) else None
    content = b"".join(content for _, content in pieces)
    return list(_cut(content[:count], text=False)) if count <= len(content) else None


def _parse(body: bytes) -> Sequence[bytes]:
    """Return the messages in a body: the items of an array, or what else it is. One level alone."""
    try:
        body.decode()
        found = _messages(body) if body.lstrip()[:1] == b"[" else [_message(body)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"The body is not JSON: {str(error)[:200]}."
        raise ClientError(message, code="invalid_json") from None
    except RecursionError:
        raise ClientError("The body is nested too deeply.", code="invalid_json") from None
    return [escape_line_ends(bytes(message)) for message in found]


def _cut(body: bytes, *, text: bool) -> Iterator[Piece]:
    start = 0
    while start < len(body):
        end = start + MAX_PARCEL
        if text and end < len(body):
            while end > start + MAX_PARCEL - 4 and body[end] & 0xC0 == 0x80:
                end -= 1
        yield Piece(body[start:end])
        start = end
