"""Packages of the past: old versions of SDKs whose new ones are in the environment (`pyproject.toml`, group
``past``), in a folder of their own."""

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv" / "past"


def packages() -> Path:
    """Return the folder to put before all others; `make test` fills it, and where it did not, this does."""
    stamp, group = FOLDER / ".stamp", ROOT / "pyproject.toml"
    with group.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not stamp.exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            pip += ["--target", str(FOLDER), "--group", f"{group}:past"]
            done = subprocess.run(pip, check=False, timeout=200, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            stamp.touch()
    return FOLDER
