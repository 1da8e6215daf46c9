"""Request ids, and the line of the log that each request has."""

import asyncio
import re

import pytest
from structlog.testing import capture_logs

from penstock.server.app import routes
from penstock.server.context import ServerSettings
from penstock.server.exchanges import NO_ANSWER
from tests.server.conftest import config
from tests.server.raw import eventually

HELLO = {"model": "demo-echo", "messages": [{"role": "user", "content": "a planted prompt"}], "stream": True}


@pytest.fixture
def settings():
    return config(keys={"web-app": "planted-key-0001"})


KEY = {"authorization": "Bearer planted-key-0001"}


async def told(gateway, act) -> dict:
    """Return the line of the one request that ``act`` makes."""
    with capture_logs() as logs:
        await act
        await eventually(lambda: any(line["event"] == "request" for line in logs))
    (line,) = (line for line in logs if line["event"] == "request")
    return line


async def test_every_route_answers_with_the_id_that_it_was_given(gateway):
    for number, route in enumerate(routes()):
        for method in sorted(route.methods - {"HEAD"}):
            path = re.sub(r"\{[^}]+\}", "x", route.path)
            given = f"mine-{number}"
            response = await gateway.client.request(
                method, path, headers={"x-request-id": given, **KEY}, params={"seconds": "none"}, json={}
            )
            assert response.headers["x-request-id"] == given, (method, path)


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "-x", "é", "a\tb"])
async def test_an_id_that_is_none_is_replaced_by_ours(gateway, given):
    headers = {"x-request-id": given.encode("latin-1")}
    response = await gateway.client.get("/nothing", headers=headers)
    assert response.headers["x-request-id"].startswith("req_")


async def test_a_stream_has_one_line_that_says_who_what_and_how_much(gateway):
    async def act():
        headers = {"x-request-id": "mine", **KEY}
        response = await gateway.client.post("/v1/chat/completions", json=HELLO, headers=headers)
        act.got = response

    line = await told(gateway, act())
    assert line.pop("ms") > 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": "mine",
        "method": "POST",
        "path": "/v1/chat/completions",
        "route": "/v1/chat/completions",
        "status": 200,
        "bytes": len(act.got.content),
        "address": "127.0.0.1",
        "principal": "web-app",
        "key": "config.web-app",
        "dialect": "openai_chat",
        "model": "demo-echo",
        "stream": act.got.headers["stream-id"],
    }


async def test_what_is_refused_is_told_with_its_code_and_without_its_query(gateway):
    line = await told(gateway, gateway.client.get("/stream?content=planted&token=planted"))
    assert (line["status"], line["code"], line["path"]) == (401, "missing_api_key", "/stream")
    assert "planted" not in str(line)


async def test_a_path_is_told_as_it_was_sent_and_its_route_without_names(gateway):
    line = await told(gateway, gateway.client.get("/v1/streams/%0A%1b[2J" + "x" * 500, headers=KEY))
    assert line["path"].startswith("/v1/streams/%0A%1b[2J")
    assert len(line["path"]) == 200
    assert line["route"] == "/v1/streams/{stream}"


async def test_a_client_that_left_is_told_as_such(gateway):
    async def act():
        hello = {**HELLO, "model": "demo-stall", "stream": False}
        call = gateway.client.post("/v1/chat/completions", json=hello, headers=KEY)
        asking = asyncio.ensure_future(call)
        await eventually(lambda: gateway.system.gateway.open_streams)
        asking.cancel()
        await asyncio.wait([asking])

    line = await told(gateway, act())
    assert (line["status"], line["cut"]) == (NO_ANSWER, True)


async def test_health_is_not_told_as_long_as_it_is_good(gateway):
    with capture_logs() as logs:
        await gateway.client.get("/healthz")
        await gateway.client.get("/nothing")
        await eventually(lambda: len([line for line in logs if line["event"] == "request"]) == 2)
    levels = {line["path"]: line["log_level"] for line in logs if line["event"] == "request"}
    assert levels == {"/healthz": "debug", "/nothing": "info"}


async def test_a_websocket_has_a_line_at_its_end(gateway):
    with capture_logs() as logs:
        async with gateway.client.stream(
            "GET",
            "/v1/ws",
            headers={
                "connection": "upgrade",
                "upgrade": "websocket",
                "sec-websocket-version": "13",
                "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
                **KEY,
            },
        ) as response:
            assert response.status_code == 101
        await eventually(lambda: any(line["event"] == "websocket_closed" for line in logs))
    (line,) = (line for line in logs if line["event"] == "websocket_closed")
    assert (line["path"], line["principal"]) == ("/v1/ws", "web-app")


async def test_lines_can_be_left_out(gateway):
    gateway.system.context.settings = ServerSettings(access_log=False)
    with capture_logs() as logs:
        await gateway.client.get("/nothing")
        gateway.system.context.settings = ServerSettings()
        await gateway.client.get("/other")
        await eventually(lambda: any(line["event"] == "request" for line in logs))
    assert [line["path"] for line in logs if line["event"] == "request"] == ["/other"]


async def test_what_is_no_request_is_told_as_refused(gateway):
    with capture_logs() as logs:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"planted nonsense\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
    (line,) = (line for line in logs if line["event"] == "request_refused")
    assert (line["status"], line["address"]) == (400, "127.0.0.1")
    assert "planted" not in str(line)
