"""`anthropic` for Python, old and new: Messages, with its helper."""

import anthropic

from tests.clients.judges.judging import QUESTION, WEATHER, Question, Seen, once

TOOL = {
    "name": WEATHER["name"],
    "description": WEATHER["description"],
    "input_schema": WEATHER["parameters"],
}


@once
def _client(url: str, patience: float) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, timeout=patience)


def _asks(question: Question, **more):
    tools = {"tools": [TOOL]} if question.calls else {}
    turns = [{"role": "user", "content": QUESTION}]
    return {"model": question.model, "max_tokens": 1000, "messages": turns, **tools, **more}


def stream(question: Question, seen: Seen) -> None:
    calls: list[list[str]] = []
    client = _client(question.url, question.borne)
    with client.messages.create(**_asks(question), stream=True) as events:
        for event in events:
            match event.type:
                case "content_block_start" if event.content_block.type == "tool_use":
                    calls.append([event.content_block.name, ""])
                case "content_block_delta":
                    delta = event.delta
                    if delta.type == "input_json_delta":
                        calls[-1][1] += delta.partial_json
                    elif delta.type == "thinking_delta":
                        seen.reasoning += delta.thinking
                    elif delta.type == "text_delta" and seen.say(delta.text) and question.stops:
                        return
                case "message_delta":
                    seen.reason = event.delta.stop_reason
                    seen.usage = [event.usage.input_tokens, event.usage.output_tokens]
    for name, arguments in calls:
        seen.call(name, arguments)


def helper(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.borne)
    with client.messages.stream(**_asks(question)) as events:
        for text in events.text_stream:
            if seen.say(text) and question.stops:
                return
        _message(events.get_final_message(), seen)


def whole(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.patience)
    _message(client.messages.create(**_asks(question)), seen)


def _message(message, seen: Seen) -> None:
    seen.text, seen.reason = "", message.stop_reason
    seen.usage = [message.usage.input_tokens, message.usage.output_tokens]
    for block in message.content:
        match block.type:
            case "text":
                seen.text += block.text
            case "thinking":
                seen.reasoning += block.thinking
            case "tool_use":
                seen.call(block.name, block.input)


WAYS = {"anthropic-python": {"stream": stream, "helper": helper, "whole": whole}}
