"""`openai` for Python, 1.x or newer: Chat Completions, Responses and legacy Completions, with its helpers."""

import openai

from tests.clients.judges.judging import QUESTION, WEATHER, Question, Seen, once

CHAT_TOOL = {"type": "function", "function": WEATHER}
TOOL = {"type": "function", **WEATHER, "strict": False}


@once
def _client(url: str, patience: float) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=patience)


def _asks(question: Question, **more):
    tools = {"tools": [CHAT_TOOL]} if question.calls else {}
    return {"model": question.model, "messages": [{"role": "user", "content": QUESTION}], **tools, **more}


def _put(question: Question, **more):
    tools = {"tools": [TOOL]} if question.calls else {}
    return {"model": question.model, "input": QUESTION, **tools, **more}


def chat_stream(question: Question, seen: Seen) -> None:
    calls: dict[int, list[str]] = {}
    client = _client(question.url, question.borne)
    asked = _asks(question, stream=True, stream_options={"include_usage": True})
    with client.chat.completions.create(**asked) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                seen.reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                seen.reason = choice.finish_reason or seen.reason
                for piece in choice.delta.tool_calls or ():
                    call = calls.setdefault(piece.index, ["", ""])
                    call[0] += piece.function.name or ""
                    call[1] += piece.function.arguments or ""
                if seen.say(choice.delta.content) and question.stops:
                    return
            if chunk.usage:
                seen.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
    for name, arguments in calls.values():
        seen.call(name, arguments)


def chat_helper(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.borne)
    asked = _asks(question, stream_options={"include_usage": True})
    with client.chat.completions.stream(**asked) as stream:
        for event in stream:
            if event.type == "content.delta" and seen.say(event.delta) and question.stops:
                return
        _completion(stream.get_final_completion(), seen)


def chat_whole(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.patience)
    _completion(client.chat.completions.create(**_asks(question)), seen)


def _completion(completion, seen: Seen) -> None:
    (choice,) = completion.choices
    seen.text, seen.reason = choice.message.content or "", choice.finish_reason
    seen.reasoning = getattr(choice.message, "reasoning_content", None) or ""
    for call in choice.message.tool_calls or ():
        seen.call(call.function.name, call.function.arguments)
    if completion.usage:
        seen.usage = [completion.usage.prompt_tokens, completion.usage.completion_tokens]


def responses_stream(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.borne)
    with client.responses.create(**_put(question), stream=True) as stream:
        for event in stream:
            match event.type:
                case "response.output_text.delta":
                    if seen.say(event.delta) and question.stops:
                        return
                case "response.completed" | "response.incomplete":
                    _response(event.response, seen)
                case "response.failed":  # as its documentation has it
                    failed = event.response.error
                    seen.error = {"kind": event.type, "message": failed.message, "code": failed.code}


def responses_helper(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.borne)
    with client.responses.stream(**_put(question)) as stream:
        for event in stream:
            if event.type == "response.output_text.delta" and seen.say(event.delta) and question.stops:
                return
        _response(stream.get_final_response(), seen)


def responses_whole(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.patience)
    _response(client.responses.create(**_put(question)), seen)


def _response(response, seen: Seen) -> None:
    seen.text, seen.reason = response.output_text, response.status
    seen.usage = [response.usage.input_tokens, response.usage.output_tokens]
    for item in response.output:
        match item.type:
            case "function_call":
                seen.call(item.name, item.arguments)
            case "reasoning":
                seen.reasoning += "".join(part.text for part in item.summary)


def completions_stream(question: Question, seen: Seen) -> None:
    asked = {"model": question.model, "prompt": QUESTION, "stream_options": {"include_usage": True}}
    client = _client(question.url, question.borne)
    with client.completions.create(**asked, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                seen.reason = choice.finish_reason or seen.reason
                if seen.say(choice.text) and question.stops:
                    return
            if chunk.usage:
                seen.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]


def completions_whole(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.patience)
    completion = client.completions.create(model=question.model, prompt=QUESTION)
    (choice,) = completion.choices
    seen.text, seen.reason = choice.text, choice.finish_reason
    seen.usage = [completion.usage.prompt_tokens, completion.usage.completion_tokens]


WAYS = {
    "openai-python chat": {"stream": chat_stream, "helper": chat_helper, "whole": chat_whole},
    "openai-python responses": {
        "stream": responses_stream,
        "helper": responses_helper,
        "whole": responses_whole,
    },
    "openai-python completions": {"stream": completions_stream, "whole": completions_whole},
}
