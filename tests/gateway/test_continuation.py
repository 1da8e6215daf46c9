"""Going on from a text: what may be continued, how it is asked, and that the seam is exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.continuation import (
    MAX_OVERLAP,
    MIN_OVERLAP,
    SeamDecoder,
    continued,
    may_continue,
    overlap,
    shown,
)
from penstock.types.events import (
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.types.requests import GenerationRequest, Message

STORY = "The keeper opens the sluice.\nWater lifts the boat, slowly — 水が船を持ち上げる 🚤.\n"
STORY += " ".join(f"{number * number} boats" for number in range(20))


class Pieces:
    """A decoder that gives what it is fed."""

    finished = False
    usage = None

    def feed(self, data):
        return data

    def flush(self):
        return ()


def request(**more):
    return GenerationRequest("m", (Message("user", "Tell"),), **more)


def cut(text, sizes):
    """Cut ``text`` into pieces of these sizes, over and over."""
    at, pieces = 0, []
    while at < len(text):
        for size in sizes:
            pieces.append(text[at : at + size])
            at += size
    return [piece for piece in pieces if piece]


def sewn(so_far, rest, mode, sizes=(3,)):
    """Return the text that a continuation adds."""
    decoder = SeamDecoder(Pieces(), shown([TextDelta(so_far)]), Seam("b", mode))
    events = [*decoder.feed([Started("m"), ReasoningDelta("hm")])]
    for piece in cut(rest, sizes):
        events += decoder.feed([TextDelta(piece)])
    events += decoder.feed([Finished("stop")])
    events += decoder.flush()
    assert type(events[0]) is Seam
    assert [type(event) for event in events].count(Finished) == 1
    assert type(events[-1]) is Finished
    return "".join(event.delta for event in events if type(event) is TextDelta)


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(st.integers(1, len(STORY) - 1), sizes)
def test_seam_of_a_prefill_is_exact(at, sizes):
    before, after = STORY[:at], STORY[at:]
    # What is sent ends without white space, so the model begins with it.
    given_white = before[len(before.rstrip()) :]
    assert before + sewn(before, given_white + after, "prefill", sizes) == STORY


@given(st.integers(20, len(STORY) - 1), st.integers(MIN_OVERLAP, 400), sizes)
def test_repeated_end_is_cut_away_however_it_comes(at, repeated, sizes):
    before, after = STORY[:at], STORY[at:]
    again = before[-min(repeated, at) :]
    if len(again) >= MIN_OVERLAP:
        assert before + sewn(before, again + after, "prompt", sizes) == STORY


@given(st.integers(20, len(STORY) - 1), sizes)
def test_text_that_repeats_nothing_is_left_as_it_is(at, sizes):
    before = STORY[:at]
    assert (
        sewn(before, "Something else altogether, 別のこと", "prompt", sizes)
        == "Something else altogether, 別のこと"
    )


def test_few_equal_characters_are_chance_but_a_whole_line_is_not():
    assert overlap("… of the", "the boat") == 0
    assert overlap("first\nshort", "short and more") == 5
    assert overlap("short", "short and more") == 5


def test_what_is_held_back_is_bounded():
    decoder = SeamDecoder(Pieces(), shown([TextDelta("a" * 10_000)]), Seam("b", "prompt"))
    decoder.feed([Started("m")])
    came = [event for _ in range(MAX_OVERLAP + 1) for event in decoder.feed([TextDelta("a")])]
    assert came or decoder.feed([TextDelta("b")])


@pytest.mark.parametrize(
    ("events", "sewable"),
    [
        ([Started("m"), TextDelta("one"), UsageReported(1, 1)], True),
        ([ReasoningDelta("hm"), TextDelta("one")], True),
        ([TextDelta(" \n")], False),
        ([ReasoningDelta("hm")], True),
        ([ReasoningDelta("hm"), TextDelta("\n")], False),
        ([ReasoningDelta("hm"), ToolCallDelta(0, "{")], False),
        ([TextDelta("one"), TextDelta("two", 1)], False),
        ([TextDelta("one"), ToolCallDelta(0, "{")], False),
        ([TextDelta("one"), RefusalDelta("no")], False),
        ([TextDelta("one"), Finished("stop")], False),
        ([TextDelta("one", logprobs=[1])], False),
        ([], False),
    ],
)
def test_only_plain_text_can_be_sewn(events, sewable):
    assert shown(events).sewable is sewable


@pytest.mark.parametrize(
    ("more", "may"),
    [
        ({}, True),
        ({"response_format": {"type": "text"}}, True),
        ({"response_format": {"type": "json_schema"}}, False),
        ({"n": 2}, False),
        ({"logprobs": True}, False),
    ],
)
def test_requests_that_may_be_continued(more, may):
    assert may_continue(request(**more)) is may


def test_prefill_is_the_beginning_of_the_answer_without_white_space_at_its_end():
    asked = continued(request(), shown([TextDelta("one "), TextDelta("two \n")]), "prefill")
    assert asked.messages[1:] == (Message("assistant", "one two"),)


def test_prompt_asks_for_the_rest():
    asked = continued(request(), shown([TextDelta("one ")]), "prompt")
    assert [message.role for message in asked.messages] == ["user", "assistant", "user"]
    assert asked.messages[1].content == "one "


def test_rest_may_be_as_long_as_was_left():
    so_far = shown([TextDelta("word ")] * 30)
    assert continued(request(max_output_tokens=100), so_far, "prefill").max_output_tokens == 70
    assert continued(request(max_output_tokens=20), so_far, "prefill").max_output_tokens == 1


def test_after_a_restart_the_text_is_what_came_behind_the_mark():
    seam = Seam("b", "restart")
    assert shown([TextDelta("old"), seam, TextDelta("[mark]"), TextDelta("new")]).text == "new"
    assert shown([ReasoningDelta("hm"), seam, TextDelta("new")]).text == "new"


@pytest.mark.parametrize(("so_far", "marked"), [([TextDelta("old")], True), ([ReasoningDelta("hm")], False)])
def test_a_restart_is_marked_where_there_is_text_before_it(so_far, marked):
    decoder = SeamDecoder(Pieces(), shown(so_far), Seam("b", "restart"), "[mark]")
    events = [*decoder.feed([Started("m"), TextDelta("old and new")]), *decoder.feed([Finished("stop")])]
    texts = [event.delta for event in events if type(event) is TextDelta]
    assert texts == (["[mark]", "old and new"] if marked else ["old and new"])
