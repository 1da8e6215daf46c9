"""What was asked and answered, in the log, where that is wanted."""

import asyncio

import pytest
from structlog.testing import capture_logs

from penstock.assembly.system import assemble
from penstock.policies.content_log import MAX_MESSAGES, MAX_TEXT, ContentLog
from penstock.types.calls import Call
from penstock.types.events import ReasoningDelta, TextDelta, ToolCallDelta
from penstock.types.outcomes import UNSTARTED, Outcome
from penstock.types.principals import ANONYMOUS
from penstock.types.requests import GenerationRequest, ImagePart, Message, TextPart, ToolCall
from tests.server.conftest import config, running


def call(*messages: Message) -> Call:
    return Call(ANONYMOUS, "streams", GenerationRequest("m", messages), "req_1", stream="s_1")


async def told(asked: Call, *events, outcome: Outcome | None = None) -> list[dict]:
    policy = ContentLog()
    with capture_logs() as logs:
        admission = await policy.admit(asked)
        if events:
            assert policy.filter(asked).feed(events) is events
        admission.settle(outcome or Outcome("completed", "s_1"))
    assert not policy._listening
    return logs


async def test_a_call_and_its_answer_are_told():
    parts = (TextPart("look"), ImagePart("https://x"))
    spoken = Message("assistant", tool_calls=(ToolCall("c", "f", '{"a": 1}'),))
    events = [ReasoningDelta("hm"), TextDelta("yes, "), TextDelta("sir"), ToolCallDelta(0, "{}")]
    asked, answered = await told(call(Message("user", parts), spoken), *events)
    assert asked["messages"] == [
        {"role": "user", "content": "look\n[ImagePart]"},
        {"role": "assistant", "content": "", "arguments": '{"a": 1}'},
    ]
    assert {name: answered[name] for name in ("stream", "status", "text", "reasoning", "arguments")} == {
        "stream": "s_1",
        "status": "completed",
        "text": "yes, sir",
        "reasoning": "hm",
        "arguments": "{}",
    }


async def test_long_texts_are_told_in_part():
    long = "x" * (2 * MAX_TEXT)
    asked, answered = await told(call(*[Message("user", long)] * 200), *[TextDelta(long)] * 10)
    assert len(asked["messages"]) == MAX_MESSAGES
    assert len(asked["messages"][0]["content"]) == len(answered["text"]) == MAX_TEXT


async def test_a_call_that_never_began_has_no_answer():
    (asked,) = await told(call(Message("user", "hi")), outcome=UNSTARTED)
    assert asked["event"] == "asked"


@pytest.mark.parametrize("wanted", [True, False])
async def test_it_is_told_where_it_is_wanted_and_as_the_filters_left_it(wanted):
    filters = {"f": {"rules": [{"words": ["henhouse"]}]}}
    settings = config(log={"content": wanted}, filters=filters)
    system = await asyncio.to_thread(assemble, settings, {})
    with capture_logs() as logs:
        async with running(system, settings) as gateway:
            hello = {"model": "demo-echo", "messages": [{"role": "user", "content": "the henhouse is open"}]}
            await gateway.client.post("/v1/chat/completions", json=hello)
    lines = [line for line in logs if line["event"] in ("asked", "answered")]
    assert len(lines) == (2 if wanted else 0)
    assert "henhouse" not in str(logs)
    assert ("is open" in str(logs)) is wanted
