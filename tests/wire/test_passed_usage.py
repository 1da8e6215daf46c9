"""What an answer that is passed on says it used: in any form and place, and nowhere a client could put it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.events import UsageReported
from penstock.wire.passed_usage import MAX_HEAD, MAX_TAIL, UsageReader, tokens_asked

LONG = "x" * (4 * MAX_TAIL)

EMBEDDINGS = {"prompt_tokens": 9, "total_tokens": 9}
PICTURE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40, "cached_tokens": 8},
    "output_tokens": 4160,
    "total_tokens": 4210,
}
SPEECH = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}

FORMS = [
    (EMBEDDINGS, UsageReported(9)),
    (PICTURE, UsageReported(50, 4160, cached_tokens=8)),
    (SPEECH, UsageReported(14, 101)),
    ({"type": "tokens", **SPEECH}, UsageReported(14, 101)),
    ({"total_tokens": 7}, UsageReported(7)),
    ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, UsageReported(5, 2)),
    ({"prompt_tokens": 0, "total_tokens": 0}, UsageReported()),
    ({"type": "duration", "seconds": 9}, None),
    ({"prompt_tokens": -5}, None),
    ({"prompt_tokens": 1e99}, None),
    ({"prompt_tokens": True}, None),
    ([], None),
    (None, None),
]


def read(data: bytes, kind: str = "application/json", size: int = 16_384) -> UsageReported | None:
    reader = UsageReader(kind)
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
    return reader.usage()


def body(**fields) -> bytes:
    return json.dumps(fields).encode()


def events(*said: dict) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), body(**one)) for one in said)


@pytest.mark.parametrize(("usage", "found"), FORMS)
def test_each_form_is_read_wherever_it_stands_in_an_answer_of_any_size(usage, found):
    for content in ("", LONG):
        for fields in (
            {"object": "list", "data": [{"embedding": content}], "model": "m", "usage": usage},
            {"created": 1, "usage": usage, "data": [{"b64_json": content}]},
            {"data": [{"b64_json": content}], "usage": usage, "quality": "high", "size": {"w": 1}},
        ):
            assert read(body(**fields)) == found
            assert read(json.dumps(fields, indent=2).encode(), "application/json; charset=utf-8") == found


@pytest.mark.parametrize("content", ["", LONG])
def test_the_last_event_that_has_one_tells_it(content):
    partial = {"type": "image_generation.partial_image", "b64_json": content, "usage": EMBEDDINGS}
    done = {"type": "image_generation.completed", "b64_json": content, "usage": PICTURE}
    assert read(events(partial, done), "text/event-stream") == UsageReported(50, 4160, cached_tokens=8)
    rest = b"data: [DONE]\n\n"
    assert read(events(partial, done) + rest, "text/event-stream; charset=utf-8").output_tokens == 4160
    assert read(events(partial), "text/event-stream") == UsageReported(9)
    assert read(events({"type": "speech.audio.delta", "audio": content}), "text/event-stream") is None


@pytest.mark.parametrize("pad", ["", LONG])
def test_what_a_client_wrote_is_no_usage(pad):
    words = '"usage": {"total_tokens": 1}}'
    nested = {"usage": {"total_tokens": 1}}
    for fields in (
        {"text": words},
        {"text": pad + words},
        {"results": [{"document": nested}], "model": pad},
        {"results": [{"document": {"usage": {"total_tokens": 1}, "text": pad}}]},
        {"pad": pad, "results": [{"document": nested}, {"document": nested}]},
        {"pad": pad, "results": {"document": nested}},
    ):
        assert read(body(**fields)) is None
        assert read(body(**fields, usage=EMBEDDINGS)) == UsageReported(9)


def test_of_sound_nothing_is_kept():
    reader = UsageReader("audio/mpeg")
    reader.feed(body(usage=EMBEDDINGS))
    assert (reader.usage(), repr(reader)) == (None, "<UsageReader 0 of 0 bytes>")


def test_what_is_kept_is_bounded():
    reader = UsageReader("application/json")
    for _ in range(200):
        reader.feed(b"y" * 30_000)
        assert len(reader._tail) <= 2 * MAX_TAIL + 30_000
    assert len(reader._head) == MAX_HEAD


@given(st.binary(max_size=400), st.sampled_from(["application/json", "text/event-stream"]))
def test_no_bytes_break_it(data, kind):
    for whole in (data, b'{"a":"' + LONG.encode() + data, data + b'"usage":{' * 50 + LONG.encode()):
        read(whole, kind)


@given(st.integers(1, 200_000), st.integers(0, 3))
def test_pieces_make_no_difference(size, number):
    fields = {"data": LONG[: number * MAX_TAIL], "usage": PICTURE}
    assert read(body(**fields), size=size) == UsageReported(50, 4160, cached_tokens=8)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"input": "four by four is 16."}, 5),
        ({"input": ["four", "more"], "model": "not counted"}, 2),
        ({"input": [1, 2, 3]}, 3),
        ({"input": [[1, 2, 3], [4]]}, 4),
        ({"query": "what", "documents": ["four", {"text": "more"}]}, 3),
        ({"prompt": "a cat", "n": 2}, 2),
        ({"input": [[[[["deep"]]]]]}, 0),
        ({"input": None}, 0),
        ({"input": "\ud800"}, 1),
    ],
)
def test_what_is_sent_is_estimated(asked, tokens):
    assert tokens_asked(asked) == tokens
