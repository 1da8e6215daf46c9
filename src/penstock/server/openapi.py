"""The API described in its own language, OpenAPI 3.1: made of the route table and `OPERATIONS`.

Schemas are made from types: events from their own, the rest from `penstock.server.shapes`, so they
cannot drift. The document names no model, provider or setting; it does say whether a key is wanted.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from starlette.routing import Route

from penstock.server import admin, presets, shapes
from penstock.server.guard import KEY_HEADERS
from penstock.server.operations import (
    ANY,
    EXAMPLES,
    HEADERS,
    KEY,
    LINK,
    LOCAL,
    NOWHERE,
    OPERATIONS,
    OPTIONAL,
    PARAMETERS,
    PLACES,
    Codes,
    Gives,
    Json,
    Operation,
)
from penstock.types import events
from penstock.types.explanations import Explanation
from penstock.wire import native
from penstock.wire.ai_sdk_requests import MAX_ID, PAGE_ROLES, PageBody
from penstock.wire.anthropic_messages_requests import TURN_ROLES, MessagesBody, TurnBody
from penstock.wire.gemini_requests import MAX_CANDIDATES, GenerateBody
from penstock.wire.ollama_asked import ROLES, ChatBody
from penstock.wire.ollama_asked import GenerateBody as PromptBody
from penstock.wire.ollama_asked import TurnBody as OllamaTurn
from penstock.wire.openai_chat_requests import MAX_CHOICES, MessageBody, RequestBody
from penstock.wire.openai_completions import MAX_LOGPROBS, CompletionsBody
from penstock.wire.openai_responses_requests import ITEM_ROLES, MAX_TOP_LOGPROBS, ItemBody, ResponsesBody

TEXT: Final = """\
A streaming gateway for language models. Each answer is a durable **stream**: an append-only log of entries
that any number of readers can read, live or later, from any point.

* **Start** one with `POST /v1/streams`, with a dialect's own route, or with `GET /stream` from a bare
  `EventSource`. An `Idempotency-Key` makes sure that a repeated request is not paid for twice.
* **Follow** it with `GET /v1/streams/{stream}/events`. Every event carries an `id`, its *cursor*; after a
  lost connection send the last one as `Last-Event-ID`, and nothing is lost or repeated.
* **Stop** it with `POST /v1/streams/{stream}/cancel`. A lost connection alone stops nothing, unless that is
  what you asked for.
* Many at a time go over one **WebSocket**, `GET /v1/ws`, with the subprotocol `penstock.v1+json`: JSON
  messages such as `{"type": "create", "rid": "1", "request": {…}}`, which OpenAPI cannot describe.

Server-sent events are described by `x-itemSchema`, which is what OpenAPI 3.2 calls `itemSchema`.
"""


ASKED: Final = (
    admin.KeyRequest,
    admin.RotateRequest,
    admin.TokenRequest,
    presets.PresetCall,
    presets.PresetLinkRequest,
)
"""Bodies that are decoded into the very types that describe them."""


# --- schemas -------------------------------------------------------------------------------------------


def schemas() -> Json:
    """Return every schema by name."""
    parts = [
        kind
        for kind in vars(shapes).values()
        if isinstance(kind, type) and kind.__module__ == shapes.__name__
    ]
    _, made = msgspec.json.schema_components(
        [
            *parts,
            *ASKED,
            Explanation,
            events.AnyEvent,
            RequestBody,
            MessageBody,
            MessagesBody,
            TurnBody,
            ResponsesBody,
            ItemBody,
            GenerateBody,
            CompletionsBody,
            PageBody,
        ],
        ref_template="#/components/schemas/{name}",
    )
    for schema in made.values():
        schema["description"] = inspect.cleandoc(schema.get("description", "")).replace("``", "`")
    chat, message = made.pop("RequestBody"), made.pop("MessageBody")
    chat["title"], message["title"] = "ChatRequest", "ChatRequestMessage"
    chat["description"] = (
        "As OpenAI's. What has no place here is handed on to a provider of the same dialect unchanged."
    )
    chat["properties"]["model"] = {"type": "string", "minLength": 1, "examples": ["demo"]}
    chat["properties"]["messages"] = {
        "type": "array",
        "items": _ref("ChatRequestMessage"),
        "minItems": 1,
        "examples": [[{"role": "user", "content": "Hello"}]],
    }
    chat["properties"]["n"] = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_CHOICES}
    chat["properties"]["tools"] = {"type": ["array", "null"], "items": _ref("ChatTool")}
    message["description"] = "One turn."
    message["properties"]["content"] = {
        "anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": _ref("ChatPart")}]
    }
    message["properties"]["tool_calls"] = {"type": ["array", "null"], "items": _ref("ChatToolCall")}
    made["StreamRequest"] = _stream_request(made["StreamRequest"])
    made["EntryPage"]["properties"]["entries"]["items"] = _ref("Entry")
    completions = _completions(made.pop("CompletionsBody"))
    return {
        **made,
        "ChatRequest": chat,
        "ChatRequestMessage": message,
        "DeploymentChatRequest": _of_deployment(chat),
        "DeploymentCompletionsRequest": _of_deployment(completions["CompletionsRequest"]),
        **_messages(made.pop("MessagesBody"), made.pop("TurnBody")),
        **_responses(made.pop("ResponsesBody"), made.pop("ItemBody")),
        **_gemini(made.pop("GenerateBody")),
        **completions,
        **_ollama(),
        "AnyError": {"anyOf": [_ref("Error"), _ref("GeminiError")]},
        **_ai_sdk(made.pop("PageBody")),
        "AnyModel": {"anyOf": [_ref("Model"), _ref("AnthropicModel"), _ref("GeminiModel")]},
        "AnyModelList": {"anyOf": [_ref("ModelList"), _ref("AnthropicModelList"), _ref("GeminiModelList")]},
        "ChatPart": {
            "description": "A piece of a message; of kinds that only the provider knows, any.",
            "anyOf": [
                _part("text", text=_TEXT),
                _part("refusal", refusal=_TEXT),
                _part("image_url", image_url={"anyOf": [_TEXT, _object(url=_TEXT, detail=_MAYBE_TEXT)]}),
                _part("input_audio", input_audio=_object(data=_TEXT, format=_TEXT)),
                _other("text", "refusal", "image_url", "input_audio"),
            ],
        },
        "ChatTool": {
            "description": "What the model may call; of kinds that only the provider knows, any.",
            "anyOf": [
                _function(
                    name=_TEXT,
                    description=_MAYBE_TEXT,
                    parameters={"type": ["object", "null"]},
                    strict={"type": ["boolean", "null"]},
                ),
                _other("function"),
            ],
        },
        "ChatToolCall": {
            "description": "A call that the model made in an earlier turn.",
            "type": "object",
            "properties": {"id": _MAYBE_TEXT},
            "anyOf": [
                _function(name=_TEXT, arguments={"type": ["string", "object", "null"]}),
                _part("custom", custom=_object(name=_TEXT)),
                {**_part("custom"), "properties": {"type": {"const": "custom"}, "custom": {"type": "null"}}},
                _other("function", "custom"),
            ],
        },
        "StreamId": {"type": "string", "pattern": _pattern(shapes.StreamId)},
        "Cursor": {"type": "string", "pattern": _pattern(shapes.Cursor)},
        "State": {"enum": ["open", *_words(events.Status)]},
        "Text": {"type": "string"},
        "Content": {"description": "Anything."},
        "DurableEvent": {
            "description": "Content, or how far the reader is.",
            "type": "object",
            "properties": {
                "event": {"enum": ["data", "control", "gap"]},
                "data": {"type": "string"},
                "id": {"type": "string", "pattern": shapes.OFFSET},
            },
            "required": ["event", "data", "id"],
        },
        "Activity": {
            "description": "What happened until now; what goes on; or that a part is no longer there.",
            "type": "object",
            "properties": {
                "event": {"enum": ["history", "frame", "gap"]},
                "data": {"type": "string"},
                "id": {"type": "string", "pattern": "^activity~[0-9]+_[0-9]+$"},
            },
            "required": ["event", "data"],
        },
        "Passed": {"description": "What the provider gives."},
        "PassedRequest": {"type": "object", "properties": {"model": _TEXT}},
        "PassedForm": {"type": "object", "properties": {"model": _TEXT}},
        "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
        "Entry": _entry({"anyOf": [_ref(kind.__name__) for kind in (*native.EVENT_NAMES, events.Closed)]}),
        "NativeEvent": {"description": "One event of a native stream.", "oneOf": [*_native_events()]},
        "DialectEvent": {
            "description": "One event, in the dialect that was asked for.",
            "anyOf": [
                _ref(f"{name}Event")
                for name in (
                    "Native",
                    "Simple",
                    "Chat",
                    "Completions",
                    "Responses",
                    "Messages",
                    "Gemini",
                    "UIMessage",
                )
            ],
        },
        "NativeLine": {"description": "One line.", "oneOf": [*_native_lines()]},
        "SimpleEvent": {
            "description": "The text itself in unnamed events; with `format=json` native events.",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "event": {"const": "message"},
                        "data": {"type": "string"},
                        "id": _ref("Cursor"),
                    },
                    "required": ["data"],
                },
                _ref("NativeEvent"),
            ],
        },
        "ChatEvent": {
            "description": "A chunk, an error, or `[DONE]`.",
            "type": "object",
            "properties": {
                "data": {
                    "anyOf": [
                        {"const": "[DONE]"},
                        {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {"anyOf": [_ref("ChatChunk"), _ref("Error")]},
                        },
                    ]
                },
                "id": _ref("Cursor"),
            },
            "required": ["data"],
        },
    }


def _of_deployment(request: Json) -> Json:
    """Describe ``request`` where its model stands in the URL: what the body says of one is passed over."""
    return {
        **request,
        "title": f"Deployment{request['title']}",
        "properties": {name: value for name, value in request["properties"].items() if name != "model"},
        "required": [name for name in request["required"] if name != "model"],
    }


def _stream_request(described: Json) -> Json:
    """Describe what creates a stream: a request in the dialect that is named."""

    def variant(dialect: Json, request: str, *more: str) -> Json:
        properties = {**described["properties"], "dialect": dialect, "request": _ref(request)}
        return {**described, "properties": properties, "required": [*described["required"], *more]}

    about = {"description": "How `request` is to be read."}
    chat = variant({"enum": ["openai_chat"], "default": "openai_chat", **about}, "ChatRequest")
    messages = variant({"enum": ["anthropic_messages"], **about}, "MessagesRequest", "dialect")
    responses = variant({"enum": ["openai_responses"], **about}, "ResponsesRequest", "dialect")
    alone = {"properties": {"previous_response_id": {"type": "null"}}}
    responses["properties"]["request"] = {"allOf": [_ref("ResponsesRequest"), alone]}
    plain = [
        variant({"enum": ["openai_completions"], **about}, "CompletionsRequest", "dialect"),
        variant({"enum": ["ollama"], **about}, "OllamaChatRequest", "dialect"),
    ]
    google = variant({"enum": ["gemini"], **about}, "GeminiRequest", "dialect")
    named = {"properties": {"model": {"type": "string", "minLength": 1}}, "required": ["model"]}
    google["properties"]["request"] = {"allOf": [_ref("GeminiRequest"), named]}
    page = variant({"enum": ["ai_sdk"], **about}, "ChatTurnRequest", "dialect")
    page["properties"]["request"] = {"allOf": [_ref("ChatTurnRequest"), named]}
    return {"title": described["title"], "anyOf": [chat, responses, messages, google, page, *plain]}


def _messages(body: Json, turn: Json) -> Json:
    """Return the schemas of Anthropic's requests and events."""
    blocks = {"type": "array", "items": _ref("MessagesBlock")}
    turn["title"], turn["description"] = "MessagesTurn", "One turn."
    turn["properties"]["role"] = {"enum": [*TURN_ROLES]}
    turn["properties"]["content"] = {"anyOf": [_TEXT, blocks]}
    body["title"] = "MessagesRequest"
    body["description"] = (
        "As Anthropic's, but `max_tokens` may be missing. What has no place here is handed on to an "
        "Anthropic unchanged."
    )
    body["properties"] |= {
        "model": {"type": "string", "minLength": 1, "examples": ["demo"]},
        "messages": {"type": "array", "items": _ref("MessagesTurn"), "minItems": 1},
        "system": {"anyOf": [_MAYBE_TEXT, blocks]},
        "tools": {"type": ["array", "null"], "items": _ref("MessagesTool")},
    }
    step = {"type": "object", "properties": {"type": _TEXT}, "required": ["type"]}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": step}
    properties = {"event": _TEXT, "data": data, "id": _ref("Cursor")}
    result = _part("tool_result", tool_use_id=_TEXT)
    result["properties"]["content"] = {"anyOf": [_MAYBE_TEXT, blocks]}
    named = {"name": _TEXT, "description": _MAYBE_TEXT, "input_schema": {"type": ["object", "null"]}}
    tool = _object(**named, strict={"type": ["boolean", "null"]}, type={"enum": ["custom", None]})
    tool["required"] = ["name"]
    return {
        "MessagesRequest": body,
        "CountRequest": {"allOf": [_ref("MessagesRequest")]},
        "MessagesTurn": turn,
        "MessagesBlock": {
            "description": "A piece of a message; of kinds that only the provider knows, any.",
            "anyOf": [
                _part("text", text=_TEXT),
                _part("tool_use", id=_TEXT, name=_TEXT, input={"type": "object"}),
                result,
                _other("text", "tool_use", "tool_result"),
            ],
        },
        "MessagesTool": {
            "description": "What the model may call; of kinds that only the provider knows, any.",
            "anyOf": [tool, _other("custom")],
        },
        "MessagesEvent": {
            "description": "One event, whose name is its `type`.",
            "type": "object",
            "properties": properties,
            "required": ["event", "data"],
        },
    }


def _responses(body: Json, message: Json) -> Json:
    """Return the schemas of Responses' requests and events."""
    parts = {"type": "array", "items": _ref("ResponsesPart")}
    message["title"], message["description"] = "ResponsesMessage", "One turn."
    message["properties"] |= {
        "type": {"const": "message"},
        "role": {"enum": [*ITEM_ROLES]},
        "content": {"anyOf": [_TEXT, parts]},
    }
    body["title"] = "ResponsesRequest"
    body["description"] = (
        "As OpenAI's. What has no place here is handed on to a provider of the same dialect unchanged."
    )
    items = {"type": "array", "items": _ref("ResponsesItem"), "minItems": 1}
    text = {"type": ["object", "null"], "properties": {"format": _ref("ResponsesFormat")}}
    probabilities = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_TOP_LOGPROBS}
    body["required"] = ["model", "input"]
    body["properties"] |= {
        "model": {"type": "string", "minLength": 1, "examples": ["demo"]},
        "input": {"anyOf": [_TEXT, items], "examples": ["Hello"]},
        "tools": {"type": ["array", "null"], "items": _ref("ResponsesTool")},
        "text": text,
        "top_logprobs": probabilities,
        "metadata": {"anyOf": [{"type": "null"}, _metadata()]},
        "conversation": {"type": "null"},
    }
    body["not"] = {"properties": {"background": {"const": True}, "store": {"const": False}}} | {
        "required": ["background", "store"]
    }
    output = {"anyOf": [_TEXT, parts]}
    called = _part("function_call", call_id=_TEXT, name=_TEXT, arguments=_TEXT)
    custom = _part("custom_tool_call", call_id=_TEXT, name=_TEXT, input=_TEXT)
    known = ("message", "function_call", "custom_tool_call")
    answers = ("function_call_output", "custom_tool_call_output")
    formats = [_part("text"), _part("json_object"), _part("json_schema", schema={"type": "object"})]
    by_url = _part("input_image", image_url=_TEXT, file_id=_MAYBE_TEXT, detail=_MAYBE_TEXT)
    by_id = _part("input_image", image_url=_MAYBE_TEXT, file_id=_TEXT, detail=_MAYBE_TEXT)
    file = _part("input_file", **dict.fromkeys(("file_id", "file_data", "file_url", "filename"), _MAYBE_TEXT))
    parameters = {"type": ["object", "null"]}
    named = {"description": _MAYBE_TEXT, "parameters": parameters, "strict": {"type": ["boolean", "null"]}}
    step = {"type": "object", "properties": {"type": _TEXT}, "required": ["type"]}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": step}
    return {
        "ResponsesRequest": body,
        "ResponsesMessage": message,
        "ResponsesItem": {
            "description": "A turn, a call or its result; of kinds that only the provider knows, any.",
            "anyOf": [
                _ref("ResponsesMessage"),
                called,
                custom,
                *(_part(kind, call_id=_TEXT, output=output) for kind in answers),
                _other(*known, *answers),
            ],
        },
        "ResponsesPart": {
            "description": "A piece of a message; of kinds that only the provider knows, any.",
            "anyOf": [
                *(_part(kind, text=_TEXT) for kind in _TEXT_PARTS),
                _part("refusal", refusal=_TEXT),
                by_url,
                by_id,
                file,
                _other(*_TEXT_PARTS, "refusal", "input_image", "input_file"),
            ],
        },
        "ResponsesTool": {
            "description": "What the model may call; of kinds that only the provider knows, any.",
            "anyOf": [_part("function", name=_TEXT, **named), _other("function")],
        },
        "ResponsesFormat": {
            "description": "How the answer's text is held.",
            "anyOf": [*formats, {"type": "null"}],
        },
        "ResponsesEvent": {
            "description": "One event, whose name is its `type`.",
            "type": "object",
            "properties": {"event": _TEXT, "data": data, "id": _ref("Cursor")},
            "required": ["event", "data"],
        },
    }


def _gemini(body: Json) -> Json:
    """Return the schemas of Gemini's requests and events."""
    parts = {"type": "array", "items": _ref("GeminiPart")}
    content = {"type": "object", "properties": {"role": _MAYBE_TEXT, "parts": parts}, "required": ["parts"]}
    count = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_CANDIDATES}
    limit = {"type": ["integer", "null"]}
    config = {"candidateCount": count, "maxOutputTokens": limit, "temperature": {"type": ["number", "null"]}}
    function = {"name": _TEXT, "description": _MAYBE_TEXT, "parameters": {"type": ["object", "null"]}}
    functions = {"type": ["array", "null"], "items": _object(**function)}
    contents = {"type": "array", "items": _ref("GeminiContent"), "minItems": 1}
    body["title"] = "GeminiRequest"
    body["description"] = (
        "As Google's; the model stands in the URL. What has no place here is handed on to a Gemini unchanged."
    )
    body["properties"] |= {
        "contents": {"anyOf": [_TEXT, _ref("GeminiContent"), contents]},
        "systemInstruction": {
            "anyOf": [_MAYBE_TEXT, _ref("GeminiContent"), {"type": "object", "maxProperties": 0}]
        },
        "generationConfig": {"type": ["object", "null"], "properties": config},
        "tools": {
            "type": ["array", "null"],
            "items": {"type": "object", "properties": {"functionDeclarations": functions}},
        },
    }
    chunk = {"type": "object", "properties": {"candidates": {"type": "array"}}}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": chunk}
    return {
        "GeminiRequest": body,
        "GeminiContent": {"description": "One turn.", **content},
        "GeminiPart": {
            "description": "A piece of a turn; of kinds that only Google knows, any.",
            "type": "object",
            "properties": {"text": _TEXT},
            "required": ["text"],
        },
        "GeminiChunks": {"description": "Chunks, in one array.", "type": "array", "items": chunk},
        "GeminiErrors": {
            "description": "An error; alone in an array, where an array would have been the answer.",
            "anyOf": [
                _ref("GeminiError"),
                {"type": "array", "items": _ref("GeminiError"), "minItems": 1, "maxItems": 1},
            ],
        },
        "GeminiEvent": {
            "description": "One chunk.",
            "type": "object",
            "properties": {"data": data},
            "required": ["data"],
        },
    }


def _completions(body: Json) -> Json:
    """Return the schemas of legacy Completions' requests and events."""
    one = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 1}
    body["title"] = "CompletionsRequest"
    body["description"] = "As OpenAI's; of `best_of`, `echo` and `suffix` only what changes nothing."
    body["properties"] |= {
        "model": {"type": "string", "minLength": 1, "examples": ["demo"]},
        "prompt": {"anyOf": [{"type": "string", "minLength": 1}, one]},
        "n": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_CHOICES},
        "best_of": {"type": "null"},
        "echo": {"enum": [False, None]},
        "suffix": {"type": ["string", "null"], "maxLength": 0},
        "logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_LOGPROBS},
    }
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [_ref("CompletionsAnswer"), _ref("Error")]},
    }
    return {
        "CompletionsRequest": body,
        "CompletionsEvent": {
            "description": "A chunk, an error, or `[DONE]`.",
            "type": "object",
            "properties": {"data": {"anyOf": [{"const": "[DONE]"}, data]}, "id": _ref("Cursor")},
            "required": ["data"],
        },
    }


def _ollama() -> Json:
    """Return the schemas of Ollama's requests and lines."""
    _, made = msgspec.json.schema_components([ChatBody, PromptBody, OllamaTurn])
    chat, prompt, turn = (made[kind.__name__] for kind in (ChatBody, PromptBody, OllamaTurn))
    images = {"type": ["array", "null"], "items": {"type": "string", "const": "iVBORw0KGgo="}}
    model = {"type": "string", "minLength": 1, "examples": ["demo"]}
    form = {"anyOf": [{"enum": ["", "json", None]}, {"type": "object"}]}
    options = {"type": ["object", "null"], "additionalProperties": {"type": "null"}}
    calls = {"type": ["array", "null"], "items": _object(function=_object(name=_TEXT))}
    tool = _object(
        function=_object(name=_TEXT, description=_MAYBE_TEXT, parameters={"type": ["object", "null"]})
    )
    tool["properties"]["type"] = {"const": "function"}
    turn["title"], turn["description"] = "OllamaTurn", "One turn."
    turn["properties"] |= {"role": {"enum": [*ROLES]}, "images": images, "tool_calls": calls}
    chat["title"], chat["description"] = (
        "OllamaChatRequest",
        "As Ollama's; it streams unless it says otherwise.",
    )
    chat["properties"] |= {
        "model": model,
        "format": form,
        "options": options,
        "messages": {"type": ["array", "null"], "items": _ref("OllamaTurn")},
        "tools": {"type": ["array", "null"], "items": tool},
    }
    prompt["title"], prompt["description"] = "OllamaGenerateRequest", chat["description"]
    prompt["properties"] |= {"model": model, "format": form, "options": options, "images": images}
    prompt["properties"]["context"] = {"type": ["array", "null"], "maxItems": 0}
    return {
        "OllamaChatRequest": chat,
        "OllamaGenerateRequest": prompt,
        "OllamaTurn": turn,
        "OllamaLine": {
            "description": "A piece of an answer, the last one with why it ended, or an error.",
            "anyOf": [_object(model=_TEXT, created_at=_TEXT, done={"type": "boolean"}), _ref("OllamaError")],
        },
    }


def _ai_sdk(body: Json) -> Json:
    """Return the schemas of what the AI SDK's pages ask and are given."""
    part = _part("text", text=_TEXT)
    said = _object(role={"enum": [*PAGE_ROLES]}, parts={"type": "array", "items": part})
    about = "One turn: all its steps. There are other kinds of parts, of which a page knows more."
    tool = {"inputSchema": {"type": ["object", "null"]}, "description": _MAYBE_TEXT}
    chosen = _part("tool", toolName=_TEXT)
    body["title"] = "ChatTurnRequest"
    body["description"] = "As `useChat` sends it, and what an application adds; the model may be missing."
    body["properties"] |= {
        "id": {"type": ["string", "null"], "maxLength": MAX_ID, "pattern": r"^[^\x00-\x1f\x7f]*$"},
        "model": {"type": ["string", "null"], "examples": ["demo"]},
        "messages": {"type": "array", "items": _ref("ChatTurn"), "minItems": 1},
        "toolChoice": {"anyOf": [{"enum": [None, "auto", "none", "required"]}, chosen]},
        "tools": {"type": ["object", "null"], "additionalProperties": {"type": "object", "properties": tool}},
    }
    chunk = {"type": "object", "properties": {"type": _TEXT}, "required": ["type"]}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": chunk}
    return {
        "ChatTurnRequest": body,
        "ChatTurn": {"description": about, **said},
        "UIMessageEvent": {
            "description": "One chunk, or `[DONE]`.",
            "type": "object",
            "properties": {"data": {"anyOf": [{"const": "[DONE]"}, data]}, "id": _ref("Cursor")},
            "required": ["data"],
        },
    }


_TEXT_PARTS: Final = ("input_text", "output_text", "text", "summary_text", "reasoning_text")


def _metadata() -> Json:
    return msgspec.json.schema(shapes.Metadata)


def _ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


_TEXT: Final[Json] = {"type": "string"}
_MAYBE_TEXT: Final[Json] = {"type": ["string", "null"]}


def _object(**members: Json) -> Json:
    """Describe an object that has its members, but for those that may as well be null."""
    required = [name for name, schema in members.items() if "null" not in schema.get("type", ())]
    return {"type": "object", "properties": members, "required": required}


def _part(kind: str, **members: Json) -> Json:
    return _object(type={"const": kind}, **members)


def _function(**members: Json) -> Json:
    """Describe what is a function unless it says otherwise."""
    described = _object(function=_object(**members))
    described["properties"]["type"] = {"const": "function"}
    return described


def _other(*kinds: str) -> Json:
    return _object(type={"type": "string", "not": {"enum": [*kinds]}})


def _pattern(alias: Any) -> str:
    pattern: str = msgspec.json.schema(alias)["pattern"]
    return pattern


def _words(alias: Any) -> list[str]:
    words: list[str] = msgspec.json.schema(alias)["enum"]
    return words


def _entry(event: Json) -> Json:
    return {"allOf": [_ref("Numbered"), event]}


def _named() -> Iterable[tuple[str, Json]]:
    """Yield the native events: their names, and what their data is."""
    yield "stream", _ref("Opening")
    for name in dict.fromkeys(native.EVENT_NAMES.values()):
        kinds = [_ref(kind.__name__) for kind, named in native.EVENT_NAMES.items() if named == name]
        yield name.decode(), _entry(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})
    yield "done", _entry(_ref("Closed"))
    yield "fail", {"anyOf": [_entry(_ref("Closed")), _ref("Problem")]}


def _native_events() -> Iterable[Json]:
    for name, data in _named():
        text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
        yield {
            "type": "object",
            "properties": {"event": {"const": name}, "data": text, "id": _ref("Cursor")},
            "required": ["event", "data"],
        }


def _native_lines() -> Iterable[Json]:
    for name, data in _named():
        properties = {"c": _ref("Cursor"), "ev": {"const": name}, "d": data}
        yield {"type": "object", "properties": properties, "required": ["c", "ev", "d"]}
    yield {"type": "object", "properties": {"ev": {"const": "heartbeat"}}, "required": ["ev"]}


# --- the document --------------------------------------------------------------------------------------


def describe(routes: Iterable[Route], *, keys: bool) -> Json:
    """Return the description of ``routes`` without ``servers``. ``keys``: whether a key is wanted."""
    paths: dict[str, Json] = {}
    names: dict[str, int] = {}
    for route in routes:
        operation = OPERATIONS.get(route.endpoint)
        if operation is None:
            continue
        path = re.sub(r":\w+}", "}", route.path)
        item = paths.setdefault(path, {"parameters": _places(path)} if "{" in path else {})
        name = route.endpoint.__name__
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:  # the same at another address
            name += f"_{names[name]}"
        for method in sorted(route.methods or ()):
            if method != "HEAD":
                item[method.lower()] = _operation(path, name, operation, keys=keys)
            elif operation.heads:
                item["head"] = _head(path, name, operation, keys=keys)
    groups = dict.fromkeys(operation.group for operation in OPERATIONS.values())
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Penstock",
            "summary": "Answers of language models as durable streams.",
            "description": TEXT,
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": group} for group in groups],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "headers": {
                name: {**header, **({} if name in OPTIONAL else {"required": True})}
                for name, header in HEADERS.items()
            },
            "securitySchemes": _schemes(keys=keys),
        },
    }


def _schemes(*, keys: bool) -> Json:
    link = {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "A signed link, from `POST /v1/streams/{stream}/links`.",
    }
    if not keys:
        return {"link": link}
    return {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
        "x-goog-api-key": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
        "link": link,
    }


def _places(path: str) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PLACES[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _security(operation: Operation, *, keys: bool) -> list[Json]:
    if operation.who == "anybody":
        return []
    wanted: list[Json] = [{"bearer": []}, *({name: []} for name in KEY_HEADERS)] if keys else []
    if operation.who == "key or link":
        wanted += [{"link": []}] if keys else [{}, {"link": []}]
    return wanted


def _refused(path: str, operation: Operation, *, keys: bool) -> dict[int, list[str]]:
    """Return the codes by status, as this server gives them."""
    who: list[Codes] = []
    if operation.who != "anybody":
        who = [KEY if keys else LOCAL]
        if operation.who == "key or link":
            who += [LINK] if keys else [LINK, LOCAL]
    if "{" in path:
        who.append(NOWHERE)
    found: dict[int, list[str]] = {}
    for code, status in {k: v for codes in (*who, *operation.refuses, ANY) for k, v in codes.items()}.items():
        if keys and code == "unasked_request":
            continue
        status = operation.statuses.get(code, status)
        found.setdefault(status, []).append(code)
    return dict(sorted(found.items()))


def _operation(path: str, name: str, operation: Operation, *, keys: bool) -> Json:
    answers = {str(status): _given(gives) for status, gives in operation.gives.items()}
    for status, codes in _refused(path, operation, keys=keys).items():
        answers.setdefault(str(status), _error(status, codes, operation.errors))
    described: Json = {
        "operationId": name,
        "summary": operation.summary,
        "tags": [operation.group],
        "security": _security(operation, keys=keys),
        "responses": answers,
    }
    if operation.text:
        described["description"] = operation.text
    if parameters := [PARAMETERS[taken] for taken in operation.takes if taken != "token"]:
        described["parameters"] = parameters
    if operation.takes_content:
        kinds = ("text/plain", "application/octet-stream")
        described["requestBody"] = {"content": {kind: {"schema": _ref("Content")} for kind in kinds}}
    if operation.body:
        kind = "multipart/form-data" if operation.body.endswith("Form") else "application/json"
        described["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": _ref(operation.body), "example": EXAMPLES[operation.body]}},
        }
    return described


def _head(path: str, name: str, operation: Operation, *, keys: bool) -> Json:
    """Describe HEAD: the same without bodies, and with where the stream's tail is."""
    described = _operation(path, name, operation, keys=keys)
    described["operationId"] = f"{name}_head"
    described["summary"] = f"{operation.summary}: the headers alone"
    for answer in described["responses"].values():
        answer.pop("content", None)
    described["responses"]["200"]["headers"]["Stream-Cursor"] = _ref("Stream-Cursor", "headers")
    return described


def _given(gives: Gives) -> Json:
    answer: Json = {"description": gives.text}
    if gives.headers:
        answer["headers"] = {name: _ref(name, "headers") for name in gives.headers}
    if gives.content:
        answer["content"] = {kind: _content(kind, schema) for kind, schema in gives.content.items()}
    return answer


def _content(kind: str, schema: str) -> Json:
    if kind in ("text/event-stream", "application/x-ndjson"):
        described = {"schema": {"type": "string"}, "x-itemSchema": _ref(schema)}
        return {**described, "example": EXAMPLES[schema]} if schema in EXAMPLES else described
    return {"schema": _ref(schema)}


def _error(status: int, codes: list[str], schema: str) -> Json:
    headers = ["x-request-id", "Cache-Control", "Retry-After"] + ["WWW-Authenticate"] * (status == 401)
    code = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    described = {"allOf": [_ref("Error"), code]} if schema == "Error" else _ref(schema)
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "headers": {name: _ref(name, "headers") for name in headers},
        "content": {"application/json": {"schema": described}},
    }
