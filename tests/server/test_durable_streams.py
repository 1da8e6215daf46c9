"""Durable Streams over HTTP, where the protocol's own suite does not look: what it leaves open."""

import asyncio
import base64
import hashlib
import json
import re

import pytest

from penstock.server.durable_reads import PAGE
from penstock.streams.parcels import MAX_PARCEL, Piece
from penstock.types.principals import Principal
from tests.server.conftest import config
from tests.server.raw import eventually
from tests.server.sse import collect

TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}
ZERO = "0000000000000000_0000000000000000"


async def made(gateway, path="logs/app", content=b"", headers=TEXT, **more):
    response = await gateway.client.put(f"/v1/stream/{path}", headers={**headers, **more}, content=content)
    assert response.status_code == 201, response.text
    return response


async def appended(gateway, content, path="logs/app", headers=TEXT, **more):
    response = await gateway.client.post(f"/v1/stream/{path}", headers={**headers, **more}, content=content)
    assert response.status_code in (200, 204), response.text
    return response


async def closed(gateway, path="logs/app", **more):
    return await gateway.client.post(f"/v1/stream/{path}", headers={"stream-closed": "true", **more})


def code(response):
    return response.status_code, response.json()["error"]["code"]


def become(gateway, name):
    gateway.system.context.guard.admit = lambda headers, *more, **told: Principal(name)


async def events(gateway, path="logs/app", query="offset=-1", **headers):
    """Read live to the end of a closed stream; return ``(event, data, id)``."""
    url = f"/v1/stream/{path}?live=sse&{query}"
    text = (await gateway.client.get(url, headers=headers)).text
    found = []
    for block in re.sub("^:\n", "", text, flags=re.MULTILINE).split("\n\n")[:-1]:
        fields = [line.partition(":")[::2] for line in block.split("\n")]
        values = dict(fields)
        data = "\n".join(value.removeprefix(" ") for name, value in fields if name == "data")
        found.append((values["event"].strip(), data, values["id"].strip()))
    return found


# --- who -----------------------------------------------------------------------------------------------


async def test_nobody_sees_or_touches_what_another_published(gateway):
    await made(gateway, content=b"mine")
    become(gateway, "another")
    url = "/v1/stream/logs/app"
    for method, more in (
        ("GET", {}),
        ("HEAD", {}),
        ("DELETE", {}),
        ("POST", {"headers": TEXT, "content": "x"}),
    ):
        response = await gateway.client.request(method, url, **more)
        assert response.status_code == 404
    assert (await gateway.client.get("/v1/stream")).json()["data"] == []
    fork = {**TEXT, "stream-forked-from": url}
    assert (await gateway.client.put("/v1/stream/fork", headers=fork)).status_code == 404


async def test_publications_are_no_generations(gateway):
    stream = (await made(gateway, content=b"mine")).headers["stream-id"]
    assert (await gateway.client.get("/v1/streams")).json()["data"] == []
    for path in (f"/v1/streams/{stream}", f"/v1/streams/{stream}/events", f"/v1/stream/gen/{stream}"):
        assert code(await gateway.client.get(path)) == (404, "stream_not_found")


async def test_a_page_elsewhere_may_not_write(gateway):
    response = await gateway.client.put(
        "/v1/stream/x", headers={**TEXT, "origin": "https://evil.example"}, content=b"x"
    )
    assert code(response) == (403, "origin_not_allowed")


class TestWithKeys:
    @pytest.fixture
    def settings(self):
        return config(keys={"app": "sk-app-secret"})

    async def test_a_key_is_wanted(self, gateway):
        assert code(await gateway.client.put("/v1/stream/x", headers=TEXT)) == (401, "missing_api_key")
        headers = {**TEXT, "authorization": "Bearer sk-app-secret"}
        assert (await gateway.client.put("/v1/stream/x", headers=headers)).status_code == 201
        assert code(await gateway.client.get("/v1/stream/x")) == (401, "missing_api_key")


# --- bytes ---------------------------------------------------------------------------------------------


async def test_pages_and_the_whole_are_the_same_bytes(gateway):
    content = hashlib.shake_256(b"seed").digest(3 * PAGE + 12_345)
    await made(gateway, "file", headers=BYTES)
    for start in range(0, len(content), PAGE):
        await appended(gateway, content[start : start + PAGE], "file", BYTES)
    got, offset, sizes = b"", "-1", []
    while True:
        page = await gateway.client.get(f"/v1/stream/file?offset={offset}")
        got += page.content
        sizes.append(len(page.content))
        offset = page.headers["stream-next-offset"]
        if page.headers.get("stream-up-to-date"):
            break
    assert got == content
    assert max(sizes) <= PAGE + MAX_PARCEL
    whole = await gateway.client.get("/v1/stream/file")
    assert whole.content == content
    assert whole.headers["stream-next-offset"] == offset
    assert int(offset.partition("_")[2]) == len(content)
    again = await gateway.client.get("/v1/stream/file", headers={"if-none-match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_base64_events_are_the_same_bytes(gateway):
    content = hashlib.shake_256(b"seed").digest(3 * MAX_PARCEL + 7)
    await made(gateway, "file", content, BYTES)
    await closed(gateway, "file")
    found = await events(gateway, "file")
    assert b"".join(base64.b64decode(data) for event, data, _ in found if event == "data") == content
    assert max(len(data) for _, data, _ in found) < 256 * 1024


async def test_a_large_message_is_never_cut(gateway):
    messages = [{"n": 1}, {"text": "x" * (2 * MAX_PARCEL)}, {"n": 3}]
    await made(gateway, "json", json.dumps(messages).encode(), JSON)
    await closed(gateway, "json")
    found = [json.loads(data) for event, data, _ in await events(gateway, "json") if event == "data"]
    assert [message for batch in found for message in batch] == messages
    page = await gateway.client.get("/v1/stream/json?offset=-1")
    assert page.json() == messages


async def test_text_keeps_spaces_and_line_ends_of_a_kind(gateway):
    await made(gateway, content=b"  two\n one\r\n\r\nend ")
    await closed(gateway)
    assert [data for event, data, _ in await events(gateway) if event == "data"] == ["  two\n one\n\nend "]


async def test_no_browser_takes_content_for_a_page_of_ours(gateway):
    await made(gateway, "page", b"<script>alert(1)</script>", {"content-type": "text/html"})
    headers = (await gateway.client.get("/v1/stream/page")).headers
    assert headers["content-type"] == "text/html"
    assert headers["content-security-policy"].startswith("sandbox;")
    assert headers["x-content-type-options"] == "nosniff"


# --- offsets -------------------------------------------------------------------------------------------


async def test_a_reader_that_comes_back_to_any_event_misses_and_repeats_nothing(gateway):
    await made(gateway)
    for n in range(5):
        await appended(gateway, b"line %d\n" % n)
    await closed(gateway)
    whole = await events(gateway)
    for cut, (_, _, id_) in enumerate(whole):
        rest = await events(gateway, **{"last-event-id": id_})
        data = [event for event in whole[: cut + 1] + rest if event[0] == "data"]
        assert [text for _, text, _ in data] == [f"line {n}\n" for n in range(5)]
        assert json.loads(rest[-1][1])["streamClosed"] is True


@pytest.mark.parametrize(
    ("offset", "refused"),
    [
        ("0000000000000001_0000000000000003", (400, "invalid_cursor")),
        ("0000000000000002_0000000000000004", (400, "invalid_cursor")),
        ("0000000000000003_0000000000000012", (416, "cursor_ahead")),
        ("0001000000000001_0000000000000004", (409, "log_lost")),
        ("1", (400, "invalid_cursor")),
    ],
)
@pytest.mark.parametrize("live", ["", "&live=sse", "&live=long-poll"])
async def test_an_offset_that_was_never_given_is_refused(gateway, offset, refused, live):
    await made(gateway, content=b"four")
    await appended(gateway, b"eight...")
    assert code(await gateway.client.get(f"/v1/stream/logs/app?offset={offset}{live}")) == refused


async def test_a_fork_in_the_middle_is_where_it_says(gateway):
    first = await made(gateway, content=b"four")
    await appended(gateway, b"eight...")
    fork = {"stream-forked-from": "/v1/stream/logs/app", "stream-fork-sub-offset": "3"}
    offset = {"stream-fork-offset": first.headers["stream-next-offset"]}
    response = await made(gateway, "fork", b"!", TEXT, **fork, **offset)
    assert (await gateway.client.get("/v1/stream/fork")).content == b"foureig!"
    assert response.headers["stream-next-offset"].endswith("_0000000000000008")


# --- producers, ends -----------------------------------------------------------------------------------


async def test_an_append_that_comes_again_is_there_once(gateway):
    await made(gateway)
    producer = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
    first = await appended(gateway, b"once", **producer)
    second = await appended(gateway, b"once", **producer)
    assert (first.status_code, second.status_code) == (200, 204)
    assert first.headers["stream-next-offset"] == second.headers["stream-next-offset"]
    assert (await gateway.client.get("/v1/stream/logs/app")).content == b"once"


async def test_the_writer_s_digest_is_given_back(gateway):
    await made(gateway, content=b"all of it")
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(b'all of it').digest()).decode()}:"
    assert (await closed(gateway, **{"repr-digest": "md5=:x:"})).status_code == 400
    await closed(gateway, **{"repr-digest": digest})
    assert (await gateway.client.head("/v1/stream/logs/app")).headers["repr-digest"] == digest


async def test_who_deletes_ends_what_others_read(gateway):
    await made(gateway, content=b"x")
    reading = asyncio.create_task(events(gateway))
    (publication,) = gateway.system.gateway.publications.list(Principal("anonymous"), "", "", 9)
    await eventually(lambda: publication.readers)
    assert (await gateway.client.delete("/v1/stream/logs/app")).status_code == 204
    assert json.loads((await reading)[-1][1])["streamClosed"] is True
    assert not publication.readers


async def test_appends_above_the_bound_are_refused_before_they_are_read(gateway):
    await made(gateway)
    response = await gateway.client.post(
        "/v1/stream/logs/app",
        headers=TEXT,
        content=b"x" * (gateway.system.context.settings.max_append_bytes + 1),
    )
    assert code(response) == (413, "body_too_large")


async def test_a_gateway_that_leaves_ends_live_reads_after_a_control(gateway):
    await made(gateway, content=b"x")
    reading = asyncio.create_task(events(gateway))
    (publication,) = gateway.system.gateway.publications.list(Principal("anonymous"), "", "", 9)
    await eventually(lambda: publication.readers)
    gateway.server.stop()
    *_, last = await reading  # a cut body would raise
    assert last[0] == "control"
    assert "streamClosed" not in last[1]


# --- lists, generations ----------------------------------------------------------------------------------


async def test_own_publications_are_listed_by_path_a_page_at_a_time(gateway):
    for path in ("b", "a/2", "a/1", "c"):
        await made(gateway, path, b"12345")
    page = (await gateway.client.get("/v1/stream?limit=2")).json()
    assert [listed["path"] for listed in page["data"]] == ["a/1", "a/2"]
    assert page["has_more"]
    assert page["data"][0] | {"id": "", "created_at": 0} == {
        "path": "a/1",
        "id": "",
        "content_type": "text/plain",
        "created_at": 0,
        "bytes": 5,
        "closed": False,
    }
    rest = (await gateway.client.get("/v1/stream?after=a/2")).json()
    assert [listed["path"] for listed in rest["data"]] == ["b", "c"]
    only = (await gateway.client.get("/v1/stream?prefix=a/")).json()
    assert [listed["path"] for listed in only["data"]] == ["a/1", "a/2"]


@pytest.mark.parametrize("model", ["demo-echo", "demo-error"])
async def test_a_generation_is_a_stream_of_json_that_says_how_it_ended(gateway, model):
    ask = {"model": model, "messages": [{"role": "user", "content": "one two three"}]}
    read = await collect(gateway.client, "POST", "/v1/streams", json={"request": ask})
    native = [event.data for event in read.events if "n" in event.data]
    path = f"gen/{read.headers['stream-id']}"
    page = await gateway.client.get(f"/v1/stream/{path}?offset=-1")
    assert page.json() == native
    assert page.headers["stream-closed"] == page.headers["stream-up-to-date"] == "true"
    found = await events(gateway, path)
    assert [json.loads(data)[0] for event, data, _ in found if event == "data"] == native
    assert json.loads(found[-1][1])["streamClosed"] is True
    half = found[len(found) // 2 | 1][2]
    rest = await gateway.client.get(f"/v1/stream/{path}?offset={half}")
    assert rest.json() == native[int(half[4:16]) :]
    assert await events(gateway, path, f"offset={found[-1][2]}") == [found[-1]]


async def test_a_generation_cannot_be_written(gateway):
    for method in ("PUT", "POST", "DELETE"):
        response = await gateway.client.request(method, "/v1/stream/gen/x", headers=TEXT, content=b"x")
        assert code(response) == (403, "read_only")


async def test_a_generation_is_followed_live(gateway):
    ask = {"model": "demo-stall", "messages": [{"role": "user", "content": "x"}]}
    headers = {"prefer": "respond-async"}
    started = await gateway.client.post("/v1/streams", json={"request": ask}, headers=headers)
    stream = started.json()["stream"]
    reading = asyncio.create_task(events(gateway, f"gen/{stream}"))
    await eventually(lambda: len(gateway.system.context.renderings))
    await gateway.client.post(f"/v1/streams/{stream}/cancel")
    *_, (_, data, _), _ = await reading
    assert json.loads(data)[0]["status"] == "cancelled"


# --- links -----------------------------------------------------------------------------------------------


async def linked(gateway, path="logs/app", **order):
    stream = (await gateway.client.head(f"/v1/stream/{path}")).headers["stream-id"]
    return await gateway.client.post(f"/v1/streams/{stream}/links", json=order)


async def test_a_link_shows_a_publication_to_anybody_and_no_other(gateway):
    made_at = await made(gateway, content=b"one ")
    await made(gateway, "logs/other", content=b"secret")
    link, other = await linked(gateway), await linked(gateway, "logs/other")
    assert link.status_code == 201
    url = link.json()["url"]
    assert url.startswith(f"/v1/stream/__link/{made_at.headers['stream-id']}?token=read.")
    own = await gateway.client.get(url.partition("?")[0])
    become(gateway, "another")
    assert (await gateway.client.get(url)).text == own.text == "one "
    assert (await gateway.client.head(url)).headers["stream-next-offset"] == own.headers["stream-next-offset"]
    mixed = f"{url.partition('?')[0]}?{other.json()['url'].partition('?')[2]}"
    assert code(await gateway.client.get(mixed)) == (403, "invalid_link")
    assert code(await gateway.client.get(url.partition("?")[0])) == (404, "stream_not_found")
    stream = made_at.headers["stream-id"]
    assert code(await gateway.client.post(f"/v1/streams/{stream}/links", json={})) == (
        404,
        "stream_not_found",
    )


async def test_a_link_is_followed_live(gateway):
    await made(gateway)
    url = (await linked(gateway)).json()["url"]
    become(gateway, "another")
    reading = asyncio.ensure_future(gateway.client.get(f"{url}&live=sse&offset=-1"))
    become(gateway, "anonymous")
    publications = gateway.system.gateway.publications
    await eventually(lambda: any(one.readers for one in publications._by_id.values()))
    (publication,) = publications._by_id.values()
    await publications.append(publication, [Piece(b"hello")], close=True)
    assert "data:hello\n" in (await reading).text


async def test_a_publication_is_read_by_a_link_and_nothing_else(gateway):
    await made(gateway)
    assert code(await linked(gateway, scope="cancel")) == (400, "invalid_value")
    url = (await linked(gateway)).json()["url"]
    assert (await gateway.client.delete("/v1/stream/logs/app")).status_code == 204
    assert (await gateway.client.get(url)).status_code in (404, 410)


# --- keeping the newest bytes ----------------------------------------------------------------------------


async def trimmed(gateway, headers=TEXT, piece=lambda n: b"line %06d\n" % n * 1_000):
    """Publish more than is kept; return the offsets after each append."""
    await made(gateway, headers=headers, **{"stream-keep-bytes": "100000"})
    offsets = []
    for number in range(60):
        response = await appended(gateway, piece(number), headers=headers)
        offsets.append(response.headers["stream-next-offset"])
    await gateway.system.gateway.publications.sweep()
    return offsets


async def test_a_stream_that_keeps_its_newest_bytes_is_read_from_where_it_begins(gateway):
    offsets = await trimmed(gateway)
    url = "/v1/stream/logs/app"
    whole = await gateway.client.get(url)
    first = int(whole.text.split()[1])
    assert 40 < first < 60
    assert whole.text == "".join(f"line {n:06d}\n" * 1_000 for n in range(first, 60))
    assert whole.headers["stream-next-offset"] == offsets[-1]
    page = await gateway.client.get(url, params={"offset": "-1"})
    assert page.content == whole.content
    known = await gateway.client.head(url)
    assert known.headers["stream-keep-bytes"] == "100000"
    (listed,) = (await gateway.client.get("/v1/stream")).json()["data"]
    assert listed["bytes"] == len(whole.content)


async def test_an_offset_whose_bytes_are_gone_is_told_so(gateway):
    offsets = await trimmed(gateway)
    for live in ("", "&live=long-poll", "&live=sse"):
        gone = await gateway.client.get(f"/v1/stream/logs/app?offset={offsets[3]}{live}")
        assert code(gone) == (410, "offset_gone")
    await closed(gateway)
    (gap, *rest) = await events(gateway, query=f"offset={offsets[0]}", **{"last-event-id": offsets[3]})
    said = json.loads(gap[1])
    assert (gap[0], said["requested"]) == ("gap", offsets[3])
    assert said["earliest"] == gap[2] == offsets[offsets.index(gap[2])]
    data = "".join(f"{data}" for event, data, _ in rest if event == "data")
    assert data == (await gateway.client.get("/v1/stream/logs/app")).text


async def test_of_a_message_whose_beginning_is_gone_nothing_is_shown(gateway):
    large = lambda n: json.dumps({"n": n, "x": "y" * 300_000}).encode()  # noqa: E731
    await trimmed(gateway, JSON, large)
    found = (await gateway.client.get("/v1/stream/logs/app", params={"offset": "-1"})).json()
    assert found[0]["n"] > 40
    assert [message["n"] for message in found] == list(range(found[0]["n"], found[-1]["n"] + 1))


@pytest.mark.parametrize("keep", ["0", "-1", "x", "01"])
async def test_what_is_to_be_kept_is_a_number_of_bytes(gateway, keep):
    refused = await gateway.client.put("/v1/stream/a", headers={**TEXT, "stream-keep-bytes": keep})
    assert code(refused) == (400, "invalid_value")
    assert refused.json()["error"]["param"] == "Stream-Keep-Bytes"
