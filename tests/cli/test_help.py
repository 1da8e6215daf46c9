"""The guide holds the program's own help, word by word."""

import re

from penstock.cli.program import COMMANDS
from tools.command_line import HELP, PAGE, generated


def test_the_guide_says_what_the_program_says():
    page = PAGE.read_text()
    assert generated(page) == page, "run `make docs-cli`"


def test_the_guide_has_every_command():
    assert {name for name in HELP.findall(PAGE.read_text()) if " " not in name} == {"", *COMMANDS}


def test_the_guide_has_every_variable_and_exit_code():
    page = PAGE.read_text()
    sources = "".join(path.read_text() for path in (PAGE.parents[2] / "src/penstock/cli").glob("*.py"))
    for name in set(re.findall(r"\"(PENSTOCK_[A-Z]+|XDG_[A-Z_]+)\"", sources)) - {"XDG_DATA_HOME"}:
        assert f"`{name}`" in page or f"`{name}`" in (PAGE.parent / "configuration.md").read_text()
    codes = re.findall(
        r"^[A-Z_]+: Final = (\d+)$", (PAGE.parents[2] / "src/penstock/cli/exits.py").read_text(), re.M
    )
    for code in codes:
        assert f"| {code} |" in page
