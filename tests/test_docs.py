"""The pages tell the truth: links lead somewhere, code is code, error codes and modules are listed."""

import ast
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import penstock
from penstock import config

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "penstock"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page; ``line`` is where its first line stands."""

    page: Path
    line: int
    language: str
    text: str


def blocks() -> list[Block]:
    return [
        Block(page, text.count("\n", 0, found.start(3)) + 1, found[2], found[3])
        for page in PAGES
        for text in [page.read_text()]
        for found in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors that hosts of Markdown give to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def parsed() -> dict[Path, ast.Module]:
    """Return the sources as trees."""
    return {path: ast.parse(path.read_bytes()) for path in sorted(SOURCES.rglob("*.py"))}


def code_arguments(trees: list[ast.Module]) -> dict[str, int]:
    """Return where functions and classes of the sources take a ``code`` by position."""
    found = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name, args=arguments) | ast.AsyncFunctionDef(name=name, args=arguments):
                names = [argument.arg for argument in arguments.args if argument.arg != "self"]
            case ast.ClassDef(name=name, body=body):
                names = [line.target.id for line in body if isinstance(line, ast.AnnAssign)]
            case _:
                continue
        if "code" in names:
            found[name] = names.index("code")
    return found


def error_codes() -> dict[str, str]:
    """Return every literal error code in the sources, with a place where it stands.

    A code is what is passed or defaults as ``code``, and what types/errors.py names in capitals.
    """
    trees = parsed()
    positions = code_arguments([*trees.values()])
    found: dict[str, str] = {}
    for path, node in ((path, node) for path, tree in trees.items() for node in ast.walk(tree)):
        values: list[ast.expr | None] = []
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=given, keywords=keywords):
                values = [keyword.value for keyword in keywords if keyword.arg == "code"]
                at = positions.get(name, len(given))
                values += given[at : at + 1]
            case ast.arguments():
                # Defaults belong to the last positional arguments.
                named = [*zip(node.args[::-1], node.defaults[::-1], strict=False)]
                named += zip(node.kwonlyargs, node.kw_defaults, strict=True)
                values = [value for argument, value in named if argument.arg == "code"]
            case ast.AnnAssign(target=ast.Name(id=name)) if path.name == "errors.py" and name.isupper():
                values = [node.value]
        for constant in (part for value in values if value for part in ast.walk(value)):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str) and constant.value:
                found[constant.value] = f"{path.relative_to(ROOT)}:{constant.lineno}"
    return found


def documented_codes() -> list[str]:
    table = (ROOT / "docs" / "protocol.md").read_text().split("| code | fault | status | meaning |")[1]
    return re.findall(r"^\| `(\w+)` \|", table.split("\n\n")[0], re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{link} names no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_are_there(page):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / file).is_file(), file
        assert not name or re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (
            name
        )


@pytest.mark.parametrize(
    "block", blocks(), ids=lambda block: f"{block.page.relative_to(ROOT)}:{block.line}:{block.language}"
)
def test_code_in_pages_is_code(block):
    where = f"{block.page.name}:{block.line}"
    match block.language:
        case "python":
            compile(block.text, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        case "json":
            json.loads(block.text)
        case "bash":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=10)
        case "js":
            command = ["node", "--input-type=module", "--check"]
            subprocess.run(command, input=block.text, text=True, check=True, timeout=30)
        case "html" | "nginx" | "text" | "markdown" | "yaml":
            pass
        case other:
            pytest.fail(f"{where} has a block in {other or 'no language'}, which nobody checks")


def test_every_error_code_of_the_sources_is_documented():
    documented = documented_codes()
    missing = {code: place for code, place in error_codes().items() if code not in documented}
    assert not missing, "docs/protocol.md, section Errors, lacks these"


def test_every_documented_error_code_stands_in_the_sources():
    nodes = (node for tree in parsed().values() for node in ast.walk(tree))
    literals = {node.value for node in nodes if isinstance(node, ast.Constant)}
    codes = documented_codes()
    assert len(codes) == len(set(codes))
    assert not set(codes) - literals, "docs/protocol.md, section Errors, has these, and nothing raises them"


def test_layout_lists_every_module_and_no_other():
    page = ROOT / "docs" / "architecture.md"
    (tree,) = (
        block.text for block in blocks() if block.page == page and block.text.startswith("src/penstock/")
    )
    listed, folder = set(), ""
    for indent, name in re.findall(r"^([│├└─ ]+)(\S+)  ", tree, re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            listed.add(folder * (len(indent) > len("├── ")) + name)
    modules = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if path.name != "__init__.py"}
    assert listed == modules


def test_every_setting_is_documented_under_its_part():
    page = (ROOT / "docs" / "guide" / "configuration.md").read_text()
    parts = {re.match(r"`(\w+)`", part)[1]: part for part in page.split("\n## ")[1:] if part.startswith("`")}
    kinds = {
        "listen": config.Listen,
        "store": config.StoreConfig,
        "providers": config.ProviderConfig,
        "models": config.TargetConfig,
        "timers": config.TimersConfig,
        "retry": config.RetryConfig,
        "breaker": config.BreakerConfig,
        "keys": config.KeyConfig,
        "jwt": config.IssuerConfig,
        "ledger": config.LedgerConfig,
        "presets": config.PresetConfig,
        "limits": config.LimitConfig,
        "prices": config.PriceConfig,
        "budgets": config.BudgetConfig,
        "routes": config.RouteConfig,
        "publications": config.PublicationsConfig,
        "filters": config.FilterConfig,
        "moderators": config.ModeratorConfig,
        "telemetry": config.MetricsConfig,
        "log": config.LogConfig,
        "alerts": config.AlertsConfig,
        "reload": config.ReloadConfig,
    }
    within = {
        "telemetry": config.OtelConfig,
        "filters": config.RuleConfig,
        "alerts": config.AlertRuleConfig,
    }
    assert parts.keys() == kinds.keys()
    for name, kind in kinds.items():
        fields = [*kind.__struct_fields__, *(within[name].__struct_fields__ if name in within else ())]
        assert re.findall(r"^\| `(\w+)` \|", parts[name], re.MULTILINE) == fields
    for name in config.Config.__struct_fields__:
        assert name in parts or f"| `{name}` |" in page


def test_every_variable_of_the_environment_is_documented():
    page = (ROOT / "docs" / "guide" / "configuration.md").read_text()
    sources = "".join(path.read_text() for path in SOURCES.glob("*.py"))
    for name in re.findall(r"\"((?:PENSTOCK|OPENAI|ANTHROPIC|OLLAMA)_[A-Z_]+)\"", sources):
        assert f"`{name}`" in page


@pytest.mark.parametrize("block", [block for block in blocks() if block.language == "yaml"])
def test_configuration_in_pages_can_be_used(block, tmp_path):
    file = tmp_path / "penstock.yaml"
    file.write_text(block.text)
    secrets = dict.fromkeys(re.findall(r"\$\{(\w+)\}", block.text), "a-secret-of-some-length")
    problems = config.check(config.read_file(file, secrets))
    assert [one for one in problems if "/etc/ssl/" not in one.what] == []  # the reader's own files


def test_changelog_and_package_agree_on_the_version():
    version = penstock.__version__
    newest = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert newest == "Unreleased" or newest.split()[0] == version
    assert version in changelog
