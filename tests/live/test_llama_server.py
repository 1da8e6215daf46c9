"""Through the gateway to a real model server and back, with the official SDK; see docs/guide/live-test.md."""

import json

import httpx
import openai
import pytest

from penstock.wire.sse import SseDecoder, SseFrame
from tests.live.conftest import SLOT_TOKENS, wait_for

pytestmark = pytest.mark.live

LONG = 3000
"""Tokens of an answer that is still going on when something is done about it."""


def asking(tokens: int, **more: object) -> dict:
    """A request whose answer is the same each time, and ends for no other reason than its length."""
    same = {"temperature": 0, "seed": 1, "max_tokens": tokens}
    messages = [{"role": "user", "content": "bada lupi dona 你好 🙂"}]
    return {"model": "tiny", "messages": messages, **same, "extra_body": {"ignore_eos": True}, **more}


def body(tokens: int) -> dict:
    """`asking`, as it goes over the wire."""
    asked = asking(tokens, stream=True)
    return {**asked, **asked.pop("extra_body")}


def text_of(chunks: list) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_chunks_come_one_by_one_as_the_model_makes_them(client, model_server):
    direct = list(model_server.client.chat.completions.create(**asking(300), stream=True))
    with client.chat.completions.create(**asking(300), stream=True) as stream:
        chunks = list(stream)
    assert text_of(chunks) == text_of(direct)
    spoken = [chunk for chunk in direct if text_of([chunk])]
    assert len([chunk for chunk in chunks if text_of([chunk])]) == len(spoken) > 250
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


def test_first_chunk_is_here_while_the_model_still_speaks(client, model_server):
    with client.chat.completions.create(**asking(LONG), stream=True) as stream:
        next(iter(stream))
        assert model_server.busy == 1
    wait_for(lambda: not model_server.busy, "a client that left did not stop the model")


def test_usage_is_the_model_servers_own(client):
    options = {"stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**asking(50), stream=True, **options))
    assert chunks[-1].usage.completion_tokens == 50
    assert chunks[-1].usage.prompt_tokens > 10
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_plain_answer_is_whole(client, model_server):
    ours = client.chat.completions.create(**asking(50))
    theirs = model_server.client.chat.completions.create(**asking(50))
    assert ours.choices[0].message.content == theirs.choices[0].message.content
    assert ours.choices[0].finish_reason == "length"
    assert ours.usage.completion_tokens == 50


def taken(response: httpx.Response, count: int | None = None) -> list[SseFrame]:
    """Read events of a response, and leave after ``count``."""
    decoder, frames = SseDecoder(), []
    for piece in response.iter_raw():
        frames += decoder.feed(piece)
        if count is not None and len(frames) >= count:
            break
    return frames[:count]


@pytest.mark.parametrize("way", ["the same request again", "the stream's own address"])
def test_resume_in_the_middle_gives_the_same_answer(gateway, model_server, way):
    whole = model_server.client.chat.completions.create(**asking(LONG)).choices[0].message.content
    headers = {"Accept": "text/event-stream", "Idempotency-Key": way}
    chat = {"method": "POST", "url": f"{gateway.url}/v1/chat/completions", "json": body(LONG)}
    with httpx.stream(**chat, headers=headers) as response:
        first = taken(response, 100)
        stream = response.headers["stream-id"]
    assert model_server.busy == 1  # it may come back, so the model goes on
    if way != "the same request again":
        chat = {"method": "GET", "url": f"{gateway.url}/v1/streams/{stream}/events?dialect=openai_chat"}
    with httpx.stream(
        **chat, headers={**headers, "Last-Event-ID": first[-1].id.decode()}, timeout=60
    ) as response:
        assert response.headers["stream-id"] == stream
        rest = taken(response)
    chunks = [json.loads(frame.data) for frame in [*first, *rest] if frame.data != b"[DONE]"]
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert said == whole


def test_cancel_stops_the_model_and_the_reader_is_told(gateway, client, model_server):
    answer = client.chat.completions.with_raw_response.create(**asking(LONG), stream=True)
    stream = answer.headers["stream-id"]
    chunks = iter(answer.parse())
    next(chunks)
    assert model_server.busy == 1
    cancelled = httpx.post(f"{gateway.url}/v1/streams/{stream}/cancel").json()
    assert cancelled["status"] == "cancelled"
    wait_for(lambda: not model_server.busy, "the model was not stopped")
    with pytest.raises(openai.APIError, match="cancelled"):
        list(chunks)


def test_prompt_that_is_too_long_is_refused_in_the_model_servers_words(client):
    message = {"role": "user", "content": "bada " * SLOT_TOKENS}
    for stream in (True, False):
        with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
            client.chat.completions.create(**{**asking(5), "messages": [message]}, stream=stream)


def test_request_that_makes_no_sense_is_refused_in_the_model_servers_words(client, model_server):
    asked = {**asking(5), "extra_body": {"grammar": "root ::= ("}}
    with pytest.raises(openai.APIStatusError) as theirs:
        model_server.client.chat.completions.create(**asked)
    with pytest.raises(openai.APIStatusError) as ours:
        client.chat.completions.create(**asked, stream=True)
    assert ours.value.status_code == theirs.value.status_code == 400
    assert ours.value.body["message"] == theirs.value.body["message"]


def test_model_is_listed(client):
    assert "tiny" in {model.id for model in client.models.list()}
