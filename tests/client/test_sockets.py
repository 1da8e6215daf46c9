"""The Python client on a WebSocket: what one socket carries at a time, credit, tokens, leaving, live input.

What is the same by SSE is in test_client.py. Where a gateway has to do what it does rarely (leave, let a
token end), a WebSocket server says the words of one.
"""

import asyncio
import json
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import serve

from penstock.assembly.system import assemble
from penstock.client import AsyncClient, Back, Client, Lost, Refused, Unreachable
from penstock.client.sockets import GRANT
from penstock.types.events import Closed, TextDelta, encode_line
from penstock.wire.envelope import FIRST_CREDIT
from penstock.wire.verification import Verifier
from tests.client.test_client import TEXT, asking, cutting
from tests.server.conftest import config, running
from tests.streams.storing import eventually as until

STREAM = "s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F"
SAID = {"role": "user", "content": "x"}


@pytest.fixture
def settings():
    return config()


@pytest.fixture
async def gateway(settings):
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as served:
        yield served


def connected(url, key="", **more):
    return AsyncClient(url, key, transport="websocket", wait=lambda _: 0.0, **more)


def saying(content, model="demo-echo"):
    return {"model": model, "messages": [{"role": "user", "content": content}]}


# --- many on one -----------------------------------------------------------------------------------------


async def test_many_generations_share_one_socket(gateway):
    async with connected(gateway.url) as client:
        answers = [client.start(saying(f"{TEXT} {number}")) for number in range(60)]
        await asyncio.gather(*(answer.end() for answer in answers))
        assert [answer.so_far for answer in answers] == [f"{TEXT} {number}" for number in range(60)]
        assert len(client._sockets._open) == 1


async def test_who_takes_nothing_holds_up_none_of_the_others(gateway):
    """The long one is sent what its credit allows and then waits; the others come through meanwhile."""
    long = f"{'water' * 600} " * 110
    async with connected(gateway.url) as client:
        slow = client.start(saying(long))
        entries = aiter(slow)
        await anext(entries)
        for number in range(5):
            quick = client.start(saying(f"{TEXT} {number}"))
            assert (await quick.end()).status == "completed"
        (socket,) = client._sockets._open
        (reader,) = socket._readers.values()
        held = sum(size for _, size in reader.waiting)
        assert held <= FIRST_CREDIT + GRANT + (256 << 10)  # its credit, and the entry that may go beyond
        assert [entry async for entry in entries][-1].event.status == "completed"
        assert slow.so_far == long


async def test_an_answer_that_is_left_leaves_the_socket_to_the_others(gateway):
    async with connected(gateway.url) as client:
        left, kept = client.start(asking("demo-stall")), client.start(asking("demo-stall"))
        entries = aiter(left)
        await anext(entries)
        waiting = asyncio.ensure_future(kept.end())
        await entries.aclose()
        assert (await client.start(asking()).end()).status == "completed"
        await until(lambda: kept.stream)
        await kept.stop()
        assert (await waiting).status == "cancelled"
        assert (await client.snapshot(left.stream))["status"] == "open"
        assert len(client._sockets._open) == 1


async def test_a_full_socket_is_followed_by_another(gateway, monkeypatch):
    monkeypatch.setattr("penstock.client.sockets.MAX_RIDS", 2)
    async with connected(gateway.url) as client:
        answers = [client.start(asking("demo-stall")) for _ in range(5)]
        reading = [aiter(answer) for answer in answers]
        for entries in reading:
            await anext(entries)
        assert len(client._sockets._open) == 3
        for entries in reading:
            await entries.aclose()


async def test_whoever_waits_reads_for_all_though_others_leave(gateway):
    """Readers that are cancelled while they read for all hand the reading on."""
    async with connected(gateway.url) as client:
        answers = [client.start(asking("demo-stall")) for _ in range(4)]
        readers = [asyncio.ensure_future(answer.end()) for answer in answers]
        await until(lambda: all(answer.stream for answer in answers))
        for reader in readers[:3]:
            reader.cancel()
            await asyncio.wait([reader])
        await client.stop(answers[3].stream)
        assert (await readers[3]).status == "cancelled"


# --- handlers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_handlers_are_called_as_it_is_read(gateway, transport):
    told = []
    cuts = [900] if transport == "sse" else [1500]
    async with (
        cutting(gateway.port, cuts) as url,
        AsyncClient(url, transport=transport, wait=lambda _: 0.0) as client,
    ):
        answer = client.start(asking(), listener=lambda happening: told.append(type(happening)))
        answer.on_open = lambda stream: told.append(stream)
        answer.on_message = lambda entry: told.append(type(entry.event))
        answer.on_close = lambda end: told.append(end.status)
        await answer.end()
    assert told[0] == answer.stream
    assert told[-2:] == [Closed, "completed"]
    lost = told.index(Lost)
    assert told[lost + 1] is Back
    assert told[lost + 2] == answer.stream


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_handlers_are_told_of_errors(gateway, transport):
    told = []
    async with AsyncClient(gateway.url, transport=transport) as client:
        answer = client.start(asking("nobody"))
        answer.on_error = lambda error: told.append(error.code)
        answer.on_close = told.append
        with pytest.raises(Refused):
            await answer.end()
    assert told == ["model_not_found", None]


async def test_handlers_without_await(gateway):
    told = []

    def read():
        with Client(gateway.url, transport="websocket") as client:
            answer = client.start(asking())
            answer.on_message = lambda entry: told.append(entry.event)
            assert answer.end().status == "completed"

    await asyncio.to_thread(read)
    assert type(told[-1]) is Closed
    assert "".join(event.delta for event in told if type(event) is TextDelta) == TEXT


# --- who -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_token_that_is_refused_is_renewed_once(transport):
    settings = config(keys={"app": "the-first-key"})
    system = await asyncio.to_thread(assemble, settings, {})
    given = iter(["wrong", "the-first-key"])

    async def token():
        return next(given)

    async with running(system, settings) as gateway:
        async with AsyncClient(gateway.url, token, transport=transport) as client:
            assert (await client.start(asking()).end()).status == "completed"
        async with AsyncClient(gateway.url, lambda: "wrong", transport=transport) as client:
            with pytest.raises(Refused) as refused:
                await client.start(asking()).end()
        assert refused.value.status == 401


# --- what a gateway does rarely --------------------------------------------------------------------------


def told_entries(rid, upto):
    """An answer's messages: the opening, and its entries, of which the last is the end."""
    verifier = Verifier()
    lines = [encode_line(n, TextDelta(f"{n} ")) for n in range(1, upto)]
    for line in lines:
        verifier.feed(line)
    end = Closed(
        "completed",
        entries=upto - 1,
        sha256=verifier._digest.hexdigest(),
        text_sha256=verifier._text_digest.hexdigest(),
    )
    lines.append(encode_line(upto, end))
    opening = {"type": "open", "rid": rid, "stream": STREAM, "status": "open", "tail": 0}
    yield json.dumps({**opening, "c": f"{STREAM}~{0:016d}"})
    for n, line in enumerate(lines, 1):
        kind, event = ("end", "done") if n == upto else ("entry", "delta")
        yield (
            f'{{"rid":"{rid}","type":"{kind}","c":"{STREAM}~{n:016d}","ev":"{event}","d":{line.decode()}}}'
        )


@asynccontextmanager
async def speaking(act, handshake=None):
    """A WebSocket server that does what ``act`` does with each connection."""
    async with serve(
        act, "127.0.0.1", 0, subprotocols=["penstock.v1+json"], process_request=handshake
    ) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_a_gateway_that_leaves_is_come_back_to_when_it_says():
    asked, happened = [], []

    async def act(connection):
        asked.append(json.loads(await connection.recv()))
        messages = list(told_entries(asked[-1]["rid"], 5))
        if len(asked) == 1:
            for message in messages[:3]:
                await connection.send(message)
            await connection.send('{"type":"goaway","retry_ms":70}')
            await connection.close(1012)
            return
        for message in [messages[0], *messages[3:]]:
            await connection.send(message)
        await connection.wait_closed()

    async with speaking(act) as url, connected(url) as client:
        answer = client.start({"model": "m", "messages": [SAID]}, listener=happened.append)
        assert (await answer.end()).entries == 4
    assert answer.so_far == "1 2 3 4 "
    assert [one["type"] for one in asked] == ["create", "read"]
    assert asked[1]["after"] == f"{STREAM}~{2:016d}"
    assert [(type(one), getattr(one, "delay", 0)) for one in happened] == [(Lost, 0.07), (Back, 0)]


async def test_a_gateway_that_leaves_gets_nothing_new():
    sockets = []
    second = asyncio.Event()

    async def act(connection):
        number = len(sockets)
        sockets.append(connection)
        ask = json.loads(await connection.recv())
        messages = list(told_entries(ask["rid"], 3))
        await connection.send(messages[0])
        if number == 0:
            await connection.send('{"type":"goaway","retry_ms":1}')
            await connection.send(messages[1])
            await second.wait()
            messages = messages[1:]
        for message in messages[1:]:
            await connection.send(message)
        await connection.wait_closed()

    async with speaking(act) as url, connected(url) as client:
        first = client.start({"model": "m", "messages": [SAID]})
        entries = aiter(first)
        await anext(entries)
        assert (await client.follow(STREAM).end()).status == "completed"
        assert len(sockets) == 2
        second.set()
        assert [entry async for entry in entries][-1].event.status == "completed"


async def test_a_token_is_renewed_in_band_before_it_ends():
    tokens = iter(f"token-{number}" for number in range(10))
    said = []

    async def act(connection):
        said.append(connection.request.headers["authorization"])
        rid = ""
        async for message in connection:
            message = json.loads(message)
            if message["type"] == "create":
                rid = message["rid"]
                await connection.send(next(told_entries(rid, 3)))
            elif message["type"] == "auth":
                said.append(message["token"])
                await connection.send('{"type":"authed","expires_in":0.01}')
                if len(said) == 4:
                    for text in list(told_entries(rid, 3))[1:]:
                        await connection.send(text)

    async with speaking(act) as url, connected(url, lambda: next(tokens)) as client:
        assert (await client.start({"model": "m", "messages": [SAID]}).end()).entries == 2
    assert said[:4] == ["Bearer token-0", "token-0", "token-1", "token-2"]


async def test_a_socket_that_is_closed_for_its_token_is_dialled_again_with_another():
    tokens = iter(["old", "new"])
    shown = []

    async def act(connection):
        shown.append(connection.request.headers["authorization"])
        async for message in connection:
            message = json.loads(message)
            if message["type"] == "create" and len(shown) == 1:
                error = {"type": "err", "code": "expired_token", "message": "Its time is over."}
                await connection.send(json.dumps({**error, "fault": "client", "retryable": False}))
                await connection.close(4401, "expired_token")
            elif message["type"] == "create":
                for text in told_entries(message["rid"], 3):
                    await connection.send(text)

    async with speaking(act) as url, connected(url, lambda: next(tokens)) as client:
        assert (await client.start({"model": "m", "messages": [SAID]}).end()).entries == 2
    assert shown == ["Bearer old", "Bearer new"]


async def test_a_key_that_a_socket_is_closed_for_is_said():
    async def act(connection):
        await connection.recv()
        error = {"type": "err", "code": "key_revoked", "message": "The key was ended."}
        await connection.send(json.dumps({**error, "fault": "client", "retryable": False}))
        await connection.close(4401, "key_revoked")

    async with speaking(act) as url, connected(url, "key") as client:
        with pytest.raises(Refused) as refused:
            await client.start({"model": "m", "messages": [SAID]}).end()
    assert (refused.value.status, refused.value.code) == (401, "key_revoked")


async def test_what_is_no_gateway_is_said():
    def page(connection, request):
        return connection.respond(HTTPStatus.NOT_FOUND, "nothing here")

    async def act(connection):
        await connection.send("hello")
        await connection.wait_closed()

    async with speaking(act, page) as url, connected(url) as client:
        with pytest.raises(Refused) as refused:
            await client.start({"model": "m", "messages": [SAID]}).end()
    assert refused.value.status == 404
    async with speaking(act) as url, connected(url, patience=-1.0) as client:
        with pytest.raises(Unreachable, match="no message of a gateway"):
            await client.start({"model": "m", "messages": [SAID]}).end()


# --- live ------------------------------------------------------------------------------------------------


async def test_the_newest_input_is_answered(gateway):
    async with connected(gateway.url) as client:
        live = client.live(saying("one"))
        texts, streams = [], set()
        async for draft in live:
            streams.add(draft.stream)
            if draft.closed is None:
                continue
            texts.append((draft.text, draft.closed.status))
            if len(texts) == 3:
                await live.aclose()
            else:
                await live.put(["two words", "three words now"][len(texts) - 1])
    assert texts == [(text, "completed") for text in ("one", "two words", "three words now")]
    assert len(streams) == 3


async def test_an_input_replaces_the_answer_that_is_running(gateway):
    async with connected(gateway.url) as client:
        live = client.live(saying(TEXT, "demo-stall"))
        drafts = aiter(live)
        first = await anext(drafts)
        await live.put("other words")
        async for draft in drafts:
            if draft.stream != first.stream:
                break
        assert (await client.snapshot(first.stream))["status"] == "cancelled"
        await live.aclose()
        assert [draft async for draft in drafts] == []


async def test_a_lost_socket_asks_the_newest_input_again(gateway):
    happened = []
    async with cutting(gateway.port, [1400, 1100, 900]) as url, connected(url) as client:
        live = client.live(saying("one"), listener=happened.append)
        seen = []
        async for draft in live:
            seen.append(draft)
            if draft.closed is None:
                continue
            if draft.text == "one":
                await live.put(TEXT)
            else:
                await live.aclose()
    assert seen[-1].text == TEXT
    assert seen[-1].closed.status == "completed"
    assert any(type(one) is Lost for one in happened)


async def test_live_input_is_for_sockets(gateway):
    async with AsyncClient(gateway.url) as client:
        with pytest.raises(ValueError, match="transport='websocket'"):
            client.live(saying("x"))
