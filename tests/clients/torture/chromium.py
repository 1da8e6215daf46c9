"""Chromium by itself: pages that fetch what they have to do and send back what came of it.

Nothing drives it. A driver hears of each frame of each WebSocket, and what it does about them is taken from
the network that is in the same process: then handshakes take longer than clients wait, for good.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-proxy-server", "--ignore-certificate-errors", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    # All pages are at work, though nobody looks.
    "--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)  # fmt: skip


class Desk(ThreadingHTTPServer):
    """Where each page finds its work, by number, and leaves its results; and a page that has all in it, as a
    browser without a window opens one alone."""

    daemon_threads = True

    def __init__(self, pages: Sequence[tuple[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Clerk)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.work = [json.dumps(work).encode() for _, work in pages]
        frames = (f'<iframe src="{url}?desk={self.url}{n}"></iframe>' for n, (url, _) in enumerate(pages))
        self.page = f"<!doctype html><title>Torture</title>{''.join(frames)}"
        self.results: dict[int, Any] = {}
        self.done = threading.Event()


class _Clerk(BaseHTTPRequestHandler):
    server: Desk

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(self.server.page.encode(), "text/html")
        elif self.path[1:].isdecimal():
            self._answer(self.server.work[int(self.path[1:])])
        else:  # a favicon
            self._answer(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.results[int(self.path[1:])] = json.loads(body)
        self._answer(b"")
        if len(self.server.results) == len(self.server.work):
            self.server.done.set()

    def _answer(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("access-control-allow-origin", "*")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def run(pages: Sequence[tuple[str, Any]], folder: Path, patience: float) -> list[Any]:
    """Open pages, by URL, each with its work; return what they send back, in the same order."""
    with _at(Desk(pages)) as desk, (folder / "chromium.log").open("wb") as log:
        profile = folder / "chromium"
        command = [shutil.which("chromium") or "chromium", *FLAGS, f"--user-data-dir={profile}", desk.url]
        browser = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until = time.monotonic() + patience
            while not desk.done.wait(0.5):
                assert browser.poll() is None, (folder / "chromium.log").read_text()
                missing = set(range(len(pages))) - {*desk.results}
                assert time.monotonic() < until, f"pages without results: {missing}"
        finally:
            browser.terminate()
            try:
                browser.wait(30)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
        return [desk.results[number] for number in range(len(pages))]


@contextmanager
def _at(desk: Desk) -> Iterator[Desk]:
    with desk:
        thread = threading.Thread(target=desk.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield desk
        finally:
            desk.shutdown()
            thread.join()
