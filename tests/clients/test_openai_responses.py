"""OpenAI's Python SDK and its Responses, unchanged but for its base URL, in front of models of all kinds:
raw events and the SDK's own helper."""

import asyncio

import httpx
import openai
import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving, wait_for

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory, upstream):
    """A gateway that tries once, and does not wait before its status line goes out."""
    more = {"retry": {"tries": 1, "tries_in_all": 1}, "listen": {"commit_after": 10.0}}
    with serving(tmp_path_factory.mktemp("hasty"), settings(upstream, **more)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def sdk(hasty):
    with openai.OpenAI(base_url=hasty.api, api_key="unused", max_retries=0, timeout=PATIENCE) as sdk:
        yield sdk


def says(text="one two three", model="demo-echo", **more):
    return {"model": model, "input": text, **more}


def events(sdk, **request):
    return list(sdk.responses.create(**request, stream=True))


def helped(sdk, **request):
    """What the SDK's helper makes of a stream."""
    with sdk.responses.stream(**request) as stream:
        return stream.get_final_response()


# --- answers -----------------------------------------------------------------------------------------


def test_a_streamed_answer_comes_in_the_order_that_is_wanted(sdk):
    found = events(sdk, **says())
    assert [event.type for event in found] == [
        *("response.created", "response.in_progress"),
        *("response.output_item.added", "response.content_part.added"),
        *["response.output_text.delta"] * 3,
        *("response.output_text.done", "response.content_part.done", "response.output_item.done"),
        "response.completed",
    ]
    assert [event.sequence_number for event in found] == [*range(len(found))]
    assert found[-1].response.output_text == "one two three"
    assert found[-1].response.usage.output_tokens == 3


def test_the_helper_and_an_answer_that_does_not_stream_are_the_same(sdk):
    streamed = helped(sdk, **says("Tell me about streams.", model="demo"))
    whole = sdk.responses.create(**says("Tell me about streams.", model="demo"))
    assert streamed.output_text == whole.output_text != ""
    assert (streamed.status, whole.status) == ("completed", "completed")
    assert streamed.usage == whole.usage


def test_a_response_repeats_what_was_asked(sdk):
    told = sdk.responses.create(
        **says(instructions="Be kind.", temperature=0.5, metadata={"a": "b"}, tools=[WEATHER])
    )
    assert (told.instructions, told.temperature, told.metadata) == ("Be kind.", 0.5, {"a": "b"})
    assert told.tools[0].name == "get_weather"


def test_parallel_calls_come_whole_and_their_results_are_answered(sdk):
    request = says("Weather?", model="demo-tools", tools=[WEATHER])
    response = helped(sdk, **request)
    calls = [item for item in response.output if item.type == "function_call"]
    assert len(calls) == 2
    assert all(call.name == "get_weather" and '"city"' in call.arguments for call in calls)
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"Sunny, {n} °C"}
        for n, call in enumerate(calls)
    ]
    turns = [item.to_dict() for item in response.output]
    for turn in turns:
        turn.pop("parsed_arguments", None)
    said = [{"role": "user", "content": "Weather?"}, *turns, *results]
    answer = sdk.responses.create(model="demo-tools", input=said, tools=[WEATHER])
    assert "Sunny, 1 °C" in answer.output_text
    by_id = sdk.responses.create(
        model="demo-tools", input=results, tools=[WEATHER], previous_response_id=response.id
    )
    assert by_id.output_text == answer.output_text


def test_reasoning_is_an_item_before_the_message_and_may_come_back(sdk):
    response = helped(sdk, **says(model="demo-reasoning"))
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].summary[0].text
    turns = [item.to_dict() for item in response.output]
    said = [{"role": "user", "content": "Hi"}, *turns, {"role": "user", "content": "And?"}]
    assert sdk.responses.create(model="demo-reasoning", input=said).status == "completed"


def test_a_refusal_is_a_part_of_the_message(sdk):
    response = helped(sdk, **says(model="demo-refusal"))
    assert response.output[0].content[0].type == "refusal"
    assert response.output[0].content[0].refusal


def test_an_empty_answer_is_an_answer(sdk):
    response = helped(sdk, **says(model="demo-empty"))
    assert (response.output, response.status) == ([], "completed")


def test_a_limit_of_tokens_makes_it_incomplete(sdk):
    last = events(sdk, **says(max_output_tokens=2))[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert sdk.responses.create(**says(max_output_tokens=2)).status == "incomplete"


# --- reading again -----------------------------------------------------------------------------------


def test_a_reader_that_comes_back_gets_the_rest(sdk):
    found = events(sdk, **says())
    id_ = found[0].response.id
    for after in (None, 0, 4, len(found) - 2):
        again = sdk.responses.retrieve(
            id_, stream=True, **({"starting_after": after} if after is not None else {})
        )
        assert [event.to_dict() for event in again] == [
            event.to_dict() for event in found[0 if after is None else after + 1 :]
        ]
    with sdk.responses.stream(response_id=id_, starting_after=4) as stream:
        assert [event.sequence_number for event in stream] == [*range(5, len(found))]
        assert stream.get_final_response().output_text == "one two three"
    assert sdk.responses.retrieve(id_).output_text == "one two three"
    with pytest.raises(openai.BadRequestError):
        list(sdk.responses.retrieve(id_, stream=True, starting_after=-2))


def test_what_runs_in_the_background_is_asked_for_and_followed(sdk):
    response = sdk.responses.create(**says("one " * 20, model="paced", background=True))
    assert (response.status, response.output_text) == ("in_progress", "")
    stream = sdk.responses.retrieve(response.id, stream=True)
    assert list(stream)[-1].response.output_text.split() == ["one"] * 20
    assert sdk.responses.retrieve(response.id).status == "completed"


def test_a_background_stream_names_itself_before_the_model_speaks_and_outlives_its_reader(sdk):
    request = says("one two three four five", model="paced", background=True)
    with sdk.responses.create(**request, stream=True) as stream:
        id_ = next(iter(stream)).response.id
    found = list(sdk.responses.retrieve(id_, stream=True, starting_after=0))
    assert found[-1].response.output_text == "one two three four five"


def test_a_reader_that_leaves_ends_what_is_not_in_the_background(sdk, upstream):
    count = len(upstream.asked)
    with sdk.responses.create(**says(model="endless"), stream=True) as stream:
        next(event for event in stream if event.type == "response.output_text.delta")
    wait_for(lambda: upstream.asked[count].left.is_set())


def test_a_cancel_reaches_everybody(sdk):
    request = says(model="endless", background=True)
    with sdk.responses.create(**request, stream=True) as stream:
        seen = iter(stream)
        id_ = next(seen).response.id
        next(event for event in seen if event.type == "response.output_text.delta")
        cancelled = sdk.responses.cancel(id_)
        last = list(seen)[-1]
    assert cancelled.status == "cancelled"
    assert cancelled.output_text.startswith("1 ")
    assert (last.type, last.response.status) == ("response.failed", "cancelled")
    assert sdk.responses.retrieve(id_).error.code == "cancelled"


def test_what_is_deleted_is_gone(sdk):
    response = sdk.responses.create(**says())
    assert [item.type for item in sdk.responses.input_items.list(response.id)] == ["message"]
    sdk.responses.delete(response.id)
    with pytest.raises(openai.APIStatusError) as caught:
        sdk.responses.retrieve(response.id)
    assert caught.value.status_code == 410
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(**says(previous_response_id=response.id))
    assert caught.value.code == "previous_response_not_found"


def test_an_item_of_an_answer_may_be_named_instead_of_sent(sdk):
    first = sdk.responses.create(**says("remember this"))
    reference = {"type": "item_reference", "id": first.output[0].id}
    said = [{"role": "user", "content": "Hi"}, reference, {"role": "user", "content": "And?"}]
    second = sdk.responses.create(model="demo-echo", input=said)
    items = list(sdk.responses.input_items.list(second.id, order="asc"))
    assert items[1].content[0].text == "remember this"


def test_what_is_not_to_be_stored_is_kept_in_memory_alone(sdk, hasty):
    response = sdk.responses.create(**says("a rare secret phrase", store=False))
    kept = sdk.responses.create(**says("another phrase"))
    assert sdk.responses.retrieve(response.id).output_text == "a rare secret phrase"
    with pytest.raises(openai.NotFoundError):
        list(sdk.responses.input_items.list(response.id))
    written = [path.read_bytes() for path in (hasty.log_file.parent / "data").rglob("*") if path.is_file()]
    assert any(b"another" in data for data in written)
    assert not any(b"secret" in data for data in written)
    assert sdk.responses.retrieve(kept.id).store is True


def test_tokens_are_counted_without_an_answer(sdk):
    assert sdk.responses.input_tokens.count(**says()).input_tokens > 3


# --- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_any_output_is_an_error(sdk, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.responses.create(**says(model="nope"), stream=stream)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.responses.create(**says(model="demo-rate-limited"), stream=stream)
    assert caught.value.response.headers["retry-after"] == "2"
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model="demo", input=[], stream=stream)
    assert caught.value.param == "input"


@pytest.mark.parametrize("model", ["demo-error", "demo-cut", "demo-truncated"])
def test_an_answer_that_breaks_off_is_no_success(sdk, model):
    last = events(sdk, **says("Hello", model=model))[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.code
    assert last.response.error.message
    assert last.response.output_text
    with pytest.raises(RuntimeError, match=r"response\.completed"):
        helped(sdk, **says("Hello", model=model))
    with pytest.raises(openai.InternalServerError):
        sdk.responses.create(**says("Hello", model=model))
    assert sdk.responses.retrieve(last.response.id).status == "failed"


def test_silence_is_borne(sdk):
    assert helped(sdk, **says("x", model="pausing")).output_text == "before after"


def test_another_ones_response_is_not_there(tmp_path, upstream):
    more = {"keys": {"one": "first-secret-key", "two": "second-secret-key"}}
    with serving(tmp_path, settings(upstream, **more)) as gateway:

        def using(key):
            return openai.OpenAI(base_url=gateway.api, api_key=key, max_retries=0, timeout=PATIENCE)

        with using("first-secret-key") as first, using("second-secret-key") as second:
            response = first.responses.create(**says())
            for attempt in (
                lambda: second.responses.retrieve(response.id),
                lambda: second.responses.cancel(response.id),
                lambda: second.responses.delete(response.id),
                lambda: list(second.responses.input_items.list(response.id)),
            ):
                with pytest.raises(openai.NotFoundError):
                    attempt()
            with pytest.raises(openai.BadRequestError) as caught:
                second.responses.create(**says(previous_response_id=response.id))
            assert caught.value.code == "previous_response_not_found"
            reference = [{"type": "item_reference", "id": response.output[0].id}]
            with pytest.raises(openai.NotFoundError):
                second.responses.create(**says(reference))
            assert first.responses.retrieve(response.id).status == "completed"


def test_a_native_request_may_be_one_of_responses_and_any_stream_is_read_as_one(hasty):
    body = {"dialect": "openai_responses", "request": says()}
    with httpx.Client(base_url=hasty.url, timeout=PATIENCE) as client:
        created = client.post("/v1/streams", json=body)
        stream = created.headers["stream-id"]
        read = client.get(f"/v1/streams/{stream}/events?dialect=openai_responses").text
        chat = client.post(
            "/v1/chat/completions",
            json={"model": "demo-echo", "messages": [{"role": "user", "content": "x"}]},
        )
        as_response = client.get(f"/v1/responses/{chat.headers['stream-id']}").json()
    assert "event: response.completed\n" in read
    assert read.count("\nid: ") > 5
    assert as_response["output"][0]["content"][0]["text"] == "x"


def test_the_async_client_is_served_alike(hasty):
    async def ask():
        async with (
            openai.AsyncOpenAI(base_url=hasty.api, api_key="unused", timeout=PATIENCE) as sdk,
            sdk.responses.stream(**says()) as stream,
        ):
            return await stream.get_final_response()

    assert asyncio.run(ask()).output_text == "one two three"
