"""The AI SDK's chats, seen from the wire: asked, resumed, stopped, and by whom."""

import asyncio
import json

import pytest

from penstock.assembly.system import assemble
from penstock.server.chats import LOOK_BACK, PAGE, Chats, look_for
from penstock.types.principals import Principal
from tests.server.conftest import config, running
from tests.server.raw import connected, eventually, request
from tests.server.sse import collect

TEXT = "The keeper opens the sluice, and water lifts the boat: 水が船を持ち上げる 🚤"


def ask(chat="c-1", model="demo-echo", text=TEXT, **more):
    said = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "model": model, "messages": [said], "trigger": "submit-message", **more}


def said(read):
    return "".join(
        e.data["delta"] for e in read.events if e.data != "[DONE]" and e.data["type"] == "text-delta"
    )


def kinds(read):
    return [event.data if event.data == "[DONE]" else event.data["type"] for event in read.events]


async def begin(gateway, chat="c-1", model="demo-stall"):
    """Ask, read a little and leave; return the stream that goes on."""
    read = await collect(gateway.client, "POST", "/ui/chat", json=ask(chat, model), stop_after=4)
    return read.headers["stream-id"]


async def status(gateway, stream):
    return (await gateway.client.get(f"/v1/streams/{stream}")).json()["status"]


async def test_an_answer_is_a_ui_message_stream(gateway):
    read = await collect(gateway.client, "POST", "/ui/chat", json=ask())
    assert read.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert read.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert said(read) == TEXT
    assert kinds(read)[:3] == ["start", "start-step", "text-start"]
    assert kinds(read)[-4:] == ["text-end", "finish-step", "finish", "[DONE]"]
    stream = read.headers["stream-id"]
    assert read.events[0].data["messageId"] == f"msg_{stream[2:]}"
    assert {event.id.partition("~")[0] for event in read.events} == {stream}
    assert read.raw.startswith(b"retry: 1000\ndata: ")
    assert not read.cut


async def test_a_chat_without_a_name_is_answered(gateway):
    body = ask()
    del body["id"], body["model"]
    assert said(await collect(gateway.client, "POST", "/ui/chat", json=body)) == TEXT


async def test_a_failure_before_output_is_an_http_error(gateway):
    response = await gateway.client.post("/ui/chat", json=ask(model="demo-rate-limited"))
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    response = await gateway.client.post("/ui/chat", json=ask(model="nobody"))
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_failure_in_mid_answer_is_told_in_it_and_ends_cleanly(gateway):
    read = await collect(gateway.client, "POST", "/ui/chat", json=ask(model="demo-cut"))
    assert kinds(read)[-4:] == ["text-end", "message-metadata", "error", "[DONE]"]
    told = read.events[-3].data["messageMetadata"]["end"]
    assert (told["status"], told["code"]) == ("failed", "upstream_reset")
    assert not read.cut


async def test_who_left_is_given_everything_again(gateway):
    await begin(gateway, model="demo-stall")
    first = await collect(gateway.client, "GET", "/ui/chat/c-1/stream", stop_after=6)
    second = await collect(gateway.client, "GET", "/ui/chat/c-1/stream", stop_after=6)
    assert first.events[:6] == second.events[:6]
    assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"
    await gateway.client.post("/ui/chat/c-1/stop")


async def test_what_was_finished_while_away_is_there_and_then_is_not_given_again(gateway):
    stream = await begin(gateway, model="demo-long")
    await eventually(lambda: not gateway.system.gateway.open_streams)
    assert await status(gateway, stream) == "completed"
    read = await collect(gateway.client, "GET", "/ui/chat/c-1/stream")
    assert read.headers["stream-id"] == stream
    assert kinds(read)[-1] == "[DONE]"
    again = await gateway.client.get("/ui/chat/c-1/stream")
    assert (again.status_code, again.content) == (204, b"")


async def test_what_was_read_to_its_end_is_not_given_again(gateway):
    await collect(gateway.client, "POST", "/ui/chat", json=ask())
    assert (await gateway.client.get("/ui/chat/c-1/stream")).status_code == 204
    await collect(gateway.client, "POST", "/ui/chat", json=ask(model="demo-long"), stop_after=3)
    assert (await collect(gateway.client, "GET", "/ui/chat/c-1/stream", stop_after=1)).status == 200


async def test_an_end_that_nobody_took_counts_as_not_given(gateway):
    """It stands in the buffers of a connection whose other end is not there."""
    async with connected(gateway.port, receive_buffer=4096) as client:
        client.send(request("POST", "/ui/chat", ask(text=TEXT * 20)))
        await client.until(b"text-delta")
        await eventually(lambda: not gateway.system.gateway.open_streams)
        read = await collect(gateway.client, "GET", "/ui/chat/c-1/stream")
    assert said(read) == TEXT * 20


async def test_nobody_asked_in_this_chat(gateway):
    assert (await gateway.client.get("/ui/chat/none/stream")).status_code == 204
    stopped = await gateway.client.post("/ui/chat/none/stop")
    assert (stopped.status_code, stopped.json()) == (200, {"chat": "none", "stopped": []})


async def test_names_of_chats_may_hold_anything_that_is_printable(gateway):
    name = "a/b c?ü"
    stream = await begin(gateway, name)
    stopped = await gateway.client.post("/ui/chat/a%2Fb%20c%3F%C3%BC/stop")
    assert stopped.json() == {"chat": name, "stopped": [stream]}
    refused = await gateway.client.get(f"/ui/chat/{'x' * 256}/stream")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")


async def test_stop_ends_what_is_open_and_keeps_what_arrived(gateway):
    stream = await begin(gateway)
    stopped = await gateway.client.post("/ui/chat/c-1/stop")
    assert stopped.json() == {"chat": "c-1", "stopped": [stream]}
    assert await status(gateway, stream) == "cancelled"
    read = await collect(gateway.client, "GET", "/ui/chat/c-1/stream")
    assert kinds(read)[-2:] == ["abort", "[DONE]"]
    assert said(read)
    assert (await gateway.client.post("/ui/chat/c-1/stop")).json()["stopped"] == []


async def test_stop_ends_every_answer_of_the_chat_and_of_no_other(gateway):
    other = await begin(gateway, "c-2")
    streams = [await begin(gateway), await begin(gateway)]
    assert sorted((await gateway.client.post("/ui/chat/c-1/stop")).json()["stopped"]) == sorted(streams)
    assert await status(gateway, other) == "open"
    await gateway.client.post("/ui/chat/c-2/stop")


async def test_a_dropped_connection_stops_nothing(gateway):
    stream = await begin(gateway)
    assert await status(gateway, stream) == "open"
    await gateway.client.post("/ui/chat/c-1/stop")


async def test_a_reader_that_knows_its_cursor_goes_on_after_it(gateway):
    whole = await collect(gateway.client, "POST", "/ui/chat", json=ask())
    headers = {"last-event-id": whole.events[3].id}
    for method, path, more in (
        ("GET", "/ui/chat/c-1/stream", {}),
        ("POST", "/ui/chat", {"json": ask()}),
    ):
        rest = await collect(gateway.client, method, path, headers=headers, **more)
        assert rest.events == whole.events[4:]
    headers = {"last-event-id": whole.events[-1].id}
    assert (await gateway.client.get("/ui/chat/c-1/stream", headers=headers)).status_code == 204


async def test_every_place_to_go_on_from_gives_the_same_rest(gateway):
    whole = await collect(gateway.client, "POST", "/ui/chat", json=ask(model="demo-tools", text="Hello"))
    assert any(kind == "tool-input-available" for kind in kinds(whole))
    for at, event in enumerate(whole.events[:-1]):
        rest = await collect(
            gateway.client, "GET", "/ui/chat/c-1/stream", headers={"last-event-id": event.id}
        )
        # Both events that open a stream stand before its first entry, and have one id.
        assert rest.events == whole.events[max(at, 1) + 1 :]


async def test_the_same_key_is_paid_once(gateway):
    headers = {"idempotency-key": "k"}
    first = await collect(gateway.client, "POST", "/ui/chat", json=ask(), headers=headers)
    second = await collect(gateway.client, "POST", "/ui/chat", json=ask(), headers=headers)
    assert first.headers["stream-id"] == second.headers["stream-id"]
    assert first.events == second.events


async def test_an_answer_goes_on_with_the_message_whose_calls_were_answered(gateway):
    part = {"type": "tool-f", "toolCallId": "c1", "state": "output-available", "input": {}, "output": 1}
    messages = [*ask()["messages"], {"id": "a-1", "role": "assistant", "parts": [part]}]
    read = await collect(
        gateway.client, "POST", "/ui/chat", json=ask(messages=messages, model="demo"), stop_after=4
    )
    assert read.events[0].data["messageId"] == "a-1"
    stream = read.headers["stream-id"]
    await eventually(lambda: not gateway.system.gateway.open_streams)
    for path in ("/ui/chat/c-1/stream", f"/v1/streams/{stream}/events?dialect=ai_sdk"):
        again = await collect(gateway.client, "GET", path)
        assert again.events[0].data["messageId"] == "a-1"


async def test_any_stream_can_be_read_as_a_ui_message_stream(gateway):
    made = await collect(gateway.client, "POST", "/v1/streams", json={"request": ask(), "dialect": "ai_sdk"})
    stream = made.headers["stream-id"]
    read = await collect(gateway.client, "GET", f"/v1/streams/{stream}/events?dialect=ai_sdk")
    assert said(read) == TEXT == made.text
    assert read.headers["x-vercel-ai-ui-message-stream"] == "v1"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"{}", "missing_required_parameter"),
        (json.dumps(ask(messages=[])).encode(), "invalid_value"),
    ],
)
async def test_what_is_wrong_with_a_request_is_told(gateway, body, code):
    headers = {"content-type": "application/json"}
    response = await gateway.client.post("/ui/chat", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


async def test_a_page_elsewhere_cannot_ask(gateway):
    response = await gateway.client.post("/ui/chat", content=json.dumps(ask()))
    assert response.status_code == 415


async def test_the_pages_own_files_are_still_there(gateway):
    assert (await gateway.client.get("/ui/nothing.js")).json()["error"]["code"] == "not_found"
    assert (await gateway.client.get("/ui/chat")).status_code == 404
    assert (await gateway.client.get("/")).status_code == 200


async def test_a_chat_is_found_again_by_the_next_process(tmp_path):
    settings = config(store={"path": str(tmp_path / "data"), "kind": "embedded"})
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        whole = await collect(gateway.client, "POST", "/ui/chat", json=ask())
        open_ = await begin(gateway, "c-2")
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        read = await collect(gateway.client, "GET", "/ui/chat/c-1/stream")
        assert read.events == whole.events
        read = await collect(gateway.client, "GET", "/ui/chat/c-2/stream")
        assert read.headers["stream-id"] == open_
        assert kinds(read)[-2:] == ["error", "[DONE]"]
        assert (await gateway.client.get("/ui/chat/c-2/stream")).status_code == 204


class TestWithKeys:
    @pytest.fixture
    def settings(self):
        return config(keys={"one": "sk-client-one", "two": "sk-client-two"})

    async def test_chats_are_each_principals_own(self, gateway):
        one, two = ({"authorization": f"Bearer sk-client-{name}"} for name in ("one", "two"))
        read = await collect(
            gateway.client, "POST", "/ui/chat", json=ask(model="demo-stall"), headers=one, stop_after=4
        )
        stream = read.headers["stream-id"]
        assert (await gateway.client.get("/ui/chat/c-1/stream", headers=two)).status_code == 204
        assert (await gateway.client.post("/ui/chat/c-1/stop", headers=two)).json()["stopped"] == []
        assert (await gateway.client.get("/ui/chat/c-1/stream")).status_code == 401
        stopped = await gateway.client.post("/ui/chat/c-1/stop", headers=one)
        assert stopped.json()["stopped"] == [stream]


# --- what is remembered ------------------------------------------------------------------------------


class Listing:
    """A gateway's list of streams, all without a chat, and how often it was asked."""

    def __init__(self, count):
        self.count, self.asked = count, 0

    async def list(self, principal, before, limit):
        self.asked += 1
        start = int(before[2:] or 0) if before else 0
        rows = range(start + 1, min(start + limit, self.count) + 1)
        return [
            type("Row", (), {"id": f"s_{row}", "info": type("Info", (), {"metadata": None})}) for row in rows
        ]


@pytest.mark.parametrize(("count", "asked"), [(0, 1), (PAGE - 1, 1), (10 * LOOK_BACK, LOOK_BACK // PAGE)])
async def test_an_unknown_chat_is_looked_for_among_so_many(count, asked):
    listing = Listing(count)
    assert await look_for(listing, Principal("p"), "c") is None
    assert listing.asked == asked


def test_chats_that_nobody_asked_for_in_the_longest_time_are_forgotten():
    chats = Chats(max_chats=2)
    first, second = chats.of(Principal("p"), "1"), chats.of(Principal("p"), "2")
    assert chats.of(Principal("p"), "1") is first
    chats.of(Principal("p"), "3")
    assert len(chats) == 2
    assert chats.of(Principal("p"), "1") is first
    assert chats.of(Principal("p"), "2") is not second
