"""A stream explained: who, by which rules, where and why, how long; for whom, and after a restart."""

import asyncio
import json

import pytest

from penstock.assembly.system import assemble
from penstock.config import StoreConfig
from penstock.server.explanations import Told, _left
from penstock.types.events import Seam, Started
from tests.server.conftest import config, running
from tests.server.sse import collect

ADMIN, APP, OTHER = "the key of an administrator", "the key of an application", "the key of another"
SECRET = "write to joe@example.com, please"

MODELS = {
    "whole": [{"provider": "demo", "model": "demo-echo"}],
    "falls": [
        {"provider": "demo", "model": "demo-echo?failure=error&fail_after=0"},
        {"provider": "demo", "model": "demo-echo"},
    ],
    "breaks": [
        {"provider": "demo", "model": "demo-echo?failure=cut&fail_after=2"},
        {"provider": "demo", "model": "demo-echo", "continuation": "prefill"},
    ],
    "lost": [{"provider": "demo", "model": "demo-echo?failure=error&fail_after=0"}],
    "stays": [{"provider": "demo", "model": "demo-stall"}],
}


def made(**more):
    keys = {
        "root": {"key": ADMIN, "admin": True},
        "app": {"key": APP, "team": "shop", "models": ["*"]},
        "other": {"key": OTHER},
    }
    return config(
        keys=keys,
        models=MODELS,
        limits=[{"by": "key", "concurrent": 9, "requests_per_minute": 100}],
        budgets=[{"by": "team", "usd": 100, "period": "day"}],
        prices={"demo/*": {"input": 1_000, "output": 2_000}},
        filters={"tidy": {"rules": [{"name": "addresses", "detect": ["email"], "action": "mask"}]}},
        **more,
    )


@pytest.fixture
def settings():
    return made()


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def ask(gateway, model="whole", key=APP):
    body = {"request": {"model": model, "messages": [{"role": "user", "content": SECRET}]}}
    read = await collect(gateway.client, "POST", "/v1/streams", json=body, headers=bearer(key))
    return read.headers["stream-id"]


async def begin(gateway, model="stays", key=APP):
    body = {"request": {"model": model, "messages": [{"role": "user", "content": SECRET}]}}
    headers = bearer(key) | {"prefer": "respond-async"}
    return (await gateway.client.post("/v1/streams", json=body, headers=headers)).json()["stream"]


async def explained(gateway, stream, key=APP):
    answer = await gateway.client.get(f"/v1/streams/{stream}/explanation", headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def eventually(condition):
    """Wait for what only asking tells."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  nothing to wait on
            await asyncio.sleep(0.02)


async def priced(gateway, stream):
    """The explanation once the ledger has the stream's rows."""

    async def known():
        return "cost_usd" in await explained(gateway, stream)

    await eventually(known)
    return await explained(gateway, stream)


async def test_it_tells_who_asked_and_what_each_policy_decided(gateway):
    told = await explained(gateway, await ask(gateway))
    asked = told["asked"]
    assert (asked["principal"], asked["team"], asked["key"]) == ("app", "shop", "config.app")
    assert (asked["route"], asked["dialect"], asked["model"]) == ("streams", "openai_chat", "whole")
    assert asked["request_id"].startswith("req_")
    decided = [(one["policy"], one["verdict"]) for one in told["policies"]]
    assert decided == [
        ("access", "passed"),
        ("filter tidy", "masked"),
        ("filter tidy", "watches"),
        ("limits", "passed"),
        ("budget", "held"),
    ]
    details = [one["detail"] for one in told["policies"]]
    assert details[1] == "the request: addresses (mask) × 1"
    assert details[3] == "1 of 100 requests a minute, 1 of 9 streams at once for the key 'app'"
    assert "left of the team 'shop' ($100.00 a day)" in details[4]


async def test_it_tells_no_word_of_prompt_and_answer(gateway):
    told = json.dumps(await explained(gateway, await ask(gateway)))
    assert not [word for word in ("joe", "example.com", "please") if word in told]


async def test_a_fallback_is_told_with_why_and_how_long(gateway):
    told = await priced(gateway, await ask(gateway, "falls"))
    first, second = told["attempts"]
    assert (first["reason"], first["code"]) == ("first", "upstream_error")
    assert (second["reason"], second.get("code", "")) == ("fallback", "")
    assert second["began_ms"] >= first["ended_ms"] > 0
    assert second["cost_usd"] > 0
    assert told["way"]["targets"] == [first["target"], second["target"]]
    assert (told["end"]["status"], told["end"]["finish_reason"]) == ("completed", "stop")
    timing = told["timing"]
    spans = ("queue_ms", "failed_ms", "connect_ms", "wait_ms", "stream_ms", "gateway_ms")
    assert sum(timing.get(name, 0.0) for name in spans) == pytest.approx(timing["total_ms"], abs=0.01)


async def test_a_continuation_is_told_with_its_seam(gateway):
    told = await explained(gateway, await ask(gateway, "breaks"))
    assert [one["reason"] for one in told["attempts"]] == ["first", "continuation"]
    (seam,) = told["seams"]
    assert (seam["mode"], seam["code"]) == ("prefill", "upstream_reset")
    assert seam["target"] == told["attempts"][1]["target"]
    assert 1 < seam["entry"] < told["entries"]


async def test_a_failure_tells_what_the_client_was_told(gateway):
    end = (await explained(gateway, await ask(gateway, "lost")))["end"]
    assert (end["status"], end["code"], end["fault"]) == ("failed", "upstream_error", "upstream")
    assert (end["http_status"], end["shown"]) == (502, False)


async def test_an_open_stream_tells_what_goes_on_and_who_reads(gateway):
    stream = await begin(gateway)

    async def streaming():
        return (await explained(gateway, stream)).get("doing") == "streaming"

    await eventually(streaming)
    path = f"/v1/streams/{stream}/events"
    async with gateway.client.stream("GET", path, headers=bearer(APP)) as reading:
        lines = reading.aiter_lines()
        await anext(lines)

        async def caught_up():
            readers = (await explained(gateway, stream)).get("readers", [{}])
            return readers[0].get("entries", 0) > 0 and not readers[0].get("lag")

        await eventually(caught_up)
        told = await explained(gateway, stream)
        (reader,) = told["readers"]
        assert (reader["principal"], reader["format"]) == ("app", "native")
        assert reader["cursor"].startswith(f"{stream}~")
        assert told["attempts"][0]["open"]
        assert "end" not in told

    async def alone():
        return "readers" not in await explained(gateway, stream)

    await eventually(alone)


async def test_only_owner_and_administrator_are_told(gateway):
    stream = await ask(gateway)
    path = f"/v1/streams/{stream}/explanation"
    assert (await explained(gateway, stream, ADMIN))["asked"]["principal"] == "app"
    stranger = await gateway.client.get(path, headers=bearer(OTHER))
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "stream_not_found")
    assert (await gateway.client.get(path)).status_code == 401
    link = await gateway.client.post(f"/v1/streams/{stream}/links", json={}, headers=bearer(APP))
    by_link = await gateway.client.get(path, params={"token": link.json()["token"]})
    assert by_link.status_code == 401


async def test_a_link_s_reader_is_seen_without_a_name(gateway):
    stream = await begin(gateway)
    link = await gateway.client.post(f"/v1/streams/{stream}/links", json={}, headers=bearer(APP))
    async with gateway.client.stream("GET", link.json()["url"]) as reading:
        await anext(reading.aiter_lines())
        (reader,) = (await explained(gateway, stream))["readers"]
        assert reader["principal"] == "a link"
    await gateway.client.post(f"/v1/streams/{stream}/cancel", headers=bearer(APP))


def test_of_a_process_that_was_killed_the_log_says_whom_it_asked():
    told = Told()
    told.add(1, Started(target="far/a"))
    told.add(7, Seam("near/b", "prefill", "upstream_reset"))
    tried = [(one.target, one.code) for one in _left(told, "gateway_restarted")]
    assert tried == [("far/a", "upstream_reset"), ("near/b", "gateway_restarted")]
    assert _left(Told(), "gateway_restarted") == ()


async def test_the_milliseconds_add_up_to_the_whole(gateway):
    for model in ("whole", "falls", "breaks", "lost"):
        timing = (await explained(gateway, await ask(gateway, model)))["timing"]
        total = timing.pop("total_ms")
        parts = [value for name, value in timing.items() if name not in ("first_output_ms", "max_gap_ms")]
        assert sum(parts) == pytest.approx(total, abs=0.01)


@pytest.fixture
def lives(tmp_path):
    """A gateway on disk and the one after it, built before the loop runs."""
    settings = made(store=StoreConfig(kind="embedded", path=str(tmp_path / "data")))
    return settings, assemble(settings, {}), assemble(settings, {})


async def test_it_is_the_same_after_a_restart(lives):
    settings, *systems = lives
    async with running(systems[0], settings) as first:
        streams = [await ask(first, model) for model in ("whole", "falls", "breaks", "lost")]
        for stream in streams:
            await priced(first, stream)
        before = [await explained(first, stream) for stream in streams]
    async with running(systems[1], settings) as second:
        assert [await explained(second, stream) for stream in streams] == before
