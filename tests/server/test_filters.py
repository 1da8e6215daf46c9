"""Filters over HTTP: every dialect is told honestly, and nothing unfiltered is stored."""

import json

import pytest

from penstock.config import check
from tests.server.conftest import config

ROUTES = {
    "/v1/chat/completions": ("finish_reason", "content_filter"),
    "/v1/messages": ("stop_reason", "refusal"),
}
RULES = [
    {"words": ["hush hush"], "mask": "[…]"},
    {"name": "never", "words": ["forbidden"], "action": "block"},
]


@pytest.fixture
def settings():
    return config(
        filters={"house": {"rules": RULES, "input": False}, "in": {"rules": RULES, "models": ["demo"]}}
    )


async def ask(gateway, path, text, *, stream=False, model="demo-echo"):
    body = {"model": model, "max_tokens": 99, "stream": stream}
    return await gateway.client.post(path, json={**body, "messages": [{"role": "user", "content": text}]})


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_masked_for_every_reader_and_in_the_log(gateway, path, stream):
    answer = await ask(gateway, path, "I say hush hush to you", stream=stream)
    assert answer.status_code == 200
    snapshot = (await gateway.client.get(answer.headers["location"])).json()
    assert snapshot["text"] == "I say […] to you"
    entries = await gateway.client.get(answer.headers["location"] + "/events")
    assert "hush" not in answer.text + entries.text


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_blocked_answer_ends_with_the_reason_in_its_dialect(gateway, path, stream):
    answer = await ask(gateway, path, "That is forbidden, as we know", stream=stream)
    name, reason = ROUTES[path]
    assert f'"{name}":"{reason}"' in answer.text.replace(" ", "")
    snapshot = (await gateway.client.get(answer.headers["location"])).json()
    assert (snapshot["status"], snapshot["text"]) == ("completed", "That is ")
    assert "forbidden" not in answer.text


@pytest.mark.parametrize("path", ROUTES)
async def test_a_blocked_request_is_refused_in_its_dialect(gateway, path):
    refused = await ask(gateway, path, "forbidden", model="demo")
    assert refused.status_code == 400
    assert json.loads(refused.text)["error"]["code"] == "content_filter"
    assert "'never'" in refused.json()["error"]["message"]


class TestOfPresets:
    @pytest.fixture
    def settings(self):
        presets = {"careful": {"model": "demo-echo", "filters": ["house"]}, "plain": {"model": "demo-echo"}}
        return config(filters={"house": {"rules": RULES, "models": []}}, presets=presets)

    async def test_a_preset_chooses_its_filters_and_others_go_without(self, gateway):
        texts = {}
        for preset in ("careful", "plain"):
            asked = {"content": "I say hush hush to you"}
            answer = await gateway.client.post(f"/v1/presets/{preset}", json=asked)
            texts[preset] = (await gateway.client.get(answer.headers["location"])).json()["text"]
        assert texts == {"careful": "I say […] to you", "plain": "I say hush hush to you"}
        refused = await gateway.client.post("/v1/presets/careful", json={"content": "forbidden"})
        assert refused.status_code == 400
        other = await ask(gateway, "/v1/chat/completions", "I say hush hush to you")
        assert "hush hush" in other.text


def test_a_filter_that_is_none_is_named():
    made = config(presets={"one": {"filters": ["nothing"]}})
    (problem,) = check(made)
    assert (problem.where, "nothing" in problem.what) == ("presets.one.filters[0]", True)
