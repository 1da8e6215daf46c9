"""The examples do what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import node
from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving
from tests.clients.relay import relaying

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def greeting(gateway):
    """What the embedded model answers to the examples."""
    made = subprocess.run(
        [shutil.which("curl"), "-sSN", "-H", "Accept: text/plain", f"{gateway.url}/stream?content=Hello"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return made.stdout


def test_python_prints_the_answer(gateway, greeting):
    environ = {**os.environ, "OPENAI_BASE_URL": gateway.api}
    command = [sys.executable, EXAMPLES / "openai_sdk.py"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout == greeting + "\n"


def test_node_prints_the_answer(gateway, greeting, tmp_path):
    # Packages are found from where the file is.
    shutil.copy(EXAMPLES / "openai_sdk.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(node.modules())
    printed = node.run("openai_sdk.mjs", cwd=tmp_path, OPENAI_BASE_URL=gateway.api)
    assert printed == greeting + "\n"


def test_event_source_shows_the_answer(page, tmp_path, upstream, greeting):
    example = (EXAMPLES / "event_source.html").read_text()
    with relaying("http://127.0.0.1:9") as somewhere:  # an origin of its own, as in its README
        options = ("--allow-origin", somewhere.url)
        with serving(tmp_path, settings(upstream), *options) as gateway:
            somewhere.pages["/event_source.html"] = example.replace("http://localhost:8080", gateway.url)
            page.goto(f"{somewhere.url}/event_source.html")
            page.wait_for_function("source.readyState === 2")
            assert page.text_content("#answer") == greeting
