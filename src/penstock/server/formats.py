"""The formats a stream can be read in: dialect × framing. Adding a dialect adds a line here."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.server.renderings import Format
from penstock.types.errors import ClientError
from penstock.wire.ai_sdk import AI_SDK, VERSION, UIMessageEncoder
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.dialect import Answer, EventEncoder, Face, Frame
from penstock.wire.gemini import GEMINI, GeminiEncoder
from penstock.wire.native import NativeEncoder, TextEncoder
from penstock.wire.ollama_clients import OLLAMA, OllamaEncoder
from penstock.wire.ollama_requests import Api
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_completions import OPENAI_COMPLETIONS, CompletionsEncoder
from penstock.wire.openai_responses import OPENAI_RESPONSES, ResponsesEncoder

DIALECTS: Final[dict[str, Face]] = {
    OPENAI_CHAT.name: OPENAI_CHAT,
    OPENAI_RESPONSES.name: OPENAI_RESPONSES,
    OPENAI_COMPLETIONS.name: OPENAI_COMPLETIONS,
    ANTHROPIC_MESSAGES.name: ANTHROPIC_MESSAGES,
    GEMINI.name: GEMINI,
    OLLAMA.name: OLLAMA,
    AI_SDK.name: AI_SDK,
}

EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


def _native(_: Answer) -> EventEncoder:
    return NativeEncoder()


def _text(_: Answer) -> EventEncoder:
    return TextEncoder()


def _openai_chat(answer: Answer) -> EventEncoder:
    return OPENAI_CHAT.encoder(answer)


def _openai_chat_with_usage(answer: Answer) -> EventEncoder:
    return OPENAI_CHAT.encoder(answer._replace(include_usage=True))


NATIVE: Final = Format("native", EVENT_STREAM, _native, "sse")
TEXT: Final = Format("text", EVENT_STREAM, _text, "text")
NDJSON: Final = Format("ndjson", b"application/x-ndjson", _native, "ndjson")
ENVELOPE: Final = Format("envelope", b"application/json", _native, "envelope")
PLAIN: Final = Format("plain", b"text/plain; charset=utf-8", _text, "plain", ends_cleanly=False)


def openai_chat(*, include_usage: bool, with_ids: bool) -> Format:
    """Return the OpenAI Chat format as the client's request and abilities want it."""
    return Format(
        "openai_chat+usage" if include_usage else "openai_chat",
        EVENT_STREAM,
        _openai_chat_with_usage if include_usage else _openai_chat,
        "sse",
        with_ids=with_ids,
        ends_cleanly=False,
        stateless=False,
    )


def _completions(answer: Answer) -> EventEncoder:
    return OPENAI_COMPLETIONS.encoder(answer)


def _completions_with_usage(answer: Answer) -> EventEncoder:
    return CompletionsEncoder(answer._replace(include_usage=True))


def openai_completions(*, include_usage: bool, with_ids: bool) -> Format:
    """Return the format of legacy Completions as the client's request and abilities want it."""
    return Format(
        "openai_completions+usage" if include_usage else "openai_completions",
        EVENT_STREAM,
        _completions_with_usage if include_usage else _completions,
        "sse",
        with_ids=with_ids,
        ends_cleanly=False,
        stateless=False,
    )


def anthropic_messages(*, with_ids: bool) -> Format:
    """Return the Anthropic Messages format as the client's abilities want it."""
    return Format(
        "anthropic_messages",
        EVENT_STREAM,
        ANTHROPIC_MESSAGES.encoder,
        "sse",
        with_ids=with_ids,
        stateless=False,
    )


def gemini(*, thoughts: bool = True, array: bool = False) -> Format:
    """Return Gemini's format, events or one ``array``; ``thoughts``: whether the client asked for them.

    Google's clients take neither ids nor comments.
    """

    def encoder(answer: Answer) -> GeminiEncoder:
        return GeminiEncoder(answer, thoughts=thoughts, array=array)

    return Format(
        "gemini" + "+thoughts" * thoughts + "+array" * array,
        b"application/json; charset=utf-8" if array else EVENT_STREAM,
        encoder,
        "array" if array else "sse",
        with_ids=False,
        stateless=False,
    )


def ollama(api: Api = "chat", *, thoughts: bool = True) -> Format:
    """Return Ollama's lines, as ``/api/chat`` or ``/api/generate`` have them.

    Its clients take neither ids nor blank lines.
    """

    def encoder(answer: Answer) -> OllamaEncoder:
        return OllamaEncoder(answer, api, thoughts=thoughts)

    return Format(
        f"ollama:{api}" + "+thoughts" * thoughts,
        b"application/x-ndjson",
        encoder,
        "lines",
        with_ids=False,
        stateless=False,
    )


NO_ECHO: Final[Mapping[str, Any]] = {}


def openai_responses(echo: Mapping[str, Any] = NO_ECHO, *, with_ids: bool, after: int = -1) -> Format:
    """Return the Responses format. ``echo``: what the response repeats of its request; ``after``: the number
    of the last event that the client has."""
    repeated = dict(echo)

    def encoder(answer: Answer) -> ResponsesEncoder:
        return ResponsesEncoder(answer, repeated, after)

    def opening(answer: Answer) -> Sequence[Frame]:
        return encoder(answer).opening()

    return Format(
        "openai_responses" if after < 0 else f"openai_responses>{after}",
        EVENT_STREAM,
        encoder,
        "sse",
        with_ids=with_ids,
        stateless=False,
        opening=opening,
    )


MESSAGE: Final = "message_id"
"""Where in a stream's metadata it stands which message of a page it is."""


def ai_sdk(metadata: Mapping[str, str] | None) -> Format:
    """Return the AI SDK's format; ``metadata``, the stream's, may name the message that it goes on with."""
    message = (metadata or {}).get(MESSAGE, "")

    def encoder(answer: Answer) -> UIMessageEncoder:
        return UIMessageEncoder(answer, message)

    def opening(answer: Answer) -> Sequence[Frame]:
        return encoder(answer).opening()

    return Format(
        "ai_sdk", EVENT_STREAM, encoder, "sse", stateless=False, opening=opening, headers=(VERSION,)
    )


def by_accept(accept: str) -> Format:
    """Return the format that ``accept`` chooses where it names a single type; else native SSE."""
    types = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    if types == ["application/x-ndjson"]:
        return NDJSON
    if types == ["text/plain"]:
        return PLAIN
    return NATIVE


def by_query(dialect: str, accept: str, metadata: Mapping[str, str] | None = None) -> Format:
    """Return the format for a read with ``?dialect=`` of a stream with ``metadata``; raises `ClientError` for
    an unknown one."""
    match dialect:
        case "" | "native":
            return by_accept(accept)
        case "text":
            return TEXT
        case "openai_chat":
            return openai_chat(include_usage=True, with_ids=True)
        case "openai_responses":
            return openai_responses(with_ids=True)
        case "anthropic_messages":
            return anthropic_messages(with_ids=True)
        case "openai_completions":
            return openai_completions(include_usage=True, with_ids=True)
        case "gemini":
            return gemini()
        case "ollama":
            return ollama()
        case "ai_sdk":
            return ai_sdk(metadata)
    known = ", ".join(("native", "text", *DIALECTS))
    raise ClientError(
        f"'{dialect[:50]}' is no dialect that can be read here; known: {known}.",
        code="unknown_dialect",
        param="dialect",
    )
