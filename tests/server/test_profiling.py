"""Recording the process that serves."""

import asyncio
import json
import re

import pytest

from penstock.server.profiling import MAX_SECONDS, ProfilerDesk
from tests.server.conftest import config
from tests.server.raw import eventually

ADMIN = {"authorization": "Bearer planted-admin-0001"}
APP = {"authorization": "Bearer planted-app-0001"}
PATH = "/v1/admin/profile"


@pytest.fixture
def settings():
    return config(
        keys={"root": {"key": "planted-admin-0001", "admin": True}, "app": {"key": "planted-app-0001"}}
    )


async def record(gateway, **query):
    return await gateway.client.post(PATH, params=query, headers=ADMIN)


async def test_a_recording_shows_the_functions_that_ran(gateway):
    recording = asyncio.ensure_future(record(gateway, seconds="0.5", format="speedscope"))
    while not recording.done():
        answer = await gateway.client.get("/stream", params={"content": "x " * 50}, headers=APP)
        assert answer.status_code == 200
    response = recording.result()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    shown = json.loads(response.content)
    assert shown["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    files = " ".join(frame.get("file") or "" for frame in shown["shared"]["frames"])
    assert "penstock/server" in files
    assert shown["profiles"][0]["endValue"] >= 0.4


async def test_a_page_is_a_page_that_can_do_nothing_else(gateway):
    response = await record(gateway, seconds="0.05")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert re.search(r"(?i)<!doctype html>", response.text)
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", response.text)


async def test_one_is_recorded_at_a_time_and_it_ends_with_its_client(gateway):
    first = asyncio.ensure_future(record(gateway, seconds="60"))
    await eventually(lambda: gateway.system.context.profiler._busy)
    second = await record(gateway, seconds="0.05")
    assert (second.status_code, second.json()["error"]["code"]) == (409, "profile_running")
    first.cancel()
    await asyncio.wait([first])
    await eventually(lambda: not gateway.system.context.profiler._busy)
    assert (await record(gateway, seconds="0.05")).status_code == 200


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ({}, APP, 403, "admin_required"),
        ({}, {}, 401, "missing_api_key"),
        *(({"seconds": s}, ADMIN, 400, "invalid_value") for s in ("0", "-1", "nan", "inf", "x", "61")),
        ({"format": "svg"}, ADMIN, 400, "invalid_value"),
    ],
)
async def test_what_is_refused(gateway, query, headers, status, code):
    assert MAX_SECONDS == 60
    response = await gateway.client.post(PATH, params=query, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_without_the_extra_it_says_what_to_install(gateway):
    def missing(_: float):
        raise ImportError

    gateway.system.context.profiler = ProfilerDesk(missing)
    response = await record(gateway, seconds="0.05")
    assert (response.status_code, response.json()["error"]["code"]) == (501, "profiler_missing")
    assert "penstock[profile]" in response.json()["error"]["message"]
