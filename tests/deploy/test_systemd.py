"""The systemd unit: systemd accepts it, and what it forbids the program does without."""

import configparser
import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from penstock.cli.exits import BAD_CONFIG
from penstock.config import Listen, check, read_file
from penstock.server.serving import LAST_WORDS
from tests.clients.gateway import serving
from tests.packages.conftest import commands, run
from tests.server.sse import parse

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "penstock.service"
PROGRAM = "/opt/penstock/bin/penstock"
REFUSE_EXEC_GAIN = "import ctypes, os, sys; assert not ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)"

systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


class Unit(configparser.ConfigParser):
    """A unit file; of repeated names the last one counts, which is enough here."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture
def unit() -> Unit:
    unit = Unit(strict=False, interpolation=None)
    unit.read(UNIT)
    return unit


@pytest.fixture
def installed(tmp_path) -> Path:
    """The unit with a program that exists here."""
    program = tmp_path / "penstock"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "penstock.service"
    file.write_text(UNIT.read_text().replace(PROGRAM, str(program)))
    return file


def analyze(*arguments: str | Path) -> str:
    command = ["systemd-analyze", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@systemd
def test_systemd_finds_nothing_wrong_with_the_unit(installed):
    assert "penstock" not in analyze("verify", installed)


def test_commands_of_the_guide_make_a_configuration_that_can_be_used(tmp_path, unit):
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    replaced = {"systemctl": ": systemctl", " /etc/": f" {tmp_path}/etc/"}
    run("bash", "-euc", commands("deployment", "systemd", replaced), cwd=ROOT)
    assert (tmp_path / "etc/systemd/system" / UNIT.name).read_bytes() == UNIT.read_bytes()
    secrets = tmp_path / "etc/penstock/environment"
    assert secrets.stat().st_mode & 0o777 == 0o600
    file = Path(f"{tmp_path}{unit['Service']['ExecStart'].split()[-1]}")
    environ = dict(line.split("=", 1) for line in secrets.read_text().splitlines())
    assert check(read_file(file, environ)) == []


@systemd
def test_exposure_is_low(installed):
    said = analyze("security", "--offline=true", "--no-pager", installed)
    assert float(re.search(r"exposure level for penstock.service: ([\d.]+)", said)[1]) < 2


def test_time_to_stop_is_enough_to_drain(unit):
    assert unit["Service"].getint("TimeoutStopSec") > Listen().drain + 2 * LAST_WORDS
    assert unit["Service"]["KillSignal"] == "SIGTERM"


def test_bad_configuration_is_not_tried_again(unit):
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Service"].getint("RestartPreventExitStatus") == BAD_CONFIG
    for line in ("ExecStartPre", "ExecStart"):
        assert unit["Service"][line].startswith(f"{PROGRAM} ")
        assert unit["Service"][line].endswith(" --config /etc/penstock/penstock.yaml")


def test_streams_are_kept_in_the_state_directory(unit):
    service = unit["Service"]
    assert service["Environment"] == f"PENSTOCK_DATA=/var/lib/{service['StateDirectory']}"
    assert service["UMask"] == "0077"


def test_gateway_needs_no_memory_that_is_written_and_run(unit, tmp_path, monkeypatch):
    assert unit["Service"].getboolean("MemoryDenyWriteExecute")
    python = tmp_path / "python"
    code = f"{REFUSE_EXEC_GAIN}; os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    python.chmod(0o755)
    if ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) < 0:
        pytest.skip("needs a kernel that can forbid it (6.3)")
    monkeypatch.setattr(sys, "executable", str(python))
    with serving(tmp_path, {"providers": {"demo": {"kind": "scripted", "speed": 0}}}) as gateway:
        assert parse(httpx.get(f"{gateway.url}/stream?content=Hello").content)[-1].name == "done"
