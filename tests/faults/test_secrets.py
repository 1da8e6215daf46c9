"""Secrets and prompts are planted wherever they can come in, what can break is broken, and everything that
the gateway and its commands have written is searched for them.

The provider here is one that echoes: its refusals quote the key that it was sent and what it was asked.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import httpx
import jwt
import pytest
from websockets.sync.client import connect

from tests.clients.gateway import PATIENCE, Gateway, wait_for

CLIENT_KEY = "planted-client-key-0001"
ADMIN_KEY = "planted-admin-key-0002"
WRONG_KEY = "sk-planted-wrong-key-000000003"
PROVIDER_KEY = "planted-provider-key-0004"
PROVIDER_HEADER = "planted-header-secret-0005"
JWT_SECRET = "planted-jwt-secret-0006-0123456789abcdef"
LEDGER_PASSWORD = "planted-ledger-password-0007"
HOOK_SECRET = "planted-hook-secret-0008"
PROMPT = "planted prompt: the fox is in the henhouse"
ANSWER = "planted answer: send the dog"
ARGUMENT = "planted argument: henhouse"

SECRETS = {
    "client key": CLIENT_KEY,
    "admin key": ADMIN_KEY,
    "wrong key": WRONG_KEY,
    "provider key": PROVIDER_KEY,
    "provider header": PROVIDER_HEADER,
    "JWT secret": JWT_SECRET,
    "ledger password": LEDGER_PASSWORD,
    "hook secret": HOOK_SECRET,
}
QUESTION = "planted question: who is in the henhouse"
WORDS = {"prompt": PROMPT, "question": QUESTION, "answer": ANSWER, "argument": ARGUMENT}


class _Echo(BaseHTTPRequestHandler):
    """A provider that fails as the model's name says, and says whose request it was."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        said = f"Incorrect: {self.headers['authorization']} {self.headers['x-secret']} asked {body}"
        error = {"message": said, "type": "invalid_request_error", "code": said}
        match json.loads(body)["model"]:
            case "refuse":
                self._answer(401, json.dumps({"error": error}))
            case "limited":
                self._answer(400, json.dumps({"error": said}))
            case "page":
                self._answer(502, f"<html><body>{said}</body></html>", "text/html")
            case "garbage":
                self._answer(200, f"data: {{{said}\n\n", "text/event-stream")
            case "error":
                self._answer(
                    200, self._chunks() + f"data: {json.dumps({'error': error})}\n\n", "text/event-stream"
                )
            case "cut":
                self._answer(200, self._chunks(), "text/event-stream")
            case "tools":
                call = {
                    "id": "c",
                    "index": 0,
                    "function": {"name": "look", "arguments": json.dumps(ARGUMENT)},
                }
                self._answer(
                    200,
                    self._chunks({"tool_calls": [call]})
                    + self._chunks({}, "tool_calls")
                    + "data: [DONE]\n\n",
                    "text/event-stream",
                )
            case _:
                self._answer(
                    200, self._chunks() + self._chunks({}, "stop") + "data: [DONE]\n\n", "text/event-stream"
                )

    do_GET = do_DELETE = lambda self: self._answer(404, json.dumps({"error": self.headers["authorization"]}))

    def _chunks(self, delta=None, finish=None) -> str:
        choice = {"index": 0, "delta": delta if delta is not None else {"content": ANSWER}}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**chunk, 'choices': [{**choice, 'finish_reason': finish}]})}\n\n"

    def _answer(self, status: int, text: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("x-echo", self.headers["authorization"])
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@contextmanager
def echoing():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def settings(url: str) -> dict:
    return {
        "log": {"level": "debug"},
        "keys": {"app": CLIENT_KEY, "root": {"key": ADMIN_KEY, "admin": True}},
        "jwt": {"issuer": {"algorithms": ["HS256"], "secret": JWT_SECRET, "issuer": "test"}},
        "providers": {
            "mirror": {
                "base_url": url,
                "api_key": PROVIDER_KEY,
                "headers": {"x-secret": PROVIDER_HEADER},
            }
        },
        "models": {"*": [{"provider": "mirror", "tries": 1}]},
        "retry": {"base_delay": 0.01},
        "alerts": {
            "send": {"ops": f"json://127.0.0.1:1/{HOOK_SECRET}"},
            "rules": {"errors": {"when": "error_rate", "least": 1, "window": 60, "after": 0}},
        },
    }


MODELS = ["good", "refuse", "limited", "page", "garbage", "error", "cut", "tools"]
REFUSING = ("refuse", "limited", "page")


def asked(model: str, stream: bool) -> list[tuple[str, dict]]:
    """Return a request of each dialect. A question is answered; a prompt is quoted in errors as well."""
    words = QUESTION if model == "good" else PROMPT
    chat = {"model": model, "messages": [{"role": "user", "content": words}], "stream": stream}
    contents = {"contents": [{"role": "user", "parts": [{"text": words}]}]}
    said = {"id": "m", "role": "user", "parts": [{"type": "text", "text": words}]}
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return [
        ("/v1/chat/completions", chat),
        ("/v1/completions", {"model": model, "prompt": words, "stream": stream}),
        ("/v1/messages", {**chat, "max_tokens": 100}),
        ("/v1/responses", {"model": model, "input": words, "stream": stream}),
        (f"/v1beta/models/{model}:{method}", contents),
        ("/api/chat", chat),
        ("/api/generate", {"model": model, "prompt": words, "stream": stream}),
        ("/v1/streams", {"request": chat, "metadata": {"title": "x"}}),
        ("/ui/chat", {"id": f"c-{model}", "model": model, "messages": [said]}),
        # Bodies of these are passed on as they are, when they are no errors.
        *([("/v1/embeddings", {"model": model, "input": words})] if model in REFUSING else []),
    ]


def token(**claims) -> str:
    return jwt.encode({"sub": "ada", "iss": "test", **claims}, JWT_SECRET, "HS256")


def drive(gateway: Gateway, models: list[str]) -> tuple[list[str], list[str]]:
    """Ask in every way; return what was answered, and the secrets that were made."""
    answers, made = [], []
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE) as client:

        def ask(method: str, path: str, key: str | None = CLIENT_KEY, **how) -> httpx.Response | None:
            headers = {**({"authorization": f"Bearer {key}"} if key else {}), **how.pop("headers", {})}
            try:
                response = client.request(method, path, headers=headers, **how)
            except httpx.RemoteProtocolError:  # an answer that broke off
                return None
            answers.append(f"{response.headers}\n{response.text}")
            return response

        for number, model in enumerate(models):
            for path, body in asked(model, stream=bool(number % 2)):
                ask("POST", path, json=body)
            ask("GET", f"/stream?model={model}&content={quote(PROMPT)}")
        body = asked("good", stream=False)[0][1]
        good, old = token(exp=time.time() + 600), token(exp=1)
        made += [good, old]
        for key in (good, old, WRONG_KEY, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0." + "planted" * 6):
            ask("POST", "/v1/chat/completions", key, json=body)
        for name in ("x-api-key", "api-key", "x-goog-api-key"):
            ask("POST", "/v1/messages", None, headers={name: WRONG_KEY}, json=body)
        ask("GET", f"/v1beta/models?key={WRONG_KEY}", None)
        ask("GET", f"/v1/streams/s_x/events?token=read.1.{WRONG_KEY}", None)
        ask(
            "POST", "/v1/chat/completions", content=b"{" + PROMPT.encode(), headers={"content-type": "text/x"}
        )
        ask("POST", "/v1/chat/completions", json={**body, "temperature": PROMPT, PROMPT: 1})
        ask("POST", f"/nothing/{WRONG_KEY}", content=PROMPT)
        ask("GET", "/v1/files", ADMIN_KEY)
        page = ask("POST", "/v1/tokens", json={"user": "eve"}).json()["token"]
        minted = ask("POST", "/v1/admin/keys", ADMIN_KEY, json={"name": "robot"}).json()["key"]
        ask("POST", "/v1/chat/completions", page, json=body)
        ask("POST", "/v1/chat/completions", minted, json=body)
        made += [page, minted]
        created = client.post(
            "/v1/streams",
            json={"request": body},
            headers={"authorization": f"Bearer {CLIENT_KEY}", "prefer": "respond-async"},
        ).json()["stream"]
        link = ask("POST", f"/v1/streams/{created}/links", json={"scope": "read"}).json()["token"]
        made.append(link)
        ask("GET", f"/v1/streams/{created}/events?token={link}", None)
        ask("GET", "/metrics", ADMIN_KEY)
        ask("GET", "/v1/admin/usage", ADMIN_KEY)
        with connect(
            f"ws://127.0.0.1:{gateway.port}/v1/ws", subprotocols=[f"penstock.key.{CLIENT_KEY}"], proxy=None
        ) as ws:
            ws.send(json.dumps({"type": "start", "rid": "1", "request": asked("error", True)[0][1]}))
            answers.append(str(ws.recv(timeout=PATIENCE)))
            ws.send(PROMPT)
            answers.append(str(ws.recv(timeout=PATIENCE)))
    return [answer for answer in answers if not any(one in answer for one in made)], made


def found(text: str, planted: dict[str, str]) -> list[str]:
    """Say which of ``planted`` stand in ``text``, in any form."""

    def forms(value: str) -> list[str]:
        coded = base64.b64encode(value.encode()).decode().rstrip("=")
        return [value, quote(value), json.dumps(value)[1:-1], coded]

    return [name for name, value in planted.items() if any(form in text for form in forms(value))]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a gateway with planted secrets has answered and written in two lives, the first of which was
    killed, and what the commands have said meanwhile."""
    folder = tmp_path_factory.mktemp("planted")
    with echoing() as url:
        gateway = Gateway(folder, settings(url))
        try:
            gateway.start()
            answers, made = drive(gateway, MODELS)
            wait_for(lambda: gateway.log("library"))  # Apprise says that it could not send
            gateway.restart()
            more, also = drive(gateway, MODELS[:1])
            gateway.stop()
        finally:
            gateway.kill()
        return {
            "answers": answers + more,
            "made": {f"made {n}": value for n, value in enumerate(made + also)},
            "log": gateway.log_file.read_text(),
            "greeting": (folder / "greeting.txt").read_text(),
            "commands": commands(folder, url),
            "data": b"".join(p.read_bytes() for p in (folder / "data").rglob("*") if p.is_file()),
        }


def commands(folder, url: str) -> str:
    """Return all that commands say, where the ledger cannot be reached and settings are wrong."""
    ledger = {"ledger": {"url": f"postgresql://penstock:{LEDGER_PASSWORD}@127.0.0.1:1/penstock"}}
    (folder / "lost.yaml").write_text(json.dumps(settings(url) | ledger))
    (folder / "wrong.yaml").write_text(
        json.dumps({"keys": {"app": CLIENT_KEY, "twin": CLIENT_KEY}, "provider": {"api_key": PROVIDER_KEY}})
    )
    said = [
        ["check-config", "lost.yaml", "--json"],
        ["check-config", "wrong.yaml"],
        ["serve", "--port", "0", "--config", "lost.yaml"],
        ["usage", "--config", "lost.yaml"],
        ["keys", "list", "--config", "lost.yaml"],
        ["models", "--url", "http://127.0.0.1:1", "--key", WRONG_KEY],
    ]
    environ = {**os.environ, "PENSTOCK_DATA": str(folder / "other"), "OLLAMA_HOST": "127.0.0.1:1"}

    def one(words: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *words],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        return done.stdout + done.stderr

    with ThreadPoolExecutor(2) as pool:
        return "\n".join(pool.map(one, said))


def test_the_log_has_no_secret_and_no_words(run):
    assert run["log"].count('"event":"request"') > 50
    assert '"event":"alert_fires"' in run["log"]
    assert '"event":"library"' in run["log"]
    assert found(run["log"], SECRETS | WORDS | run["made"]) == []


def test_what_is_printed_has_none(run):
    assert "The configuration" in run["commands"] or "configuration" in run["commands"]
    assert found(run["greeting"] + run["commands"], SECRETS | WORDS | run["made"]) == []


def test_no_answer_tells_whoever_asks_what_is_the_gateways(run):
    planted = {name: value for name, value in SECRETS.items() if name != "wrong key"}
    for answer in run["answers"]:
        assert found(answer, planted) == [], answer


def test_at_rest_there_are_answers_and_neither_prompts_nor_keys(run):
    data = run["data"].decode("utf-8", "replace")
    assert {"answer", "argument"} <= set(found(data, WORDS))
    assert found(data, {"question": QUESTION}) == []
    assert found(data, SECRETS | run["made"]) == []


def test_what_is_planted_would_be_found():
    for name, value in (SECRETS | WORDS).items():
        assert found(json.dumps({"said": f"<{value}>"}), SECRETS | WORDS) == [name]


def test_a_log_that_nobody_reads_holds_up_no_stream(tmp_path):
    gateway = Gateway(tmp_path / "stalled", {"store": {"kind": "memory"}, "log": {"level": "debug"}})
    os.mkfifo(gateway.log_file)
    reading = os.open(gateway.log_file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        gateway.start()
        with httpx.Client(base_url=gateway.url, timeout=PATIENCE) as client:
            for number in range(400):  # a pipe takes 64 KiB
                assert client.get(f"/nothing/{number}/{'x' * 190}").status_code == 404
            answer = client.get("/stream", params={"content": "still here", "model": "demo-echo"})
        assert answer.text.count("event: end") == 1 or "still" in answer.text
        os.set_blocking(reading, True)
        log = b""

        def told() -> bool:
            nonlocal log
            log += os.read(reading, 1 << 16)
            return b"/nothing/399/" in log and b"stream_closed" in log

        wait_for(told)
        assert log.count(b'"path":"/nothing/') == 400
    finally:
        gateway.kill()
        os.close(reading)
