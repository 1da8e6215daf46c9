"""What a dialect is: the same parts, in the same order, in every module beside this one.

    parse_request    client bytes → GenerationRequest
    render_request   GenerationRequest → provider bytes
    EventDecoder     provider bytes → events            (stateful, one per attempt)
    EventEncoder     entries → frames for the client    (stateful, one per rendering)
    render_answer    events → a whole answer            (what a client that does not stream gets)
    render_error     an error → the dialect's error body
    parse_error      a provider's error response → UpstreamError

A frame is ``(event, data)``: the SSE event name, ``b""`` for none, and one line of data. How frames
become bytes (SSE, NDJSON, WebSocket) is decided elsewhere. An encoder is a pure function of the
log: fed the same entries, it gives the same frames.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import AnyEvent
from penstock.types.requests import GenerationRequest

Frame: TypeAlias = tuple[bytes, bytes]

_EVENT_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def is_event_name(text: str) -> bool:
    """Say whether ``text``, which a provider said, can be an event's name: a line end in it would begin a
    field of the provider's choice."""
    return _EVENT_NAME.fullmatch(text) is not None


class Answer(NamedTuple):
    """What an encoder must know about the stream it renders; constant over its life.

    ``model`` is the name the client asked for, ``created`` the stream's birth in Unix seconds.
    """

    stream: str
    created: int
    model: str
    include_usage: bool = False


class EventDecoder(Protocol):
    """Turns a provider's body into events.

    When events precede an error in one ``feed``, they are returned and the error is raised by the
    next ``feed`` or by ``flush``; nothing that arrived is lost.
    """

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: nothing that may still arrive matters."""
        ...

    def feed(self, data: bytes) -> Sequence[AnyEvent]:
        """Return the events that ``data`` completes. Raises `WireError` or `UpstreamError`."""
        ...

    def flush(self) -> Sequence[AnyEvent]:
        """The body ended: return what was held back. Raises `UpstreamError` when it was not whole."""
        ...


class EventEncoder(Protocol):
    """Turns entries into frames of a dialect."""

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry (``line`` is its stored form); often one, maybe none."""
        ...

    def heartbeat(self) -> bytes:
        """Return a whole frame, ready to send, that keeps an idle connection alive; maybe ``b""``."""
        ...


class Face(Protocol):
    """A format towards clients: the half of a dialect that a server needs."""

    @property
    def name(self) -> str:
        """The dialect's name, as in `GenerationRequest.dialect`."""
        ...

    def parse_request(self, body: bytes) -> GenerationRequest:
        """Raises `ClientError` with the offending field as ``param``."""
        ...

    def encoder(self, answer: Answer) -> EventEncoder:
        """Return a new encoder that stands at the start of the log."""
        ...

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Fold a completed stream's events into the body of an answer that does not stream."""
        ...

    def render_error(self, error: PenstockError) -> bytes:
        """Return the JSON body of an error response."""
        ...


class Dialect(Face, Protocol):
    """A request and response format with its stream format, both directions."""

    def render_request(self, request: GenerationRequest, model: str) -> bytes:
        """Render for a provider's ``model``, always in streaming mode and asking for usage."""
        ...

    def decoder(self) -> EventDecoder:
        """Return a new decoder for one response body."""
        ...

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read a provider's error response; ``headers`` have lower-case names. Never raises."""
        ...
