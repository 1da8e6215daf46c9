"""Penstock in somebody else's application, under servers that know nothing of it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import anthropic
import httpx
import msgspec
import openai
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from websockets.exceptions import InvalidStatus

import penstock
from penstock import BadConfig, Config, Penstock
from penstock.server.app import Outermost
from penstock.server.context import ServerSettings
from penstock.types.errors import ClientError, StorageError
from penstock.types.events import Closed, TextDelta
from tests.faults.process import PATIENCE, accepts, eventually, free_port
from tests.server.socket import ask, connected, text_of
from tests.server.sse import collect, parse

ROOT = Path(__file__).parents[1]
HEARTBEAT = 0.1
ASKED = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}


def settings(folder: Path) -> dict:
    """The embedded models without delay, and ``slow`` with ten words a second."""
    slow = "demo-long?tokens_per_second=10&first_token_delay=0&jitter=0"
    silent = "demo-echo?first_token_delay=1"
    return {
        "listen": {"heartbeat": HEARTBEAT, "drain": 0.1},
        "store": {"path": str(folder / "data")},
        "providers": {"demo": {"kind": "scripted", "speed": 0}, "paced": {"kind": "scripted"}},
        "models": {
            "slow": [{"provider": "paced", "model": slow}],
            "silent": [{"provider": "paced", "model": silent}],
        },
        "default_model": "demo-echo",
        "discover": False,
    }


def config(folder: Path, **more) -> Config:
    return msgspec.convert({**settings(folder), **more}, Config)


SERVERS = {
    "uvicorn": ("uvicorn", "--no-access-log", "--timeout-graceful-shutdown", "1", "--port"),
    "hypercorn": ("hypercorn", "--graceful-timeout", "1", "--bind"),
}


@contextmanager
def hosted(folder: Path, server: str, app: str = "tests.host:app"):
    """Run ``app`` under a stock server; yields the process and its URL."""
    file = folder / "penstock.yaml"
    file.write_text(json.dumps(settings(folder)))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "OPENAI_"))}
    port = free_port()
    address = str(port) if server == "uvicorn" else f"127.0.0.1:{port}"
    command = [sys.executable, "-m", *SERVERS[server], address, app]
    with (folder / "host.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**inherited, "HOST_CONFIG": str(file)},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(_answering(process, url, folder / "host.log"))
        yield process, url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # hypercorn's own worker outlives it otherwise
        process.wait()


async def _answering(process, url, log):
    def tried():
        assert process.poll() is None, log.read_text()
        return accepts(httpx.URL(url).port)

    await eventually(tried, "the server does not come up")


@pytest.fixture(scope="module", params=SERVERS)
def host(request, tmp_path_factory):
    """The URL of Penstock in a FastAPI application, behind a middleware."""
    with hosted(tmp_path_factory.mktemp("host"), request.param) as (_, url):
        yield url


@pytest.fixture
async def client(host):
    async with httpx.AsyncClient(base_url=f"{host}/llm", timeout=PATIENCE) as client:
        yield client


async def test_host_keeps_its_own_routes(host, client):
    assert (await client.get(f"{host}/hello")).json() == "a route of the host's own"
    models = await client.get("/v1/models")
    assert models.headers["x-host"] == "stamped"
    assert "slow" in [model["id"] for model in models.json()["data"]]


async def test_addresses_in_answers_begin_at_the_mount(client):
    got = await collect(client, "POST", "/v1/streams", json={"request": ASKED})
    assert got.text == "one two three"
    assert got.headers["location"].startswith("/llm/v1/streams/")
    again = await client.get(httpx.URL(str(client.base_url)).join(got.headers["location"]))
    assert again.json()["text"] == "one two three"


async def test_answer_that_is_read_later_names_its_addresses_below_the_mount(client):
    made = await client.post("/v1/streams", json={"request": ASKED}, headers={"Prefer": "respond-async"})
    assert made.status_code == 201
    read = await collect(client, "GET", httpx.URL(str(client.base_url)).join(made.json()["events_url"]))
    assert read.names[-1] == "done"
    assert "/llm/v1/streams/" in made.json()["cancel_url"]


async def test_chunk_arrives_before_the_next_is_produced(client):
    asked = {**ASKED, "model": "slow"}
    async with client.stream("POST", "/v1/streams", json={"request": asked}) as response:
        raw = b""
        async for piece in response.aiter_raw():
            raw += piece
            if any(event.name == "delta" for event in parse(raw)):
                break
        snapshot = (await client.get(f"/v1/streams/{response.headers['stream-id']}")).json()
    assert snapshot["status"] == "open"
    assert snapshot["entries"] < 20
    await client.post(f"/v1/streams/{snapshot['id']}/cancel")


async def test_a_websocket_below_the_mount_carries_generations(host):
    at = SimpleNamespace(port=httpx.URL(host).port)
    async with connected(at, below="/llm") as socket:
        for rid in ("1", "2"):
            await socket.send("create", rid=rid, **ask("one two three"))
        told = await socket.until("end")
        told += await socket.until("end")
        assert [text_of(told, rid) for rid in ("1", "2")] == ["one two three", "one two three"]
        await socket.send("create", rid="3", **ask("x", "slow"))
        await socket.until("entry", rid="3")
        await socket.send("cancel", rid="3")
        await socket.until("cancelled")
    with pytest.raises(InvalidStatus) as caught:
        async with connected(at, below="/llm", origin="https://evil.example"):
            pass
    assert caught.value.response.status_code == 403


async def test_a_foreign_websocket_with_a_reader_that_is_behind_gets_everything(host):
    words = " ".join(f"word{i}" for i in range(3000))  # more than one rid's credit
    async with connected(SimpleNamespace(port=httpx.URL(host).port), below="/llm") as socket:
        await socket.send("create", rid="1", **ask(words))
        told = []
        while not told or told[-1]["type"] != "end":
            told.append(await socket.take())
            if len(told) % 500 == 0:
                await socket.send("credit", rid="1", bytes=128 << 10)
    assert text_of(told) == words


async def test_silence_has_heartbeats(client):
    got = await collect(client, "POST", "/v1/streams", json={"request": {**ASKED, "model": "silent"}})
    assert got.raw.split(b"event: start")[0].count(b"\n:\n") >= 3
    assert got.names[-1] == "done"


async def test_failed_answer_is_cut_where_its_format_wants_it(client):
    asked = {**ASKED, "model": "demo-cut", "stream": True}
    got = await collect(client, "POST", "/v1/chat/completions", json=asked)
    assert got.cut
    assert got.events[-1].data["error"]["code"] == "upstream_reset"
    native = await collect(client, "POST", "/v1/streams", json={"request": asked})
    assert not native.cut
    assert native.names[-1] == "fail"


async def test_leaving_stops_an_answer_that_nobody_can_come_back_to(client):
    asked = {**ASKED, "model": "slow", "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        await anext(response.aiter_raw())
        stream = response.headers["stream-id"]
    async with asyncio.timeout(PATIENCE):
        while (found := (await client.get(f"/v1/streams/{stream}")).json())["status"] == "open":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert found["end"]["code"] == "client_disconnected"


async def test_reader_resumes(client):
    first = await collect(client, "POST", "/v1/streams", json={"request": ASKED}, stop_after=4)
    headers = {"Last-Event-ID": first.events[2].id}
    rest = await collect(client, "GET", f"/v1/streams/{first.headers['stream-id']}/events", headers=headers)
    whole = await collect(client, "GET", f"/v1/streams/{first.headers['stream-id']}/events")
    assert rest.events[1:] == whole.events[3:]


def test_anthropic_sdk_speaks_from_below_the_mount(host):
    with anthropic.Anthropic(base_url=f"{host}/llm", api_key="unused", max_retries=0) as sdk:
        with sdk.messages.stream(**ASKED, max_tokens=99) as stream:
            assert stream.get_final_message().content[0].text == "one two three"
        with pytest.raises(anthropic.NotFoundError) as caught:
            sdk.messages.create(**{**ASKED, "model": "nope"}, max_tokens=99)
    assert caught.value.type == "not_found_error"
    assert caught.value.request_id.startswith("req_")


def test_a_provider_may_be_where_nobody_of_ours_listens(tmp_path):
    near = {"near": {"base_url": "http://127.0.0.1:8080/v1"}}
    assert Penstock(config(tmp_path, providers=near, models={}), environ={})


def test_openai_sdk_streams_from_below_the_mount(host):
    with openai.OpenAI(base_url=f"{host}/llm/v1", api_key="unused") as sdk:
        chunks = sdk.chat.completions.create(**ASKED, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"


@pytest.mark.parametrize("server", SERVERS)
def test_server_that_is_stopped_leaves_no_stream_open(tmp_path, server):
    with (
        hosted(tmp_path, server, "tests.host:penstock") as (process, url),
        httpx.stream("POST", f"{url}/v1/streams", json={"request": {**ASKED, "model": "slow"}}) as response,
    ):
        next(response.iter_raw())
        stream = response.headers["stream-id"]
        process.send_signal(signal.SIGTERM)
        # uvicorn ends as the signal would have ended it.
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM), (tmp_path / "host.log").read_text()
    with hosted(tmp_path, server, "tests.host:penstock") as (_, url):
        end = httpx.get(f"{url}/v1/streams/{stream}").json()["end"]
    assert (end["status"], end["code"]) == ("interrupted", "gateway_shutdown")


# --- in this process ---------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path) -> Penstock:
    """Built before the loop runs, since building reads files."""
    return Penstock(config(tmp_path), environ={})


@asynccontextmanager
async def inside(app, url: str = "http://127.0.0.1"):
    """A client that calls ``app`` without a server."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        yield client


async def test_generation_is_read_in_the_process_and_by_http(built):
    async with built, inside(built) as client:
        generation = await built.start("one two three")
        events = [event async for event in generation]
        assert "".join(e.delta for e in events if type(e) is TextDelta) == "one two three"
        assert type(events[-1]) is Closed
        assert generation.status == "completed"
        assert [event async for event in generation] == events
        assert (await client.get(f"/v1/streams/{generation.id}")).json()["text"] == await generation.text()
        assert await (await built.find(generation.id)).text() == "one two three"


async def test_generation_can_be_cancelled(built):
    async with built:
        generation = await built.start("a story", model="slow")
        async for event in generation:
            if type(event) is TextDelta:
                await generation.cancel()
        assert event.status == "cancelled"


async def test_reader_that_leaves_stops_a_generation_that_asked_for_it(built):
    async with built:
        generation = await built.start("a story", model="slow", on_disconnect="cancel")
        events = aiter(generation)
        while type(await anext(events)) is not TextDelta:
            pass
        await events.aclose()
        assert await eventually(lambda: generation.status != "open" and generation.status) == "cancelled"


async def test_model_that_is_not_there_is_refused(built):
    async with built:
        with pytest.raises(ClientError, match="no-such-model"):
            await built.start("Hello", model="no-such-model")


async def test_end_of_the_lifespan_interrupts_what_runs(built, tmp_path):
    async with built:
        generation = await built.start("a story", model="slow")
    assert generation.status == "interrupted"


async def test_call_before_the_lifespan_says_what_is_missing(built):
    with pytest.raises(RuntimeError, match=r"lifespan=penstock\.lifespan"):
        await built.start("Hello")
    async with inside(built) as client:
        assert (await client.get("/v1/models")).status_code == 500


async def test_application_can_be_started_again(built):
    app = FastAPI(lifespan=built.lifespan)
    app.mount("/llm", built)
    for _ in range(2):
        async with app.router.lifespan_context(app), inside(app) as client:
            assert (await client.get("/llm/v1/models")).status_code == 200


async def test_two_lives_at_once_are_refused(built):
    async with built:
        with pytest.raises(RuntimeError, match="running already"):
            await built.__aenter__()


def written(path: Path, **settings) -> Path:
    base = {"store": {"path": str(path.parent / "data")}, "discover": False, "reload": {"watch": 0}}
    path.write_text(json.dumps({**base, **settings}))
    return path


def route(model: str) -> list[dict]:
    return [{"provider": "demo", "model": model}]


SLOWLY = "demo-long?tokens_per_second=40&first_token_delay=0"


@pytest.fixture
def filed(tmp_path) -> Penstock:
    file = written(tmp_path / "penstock.yaml", models={"old": route("demo-echo"), "slow": route(SLOWLY)})
    return Penstock.from_file(file, environ={})


async def test_a_reload_takes_the_file_as_it_is_now_and_leaves_what_is_under_way(filed, tmp_path):
    async with filed, inside(filed) as client:
        running = await filed.start("a story", model="slow")
        written(tmp_path / "penstock.yaml", models={"new": route("demo-echo")})
        done = await filed.reload()
        assert set(done.changed) == {"models.old", "models.slow", "models.new"}
        assert done.needs_restart == ()
        assert await (await filed.start("one two", model="new")).text() == "one two"
        with pytest.raises(ClientError, match="old"):
            await filed.start("one two", model="old")
        listed = {one["id"] for one in (await client.get("/v1/models")).json()["data"]}
        assert ("new" in listed, "old" in listed) == (True, False)
        assert running.status == "open"
        await running.cancel()
        assert running.status == "cancelled"
        assert 'penstock_config_reloads_total{result="used"} 1.0' in (await client.get("/metrics")).text


async def test_what_cannot_be_used_changes_nothing_and_is_told_with_all_that_is_wrong(filed, tmp_path):
    async with filed, inside(filed) as client:
        wrong = {"models": {"old": route("demo-echo")}, "default_model": "nobody/knows-it"}
        written(tmp_path / "penstock.yaml", **wrong)
        with pytest.raises(BadConfig) as caught:
            await filed.reload()
        assert caught.value.problems[0].where == "default_model"
        refused = await client.post("/v1/admin/reload")
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_config")
        (tmp_path / "penstock.yaml").write_text("no: [yaml")
        with pytest.raises(BadConfig):
            await filed.reload()
        assert await (await filed.start("as before", model="old")).text() == "as before"
        written(tmp_path / "penstock.yaml", models={"new": route("demo-echo")})
        done = await client.post("/v1/admin/reload")
        assert (done.status_code, "models.new" in done.json()["changed"]) == (200, True)


async def test_what_waits_for_a_restart_is_in_force_in_the_next_life(filed, tmp_path):
    async with filed:
        written(tmp_path / "penstock.yaml", publications={"max_streams": 7}, models={"m": route("demo-echo")})
        done = await filed.reload()
        assert done.needs_restart == ("publications.max_streams",)
        assert filed.config.publications.max_streams == 7
        assert filed._gateway.publications.settings.max_streams != 7
    async with filed:
        assert filed._gateway.publications.settings.max_streams == 7
        assert await (await filed.start("hello", model="m")).text() == "hello"


async def test_a_configuration_in_python_is_given_anew(built, tmp_path):
    with pytest.raises(RuntimeError, match="not running"):
        await built.reload(config(tmp_path))
    async with built, inside(built) as client:
        with pytest.raises(TypeError, match="pass the new configuration"):
            await built.reload()
        done = await built.reload(config(tmp_path, default_model="slow"))
        assert done.changed == ("default_model",)
        assert (await built.start("one"))._stream.info.model == "slow"
        assert (await client.post("/v1/admin/reload")).status_code == 404


async def test_gateway_without_keys_answers_on_loopback_only(built):
    async with built:
        for address, status in {"127.0.0.1": 200, "192.0.2.7": 403, "[2001:db8::1]": 403}.items():
            async with inside(built, f"http://{address}") as client:
                answer = await client.get("/v1/models", headers={"Host": "localhost"})
            assert answer.status_code == status
        async with inside(built, "http://app.example.com") as client:  # a unix socket, a test client
            assert (await client.get("/v1/models")).json()["error"]["code"] == "host_not_allowed"


async def test_gateway_with_keys_answers_anywhere(tmp_path):
    served = await asyncio.to_thread(Penstock, config(tmp_path, keys={"app": "a-key-of-the-app"}))
    async with served, inside(served, "http://192.0.2.7") as client:
        assert (await client.get("/v1/models")).status_code == 401
        headers = {"Authorization": "Bearer a-key-of-the-app"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


def by_header(scope) -> str | None:
    """What a host would do with its session."""
    return Request(scope).headers.get("x-user")


async def test_host_says_who_owns_a_stream(tmp_path):
    served = await asyncio.to_thread(Penstock, config(tmp_path), identify=by_header)
    async with served, inside(served, "https://app.example.com") as client:
        ada = {"X-User": "ada"}
        made = await collect(client, "POST", "/v1/streams", json={"request": ASKED}, headers=ada)
        path = f"/v1/streams/{made.headers['stream-id']}"
        assert (await client.get(path, headers=ada)).status_code == 200
        assert (await client.get(path, headers={"X-User": "bob"})).status_code == 404
        unknown = await client.get(path)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "not_identified")
        assert await (await served.find(path.rsplit("/", 1)[1], principal="ada")).text() == "one two three"


async def test_other_site_cannot_spend_in_the_name_of_whom_the_host_knows(tmp_path):
    served = await asyncio.to_thread(Penstock, config(tmp_path), identify=by_header)
    async with served, inside(served, "https://app.example.com") as client:
        headers = {"X-User": "ada", "Origin": "https://evil.example"}
        answer = await client.get("/stream?content=Hello", headers=headers)
        assert answer.json()["error"]["code"] == "origin_not_allowed"
        assert (await client.get("/v1/streams", headers=headers)).status_code == 403
        headers["Origin"] = "https://app.example.com"
        assert (await client.get("/stream?content=Hello", headers=headers)).status_code == 200


async def test_resume_that_must_wait_gets_an_empty_stream_where_no_connection_can_be_closed():
    async def failing(scope, receive, send):
        raise StorageError

    resuming = {"Last-Event-ID": "x", "Accept": "text/event-stream"}

    class Nobody:
        settings = ServerSettings()
        origins, credentials = (), False

        async def identify(self, scope):
            pass

    async with inside(Outermost(failing, Nobody(), {})) as client:
        answer = await client.get("/v1/streams/x/events", headers=resuming)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert (await client.get("/v1/streams/x/events")).status_code == 503


def test_public_names_are_those_of_the_stub():
    stub = (ROOT / "src" / "penstock" / "__init__.pyi").read_text()
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
        assert f"as {name}\n" in stub or f"{name}: str" in stub
    assert f"__all__ = {json.dumps(penstock.__all__)}" in stub
    with pytest.raises(ImportError, match="Nonsense"):
        exec("from penstock import Nonsense")


def test_importing_the_package_imports_none_of_its_parts():
    code = "import sys, penstock; print([name for name in sys.modules if name.startswith('penstock.')])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"
