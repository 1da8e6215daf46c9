"""The README's code does what it says, and says the same in both languages."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import node
from tests.clients.gateway import PATIENCE

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return FENCE.findall(page.read_text())


def block(language: str, word: str) -> str:
    """Return the README's one block in ``language`` with ``word`` in it."""
    (found,) = [text for kind, text in blocks(README) if kind == language and word in text]
    return found


@pytest.fixture(scope="module")
def greeting(gateway):
    """What the embedded model answers to `Hello`."""
    command = ["curl", "-sN", "-H", "Accept: text/plain", f"{gateway.url}/stream?content=Hello"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def test_both_languages_have_the_same_code_and_lead_to_the_same_pages():
    translated = ROOT / "README.zh.md"
    assert blocks(README) == blocks(translated)
    links = [re.findall(r"\]\(([^)]+)\)", page.read_text()) for page in (README, translated)]
    assert sorted(set(links[0]) - {"README.zh.md"}) == sorted(set(links[1]) - {"README.md"})
    headings = [len(re.findall(r"^## ", page.read_text(), re.MULTILINE)) for page in (README, translated)]
    assert headings[0] == headings[1]


def test_python_prints_the_answer(gateway, greeting):
    program = block("python", "OpenAI(").replace("http://localhost:8080", gateway.url)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == greeting


def test_node_prints_the_answer(gateway, greeting, tmp_path):
    program = block("js", "new OpenAI").replace("http://localhost:8080", gateway.url)
    (tmp_path / "readme.mjs").write_text(program)
    (tmp_path / "node_modules").symlink_to(node.modules())
    assert node.run("readme.mjs", cwd=tmp_path) == greeting


def test_shell_commands_for_a_stream_go_on_read_it_again_and_stop_it(gateway):
    create = block("bash", "demo-long").replace("http://localhost:8080", gateway.url)
    whole = subprocess.run(
        ["bash", "-c", create], capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout
    ids = re.findall(r"^id: (.*)$", whole, re.MULTILINE)
    again = block("bash", "Last-Event-ID").replace("http://localhost:8080", gateway.url)
    resume, read, cancel = again.splitlines()

    def run(command: str) -> str:
        environ = {"PATH": f"{Path(shutil.which('curl')).parent}:/usr/bin:/bin", "ID": ids[5]}
        done = subprocess.run(
            ["bash", "-c", command], env=environ, capture_output=True, text=True, check=True, timeout=PATIENCE
        )
        return done.stdout

    assert re.findall(r"^id: (.*)$", run(resume), re.MULTILINE)[1:] == ids[6:]
    assert re.findall(r"^id: (.*)$", run(read), re.MULTILINE) == ids
    assert '"status":"completed"' in run(cancel)


def test_application_of_ones_own_serves_the_gateway(tmp_path):
    program = block("python", "FastAPI(").replace("Penstock()", "Penstock(config)")
    check = f"""
from penstock.config import Config, StoreConfig
config = Config(store=StoreConfig(kind="memory"))
{program}
from fastapi.testclient import TestClient
with TestClient(app, base_url="http://localhost") as client:
    print(client.get("/llm/v1/models").json()["data"][0]["id"])
"""
    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "demo"
