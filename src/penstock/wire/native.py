"""The native dialect: our own read format, in which an entry's stored line is its data.

Frames: ``stream`` (first, made by the server: it is no entry), ``start``, ``delta`` (text,
reasoning, refusal, tool_call, annotation), ``usage``, ``finish``, ``extra`` and, as the terminal
entry, ``done`` (completed) or ``fail`` (everything else). Format: docs/protocol.md.

`TextEncoder` is the simple form for pages that only append ``event.data``: the answer's text in
unnamed events. Requests come in other dialects; this module has no parse or render of them.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from penstock.types.errors import PenstockError
from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
    Finished,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.wire.dialect import Frame

EVENT_NAMES: Final[dict[type, bytes]] = {
    Started: b"start",
    TextDelta: b"delta",
    ReasoningDelta: b"delta",
    RefusalDelta: b"delta",
    ToolCallDelta: b"delta",
    Annotation: b"delta",
    UsageReported: b"usage",
    Finished: b"finish",
    Opaque: b"extra",
    Seam: b"seam",
}

_encode = msgspec.json.Encoder().encode


class NativeEncoder:
    """Entries as they are stored."""

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the entry's one frame."""
        if type(event) is Closed:
            return ((b"done" if event.status == "completed" else b"fail", line),)
        return ((EVENT_NAMES[type(event)], line),)

    def heartbeat(self) -> bytes:
        """A comment without a blank line, since ids are always sent here."""
        return b":\n"


class TextEncoder:
    """The text of choice 0, one frame a delta, then ``done`` or ``fail``.

    ``data`` of a text frame is the raw text and may hold line ends: the framing splits it.
    """

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frame of a text delta or of the end; other entries have none."""
        kind = type(event)
        if kind is TextDelta or kind is RefusalDelta:
            if event.index or not event.delta:  # type: ignore[union-attr]
                return ()
            return ((b"", event.delta.encode("utf-8", "replace")),)  # type: ignore[union-attr]
        if kind is Closed:
            return ((b"done" if event.status == "completed" else b"fail", line),)  # type: ignore[union-attr]
        return ()

    def heartbeat(self) -> bytes:
        """As in the native form."""
        return b":\n"


def opening(*, status: str, start: int, tail: int, heartbeat: float) -> bytes:
    """Return the data of the first event, ``stream``: where the read begins and how far the log is."""
    return _encode({"status": status, "from": start, "tail": tail, "heartbeat": heartbeat})


def gap(requested: str, earliest: str) -> bytes:
    """Return the data of a ``gap`` event: what the reader asked for and the first cursor there is."""
    return _encode({"requested": requested, "earliest": earliest})


def failure(error: PenstockError) -> bytes:
    """Return the data of a ``fail`` event that is no entry: the read cannot go on."""
    return _encode(error_body(error))


def error_body(error: PenstockError) -> dict[str, Any]:
    """Return what a JSON error response says, inside ``error``."""
    own = {"provider_code": error.provider_code} if error.provider_code else {}
    return {
        "message": error.message,
        "type": error.type or error_type(error),
        "param": error.param,
        "code": error.code,
        "fault": error.fault,
        "retryable": error.retryable,
        **own,
    }


def error_type(error: PenstockError) -> str:
    """Return the word that OpenAI-shaped clients switch on."""
    match error.status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
        case status if status < 500:
            return "invalid_request_error"
    return "server_error"


def render_error(error: PenstockError) -> bytes:
    """Return the body of a JSON error response of a native route."""
    return _encode({"error": error_body(error)})
