"""The Python client against a whole gateway: started, cut, followed, checked and stopped."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from penstock.assembly.system import assemble
from penstock.client import (
    AsyncClient,
    Back,
    Client,
    Lost,
    NotCompleted,
    NotWhole,
    Refused,
    Unreachable,
)
from penstock.client.answers import Answer
from penstock.client.connection import Received
from penstock.types.events import Closed, TextDelta, encode_line
from tests.server.conftest import config, running

TEXT = "The keeper opens the sluice, and water lifts the boat: 水が船を持ち上げる 🚤"


def asking(model="demo-echo"):
    return {"model": model, "messages": [{"role": "user", "content": TEXT}]}


@pytest.fixture
def settings():
    return config()


@pytest.fixture(params=["sse", "websocket"])
def transport(request):
    """By which way entries come: all else is to be the same."""
    return request.param


@pytest.fixture
async def gateway(settings):
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as served:
        yield served


@pytest.fixture
async def client(gateway, transport):
    async with AsyncClient(gateway.url, transport=transport, wait=lambda _: 0.0) as client:
        yield client


@asynccontextmanager
async def cutting(port, cuts):
    """A way to the gateway that is lost after so many bytes that come down, once for each of ``cuts``."""
    left = list(cuts)

    async def serve(reader, writer):
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        budget = left.pop(0) if left else None

        async def up():
            while data := await reader.read(65536):
                up_writer.write(data)
            up_writer.write_eof()

        async def down():
            nonlocal budget
            while data := await up_reader.read(65536):
                piece = data if budget is None else data[:budget]
                writer.write(piece)
                if budget is not None:
                    budget -= len(piece)
                    if budget <= 0:
                        return

        tasks = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for side in (writer, up_writer):
            side.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# --- reading -------------------------------------------------------------------------------------------


async def test_the_text_comes_piece_by_piece(client):
    answer = client.ask(TEXT, "demo-echo")
    pieces = [piece async for piece in answer.text()]
    assert "".join(pieces) == TEXT == answer.so_far
    assert len(pieces) > 5
    assert answer.closed.status == "completed"
    assert answer.usage.output_tokens > 0


async def test_entries_come_in_order_and_with_their_cursors(client):
    answer = client.start(asking())
    entries = [entry async for entry in answer]
    assert [int(entry.cursor[-12:]) for entry in entries] == list(range(1, len(entries) + 1))
    assert {entry.cursor.partition("~")[0] for entry in entries} == {answer.stream}
    assert type(entries[-1].event) is Closed


@pytest.mark.parametrize("start", range(7))
async def test_a_connection_lost_anywhere_costs_nothing(gateway, start, transport):
    """The torture cuts at every byte; here at a part of them, again and again in one answer."""
    happened = []
    cuts = range(start * 97 + 1, 6_000, 7 * 97)
    async with (
        cutting(gateway.port, cuts) as url,
        AsyncClient(url, transport=transport, wait=lambda _: 0.0) as client,
    ):
        answer = client.start(asking(), listener=happened.append)
        entries = [entry async for entry in answer]
        whole = [entry async for entry in client.follow(answer.stream)]
        listed = await client.streams()
    assert entries == whole
    assert answer.so_far == TEXT
    assert any(type(happening) is Lost for happening in happened)
    assert any(type(happening) is Back for happening in happened)
    assert [stream.id for stream in listed] == [answer.stream]  # it was paid once


async def test_a_stream_is_followed_from_a_cursor_on(client):
    answer = client.start(asking())
    entries = [entry async for entry in answer]
    for at in (0, 3, len(entries) - 2):
        rest = [entry async for entry in client.follow(answer.stream, entries[at].cursor)]
        assert rest == entries[at + 1 :]


async def test_a_stream_may_be_followed_while_it_is_written(client):
    answer = client.start(asking("demo-stall"))
    first = await anext(aiter(answer))
    assert first.event.model
    other = client.follow(answer.stream)
    read = asyncio.ensure_future(other.end())
    await client.stop(answer.stream)
    assert (await read).status == "cancelled"
    await answer.aclose()


# --- how it ends ---------------------------------------------------------------------------------------


async def test_what_broke_off_is_told_after_what_had_come(client):
    answer = client.start(asking("demo-cut"))
    with pytest.raises(NotCompleted) as broke:
        assert [piece async for piece in answer.text()] == []
    assert broke.value.code == "upstream_reset"
    assert answer.so_far
    assert (await answer.end()).status == "failed"


async def test_a_model_that_is_not_there_is_refused(client):
    with pytest.raises(Refused) as refused:
        await client.start(asking("nobody")).end()
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


async def test_nobody_there_is_said(transport):
    async with AsyncClient("http://127.0.0.1:1", transport=transport) as client:
        with pytest.raises(Unreachable):
            await client.start(asking()).end()


def received(*records):
    async def each():
        for n, (name, record) in enumerate(records, 1):
            yield Received(name, record, f"s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F~{n:016d}")

    return Answer(None, each(), whole=True, listener=None)


async def test_an_entry_that_is_missing_is_noticed():
    first, third = encode_line(1, TextDelta("a")), encode_line(3, TextDelta("c"))
    with pytest.raises(NotWhole, match="entry 3 came after entry 1"):
        await received(("delta", first), ("delta", third)).end()


async def test_what_was_changed_on_its_way_is_noticed():
    end = encode_line(2, Closed("completed", entries=1, sha256="x", text_sha256="y"))
    with pytest.raises(NotWhole, match="not those that were stored"):
        await received(("delta", encode_line(1, TextDelta("a"))), ("done", end)).end()


# --- what else there is --------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_answer(client):
    first = client.start(asking(), idempotency_key="k")
    second = client.start(asking(), idempotency_key="k")
    assert await first.end() == await second.end()
    assert first.stream == second.stream


async def test_any_dialect_can_be_asked_in(client):
    request = {"model": "demo-echo", "input": TEXT}
    answer = client.start(request, dialect="openai_responses", metadata={"a": "b"}, ttl=60)
    await answer.end()
    assert answer.so_far == TEXT
    (listed,) = await client.streams()
    assert (listed.id, listed.metadata, listed.status) == (answer.stream, {"a": "b"}, "completed")
    assert listed.expires_at - listed.closed_at in (59, 60, 61)


async def test_a_generation_is_stopped_by_its_answer_or_by_its_key(client):
    answer = client.start(asking("demo-stall"))
    await anext(aiter(answer))
    assert (await answer.stop()).status == "cancelled"
    other = client.start(asking("demo-stall"), idempotency_key="k")
    await anext(aiter(other))
    assert (await client.stop_key("k")).id == other.stream
    await answer.aclose()
    await other.aclose()


async def test_streams_are_looked_at_given_away_and_erased(client, gateway):
    answer = client.start(asking())
    await answer.end()
    assert (await client.snapshot(answer.stream))["text"] == TEXT
    link = await client.link(answer.stream)
    read = await gateway.client.get(link.url)
    assert read.status_code == 200
    assert "demo" in {model.id for model in await client.models()}
    await client.erase(answer.stream)
    with pytest.raises(Refused) as gone:
        await client.snapshot(answer.stream)
    assert gone.value.status == 410


# --- without await -------------------------------------------------------------------------------------


async def test_it_works_without_await(gateway, transport):
    def read():
        with Client(gateway.url, transport=transport, wait=lambda _: 0.0) as client:
            answer = client.ask(TEXT, "demo-echo")
            text = "".join(answer.text())
            entries = list(client.follow(answer.stream))
            assert answer.closed == entries[-1].event
            listed = client.streams(limit=1)
            snapshot = client.snapshot(answer.stream)
            return text, snapshot["text"], [stream.id for stream in listed] == [answer.stream]

    assert await asyncio.to_thread(read) == (TEXT, TEXT, True)


async def test_it_resumes_without_await(gateway, transport):
    def read(url):
        with Client(url, transport=transport, wait=lambda _: 0.0) as client:
            answer = client.start(asking())
            entries = list(answer)
            return entries == list(client.follow(answer.stream)), answer.so_far

    async with cutting(gateway.port, range(300, 3_000, 300)) as url:
        assert await asyncio.to_thread(read, url) == (True, TEXT)


async def test_who_leaves_an_iteration_goes_on_with_another_or_closes_it(client):
    answer = client.ask(TEXT, "demo-echo")
    async for piece in answer.text():
        assert TEXT.startswith(piece)
        break
    assert (await answer.end()).status == "completed"
    assert answer.so_far == TEXT
    async with client.ask(TEXT, "demo-echo") as left:
        async for _ in left:
            break
    with pytest.raises(RuntimeError, match="closed before its end"):
        await left.end()
    reading = asyncio.create_task(client.ask(TEXT, "demo-stall").end())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (await client.ask(TEXT, "demo-echo").end()).status == "completed"
