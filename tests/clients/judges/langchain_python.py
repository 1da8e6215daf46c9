"""LangChain's models of OpenAI's Chat Completions and Responses, and of Anthropic's: `stream`, `astream` and
`invoke`."""

from collections.abc import Callable
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI

from tests.clients.judges.judging import QUESTION, WEATHER, Question, Seen, once, wait

TOOL = {"type": "function", "function": WEATHER}
HOW: dict[str, Any] = {"api_key": "unused", "max_retries": 0}


@once
def _chat(url: str, model: str, patience: float) -> BaseChatModel:
    return ChatOpenAI(base_url=f"{url}/v1", model=model, timeout=patience, stream_usage=True, **HOW)


@once
def _responses(url: str, model: str, patience: float) -> BaseChatModel:
    return ChatOpenAI(base_url=f"{url}/v1", model=model, timeout=patience, use_responses_api=True, **HOW)


@once
def _messages(url: str, model: str, patience: float) -> BaseChatModel:
    return ChatAnthropic(base_url=url, model=model, timeout=patience, **HOW)


def _asked(make: Callable[..., BaseChatModel], question: Question, patience: float) -> Any:
    model = make(question.url, question.model, patience)
    return model.bind_tools([TOOL]) if question.calls else model


def _ways(make: Callable[..., BaseChatModel]) -> dict[str, Callable[[Question, Seen], None]]:
    def stream(question: Question, seen: Seen) -> None:
        added = None
        for chunk in _asked(make, question, question.borne).stream(QUESTION):
            added = chunk if added is None else added + chunk
            if seen.say(chunk.text) and question.stops:
                return
        _note(added, seen)

    def astream(question: Question, seen: Seen) -> None:
        async def read() -> None:
            added = None
            answer = _asked(make, question, question.borne).astream(QUESTION)
            async for chunk in answer:
                added = chunk if added is None else added + chunk
                if seen.say(chunk.text) and question.stops:
                    await answer.aclose()
                    return
            _note(added, seen)

        wait(read())

    def whole(question: Question, seen: Seen) -> None:
        _note(_asked(make, question, question.patience).invoke(QUESTION), seen)

    return {"stream": stream, "astream": astream, "whole": whole}


def _note(message: AIMessage, seen: Seen) -> None:
    seen.text, seen.calls = message.text, []
    for call in message.tool_calls:
        seen.call(call["name"], call["args"])
    for block in message.content_blocks:
        if block["type"] == "reasoning":
            seen.reasoning += block.get("reasoning", "")
    known = message.response_metadata
    seen.reason = known.get("finish_reason") or known.get("stop_reason") or known.get("status")
    if counts := message.usage_metadata:
        seen.usage = [counts["input_tokens"], counts["output_tokens"]]


WAYS = {
    "langchain-openai chat": _ways(_chat),
    "langchain-openai responses": _ways(_responses),
    "langchain-anthropic": _ways(_messages),
}
