"""The commands of docs/guide/publishing.md do what the page says, in a shell, one after the other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.gateway import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "publishing.md"
BASH = [
    text
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    if kind == "bash"
]


@pytest.fixture
def shell(gateway, tmp_path):
    """Run commands as the page has them, with `penstock` on the path."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "penstock"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m penstock "$@"\n')
    program.chmod(0o700)
    (tmp_path / "big.bin").write_bytes(os.urandom(100_000))

    def run(commands: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", commands.replace("http://localhost:8080", gateway.url)],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PENSTOCK_URL": gateway.url},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_program_s_commands(shell, tmp_path):
    assert len(BASH) == 2
    ours = f"of-{tmp_path.name}-{os.urandom(4).hex()}"  # what a former try has published stays there
    printed = shell(BASH[0].replace("logs/app", f"logs/{ours}").replace("files/big", f"files/{ours}"))
    assert printed.endswith("one\ntwo\n")
    assert (tmp_path / "copy.bin").read_bytes() == (tmp_path / "big.bin").read_bytes()


def test_curl_s_commands(shell):
    path = f"logs/curl-{os.urandom(4).hex()}"
    lines = [line.replace("logs/app", path) for line in BASH[1].splitlines()]
    assert len(lines) == 6
    follow = lines.pop(3).replace("offset=now", "offset=-1")
    assert shell("\n".join(lines[:3])) == "one\ntwo\n"
    followed = shell(f"{follow} & sleep 0; {lines[3]}; wait")  # closing it ends what follows it
    assert "data:one\ndata:two\n" in followed
    assert '"streamClosed":true' in followed
    shell(lines[4])
    assert "stream_not_found" in shell(lines[2])
