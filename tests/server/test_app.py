"""What becomes of errors, foreseen and not."""

import pytest
from structlog.testing import capture_logs

from penstock.server.responses import Reader
from tests.server.raw import eventually
from tests.server.sse import collect

HELLO = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}


async def crash(*_, **__):
    raise RuntimeError("a secret detail")


async def test_what_nobody_foresaw_is_logged_and_told_as_our_fault_alone(gateway):
    gateway.system.gateway.models = crash
    with capture_logs() as logs:
        response = await gateway.client.get("/v1/models")
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["fault"]) == (500, "internal_error", "gateway")
    assert response.headers["x-request-id"] in error["message"]
    assert "secret" not in response.text
    (entry,) = (entry for entry in logs if entry["event"] == "request_crashed")
    assert str(entry["exc_info"]) == "a secret detail"
    assert entry["request_id"] == response.headers["x-request-id"]


async def test_a_crash_after_the_status_line_cuts_the_body(gateway, monkeypatch):
    monkeypatch.setattr(Reader, "_catch_up", crash)
    with capture_logs() as logs:
        got = await collect(gateway.client, "POST", "/v1/streams", json={"request": HELLO})
        await eventually(lambda: not gateway.server._state.tasks)
    assert (got.status, got.names, got.cut) == (200, ["stream"], True)
    assert "request_crashed" in {entry["event"] for entry in logs}


@pytest.mark.parametrize(
    "value", ["grace:²", "grace:1e3", "grace:", "grace:-1", "grace:nan", "grace:99999999", "x"]
)
async def test_a_disconnect_policy_that_is_none_is_refused(gateway, value):
    headers = {"stream-on-disconnect": value.encode("latin-1")}
    response = await gateway.client.post("/v1/chat/completions", json=HELLO, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")


async def test_a_ttl_of_nothing_is_not_the_default(gateway):
    headers = {"prefer": "respond-async"}
    created = await gateway.client.post("/v1/streams", json={"request": HELLO, "ttl_s": 0}, headers=headers)
    info = await gateway.system.gateway.store.catalogue.find(created.json()["stream"])
    assert info is None or info.retention == 0


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/stream", 405)])
async def test_what_is_not_there_is_said_in_json(gateway, method, path, status):
    response = await gateway.client.request(method, path)
    assert (response.status_code, "message" in response.json()["error"]) == (status, True)
