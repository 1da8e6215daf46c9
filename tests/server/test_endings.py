"""A truncated answer is never a success, and who has a reason gives it: every way in which a provider can
end badly, in each of its dialects, to every kind of client, streaming and not.

PENSTOCK_ENDINGS=all asks for all of it (`make torture`), the suite for every client's every ending from some
provider.
"""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest

from penstock.assembly.system import assemble
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.gemini import GEMINI
from penstock.wire.ollama_clients import OLLAMA
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_responses import OPENAI_RESPONSES
from tests.server.conftest import config, running
from tests.server.endings import CODE, ENDINGS, PROVIDERS, SAID, SPOKEN, ending_badly, possible
from tests.server.sse import parse
from tests.wire.decoding import run

EVERY = 1 if os.environ.get("PENSTOCK_ENDINGS") == "all" else 6
AT_ONCE = 8
QUICK = {"head": 0.3, "first_output": 0.3, "stall": 0.3}
TURNS = [{"role": "user", "content": "Hi"}]
CONTENTS = [{"role": "user", "parts": [{"text": "Hi"}]}]
UI_TURNS = [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]


class Got(NamedTuple):
    """A response, as far as it came."""

    status: int
    body: bytes
    cut: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Told(NamedTuple):
    """What a client makes of it. ``whole``: for it this is an answer, with its end."""

    whole: bool
    error: str = ""


class Client(NamedTuple):
    """One kind of client: how it asks for a model, and how it reads what it is given with status 200."""

    path: Callable[[str], str]
    ask: Callable[[str], Any]
    read: Callable[[Got], Told]


def at(path: str) -> Callable[[str], str]:
    return lambda model: path.format(model=model)


# --- how clients read --------------------------------------------------------------------------------


def decoded(face: Any) -> Callable[[Got], Told]:
    """Read a stream as the gateway itself would read such a provider's: strictly."""

    def read(got: Got) -> Told:
        outcome = run(face.decoder(), [got.body])
        return Told(outcome.error is None, outcome.error.message if outcome.error else "")

    return read


def completions(got: Got) -> Told:
    events = [event.data for event in parse(got.body)]
    said = [event["error"]["message"] for event in events if isinstance(event, dict) and "error" in event]
    finished = any(
        choice["finish_reason"]
        for event in events
        if isinstance(event, dict)
        for choice in event.get("choices", ())
    )
    return Told(events[-1:] == ["[DONE]"] or finished, "".join(said))


def array(got: Got) -> Told:
    last = got.json[-1]
    return Told("candidates" in last, last.get("error", {}).get("message", ""))


def ui(got: Got) -> Told:
    events = [event.data for event in parse(got.body) if event.data != "[DONE]"]
    said = [event["errorText"] for event in events if event["type"] == "error"]
    return Told(any(event["type"] == "finish" for event in events) and not said, "".join(said))


def native(got: Got) -> Told:
    last = parse(got.body)[-1]
    return Told(last.name == "done", last.data["message"] if last.name == "fail" else "")


def lines(got: Got) -> Told:
    last = json.loads(got.body.splitlines()[-1])
    return Told(last["ev"] == "done", last["d"]["message"] if last["ev"] == "fail" else "")


def plain(got: Got) -> Told:
    return Told(not got.cut)


def whole(name: str) -> Callable[[Got], Told]:
    """Read an answer that does not stream: with status 200 it is one."""
    return lambda got: Told(name in got.json)


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": TURNS, **more}


CLIENTS = {
    "openai_chat stream": Client(
        at("/v1/chat/completions"), lambda model: chat(model, stream=True), decoded(OPENAI_CHAT)
    ),
    "openai_chat whole": Client(at("/v1/chat/completions"), chat, whole("choices")),
    "openai_responses stream": Client(
        at("/v1/responses"), lambda m: {"model": m, "input": "Hi", "stream": True}, decoded(OPENAI_RESPONSES)
    ),
    "openai_responses whole": Client(
        at("/v1/responses"), lambda m: {"model": m, "input": "Hi"}, whole("output")
    ),
    "openai_completions stream": Client(
        at("/v1/completions"), lambda m: {"model": m, "prompt": "Hi", "stream": True}, completions
    ),
    "openai_completions whole": Client(
        at("/v1/completions"), lambda m: {"model": m, "prompt": "Hi"}, whole("choices")
    ),
    "anthropic_messages stream": Client(
        at("/v1/messages"), lambda m: chat(m, max_tokens=9, stream=True), decoded(ANTHROPIC_MESSAGES)
    ),
    "anthropic_messages whole": Client(at("/v1/messages"), lambda m: chat(m, max_tokens=9), whole("content")),
    "gemini stream": Client(
        at("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
        lambda m: {"contents": CONTENTS},
        decoded(GEMINI),
    ),
    "gemini array": Client(
        at("/v1beta/models/{model}:streamGenerateContent"), lambda m: {"contents": CONTENTS}, array
    ),
    "gemini whole": Client(
        at("/v1beta/models/{model}:generateContent"), lambda m: {"contents": CONTENTS}, whole("candidates")
    ),
    "ollama stream": Client(at("/api/chat"), chat, decoded(OLLAMA)),
    "ollama whole": Client(at("/api/chat"), lambda model: chat(model, stream=False), whole("message")),
    "ollama generate": Client(at("/api/generate"), lambda m: {"model": m, "prompt": "Hi"}, decoded(OLLAMA)),
    "ai_sdk": Client(
        at("/ui/chat"), lambda m: {"id": m.replace("/", "-"), "model": m, "messages": UI_TURNS}, ui
    ),
    "native": Client(at("/v1/streams"), lambda m: {"request": chat(m)}, native),
    "native lines": Client(at("/v1/streams"), lambda m: {"request": chat(m)}, lines),
    "native text": Client(at("/v1/streams"), lambda m: {"request": chat(m)}, plain),
}
ACCEPTED = {"native lines": "application/x-ndjson", "native text": "text/plain"}


def cases(provider: str) -> list[tuple[str, str]]:
    """Return which client is to see which ending of a provider."""
    first = [*PROVIDERS].index(provider)
    table = ((m + n, name, ending) for m, ending in enumerate(ENDINGS) for n, name in enumerate(CLIENTS))
    return [
        (name, ending)
        for number, name, ending in table
        if possible(provider, ending) and (first + number) % EVERY == 0
    ]


def model(provider: str, ending: str) -> str:
    return f"{provider}-{ending.replace(' ', '_')}"


def settings(provider: str, port: int) -> Any:
    told = PROVIDERS[provider]
    endings = [ending for ending in ENDINGS if possible(provider, ending)]
    return config(
        providers={
            model(provider, ending): {
                "kind": told.kind,
                "base_url": f"http://127.0.0.1:{port}/{provider}/{ending.replace(' ', '_')}",
                "api_key": "k",
                "list_models": False,
                **told.settings,
            }
            for ending in endings
        },
        models={
            model(provider, ending): {
                "targets": [{"provider": model(provider, ending), "model": "m"}],
                **({"timers": QUICK} if ending == "silence" else {}),
            }
            for ending in endings
        },
        retry={"tries": 1, "tries_in_all": 1},
        breaker={"failures": 100_000, "share": 1.0},
        discover=False,
    )


async def ask(client: httpx.AsyncClient, name: str, model: str) -> Got:
    kind = CLIENTS[name]
    headers = {"accept": ACCEPTED[name]} if name in ACCEPTED else {}
    body, cut = b"", False
    async with client.stream("POST", kind.path(model), json=kind.ask(model), headers=headers) as response:
        try:
            async for piece in response.aiter_raw():
                body += piece
        except httpx.RemoteProtocolError:
            cut = True
    return Got(response.status_code, body, cut)


def error_of(name: str, answer: Any) -> str:
    """Return the message of an error response, which must have its dialect's form."""
    if isinstance(answer, list):
        (answer,) = answer
    error = answer["error"]
    if name.startswith("ollama"):
        return error
    if name.startswith("anthropic"):
        assert answer["type"] == "error"
        assert error["type"]
    elif name.startswith("gemini"):
        assert error["code"] >= 400
        assert error["status"]
    else:
        assert error["type"]
        assert error["code"]
    return error["message"]


def judge(provider: str, name: str, ending: str, got: Got) -> None:
    told = CLIENTS[name].read(got) if got.status == 200 else Told(False, error_of(name, got.json))
    if ending == "whole":
        assert told == Told(True)
        assert not got.cut
        return
    assert not told.whole
    if name != "native text":
        assert told.error
        if ending in SPOKEN:
            assert SAID in told.error
            assert not provider.startswith("openai") or CODE in got.body.decode().lower()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_no_client_takes_a_bad_end_for_an_answer(provider):
    async with ending_badly() as port:
        made = settings(provider, port)
        system = await asyncio.to_thread(assemble, made, {})
        turn = asyncio.Semaphore(AT_ONCE)
        async with running(system, made) as gateway:

            async def one(name: str, ending: str) -> str:
                async with turn:
                    got = await ask(gateway.client, name, model(provider, ending))
                try:
                    judge(provider, name, ending, got)
                except (AssertionError, KeyError, ValueError, TypeError) as wrong:
                    return f"{name}, {ending}: {type(wrong).__name__} {got} {str(wrong)[:200]}"
                return ""

            wrong = [text for text in await asyncio.gather(*(one(*case) for case in cases(provider))) if text]
    assert not wrong, "\n".join(wrong)
