"""The import table of docs/architecture.md, held against the sources.

The page is the rule: this module reads it and knows no layer by name, apart from the one exception
the page states (only `assembly` and its providers' part may import inside a function).
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "src" / "penstock"
LATE_IMPORTS_ALLOWED = ("assembly", "provider_assembly")


class Layer(NamedTuple):
    """One row of the table, for one of its names. ``reach`` names layers or single modules of them,
    and is None for all."""

    reach: frozenset[str] | None
    libraries: frozenset[str]


class Table(NamedTuple):
    """What the page says. A guarded module of the standard library must be named like a library."""

    layers: Mapping[str, Layer]
    guarded: frozenset[str]


class Import(NamedTuple):
    """One imported module; ``late`` when the statement stands inside a function."""

    line: int
    module: str
    late: bool


def read_table(text: str) -> Table:
    """Read the section "What may import what"; raises `ValueError` for a row it cannot read."""
    section = re.split(r"^## .*What may import what.*$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    rows = [line.strip()[1:-1].split("|") for line in section.splitlines() if line.startswith("|")]
    layers = {}
    for names, reach, libraries in rows[2:]:
        match _quoted(reach), reach.strip():
            case [], "all":
                allowed = None
            case [], "nothing":
                allowed = frozenset()
            case [*found], _ if found:
                allowed = frozenset(found)
            case _:
                raise ValueError(f"cannot read the row of {names}: {reach}")
        for name in _quoted(names):
            layers[name] = Layer(allowed, frozenset(_quoted(libraries)))
    guarded = next(line for line in section.splitlines() if line.startswith("Guarded: "))
    return Table(layers, frozenset(_quoted(guarded)))


def violations(package: Path, table: Table) -> list[str]:
    """Return a sentence for every import of the tree at ``package`` that breaks ``table``."""
    sources = {_module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    known = sources.keys() | table.guarded
    edges: dict[str, set[str]] = {}
    found = []
    for module, path in sources.items():
        name = module.split(".")[1] if "." in module else module
        layer = Layer(frozenset(), frozenset()) if name == module else table.layers.get(name)
        if layer is None:
            found.append(f"{module}: no row of the table is called {name}")
            continue
        imports = list(_imports(ast.parse(path.read_bytes()), known))
        edges[module] = {imported.module for imported in imports} & sources.keys() - {module}
        for imported in imports:
            if imported.late and name not in LATE_IMPORTS_ALLOWED:
                found.append(f"{module}:{imported.line} imports {imported.module} inside a function")
            if fault := _fault(imported.module, package.name, name, layer, table.guarded):
                found.append(f"{module}:{imported.line} imports {imported.module}: {fault}")
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found.append("import cycle: " + " → ".join(reversed(error.args[1])))
    return found


def _fault(imported: str, house: str, name: str, layer: Layer, guarded: frozenset[str]) -> str:
    """Say what is wrong with the layer called ``name`` importing ``imported``; ``""`` if nothing."""
    top, _, rest = imported.partition(".")
    if top == house:
        allowed = layer.reach is None or not rest or _is_among(rest, layer.reach | {name})
        return "" if allowed else f"{name} may not import {rest}"
    if not top:
        return "relative"
    free = top in sys.stdlib_module_names and not _is_among(imported, guarded)
    return "" if free or _is_among(imported, layer.libraries) else f"not a library of {name}"


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _module_name(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST, known: Set[str], late: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, alias.name, late) for alias in names)
            case ast.ImportFrom(level=level) if level:
                yield Import(node.lineno, ".", late)
            case ast.ImportFrom(module=str(module), names=names):
                # `from a import b` imports the module a.b where that is one, else a.
                for alias in names:
                    inner = f"{module}.{alias.name}"
                    yield Import(node.lineno, inner if inner in known else module, late)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module")
            ):
                yield Import(node.lineno, "importlib", True)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(node, known, late or inside)


def _is_among(module: str, names: frozenset[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def test_sources_keep_to_the_table():
    assert violations(PACKAGE, read_table(PAGE.read_text())) == []


TABLE = """
## 4. What may import what

| layer | may import | libraries |
| --- | --- | --- |
| `types` | nothing | `msgspec` |
| `wire` | `types` | |
| `streams` | `types` | `asyncio` |
| `server` | `types` `streams.memory` | |
| `cli`, `assembly` | all | `uvicorn` |

Guarded: `asyncio` `http.client`.

## 5. Another section
| `server` | all | |
"""


@pytest.fixture
def check(tmp_path: Path) -> Callable[[Mapping[str, str]], list[str]]:
    """Lay out a package called `house` of the given sources; return its violations under `TABLE`."""
    package = tmp_path / "house"

    def check(sources: Mapping[str, str]) -> list[str]:
        for name, source in sources.items():
            path = package / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(source)
        return violations(package, read_table(TABLE))

    return check


def test_table_is_read_from_its_own_section_only():
    table = read_table(TABLE)
    assert table.layers.keys() == {"types", "wire", "streams", "server", "cli", "assembly"}
    assert table.layers["wire"] == (frozenset({"types"}), frozenset())
    assert table.layers["cli"].reach is None
    assert table.guarded == {"asyncio", "http.client"}


def test_row_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="cannot read the row of"):
        read_table(TABLE.replace("| `wire` | `types` |", "| `wire` | types |"))


def test_imports_along_the_table_pass(check):
    found = check(
        {
            "types/events": "import msgspec\nimport re, json.decoder\nfrom collections.abc import Iterable",
            "wire/sse": "from house import types\nfrom house.types import events\nimport house.types.events",
            "wire/native": "from house.wire.sse import x\nimport http",
            "streams/memory": "import asyncio.events",
            "server/reads": "from house.streams import memory",
            "cli": "from house.wire import sse\nimport uvicorn",
        }
    )
    assert found == []


@pytest.mark.parametrize(
    "statement",
    [
        "import house.wire.sse",
        "from house.wire.sse import x",
        "from house.wire import sse",
        "from house import wire",
        "if TYPE_CHECKING: import house.wire.sse",
    ],
)
def test_import_that_points_up_is_found_in_every_form(check, statement):
    (found,) = check({"wire/sse": "", "types/events": statement})
    assert found.startswith("house.types.events:1 imports house.wire")
    assert "types may not import wire" in found


def test_import_between_siblings_that_may_not_know_each_other_is_found(check):
    (found,) = check({"wire/sse": "import house.streams.memory", "streams/memory": ""})
    assert found.endswith("wire may not import streams.memory")


@pytest.mark.parametrize("statement", ["import house.streams.journal", "from house import streams"])
def test_permit_for_one_module_is_none_for_its_layer(check, statement):
    (found,) = check({"streams/memory": "", "streams/journal": "", "server/reads": statement})
    assert "server may not import streams" in found


@pytest.mark.parametrize(
    "statement", ["import uvicorn", "import uvicorn.config", "import asyncio", "from http import client"]
)
def test_library_that_a_layer_does_not_name_is_found(check, statement):
    (found,) = check({"wire/a": statement})
    assert found.endswith("not a library of wire")


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    if x:\n        import re",
        "class A:\n    async def f(self):\n        import re",
        "def f():\n    import_module('re')\nimport importlib\nx = importlib.import_module('re')",
    ],
)
def test_late_import_is_found_except_in_assembly(check, source):
    found = check({"wire/a": source, "assembly": source})
    assert found
    assert all(one.startswith("house.wire.a:") and one.endswith("inside a function") for one in found)


def test_relative_import_is_found(check):
    assert check({"wire/a": "from . import b", "wire/b": ""}) == ["house.wire.a:1 imports .: relative"]


def test_cycle_is_found_within_a_layer(check):
    (found,) = check(
        {
            "wire/a": "from house.wire import b",
            "wire/b": "import house.wire.c",
            "wire/c": "from house.wire.a import x",
        }
    )
    assert found.startswith("import cycle: ")
    assert {*found.removeprefix("import cycle: ").split(" → ")} == {f"house.wire.{name}" for name in "abc"}


def test_layer_without_a_row_is_found(check):
    assert check({"attic/a": ""}) == [
        "house.attic: no row of the table is called attic",
        "house.attic.a: no row of the table is called attic",
    ]


def test_package_root_imports_no_layer(check):
    (found,) = check({"__init__": "from house.types import events", "types/events": ""})
    assert found.endswith("house may not import types.events")
