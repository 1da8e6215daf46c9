"""deploy/nginx.conf in front of a real gateway: what people install, with other names and ports."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from penstock.wire.sse import SseDecoder, SseFrame
from tests.clients.browser import browsing
from tests.clients.gateway import PATIENCE, Gateway, serving, wait_for
from tests.faults.process import accepts, free_port
from tests.server.socket import Client, ask, text_of
from tests.server.sse import parse

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "nginx.conf"
MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/penstock.conf;
}}
"""
MODELS = {
    "paced": "demo-long?tokens_per_second=20&first_token_delay=0&jitter=0",
    "silent": "demo-echo?first_token_delay=2.5",
}
SETTINGS = {
    "listen": {"heartbeat": 0.2},
    "providers": {"demo": {"kind": "scripted", "speed": 0}, "paced": {"kind": "scripted"}},
    "models": {name: [{"provider": "paced", "model": model}] for name, model in MODELS.items()},
    "default_model": "demo-echo",
}


class Front:
    """nginx, before the gateway at ``port``."""

    def __init__(self, folder: Path, port: int, **changes: str) -> None:
        """``changes``: directives by name with other values; ``path``: below which path it stands."""
        self.folder = folder
        folder.mkdir()
        self.port, plain = free_port(), free_port()
        certificate = trustme.CA().issue_cert("127.0.0.1", "localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "own.pem")
        replaced = {
            "127.0.0.1:8080": f"127.0.0.1:{port}",
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "listen [::]:80;": "",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
            "listen [::]:443 ssl http2;": "",
            "/etc/ssl/certs/llm.example.com.pem": f"{folder}/own.pem",
            "/etc/ssl/private/llm.example.com.key": f"{folder}/own.pem",
            "/var/log/nginx/penstock.log": f"{folder}/access.log",
        }
        text = FILE.read_text()
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        if path := changes.pop("path", ""):
            text = text.replace("location / {", f"location {path} {{")
            text = text.replace("http://penstock;", "http://penstock/;")
        for name, value in changes.items():
            text, count = re.subn(rf"\b{name} [^;]+;", f"{name} {value};", text)
            assert count
        (folder / "penstock.conf").write_text(text)
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    @contextmanager
    def running(self):
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        command = [program, "-p", self.folder, "-c", self.folder / "nginx.conf"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        with process:
            try:
                wait_for(lambda: process.poll() is not None or accepts(self.port))
                assert process.poll() is None, process.stderr.read().decode()
                yield self
            finally:
                process.terminate()
                process.wait()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("gateway"), SETTINGS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def front(tmp_path_factory, gateway):
    with Front(tmp_path_factory.mktemp("nginx") / "front", gateway.port).running() as front:
        yield front


@pytest.fixture
def client(front):
    with httpx.Client(base_url=front.url, verify=False, timeout=PATIENCE) as client:
        yield client


def chat(model: str, **more) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": "one two three"}], **more}


def curl(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = ["curl", "-sSNk", "--max-time", str(int(PATIENCE)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)


def test_page_shows_this_very_file():
    page = (ROOT / "docs" / "guide" / "deployment.md").read_text()
    assert f"```nginx\n{FILE.read_text()}```" in page


def test_token_arrives_before_the_next_is_produced(client):
    with client.stream("POST", "/v1/streams", json={"request": chat("paced")}) as response:
        raw = b""
        for piece in response.iter_raw():
            raw += piece
            if any(event.name == "delta" for event in parse(raw)):
                break
        snapshot = client.get(f"/v1/streams/{response.headers['stream-id']}").json()
    assert snapshot["status"] == "open"
    assert snapshot["entries"] < 20
    client.post(f"/v1/streams/{snapshot['id']}/cancel").raise_for_status()


def test_heartbeats_keep_a_silence_open_that_is_longer_than_the_timeout(tmp_path, gateway):
    impatient = Front(tmp_path / "nginx", gateway.port, proxy_read_timeout="1s")
    with impatient.running() as front, httpx.Client(base_url=front.url, verify=False, timeout=30) as client:
        answer = client.post("/v1/streams", json={"request": chat("silent")})
        assert parse(answer.content)[-1].name == "done"
        # The counter-check: plain text has no heartbeats.
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/v1/streams", json={"request": chat("silent")}, headers={"Accept": "text/plain"})


def test_answer_that_was_cut_stays_cut(client):
    pieces: list[bytes] = []
    asked = chat("demo-cut", stream=True)
    with (
        client.stream("POST", "/v1/chat/completions", json=asked) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        pieces.extend(response.iter_raw())
    assert b"upstream_reset" in b"".join(pieces)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_tells_a_cut_answer_from_a_whole_one(front, version):
    cut = curl(version, f"{front.url}/stream?content=Hello&model=demo-cut", "-H", "Accept: text/plain")
    whole = curl(version, f"{front.url}/stream?content=Hello", "-H", "Accept: text/plain")
    assert cut.returncode != 0
    assert (whole.returncode, whole.stdout) == (0, "Hello")


def test_leaving_reaches_the_gateway(client, gateway):
    with client.stream("POST", "/v1/chat/completions", json=chat("paced", stream=True)) as response:
        next(response.iter_raw())
    end = gateway.wait_closed(response.headers["stream-id"])["end"]
    assert end["code"] == "client_disconnected"


def test_last_event_id_passes(client):
    whole = parse(client.post("/v1/streams", json={"request": chat("demo-echo")}).content)
    stream = whole[0].id.partition("~")[0]
    headers = {"Last-Event-ID": whole[2].id}
    rest = parse(client.get(f"/v1/streams/{stream}/events", headers=headers).content)
    assert rest[1:] == whole[3:]
    end = {"Last-Event-ID": whole[-1].id}
    assert client.get(f"/v1/streams/{stream}/events", headers=end).status_code == 204


def test_gateway_answers_for_bodies_that_are_too_large(front):
    url = urlsplit(front.url)
    context = ssl._create_unverified_context()
    with (
        socket.create_connection((url.hostname, url.port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain) as sock,
    ):
        head = f"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: {(32 << 20) + 1}\r\n"
        sock.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n{")
        answer = b""
        while not answer.endswith(b"}") and (piece := sock.recv(65536)):
            answer += piece
    assert b" 413 " in answer
    assert b"body_too_large" in answer


def test_large_body_passes_without_touching_a_disk(client, front):
    asked = chat("demo-echo")
    asked["messages"].insert(0, {"role": "system", "content": "x" * (6 << 20)})
    answer = client.post("/v1/streams", json={"request": asked})
    assert parse(answer.content)[-1].name == "done"
    assert "temporary file" not in front.log("error")


def test_openai_sdk_streams_through_it(front):
    with (
        httpx.Client(verify=False) as http,
        openai.OpenAI(base_url=f"{front.url}/v1", api_key="unused", http_client=http) as sdk,
    ):
        chunks = sdk.chat.completions.create(**chat("demo-echo"), stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"


def test_gateway_without_keys_is_not_opened_to_the_world_by_a_proxy(client):
    answer = client.get("/v1/models", headers={"Host": "llm.example.com"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


def test_page_and_api_stand_below_a_path(tmp_path, gateway):
    with (
        Front(tmp_path / "nginx", gateway.port, path="/llm/").running() as front,
        httpx.Client(base_url=f"{front.url}/llm", verify=False, timeout=PATIENCE) as client,
    ):
        assert 'src="ui/main.js"' in client.get("/").text
        assert client.get("/ui/main.js").status_code == 200
        answer = client.post("/v1/streams", json={"request": chat("demo-echo")})
        assert parse(answer.content)[-1].name == "done"
        assert answer.headers["location"].startswith("/v1/streams/")  # as the guide warns


# --- one connection ----------------------------------------------------------------------------------


async def test_twenty_streams_share_one_connection_over_http_2(front, gateway):
    async with httpx.AsyncClient(
        base_url=front.url, http2=True, verify=False, timeout=PATIENCE, limits=httpx.Limits(max_connections=1)
    ) as client:
        async with AsyncExitStack() as stack:
            streams = []
            for number in range(20):
                asked = {"content": f"question {number}", "model": "paced"}
                response = await stack.enter_async_context(client.stream("GET", "/stream", params=asked))
                assert response.http_version == "HTTP/2"
                pieces = response.aiter_raw()
                await anext(pieces)
                streams.append((response.headers["stream-id"], pieces))
            # All are open at once, and each is told its own.
            open_now = gateway.get("/v1/streams?limit=100")["data"]
            assert {stream for stream, _ in streams} <= {s["id"] for s in open_now if s["status"] == "open"}
            for _, pieces in reversed(streams):
                await anext(pieces)
        for stream, _ in streams:
            await client.post(f"/v1/streams/{stream}/cancel")


def test_the_seventh_stream_of_a_browser_is_told_as_much_as_the_first(front, gateway):
    listen = """
        window.told = Array(12).fill(0); window.protocols = [];
        window.sources = told.map((_, i) => {
          const source = new EventSource(`/stream?content=tab+${i}&model=paced`);
          source.onmessage = () => (told[i] += 1);
          return source;
        });
        undefined
    """
    with browsing() as browser:
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(f"{front.url}/healthz")
        page.evaluate(listen)
        wait_for(lambda: page.evaluate("told.every((count) => count > 2)"))
        assert page.evaluate("sources.every((source) => source.readyState === 1)")
        page.evaluate("sources.forEach((source) => source.close())")
    for stream in gateway.get("/v1/streams?limit=100")["data"]:
        httpx.post(f"{gateway.url}/v1/streams/{stream['id']}/cancel")


async def test_a_websocket_passes_and_its_entries_come_as_they_are_made(front, gateway):
    context = ssl._create_unverified_context()
    url = f"wss://127.0.0.1:{front.port}/v1/ws"
    async with connect(url, ssl=context, subprotocols=["penstock.v1+json"], proxy=None) as connection:
        client = Client(connection)
        await client.send("create", rid="1", **ask("x", "paced"))
        await client.send("create", rid="2", **ask("one two three"))
        told = await client.until("end", rid="2")
        assert text_of(told, "2") == "one two three"
        await client.until("entry", rid="1")
        await client.send("cancel", rid="1")
        told = await client.until("cancelled")
        stopped = gateway.get(f"/v1/streams/{told[-1]['stream']}")
        assert stopped["status"] == "cancelled"


async def test_a_websocket_to_a_gateway_that_is_down_is_a_closed_connection(tmp_path):
    context = ssl._create_unverified_context()
    with (
        Front(tmp_path / "nginx", free_port()).running() as front,
        pytest.raises((InvalidMessage, ConnectionError)),
    ):
        await connect(f"wss://127.0.0.1:{front.port}/v1/ws", ssl=context, proxy=None)


def test_what_people_ask_is_not_logged(client, front):
    assert client.get("/stream", params={"content": "my-little-secret"}).status_code == 200
    wait_for(lambda: '"GET /stream" 200' in front.log("access"))
    assert "my-little-secret" not in front.log("access")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_gateway_that_is_down_is_a_closed_connection(tmp_path, version):
    with Front(tmp_path / "nginx", free_port()).running() as front:
        done = curl(version, "-i", f"{front.url}/stream?content=Hello")
    assert done.returncode != 0
    assert "HTTP/" not in done.stdout


@pytest.mark.timeout(120)
def test_event_source_outlives_a_killed_gateway(tmp_path):
    gateway = Gateway(tmp_path / "gateway", SETTINGS)
    listen = """
        window.text = window.id = ""; window.end = null; window.errors = 0;
        const source = new EventSource("/stream?content=Hello&model=paced");
        source.onmessage = (event) => (window.text += event.data);
        source.onerror = () => (window.errors += 1);
        for (const name of ["done", "fail"]) source.addEventListener(name, (event) => {
          source.close(); window.id = event.lastEventId; window.end = JSON.parse(event.data); });
        undefined
    """
    try:
        gateway.start()
        with Front(tmp_path / "nginx", gateway.port).running() as front, browsing() as browser:
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.goto(f"{front.url}/healthz")
            page.evaluate(listen)
            wait_for(lambda: len(page.evaluate("text")) > 20)
            gateway.kill()
            wait_for(lambda: '"GET /stream" 444' in front.log("access"), "the browser did not try again")
            gateway.start()
            end = wait_for(lambda: page.evaluate("end"))
            text, last, errors = page.evaluate("[text, id, errors]")
            stored = gateway.get(f"/v1/streams/{last.partition('~')[0]}")
    finally:
        gateway.kill()
    assert errors >= 2
    assert (end["status"], end["code"]) == ("interrupted", "gateway_restarted")
    assert text == stored["text"]


class Returning:
    """A client that resumes: it reads one answer, through as many connections as that takes."""

    def __init__(self, client: httpx.AsyncClient, number: int) -> None:
        self.client = client
        self.key = f"client-{number}"
        self.lines: list[bytes] = []
        self.end: dict = {}
        self.connections = 0
        self.last = ""

    async def read(self) -> None:
        body = {"request": {**chat("lasting"), "user": self.key}}
        while not self.end:
            headers = {"Idempotency-Key": self.key}
            if self.last:
                headers["Last-Event-ID"] = self.last
            self.connections += 1
            try:
                async with self.client.stream("POST", "/v1/streams", json=body, headers=headers) as response:
                    assert response.status_code == 200
                    decoder = SseDecoder()
                    async for data in response.aiter_raw():
                        for frame in decoder.feed(data):
                            self._take(frame)
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    def _take(self, frame: SseFrame) -> None:
        self.last = frame.id.decode()
        if frame.event == b"stream":
            return
        assert int(self.last.partition("~")[2][4:]) == len(self.lines) + 1, "lost or repeated"
        self.lines.append(frame.data)
        if frame.event in (b"done", b"fail"):
            self.end = json.loads(frame.data)


@pytest.mark.timeout(120)
async def test_rolling_restart_loses_no_stream_of_a_client_that_can_resume(tmp_path):
    lasting = {"provider": "paced", "model": "demo-long?tokens=150&tokens_per_second=50&first_token_delay=0"}
    models = {"lasting": {"targets": [lasting], "on_restart": "continue"}}
    gateway = Gateway(tmp_path / "gateway", {**SETTINGS, "listen": {"drain": 0.3}, "models": models})
    try:
        await asyncio.to_thread(gateway.start)
        with Front(tmp_path / "nginx", gateway.port).running() as front:
            async with (
                httpx.AsyncClient(base_url=front.url, verify=False, timeout=PATIENCE) as client,
                asyncio.TaskGroup() as group,
            ):
                readers = [Returning(client, number) for number in range(12)]
                for reader in readers:
                    group.create_task(reader.read())
                for restart in (1, 2):
                    least = 20 * restart
                    await asyncio.to_thread(
                        wait_for, lambda n=least: all(len(reader.lines) > n for reader in readers)
                    )
                    await asyncio.to_thread(gateway.stop)
                    await asyncio.to_thread(gateway.start)
    finally:
        gateway.kill()
    for reader in readers:
        *entries, _ = reader.lines
        assert reader.end["status"] == "completed"
        assert reader.end["sha256"] == hashlib.sha256(b"".join(line + b"\n" for line in entries)).hexdigest()
        assert reader.connections >= 3
    assert len({reader.end["text_sha256"] for reader in readers}) == 1
