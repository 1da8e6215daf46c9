"""What readers get: while the model is silent, when they are slow, and at the end."""

import asyncio
import json
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from penstock.server.formats import NATIVE, NDJSON, PLAIN, TEXT, openai_chat
from penstock.server.renderings import Renderings
from penstock.server.responses import RETRY, Heart, Reader
from penstock.streams.store import StreamInfo
from penstock.streams.stream import Stream
from penstock.types.errors import StorageError
from penstock.types.events import Closed, TextDelta
from penstock.types.positions import new_stream_id
from tests.gateway.hand import HandStore, turns
from tests.server.conftest import config
from tests.server.raw import connected, eventually, request, unchunked
from tests.server.sse import collect, parse
from tests.virtual_time import run_virtually

SILENT = {"model": "demo-stall", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


@pytest.fixture
def settings():
    return config(listen={"port": 0, "drain": 0, "heartbeat": 0.02})


async def read_until(gateway, url, mark, count, **more):
    """Read until ``mark`` has come ``count`` times; return what came."""
    raw = b""
    async with gateway.client.stream("POST", url, **more) as response:
        async for piece in response.aiter_raw():
            raw += piece
            if raw.count(mark) >= count:
                return raw
    pytest.fail("the answer ended")


async def test_a_silent_native_stream_beats_without_blank_lines_and_says_how_often(gateway):
    raw = await read_until(gateway, "/v1/streams", b"\n\n:\n:\n", 1, json={"request": SILENT})
    assert parse(raw)[0].data["heartbeat"] == 0.02


async def test_silent_ndjson_beats_in_lines(gateway):
    headers = {"accept": "application/x-ndjson"}
    beat = b'{"ev":"heartbeat"}\n'
    await read_until(gateway, "/v1/streams", beat, 2, json={"request": SILENT}, headers=headers)


async def test_silent_chat_beats_with_whole_comments_where_no_ids_are_sent(gateway):
    await read_until(gateway, "/v1/chat/completions", b": keep-alive\n\n", 2, json=SILENT)


async def test_every_fourth_heartbeat_of_chat_is_a_chunk_that_adds_nothing(gateway):
    raw = await read_until(gateway, "/v1/chat/completions", b'"delta":{}', 2, json=SILENT)
    silence = raw[raw.index(b": keep-alive") :].split(b"\n\n")
    assert [part == b": keep-alive" for part in silence[:8]] == [True, True, True, False] * 2
    choice = json.loads(silence[3].removeprefix(b"data: "))["choices"][0]
    assert (choice["delta"], choice["finish_reason"]) == ({}, None)


# --- a reader on its own, over a stream that is written by hand ---------------------------------------


class Client:
    """A way to a client that takes everything, or nothing while it is ``full``."""

    pushes = True
    gone = False

    def __init__(self, *, pushes=True):
        self.pushes = pushes
        self.writes = []
        self.ended = ""
        self._room = asyncio.Event()
        self._room.set()

    @property
    def got(self):
        return b"".join(self.writes)

    def stuff(self, full):
        self._room.clear() if full else self._room.set()

    async def start(self, status, headers):
        pass

    def push(self, data):
        if not self.pushes or not self._room.is_set():
            return False
        self.writes.append(data)
        return True

    async def write(self, data):
        await self._room.wait()
        self.writes.append(data)

    async def end(self):
        self.ended = "clean"

    def cut(self):
        self.ended = "cut"

    def on_gone(self, callback):
        pass

    def on_doubt(self, callback):
        pass


class Written:
    """An open stream over a store played by hand, and readers of it."""

    def __init__(self):
        self.store = HandStore()
        self.renderings = Renderings()
        self.tasks = []

    async def open(self):
        info = StreamInfo(new_stream_id(), "me", 0.0, 60.0, model="m")
        self.stream = Stream(info, self.store)
        self.stream.attach(await self.store.create(info, self.stream.committed_to))
        return self

    def read(self, format, *, position=0, **client):
        client = Client(**client)
        reader = Reader(self.stream, format, client, self.renderings, position=position)
        self.tasks.append(asyncio.ensure_future(reader.run(b"")))
        client.reader = reader
        return client

    def say(self, *texts):
        for text in texts:
            self.stream.append(TextDelta(text))

    def close(self, status="completed"):
        self.stream.close(Closed(status, code="x", message="why", fault="gateway"))

    async def settle(self):
        await asyncio.gather(*self.tasks)


FORMATS = {
    "native": NATIVE,
    "text": TEXT,
    "ndjson": NDJSON,
    "plain": PLAIN,
    "chat": openai_chat(include_usage=False, with_ids=False),
    "chat+ids": openai_chat(include_usage=True, with_ids=True),
}
STATUSES = ("completed", "failed", "cancelled", "interrupted", "expired")


@pytest.mark.parametrize("pushes", [True, False])
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", FORMATS)
def test_how_a_body_ends_is_part_of_the_answer(name, status, live, pushes):
    async def main():
        written = await Written().open()
        client = written.read(FORMATS[name], pushes=pushes) if live else None
        await turns()
        written.say("hello")
        await turns()
        written.close(status)
        await turns()
        client = client or written.read(FORMATS[name], pushes=pushes)
        await written.settle()
        clean = status == "completed" or name in ("native", "text", "ndjson")
        assert client.ended == ("clean" if clean else "cut")
        assert b"hello" in client.got
        assert (b"[DONE]" in client.got) is (name.startswith("chat") and status == "completed")
        if name.startswith("chat") and status != "completed":
            assert b'{"error":' in client.got.split(b"\n\n")[-2]
        assert len(written.renderings) == 0
        assert written.stream.followers == 0

    run_virtually(main())


@pytest.mark.parametrize("pushes", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_that_lost_its_writer_is_cut_whatever_the_format(name, pushes):
    async def main():
        written = await Written().open()
        client = written.read(FORMATS[name], pushes=pushes)
        written.say("hello")
        await turns()
        written.stream.abandon()
        await written.settle()
        assert client.ended == "cut"
        assert len(written.renderings) == written.stream.followers == 0

    run_virtually(main())


def test_a_log_that_vanishes_under_a_reader_ends_its_read():
    async def main():
        written = await Written().open()
        written.say("hello")
        written.close()
        await turns()
        written.store.records[written.stream.id].clear()
        written.read(NATIVE)
        with pytest.raises(StorageError):
            await written.settle()

    run_virtually(main())


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 4)),
        st.tuples(st.just("stuff"), st.integers(0, 2)),
        st.tuples(st.just("clear"), st.integers(0, 2)),
        st.tuples(st.just("join"), st.integers(0, 6)),
        st.tuples(st.just("turns"), st.integers(0, 6)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("name", ["native", "chat", "chat+ids"])
@given(steps=_STEPS)
def test_readers_that_fall_behind_and_catch_up_get_every_byte_once(name, steps):
    """Three readers of one rendering, each slow at times, and some that join late."""

    async def main():
        written = await Written().open()
        clients = [written.read(FORMATS[name]) for _ in range(3)]
        late = []
        said = 0
        for step, number in steps:
            match step:
                case "say":
                    written.say(*(f"word {said + n} é\u2028" for n in range(number)))
                    said += number
                case "stuff":
                    clients[number].stuff(True)
                case "clear":
                    clients[number].stuff(False)
                case "join":
                    position = min(number, written.stream.committed)
                    late.append((position, written.read(FORMATS[name], position=position)))
                case "turns":
                    await turns(number)
        written.close()
        for client in clients:
            client.stuff(False)
        await written.settle()
        whole = written.read(FORMATS[name])
        await written.settle()
        assert [client.got == whole.got for client in clients] == [True] * 3
        assert all(whole.got.endswith(client.got.removeprefix(RETRY)) for _, client in late)
        assert all(client.got == whole.got for position, client in late if position == 0)
        assert len(written.renderings) == written.stream.followers == 0

    run_virtually(main())


@pytest.mark.parametrize("name", ["native", "chat"])
def test_a_thousand_readers_of_one_stream_cost_one_encoding(name):
    async def main():
        written = await Written().open()
        encoded = []

        def encoder(answer):
            made = FORMATS[name].encoder(answer)
            encode = made.encode
            return SimpleNamespace(
                encode=lambda event, line: (encoded.append(event), encode(event, line))[1],
                heartbeat=made.heartbeat,
            )

        counted = FORMATS[name]._replace(encoder=encoder)
        readers = [written.read(counted) for _ in range(1_000)]
        await turns()
        for n in range(10):
            written.say(f"{n} ")
            await turns()
        written.close()
        await written.settle()
        assert len(encoded) == 11
        assert len({bytes(reader.got) for reader in readers}) == 1

    run_virtually(main())


def test_a_slow_reader_leaves_the_others_their_rendering():
    async def main():
        written = await Written().open()
        slow, fast = written.read(FORMATS["chat"]), written.read(FORMATS["chat"])
        await turns()
        slow.stuff(True)
        for n in range(100):
            written.say(f"{n} ")
            await turns()
            assert f'"{n} "'.encode() in fast.got
        assert slow.got == b""
        assert len(written.renderings) == 1
        slow.stuff(False)
        await turns(20)
        assert slow.got == fast.got
        assert len(written.renderings) == 1
        written.close()
        await written.settle()
        assert slow.got == fast.got

    run_virtually(main())


@pytest.mark.parametrize(
    ("name", "beats"),
    [
        ("native", [b":\n"] * 5),
        ("text", [b":\n"] * 5),
        ("ndjson", [b'{"ev":"heartbeat"}\n'] * 5),
        ("plain", []),
        ("chat", [b": keep-alive\n\n"] * 3 + [b"chunk"] + [b": keep-alive\n\n"]),
        ("chat+ids", [b":\n"] * 3 + [b"chunk"] + [b":\n"]),
    ],
)
@pytest.mark.parametrize("pushes", [True, False])
def test_silence_is_broken_every_15_seconds_and_only_then(name, beats, pushes):
    async def main():
        written = await Written().open()
        heart = Heart(15.0)
        beating = asyncio.ensure_future(heart.run())
        client = written.read(FORMATS[name], pushes=pushes)
        if pushes:  # the other way beats by itself
            heart.readers.add(client.reader)
        for _ in range(100):  # data flows: no beat
            written.say("x")
            await asyncio.sleep(10)
        await turns()
        before = len(client.writes)
        assert not any(beat in client.got for beat in (b":\n", b": keep", b"heartbeat"))
        await asyncio.sleep(5 * 15 - 10 + 1.5)
        came = [b"chunk" if b'"delta":{}' in write else write for write in client.writes[before:]]
        assert came == beats
        written.say("after")
        await asyncio.sleep(1)
        assert b"after" in client.writes[-1]
        written.close()
        await written.settle()
        beating.cancel()

    run_virtually(main())


def test_a_reader_that_is_behind_is_sent_no_heartbeat():
    async def main():
        written = await Written().open()
        client = written.read(NATIVE)
        await turns()
        client.stuff(True)
        written.say("x")
        await turns()
        for _ in range(100):
            client.reader.beat(1.0)
        client.stuff(False)
        written.close()
        await written.settle()
        assert b"\n:\n" not in client.got

    run_virtually(main())


# --- real sockets ------------------------------------------------------------------------------------

LONG = {**SILENT, "model": "demo-long", "penstock_script": {"tokens": 12_000}}


class TestOnSockets:
    @pytest.fixture
    def settings(self):
        return config(listen={"port": 0, "drain": 0, "send_timeout": 1.2})

    async def ended(self, gateway):
        await eventually(lambda: gateway.system.gateway.open_streams == 0, 20)

    @pytest.mark.parametrize("dialect", ["native", "openai_chat"])
    async def test_a_frozen_reader_costs_its_buffer_hinders_nobody_and_may_come_back(self, gateway, dialect):
        body = {"request": LONG}
        created = await gateway.client.post("/v1/streams", json=body, headers={"prefer": "respond-async"})
        url = f"/v1/streams/{created.json()['stream']}/events?dialect={dialect}"
        async with connected(gateway.port, receive_buffer=4096) as frozen:
            frozen.send(request("GET", url))
            whole = await collect(gateway.client, "GET", url)
            await self.ended(gateway)
            assert len(whole.raw) > 1_000_000
            held = [c.transport.get_write_buffer_size() for c in gateway.server._state.connections]
            assert sum(held) < 400_000
            # it takes nothing for too long, and is cut off
            await eventually(lambda: not gateway.system.context.heart.readers, 10)
            assert len(gateway.system.context.renderings) == 0
            await frozen.to_end()
        got, complete = unchunked(frozen.got)
        assert not complete
        kept = got[: got.rindex(b"\n\n") + 2]
        opening = kept.index(b"\n\n") if dialect == "native" else 0  # it tells the tail at its moment
        assert kept[opening:] in whole.raw
        headers = {"last-event-id": parse(kept)[-1].id}
        rest = await collect(gateway.client, "GET", url, headers=headers)
        count = len(parse(kept))
        ours = rest.events[1:] if dialect == "native" else rest.events
        assert [(e.id, e.data) for e in ours] == [(e.id, e.data) for e in whole.events[count:]]

    async def test_a_reader_that_is_slow_but_reads_on_gets_every_byte(self, gateway):
        headers = {"prefer": "respond-async"}
        created = await gateway.client.post("/v1/streams", json={"request": LONG}, headers=headers)
        ask = request("GET", f"/v1/streams/{created.json()['stream']}/events?dialect=openai_chat")
        async with connected(gateway.port, receive_buffer=16384) as slow, connected(gateway.port) as fast:
            slow.send(ask)
            fast.send(ask)
            other = asyncio.ensure_future(fast.until(b"\r\n0\r\n\r\n"))
            begun = asyncio.get_running_loop().time()
            while b"\r\n0\r\n\r\n" not in slow.got[-100:]:
                assert not slow.ended
                async with asyncio.timeout(10):
                    await slow._more()
                # for a good while it takes little, but never nothing for as long as `send_timeout`
                in_haste = asyncio.get_running_loop().time() > begun + 2.5
                await asyncio.sleep(0 if in_haste else 0.02)
            assert unchunked(slow.got) == unchunked(await other)

    async def test_cursors_inside_an_entry_resume_exactly(self, gateway):
        body = {**SILENT, "model": "demo-echo", "stream_options": {"include_usage": True}}
        headers = {"accept": "text/event-stream"}
        url = "/v1/chat/completions"
        whole = await collect(gateway.client, "POST", url, json=body, headers=headers)
        inside = [n for n, event in enumerate(whole.events) if "." in event.id]
        assert inside
        for n in inside:
            headers = {"last-event-id": whole.events[n].id}
            again = await collect(gateway.client, "POST", url, json=body, headers=headers)
            assert [(e.id, e.data) for e in again.events] == [(e.id, e.data) for e in whole.events[n + 1 :]]
            # in another dialect it is rounded down: nothing is lost
            events = f"/v1/streams/{whole.headers['stream-id']}/events"
            native = await collect(gateway.client, "GET", events, headers=headers)
            position = int(whole.events[n].id.partition("~")[2].partition(".")[0])
            assert native.events[1].data["n"] == position + 1

    @pytest.mark.parametrize("status", [200, 204])
    async def test_a_read_that_starts_at_the_end_of_a_failed_answer_ends_cleanly(self, gateway, status):
        body = {**SILENT, "model": "demo-cut"}
        headers = {"accept": "text/event-stream"}
        first = await collect(gateway.client, "POST", "/v1/chat/completions", json=body, headers=headers)
        assert first.cut
        url = f"/v1/chat/completions/{first.headers['stream-id']}?stream=true"
        last = first.events[-1].id
        if status == 200:
            again = await collect(gateway.client, "GET", f"{url}&starting_after={last}")
            assert (again.cut, again.events[-1].data["error"]["code"]) == (False, "upstream_reset")
        else:
            again = await collect(gateway.client, "GET", url, headers={"last-event-id": last})
        assert again.status == status


class TestHeldBack:
    @pytest.fixture
    def settings(self):
        listen = {"port": 0, "drain": 0, "commit_after": 0.05, "heartbeat": 0.02}
        return config(listen=listen, providers={"demo": {"kind": "scripted", "speed": 1.0}})

    async def test_after_a_while_of_silence_the_status_line_goes_out_and_heartbeats_follow(self, gateway):
        script = {"first_token_delay": 0.3, "tokens": 3, "jitter": 0}
        body = {**SILENT, "model": "demo", "penstock_script": script}
        got = await collect(gateway.client, "POST", "/v1/chat/completions", json=body)
        assert got.raw.startswith(b": keep-alive\n\n")
        assert got.raw.endswith(b"data: [DONE]\n\n")
        assert not got.cut

    async def test_a_failure_after_that_is_told_in_the_answer(self, gateway):
        script = {"first_token_delay": 0.3, "jitter": 0}
        body = {**SILENT, "model": "demo-rate-limited", "penstock_script": script}
        got = await collect(gateway.client, "POST", "/v1/chat/completions", json=body)
        assert (got.status, got.cut) == (200, True)
        assert got.events[-1].data["error"]["code"] == "rate_limit_exceeded"

    async def test_a_failure_before_that_is_an_error_response(self, gateway):
        script = {"first_token_delay": 0, "jitter": 0}
        body = {**SILENT, "model": "demo-rate-limited", "penstock_script": script}
        response = await gateway.client.post("/v1/chat/completions", json=body)
        assert response.status_code == 429


class TestOnAnotherServer:
    """The same application where there is nothing but ASGI: uvicorn's own protocol."""

    @pytest.fixture
    def settings(self):
        return config(listen={"port": 0, "drain": 0, "heartbeat": 0.02})

    @pytest.fixture
    async def plain(self, system):
        config = uvicorn.Config(system.app, log_config=None, lifespan="off", ws="none")
        config.load()
        state = ServerState()

        def connection():
            return config.http_protocol_class(config=config, server_state=state, app_state={})

        async with system.gateway:
            server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                yield SimpleNamespace(client=client, gateway=system.gateway)
            server.close()
            for open_ in list(state.connections):
                open_.transport.abort()
            if state.tasks:
                await asyncio.wait(set(state.tasks))

    async def test_it_streams_and_ends(self, plain):
        body = {**SILENT, "model": "demo"}
        got = await collect(plain.client, "POST", "/v1/streams", json={"request": body})
        assert (got.names[0], got.names[-1], got.cut) == ("stream", "done", False)
        chat = await collect(plain.client, "POST", "/v1/chat/completions", json=body)
        assert chat.raw.endswith(b"data: [DONE]\n\n")

    async def test_a_failure_is_told_and_the_body_cut(self, plain):
        body = {**SILENT, "model": "demo-cut"}
        got = await collect(plain.client, "POST", "/v1/chat/completions", json=body)
        assert got.cut
        assert got.events[-1].data["error"]["code"] == "upstream_reset"

    async def test_it_beats(self, plain):
        await read_until(plain, "/v1/chat/completions", b": keep-alive\n\n", 2, json=SILENT)

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_client_that_leaves_is_noticed(self, plain, stream):
        body = {**SILENT, "stream": stream}
        asking = asyncio.ensure_future(plain.client.post("/v1/chat/completions", json=body))
        await eventually(lambda: plain.gateway.open_streams == 1)
        await asyncio.sleep(0.05)
        asking.cancel()
        await eventually(lambda: plain.gateway.open_streams == 0)

    async def test_cancel_reaches_a_reader(self, plain):
        headers = {"prefer": "respond-async"}
        created = await plain.client.post("/v1/streams", json={"request": SILENT}, headers=headers)
        url = f"/v1/streams/{created.json()['stream']}"
        reading = asyncio.ensure_future(collect(plain.client, "GET", f"{url}/events"))
        await asyncio.sleep(0.05)
        await plain.client.post(f"{url}/cancel")
        assert (await reading).events[-1].data["code"] == "cancelled"
