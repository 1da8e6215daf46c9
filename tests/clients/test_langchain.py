"""LangChain's models, unchanged but for their base URL, in front of models that are none of their makers'."""

import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory, upstream):
    """A gateway that tries once, and does not wait before its status line goes out."""
    more = {"retry": {"tries": 1, "tries_in_all": 1}, "listen": {"commit_after": 10.0}}
    with serving(tmp_path_factory.mktemp("hasty"), settings(upstream, **more)) as gateway:
        yield gateway


def chat(gateway, model):
    how = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE, "stream_usage": True}
    return ChatOpenAI(model=model, base_url=gateway.api, **how)


def responses(gateway, model):
    how = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE, "use_responses_api": True}
    return ChatOpenAI(model=model, base_url=gateway.api, **how)


def messages(gateway, model):
    how = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE}
    return ChatAnthropic(model=model, base_url=gateway.url, **how)


each = pytest.mark.parametrize("made", [chat, responses, messages])


@each
def test_an_answer_is_the_same_streamed_and_whole_and_counted(made, hasty):
    model = made(hasty, "demo-echo")
    chunks = list(model.stream("one two three"))
    whole = model.invoke("one two three")
    added = chunks[0]
    for chunk in chunks[1:]:
        added += chunk
    assert added.text == whole.text == "one two three"
    assert added.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"] == 3


@each
def test_tools_are_called(made, hasty):
    model = made(hasty, "demo-tools").bind_tools([WEATHER])
    added = None
    for chunk in model.stream("Weather?"):
        added = chunk if added is None else added + chunk
    for answer in (added, model.invoke("Weather?")):
        assert [(call["name"], [*call["args"]]) for call in answer.tool_calls] == [
            ("get_weather", ["city"])
        ] * 2


@each
def test_an_unknown_model_and_an_answer_that_breaks_off_raise(made, hasty):
    with pytest.raises(Exception, match="nope"):
        made(hasty, "nope").invoke("x")
    if made is responses:  # LangChain passes over `response.failed`, as OpenAI's own API says it
        return
    with pytest.raises(Exception) as caught:
        list(made(hasty, "demo-cut").stream("Hello"))
    assert not isinstance(caught.value, AssertionError)


def test_reasoning_is_told_where_langchain_looks_for_it(hasty):
    assert any(block["type"] == "thinking" for block in messages(hasty, "demo-reasoning").invoke("x").content)
    assert isinstance(chat(hasty, "demo-reasoning").invoke("x").content, str)
    with pytest.raises(openai.NotFoundError):
        chat(hasty, "nope").invoke("x")
