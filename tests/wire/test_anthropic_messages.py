"""Anthropic Messages, both ways, over the shared vectors and over what nobody thought of."""

import itertools
import json
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from penstock.types.errors import ClientError, GatewayError, UpstreamError
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
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES, PING, error_status
from penstock.wire.anthropic_messages_requests import (
    NAME,
    Preferences,
    headers_of,
    parse_request,
    render_count,
    render_request,
    with_headers,
)
from penstock.wire.anthropic_models import manner
from penstock.wire.dialect import Answer, Dialect, Frame
from penstock.wire.openai_chat import OPENAI_CHAT
from tests.vectors import Vector, each_vector, load
from tests.wire.decoding import check, check_distorted, expected, run

STREAM = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
ANSWER = Answer(STREAM, 1790000001, "asked")
COMPLETED = Closed("completed")

whole = [vector for vector in load("anthropic_messages") if "error" not in vector.content]
each_whole = pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)
sdk_event = TypeAdapter(RawMessageStreamEvent)


def encode(events: list[AnyEvent]) -> list[Frame]:
    encoder = ANTHROPIC_MESSAGES.encoder(ANSWER)
    return [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]


def steps(events: list[AnyEvent]) -> list[Any]:
    return [json.loads(data) for _, data in encode(events)]


def body(frames: list[Frame]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % frame for frame in frames)


def folded(events: list[AnyEvent]) -> Any:
    return json.loads(ANTHROPIC_MESSAGES.render_answer(ANSWER, events))


def accumulated(events: list[AnyEvent]) -> Any:
    """What Anthropic's SDK makes of the stream."""
    snapshot, buffers = None, {}
    for step in steps(events):
        if step["type"] == "message_note":  # it passes over what it does not know
            continue
        event = sdk_event.validate_python(step)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


def asked(request: dict[str, Any]) -> Any:
    return parse_request(json.dumps(request).encode())


def rendered(request: Any, model: str = "claude-opus-5-5", **preferences: int) -> Any:
    return json.loads(render_request(request, model, Preferences(**preferences)))


# --- the decoder -------------------------------------------------------------------------------------


def test_it_is_a_dialect():
    dialect: Dialect = ANTHROPIC_MESSAGES
    assert dialect.name == NAME == "anthropic_messages"


@each_vector("anthropic_messages")
def test_vector(vector: Vector):
    check(vector, ANTHROPIC_MESSAGES.decoder)


@each_vector("anthropic_messages")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, ANTHROPIC_MESSAGES.decoder)


def test_an_unknown_stop_reason_reaches_anthropics_own_clients():
    sent = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"compaction"}}\n\n'
    (finish,) = run(ANTHROPIC_MESSAGES.decoder(), [sent]).events
    assert (finish.reason, finish.raw) == ("stop", "compaction")
    assert steps([finish, COMPLETED])[-2]["delta"]["stop_reason"] == "compaction"


# --- the encoder -------------------------------------------------------------------------------------


@each_vector("anthropic_messages/encoded")
def test_events_become_these_steps(vector: Vector):
    assert steps(expected(vector)) == vector.content["steps"]


@each_vector("anthropic_messages/encoded")
def test_each_frame_is_named_by_its_type_and_is_one_line(vector: Vector):
    for name, data in encode(expected(vector)):
        assert json.loads(data)["type"] == name.decode()
        assert len(data.decode().splitlines()) == 1


def test_line_ends_of_unicode_are_escaped_in_every_frame():
    strange = "a\u2028b\u0085c"
    events = [Started(), TextDelta(strange), TextDelta(strange), ReasoningDelta(strange), COMPLETED]
    assert all(len(data.decode().splitlines()) == 1 for _, data in encode(events))


@each_whole
def test_encoded_events_decode_to_themselves(vector: Vector):
    events = expected(vector)
    again = run(ANTHROPIC_MESSAGES.decoder(), [body(encode([*events, COMPLETED]))])
    assert again.error is None
    assert normal(again.events) == normal(events)


def normal(events: list[AnyEvent]) -> list[AnyEvent]:
    """What a round trip may change: the message's id, places of blocks behind one that was empty, and how
    much of a call came with its name."""
    kept: list[AnyEvent] = []
    for event in events:
        if type(event) is Started:
            event = msgspec.structs.replace(event, id="", extra=None)
        if type(event) is UsageReported:
            event = msgspec.structs.replace(event, extra=None)
        if type(event) is Opaque:
            event = msgspec.structs.replace(event, data={**event.data, "index": 0})
        last = kept[-1] if kept else None
        if type(event) is ToolCallDelta and type(last) is ToolCallDelta and event.call == last.call:
            kept[-1] = msgspec.structs.replace(last, delta=last.delta + event.delta)
        else:
            kept.append(event)
    return kept


def test_what_only_anthropic_says_survives_the_round_trip():
    extra = {
        "message": {"container": {"id": "c"}},
        "message_usage": {"cache_read_input_tokens": 3, "service_tier": "standard"},
    }
    events: list[AnyEvent] = [
        Started("m", input_tokens=10, extra=extra),
        ToolCallDelta(0, "{}", "toolu_1", "f", extra={"block": {"caller": {"type": "direct"}}}),
        Finished("content_filter", extra={"message_delta": {"stop_details": {"type": "refusal"}}}),
        UsageReported(10, 2, 3, extra={"message_usage": {"service_tier": "standard"}}),
        COMPLETED,
    ]
    start, block, _, _, delta, _ = steps(events)
    assert start["message"]["container"] == {"id": "c"}
    assert start["message"]["usage"]["input_tokens"] == 7
    assert start["message"]["usage"]["cache_read_input_tokens"] == 3
    assert block["content_block"]["caller"] == {"type": "direct"}
    assert delta["delta"]["stop_details"] == {"type": "refusal"}
    assert delta["usage"]["service_tier"] == "standard"
    again = run(ANTHROPIC_MESSAGES.decoder(), [body(encode(events))]).events
    assert again[0].extra["message"] == extra["message"]
    assert again[1].extra == events[1].extra
    assert again[-2].extra == events[2].extra


@each_whole
def test_encoding_is_a_pure_function_of_the_log(vector: Vector):
    events = [*expected(vector), COMPLETED]
    assert encode(events) == encode(events)


@each_whole
def test_the_sdk_accumulates_the_stream_to_the_answer(vector: Vector):
    events = [*expected(vector), COMPLETED]
    answer = folded(events)
    assert SdkMessage.model_validate(answer).to_dict(exclude_none=True) == (
        SdkMessage.model_validate(accumulated(events).to_dict()).to_dict(exclude_none=True)
        | {"usage": SdkMessage.model_validate(answer).usage.to_dict(exclude_none=True)}
    )
    assert accumulated(events).usage.output_tokens == answer["usage"]["output_tokens"]


def test_a_call_that_was_cut_off_is_told_as_broken():
    events: list[AnyEvent] = [
        Started(),
        ToolCallDelta(0, '{"a": "b', "i", "f"),
        Finished("length"),
        COMPLETED,
    ]
    assert folded(events)["content"][0]["input"] == {"INVALID_JSON": '{"a": "b'}


def test_the_whole_answer_is_known_before_its_terminal_entry():
    assert folded([Started("m"), TextDelta("A")])["content"] == [{"type": "text", "text": "A"}]


def test_silence_is_bridged_by_pings():
    encoder = ANTHROPIC_MESSAGES.encoder(ANSWER)
    assert encoder.idle_chunk() == PING == (b"ping", b'{"type":"ping"}')
    assert encoder.heartbeat().startswith(b":")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
pieces = st.sampled_from(['{"', 'a"', ":", "1", "}", '{"a":1}', "\\", '\\"', "", "[", "]", '"'])
any_event: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Started, texts, input_tokens=st.integers(0, 9)),
    st.builds(TextDelta, texts, st.integers(0, 1), st.integers(0, 2)),
    st.builds(ReasoningDelta, texts, part=st.integers(0, 1), signature=texts, encrypted=st.just("")),
    st.builds(ReasoningDelta, part=st.integers(0, 1), encrypted=texts),
    st.builds(RefusalDelta, texts),
    st.builds(
        ToolCallDelta, st.integers(0, 2), pieces, texts, texts, kind=st.sampled_from(["function", "custom"])
    ),
    st.builds(Annotation, st.just({"type": "x"}), st.sampled_from([NAME, "other"]), part=st.integers(0, 1)),
    st.builds(UsageReported, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls"]), st.integers(0, 1), texts, texts),
    st.builds(
        Opaque,
        st.sampled_from([NAME, "other"]),
        st.one_of(
            st.builds(
                lambda kind, index: {
                    "type": kind,
                    "index": index,
                    "content_block": {"type": "x"},
                    "delta": {},
                },
                st.sampled_from(["content_block_start", "content_block_delta", "content_block_stop", "new"]),
                st.integers(0, 2),
            ),
            st.dictionaries(texts, texts, max_size=2),
        ),
    ),
)


@given(st.lists(any_event, max_size=14), st.sampled_from(["completed", "failed", "cancelled"]))
def test_whatever_is_in_the_log_the_order_is_what_clients_want(events: list[AnyEvent], status: Any):
    found = steps([*events, Closed(status)])
    kinds = [step["type"] for step in found]
    if status == "completed":
        assert kinds[-2:] == ["message_delta", "message_stop"]
        assert kinds[0] == "message_start"
    else:
        assert kinds[-1] == "error"
        assert "message_stop" not in kinds
    assert kinds.count("message_start") <= 1
    open_block, index = None, -1
    for step in found:
        match step:
            case {"type": "content_block_start"}:
                assert open_block is None
                assert step["index"] == index + 1
                open_block = index = step["index"]
            case {"type": "content_block_delta"}:
                assert step["index"] == open_block
            case {"type": "content_block_stop"}:
                assert step["index"] == open_block
                open_block = None
    assert open_block is None or status != "completed"
    if status == "completed":
        ANTHROPIC_MESSAGES.render_answer(ANSWER, [*events, COMPLETED])


@given(
    st.lists(st.dictionaries(texts, st.integers() | texts, max_size=3), min_size=1, max_size=3),
    st.data(),
)
def test_calls_that_overlap_in_any_way_come_out_whole(inputs: list[dict[str, Any]], data: st.DataObject):
    left: list[list[ToolCallDelta]] = []
    for number, value in enumerate(inputs):
        text = json.dumps(value)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
        cut = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
        first, *others = cut
        left.append(
            [ToolCallDelta(number, first, f"id{number}", "f"), *(ToolCallDelta(number, p) for p in others)]
        )
    events: list[AnyEvent] = [Started()]
    while any(left):
        row = data.draw(st.sampled_from([row for row in left if row]))
        events.append(row.pop(0))
    answer = folded([*events, Finished("tool_calls"), COMPLETED])
    assert sorted((b["id"], b["input"]) for b in answer["content"]) == [
        (f"id{number}", value) for number, value in enumerate(inputs)
    ]


# --- requests ----------------------------------------------------------------------------------------


@each_vector("anthropic_messages/requests")
def test_a_request_reaches_anthropic_as_it_came(vector: Vector):
    request = vector.content["request"]
    assert rendered(asked(request)) == {**request, "stream": True}


@each_vector("anthropic_messages/requests")
def test_a_request_survives_storage(vector: Vector):
    request = asked(vector.content["request"])
    stored = msgspec.json.decode(msgspec.json.encode(request), type=type(request))
    assert rendered(stored) == rendered(request)


@each_vector("anthropic_messages/from_openai_chat")
def test_an_openai_request_is_told_to_anthropic_like_this(vector: Vector):
    request = OPENAI_CHAT.parse_request(json.dumps(vector.content["request"]).encode())
    assert rendered(request, vector.content["model"]) == vector.content["body"]


@each_vector("anthropic_messages/to_openai_chat")
def test_an_anthropic_request_is_told_to_openai_like_this(vector: Vector):
    told = json.loads(OPENAI_CHAT.render_request(asked(vector.content["request"]), "gpt"))
    assert told == vector.content["body"]


def openai(**more: Any) -> Any:
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
    return OPENAI_CHAT.parse_request(json.dumps(request).encode())


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "very"}, "reasoning_effort"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "perhaps"},
            "tool_choice",
        ),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}
                ]
            },
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "["}}
                        ],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_anthropic_cannot_do_is_refused(more: dict[str, Any], param: str):
    with pytest.raises(ClientError) as raised:
        render_request(openai(**more), "claude-opus-5-5")
    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ({"model": None}, "invalid_type", "model"),
        ({"model": ""}, "missing_required_parameter", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "Hi"}, "invalid_type", "messages"),
        ({"messages": [{"content": "Hi"}]}, "missing_required_parameter", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_type", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].input",
        ),
        ({"max_tokens": "many"}, "invalid_type", "max_tokens"),
        ({"tools": [{"input_schema": {}}]}, "missing_required_parameter", "tools[0].name"),
        ({"system": [{"type": "text", "text": 1}]}, "invalid_type", "system[0].text"),
    ],
)
def test_a_bad_request_says_which_field_is_bad(wrong: dict[str, Any], code: str, param: str):
    with pytest.raises(ClientError) as raised:
        asked({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], **wrong})
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, code, param)


@pytest.mark.parametrize("sent", [b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 5000])
def test_a_body_that_is_no_object_is_refused(sent: bytes):
    with pytest.raises(ClientError, match="JSON"):
        parse_request(sent)


def test_without_a_limit_the_operators_is_told():
    request = asked({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    assert rendered(request, max_tokens=77)["max_tokens"] == 77
    assert rendered(openai(), max_tokens=78)["max_tokens"] == 78


def test_a_count_is_asked_with_nothing_that_only_an_answer_needs():
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "system": "S"}
    assert json.loads(render_count(asked(request), "claude-x")) == {**request, "model": "claude-x"}


def test_versions_and_betas_are_headers_and_no_part_of_the_body():
    request = asked({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    told = with_headers(request, "2026-10-21", "a-1, b-2,,")
    assert headers_of(told) == {"anthropic-version": "2026-10-21", "anthropic-beta": "a-1,b-2"}
    assert rendered(told) == rendered(request)
    assert headers_of(request) == {}
    assert headers_of(openai(anthropic_beta=["a"])) == {}


def test_thinking_of_another_provider_is_not_told_to_anthropic():
    turn = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": ""}]}
    turn["content"].append({"type": "text", "text": "Hi"})
    request = asked({"model": "m", "messages": [{"role": "user", "content": "Hi"}, turn]})
    assert rendered(request)["messages"][1]["content"] == [{"type": "text", "text": "Hi"}]


def test_messages_added_on_the_way_join_the_last_turn_of_their_role():
    request = asked({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    longer = msgspec.structs.replace(request, messages=(*request.messages, Message("assistant", "So")))
    assert rendered(longer)["messages"][1:] == [{"role": "assistant", "content": "So"}]
    longer = msgspec.structs.replace(longer, messages=(*longer.messages, Message("assistant", " far")))
    assert rendered(longer)["messages"][1:] == [
        {"role": "assistant", "content": [{"type": "text", "text": "So"}, {"type": "text", "text": " far"}]}
    ]


@pytest.mark.parametrize(
    ("name", "thinking", "sampled"),
    [
        ("claude-3-opus-20240229", "none", True),
        ("claude-3-7-sonnet-latest", "budget", True),
        ("claude-opus-4-20250514", "budget", True),
        ("anthropic/claude-haiku-4.5", "budget", True),
        ("claude-opus-4-6", "effort", True),
        ("claude-opus-4-7", "effort", False),
        ("claude-sonnet-5-20260901", "effort", False),
        ("claude-something-new", "effort", False),
        ("glm-4.6", "budget", True),
    ],
)
def test_what_a_model_takes_is_known_by_its_name(name: str, thinking: str, sampled: bool):
    assert (manner(name).thinking, manner(name).sampled) == (thinking, sampled)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
strange_blocks = st.builds(
    lambda kind, more: {"type": kind, **more},
    st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "x"]),
    st.fixed_dictionaries(
        {},
        optional={
            "text": texts | json_values,
            "id": texts,
            "name": texts,
            "input": st.dictionaries(texts, json_values, max_size=2),
            "tool_use_id": texts,
            "content": json_values | texts,
            "source": json_values,
            "thinking": json_values,
            "signature": json_values,
            "title": json_values,
        },
    ),
)
strange_requests = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["user", "assistant", "system"]),
                    "content": texts | st.lists(strange_blocks, max_size=3),
                }
            ),
            min_size=1,
            max_size=4,
        ),
    },
    optional={
        "max_tokens": st.integers(0, 9) | st.none(),
        "system": texts | json_values,
        "tools": json_values,
        "tool_choice": json_values,
        "thinking": json_values,
        "output_config": json_values,
        "metadata": json_values,
        "x": json_values,
    },
)


@given(strange_requests)
def test_whatever_a_client_sends_is_handed_on_or_refused(sent: dict[str, Any]):
    try:
        request = asked(sent)
    except ClientError:
        return
    again = rendered(request, max_tokens=5)
    assert again["model"] == "claude-opus-5-5"
    try:
        OPENAI_CHAT.render_request(request, "gpt")
    except ClientError:
        return


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ClientError("x"), 400, "invalid_request_error"),
        (ClientError("x", code="invalid_api_key", status=401), 401, "authentication_error"),
        (ClientError("x", code="model_not_found", status=404), 404, "not_found_error"),
        (ClientError("x", code="body_too_large", status=413), 413, "request_too_large"),
        (ClientError("x", code="idempotency_key_reused", status=422), 422, "invalid_request_error"),
        (UpstreamError("x", code="rate_limit_exceeded", status=429), 429, "rate_limit_error"),
        (UpstreamError("x", code="insufficient_quota", status=429), 402, "billing_error"),
        (UpstreamError("x", code="overloaded", status=503), 529, "overloaded_error"),
        (UpstreamError("x", code="upstream_reset", status=502), 502, "api_error"),
        (UpstreamError("x", code="timeout", status=504), 504, "timeout_error"),
        (
            UpstreamError("x", code="invalid_request", status=400, type="invalid_request_error"),
            400,
            "invalid_request_error",
        ),
        (UpstreamError("x", code="rate_limit_exceeded", status=429, type="tokens"), 429, "rate_limit_error"),
        (GatewayError("x", code="draining", status=503), 503, "overloaded_error"),
        (GatewayError("x", code="internal_error"), 500, "api_error"),
    ],
)
def test_errors_have_anthropics_status_and_type(error: Any, status: int, kind: str):
    assert error_status(error) == status
    told = json.loads(ANTHROPIC_MESSAGES.render_error(error, "req_1"))
    assert (told["type"], told["request_id"]) == ("error", "req_1")
    assert (told["error"]["type"], told["error"]["message"], told["error"]["code"]) == (kind, "x", error.code)


def test_an_error_of_anthropics_is_read():
    sent = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}'
    error = ANTHROPIC_MESSAGES.parse_error(529, {"x-should-retry": "true"}, sent)
    assert (error.code, error.status, error.retryable) == ("overloaded", 503, True)
