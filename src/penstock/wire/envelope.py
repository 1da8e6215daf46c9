"""The WebSocket envelope: one JSON object a message, both ways. Format: docs/protocol.md, section 11.

Owns the messages as types, their reading with errors that name what is wrong, and their bytes. An
entry's `d` stays the stored record, byte for byte, and is the last member: a client can cut it out of
the text and check digests over it. No socket and no state enters here.
"""

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from penstock.types.errors import ClientError, PenstockError

SUBPROTOCOL: Final = "penstock.v1+json"

MAX_RID: Final = 64
FIRST_CREDIT: Final = 256 << 10
"""Bytes of `entry` and `end` messages that a rid may be sent before its first `credit`."""

MAX_CREDIT: Final = 64 << 20
"""Bytes of credit that a rid can have at once; what is granted beyond is forgotten."""

Rid: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_RID)]
"""A client's own name for one generation on its socket."""


class _Asked(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, forbid_unknown_fields=True):
    """Base of what a client sends."""


class Create(_Asked, frozen=True, tag="create"):
    """Start a generation and follow it; the members are those of `POST /v1/streams`."""

    rid: Rid
    request: msgspec.Raw
    dialect: str = "openai_chat"
    idempotency_key: str = ""
    ttl_s: float | None = None
    on_disconnect: str | None = None
    metadata: dict[str, str] | None = None


class Read(_Asked, frozen=True, tag="read"):
    """Follow a stream after a cursor; a full cursor names the stream as well.

    ``dialect``: as which its entries are rendered; native when empty. ``token``: of a signed link, which
    does instead of whoever the socket's caller is.
    """

    rid: Rid
    stream: str = ""
    after: str | int = 0
    dialect: str = ""
    token: str = ""


class Input(_Asked, frozen=True, tag="input"):
    """Replace what the generation under ``rid`` answers: the running one is cancelled, another starts."""

    rid: Rid
    content: str


class Cancel(_Asked, frozen=True, tag="cancel"):
    """Stop a generation, named by its stream or by the rid that it is followed under."""

    stream: str = ""
    rid: Annotated[str, msgspec.Meta(max_length=MAX_RID)] = ""


class Detach(_Asked, frozen=True, tag="detach"):
    """Follow no more; the generation goes on as its `on_disconnect` says."""

    rid: Rid


class Credit(_Asked, frozen=True, tag="credit"):
    """Take so many bytes more under ``rid``."""

    rid: Rid
    bytes: Annotated[int, msgspec.Meta(gt=0, le=MAX_CREDIT)]


class Auth(_Asked, frozen=True, tag="auth"):
    """Say, or say again, who is calling."""

    token: str


class Ping(_Asked, frozen=True, tag="ping"):
    """Ask for a `pong`: pages do not see the protocol's own."""


ClientMessage: TypeAlias = Create | Read | Input | Cancel | Detach | Credit | Auth | Ping


class _Told(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of what the gateway sends. Members that a client does not know are to be ignored."""


class Open(_Told, frozen=True, tag="open"):
    """``rid`` now follows ``stream`` after the cursor ``c``; ``tail`` counts the entries there are."""

    rid: str
    stream: str
    status: str
    tail: int
    c: str


class EntryMessage(_Told, frozen=True, tag="entry"):
    """One entry: the cursor after it, its native event and its record."""

    rid: str
    c: str
    ev: str
    d: msgspec.Raw


class End(_Told, frozen=True, tag="end"):
    """The terminal entry: `done`, or `fail` with its reason. Nothing follows under ``rid`` unasked."""

    rid: str
    c: str
    ev: str
    d: msgspec.Raw


class Gap(_Told, frozen=True, tag="gap"):
    """The log no longer has what was asked for; it goes on after the cursor ``earliest``."""

    rid: str
    requested: str
    earliest: str


class Nothing(_Told, frozen=True, tag="none"):
    """The reader has been given everything of a stream that has ended."""

    rid: str
    stream: str
    status: str


class Err(_Told, frozen=True, tag="err"):
    """What was asked cannot be. With a ``rid``, nothing follows under it until it is asked for again.

    ``status``: that of the response which says the same by HTTP.
    """

    code: str
    message: str
    fault: str
    retryable: bool
    status: int = 0
    rid: str = ""
    stream: str = ""
    param: str | None = None
    retry_after: float | None = None


class Cancelled(_Told, frozen=True, tag="cancelled"):
    """The answer to `cancel`: how the stream ended, and its tail. Readers are sent its `end` besides."""

    stream: str
    status: str
    c: str
    rid: str = ""


class Authed(_Told, frozen=True, tag="authed"):
    """The answer to `auth`. ``expires_in``: seconds after which it wants to be said again."""

    expires_in: float | None = None


class Goaway(_Told, frozen=True, tag="goaway"):
    """The gateway leaves: what runs is sent on for a while, nothing new is taken. Come back in so long."""

    retry_ms: int


class Pong(_Told, frozen=True, tag="pong"):
    """The answer to `ping`."""


ServerMessage: TypeAlias = (
    Open | EntryMessage | End | Gap | Nothing | Err | Cancelled | Authed | Goaway | Pong
)

_decode_client = msgspec.json.Decoder(ClientMessage).decode
_decode_server = msgspec.json.Decoder(ServerMessage).decode
_encode = msgspec.json.Encoder().encode

_SERVER_TYPES: Final = frozenset(kind.__struct_config__.tag for kind in ServerMessage.__args__)
_CLIENT_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in ClientMessage.__args__)


class _Named(msgspec.Struct):
    """What can be said of a message that cannot be read."""

    type: Any = None
    rid: Any = None


_decode_name = msgspec.json.Decoder(_Named).decode


def decode_client(text: bytes) -> ClientMessage:
    """Read what a client sent; raises `ClientError` `invalid_json` or `invalid_request`."""
    try:
        message: ClientMessage = _decode_client(text)
    except msgspec.ValidationError as error:
        if (unknown := _unknown_type(text)) is not None:
            told = f"There is no message of the type '{unknown[:40]}'" if unknown else "The type is missing"
            sentence = f"{told}: there are {', '.join(sorted(_CLIENT_TYPES))}."
            raise ClientError(sentence, code="invalid_request", param="type") from None
        raise ClientError(f"The message does not fit: {error}.", code="invalid_request") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        sentence = f"The message is not a JSON object: {str(error)[:200]}."
        raise ClientError(sentence, code="invalid_json") from None
    return message


def _unknown_type(text: bytes) -> str | None:
    """Return the type of a message if it is none of a client's, ``""`` where it has none."""
    try:
        kind = _decode_name(text).type
    except msgspec.MsgspecError:
        return None
    if kind is None:
        return ""
    return None if not isinstance(kind, str) or kind in _CLIENT_TYPES else kind


def rid_of(text: bytes) -> str:
    """Return the rid of a message that could not be read, so that its error can name it; else ``""``."""
    try:
        rid = _decode_name(text).rid
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return rid if type(rid) is str and len(rid) <= MAX_RID else ""


def decode_server(text: bytes) -> ServerMessage | None:
    """Read what the gateway sent; None for a message of a type that did not exist yet.

    Raises `ValueError` for what is no message at all.
    """
    try:
        message: ServerMessage = _decode_server(text)
    except RecursionError:
        raise ValueError("The message is nested too deeply.") from None
    except msgspec.ValidationError:
        try:
            named = _decode_name(text).type
        except RecursionError:
            raise ValueError("The message is nested too deeply.") from None
        if not isinstance(named, str) or named in _SERVER_TYPES:
            raise
        return None
    return message


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Return the bytes of a message."""
    return _encode(message)


def failure(error: PenstockError, *, rid: str = "", stream: str = "") -> Err:
    """Return ``error`` as a message; without a rid it is about the socket, or about ``stream``."""
    return Err(
        code=error.code,
        message=error.message,
        fault=error.fault,
        retryable=error.retryable,
        status=error.status,
        rid=rid,
        stream=stream,
        param=error.param,
        retry_after=error.retry_after,
    )


def opens(rid: str) -> bytes:
    """Return how every line of an `entries` framing begins when it is sent under ``rid``."""
    return b'{"rid":%b,' % _encode(rid)


def line(seq_cursor: bytes, event: bytes, data: bytes) -> bytes:
    """Return the rest of an `entry` or `end` message, which is the same for all readers, with an LF."""
    kind = b"end" if event in (b"done", b"fail") else b"entry"
    return b'"type":"%b","c":"%b","ev":"%b","d":%b}\n' % (kind, seq_cursor, event, data)


def rendered_line(cursor: bytes, event: bytes, data: bytes, *, ends: bool) -> bytes:
    """As `line`, of what a dialect makes of an entry. ``data`` is JSON."""
    kind = b"end" if ends else b"entry"
    return b'"type":"%b","c":"%b","ev":"%b","d":%b}\n' % (kind, cursor, event, data)
