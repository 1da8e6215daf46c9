"""The JSON that goes in and out, as types: for the description of the API, which is made from them.

Answers are built where they are given; these types say what they look like, and the tests hold every
answer against them. The events of streams are no part of this: their own types describe them. Nothing
here is used to serve a request.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from penstock.server.links import DEFAULT_TTL, MAX_TTL, LinkScope
from penstock.types.events import Closed, Fault, FinishReason, Status, UsageReported
from penstock.types.usage import By
from penstock.wire.bodies import MAX_METADATA, MAX_METADATA_NAME, MAX_METADATA_VALUE

_ID: Final = "s_[0-9a-z]{2}[0-9A-HJKMNP-TV-Z]{26}"
_POSITION: Final = r"[0-9]{16}(\.[0-9]{1,4})?"

StreamId: TypeAlias = Annotated[str, Meta(pattern=f"^{_ID}$")]
Cursor: TypeAlias = Annotated[
    str,
    Meta(
        pattern=f"^{_ID}~({_POSITION}|now)$",
        description="A place in a stream: its id and how many entries a reader has. Enough to go on.",
    ),
]
Metadata: TypeAlias = Annotated[
    dict[
        Annotated[str, Meta(max_length=MAX_METADATA_NAME)],
        Annotated[str, Meta(max_length=MAX_METADATA_VALUE)],
    ],
    Meta(max_length=MAX_METADATA),
]
Seconds: TypeAlias = Annotated[int, Meta(ge=0, description="Unix time in seconds.")]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
State: TypeAlias = Literal["open"] | Status

OFFSET: Final = "^[0-9]{16}_[0-9]{16}$"
GIVEN_OFFSET: Final = "^(now|-1|[0-9]{16}_[0-9]{16})$"
EVENT_OFFSET: Final = "^(now|-1|[0-9]{16}_[0-9]{16})?$"
NUMBER: Final = "^(0|[1-9][0-9]{0,15})$"
GIVEN_ID: Final = f"^({_ID})?$"
GIVEN_CURSOR: Final = f"^(({_ID}~)?(now|-1|{_POSITION})|[0-9]{{1,12}})?$"
FULL_CURSOR: Final = f"^({_ID}~(now|-1|{_POSITION}))?$"
"""What may be given; empty is as if it were not."""
_GRACE: Final = r"([0-7]?[0-9]{1,4}|8[0-5][0-9]{3}|86[0-3][0-9]{2})(\.[0-9]{1,9})?|86400"  # up to a day
ON_DISCONNECT: Final = f"^(|continue|cancel|grace:({_GRACE}))$"


# --- streams -----------------------------------------------------------------------------------------


class StreamRequest(Struct, forbid_unknown_fields=True):
    """What to generate, and what becomes of the stream."""

    request: Raw
    dialect: str = "openai_chat"
    ttl_s: Annotated[float, Meta(ge=0, description="How long it stays readable after its end.")] | None = None
    on_disconnect: (
        Annotated[
            str,
            Meta(
                pattern=ON_DISCONNECT,
                description="What it means that nobody reads: `continue`, `cancel` or `grace:<seconds>`.",
            ),
        ]
        | None
    ) = None
    metadata: Metadata | None = None


class StreamAccepted(Struct):
    """A stream that goes on by itself, and where to read and stop it."""

    stream: StreamId
    cursor: Cursor
    events_url: str
    cancel_url: str


class StreamListed(Struct):
    """A stream in a list."""

    id: StreamId
    status: State
    model: str
    route: str
    created_at: Seconds
    entries: Count
    closed_at: Seconds | UnsetType = UNSET
    expires_at: Seconds | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class StreamList(Struct):
    """A page of the caller's streams, newest first."""

    object: Literal["list"]
    data: list[StreamListed]
    has_more: bool


class PublicationListed(Struct):
    """A publication in a list."""

    path: str
    id: StreamId
    content_type: str
    created_at: Seconds
    bytes: Count
    closed: bool


class PublicationList(Struct):
    """A page of the caller's publications, by path."""

    object: Literal["list"]
    data: list[PublicationListed]
    has_more: bool


class SnapshotToolCall(Struct):
    """A tool call so far; ``arguments`` is a JSON text once it is whole."""

    index: Count
    id: str
    name: str
    arguments: str


class StreamSnapshot(Struct):
    """A stream so far, in one piece; reading on from ``cursor`` gives what follows.

    ``text`` is that of choice 0; ``texts`` is there when there are several choices; ``end``, the terminal
    entry, when the stream has ended.
    """

    id: StreamId
    status: State
    model: str
    created_at: Seconds
    cursor: Cursor
    entries: Count
    text: str
    texts: list[str] | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    tool_calls: list[SnapshotToolCall] | UnsetType = UNSET
    finish_reason: FinishReason | UnsetType = UNSET
    usage: UsageReported | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    end: Closed | UnsetType = UNSET


class EntryPage(Struct):
    """Entries after a cursor; ``cursor`` goes on after them."""

    stream: StreamId
    status: State
    cursor: Cursor
    at_tail: bool
    entries: list[Raw]


class StreamStopped(Struct):
    """What a cancel left; ``status`` is ``open`` while the end is not stored yet."""

    id: StreamId
    status: State
    cursor: Cursor


class StreamDeleted(Struct):
    """That a stream is gone."""

    id: StreamId
    object: Literal["stream.deleted"]
    deleted: bool


class LinkRequest(Struct, forbid_unknown_fields=True):
    """A link to be made; ``ttl_s``: the seconds that it works."""

    scope: LinkScope = "read"
    ttl_s: Annotated[float, Meta(gt=0, le=MAX_TTL)] = DEFAULT_TTL


class Link(Struct):
    """A link: whoever has it may do that."""

    token: str
    scope: LinkScope
    expires_at: Seconds
    url: str


# --- events that are no entries ------------------------------------------------------------------------


class Opening(Struct):
    """The first event of every read: where it begins, how far the stream is, how long silence may last."""

    status: State
    from_: Count = field(name="from")
    tail: Count
    heartbeat: Annotated[float, Meta(gt=0, description="Seconds.")]


class Numbered(Struct):
    """What makes an event an entry: its number."""

    n: Annotated[int, Meta(ge=1)]


# --- OpenAI chat ---------------------------------------------------------------------------------------


class ChatMessage(Struct):
    """What the model said; more members as the provider gave them."""

    role: str
    content: str | UnsetType | None = UNSET


class ChatChoice(Struct):
    """One answer."""

    index: Count
    message: ChatMessage
    finish_reason: str


class ChatAnswer(Struct):
    """A whole answer, as OpenAI gives it."""

    id: str
    object: Literal["chat.completion"]
    created: Seconds
    model: str
    choices: list[ChatChoice]
    usage: dict[str, Any] | UnsetType = UNSET


class ChatChunkChoice(Struct):
    """A piece of one answer."""

    index: Count
    delta: dict[str, Any]
    finish_reason: str | UnsetType | None = UNSET


class ChatChunk(Struct):
    """A piece of an answer, as OpenAI streams it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Seconds
    model: str
    choices: list[ChatChunkChoice]
    usage: dict[str, Any] | UnsetType | None = UNSET


# --- OpenAI Responses ----------------------------------------------------------------------------------


class ResponsesAnswer(Struct):
    """A response, as OpenAI gives it: whole, or what there is of it."""

    id: str
    object: Literal["response"]
    created_at: Seconds
    status: Literal["completed", "incomplete", "failed", "cancelled", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    usage: dict[str, Any] | None


class ResponsesTokenCount(Struct):
    """Tokens of a request; ``estimated`` where nobody counted them."""

    object: Literal["response.input_tokens"]
    input_tokens: Count
    estimated: Literal[True] | UnsetType = UNSET


class ResponseDeleted(Struct):
    """That a response is gone."""

    id: str
    object: Literal["response"]
    deleted: bool


class ResponsesItemList(Struct):
    """A page of input items."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


# --- Anthropic Messages --------------------------------------------------------------------------------


class MessagesAnswer(Struct):
    """A whole answer, as Anthropic gives it."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: dict[str, Any]


class TokenCount(Struct):
    """Tokens of a request; ``estimated`` where nobody counted them."""

    input_tokens: Count
    estimated: Literal[True] | UnsetType = UNSET


class AnthropicModel(Struct):
    """What can be asked for, as Anthropic lists it; ``created_at`` is 1970 where nobody said."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"]


class AnthropicModelList(Struct):
    """A page of them."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


# --- identity ------------------------------------------------------------------------------------------


class Key(Struct):
    """A key as it is kept: everything but the key."""

    id: str
    name: str
    state: Literal["active", "expired", "revoked"]
    created_at: Seconds
    team: str | UnsetType = UNSET
    admin: bool | UnsetType = UNSET
    models: list[str] | UnsetType = UNSET
    routes: list[str] | UnsetType = UNSET
    origins: list[str] | UnsetType = UNSET
    addresses: list[str] | UnsetType = UNSET
    expires_at: Seconds | UnsetType = UNSET
    revoked_at: Seconds | UnsetType = UNSET
    replaced_by: str | UnsetType = UNSET


class KeyMade(Key, kw_only=True):
    """A new key, for the only time that it is told."""

    key: str


class KeyList(Struct):
    """All keys, oldest first."""

    object: Literal["list"]
    data: list[Key]


class UsageSum(Struct):
    """What one group used; ``estimated`` and ``unpriced`` count attempts."""

    name: str
    generations: Count
    attempts: Count
    input_tokens: Count
    output_tokens: Count
    cached_tokens: Count
    cache_write_tokens: Count
    reasoning_tokens: Count
    estimated: Count
    unpriced: Count
    cost_usd: Annotated[float, Meta(ge=0)]


class UsageSums(Struct):
    """Sums by what was asked for, the dearest first; days in their order."""

    object: Literal["list"]
    by: By
    data: list[UsageSum]


class BudgetState(Struct):
    """A budget of somebody's in the current period; ``held``: for calls that go on."""

    name: str
    limit_usd: Annotated[float, Meta(ge=0)]
    spent_usd: Annotated[float, Meta(ge=0)]
    held_usd: Annotated[float, Meta(ge=0)]
    resets_at: Seconds | UnsetType = UNSET


class BudgetStates(Struct):
    """All of them, those with the least left first."""

    object: Literal["list"]
    data: list[BudgetState]


class Reload(Struct):
    """The settings that changed, by name, and those of them that wait for a restart."""

    object: Literal["reload"]
    changed: list[str]
    needs_restart: list[str]


class PresetVariable(Struct):
    """What can be said in a place of a preset."""

    required: bool
    max_chars: Count
    default: str | UnsetType = UNSET
    choices: list[str] | UnsetType = UNSET
    description: str | UnsetType = UNSET


class PresetShown(Struct):
    """A preset, without what it says to the model."""

    name: str
    model: str
    variables: dict[str, PresetVariable]
    description: str | UnsetType = UNSET


class PresetList(Struct):
    """All that the caller may use."""

    object: Literal["list"]
    data: list[PresetShown]


class PresetLink(Struct):
    """A link: whoever has it may start this preset, once."""

    token: str
    principal: str
    expires_at: Seconds
    url: str


class TokenMade(Struct):
    """A token for a page, and whose streams those are that it starts."""

    token: str
    principal: str
    expires_at: Seconds


# --- Gemini --------------------------------------------------------------------------------------------


class ChatStopped(Struct):
    """The streams of a chat that this request stopped."""

    chat: str
    stopped: list[StreamId]


class GeminiAnswer(Struct):
    """A whole answer, as Google gives it."""

    modelVersion: str
    responseId: str
    candidates: list[dict[str, Any]] | UnsetType = UNSET
    usageMetadata: dict[str, Any] | UnsetType = UNSET


class GeminiProblem(Struct):
    """What went wrong: ``message`` is for whoever must act, ``details`` for programs."""

    code: int
    message: str
    status: str
    details: list[dict[str, Any]]


class GeminiError(Struct):
    """Every answer that is none, as Google gives it."""

    error: GeminiProblem


class GeminiTokenCount(Struct):
    """Tokens of a request; ``estimated`` where nobody counted them."""

    totalTokens: Count
    estimated: Literal[True] | UnsetType = UNSET


class GeminiModel(Struct):
    """What can be asked for, as Google lists it."""

    name: str
    baseModelId: str
    version: str
    displayName: str
    description: str
    supportedGenerationMethods: list[str]


class GeminiModelList(Struct):
    """A page of them."""

    models: list[GeminiModel]
    nextPageToken: str | UnsetType = UNSET


# --- Ollama, legacy Completions ------------------------------------------------------------------------


class CompletionsChoice(Struct):
    """A piece of one answer, or all of it."""

    text: str
    index: Count
    finish_reason: str | None


class CompletionsAnswer(Struct):
    """A whole answer, or a chunk of one, as OpenAI's legacy API gives it."""

    id: str
    object: Literal["text_completion"]
    created: Seconds
    model: str
    choices: list[CompletionsChoice]
    usage: dict[str, Any] | UnsetType | None = UNSET


class OllamaError(Struct):
    """Every answer that is none, as Ollama gives it, and its code."""

    error: str
    code: str


class OllamaModels(Struct):
    """The models."""

    models: list[dict[str, Any]]


class OllamaModel(Struct):
    """What is known of a model."""

    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]


class OllamaShowRequest(Struct):
    """Which model."""

    model: Annotated[str, Meta(min_length=1)]


class OllamaVersion(Struct):
    """Whose routes these are."""

    version: str


# --- models, errors, probes ------------------------------------------------------------------------------


class Model(Struct):
    """What can be asked for. ``created`` is 0 where nobody said."""

    id: str
    object: Literal["model"]
    created: Seconds
    owned_by: str
    description: str | UnsetType = UNSET


class ModelList(Struct):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class Problem(Struct):
    """What went wrong: ``message`` is for whoever must act, ``code`` for programs."""

    message: str
    type: str
    param: str | None
    code: str
    fault: Fault
    retryable: bool


class Error(Struct):
    """Every answer that is none."""

    error: Problem


class Alive(Struct):
    """The process answers."""

    status: Literal["ok"]


class Ready(Struct):
    """Calls are taken."""

    status: Literal["ready"]


class Unready(Struct):
    """Calls are not taken, and why."""

    status: Literal["unavailable"]
    reason: str
