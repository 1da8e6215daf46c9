"""A content filter as a policy: requests refused and masked, answers masked, ended and counted."""

import msgspec
import pytest
from structlog.testing import capture_logs

from penstock.policies.content_filter import AnswerFilter, ContentFilter, Scope
from penstock.policies.policy import FilterStop
from penstock.policies.rulebook import BadRule, Rulebook, RuleSettings, compile_rules
from penstock.types.errors import ClientError
from penstock.types.events import (
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.types.requests import GenerationRequest, Message, TextPart, ToolCall
from tests.gateway.hand import call

SECRET = "the secret plan"
RULES = (
    RuleSettings(name="plans", words=(SECRET,)),
    RuleSettings(name="never", words=("forbidden",), action="block"),
    RuleSettings(name="names", words=("acme",), action="flag"),
)


@pytest.fixture(autouse=True)
def logs():
    with capture_logs() as logs:
        yield logs


def filtering(*rules, **scope):
    made = compile_rules(rules or RULES)
    return AnswerFilter(made, Scope(**scope), "house", {"request_id": "req_1"})


def shown(filter, *events):
    out = [*filter.feed(events)]
    return [*out, *filter.flush()]


def test_what_belongs_together_is_masked_across_pieces():
    events = [Started(), TextDelta("I know the sec"), TextDelta("ret pl"), TextDelta("an."), Finished("stop")]
    assert shown(filtering(), *events) == [
        Started(), TextDelta("I know "), TextDelta("***."), Finished("stop"),
    ]  # fmt: skip


def test_what_was_held_back_comes_before_what_the_answer_goes_on_with():
    events = [TextDelta("the secret"), ToolCallDelta(0, "{}", "c1", "f"), UsageReported(1, 2)]
    assert shown(filtering(), *events) == [
        TextDelta("the secret"), ToolCallDelta(0, "{}", "c1", "f"), UsageReported(1, 2),
    ]  # fmt: skip


def test_choices_parts_and_calls_are_texts_of_their_own():
    out = shown(
        filtering(),
        TextDelta("the sec", 0), TextDelta("ret plan", 1), TextDelta("ret plan", 0),
        ToolCallDelta(0, '{"a":"the sec', "c0", "f"), ToolCallDelta(1, 'ret plan', "c1", "f"),
        ToolCallDelta(0, 'ret plan"}'), Finished("tool_calls"), Finished("stop", 1),
    )  # fmt: skip
    texts = {}
    for event in out:
        if not isinstance(event, Finished):
            key = (event.index, getattr(event, "call", None))
            texts[key] = texts.get(key, "") + event.delta
    assert texts == {
        (0, None): "***", (1, None): "ret plan", (0, 0): '{"a":"***"}', (0, 1): "ret plan",
    }  # fmt: skip


def test_reasoning_and_tools_may_be_left_alone():
    loud = [ReasoningDelta(SECRET), TextDelta("so"), ToolCallDelta(0, SECRET, "c", "f"), RefusalDelta(SECRET)]
    out = shown(filtering(reasoning=False, tools=False), *loud)
    assert out == [*loud[:3], RefusalDelta("***")]
    assert shown(filtering(), *loud[:2]) == [ReasoningDelta("***"), TextDelta("so")]


def test_probabilities_of_tokens_do_not_tell_what_was_masked():
    out = shown(filtering(), TextDelta(SECRET + " ", logprobs=[1]), TextDelta("fine ", logprobs=[2]))
    assert out == [TextDelta("*** "), TextDelta("fine ", logprobs=[2])]


def test_names_and_signatures_arrive_though_their_text_is_held_back():
    out = shown(filtering(), ToolCallDelta(0, "the secret", "c1", "f"), ReasoningDelta("", signature="sig"))
    assert out == [
        ToolCallDelta(0, "", "c1", "f"), ToolCallDelta(0, "the secret"), ReasoningDelta("", signature="sig"),
    ]  # fmt: skip


def test_a_block_ends_every_choice_and_shows_what_came_before(logs):
    filter = filtering()
    assert filter.feed([TextDelta("It is for", 0), TextDelta("fine", 1)]) == [
        TextDelta("It is ", 0), TextDelta("fine", 1),
    ]  # fmt: skip
    with pytest.raises(FilterStop) as stopped:
        filter.feed([TextDelta("bidden to"), TextDelta("never shown")])
    assert stopped.value.error is None
    assert stopped.value.events == [
        Finished("content_filter", 0, raw="penstock:never"),
        Finished("content_filter", 1, raw="penstock:never"),
    ]
    assert logs == [
        {
            "event": "content_matched",
            "log_level": "info",
            "filter": "house",
            "rule": "never",
            "action": "block",
            "where": "output",
            "count": 1,
            "request_id": "req_1",
        },
    ]


def test_a_block_at_the_very_end_is_one():
    with pytest.raises(FilterStop):
        shown(filtering(), TextDelta("forbidden"))


def test_a_flag_changes_nothing_and_says_no_word_of_it(logs):
    assert shown(filtering(), TextDelta("Acme, ACME ")) == [TextDelta("Acme, ACME ")]
    (told,) = logs
    assert (told["rule"], told["action"], told["count"]) == ("names", "flag", 2)
    assert "acme" not in str(told).lower()


def test_a_pattern_that_takes_for_ever_ends_the_answer():
    filter = filtering(RuleSettings(pattern=r"(?:a|aa|a{1,3}){1,60}b"))
    with pytest.raises(FilterStop) as stopped:
        filter.feed([TextDelta("a" * 60 + "c" + "a" * 60)])
    assert stopped.value.error.code == "filter_failed"


# --- requests ----------------------------------------------------------------------------------------


def asked(*messages, model="m"):
    return msgspec.structs.replace(call(), request=GenerationRequest(model, messages))


def house(**scope):
    rules = compile_rules(RULES)
    return ContentFilter("house", lambda: rules, Scope(**scope))


async def test_a_request_is_masked_wherever_it_speaks():
    messages = [
        Message("system", f"Keep {SECRET}."),
        Message("user", (TextPart(SECRET), TextPart("hello"))),
        Message("assistant", None, tool_calls=(ToolCall("c", "f", f'{{"a":"{SECRET}"}}'),)),
    ]
    admitted = await house().admit(asked(*messages))
    assert admitted.call.request.messages == (
        Message("system", "Keep ***."),
        Message("user", (TextPart("***"), TextPart("hello"))),
        Message("assistant", None, tool_calls=(ToolCall("c", "f", '{"a":"***"}'),)),
    )


async def test_a_request_with_nothing_in_it_is_handed_on_as_it_is():
    made = asked(Message("user", "hello"))
    assert (await house().admit(made)).call is made


async def test_a_request_is_refused_with_the_rule_and_without_the_words(logs):
    with pytest.raises(ClientError) as refused:
        await house().admit(asked(Message("user", "something Forbidden!")))
    assert (refused.value.code, refused.value.status) == ("content_filter", 400)
    assert "'never'" in refused.value.message
    assert "orbidden" not in refused.value.message + str(logs)


@pytest.mark.parametrize(
    "scope", [{"input": False, "output": False}, {"models": ("other*",)}, {"principals": ("somebody",)}]
)
async def test_a_filter_looks_only_where_it_is_meant(scope):
    made = asked(Message("user", "forbidden"))
    assert (await house(**scope).admit(made)).call is made
    assert house(**scope).filter(made) is None


# --- rules from settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "part", "what"),
    [
        ({}, "", "give one of"),
        ({"words": ("a",), "pattern": "b"}, "", "give one of"),
        ({"words": ("*",)}, "words", "nothing to look for"),
        ({"pattern": "a.*"}, "pattern", "bound its repetitions"),
        ({"detect": ("shoes",)}, "detect", "there are email"),
        ({"words_file": "/nowhere/list.txt"}, "words_file", "cannot be read"),
    ],
)
def test_a_bad_rule_says_what_to_write_instead(rule, part, what):
    with pytest.raises(BadRule, match=what) as bad:
        compile_rules([RuleSettings(words=("fine",)), RuleSettings(**rule)])
    assert (bad.value.number, bad.value.part) == (1, part)


def test_a_list_that_was_changed_is_read_again_and_a_broken_one_is_not(tmp_path, logs):
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# ours\none\n\n", "utf-8")
    book = Rulebook("house", [RuleSettings(words_file=str(path))])
    before = AnswerFilter(book.current(), Scope(), "house", {})
    assert not book.reload()
    path.write_text("one\ntwo and more\n")
    assert book.reload()
    assert shown(AnswerFilter(book.current(), Scope(), "house", {}), TextDelta("two and more")) == [
        TextDelta("***")
    ]
    assert shown(before, TextDelta("two and more")) == [TextDelta("two and more")]
    path.write_bytes(b"\xff\xfe bad, and longer than before")
    rules = book.current()
    assert not book.reload()
    path.unlink()
    assert not book.reload()
    assert book.current() is rules
    assert [one["event"] for one in logs if one["event"].startswith("filter")] == [
        "filter_reloaded", "filter_not_reloaded", "filter_not_reloaded",
    ]  # fmt: skip


@pytest.fixture
def books(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("one\n")
    rules = (RuleSettings(words=("one",)), RuleSettings(words_file=str(path)))
    return [Rulebook("house", [rule]) for rule in rules]


async def test_a_book_watches_its_files_until_it_is_closed(books):
    for book in books:
        await book.open()
        await book.aclose()
