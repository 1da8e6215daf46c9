"""What the embedded model says, when, and how it ends: a script, made from a request.

Owns the table of scripted models, the settings by which tests and benchmarks drive them, and the pure
generators that turn a request into *cues*: a gap in seconds, then events or an ending. The same request
with the same seed gives the same cues. Long texts are in ``scripts/*.md``.

No clock, no timer and no loop enters here: cues are played by `penstock.providers.scripted`.
"""

import json
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import chain, cycle, islice, repeat
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from penstock.providers.pieces import MAX_WORD_CHARS, pieces, words
from penstock.providers.pig_latin import translate
from penstock.providers.provider import CONTINUE_PROMPT
from penstock.types.errors import ClientError, UpstreamError, upstream_reset
from penstock.types.events import (
    AnyEvent,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.types.requests import GenerationRequest, Message, TextPart, Tool

PROVIDER: Final = "scripted"
EXTRA: Final = "penstock_script"
"""The member of a request in which settings are given."""

REPEATED_CHARS: Final = 20
"""How much of an answer the model says again when it is asked to go on with it."""

MAX_TOKENS: Final = 100_000
MAX_CHOICES: Final = 128
MAX_QUOTE_CHARS: Final = 60
MAX_READ_CHARS: Final = 2_000
"""No more of the user's text is looked at to choose an answer, nor of a tool's result to repeat it."""
MAX_EXAMPLE_DEPTH: Final = 4
MAX_EXAMPLE_FIELDS: Final = 16

Failure: TypeAlias = Literal["cut", "error", "stall", "truncated", "rate_limited", "overloaded"]


class ScriptSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a scripted model plays. Given in the request, ``{"penstock_script": {"tokens": 200}}``, or in
    the model's name, ``demo-long?tokens=200&tokens_per_second=50``, as a target may name it; the request
    wins.

    ``tokens_per_second`` is a mean; ``jitter`` is the spread (sigma) of the log-normal gaps, 0 for an even
    beat. ``first_token_delay`` is in seconds. ``tokens`` makes the text exactly so long, by repeating or
    cutting it. ``failure`` says how the answer goes wrong, after ``fail_after`` tokens or at its end,
    whichever comes first; ``retry_after`` (seconds) goes with ``rate_limited`` and ``overloaded``.
    """

    tokens_per_second: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 45.0
    first_token_delay: Annotated[float, msgspec.Meta(ge=0, le=3_600)] = 0.35
    jitter: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.5
    tokens: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] | None = None
    failure: Failure | None = None
    fail_after: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] = 20
    retry_after: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 2.0


class Ending(NamedTuple):
    """How the response ends on the transport's level.

    Without an error it is whole. ``in_band`` errors come as part of the answer, others instead of its rest.
    """

    error: UpstreamError | None = None
    in_band: bool = False


class Cue(NamedTuple):
    """What comes ``gap`` seconds after the cue before. When cues run out without an ending, the model is
    silent for ever."""

    gap: float
    action: list[AnyEvent] | Ending


class Voice(NamedTuple):
    """One choice: events of one token each, and how it finishes when nothing cuts it short."""

    tokens: Iterator[AnyEvent]
    finish: Finished


class Scene(NamedTuple):
    """What a script is made from. ``said`` is the last text of the user, ``quote`` the start of it;
    ``skip`` characters of the answer are there already."""

    request: GenerationRequest
    settings: ScriptSettings
    texts: Mapping[str, str]
    said: str
    quote: str
    seed: int
    skip: int = 0


class ScriptedModel(NamedTuple):
    """One model of the table: a line for people, what it says, and its own settings."""

    description: str
    answer: Callable[[Scene, int], Voice]
    settings: Mapping[str, Any] = MappingProxyType({})


def load_texts() -> Mapping[str, str]:
    """Read the texts that ship with the package, by name without suffix."""
    folder = resources.files("penstock.providers") / "scripts"
    return {
        file.name.removesuffix(".md"): file.read_text("utf-8").strip()
        for file in folder.iterdir()
        if file.name.endswith(".md")
    }


def compose(request: GenerationRequest, name: str, texts: Mapping[str, str]) -> Iterator[Cue]:
    """Return the cues of ``name``'s answer, endless ones included.

    Raises `ClientError`: 404 for an unknown model, 400 for settings or a number of choices out of range.
    """
    model, settings = _resolve(request, name)
    turns, skip = _continued(request.messages)
    request = msgspec.structs.replace(request, messages=turns)
    if not 1 <= request.n <= MAX_CHOICES:
        raise ClientError(f"n must be between 1 and {MAX_CHOICES}.", param="n")
    said = _last_user_text(request.messages)
    seed = request.seed
    if seed is None:
        seed = zlib.crc32(msgspec.json.encode(request.messages))
    scene = Scene(request, settings, texts, said, quote(said), seed, skip)
    return _play(scene, model.answer, name.partition("?")[0])


def estimate_input_tokens(messages: Sequence[Message]) -> int:
    """Estimate, since nobody counts: one token for every four bytes of text begun, and four a message."""
    return sum(4 + (len(_text_of(message).encode()) + 3) // 4 for message in messages)


def quote(text: str) -> str:
    """Return the start of ``text`` on one line, fit to stand in Markdown; never empty."""
    line = " ".join(text[:MAX_READ_CHARS].split())
    kept = ""
    for piece in pieces(line):
        if len(kept) + len(piece) > MAX_QUOTE_CHARS:
            kept = kept.rstrip() + "…"
            break
        kept += piece
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", kept) or "…"


def _resolve(request: GenerationRequest, name: str) -> tuple[ScriptedModel, ScriptSettings]:
    base, _, query = name.partition("?")
    model = MODELS.get(base)
    if model is None:
        raise ClientError(
            "There is no such scripted model.", code="model_not_found", status=404, param="model"
        )
    given = {**model.settings, **dict(parse_qsl(query, keep_blank_values=True))}
    settings = _convert(given, "model", strict=False)
    own = (request.extra or {}).get(EXTRA)
    if own is not None:
        if not isinstance(own, dict):
            raise ClientError(f"{EXTRA} must be an object.", param=EXTRA)
        settings = _convert({**msgspec.structs.asdict(settings), **own}, EXTRA, strict=True)
    return model, settings


def _convert(given: dict[Any, Any], param: str, *, strict: bool) -> ScriptSettings:
    try:
        return msgspec.convert(given, ScriptSettings, strict=strict)
    except msgspec.ValidationError as error:
        # The library's sentence names the field and its range, and quotes nothing that was given
        # but an unknown field's name.
        field = re.search(r"(?:`\$\.|unknown field `)(\w+)", str(error))
        where = f"{param}.{field[1]}" if field and param == EXTRA else param
        raise ClientError(f"The settings of the scripted model are wrong: {error}.", param=where) from None


def _play(scene: Scene, answer: Callable[[Scene, int], Voice], model: str) -> Iterator[Cue]:
    request, settings = scene.request, scene.settings
    beat = random.Random(scene.seed)
    sigma = settings.jitter
    mean = 1.0 / settings.tokens_per_second
    gap = settings.first_token_delay * beat.uniform(1 - sigma / 4, 1 + sigma / 4)
    input_tokens = estimate_input_tokens(request.messages)
    events: list[AnyEvent] = [
        Started(model, f"script_{scene.seed & 0xFFFFFFFF:08x}", provider=PROVIDER, input_tokens=input_tokens)
    ]
    spoken = thought = 0
    voices = [
        _limited(_rest(answer(scene, index), scene.skip), request.max_output_tokens)
        for index in range(request.n)
    ]
    while voices:
        for voice in tuple(voices):
            event = next(voice)
            finished = type(event) is Finished
            if settings.failure and (finished or spoken >= settings.fail_after):
                if spoken and events:
                    yield Cue(gap, events)
                yield from _fail(settings, gap)
                return
            events.append(event)
            if finished:
                voices.remove(voice)
            else:
                spoken += 1
                thought += type(event) is ReasoningDelta
        if not voices:
            events.append(
                UsageReported(input_tokens, spoken, reasoning_tokens=thought, estimated=True),
            )
        yield Cue(gap, events)
        events = []
        # Mean 1 whatever sigma is, so that the rate is kept.
        gap = mean * beat.lognormvariate(-sigma * sigma / 2, sigma) if sigma else mean
    yield Cue(0.0, Ending())


def _continued(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], int]:
    """Return the turns before an answer that is to be gone on with, and how much of that is there.

    Such an answer is the last turn (a prefill), or stands before the request to go on; then the model
    repeats a few words, as models do.
    """
    repeated = 0
    if messages and messages[-1].content == CONTINUE_PROMPT:
        messages, repeated = messages[:-1], REPEATED_CHARS
    if not messages or messages[-1].role != "assistant":
        return messages, 0
    return messages[:-1], max(0, len(_text_of(messages[-1])) - repeated)


def _rest(voice: Voice, skip: int) -> Voice:
    """Return ``voice`` without its reasoning and the first ``skip`` characters of its text."""
    return voice._replace(tokens=_after(voice.tokens, skip)) if skip else voice


def _after(tokens: Iterator[AnyEvent], skip: int) -> Iterator[AnyEvent]:
    for event in tokens:
        if type(event) is ReasoningDelta:
            continue
        if skip and type(event) is TextDelta:
            length = len(event.delta)
            if length > skip:
                yield msgspec.structs.replace(event, delta=event.delta[skip:])
            skip = max(0, skip - length)
        else:
            yield event


def _limited(voice: Voice, limit: int | None) -> Iterator[AnyEvent]:
    for count, event in enumerate(voice.tokens):
        if limit is not None and count >= limit:
            yield Finished("length", voice.finish.index)
            return
        yield event
    yield voice.finish


def _fail(settings: ScriptSettings, gap: float) -> Iterator[Cue]:
    match settings.failure:
        case "cut":
            yield Cue(gap, Ending(upstream_reset("The scripted provider")))
        case "error":
            message = "The scripted model failed in the middle of its answer, as it was asked to."
            error = UpstreamError(message, code="upstream_error", type="server_error")
            yield Cue(gap, Ending(error, in_band=True))
        case "truncated":
            yield Cue(gap, Ending())
        case "rate_limited":
            error = UpstreamError(
                "The scripted model takes no more requests for a moment, as it was asked to.",
                code="rate_limit_exceeded",
                status=429,
                retry_after=settings.retry_after,
                type="rate_limit_error",
                upstream_status=429,
            )
            yield Cue(gap, Ending(error))
        case "overloaded":
            error = UpstreamError(
                "The scripted model is overloaded, as it was asked to be.",
                code="overloaded",
                status=503,
                retry_after=settings.retry_after,
                type="server_error",
                upstream_status=503,
            )
            yield Cue(gap, Ending(error))
        case "stall" | None:
            return


# What the models say.


def _say(scene: Scene, index: int, text: str) -> Voice:
    return _speak(scene, index, _repeated(text, scene.settings.tokens), pieces)


def _repeated(text: str, length: int | None) -> Iterable[str]:
    if not text:
        return ()
    return (text,) if length is None else repeat(text)


def _speak(scene: Scene, index: int, parts: Iterable[str], cut: Callable[[str], Iterator[str]]) -> Voice:
    """Say ``parts``, which may only be endless where the settings give a length."""
    length = scene.settings.tokens
    finish = Finished("stop", index)
    if stops := [stop for stop in scene.request.stop if stop]:
        text = "".join(_enough(parts, length))
        if found := [(at, stop) for stop in stops if (at := text.find(stop)) >= 0]:
            at, stop = min(found)
            text = text[:at]
            if length is None or sum(1 for _ in islice(cut(text), length)) < length:
                finish = Finished("stop", index, stop_sequence=stop)
        parts = (text,)
    said = chain.from_iterable(map(cut, parts))
    return Voice((TextDelta(piece, index) for piece in islice(said, length)), finish)


def _enough(parts: Iterable[str], length: int | None) -> Iterator[str]:
    size = 0
    for part in parts:
        if length is not None and size >= length * MAX_WORD_CHARS:
            return
        yield part
        size += len(part)


def _answer_demo(scene: Scene, index: int) -> Voice:
    if scene.request.messages and scene.request.messages[-1].role == "tool":
        return _say(scene, index, _about_results(scene.request.messages))
    if _asks_for_tools(scene):
        return _call_tools(scene, index)
    text = scene.texts[_choose(scene.said)].replace("{quote}", scene.quote)
    if scene.request.n > 1:
        text = f"*Answer {index + 1} of {scene.request.n}*\n\n{text}"
    return _say(scene, index, text)


def _answer_echo(scene: Scene, index: int) -> Voice:
    return _speak(scene, index, _repeated(scene.said, scene.settings.tokens), words)


def _answer_translation(scene: Scene, index: int) -> Voice:
    return _speak(scene, index, (translate(scene.said),), words)


def _answer_long(scene: Scene, index: int) -> Voice:
    paragraphs = scene.texts["long"].split("\n\n")
    opening = f"You asked: “{scene.quote}”. This is a long answer; its paragraphs are numbered.\n\n"
    numbered = (f"**{number}.** {text}\n\n" for number, text in enumerate(cycle(paragraphs), 1))
    return _speak(scene, index, chain((opening,), numbered), pieces)


def _answer_tools(scene: Scene, index: int) -> Voice:
    request = scene.request
    if request.tool_choice == "none" or (request.messages and request.messages[-1].role == "tool"):
        return _answer_demo(scene, index)
    return _call_tools(scene, index)


def _answer_reasoning(scene: Scene, index: int) -> Voice:
    thoughts = pieces(scene.texts["thinking"].replace("{quote}", scene.quote))
    voice = _say(scene, index, scene.texts["reasoned"].replace("{quote}", scene.quote))
    reasoning = (ReasoningDelta(piece, index) for piece in thoughts)
    return Voice(chain(reasoning, voice.tokens), voice.finish)


def _answer_refusal(scene: Scene, index: int) -> Voice:
    refusal = pieces(scene.texts["refusal"])
    return Voice((RefusalDelta(piece, index) for piece in refusal), Finished("stop", index))


def _answer_empty(_: Scene, index: int) -> Voice:
    return Voice(iter(()), Finished("stop", index))


_CHINESE: Final = re.compile(r"[\u4e00-\u9fff]")
_JAPANESE: Final = re.compile(r"[\u3040-\u30ff]")
_CODE: Final = re.compile(
    r"```|\b(code|curl|sdk|api|snippet|example|python|javascript|typescript|eventsource)\b", re.IGNORECASE
)
_GREETING: Final = re.compile(
    r"\s*(hi|hello|hey|hiya|howdy|good (morning|afternoon|evening)|hallo|bonjour|hola|ciao)\b.{0,40}$",
    re.IGNORECASE | re.DOTALL,
)
_CALLING: Final = re.compile(
    r"\b(call|use|run|invoke|try)\b.*\btools?\b|调用|工具", re.IGNORECASE | re.DOTALL
)


def _choose(said: str) -> str:
    said = said[:MAX_READ_CHARS]
    if _CHINESE.search(said) and not _JAPANESE.search(said):
        return "chinese"
    if _CODE.search(said):
        return "code"
    return "greeting" if _GREETING.match(said) else "tour"


def _asks_for_tools(scene: Scene) -> bool:
    request = scene.request
    if not request.tools or request.tool_choice == "none":
        return False
    if request.tool_choice == "required" or isinstance(request.tool_choice, dict):
        return True
    said = scene.said[:MAX_READ_CHARS]
    return bool(_CALLING.search(said)) or any(tool.name in said for tool in request.tools)


# Tools.

_WEATHER: Final = Tool(
    "get_weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}}
)
_PLACES: Final = ("Paris", "上海")


def _call_tools(scene: Scene, index: int) -> Voice:
    tool = _chosen_tool(scene.request)
    calls = 1 if scene.request.parallel_tool_calls is False else 2
    ids = random.Random(scene.seed + index)
    tokens = chain.from_iterable(
        _call(tool, scene, index, call, f"call_{ids.getrandbits(96):024x}") for call in range(calls)
    )
    return Voice(tokens, Finished("tool_calls", index))


def _chosen_tool(request: GenerationRequest) -> Tool:
    choice = request.tool_choice
    if isinstance(choice, dict):
        inner = choice.get(str(choice.get("type")), choice)
        name = inner.get("name") if isinstance(inner, dict) else None
        for tool in request.tools:
            if tool.name == name:
                return tool
    return request.tools[0] if request.tools else _WEATHER


def _call(tool: Tool, scene: Scene, index: int, call: int, id: str) -> Iterator[AnyEvent]:
    yield ToolCallDelta(call, id=id, name=tool.name, index=index, kind=tool.kind)
    if tool.kind == "function":
        value = _example(tool.parameters or {}, "", scene, call)
        arguments = json.dumps(value if isinstance(value, dict) else {}, ensure_ascii=False)
    else:
        arguments = scene.said[:MAX_READ_CHARS]
    for piece in pieces(arguments):
        yield ToolCallDelta(call, piece, index=index, kind=tool.kind)


def _example(schema: Any, name: str, scene: Scene, call: int, depth: int = 0) -> Any:
    """Return a value that a simple JSON Schema allows: enough for a tool to be called with."""
    if not isinstance(schema, dict):
        return None
    enum = schema.get("enum")
    if isinstance(enum, list) and enum:
        return enum[call % len(enum)]
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        if not isinstance(properties, dict) or depth >= MAX_EXAMPLE_DEPTH:
            return {}
        return {
            field: _example(inner, str(field), scene, call, depth + 1)
            for field, inner in islice(properties.items(), MAX_EXAMPLE_FIELDS)
        }
    match kind:
        case "integer" | "number":
            return schema.get("minimum", call + 1)
        case "boolean":
            return True
        case "array":
            if depth >= MAX_EXAMPLE_DEPTH:
                return []
            return [_example(schema.get("items", {"type": "string"}), name, scene, call, depth + 1)]
        case "null":
            return None
    if re.search(r"city|place|location", name, re.IGNORECASE):
        return _PLACES[call]
    return " ".join(scene.said[:MAX_READ_CHARS].split())[:MAX_QUOTE_CHARS] or "example"


def _about_results(messages: Sequence[Message]) -> str:
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    results: list[str] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        name = names.get(message.tool_call_id) or message.name or "tool"
        text = " ".join(_text_of(message)[:MAX_READ_CHARS].split()) or "(nothing)"
        results.append(f"- `{name}` says: {text}\n")
    results.reverse()
    return (
        "The answer is in. 🔧\n\n"
        + "".join(results)
        + "\nThat is all I know, and I know it only because a tool was called on the way.\n"
    )


# The conversation.


def _last_user_text(messages: Iterable[Message]) -> str:
    for message in reversed(tuple(messages)):
        if message.role == "user":
            return _text_of(message)
    return ""


def _text_of(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


MODELS: Final[Mapping[str, ScriptedModel]] = MappingProxyType(
    {
        "demo": ScriptedModel("Talks about Penstock in Markdown, at the pace of a real model.", _answer_demo),
        "demo-echo": ScriptedModel("Repeats your last message, word by word.", _answer_echo),
        "demo-translate": ScriptedModel(
            "Translates your last message into Pig Latin.",
            _answer_translation,
            {"first_token_delay": 0.05, "tokens_per_second": 40.0},
        ),
        "demo-long": ScriptedModel(
            "A very long answer: about 4,000 tokens at 100 a second.",
            _answer_long,
            {"tokens": 4_000, "tokens_per_second": 100.0},
        ),
        "demo-reasoning": ScriptedModel("Reasons first, then answers.", _answer_reasoning),
        "demo-tools": ScriptedModel("Calls a tool, and answers once it has the result.", _answer_tools),
        "demo-slow-start": ScriptedModel(
            "Is silent for ten seconds before its first token.", _answer_demo, {"first_token_delay": 10.0}
        ),
        "demo-stall": ScriptedModel(
            "Falls silent after about 20 tokens, for ever.", _answer_demo, {"failure": "stall"}
        ),
        "demo-cut": ScriptedModel(
            "Loses its connection after about 20 tokens.", _answer_demo, {"failure": "cut"}
        ),
        "demo-error": ScriptedModel(
            "Reports an error in the middle of its answer.", _answer_demo, {"failure": "error"}
        ),
        "demo-truncated": ScriptedModel(
            "Ends after about 20 tokens without saying that it has finished.",
            _answer_demo,
            {"failure": "truncated"},
        ),
        "demo-rate-limited": ScriptedModel(
            "Refuses every request: 429, try again in two seconds.",
            _answer_demo,
            {"failure": "rate_limited", "fail_after": 0, "first_token_delay": 0.1},
        ),
        "demo-overloaded": ScriptedModel(
            "Refuses every request: 503, overloaded.",
            _answer_demo,
            {"failure": "overloaded", "fail_after": 0, "first_token_delay": 0.1},
        ),
        "demo-refusal": ScriptedModel("Declines to answer, politely.", _answer_refusal),
        "demo-empty": ScriptedModel("Finishes without a word.", _answer_empty),
    }
)
