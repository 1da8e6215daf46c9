"""Completion in real shells, for people who press Tab."""

import shlex
import shutil
import sys

import pytest

from tests.cli.terminal import TAB, Terminal
from tests.clients.gateway import wait_for


@pytest.fixture
def shell(environ, at, tmp_path):
    """Open an interactive shell in which ``penstock`` is a command."""
    program = tmp_path / "bin" / "penstock"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m penstock "$@"\n')
    program.chmod(0o755)
    opened = []

    def shell(*command: str, **variables: str) -> Terminal:
        environment = {
            **environ,
            **at,
            "PS1": "$ ",
            "PATH": f"{program.parent}:{environ['PATH']}",
            **variables,
        }
        opened.append(Terminal(command, environment, 240, 40))
        return opened[-1]

    yield shell
    for terminal in opened:
        terminal.kill()


@pytest.fixture
def bash(shell):
    """A bash with completion on."""
    bash = shell("bash", "--norc", "--noprofile", "-i")
    bash.type("source <(penstock --show-completion bash); echo re''ady\r")
    bash.shows("\nready\n")
    return bash


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("penstock che", "penstock check-config "),
        ("penstock chat --max", "penstock chat --max-tokens "),
        ("penstock chat -m demo-ec", "penstock chat -m demo-echo "),
        ("penstock read x --format sse-o", "penstock read x --format sse-openai "),
    ],
)
def test_bash_completes_commands_options_models_and_values(bash, typed, completed):
    bash.type(typed + TAB + "# here")
    bash.shows(f"$ {completed.rstrip()}", "# here")
    assert f"$ {completed}# here" in bash.all


def test_bash_lists_what_may_follow(bash):
    bash.type("penstock c" + TAB)
    wait_for(lambda: "penstock c" in bash.screen)
    bash.type(TAB + TAB)
    bash.shows("chat", "check-config")


@pytest.mark.parametrize(
    "typed", ["penstock chat --file ", "penstock check-config ", "penstock serve --config "]
)
def test_bash_completes_files(bash, tmp_path, typed):
    (tmp_path / "some-settings.yaml").touch()
    bash.type(f"{typed}{tmp_path}/some" + TAB)
    bash.shows("/some-settings.yaml")


def test_a_gateway_that_is_away_completes_nothing_and_says_nothing(bash):
    bash.type("export PENSTOCK_URL=http://127.0.0.1:1\r")
    bash.type("penstock chat -m demo-ec" + TAB + "# here")
    bash.shows("penstock chat -m demo-ec# here")


def test_completion_installs_itself(shell, tmp_path):
    bash = shell("bash", "--norc", "--noprofile", "-i")
    bash.type("penstock --install-completion\r")
    bash.shows("completion installed in")
    assert ".bash_completions/penstock.sh" in (tmp_path / "home/.bashrc").read_text()
    again = shell("bash", "--noprofile", "-i")
    again.type("PS1='$ '; penstock che" + TAB + "# here")
    again.shows("penstock check-config # here")


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_completes(shell):
    zsh = shell("zsh", "-f", "-i")
    zsh.type("autoload -U compinit; compinit -u; eval \"$(penstock --show-completion zsh)\"; echo re''ady\r")
    zsh.shows("\nready")
    zsh.type("penstock chat -m demo-ec" + TAB)
    zsh.shows("penstock chat -m demo-echo")


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
def test_fish_completes(shell):
    fish = shell("fish", "--no-config", "-i")
    fish.type("penstock --show-completion fish | source; echo re''ady\r")
    fish.shows("ready")
    fish.type("penstock chat -m demo-ec" + TAB)
    fish.shows("penstock chat -m demo-echo")
