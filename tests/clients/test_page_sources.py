"""The sources of the page: libraries as their packages have them, scripts that keep their own types."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients import node

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "src" / "penstock" / "server" / "pages"
TOOL = ROOT / "tools" / "vendor"
TABLE = json.loads((TOOL / "package.json").read_text())


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """What `make vendor` would put in place, from the packages as they are pinned."""
    folder = tmp_path_factory.mktemp("vendor")
    for name in ("package.json", "package-lock.json", "copy.mjs"):
        shutil.copy(TOOL / name, folder)
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([shutil.which("npm"), "ci", *quiet], cwd=folder, check=True, timeout=110)
    node.run("copy.mjs", str(folder / "pages" / "vendor"), cwd=folder)
    return folder / "pages" / "vendor"


def test_vendored_files_are_those_of_the_pinned_packages(packaged):
    for name in TABLE["vendored"]:
        assert (PAGES / "vendor" / name).read_bytes() == (packaged / name).read_bytes(), name


def test_nothing_else_is_vendored():
    listed = {(PAGES / "vendor" / name).resolve() for name in TABLE["vendored"]}
    assert {file for file in (PAGES / "vendor").rglob("*") if file.is_file()} == listed


def test_vendored_versions_are_exact():
    assert all(version[0].isdigit() for version in TABLE["dependencies"].values())


def test_the_scripts_are_what_their_comments_say_they_are(tmp_path):
    """TypeScript checks them; the libraries' own code is not ours to complain of."""
    options = {
        "target": "es2022",
        "module": "es2022",
        "moduleResolution": "bundler",
        "lib": ["es2023", "dom", "dom.iterable"],
        "allowJs": True,
        "checkJs": True,
        "strict": True,
        "noEmit": True,
        "types": [],
    }
    # Of the client the page has one file without types; they are where it is made.
    pages = shutil.copytree(PAGES, tmp_path / "pages", ignore=shutil.ignore_patterns("penstock.js"))
    described = json.dumps(str(node.client() / "dist" / "index.js"))
    (pages / "client" / "penstock.d.ts").write_text(f"export * from {described};")
    config = tmp_path / "tsconfig.json"
    files = [str(file) for file in sorted(pages.glob("*.js"))]
    config.write_text(json.dumps({"compilerOptions": options, "files": files}))
    compiler = node.modules() / "typescript" / "bin" / "tsc"
    command = [shutil.which("node"), str(compiler), "--project", str(config), "--pretty", "false"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    ours = [line for line in done.stdout.splitlines() if "error TS" in line and "/vendor/" not in line]
    assert ours == []
    assert "error TS5" not in done.stdout  # of the compiler's own options


def test_every_part_that_is_shipped_is_used():
    """A script that nothing imports, or a style that nothing links, would stay for ever."""
    named = "".join(file.read_text() for file in PAGES.rglob("*") if file.suffix in (".js", ".html", ".css"))
    parts = [file for file in PAGES.glob("*") if file.is_file() and file.suffix != ".html"]
    assert [part.name for part in parts if part.name not in named] == []
