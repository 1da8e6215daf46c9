"""``GET /v1/ws``: many generations on one socket, as docs/protocol.md, section 11, says."""

import asyncio
import json

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from penstock.assembly.system import assemble
from tests.server.conftest import config, running
from tests.server.raw import eventually
from tests.server.socket import ask, connected, text_of, verified

WORDS = "one two three four five six seven"


def busy(gateway):
    return gateway.system.gateway.open_streams


# --- create, read ------------------------------------------------------------------------------------


async def test_a_create_is_followed_to_its_verified_end(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        raw = []
        while not raw or b'"type":"end"' not in raw[-1]:
            raw.append((await client.connection.recv()).encode())
    assert verified(raw) == WORDS
    first = json.loads(raw[0])
    assert (first["type"], first["rid"], first["status"], first["tail"]) == ("open", "1", "open", 0)
    assert first["c"] == f"{first['stream']}~{0:016d}"


async def test_what_a_socket_is_told_is_what_a_response_tells(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        told = await client.until("end")
    body = (await gateway.client.get(f"/v1/streams/{told[0]['stream']}/events")).text
    frames = [frame.split("\n") for frame in body.split("\n\n")[1:-1]]
    assert [[f"event: {m['ev']}", f"id: {m['c']}"] for m in told[1:]] == [[f[0], f[2]] for f in frames]
    assert [m["d"] for m in told[1:]] == [json.loads(f[1].removeprefix("data: ")) for f in frames]


async def test_generations_of_one_socket_run_side_by_side(gateway):
    async with connected(gateway) as client:
        rids = [f"r{i}" for i in range(20)]
        for rid in rids:
            await client.send("create", rid=rid, **ask(f"{WORDS} for {rid}"))
        told, open_rids = [], set(rids)
        while open_rids:
            told.append(await client.take())
            if told[-1]["type"] == "end":
                open_rids.remove(told[-1]["rid"])
    assert [text_of(told, rid) for rid in rids] == [f"{WORDS} for {rid}" for rid in rids]


async def test_a_read_goes_on_after_a_cursor(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        told = await client.until("end")
        await client.send("read", rid="2", after=told[3]["c"])
        again = await client.until("end")
    assert again[0]["c"] == told[3]["c"]
    assert [m["d"] for m in again[1:]] == [m["d"] for m in told[4:]]


@pytest.mark.parametrize("after", [2, "2", "0000000000000002"])
async def test_a_read_takes_any_form_of_a_cursor(gateway, after):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        stream = (await client.until("end"))[0]["stream"]
        await client.send("read", rid="2", stream=stream, after=after)
        assert (await client.until("end"))[1]["d"]["n"] == 3


async def test_at_the_end_of_a_stream_that_has_ended_there_is_none(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        told = await client.until("end")
        await client.send("read", rid="2", after=told[-1]["c"])
        stream = told[0]["stream"]
        assert await client.take() == {"type": "none", "rid": "2", "stream": stream, "status": "completed"}


async def test_another_read_under_a_rid_replaces_the_first(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
        first = (await client.take())["stream"]
        while (last := await client.take())["type"] == "entry":
            await client.send("read", rid="1", stream=first, after=0)
            break
        told = await client.until("open")
        assert told[-1]["c"].endswith("~0000000000000000")
        assert (await client.take())["d"]["n"] == 1
        assert last["d"]["n"] == 1


async def test_the_same_idempotency_key_is_the_same_stream_by_socket_and_by_http(gateway):
    asked = ask(WORDS)
    made = await gateway.client.post("/v1/streams", json=asked, headers={"Idempotency-Key": "k1"})
    async with connected(gateway) as client:
        await client.send("create", rid="1", idempotency_key="k1", **asked)
        told = await client.until("end")
        await client.send("create", rid="2", idempotency_key="k1", **ask("other words"))
        assert (await client.take())["code"] == "idempotency_key_reused"
    assert told[0]["stream"] == made.headers["stream-id"]
    assert text_of(told) == WORDS


# --- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "create", "rid": "1", **ask("x", "nobody")}, "model_not_found"),
        ({"type": "create", "rid": "1", "dialect": "latin", "request": {}}, "unknown_dialect"),
        ({"type": "create", "rid": "1", "ttl_s": -1, "request": {}}, "invalid_value"),
        ({"type": "read", "rid": "1", "stream": "s_00" + "0" * 26}, "stream_not_found"),
        ({"type": "read", "rid": "1", "stream": "../x"}, "stream_not_found"),
        ({"type": "read", "rid": "1", "after": "%%"}, "invalid_cursor"),
        ({"type": "input", "rid": "1", "content": "x"}, "unknown_rid"),
        ({"type": "detach", "rid": "1"}, "unknown_rid"),
        ({"type": "credit", "rid": "1", "bytes": 1}, "unknown_rid"),
        ({"type": "cancel", "rid": "1"}, "unknown_rid"),
        ({"type": "create", "rid": "1"}, "invalid_request"),
    ],
)
async def test_what_cannot_be_is_told_under_its_rid_and_the_socket_goes_on(gateway, message, code):
    async with connected(gateway) as client:
        await client.connection.send(json.dumps(message))
        told = await client.take()
        assert (told["type"], told["rid"], told["code"]) == ("err", "1", code)
        await client.send("ping")
        assert await client.take() == {"type": "pong"}


async def test_what_is_no_message_is_told(gateway):
    async with connected(gateway) as client:
        await client.connection.send("Hello")
        assert (await client.take())["code"] == "invalid_json"
        await client.send("cancel", stream="s_nothing")
        told = await client.take()
        assert (told["code"], told["stream"]) == ("stream_not_found", "s_nothing")


async def test_a_cursor_that_is_ahead_is_told(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        stream = (await client.until("end"))[0]["stream"]
        await client.send("read", rid="2", stream=stream, after=5000)
        assert (await client.take())["code"] == "cursor_ahead"


async def test_binary_messages_are_not_taken(gateway):
    async with connected(gateway) as client:
        await client.connection.send(b"\0")
        assert await client.closed() == (1003, [])


async def test_an_unknown_subprotocol_and_an_unknown_path_are_http_errors(gateway):
    with pytest.raises(InvalidStatus) as caught:
        async with connected(gateway, subprotocols=["graphql-ws"]):
            pass
    assert caught.value.response.status_code == 400
    assert json.loads(caught.value.response.body)["error"]["code"] == "unknown_subprotocol"


async def test_without_a_subprotocol_ours_is_meant(gateway):
    async with connected(gateway, subprotocols=None) as client:
        await client.send("ping")
        assert await client.take() == {"type": "pong"}


async def test_pages_of_other_sites_are_refused(gateway):
    with pytest.raises(InvalidStatus) as caught:
        async with connected(gateway, origin="https://evil.example"):
            pass
    assert caught.value.response.status_code == 403
    async with connected(gateway, origin=f"http://127.0.0.1:{gateway.port}"):
        pass


# --- cancel, detach ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["rid", "stream"])
async def test_a_cancel_stops_the_generation_and_its_reader_is_told_the_end(gateway, by):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
        opened = await client.take()
        await client.until("entry")
        await client.send("cancel", **({"rid": "1"} if by == "rid" else {"stream": opened["stream"]}))
        told = await client.until("cancelled")
        ends = [m for m in told if m["type"] == "end"] or [(await client.until("end"))[-1]]
    assert ends[0]["d"]["status"] == "cancelled"
    answer = told[-1]
    assert (answer["stream"], answer["status"], answer["c"]) == (opened["stream"], "cancelled", ends[0]["c"])
    assert busy(gateway) == 0


async def test_a_cancel_that_overtakes_its_create_is_heard(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
        await client.send("cancel", rid="1")
        told = await client.until("cancelled")
        if not any(m["type"] == "end" for m in told):
            told += await client.until("end")
    assert [m["d"]["status"] for m in told if m["type"] == "end"] == ["cancelled"]


async def test_after_a_detach_the_generation_goes_on_and_can_be_read_again(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
        stream = (await client.until("entry"))[0]["stream"]
        await client.send("detach", rid="1")
        await client.send("ping")
        await client.until("pong")
        assert busy(gateway) == 1
        await client.send("read", rid="1", stream=stream)
        assert (await client.until("entry"))[-1]["d"]["n"] == 1


async def test_a_lost_socket_leaves_the_generation_to_its_on_disconnect(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
        await client.send("create", rid="2", on_disconnect="cancel", **ask(WORDS, "demo-stall"))
        await client.until("entry", rid="1")
        await client.until("entry", rid="2")
        assert busy(gateway) == 2
        client.connection.transport.abort()
        await eventually(lambda: busy(gateway) == 1, 30)
    assert len(gateway.system.context.renderings) == 0


@pytest.mark.parametrize("leaving", ["lost", "detach", "replaced"])
async def test_a_create_that_nobody_waits_for_leaves_no_open_stream(gateway, monkeypatch, leaving):
    journal = gateway.system.gateway.store.journal
    stored, goes_on, create = asyncio.Event(), asyncio.Event(), journal.create

    async def slow(*given):
        log = await create(*given)
        stored.set()
        await goes_on.wait()
        return log

    monkeypatch.setattr(journal, "create", slow)
    async with connected(gateway) as client:
        asked = {"on_disconnect": "cancel", **ask(WORDS, "demo-stall")}
        await client.send("create", rid="1", **asked)
        await stored.wait()
        if leaving == "detach":
            await client.send("detach", rid="1")
        elif leaving == "replaced":
            await client.send("read", rid="1", stream="s_nothing")
        else:
            client.connection.transport.abort()
            await eventually(lambda: not gateway.server._config.ws_protocol_class.everyone, 30)
        if leaving != "lost":
            await client.send("ping")
            while (await client.take())["type"] != "pong":
                pass
        goes_on.set()
        await eventually(lambda: busy(gateway) == 0, 30)
        (made,) = (await gateway.client.get("/v1/streams")).json()["data"]
    assert made["status"] == "cancelled"


# --- input -------------------------------------------------------------------------------------------


async def test_an_input_replaces_what_a_running_generation_answers(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask("never", "demo-stall"))
        first = (await client.until("entry"))[0]["stream"]
        await client.send("input", rid="1", content="always")
        told = await client.until("open")
        assert told[-1]["stream"] != first
        assert not [m for m in told if m["type"] == "end"]
        await eventually(lambda: busy(gateway) == 1, 30)
        state = (await gateway.client.get(f"/v1/streams/{first}")).json()["status"]
    assert state == "cancelled"


async def test_an_input_after_the_end_starts_again_under_the_same_rid(gateway):
    async with connected(gateway) as client:
        system = {"role": "system", "content": "Translate."}
        request = {"model": "demo-echo", "messages": [system, {"role": "user", "content": "one"}]}
        await client.send("create", rid="1", request=request)
        assert text_of(await client.until("end")) == "one"
        for words in ("one two", "one two three"):
            await client.send("input", rid="1", content=words)
            assert text_of(await client.until("end")) == words
        await client.send("detach", rid="1")
        await client.send("input", rid="1", content="x")
        assert (await client.take())["code"] == "unknown_rid"


async def test_of_inputs_in_a_hurry_the_last_one_counts(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask("0"))
        for i in range(1, 30):
            await client.send("input", rid="1", content=" ".join(map(str, range(i))))
        last = " ".join(map(str, range(29)))
        told = []
        while True:
            told += await client.until("end")
            since = max(i for i, m in enumerate(told) if m["type"] == "open")
            if text_of(told[since:]) == last:
                break
        assert len([m for m in told if m["type"] == "open"]) <= 30
    assert busy(gateway) == 0


async def test_what_was_only_read_takes_no_input(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
        stream = (await client.take())["stream"]
        await client.send("read", rid="2", stream=stream)
        await client.until("entry", rid="2")
        await client.send("input", rid="2", content="x")
        assert (await client.until("err"))[-1]["code"] == "input_not_possible"


# --- who ---------------------------------------------------------------------------------------------


@pytest.fixture
def locked():
    """A gateway that wants a key, assembled before the loop runs."""
    settings = config(keys={"web-app": "the-first-key", "other": "the-second-key"})
    return assemble(settings, {}), settings


async def test_a_key_in_the_handshake_or_in_the_first_message_opens(locked):
    async with running(*locked) as gateway:
        headers = {"Authorization": "Bearer the-first-key"}
        async with connected(gateway, additional_headers=headers) as client:
            await client.send("create", rid="1", **ask(WORDS))
            made = (await client.until("end"))[0]["stream"]
        async with connected(gateway) as client:
            await client.send("auth", token="the-first-key")
            await client.send("read", rid="1", stream=made)  # not waiting for the answer
            told = await client.until("end")
            assert told[0] == {"type": "authed"}
            assert text_of(told) == WORDS
        async with connected(gateway, token="the-second-key") as client:
            await client.send("read", rid="1", stream=made)
            assert (await client.take())["code"] == "stream_not_found"
            await client.send("cancel", stream=made)
            assert (await client.take())["code"] == "stream_not_found"


async def test_nothing_is_taken_before_auth(locked):
    async with running(*locked) as gateway:
        async with connected(gateway) as client:
            await client.send("create", rid="1", **ask(WORDS))
            code, told = await client.closed()
            assert (code, [m["code"] for m in told]) == (4401, ["missing_api_key"])
        async with connected(gateway) as client:
            await client.send("auth", token="wrong")
            await client.send("create", rid="1", **ask(WORDS))
            code, told = await client.closed()
            assert (code, [m["code"] for m in told]) == (4401, ["invalid_api_key"])
        with pytest.raises(InvalidStatus) as caught:
            async with connected(gateway, additional_headers={"Authorization": "Bearer wrong"}):
                pass
        assert caught.value.response.status_code == 401
        async with connected(gateway) as client:
            await client.connection.send("x" * 70_000)
            assert (await client.closed())[0] == 1009


async def test_who_says_nothing_is_closed(locked, monkeypatch):
    system, settings = locked
    soon = msgspec.structs.replace(system.context.settings, auth_timeout=0.05)
    monkeypatch.setattr(system.context, "settings", soon)
    async with running(system, settings) as gateway, connected(gateway) as client:
        code, told = await client.closed()
        assert (code, [m["code"] for m in told]) == (4401, ["missing_api_key"])


async def test_a_token_is_renewed_by_its_own_principal_only(locked):
    async with running(*locked) as gateway, connected(gateway, token="the-first-key") as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
        await client.until("entry")
        await client.send("auth", token="the-first-key")
        assert (await client.until("authed"))[-1] == {"type": "authed"}
        assert busy(gateway) == 1
        await client.send("auth", token="the-second-key")
        code, told = await client.closed()
        assert code == 4401
        assert [m["code"] for m in told if m["type"] == "err"] == ["other_principal"]


async def test_a_key_that_is_revoked_does_not_live_on_in_a_socket(monkeypatch):
    """It follows a stream, and asks for nothing: its key is looked at all the same."""
    monkeypatch.setattr("penstock.server.callers.RECHECK", 0.02)
    settings = config(keys={"root": {"key": "the key of an administrator", "admin": True}})
    admin = {"Authorization": "Bearer the key of an administrator"}
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        made = (await gateway.client.post("/v1/admin/keys", json={"name": "new"}, headers=admin)).json()
        async with connected(gateway, token=made["key"]) as client:
            await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
            await client.until("entry")
            await gateway.client.delete(f"/v1/admin/keys/{made['id']}", headers=admin)
            code, told = await client.closed()
    assert code == 4401
    assert [(m["code"], m["status"]) for m in told if m["type"] == "err"] == [("invalid_api_key", 401)]


async def test_a_token_that_ends_closes_its_socket_in_mid_stream():
    settings = config(keys={"app": "the key of an application"})
    app = {"Authorization": "Bearer the key of an application"}
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        order = {"user": "alice", "ttl_s": 1}
        token = (await gateway.client.post("/v1/tokens", json=order, headers=app)).json()["token"]
        async with connected(gateway, token=token) as client:
            await client.send("create", rid="1", **ask(WORDS, "demo-stall"))
            code, told = await client.closed()
    assert code == 4401
    assert told[0]["type"] == "open"
    assert [m["code"] for m in told if m["type"] == "err"] == ["expired_token"]


async def test_a_link_reads_its_stream_without_a_key_and_nothing_else(locked, monkeypatch):
    system, settings = locked
    soon = msgspec.structs.replace(system.context.settings, auth_timeout=1.5)
    headers = {"Authorization": "Bearer the-first-key"}
    async with running(system, settings) as gateway:
        async with connected(gateway, token="the-first-key") as client:
            await client.send("create", rid="1", **ask(WORDS))
            whole = await client.until("end")
            await client.send("create", rid="2", **ask(WORDS, "demo-stall"))
            other = (await client.take())["stream"]
        made, stalled = [
            (await gateway.client.post(f"/v1/streams/{one}/links", json={}, headers=headers)).json()["token"]
            for one in (whole[0]["stream"], other)
        ]
        async with connected(gateway) as client:
            await client.send("read", rid="9", stream=other, token=stalled)
            await client.until("entry")  # and that one goes on: so the socket stays
            await client.send("read", rid="1", stream=whole[0]["stream"], token=made)
            told = [m for m in await client.until("end", rid="1") if m["rid"] == "1"]
            assert [m["d"] for m in told[1:]] == [m["d"] for m in whole[1:]]
            await client.send("read", rid="2", stream=other, token=made)
            assert (await client.until_code("invalid_link"))["rid"] == "2"
            await client.send("credit", rid="9", bytes=1000)
            await client.send("cancel", stream=whole[0]["stream"])
            code, told = await client.closed()
            assert (code, told[-1]["code"]) == (4401, "missing_api_key")
        monkeypatch.setattr(system.context, "settings", soon)
        async with connected(gateway) as client:  # who has read what the link gives has to go
            await client.send("read", rid="1", stream=whole[0]["stream"], token=made)
            code, told = await client.closed()
            assert (code, told[-2]["type"], told[-1]["code"]) == (4401, "end", "missing_api_key")


# --- dialects ----------------------------------------------------------------------------------------


def events_of(body):
    """The frames of a body of SSE, as ``(event, data, id)``."""
    for frame in body.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in frame.split("\n") if ": " in line)
        if "data" in fields:
            yield fields.get("event", ""), fields["data"], fields.get("id", "")


@pytest.mark.parametrize(
    "dialect", ["openai_chat", "openai_responses", "openai_completions", "anthropic_messages", "ai_sdk"]
)
async def test_a_dialect_is_read_as_by_events_and_from_any_cursor_on(gateway, dialect):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        stream = (await client.until("end"))[0]["stream"]
        body = (await gateway.client.get(f"/v1/streams/{stream}/events", params={"dialect": dialect})).text
        wanted = list(events_of(body))
        await client.send("read", rid="2", stream=stream, dialect=dialect)
        opened, *told = await client.until("end")
        assert opened["type"] == "open"
        assert [(m["ev"], m["c"]) for m in told] == [(event, id_) for event, _, id_ in wanted]
        for message, (_, data, _) in zip(told, wanted, strict=True):
            assert message["d"] == (json.loads(data) if data[:1] == "{" else data)
        for index, message in enumerate(told[:-1]):
            if message["c"] == opened["c"]:  # the opening's own cursor is the start
                continue
            await client.send("read", rid="3", after=message["c"], dialect=dialect)
            again = await client.until("end")
            assert again[0]["c"] == message["c"]
            assert [m["d"] for m in again[1:]] == [m["d"] for m in told[index + 1 :]]


@pytest.mark.parametrize("dialect", ["gemini", "ollama", "text"])
async def test_a_dialect_without_cursors_is_read_as_well(gateway, dialect):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        stream = (await client.until("end"))[0]["stream"]
        await client.send("read", rid="2", stream=stream, dialect=dialect)
        told = await client.until("end")
    if dialect == "text":
        assert "".join(m["d"] for m in told[1:-1]) == WORDS
    else:
        assert WORDS.split()[0] in json.dumps([m["d"] for m in told[1:]])


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic_messages"])
async def test_a_failure_is_an_end_in_a_dialect_too(gateway, dialect):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS, "demo-cut"))
        stream = (await client.until("end"))[0]["stream"]
        await client.send("read", rid="2", stream=stream, dialect=dialect)
        assert "error" in (await client.until("end"))[-1]["d"]


async def test_an_unknown_dialect_is_refused(gateway):
    async with connected(gateway) as client:
        await client.send("create", rid="1", **ask(WORDS))
        stream = (await client.until("end"))[0]["stream"]
        await client.send("read", rid="2", stream=stream, dialect="latin")
        assert (await client.take())["code"] == "unknown_dialect"


# --- bounds ------------------------------------------------------------------------------------------


async def test_rids_of_a_socket_are_bounded_and_idle_ones_make_room():
    settings = config(listen={"max_rids": 3})
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway, connected(gateway) as client:
        await client.send("create", rid="done", **ask(WORDS))
        await client.until("end")
        for rid in ("1", "2", "3"):
            await client.send("create", rid=rid, **ask(WORDS, "demo-stall"))
            await client.until("entry", rid=rid)
        await client.send("create", rid="4", **ask(WORDS))
        told = (await client.until("err"))[-1]
        assert (told["rid"], told["code"]) == ("4", "too_many_rids")
        await client.send("detach", rid="2")
        await client.send("create", rid="4", **ask(WORDS))
        assert text_of(await client.until("end", rid="4"), "4") == WORDS


async def test_sockets_are_bounded():
    settings = config(listen={"max_websockets": 2})
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway, connected(gateway), connected(gateway):
        with pytest.raises(InvalidStatus) as caught:
            async with connected(gateway):
                pass
        assert caught.value.response.status_code == 503
        assert (await gateway.client.get("/healthz")).status_code == 200


async def test_a_message_above_the_bound_closes_the_socket():
    settings = config(listen={"max_body_bytes": 1000})
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway, connected(gateway) as client:
        await client.connection.send(json.dumps({"type": "create", "rid": "1", **ask("x" * 2000)}))
        assert (await client.closed())[0] == 1009


# --- leaving -----------------------------------------------------------------------------------------


async def test_at_drain_an_idle_socket_is_closed_and_a_busy_one_gets_its_end(gateway):
    async with connected(gateway) as idle, connected(gateway) as occupied:
        await occupied.send("create", rid="1", **ask(WORDS, "demo-stall"))
        await occupied.until("entry")
        gateway.server.stop(drain=0)
        assert await idle.closed() == (1012, [{"type": "goaway", "retry_ms": 1000}])
        code, told = await occupied.closed()
    assert code == 1012
    assert [m["type"] for m in told if m["type"] != "entry"] == ["goaway", "end"]
    assert (told[-1]["ev"], told[-1]["d"]["code"]) == ("fail", "gateway_shutdown")
