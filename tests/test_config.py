"""Settings: from file, environment and options, and what is said about each mistake."""

import hashlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import (
    BadConfig,
    Config,
    Listen,
    ProviderConfig,
    StoreConfig,
    TargetConfig,
    check,
    read_file,
    with_environment,
)

KEY = "sk-very-secret-key"


@pytest.fixture
def read(tmp_path):
    def read(text, **environ):
        path = tmp_path / "penstock.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_file(path, environ)

    return read


def problems(read, text, **environ):
    with pytest.raises(BadConfig) as caught:
        read(text, **environ)
    return [str(problem) for problem in caught.value.problems]


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
        ("models: {x: {provider: y}}", "models"),
        ("models: {x: [{model: y}]}", "models"),
        ("demo: perhaps", "demo"),
        ("providers: {x: {kind: telepathy}}", "providers"),
        ("listen: {colour: red}", "listen"),
        ("lisen: {}", "penstock.yaml"),
        ("- a\n- b", "penstock.yaml"),
        ("just words", "penstock.yaml"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(read, text, where):
    (found,) = problems(read, text)
    assert where in found.partition(": ")[0]


def test_an_unknown_name_is_named(read):
    assert problems(read, "listen: {colour: red}") == [
        "listen: 'colour' is no setting; see docs/guide/configuration.md for those there are"
    ]


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\t- x", "*nobody", "a: &x [*x]", "[" * 5000, b"\xff\xfe\xff", b"\0"]
)
def test_what_is_no_yaml_is_said_to_be_none(read, text):
    (found,) = problems(read, text)
    assert "penstock.yaml" in found


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


def config(**more):
    return msgspec.convert(more, Config)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"listen": {"port": 65536}}, "listen.port"),
        ({"listen": {"port": -1}}, "listen.port"),
        ({"listen": {"heartbeat": 0}}, "listen.heartbeat"),
        ({"listen": {"host": "0.0.0.0"}}, "keys"),
        ({"listen": {"host": "::"}}, "keys"),
        ({"listen": {"host": "gateway.example"}}, "keys"),
        ({"keys": {"app": "short"}}, "keys.app"),
        ({"keys": {"app": ""}}, "keys.app"),
        ({"keys": {"app": "sha256:abc"}}, "keys.app"),
        ({"keys": {"app": "sha256:" + "A" * 64}}, "keys.app"),
        ({"keys": {"one": KEY, "two": KEY}}, "keys.two"),
        ({"providers": {"x": {"base_url": "localhost:8000"}}}, "providers.x.base_url"),
        ({"providers": {"x": {"ca_file": "/nowhere.pem"}}}, "providers.x.ca_file"),
        ({"models": {"x": []}}, "models.x"),
        ({"models": {"x": [{"provider": "nobody", "model": "y"}]}}, "models.x[0].provider"),
        ({"models": {"x": [{"provider": "demo"}]}}, "models.x[0].model"),
        ({"models": {"x": [{"provider": "demo", "model": "y"}]}, "demo": False}, "models.x[0].provider"),
        ({"default_model": "gpt-*"}, "default_model"),
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
        {"models": {"x/*": [{"provider": "demo"}]}},
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


def test_a_key_in_the_environment_brings_its_provider_unless_the_file_has_it(read):
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://proxy/v1"}
    assert with_environment(Config(), environ).providers["openai"].api_key == KEY
    assert with_environment(Config(), environ).providers["openai"].base_url == "http://proxy/v1"
    file = read("providers: {openai: {api_key: mine}}")
    assert with_environment(file, environ).providers["openai"].api_key == "mine"


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


def test_no_secret_is_in_a_repr():
    provider = ProviderConfig(api_key=KEY, headers={"authorization": KEY})
    shown = repr(Config(providers={"openai": provider}, keys={"app": KEY}))
    assert KEY not in shown
    assert "app" in shown


@pytest.mark.parametrize(
    "text", [f"keys: {{app: {KEY}", f"keys:\n  app: {KEY}: x", f"keys: [{KEY}]", f"listen: {{port: {KEY}}}"]
)
def test_no_secret_is_in_a_problem(read, text):
    assert KEY not in "".join(problems(read, text))
