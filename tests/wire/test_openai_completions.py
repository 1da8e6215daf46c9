"""Legacy Completions towards clients, over the shared vectors and over what nobody thought of."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from penstock.types.errors import ClientError
from penstock.types.events import (
    AnyEvent,
    Closed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    encode_line,
)
from penstock.types.requests import Message
from penstock.wire.dialect import Answer, Face
from penstock.wire.openai_completions import NAME, OPENAI_COMPLETIONS, parse_request
from tests.vectors import Vector, each_vector
from tests.wire.decoding import expected

ANSWER = Answer("s_0001ARZ3NDEKTSV4RRFFQ69G5FAV", 1790000001, "asked", True)
COMPLETED = Closed("completed")


def chunks(events: list[AnyEvent], answer: Answer = ANSWER) -> list[Any]:
    encoder = OPENAI_COMPLETIONS.encoder(answer)
    frames = [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]
    assert all(not name and len(data.decode().splitlines()) == 1 for name, data in frames)
    return [json.loads(data) if data != b"[DONE]" else data.decode() for _, data in frames]


def folded(events: list[AnyEvent]) -> Any:
    return json.loads(OPENAI_COMPLETIONS.render_answer(ANSWER, events))


def asked(request: dict[str, Any]) -> Any:
    return parse_request(json.dumps(request).encode())


def test_it_is_a_face():
    face: Face = OPENAI_COMPLETIONS
    assert face.name == NAME == "openai_completions"


@each_vector("openai_completions/encoded")
def test_events_become_these_chunks(vector: Vector):
    told = chunks(expected(vector))
    for chunk in told:
        if isinstance(chunk, dict) and "error" not in chunk:
            assert chunk.pop("id") == "cmpl-0001ARZ3NDEKTSV4RRFFQ69G5FAV"
            assert (chunk.pop("object"), chunk.pop("created"), chunk.pop("model")) == (
                "text_completion",
                1790000001,
                "m",
            )
    assert told == vector.content["chunks"]


@each_vector("openai_completions/encoded")
def test_the_sdk_reads_the_same_from_chunks_and_from_the_whole(vector: Vector):
    events = expected(vector)
    if events[-1] != COMPLETED:
        return
    said: dict[int, str] = {}
    for chunk in chunks(events)[:-1]:
        for choice in Completion.construct(**chunk).choices:
            said[choice.index] = said.get(choice.index, "") + choice.text
    assert said == {choice["index"]: choice["text"] for choice in folded(events)["choices"]}


def test_usage_comes_to_those_who_asked():
    events = [Started("m"), TextDelta("A"), Finished("stop"), UsageReported(1, 2), COMPLETED]
    assert chunks(events)[-2]["usage"]["total_tokens"] == 3
    assert all("usage" not in chunk for chunk in chunks(events, ANSWER._replace(include_usage=False))[:-1])


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
probable = st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"token": texts, "logprob": st.just(-1.0)}), max_size=2)}
)
any_event: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Started, texts),
    st.builds(TextDelta, texts, st.integers(0, 1), logprobs=st.none() | probable),
    st.builds(ReasoningDelta, texts),
    st.builds(RefusalDelta, texts),
    st.builds(ToolCallDelta, st.integers(0, 2), texts, texts, texts),
    st.builds(UsageReported, st.integers(0, 9), st.integers(0, 9)),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls"]), st.integers(0, 1), texts, texts),
)


@given(st.lists(any_event, max_size=14), st.sampled_from(["completed", "failed", "cancelled"]))
def test_whatever_is_in_the_log_the_end_is_told_once_and_last(events: list[AnyEvent], status: Any):
    told = chunks([*events, Closed(status)])
    assert told.count("[DONE]") == (status == "completed")
    assert (told[-1] == "[DONE]") if status == "completed" else ("error" in told[-1])
    finished = [
        c["index"]
        for chunk in told
        if isinstance(chunk, dict)
        for c in chunk.get("choices", ())
        if c["finish_reason"]
    ]
    assert len(finished) == len(set(finished))
    folded([*events, COMPLETED])


def test_a_prompt_is_what_a_user_says():
    told = asked(
        {
            "model": "m",
            "prompt": ["Hi"],
            "max_tokens": 5,
            "stop": "x",
            "logprobs": 2,
            "n": 2,
            "best_of": 2,
            "x": 1,
        }
    )
    assert told.messages == (Message("user", "Hi"),)
    assert (told.max_output_tokens, told.stop, told.logprobs, told.top_logprobs, told.n) == (
        5,
        ("x",),
        True,
        2,
        2,
    )
    assert told.extra == {"x": 1}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"model": "m"}, "prompt"),
        ({"model": "m", "prompt": ""}, "prompt"),
        ({"model": "m", "prompt": ["a", "b"]}, "prompt"),
        ({"model": "m", "prompt": [1, 2]}, "prompt"),
        ({"prompt": "x"}, "model"),
        ({"model": "m", "prompt": "x", "echo": True}, "echo"),
        ({"model": "m", "prompt": "x", "suffix": "y"}, "suffix"),
        ({"model": "m", "prompt": "x", "best_of": 3}, "best_of"),
        ({"model": "m", "prompt": "x", "n": 0}, "n"),
        ({"model": "m", "prompt": "x", "logprobs": 9}, "logprobs"),
    ],
)
def test_a_bad_request_says_which_field_is_bad(request_: dict[str, Any], param: str):
    with pytest.raises(ClientError) as caught:
        asked(request_)
    assert (caught.value.status, caught.value.param) == (400, param)
