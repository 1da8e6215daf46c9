"""`google-genai`: `generate_content`, streamed and whole."""

from google import genai
from google.genai import types

from tests.clients.judges.judging import ENOUGH, QUESTION, WEATHER, Question, Seen, once

TOOL = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name=WEATHER["name"],
            description=WEATHER["description"],
            parameters_json_schema=WEATHER["parameters"],
        )
    ]
)


@once
def _client(url: str, patience: float) -> genai.Client:
    options = types.HttpOptions(base_url=url, timeout=int(patience * 1000))
    return genai.Client(api_key="unused", http_options=options)


def _asks(question: Question):
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(include_thoughts=True),
        tools=[TOOL] if question.calls else None,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    return {"model": question.model, "contents": QUESTION, "config": config}


def stream(question: Question, seen: Seen) -> None:
    client = _client(question.url, question.borne)
    for chunk in client.models.generate_content_stream(**_asks(question)):
        _note(chunk, seen)
        if seen.pieces >= ENOUGH and question.stops:
            return


def whole(question: Question, seen: Seen) -> None:
    _note(_client(question.url, question.patience).models.generate_content(**_asks(question)), seen)


def _note(answer: types.GenerateContentResponse, seen: Seen) -> None:
    for candidate in answer.candidates or ():
        if candidate.finish_reason:
            seen.reason = candidate.finish_reason.value
        for part in (candidate.content and candidate.content.parts) or ():
            if part.function_call:
                seen.call(part.function_call.name, part.function_call.args)
            elif part.thought:
                seen.reasoning += part.text
            else:
                seen.say(part.text)
    if counts := answer.usage_metadata:
        seen.usage = [counts.prompt_token_count, counts.candidates_token_count]


WAYS = {"google-genai": {"stream": stream, "whole": whole}}
