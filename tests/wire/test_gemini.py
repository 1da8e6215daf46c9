"""Gemini, both ways, over the shared vectors and over what nobody thought of."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from google.genai import types as sdk
from google.genai.models import _GenerateContentResponse_from_mldev as from_wire
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import ClientError, GatewayError, UpstreamError
from penstock.types.events import (
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
from penstock.wire.gemini import GEMINI, GeminiEncoder, fold
from penstock.wire.gemini_decoder import GenerateContentDecoder
from penstock.wire.gemini_requests import (
    NAME,
    json_schema,
    parse_count,
    parse_request,
    render_request,
    wants_thoughts,
)
from penstock.wire.openai_chat import OPENAI_CHAT
from tests.vectors import Vector, each_vector, load
from tests.wire.decoding import check, check_distorted, expected, run

STREAM = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
ANSWER = Answer(STREAM, 1790000001, "asked")
COMPLETED = Closed("completed")

whole = [vector for vector in load("gemini") if "error" not in vector.content]
each_whole = pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)


def frames(events: list[AnyEvent], **how: bool) -> list[Frame]:
    encoder = GeminiEncoder(ANSWER, **how)
    return [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]


def chunks(events: list[AnyEvent], **how: bool) -> list[Any]:
    return [json.loads(data) for _, data in frames(events, **how)]


def body(events: list[AnyEvent]) -> bytes:
    return b"".join(b"data: %b\n\n" % data for _, data in frames(events))


def asked(request: dict[str, Any]) -> Any:
    return parse_request(json.dumps(request).encode(), "m")


def rendered(request: Any, model: str = "gemini") -> Any:
    return json.loads(render_request(request, model))


# --- the decoder -------------------------------------------------------------------------------------


def test_it_is_a_dialect():
    dialect: Dialect = GEMINI
    assert dialect.name == NAME == "gemini"


@each_vector("gemini")
def test_vector(vector: Vector):
    check(vector, GEMINI.decoder)


@each_vector("gemini")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, GEMINI.decoder)


# --- the encoder -------------------------------------------------------------------------------------


@each_vector("gemini/encoded")
def test_events_become_these_chunks(vector: Vector):
    found = chunks(expected(vector))
    for chunk in found:
        if "error" not in chunk:
            assert chunk.pop("responseId") == "0001ARZ3NDEKTSV4RRFFQ69G5FAV"
            assert chunk.pop("modelVersion") == "m"
    assert found == vector.content["chunks"]


@each_vector("gemini/encoded")
def test_an_array_holds_the_same_chunks(vector: Vector):
    events = expected(vector)
    before = {b"first": "[", b"next": ",\n", b"last": ",\n", b"only": "["}
    named = frames(events, array=True)
    text = "".join(before[name] + data.decode() for name, data in named) + "]"
    assert json.loads(text) == chunks(events)
    assert [name in (b"last", b"only") for name, _ in named] == [*[False] * (len(named) - 1), True]


@each_whole
def test_encoded_events_decode_to_themselves(vector: Vector):
    events = expected(vector)
    again = run(GEMINI.decoder(), [body([*events, COMPLETED])])
    assert again.error is None
    assert normal(again.events) == normal(events)


def normal(events: list[AnyEvent]) -> list[AnyEvent]:
    """What a round trip may change: the response's id, and where unknown facts stand."""
    kept: list[AnyEvent] = []
    for event in events:
        if type(event) is Started:
            event = msgspec.structs.replace(event, id="", model="", extra=None)
        elif type(event) is Opaque:
            data = {k: v for k, v in event.data.items() if k not in ("modelVersion", "responseId")}
            event = msgspec.structs.replace(event, data=data)
        elif type(event) is not UsageReported and event.extra:
            left = {k: v for k, v in event.extra.items() if k != "response"}
            event = msgspec.structs.replace(event, extra=left or None)
        kept.append(event)
    return kept


@each_whole
@pytest.mark.filterwarnings("ignore:X is not a valid")  # of a category that the vector made up
def test_the_sdk_puts_the_same_answer_together(vector: Vector):
    events = [*expected(vector), COMPLETED]
    said: dict[int, str] = {}
    for chunk in chunks(events):
        read = sdk.GenerateContentResponse.model_validate(from_wire(chunk))
        for candidate in read.candidates or ():
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.text and not part.thought:
                    said[candidate.index or 0] = said.get(candidate.index or 0, "") + part.text
    told = sdk.GenerateContentResponse.model_validate(from_wire(fold(ANSWER, events)))
    assert (told.text or "") == said.get(0, "")
    assert told.prompt_feedback or told.candidates[0].finish_reason is not None


def test_thoughts_are_for_those_who_asked():
    events: list[AnyEvent] = [Started("m"), ReasoningDelta("Hm"), TextDelta("A"), Finished("stop"), COMPLETED]
    assert len(chunks(events, thoughts=True)) == len(chunks(events, thoughts=False)) + 1
    assert [
        part["text"] for part in fold(ANSWER, events, thoughts=False)["candidates"][0]["content"]["parts"]
    ] == ["A"]
    want = {"contents": [], "generationConfig": {"thinking_config": {"include_thoughts": True}}}
    assert wants_thoughts(asked({**want, "contents": "x"}))
    assert not wants_thoughts(asked({"contents": "x"}))


def test_line_ends_of_unicode_are_escaped_in_every_frame():
    strange = "a\u2028b\u0085c"
    events = [Started(), TextDelta(strange), ReasoningDelta(strange), COMPLETED]
    assert all(len(data.decode().splitlines()) == 1 for _, data in frames(events))


def test_silence_is_bridged_by_a_chunk_that_adds_nothing():
    beat = GeminiEncoder(ANSWER).heartbeat()
    read = sdk.GenerateContentResponse.model_validate(from_wire(json.loads(beat.removeprefix(b"data: "))))
    assert read.text == ""
    assert beat.endswith(b"\n\n")
    assert GeminiEncoder(ANSWER, array=True).heartbeat().isspace()


def test_log_probabilities_are_told_in_googles_form():
    tokens = [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "A", "logprob": -0.1}]}]
    (chunk,) = chunks([TextDelta("A", logprobs={"content": tokens})])
    assert chunk["candidates"][0]["logprobsResult"] == {
        "chosenCandidates": [{"token": "A", "logProbability": -0.1}],
        "topCandidates": [{"candidates": [{"token": "A", "logProbability": -0.1}]}],
    }


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
pieces = st.sampled_from(['{"', 'a"', ":", "1", "}", '{"a":1}', "\\", '\\"', "", "[", "]", '"'])
any_event: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(Started, texts),
    st.builds(TextDelta, texts, st.integers(0, 1), st.integers(0, 2)),
    st.builds(ReasoningDelta, texts, part=st.integers(0, 1), signature=texts),
    st.builds(RefusalDelta, texts),
    st.builds(ToolCallDelta, st.integers(0, 2), pieces, texts, texts, st.integers(0, 1)),
    st.builds(UsageReported, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls"]), st.integers(0, 1), texts, texts),
    st.builds(Opaque, st.sampled_from([NAME, "other"]), st.just({"candidates": [{"index": 0}], "x": 1})),
)


@given(st.lists(any_event, max_size=14), st.sampled_from(["completed", "failed", "cancelled"]), st.booleans())
def test_whatever_is_in_the_log_the_end_is_told_once_and_last(
    events: list[AnyEvent], status: Any, thoughts: bool
):
    found = chunks([*events, Closed(status)], thoughts=thoughts)
    ends = [
        n for n, chunk in enumerate(found) if any("finishReason" in c for c in chunk.get("candidates", ()))
    ]
    if status == "completed":
        assert ends == [len(found) - 1]
        assert all("error" not in chunk for chunk in found)
    else:
        assert ends == []
        assert found[-1].keys() == {"error"}
    fold(ANSWER, [*events, COMPLETED], thoughts=thoughts)


# --- requests ----------------------------------------------------------------------------------------


@each_vector("gemini/requests")
def test_a_request_reaches_google_as_it_came(vector: Vector):
    request = vector.content["request"]
    assert rendered(asked(request)) == request


@each_vector("gemini/requests")
def test_a_request_survives_storage(vector: Vector):
    request = asked(vector.content["request"])
    stored = msgspec.json.decode(msgspec.json.encode(request), type=type(request))
    assert rendered(stored) == rendered(request)


@each_vector("gemini/to_openai_chat")
def test_a_request_is_told_to_openai_like_this(vector: Vector):
    told = json.loads(OPENAI_CHAT.render_request(asked(vector.content["request"]), "gpt"))
    assert told == vector.content["body"]


@each_vector("gemini/from_openai_chat")
def test_an_openai_request_is_told_to_google_like_this(vector: Vector):
    request = OPENAI_CHAT.parse_request(json.dumps(vector.content["request"]).encode())
    assert rendered(request) == vector.content["body"]


def test_snake_case_is_read_as_well():
    told = asked(
        {
            "contents": [
                {"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}}]}
            ],
            "system_instruction": {"parts": [{"text": "Be kind."}]},
            "generation_config": {"max_output_tokens": 5, "stop_sequences": ["x"], "top_k": 3},
        }
    )
    assert (told.max_output_tokens, told.stop, told.extra["top_k"]) == (5, ("x",), 3)
    assert told.messages[0].content == "Be kind."
    assert told.messages[1].content[0].media_type == "image/png"


def test_results_without_ids_find_their_calls():
    call = {"functionCall": {"name": "f", "args": {}}}
    result = {"functionResponse": {"name": "f", "response": {"result": "1"}}}
    told = asked(
        {"contents": [{"role": "model", "parts": [call, call]}, {"role": "user", "parts": [result, result]}]}
    )
    ids = [call.id for call in told.messages[0].tool_calls]
    assert len(set(ids)) == 2
    assert [message.tool_call_id for message in told.messages[1:]] == ids


def test_a_message_that_was_added_here_is_sent_along():
    request = asked({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]})
    added = msgspec.structs.replace(request, messages=(Message("system", "Be kind."), *request.messages))
    assert rendered(added)["systemInstruction"] == {"parts": [{"text": "Be kind."}]}


def test_a_count_may_be_asked_for_either_way():
    inner = {
        "model": "models/m",
        "contents": [{"parts": [{"text": "Hi"}]}],
        "systemInstruction": {"parts": []},
    }
    for sent in (inner, {"generateContentRequest": inner}):
        assert parse_count(json.dumps(sent).encode(), "m").messages[-1].content == "Hi"


def test_schemas_of_googles_become_json_schemas():
    schema = {
        "type": "OBJECT",
        "propertyOrdering": ["type"],
        "properties": {
            "type": {"type": "STRING", "nullable": True},
            "n": {"type": "ARRAY", "minItems": "1", "items": {"type": "INTEGER"}},
        },
    }
    assert json_schema(schema) == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"]},
            "n": {"type": "array", "minItems": 1, "items": {"type": "integer"}},
        },
    }


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": 7}, "contents"),
        ({"contents": [{"role": "user"}]}, "contents[0].parts"),
        ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0]"),
        (
            {"contents": [{"parts": [{"inlineData": {"data": ""}}]}]},
            "contents[0].parts[0].inlineData.mimeType",
        ),
        ({"contents": "x", "generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"contents": "x", "generationConfig": {"candidateCount": 0}}, "generationConfig.candidateCount"),
        (
            {"contents": "x", "tools": [{"functionDeclarations": [{}]}]},
            "tools[0].functionDeclarations[0].name",
        ),
        ({"contents": "x", "systemInstruction": {"parts": [{"text": 1}]}}, "systemInstruction.parts[0].text"),
    ],
)
def test_a_bad_request_says_which_field_is_bad(request_: dict[str, Any], param: str):
    with pytest.raises(ClientError) as caught:
        asked(request_)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "perhaps"},
            "tool_choice",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0]"),
    ],
)
def test_what_google_cannot_do_is_refused(more: dict[str, Any], param: str):
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
    with pytest.raises(ClientError) as caught:
        rendered(OPENAI_CHAT.parse_request(json.dumps(request).encode()))
    assert caught.value.param == param


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
kinds = ["text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "thought"]
strange_parts = st.dictionaries(
    st.sampled_from(kinds),
    json_values | st.just({"name": "f"}) | st.just({"name": "f", "args": {}, "response": {}}) | st.just(True),
    max_size=2,
)
strange_contents = st.fixed_dictionaries(
    {"parts": st.lists(strange_parts, max_size=3)}, optional={"role": st.sampled_from(["user", "model", "x"])}
)
strange_requests = st.fixed_dictionaries(
    {"contents": st.lists(strange_contents, min_size=1, max_size=4)},
    optional=dict.fromkeys(("tools", "toolConfig", "generationConfig", "systemInstruction"), json_values),
)


@given(strange_requests)
def test_whatever_a_client_sends_is_handed_on_or_refused(sent: dict[str, Any]):
    try:
        request = asked(sent)
    except ClientError:
        return
    assert rendered(request)["contents"] == sent["contents"]
    for render in (OPENAI_CHAT.render_request, ANTHROPIC_MESSAGES.render_request):
        with contextlib.suppress(ClientError):
            render(request, "other")


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (ClientError("x", param="contents"), "INVALID_ARGUMENT"),
        (ClientError("x", code="invalid_api_key", status=401), "UNAUTHENTICATED"),
        (ClientError("x", code="model_not_found", status=404), "NOT_FOUND"),
        (UpstreamError("x", code="rate_limit_exceeded", status=429, retry_after=1.5), "RESOURCE_EXHAUSTED"),
        (UpstreamError("x", code="upstream_reset", status=502), "UNAVAILABLE"),
        (UpstreamError("x", code="timeout", status=504), "DEADLINE_EXCEEDED"),
        (GatewayError("x", code="internal_error"), "INTERNAL"),
    ],
)
def test_errors_have_googles_shape(error: Any, named: str):
    told = json.loads(GEMINI.render_error(error))["error"]
    assert (told["code"], told["message"], told["status"]) == (error.status, "x", named)
    assert told["details"][0]["reason"] == error.code.upper()
    read = GEMINI.parse_error(error.status, {}, json.dumps({"error": told}).encode())
    assert (read.message.endswith("x"), read.upstream_status) == (True, error.status)
    if error.retry_after:
        assert read.retry_after == 2.0


def test_an_array_is_read_as_it_comes():
    decoder = GenerateContentDecoder()
    first = decoder.feed(b'\xef\xbb\xbf [{"candidates":[{"content":{"parts":[{"text":"A"}]},"index":0}]}')
    assert first[-1] == TextDelta("A")
    assert decoder.feed(b"\n,\r\n") == []
    rest = b'{"candidates":[{"content":{"parts":[{"text":"B"}]},"finishReason":"STOP","index":0}]}]'
    assert decoder.feed(rest) == [TextDelta("B")]
    assert decoder.flush() == [Finished("stop")]
