"""Endpoints that are no generations, with OpenAI's Python SDK, in front of a provider of the test's own."""

import contextlib
import json
import re
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import openai
import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving, wait_for

PROVIDERS_KEY = "sk-the-providers-own"
CLIENTS_KEY = "a-client-of-ours"
ADMINS_KEY = "an-administrator-of-ours"
PIECE = b"x" * 65536


@dataclass
class Asked:
    """One request. ``left`` is set when the other side closed before the answer was whole."""

    method: str
    path: str
    headers: dict
    body: bytes = b""
    sent: int = 0
    left: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self._serve()

    do_GET = do_DELETE = do_POST

    def _serve(self):
        asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.server.asked.append(asked)
        if "held" in self.path:
            self.server.released.wait(PATIENCE)
        try:
            asked.body = self._body(asked)
        except ConnectionError:
            return
        if b"wrong" in asked.body:
            key = self.headers["authorization"].removeprefix("Bearer ")
            error = {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}
            self._answer(401, "application/json", json.dumps({"error": error}).encode())
        elif b"endless" in asked.body:
            self._stream(asked, None)
        elif b"cut" in asked.body:
            self._stream(asked, 3)
        elif "speech" in self.path or "content" in self.path:
            self._answer(200, "audio/mpeg", b"ID3" + bytes(100_000))
        else:
            said = {
                "path": self.path,
                "object": "list",
                "data": [],
                "model": "m",
                "text": "heard",
                "id": "f-1",
            }
            said |= {"usage": {"prompt_tokens": 1, "total_tokens": 1}, "created": 1, "deleted": True}
            self._answer(200, "application/json", json.dumps(said).encode())

    def _body(self, asked):
        if "content-length" in asked.headers:
            return self.rfile.read(int(asked.headers["content-length"]))
        body = b""
        if asked.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body

    def _answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("set-cookie", "a=b")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, asked, pieces):
        self.send_response(200)
        self.send_header("content-type", "audio/mpeg")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            while pieces is None or asked.sent < pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
                asked.sent += 1
        except OSError:
            asked.left.set()
        self.close_connection = True

    def log_message(self, *_):
        pass


class Provider(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = []
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def providing():
    with Provider() as provider:
        thread = threading.Thread(target=provider.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield provider
        finally:
            provider.released.set()
            provider.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def provider():
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider, upstream, tmp_path_factory):
    given = settings(upstream)
    given["providers"] = {
        "other": {"base_url": f"{provider.url}/v1", "api_key": PROVIDERS_KEY},
        **given["providers"],
    }
    given["models"] |= {
        "embedder": [{"provider": "other", "model": "text-embedding-3-small"}],
        "ears": [{"provider": "other", "model": "whisper-1"}],
        "voice": [{"provider": "other", "model": "tts-1"}],
    }
    with serving(tmp_path_factory.mktemp("relay"), {**given, "keys": {"app": CLIENTS_KEY}}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def open_gateway(provider, upstream, tmp_path_factory):
    given = settings(upstream)
    given["providers"] = {
        "other": {"base_url": f"{provider.url}/v1", "api_key": PROVIDERS_KEY},
        **given["providers"],
    }
    with serving(tmp_path_factory.mktemp("open"), given) as gateway:
        yield gateway


@pytest.fixture
def sdk(gateway):
    with openai.OpenAI(base_url=gateway.api, api_key=CLIENTS_KEY, max_retries=0, timeout=PATIENCE) as sdk:
        yield sdk


def test_a_request_goes_to_the_models_provider_with_the_gateways_key_and_not_the_clients(sdk, provider):
    sdk.embeddings.create(
        model="embedder", input="Hello", encoding_format="float", extra_headers={"Cookie": "c=d"}
    )
    asked = provider.asked[-1]
    assert asked.path == "/v1/embeddings"
    assert json.loads(asked.body) == {
        "model": "text-embedding-3-small",
        "input": "Hello",
        "encoding_format": "float",
    }
    assert asked.headers["authorization"] == f"Bearer {PROVIDERS_KEY}"
    assert CLIENTS_KEY not in f"{asked.headers}{asked.body}"
    assert not {"cookie", "x-stainless-lang", "forwarded"} & asked.headers.keys()


def test_embeddings_of_a_deployment_go_to_its_provider(gateway, provider):
    azure = {"azure_endpoint": gateway.api.removesuffix("/v1"), "api_version": "2024-10-21"}
    with openai.AzureOpenAI(**azure, api_key=CLIENTS_KEY, max_retries=0, timeout=PATIENCE) as client:
        client.embeddings.create(model="embedder", input="Hello", encoding_format="float")
    asked = provider.asked[-1]
    assert (asked.path, asked.headers["authorization"]) == ("/v1/embeddings", f"Bearer {PROVIDERS_KEY}")
    assert json.loads(asked.body)["model"] == "text-embedding-3-small"


def test_audio_comes_back_as_it_is(sdk, provider):
    spoken = sdk.audio.speech.create(model="voice", voice="alloy", input="Hello")
    assert spoken.content == b"ID3" + bytes(100_000)
    assert spoken.response.headers["content-type"] == "audio/mpeg"
    assert "set-cookie" not in spoken.response.headers
    assert json.loads(provider.asked[-1].body)["model"] == "tts-1"


def test_a_form_streams_through_with_its_model_renamed(sdk, provider):
    sound = bytes(range(256)) * 4096
    told = sdk.audio.transcriptions.create(model="ears", file=("a.wav", sound), language="en")
    assert told.text == "heard"
    asked = provider.asked[-1]
    assert asked.path == "/v1/audio/transcriptions"
    assert sound in asked.body
    assert re.search(rb'name="model"\r\n\r\nwhisper-1\r\n', asked.body)
    assert b"ears" not in asked.body
    assert int(asked.headers["content-length"]) == len(asked.body)


def test_a_form_of_unknown_length_streams_through(gateway, provider):
    whole = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nears\r\n--b\r\n'
    whole += (
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + bytes(300_000)
        + b"\r\n--b--\r\n"
    )

    def pieces():
        yield from (whole[at : at + 10_000] for at in range(0, len(whole), 10_000))

    headers = {"authorization": f"Bearer {CLIENTS_KEY}", "content-type": "multipart/form-data; boundary=b"}
    url = f"{gateway.api}/audio/transcriptions"
    assert httpx.post(url, content=pieces(), headers=headers, timeout=PATIENCE).status_code == 200
    assert provider.asked[-1].headers["transfer-encoding"] == "chunked"
    assert provider.asked[-1].body == whole.replace(b"ears", b"whisper-1")


def test_what_goes_wrong_is_said_in_openais_words_and_names_no_key(sdk, provider):
    with pytest.raises(openai.AuthenticationError) as caught:
        sdk.embeddings.create(model="embedder", input="wrong")
    assert PROVIDERS_KEY not in str(caught.value)
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.embeddings.create(model="nope", input="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model="demo", input="x")
    assert caught.value.code == "unsupported_endpoint"
    nameless = httpx.post(
        f"{sdk.base_url}audio/transcriptions",
        files={"file": b"x"},
        headers={"authorization": f"Bearer {CLIENTS_KEY}"},
    )
    assert (nameless.status_code, nameless.json()["error"]["param"]) == (400, "model")
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").embeddings.create(model="embedder", input="x")


def test_a_body_that_breaks_off_is_cut(gateway):
    headers = {"authorization": f"Bearer {CLIENTS_KEY}"}
    body = {"model": "voice", "input": "cut", "voice": "alloy"}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{gateway.api}/audio/speech", json=body, headers=headers, timeout=PATIENCE)


def test_a_client_that_does_not_read_holds_the_provider_and_one_that_leaves_stops_it(gateway, provider):
    body = json.dumps({"model": "voice", "input": "endless", "voice": "alloy"}).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CLIENTS_KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    count = len(provider.asked)
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(head.encode() + body)
        asked = wait_for(lambda: len(provider.asked) > count and provider.asked[count])
        wait_for(lambda: asked.sent > 3)
        held = wait_for(lambda: _stands_still(asked))
        assert held * len(PIECE) < 32 << 20
        assert not asked.left.is_set()
    wait_for(asked.left.is_set)


def _stands_still(asked):
    """How much was sent, once looking again and again shows no more."""
    before = asked.sent
    return before if not threading.Event().wait(0.3) and asked.sent == before else None


def test_a_provider_that_does_not_read_holds_the_client(open_gateway, provider):
    with socket.create_connection(("127.0.0.1", open_gateway.port)) as client:
        head = "POST /v1/files?held=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n"
        client.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode())
        client.settimeout(1.0)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += client.send(PIECE)
        assert sent < 50_000_000
    provider.released.set()


def test_files_are_for_everybody_without_keys_and_else_for_administrators(open_gateway, sdk, provider):
    with openai.OpenAI(base_url=open_gateway.api, api_key="unused", max_retries=0, timeout=PATIENCE) as own:
        assert own.files.create(file=("a.txt", b"words"), purpose="assistants").id == "f-1"
        assert b"words" in provider.asked[-1].body
        own.files.list(limit=3)
        assert (provider.asked[-1].method, provider.asked[-1].path) == ("GET", "/v1/files?limit=3")
        assert "content-type" not in provider.asked[-1].headers
        own.files.retrieve("f-1")
        assert own.files.content("f-1").content.startswith(b"ID3")
        own.files.delete("f-1")
        assert (provider.asked[-1].method, provider.asked[-1].path) == ("DELETE", "/v1/files/f-1")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        sdk.files.list()
    assert caught.value.code == "admin_required"


def test_what_is_no_page_of_ours_may_pass_nothing_on(open_gateway, provider):
    count = len(provider.asked)
    form = {"files": {"file": b"x"}, "data": {"purpose": "x"}}
    for path, how in (("/files", form), ("/embeddings", {"json": {"model": "other/x", "input": "x"}})):
        refused = httpx.post(open_gateway.api + path, headers={"origin": "https://evil.example"}, **how)
        assert refused.json()["error"]["code"] == "origin_not_allowed"
    assert len(provider.asked) == count
