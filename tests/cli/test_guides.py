"""The commands on the pages about keys, limits, usage and presets do what the pages say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.clients.gateway import PATIENCE, serving
from tests.telemetry.receivers import hook

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall((GUIDE / page).read_text()) if kind == language]


@pytest.fixture
def follow(tmp_path, environ):
    """Run all commands of one page or several, in one shell, beside a gateway with settings of a page."""

    def follow(pages: str, settings: dict) -> list[str]:
        programs = tmp_path / "bin"
        programs.mkdir()
        penstock = programs / "penstock"
        penstock.write_text(f'#!/bin/sh\nexec {sys.executable} -m penstock "$@"\n')
        penstock.chmod(0o755)
        (programs / "python3").symlink_to(sys.executable)
        with serving(tmp_path / "own", settings) as gateway:
            commands = [block for page in pages.split() for block in blocks(page, "bash")]
            script = "\n".join(commands).replace("http://localhost:8080", gateway.url)
            path = f"{programs}{os.pathsep}{environ['PATH']}"
            data = str(tmp_path / "own" / "data")
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                env={**environ, "PATH": path, "PENSTOCK_DATA": data},
                capture_output=True,
                text=True,
                timeout=2 * PATIENCE,
                cwd=tmp_path,
            )
            assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return follow


def test_keys_are_made_used_replaced_and_exchanged_for_tokens(follow):
    lines = follow("keys.md", {})
    assert lines[0].startswith('{"object":"list"')
    assert "\tweb-app\t\tactive\t" in lines[0] + lines[1]
    assert '"principal":"web-app/alice"' in lines[-1]


def test_limits_are_told_in_headers(follow):
    (settings,) = blocks("limits.md", "yaml")
    lines = follow("limits.md", yaml.safe_load(settings))
    assert "x-ratelimit-limit-requests: 60" in [line.lower() for line in lines]


def test_usage_is_shown_as_the_page_says(follow):
    budgets = yaml.safe_load(blocks("usage.md", "yaml")[0])
    lines = follow("usage.md", budgets)
    assert lines == ["Nothing was used in that time.", "Nothing was used in that time.", "[]"]


def test_presets_answer_by_key_by_url_and_by_link(follow):
    settings = blocks("presets.md", "yaml")[0]
    lines = follow("presets.md", yaml.safe_load(settings))
    assert lines[0].startswith('Text: Guten Morgen{"object":"list"')
    assert sum(line == "event: done" for line in lines) == 2
    assert "data: Text: " in lines or any(line.startswith("data: Text:") for line in lines)


def test_a_request_is_known_by_its_id_and_a_process_by_its_profile(follow, tmp_path):
    (settings,) = blocks("logs.md", "yaml")
    lines = follow("logs.md profiling.md", yaml.safe_load(settings))
    assert lines == ["x-request-id: order-4711", "profile.html"]
    assert "</html>" in (tmp_path / "profile.html").read_text()
    assert '"profiles"' in (tmp_path / "profile.json").read_text()
    lines = map(json.loads, (tmp_path / "own" / "log.jsonl").read_text().splitlines())
    told = [line["event"] for line in lines if line.get("request_id") == "order-4711"]
    assert sorted(told) == ["request", "stream_closed"]


def test_strangers_and_keys_are_let_in_as_the_page_on_security_says(follow):
    settings = blocks("security.md", "yaml")[0]
    page = (GUIDE / "security.md").read_text()
    lines = follow("security.md", {**yaml.safe_load(settings), "listen": {}})
    assert lines == ["401", "200", "403", "403", "404"]
    assert f"prints {', '.join(lines[:-1])} and {lines[-1]}" in page


def test_alerts_arrive(follow, environ):
    with hook() as web:
        environ["ALERTS_URL"] = f"json://127.0.0.1:{web.server_port}/x"
        lines = follow("alerts.md", {})
    assert lines[0] == "ops: sent"
    assert [line.split("\t")[0] for line in lines[1:]][:2] == ["error_rate", "stall_rate"]
    assert len(web.got) == 1
