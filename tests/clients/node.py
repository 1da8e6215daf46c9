"""Node.js and the packages that its tests need (tests/clients/js)."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent / "js"
ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"
FOREIGN = ("NODE_", "OPENAI_", "ANTHROPIC_", "FORCE_COLOR")


def modules() -> Path:
    """Return the installed packages; `make test` has installed them, and where it did not, this does."""
    installed = FOLDER / "node_modules"
    package = json.loads((FOLDER / "package.json").read_text())
    wanted = [*package["dependencies"], *package["devDependencies"]]
    if not all((installed / name).is_dir() for name in wanted):
        command = [
            shutil.which("npm"),
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ]
        subprocess.run(command, cwd=FOLDER, check=True, timeout=110)
    return installed


def client() -> Path:
    """Return the folder of our JavaScript client, installed and built; `make js` or this does it."""
    sources = [*(CLIENT / "src").glob("*.ts"), CLIENT / "package-lock.json", CLIENT / "tsconfig.json"]
    built = CLIENT / "dist" / ".stamp"
    with (CLIENT / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not built.is_file() or built.stat().st_mtime < max(file.stat().st_mtime for file in sources):
            npm = shutil.which("npm")
            if not (CLIENT / "node_modules" / ".bin" / "tsc").exists():
                quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
                subprocess.run([npm, "ci", *quiet], cwd=CLIENT, check=True, timeout=110)
            subprocess.run([npm, "run", "--silent", "build"], cwd=CLIENT, check=True, timeout=110)
            built.touch()
    return CLIENT


def run(*arguments: str, cwd: Path = FOLDER, patience: float = 100, **environ: str) -> str:
    """Run node and return what it printed; fails with all of it when node fails. ``patience`` in seconds."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    command = [shutil.which("node"), *arguments]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**own, **environ},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
