"""Compatible providers over real sockets: the pool, the dialect and a server that says what it is told."""

import asyncio
import contextlib
import json

import msgspec
import pytest

from penstock import __version__
from penstock.gateway.gateway import Gateway
from penstock.gateway.router import Routing
from penstock.providers.compatible import CompatibleProvider, CompatibleSettings, parse_models
from penstock.providers.openai import BASE_URL, openai_provider
from penstock.providers.provider import Model, Target
from penstock.streams.memory import MemoryStore
from penstock.types.calls import Call
from penstock.types.errors import UpstreamError, WireError
from penstock.types.events import Finished, UsageReported
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest, Message
from penstock.upstream.pool import Pool, PoolSettings
from tests.providers.recorder import Recorder

KEY = "sk-geheim-0123456789"
ASK = GenerationRequest("asked", (Message("user", "Hello"),), stream=True)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def frame(delta=None, finish=None, **fields):
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps(body | fields).encode() + b"\n\n"


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ANSWER = (
    frame({"role": "assistant", "content": ""})
    + frame({"content": "Good "})
    + frame({"content": "day 流"})
    + frame(finish="stop")
    + frame(choices=[], usage=USAGE)
    + b"data: [DONE]\n\n"
)
END = b"0\r\n\r\n"


class Server:
    """Answers every request with ``reply``, a coroutine function of the writer; keeps what was asked."""

    def __init__(self):
        self.requests = []
        self.connections = 0
        self.gone = asyncio.Event()

    async def reply(self, writer):
        writer.write(STREAM_HEAD + chunk(ANSWER) + END)

    def say(self, *pieces, cut=False):
        async def reply(writer):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if cut:
                writer.close()

        self.reply = reply

    def answer(self, status, body, **headers):
        headers = {"content-length": len(body)} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.say(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *fields = head.strip().split("\r\n")
                headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((line, headers, body))
                await self.reply(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def server():
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    yield server
    listener.close()
    await asyncio.wait_for(listener.wait_closed(), 5)


@pytest.fixture
def made_pool():
    return Pool(PoolSettings())  # outside the loop, since it reads certificates


@pytest.fixture
async def pool(made_pool):
    yield made_pool
    await made_pool.aclose()


@pytest.fixture
def provider(server, pool):
    settings = CompatibleSettings(server.url + "/", KEY, {"X-Team": "a-secret-team"}, organization="org-1")
    return CompatibleProvider("local", settings, pool)


def ask(provider, request=ASK):
    return Recorder(provider.converse(request, "m"))


async def test_an_answer_arrives_whole(provider):
    sink = ask(provider)
    assert await sink.play() is None
    assert sink.text == "Good day 流"
    assert [event.reason for event in sink.events if isinstance(event, Finished)] == ["stop"]
    assert [event.output_tokens for event in sink.events if isinstance(event, UsageReported)] == [2]


async def test_the_request_is_the_dialects_with_our_headers(provider, server):
    await ask(provider).play()
    ((line, headers, body),) = server.requests
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "text/event-stream"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == f"penstock/{__version__}"
    assert headers["openai-organization"] == "org-1"
    assert headers["x-team"] == "a-secret-team"
    said = json.loads(body)
    assert said["model"] == "m"
    assert said["stream"] is True
    assert said["messages"] == [{"role": "user", "content": "Hello"}]


async def test_own_headers_win_and_no_key_means_no_authorization(server, pool):
    settings = CompatibleSettings(server.url, headers={"User-Agent": "mine"})
    await ask(CompatibleProvider("local", settings, pool)).play()
    ((_, headers, _),) = server.requests
    assert headers["user-agent"] == "mine"
    assert "authorization" not in headers


async def test_a_refused_key_is_replaced_by_the_next_within_one_answer_and_then_passed_over(server, pool):
    """The whole way: a server that knows one of two keys, behind a gateway."""

    async def reply(writer):
        used = server.requests[-1][1]["authorization"].removeprefix("Bearer ")
        body = json.dumps({"error": {"message": f"no {used}", "code": "invalid_api_key"}}).encode()
        refused = b"HTTP/1.1 401 X\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        writer.write(refused if used != "a-second-key" else STREAM_HEAD + chunk(ANSWER) + END)

    server.reply = reply
    settings = CompatibleSettings(server.url, KEY, api_keys=("a-second-key",))
    provider = CompatibleProvider("local", settings, pool)
    routing = Routing({"m": (Target("local/m", "local", "m"),)})
    async with Gateway(MemoryStore(), {"local": provider}, routing) as gateway:
        ends = []
        for _ in range(4):
            call = Call(Principal("me"), "r", msgspec.structs.replace(ASK, model="m"))
            stream = (await gateway.start(call)).stream
            await stream.wait_closed()
            ends.append((await stream.read(0))[-1].event)
        assert {end.status for end in ends} == {"completed"}
        assert [end.attempts for end in ends] == [2, 1, 1, 1]
        assert gateway.health.of("local/m").state == "closed"
    assert len(server.requests) == 5


async def test_no_key_is_quoted_when_all_are_refused(server, pool):
    server.answer(401, json.dumps({"error": {"message": f"no {KEY}, nor a-second-key"}}).encode())
    provider = CompatibleProvider(
        "local", CompatibleSettings(server.url, KEY, api_keys=("a-second-key",)), pool
    )
    error = await ask(provider).play()
    assert error.code == "invalid_api_key"
    assert "geheim" not in error.message
    assert "second" not in error.message


async def test_an_answer_may_come_byte_by_byte(provider, server):
    server.say(STREAM_HEAD, *(chunk(ANSWER[i : i + 1]) for i in range(len(ANSWER))), END)
    sink = ask(provider)
    assert await sink.play() is None
    assert sink.text == "Good day 流"


async def test_a_connection_serves_one_answer_after_another(provider, server):
    for _ in range(3):
        assert await ask(provider).play() is None
    assert server.connections == 1


async def test_much_at_once_comes_in_bounded_steps_and_in_order(provider, server):
    many = b"".join(frame({"content": f"{number} "}) for number in range(5_000))
    server.say(STREAM_HEAD + chunk(many + ANSWER) + END)
    sink = ask(provider)
    assert await sink.play() is None
    assert sink.text == "".join(f"{number} " for number in range(5_000)) + "Good day 流"
    assert max(map(len, sink.steps)) <= 16 * 1024


async def test_a_paused_answer_waits_in_the_socket_and_comes_whole(provider, server):
    many = b"".join(frame({"content": f"{number} "}) for number in range(2_000))
    server.say(STREAM_HEAD, *(chunk(many) for _ in range(20)), chunk(ANSWER), END)
    sink = ask(provider)
    sink.after_each = sink.source.pause
    await sink.source.open(sink)
    resumed = 0
    await sink.wait_call()
    while not sink.ended:
        before = len(sink.steps)
        sink.source.resume()
        resumed += 1
        await sink.wait_call()
        assert len(sink.steps) <= before + 1
    assert await sink.outcome() is None
    assert resumed > 20
    assert sink.text == "".join(f"{number} " for number in range(2_000)) * 20 + "Good day 流"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, "invalid_api_key"),
        (429, {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}, "rate_limit_exceeded"),
        (500, {"error": {"message": "Oops", "type": "server_error"}}, "upstream_error"),
    ],
)
async def test_error_responses_become_errors(provider, server, status, body, code):
    server.answer(status, json.dumps(body).encode(), retry_after="3")
    error = await ask(provider).play()
    assert isinstance(error, UpstreamError)
    assert (error.code, error.upstream_status, error.retry_after) == (code, status, 3)


async def test_a_key_that_the_server_quotes_is_not_handed_on(provider, server):
    server.answer(401, json.dumps({"error": {"message": f"Bad key {KEY} of a-secret-team"}}).encode())
    error = await ask(provider).play()
    assert error is not None
    assert "Bad key *** of ***" in error.message


async def test_a_redirect_is_not_followed(provider, server):
    server.answer(307, b"", location="http://127.0.0.1:1/")
    error = await ask(provider).play()
    assert error is not None
    assert error.code == "upstream_redirect"
    assert len(server.requests) == 1


async def test_a_web_page_is_not_an_answer(provider, server):
    server.answer(200, b"<html>Welcome</html>", content_type="text/html")
    error = await ask(provider).play()
    assert error is not None
    assert error.code == "upstream_malformed"


async def test_an_error_in_the_stream_comes_after_the_text_before_it(provider, server):
    bad = b'data: {"error":{"message":"No more","type":"server_error"}}\n\n'
    server.say(STREAM_HEAD + chunk(frame({"content": "Some"}) + bad) + END)
    sink = ask(provider)
    error = await sink.play()
    assert error is not None
    assert error.code == "upstream_error"
    assert sink.text == "Some"


async def test_a_lost_connection_is_a_reset(provider, server):
    server.say(STREAM_HEAD + chunk(frame({"content": "Some"})), cut=True)
    sink = ask(provider)
    error = await sink.play()
    assert error is not None
    assert error.code == "upstream_reset"
    assert sink.text == "Some"


async def test_an_answer_without_its_end_is_truncated(provider, server):
    server.say(STREAM_HEAD + chunk(frame({"content": "Some"})) + END)
    error = await ask(provider).play()
    assert error is not None
    assert error.code == "upstream_truncated"


async def test_an_abort_reaches_the_server(provider, server):
    server.say(STREAM_HEAD + chunk(frame({"content": "Some"})))
    sink = ask(provider)
    await sink.source.open(sink)
    await sink.wait_call()
    sink.source.abort()
    await asyncio.wait_for(server.gone.wait(), 5)
    assert not sink.ended


async def test_nobody_at_the_address_is_an_error_of_open(pool):
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    settings = CompatibleSettings(f"http://127.0.0.1:{port}", KEY)
    sink = ask(CompatibleProvider("local", settings, pool))
    with pytest.raises(UpstreamError) as caught:
        await sink.source.open(sink)
    assert caught.value.code == "upstream_unreachable"


async def test_a_head_that_does_not_come_is_a_timeout(server, pool):
    server.say()
    settings = CompatibleSettings(server.url, KEY, head_timeout=0.05)
    sink = ask(CompatibleProvider("local", settings, pool))
    error = await sink.play()
    assert error is not None
    assert error.code == "upstream_timeout"


async def test_a_target_s_own_timers_replace_those_of_its_provider(server, pool):
    server.say()
    settings = CompatibleSettings(server.url, KEY, head_timeout=100)
    sink = ask(CompatibleProvider("local", settings, pool))
    sink.source.limit(None, 0.02)
    assert (await sink.play()).code == "upstream_timeout"


async def test_models_are_asked_for(provider, server):
    server.answer(200, b'{"object":"list","data":[{"id":"b"},{"id":"a","created":7},{"id":"b"}]}')
    assert await provider.models() == (Model("b"), Model("a", created=7))
    ((line, headers, _),) = server.requests
    assert line == "GET /v1/models HTTP/1.1"
    assert headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, f'{{"error":{{"message":"No, {KEY}"}}}}'.encode(), "permission_denied"),
        (302, b"", "upstream_redirect"),
        (200, b"<html>", "upstream_malformed"),
        (200, b"\xff", "upstream_malformed"),
        (200, b"[" * 100_000, "upstream_malformed"),
        (200, b'"models"', "upstream_malformed"),
    ],
)
async def test_models_that_cannot_be_read_are_an_upstream_error(provider, server, status, body, code):
    server.answer(status, body)
    with pytest.raises(UpstreamError) as caught:
        await provider.models()
    assert caught.value.code == code
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ({"data": []}, ()),
        ({"models": [{"name": "llama3.2"}, {"model": "qwen"}]}, ("llama3.2", "qwen")),
        (["a", {"id": "b"}, None, {"id": 5}, {}, ""], ("a", "b")),
    ],
)
def test_lists_of_models_are_read_with_tolerance(answer, names):
    assert tuple(model.name for model in parse_models(answer)) == names


@pytest.mark.parametrize("answer", [None, 5, {}, {"data": "no"}, "a"])
def test_what_is_no_list_of_models_is_malformed(answer):
    with pytest.raises(WireError):
        parse_models(answer)


async def test_no_repr_shows_a_credential(provider, pool):
    settings = CompatibleSettings("http://u:geheim@example.com?geheim", KEY, {"api-key": "geheim-too"})
    source = provider.converse(ASK, "m").source
    for thing in (settings, provider, source, openai_provider(KEY, pool)):
        assert "geheim" not in f"{thing!r} {thing}"


@pytest.mark.parametrize(
    "settings",
    [
        CompatibleSettings("example.com/v1", KEY),
        CompatibleSettings("http://example.com", KEY + "\n"),
        CompatibleSettings("http://example.com", KEY, headers={"a b": "geheim"}),
        CompatibleSettings("http://example.com", KEY, headers={"x": "gehe\rim"}),
        CompatibleSettings("http://example.com/a b", KEY),
    ],
)
async def test_settings_that_cannot_be_sent_are_refused_without_quoting_them(settings, pool):
    with pytest.raises(ValueError) as caught:
        CompatibleProvider("local", settings, pool)
    assert "geheim" not in str(caught.value)


async def test_openai_is_the_compatible_provider_at_its_address(server, pool):
    provider = openai_provider(KEY, pool)
    assert BASE_URL in repr(provider)
    assert provider.name == "openai"
    provider = openai_provider(KEY, pool, base_url=server.url, organization="org-2", project="proj-3")
    assert await ask(provider).play() is None
    ((_, headers, _),) = server.requests
    assert headers["openai-organization"] == "org-2"
    assert headers["openai-project"] == "proj-3"


async def test_a_closed_provider_takes_no_request(provider, pool):
    await ask(provider).play()
    assert pool.statistics().idle == 1
    await provider.aclose()
    assert pool.statistics().idle == 0
    with pytest.raises(UpstreamError):
        await ask(provider).play()
