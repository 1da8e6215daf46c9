"""`penstock check-config`, and what `serve` says of the same mistakes."""

import json

import pytest

KEY = "sk-very-secret-key"
BAD = f"""
listen:
  prot: 80
  port: eighty
  port: 81
store: {{kind: memory}}
providers:
  openai: {{api_key: {KEY}}}
models:
  fast: [{{provider: opnai, model: x}}]
keys:
  app: ${{MISSING}}
"""
PROBLEMS = """\
penstock: the configuration cannot be used:
  penstock.yaml:3: listen: 'prot' is no setting: did you mean port?
  penstock.yaml:4: listen.port: write a whole number, such as 8080; text was found
  penstock.yaml:5: listen: 'port' stands here twice (first in line 4): keep one of them
  penstock.yaml:10: models.fast[0].provider: there is no provider 'opnai'; there are: demo, openai
  penstock.yaml:12: keys.app: the environment variable MISSING is not set
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "penstock.yaml"):
        (tmp_path / name).write_text(text)

    return write


@pytest.mark.parametrize(
    "words",
    [["check-config"], ["check-config", "penstock.yaml"], ["serve"], ["serve", "-c", "penstock.yaml"]],
)
def test_every_problem_is_told_with_its_line(run, write, words):
    write(BAD)
    said = run(*words)
    assert (said.stdout, said.stderr, said.returncode) == ("", PROBLEMS, 78)


def test_json_has_every_problem_with_its_place(run, write):
    write(BAD)
    said = run("check-config", "--json")
    report = json.loads(said.stdout)
    assert (said.returncode, report["good"], len(report["problems"])) == (78, False, 5)
    assert report["problems"][1] == {
        "where": "listen.port",
        "what": "write a whole number, such as 8080; text was found",
        "origin": "penstock.yaml",
        "line": 4,
        "column": 9,
    }


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["check-config"], {"PENSTOCK_PORT": "99999"}, "PENSTOCK_PORT: listen.port: a port is a number"),
        (["check-config"], {"PENSTOCK_PORT": "many"}, "PENSTOCK_PORT: a port is a number"),
        (
            ["check-config"],
            {"PENSTOCK_HOST": "0.0.0.0"},
            "PENSTOCK_HOST: listen.host: listening on 0.0.0.0 lets",
        ),
        (["check-config"], {"PENSTOCK_KEY": "short"}, "PENSTOCK_KEY: keys.default: a key has at least"),
        (["serve"], {"PENSTOCK_KEY": "short"}, "PENSTOCK_KEY: keys.default: a key has at least"),
        (["serve", "--key", "short"], {}, "--key: keys.default: a key has at least"),
        (["serve", "--host", "0.0.0.0"], {}, "--host: listen.host: listening on 0.0.0.0 lets"),
        (["serve", "--port", "99999"], {"PENSTOCK_PORT": "1"}, "--port: listen.port: a port is a number"),
        (
            ["serve", "--upstream", "localhost:1"],
            {},
            "--upstream: providers.upstream.base_url: write the whole URL",
        ),
        (["serve", "--model", "x"], {}, "--upstream: --model and --api-key say more"),
        (["serve", "--store", "cloud"], {}, "--store: write 'embedded' or 'memory'"),
        (["check-config", "nowhere.yaml"], {}, "nowhere.yaml: cannot be read: No such file"),
    ],
)
def test_what_comes_from_elsewhere_is_named_by_that(run, words, variables, said):
    done = run(*words, **variables)
    assert done.returncode == 78
    assert f"\n  {said}" in done.stderr
    assert "penstock.yaml" not in done.stderr
    assert "short" not in done.stderr


def test_a_part_that_is_wrong_is_not_wrong_twice(run, write):
    write("store: here\nkeys: {app: '${NONE}'}")
    said = run("check-config")
    assert len(said.stderr.splitlines()) == 3


def test_a_good_configuration_is_summed_up_without_its_secrets(run, write):
    write(f"""
listen: {{port: 9000}}
store: {{kind: memory}}
keys: {{app: {KEY}}}
providers:
  openai: {{api_key: {KEY}}}
  local: {{base_url: "http://127.0.0.1:8000/v1"}}
models:
  fast: [{{provider: openai, model: small}}, {{provider: local, model: other}}]
""")
    said = run("check-config")
    assert said.returncode == 0
    assert said.stdout.splitlines() == [
        "penstock.yaml is good.",
        "  listen    127.0.0.1:9000",
        "  keys      app",
        "  store     memory",
        "  provider  openai: https://api.openai.com/v1, with a key",
        "  provider  local: http://127.0.0.1:8000/v1, without a key",
        "  provider  demo: embedded",
        "  model     fast → openai/small, then local/other",
        "  default   fast",
    ]
    report = json.loads(run("check-config", "--json").stdout)
    assert (report["good"], report["keys"], report["default_model"]) == (True, ["app"], "fast")
    assert report["providers"]["openai"] == {
        "kind": "openai",
        "base_url": "https://api.openai.com/v1",
        "has_key": True,
    }
    assert KEY not in json.dumps(report)


def test_without_a_file_the_defaults_are_shown(run):
    said = run("check-config")
    assert said.returncode == 0
    assert said.stdout.startswith("There is no penstock.yaml here: these are the defaults.\n")
