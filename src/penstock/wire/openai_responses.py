"""The OpenAI Responses dialect, both directions: ``POST /v1/responses``.

The parts of a dialect in their order (`penstock.wire.dialect`); three of them are modules of their own:
`openai_responses_requests` (parse and render), `openai_responses_decoder` and `openai_responses_layout` (what
an answer looks like). Here are the way to the client and the dialect as one object.

Steps are numbered from 0, and the first two come before anything is known: they name the response. A
response repeats what was asked; that is no part of the log, and given with the `Answer` (``echo``). No
provider's address and no framing enters.

Sources: the OpenAPI document of openai/openai-openapi; types and stream helpers of openai-python (3.57) and
openai-node (6.49).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.types.errors import PenstockError, UpstreamError
from penstock.types.events import AnyEvent, Closed, TextDelta, escape_line_ends
from penstock.types.requests import GenerationRequest
from penstock.wire.dialect import Answer, Frame
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_responses_decoder import ResponsesDecoder
from penstock.wire.openai_responses_layout import Layout, Part, Step
from penstock.wire.openai_responses_requests import NAME, parse_request, render_request
from penstock.wire.provider_errors import error_response
from penstock.wire.sse import HEARTBEAT

_encode = msgspec.json.Encoder().encode


def _json(value: Any) -> bytes:
    return escape_line_ends(_encode(value))


# --- EventEncoder ----------------------------------------------------------------------------------

_TEXT_DELTA: Final = b"response.output_text.delta"
_TEXT_HEAD: Final = b'{"type":"response.output_text.delta","sequence_number":'


class ResponsesEncoder:
    """Entries to events. A pure function of the log, the `Answer` and the echo; see `Layout`.

    ``after``: the number of the last step that the client has; those up to it are left out.
    """

    __slots__ = ("_after", "_key", "_layout", "_part", "_tail")

    def __init__(self, answer: Answer, echo: Mapping[str, Any] | None = None, after: int = -1) -> None:
        """Stand at the start of the log."""
        self._layout = Layout(answer, echo)
        self._after = after
        self._part: Part | None = None  # that text goes on in
        self._key = -1
        self._tail = b""

    def opening(self) -> Sequence[Frame]:
        """Return the frames before the log's first entry."""
        return self._frames(self._layout.opening())

    def encode(self, event: AnyEvent, line: bytes) -> Sequence[Frame]:
        """Return the frames of the next entry."""
        layout = self._layout
        if (
            type(event) is TextDelta
            and event.part == self._key
            and not event.index
            and event.extra is None
            and event.logprobs is None
        ):
            delta = event.delta
            part = self._part
            if not delta or part is None:
                return ()
            part.pieces.append(delta)
            number = layout.number
            layout.number += 1
            if number <= self._after:
                return ()
            data = _encode(delta)
            if not data.isascii():
                data = escape_line_ends(data)
            return ((_TEXT_DELTA, b'%b%d%b%b,"logprobs":[]}' % (_TEXT_HEAD, number, self._tail, data)),)
        frames = self._frames(layout.steps(event))
        self._note_text()
        return frames

    def _note_text(self) -> None:
        """Keep what the next piece of plain text begins with."""
        found = self._layout.text_part()
        self._part = found[2] if found else None
        self._key = self._part.key if self._part is not None else -1
        if found is not None:
            item, index, part = found
            self._tail = b',"item_id":%b,"output_index":%d,"content_index":%d,"delta":' % (
                _encode(item),
                index,
                part.number,
            )

    def _frames(self, steps: Sequence[Step]) -> Sequence[Frame]:
        return [
            (step["type"].encode(), _json(step)) for step in steps if step["sequence_number"] > self._after
        ]

    def heartbeat(self) -> bytes:
        """A comment, for readers that are sent no ids; with ids the server sends `:` and LF alone."""
        return HEARTBEAT


# --- render_answer ---------------------------------------------------------------------------------


def fold(answer: Answer, events: Iterable[AnyEvent], echo: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the response object of ``events``, whole or so far."""
    layout = Layout(answer, echo)
    for event in events:
        layout.steps(event)
    return layout.response()


# --- the dialect -----------------------------------------------------------------------------------


class OpenAIResponses:
    """`penstock.wire.dialect.Dialect` for Responses. Has no state."""

    __slots__ = ()

    name = NAME

    def parse_request(self, body: bytes) -> GenerationRequest:
        """See `penstock.wire.openai_responses_requests`. Raises `ClientError` 400."""
        return parse_request(body)

    def render_request(self, request: GenerationRequest, model: str) -> bytes:
        """See `penstock.wire.openai_responses_requests`; equal dialects lose nothing."""
        return render_request(request, model)

    def decoder(self) -> ResponsesDecoder:
        """Return a decoder for one response body."""
        return ResponsesDecoder()

    def encoder(self, answer: Answer) -> ResponsesEncoder:
        """Return an encoder that stands at the start of the log."""
        return ResponsesEncoder(answer)

    def render_answer(self, answer: Answer, events: Iterable[AnyEvent]) -> bytes:
        """Return the ``response`` object of a completed stream."""
        seen = list(events)
        if not seen or type(seen[-1]) is not Closed:
            seen.append(Closed("completed"))
        return _encode(fold(answer, seen))

    def render_error(self, error: PenstockError) -> bytes:
        """Return ``{"error": {message, type, param, code}}``, as Chat Completions do."""
        return OPENAI_CHAT.render_error(error)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an error response; see `penstock.wire.provider_errors`."""
        return error_response(status, headers, body)


OPENAI_RESPONSES: Final = OpenAIResponses()
