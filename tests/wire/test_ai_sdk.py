"""The AI SDK's chunks and its requests, over the shared vectors and over what nobody thought of."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import ClientError, GatewayError
from penstock.types.events import (
    AnyEvent,
    Closed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    encode_line,
)
from penstock.wire.ai_sdk import AI_SDK, DONE, UIMessageEncoder, fold
from penstock.wire.ai_sdk_requests import NAME, Asked, read_request
from penstock.wire.dialect import Answer, Face, Frame
from penstock.wire.openai_chat import OPENAI_CHAT
from tests.vectors import Vector, each_vector
from tests.wire.decoding import expected

STREAM = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
ANSWER = Answer(STREAM, 1790000001, "asked")


def frames(events: list[AnyEvent], message: str = "") -> list[Frame]:
    encoder = UIMessageEncoder(ANSWER, message)
    return [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]


def chunks(events: list[AnyEvent]) -> list[Any]:
    return [json.loads(data) for _, data in frames(events) if data != b"[DONE]"]


def asked(body: Any, model: str = "") -> Asked:
    return read_request(json.dumps(body).encode(), model)


def user(*parts: Any) -> dict[str, Any]:
    return {"id": "u", "role": "user", "parts": list(parts)}


HELLO = {"id": "c", "model": "m", "messages": [user({"type": "text", "text": "Hello"})]}


def test_it_is_a_dialect_of_clients():
    dialect: Face = AI_SDK
    assert dialect.name == NAME == "ai_sdk"


# --- the encoder -------------------------------------------------------------------------------------


@each_vector("ai_sdk/encoded")
def test_events_become_these_chunks(vector: Vector):
    events = expected(vector)
    assert chunks(events) == vector.content["chunks"]
    assert frames(events)[-1] == DONE


@each_vector("ai_sdk/encoded")
def test_the_whole_message_has_the_same_parts(vector: Vector):
    message = fold(ANSWER, expected(vector))
    assert message["parts"] == vector.content["parts"]
    assert message["id"] == "msg_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert json.loads(AI_SDK.render_answer(ANSWER, expected(vector))) == message


def test_a_stream_opens_with_the_names_of_its_message_and_of_itself():
    opening = [json.loads(data) for _, data in UIMessageEncoder(ANSWER).opening()]
    named = {"messageId": "msg_0001ARZ3NDEKTSV4RRFFQ69G5FAV", "messageMetadata": {"stream": STREAM}}
    assert opening == [{"type": "start", **named}, {"type": "start-step"}]


def test_an_answer_that_goes_on_with_a_message_has_its_name():
    start, _ = UIMessageEncoder(ANSWER, "a1").opening()
    assert json.loads(start[1])["messageId"] == "a1"
    assert fold(ANSWER, [], "a1")["id"] == "a1"


deltas = st.one_of(
    st.builds(TextDelta, st.text(max_size=5), st.integers(0, 1), st.integers(0, 1)),
    st.builds(ReasoningDelta, st.text(max_size=5), part=st.integers(0, 1)),
    st.builds(RefusalDelta, st.text(max_size=5)),
    st.builds(
        ToolCallDelta,
        st.integers(0, 2),
        st.sampled_from(("", "{", '"a":1', "}", "[]", "x")),
        st.sampled_from(("", "c")),
        st.sampled_from(("", "f")),
        kind=st.sampled_from(("function", "custom")),
    ),
    st.builds(Started, st.sampled_from(("", "m"))),
    st.builds(Finished, st.sampled_from(("stop", "tool_calls"))),
)


@given(st.lists(deltas, max_size=12), st.sampled_from(("completed", "failed", "cancelled")))
def test_parts_are_opened_before_they_go_on_and_closed_before_the_end(events, status):
    found = chunks([*events, Closed(status)])
    texts: set[str] = set()
    calls: dict[str, str] = {}
    for chunk in found:
        kind, _, what = chunk["type"].rpartition("-")
        if kind in ("text", "reasoning"):
            if what == "start":
                assert not texts
                texts.add(chunk["id"])
            else:
                assert texts == {chunk["id"]}
                texts -= {chunk["id"]} if what == "end" else set()
        elif kind == "tool-input":
            if what == "start":
                calls[chunk["toolCallId"]] = ""
            elif what == "delta":
                calls[chunk["toolCallId"]] += chunk["inputTextDelta"]
            else:
                assert chunk["toolCallId"] in calls
    assert not texts
    said = "".join(event.delta for event in events if type(event) is TextDelta and event.index == 0)
    refused = "".join(event.delta for event in events if type(event) is RefusalDelta)
    if not refused:
        assert "".join(chunk["delta"] for chunk in found if chunk["type"] == "text-delta") == said
    assert found[-1]["type"] == {"completed": "finish", "failed": "error", "cancelled": "abort"}[status]


@given(st.lists(deltas, max_size=12))
def test_a_rendering_can_be_taken_up_anywhere(events):
    whole = frames([*events, Closed("completed")])
    assert frames([*events, Closed("completed")]) == whole


def test_no_chunk_is_cut_in_two_by_readers_that_split_lines_in_the_unicode_manner():
    for _, data in frames([TextDelta("a\u2028b"), TextDelta("\u0085"), Closed("failed", message="\u2029")]):
        assert len(data.decode().splitlines()) == 1


def test_errors_are_the_gateways_own():
    error = json.loads(AI_SDK.render_error(GatewayError("Come back.", code="overloaded")))["error"]
    assert (error["message"], error["code"]) == ("Come back.", "overloaded")


# --- requests ----------------------------------------------------------------------------------------


@each_vector("ai_sdk/requests")
def test_a_provider_gets_this(vector: Vector):
    found = asked(vector.content["request"])
    body = json.loads(OPENAI_CHAT.render_request(found.request, "m"))
    assert body == vector.content["body"]
    assert found.message == vector.content.get("message", "")
    assert found.chat == vector.content["request"]["id"]


def test_thoughts_are_handed_on_to_whoever_takes_them():
    turn = {
        "role": "assistant",
        "parts": [{"type": "reasoning", "text": "Hm"}, {"type": "text", "text": "A"}],
    }
    found = asked({**HELLO, "messages": [*HELLO["messages"], turn]})
    assert found.request.messages[-1].extra == {"reasoning_content": "Hm"}


def test_the_model_of_whoever_names_none_is_given():
    assert asked({"messages": HELLO["messages"]}, "demo").request.model == "demo"
    assert asked(HELLO, "demo").request.model == "m"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": None}, "invalid_type", "messages"),
        ({"messages": [user()]}, "invalid_value", "messages"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].parts"),
        ({"messages": [{"role": "tool", "parts": []}]}, "invalid_value", "messages[0].role"),
        ({"messages": [user({"text": "x"})]}, "missing_required_parameter", "messages[0].parts[0].type"),
        ({"messages": [user({"type": "text"})]}, "missing_required_parameter", "messages[0].parts[0].text"),
        (
            {"messages": [user({"type": "file", "mediaType": "image/png", "url": "data:,x"})]},
            "invalid_value",
            "messages[0].parts[0].url",
        ),
        ({"id": "x" * 256}, "invalid_value", "id"),
        ({"id": "a\nb"}, "invalid_value", "id"),
        ({"toolChoice": "whatever"}, "invalid_value", "toolChoice"),
        ({"tools": {"f": {"inputSchema": 1}}}, "invalid_type", "tools.f.inputSchema"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
    ],
)
def test_what_is_wrong_is_named(change, code, param):
    with pytest.raises(ClientError) as refusal:
        asked({**HELLO, **change})
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, code, param)


parts = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            (
                "text",
                "file",
                "step-start",
                "tool-f",
                "dynamic-tool",
                "data-x",
                "reasoning",
                "steering-message",
            )
        ),
        "text": st.text(max_size=3),
        "state": st.sampled_from(("output-available", "output-error", "input-available", "x")),
        "toolCallId": st.text(max_size=3),
        "toolName": st.text(max_size=3),
        "input": st.one_of(
            st.none(), st.text(max_size=3), st.dictionaries(st.text(max_size=2), st.integers())
        ),
        "output": st.one_of(st.none(), st.booleans(), st.lists(st.integers(), max_size=2)),
        "url": st.sampled_from(("https://a.example", "data:image/png;base64,AA==", "data:x")),
        "mediaType": st.sampled_from(("image", "image/png", "text/plain")),
        "parts": st.one_of(st.none(), st.lists(st.none())),
    },
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(("system", "user", "assistant")), "parts": st.lists(parts, max_size=4)}
        ),
        max_size=3,
    )
)
def test_any_conversation_is_read_or_refused(messages):
    found = None
    with contextlib.suppress(ClientError):
        found = asked({"model": "m", "messages": messages})
    if found is not None:
        answered = {call.id for message in found.request.messages for call in message.tool_calls}
        assert answered == {m.tool_call_id for m in found.request.messages if m.role == "tool"}
        OPENAI_CHAT.render_request(found.request, "m")
