"""Events as lines: the stored record and the native wire format are one."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types import events
from penstock.types.events import (
    Annotation,
    Closed,
    Finished,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    Timing,
    ToolCallDelta,
    UsageReported,
    decode_line,
    encode_line,
    has_output,
    split_long,
)

ONE_OF_EACH = [
    Started(model="m", id="u-1", created=5, provider="p", extra={"chunk": {"system_fingerprint": "fp"}}),
    TextDelta("hi", 1, 2, logprobs={"content": []}, extra={"delta": {"x": 1}}),
    ReasoningDelta("why", summary=True, signature="s", encrypted="e"),
    RefusalDelta("no"),
    ToolCallDelta(1, '{"a"', id="call_1", name="f"),
    Annotation({"url": "u"}, "openai_chat"),
    UsageReported(1, 2, 3, 4, 5, estimated=True),
    Finished("tool_calls", raw="function_call"),
    Opaque("openai_chat", {"prompt_filter_results": []}),
    Closed("failed", "c", "m", "upstream", True, 3, "a", "b", 2, "t", UsageReported(1), Timing(1, 2, 3)),
]


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_every_event_comes_back_from_its_line(event):
    assert decode_line(encode_line(7, event)) == event


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_a_line_is_one_json_object_that_begins_with_its_number(event):
    line = encode_line(42, event)
    assert line.startswith(b'{"n":42,"type":"')
    assert json.loads(line)["n"] == 42


def test_stored_tags_and_fields_are_frozen():
    """A stored format: what is written today has to be readable for ever."""
    assert encode_line(4, TextDelta(" hello")) == b'{"n":4,"type":"text","delta":" hello"}'
    old = b'{"n":9,"type":"end","status":"completed","entries":8,"sha256":"x","text_sha256":"y"}'
    assert decode_line(old) == Closed("completed", entries=8, sha256="x", text_sha256="y")


def test_fields_that_a_later_version_added_are_ignored():
    assert decode_line(b'{"n":1,"type":"text","delta":"x","later":true}') == TextDelta("x")


@given(st.text())
def test_a_line_never_holds_anything_that_a_reader_takes_for_a_line_end(text):
    line = encode_line(1, TextDelta(text)) if not _has_surrogates(text) else b""
    assert len(line.decode().splitlines()) <= 1
    if line:
        assert decode_line(line) == TextDelta(text)


def _has_surrogates(text):
    return any("\ud800" <= c <= "\udfff" for c in text)


def test_what_is_no_event_is_refused():
    with pytest.raises(msgspec.ValidationError):
        decode_line(b'{"n":1,"type":"unheard_of"}')


@pytest.mark.parametrize(
    ("event", "output"),
    [
        (Started("m"), False),
        (TextDelta(""), False),
        (TextDelta("x"), True),
        (ReasoningDelta(signature="s"), False),
        (ToolCallDelta(0), True),
        (UsageReported(1), False),
        (Finished("stop"), True),
        (Opaque("d", {}), False),
    ],
)
def test_output_is_what_somebody_could_act_on(event, output):
    assert has_output(event) is output


@given(st.text(max_size=50), st.integers(1, 7))
def test_a_split_delta_joins_to_the_same_text(text, limit):
    pieces = list(split_long(TextDelta(text, 2, 3, logprobs=[1]), limit))
    assert "".join(piece.delta for piece in pieces) == text
    assert all(len(piece.delta) <= limit and piece.index == 2 and piece.part == 3 for piece in pieces)
    assert [piece.logprobs for piece in pieces] == [[1]] + [None] * (len(pieces) - 1)


def test_a_split_tool_call_names_itself_once():
    pieces = list(split_long(ToolCallDelta(1, "abcdef", id="i", name="f", index=2), 4))
    assert [(p.id, p.name, p.call, p.index, p.delta) for p in pieces] == [
        ("i", "f", 1, 2, "abcd"),
        ("", "", 1, 2, "ef"),
    ]


@pytest.mark.parametrize("event", [ReasoningDelta("abc", summary=True), RefusalDelta("abc")])
def test_other_deltas_split_too(event):
    pieces = list(split_long(event, 2))
    assert [p.delta for p in pieces] == ["ab", "c"]
    assert type(pieces[1]) is type(event)


def test_an_entry_of_the_longest_delta_stays_under_256_kib():
    worst = TextDelta("\x00" * events.MAX_DELTA_CHARS)  # six bytes each as \u0000
    assert len(encode_line(10**11, worst)) < 256 * 1024
