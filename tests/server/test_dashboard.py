"""The dashboard's feed: for whom it is, what is in it, and that it is read as streams are."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from penstock.assembly.system import assemble
from penstock.server import dashboard, feed
from tests.server.conftest import config, running

ADMIN, APP = "the key of an administrator", "the key of an application"
SECRET = "an unheard-of prompt"
PATH = "/v1/admin/activity"


@pytest.fixture
def settings():
    keys = {"root": {"key": ADMIN, "admin": True}, "app": {"key": APP}}
    models = {
        "falls": [
            {"provider": "demo", "model": "demo-echo?failure=error&fail_after=0"},
            {"provider": "demo", "model": "demo-echo"},
        ],
        "quiet": [{"provider": "demo", "model": "demo-stall"}],
    }
    return config(keys=keys, models=models, prices={"demo/*": {"input": 1_000, "output": 2_000}})


@pytest.fixture
def keyless():
    """A gateway without keys, built before the loop runs, since building reads files."""
    return assemble(config(), {})


@pytest.fixture
def switched_off():
    return assemble(config(dashboard=False), {})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Frames come as fast as a test can wait for them."""
    monkeypatch.setattr(feed, "FRAME_EVERY", 0.02)


def bearer(key=ADMIN):
    return {"authorization": f"Bearer {key}"}


def code(response):
    return response.status_code, response.json()["error"]["code"]


class Watch:
    """A reader of the feed."""

    def __init__(self, response):
        self._lines = response.aiter_lines()
        self.cursor = ""

    async def next(self, *names):
        """Return the data of the next event called so."""
        event = ""
        async with asyncio.timeout(30):
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "event":
                    event = value
                elif field == "data":
                    data = value
                elif field == "id":
                    self.cursor = value
                elif not line and event:
                    if not names or event in names:
                        return event, json.loads(data)
                    event = ""
        raise AssertionError("the feed ended")

    async def frame(self, fits=lambda _: True):
        """Return the next frame that ``fits``."""
        async with asyncio.timeout(30):
            while True:
                _, data = await self.next("frame")
                if fits(data):
                    return data


@asynccontextmanager
async def watching(gateway, cursor="", key=ADMIN, **query):
    headers = bearer(key) | ({"last-event-id": cursor} if cursor else {})
    async with gateway.client.stream("GET", PATH, headers=headers, params=query) as response:
        assert response.status_code == 200
        yield Watch(response)


async def ask(gateway, model="demo-echo", key=APP, **more):
    body = {"request": {"model": model, "messages": [{"role": "user", "content": SECRET}]}}
    return await gateway.client.post("/v1/streams", json=body, headers=bearer(key) | more)


async def test_it_is_for_administrators(gateway):
    assert code(await gateway.client.get(PATH)) == (401, "missing_api_key")
    assert code(await gateway.client.get(PATH, headers=bearer("nonsense"))) == (401, "invalid_api_key")
    assert code(await gateway.client.get(PATH, headers=bearer(APP))) == (403, "admin_required")
    page = await gateway.client.get("/dashboard")
    assert page.status_code == 200
    assert SECRET not in page.text


async def test_a_token_or_a_link_is_not_enough(gateway):
    token = await gateway.client.post("/v1/tokens", json={"user": "x"}, headers=bearer())
    assert code(await gateway.client.get(PATH, headers=bearer(token.json()["token"]))) == (
        403,
        "admin_required",
    )
    stream = (await ask(gateway)).headers["stream-id"]
    link = await gateway.client.post(f"/v1/streams/{stream}/links", json={}, headers=bearer())
    by_link = await gateway.client.get(PATH, params={"token": link.json()["token"]})
    assert code(by_link) == (401, "missing_api_key")


async def test_other_sites_and_prefetches_are_refused(keyless):
    async with running(keyless, config()) as gateway:
        for headers in (
            {"origin": "https://evil.example"},
            {"sec-fetch-site": "cross-site"},
            {"sec-purpose": "prefetch"},
            {"host": "evil.example"},
        ):
            assert (await gateway.client.get(PATH, headers=headers)).status_code == 403


async def test_without_any_key_it_is_for_whoever_is_on_this_machine_and_for_nobody_behind_a_proxy(
    keyless,
):
    async with running(keyless, config()) as gateway:
        async with gateway.client.stream("GET", PATH) as response:
            assert response.status_code == 200
        proxied = await gateway.client.get(PATH, headers={"x-forwarded-for": "203.0.113.9"})
        assert code(proxied) == (403, "admin_required")


async def test_history_comes_first_then_what_goes_on(gateway):
    await ask(gateway, "falls")
    async with watching(gateway) as watch:
        name, history = await watch.next()
        assert name == "history"
        assert history["totals"]["attempts"] == {"first": 1, "fallback": 1}
        frame = await watch.frame()
        (ended,) = frame["ended"]
        assert (ended["principal"], ended["model"], ended["attempts"]) == ("app", "falls", 2)
        assert frame["happened"][0]["kind"] == "fallback"
        started = await ask(gateway, "demo-stall", prefer="respond-async")
        stream = started.json()["stream"]
        frame = await watch.frame(lambda one: one["streams"] and one["streams"][0]["characters"])
        (row,) = frame["streams"]
        assert (row["id"], row["principal"], row["doing"]) == (stream, "app", "streaming")
        assert frame["point"]["open"] == 1
        await gateway.client.post(f"/v1/streams/{stream}/cancel", headers=bearer())
        frame = await watch.frame(lambda one: one["ended"])
        assert (frame["ended"][0]["id"], frame["ended"][0]["status"]) == (stream, "cancelled")
        assert frame["totals"]["endings"] == {"completed": 1, "cancelled:cancelled": 1}
        assert {one["name"] for one in frame["targets"]} > {"demo/demo-stall"}


async def test_readers_and_their_lag_are_seen(gateway):
    stream = (await ask(gateway, "demo-stall", prefer="respond-async")).json()["stream"]
    async with watching(gateway) as watch:
        path = f"/v1/streams/{stream}/events"
        async with gateway.client.stream("GET", path, headers=bearer(APP)) as reading:
            await anext(reading.aiter_lines())
            await watch.frame(lambda one: one["point"]["readers"] == 1 and one["streams"][0]["readers"] == 1)
        await watch.frame(lambda one: one["point"]["readers"] == 0)


async def test_what_ended_is_told_once_to_whoever_comes(gateway):
    async with watching(gateway) as first:
        await first.frame()
        await ask(gateway)
        async with watching(gateway) as second:  # before the frame that tells it
            _, history = await second.next("history")
            told = history["ended"] + (await second.frame())["ended"]
            assert len(told) == 1
        async with watching(gateway) as third:
            _, history = await third.next("history")
            assert history["ended"] == told


async def test_whoever_looks_for_streams_is_shown_those(gateway):
    models = ("demo-stall", "quiet", "demo-stall")
    streams = [(await ask(gateway, model, prefer="respond-async")).json()["stream"] for model in models]
    async with watching(gateway) as all_of_them, watching(gateway, q="model:DEMO-st", sort="newest") as some:
        frame = await all_of_them.frame(lambda one: len(one["streams"]) == 3)
        assert [one["id"] for one in frame["streams"]] == streams
        assert (frame["matching"], frame["more"]) == (3, 0)
        frame = await some.frame(lambda one: one.get("matching") == 2)
        assert [one["id"] for one in frame["streams"]] == [streams[2], streams[0]]
        assert frame["point"]["open"] == 3
    for question, count in {
        f"{streams[1][-6:]} app": 1, 'principal:"app"': 3, "principal:root": 0, "no:such": 0,
    }.items():  # fmt: skip
        async with watching(gateway, q=question) as some:
            await some.frame(lambda one, count=count: one["matching"] == count)
    for stream in streams:
        await gateway.client.post(f"/v1/streams/{stream}/cancel", headers=bearer())


@pytest.mark.parametrize("query", [{"sort": "colour"}, {"q": "x" * 201}, {"q": "a b c d e f g h i"}])
async def test_what_cannot_be_looked_for_is_refused(gateway, query):
    refused = await gateway.client.get(PATH, headers=bearer(), params=query)
    assert code(refused) == (400, "invalid_value")


async def test_whoever_opens_it_again_is_given_the_strips_of_before(gateway):
    stream = (await ask(gateway, "demo-stall", prefer="respond-async")).json()["stream"]
    async with watching(gateway) as watch:
        await watch.frame()
        frame = await watch.frame(lambda one: one["streams"][0]["characters"])
        async with watching(gateway) as other:
            _, history = await other.next("history")
            assert frame["streams"][0]["characters"] in history["strips"][stream]
    await gateway.client.post(f"/v1/streams/{stream}/cancel", headers=bearer())


async def test_what_happened_lately_is_counted(gateway):
    await ask(gateway)
    await ask(gateway, "falls")
    async with watching(gateway) as watch:
        frame = await watch.frame()
        lately = frame["lately"]
        assert (lately["started"], lately["ended"], lately["failed"]) == (2, 2, 0)
        assert 0 <= lately["first50"] <= lately["first95"]


async def test_spend_comes_from_the_ledger(gateway):
    await ask(gateway)
    async with watching(gateway) as watch:
        frame = await watch.frame(lambda one: "spend" in one)
        (by_key,) = frame["spend"]["key"]
        assert by_key["name"] == "app"
        assert by_key["cost_usd"] > 0
        assert [one["name"] for one in frame["spend"]["model"]] == ["demo-echo"]


async def test_whoever_comes_back_goes_on_behind_what_it_has(gateway):
    async with watching(gateway) as watch:
        await watch.frame()
        cursor = watch.cursor
        await watch.frame()
        last = watch.cursor
    async with watching(gateway, cursor) as watch:
        name, _ = await watch.next()
        assert name == "frame"
        assert watch.cursor == last


@pytest.mark.parametrize("cursor", ["activity~1_5", "activity~99999999999_0"])
async def test_what_is_gone_is_told(gateway, cursor):
    async with watching(gateway, cursor) as watch:
        name, gap = await watch.next()
        assert (name, gap["requested"]) == ("gap", cursor)
        assert (await watch.next())[0] == "history"


async def test_nonsense_for_a_cursor_begins_anew(gateway):
    async with watching(gateway, "s_nonsense~<script>") as watch:
        assert (await watch.next())[0] == "history"


async def test_what_is_kept_for_watchers_is_bounded(gateway, monkeypatch):
    monkeypatch.setattr(feed, "MAX_FRAMES", 3)
    kept = gateway.system.context.feed
    async with watching(gateway) as watch:
        await watch.frame()
        first = watch.cursor
        for _ in range(5):
            await watch.frame()
    assert len(kept.after(0)) == 3
    async with watching(gateway, first) as watch:
        assert (await watch.next())[0] == "gap"


async def test_no_frame_is_made_while_nobody_watches(gateway):
    kept = gateway.system.context.feed
    await ask(gateway)
    assert (kept.number, kept.watchers) == (0, 0)
    async with watching(gateway) as watch:
        await watch.frame()
        assert kept.watchers == 1
    async with asyncio.timeout(30):
        while kept.watchers:  # noqa: ASYNC110  nothing to wait on: the server notices that the client left
            await asyncio.sleep(0.01)
    made = kept.number
    await asyncio.sleep(0.1)
    assert kept.number == made


async def test_as_many_watch_as_may(gateway, monkeypatch):
    monkeypatch.setattr(dashboard, "MAX_WATCHERS", 1)
    async with watching(gateway):
        refused = await gateway.client.get(PATH, headers=bearer())
        assert code(refused) == (503, "overloaded")
        assert refused.headers["retry-after"] == "10"


async def test_a_key_that_was_ended_watches_no_more(gateway, monkeypatch):
    monkeypatch.setattr(dashboard, "ASK_AGAIN", 0.05)
    made = await gateway.client.post(
        "/v1/admin/keys", json={"name": "second", "admin": True}, headers=bearer()
    )
    headers = bearer(made.json()["key"])
    async with gateway.client.stream("GET", PATH, headers=headers) as response:
        watch = Watch(response)
        await watch.frame()
        await gateway.client.delete(f"/v1/admin/keys/{made.json()['id']}", headers=bearer())
        with pytest.raises(AssertionError, match="the feed ended"):
            await watch.frame(lambda _: False)


async def test_no_prompt_answer_or_key_is_in_it(gateway):
    await ask(gateway)
    await ask(gateway, "falls")
    async with watching(gateway) as watch:
        _, history = await watch.next("history")
        told = json.dumps([history, await watch.frame()])
    assert not [word for word in (SECRET, ADMIN, APP) if word in told]


async def test_names_from_outside_are_bounded(gateway):
    for number in range(150):
        await ask(gateway, f"no-such-model-{number}" + "x" * 300)
    totals = gateway.system.context.feed.activity.totals()
    assert totals["refusals"] == {"model_not_found": 150}
    assert len(gateway.system.context.feed.activity.happened) == 50


async def test_switched_off_there_is_none(switched_off):
    async with running(switched_off, config()) as gateway:
        assert code(await gateway.client.get("/dashboard")) == (404, "not_found")
        assert code(await gateway.client.get(PATH)) == (404, "not_found")
