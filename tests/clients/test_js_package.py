"""The JavaScript client as those have it who install it: packed, and used by what they build with.

`make package` also lets Vite and Metro bundle it, which are fetched for that.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile

import pytest

from tests.clients import node

PARTS = node.FOLDER / "package"
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
BUNDLERS = [
    "react",
    "react-dom",
    "vite",
    "@vitejs/plugin-react",
    "typescript@5",
    "@types/react",
    "@types/react-dom",
    "metro",
]


def npm(*arguments, cwd, patience=100):
    command = [shutil.which("npm"), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=patience, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(name, *arguments, cwd):
    return node.run(str(node.CLIENT / "node_modules" / ".bin" / name), *map(str, arguments), cwd=cwd)


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    """What would be published."""
    folder = tmp_path_factory.mktemp("packed")
    shutil.copy(node.ROOT / "LICENSE", node.client())
    npm("pack", "--silent", "--ignore-scripts", "--pack-destination", folder, cwd=node.CLIENT)
    [packed] = folder.iterdir()
    return packed


@pytest.fixture(scope="module")
def project(tmp_path_factory, tarball):
    """A project that has it installed, and the types of React besides."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    npm("install", "--offline", "--no-save", *QUIET, tarball, cwd=folder)
    (folder / "node_modules" / "@types").mkdir()
    for name in ("@types/react", "csstype"):
        (folder / "node_modules" / name).symlink_to(node.CLIENT / "node_modules" / name)
    for part in ("node16.mts", "use.mjs", "sizes.mjs"):
        shutil.copy(PARTS / part, folder)
    return folder


def test_it_has_what_it_needs_and_no_more(tarball):
    with tarfile.open(tarball) as packed:
        names = {name.removeprefix("package/") for name in packed.getnames()}
    assert names >= {"LICENSE", "README.md", "package.json", "react/package.json", "dist/index.d.ts"}
    assert all(name.endswith((".js", ".d.ts")) for name in names if name.startswith("dist/"))
    assert not any(name.startswith(("src/", "test/", "node_modules/")) for name in names)


def test_publint_and_attw_find_nothing(tarball, tmp_path):
    assert "All good!" in tool("publint", "--strict", tarball, cwd=tmp_path)
    found = json.loads(tool("attw", tarball, "--profile", "esm-only", "--format", "json", cwd=tmp_path))
    assert found["analysis"]["types"]
    problems = [each["kind"] for each in found["analysis"]["problems"]]
    assert set(problems) <= {"CJSResolvesToESM"}  # it has no CommonJS


def test_plain_node_has_it(project, gateway):
    printed = node.run("use.mjs", cwd=project, PENSTOCK_URL=gateway.url)
    assert printed == "one two three true false\n"


def test_typescript_has_its_types(project):
    how = ["--module", "node16", "--target", "es2022", "--lib", "es2022,dom,dom.iterable", "--types", "react"]
    strict = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--skipLibCheck"]
    tool("tsc", "--noEmit", *how, *strict, "node16.mts", cwd=project)


def test_who_imports_a_part_gets_that_part(project):
    """By what the guide says, in KB."""
    guide = (node.ROOT / "docs" / "guide" / "javascript.md").read_text()
    said = re.search(
        r"The whole of it is ([\d.]+) KB .*`Penstock` alone ([\d.]+) KB, `durableFetch` ([\d.]+) KB", guide
    )
    esbuild = node.CLIENT / "node_modules" / "esbuild" / "lib" / "main.js"
    printed = node.run("sizes.mjs", str(esbuild), "*", "Penstock", "durableFetch", cwd=project)
    assert [round(int(size) / 1024, 1) for size in printed.split()] == [float(size) for size in said.groups()]


@pytest.mark.skipif("PENSTOCK_BUNDLERS" not in os.environ, reason="`make package` fetches the bundlers")
@pytest.mark.timeout(600)
def test_vite_and_metro_bundle_it(tarball, tmp_path):
    shutil.copytree(PARTS / "vite", tmp_path, dirs_exist_ok=True)
    shutil.copy(PARTS / "metro.mjs", tmp_path)
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    npm("install", *QUIET, tarball, *BUNDLERS, cwd=tmp_path, patience=400)
    tool("tsc", "-p", ".", cwd=tmp_path)
    node.run("node_modules/vite/bin/vite.js", "build", cwd=tmp_path)
    [built] = (tmp_path / "dist" / "assets").glob("*.js")
    assert "v1/streams" in built.read_text()
    assert node.run("metro.mjs", cwd=tmp_path).count("bundled true true") == 2
