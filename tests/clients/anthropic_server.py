"""An Anthropic of the test's own: its routes, events, statuses and words, and its ways to go wrong.

It refuses what Anthropic refuses, as far as a gateway could get it wrong. The forms were taken from
Anthropic's SDKs and docs; its own SDK judges them (`test_anthropic_upstream`). A body is cut into chunks
anywhere, as the kernel and proxies do. What a model does is in its name (`MODELS`). It counts its requests
and notices who leaves.
"""

import json
import random
import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from tests.clients.mortal import MortalServer

KEY = "sk-ant-geheim-0123456789"
SIGNATURE = "EqQBCkYIBhgCKkA="
PACE = 0.005
PAGE = 4

MODELS = (
    *("claude-echo", "claude-thinker", "claude-caller", "claude-searcher", "claude-refuser"),
    *("claude-endless", "claude-pausing", "claude-slow", "claude-whole"),
    *("claude-breaks", "claude-truncates", "claude-resets", "claude-limited", "claude-overloaded"),
    *("claude-3-5-old", "claude-poor"),
)


@dataclass
class Asked:
    """One request. ``left`` is set when the other side closes before the answer is whole."""

    path: str
    body: dict
    headers: dict
    left: threading.Event = field(default_factory=threading.Event)


class _Refused(Exception):
    def __init__(self, status: int, kind: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers


class _Left(Exception):
    """The client has gone."""


class _Cut(Exception):
    """The server dies in mid-answer."""


def _bad(message: str) -> _Refused:
    return _Refused(400, "invalid_request_error", message)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        url = urlsplit(self.path)
        try:
            self._let_in()
            if url.path == "/left":
                self._json(200, [asked.left.is_set() for asked in self.server.asked])
            elif url.path == "/v1/models":
                self._json(200, self._page(parse_qs(url.query)))
            else:
                raise _Refused(404, "not_found_error", "Not found")
        except _Refused as refused:
            self._refuse(refused)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.path, body, headers)
        self.server.asked.append(asked)
        try:
            self._let_in()
            self._check(body)
            if self.path == "/v1/messages/count_tokens":
                self._json(200, {"input_tokens": self._count(body)})
                return
            if self.path != "/v1/messages":
                raise _Refused(404, "not_found_error", "Not found")
            if not isinstance(body.get("max_tokens"), int):
                raise _bad("max_tokens: Field required")
            self._answer(asked)
        except _Refused as refused:
            self._refuse(refused)
        except _Left:
            asked.left.set()
            self.close_connection = True
        except _Cut:
            self.close_connection = True

    # what is refused before anything is said

    def _let_in(self) -> None:
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        if self.path != "/left" and KEY not in (self.headers.get("x-api-key"), bearer):
            raise _Refused(401, "authentication_error", "invalid x-api-key")
        if self.path != "/left" and not self.headers.get("anthropic-version"):
            raise _bad("anthropic-version: header is required")

    def _check(self, body: dict) -> None:
        model = body.get("model")
        if model not in MODELS:
            raise _Refused(404, "not_found_error", f"model: {model}")
        if model == "claude-limited":
            raise _Refused(429, "rate_limit_error", "Too fast.", **{"retry-after": "7"})
        if model == "claude-overloaded":
            raise _Refused(529, "overloaded_error", "Overloaded")
        if model == "claude-poor":
            raise _Refused(402, "billing_error", "Your credit balance is too low.")
        new = self.headers.get("anthropic-version") == "2026-10-21" or not model.startswith("claude-3")
        for name in ("temperature", "top_p", "top_k"):
            if new and name in body:
                raise _bad(f"{name}: Extra inputs are not permitted")
        if body.get("temperature", 0) > 1:
            raise _bad("temperature: range: 0..1")
        unknown = set(body) - FIELDS
        if unknown:
            raise _bad(f"{unknown.pop()}: Extra inputs are not permitted")
        self._check_thinking(body, model)
        if body.get("tool_choice") and not body.get("tools"):
            raise _bad("tool_choice: may only be specified while providing tools")
        _check_messages(body.get("messages"))

    @staticmethod
    def _check_thinking(body: dict, model: str) -> None:
        thinking = body.get("thinking") or {}
        forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
        if thinking.get("type") in ("enabled", "adaptive") and forced:
            raise _bad("Thinking may not be enabled when tool_choice forces tool use.")
        if thinking.get("type") == "enabled" and not model.startswith("claude-3"):
            raise _bad('"thinking.type.enabled" is not supported for this model.')
        if thinking.get("type") == "adaptive" and model.startswith("claude-3"):
            raise _bad("adaptive thinking is not supported on this model")

    # what is said

    def _answer(self, asked: Asked) -> None:
        body = asked.body
        if not body.get("stream"):
            raise _bad("this server only streams")  # a gateway always does
        if body["model"] == "claude-slow":
            while not self.server.ready.is_set():
                self._pause(PACE)
        if body["model"] == "claude-whole":
            self._json(200, _whole(body, self._count(body)))
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("request-id", "req_011")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        rng = random.Random(len(self.server.asked))
        for event in self._events(body):
            if isinstance(event, float):
                self._pause(event)
                continue
            data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
            self._say(rng, f"event: {event['type']}\ndata: {data}\n\n".encode())
        if body["model"] == "claude-resets":
            raise _Cut
        self._write(b"0\r\n\r\n")

    def _events(self, body: dict) -> Iterator[dict | float]:
        model = body["model"]
        count = self._count(body)
        usage = {"input_tokens": count, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5}
        usage |= {"output_tokens": 1, "service_tier": "standard"}
        message = {"id": "msg_up", "type": "message", "role": "assistant", "model": f"{model}-20260101"}
        message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        yield {"type": "message_start", "message": message}
        said, reason, delta = 0, "end_turn", {}
        for index, block in enumerate(self._blocks(body)):
            start, deltas = block
            yield {"type": "content_block_start", "index": index, "content_block": start}
            if index == 0:
                yield {"type": "ping"}
            for piece in deltas:
                if isinstance(piece, float):
                    yield piece
                    continue
                said += 1
                yield {"type": "content_block_delta", "index": index, "delta": piece}
                if said == body["max_tokens"]:
                    reason = "max_tokens"
                    break
            if model == "claude-breaks":
                yield {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
                return
            if model in ("claude-truncates", "claude-resets"):
                return
            yield {"type": "content_block_stop", "index": index}
            if start["type"] == "tool_use":
                reason = "tool_use"
        if model == "claude-refuser":
            reason = "refusal"
            delta = {"stop_details": {"type": "refusal", "category": "cyber", "explanation": "no"}}
        delta = {"stop_reason": reason, "stop_sequence": None, **delta}
        yield {
            "type": "message_delta",
            "delta": delta,
            "usage": {"output_tokens": said, "input_tokens": count},
        }
        yield {"type": "message_stop"}

    def _blocks(self, body: dict) -> Iterator[tuple[dict, Iterator]]:
        text = {"type": "text", "text": ""}
        words = re.findall(r"\s*\S+", _heard(body))
        results = _results(body["messages"][-1])
        match body["model"]:
            case "claude-thinker" | "claude-3-5-old" if (body.get("thinking") or {}).get("type") in (
                "adaptive",
                "enabled",
            ):
                thought = [{"type": "thinking_delta", "thinking": piece} for piece in ("Let me", " see.")]
                thought.append({"type": "signature_delta", "signature": SIGNATURE})
                yield {"type": "thinking", "thinking": "", "signature": ""}, iter(thought)
                yield {"type": "redacted_thinking", "data": "EmwKAhgB"}, iter(())
                yield text, _text(words)
            case "claude-caller" if results:
                yield text, _text([f"{id_}={said};" for id_, said in results])
            case "claude-caller":
                yield text, _text(["Let me look."])
                parallel = not (body.get("tool_choice") or {}).get("disable_parallel_tool_use")
                for number, city in enumerate(("Paris", "Łódź")[: 2 if parallel else 1]):
                    name = body["tools"][0]["name"]
                    call = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
                    yield call, _input({"city": city, "days": 2})
            case "claude-searcher":
                search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
                yield search, _input({"query": "x"})
                found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
                yield found, iter(())
                citation = {"type": "char_location", "cited_text": "x", "document_index": 0}
                citation |= {"document_title": None, "start_char_index": 0, "end_char_index": 1}
                cited = [*_text(["Found."]), {"type": "citations_delta", "citation": citation}]
                yield text, iter(cited)
            case "claude-endless":
                yield text, _forever()
            case "claude-pausing":
                yield text, iter([*_text(["before"]), 0.5, *_text([" after"])])
            case _:
                yield text, _text(words)

    @staticmethod
    def _count(body: dict) -> int:
        return 10 + len(re.findall(r"\w+", json.dumps(body["messages"])))

    def _page(self, query: dict) -> dict:
        self.server.lists += 1
        start = MODELS.index(query["after_id"][0]) + 1 if "after_id" in query else 0
        names = MODELS[start : start + PAGE]
        data = [
            {"type": "model", "id": name, "display_name": name.title(), "created_at": "2026-01-02T00:00:00Z"}
            for name in names
        ]
        more = start + PAGE < len(MODELS)
        return {"data": data, "has_more": more, "first_id": names[0], "last_id": names[-1]}

    # how it is sent

    def _say(self, rng: random.Random, data: bytes) -> None:
        cuts = sorted(rng.sample(range(1, len(data)), k=min(rng.randrange(4), len(data) - 1)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self._write(b"%x\r\n%b\r\n" % (end - start, data[start:end]))

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except ConnectionError:
            raise _Left from None

    def _pause(self, seconds: float) -> None:
        readable, _, _ = select.select([self.connection], [], [], seconds)
        try:
            gone = bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except ConnectionError:
            gone = True
        if gone or self.server.stopping:
            raise _Left

    def _refuse(self, refused: _Refused) -> None:
        error = {"type": refused.kind, "message": refused.message}
        body = {"type": "error", "error": error, "request_id": "req_011"}
        self._json(refused.status, body, **refused.headers)

    def _json(self, status: int, body: object, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


FIELDS = {
    *("model", "messages", "max_tokens", "stream", "system", "temperature", "top_p", "top_k"),
    *("stop_sequences", "tools", "tool_choice", "thinking", "output_config", "metadata"),
    *("service_tier", "cache_control", "container", "context_management"),
}


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise _bad("messages: at least one message is required")
    if messages[0]["role"] != "user":
        raise _bad("messages: first message must use the user role")
    for number, message in enumerate(messages):
        blocks = message["content"]
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        if not blocks:
            raise _bad(f"messages.{number}: all messages must have non-empty content")
        for block in blocks:
            if block["type"] == "text" and not block["text"].strip():
                raise _bad("messages: text content blocks must contain non-whitespace text")
            if block["type"] == "thinking" and block.get("signature") != SIGNATURE:
                raise _bad("messages: Invalid `signature` in `thinking` block")
            if block["type"] == "tool_use" and not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]):
                raise _bad("messages: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        if message["role"] == "assistant":
            _check_results(messages, number, blocks)
    last = messages[-1]
    text = last["content"] if isinstance(last["content"], str) else last["content"][-1].get("text", "")
    if last["role"] == "assistant" and text != text.rstrip():
        raise _bad("messages: final assistant content cannot end with trailing whitespace")


def _check_results(messages: list, number: int, blocks: list) -> None:
    """Each call is answered in the next turn, before anything else is said there."""
    wanted = [block["id"] for block in blocks if block["type"] == "tool_use"]
    following = messages[number + 1]["content"] if number + 1 < len(messages) else []
    first = [b.get("tool_use_id") for b in following if isinstance(b, dict)][: len(wanted)]
    if wanted and sorted(map(str, first)) != sorted(wanted):
        raise _bad("messages: `tool_use` ids were found without `tool_result` blocks immediately after")


def _heard(body: dict) -> str:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(block["text"] for block in content if block["type"] == "text")


def _results(message: dict) -> list[tuple[str, str]]:
    blocks = message["content"] if isinstance(message["content"], list) else []
    found = [block for block in blocks if block["type"] == "tool_result"]
    return [(block["tool_use_id"], json.dumps(block.get("content"))) for block in found]


def _text(words: list[str]) -> Iterator[dict]:
    return ({"type": "text_delta", "text": word} for word in words)


def _input(value: dict) -> Iterator[dict]:
    text = json.dumps(value, ensure_ascii=False)
    cut = ["", text[:5], text[5:]]
    return ({"type": "input_json_delta", "partial_json": piece} for piece in cut)


def _forever() -> Iterator[dict | float]:
    number = 0
    while True:
        number += 1
        yield PACE
        yield {"type": "text_delta", "text": f"{number} "}


def _whole(body: dict, count: int) -> dict:
    """A whole message where a stream was asked for, as some proxies answer."""
    block = {"type": "text", "text": _heard(body)}
    message = {"id": "msg_up", "type": "message", "role": "assistant", "model": body["model"]}
    message |= {"content": [block], "stop_reason": "end_turn", "stop_sequence": None}
    return message | {"usage": {"input_tokens": count, "output_tokens": 3}}


class Anthropic(MortalServer):
    """See the module's head. ``claude-slow`` says nothing before ``ready`` is set; ``lists`` counts pages."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.asked: list[Asked] = []
        self.lists = 0
        self.ready = threading.Event()

    @property
    def url(self) -> str:
        """What ANTHROPIC_BASE_URL would say."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running() -> Iterator[Anthropic]:
    """Run an Anthropic."""
    with Anthropic() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()
