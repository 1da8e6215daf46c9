"""The pages of examples/ that show publications, in Chromium: a log, a job's progress, a file."""

import base64
import hashlib
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.clients.gateway import PATIENCE
from tests.clients.relay import relaying

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("log_viewer", "progress_bar", "download")
TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}
MS = PATIENCE * 1000


@pytest.fixture
def relay(gateway):
    """The gateway, and the pages beside it; nothing is left of what a try before this one published."""
    for path in ("logs/app", "jobs/1", "files/big"):
        httpx.delete(f"{gateway.url}/v1/stream/{path}")
    pages = {f"/{name}": (EXAMPLES / f"{name}.html").read_text() for name in NAMES}
    pages = {path: text.replace('"http://localhost:8080"', '""') for path, text in pages.items()}
    with relaying(gateway.url, pages) as relay:
        yield relay


@pytest.fixture
def page(browser):
    context = browser.new_context(accept_downloads=True)
    yield context.new_page()
    context.close()


def test_the_log_viewer_shows_each_line_once_over_a_lost_connection(gateway, relay, page):
    url = f"{gateway.url}/v1/stream/logs/app"
    httpx.put(url, headers=TEXT, content=b"line 0\n")
    relay.cuts = [150, 333, 480]
    page.goto(f"{relay.url}/log_viewer")
    for n in range(1, 30):
        httpx.post(url, headers=TEXT, content=f"line {n}\n".encode())
    httpx.post(url, headers={"stream-closed": "true"})
    expect(page.locator("#state")).to_have_text("ended", timeout=MS)
    assert page.locator("#log").text_content() == "".join(f"line {n}\n" for n in range(30))


def test_the_progress_bar_shows_how_far_it_is(gateway, relay, page):
    url = f"{gateway.url}/v1/stream/jobs/1"
    httpx.put(url, headers=JSON, content=b'{"percent": 10, "step": "begun"}')
    page.goto(f"{relay.url}/progress_bar")
    expect(page.locator("#step")).to_have_text("10 %: begun", timeout=MS)
    last = b'[{"percent": 90, "step": "linking"}, {"percent": 100, "step": "done"}]'
    httpx.post(url, headers={**JSON, "stream-closed": "true"}, content=last)
    expect(page.locator("#step")).to_have_text("100 %: done (ended)", timeout=MS)
    assert page.locator("#bar").evaluate("bar => bar.value") == 100


def test_the_download_is_the_file(gateway, relay, page):
    url, data = f"{gateway.url}/v1/stream/files/big", hashlib.shake_256(b"seed").digest(2_500_000)
    httpx.put(url, headers=BYTES, content=data)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    page.goto(f"{relay.url}/download")
    with page.expect_download(timeout=MS) as downloading:
        page.click("#start")
        httpx.post(url, headers={"stream-closed": "true", "repr-digest": f"sha-256=:{digest}:"})
    assert Path(downloading.value.path()).read_bytes() == data
    expect(page.locator("#state")).to_have_text("2500000 bytes, complete")
