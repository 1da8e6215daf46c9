"""Creating: native, simple and OpenAI Chat, with what each answers to good and bad input."""

import asyncio
import json
import re
import socket
import struct

import pytest

from penstock.config import ProviderConfig, TargetConfig
from penstock.server.context import ServerSettings
from tests.server.conftest import config
from tests.server.raw import connected, eventually, request
from tests.server.sse import collect

HELLO = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}


def native(**more):
    return {"dialect": "openai_chat", "request": HELLO, **more}


def lose(raw):
    """Lose the connection at once, when it is closed."""
    sock = raw.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def error(response):
    body = json.loads(await response.aread())["error"]
    return response.status_code, body["code"], body["param"]


# --- native ------------------------------------------------------------------------------------------


async def test_native_stream_names_itself_first_and_says_how_it_ended(gateway):
    got = await collect(gateway.client, "POST", "/v1/streams", json=native())
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/event-stream")
    first, last = got.events[0], got.events[-1]
    stream = got.headers["stream-id"]
    assert (first.name, first.id) == ("stream", f"{stream}~0000000000000000")
    assert first.data["status"] == "open"
    assert last.name == "done"
    assert got.text == "one two three"


async def test_every_native_event_has_the_cursor_after_it(gateway):
    got = await collect(gateway.client, "POST", "/v1/streams", json=native())
    stream = got.headers["stream-id"]
    assert [e.id for e in got.events] == [f"{stream}~{n:016d}" for n in range(len(got.events))]
    assert [e.data["n"] for e in got.events[1:]] == list(range(1, len(got.events)))


async def test_headers_of_a_stream_tell_proxies_to_keep_their_hands_off(gateway):
    got = await collect(gateway.client, "POST", "/v1/streams", json=native())
    assert got.headers["cache-control"] == "no-store, no-transform"
    assert got.headers["x-accel-buffering"] == "no"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["location"] == f"/v1/streams/{got.headers['stream-id']}"
    assert got.headers["x-request-id"].startswith("req_")


async def test_retry_stands_only_inside_the_first_event(gateway):
    got = await collect(gateway.client, "POST", "/v1/streams", json=native())
    assert got.raw.startswith(b"retry: 1000\nevent: stream\ndata: ")
    assert got.raw.count(b"retry:") == 1


async def test_respond_async_answers_with_where_to_read(gateway):
    response = await gateway.client.post("/v1/streams", json=native(), headers={"prefer": "respond-async"})
    assert response.status_code == 201
    body = response.json()
    assert response.headers["location"] == f"/v1/streams/{body['stream']}"
    got = await collect(gateway.client, "GET", body["events_url"], params={"after": body["cursor"]})
    assert got.text == "one two three"


@pytest.mark.parametrize(
    ("accept", "first"),
    [
        ("text/event-stream", b"retry: 1000\nevent: stream"),
        ("text/event-stream, */*", b"retry: 1000\nevent: stream"),
        ("application/x-ndjson", b'{"c":"s_'),
        ("text/plain", b"one"),
    ],
)
async def test_accept_chooses_the_format_where_it_names_one_type(gateway, accept, first):
    got = await collect(gateway.client, "POST", "/v1/streams", json=native(), headers={"accept": accept})
    assert got.raw.startswith(first)


async def test_ndjson_lines_carry_cursor_event_and_data(gateway):
    headers = {"accept": "application/x-ndjson"}
    got = await collect(gateway.client, "POST", "/v1/streams", json=native(), headers=headers)
    lines = [json.loads(line) for line in got.raw.splitlines()]
    assert lines[-1]["ev"] == "done"
    assert lines[-1]["c"] == f"{got.headers['stream-id']}~{len(lines):016d}"


# --- idempotency and resuming by POST ----------------------------------------------------------------


async def test_the_same_key_and_body_give_the_same_stream(gateway):
    headers = {"idempotency-key": "k1"}
    first = await collect(gateway.client, "POST", "/v1/streams", json=native(), headers=headers)
    second = await collect(gateway.client, "POST", "/v1/streams", json=native(), headers=headers)
    assert second.headers["stream-id"] == first.headers["stream-id"]
    # the second read finds the stream closed: all that was there, and the same end
    assert second.events[-1] == first.events[-1]
    assert second.text == first.text


async def test_the_same_key_with_another_body_is_refused(gateway):
    headers = {"idempotency-key": "k2"}
    await collect(gateway.client, "POST", "/v1/streams", json=native(), headers=headers)
    other = await gateway.client.post("/v1/streams", json=native(ttl_s=5), headers=headers)
    assert await error(other) == (422, "idempotency_key_reused", None)


async def test_a_generation_that_failed_before_output_releases_its_key(gateway):
    body = native(request={**HELLO, "model": "demo-rate-limited"})
    headers = {"idempotency-key": "k3"}
    first = await collect(gateway.client, "POST", "/v1/streams", json=body, headers=headers)
    second = await collect(gateway.client, "POST", "/v1/streams", json=body, headers=headers)
    assert first.events[-1].name == "fail"
    assert second.headers["stream-id"] != first.headers["stream-id"]


async def test_a_post_with_a_cursor_resumes_and_never_creates(gateway):
    first = await collect(gateway.client, "POST", "/v1/streams", json=native())
    cursor = first.events[2].id
    again = await collect(
        gateway.client, "POST", "/v1/streams", json=native(), headers={"last-event-id": cursor}
    )
    assert again.headers["stream-id"] == first.headers["stream-id"]
    assert [e.id for e in again.events[1:]] == [e.id for e in first.events[3:]]


async def test_a_post_at_the_end_gets_the_terminal_event_again(gateway):
    first = await collect(gateway.client, "POST", "/v1/streams", json=native())
    headers = {"last-event-id": first.events[-1].id}
    again = await collect(gateway.client, "POST", "/v1/streams", json=native(), headers=headers)
    assert again.status == 200
    assert again.events[-1] == first.events[-1]
    assert not again.cut


async def test_a_bare_position_does_not_name_a_stream_to_resume(gateway):
    headers = {"last-event-id": "0000000000000002"}
    assert await error(await gateway.client.post("/v1/streams", json=native(), headers=headers)) == (
        400,
        "cursor_incomplete",
        "Last-Event-ID",
    )


async def test_a_cursor_of_another_requests_stream_is_refused(gateway):
    first = await collect(gateway.client, "POST", "/v1/streams", json=native())
    headers = {"last-event-id": first.events[2].id}
    other = await gateway.client.post("/v1/streams", json=native(ttl_s=9), headers=headers)
    assert await error(other) == (422, "cursor_of_other_request", "Last-Event-ID")


async def test_an_empty_cursor_counts_as_none(gateway):
    headers = {"last-event-id": ""}
    got = await collect(gateway.client, "POST", "/v1/streams", json=native(), headers=headers)
    assert got.text == "one two three"


# --- bad input ---------------------------------------------------------------------------------------


ASK = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "invalid_json", None)),
        (b"{", (400, "invalid_json", None)),
        (b"[]", (400, "invalid_json", None)),
        ({"request": ASK, "dialect": "klingon"}, (400, "unknown_dialect", "dialect")),
        ({"dialect": "openai_chat"}, (400, "invalid_request", None)),
        (ASK, (400, "invalid_request", "request")),
        ({"request": {"messages": []}}, (400, "missing_required_parameter", "model")),
        ({"request": {"model": "demo"}}, (400, "missing_required_parameter", "messages")),
        ({"request": {**ASK, "model": "nope"}}, (404, "model_not_found", "model")),
        ({"request": ASK, "ttl_s": -1}, (400, "invalid_value", "ttl_s")),
        ({"request": ASK, "on_disconnect": "maybe"}, (400, "invalid_value", "on_disconnect")),
    ],
)
async def test_bad_native_bodies_get_a_clear_refusal(gateway, body, expected):
    content = body if isinstance(body, bytes) else json.dumps(body)
    headers = {"content-type": "application/json"}
    response = await gateway.client.post("/v1/streams", content=content, headers=headers)
    assert await error(response) == expected
    assert gateway.system.gateway.open_streams == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/streams", "/v1/chat/completions"])
async def test_a_body_beyond_the_limit_is_refused(gateway, path, chunked):
    async def pieces():
        for _ in range(100):
            yield b" " * 65536

    gateway.system.context.settings = ServerSettings(max_body_bytes=100_000)
    content = pieces() if chunked else b" " * 200_000
    headers = {"content-type": "application/json"}
    response = await gateway.client.post(path, content=content, headers=headers)
    assert await error(response) == (413, "body_too_large", None)


@pytest.mark.parametrize("path", ["/v1/streams", "/v1/chat/completions"])
async def test_a_body_that_is_not_declared_as_json_is_refused(gateway, path):
    response = await gateway.client.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert await error(response) == (415, "unsupported_media_type", None)


async def test_a_key_that_is_too_long_is_refused(gateway):
    headers = {"idempotency-key": "k" * 256}
    response = await gateway.client.post("/v1/streams", json=native(), headers=headers)
    assert await error(response) == (400, "invalid_value", "Idempotency-Key")


# --- GET /stream -------------------------------------------------------------------------------------


async def test_simple_stream_sends_the_text_as_unnamed_events(gateway):
    got = await collect(gateway.client, "GET", "/stream?content=one+two")
    texts = [e.data for e in got.events if e.name == ""]
    assert "".join(map(str, texts)) == "one two"
    assert got.names[0] == "stream"
    assert got.names[-1] == "done"


async def test_simple_stream_splits_line_ends_so_that_the_reader_gets_them_back(gateway):
    got = await collect(gateway.client, "GET", "/stream", params={"content": "a\nb\r\nc\rd"})
    assert "".join(e.data for e in got.events if e.name == "") == "a\nb\nc\nd"


async def test_simple_stream_in_json_is_the_native_format(gateway):
    got = await collect(gateway.client, "GET", "/stream?content=one&format=json")
    assert got.text == "one"


@pytest.mark.parametrize(
    ("query", "param"), [("", "content"), ("content=", "content"), ("content=x&format=xml", "format")]
)
async def test_simple_stream_refuses_what_it_cannot_serve(gateway, query, param):
    status, _, named = await error(await gateway.client.get(f"/stream?{query}"))
    assert (status, named) == (400, param)


async def test_an_event_source_that_comes_back_at_the_end_is_told_to_stop(gateway):
    first = await collect(gateway.client, "GET", "/stream?content=one")
    again = await gateway.client.get(
        "/stream?content=one", headers={"last-event-id": first.events[-1].id, "accept": "text/event-stream"}
    )
    assert again.status_code == 204


async def test_a_polyfill_that_sends_its_cursor_in_the_query_resumes_too(gateway):
    first = await collect(gateway.client, "GET", "/stream?content=one+two+three")
    cursor = first.events[2].id
    again = await collect(gateway.client, "GET", f"/stream?content=one+two+three&lastEventId={cursor}")
    assert again.headers["stream-id"] == first.headers["stream-id"]
    assert [e.id for e in again.events[1:]] == [e.id for e in first.events[3:]]


async def test_a_key_in_the_query_makes_a_repeated_get_free(gateway):
    first = await collect(gateway.client, "GET", "/stream?content=one&key=abc")
    again = await collect(gateway.client, "GET", "/stream?content=one&key=abc")
    assert again.headers["stream-id"] == first.headers["stream-id"]


@pytest.fixture
def settings():
    targets = {
        "thinks": [TargetConfig("paced", "demo?first_token_delay=600")],
        "stalls": [TargetConfig("paced", "demo-stall?first_token_delay=0&fail_after=1")],
    }
    providers = {
        "demo": ProviderConfig(kind="scripted", speed=0),
        "paced": ProviderConfig(kind="scripted"),
    }
    return config(models=targets, providers=providers)


async def ask(raw, model, until):
    """Ask as a bare EventSource does; return the stream that answers, once ``until`` has come."""
    raw.send(request("GET", f"/stream?model={model}&content=one"))
    return re.search(rb"stream-id: (\S+)", await raw.until(until))[1]


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_an_event_source_that_left_before_any_entry_was_sent_is_given_the_same_stream(gateway, how):
    async with connected(gateway.port) as raw:
        first = await ask(raw, "thinks", b"~0000000000000000\n\n")
        if how == "reset":
            lose(raw)
    stream = gateway.system.gateway._streams[first.decode()]
    await eventually(lambda: stream.holders == 0)
    async with connected(gateway.port) as raw:
        assert await ask(raw, "thinks", b"~0000000000000000\n\n") == first


async def test_an_event_source_that_may_have_left_is_given_the_same_stream_at_once(gateway):
    async with connected(gateway.port) as raw, connected(gateway.port) as other:
        first = await ask(raw, "thinks", b"~0000000000000000\n\n")
        raw.half_close()
        await raw.until(b"\n\n\r\n2\r\n:\n\r\n")  # asked whether it still reads
        assert await ask(other, "thinks", b"~0000000000000000\n\n") == first


async def test_a_browser_that_asks_again_the_moment_it_is_cut_is_given_the_same_stream(gateway):
    """A browser does so on another connection that it still has; both are news of one turn of the loop."""
    loop = asyncio.get_running_loop()
    question = request("GET", "/stream?model=thinks&content=one")
    async with connected(gateway.port) as other:
        other.send(request("GET", "/healthz"))
        await other.until(b"}")
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", gateway.port))
            await loop.sock_sendall(sock, question)
            got = b""
            while b"~0000000000000000\n\n" not in got:
                got += await loop.sock_recv(sock, 65536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.send(question)
        await other.until(b"~0000000000000000\n\n")
    first, second = (re.search(rb"stream-id: (\S+)", answer)[1] for answer in (got, other.got))
    assert first == second


async def test_an_equal_request_is_another_one_while_the_first_is_being_read(gateway):
    async with connected(gateway.port) as raw, connected(gateway.port) as other:
        first = await ask(raw, "thinks", b"~0000000000000000\n\n")
        assert await ask(other, "thinks", b"~0000000000000000\n\n") != first


async def test_an_equal_request_is_another_one_after_a_client_that_was_sent_an_entry(gateway):
    async with connected(gateway.port) as raw:
        first = await ask(raw, "stalls", b"~0000000000000002\n\n")
        lose(raw)
    run = gateway.system.gateway._runs[first.decode()]
    await eventually(lambda: run.attendance._readers == 0)
    async with connected(gateway.port) as raw:
        assert await ask(raw, "stalls", b"~0000000000000002\n\n") != first


# --- OpenAI Chat -------------------------------------------------------------------------------------


async def test_chat_streams_chunks_without_ids_and_ends_with_done(gateway):
    got = await collect(gateway.client, "POST", "/v1/chat/completions", json={**HELLO, "stream": True})
    assert b"\nid:" not in got.raw
    assert got.raw.endswith(b"data: [DONE]\n\n")
    text = "".join(
        c["delta"].get("content") or ""
        for e in got.events[:-1]
        for c in e.data["choices"]
    )  # fmt: skip
    assert text == "one two three"
    assert got.events[0].data["id"] == "chatcmpl-" + got.headers["stream-id"][2:]


async def test_chat_carries_ids_for_a_client_that_can_come_back(gateway):
    headers = {"accept": "text/event-stream"}
    body = {**HELLO, "stream": True}
    got = await collect(gateway.client, "POST", "/v1/chat/completions", json=body, headers=headers)
    assert all(e.id.startswith(got.headers["stream-id"]) for e in got.events)
    for cut in range(1, len(got.events)):
        headers = {"last-event-id": got.events[cut - 1].id}
        again = await collect(gateway.client, "POST", "/v1/chat/completions", json=body, headers=headers)
        assert [e.data for e in again.events] == [e.data for e in got.events[cut:]], cut


async def test_chat_without_streaming_gives_one_json_answer(gateway):
    response = await gateway.client.post("/v1/chat/completions", json=HELLO)
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "one two three"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] > 0


async def test_usage_comes_only_when_asked_for(gateway):
    body = {**HELLO, "stream": True}
    without = await collect(gateway.client, "POST", "/v1/chat/completions", json=body)
    assert b'"usage"' not in without.raw
    body["stream_options"] = {"include_usage": True}
    with_usage = await collect(gateway.client, "POST", "/v1/chat/completions", json=body)
    assert with_usage.events[-2].data["choices"] == []
    assert with_usage.events[-2].data["usage"]["total_tokens"] > 0


async def test_a_failure_before_output_is_a_real_http_error(gateway):
    body = {**HELLO, "model": "demo-rate-limited", "stream": True}
    response = await gateway.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("model", ["demo-error", "demo-cut", "demo-truncated"])
async def test_a_failure_in_mid_answer_is_told_and_the_body_is_cut(gateway, model):
    body = {**HELLO, "model": model, "stream": True}
    got = await collect(gateway.client, "POST", "/v1/chat/completions", json=body)
    assert got.status == 200
    assert got.cut
    assert b"[DONE]" not in got.raw
    assert set(got.events[-1].data["error"]) == {"message", "type", "param", "code"}


async def test_a_failure_in_mid_answer_without_streaming_is_an_error(gateway):
    response = await gateway.client.post("/v1/chat/completions", json={**HELLO, "model": "demo-cut"})
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_reset"


async def test_a_finished_chat_can_be_fetched_again_whole_and_as_a_stream(gateway):
    first = await gateway.client.post("/v1/chat/completions", json=HELLO)
    url = f"/v1/chat/completions/{first.json()['id']}"
    assert (await gateway.client.get(url)).json() == first.json()
    got = await collect(gateway.client, "GET", url, params={"stream": "true", "starting_after": "1"})
    assert got.raw.endswith(b"\n\n")
    assert not got.cut


@pytest.mark.parametrize("metadata", [{str(n): "" for n in range(17)}, {"n" * 65: ""}, {"name": "v" * 513}])
async def test_metadata_is_bounded(gateway, metadata):
    response = await gateway.client.post("/v1/streams", json=native(metadata=metadata))
    assert await error(response) == (400, "invalid_value", "metadata")


# --- sharing a run -----------------------------------------------------------------------------------


async def test_equal_calls_in_flight_are_answered_by_one_run_when_they_want_it(gateway):
    body = {"request": {"model": "demo-stall", "messages": [{"role": "user", "content": "Hello"}]}}
    shared = {"stream-join": "in-flight", "prefer": "respond-async"}
    first = (await gateway.client.post("/v1/streams", json=body, headers=shared)).json()["stream"]
    assert (await gateway.client.post("/v1/streams", json=body, headers=shared)).json()["stream"] == first
    alone = {"prefer": "respond-async"}
    assert (await gateway.client.post("/v1/streams", json=body, headers=alone)).json()["stream"] != first
    assert gateway.system.gateway.open_streams == 2


async def test_a_wish_to_share_that_is_not_understood_is_refused(gateway):
    body = {"request": {"model": "demo-echo", "messages": [{"role": "user", "content": "Hello"}]}}
    response = await gateway.client.post("/v1/streams", json=body, headers={"stream-join": "yes"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Stream-Join")
