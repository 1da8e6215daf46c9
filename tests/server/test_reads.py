"""Reading again: cursors from every source, the table of situations, snapshot, cancel, owners."""

import asyncio
import hashlib

import pytest

from penstock.types.principals import Principal
from tests.server.raw import eventually
from tests.server.sse import collect

HELLO = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}


async def finished(gateway, model="demo-echo"):
    body = {"request": {**HELLO, "model": model}}
    return await collect(gateway.client, "POST", "/v1/streams", json=body)


async def started(gateway, model="demo-stall"):
    """A stream that stays open; returns its id."""
    headers = {"prefer": "respond-async"}
    body = {"request": {**HELLO, "model": model}}
    response = await gateway.client.post("/v1/streams", json=body, headers=headers)
    return response.json()["stream"]


def code(response):
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"last-event-id": "{c}"}, {}),
        ({}, {"lastEventId": "{c}"}),
        ({}, {"last_event_id": "{c}"}),
        ({}, {"after": "{c}"}),
        ({}, {"starting_after": "2"}),
        ({}, {"offset": "0000000000000002"}),
        ({"last-event-id": "{c}"}, {"after": "0"}),  # the header beats the query
        ({"last-event-id": ""}, {"after": "{c}"}),  # an empty one counts as absent
    ],
)
async def test_a_cursor_is_taken_from_every_source(gateway, headers, query):
    first = await finished(gateway)
    cursor = first.events[2].id
    url = f"/v1/streams/{first.headers['stream-id']}/events"
    fill = {k: v.format(c=cursor) for k, v in headers.items()}
    again = await collect(
        gateway.client, "GET", url, headers=fill, params={k: v.format(c=cursor) for k, v in query.items()}
    )
    assert again.events[1:] == first.events[3:]
    assert again.events[0].data["from"] == 2


async def test_every_cut_resumes_to_the_same_bytes(gateway):
    first = await finished(gateway)
    url = f"/v1/streams/{first.headers['stream-id']}/events"
    for cut in range(len(first.events) - 1):
        headers = {"last-event-id": first.events[cut].id}
        again = await collect(gateway.client, "GET", url, headers=headers)
        assert again.events[1:] == first.events[cut + 1 :]


@pytest.mark.parametrize(("source", "status"), [("Last-Event-ID", 204), ("lastEventId", 204), ("after", 200)])
async def test_at_the_end_a_reconnect_is_stopped_and_others_get_the_end_again(gateway, source, status):
    first = await finished(gateway)
    url = f"/v1/streams/{first.headers['stream-id']}/events"
    cursor = first.events[-1].id
    more = {"headers": {source: cursor}} if source == "Last-Event-ID" else {"params": {source: cursor}}
    response = await gateway.client.get(url, **more)
    assert response.status_code == status
    if status == 200:
        assert b"event: done" in response.content
        assert response.content.count(b"\nid: ") == 2  # `stream` and the end


async def test_now_starts_at_the_tail(gateway):
    first = await finished(gateway)
    url = f"/v1/streams/{first.headers['stream-id']}/events?after=now"
    assert (await collect(gateway.client, "GET", url)).names == ["stream", "done"]


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ("999", (416, "cursor_ahead")),
        ("rubbish", (400, "invalid_cursor")),
        ("s_0001ARZ3NDEKTSV4RRFFQ69G5FAV~0000000000000001", (400, "cursor_mismatch")),
    ],
)
async def test_a_wrong_cursor_is_refused_with_its_reason(gateway, cursor, expected):
    first = await finished(gateway)
    url = f"/v1/streams/{first.headers['stream-id']}/events"
    assert code(await gateway.client.get(url, params={"after": cursor})) == expected


async def test_a_cursor_of_another_epoch_is_told_that_the_log_was_lost(gateway):
    first = await finished(gateway)
    stream = first.headers["stream-id"]
    url = f"/v1/streams/{stream}/events"
    headers = {"last-event-id": f"{stream}~0003000000000001"}
    got = await collect(gateway.client, "GET", url, headers=headers)
    assert (got.status, got.names, got.events[0].data["code"]) == (200, ["fail"], "log_lost")
    ndjson = await gateway.client.get(url, headers={**headers, "accept": "application/x-ndjson"})
    assert code(ndjson) == (409, "log_lost")


@pytest.mark.parametrize("stream", ["s_0001ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense", "..%2F..%2Fetc"])
async def test_an_unknown_stream_is_not_found(gateway, stream):
    assert (await gateway.client.get(f"/v1/streams/{stream}")).status_code == 404


async def test_somebody_elses_stream_looks_like_none(gateway):
    first = await finished(gateway)
    stream = first.headers["stream-id"]
    gateway.system.context.guard.admit = lambda headers, found, *, spends, address: Principal("another")
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        response = await gateway.client.request(method, f"/v1/streams/{stream}{path}")
        assert code(response) == (404, "stream_not_found")


async def test_a_late_reader_gets_the_same_bytes(gateway):
    stream = await started(gateway, "demo-stall")
    readers = [asyncio.ensure_future(collect(gateway.client, "GET", f"/v1/streams/{stream}/events"))]
    await asyncio.sleep(0.05)
    readers.append(asyncio.ensure_future(collect(gateway.client, "GET", f"/v1/streams/{stream}/events")))
    await asyncio.sleep(0.05)
    await gateway.client.post(f"/v1/streams/{stream}/cancel")
    early, late = await asyncio.gather(*readers)
    assert early.events[1:] == late.events[1:]
    assert len(early.events) > 10


async def test_snapshot_and_replay_agree(gateway):
    first = await finished(gateway, "demo")
    shot = (await gateway.client.get(f"/v1/streams/{first.headers['stream-id']}")).json()
    assert shot["text"] == first.text
    assert shot["status"] == "completed"
    assert shot["cursor"] == first.events[-1].id
    assert shot["end"] == {k: v for k, v in first.events[-1].data.items() if k != "n"}


async def test_digests_verify_what_a_reader_has(gateway):
    got = await finished(gateway, "demo")
    lines = [line[6:] for line in got.raw.split(b"\n") if line.startswith(b'data: {"n":')]
    end = got.events[-1].data
    assert end["entries"] == len(lines) - 1
    assert end["sha256"] == hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
    assert end["text_sha256"] == hashlib.sha256(got.text.encode()).hexdigest()


async def test_cancel_stops_the_generation_and_every_reader_sees_it(gateway):
    stream = await started(gateway)
    reader = asyncio.ensure_future(collect(gateway.client, "GET", f"/v1/streams/{stream}/events"))
    await asyncio.sleep(0.05)
    response = await gateway.client.post(f"/v1/streams/{stream}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    got = await reader
    assert (got.names[-1], got.events[-1].data["code"], got.cut) == ("fail", "cancelled", False)
    assert gateway.system.gateway.open_streams == 0


async def test_cancel_is_idempotent_and_leaves_an_ended_stream_as_it_is(gateway):
    first = await finished(gateway)
    for _ in range(2):
        response = await gateway.client.post(f"/v1/streams/{first.headers['stream-id']}/cancel")
        assert (response.status_code, response.json()["status"]) == (200, "completed")


async def test_cancel_by_key_stops_a_stream_whose_id_is_not_known(gateway):
    headers = {"idempotency-key": "mine", "prefer": "respond-async"}
    body = {"request": {**HELLO, "model": "demo-stall"}}
    created = await gateway.client.post("/v1/streams", json=body, headers=headers)
    response = await gateway.client.post("/v1/streams/cancel", headers={"idempotency-key": "mine"})
    assert response.json()["id"] == created.json()["stream"]
    assert response.json()["status"] == "cancelled"
    assert code(await gateway.client.post("/v1/streams/cancel")) == (400, "missing_required_parameter")
    other = await gateway.client.post("/v1/streams/cancel", headers={"idempotency-key": "no such"})
    assert code(other) == (404, "stream_not_found")


@pytest.mark.parametrize("dialect", ["openai_chat", "text", "native"])
async def test_the_same_log_reads_in_other_dialects(gateway, dialect):
    first = await finished(gateway)
    url = f"/v1/streams/{first.headers['stream-id']}/events?dialect={dialect}"
    got = await collect(gateway.client, "GET", url)
    assert b"three" in got.raw
    assert not got.cut


async def test_an_unknown_dialect_is_refused(gateway):
    first = await finished(gateway)
    url = f"/v1/streams/{first.headers['stream-id']}/events?dialect=morse"
    assert code(await gateway.client.get(url)) == (400, "unknown_dialect")


async def test_a_plain_client_that_leaves_stops_its_generation(gateway):
    body = {**HELLO, "model": "demo-stall", "stream": True}
    await collect(gateway.client, "POST", "/v1/chat/completions", json=body, stop_after=2)
    await eventually(lambda: gateway.system.gateway.open_streams == 0)


async def test_a_client_that_can_come_back_leaves_its_generation_going(gateway):
    body = {**HELLO, "model": "demo-stall", "stream": True}
    headers = {"idempotency-key": "back"}
    await collect(gateway.client, "POST", "/v1/chat/completions", json=body, headers=headers, stop_after=2)
    await asyncio.sleep(0.05)
    assert gateway.system.gateway.open_streams == 1


async def test_a_client_that_leaves_while_the_status_line_is_held_back_stops_it_too(gateway):
    body = {**HELLO, "model": "demo-slow-start", "stream": True}
    task = asyncio.ensure_future(gateway.client.post("/v1/chat/completions", json=body))
    await eventually(lambda: gateway.system.gateway.open_streams == 1)
    task.cancel()
    await eventually(lambda: gateway.system.gateway.open_streams == 0)
