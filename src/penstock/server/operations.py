"""What each handler of the route table is for, takes, gives and refuses, as a table.

Adding a route is adding its handler to `OPERATIONS`; a test fails until that is done. Others hold the
error codes against docs/protocol.md, and every answer of a running gateway against what stands here.
`penstock.server.openapi` makes the document of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from penstock.server import (
    admin,
    ai_sdk,
    azure,
    dashboard,
    docs,
    durable_streams,
    explanations,
    gemini,
    generations,
    metrics,
    models,
    ollama,
    openai_responses,
    presets,
    reads,
    relay,
    shapes,
    streams,
    ui,
)
from penstock.server.formats import DIALECTS
from penstock.server.profiling import FORMS, MAX_SECONDS
from penstock.server.roster import ORDERS
from penstock.types.usage import By
from penstock.wire.anthropic_messages import STATUSES

Json: TypeAlias = dict[str, Any]
Codes: TypeAlias = Mapping[str, int]
"""Error codes with the status that they come with."""


class Gives(msgspec.Struct, frozen=True):
    """One answer: media types with the names of their schemas, and the headers that it has."""

    text: str
    content: Mapping[str, str] = {}
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    """What one handler does. ``takes`` names `PARAMETERS`, ``body`` a schema; ``takes_content``: its body may
    be anything, or nothing; ``statuses`` are of codes
    that have others in its dialect.

    ``errors`` names the schema of what it refuses with.

    ``who``: ``anybody``, or whoever has a key; for some a link does instead. ``heads``: a HEAD says
    something of its own.
    """

    group: str
    summary: str
    gives: Mapping[int, Gives]
    refuses: Sequence[Codes] = ()
    text: str = ""
    takes: tuple[str, ...] = ()
    body: str = ""
    takes_content: bool = False
    who: Literal["anybody", "key", "key or link"] = "key"
    heads: bool = False
    statuses: Codes = {}
    errors: str = "Error"


# --- parameters, headers -------------------------------------------------------------------------------


def _query(name: str, text: str, **schema: Any) -> Json:
    return {"name": name, "in": "query", "description": text, "schema": schema or {"type": "string"}}


def _header(name: str, text: str, **schema: Any) -> Json:
    return {"name": name, "in": "header", "description": text, "schema": schema or {"type": "string"}}


_CURSOR_FORMS: Final = (
    "A full cursor, a bare position, an integer, `0` or `-1` (the start) or `now` (the tail)."
)

_TIME: Final[Json] = {
    "type": "string",
    "pattern": "^([0-9]{1,9}|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8]))?$",
}

_KEY: Final[Json] = {
    "type": "string",
    "maxLength": generations.MAX_KEY,
    "pattern": r"^[^\x00-\x1f\x7f]*$",  # printable; of what is not, as much as a pattern can say
}

PARAMETERS: Final[Mapping[str, Json]] = {
    "Last-Event-ID": _header(
        "Last-Event-ID",
        f"Go on after this cursor. {_CURSOR_FORMS} Beats the query.",
        type="string",
        pattern=shapes.GIVEN_CURSOR,
    ),
    "Resume": _header(
        "Last-Event-ID",
        "Go on after this full cursor: then nothing is created, and the request must be the one that created "
        "the stream.",
        type="string",
        pattern=shapes.FULL_CURSOR,
    ),
    "Idempotency-Key": _header(
        "Idempotency-Key",
        "The same key with the same body gives the same stream, which is paid for once.",
        **_KEY,
    ),
    "Prefer": _header("Prefer", "`respond-async`: answer 201 at once, and let the stream go on by itself."),
    "Stream-On-Disconnect": _header(
        "Stream-On-Disconnect",
        "What it means that nobody reads: `continue`, `cancel` or `grace:<seconds>`.",
        type="string",
        pattern=shapes.ON_DISCONNECT,
    ),
    "Stream-Join": _header(
        "Stream-Join",
        "`in-flight`: an equal call that is running, and said so too, may answer. `never`: not this one.",
        type="string",
        enum=["", "in-flight", "never"],
    ),
    "after": _query("after", f"Where to begin. {_CURSOR_FORMS}", type="string", pattern=shapes.GIVEN_CURSOR),
    "lastEventId": _query(
        "lastEventId",
        "As `Last-Event-ID`, for polyfills that cannot send a header.",
        type="string",
        pattern=shapes.GIVEN_CURSOR,
    ),
    "resume": _query(
        "lastEventId",
        "As `Last-Event-ID`, for polyfills that cannot send a header.",
        type="string",
        pattern=shapes.FULL_CURSOR,
    ),
    "token": _query("token", "A signed link's token, instead of a key."),
    "dialect": _query("dialect", "How to render it.", type="string", enum=["native", "text", *DIALECTS]),
    "coalesce": _query("coalesce", "`1`: merge adjacent text while the reader is behind."),
    "pace": _query(
        "pace",
        "At most so many characters a second.",
        type="number",
        minimum=reads.MIN_PACE,
        maximum=reads.MAX_PACE,
    ),
    "anthropic-version": _header(
        "anthropic-version",
        "Of Anthropic's API; handed on to an Anthropic. On the list of models it asks for Anthropic's form.",
    ),
    "anthropic-beta": _header("anthropic-beta", "What is in beta there; handed on to an Anthropic."),
    "page limit": _query(
        "limit", "Of Anthropic's form: how many.", type="integer", minimum=1, maximum=models.MAX_PAGE
    ),
    "after_id": _query("after_id", "Of Anthropic's form: the id of the model before the page."),
    "before_id": _query("before_id", "Of Anthropic's form: the id of the model behind the page."),
    "limit": _query(
        "limit", f"How many at most; above {streams.MAX_LIST} means that.", type="number", minimum=0
    ),
    "entry limit": _query(
        "limit", f"How many at most; above {streams.MAX_ENTRIES} means that.", type="number", minimum=0
    ),
    "before": _query(
        "before", "The id of the last stream of the page before.", type="string", pattern=shapes.GIVEN_ID
    ),
    "wait": _query(
        "wait",
        f"Seconds to wait for an entry when there is none yet; at most {streams.MAX_WAIT:.0f}.",
        type="number",
        minimum=0,
    ),
    "content": _query("content", "What to say to the model.", type="string", minLength=1)
    | {"required": True},
    "said": _query("content", "What to say, where the preset has a place for it."),
    "model": _query("model", "Which model; the gateway's default without."),
    "system": _query("system", "A system prompt."),
    "format": _query("format", "`json` for native events.", type="string", enum=["text", "json"]),
    "key": _query("key", "As `Idempotency-Key`.", **_KEY),
    "ids": _query("ids", "`1`: send ids, so that the stream can be resumed."),
    "stream": _query("stream", "`true`: as a stream of chunks again."),
    "responses stream": _query("stream", "`true`: as a stream of events again."),
    "alt": _query("alt", "`sse`: as events; without, the chunks are one JSON array.", type="string"),
    "pageSize": _query("pageSize", "How many.", type="integer", minimum=1, maximum=gemini.MAX_PAGE),
    "pageToken": _query("pageToken", "From the page before."),
    "starting_after": _query(
        "starting_after",
        "The `sequence_number` of the last event that you have.",
        type="string",
        pattern="^[0-9]{0,9}$",
    ),
    "order": _query("order", "`asc`: oldest first.", type="string", enum=["asc", "desc"]),
    "item limit": _query("limit", "How many.", type="integer", minimum=1, maximum=openai_responses.MAX_PAGE),
    "after item": _query("after", "The id of the item before the page."),
    "by": _query("by", "What sums are taken over.", type="string", enum=[*get_args(By)]),
    "since": _query("since", "From this time on: a day in UTC, or Unix seconds.", **_TIME),
    "until": _query("until", "Before this time.", **_TIME),
    "whose": _query(
        "principal", "Of this principal: a page or user of one's own; of anybody, for administrators."
    ),
    "of principal": _query("principal", "Of this principal, and of its own pages and users."),
    "of team": _query("team", "Of this team."),
    "of model": _query("model", "Of this model, as it was asked for."),
    "seconds": _query("seconds", "How long.", type="number", exclusiveMinimum=0, maximum=MAX_SECONDS),
    "profile format": _query("format", "How it is shown.", type="string", enum=["", *FORMS]),
    "If-None-Match": _header("If-None-Match", "The `ETag` of the copy you have."),
    "Stream-TTL": _header(
        "Stream-TTL",
        "Seconds without a read or a write after which the stream goes.",
        type="string",
        pattern=shapes.NUMBER,
    ),
    "Stream-Expires-At": _header(
        "Stream-Expires-At", "When the stream goes.", type="string", format="date-time"
    ),
    "Stream-Closed": _header("Stream-Closed", "`true`: nothing will follow."),
    "Stream-Keep-Bytes": _header(
        "Stream-Keep-Bytes",
        "Keep so many bytes, the newest ones, and let older ones go: for logs that never end.",
        type="string",
        pattern="^[1-9][0-9]{0,14}$",
    ),
    "Stream-Forked-From": _header(
        "Stream-Forked-From", "The path of a stream, `/v1/stream/…`, with whose content this one begins."
    ),
    "Stream-Fork-Offset": _header(
        "Stream-Fork-Offset",
        "Up to which offset; the tail without.",
        type="string",
        pattern=shapes.GIVEN_OFFSET,
    ),
    "Stream-Fork-Sub-Offset": _header(
        "Stream-Fork-Sub-Offset",
        "So many messages, or bytes, of the append behind that offset as well.",
        type="string",
        pattern=shapes.NUMBER,
    ),
    "Stream-Seq": _header("Stream-Seq", "Must be greater, as text, than that of the append before."),
    "Producer-Id": _header("Producer-Id", "Who appends: what it sends again is not appended again."),
    "Producer-Epoch": _header(
        "Producer-Epoch", "Raised by a producer that begins anew.", type="string", pattern=shapes.NUMBER
    ),
    "Producer-Seq": _header(
        "Producer-Seq", "The number of this append, from 0.", type="string", pattern=shapes.NUMBER
    ),
    "Repr-Digest": _header(
        "Repr-Digest", "With `Stream-Closed`: `sha-256=:…:` of the whole content, for who reads it."
    ),
    "offset": _query(
        "offset",
        "Where to begin: what `Stream-Next-Offset` said, `-1` for the start, `now` for the tail.",
        type="string",
        pattern=shapes.GIVEN_OFFSET,
    ),
    "live": _query(
        "live", "Wait for what comes: once, or as events.", type="string", enum=["long-poll", "sse"]
    ),
    "cursor": _query("cursor", "The `Stream-Cursor` of the answer before."),
    "Event-Offset": _header(
        "Last-Event-ID",
        "With `live=sse`: the offset of the last event. Beats the query.",
        type="string",
        pattern=shapes.EVENT_OFFSET,
    ),
    "Activity cursor": _header("Last-Event-ID", "The id of the last event. Beats the query."),
    "after activity": _query("after", "As `Last-Event-ID`."),
    "asked streams": _query(
        "q", "Rows are of open streams that have these words in them; `model:x` looks in one field."
    ),
    "order of streams": _query("sort", f"Which of them come first: {', '.join(ORDERS)}."),
    "prefix": _query("prefix", "Only paths that begin so."),
    "after path": _query("after", "The path of the last stream of the page before."),
    "path limit": _query(
        "limit", f"How many at most; above {durable_streams.MAX_LIST} means that.", type="number", minimum=0
    ),
}

PLACES: Final[Mapping[str, str]] = {
    "chat": "The id of a chat, which the page chose.",
    "preset": "The name of a preset.",
    "key": "The id of a key: what stands after `pk_`.",
    "stream": "The id of a stream; a dialect's id of it (`chatcmpl-…`) does as well.",
    "model": "A model's name, slashes included.",
    "id": "The provider's name for it.",
    "file": "The name of a file of the page.",
    "path": "Names divided by slashes.",
}
"""What stands in paths."""

HEADERS: Final[Mapping[str, Json]] = {
    "Stream-Id": {"description": "The stream.", "schema": {"$ref": "#/components/schemas/StreamId"}},
    "Stream-Status": {"description": "Its state.", "schema": {"$ref": "#/components/schemas/State"}},
    "Stream-Cursor": {
        "description": "Its tail, unless what the given cursor had read is lost.",
        "schema": {"$ref": "#/components/schemas/Cursor"},
    },
    "Stream-Dropped": {
        "description": "What of the request the provider was not told, since it has no place for it.",
        "schema": {"type": "string"},
    },
    "Stream-Target": {"description": "Who answers, once that is known.", "schema": {"type": "string"}},
    "Stream-Attempts": {
        "description": "How many attempts that took.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Server-Timing": {
        "description": "Where the time went until now, in milliseconds.",
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where the stream is.", "schema": {"type": "string"}},
    "x-request-id": {"description": "This request, for reports.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "Nothing may keep or change it.", "schema": {"type": "string"}},
    "ETag": {"description": "This version of the file.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which to come back.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "What is wanted.", "schema": {"type": "string", "const": "Bearer"}},
    "Stream-Next-Offset": {
        "description": "Where to go on.",
        "schema": {"type": "string", "pattern": shapes.OFFSET},
    },
    "Stream-Up-To-Date": {
        "description": "`true`: this was all there was.",
        "schema": {"type": "string", "const": "true"},
    },
    "Stream-Closed": {
        "description": "`true`: nothing will follow.",
        "schema": {"type": "string", "const": "true"},
    },
}
OPTIONAL: Final = frozenset(
    {
        *("Retry-After", "Stream-Cursor", "Stream-Target", "Stream-Attempts", "Server-Timing"),
        *("Stream-Closed", "Stream-Up-To-Date", "Stream-Dropped"),
    }
)
STREAM_HEADERS: Final = (
    "Stream-Id",
    "Stream-Status",
    "Location",
    "x-request-id",
    "Cache-Control",
    "Stream-Target",
    "Stream-Attempts",
    "Server-Timing",
    "Stream-Dropped",
)


_SAID: Final[Json] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
_HELLO: Final = "s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F~000000000000000"

EXAMPLES: Final[Mapping[str, Any]] = {
    "StreamRequest": {"request": _SAID},
    "ChatRequest": {**_SAID, "stream": True},
    "MessagesRequest": {**_SAID, "max_tokens": 1024, "stream": True},
    "CountRequest": _SAID,
    "CompletionsRequest": {"model": "demo", "prompt": "Hello", "stream": True},
    "DeploymentChatRequest": {"messages": _SAID["messages"], "stream": True},
    "DeploymentCompletionsRequest": {"prompt": "Hello", "stream": True},
    "OllamaChatRequest": _SAID,
    "OllamaGenerateRequest": {"model": "demo", "prompt": "Hello"},
    "OllamaShowRequest": {"model": "demo"},
    "GeminiRequest": {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
    "ChatTurnRequest": {
        "id": "chat-1",
        "model": "demo",
        "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}],
    },
    "ResponsesRequest": {"model": "demo", "input": "Hello", "stream": True},
    "PassedRequest": {"model": "text-embedding-3-small", "input": "Hello"},
    "PassedForm": {"model": "whisper-1"},
    "LinkRequest": {"scope": "read", "ttl_s": 3600},
    "PresetCall": {"content": "Good morning", "variables": {"language": "German"}},
    "PresetLinkRequest": {"spend_usd": 0.01, "ttl_s": 600},
    "TokenRequest": {"user": "alice", "models": ["demo"], "spend_usd": 0.05, "ttl_s": 600},
    "KeyRequest": {"name": "web-app", "team": "shop", "models": ["demo*"], "ttl_s": 7776000},
    "RotateRequest": {"grace_s": 86400},
    "NativeEvent": f"""\
retry: 1000
event: stream
data: {{"status":"open","from":0,"tail":0,"heartbeat":15}}
id: {_HELLO}0

event: start
data: {{"n":1,"type":"started","model":"demo","provider":"scripted"}}
id: {_HELLO}1

event: delta
data: {{"n":2,"type":"text","delta":"Hello"}}
id: {_HELLO}2

event: finish
data: {{"n":3,"type":"finish","reason":"stop"}}
id: {_HELLO}3

event: done
data: {{"n":4,"type":"end","status":"completed","entries":3,"sha256":"…","text_sha256":"…"}}
id: {_HELLO}4
""",
    "SimpleEvent": f"""\
retry: 1000
event: stream
data: {{"status":"open","from":0,"tail":0,"heartbeat":15}}
id: {_HELLO}0

data: Hello
id: {_HELLO}2

event: done
data: {{"n":4,"type":"end","status":"completed","entries":3,"sha256":"…","text_sha256":"…"}}
id: {_HELLO}4
""",
    "DurableEvent": """\
event: data
data:[{"at":"12:00:00","line":"Hello"}]
id: 0000000000000001_0000000000000033

event: control
data:{"streamNextOffset":"0000000000000001_0000000000000033","streamCursor":"3365184","upToDate":true}
id: 0000000000000001_0000000000000033

""",
    "NativeLine": f"""\
{{"c":"{_HELLO}2","ev":"delta","d":{{"n":2,"type":"text","delta":"Hello"}}}}
""",
}
"""Of bodies and of streams, by their schema."""


# --- what is refused -----------------------------------------------------------------------------------

KEY: Final[Codes] = {
    "missing_api_key": 401,
    "invalid_api_key": 401,
    "expired_api_key": 401,
    "invalid_token": 401,
    "expired_token": 401,
    "address_not_allowed": 403,
    "origin_not_allowed": 403,
    "keys_unavailable": 503,
}
LOCAL: Final[Codes] = {"host_not_allowed": 403, "origin_not_allowed": 403, "cross_site_request": 403}
"""Who may, with keys and without: one of the two holds."""
ADMIN: Final[Codes] = {"admin_required": 403, "ledger_unavailable": 503}
LINK: Final[Codes] = {"invalid_link": 403, "link_expired": 403}
NOWHERE: Final[Codes] = {"not_found": 404}
"""Of a path with a place for a name, when the name makes another path of it."""
ANY: Final[Codes] = {"internal_error": 500}
STORE: Final[Codes] = {"storage_unavailable": 503, "store_unusable": 503}
FOUND: Final[Codes] = {"stream_not_found": 404, "stream_gone": 410, "log_damaged": 500, **STORE}
CURSOR: Final[Codes] = {"invalid_cursor": 400, "cursor_mismatch": 400, "log_lost": 409, "cursor_ahead": 416}
VALUE: Final[Codes] = {"invalid_value": 400}
BODY: Final[Codes] = {
    "invalid_json": 400,
    "invalid_request": 400,
    "invalid_value": 400,
    "body_timeout": 408,
    "body_too_large": 413,
    "unsupported_media_type": 415,
}
CHAT: Final[Codes] = {"invalid_type": 400, "missing_required_parameter": 400}
START: Final[Codes] = {
    "budget_exceeded": 402,
    "request_too_large": 413,
    "rate_limit_exceeded": 429,
    "concurrency_limit_exceeded": 429,
    "model_not_allowed": 403,
    "route_not_allowed": 403,
    "preset_not_allowed": 403,
    "cursor_incomplete": 400,
    "unasked_request": 403,
    "model_not_found": 404,
    "cursor_of_other_request": 422,
    "idempotency_key_reused": 422,
    "idempotency_key_in_use": 422,
    "draining": 503,
    "overloaded": 503,
    "moderation_unavailable": 503,
    **FOUND,
}
EARLIER: Final[Codes] = {"previous_response_not_found": 400, "stream_open": 409}
"""Of a request that goes on from an earlier response."""
PASSED: Final[Codes] = {
    "unsupported_endpoint": 400,
    "invalid_type": 400,
    "unasked_request": 403,
    "model_not_allowed": 403,
    "route_not_allowed": 403,
    "preset_not_allowed": 403,
    "model_not_found": 404,
    "draining": 503,
    "overloaded": 503,
}
"""Of a request that is passed on."""
FILES: Final[Codes] = {"admin_required": 403}
FORM: Final[Codes] = {"body_timeout": 408, "body_too_large": 413, "unsupported_media_type": 415}
TOO_LARGE: Final[Codes] = {"answer_too_large": 422}
WRITE: Final[Codes] = {
    "invalid_json": 400,
    "invalid_value": 400,
    "unasked_request": 403,
    "body_timeout": 408,
    "content_type_mismatch": 409,
    "body_too_large": 413,
    "stream_full": 413,
    "draining": 503,
}
"""Of what a writer sends to a publication."""
PLACE: Final[Codes] = {"invalid_path": 400, "read_only": 403}
OFFSET: Final[Codes] = {
    "invalid_value": 400,
    "invalid_cursor": 400,
    "log_lost": 409,
    "offset_gone": 410,
    "cursor_ahead": 416,
    "draining": 503,
}
UPSTREAM: Final[Codes] = {
    "unsupported_parameter": 400,
    "content_filter": 400,
    "filter_failed": 500,
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "permission_denied": 403,
    "conflict": 409,
    "request_too_large": 413,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "client_closed_request": 499,
    "upstream_error": 502,
    "upstream_redirect": 502,
    "upstream_unreachable": 502,
    "upstream_tls": 502,
    "upstream_proxy": 502,
    "upstream_reset": 502,
    "upstream_truncated": 502,
    "upstream_malformed": 502,
    "upstream_frame_too_large": 502,
    "upstream_too_large": 502,
    "stream_too_large": 502,
    "upstream_busy": 503,
    "upstream_closed": 503,
    "upstream_connect_timeout": 504,
    "upstream_timeout": 504,
    "upstream_silent": 504,
    "upstream_stalled": 504,
    "upstream_slow": 504,
    "generation_timeout": 504,
    "timeout": 504,
}
"""Of an answer that failed before it was given: what a provider says, and the way to it."""
ENDED: Final[Codes] = {
    "cancelled": 409,
    "client_disconnected": 499,
    "gateway_restarted": 503,
    "gateway_shutdown": 503,
}
"""Of an answer that others ended."""
SOCKET: Final[Codes] = {
    "unknown_subprotocol": 400,
    "other_principal": 401,
    "unknown_rid": 404,
    "slow": 408,
    "input_not_possible": 409,
    "too_many_rids": 429,
}
"""Told by messages of a WebSocket, which OpenAPI cannot describe."""

NEVER_ANSWERED: Final = frozenset({"method_not_allowed", "not_identified", *SOCKET})
"""Codes with a status that no operation lists: of no operation, or of an application around us."""


# --- the table -----------------------------------------------------------------------------------------

_EVENTS: Final = Gives(
    "The stream, live, to its end.",
    {"text/event-stream": "NativeEvent", "application/x-ndjson": "NativeLine", "text/plain": "Text"},
    STREAM_HEADERS,
)
_ANY_EVENTS: Final = Gives(
    "The stream, live, to its end.", {**_EVENTS.content, "text/event-stream": "DialectEvent"}, STREAM_HEADERS
)
_AT_END: Final = Gives(
    "A reconnect at the end of a closed stream: there is nothing more. Stops an EventSource.",
    {},
    STREAM_HEADERS,
)


_WRITTEN: Final = ("Stream-Next-Offset", "Stream-Id", "x-request-id", "Cache-Control", "Stream-Closed")
DURABLE_HEADERS: Final = _WRITTEN
_CONTENT: Final[Mapping[int, Gives]] = {
    200: Gives(
        "Content; of messages an array.",
        {"*/*": "Content", "text/event-stream": "DurableEvent"},
        (*DURABLE_HEADERS, "Stream-Up-To-Date"),
    ),
    204: Gives("A long poll to which nothing came.", {}, (*DURABLE_HEADERS, "Stream-Up-To-Date")),
    304: Gives("Your copy is still good.", {}, ("ETag",)),
}


def _json(text: str, schema: str, headers: tuple[str, ...] = ()) -> Gives:
    return Gives(text, {"application/json": schema}, headers)


def _file(text: str, *media_types: str) -> Mapping[int, Gives]:
    return {
        200: Gives(text, dict.fromkeys(media_types, "Text"), ("ETag",)),
        304: Gives("Your copy is still good.", {}, ("ETag",)),
    }


_CHAT: Final = {
    200: Gives(
        "The answer: as a stream if the body says `stream`, else whole.",
        {"application/json": "ChatAnswer", "text/event-stream": "ChatEvent"},
        STREAM_HEADERS,
    )
}
_COMPLETIONS: Final = {
    200: Gives(
        "The answer: as a stream if the body says `stream`, else whole.",
        {"application/json": "CompletionsAnswer", "text/event-stream": "CompletionsEvent"},
        STREAM_HEADERS,
    )
}

OPERATIONS: Final[Mapping[Callable[..., Any], Operation]] = {
    generations.create_stream: Operation(
        "Streams",
        "Start a generation",
        {
            200: _EVENTS,
            201: _json(
                "With `Prefer: respond-async`: the stream goes on by itself.",
                "StreamAccepted",
                STREAM_HEADERS,
            ),
        },
        [BODY, CHAT, {"unknown_dialect": 400}, CURSOR, START],
        "Its first event names the stream, before any provider is called. `Accept` chooses the framing when "
        "it names a single type.",
        ("Idempotency-Key", "Resume", "Prefer", "Stream-On-Disconnect", "Stream-Join"),
        "StreamRequest",
    ),
    streams.list_streams: Operation(
        "Streams",
        "List your streams",
        {200: _json("A page, newest first.", "StreamList", ("x-request-id", "Cache-Control"))},
        [VALUE, STORE, {"admin_required": 403}],
        takes=("limit", "before", "whose"),
    ),
    streams.snapshot: Operation(
        "Streams",
        "See a stream so far",
        {200: _json("Its state and the answer so far.", "StreamSnapshot", STREAM_HEADERS)},
        [FOUND, TOO_LARGE],
        takes=("token",),
        who="key or link",
        heads=True,
    ),
    reads.events: Operation(
        "Streams",
        "Follow a stream",
        {200: _ANY_EVENTS, 204: _AT_END},
        [VALUE, {"unknown_dialect": 400}, CURSOR, FOUND],
        "From the cursor on, then live, to its end. `Accept` chooses the framing when it names one type.",
        ("Last-Event-ID", "after", "lastEventId", "dialect", "coalesce", "pace", "token"),
        who="key or link",
        heads=True,
    ),
    streams.entries: Operation(
        "Streams",
        "Poll a stream",
        {200: _json("Entries after the cursor.", "EntryPage", STREAM_HEADERS)},
        [VALUE, CURSOR, FOUND],
        takes=("Last-Event-ID", "after", "entry limit", "wait", "token"),
        who="key or link",
        heads=True,
    ),
    explanations.explanation: Operation(
        "Streams",
        "Explain a stream",
        {
            200: _json(
                "Who, by which rules, where and why, and how long each took.", "Explanation", STREAM_HEADERS
            )
        },
        [FOUND, TOO_LARGE, {"unasked_request": 403}],
        "For the owner and for administrators. No word of the prompt or of the answer is in it. Of an open "
        "stream it says what goes on at the moment.",
    ),
    streams.cancel: Operation(
        "Streams",
        "Stop a stream",
        {
            200: _json("It has ended.", "StreamStopped", STREAM_HEADERS),
            202: _json("It is ending.", "StreamStopped", STREAM_HEADERS),
        },
        [{"unasked_request": 403}, FOUND],
        "Reaches the provider at once, keeps what arrived, and every reader sees it. May be repeated.",
        ("token",),
        who="key or link",
    ),
    generations.cancel_by_key: Operation(
        "Streams",
        "Stop a stream whose id is not known yet",
        {
            200: _json("It has ended.", "StreamStopped", STREAM_HEADERS),
            202: _json("It is ending.", "StreamStopped", STREAM_HEADERS),
        },
        [VALUE, {"missing_required_parameter": 400, "unasked_request": 403}, FOUND],
        takes=("Idempotency-Key", "key"),
    ),
    streams.erase: Operation(
        "Streams",
        "Erase a stream",
        {200: _json("It is gone.", "StreamDeleted", ("x-request-id",))},
        [{"unasked_request": 403}, FOUND],
        "Stops it if it is open. Its bytes are out of all files within a minute.",
    ),
    streams.make_link: Operation(
        "Streams",
        "Give a stream away",
        {201: _json("A URL with which anybody may read, or cancel, this stream.", "Link", STREAM_HEADERS)},
        [BODY, {"unasked_request": 403}, FOUND],
        body="LinkRequest",
    ),
    durable_streams.list_publications: Operation(
        "Durable Streams",
        "List your publications",
        {200: _json("A page, by path.", "PublicationList", ("x-request-id", "Cache-Control"))},
        [VALUE],
        takes=("prefix", "after path", "path limit"),
    ),
    durable_streams.create_publication: Operation(
        "Durable Streams",
        "Make a stream",
        {
            200: Gives("It was there, and as this one is to be.", {}, DURABLE_HEADERS),
            201: Gives("It is there now.", {}, (*DURABLE_HEADERS, "Location")),
        },
        [
            WRITE,
            PLACE,
            {"invalid_cursor": 400, "invalid_fork": 400, "too_many_streams": 403},
            {"stream_exists": 409, "stream_deleted": 409},
            FOUND,
        ],
        "To be filled and read by whoever makes it. Its `Content-Type` is the content's: "
        "`application/json` makes it one of messages.",
        (
            *("Stream-TTL", "Stream-Expires-At", "Stream-Keep-Bytes", "Stream-Closed"),
            *("Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset"),
        ),
        takes_content=True,
    ),
    durable_streams.append_to_publication: Operation(
        "Durable Streams",
        "Append to a stream, or close it",
        {
            200: Gives("A producer's append is there.", {}, _WRITTEN),
            204: Gives("It is there, or was before; or the stream is closed.", {}, _WRITTEN),
        },
        [
            WRITE,
            PLACE,
            {"empty_append": 400, "missing_content_type": 400, "producer_fenced": 403},
            {"producer_gap": 409, "stream_seq_conflict": 409, "stream_closed": 409},
            FOUND,
        ],
        "Answered once it is stored.",
        (
            *("Stream-Closed", "Stream-Seq", "Producer-Id", "Producer-Epoch", "Producer-Seq"),
            "Repr-Digest",
        ),
        takes_content=True,
    ),
    durable_streams.read_publication: Operation(
        "Durable Streams",
        "Read a stream",
        _CONTENT,
        [OFFSET, PLACE, FOUND],
        "Without `offset`, all there is in one body; else about 1 MiB, and where to go on. "
        "As events: `data`, each followed by `control`, which says how far the reader is.",
        ("offset", "live", "cursor", "If-None-Match", "Event-Offset"),
        heads=True,
    ),
    durable_streams.read_generation: Operation(
        "Durable Streams",
        "Read a generation as such a stream",
        _CONTENT,
        [OFFSET, FOUND],
        "Its events as JSON messages; the last one says how it ended.",
        ("offset", "live", "cursor", "If-None-Match", "Event-Offset", "token"),
        who="key or link",
        heads=True,
    ),
    durable_streams.read_linked: Operation(
        "Durable Streams",
        "Read a stream that was published, by a link",
        _CONTENT,
        [OFFSET, FOUND],
        "As by its path, which is its owner's alone. `POST /v1/streams/{stream}/links` makes the link.",
        ("offset", "live", "cursor", "If-None-Match", "Event-Offset", "token"),
        who="key or link",
        heads=True,
    ),
    durable_streams.delete_publication: Operation(
        "Durable Streams",
        "Delete a stream",
        {204: Gives("It is gone.", {}, ("x-request-id", "Cache-Control"))},
        [PLACE, {"unasked_request": 403}, FOUND],
        "Its readers see its end. Its path stays taken while there are forks of it.",
    ),
    generations.simple_stream: Operation(
        "Simple",
        "Ask, with an EventSource or curl",
        {
            200: Gives(
                "The answer, live.",
                {
                    "text/event-stream": "SimpleEvent",
                    "application/x-ndjson": "NativeLine",
                    "text/plain": "Text",
                },
                STREAM_HEADERS,
            ),
            204: _AT_END,
        },
        [VALUE, {"missing_required_parameter": 400}, CURSOR, START],
        'A page needs no more than `new EventSource("/stream?content=Hello")`; it resumes by itself.',
        ("content", "model", "system", "format", "key", "Resume", "resume", "Stream-On-Disconnect"),
    ),
    generations.chat_completions: Operation(
        "OpenAI chat",
        "Chat completions",
        _CHAT,
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "Any OpenAI SDK works, with this gateway as its base URL.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join", "ids"),
        "ChatRequest",
    ),
    reads.chat_completion: Operation(
        "OpenAI chat",
        "An answer again",
        {
            200: Gives(
                "The answer whole, or as a stream.",
                {"application/json": "ChatAnswer", "text/event-stream": "ChatEvent"},
                STREAM_HEADERS,
            ),
            204: _AT_END,
        },
        [CURSOR, {"stream_open": 409}, FOUND, TOO_LARGE, UPSTREAM, ENDED],
        takes=("stream", "Last-Event-ID", "after", "lastEventId", "token"),
        who="key or link",
    ),
    generations.completions: Operation(
        "OpenAI Completions",
        "Legacy completions",
        _COMPLETIONS,
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "The prompt is what a user says to a chat model.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join", "ids"),
        "CompletionsRequest",
    ),
    azure.azure_chat_completions: Operation(
        "Azure OpenAI",
        "Chat completions of a deployment",
        _CHAT,
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "The deployment (or engine) is a model's name; `api-version` may be any.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join", "ids"),
        "DeploymentChatRequest",
    ),
    azure.azure_completions: Operation(
        "Azure OpenAI",
        "Legacy completions of a deployment",
        _COMPLETIONS,
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "The deployment (or engine) is a model's name; `api-version` may be any.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join", "ids"),
        "DeploymentCompletionsRequest",
    ),
    azure.azure_embeddings: Operation(
        "Azure OpenAI",
        "Embeddings of a deployment",
        {200: Gives("As the provider gives it.", {"*/*": "Passed"}, ("x-request-id", "Cache-Control"))},
        [BODY, PASSED, UPSTREAM],
        "The body goes to the provider of the model that the URL names, with the gateway's own credential.",
        body="PassedRequest",
    ),
    openai_responses.create_response: Operation(
        "OpenAI Responses",
        "Responses",
        {
            200: Gives(
                "The answer: as a stream if the body says `stream`, else whole; in the background as it is.",
                {"application/json": "ResponsesAnswer", "text/event-stream": "ResponsesEvent"},
                STREAM_HEADERS,
            )
        },
        [BODY, CHAT, CURSOR, START, EARLIER, TOO_LARGE, UPSTREAM, ENDED],
        "Any OpenAI SDK works, with this gateway as its base URL. With `background` the answer goes on by "
        "itself. `previous_response_id` goes on from a response whose request is still kept, in memory.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join", "ids"),
        "ResponsesRequest",
    ),
    openai_responses.count_response_tokens: Operation(
        "OpenAI Responses",
        "Count tokens of a request",
        {200: _json("How many tokens the request has.", "ResponsesTokenCount", ("x-request-id",))},
        [BODY, CHAT, {"unasked_request": 403, "model_not_found": 404}, EARLIER, TOO_LARGE, FOUND, UPSTREAM],
        "Counted by a provider that can; for any other model an estimate, marked so.",
        body="ResponsesRequest",
    ),
    openai_responses.retrieve_response: Operation(
        "OpenAI Responses",
        "A response again",
        {
            200: Gives(
                "The response as it is now, or its events from a number on and then live.",
                {"application/json": "ResponsesAnswer", "text/event-stream": "ResponsesEvent"},
                STREAM_HEADERS,
            ),
        },
        [CURSOR, VALUE, FOUND, TOO_LARGE],
        takes=("responses stream", "starting_after", "Last-Event-ID", "ids", "token"),
        who="key or link",
    ),
    openai_responses.cancel_response: Operation(
        "OpenAI Responses",
        "Stop a response",
        {200: _json("The response as it is now.", "ResponsesAnswer", STREAM_HEADERS)},
        [{"unasked_request": 403}, FOUND, TOO_LARGE],
        "Reaches the provider at once, keeps what arrived, and every reader sees it. May be repeated.",
        ("token",),
        who="key or link",
    ),
    openai_responses.delete_response: Operation(
        "OpenAI Responses",
        "Erase a response",
        {200: _json("It is gone.", "ResponseDeleted", ("x-request-id",))},
        [{"unasked_request": 403}, FOUND],
        "Stops it if it is open. Its bytes are out of all files within a minute.",
    ),
    openai_responses.response_input_items: Operation(
        "OpenAI Responses",
        "What a response was asked",
        {200: _json("A page of items, newest first.", "ResponsesItemList", ("x-request-id",))},
        [{"unasked_request": 403}, VALUE, FOUND],
        "As long as it is kept, which is in memory, bounded, and not with `store: false`.",
        ("item limit", "after item", "order"),
    ),
    generations.messages: Operation(
        "Anthropic Messages",
        "Messages",
        {
            200: Gives(
                "The answer: as a stream if the body says `stream`, else whole.",
                {"application/json": "MessagesAnswer", "text/event-stream": "MessagesEvent"},
                STREAM_HEADERS,
            )
        },
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "Any Anthropic SDK works, with this gateway as its base URL.",
        (
            *("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join", "ids"),
            *("anthropic-version", "anthropic-beta"),
        ),
        "MessagesRequest",
        statuses=STATUSES,
    ),
    models.count_tokens: Operation(
        "Anthropic Messages",
        "Count tokens",
        {200: _json("How many tokens the request has.", "TokenCount", ("x-request-id",))},
        [BODY, CHAT, {"unasked_request": 403, "model_not_found": 404}, UPSTREAM],
        "Counted by an Anthropic; for any other model an estimate, marked so.",
        ("anthropic-version", "anthropic-beta"),
        "CountRequest",
        statuses=STATUSES,
    ),
    presets.list_presets: Operation(
        "Presets",
        "List the presets",
        {200: _json("Those that the caller may use.", "PresetList", ("x-request-id", "Cache-Control"))},
    ),
    presets.run_preset: Operation(
        "Presets",
        "Ask with a preset",
        {
            200: _EVENTS,
            201: _json(
                "With `Prefer: respond-async`: the stream goes on by itself.",
                "StreamAccepted",
                STREAM_HEADERS,
            ),
        },
        [BODY, {"missing_required_parameter": 400, "preset_not_found": 404}, CURSOR, START],
        "What is said to the model is the operator's; the caller says `content` and the variables.",
        ("Idempotency-Key", "Resume", "Prefer", "Stream-On-Disconnect", "Stream-Join"),
        "PresetCall",
    ),
    presets.stream_preset: Operation(
        "Presets",
        "Ask with a preset, with an EventSource or curl",
        {
            200: Gives(
                "The answer, live.",
                {
                    "text/event-stream": "SimpleEvent",
                    "application/x-ndjson": "NativeLine",
                    "text/plain": "Text",
                },
                STREAM_HEADERS,
            ),
            204: _AT_END,
        },
        [VALUE, {"missing_required_parameter": 400, "preset_not_found": 404}, CURSOR, START],
        "With a link's token no key is needed. Variables are queries of their own names.",
        ("said", "format", "key", "Resume", "resume", "Stream-On-Disconnect", "token"),
        who="key or link",
    ),
    presets.make_preset_link: Operation(
        "Presets",
        "Make a link that starts a preset, once",
        {201: _json("The link, this once.", "PresetLink", ("x-request-id", "Cache-Control"))},
        [
            BODY,
            {
                "unasked_request": 403,
                "key_required": 403,
                "preset_not_allowed": 403,
                "preset_not_found": 404,
            },
        ],
        "For a bare EventSource on a page: bound to the preset, to what it may cost, and to a time.",
        body="PresetLinkRequest",
    ),
    admin.make_token: Operation(
        "Identity",
        "Make a token for a page",
        {201: _json("The token, this once.", "TokenMade", ("x-request-id", "Cache-Control"))},
        [
            BODY,
            {
                "unasked_request": 403,
                "key_required": 403,
                "model_not_allowed": 403,
                "preset_not_allowed": 403,
                "preset_not_found": 404,
            },
        ],
        "A back end exchanges its key for a token that is bound to models or a preset, to what it may cost "
        "and to a time, so that no key ever reaches a page.",
        body="TokenRequest",
    ),
    admin.list_keys: Operation(
        "Identity",
        "List the keys",
        {200: _json("All that are kept, oldest first.", "KeyList", ("x-request-id", "Cache-Control"))},
        [ADMIN, {"unasked_request": 403}],
    ),
    admin.create_key: Operation(
        "Identity",
        "Make a key",
        {201: _json("The key, this once.", "KeyMade", ("x-request-id", "Cache-Control"))},
        [BODY, ADMIN, {"unasked_request": 403, "too_many_keys": 409}],
        body="KeyRequest",
    ),
    admin.rotate_key: Operation(
        "Identity",
        "Replace a key",
        {201: _json("Its successor, this once.", "KeyMade", ("x-request-id", "Cache-Control"))},
        [BODY, ADMIN, {"unasked_request": 403, "key_not_found": 404, "key_not_active": 409}],
        "The new one may what the old one may; the old one ends, after a grace if that is wanted.",
        body="RotateRequest",
    ),
    admin.usage: Operation(
        "Usage",
        "What was used, and what it cost",
        {200: _json("Sums.", "UsageSums", ("x-request-id", "Cache-Control"))},
        [VALUE, ADMIN, {"unasked_request": 403}],
        takes=("by", "since", "until", "of principal", "of team", "of model"),
    ),
    admin.budgets: Operation(
        "Usage",
        "How budgets stand",
        {200: _json("Those of the current periods.", "BudgetStates", ("x-request-id", "Cache-Control"))},
        [ADMIN, {"unasked_request": 403}],
    ),
    admin.profile: Operation(
        "Server",
        "Record what the process does",
        {
            200: Gives(
                "A flame graph.",
                {"text/html": "Text", "application/json": "Content"},
                ("x-request-id", "Cache-Control"),
            )
        },
        [
            VALUE,
            {
                "admin_required": 403,
                "unasked_request": 403,
                "profile_running": 409,
                "profiler_missing": 501,
            },
        ],
        "Of the event loop's thread: as a page, or as JSON for speedscope.app. One at a time.",
        takes=("seconds", "profile format"),
    ),
    admin.reload: Operation(
        "Configuration",
        "Read the configuration again",
        {200: _json("What changed.", "Reload", ("x-request-id", "Cache-Control"))},
        [ADMIN, {"unasked_request": 403, "bad_config": 422}],
        "What is under way goes on as it began. What cannot be used is refused, and the old one stays.",
    ),
    dashboard.activity: Operation(
        "Usage",
        "What goes on, live",
        {
            200: Gives(
                "An event `history`, then one `frame` a second, for as long as somebody reads.",
                {"text/event-stream": "Activity"},
                ("x-request-id", "Cache-Control"),
            )
        },
        [ADMIN, {"unasked_request": 403, "not_found": 404, "overloaded": 503, "invalid_value": 400}],
        "What the dashboard is drawn from. Goes on after `Last-Event-ID`; where that is too long ago, `gap` "
        "and `history` come first. For administrators; where no key exists, for whoever is on this machine.",
        ("Activity cursor", "after activity", "asked streams", "order of streams"),
    ),
    admin.revoke_key: Operation(
        "Identity",
        "End a key",
        {200: _json("It works no more.", "Key", ("x-request-id", "Cache-Control"))},
        [ADMIN, {"unasked_request": 403, "key_not_found": 404}],
    ),
    gemini.generate_content: Operation(
        "Gemini",
        "Generate content",
        {200: _json("The answer, whole.", "GeminiAnswer", STREAM_HEADERS)},
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "Google's GenAI SDKs work, with this gateway as their base URL.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join"),
        "GeminiRequest",
        errors="GeminiError",
    ),
    gemini.stream_generate_content: Operation(
        "Gemini",
        "Generate content, live",
        {
            200: Gives(
                "The answer in chunks, each a part of a response.",
                {"text/event-stream": "GeminiEvent", "application/json": "GeminiChunks"},
                STREAM_HEADERS,
            )
        },
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "Thoughts are sent to those who ask for them (`includeThoughts`).",
        ("alt", "Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join"),
        "GeminiRequest",
        errors="GeminiErrors",
    ),
    gemini.gemini_count_tokens: Operation(
        "Gemini",
        "Count tokens",
        {200: _json("How many tokens the request has.", "GeminiTokenCount", ("x-request-id",))},
        [BODY, CHAT, {"unasked_request": 403, "model_not_found": 404}, UPSTREAM],
        "Counted by a provider that can; for any other model an estimate, marked so.",
        body="GeminiRequest",
        errors="GeminiError",
    ),
    gemini.list_gemini_models: Operation(
        "Gemini",
        "List the models, in Google's form",
        {200: _json("A page of them.", "GeminiModelList", ("x-request-id",))},
        [VALUE],
        takes=("pageSize", "pageToken"),
        errors="GeminiError",
    ),
    gemini.one_gemini_model: Operation(
        "Gemini",
        "See a model, in Google's form",
        {200: _json("It can be asked for.", "GeminiModel")},
        [{"model_not_found": 404}],
        errors="GeminiError",
    ),
    ollama.ollama_chat: Operation(
        "Ollama",
        "Chat",
        {
            200: Gives(
                "The answer in lines, unless the body says otherwise.",
                {"application/x-ndjson": "OllamaLine", "application/json": "OllamaLine"},
                ("x-request-id",),
            )
        },
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        "Ollama's clients work, with this gateway as their host.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join"),
        "OllamaChatRequest",
        errors="OllamaError",
    ),
    ollama.ollama_generate: Operation(
        "Ollama",
        "Generate",
        {
            200: Gives(
                "The answer in lines, unless the body says otherwise.",
                {"application/x-ndjson": "OllamaLine", "application/json": "OllamaLine"},
                ("x-request-id",),
            )
        },
        [BODY, CHAT, CURSOR, START, TOO_LARGE, UPSTREAM, ENDED],
        takes=("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join"),
        body="OllamaGenerateRequest",
        errors="OllamaError",
    ),
    ollama.ollama_tags: Operation(
        "Ollama",
        "List the models, in Ollama's form",
        {200: _json("All of them.", "OllamaModels", ("x-request-id",))},
        errors="OllamaError",
    ),
    ollama.ollama_show: Operation(
        "Ollama",
        "See a model, in Ollama's form",
        {200: _json("What is known of it.", "OllamaModel", ("x-request-id",))},
        [BODY, {"missing_required_parameter": 400, "model_not_found": 404}],
        body="OllamaShowRequest",
        errors="OllamaError",
    ),
    ollama.ollama_ps: Operation(
        "Ollama",
        "Which models are in memory",
        {200: _json("None: that is the providers' business.", "OllamaModels", ("x-request-id",))},
        errors="OllamaError",
    ),
    ollama.ollama_version: Operation(
        "Ollama",
        "Whose routes these are",
        {200: _json("The version of Ollama.", "OllamaVersion", ("x-request-id",))},
        errors="OllamaError",
    ),
    ai_sdk.ui_chat: Operation(
        "AI SDK",
        "The next message of a chat",
        {200: Gives("The answer.", {"text/event-stream": "UIMessageEvent"}, STREAM_HEADERS)},
        [BODY, CHAT, CURSOR, START, UPSTREAM, ENDED],
        "What `useChat` of Vercel's AI SDK asks, with this route as its `api`. To lose the connection stops "
        "nothing.",
        ("Idempotency-Key", "Resume", "Stream-On-Disconnect", "Stream-Join"),
        "ChatTurnRequest",
    ),
    ai_sdk.ui_chat_stream: Operation(
        "AI SDK",
        "Follow a chat again",
        {
            200: Gives(
                "The last answer from its beginning, then live.",
                {"text/event-stream": "UIMessageEvent"},
                STREAM_HEADERS,
            ),
            204: Gives("No answer is open, and the end of the last one was given to a reader of this chat."),
        },
        [CURSOR, VALUE, STORE, NOWHERE, {"log_damaged": 500}],
        takes=("Last-Event-ID",),
    ),
    ai_sdk.ui_chat_stop: Operation(
        "AI SDK",
        "Stop a chat's answer",
        {200: _json("What was stopped; its provider has been left.", "ChatStopped", ("x-request-id",))},
        [{"unasked_request": 403}, VALUE, STORE, NOWHERE],
        "Keeps what arrived. May be repeated.",
    ),
    relay.pass_json: Operation(
        "Passed on",
        "Another endpoint of the model's provider",
        {200: Gives("As the provider gives it.", {"*/*": "Passed"}, ("x-request-id", "Cache-Control"))},
        [BODY, PASSED, UPSTREAM],
        "The body goes to the provider that `model` names, with the gateway's own credential.",
        body="PassedRequest",
    ),
    relay.pass_form: Operation(
        "Passed on",
        "Another endpoint of the model's provider, with files",
        {200: Gives("As the provider gives it.", {"*/*": "Passed"}, ("x-request-id", "Cache-Control"))},
        [FORM, PASSED, {"missing_required_parameter": 400}, UPSTREAM],
        "A form whose `model` stands before its files. It streams through, up to "
        f"{relay.MAX_UPLOAD >> 20} MiB.",
        body="PassedForm",
    ),
    **dict.fromkeys(
        (relay.list_files, relay.see_file, relay.read_file),
        Operation(
            "Passed on",
            "Files of the provider's account",
            {200: Gives("As the provider gives it.", {"*/*": "Passed"}, ("x-request-id", "Cache-Control"))},
            [PASSED, FILES, UPSTREAM],
            "Of the first provider that has files. With keys for administrators alone.",
        ),
    ),
    relay.upload_file: Operation(
        "Passed on",
        "Upload a file to the provider's account",
        {200: Gives("As the provider gives it.", {"*/*": "Passed"}, ("x-request-id", "Cache-Control"))},
        [FORM, PASSED, FILES, UPSTREAM],
        body="PassedForm",
    ),
    relay.delete_file: Operation(
        "Passed on",
        "Delete a file of the provider's account",
        {200: Gives("As the provider gives it.", {"*/*": "Passed"}, ("x-request-id", "Cache-Control"))},
        [PASSED, FILES, UPSTREAM],
    ),
    models.list_models: Operation(
        "Models",
        "List the models",
        {200: _json("All of them; a page in Anthropic's form.", "AnyModelList")},
        [VALUE],
        takes=("anthropic-version", "page limit", "after_id", "before_id"),
        errors="AnyError",
    ),
    models.one_model: Operation(
        "Models",
        "See a model",
        {200: _json("It can be asked for.", "AnyModel")},
        [{"model_not_found": 404}],
        takes=("anthropic-version",),
        errors="AnyError",
    ),
    models.healthz: Operation("Server", "Does it live?", {200: _json("It does.", "Alive")}, who="anybody"),
    models.readyz: Operation(
        "Server",
        "Does it take calls?",
        {200: _json("It does.", "Ready"), 503: _json("It does not, or cannot store them.", "Unready")},
        who="anybody",
    ),
    metrics.metrics: Operation(
        "Server",
        "Metrics, for Prometheus",
        {
            200: Gives(
                "All figures of this process, in Prometheus' text format, or as OpenMetrics if asked for.",
                {"text/plain": "Text", "application/openmetrics-text": "Text"},
            )
        },
        [FILES, NOWHERE],
        text="For administrators, unless `telemetry.metrics.access` says otherwise.",
    ),
    ui.page: Operation(
        "Server", "The chat page", _file("HTML.", "text/html"), takes=("If-None-Match",), who="anybody"
    ),
    dashboard.page: Operation(
        "Server",
        "The dashboard",
        _file("HTML.", "text/html"),
        [{"not_found": 404}],
        takes=("If-None-Match",),
        who="anybody",
    ),
    ui.client: Operation(
        "Server",
        "The JavaScript client, as one module",
        _file("JavaScript.", "text/javascript"),
        takes=("If-None-Match",),
        who="anybody",
    ),
    ui.part: Operation(
        "Server",
        "A file of the pages",
        _file(
            "The file.",
            "text/javascript",
            "text/css",
            "text/html",
            "text/plain",
            "image/svg+xml",
            "image/png",
        ),
        takes=("If-None-Match",),
        who="anybody",
    ),
    docs.document: Operation(
        "Server", "This description", {200: _json("OpenAPI 3.1.", "Document")}, who="anybody"
    ),
    docs.viewer: Operation(
        "Server",
        "This description, to read",
        _file("HTML.", "text/html"),
        takes=("If-None-Match",),
        who="anybody",
    ),
}
