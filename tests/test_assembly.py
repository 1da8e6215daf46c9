"""What is built from a configuration: who is looked for, and which rule takes a name."""

import pytest

from penstock.assembly.settings import upstream_config
from penstock.assembly.system import assemble
from penstock.config import BadConfig, Config, ProviderConfig, StoreConfig, TargetConfig, with_environment
from penstock.providers.ollama import OllamaProvider

MEMORY = StoreConfig(kind="memory")


def built(environ=None, **parts):
    return assemble(Config(store=MEMORY, **parts), environ or {}).gateway


def found(environ=None, **parts):
    """Return the address at which an Ollama is looked for, or None."""
    gateway = built(environ, **parts)
    if not gateway.setup.routing.found:
        return None
    assert gateway.setup.routing.found == {"ollama"}
    return repr(gateway.setup.providers["ollama"]).split()[-1].rstrip(">")


def test_an_ollama_that_nobody_configured_is_looked_for():
    assert found() == "http://127.0.0.1:11434"
    assert found({"OLLAMA_HOST": "box:1234"}) == "http://box:1234"
    assert found(providers={"near": ProviderConfig(base_url="http://127.0.0.1:8000/v1")})


@pytest.mark.parametrize(
    "providers",
    [
        {"box": ProviderConfig(kind="ollama", base_url="http://box:11434")},
        {"ollama": ProviderConfig(base_url="http://box:8000/v1")},
        {"mine": ProviderConfig(base_url="http://localhost:11434/v1")},
        {"mine": ProviderConfig(base_url="http://127.0.0.1:11434/v1")},
    ],
)
def test_an_ollama_that_the_configuration_has_is_not_looked_for(providers):
    assert found(providers=providers) is None


def test_nobody_is_looked_for_when_that_is_turned_off_or_nobody_can_be():
    assert found(discover=False) is None
    assert "ollama" not in built(discover=False).setup.providers
    assert found({"OLLAMA_HOST": "not an address"}) is None


def test_a_configured_ollama_is_where_it_says_or_where_the_environment_does():
    ollama = {"box": ProviderConfig(kind="ollama")}
    config = with_environment(Config(providers=ollama), {"OLLAMA_HOST": "0.0.0.0:1234"})
    assert config.providers["box"].base_url == "http://127.0.0.1:1234"
    assert (
        with_environment(Config(providers=ollama), {}).providers["box"].base_url == "http://127.0.0.1:11434"
    )
    assert isinstance(built(providers=ollama).setup.providers["box"], OllamaProvider)
    with pytest.raises(BadConfig, match="OLLAMA_HOST: expected"):
        with_environment(Config(providers=ollama), {"OLLAMA_HOST": "a b"})


def test_a_base_url_that_cannot_be_an_ollamas_says_what_to_write():
    providers = {"box": ProviderConfig(kind="ollama", base_url="http://127.0.0.1:11434/v1")}
    with pytest.raises(BadConfig, match=r"providers\.box: .*address alone"):
        built(providers=providers)


def test_the_rest_goes_to_the_first_provider_unless_models_are_named():
    providers = {
        "demo": ProviderConfig(kind="scripted"),
        "one": ProviderConfig(base_url="http://one/v1"),
        "two": ProviderConfig(base_url="http://two/v1", list_models=False),
    }
    routing = built(providers=providers).setup.routing
    assert routing.route("whatever")[0].provider == "one"
    assert routing.route("two/it")[0].model == "it"
    assert routing.unlisted == {"two"}
    named = built(providers=providers, models={"x": [TargetConfig("two", "y")]}).setup.routing
    assert named.rest is None
    assert named.default_model == "x"


def test_an_upstream_of_the_command_line_takes_the_rest():
    config = upstream_config(Config(store=MEMORY), "http://127.0.0.1:9/v1", "", "")
    routing = assemble(config, {}).gateway.setup.routing
    assert routing.route("whatever")[0].provider == "upstream"
    assert routing.route("demo")[0].provider == "demo"


def test_claude_is_anthropics_where_nothing_is_said_of_models():
    providers = {
        "openai": ProviderConfig(base_url="http://box/v1"),
        "claude": ProviderConfig("anthropic", "http://claude"),
    }
    routing = built(providers=providers).setup.routing
    assert [target.provider for target in routing.route("claude-opus-5-5")] == ["claude"]
    assert [target.provider for target in routing.route("gpt-9")] == ["openai"]
    (target,) = routing.route("claude/claude-opus-5-5")
    assert (target.provider, target.model) == ("claude", "claude-opus-5-5")
    said = built(providers=providers, models={"fast": [TargetConfig("claude", "claude-x")]}).setup.routing
    assert not said.route_configured("claude-opus-5-5")


def test_without_models_a_name_goes_to_who_made_it_and_the_rest_to_the_first():
    environ = {f"{name}_API_KEY": "a-key" for name in ("MISTRAL", "DEEPSEEK", "ANTHROPIC")}
    config = with_environment(Config(store=MEMORY, discover=False), environ)
    routing = assemble(config, {}).gateway.setup.routing
    asked = {name: routing.route(name)[0] for name in ("claude-x", "deepseek-chat", "mistral-large", "what")}
    assert {name: target.provider for name, target in asked.items()} == {
        "claude-x": "anthropic",
        "deepseek-chat": "deepseek",
        "mistral-large": "mistral",
        "what": "anthropic",
    }
    assert routing.route("mistral/deepseek-chat")[0].model == "deepseek-chat"


def test_a_key_from_a_file_is_the_providers(tmp_path):
    (tmp_path / "key").write_text("sk-from-a-file\n")
    made = {"x": ProviderConfig(base_url="http://box/v1", api_key_file=str(tmp_path / "key"))}
    provider = assemble(Config(store=MEMORY, providers=made, discover=False), {}).gateway.setup.providers["x"]
    assert provider._endpoint._any_key() == "sk-from-a-file"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"models": {"fast": [TargetConfig("demo", "demo")]}, "default_model": "fats"},
            "did you mean 'fast'?",
        ),
        ({"default_model": "gpt-4o"}, "name one of models, or <provider>/<its model>"),
        ({"default_model": "llama3.2", "discover": False}, "name one of models"),
    ],
)
def test_a_default_model_that_no_route_knows_is_refused(more, said):
    with pytest.raises(BadConfig) as refused:
        built(**more)
    (problem,) = refused.value.problems
    assert problem.where == "default_model"
    assert said in problem.what


@pytest.mark.parametrize(
    "more",
    [
        {"default_model": "demo-echo"},
        {"default_model": "ollama/llama3.2"},
        {"default_model": "llama3.2", "providers": {"box": ProviderConfig("ollama", "http://127.0.0.1:1")}},
        {"default_model": "anything", "providers": {"x": ProviderConfig(base_url="http://127.0.0.1:1/v1")}},
    ],
)
def test_a_default_model_that_somebody_may_answer_is_taken(more):
    assert built(**more).setup.routing.default_model == more["default_model"]
