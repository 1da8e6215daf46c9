"""What a reader gets while the model is silent."""

import json

import pytest

from tests.server.conftest import config
from tests.server.sse import parse

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
