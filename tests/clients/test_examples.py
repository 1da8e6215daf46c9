"""The examples do what they say."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.clients import node
from tests.clients.chat import Chat
from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving, wait_for
from tests.clients.relay import relaying
from tests.faults.process import accepts, free_port
from tests.server.sse import parse

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


def test_curl_goes_on_where_it_was(gateway):
    environ = {**os.environ, "PENSTOCK_URL": gateway.url}
    command = [EXAMPLES / "curl.sh"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=PATIENCE)
    before, _, after = done.stdout.partition(": the connection is lost; going on after ")
    cursor, _, after = after.partition("\n")
    first, rest = parse(before.encode()), parse(after.encode())
    assert len(first) == 10
    assert first[-1].id == rest[0].id == cursor  # a read begins with the position it starts from
    stream = cursor.partition("~")[0]
    whole = parse(httpx.get(f"{gateway.url}/v1/streams/{stream}/events", timeout=PATIENCE).content)
    assert [*first, *rest[1:]][1:] == whole[1:]
    assert rest[-1].name == "done"


def test_curl_says_when_there_is_no_gateway():
    environ = {**os.environ, "PENSTOCK_URL": "http://127.0.0.1:9"}
    command = [EXAMPLES / "curl.sh"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 1
    assert "There is no answer from http://127.0.0.1:9." in done.stderr


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


def test_live_translation_follows_what_is_typed_and_comes_back(page, tmp_path, upstream, complaints):
    example = (EXAMPLES / "live_translation.html").read_text()
    with relaying("http://127.0.0.1:9") as somewhere:  # an origin of its own, as in its README
        options = ("--allow-origin", somewhere.url)
        with serving(tmp_path, settings(upstream), *options) as gateway:
            somewhere.pages["/page.html"] = example.replace("http://localhost:8080", gateway.url)
            page.goto(f"{somewhere.url}/page.html")
            page.wait_for_function("state.textContent === 'ready'")
            page.locator("#text").press_sequentially("Hello streaming world")
            page.wait_for_function("translation.textContent === 'Ellohay eamingstray orldway'")
            page.locator("#text").fill("Type on")
            page.wait_for_function("translation.textContent === 'Ypetay onway'")
            page.wait_for_function("state.textContent === 'translated'")
            listed = gateway.get("/v1/streams?limit=100")["data"]
            assert len(listed) > 2
            assert {one["status"] for one in listed} <= {"completed", "cancelled"}
            gateway.restart()
            page.locator("#text").fill("Still here")
            page.wait_for_function("translation.textContent === 'Illstay erehay'")
            page.goto("about:blank")
    complaints.settle()
    assert all("WebSocket" in complaint for complaint in complaints)  # while the gateway was away
    complaints.clear()


@pytest.fixture
def fastapi(tmp_path):
    """The FastAPI example, started as its README says; stopped well at the end."""
    (command,) = re.findall(r"`uvicorn ([^`]+)`", (EXAMPLES / "README.md").read_text())
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "OPENAI_"))}
    port, data = free_port(), str(tmp_path / "data")
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *command.split(), "--port", str(port)],
        cwd=EXAMPLES.parent,
        env={**inherited, "PENSTOCK_DATA": data},
    )
    with process:
        try:
            wait_for(lambda: accepts(port))
            yield f"http://localhost:{port}"
            process.terminate()
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
        finally:
            process.kill()


def test_fastapi_serves_the_page_and_the_answer(page, fastapi):
    page.goto(f"{fastapi}/")
    page.click("button")
    page.wait_for_function("answer.textContent.length > 100")
    page.goto("about:blank")


def test_chat_page_works_below_a_path(context, fastapi):
    chat = Chat(context.new_page(), f"{fastapi}/llm").open()
    chat.ask("one two three", "demo-echo")
    chat.ended()
    assert chat.text == "one two three"
    chat.reload()
    chat.ended()
    assert chat.text == "one two three"
    chat.page.goto("about:blank")
