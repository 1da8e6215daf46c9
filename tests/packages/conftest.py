"""The package as people get it: built from what git tracks, installed where nothing of this repository is."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 110


class Installed(NamedTuple):
    """``folder`` holds it all; ``dist`` what a release would upload, ``bin`` the programs of the venv."""

    folder: Path

    @property
    def dist(self) -> Path:
        return self.folder / "dist"

    @property
    def wheel(self) -> Path:
        return next(self.dist.glob("*.whl"))

    @property
    def bin(self) -> Path:
        return self.folder / "venv" / "bin"


def clean_environment() -> dict[str, str]:
    """The environment without what leads Python or us elsewhere."""
    ours = ("PYTHON", "PENSTOCK_", "OPENAI_", "COV", "MYPYPATH", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**own, "PIP_NO_COMPILE": "1"}  # most of what is installed is never imported here


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program to its end and return what it printed; fails with all of it."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_tracked(folder: Path) -> None:
    """Copy what git tracks, as it is now, to ``folder``."""
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the package is what git tracks")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]  # whoever owns the checkout
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=30)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # one that was removed and not committed is not
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def commands(page: str, heading: str, replaced: Mapping[str, str], number: int = 0) -> str:
    """Return a block of commands below ``heading`` in a guide, each word of ``replaced`` by another."""
    text = (ROOT / "docs" / "guide" / f"{page}.md").read_text().split(f"\n## {heading}\n")[1]
    blocks = re.findall(r"^```bash\n(.*?)^```$", text.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    block: str = blocks[number]
    for old, new in replaced.items():
        assert old in block
        block = block.replace(old, new)
    return block


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold a lock: test processes that run side by side do this one after the other."""
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Installed:
    """Build and install once for all test processes of this run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    made = Installed(shared / "installed")
    with alone(shared / "installed.lock"):
        if not (made.folder / "done").exists():
            source = made.folder / "source"
            copy_tracked(source)
            build = f"{sys.executable} -m build --no-isolation"
            run(*build.split(), "--wheel", "--outdir", made.folder / "direct", cwd=source)
            steps = commands(
                "install",
                "Into a folder of its own",
                {
                    "make dist": f"{build} --outdir {made.dist}",  # the wheel from the sdist
                    "dist/penstock": f"{made.dist}/penstock",
                    "/opt/penstock": str(made.bin.parent),
                    "python3 -m venv": f"{sys.executable} -m venv",
                },
            )
            run("bash", "-euc", steps, cwd=source)
            (made.folder / "done").touch()
    return made
