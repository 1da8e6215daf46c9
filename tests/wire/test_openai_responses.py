"""OpenAI Responses, both ways, over the shared vectors and over what nobody thought of."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response as SdkResponse
from openai.types.responses import ResponseStreamEvent

from penstock.types.errors import ClientError, UpstreamError
from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
    Finished,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    encode_line,
)
from penstock.types.requests import Message
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.dialect import Answer, Dialect, Frame
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_responses import OPENAI_RESPONSES, ResponsesEncoder, fold
from penstock.wire.openai_responses_requests import NAME, parse_request, read_request, render_request
from tests.vectors import Vector, each_vector, load
from tests.wire.decoding import check, check_distorted, expected, run

STREAM = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
ANSWER = Answer(STREAM, 1790000001, "asked")
COMPLETED = Closed("completed")

whole = [vector for vector in load("openai_responses") if "error" not in vector.content]
each_whole = pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)


def frames(events: list[AnyEvent], after: int = -1) -> list[Frame]:
    encoder = ResponsesEncoder(ANSWER, {}, after)
    rest = [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]
    return [*encoder.opening(), *rest]


def steps(events: list[AnyEvent], after: int = -1) -> list[Any]:
    return [json.loads(data) for _, data in frames(events, after)]


def body(found: list[Frame]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % frame for frame in found)


def accumulated(events: list[AnyEvent]) -> Any:
    """What OpenAI's SDK makes of the stream."""
    state = ResponseStreamState(input_tools=[], text_format=omit)
    seen = [
        e
        for step in steps(events)
        for e in state.handle_event(construct_type(type_=ResponseStreamEvent, value=step))
    ]
    return seen[-1]


def asked(request: dict[str, Any]) -> Any:
    return parse_request(json.dumps(request).encode())


def rendered(request: Any, model: str = "gpt") -> Any:
    return json.loads(render_request(request, model))


# --- the decoder -------------------------------------------------------------------------------------


def test_it_is_a_dialect():
    dialect: Dialect = OPENAI_RESPONSES
    assert dialect.name == NAME == "openai_responses"


@each_vector("openai_responses")
def test_vector(vector: Vector):
    check(vector, OPENAI_RESPONSES.decoder)


@each_vector("openai_responses")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, OPENAI_RESPONSES.decoder)


# --- the encoder -------------------------------------------------------------------------------------


@each_vector("openai_responses/encoded")
def test_events_become_these_steps(vector: Vector):
    found = steps(expected(vector))
    assert [step["sequence_number"] for step in found] == [*range(len(found))]
    assert [s["type"] for s in found[:2]] == ["response.created", "response.in_progress"]
    told = [{k: v for k, v in step.items() if k != "sequence_number"} for step in found[2:-1]]
    assert told == vector.content["steps"]
    last = found[-1]
    assert last["type"] == vector.content["end"]["type"]
    assert {k: last["response"][k] for k in vector.content["end"]["response"]} == vector.content["end"][
        "response"
    ]


@each_vector("openai_responses/encoded")
def test_each_frame_is_named_by_its_type_and_is_one_line(vector: Vector):
    for name, data in frames(expected(vector)):
        assert json.loads(data)["type"] == name.decode()
        assert len(data.decode().splitlines()) == 1


def test_line_ends_of_unicode_are_escaped_in_every_frame():
    strange = "a\u2028b\u0085c"
    events = [Started(), TextDelta(strange), TextDelta(strange), ReasoningDelta(strange), COMPLETED]
    assert all(len(data.decode().splitlines()) == 1 for _, data in frames(events))


@each_whole
def test_encoded_events_decode_to_themselves(vector: Vector):
    events = expected(vector)
    again = run(OPENAI_RESPONSES.decoder(), [body(frames([*events, COMPLETED]))])
    assert again.error is None
    assert normal(again.events) == normal(events)


def normal(events: list[AnyEvent]) -> list[AnyEvent]:
    """What a round trip may change: the response's id, what it repeats, and places in the output."""
    kept: list[AnyEvent] = []
    for event in events:
        match event:
            case Started():
                event = msgspec.structs.replace(event, id="", created=0, extra=None)
            case UsageReported() | Finished():
                event = msgspec.structs.replace(event, extra=None)
            case Opaque(data=data):
                event = msgspec.structs.replace(event, data={**data, "output_index": 0})
        kept.append(event)
    return kept


def test_what_only_openai_says_survives_the_round_trip():
    extra = {"response": {"service_tier": "flex", "billing": {"payer": "x"}}}
    usage = UsageReported(10, 2, 3, 1, 1, extra={"response_usage": {"input_tokens_details": {"new": 4}}})
    *_, end = steps([Started("m", extra=extra), TextDelta("A"), Finished("stop"), usage, COMPLETED])
    assert (end["response"]["service_tier"], end["response"]["billing"]) == ("flex", {"payer": "x"})
    assert end["response"]["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1, "new": 4},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 12,
    }


@each_whole
@pytest.mark.parametrize("cut", range(0, 30, 3))
def test_a_reader_that_goes_on_after_a_number_gets_the_rest_of_the_same(vector: Vector, cut: int):
    events = [*expected(vector), COMPLETED]
    assert frames(events, cut) == frames(events)[cut + 1 :]


@each_whole
def test_the_sdk_accumulates_the_stream_to_the_answer(vector: Vector):
    events = [*expected(vector), COMPLETED]
    end = accumulated(events)
    answer = json.loads(OPENAI_RESPONSES.render_answer(ANSWER, events))
    assert end.type == f"response.{answer['status']}"
    for item in (told := end.response.to_dict())["output"]:
        for part in item.get("content", ()):
            part.pop("parsed", None)  # of the SDK's own
        item.pop("parsed_arguments", None)
    assert told == SdkResponse.construct(**answer).to_dict()
    assert end.response.output_text == SdkResponse.construct(**answer).output_text


def test_an_answer_so_far_says_that_it_is_in_progress():
    found = fold(ANSWER, [Started("m"), TextDelta("A")], {"temperature": 0.5})
    assert (found["status"], found["temperature"], found["model"]) == ("in_progress", 0.5, "m")
    assert found["output"][0]["status"] == "in_progress"
    assert found["output"][0]["content"][0]["text"] == "A"


@pytest.mark.parametrize(
    ("closed", "status"),
    [
        (Closed("failed", "upstream_reset", "Lost."), "failed"),
        (Closed("interrupted", "gateway_restarted", "Stopped."), "failed"),
        (Closed("cancelled", "cancelled", "Stopped."), "cancelled"),
    ],
)
def test_an_answer_that_broke_off_is_no_success(closed: Closed, status: str):
    *_, end = steps([Started("m"), TextDelta("A"), closed])
    assert (end["type"], end["response"]["status"]) == ("response.failed", status)
    assert end["response"]["error"] == {"code": closed.code, "message": closed.message}
    assert end["response"]["output"][0]["content"][0]["text"] == "A"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
pieces = st.sampled_from(['{"', 'a"', ":", "1", "}", '{"a":1}', "\\", '\\"', "", "[", "]", '"'])
any_event: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Started, texts),
    st.builds(TextDelta, texts, st.integers(0, 1), st.integers(0, 2)),
    st.builds(ReasoningDelta, texts, part=st.integers(0, 1), summary=st.booleans(), encrypted=texts),
    st.builds(RefusalDelta, texts),
    st.builds(
        ToolCallDelta, st.integers(0, 2), pieces, texts, texts, kind=st.sampled_from(["function", "custom"])
    ),
    st.builds(
        Annotation,
        st.just({"type": "url_citation", "url_citation": {"url": "u"}}),
        st.sampled_from([NAME, "openai_chat", "other"]),
        part=st.integers(0, 1),
    ),
    st.builds(UsageReported, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls"]), st.integers(0, 1), texts, texts),
    st.builds(
        Opaque,
        st.sampled_from([NAME, "other"]),
        st.builds(
            lambda kind, index: {
                "type": kind,
                "output_index": index,
                "item": {"type": "x", "id": str(index)},
            },
            st.sampled_from(
                ["response.output_item.added", "response.output_item.done", "response.x.y", "new"]
            ),
            st.integers(0, 2),
        ),
    ),
)


@given(st.lists(any_event, max_size=14), st.sampled_from(["completed", "failed", "cancelled"]))
def test_whatever_is_in_the_log_the_order_is_what_clients_want(events: list[AnyEvent], status: Any):
    found = steps([*events, Closed(status)])
    assert [step["sequence_number"] for step in found] == [*range(len(found))]
    opened: dict[int, Any] = {}
    done: dict[int, Any] = {}
    for step in found[2:-1]:
        match step:
            case {"type": "response.output_item.added", "output_index": at, "item": item}:
                assert at == len(opened)
                opened[at] = item
            case {"type": "response.output_item.done", "output_index": at, "item": item}:
                assert item["id"] == opened[at]["id"]
                assert at not in done
                done[at] = item
            case {"item_id": id_, "output_index": at}:
                assert opened[at]["id"] == id_
                assert at not in done
    end = found[-1]["response"]
    assert len(end["output"]) == len(opened)
    if status == "completed":
        assert end["status"] in ("completed", "incomplete")
        assert [done[at] for at in range(len(opened))] == end["output"]
        state = ResponseStreamState(input_tools=[], text_format=omit)
        for step in found:
            if not any(item["type"] == "x" for item in end["output"]):
                state.handle_event(construct_type(type_=ResponseStreamEvent, value=step))
    else:
        assert found[-1]["type"] == "response.failed"


# --- requests ----------------------------------------------------------------------------------------


@each_vector("openai_responses/requests")
def test_a_request_reaches_openai_as_it_came(vector: Vector):
    request = vector.content["request"]
    assert rendered(asked(request)) == {**request, "model": "gpt", "stream": True}


@each_vector("openai_responses/requests")
def test_a_request_survives_storage(vector: Vector):
    request = asked(vector.content["request"])
    stored = msgspec.json.decode(msgspec.json.encode(request), type=type(request))
    assert rendered(stored) == rendered(request)


@each_vector("openai_responses/to_openai_chat")
def test_a_request_is_told_to_openai_chat_like_this(vector: Vector):
    told = json.loads(OPENAI_CHAT.render_request(asked(vector.content["request"]), "gpt"))
    assert told == vector.content["body"]


@each_vector("openai_responses/from_openai_chat")
def test_an_openai_chat_request_is_told_to_openai_like_this(vector: Vector):
    request = OPENAI_CHAT.parse_request(json.dumps(vector.content["request"]).encode())
    assert rendered(request) == vector.content["body"]


def test_what_goes_on_from_an_earlier_response_is_read_with_its_items():
    sent = {"model": "m", "input": "And?", "previous_response_id": "resp_1"}
    found = read_request(json.dumps(sent).encode())
    assert found.previous == "resp_1"
    items = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}, *found.items]
    assert [(m.role, m.content) for m in found.request(items).messages] == [
        ("user", "Hi"),
        ("assistant", "Yes."),
        ("user", "And?"),
    ]
    with pytest.raises(ClientError) as caught:
        asked(sent)
    assert caught.value.param == "previous_response_id"


def test_thoughts_of_earlier_turns_stand_where_other_providers_look_for_them():
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "1"}
    said = {"role": "user", "content": "Hi"}
    turn = asked({"model": "m", "input": [said, thought, call, result]}).messages[1]
    assert (turn.role, turn.content, turn.tool_calls[0].name) == ("assistant", None, "f")
    assert turn.extra["reasoning_content"] == "Hm."


def test_a_message_that_was_added_here_is_sent_along():
    request = asked({"model": "m", "input": "Hi"})
    added = msgspec.structs.replace(request, messages=(Message("system", "Be kind."), *request.messages))
    assert rendered(added)["input"] == [
        {"type": "message", "role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": 7}, "input"),
        ({"model": "m", "input": [{"content": "x"}]}, "input[0].role"),
        ({"model": "m", "input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"model": "m", "input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        (
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].image_url",
        ),
        (
            {"model": "m", "input": [{"type": "function_call", "name": "f", "arguments": ""}]},
            "input[0].call_id",
        ),
        ({"model": "m", "input": [{"type": 3}]}, "input[0].type"),
        ({"model": "m", "input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"model": "m", "input": "x", "tools": [{"name": "f"}]}, "tools[0].type"),
        ({"model": "m", "input": "x", "text": {"format": {"type": "xml"}}}, "text.format"),
        ({"model": "m", "input": "x", "top_logprobs": 21}, "top_logprobs"),
        ({"model": "m", "input": "x", "background": True, "store": False}, "store"),
        ({"model": "m", "input": "x", "conversation": "conv_1"}, "conversation"),
    ],
)
def test_a_bad_request_says_which_field_is_bad(request_: dict[str, Any], param: str):
    with pytest.raises(ClientError) as caught:
        asked(request_)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"seed": 1}, "seed"),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0]"),
    ],
)
def test_what_responses_cannot_do_is_refused(more: dict[str, Any], param: str):
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
    with pytest.raises(ClientError) as caught:
        rendered(OPENAI_CHAT.parse_request(json.dumps(request).encode()))
    assert caught.value.param == param


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = ["message", "function_call", "function_call_output", "reasoning", "web_search_call", "item_reference"]
strange_items = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([*names, "custom_tool_call", "computer_call_output"]) | json_values,
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": texts | json_values,
        "call_id": texts,
        "name": texts,
        "arguments": texts,
        "output": json_values,
        "summary": json_values,
    },
)
strange_requests = st.fixed_dictionaries(
    {"model": st.just("m"), "input": st.lists(strange_items, min_size=1, max_size=4) | texts},
    optional=dict.fromkeys(("tools", "text", "reasoning", "tool_choice", "include", "x"), json_values),
)


@given(strange_requests)
def test_whatever_a_client_sends_is_handed_on_or_refused(sent: dict[str, Any]):
    try:
        request = asked(sent)
    except ClientError:
        return
    assert rendered(request)["input"] == (
        sent["input"] if isinstance(sent["input"], list) else [{"role": "user", "content": sent["input"]}]
    )
    for render in (OPENAI_CHAT.render_request, ANTHROPIC_MESSAGES.render_request):
        with contextlib.suppress(ClientError):
            render(request, "other")


# --- errors ------------------------------------------------------------------------------------------


def test_errors_have_openais_shape():
    told = json.loads(OPENAI_RESPONSES.render_error(ClientError("x", param="input")))
    assert told == {
        "error": {
            "message": "x",
            "type": "invalid_request_error",
            "param": "input",
            "code": "invalid_request",
        }
    }


def test_an_error_of_openais_is_read():
    sent = b'{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}'
    error = OPENAI_RESPONSES.parse_error(429, {"retry-after": "3"}, sent)
    assert isinstance(error, UpstreamError)
    assert (error.code, error.status, error.retry_after) == ("rate_limit_exceeded", 429, 3.0)
