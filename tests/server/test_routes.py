"""Settings that hold for the streams of one route: what is kept, for how long, what leaving means."""

import asyncio

import pytest

from penstock.assembly.system import assemble
from penstock.config import BadConfig
from tests.server.conftest import config, running
from tests.server.raw import eventually
from tests.server.sse import collect

SECRET = "qzxj"  # short enough to be one delta
ASK = {"model": "demo-echo", "messages": [{"role": "user", "content": SECRET}]}


async def create(client, route):
    match route:
        case "stream":
            return await collect(client, "GET", "/stream", params={"content": SECRET})
        case "streams":
            return await collect(client, "POST", "/v1/streams", json={"request": ASK})
    return await collect(client, "POST", "/v1/chat/completions", json={**ASK, "stream": True})


def settings_with(tmp_path, **routes):
    return config(store={"path": str(tmp_path / "data")}, routes=routes)


def at_rest(tmp_path):
    return SECRET.encode() in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize("route", ["stream", "streams", "openai_chat"])
@pytest.mark.parametrize(
    ("where", "stays"), [("none", False), ("memory", False), ("process", True), ("host", True)]
)
async def test_what_is_kept_is_what_the_operator_says(tmp_path, route, where, stays):
    settings = settings_with(tmp_path, **{route: {"at_rest": where}})
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        stream = (await create(gateway.client, route)).headers["stream-id"]
        again = await gateway.client.get(f"/v1/streams/{stream}")
        assert again.json()["text"] == SECRET
    assert await asyncio.to_thread(at_rest, tmp_path) is stays
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        assert (await gateway.client.get(f"/v1/streams/{stream}")).status_code == (200 if stays else 404)


async def test_a_route_has_a_retention_of_its_own(tmp_path):
    settings = settings_with(tmp_path, streams={"retention": 60}, stream={"at_rest": "none"})
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        for route, seconds in (("streams", 60), ("openai_chat", 86_400), ("stream", 30)):
            stream = (await create(gateway.client, route)).headers["stream-id"]
            listed = (await gateway.client.get("/v1/streams")).json()["data"]
            (found,) = [one for one in listed if one["id"] == stream]
            assert found["expires_at"] - found["closed_at"] in (seconds, seconds - 1)


async def test_what_leaving_means_is_set_per_route(tmp_path):
    settings = settings_with(tmp_path, streams={"on_disconnect": "cancel"})
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as gateway:
        body = {"request": {**ASK, "model": "demo-stall"}}
        await collect(gateway.client, "POST", "/v1/streams", json=body, stop_after=3)
        await eventually(lambda: gateway.system.gateway.open_streams == 0)
        body["on_disconnect"] = "continue"
        await collect(gateway.client, "POST", "/v1/streams", json=body, stop_after=3)
        await asyncio.sleep(0.1)
        assert gateway.system.gateway.open_streams == 1


@pytest.mark.parametrize(
    ("routes", "where"),
    [
        ({"streams": {"on_disconnect": "perhaps"}}, "routes.streams.on_disconnect"),
        ({"stream": {"retention": -1}}, "routes.stream.retention"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, routes, where):
    with pytest.raises(BadConfig) as caught:
        assemble(settings_with(tmp_path, **routes), {})
    assert [problem.where for problem in caught.value.problems] == [where]


def test_a_store_in_memory_keeps_nothing_on_disk():
    with pytest.raises(BadConfig):
        assemble(config(routes={"streams": {"at_rest": "host"}}), {})
