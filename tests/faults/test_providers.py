"""Every fault of a provider, at every phase of its answer, under every way of going on, in two dialects.

What must happen is not picked by hand: `expected` derives it from what the reader had when the fault came
and from what the model's targets can do. PENSTOCK_FAULTS=all plays all of the table (`make torture`), the
suite each nth case.
"""

import asyncio
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import httpx
import pytest

from penstock.assembly.system import assemble
from tests.faults.models import ARGUMENTS, PREFILL_REFUSED, TEXT, serving_models
from tests.faults.process import free_port
from tests.faults.proxy import BEFORE_HEAD, FAULTS, PHASES, WITHIN, breaking, possible
from tests.server.conftest import config, running
from tests.server.sse import Collected, collect

EVERY = 1 if os.environ.get("PENSTOCK_FAULTS") == "all" else 4
AT_ONCE = 8
MARK = "[The answer broke off here and starts over.]"
QUICK = {"head": 0.3, "first_output": 0.3, "stall": 0.3}
"""For targets that fall silent. The others are not hurried: the machine may be slow."""

DIALECTS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}

POLICIES = ("alone", "again", "prefill", "prompt", "restart", "none", "picky", "rival")
"""``alone``: the target is tried once, and there is no other. ``again``: there is no other, but the fault
happens once. The next four have a healthy fallback that goes on in that way; ``picky`` has one that
complains of the prefill that it is asked for; ``rival`` has one that may be hedged with."""


class Case(NamedTuple):
    """One line of the table."""

    dialect: str
    phase: str
    fault: str
    policy: str

    @property
    def path(self) -> str:
        return DIALECTS[self.dialect]

    @property
    def name(self) -> str:
        return "-".join(self).replace(" ", "_")


class Expected(NamedTuple):
    """What must happen. ``status``: `completed`, or `failed`. ``whole``: how the text must be: the text
    itself, a true beginning of it, or that, the mark and the text."""

    status: str
    text: str  # "whole" | "part" | "marked"
    shown: bool = True
    attempts: int = 0  # 0: does not matter


def cases() -> Iterator[Case]:
    for dialect, path in DIALECTS.items():
        for phase, fault in itertools.product(PHASES, FAULTS):
            if possible(fault, phase, path):
                yield from (Case(dialect, phase, fault, policy) for policy in POLICIES)
        yield from (Case(dialect, "connect", "refused", policy) for policy in POLICIES if policy != "again")


TABLE = [*cases()]
PLACES = [*dict.fromkeys((case.dialect, case.phase) for case in TABLE)]


def expected(case: Case) -> Expected:
    """Return what must happen."""
    if case.fault == "malformed" or case.phase in ("before usage", "after finish"):
        return Expected("completed", "whole", attempts=1)  # one event is lost, or nothing that matters
    if case.phase in ("connect", "before head", "after head", "after role"):
        if case.policy == "alone":
            return Expected("failed", "part", shown=False, attempts=1)
        return Expected("completed", "whole", attempts=0 if case.policy == "rival" else 2)
    if case.phase == "in a tool call" or case.policy in ("alone", "none", "picky"):
        return Expected("failed", "part")
    if case.policy == "restart":
        return Expected("completed", "marked", attempts=2)
    return Expected("completed", "whole", attempts=2)


def model(case: Case) -> dict:
    """The configuration of a case's model."""
    times = 1 if case.policy == "again" else 1_000
    broken = {"provider": case.dialect, "model": f"{case.fault}/{case.phase}/{times}/{case.policy}"}
    if case.phase == "connect":
        broken["provider"] = f"{case.dialect}-gone"
    if case.fault == "silence":
        broken["timers"] = QUICK
    broken["tries"] = 1 if case.policy == "alone" else 2
    healthy = {"provider": f"{case.dialect}-healthy", "model": "healthy", "continuation": case.policy}
    match case.policy:
        case "alone" | "again":
            return {"targets": [broken]}
        case "picky":
            picky = {**healthy, "model": "picky", "continuation": "prefill", "tries": 1}
            return {"targets": [{**broken, "tries": 1}, picky]}
        case "rival":
            return {"targets": [broken, {**healthy, "continuation": "prefill"}], "hedge": True}
        case "none":
            return {"targets": [{**broken, "tries": 1}, healthy]}
    return {"targets": [{**broken, "tries": 1}, healthy]}


def settings(proxy: int, models: int, table: list[Case]) -> dict:
    gone = free_port()
    ports = {"": proxy, "-healthy": models, "-gone": gone}
    return config(
        providers={
            f"{dialect}{name}": {
                "kind": dialect,
                "base_url": f"http://127.0.0.1:{port}{'/v1' if dialect == 'openai' else ''}",
                "api_key": "k",
                "list_models": False,
            }
            for dialect in DIALECTS
            for name, port in ports.items()
        },
        models={case.name: model(case) for case in table},
        retry={"base_delay": 0.02, "max_delay": 0.05},
        breaker={"failures": 100_000, "share": 1.0},
        discover=False,
    )


async def ask(client: httpx.AsyncClient, case: Case) -> Collected:
    body = {"model": case.name, "messages": [{"role": "user", "content": "Tell me."}], "stream": True}
    body["max_tokens"] = 1_000
    if case.phase == "in a tool call":
        tool = {"name": "weather", "description": "Of a city."}
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        body["tools"] = (
            [{"type": "function", "function": {**tool, "parameters": schema}}]
            if case.dialect == "openai"
            else [{**tool, "input_schema": schema}]
        )
    return await collect(client, "POST", case.path, json=body, headers={"anthropic-version": "2023-06-01"})


class Got(NamedTuple):
    """What a client of its dialect makes of an answer."""

    status: str
    text: str
    arguments: str
    error: str


def seen(case: Case, read: Collected) -> Got:
    if read.status != 200:
        error = json.loads(read.raw)["error"]
        assert error["message"]
        return Got("failed", "", "", json.dumps(error))
    return (seen_openai if case.dialect == "openai" else seen_anthropic)(read)


def seen_openai(read: Collected) -> Got:
    text = arguments = error = finish = ""
    for event in read.events:
        if event.data == "[DONE]":
            break
        if "error" in event.data:
            error = json.dumps(event.data["error"])
        for choice in event.data.get("choices", ()):
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", ()):
                arguments += call["function"].get("arguments", "")
            finish = choice["finish_reason"] or finish
    done = bool(read.events) and read.events[-1].data == "[DONE]"
    assert done is bool(finish) is not bool(error), read.raw
    assert read.cut is not done
    return Got("completed" if done else "failed", text, arguments, error)


def seen_anthropic(read: Collected) -> Got:
    text = arguments = error = finish = ""
    for event in read.events:
        match event.data:
            case {"type": "content_block_delta", "delta": {"text": piece}}:
                text += piece
            case {"type": "content_block_delta", "delta": {"partial_json": piece}}:
                arguments += piece
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                finish = reason
            case {"type": "error"}:
                assert event.name == "error"
                error = json.dumps(event.data["error"])
    done = bool(read.events) and read.events[-1].name == "message_stop"
    assert done is bool(finish) is not bool(error), read.raw
    return Got("completed" if done else "failed", text, arguments, error)


def judge(case: Case, got: Got, headers: dict, end: dict) -> None:
    """Hold what was seen against what must happen."""
    must = expected(case)
    assert got.status == must.status == end["status"], (got, end)
    match must.text:
        case "whole":
            assert got.text == TEXT
        case "part":
            assert TEXT.startswith(got.text)
            assert bool(got.text) is must.shown
        case "marked":
            before, mark, after = got.text.partition(MARK)
            assert mark
            assert before.strip()
            assert TEXT.startswith(before.rstrip())
            assert after.strip() == TEXT
    if case.phase == "in a tool call" and must.status == "completed":
        assert json.loads(got.arguments) == json.loads("".join(ARGUMENTS))
    if must.attempts:
        assert end["attempts"] == must.attempts
    assert PREFILL_REFUSED not in got.error
    assert (must.status == "failed") is bool(got.error)
    if must.status == "failed":
        assert end["fault"] == "upstream"
        assert end["code"].startswith(("upstream_", "rate_limit", "overloaded"))
    assert headers.get("stream-status", "open") != "completed" or must.status == "completed"


async def play(client: httpx.AsyncClient, case: Case) -> str:
    """Play a case; return what is wrong, or nothing."""
    try:
        async with asyncio.timeout(60):
            read = await ask(client, case)
            listed = (await client.get("/v1/streams?limit=1000")).json()["data"]
            (stream,) = [entry["id"] for entry in listed if entry["model"] == case.name]
            log = await collect(client, "GET", f"/v1/streams/{stream}/events")
        judge(case, seen(case, read), read.headers, log.events[-1].data)
    except (AssertionError, TimeoutError, ValueError, KeyError) as wrong:
        return f"{case.name}: {type(wrong).__name__} {str(wrong)[:300]}"
    return ""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("dialect", "phase"), PLACES)
async def test_every_fault_ends_as_it_must(dialect, phase):
    table = [case for case in TABLE if (case.dialect, case.phase) == (dialect, phase)]
    first = TABLE.index(table[0])
    table = [case for number, case in enumerate(table, first) if number % EVERY == 0]
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(serving_models())
        proxy = await stack.enter_async_context(breaking(models))
        made = settings(proxy.port, models, table)
        system = await asyncio.to_thread(assemble, made, {})
        gateway = await stack.enter_async_context(running(system, made))
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(case: Case) -> str:
            async with turn:
                return await play(gateway.client, case)

        wrong = [text for text in await asyncio.gather(*map(one, table)) if text]
        assert not wrong, "\n".join(wrong)
        for name, times in proxy.asked.items():
            early = [at for at in times if at - times[0] < 1.4]
            assert len(early) <= 2, name
            assert len(times) <= 6, name


def test_the_table_has_every_fault_at_every_phase_under_every_way():
    assert len(PLACES) == 2 * (len(PHASES) + 1) - 1  # Anthropic's usage comes with the finish
    assert {case.fault for case in TABLE} == {*FAULTS, "refused"}
    for case in TABLE:
        assert (
            expected(case).status == "completed"
            or case.policy in ("alone", "none", "picky")
            or (case.phase == "in a tool call")
        )
    assert {case.phase for case in TABLE if case.phase in WITHIN} == set(WITHIN)
    assert set(BEFORE_HEAD) < {case.phase for case in TABLE}
    assert len(TABLE) > 800
