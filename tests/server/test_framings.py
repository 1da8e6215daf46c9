"""NDJSON and plain text: created in, read in, resumed, ended; the same log as SSE shows."""

import json

import httpx
import pytest

from tests.server.sse import collect

ASK = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
NDJSON = {"accept": "application/x-ndjson"}
PLAIN = {"accept": "text/plain"}


async def create(gateway, route, headers, model="demo"):
    if route == "/stream":
        return await collect(
            gateway.client, "GET", route, params={"content": "Hello", "model": model}, headers=headers
        )
    return await collect(
        gateway.client, "POST", route, json={"request": {**ASK, "model": model}}, headers=headers
    )


def lines(read):
    return [json.loads(line) for line in read.raw.splitlines()]


async def sse(gateway, stream):
    return await collect(gateway.client, "GET", f"/v1/streams/{stream}/events")


@pytest.mark.parametrize("route", ["/v1/streams", "/stream"])
async def test_ndjson_says_what_sse_says(gateway, route):
    created = await create(gateway, route, NDJSON)
    assert created.headers["content-type"] == "application/x-ndjson"
    events = (await sse(gateway, created.headers["stream-id"])).events
    found = lines(created)
    assert [(line["ev"], line["d"], line["c"]) for line in found] == [
        (event.name, event.data, event.id) for event in events[1:]
    ]
    again = await collect(
        gateway.client, "GET", f"/v1/streams/{created.headers['stream-id']}/events", headers=NDJSON
    )
    assert again.raw == created.raw


async def test_ndjson_resumes_after_any_line(gateway):
    created = await create(gateway, "/v1/streams", NDJSON)
    whole = created.raw.splitlines(keepends=True)
    url = f"/v1/streams/{created.headers['stream-id']}/events"
    for number in range(0, len(whole) - 1, 7):
        headers = {**NDJSON, "last-event-id": json.loads(whole[number])["c"]}
        rest = await collect(gateway.client, "GET", url, headers=headers)
        assert rest.raw == b"".join(whole[number + 1 :])


@pytest.mark.parametrize("route", ["/v1/streams", "/stream"])
async def test_plain_text_is_the_text_and_nothing_else(gateway, route):
    created = await create(gateway, route, PLAIN)
    assert created.headers["content-type"] == "text/plain; charset=utf-8"
    assert created.raw.decode() == (await sse(gateway, created.headers["stream-id"])).text


async def test_plain_text_resumes_from_a_cursor_that_another_format_gave(gateway):
    events = (await create(gateway, "/v1/streams", {})).events
    stream = events[0].id.split("~")[0]
    texts = [event.data["delta"] if event.name == "delta" else "" for event in events]
    for number in range(1, len(events) - 1, 9):
        params = {"after": events[number].id}
        rest = await collect(
            gateway.client, "GET", f"/v1/streams/{stream}/events", params=params, headers=PLAIN
        )
        assert rest.raw.decode() == "".join(texts[number + 1 :])


@pytest.mark.parametrize("model", ["demo-error", "demo-cut", "demo-truncated"])
async def test_failed_answer_ends_ndjson_with_its_reason_and_cuts_plain_text(gateway, model):
    told = await create(gateway, "/v1/streams", NDJSON, model)
    assert not told.cut
    end = lines(told)[-1]
    assert (end["ev"], end["d"]["status"]) == ("fail", "failed")
    assert end["d"]["message"]
    text = await create(gateway, "/v1/streams", PLAIN, model)
    assert text.cut
    assert text.raw


async def test_refused_request_is_a_json_error_in_every_format(gateway):
    for headers in (NDJSON, PLAIN):
        response = await gateway.client.post("/v1/streams", json={"request": {}}, headers=headers)
        assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
        assert response.json()["error"]["param"] == "model"


async def test_ndjson_of_a_lost_log_and_beyond_the_tail_are_errors(gateway):
    stream = (await create(gateway, "/v1/streams", NDJSON)).headers["stream-id"]
    url = f"/v1/streams/{stream}/events"
    for cursor, status in ((f"{stream}~0007000000000001", 409), ("99999", 416)):
        response: httpx.Response = await gateway.client.get(url, params={"after": cursor}, headers=NDJSON)
        assert response.status_code == status


async def test_read_at_the_end_repeats_the_end_or_is_stopped(gateway):
    created = await create(gateway, "/v1/streams", NDJSON)
    last = lines(created)[-1]
    url = f"/v1/streams/{created.headers['stream-id']}/events"
    again = await collect(gateway.client, "GET", url, params={"after": last["c"]}, headers=NDJSON)
    assert lines(again) == [last]
    stopped = await gateway.client.get(url, headers={**NDJSON, "last-event-id": last["c"]})
    assert stopped.status_code == 204
