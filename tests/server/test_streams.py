"""Streams as things: listed, looked at, polled, erased, given away by link."""

import asyncio
import json

import pytest

from penstock.assembly.system import assemble
from penstock.server.app import routes
from penstock.types.principals import Principal
from tests.server.conftest import config, running
from tests.server.raw import eventually
from tests.server.sse import collect

HELLO = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}


async def finished(gateway, model="demo-echo", **more):
    return await collect(
        gateway.client, "POST", "/v1/streams", json={"request": {**HELLO, "model": model}, **more}
    )


async def started(gateway, model="demo-stall"):
    """A stream that stays open; returns its id."""
    body = {"request": {**HELLO, "model": model}}
    response = await gateway.client.post("/v1/streams", json=body, headers={"prefer": "respond-async"})
    return response.json()["stream"]


def code(response):
    return response.status_code, response.json()["error"]["code"]


def become(gateway, name):
    """Whoever calls from now on is ``name``."""
    gateway.system.context.guard.admit = lambda headers, *more, **told: Principal(name)


# --- list ----------------------------------------------------------------------------------------------


async def test_own_streams_are_listed_newest_first_a_page_at_a_time(gateway):
    made = [(await finished(gateway, metadata={"n": str(n)})).headers["stream-id"] for n in range(5)]
    first = (await gateway.client.get("/v1/streams?limit=3")).json()
    assert [stream["id"] for stream in first["data"]] == made[:1:-1]
    assert first["has_more"]
    rest = (await gateway.client.get(f"/v1/streams?limit=3&before={first['data'][-1]['id']}")).json()
    assert [stream["id"] for stream in rest["data"]] == made[1::-1]
    assert not rest["has_more"]
    assert rest["data"][0]["status"] == "completed"
    assert rest["data"][0]["metadata"] == {"n": "1"}
    assert rest["data"][0]["expires_at"] > rest["data"][0]["closed_at"]


async def test_an_open_stream_is_listed_as_such(gateway):
    stream = await started(gateway)
    (listed,) = (await gateway.client.get("/v1/streams")).json()["data"]
    assert (listed["id"], listed["status"]) == (stream, "open")
    assert "closed_at" not in listed


async def test_nobody_is_shown_the_streams_of_another(gateway):
    await finished(gateway)
    become(gateway, "another")
    assert (await gateway.client.get("/v1/streams")).json()["data"] == []


@pytest.mark.parametrize("query", ["limit=-1", "limit=many", "limit=nan", "before=nonsense"])
async def test_a_page_that_cannot_be_is_refused(gateway, query):
    assert code(await gateway.client.get(f"/v1/streams?{query}")) == (400, "invalid_value")


# --- look ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", ["demo", "demo-tools", "demo-reasoning", "demo-error", "demo-cut", "demo-refusal"]
)
async def test_a_snapshot_says_what_a_replay_says(gateway, model):
    read = await finished(gateway, model)
    shot = (await gateway.client.get(f"/v1/streams/{read.headers['stream-id']}")).json()
    deltas = [event.data for event in read.events if event.name == "delta"]
    for kind, name in (("text", "text"), ("reasoning", "reasoning"), ("refusal", "refusal")):
        assert shot.get(name, "") == "".join(d.get("delta", "") for d in deltas if d["type"] == kind)
    calls = [d for d in deltas if d["type"] == "tool_call"]
    for call in shot.get("tool_calls", []):
        assert call["arguments"]
        assert call["name"]
    assert "".join(c["arguments"] for c in shot.get("tool_calls", [])) == "".join(
        c.get("delta", "") for c in calls
    )
    assert shot["cursor"] == read.events[-1].id
    assert shot["end"] == {k: v for k, v in read.events[-1].data.items() if k != "n"}


async def test_a_read_goes_on_where_a_snapshot_stands(gateway):
    stream = await started(gateway, "demo-stall")
    await eventually(lambda: gateway.system.gateway._streams[stream].committed > 5)
    shot = (await gateway.client.get(f"/v1/streams/{stream}")).json()
    reading = asyncio.ensure_future(
        collect(gateway.client, "GET", f"/v1/streams/{stream}/events", params={"after": shot["cursor"]})
    )
    await asyncio.sleep(0.05)
    await gateway.client.post(f"/v1/streams/{stream}/cancel")
    whole = (await gateway.client.get(f"/v1/streams/{stream}")).json()["text"]
    assert shot["text"] + (await reading).text == whole


async def test_head_says_where_the_tail_is_and_starts_nothing(gateway):
    read = await finished(gateway)
    stream = read.headers["stream-id"]
    for path in ("", "/events"):
        response = await gateway.client.head(f"/v1/streams/{stream}{path}")
        assert response.status_code == 200
        assert response.headers["stream-status"] == "completed"
        assert response.headers["stream-cursor"] == read.events[-1].id
        assert response.content == b""


async def test_a_snapshot_that_would_be_too_long_is_refused(gateway):
    read = await finished(gateway, "demo")
    gateway.system.context.settings = gateway.system.context.settings.__class__(max_snapshot_chars=10)
    url = f"/v1/streams/{read.headers['stream-id']}"
    assert code(await gateway.client.get(url)) == (422, "answer_too_large")


# --- poll ----------------------------------------------------------------------------------------------


async def poll(gateway, stream, **query):
    response = await gateway.client.get(f"/v1/streams/{stream}/entries", params=query)
    return response.json()


async def test_pages_of_entries_join_to_the_whole_log(gateway):
    read = await finished(gateway, "demo")
    stream = read.headers["stream-id"]
    found, cursor = [], "0"
    while True:
        page = await poll(gateway, stream, after=cursor, limit=7)
        assert len(page["entries"]) <= 7
        found += page["entries"]
        cursor = page["cursor"]
        if page["at_tail"]:
            break
    assert found == [
        event.data for event in read.events if isinstance(event.data, dict) and "n" in event.data
    ]
    assert page["status"] == "completed"


async def test_a_poll_waits_for_what_comes_next(gateway):
    stream = await started(gateway)
    tail = (await poll(gateway, stream, after="now"))["cursor"]
    waiting = asyncio.ensure_future(poll(gateway, stream, after=tail, wait=30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await gateway.client.post(f"/v1/streams/{stream}/cancel")
    page = await waiting
    assert page["entries"][-1]["type"] == "end"
    assert page["status"] == "cancelled"


async def test_a_poll_in_vain_says_so(gateway):
    stream = await started(gateway)
    await eventually(lambda: gateway.system.gateway._streams[stream].committed > 5)
    await asyncio.sleep(0.1)  # the scripted stall
    page = await poll(gateway, stream, after="now", wait=0.05)
    assert page["entries"] == []
    assert (page["status"], page["at_tail"]) == ("open", True)


async def test_a_poll_of_a_closed_stream_waits_for_nothing(gateway):
    read = await finished(gateway)
    page = await poll(gateway, read.headers["stream-id"], after=read.events[-1].id, wait=60)
    assert page["entries"] == []


async def test_a_poll_beyond_the_tail_or_of_a_lost_log_is_refused(gateway):
    stream = (await finished(gateway)).headers["stream-id"]
    url = f"/v1/streams/{stream}/entries"
    assert code(await gateway.client.get(url, params={"after": "999"})) == (416, "cursor_ahead")
    cursor = f"{stream}~0003000000000001"
    assert code(await gateway.client.get(url, params={"after": cursor})) == (409, "log_lost")
    assert code(await gateway.client.get(url, params={"wait": "-1"})) == (400, "invalid_value")


# --- coalesce and pace -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["native", "text", "openai_chat"])
async def test_coalesced_catch_up_is_shorter_and_says_the_same(gateway, dialect):
    stream = (await finished(gateway, "demo")).headers["stream-id"]
    url = f"/v1/streams/{stream}/events?dialect={dialect}"
    plain = await collect(gateway.client, "GET", url)
    merged = await collect(gateway.client, "GET", url + "&coalesce=1")
    assert len(merged.events) < len(plain.events) / 5
    assert said(merged, dialect) == said(plain, dialect)
    assert merged.events[-1] == plain.events[-1]


@pytest.mark.parametrize("dialect", ["native", "text", "openai_chat"])
async def test_a_cursor_from_a_coalesced_read_goes_on_exactly(gateway, dialect):
    stream = (await finished(gateway, "demo")).headers["stream-id"]
    url = f"/v1/streams/{stream}/events?dialect={dialect}"
    merged = await collect(gateway.client, "GET", url + "&coalesce=1")
    whole = said(merged, dialect)
    for cut, event in enumerate(merged.events[:-1]):
        if not event.id:
            continue
        rest = await collect(gateway.client, "GET", url, headers={"last-event-id": event.id})
        merged_part = type(merged)(200, {}, merged.events[: cut + 1])
        assert said(merged_part, dialect) + said(rest, dialect) == whole


def said(read, dialect):
    match dialect:
        case "native":
            return read.text
        case "text":
            return "".join(str(event.data) for event in read.events if not event.name)
    chunks = [event.data for event in read.events if isinstance(event.data, dict)]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))


async def test_a_paced_read_takes_the_time_that_reading_takes(gateway):
    read = await finished(gateway)  # 13 characters
    loop = asyncio.get_running_loop()
    began = loop.time()
    url = f"/v1/streams/{read.headers['stream-id']}/events?pace=100"
    again = await collect(gateway.client, "GET", url)
    assert again.text == read.text
    assert loop.time() - began >= len(read.text) / 100


@pytest.mark.parametrize("pace", ["0", "-5", "nan", "fast", "1e9"])
async def test_a_pace_that_cannot_be_kept_is_refused(gateway, pace):
    stream = (await finished(gateway)).headers["stream-id"]
    response = await gateway.client.get(f"/v1/streams/{stream}/events", params={"pace": pace})
    assert code(response) == (400, "invalid_value")


# --- erase ---------------------------------------------------------------------------------------------


async def test_an_erased_stream_is_gone_for_good(gateway):
    read = await finished(gateway)
    url = f"/v1/streams/{read.headers['stream-id']}"
    assert (await gateway.client.delete(url)).json()["deleted"]
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/entries"),
        ("DELETE", ""),
        ("POST", "/cancel"),
    ):
        assert code(await gateway.client.request(method, url + path)) == (410, "stream_gone")
    assert (await gateway.client.get("/v1/streams")).json()["data"] == []


async def test_erasing_an_open_stream_stops_it_first(gateway):
    stream = await started(gateway)
    reading = asyncio.ensure_future(collect(gateway.client, "GET", f"/v1/streams/{stream}/events"))
    await eventually(lambda: gateway.system.gateway._streams[stream].committed > 5)
    assert (await gateway.client.delete(f"/v1/streams/{stream}")).status_code == 200
    assert (await reading).names[-1] == "fail"
    assert gateway.system.gateway.open_streams == 0
    assert code(await gateway.client.get(f"/v1/streams/{stream}")) == (410, "stream_gone")


async def test_nobody_erases_the_stream_of_another(gateway):
    stream = (await finished(gateway)).headers["stream-id"]
    become(gateway, "another")
    assert code(await gateway.client.delete(f"/v1/streams/{stream}")) == (404, "stream_not_found")


# --- owners --------------------------------------------------------------------------------------------


OF_A_STREAM = [
    (method, route.path) for route in routes() if "{stream}" in route.path for method in sorted(route.methods)
]


@pytest.mark.parametrize(("method", "path"), OF_A_STREAM)
async def test_nobody_touches_the_stream_of_another_by_any_route(gateway, method, path):
    stream = await started(gateway)
    other = {"authorization": "Bearer a-key-of-another", "content-type": "application/json"}
    url = path.replace("{stream}", stream)
    response = await gateway.client.request(method, url, headers=other, content=b"{}")
    assert response.status_code == 404
    if method != "HEAD":
        assert code(response) == (404, "stream_not_found")
    assert (await gateway.client.get(f"/v1/streams/{stream}")).json()["status"] == "open"


# --- links ---------------------------------------------------------------------------------------------


@pytest.fixture
def settings():
    return config(keys={"app": "a-key-of-the-app", "other": "a-key-of-another"})


@pytest.fixture
async def gateway(settings, system):
    """A gateway with keys, whose client is ``app``."""
    async with running(system, settings) as served:
        served.client.headers["authorization"] = "Bearer a-key-of-the-app"
        yield served


async def link(gateway, stream, scope="read", **more):
    response = await gateway.client.post(f"/v1/streams/{stream}/links", json={"scope": scope, **more})
    assert response.status_code == 201, response.text
    return response.json()


def stranger(gateway):
    """Request headers of somebody without a key."""
    return {"authorization": ""}


async def test_the_bearer_of_a_link_reads_without_a_key(gateway):
    read = await finished(gateway)
    made = await link(gateway, read.headers["stream-id"])
    again = await collect(gateway.client, "GET", made["url"], headers=stranger(gateway))
    assert again.text == read.text
    token = {"token": made["token"]}
    for path in ("", "/entries"):
        url = f"/v1/streams/{read.headers['stream-id']}{path}"
        assert (await gateway.client.get(url, params=token, headers=stranger(gateway))).status_code == 200
        assert (await gateway.client.get(url, headers=stranger(gateway))).status_code == 401


async def test_a_link_resumes_as_a_key_does(gateway):
    read = await finished(gateway)
    made = await link(gateway, read.headers["stream-id"])
    headers = {**stranger(gateway), "last-event-id": read.events[3].id}
    again = await collect(gateway.client, "GET", made["url"], headers=headers)
    assert again.events[1:] == read.events[4:]


async def test_a_link_is_good_for_its_own_stream_and_purpose_only(gateway):
    stream, other = [(await finished(gateway)).headers["stream-id"] for _ in range(2)]
    read, stop = await link(gateway, stream), await link(gateway, stream, "cancel")
    refused = [
        ("GET", f"/v1/streams/{other}/events", read),
        ("POST", f"/v1/streams/{stream}/cancel", read),
        ("GET", f"/v1/streams/{stream}/events", stop),
    ]
    for method, url, made in refused:
        response = await gateway.client.request(
            method, url, params={"token": made["token"]}, headers=stranger(gateway)
        )
        assert code(response) == (403, "invalid_link")
    for method, url in (("DELETE", f"/v1/streams/{stream}"), ("POST", f"/v1/streams/{stream}/links")):
        response = await gateway.client.request(
            method, url, params={"token": read["token"]}, headers=stranger(gateway)
        )
        assert response.status_code == 401


async def test_a_cancel_link_stops_the_stream_as_a_beacon_would(gateway):
    stream = await started(gateway)
    made = await link(gateway, stream, "cancel")
    headers = {**stranger(gateway), "origin": "https://elsewhere.example", "content-type": "text/plain"}
    response = await gateway.client.post(made["url"], headers=headers, content=b"bye")
    assert response.json()["status"] == "cancelled"


async def test_a_link_ends_at_its_time(gateway, monkeypatch):
    stream = (await finished(gateway)).headers["stream-id"]
    made = await link(gateway, stream, ttl_s=5)
    links = gateway.system.context.links
    monkeypatch.setattr(links, "_wall", lambda: made["expires_at"] + 0.1)
    assert code(await gateway.client.get(made["url"], headers=stranger(gateway))) == (403, "link_expired")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"),
        lambda t: t.replace("read", "cancel"),
        lambda t: "",
        lambda t: "read.99999999999." + "A" * 43,
        lambda t: t + "x",
    ],
)
async def test_a_forged_link_opens_nothing(gateway, change):
    stream = (await finished(gateway)).headers["stream-id"]
    token = change((await link(gateway, stream))["token"])
    url = f"/v1/streams/{stream}/events"
    response = await gateway.client.get(url, params={"token": token}, headers=stranger(gateway))
    assert code(response) in {(403, "invalid_link"), (401, "missing_api_key")}


async def test_only_the_creator_gives_links_away(gateway):
    stream = (await finished(gateway)).headers["stream-id"]
    response = await gateway.client.post(
        f"/v1/streams/{stream}/links", json={}, headers={"authorization": "Bearer a-key-of-another"}
    )
    assert code(response) == (404, "stream_not_found")


@pytest.mark.parametrize("body", [{"scope": "write"}, {"ttl_s": 0}, {"ttl_s": 1e12}, {"more": 1}, []])
async def test_a_link_that_cannot_be_made_is_refused(gateway, body):
    stream = (await finished(gateway)).headers["stream-id"]
    response = await gateway.client.post(
        f"/v1/streams/{stream}/links", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert response.status_code == 400


async def test_a_reader_by_link_does_not_keep_a_generation_alive(gateway):
    """`cancel` means: stop when the creator's last reader leaves."""
    body = {"request": {**HELLO, "model": "demo-stall"}, "on_disconnect": "cancel"}
    creating = asyncio.ensure_future(collect(gateway.client, "POST", "/v1/streams", json=body))
    await eventually(lambda: gateway.system.gateway.open_streams)
    (stream,) = gateway.system.gateway._streams
    made = await link(gateway, stream)
    guest = asyncio.ensure_future(collect(gateway.client, "GET", made["url"], headers=stranger(gateway)))
    await eventually(lambda: gateway.system.gateway._streams[stream].followers >= 1)
    creating.cancel()
    assert (await guest).names[-1] == "fail"


async def test_links_of_an_embedded_store_outlive_a_restart(tmp_path):
    store = {"kind": "embedded", "path": str(tmp_path / "data")}
    settings = config(keys={"app": "a-key-of-the-app"})
    settings = settings.__class__(
        **{
            **{f: getattr(settings, f) for f in settings.__struct_fields__},
            "store": settings.store.__class__(**store),
        }
    )
    made = None
    for _ in range(2):
        async with running(await asyncio.to_thread(assemble, settings, {}), settings) as served:
            if made is None:
                served.client.headers["authorization"] = "Bearer a-key-of-the-app"
                read = await finished(served)
                made = await link(served, read.headers["stream-id"])
            else:
                assert (await collect(served.client, "GET", made["url"])).text == read.text
    secret = tmp_path / "data" / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
