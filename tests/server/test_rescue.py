"""What a client gets when a provider fails, in every way and at every phase, with and without another.

The table is made, not picked: each failure that the embedded model can play, before any output, after the
first word, in the middle and before the end, under each way of going on.
"""

import itertools
import json

import pytest

from tests.server.conftest import config, running
from tests.server.sse import collect

TEXT = "The keeper opens the sluice, and water lifts the boat: 水が船を持ち上げる 🚤, slowly, until it is up."
FAILURES = ["cut", "error", "truncated", "rate_limited", "overloaded", "stall"]
PHASES = {"before output": 0, "after one word": 1, "in the middle": 9}
TIMERS = {"first_output": 0.15, "stall": 0.15}
RETRY = {"tries": 2, "tries_in_all": 4, "base_delay": 0.01, "max_retry_after": 0.01}
EARLY = {"cut", "error", "truncated", "rate_limited", "overloaded"}


def model(failure, after):
    return f"demo-echo?failure={failure}&fail_after={after}"


def target(failure=None, after=0, **more):
    name = model(failure, after) if failure else "demo-echo"
    return {"provider": "demo", "model": name, **more}


def case(failure, phase, mode):
    return f"{failure}-{PHASES[phase]}-{mode}"


CASES = [*itertools.product(FAILURES, PHASES, ["prefill", "prompt", "none", "alone"])]


@pytest.fixture
def settings():
    models = {}
    for failure, phase, mode in CASES:
        targets = [target(failure, PHASES[phase])]
        if mode != "alone":
            targets.append(target(continuation=mode))
        models[case(failure, phase, mode)] = targets
    models["both"] = [
        target("cut", 3),
        target("cut", 12, continuation="prefill"),
        target(continuation="prefill"),
    ]
    models["anew"] = [target("cut", 9), target(continuation="restart")]
    models["anew, then on"] = [target("cut", 9), target("cut", 5, continuation="restart"), target()]
    models["veiled"] = {"targets": [target("cut", 0), target()], "show_model": "asked"}
    models["lost"] = [target("error", 0), target("overloaded", 0)]
    models["refused"] = [target("cut", 3), {"provider": "demo", "model": "demo-refusal"}]
    return config(models=models, timers=TIMERS, retry=RETRY, breaker={"failures": 1_000, "share": 1.0})


async def ask(gateway, model, dialect="native", **more):
    messages = [{"role": "user", "content": TEXT}]
    body = {"model": model, "messages": messages, **more}
    if dialect == "native":
        return await collect(gateway.client, "POST", "/v1/streams", json={"request": body})
    return await collect(gateway.client, "POST", "/v1/chat/completions", json={**body, "stream": True})


@pytest.mark.parametrize("dialect", ["native", "openai_chat"])
@pytest.mark.parametrize(("failure", "phase", "mode"), CASES)
async def test_answer_is_whole_or_ends_honestly(gateway, failure, phase, mode, dialect):
    read = await ask(gateway, case(failure, phase, mode), dialect)
    unseen = PHASES[phase] == 0
    rescued = mode != "alone" and (unseen or mode != "none")
    if dialect == "native":
        text, end = read.text, read.events[-1].data
        status, code = end["status"], end.get("code", "")
    else:
        chunks = [event.data for event in read.events if isinstance(event.data, dict)]
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))
        if read.status != 200:
            chunks.append(json.loads(read.raw))
        code = next((chunk["error"]["code"] for chunk in chunks if "error" in chunk), "")
        status = "completed" if read.events and read.events[-1].data == "[DONE]" else "failed"
    if rescued:
        assert (status, text) == ("completed", TEXT)
    else:
        assert status == "failed"
        assert TEXT.startswith(text)
        assert bool(text) is not unseen
        assert code
        assert read.cut or dialect == "native" or read.status >= 400


async def test_an_answer_may_break_twice(gateway):
    read = await ask(gateway, "both")
    assert read.text == TEXT
    seams = [event.data for event in read.events if event.name == "seam"]
    assert [seam["mode"] for seam in seams] == ["prefill", "prefill"]
    assert read.events[-1].data["attempts"] == 3


@pytest.mark.parametrize(
    "more", [{"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}], ids=str
)
async def test_what_cannot_be_sewn_is_not(gateway, more):
    read = await ask(gateway, case("cut", "in the middle", "prefill"), **more)
    end = read.events[-1].data
    assert (end["status"], end["attempts"]) == ("failed", 1)


async def test_a_plain_answer_is_whole_too(gateway):
    body = {"model": case("cut", "in the middle", "prefill"), "messages": [{"role": "user", "content": TEXT}]}
    answer = (await gateway.client.post("/v1/chat/completions", json=body)).json()
    assert answer["choices"][0]["message"]["content"] == TEXT


async def test_a_snapshot_and_digests_take_in_the_seam(gateway):
    read = await ask(gateway, case("cut", "in the middle", "prompt"))
    stream = read.headers["stream-id"]
    assert (await gateway.client.get(f"/v1/streams/{stream}")).json()["text"] == TEXT
    again = await collect(gateway.client, "GET", f"/v1/streams/{stream}/events")
    assert again.events[1:] == read.events[1:]


async def test_an_answer_may_begin_anew_behind_a_mark(gateway):
    read = await ask(gateway, "anew")
    before, mark, after = read.text.partition("[The answer broke off here and starts over.]")
    assert mark
    assert (TEXT.startswith(before.strip()), after.strip()) == (True, TEXT)
    assert [event.data["mode"] for event in read.events if event.name == "seam"] == ["restart"]
    assert read.events[-1].data["status"] == "completed"


async def test_what_began_anew_is_gone_on_with_from_its_own_beginning(gateway):
    read = await ask(gateway, "anew, then on")
    assert read.text.partition("starts over.]")[2].strip() == TEXT
    assert [event.data["mode"] for event in read.events if event.name == "seam"] == ["restart", "prefill"]


def spans(headers):
    parts = (part.partition(";dur=") for part in headers["server-timing"].split(", "))
    return {name: float(value) for name, _, value in parts}


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
async def test_headers_say_who_answered_at_which_attempt_and_where_the_time_went(gateway, route, stream):
    body = {"model": case("cut", "before output", "prefill"), "max_tokens": 100, "stream": stream}
    body["messages"] = [{"role": "user", "content": TEXT}]
    response = await gateway.client.post(route, json=body)
    assert response.status_code == 200
    assert response.headers["stream-target"] == "demo/demo-echo"
    assert response.headers["stream-attempts"] == "2"
    found = spans(response.headers)
    total = found.pop("total")
    assert sum(found.values()) == pytest.approx(total, abs=0.1)
    assert {"queue", "connect", "wait", "stream", "gateway"} <= found.keys()
    assert "Stream-Target" in response.headers["access-control-expose-headers"]
    end = await ended(gateway, response.headers["stream-id"])
    assert (end["target"], end["attempts"]) == ("demo/demo-echo", 2)
    assert [report.get("code", "") for report in end["history"]] == ["upstream_reset", ""]


@pytest.mark.parametrize("stream", [True, False])
async def test_errors_say_whom_they_are_from(gateway, stream):
    body = {"model": "lost", "messages": [{"role": "user", "content": TEXT}], "stream": stream}
    response = await gateway.client.post("/v1/chat/completions", json=body)
    assert response.status_code >= 500
    assert response.headers["stream-attempts"] == "2"
    assert response.headers["stream-target"].startswith("demo/demo-echo")


@pytest.mark.parametrize(("model", "shown"), [("veiled", "veiled"), ("both", "demo-echo")])
async def test_the_model_that_clients_see_is_a_setting(gateway, model, shown):
    messages = [{"role": "user", "content": TEXT}]
    body = {"model": model, "messages": messages, "max_tokens": 100}
    whole = (await gateway.client.post("/v1/chat/completions", json=body)).json()
    anthropic = (await gateway.client.post("/v1/messages", json=body)).json()
    streamed = await ask(gateway, model, "openai_chat")
    names = [whole["model"], anthropic["model"], streamed.events[0].data["model"]]
    assert [name.partition("?")[0] for name in names] == [shown] * 3


@pytest.mark.parametrize(("phase", "code"), [("before output", "upstream_silent")])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_timeout_is_a_504_that_names_its_timer(gateway, phase, code, stream):
    body = {"model": case("stall", phase, "alone"), "messages": [{"role": "user", "content": TEXT}]}
    response = await gateway.client.post("/v1/chat/completions", json={**body, "stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (504, code)


async def ended(gateway, stream):
    read = await collect(gateway.client, "GET", f"/v1/streams/{stream}/events")
    return read.events[-1].data


@pytest.fixture
async def gateway(system, settings):
    """A gateway whose log says what was tried."""
    async with running(system, settings) as served:
        yield served
