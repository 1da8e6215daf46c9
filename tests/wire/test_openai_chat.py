"""The Chat Completions dialect: the shared vectors, both ways, and requests and errors."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from penstock.types.errors import ClientError, GatewayError, UpstreamError
from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
    Finished,
    Opaque,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    encode_line,
)
from penstock.types.requests import FilePart, ImagePart, Message, OpaquePart, TextPart, Tool, ToolCall
from penstock.wire.dialect import Answer, Dialect, EventEncoder, Frame
from penstock.wire.openai_chat import DONE, OPENAI_CHAT
from penstock.wire.provider_errors import MAX_MESSAGE
from tests.vectors import Vector, each_vector, load, octets
from tests.wire.decoding import check, check_distorted, expected, run

STREAM = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"
ANSWER = Answer(STREAM, 1790000001, "gpt-4o-mini", include_usage=True)
COMPLETED = Closed("completed")

whole = [vector for vector in load("openai_chat") if "error" not in vector.content]


def encode(events: list[AnyEvent], answer: Answer = ANSWER) -> list[Frame]:
    encoder: EventEncoder = OPENAI_CHAT.encoder(answer)
    return [f for n, e in enumerate(events, 1) for f in encoder.encode(e, encode_line(n, e))]


def chunks(events: list[AnyEvent], answer: Answer = ANSWER) -> list[Any]:
    return [json.loads(data) for frame in encode(events, answer) if (data := frame[1]) != b"[DONE]"]


def body(frames: list[Frame]) -> bytes:
    return b"".join(b"data: %b\n\n" % data for _, data in frames)


def folded(events: list[AnyEvent]) -> Any:
    return json.loads(OPENAI_CHAT.render_answer(ANSWER, events))


# --- the stream ------------------------------------------------------------------------------------


def test_it_is_a_dialect():
    dialect: Dialect = OPENAI_CHAT
    assert dialect.name == "openai_chat"


@each_vector("openai_chat")
def test_vector(vector: Vector):
    check(vector, OPENAI_CHAT.decoder)


@each_vector("openai_chat")
def test_distorted_bodies_do_no_harm(vector: Vector):
    check_distorted(vector, OPENAI_CHAT.decoder)


@each_vector("openai_chat")
def test_skipped_chunks_are_counted(vector: Vector):
    decoder = OPENAI_CHAT.decoder()
    outcome = run(decoder, [octets(vector.content, "input")])
    if outcome.error is None:
        assert decoder.skipped == vector.content.get("skipped", 0)


@pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)
def test_encoded_events_decode_to_themselves(vector: Vector):
    events = expected(vector)
    again = run(OPENAI_CHAT.decoder(), [body(encode([*events, COMPLETED]))])
    assert again.error is None
    assert normal(again.events) == normal(events)


def normal(events: list[AnyEvent]) -> list[AnyEvent]:
    """What a round trip may change: ids and births are the stream's, a missing call id is made up,
    usage comes last."""
    usage = [event for event in events if type(event) is UsageReported]
    rest: list[AnyEvent] = []
    for event in events:
        if type(event) is Started:
            event = msgspec.structs.replace(event, id="", created=0)
        if type(event) is ToolCallDelta:
            made_up = event.id.startswith(f"call_{STREAM[-16:]}")
            event = msgspec.structs.replace(event, id="" if made_up else event.id)
        if type(event) is not UsageReported:
            rest.append(event)
    return [*rest, *usage[-1:]]


@pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)
def test_encoding_is_a_pure_function_of_the_log(vector: Vector):
    events = [*expected(vector), COMPLETED]
    assert encode(events) == encode(events)


@pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)
def test_a_frame_is_one_line_to_every_reader(vector: Vector):
    for name, data in encode([*expected(vector), COMPLETED]):
        assert name == b""
        assert len(data.decode().splitlines()) == 1


# What OpenAI's own types do not know: Mistral's references, and custom tools in a stream.
of_the_sdk = [vector for vector in whole if vector.name not in ("content_parts", "tools_custom")]


@pytest.mark.parametrize("vector", of_the_sdk, ids=lambda vector: vector.name)
def test_the_sdk_accumulates_the_chunks_to_the_answer(vector: Vector):
    events = [*expected(vector), COMPLETED]
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks(events):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    answer = ChatCompletion.model_validate(folded(events))
    seen = state.current_completion_snapshot
    assert seen.id == answer.id
    assert seen.usage == answer.usage
    for mine, theirs in zip(answer.choices, seen.choices, strict=True):
        assert theirs.finish_reason == mine.finish_reason
        assert (theirs.message.content or None) == (mine.message.content or None)
        assert theirs.message.refusal == mine.message.refusal
        assert [
            (call.id, call.function.name, call.function.arguments) for call in theirs.message.tool_calls or ()
        ] == [
            (call.id, call.function.name, call.function.arguments) for call in mine.message.tool_calls or ()
        ]


def calls_of(answer: Any) -> list[Any]:
    return [call for choice in answer["choices"] for call in choice["message"].get("tool_calls", ())]


@pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)
def test_each_choice_has_its_role_and_its_finish_reason_once(vector: Vector):
    roles: list[int] = []
    reasons: list[int] = []
    for chunk in chunks([*expected(vector), COMPLETED]):
        for choice in chunk["choices"]:
            roles += [choice["index"]] if "role" in choice["delta"] else []
            reasons += [choice["index"]] if choice["finish_reason"] else []
    assert sorted(roles) == sorted(reasons) == sorted(set(roles))


@each_vector("openai_chat")
def test_answer_holds_what_the_vector_says(vector: Vector):
    answer = folded(expected(vector))
    for name, value in vector.content.get("answer", {}).items():
        assert answer[name] == value


@pytest.mark.parametrize("vector", whole, ids=lambda vector: vector.name)
def test_folding_the_answer_again_gives_the_same_answer(vector: Vector):
    answer = folded(expected(vector))
    again = run(OPENAI_CHAT.decoder(), [json.dumps(answer).encode()])
    assert again.error is None
    assert folded(again.events) == answer


def test_an_error_after_events_is_raised_by_the_next_call():
    decoder = OPENAI_CHAT.decoder()
    events = decoder.feed(
        b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"A"}}]}\n\ndata: {"error":"gone"}\n\n'
    )
    assert [type(event) for event in events] == [Started, TextDelta]
    assert decoder.finished
    for call in (lambda: decoder.feed(b""), decoder.flush):
        with pytest.raises(UpstreamError, match="gone"):
            call()


def test_an_error_without_events_is_raised_at_once():
    decoder = OPENAI_CHAT.decoder()
    with pytest.raises(UpstreamError, match="gone"):
        decoder.feed(b'data: {"error":"gone"}\n\n')


def test_done_finishes_the_decoder():
    decoder = OPENAI_CHAT.decoder()
    decoder.feed(b'data: {"choices":[{"index":0,"delta":{"content":"A"},"finish_reason":"stop"}]}\n\n')
    assert not decoder.finished
    decoder.feed(b"data: [DONE]\n\n")
    assert decoder.finished
    assert decoder.feed(b'data: {"choices":[{"index":0,"delta":{"content":"B"}}]}\n\n') == ()


def test_usage_seen_is_known_before_it_is_reported():
    decoder = OPENAI_CHAT.decoder()
    decoder.feed(
        b'data: {"choices":[{"index":0,"delta":{"content":"A"}}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    )
    assert decoder.usage == UsageReported(3, 1)


def test_what_comes_before_the_answer_is_bounded():
    early = b"".join(b'data: {"choices":[],"note":%d}\n\n' % number for number in range(100))
    with pytest.raises(UpstreamError, match="before it began"):
        OPENAI_CHAT.decoder().feed(early)


def test_choices_and_calls_are_bounded():
    for data in (
        {"choices": [{"index": 128, "delta": {"content": "A"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": i} for i in range(1025)]}}]},
    ):
        with pytest.raises(UpstreamError) as raised:
            OPENAI_CHAT.decoder().feed(b"data: %b\n\n" % json.dumps(data).encode())
        assert raised.value.code == "upstream_malformed"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 300) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, json_values))


strange_deltas = objects("role", "content", "reasoning", "refusal", "function_call", "x") | st.builds(
    lambda delta, calls: {**delta, "tool_calls": calls},
    objects("content", "tool_calls"),
    st.lists(objects("index", "id", "type", "function", "custom", "x"), max_size=3),
)
strange_choices = st.builds(
    lambda choice, delta: {**choice, "delta": delta},
    objects("index", "finish_reason", "logprobs", "usage", "error", "native_finish_reason", "x"),
    strange_deltas | json_values,
)
strange_chunks = st.builds(
    lambda chunk, choices: {**chunk, "choices": choices},
    objects("id", "model", "created", "usage", "x_groq", "system_fingerprint", "error", "x"),
    st.lists(strange_choices, max_size=2) | json_values,
)


@given(st.lists(strange_chunks, max_size=4))
def test_whatever_a_provider_sends_is_decoded_or_refused(sent: list[Any]):
    frames = b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in sent)
    outcome = run(OPENAI_CHAT.decoder(), [frames])
    assert all(type(event) is not TextDelta or isinstance(event.delta, str) for event in outcome.events)
    assert run(OPENAI_CHAT.decoder(), [json.dumps(sent).encode()]).error is not None
    for number, event in enumerate(outcome.events, 1):
        encode_line(number, event)
    encode([*outcome.events, COMPLETED])
    OPENAI_CHAT.render_answer(ANSWER, outcome.events)


# --- the encoder -----------------------------------------------------------------------------------


def test_ids_birth_and_model_are_the_streams():
    first = chunks([Started("gpt-4o-2026", "chatcmpl-9x", 5), TextDelta("A")])[0]
    assert first == {
        "id": "chatcmpl-0001ARZ3NDEKTSV4RRFFQ69G5FAV",
        "object": "chat.completion.chunk",
        "created": 1790000001,
        "model": "gpt-4o-2026",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
        "usage": None,
    }


def test_the_model_asked_for_stands_in_for_one_that_did_not_say_its_name():
    assert chunks([Started(), TextDelta("A")])[1]["model"] == "gpt-4o-mini"


def test_usage_appears_only_when_asked_for():
    events = [Started(), TextDelta("A"), Finished("stop"), UsageReported(1, 2), COMPLETED]
    without = chunks(events, ANSWER._replace(include_usage=False))
    assert all("usage" not in chunk for chunk in without)
    last = chunks(events)[-1]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 3


def test_the_terminal_entrys_usage_wins():
    closed = Closed("completed", usage=UsageReported(5, 6, estimated=True))
    assert chunks([Started(), UsageReported(1, 2), closed])[-1]["usage"]["total_tokens"] == 11


def test_a_completed_stream_ends_with_done():
    assert encode([Started(), Finished("stop"), COMPLETED])[-1] == DONE


@pytest.mark.parametrize("status", ["failed", "cancelled", "interrupted", "expired"])
def test_any_other_end_is_an_error_and_never_done(status: Any):
    frames = encode([Started(), TextDelta("A"), Closed(status)])
    error = json.loads(frames[-1][1])["error"]
    assert error["code"] == status
    assert error["message"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert DONE not in frames


def test_the_error_of_the_end_is_told():
    closed = Closed("failed", "rate_limit_exceeded", "Slow down.", "upstream", error_type="tokens", param="n")
    assert chunks([closed]) == [
        {"error": {"message": "Slow down.", "type": "tokens", "param": "n", "code": "rate_limit_exceeded"}}
    ]


def test_a_second_attempt_does_not_begin_again():
    events = [Started("a"), TextDelta("A"), Started("b"), TextDelta("B")]
    assert [chunk["model"] for chunk in chunks(events)] == ["a", "a", "a"]


def test_without_a_start_the_first_delta_has_the_role():
    assert chunks([TextDelta("A")])[0]["choices"][0]["delta"] == {"role": "assistant", "content": "A"}


def test_what_only_another_dialect_understands_is_left_out():
    events = [
        Opaque("gemini", {"choices": 1}),
        Annotation({"a": 1}, "gemini"),
        ReasoningDelta(signature="x"),
        ReasoningDelta(encrypted="x"),
        TextDelta(""),
    ]
    assert encode([Started(), *events]) == encode([Started()])
    assert folded([Started(), *events])["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
        "refusal": None,
        "reasoning_content": "",
    }


def test_calls_without_an_id_get_the_same_one_in_stream_and_answer():
    events = [Started(), ToolCallDelta(0, "{", name="f"), ToolCallDelta(0, "}"), ToolCallDelta(1, name="g")]
    pieces = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks(events)[1:]]
    first, later, second = [piece.get("id") for piece in pieces]
    assert later is None
    assert first != second
    assert max(len(first), len(second)) <= 40
    assert [call["id"] for call in calls_of(folded(events))] == [first, second]


def test_the_idle_chunk_adds_nothing():
    encoder = OPENAI_CHAT.encoder(ANSWER)
    before = encoder.encode(Started(), b"")
    name, data = encoder.idle_chunk()
    assert name == b""
    assert json.loads(data)["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    assert OPENAI_CHAT.encoder(ANSWER).encode(Started(), b"") == before


# --- requests --------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
unknown = st.fixed_dictionaries(
    {}, optional={"x_vendor": json_values, "cache_control": st.just({"type": "e"})}
)


def record(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    known = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda a, b: {**b, **a}, known, unknown)


data_urls = st.sampled_from(
    [
        "https://example.org/a.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "data:application/pdf;base64,JVBERi0=",
        "data:audio/wav;base64,UklGRg==",
        "data:IMAGE/PNG;charset=x,abc",
    ]
)
part_bodies = st.one_of(
    record({"type": st.just("text"), "text": texts}),
    record({"type": st.just("refusal"), "refusal": texts}),
    record({"type": st.just("image_url"), "image_url": record({"url": data_urls}, detail=some_text)}),
    record(
        {
            "type": st.just("input_audio"),
            "input_audio": record({"data": texts, "format": st.sampled_from(["wav", "mp3", "flac"])}),
        }
    ),
    record(
        {
            "type": st.just("file"),
            "file": record({}, file_id=some_text, file_data=data_urls, filename=some_text),
        }
    ),
    record({"type": st.just("video_url"), "video_url": json_values}),
)
call_bodies = st.one_of(
    record(
        {
            "id": some_text,
            "type": st.just("function"),
            "function": record({"name": texts, "arguments": texts}),
        }
    ),
    record(
        {"id": some_text, "type": st.just("custom"), "custom": record({"name": some_text, "input": texts})}
    ),
    record({"id": some_text, "type": st.just("computer"), "computer": json_values}),
)
message_bodies = record(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "ipython"])},
    content=st.none() | texts | st.lists(part_bodies, max_size=3),
    name=texts | st.none(),
    tool_calls=st.none() | st.lists(call_bodies, max_size=2),
    tool_call_id=texts,
    reasoning_content=texts,
    function_call=record({"name": texts, "arguments": texts}),
)
tool_bodies = st.one_of(
    record(
        {
            "type": st.just("function"),
            "function": record(
                {"name": some_text},
                description=texts,
                parameters=st.just({"type": "object", "properties": {}}) | st.just({}),
                strict=st.booleans() | st.none(),
            ),
        }
    ),
    record({"type": st.just("custom"), "custom": record({"name": some_text}, format=json_values)}),
    record({"type": st.just("web_search")}),
)
numbers = st.none() | st.integers(-2, 2) | st.floats(-2, 2)
request_bodies = record(
    {"model": some_text, "messages": st.lists(message_bodies, min_size=1, max_size=4)},
    stream=st.booleans() | st.none(),
    stream_options=st.none() | record({}, include_usage=st.booleans(), include_obfuscation=st.booleans()),
    n=st.none() | st.integers(1, 128),
    temperature=numbers,
    top_p=numbers,
    presence_penalty=numbers,
    frequency_penalty=numbers,
    stop=st.none() | texts | st.lists(texts, max_size=5),
    seed=st.none() | st.integers(0, 2**60),
    logprobs=st.none() | st.booleans(),
    top_logprobs=st.none() | st.integers(0, 20),
    tools=st.none() | st.lists(tool_bodies, max_size=3),
    tool_choice=st.sampled_from([None, "auto", {"type": "function", "function": {"name": "f"}}]),
    parallel_tool_calls=st.none() | st.booleans(),
    response_format=st.none() | st.just({"type": "json_object"}),
    reasoning_effort=st.none() | some_text,
    user=st.none() | texts,
    store=st.none() | st.booleans(),
    metadata=st.none() | st.dictionaries(texts, texts, max_size=2),
    logit_bias=st.dictionaries(texts, st.integers(-100, 100), max_size=2),
    functions=st.just([{"name": "f"}]),
)
limits = st.sampled_from(
    [
        {},
        {"max_tokens": 5},
        {"max_completion_tokens": 5},
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"max_tokens": None},
        {"max_completion_tokens": None},
    ]
)


@given(request_bodies, limits)
def test_a_request_comes_out_as_it_went_in(sent: dict[str, Any], limit: dict[str, Any]):
    sent = {**sent, **limit}
    request = OPENAI_CHAT.parse_request(json.dumps(sent).encode())
    again = json.loads(OPENAI_CHAT.render_request(request, "another-model"))
    assert again.pop("model") == "another-model"
    assert again.pop("stream") is True
    options = dict(sent.get("stream_options") or {})
    assert again.pop("stream_options") == {**options, "include_usage": True}
    assert request.model == sent.pop("model")
    assert request.stream is bool(sent.pop("stream", None))
    assert request.include_usage is (options.get("include_usage") is True)
    sent.pop("stream_options", None)
    if isinstance(sent.get("stop"), str) and sent["stop"]:
        sent["stop"] = [sent["stop"]]
    if sent.get("n") == 1:
        del sent["n"]
    assert again == sent


def parse(**fields: Any) -> Any:
    sent = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return OPENAI_CHAT.parse_request(json.dumps(sent).encode())


def parse_part(part: dict[str, Any]) -> Any:
    return parse(messages=[{"role": "user", "content": [part]}]).messages[0].content[0]


def test_parts_are_understood():
    assert parse_part({"type": "text", "text": "Hi"}) == TextPart("Hi")
    assert parse_part(
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    ) == ImagePart(url="https://x/y.png", detail="low")
    assert parse_part({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}) == ImagePart(
        data="iVBO", media_type="image/png"
    )
    assert parse_part({"type": "image_url", "image_url": "https://x/y.png"}) == ImagePart(
        url="https://x/y.png"
    )
    assert parse_part({"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}}) == FilePart(
        data="UklG", media_type="audio/mpeg"
    )
    assert parse_part(
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}}
    ) == FilePart(data="JVBE", media_type="application/pdf", name="a.pdf")
    assert parse_part({"type": "video", "x": 1}) == OpaquePart("openai_chat", {"type": "video", "x": 1})


def test_the_limit_has_two_names():
    assert parse(max_tokens=5).max_output_tokens == 5
    assert parse(max_completion_tokens=6).max_output_tokens == 6
    assert parse(max_tokens=5, max_completion_tokens=6).max_output_tokens == 6


def test_a_clamped_limit_goes_out_under_the_clients_name():
    clamped = msgspec.structs.replace(parse(max_tokens=500), max_output_tokens=100)
    assert json.loads(OPENAI_CHAT.render_request(clamped, "m"))["max_tokens"] == 100


def test_arguments_may_be_an_object():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    request = parse(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert request.messages[0].tool_calls == (ToolCall("c", "f", '{"a":1}'),)


def test_a_request_of_another_dialect_leaves_its_extras_behind():
    request = msgspec.structs.replace(
        parse(top_k=1, tools=[{"type": "function", "function": {"name": "f", "x": 1}}]),
        dialect="anthropic_messages",
        messages=(
            Message(
                "user", (TextPart("Hi", {"cache_control": {}}), OpaquePart("anthropic_messages", {"x": 1}))
            ),
            Message("assistant", tool_calls=(ToolCall("c", "f", "{}", extra={"x": 1}),), extra={"x": 1}),
        ),
    )
    rendered = json.loads(OPENAI_CHAT.render_request(request, "m"))
    assert rendered == {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}],
            },
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.tools == (Tool("f", extra={"function": {"x": 1}}),)


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ("[]", "invalid_type", None),
        ({}, "missing_required_parameter", "model"),
        ({"model": "", "messages": [USER]}, "missing_required_parameter", "model"),
        ({"model": 4, "messages": [USER]}, "invalid_type", "model"),
        ({"model": "m"}, "missing_required_parameter", "messages"),
        ({"model": "m", "messages": []}, "invalid_value", "messages"),
        ({"model": "m", "messages": "Hi"}, "invalid_type", "messages"),
        ({"model": "m", "messages": ["Hi"]}, "invalid_type", "messages[0]"),
        (
            {"model": "m", "messages": [USER, {"content": "x"}]},
            "missing_required_parameter",
            "messages[1].role",
        ),
        (
            {"model": "m", "messages": [USER, {"role": "user", "content": 4}]},
            "invalid_type",
            "messages[1].content",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].type",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": ["Hi"]}]},
            "invalid_type",
            "messages[0].content[0]",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "missing_required_parameter",
            "messages[0].content[0].input_audio",
        ),
        (
            {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}]},
            "missing_required_parameter",
            "messages[0].tool_calls[0].function.name",
        ),
        ({"model": "m", "messages": [USER], "n": 0}, "invalid_value", "n"),
        ({"model": "m", "messages": [USER], "n": 129}, "invalid_value", "n"),
        ({"model": "m", "messages": [USER], "temperature": "hot"}, "invalid_type", "temperature"),
        ({"model": "m", "messages": [USER], "stop": [1]}, "invalid_type", "stop[0]"),
        (
            {"model": "m", "messages": [USER], "tools": [{"type": "function"}]},
            "missing_required_parameter",
            "tools[0].function",
        ),
        (
            {
                "model": "m",
                "messages": [USER],
                "tools": [{"type": "function", "function": {"description": "x"}}],
            },
            "missing_required_parameter",
            "tools[0].function.name",
        ),
        ({"model": "m", "messages": [USER], "stream": "yes"}, "invalid_type", "stream"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(sent: Any, code: str, param: str | None):
    data = sent.encode() if isinstance(sent, str) else json.dumps(sent).encode()
    with pytest.raises(ClientError) as raised:
        OPENAI_CHAT.parse_request(data)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, code, param)
    assert "`" not in raised.value.message
    assert "$" not in raised.value.message


def test_a_wrong_type_is_told_with_what_to_write():
    with pytest.raises(
        ClientError, match=r"'messages\[0\]\.content' must be a string or an array, not an integer."
    ):
        parse(messages=[{"role": "user", "content": 4}])


def test_invalid_utf8_is_invalid_json():
    with pytest.raises(ClientError) as raised:
        OPENAI_CHAT.parse_request(b'{"model":"\xff"}')
    assert raised.value.code == "invalid_json"


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ClientError("x"), "invalid_request_error"),
        (ClientError("x", status=404), "invalid_request_error"),
        (ClientError("x", status=401), "authentication_error"),
        (ClientError("x", status=403), "permission_error"),
        (GatewayError("x", code="c", status=429), "rate_limit_error"),
        (UpstreamError("x", code="insufficient_quota", status=429), "insufficient_quota"),
        (GatewayError("x", code="c", status=503), "server_error"),
        (UpstreamError("x", code="c", type="tokens"), "tokens"),
    ],
)
def test_an_error_is_rendered_in_openais_form(error: Any, kind: str):
    assert json.loads(OPENAI_CHAT.render_error(error)) == {
        "error": {"message": "x", "type": kind, "param": None, "code": error.code}
    }


def test_an_errors_message_is_bounded_and_on_one_line():
    body = json.dumps({"error": {"message": "a\x00b\nc\u2028d\x1b[31m" + "é" * 5000}}).encode()
    message = OPENAI_CHAT.parse_error(500, {}, body).message
    assert message.startswith("ab c d[31mé")
    assert len(message.encode()) <= MAX_MESSAGE
