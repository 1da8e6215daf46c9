"""Writes the help of every command into docs/guide/command-line.md, between its markers.

`make docs-cli` runs it; tests/cli/test_help.py fails when the page says something else.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "command-line.md"
HELP = re.compile(r"<!-- help: penstock ?([\w -]*) -->\n.*?<!-- /help -->", re.DOTALL)


def help_of(command: str) -> str:
    """Return what ``penstock <command> --help`` prints on a terminal of 100 columns."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "_PENSTOCK"))}
    environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    words = [sys.executable, "-m", "penstock", *command.split(), "--help"]
    return subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout


def generated(page: str) -> str:
    """Return the text of the page with every help as it is now."""

    def put(found: re.Match[str]) -> str:
        name = found[1]
        head = f"<!-- help: penstock{' ' + name if name else ''} -->"
        return f"{head}\n\n```text\n{help_of(name).strip()}\n```\n\n<!-- /help -->"

    return HELP.sub(put, page)


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text()))
