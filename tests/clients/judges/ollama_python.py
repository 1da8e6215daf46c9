"""`ollama` for Python: `chat` and `generate`, streamed and whole."""

import ollama

from tests.clients.judges.judging import ENOUGH, QUESTION, WEATHER, Question, Seen, once

TOOL = {"type": "function", "function": WEATHER}


@once
def _client(url: str, patience: float) -> ollama.Client:
    return ollama.Client(host=url, timeout=patience)


def chat_stream(question: Question, seen: Seen) -> None:
    for answer in _client(question.url, question.borne).chat(**_asks(question), stream=True):
        _chat(answer, seen)
        if seen.pieces >= ENOUGH and question.stops:
            return


def chat_whole(question: Question, seen: Seen) -> None:
    _chat(_client(question.url, question.patience).chat(**_asks(question)), seen)


def _asks(question: Question):
    tools = {"tools": [TOOL]} if question.calls else {}
    return {"model": question.model, "messages": [{"role": "user", "content": QUESTION}], **tools}


def _chat(answer: ollama.ChatResponse, seen: Seen) -> None:
    seen.say(answer.message.content)
    seen.reasoning += answer.message.thinking or ""
    for call in answer.message.tool_calls or ():
        seen.call(call.function.name, dict(call.function.arguments))
    _end(answer, seen)


def generate_stream(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.borne)
    for answer in client.generate(model=question.model, prompt=QUESTION, stream=True):
        _generated(answer, seen)
        if seen.pieces >= ENOUGH and question.stops:
            return


def generate_whole(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.patience)
    _generated(client.generate(model=question.model, prompt=QUESTION), seen)


def _generated(answer: ollama.GenerateResponse, seen: Seen) -> None:
    seen.say(answer.response)
    seen.reasoning += answer.thinking or ""
    _end(answer, seen)


def _end(answer: ollama.ChatResponse | ollama.GenerateResponse, seen: Seen) -> None:
    if answer.done:
        seen.reason = answer.done_reason
        seen.usage = [answer.prompt_eval_count, answer.eval_count]


WAYS = {
    "ollama-python chat": {"stream": chat_stream, "whole": chat_whole},
    "ollama-python generate": {"stream": generate_stream, "whole": generate_whole},
}
