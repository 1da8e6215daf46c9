"""What is fuzzed: each parser that strangers' bytes reach, with what must hold whatever they are.

A target takes bytes and returns what kind of outcome that was (a fuzzer keeps inputs with new ones). It may
not raise: the errors that a parser documents are outcomes, everything else is a defect. Beyond that, bodies
mean the same in whatever pieces they come, what was read can be written in every dialect and read again, and
a cursor prints as what it is read from.
"""

import asyncio
import base64
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import jwt
import msgspec

from penstock import config_text
from penstock.config import BadConfig, Config, check
from penstock.policies.browser_tokens import BrowserTokens
from penstock.policies.jwt import Issuer, Issuers
from penstock.policies.jwt_settings import IssuerSettings
from penstock.policies.patterns import BadPattern, compile_pattern
from penstock.server.guard import presented
from penstock.server.links import Links
from penstock.server.origins import compile_origins
from penstock.server.proxies import apply, parse_network
from penstock.types.errors import ClientError, UpstreamError, WireError
from penstock.types.events import AnyEvent, Closed, decode_line, encode_line
from penstock.types.positions import parse_cursor
from penstock.wire import durable_streams, envelope
from penstock.wire.ai_sdk import AI_SDK
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.dialect import Answer, Dialect, Face
from penstock.wire.gemini import GEMINI, GeminiEncoder
from penstock.wire.json_array import JsonArrayDecoder
from penstock.wire.ndjson import NdjsonDecoder
from penstock.wire.ollama_asked import parse_request as parse_ollama
from penstock.wire.ollama_clients import OLLAMA
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_completions import OPENAI_COMPLETIONS
from penstock.wire.openai_responses import OPENAI_RESPONSES
from penstock.wire.sse import SseDecoder
from penstock.wire.verification import Verifier
from tests.fuzz.served import UPGRADE, Served, http_outcome, message, requests, websocket_outcome
from tests.vectors import VECTORS, random_pieces
from tests.wire.decoding import run

ANSWER: Final = Answer("s_0001ARZ3NDEKTSV4RRFFQ69G5FAV", 1790000001, "asked", True)
DIALECTS: Final[tuple[Dialect, ...]] = (OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC_MESSAGES, GEMINI, OLLAMA)
FACES: Final[tuple[Face, ...]] = (*DIALECTS, OPENAI_COMPLETIONS, AI_SDK)
SECRET: Final = "a secret of thirty-two bytes, or more"


class Target(NamedTuple):
    """A parser under a name; ``examples`` are good input, ``try_`` returns the kind of the outcome."""

    name: str
    try_: Callable[[bytes], object]
    examples: list[bytes]
    close: Callable[[], None] = lambda: None
    """Ends what it has open; may be called at any time."""


def targets() -> dict[str, Target]:
    """Return all of them."""
    made = [
        *_requests(),
        *_bodies(),
        *_refusals(),
        Target("sse", _framing(SseDecoder), _inputs("sse")),
        Target("ndjson", _framing(NdjsonDecoder), _inputs("ndjson")),
        Target("json_array", _framing(JsonArrayDecoder), _inputs("json_array")),
        Target("cursor", _cursor, _CURSORS),
        Target("envelope", _envelope, _messages("client")),
        Target("envelope_server", _envelope_server, _messages("server")),
        Target("log_line", _log_line, _lines()),
        Target("config", _config, _configurations()),
        Target("durable_streams", _durable_streams, _HEADERS),
        Target("credential", _credential(), _CREDENTIALS),
        Target("pattern", _pattern, _PATTERNS),
        Target(
            "origin", _origin, [b"https://*.example.com", b"http://localhost:*", b"*", b"https://[::1]:8"]
        ),
        Target("forwarded", _forwarded, _FORWARDED),
        *_served(),
    ]
    return {target.name: target for target in made}


# --- requests ----------------------------------------------------------------------------------------


def _requests() -> Iterable[Target]:
    for face in FACES:
        yield Target(f"request_{face.name}", _request(face.parse_request), _asked(face.name))
    generate = (
        b'{"model":"m","prompt":"Hi","system":"s","images":["aGk="],"options":{"stop":["x"]},"raw":true}'
    )
    yield Target("request_ollama_generate", _request(lambda b: parse_ollama(b, "generate")), [generate])


def _request(parse: Callable[[bytes], Any]) -> Callable[[bytes], object]:
    def attempt(data: bytes) -> object:
        try:
            asked = parse(data)
        except ClientError as error:
            assert 400 <= error.status < 500  # noqa: PT017
            json.dumps(error.message).encode()
            return error.code, _field(error.param or "")
        outcome = []
        for dialect in DIALECTS:
            try:
                rendered = dialect.render_request(asked, "model")
            except ClientError as error:
                outcome.append(error.code)
            else:
                assert isinstance(json.loads(rendered), dict)
                outcome.append("rendered")
        return tuple(outcome)

    return attempt


def _field(param: str) -> str:
    """Return ``param`` without its numbers, and not beyond its third part."""
    return ".".join("".join("#" if c.isdigit() else c for c in part) for part in param.split(".")[:3])[:60]


def _asked(dialect: str) -> list[bytes]:
    found = [
        json.dumps(json.loads(path.read_bytes())["request"]).encode()
        for path in sorted((VECTORS / dialect / "requests").glob("*.json"))
    ]
    for path in sorted((VECTORS / dialect / "from_openai_chat").glob("*.json")):
        found += _members(json.loads(path.read_bytes()), "rendered", "request")
    for path in sorted(VECTORS.glob(f"*/to_{dialect}/*.json")):
        found += _members(json.loads(path.read_bytes()), "rendered", "expected")
    return found or [_EVERYTHING]


_EVERYTHING: Final = json.dumps(
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"}]},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ],
        "prompt": ["p"],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        "stream": True,
        "stream_options": {"include_usage": True},
        "stop": ["x"],
        "n": 1,
        "max_tokens": 5,
        "temperature": 0.5,
        "logprobs": 1,
        "logit_bias": {"1": 2},
        "metadata": {"a": "b"},
        "user": "u",
        "echo": False,
        "suffix": None,
    }
).encode()


def _members(content: dict[str, Any], *names: str) -> list[bytes]:
    return [json.dumps(content[name]).encode() for name in names if isinstance(content.get(name), dict)]


# --- providers' answers ------------------------------------------------------------------------------


def _bodies() -> Iterable[Target]:
    for dialect in DIALECTS:
        yield Target(f"answer_{dialect.name}", _answer(dialect), _inputs(dialect.name))


def _answer(dialect: Dialect) -> Callable[[bytes], object]:
    def attempt(data: bytes) -> object:
        whole = run(dialect.decoder(), [data])
        pieces = random_pieces(data, random.Random(len(data)))
        cut = run(dialect.decoder(), pieces)
        assert cut.events == whole.events
        assert (cut.error is None) == (whole.error is None)
        events = [*whole.events]
        if whole.error is None:
            events.append(Closed("completed"))
        else:
            # As a run ends it: what a provider said stands in the error.
            code, message = whole.error.code, whole.error.message
            events.append(Closed("failed", code=code, message=message, fault="upstream"))
            if isinstance(whole.error, WireError):
                assert whole.error.status == 502
        lines = [encode_line(number, event) for number, event in enumerate(events, 1)]
        for event, line in zip(events, lines, strict=True):
            assert not {10, 13} & set(line)
            assert decode_line(line) == event
        for face in FACES:
            _encode(face.encoder(ANSWER), events, lines)
        _encode(GeminiEncoder(ANSWER, array=True), events, lines, json_data=False)
        if whole.error is None:
            for face in FACES:
                json.loads(face.render_answer(ANSWER, events))
        code = whole.error.code if whole.error else ""
        return (*sorted({type(event).__name__ for event in events}), code)

    return attempt


def _encode(
    encoder: Any, events: Sequence[AnyEvent], lines: Sequence[bytes], *, json_data: bool = True
) -> None:
    for event, line in zip(events, lines, strict=True):
        for name, data in encoder.encode(event, line):
            assert not {0, 10, 13} & set(name)
            if json_data and data != b"[DONE]":
                json.loads(data)


def _refusals() -> Iterable[Target]:
    bodies = [
        b'{"error":{"message":"m","type":"t","code":"c","param":"p"}}',
        b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}',
        b'[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":'
        b'"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.5s"}]}}]',
        b'{"error":"m"}',
        b"<html>Bad gateway</html>",
        b'{"detail":[{"loc":["body","x"],"msg":"m"}]}',
        b'{"code":"DataInspectionFailed","message":"m","request_id":"r"}',
    ]
    for dialect in DIALECTS:

        def attempt(data: bytes, dialect: Dialect = dialect) -> object:
            line, _, body = data.partition(b"\n")
            status = 400 + sum(line) % 200
            headers = {"retry-after": line.decode("latin-1"), "retry-after-ms": line.decode("latin-1")}
            error = dialect.parse_error(status, headers, body)
            assert isinstance(error, UpstreamError)
            assert 400 <= error.status < 600
            for face in FACES:
                json.loads(face.render_error(error))
            return error.code, error.status, error.retryable, error.retry_after is None

        yield Target(f"refusal_{dialect.name}", attempt, [b"3\n" + body for body in bodies])


def _framing(decoder: Callable[[], Any]) -> Callable[[bytes], object]:
    def everything(pieces: Iterable[bytes]) -> tuple[list[Any], str]:
        made = decoder()
        frames: list[Any] = []
        try:
            for piece in pieces:
                frames += made.feed(piece)
            frames += made.flush(lenient=True) if decoder is SseDecoder else made.flush()
        except WireError as error:
            return frames, error.code
        return frames, ""

    def attempt(data: bytes) -> object:
        whole = everything([data])
        assert everything(random_pieces(data, random.Random(len(data)))) == whole
        return min(len(whole[0]), 3), whole[1]

    return attempt


def _inputs(folder: str) -> list[bytes]:
    found = []
    for path in sorted((VECTORS / folder).glob("*.json")):
        content = json.loads(path.read_bytes())
        if (encoded := content.get("input_base64")) is not None:
            found.append(base64.b64decode(encoded))
        elif "input" in content:
            found.append(content["input"].encode())
    return found


# --- what stands in addresses, headers, sockets and files ---------------------------------------------


_CURSORS: Final = [
    b"s_0001ARZ3NDEKTSV4RRFFQ69G5FAV~0000000000000007",
    b"s_0001ARZ3NDEKTSV4RRFFQ69G5FAV~0001000000000007.12",
    b"s_0001ARZ3NDEKTSV4RRFFQ69G5FAV~now",
    b"12",
    b"-1",
    b"now",
]


def _cursor(data: bytes) -> object:
    try:
        cursor = parse_cursor(data.decode("latin-1"))
    except ValueError:
        return "refused"
    if cursor.stream:  # what is printed is always the full form
        assert parse_cursor(str(cursor)) == cursor
    return bool(cursor.stream), cursor.position is None


def _messages(folder: str) -> list[bytes]:
    paths = sorted((VECTORS / "websocket" / folder).glob("*.json"))
    return [json.loads(path.read_bytes())["text"].encode() for path in paths]


def _envelope(data: bytes) -> object:
    try:
        message = envelope.decode_client(data)
    except ClientError as error:
        assert isinstance(envelope.rid_of(data), str)
        return error.code
    assert envelope.decode_client(envelope.encode(message)) == message
    return type(message).__name__


def _envelope_server(data: bytes) -> object:
    try:
        message = envelope.decode_server(data)
    except ValueError:
        return "refused"
    return type(message).__name__


def _lines() -> list[bytes]:
    found = []
    for path in sorted((VECTORS / "openai_chat").glob("*.json")):
        events = json.loads(path.read_bytes()).get("events", [])
        made = msgspec.convert(events, list[AnyEvent])
        found += [encode_line(number, event) for number, event in enumerate(made, 1)]
    return found


def _log_line(data: bytes) -> object:
    verifier = Verifier()
    events = [verifier.feed(line) for line in data.split(b"\n")]
    return tuple(sorted({type(event).__name__ for event in events})), verifier.verdict().good


def _configurations() -> list[bytes]:
    pages = Path(__file__).resolve().parents[2] / "docs" / "guide"
    found = []
    for path in sorted(pages.glob("*.md")):
        found += [block.partition("```")[0].encode() for block in path.read_text().split("```yaml\n")[1:]]
    return found


def _no_files(path: str) -> str:
    raise ValueError("is not read here")


def _config(data: bytes) -> object:
    try:
        text = config_text.read_text(data.decode(), Config, {"X": "x"}, _no_files)
        made = msgspec.convert(text.value, Config, strict=False)
    except (config_text.NotYaml, msgspec.ValidationError, UnicodeDecodeError) as error:
        return type(error).__name__
    try:
        problems = check(made)
    except BadConfig:
        return "bad"
    str(problems), str(text.faults), repr(made)
    return tuple(sorted({problem.where.partition(".")[0] for problem in problems}))[:3]


_HEADERS: Final = [
    b"0000000000000007_0000000000000123\n3600\n2031-01-31T12:00:00Z\n17",
    b"-1\n0\n2031-01-31T12:00:00+01:00\n",
    b"now\n9999999999999999\n0001-01-01T00:00:00Z\n0",
]


def _durable_streams(data: bytes) -> object:
    offset, ttl, until, cursor = [*data.decode("latin-1").split("\n"), "", "", "", ""][:4]
    outcome = []
    for read in (
        lambda: durable_streams.parse_offset(offset),
        lambda: durable_streams.parse_number(ttl, "Stream-TTL"),
        lambda: durable_streams.render_time(durable_streams.parse_time(until, "Stream-Expires-At")),
    ):
        try:
            outcome.append(read() is None)
        except ClientError as error:
            outcome.append(error.code)
    assert durable_streams.cursor(cursor, 1_790_000_000.0, 7).isdigit()
    return tuple(outcome)


_CREDENTIALS: Final = [
    b"Bearer " + jwt.encode({"iss": "i", "sub": "s", "exp": 4_000_000_000}, SECRET, "HS256").encode(),
    b"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJzIn0.",
    b"Bearer pt_W10." + b"A" * 43,
    b"read.4000000000." + b"A" * 43,
    b"penstock.key.abc, x",
    b"bearer sk-x",
]


def _credential() -> Callable[[bytes], object]:
    settings = IssuerSettings("i", algorithms=("HS256",), issuer="i", secret=SECRET)
    issuers = Issuers([Issuer(settings, httpx.AsyncClient, clock=lambda: 0.0, wall=lambda: 1_790_000_000.0)])
    tokens = BrowserTokens(lambda: b"secret", lambda: 1_790_000_000.0)
    links = Links(lambda: b"secret", lambda: 1_790_000_000.0)

    def attempt(data: bytes) -> object:
        said = data.decode("latin-1")
        headers = {"authorization": said, "sec-websocket-protocol": said}
        token = presented(headers)
        outcome: list[object] = [bool(token)]
        for admit in (
            lambda: asyncio.run(issuers.admit(token)),
            lambda: tokens.admit(token),
            lambda: links.admit(said, ANSWER.stream, "read"),
        ):
            try:
                admit()
                outcome.append("in")
            except ClientError as error:
                assert error.status in (401, 403, 404)  # noqa: PT017
                outcome.append(error.code)
        return tuple(outcome)

    return attempt


_PATTERNS: Final = [
    rb"\b(?:secret|key)-[0-9]{4,12}\b",
    rb"(?<=a)b{1,3}(?!c)",
    rb"[^\W\d_]{2,40}@[a-z]{1,20}\.[a-z]{2,6}",
    rb"(?P<a>x)(?P=a)",
    rb"(?i:x)|\d{3}-\d{4}",
    b"\xe5\x9b\xbd{1,3}",
]


def _pattern(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    try:
        pattern = compile_pattern(text)
    except BadPattern as error:
        return str(error)[:20]
    return pattern.width


def _origin(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    try:
        pattern = compile_origins([text])
    except ValueError:
        return "refused"
    if text != "*":
        assert not pattern.fullmatch("https://evil.test/" + text)
        assert not pattern.fullmatch("https://evil.test")
    return pattern.pattern.count("[")


_FORWARDED: Final = [
    b"203.0.113.7, 10.0.0.1\nhttps\nfor=203.0.113.7;proto=https",
    b'[2001:db8::1]:443\nhttp\nFor="[2001:db8::1]:1", for=_x',
    b"unknown\n\nfor=unknown",
]


def _forwarded(data: bytes) -> object:
    given, proto, standard = [*data.split(b"\n"), b"", b"", b""][:3]
    names = (b"x-forwarded-for", b"x-forwarded-proto", b"forwarded")
    headers = [pair for pair in zip(names, (given, proto, standard), strict=True) if pair[1]]
    scope = {"type": "http", "client": ("10.0.0.1", 1), "scheme": "http", "headers": headers}
    apply(scope, [parse_network("10.0.0.0/8")])
    parse_network(str(scope["client"][0]))
    assert scope["scheme"] in ("http", "https")
    return str(scope["client"][0]).startswith("10."), scope["scheme"]


# --- a gateway that serves -------------------------------------------------------------------------------


def _served() -> Iterable[Target]:
    """Bytes of a connection; frames behind a handshake; messages, a line each, in frames that are right."""
    http, frames, messages = Served(), Served(), Served()
    said = [text.replace(b"s_0001ARZ3NDEKTSV4RRFFQ69G5FAV", b"s_x") for text in _messages("client")]
    yield Target("http", lambda data: http_outcome(http.answer(data)), requests(), http.close)
    yield Target(
        "websocket_frames",
        lambda data: websocket_outcome(frames.answer(UPGRADE + data)),
        [message(text) for text in said],
        frames.close,
    )
    yield Target(
        "websocket_messages",
        lambda data: websocket_outcome(messages.answer(UPGRADE + b"".join(map(message, data.split(b"\n"))))),
        [*said, b"\n".join(said)],
        messages.close,
    )
