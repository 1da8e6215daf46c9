"""The program as a whole: its commands, what they load, and that nobody is shown a traceback."""

import os
import pkgutil
import subprocess
import sys

import pytest

from penstock import __version__
from penstock.cli.program import COMMANDS, load


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_can_be_loaded_and_says_what_the_table_says(name):
    function = pkgutil.resolve_name(COMMANDS[name].target)
    assert function.__doc__
    assert load(name).name == name


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_the_version_is_an_option(run, words):
    assert run(*words).stdout == f"penstock {__version__}\n"


def test_the_version_is_a_command(run):
    assert run("version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"], *[[name, "-h"] for name in COMMANDS]])
def test_help_is_everywhere_and_plain(run, words):
    said = run(*words)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("Usage: penstock")
    assert "\x1b" not in said.stdout


def test_without_a_command_the_help_is_shown(run):
    said = run()
    assert said.returncode == 2
    assert "Commands:" in said.stdout + said.stderr


def test_a_command_that_is_none_is_said_with_the_nearest(run):
    said = run("chatt")
    assert said.returncode == 2
    assert "'chat'" in said.stderr


HEAVY = ("httpx", "prompt_toolkit", "markdown_it", "rich.markdown", "penstock.cli.views")


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["serve", "--help"], HEAVY),
        (["--help"], (*HEAVY, "uvicorn", "starlette", "penstock.assembly")),
        (["version"], (*HEAVY, "uvicorn", "starlette", "penstock.assembly")),
        (["chat", "--help"], ("uvicorn", "starlette", "penstock.assembly", "uvloop")),
    ],
)
def test_a_command_loads_only_what_it_needs(environ, words, unwanted):
    command = [sys.executable, "-X", "importtime", "-m", "penstock", *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "penstock.cli.program" in loaded
    assert not [name for name in unwanted if name in loaded]


def test_a_reader_of_the_output_that_has_left_is_met_with_silence(environ, at):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "penstock", "models"]
    done = subprocess.run(command, env={**environ, **at}, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_words_that_the_locale_cannot_hold_are_no_defect(run, at):
    said = run("chat", "-m", "demo-echo", "naïve 流", PYTHONIOENCODING="ascii:strict", **at)
    assert said.returncode == 0
    assert said.stdout.startswith("na")


def test_a_defect_is_told_in_two_lines_and_shown_on_request(environ, tmp_path):
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import json\njson.dumps = lambda *a, **k: 1 / 0\n")
    environ = {**environ, "PYTHONPATH": f"{tmp_path}:{environ['PYTHONPATH']}"}
    command = [sys.executable, "-m", "penstock", "check-config", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.splitlines()[0] == "penstock: a defect of this program: ZeroDivisionError."
    shown = subprocess.run(command, env={**environ, "PENSTOCK_DEBUG": "1"}, capture_output=True, text=True)
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize("module", ["penstock", "penstock.cli"])
def test_the_package_runs_as_a_program(environ, module):
    command = [sys.executable, "-m", module, "version"]
    assert subprocess.run(command, env=environ, capture_output=True, text=True).stdout == f"{__version__}\n"
