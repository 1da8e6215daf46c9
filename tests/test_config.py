"""Settings: from file, environment and options, and what is said about each mistake."""

import hashlib
import re
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import config as settings
from penstock.config import (
    BadConfig,
    Config,
    IssuerConfig,
    KeyConfig,
    LedgerConfig,
    Listen,
    ModeratorConfig,
    Origin,
    Problem,
    ProviderConfig,
    Settings,
    StoreConfig,
    TargetConfig,
    check,
    environment_origins,
    located,
    read_draft,
    read_file,
    secrets_of,
    with_environment,
)
from penstock.providers.kinds import KINDS, url_variable

KEY = "sk-very-secret-key"


@pytest.fixture
def read(tmp_path):
    def read(text, **environ):
        path = tmp_path / "penstock.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_file(path, environ)

    return read


def faults(read, text, **environ):
    """What is wrong with ``text``, with where it stands."""
    with pytest.raises(BadConfig) as caught:
        read(text, **environ)
    return caught.value.problems


def problems(read, text, **environ):
    with pytest.raises(BadConfig) as caught:
        read(text, **environ)
    return [str(problem._replace(origin=None)) for problem in caught.value.problems]


# --- the file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", "---\n"])
def test_an_empty_file_is_the_default(read, text):
    assert msgspec.to_builtins(read(text)) == msgspec.to_builtins(Config())


def test_a_whole_file(read):
    config = read("""
listen: {host: "::1", port: 80, allowed_origins: [https://app.example], heartbeat: 2.5}
store: {kind: memory, retention: 60}
providers:
  local: {base_url: "http://127.0.0.1:8000/v1", headers: {X-Team: "7"}}
models:
  fast: [{provider: local, model: small}]
demo: false
keys: {app: 12345678}
""")
    assert config.listen == Listen(
        host="::1", port=80, allowed_origins=("https://app.example",), heartbeat=2.5
    )
    assert config.store == StoreConfig(kind="memory", retention=60.0)
    assert config.providers["local"].headers == {"X-Team": "7"}
    assert config.models == {"fast": [TargetConfig("local", "small")]}
    assert (config.demo, config.keys) == (False, {"app": "12345678"})
    assert check(config) == []


def test_variables_are_replaced_wherever_they_stand(read):
    text = 'listen: {port: "${PORT}", allowed_hosts: ["a.${DOMAIN}"]}\nkeys: {app: "${A}-${B}"}'
    config = read(text, PORT="99", DOMAIN="example", A="left", B="right")
    assert (config.listen.port, config.listen.allowed_hosts) == (99, ("a.example",))
    assert config.keys["app"] == "left-right"


def test_what_a_variable_holds_is_not_looked_into_again(read):
    assert read("keys: {app: '${A}'}", A="${B} $A {}").keys["app"] == "${B} $A {}"


def test_each_variable_that_is_not_set_is_named_with_its_place(read):
    found = problems(read, "keys: {app: '${ONE}'}\nlisten: {allowed_hosts: [x, '${TWO}']}")
    assert found == [
        "keys.app: the environment variable ONE is not set",
        "listen.allowed_hosts[1]: the environment variable TWO is not set",
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("listen: {port: eighty}", "listen.port"),
        ("listen: {port: 1.5}", "listen.port"),
        ("listen: here", "listen"),
        ("store: {kind: cloud}", "store.kind"),
        ("models: {x: {targets: y}}", "models.x.targets"),
        ("models: {x: [{model: y}]}", "models.x[0]"),
        ("models: [x]", "models"),
        ("demo: perhaps", "demo"),
        ("demo:", "demo"),
        ("providers: {x: {kind: telepathy}}", "providers.x.kind"),
        ("providers: {x: {headers: [a]}}", "providers.x.headers"),
        ("providers: {x: {api_key: [a]}}", "providers.x.api_key"),
        ("listen: {colour: red}", "listen"),
        ("listen: {allowed_hosts: a.example}", "listen.allowed_hosts"),
        ("listen: {[a]: red}", "listen"),
        ("keys: {app}", "keys"),
        ("keys: {app: '${A:-default}'}", "keys.app"),
        ("lisen: {}", ""),
        ("- a\n- b", ""),
        ("just words", ""),
    ],
)
def test_a_wrong_value_is_named_with_its_place(read, text, where):
    (found,) = faults(read, text)
    assert (found.where, found.origin.name.endswith("penstock.yaml"), found.origin.line) == (where, True, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("providers: {x: {base-url: y}}", "providers.x: 'base-url' is no setting: did you mean base_url?"),
        ("provider: {}", "'provider' is no setting: did you mean providers?"),
        ("port: 80", "'port' is no setting here: it stands under 'listen:'"),
        (
            "models: {x: [{colour: red, provider: demo}]}",
            "models.x[0]: 'colour' is no setting here; there are: "
            "provider, model, context, weight, tries, continuation, timers",
        ),
        ("models: {x: [{model: y}]}", "models.x[0]: 'provider' is missing here"),
        (
            "models: {x: {targets: {provider: y}}}",
            "models.x.targets: write a list here: "
            "[{provider: …, model: …, context: …, weight: …, tries: …, continuation: …, "
            "timers: …}]; "
            "a mapping was found",
        ),
        ("listen: {port: eighty}", "listen.port: write a whole number, such as 8080; text was found"),
        ("listen: {drain: [1]}", "listen.drain: write a number, such as 20; a list was found"),
        ("listen: {drain: }", "listen.drain: write a number, such as 20, or leave the line out"),
        (
            "store: {kind: embeded}",
            "store.kind: write embedded or memory; something else was found: did you mean embedded?",
        ),
        ("demo: yes", "demo: write true or false; text was found"),
    ],
)
def test_a_problem_says_what_to_write(read, text, said):
    assert problems(read, text) == [said]


def test_a_problem_begins_as_compilers_begin_theirs(read):
    (found,) = faults(read, "demo: true\n\nlisten:\n  port: eighty")
    assert str(found).endswith(
        "penstock.yaml:4: listen.port: write a whole number, such as 8080; text was found"
    )
    assert found.origin.column == 9


def test_all_problems_are_told_at_once_in_their_order(read):
    found = faults(
        read,
        """
listen:
  prot: 80
  heartbeat: often
keys:
  app: ${MISSING}
models:
  fast: [{provider: demo}, {}]
""",
    )
    assert [(one.where, one.origin.line) for one in found] == [
        ("listen", 3),
        ("listen.heartbeat", 4),
        ("keys.app", 6),
        ("models.fast[1]", 8),
    ]


def test_a_name_that_stands_twice_is_not_dropped_in_silence(read):
    (found,) = faults(read, "listen:\n  port: 1\n  host: localhost\n  port: 2")
    assert found.what == "'port' stands here twice (first in line 2): keep one of them"
    assert found.origin.line == 4


@pytest.mark.parametrize("text", ["providers:", "providers: ~", "models: null", "listen:\nkeys: {}"])
def test_a_part_with_nothing_in_it_is_the_default(read, text):
    assert msgspec.to_builtins(read(text)) == msgspec.to_builtins(Config())


def test_a_provider_with_nothing_in_it_is_one(read):
    assert read("providers:\n  openai:").providers == {"openai": ProviderConfig()}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("models:\n  fast:\n\t- x", 3, "a tab stands here: indent with spaces"),
        ("a: [", 1, "the [ or { that begins in line 1 is not closed"),
        ("a: [b, {c: d}", 1, "the list [ … ] that begins in line 1 is not closed, or lacks a comma"),
        ("a: {b: c", 1, "the mapping { … } that begins in line 1 is not closed, or lacks a comma"),
        ("a: b: c", 1, "a second ': ' in one value: put the value in quotes, or indent the lines alike"),
        ("a: 'b", 1, "the quote that begins in line 1 is not closed"),
        ("models:\n  *: []", 2, "a text that begins with * must stand in quotes: '*'"),
        ("models: {x: [{model: *}]}", 1, "a text that begins with * must stand in quotes: '*'"),
        ("*nobody", 1, "a text that begins with * must stand in quotes: '*'"),
        ("keys: {app: @secret}", 1, "a text that begins with @ must stand in quotes"),
        ("a: 1\n b: 2", 2, "a second ': ' in one value: put the value in quotes, or indent the lines alike"),
        (
            "a: {}\n b: 2",
            2,
            "this line does not go on with the part above: check its indentation and its ':'",
        ),
        (
            "a: {}\n---\nb: {}",
            2,
            "a second document begins here: a configuration is one, so take the '---' out",
        ),
        ("[" * 5000, 0, "it is nested too deeply"),
        (b"a: 1\nb: \xff\xfe\xff", 2, "this is not UTF-8 text"),
        (b"a: 1\n\0", 2, "there is a character here that text cannot hold: save the file as UTF-8 text"),
        ("x" * (1 << 21), 0, "is larger than any configuration"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_no_yaml_is_said_to_be_none(read, text, line, said):
    (found,) = faults(read, text)
    assert (found.what, found.origin.line) == (said, line)


def test_aliases_of_aliases_do_not_make_billions(read):
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    found = faults(read, "listen: {allowed_hosts: &h [a]}\nkeys: {x: &k abc}\n" + "\n".join(lines))
    assert {one.what.split(";")[0] for one in found} == {f"'a{n}' is no setting here" for n in range(12)}
    bomb = "providers:\n  a0: &p {headers: &h {x: y}}\nmodels:\n  m: &m [{provider: *p, model: *h}, *m]"
    assert faults(read, bomb)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadConfig) as caught:
        read_file(tmp_path / "nothing.yaml", {})
    assert "nothing.yaml" in str(caught.value.problems[0])


_TAGGED = ["!!timestamp x", "!!int x", "!!bool x", "!!float y", "!!binary z", "!!python/x", "&a", "*a"]
_ODD = ["2001-99-99", "<<", "=", "~", "0x", "1_0", ".inf", ".nan"]
_SCALARS = st.none() | st.text(max_size=8) | st.integers() | st.floats() | st.sampled_from(_TAGGED + _ODD)
_NAMES = st.sampled_from(["listen", "port", "store", "models", "keys", "host", "x"]) | st.text(max_size=4)


def _deeper(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4)


_TREES = st.recursive(_SCALARS, _deeper, max_leaves=8)


def _written(value):
    match value:
        case dict():
            return "{" + ", ".join(f"{name}: {_written(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_written, value)) + "]"
    return str(value)


@pytest.fixture(scope="module")
def anything(tmp_path_factory):
    return tmp_path_factory.mktemp("config") / "penstock.yaml"


@given(text=st.text() | _TREES.map(_written))
def test_no_text_is_more_than_a_bad_configuration(anything, text):
    anything.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(BadConfig):
        check(read_file(anything, {}))


# --- what is checked beyond types --------------------------------------------------------------------


LASTING = {"targets": [{"provider": "demo", "model": "demo"}], "on_restart": "continue"}


def config(**more):
    return msgspec.convert(more, Config)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"listen": {"port": 65536}}, "listen.port"),
        ({"listen": {"port": -1}}, "listen.port"),
        ({"listen": {"heartbeat": 0}}, "listen.heartbeat"),
        ({"listen": {"head_timeout": 0}}, "listen.head_timeout"),
        ({"listen": {"idle_timeout": 1e9}}, "listen.idle_timeout"),
        ({"listen": {"body_timeout": -1}}, "listen.body_timeout"),
        ({"listen": {"body_rate": -1}}, "listen.body_rate"),
        ({"listen": {"host": "0.0.0.0"}}, "listen.host"),
        ({"listen": {"host": "::"}}, "listen.host"),
        ({"listen": {"host": "gateway.example"}}, "listen.host"),
        ({"keys": {"app": "short"}}, "keys.app"),
        ({"keys": {"app": ""}}, "keys.app"),
        ({"keys": {"app": "sha256:abc"}}, "keys.app"),
        ({"keys": {"app": "sha256:" + "A" * 64}}, "keys.app"),
        ({"keys": {"one": KEY, "two": KEY}}, "keys.two"),
        ({"providers": {"x": {"base_url": "localhost:8000"}}}, "providers.x.base_url"),
        ({"providers": {"x": {"ca_file": "/nowhere.pem"}}}, "providers.x.ca_file"),
        ({"providers": {"x": {"kind": "ollama", "base_url": "box:11434"}}}, "providers.x.base_url"),
        ({"providers": {"x": {"kind": "ollama", "keep_alive": "a while"}}}, "providers.x.keep_alive"),
        ({"providers": {"x": {"kind": "ollama", "num_ctx": -1}}}, "providers.x.num_ctx"),
        ({"models": {"x": []}}, "models.x"),
        ({"models": {"x": [{"provider": "nobody", "model": "y"}]}}, "models.x[0].provider"),
        ({"models": {"x": [{"provider": "demo"}]}}, "models.x[0].model"),
        ({"models": {"x": [{"provider": "demo", "model": "y"}]}, "demo": False}, "models.x[0].provider"),
        ({"default_model": "gpt-*"}, "default_model"),
        ({"listen": {"host": "1"}}, "listen.host"),
        ({"listen": {"host": "127.0.0.256"}}, "listen.host"),
        ({"providers": {"x": {"api_keys": ["one", "one"]}}}, "providers.x.api_keys"),
        ({"providers": {"x": {"api_key": "one", "api_keys": ["one"]}}}, "providers.x.api_keys"),
        ({"providers": {"x": {"api_keys": [""]}}}, "providers.x.api_keys"),
        ({"models": {"x": LASTING}, "store": {"kind": "memory"}}, "models.x.on_restart"),
    ],
)
def test_each_mistake_is_found_in_its_place(more, where):
    assert [problem.where for problem in check(config(**more))] == [where]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"listen": {"host": "localhost"}},
        {"listen": {"host": "127.0.0.9"}},
        {"listen": {"host": "::1", "port": 0}},
        {"listen": {"host": "0.0.0.0"}, "keys": {"app": KEY}},
        {"keys": {"app": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()}},
        {
            "providers": {
                "x": {"kind": "ollama", "keep_alive": "1h30m"},
                "y": {"kind": "ollama", "keep_alive": "-1"},
            }
        },
        {"models": {"x/*": [{"provider": "demo"}]}},
        {"models": {"x": LASTING}},
        {"providers": {"x": {"api_key": "one", "api_keys": ["two", "three"]}}},
    ],
)
def test_what_can_be_used_has_no_problem(more):
    assert check(config(**more)) == []


# --- file < environment < options --------------------------------------------------------------------


def test_the_environment_wins_over_the_file(read):
    file = read("listen: {host: localhost, port: 1}\nstore: {path: /file}\nkeys: {default: from-the-file}")
    environ = {
        "PENSTOCK_HOST": "::1",
        "PENSTOCK_PORT": "2",
        "PENSTOCK_DATA": "/env",
        "PENSTOCK_KEY": "from-the-env",
    }
    config = with_environment(file, environ)
    assert (config.listen.host, config.listen.port, config.store.path) == ("::1", 2, "/env")
    assert config.keys == {"default": "from-the-env"}


@pytest.mark.parametrize("port", ["eighty", "-1", "²", "123456", "8 0"])
def test_a_port_in_the_environment_that_is_none_is_not_passed_over(port):
    with pytest.raises(BadConfig) as caught:
        with_environment(Config(), {"PENSTOCK_PORT": port})
    assert caught.value.problems[0].where == "PENSTOCK_PORT"


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.keys])
def test_a_key_in_the_environment_brings_its_provider_unless_the_file_has_it(read, name):
    for variable in KINDS[name].keys:
        environ = {variable: KEY, url_variable(variable): "http://proxy/v1"}
        made = with_environment(Config(), environ).providers
        assert (made[name].kind, made[name].api_key, made[name].base_url) == (name, KEY, "http://proxy/v1")
        assert made.keys() == {name}
        file = read(f"providers: {{{name}: {{api_key: mine}}}}")
        assert with_environment(file, environ).providers[name].api_key == "mine"


def test_a_provider_that_is_called_as_a_kind_is_of_that_kind(read):
    config = read("""
providers:
  deepseek: {api_key: k}
  anthropic: {base_url: "http://box/v1"}
  mine: {base_url: "http://box/v1"}
  fast: {kind: groq}
""")
    kinds = {name: config.kind(name) for name in config.providers}
    assert kinds == {"deepseek": "deepseek", "anthropic": "openai", "mine": "openai", "fast": "groq"}
    made = with_environment(config, {}).providers
    assert made["deepseek"].base_url == "https://api.deepseek.com"
    assert made["fast"].base_url == "https://api.groq.com/openai/v1"


def test_an_unknown_kind_is_told_with_one_that_is_like_it(read):
    with pytest.raises(BadConfig) as caught:
        read("providers: {x: {kind: deepsek}}")
    (problem,) = caught.value.problems
    assert problem.where == "providers.x.kind"
    assert problem.what.endswith("did you mean deepseek?")


def test_a_secret_can_stand_in_a_file(read, tmp_path):
    (tmp_path / "key").write_text("${HOME} is no variable here\n")
    config = read(f"providers: {{x: {{api_key: 'a ${{file:{tmp_path}/key}} b'}}}}")
    assert config.providers["x"].api_key == "a ${HOME} is no variable here b"


@pytest.mark.parametrize(
    ("name", "what"),
    [("none", "cannot be read"), ("empty", "is empty"), ("binary", "is no text"), ("large", "is larger")],
)
@pytest.mark.parametrize("form", ["api_key: '${file:%s}'", "api_key_file: %s"])
def test_a_secret_file_that_holds_none_is_told_with_its_line(tmp_path, name, what, form):
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    file = tmp_path / "penstock.yaml"
    file.write_text(f"providers:\n  x:\n    {form % (tmp_path / name)}\n")
    draft = read_draft(file, {})
    (problem,) = draft.problems or located(check(draft.config), draft.origins)
    assert what in problem.what
    assert problem.origin.line == 3


def test_a_key_and_its_file_are_one_too_many(read, tmp_path):
    (tmp_path / "key").write_text("k")
    config = read(f"providers: {{x: {{api_key: k, api_key_file: {tmp_path}/key}}}}")
    assert [problem.where for problem in check(config)] == ["providers.x.api_key_file"]


def test_each_kind_has_an_address_of_its_own():
    kinds = {kind: ProviderConfig(kind=kind) for kind in ("openai", "anthropic", "ollama")}
    made = with_environment(Config(providers=kinds), {}).providers
    assert made["openai"].base_url == "https://api.openai.com/v1"
    assert made["anthropic"].base_url == "https://api.anthropic.com"
    assert made["ollama"].base_url == "http://127.0.0.1:11434"


def test_the_gateway_is_not_its_own_provider():
    """The variables that lead SDKs to a gateway lead the gateway to itself, in the same shell."""
    environ = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "http://localhost:8080"}
    (problem,) = check(with_environment(Config(), environ))
    assert problem.where == "providers.anthropic.base_url"
    assert not check(with_environment(Config(), {**environ, "PENSTOCK_PORT": "8081"}))


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"HOME": "/home/me"}, "/home/me/.local/share/penstock"),
        ({"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, "/data/penstock"),
        ({"HOME": "/home/me", "PENSTOCK_DATA": "/here"}, "/here"),
    ],
)
def test_streams_are_kept_where_the_system_says(environ, path):
    assert with_environment(Config(), environ).store.path == path


# --- secrets -----------------------------------------------------------------------------------------


def test_every_secret_is_known_as_one():
    secrets = {f"planted-{n}-" + "s" * 32 for n in range(8)}
    key, admin, api, more, header, signing, hook, password = sorted(secrets)
    config = Config(
        keys={"a": key, "b": KeyConfig(admin, admin=True)},
        providers={
            "p": ProviderConfig(
                "openai", api_key=api, api_keys=(more,), headers={"X-Auth": f"Token {header}"}
            )
        },
        jwt={"i": IssuerConfig(("HS256",), secret=signing)},
        moderators={"m": ModeratorConfig("https://m.example", secret=hook)},
        ledger=LedgerConfig(f"postgresql://u:{password}@db/x"),
    )
    assert secrets <= set(secrets_of(config))
    kinds = [
        kind for kind in vars(settings).values() if isinstance(kind, type) and issubclass(kind, Settings)
    ]
    texts = {
        field.name
        for kind in kinds
        for field in msgspec.structs.fields(kind)
        if field.type in (str, tuple[str, ...])
    }
    suspects = {name for name in texts if re.search("secret|password|token|(^|_)keys?$|credentials?$", name)}
    assert suspects == {"secret", "secret_key", "key", "api_key", "api_keys"}


def test_no_secret_is_in_a_repr():
    provider = ProviderConfig(api_key=KEY, headers={"authorization": KEY})
    shown = repr(Config(providers={"openai": provider}, keys={"app": KEY}))
    assert KEY not in shown
    assert "app" in shown


@pytest.mark.parametrize(
    "text",
    [
        f"keys: {{app: {KEY}",
        f"keys:\n  app: {KEY}: x",
        f"keys: [{KEY}]",
        f"keys: {KEY}",
        f"keys: {{{KEY}}}",
        f"keys:\n  {KEY}:",
        f"keys: {{app: @{KEY}}}",
        f"keys: {{app: *{KEY}}}",
        f"keys: {{app: '{KEY}",
        f"listen: {{port: {KEY}}}",
        f"store: {{kind: {KEY}}}",
        f"demo: {KEY}",
        f"providers: {{x: {{api_key: [{KEY}]}}}}",
        f"providers: {{x: {KEY}}}",
    ],
)
def test_no_secret_is_in_a_problem(read, text):
    assert KEY not in "".join(map(str, faults(read, text)))


# --- where a setting came from -----------------------------------------------------------------------


def test_a_problem_is_located_at_the_setting_or_at_the_part_it_should_stand_in():
    origins = {"models.a.b": Origin("f", 3), "models": Origin("f", 2), "listen.port": Origin("PENSTOCK_PORT")}
    wrong = [Problem("models.a.b[1].provider", "x"), Problem("listen.port", "y"), Problem("demo", "z")]
    assert [str(one.origin) for one in located(wrong, origins)] == ["f:3", "PENSTOCK_PORT", "None"]


def test_settings_of_the_environment_are_known_by_their_variable():
    environ = {"PENSTOCK_HOST": "0.0.0.0", "OPENAI_API_KEY": KEY, "PENSTOCK_PORT": ""}
    assert environment_origins(Config(), environ) == {
        "listen.host": Origin("PENSTOCK_HOST"),
        "providers.openai": Origin("OPENAI_API_KEY"),
    }
    own = Config(providers={"openai": ProviderConfig()})
    assert "providers.openai" not in environment_origins(own, environ)
    environ = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "http://proxy"}
    assert environment_origins(Config(), environ) == {
        "providers.anthropic": Origin("ANTHROPIC_API_KEY"),
        "providers.anthropic.base_url": Origin("ANTHROPIC_BASE_URL"),
    }


# --- who may, how much, for how much -------------------------------------------------------------------

ISSUER = {"issuer": "https://id.example", "jwks_url": "https://id.example/keys"}


@pytest.mark.parametrize(
    ("where", "settings"),
    [
        ("keys.a.key", {"keys": {"a": {"key": "short"}}}),
        ("keys.b.key", {"keys": {"a": "the same key", "b": {"key": "the same key"}}}),
        ("keys.a.addresses[1]", {"keys": {"a": {"key": "12345678", "addresses": ["::1", "10.0.0.0/33"]}}}),
        ("keys.a.origins[0]", {"keys": {"a": {"key": "12345678", "origins": ["app.example"]}}}),
        ("jwt.a/b", {"jwt": {"a/b": ISSUER}}),
        ("jwt.a.algorithms[0]", {"jwt": {"a": {**ISSUER, "algorithms": ["none"]}}}),
        ("jwt.a.algorithms", {"jwt": {"a": {**ISSUER, "algorithms": ["RS256", "HS256"]}}}),
        ("jwt.a.algorithms", {"jwt": {"a": {**ISSUER, "algorithms": []}}}),
        ("jwt.a", {"jwt": {"a": {**ISSUER, "secret": "x" * 32}}}),
        ("jwt.a", {"jwt": {"a": {**ISSUER, "algorithms": ["HS256"]}}}),
        ("jwt.a", {"jwt": {"a": {"jwks_url": ISSUER["jwks_url"]}}}),
        ("jwt.a.jwks_url", {"jwt": {"a": {**ISSUER, "jwks_url": "http://id.example/keys"}}}),
        ("jwt.a.secret", {"jwt": {"a": {"issuer": "x", "algorithms": ["HS256"], "secret": "short"}}}),
        ("jwt.a.public_key_file", {"jwt": {"a": {"issuer": "x", "public_key_file": "/none"}}}),
        ("jwt.a.leeway", {"jwt": {"a": {**ISSUER, "leeway": 1e9}}}),
        ("ledger.url", {"ledger": {"url": "mysql://x/y"}}),
        ("limits[0]", {"limits": [{"by": "key"}]}),
        ("limits[0].concurrent", {"limits": [{"concurrent": -1, "queue": 1}]}),
        ("limits[0].wait", {"limits": [{"concurrent": 1, "wait": 0}]}),
        ("limits[0].queue", {"limits": [{"concurrent": 1, "queue": 100_001}]}),
        ("budgets[0].usd", {"budgets": [{"usd": -1}]}),
        ("prices.*.input", {"prices": {"*": {"input": -1, "output": 1}}}),
        ("presets.a b", {"presets": {"a b": {}}}),
        ("presets.p.system", {"presets": {"p": {"system": "{{none}}"}}}),
        ("presets.p.variables.x", {"presets": {"p": {"variables": {"x": {}}}}}),
        (
            "presets.p.variables.token",
            {"presets": {"p": {"system": "{{token}}", "variables": {"token": {}}}}},
        ),
        (
            "presets.p.variables.x.default",
            {"presets": {"p": {"system": "{{x}}", "variables": {"x": {"default": "a", "choices": ["b"]}}}}},
        ),
        ("presets.p.parameters.max_tokens", {"presets": {"p": {"parameters": {"max_tokens": 0}}}}),
        ("listen.host", {"listen": {"host": "0.0.0.0"}}),
    ],
)
def test_what_policies_cannot_use_is_named(where, settings):
    found = check(msgspec.convert(settings, Config))
    assert where in [problem.where for problem in found], found


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": {"host": "0.0.0.0"}, "anonymous": False},
        {"listen": {"host": "0.0.0.0"}, "anonymous": True},
        {"listen": {"host": "0.0.0.0"}, "jwt": {"a": ISSUER}},
        {"jwt": {"a": {**ISSUER, "jwks_url": "http://localhost:1/keys"}}},
        {"keys": {"a": {"key": "12345678", "admin": True, "origins": ["https://app.example/"]}}},
        {"limits": [{"by": "all", "concurrent": 1, "queue": 10}], "budgets": [{"usd": 0}]},
    ],
)
def test_policies_that_can_be_used_have_no_problem(settings):
    assert check(msgspec.convert(settings, Config)) == []


def test_no_key_secret_or_password_is_shown():
    secret = "a-very-secret-secret-of-32-bytes"
    settings = {
        "keys": {"a": {"key": secret}},
        "jwt": {"a": {"issuer": "x", "algorithms": ["HS256"], "secret": secret}},
        "ledger": {"url": f"postgresql://me:{secret}@db.internal/x"},
    }
    assert secret not in repr(msgspec.convert(settings, Config))
    assert secret not in repr(msgspec.convert(settings, Config).ledger)
