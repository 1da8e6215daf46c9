"""Settings: what an operator can write, read once at start, from file, then environment, then options.

The file is YAML (`penstock.yaml`). ``${NAME}`` inside a value is replaced from the environment, and
``${file:/path}`` by what a file holds, so that secrets need not stand in it; none ever stands in a `repr` or
a problem. Everything is described in docs/guide/configuration.md. A setting's *origin* is the line, the
variable or the option that it came from: problems name it. Nothing here acts: `penstock.assembly` builds
from what this module returns.
"""

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec

from penstock.config_text import NotYaml, read_text
from penstock.gateway.presets import CONTENT, PLACE, RESERVED, places
from penstock.gateway.rescue import RetrySettings
from penstock.policies.jwt_settings import ASYMMETRIC, SYMMETRIC
from penstock.policies.review import MAX_WINDOW
from penstock.policies.rulebook import BadRule, RuleSettings, compile_rules
from penstock.providers.bedrock import address as bedrock_address
from penstock.providers.http import parse_base_url
from penstock.providers.keys import MAX_KEYS
from penstock.providers.kinds import KINDS, url_variable
from penstock.providers.ollama_host import find_address
from penstock.providers.profiles import PROFILES
from penstock.providers.vertex import GLOBAL
from penstock.providers.vertex import address as vertex_address
from penstock.server.encryption import BadTls, TlsSettings, load
from penstock.server.guard import is_loopback, is_origin
from penstock.server.origins import EVERY, compile_origins
from penstock.server.proxies import parse_network
from penstock.telemetry.alert_rules import When
from penstock.types.calls import on_disconnect
from penstock.types.errors import ClientError, GatewayError
from penstock.types.keys import NAME
from penstock.types.principals import is_network
from penstock.wire.anthropic_messages_requests import DEFAULTS
from penstock.wire.openai_completions_requests import TemplateName

MAX_FILE_BYTES: Final = 1 << 20

MAX_SECRET_BYTES: Final = 64 << 10
"""Of a file that holds a key."""

if TYPE_CHECKING:
    KindName: TypeAlias = str
else:
    KindName = Literal["", *KINDS]

LEDGER_FILE: Final = "ledger.sqlite"
"""In the data folder."""

MIN_JWT_SECRET: Final = 32
"""Bytes of a secret that tokens are signed with: those of a hash, as RFC 7518 wants it."""

_APIS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(PROFILES, ("chat", "completions")),
    "dashscope": ("chat", "native"),
    "openai": ("chat", "completions", "responses"),
    "ollama": ("chat", "generate"),
}
"""By kind, where there is a choice."""

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]{1,12}){1,3}-\d{1,2}")
_GOOGLE_REGION: Final = re.compile(r"global|us|eu|[a-z]{2,12}-[a-z]{2,12}\d{1,2}")
_GO_DURATION: Final = re.compile(r"-?(\d{1,9}|(\d{1,9}(\.\d{1,9})?(ns|us|ms|s|m|h))+)")
_SECRET_NAMES: Final = frozenset({"key", "api_key", "api_keys", "secret", "secret_key", "password", "token"})
"""Settings whose values are told nobody."""

_HOST: Final = re.compile(r"(?i)[\w-]+(\.[\w-]+)*\.([a-z]{2,24}|[0-9]{1,3})")

_HARMLESS_HEADER: Final = re.compile(
    r"(?i)accept.*|content-.*|user-agent|.*version|.*beta|.*title|referer|.*region"
)
"""Headers for a provider that hold no secret."""

_HASHED_KEY: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all parts: an unknown name is an error, not a silent default."""


class TlsConfig(Settings, frozen=True):
    """Encryption of our own (`penstock.server.encryption.TlsSettings`)."""

    certificate: str
    key: str
    minimum: Literal["1.2", "1.3"] = "1.2"
    client_ca: str = ""


class Listen(Settings, frozen=True):
    """Where clients come in. ``drain``: seconds that open streams get when the server is stopped.

    ``heartbeat``: seconds of silence after which readers get one. ``body_timeout`` and ``body_rate``:
    how slow the body of a request may be (`penstock.server.bodies`).
    """

    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    trusted_proxies: tuple[str, ...] = ()
    tls: TlsConfig | None = None
    drain: float = 20.0
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    body_timeout: float = 30.0
    body_rate: int = 32 << 10
    max_body_bytes: int = 32 << 20
    max_connections: int = 20_000
    max_connections_per_address: int = 2_000
    max_websockets: int = 20_000
    max_rids: int = 256
    ping: float = 20.0
    commit_after: float = 10.0
    heartbeat: float = 15.0
    last_words: float = 0.5
    send_timeout: float = 30.0


class StoreConfig(Settings, frozen=True):
    """Where streams are kept. ``durability``: what a token that was shown survives.

    `process`: a killed process; `host`: a power failure (a disk flush per batch). ``retention`` is in
    seconds after a stream's end.
    """

    kind: Literal["embedded", "memory"] = "embedded"
    path: str = ""
    durability: Literal["process", "host"] = "process"
    retention: float = 86_400.0
    max_streams: int = 1_000_000
    max_bytes: int = 10 << 30
    max_memory_bytes: int = 512 << 20
    max_stream_bytes: int = 64 << 20
    max_open_streams: int = 10_000


class PublicationsConfig(Settings, frozen=True):
    """Streams that are written from outside (`penstock.gateway.publications.PublicationSettings`).

    ``max_bytes`` is 0 for half of what the store may keep. ``long_poll``: seconds that a read waits for
    something new. ``at_rest`` is empty for as the store does by itself.
    """

    max_append_bytes: int = 8 << 20
    max_stream_bytes: int = 4 << 30
    max_bytes: int = 0
    max_streams: int = 10_000
    max_streams_per_owner: int = 2_000
    retention: float = 30 * 86_400.0
    long_poll: float = 20.0
    at_rest: Literal["", "memory", "process", "host"] = ""


class ProviderConfig(Settings, frozen=True):
    """One provider. ``kind`` is a name of `penstock.providers.kinds`; empty: see `Config.kind`.

    ``base_url``: empty for the kind's own. ``api_key_file`` holds the key, for secrets that are mounted;
    ``secret_key`` is what an ERNIE wants beside it.
    ``unsupported``: what becomes of what a request asks and it cannot be told (`penstock.wire.fitting`).
    ``list_models``: whether its names are asked for and offered.
    ``api`` and ``api_version`` choose among those that a kind has; ``template`` is of ``api: completions``
    (`penstock.wire.openai_completions_requests`).
    ``api: generate``, ``keep_alive`` and ``num_ctx`` are an Ollama's (`penstock.wire.ollama.Preferences`),
    ``max_tokens`` an Anthropic's: the limit of an answer whose request has none. ``region`` is
    AWS's or Google's, ``profile`` AWS's; ``credentials_file`` is Vertex's, ``entra`` Azure's: tokens in place
    of a key.
    """

    kind: KindName = ""
    base_url: str = ""
    api_key: str = ""
    api_keys: tuple[str, ...] = ()
    api_key_file: str = ""
    secret_key: str = ""
    organization: str = ""
    project: str = ""
    headers: dict[str, str] = {}
    ca_file: str = ""
    connect_timeout: float = 10.0
    head_timeout: float = 600.0
    max_connections: int = 2_000
    list_models: bool = True
    unsupported: Literal["drop", "refuse"] = "drop"
    api: Literal["chat", "completions", "generate", "native", "responses"] = "chat"
    template: TemplateName = ""
    api_version: str = ""
    region: str = ""
    profile: str = ""
    credentials_file: str = ""
    entra: bool = False
    keep_alive: str = ""
    num_ctx: int = 0
    max_tokens: int = DEFAULTS.max_tokens
    speed: float = 1.0

    def __repr__(self) -> str:
        """Without the key and the headers."""
        return f"ProviderConfig({self.kind}, {self.base_url})"


class TimersConfig(Settings, frozen=True):
    """Seconds (`min_rate`: characters a second) after which a provider has failed; 0 for never, and what is
    left out is as the model's, or everybody's. See `penstock.types.timers.Timers`."""

    connect: float | None = None
    head: float | None = None
    first_output: float | None = None
    stall: float | None = None
    min_rate: float | None = None
    window: float | None = None
    total: float | None = None


class RetryConfig(Settings, frozen=True):
    """How much trying is allowed before an answer has begun (`penstock.gateway.rescue.RetrySettings`)."""

    tries: int = 3
    tries_in_all: int = 6
    base_delay: float = 0.5
    max_delay: float = 8.0
    max_retry_after: float = 10.0
    restart_mark: str = RetrySettings().restart_mark


class BreakerConfig(Settings, frozen=True):
    """When a target is passed over for a while (`penstock.gateway.health.HealthSettings`)."""

    failures: int = 5
    share: float = 0.5
    window: float = 30.0
    cool_down: float = 2.0
    max_cool_down: float = 15.0


class TargetConfig(Settings, frozen=True):
    """One target of a model; ``model: "*"`` asks the provider for the name as it came.

    ``continuation`` is empty for what suits the provider.
    """

    provider: str
    model: str = "*"
    context: int = 0
    weight: float = 1.0
    tries: int = 0
    continuation: Literal["", "prefill", "prompt", "restart", "none"] = ""
    timers: TimersConfig = TimersConfig()


class ModelConfig(Settings, frozen=True):
    """A model with more to say of than its targets."""

    targets: list[TargetConfig]
    balance: Literal["order", "weighted", "least_busy", "fastest"] = "order"
    hedge: bool = False
    on_restart: Literal["interrupt", "continue"] = "interrupt"
    show_model: Literal["answered", "asked"] = "answered"
    timers: TimersConfig = TimersConfig()


class RouteConfig(Settings, frozen=True):
    """What holds for the streams of one route, unless a call says otherwise; empty for the usual.

    ``at_rest``: what is kept of them. ``retention`` is in seconds after the end.
    """

    on_disconnect: str = ""
    retention: float | None = None
    at_rest: Literal["", "none", "memory", "process", "host"] = ""


class RoutesConfig(Settings, frozen=True):
    """The routes that create streams: ``GET /stream``, ``POST /v1/streams``, OpenAI's chat completions,
    legacy completions and responses, Anthropic's messages, Gemini's contents, Ollama's chats and prompts,
    the AI SDK's chats, presets."""

    stream: RouteConfig = RouteConfig()
    streams: RouteConfig = RouteConfig()
    openai_chat: RouteConfig = RouteConfig()
    openai_responses: RouteConfig = RouteConfig()
    anthropic_messages: RouteConfig = RouteConfig()
    openai_completions: RouteConfig = RouteConfig()
    gemini: RouteConfig = RouteConfig()
    ollama: RouteConfig = RouteConfig()
    ai_sdk: RouteConfig = RouteConfig()
    presets: RouteConfig = RouteConfig()


class KeyConfig(Settings, frozen=True):
    """A key with more to say of than itself; what is empty is not limited (`penstock.types.principals`)."""

    key: str
    team: str = ""
    admin: bool = False
    models: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the key."""
        return f"KeyConfig({self.team}, admin={self.admin})"


class IssuerConfig(Settings, frozen=True):
    """Whose JSON Web Tokens are taken (`penstock.policies.jwt.IssuerSettings`)."""

    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    issuer: str = ""
    audience: tuple[str, ...] = ()
    secret: str = ""
    public_key_file: str = ""
    jwks_url: str = ""
    leeway: float = 30.0
    principal: str = "sub"
    team: str = ""
    models: str = ""
    admin: str = ""
    admin_value: str = "penstock-admin"

    def __repr__(self) -> str:
        """Without the secret."""
        return f"IssuerConfig({self.issuer}, {self.algorithms})"


class LedgerConfig(Settings, frozen=True):
    """Where keys and usage are kept. ``url`` is empty for a file in the data folder."""

    url: str = ""

    def __repr__(self) -> str:
        """Without the password."""
        return f"LedgerConfig({self.url.rpartition('@')[2]})"


class PriceConfig(Settings, frozen=True):
    """US dollars for a million tokens (`penstock.policies.prices.Price`)."""

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None


class LimitConfig(Settings, frozen=True):
    """How much at once and in a time, for each of whom it means (`penstock.policies.limits.Limit`)."""

    by: Literal["key", "team", "principal", "model", "preset", "address", "all"] = "key"
    match: str = "*"
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent: int = 0
    queue: int = 0
    wait: float = 10.0


class VariableConfig(Settings, frozen=True):
    """A place in a preset's texts (`penstock.gateway.presets.Variable`)."""

    default: str | None = None
    choices: tuple[str, ...] = ()
    max_chars: int = 1_000
    description: str = ""


class ParametersConfig(Settings, frozen=True):
    """What a preset asks the model with (`penstock.gateway.presets.Parameters`)."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None


class PresetConfig(Settings, frozen=True):
    """A request that the operator wrote (`penstock.gateway.presets.Preset`)."""

    model: str = ""
    system: str = ""
    content: str = "{{content}}"
    description: str = ""
    variables: dict[str, VariableConfig] = {}
    parameters: ParametersConfig = ParametersConfig()
    filters: tuple[str, ...] = ()


class RuleConfig(Settings, frozen=True):
    """What a filter looks for and does (`penstock.policies.rulebook.RuleSettings`)."""

    name: str = ""
    words: tuple[str, ...] = ()
    words_file: str = ""
    pattern: str = ""
    match_case: bool = False
    detect: tuple[str, ...] = ()
    action: Literal["mask", "block", "flag"] = "mask"
    mask: str = "***"


class FilterConfig(Settings, frozen=True):
    """What may be said, to which models and by whom (`penstock.policies.content_filter.Scope`)."""

    rules: list[RuleConfig]
    models: tuple[str, ...] = ("*",)
    principals: tuple[str, ...] = ("*",)
    input: bool = True
    output: bool = True
    reasoning: bool = True
    tools: bool = True


class ModeratorConfig(Settings, frozen=True):
    """Who outside is asked about requests and answers (`penstock.policies.moderator.ModeratorSettings`).
    Seconds; ``window``, ``overlap`` and ``max_held`` in characters."""

    url: str
    kind: Literal["openai", "webhook"] = "openai"
    api_key: str = ""
    secret: str = ""
    model: str = ""
    fail: Literal["closed", "open"] = "closed"
    timeout: float = 5.0
    thresholds: dict[str, float] = {}
    models: tuple[str, ...] = ("*",)
    principals: tuple[str, ...] = ("*",)
    input: bool = True
    output: bool = True
    reasoning: bool = True
    tools: bool = False
    window: int = 400
    overlap: int = 200
    interval: float = 1.0
    max_held: int = 16_384


class ReloadConfig(Settings, frozen=True):
    """``watch``: seconds between looks at the files that were read; 0 for none."""

    watch: float = 2.0


class BudgetConfig(Settings, frozen=True):
    """What each key (by its principal's name) or team, or all together, may spend in a period."""

    usd: float
    by: Literal["key", "team", "all"] = "key"
    match: str = "*"
    period: Literal["day", "week", "month", "ever"] = "month"


class MetricsConfig(Settings, frozen=True):
    """What Prometheus may scrape, and who. ``by_key``: use is counted by the keys of the configuration."""

    enabled: bool = True
    access: Literal["admin", "loopback", "open"] = "admin"
    by_key: bool = False


class OtelConfig(Settings, frozen=True):
    """Traces and metrics by OTLP. ``propagate``: providers that are sent the trace, as patterns; ``content``:
    what is asked and answered stands in spans."""

    enabled: bool = False
    endpoint: str = ""
    headers: dict[str, str] = {}
    sample: float = 1.0
    metrics: bool = True
    propagate: tuple[str, ...] = ()
    content: bool = False

    def __repr__(self) -> str:
        """Name the headers, which may hold credentials, and not what they say."""
        return f"OtelConfig({self.enabled}, {self.endpoint!r}, headers={sorted(self.headers)})"


class TelemetryConfig(Settings, frozen=True):
    """What operators see."""

    metrics: MetricsConfig = MetricsConfig()
    otel: OtelConfig = OtelConfig()


class AlertRuleConfig(Settings, frozen=True):
    """When people are told (`penstock.telemetry.alert_rules.AlertRule`); ``above`` is None for the usual."""

    when: When
    above: float | None = None
    window: float = 300.0
    percentile: float = 95.0
    least: int = 20
    models: tuple[str, ...] = ("*",)
    after: float = 60.0
    repeat: float = 4 * 3600.0
    to: tuple[str, ...] = ()


class AlertsConfig(Settings, frozen=True):
    """Who is told that something is wrong, as URLs of Apprise, and of what; without rules, of everything that
    has a threshold that suits everybody."""

    send: dict[str, str] = {}
    rules: dict[str, AlertRuleConfig] = {}

    def __repr__(self) -> str:
        """Without the addresses, which hold secrets."""
        return f"AlertsConfig({sorted(self.send)}, {sorted(self.rules)})"


class LogConfig(Settings, frozen=True):
    """What is told, and how (`penstock.telemetry.logs.LogSettings`). ``access``: a line for each request;
    ``content``: what was asked and answered too."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = True
    content: bool = False


class Config(Settings, frozen=True):
    """Everything. ``keys``: API keys of clients by the name of their principal, in plain or `sha256:…`."""

    listen: Listen = Listen()
    store: StoreConfig = StoreConfig()
    providers: dict[str, ProviderConfig] = {}
    models: dict[str, list[TargetConfig] | ModelConfig] = {}
    routes: RoutesConfig = RoutesConfig()
    publications: PublicationsConfig = PublicationsConfig()
    timers: TimersConfig = TimersConfig()
    retry: RetryConfig = RetryConfig()
    breaker: BreakerConfig = BreakerConfig()
    default_model: str = ""
    join: tuple[str, ...] = ()
    demo: bool = True
    discover: bool = True
    dashboard: bool = True
    keys: dict[str, str | KeyConfig] = {}
    jwt: dict[str, IssuerConfig] = {}
    anonymous: bool | None = None
    ledger: LedgerConfig = LedgerConfig()
    presets: dict[str, PresetConfig] = {}
    limits: list[LimitConfig] = []
    prices: dict[str, PriceConfig] = {}
    budgets: list[BudgetConfig] = []
    filters: dict[str, FilterConfig] = {}
    moderators: dict[str, ModeratorConfig] = {}
    telemetry: TelemetryConfig = TelemetryConfig()
    log: LogConfig = LogConfig()
    alerts: AlertsConfig = AlertsConfig()
    reload: ReloadConfig = ReloadConfig()

    def key(self, name: str) -> KeyConfig:
        """Return what is said of a key, however short it was written."""
        said = self.keys[name]
        return KeyConfig(said) if isinstance(said, str) else said

    @property
    def has_keys(self) -> bool:
        """Whether somebody must prove who they are, as far as the configuration says."""
        return (bool(self.keys or self.jwt) and self.anonymous is not True) or self.anonymous is False

    @property
    def ledger_url(self) -> str:
        """Where the ledger is; empty where it is gone with the process."""
        if self.ledger.url or self.store.kind == "memory":
            return self.ledger.url
        return f"sqlite:///{os.path.join(self.store.path, LEDGER_FILE)}"

    def model(self, name: str) -> ModelConfig:
        """Return what is said of a model, however short it was written."""
        said = self.models[name]
        return ModelConfig(said) if isinstance(said, list) else said

    def kind(self, provider: str) -> str:
        """Return the kind of a provider: what it says, else the one that its name is, else ``openai``, which
        is any server that speaks Chat Completions at its ``base_url``."""
        made = self.providers[provider]
        if made.kind:
            return made.kind
        return provider if provider in KINDS and not made.base_url else "openai"

    def __repr__(self) -> str:
        """Whose keys there are, and no key."""
        return f"Config({self.listen}, {self.store}, {self.providers}, {self.models}, keys={list(self.keys)})"


def secrets_of(config: Config) -> list[str]:
    """Return every secret that stands in ``config``, for whoever must not tell them."""
    found = [*_secrets(config), *(key for key in config.keys.values() if isinstance(key, str))]
    for provider in config.providers.values():
        if provider.api_key_file and not secret_problem(provider.api_key_file):
            found.append(read_secret(provider.api_key_file))
        for name, value in provider.headers.items():
            if not _HARMLESS_HEADER.fullmatch(name):
                found += [value, *value.split()]
    for url in config.alerts.send.values():
        # Which part of such an address is the secret differs by service; hosts and addresses are none.
        found += [url, *(one for one in re.split(r"[/:@?&=+,]", url) if not _HOST.fullmatch(one))]
    return [secret for secret in found if secret]


def _secrets(part: Any) -> Iterator[str]:
    """Yield what stands in ``part`` under a name that says what it is, however deep."""
    if isinstance(part, Settings):
        for name in part.__struct_fields__:
            value = getattr(part, name)
            if name in _SECRET_NAMES:
                yield from (value,) if isinstance(value, str) else value
            elif name.endswith("url"):
                yield from _passwords(value)
            else:
                yield from _secrets(value)
    elif isinstance(part, Mapping | list):
        for one in part.values() if isinstance(part, Mapping) else part:
            yield from _secrets(one)


def _passwords(url: str) -> list[str]:
    """Return the password in ``url``, as it stands there and as it is meant."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return []
    return [password, unquote(password)]


class Origin(NamedTuple):
    """Where a setting was written: in a file, by line and column from 1; or a variable's or option's name."""

    name: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """As editors and compilers write it."""
        return f"{self.name}:{self.line}" if self.line else self.name


class Problem(NamedTuple):
    """Something wrong in the configuration: where (a dotted path) and what to write instead."""

    where: str
    what: str
    origin: Origin | None = None

    def __str__(self) -> str:
        """One line."""
        return ": ".join(str(part) for part in (self.origin, self.where, self.what) if part)


class BadConfig(GatewayError):
    """The configuration cannot be used; ``problems`` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        """At least one problem."""
        super().__init__("; ".join(map(str, problems)), code="bad_config")
        self.problems = problems


class Draft(NamedTuple):
    """A file as far as it can be understood, where each setting stands, and what is wrong; ``files`` are the
    secrets that it was read with."""

    config: Config
    origins: dict[str, Origin]
    problems: list[Problem]
    files: tuple[str, ...] = ()


def read_draft(path: Path, environ: Mapping[str, str]) -> Draft:
    """Return what the YAML file at ``path`` says; raises `BadConfig` when it cannot be read at all."""
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise BadConfig([Problem("", "is larger than any configuration", Origin(name))])
        text = read_text(data.decode(), Config, environ, read_secret)
        config = msgspec.convert(text.value, Config, strict=False)
    except OSError as error:
        raise BadConfig([Problem("", f"cannot be read: {error.strerror}", Origin(name))]) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadConfig([Problem("", "this is not UTF-8 text", Origin(name, line))]) from None
    except NotYaml as error:
        raise BadConfig([Problem("", error.fault.what, Origin(name, *error.fault.place))]) from None
    except msgspec.ValidationError as error:  # what `read_text` does not know to look for
        what, _, where = str(error).partition(" - at `$")
        raise BadConfig([Problem(where.strip("`."), what[:1].lower() + what[1:], Origin(name))]) from None
    origins = {where: Origin(name, *place) for where, place in text.places.items()}
    faults = sorted(text.faults, key=lambda fault: fault.place)
    problems = [Problem(fault.where, fault.what, Origin(name, *fault.place)) for fault in faults]
    return Draft(config, origins, problems, text.files)


def read_file(path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration in the YAML file at ``path``; raises `BadConfig`."""
    draft = read_draft(path, environ)
    if draft.problems:
        raise BadConfig(draft.problems)
    return draft.config


def read_secret(path: str) -> str:
    """Return what the file at ``path`` holds, without white space around it.

    Raises `OSError`, and `ValueError` with a sentence for whoever wrote it.
    """
    with Path(path).open("rb") as file:
        data = file.read(MAX_SECRET_BYTES + 1)
    if len(data) > MAX_SECRET_BYTES:
        raise ValueError("is larger than any secret")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("is no text in UTF-8") from None
    if not text:
        raise ValueError("is empty")
    return text


def secret_problem(path: str) -> str:
    """Return why no secret can be read from ``path``; empty when one can, or when there is no path."""
    if not path:
        return ""
    try:
        read_secret(path)
    except OSError as error:
        return f"the file {path} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"the file {path} {error}"
    return ""


def located(problems: list[Problem], origins: Mapping[str, Origin]) -> list[Problem]:
    """Return ``problems`` with the origin of the setting, or of the part that it should stand in."""
    return [
        problem if problem.origin else problem._replace(origin=_origin(problem.where, origins))
        for problem in problems
    ]


def _origin(where: str, origins: Mapping[str, Origin]) -> Origin | None:
    while where:
        if found := origins.get(where):
            return found
        where = where[: max(where.rfind("."), where.rfind("["), 0)]
    return None


def environment_origins(config: Config, environ: Mapping[str, str]) -> dict[str, Origin]:
    """Return which settings `with_environment` takes from the environment, and from which variable."""
    named = {
        "listen.host": "PENSTOCK_HOST",
        "listen.port": "PENSTOCK_PORT",
        "store.path": "PENSTOCK_DATA",
        "keys.default": "PENSTOCK_KEY",
    }
    for name, kind in KINDS.items():
        if name not in config.providers and (key := kind.key_in(environ)):
            named[f"providers.{name}"] = key
            named[f"providers.{name}.base_url"] = url_variable(key)
    return {where: Origin(name) for where, name in named.items() if environ.get(name)}


def with_environment(config: Config, environ: Mapping[str, str]) -> Config:
    """Return ``config`` with what the environment says; the file's own words win for providers.

    Raises `BadConfig`.
    """
    listen, store = config.listen, config.store
    if host := environ.get("PENSTOCK_HOST"):
        listen = msgspec.structs.replace(listen, host=host)
    if port := environ.get("PENSTOCK_PORT"):
        if not re.fullmatch(r"[0-9]{1,5}", port):
            raise BadConfig([Problem("PENSTOCK_PORT", "a port is a number from 0 to 65535")])
        listen = msgspec.structs.replace(listen, port=int(port))
    if path := environ.get("PENSTOCK_DATA"):
        store = msgspec.structs.replace(store, path=path)
    if not store.path:
        base = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME", "."), ".local", "share")
        store = msgspec.structs.replace(store, path=os.path.join(base, "penstock"))
    providers = dict(config.providers)
    for name, kind in KINDS.items():
        if name not in providers and (variable := kind.key_in(environ)):
            base_url = environ.get(url_variable(variable)) or kind.base_url
            providers[name] = ProviderConfig(name, base_url, environ[variable])
    config = msgspec.structs.replace(config, providers=providers)
    for name, provider in config.providers.items():
        kind_name = config.kind(name)
        if kind_name == "vertex":
            provider = msgspec.structs.replace(
                provider,
                project=provider.project or environ.get("GOOGLE_CLOUD_PROJECT", ""),
                region=provider.region or environ.get("GOOGLE_CLOUD_LOCATION", ""),
            )
        base_url = provider.base_url or _own_url(kind_name, provider, environ)
        providers[name] = msgspec.structs.replace(provider, kind=kind_name, base_url=base_url)
    keys = dict(config.keys)
    if key := environ.get("PENSTOCK_KEY"):
        keys["default"] = key
    return msgspec.structs.replace(config, listen=listen, store=store, providers=providers, keys=keys)


def own_region(environ: Mapping[str, str]) -> str:
    """Return the region that AWS's own variables name; empty for none."""
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""


def _own_url(kind: str, provider: ProviderConfig, environ: Mapping[str, str]) -> str:
    """Return where a provider of ``kind`` is when nobody says. Raises `BadConfig`."""
    if kind == "bedrock":
        region = provider.region or own_region(environ)
        return bedrock_address(region) if region else ""
    if kind == "vertex":
        return vertex_address(provider.region or GLOBAL)
    if kind != "ollama":
        return KINDS[kind].base_url
    try:
        return find_address(environ.get("OLLAMA_HOST", ""))
    except ValueError as error:
        raise BadConfig([Problem("OLLAMA_HOST", str(error).partition(": ")[2])]) from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_here(url: str, listen: Listen) -> bool:
    """Say whether ``url`` is this gateway: variables that lead SDKs here name a provider's address too."""
    try:
        origin, _ = parse_base_url(url)
    except ValueError:
        return False
    return origin.port == listen.port and is_loopback(origin.host) and listen.port != 0


def check(config: Config) -> list[Problem]:
    """Return what is wrong with ``config`` beyond its types; empty when it can be used."""
    return list(_problems(config))


def _problems(config: Config) -> Iterator[Problem]:
    if not 0 <= config.listen.port <= 65535:
        yield Problem("listen.port", "a port is a number from 0 to 65535")
    for name in ("heartbeat", "ping"):
        if not getattr(config.listen, name) > 0:
            yield Problem(f"listen.{name}", "write a number of seconds above 0")
    for name in ("head_timeout", "idle_timeout", "body_timeout"):
        if not 0.1 <= getattr(config.listen, name) <= 3600:
            yield Problem(f"listen.{name}", "write a number of seconds from 0.1 to 3600")
    if not 0 <= config.listen.body_rate <= 1 << 30:
        yield Problem(
            "listen.body_rate", "write bytes a second, 0 to 1 GiB; 0: the time is for the whole body"
        )
    yield from _bad_pages(config)
    for number, network in enumerate(config.listen.trusted_proxies):
        try:
            parse_network(network)
        except ValueError:
            what = "write an address, as 127.0.0.1, or a network, as 10.0.0.0/8"
            yield Problem(f"listen.trusted_proxies[{number}]", what)
    if config.listen.tls is not None:
        try:
            load(tls_settings(config.listen.tls))
        except BadTls as bad:
            yield Problem(f"listen.tls.{bad.part}", bad.what)
    if not (config.reload.watch == 0 or 0.1 <= config.reload.watch <= 3600):
        yield Problem("reload.watch", "write a number of seconds from 0.1 to 3600, or 0 for never")
    publications = config.publications
    if not 1 <= publications.max_append_bytes <= 64 << 20:
        yield Problem("publications.max_append_bytes", "write a number of bytes, 1 to 64 MiB")
    if not 0 < publications.long_poll <= 300:
        yield Problem("publications.long_poll", "write a number of seconds above 0, at most 300")
    strangers = not config.has_keys and config.anonymous is None and not is_loopback(config.listen.host)
    if re.fullmatch(r"[\d.]*", config.listen.host) and not _is_address(config.listen.host):
        yield Problem("listen.host", "write an address, such as 127.0.0.1, or a name, such as localhost")
    elif strangers:
        yield Problem(
            "listen.host",
            f"listening on {config.listen.host} lets others reach this gateway, and spend your providers' "
            "money: set a key (--key, PENSTOCK_KEY or `keys:`), or `anonymous: false` where `penstock keys` "
            "makes them, or listen on 127.0.0.1",
        )
    otel = config.telemetry.otel
    if otel.endpoint and not otel.endpoint.startswith(("http://", "https://")):
        yield Problem("telemetry.otel.endpoint", "write a collector's address: http://localhost:4318")
    if not 0 <= otel.sample <= 1:
        yield Problem("telemetry.otel.sample", "write a share, from 0 to 1")
    for name in config.routes.__struct_fields__:
        route: RouteConfig = getattr(config.routes, name)
        try:
            on_disconnect(route.on_disconnect, "continue")
        except ClientError as error:
            yield Problem(f"routes.{name}.on_disconnect", error.message)
        if route.retention is not None and not route.retention >= 0:
            yield Problem(f"routes.{name}.retention", "write a number of seconds, 0 or more")
        if config.store.kind == "memory" and route.at_rest in ("process", "host"):
            what = "the store is in memory, where nothing outlives the process: write 'memory' or 'none'"
            yield Problem(f"routes.{name}.at_rest", what)
    yield from _bad_keys(config)
    for name, issuer in config.jwt.items():
        yield from _bad_issuer(f"jwt.{name}", name, issuer)
    url = config.ledger.url
    if url and not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
        yield Problem("ledger.url", "write postgresql://user:password@host/name, or sqlite:///path")
    for name, price in config.prices.items():
        for part in price.__struct_fields__:
            if not 0 <= (getattr(price, part) or 0) < 1e6:
                yield Problem(f"prices.{name}.{part}", "write US dollars for a million tokens, 0 or more")
    for name, preset in config.presets.items():
        yield from _bad_preset(f"presets.{name}", name, preset)
    for number, limit in enumerate(config.limits):
        counts = ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent", "queue")
        for part in counts:
            if getattr(limit, part) < 0:
                yield Problem(f"limits[{number}].{part}", "write a number, 1 or more; 0 is for no limit")
        if not any(getattr(limit, part) for part in counts[:-1]):
            yield Problem(f"limits[{number}]", f"limits nothing: give one of {', '.join(counts[:-1])}")
        if not 0 < limit.wait <= 600:
            yield Problem(f"limits[{number}].wait", "write a number of seconds above 0, at most 600")
        if limit.queue > 100_000:
            yield Problem(f"limits[{number}].queue", "at most 100000 calls may wait")
    for number, budget in enumerate(config.budgets):
        if not 0 <= budget.usd < 1e9:
            yield Problem(f"budgets[{number}].usd", "write US dollars, 0 or more")
    yield from _bad_filters(config.filters)
    for name, preset in config.presets.items():
        for number, wanted in enumerate(preset.filters):
            if wanted not in config.filters:
                what = (
                    f"there is no filter '{wanted}'; there are: {', '.join(sorted(config.filters)) or 'none'}"
                )
                yield Problem(f"presets.{name}.filters[{number}]", what)
    yield from _bad_alerts(config.alerts)
    yield from _bad_moderators(config.moderators)
    known = set(config.providers) | ({"demo"} if config.demo else set())
    for name, provider in config.providers.items():
        if provider.base_url and not provider.base_url.startswith(("http://", "https://")):
            what = "write the whole URL, such as http://127.0.0.1:8000/v1"
            yield Problem(f"providers.{name}.base_url", what)
        if provider.keep_alive and not _GO_DURATION.fullmatch(provider.keep_alive):
            what = "write a time such as 10m or 1h30m, a number of seconds, or -1 for good"
            yield Problem(f"providers.{name}.keep_alive", what)
        if provider.max_tokens < 1:
            yield Problem(f"providers.{name}.max_tokens", "write a number of tokens, 1 or more")
        if _is_here(provider.base_url, config.listen):
            what = "this is where the gateway itself listens: it would ask itself, again and again"
            yield Problem(f"providers.{name}.base_url", what)
        keys = [key for key in (provider.api_key, *provider.api_keys) if key]
        if len(set(keys)) < len(provider.api_keys) + bool(provider.api_key) or len(keys) > MAX_KEYS:
            what = f"write each key once, none empty, and at most {MAX_KEYS}"
            yield Problem(f"providers.{name}.api_keys", what)
        if provider.api_key_file and provider.api_key:
            yield Problem(f"providers.{name}.api_key_file", "give the key itself or its file, not both")
        if problem := secret_problem(provider.api_key_file):
            yield Problem(f"providers.{name}.api_key_file", problem)
        if provider.api not in _APIS.get(config.kind(name), ("chat",)):
            what = f"a provider of the kind {config.kind(name)} has no such api: leave it out"
            yield Problem(f"providers.{name}.api", what)
        if provider.template and provider.api != "completions":
            what = "a template makes texts of conversations for api: completions: leave it out"
            yield Problem(f"providers.{name}.template", what)
        if config.kind(name) == "ernie" and not (provider.secret_key and (keys or provider.api_key_file)):
            what = "write api_key and secret_key: together they buy an access token"
            yield Problem(f"providers.{name}", what)
        elif config.kind(name) == "ernie" and provider.api_keys:
            yield Problem(f"providers.{name}.api_keys", "of this kind a provider has one key: write api_key")
        elif provider.secret_key and config.kind(name) != "ernie":
            what = f"a provider of the kind {config.kind(name)} has none: leave it out"
            yield Problem(f"providers.{name}.secret_key", what)
        if config.kind(name) == "azure" and not provider.base_url:
            what = "write the address of your resource, such as https://my-resource.openai.azure.com"
            yield Problem(f"providers.{name}", what)
        if config.kind(name) == "bedrock" and not (provider.base_url or provider.region):
            yield Problem(f"providers.{name}", "write a region, such as us-east-1, or set AWS_REGION")
        has_keys = bool(provider.api_key or provider.api_keys or provider.api_key_file)
        if config.kind(name) == "vertex":
            if not (provider.project or has_keys):
                what = "write your project, or set GOOGLE_CLOUD_PROJECT; or an api_key of express mode"
                yield Problem(f"providers.{name}", what)
            if provider.region and not _GOOGLE_REGION.fullmatch(provider.region):
                yield Problem(f"providers.{name}.region", "write global, or a region such as europe-west4")
        elif provider.region and not _REGION.fullmatch(provider.region):
            yield Problem(f"providers.{name}.region", "write a region as AWS does, such as us-east-1")
        if provider.credentials_file and not Path(provider.credentials_file).is_file():
            yield Problem(f"providers.{name}.credentials_file", "there is no such file")
        if provider.entra and has_keys:
            yield Problem(f"providers.{name}.entra", "write a key, or entra, and not both")
        if provider.num_ctx < 0:
            yield Problem(f"providers.{name}.num_ctx", "write a number of tokens, or leave it out")
        if provider.ca_file and not Path(provider.ca_file).is_file():
            yield Problem(f"providers.{name}.ca_file", f"there is no file {provider.ca_file}")
    yield from _bad_timers("timers", config.timers)
    if not (config.retry.tries >= 1 and config.retry.tries_in_all >= 1):
        yield Problem("retry", "one try is the least: write 1 for no retries")
    if config.breaker.failures < 1 or not 0 < config.breaker.share <= 1:
        yield Problem("breaker", "failures is at least 1, and share a number above 0, up to 1")
    for name, said in config.models.items():
        targets = config.model(name).targets
        at = f"models.{name}" if isinstance(said, list) else f"models.{name}.targets"
        yield from _bad_timers(f"models.{name}.timers", config.model(name).timers)
        if config.model(name).on_restart == "continue" and config.store.kind == "memory":
            what = "the store is in memory, and gone with the process: there is nothing to go on with"
            yield Problem(f"models.{name}.on_restart", what)
        if not targets:
            yield Problem(at, "name at least one target: [{provider: …, model: …}]")
        for number, target in enumerate(targets):
            yield from _bad_timers(f"{at}[{number}].timers", target.timers)
            if target.context < 0 or not target.weight > 0:
                what = "context is a number of tokens, 0 if it is not known; weight a number above 0"
                yield Problem(f"{at}[{number}]", what)
            if target.provider not in known:
                what = f"there is no provider '{target.provider}'; there are: {', '.join(sorted(known))}"
                yield Problem(f"{at}[{number}].provider", what)
            if target.model == "*" and "*" not in name:
                what = (
                    f"say which model of '{target.provider}' this is: {{provider: {target.provider}, "
                    f"model: …}}; without one a target is for patterns such as '{name}*'"
                )
                yield Problem(f"{at}[{number}].model", what)
    if config.default_model and "*" in config.default_model:
        yield Problem("default_model", "name one model")


def tls_settings(said: TlsConfig) -> TlsSettings:
    """Return what the server takes."""
    return TlsSettings(**msgspec.structs.asdict(said))


def _bad_pages(config: Config) -> Iterator[Problem]:
    listen = config.listen
    for number, origin in enumerate(listen.allowed_origins):
        where = f"listen.allowed_origins[{number}]"
        try:
            compile_origins([origin])
        except ValueError as error:
            yield Problem(where, str(error))
        if origin == EVERY and config.anonymous is not False and not config.has_keys:
            what = "without keys every page on the internet could spend through this gateway: name origins"
            yield Problem(where, what)
        if origin == EVERY and listen.allow_credentials:
            yield Problem(where, "with allow_credentials name origins: every page may not have cookies sent")


def _bad_keys(config: Config) -> Iterator[Problem]:
    whose: dict[str, str] = {}
    for name in config.keys:
        said = config.key(name)
        key = said.key
        at = f"keys.{name}" if isinstance(config.keys[name], str) else f"keys.{name}.key"
        if (first := whose.setdefault(key, name)) != name:
            yield Problem(at, f"this is the key of '{first}' too: give each its own")
        if key.startswith("sha256:"):
            if not _HASHED_KEY.fullmatch(key):
                what = "after 'sha256:' come 64 hex digits in lower case: `printf %s <key> | sha256sum`"
                yield Problem(at, what)
        elif len(key) < 8:
            yield Problem(at, "a key has at least 8 characters; `openssl rand -hex 24` makes one")
        for number, address in enumerate(said.addresses):
            if not is_network(address):
                what = "write an address or a network, such as 10.0.0.0/8"
                yield Problem(f"keys.{name}.addresses[{number}]", what)
        for number, origin in enumerate(said.origins):
            if not is_origin(origin):
                what = "write an origin as browsers send it, such as https://app.example.com"
                yield Problem(f"keys.{name}.origins[{number}]", what)


def _bad_preset(where: str, name: str, preset: PresetConfig) -> Iterator[Problem]:
    if not NAME.fullmatch(name):
        yield Problem(where, "name it in up to 64 letters, digits and . _ @ : -")
    for text in ("system", "content"):
        if unknown := places(getattr(preset, text)) - {CONTENT, *preset.variables}:
            what = f"{{{{{sorted(unknown)[0]}}}}} is no variable of this preset: name it under variables"
            yield Problem(f"{where}.{text}", what)
    used = places(preset.system, preset.content)
    for variable, said in preset.variables.items():
        at = f"{where}.variables.{variable}"
        if variable in RESERVED or not PLACE.fullmatch(f"{{{{{variable}}}}}"):
            taken = ", ".join(sorted(RESERVED))
            yield Problem(at, f"a variable is named in letters, digits and _, and not {taken}")
        elif variable not in used:
            yield Problem(at, f"{{{{{variable}}}}} stands nowhere in system or content")
        if said.default is not None and said.choices and said.default not in said.choices:
            yield Problem(f"{at}.default", "write one of the choices")
        if said.max_chars < 1:
            yield Problem(f"{at}.max_chars", "write a number of characters, 1 or more")
    limit = preset.parameters.max_tokens
    if limit is not None and limit < 1:
        yield Problem(f"{where}.parameters.max_tokens", "write a number of tokens, 1 or more")


def _bad_issuer(where: str, name: str, issuer: IssuerConfig) -> Iterator[Problem]:
    if not NAME.fullmatch(name):
        yield Problem(where, "name it in letters, digits and . _ @ : -")
    for number, algorithm in enumerate(issuer.algorithms):
        if algorithm not in SYMMETRIC | ASYMMETRIC:
            known = ", ".join(sorted(SYMMETRIC | ASYMMETRIC))
            yield Problem(f"{where}.algorithms[{number}]", f"there are: {known}")
    symmetric = set(issuer.algorithms) & SYMMETRIC
    if not issuer.algorithms or (symmetric and set(issuer.algorithms) & ASYMMETRIC):
        what = "name algorithms, with a secret (HS…) or with public keys (the others), not both"
        yield Problem(f"{where}.algorithms", what)
    given = [bool(issuer.secret), bool(issuer.public_key_file), bool(issuer.jwks_url)]
    if sum(given) != 1 or (bool(symmetric) != bool(issuer.secret)):
        what = "give `secret` for HS algorithms, else one of `public_key_file` and `jwks_url`"
        yield Problem(where, what)
    if issuer.secret and len(issuer.secret.encode()) < MIN_JWT_SECRET:
        what = f"a secret has at least {MIN_JWT_SECRET} bytes; `openssl rand -hex 32` makes one"
        yield Problem(f"{where}.secret", what)
    if issuer.public_key_file and not Path(issuer.public_key_file).is_file():
        yield Problem(f"{where}.public_key_file", f"there is no file {issuer.public_key_file}")
    if issuer.jwks_url and not issuer.jwks_url.startswith("https://") and not _is_local(issuer.jwks_url):
        yield Problem(f"{where}.jwks_url", "keys that come by plain HTTP can be anybody's: write https://…")
    if not 0 <= issuer.leeway <= 600:
        yield Problem(f"{where}.leeway", "write a number of seconds from 0 to 600")
    if not issuer.issuer and not issuer.audience:
        what = "say whom tokens must be from (issuer) or for (audience): otherwise those of others are good"
        yield Problem(where, what)


MAX_ALERTS: Final = 50
"""Rules, and half as many whom to tell: each has a thread."""


def _bad_alerts(alerts: AlertsConfig) -> Iterator[Problem]:
    if len(alerts.send) > MAX_ALERTS // 2 or len(alerts.rules) > MAX_ALERTS:
        yield Problem("alerts", f"at most {MAX_ALERTS // 2} to send to, and {MAX_ALERTS} rules")
    if alerts.rules and not alerts.send:
        yield Problem("alerts.send", "say where to: {ops: 'mailto://…'}")
    for name, rule in alerts.rules.items():
        at = f"alerts.rules.{name}"
        if not NAME.fullmatch(name):
            yield Problem(at, "name it in up to 64 letters, digits and . _ @ : -")
        if rule.above is not None and not 0 <= rule.above < 1e6:
            yield Problem(
                f"{at}.above", "write a number, 0 or more: a share (0.1 is 10 %), seconds, how many"
            )
        if rule.above is not None and rule.above >= 1 and rule.when in ("error_rate", "stall_rate", "disk"):
            yield Problem(f"{at}.above", "this is a share, which is never above 1: 0.1 is 10 %")
        if not 10 <= rule.window <= 86_400:
            yield Problem(f"{at}.window", "write a number of seconds, 10 to 86400")
        if not 0 < rule.percentile <= 100:
            yield Problem(f"{at}.percentile", "write a number above 0, at most 100")
        if rule.least < 1:
            yield Problem(f"{at}.least", "write a number of answers, 1 or more")
        for part in ("after", "repeat"):
            if not 0 <= getattr(rule, part) <= 30 * 86_400:
                yield Problem(f"{at}.{part}", "write a number of seconds, 0 or more")
        for number, one in enumerate(rule.to):
            if one not in alerts.send:
                what = f"there is no '{one}' in alerts.send; there are: {', '.join(sorted(alerts.send))}"
                yield Problem(f"{at}.to[{number}]", what)


def _bad_filters(filters: Mapping[str, FilterConfig]) -> Iterator[Problem]:
    for name, one in filters.items():
        if not one.rules:
            yield Problem(f"filters.{name}.rules", "a filter without rules lets everything through")
        for number, rule in enumerate(one.rules):
            try:
                compile_rules([RuleSettings(**msgspec.structs.asdict(rule))])
            except BadRule as bad:
                part = f".{bad.part}" if bad.part else ""
                yield Problem(f"filters.{name}.rules[{number}]{part}", bad.what)


def _bad_moderators(moderators: Mapping[str, ModeratorConfig]) -> Iterator[Problem]:
    for name, one in moderators.items():
        where = f"moderators.{name}"
        try:
            parse_base_url(one.url)
        except ValueError as error:
            yield Problem(f"{where}.url", str(error))
        if not 0 < one.timeout <= 60:
            yield Problem(f"{where}.timeout", "write a number of seconds above 0, at most 60")
        if not 0 < one.interval <= 60:
            yield Problem(f"{where}.interval", "write a number of seconds above 0, at most 60")
        if not 1 <= one.window <= MAX_WINDOW:
            yield Problem(f"{where}.window", f"write a number of characters from 1 to {MAX_WINDOW}")
        if not 0 <= one.overlap <= MAX_WINDOW:
            yield Problem(f"{where}.overlap", f"write a number of characters from 0 to {MAX_WINDOW}")
        if not one.window <= one.max_held <= 1 << 20:
            yield Problem(f"{where}.max_held", f"write a number of characters from window to {1 << 20}")
        if one.secret and one.kind != "webhook":
            yield Problem(f"{where}.secret", "only a webhook is signed; for an endpoint give api_key")
        if one.thresholds and one.kind == "webhook":
            yield Problem(f"{where}.thresholds", "a webhook says itself what it allows")
        for category, least in one.thresholds.items():
            if not 0 < least <= 1:
                yield Problem(f"{where}.thresholds.{category}", "write a number above 0, at most 1")


def _is_local(url: str) -> bool:
    try:
        origin, _ = parse_base_url(url)
    except ValueError:
        return False
    return is_loopback(origin.host)


def _bad_timers(where: str, timers: TimersConfig) -> Iterator[Problem]:
    for name in timers.__struct_fields__:
        value = getattr(timers, name)
        if value is not None and not 0 <= value < float("inf"):
            yield Problem(f"{where}.{name}", "write a number, 0 or more; 0 turns it off")
    if timers.window == 0:
        yield Problem(f"{where}.window", "write a number of seconds above 0; min_rate: 0 turns the timer off")
