"""Ollama towards its clients, over the shared vectors and over what nobody thought of."""

import contextlib
import json
from typing import Any

import msgspec
import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import ClientError
from penstock.types.events import (
    AnyEvent,
    Closed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    Timing,
    ToolCallDelta,
    UsageReported,
    encode_line,
)
from penstock.wire.dialect import Answer, Dialect
from penstock.wire.ollama_asked import only_loads, parse_request, shows_thoughts
from penstock.wire.ollama_clients import OLLAMA, OllamaEncoder, fold, loaded
from penstock.wire.ollama_requests import NAME, Preferences, render_request
from penstock.wire.openai_chat import OPENAI_CHAT
from tests.vectors import Vector, each_vector, load
from tests.wire.decoding import expected, run

STREAM = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
ANSWER = Answer(STREAM, 1790000001, "asked")
COMPLETED = Closed("completed")

whole = [vector for vector in load("ollama") if "error" not in vector.content]
each_whole = pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)


def lines(events: list[AnyEvent], api: Any = "chat", **how: bool) -> list[Any]:
    encoder = OllamaEncoder(ANSWER, api, **how)
    frames = [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]
    assert all(not name and b"\n" not in data for name, data in frames)
    return [json.loads(data) for _, data in frames]


def asked(request: dict[str, Any], api: Any = "chat") -> Any:
    return parse_request(json.dumps(request).encode(), api)


def test_it_is_a_dialect():
    dialect: Dialect = OLLAMA
    assert dialect.name == NAME == "ollama"


# --- the encoder -------------------------------------------------------------------------------------


@each_vector("ollama/encoded")
def test_events_become_these_lines(vector: Vector):
    told = lines(expected(vector), vector.content.get("api", "chat"))
    for line in told:
        assert line.get("created_at", "2026-09-21T14:13:21Z") == "2026-09-21T14:13:21Z"
        line.pop("created_at", None)
    assert told == vector.content["lines"]


@each_whole
def test_encoded_events_decode_to_themselves(vector: Vector):
    events = expected(vector)
    sent = b"".join(json.dumps(line).encode() + b"\n" for line in lines([*events, COMPLETED]))
    again = run(OLLAMA.decoder(), [sent])
    assert again.error is None
    assert normal(again.events) == normal(events)


def normal(events: list[AnyEvent]) -> list[AnyEvent]:
    """What a round trip may change: when it was, where unknown facts of lines stand, and white space."""
    kept: list[AnyEvent] = []
    for event in events:
        if type(event) is Started:
            event = msgspec.structs.replace(event, created=0, model="", extra=None)
        elif type(event) is Finished:
            raw = event.raw if event.raw in ("load", "unload") else ""
            event = msgspec.structs.replace(event, extra=None, raw=raw)
        elif type(event) is UsageReported:
            pass
        elif type(event) is ToolCallDelta:
            event = msgspec.structs.replace(event, delta=json.dumps(json.loads(event.delta)))
        elif getattr(event, "extra", None):
            left = {k: v for k, v in event.extra.items() if k != "line"}
            event = msgspec.structs.replace(event, extra=left or None)
        if type(event).__name__ == "Opaque":
            continue
        kept.append(event)
    return kept


@each_whole
@pytest.mark.parametrize("api", ["chat", "generate"])
def test_ollamas_client_puts_the_same_answer_together(vector: Vector, api: Any):
    events = [*expected(vector), COMPLETED]
    kind = ollama.ChatResponse if api == "chat" else ollama.GenerateResponse
    told = [kind(**line) for line in lines(events, api)]
    one = kind(**fold(ANSWER, events, api))

    def text(line: Any) -> str:
        return (line.message.content if api == "chat" else line.response) or ""

    assert "".join(map(text, told)) == text(one)
    assert [line.done for line in told] == [*[False] * (len(told) - 1), True]
    assert (told[-1].done_reason, told[-1].eval_count) == (one.done_reason, one.eval_count)


def test_durations_are_told_where_the_provider_gives_none():
    timing = Timing(100.0, 300.0, 5.0, 10.0, 20.0, 70.0)
    *_, last = lines([Started("m"), TextDelta("A"), Finished("stop"), Closed("completed", timing=timing)])
    assert (last["total_duration"], last["load_duration"]) == (300_000_000, 30_000_000)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (70_000_000, 200_000_000)


def test_silence_is_bridged_by_a_line_that_adds_nothing():
    beat = OllamaEncoder(ANSWER).heartbeat()
    assert beat.endswith(b"\n")
    line = ollama.ChatResponse(**json.loads(beat))
    assert (line.message.content, line.done) == ("", False)
    assert ollama.GenerateResponse(**json.loads(OllamaEncoder(ANSWER, "generate").heartbeat())).response == ""


def test_thoughts_can_be_declined():
    events: list[AnyEvent] = [Started("m"), ReasoningDelta("Hm"), TextDelta("A"), Finished("stop"), COMPLETED]
    assert len(lines(events)) == len(lines(events, thoughts=False)) + 1
    assert shows_thoughts(asked({"model": "m", "messages": []}))
    assert not shows_thoughts(asked({"model": "m", "messages": [], "think": False}))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
pieces = st.sampled_from(['{"', 'a"', ":", "1", "}", '{"a":1}', "\\", '\\"', "", "[", "]", '"'])
any_event: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Started, texts),
    st.builds(TextDelta, texts, st.integers(0, 1), st.integers(0, 2)),
    st.builds(ReasoningDelta, texts, part=st.integers(0, 1)),
    st.builds(RefusalDelta, texts),
    st.builds(ToolCallDelta, st.integers(0, 2), pieces, texts, texts, st.integers(0, 1)),
    st.builds(UsageReported, st.integers(0, 9), st.integers(0, 9)),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls"]), st.integers(0, 1), texts, texts),
)


@given(
    st.lists(any_event, max_size=14),
    st.sampled_from(["completed", "failed", "cancelled"]),
    st.sampled_from(["chat", "generate"]),
)
def test_whatever_is_in_the_log_the_last_line_says_how_it_ended(
    events: list[AnyEvent], status: Any, api: Any
):
    told = lines([*events, Closed(status)], api)
    assert [bool(line.get("done")) for line in told] == [*[False] * (len(told) - 1), status == "completed"]
    assert ("error" in told[-1]) == (status != "completed")
    fold(ANSWER, [*events, COMPLETED], api)


# --- requests ----------------------------------------------------------------------------------------


@each_vector("ollama/requests")
def test_a_request_reaches_an_ollama_as_it_came(vector: Vector):
    api = vector.content.get("api", "chat")
    request = asked(vector.content["request"], api)
    assert json.loads(render_request(request, "m", Preferences(api))) == {
        **vector.content["request"],
        "stream": True,
    }


@each_vector("ollama/to_openai_chat")
def test_a_request_is_told_to_openai_like_this(vector: Vector):
    request = asked(vector.content["request"], vector.content.get("api", "chat"))
    assert json.loads(OPENAI_CHAT.render_request(request, "gpt")) == vector.content["body"]


def test_it_streams_unless_it_says_otherwise():
    assert asked({"model": "m"}).stream
    assert not asked({"model": "m", "stream": False}).stream


def test_a_request_without_words_only_loads():
    assert only_loads(asked({"model": "m"}))
    assert only_loads(asked({"model": "m", "prompt": ""}, "generate"))
    assert not only_loads(asked({"model": "m", "prompt": "Hi"}, "generate"))
    assert loaded(ANSWER, "chat", unload=False)["done_reason"] == "load"
    assert loaded(ANSWER, "generate", unload=True)["done_reason"] == "unload"


@pytest.mark.parametrize(
    ("request_", "api", "param"),
    [
        ({}, "chat", "model"),
        ({"model": ""}, "chat", "model"),
        ({"model": "m", "messages": [{"role": "robot"}]}, "chat", "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "images": ["?"]}]}, "chat", "messages[0].images[0]"),
        ({"model": "m", "messages": [{"role": "user", "content": 1}]}, "chat", "messages[0].content"),
        ({"model": "m", "tools": [{"type": "x", "function": {}}]}, "chat", "tools[0].type"),
        ({"model": "m", "tools": [{"function": {}}]}, "chat", "tools[0].function.name"),
        ({"model": "m", "format": "xml"}, "chat", "format"),
        ({"model": "m", "options": {"temperature": "hot"}}, "chat", "options.temperature"),
        ({"model": "m", "prompt": "x", "context": [1]}, "generate", "context"),
    ],
)
def test_a_bad_request_says_which_field_is_bad(request_: dict[str, Any], api: Any, param: str):
    with pytest.raises(ClientError) as caught:
        asked(request_, api)
    assert (caught.value.status, caught.value.param) == (400, param)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
turn_fields = ("content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id")
strange_turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
    optional=dict.fromkeys(turn_fields, json_values | texts),
)


@given(
    st.fixed_dictionaries(
        {"model": st.just("m"), "messages": st.lists(strange_turns, max_size=4)},
        optional=dict.fromkeys(("tools", "format", "options", "think", "keep_alive"), json_values),
    )
)
def test_whatever_a_client_sends_is_handed_on_or_refused(sent: dict[str, Any]):
    with contextlib.suppress(ClientError):
        request = asked(sent)
        for render in (OLLAMA.render_request, OPENAI_CHAT.render_request):
            with contextlib.suppress(ClientError):
                render(request, "m")


def test_errors_have_ollamas_shape():
    told = json.loads(OLLAMA.render_error(ClientError("x", code="model_not_found", status=404)))
    assert told == {"error": "x", "code": "model_not_found"}
