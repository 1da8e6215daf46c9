"""What scripted models say: cues, read without playing them."""

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.pieces import MAX_PIECE_CHARS
from penstock.providers.script import (
    MAX_QUOTE_CHARS,
    MODELS,
    Ending,
    compose,
    estimate_input_tokens,
    load_texts,
    quote,
)
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
from penstock.types.requests import GenerationRequest, ImagePart, Message, TextPart, Tool, ToolCall

TEXTS = load_texts()
MAX_CUES = 300_000


def ask(said="What is this?", **fields):
    messages = fields.pop("messages", (Message("user", said),))
    settings = fields.pop("script", None)
    extra = {"penstock_script": settings} if settings is not None else None
    return GenerationRequest("any", messages, extra=extra, **fields)


def cues_of(request, model="demo"):
    return list(itertools.islice(compose(request, model, TEXTS), MAX_CUES))


def events_of(request, model="demo"):
    return [event for cue in cues_of(request, model) if isinstance(cue.action, list) for event in cue.action]


def text_of(events, index=0):
    return "".join(e.delta for e in events if isinstance(e, TextDelta) and e.index == index)


def finish_of(events, index=0):
    (finish,) = [event for event in events if isinstance(event, Finished) and event.index == index]
    return finish


def ending_of(request, model):
    action = cues_of(request, model)[-1].action
    return action if isinstance(action, Ending) else None


def test_an_answer_starts_once_finishes_once_and_reports_usage_last():
    events = events_of(ask())
    assert isinstance(events[0], Started)
    assert sum(isinstance(event, Started) for event in events) == 1
    assert finish_of(events) == Finished("stop")
    usage = events[-1]
    assert isinstance(usage, UsageReported)
    assert usage.estimated
    assert usage.output_tokens == sum(isinstance(event, TextDelta) for event in events)
    assert usage.input_tokens == events[0].input_tokens == estimate_input_tokens(ask().messages)


def test_the_same_request_gets_the_same_cues():
    assert cues_of(ask("Hi")) == cues_of(ask("Hi"))


def test_a_seed_changes_the_beat():
    assert [c.gap for c in cues_of(ask(seed=1))] != [c.gap for c in cues_of(ask(seed=2))]


def test_an_answer_is_paced_like_a_real_model():
    cues = cues_of(ask())
    assert 0.25 < cues[0].gap < 0.45
    assert 35 < len(cues) / sum(cue.gap for cue in cues[1:]) < 55
    assert len({cue.gap for cue in cues}) > 100


def test_without_jitter_the_beat_is_even():
    script = {"jitter": 0, "tokens_per_second": 50, "first_token_delay": 1.5}
    cues = cues_of(ask(script=script))
    assert cues[0].gap == 1.5
    assert {cue.gap for cue in cues[1:-1]} == {0.02}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Hello there!", "greeting"),
        ("Show me some code", "code"),
        ("这是什么？", "chinese"),
        ("Why is the sky blue?", "tour"),
        ("Highlight the differences", "tour"),
        ("", "tour"),
    ],
)
def test_the_last_user_message_chooses_the_text(said, text):
    assert text_of(events_of(ask(said))) == TEXTS[text].replace("{quote}", quote(said))


def test_the_texts_show_markdown_east_asian_characters_and_emoji():
    tour = TEXTS["tour"]
    assert "## " in tour
    assert "\n- " in tour
    assert "| --- |" in tour
    assert "```bash" in tour
    assert "流式网关" in tour
    assert "👩‍🚀" in tour


@pytest.mark.parametrize("text", sorted(TEXTS))
def test_texts_close_their_code_blocks(text):
    assert TEXTS[text].count("```") % 2 == 0


@given(st.text())
def test_a_quote_is_one_short_line(said):
    line = quote(said)
    assert line
    assert len(line.splitlines()) == 1
    assert len(line) <= 2 * (MAX_QUOTE_CHARS + 1)


def test_a_quote_is_cut_between_characters_and_harmless_in_markdown():
    assert quote("`code` and <b>") == r"\`code\` and \<b\>"
    assert quote("👩‍🚀" * 50).strip("👩‍🚀…") == ""


def test_parts_of_a_message_are_read_as_text():
    parts = (TextPart("Hello"), ImagePart(url="https://example.com/a.png"))
    assert "“Hello”" in text_of(events_of(ask(messages=(Message("user", parts),))))


def test_max_output_tokens_ends_the_answer_with_length():
    events = events_of(ask(max_output_tokens=7))
    assert sum(isinstance(event, TextDelta) for event in events) == 7
    assert finish_of(events).reason == "length"
    assert events[-1].output_tokens == 7


def test_a_stop_string_ends_the_answer_before_it():
    whole = text_of(events_of(ask()))
    events = events_of(ask(stop=("gateway for", "nowhere")))
    assert text_of(events) == whole[: whole.index("gateway for")]
    assert finish_of(events) == Finished("stop", stop_sequence="gateway for")


def test_the_earliest_stop_string_wins():
    events = events_of(ask("one two three four"), "demo-echo")
    assert text_of(events) == "one two three four"
    events = events_of(ask("one two three four", stop=("four", "two")), "demo-echo")
    assert text_of(events) == "one "


def test_a_stop_string_beyond_the_length_plays_no_part():
    request = ask("a b c d ", stop=("d",), script={"tokens": 2})
    events = events_of(request, "demo-echo")
    assert text_of(events) == "a b"
    assert finish_of(events) == Finished("stop")


def test_choices_are_interleaved_and_each_finishes():
    events = events_of(ask(n=3))
    assert [event.index for event in events if isinstance(event, TextDelta)][:6] == [0, 1, 2, 0, 1, 2]
    assert len({text_of(events, index) for index in range(3)}) == 3
    assert [finish_of(events, index).reason for index in range(3)] == ["stop"] * 3
    assert sum(isinstance(event, UsageReported) for event in events) == 1


def test_echo_repeats_the_last_user_message_word_by_word():
    said = "Repeat this,  please:\n- 你好吗\n"
    messages = (Message("user", "before"), Message("assistant", "ok"), Message("user", said))
    events = events_of(ask(messages=messages), "demo-echo")
    assert text_of(events) == said
    assert TextDelta(" this,") in events


def test_echo_of_nothing_is_an_empty_answer_however_long_it_should_be():
    events = events_of(ask("", script={"tokens": 5}), "demo-echo")
    assert text_of(events) == ""
    assert finish_of(events).reason == "stop"


def test_long_answers_are_exactly_as_long_as_asked():
    assert events_of(ask(), "demo-long")[-1].output_tokens == 4_000
    assert events_of(ask(), "demo-long?tokens=50")[-1].output_tokens == 50
    assert events_of(ask(script={"tokens": 600}), "demo")[-1].output_tokens == 600
    assert events_of(ask(script={"tokens": 600}, stop=("nowhere",)), "demo")[-1].output_tokens == 600


def test_the_request_wins_over_the_name_and_the_name_over_the_model():
    request = ask(script={"tokens": 9})
    assert events_of(request, "demo-long?tokens=50&jitter=0")[-1].output_tokens == 9


@pytest.mark.parametrize("model", ["demo-cut", "demo-error", "demo-truncated", "demo-stall"])
def test_misbehaviour_comes_after_twenty_tokens(model):
    events = events_of(ask(), model)
    assert sum(isinstance(event, TextDelta) for event in events) == 20
    assert not any(isinstance(event, Finished | UsageReported) for event in events)


@pytest.mark.parametrize(
    ("model", "code", "in_band"),
    [("demo-cut", "upstream_reset", False), ("demo-error", "upstream_error", True)],
)
def test_failures_end_as_the_model_says(model, code, in_band):
    ending = ending_of(ask(), model)
    assert ending is not None
    assert ending.error is not None
    assert (ending.error.code, ending.in_band) == (code, in_band)


def test_a_stalled_answer_has_no_ending_and_a_truncated_one_an_unsuspicious_one():
    assert ending_of(ask(), "demo-stall") is None
    assert ending_of(ask(), "demo-truncated") == Ending()


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("demo-rate-limited", 429, "rate_limit_exceeded"), ("demo-overloaded", 503, "overloaded")],
)
def test_refused_requests_say_nothing_and_when_to_come_back(model, status, code):
    assert events_of(ask(), model) == []
    ending = ending_of(ask(), model)
    assert ending is not None
    error = ending.error
    assert error is not None
    assert (error.status, error.upstream_status, error.code) == (status, status, code)
    assert error.retryable
    assert error.retry_after == 2


def test_any_model_can_be_made_to_fail_and_an_early_end_does_not_save_it():
    script = {"failure": "cut", "fail_after": 3}
    assert sum(isinstance(e, TextDelta) for e in events_of(ask(script=script), "demo-echo")) == 3
    ending = ending_of(ask("two words", script=script | {"fail_after": 99}), "demo-echo")
    assert ending is not None
    assert ending.error is not None


def test_a_failure_in_the_middle_of_a_round_keeps_what_was_said_in_it():
    events = events_of(ask(n=3, script={"failure": "cut", "fail_after": 4}))
    assert [event.index for event in events if isinstance(event, TextDelta)] == [0, 1, 2, 0]


def test_slow_start_is_silent_for_about_ten_seconds():
    assert 8 < cues_of(ask(), "demo-slow-start")[0].gap < 12


def test_reasoning_comes_before_the_text_and_is_counted():
    events = events_of(ask(), "demo-reasoning")
    kinds = [type(event) for event in events if isinstance(event, ReasoningDelta | TextDelta)]
    assert kinds == sorted(kinds, key=lambda kind: kind is TextDelta)
    usage = events[-1]
    assert 0 < usage.reasoning_tokens == kinds.count(ReasoningDelta) < usage.output_tokens


def test_a_refusal_is_no_text():
    events = events_of(ask(), "demo-refusal")
    assert any(isinstance(event, RefusalDelta) for event in events)
    assert text_of(events) == ""
    assert finish_of(events).reason == "stop"


def test_an_empty_answer_only_finishes():
    kinds = [type(event) for event in events_of(ask(), "demo-empty")]
    assert kinds == [Started, Finished, UsageReported]


def calls_of(events, index=0):
    calls: dict[int, list[ToolCallDelta]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta) and event.index == index:
            calls.setdefault(event.call, []).append(event)
    for pieces in calls.values():
        assert pieces[0].id
        assert pieces[0].name
        assert not any(piece.id or piece.name for piece in pieces[1:])
    return [(pieces[0].name, "".join(piece.delta for piece in pieces)) for pieces in calls.values()]


def test_two_tools_are_called_in_parallel_in_pieces():
    events = events_of(ask("Call something"), "demo-tools")
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(events)] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "上海"}),
    ]
    assert sum(isinstance(event, ToolCallDelta) for event in events) > 6
    assert finish_of(events).reason == "tool_calls"
    assert len({event.id for event in events if isinstance(event, ToolCallDelta) and event.id}) == 2


def test_one_tool_is_called_where_parallel_calls_are_off():
    assert len(calls_of(events_of(ask(parallel_tool_calls=False), "demo-tools"))) == 1


SEARCH = Tool(
    "search",
    parameters={
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer", "minimum": 5},
            "order": {"enum": ["new", "old"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "deep": {"type": ["object", "null"], "properties": {"on": {"type": "boolean"}}},
        },
    },
)


def test_arguments_follow_the_schema_of_the_first_tool():
    request = ask("cats", tools=(SEARCH, Tool("other")), parallel_tool_calls=False)
    ((name, arguments),) = calls_of(events_of(request, "demo-tools"))
    assert name == "search"
    expected = {"query": "cats", "limit": 5, "order": "new", "tags": ["cats"], "deep": {"on": True}}
    assert json.loads(arguments) == expected


SCHEMA_WORDS = st.sampled_from(["type", "properties", "items", "enum", "minimum", "default", "object", "a"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCHEMA_WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(SCHEMA_WORDS, JSON_VALUES))
def test_whatever_the_schema_the_arguments_are_an_object(parameters):
    request = ask(tools=(Tool("any", parameters=parameters),))
    for _, arguments in calls_of(events_of(request, "demo-tools")):
        assert isinstance(json.loads(arguments), dict)


@pytest.mark.parametrize(
    "choice", [{"type": "function", "function": {"name": "other"}}, {"type": "tool", "name": "other"}]
)
def test_a_named_tool_is_the_one_that_is_called(choice):
    request = ask(tools=(SEARCH, Tool("other")), tool_choice=choice)
    assert {name for name, _ in calls_of(events_of(request))} == {"other"}


@pytest.mark.parametrize("said", ["Please use a tool", "Use search for cats", "调用工具"])
def test_demo_calls_a_tool_when_asked_to(said):
    assert calls_of(events_of(ask(said, tools=(SEARCH,))))


@pytest.mark.parametrize(
    "request_",
    [ask("Use a tool"), ask("Use a tool", tools=(SEARCH,), tool_choice="none"), ask(tools=(SEARCH,))],
)
def test_demo_calls_no_tool_otherwise(request_):
    assert not calls_of(events_of(request_))


@pytest.mark.parametrize("model", ["demo", "demo-tools"])
def test_results_of_tools_are_answered_in_text(model):
    messages = (
        Message("user", "Weather?"),
        Message("assistant", tool_calls=(ToolCall("c1", "get_weather"), ToolCall("c2", "get_time"))),
        Message("tool", "22 °C", tool_call_id="c1"),
        Message("tool", "noon", tool_call_id="c2"),
    )
    text = text_of(events_of(ask(messages=messages), model))
    assert text.index("`get_weather` says: 22 °C") < text.index("`get_time` says: noon")


def test_an_unknown_model_is_not_found():
    with pytest.raises(ClientError) as caught:
        compose(ask(), "gpt-9", TEXTS)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("script", "param"),
    [
        ({"tokens": -1}, "penstock_script.tokens"),
        ({"tokens": 100_001}, "penstock_script.tokens"),
        ({"tokens": "5"}, "penstock_script.tokens"),
        ({"tokens_per_second": 0}, "penstock_script.tokens_per_second"),
        ({"tokens_per_second": float("nan")}, "penstock_script.tokens_per_second"),
        ({"first_token_delay": float("inf")}, "penstock_script.first_token_delay"),
        ({"jitter": -0.1}, "penstock_script.jitter"),
        ({"failure": "explode"}, "penstock_script.failure"),
        ({"speed": 2}, "penstock_script.speed"),
        ("fast", "penstock_script"),
    ],
)
def test_wrong_settings_are_the_clients_fault_and_named(script, param):
    with pytest.raises(ClientError) as caught:
        compose(ask(script=script), "demo", TEXTS)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("name", ["demo?tokens=many", "demo?tokens=nan", "demo?what=1", "demo?jitter=nan"])
def test_wrong_settings_in_the_name_are_the_clients_fault(name):
    with pytest.raises(ClientError) as caught:
        compose(ask(), name, TEXTS)
    assert (caught.value.status, caught.value.param) == (400, "model")


@pytest.mark.parametrize("n", [0, -1, 129])
def test_the_number_of_choices_is_bounded(n):
    with pytest.raises(ClientError) as caught:
        compose(ask(n=n), "demo", TEXTS)
    assert caught.value.param == "n"


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_survives_every_limit_and_encodes(model):
    for limit in (0, 1, 20, 21):
        for cue in cues_of(ask(max_output_tokens=limit, n=2, stop=("", "the")), model):
            assert cue.gap >= 0
            if isinstance(cue.action, list):
                assert cue.action
                msgspec.json.encode(cue.action)
                texts = [event for event in cue.action if isinstance(event, TextDelta)]
                assert all(len(event.delta) <= MAX_PIECE_CHARS * 4 for event in texts)
