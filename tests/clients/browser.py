"""Chromium without a window, driven over its DevTools pipe: no driver, no port, no download.

Messages are JSON, ended by NUL (chromedevtools.github.io/devtools-protocol). Calls wait for their
answer; events that come meanwhile are kept by the page they belong to.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.clients.gateway import PATIENCE, wait_for

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]


class Browser:
    """A browser process; made by `browsing`."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._buffer = b""
        self._last = 0
        self._pages: dict[str, Page] = {}

    def call(self, method: str, session: str = "", **params: Any) -> dict:
        """Send a command and return its result; raises `RuntimeError` with the browser's words."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._message(until)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if page := self._pages.get(answer.get("sessionId", "")):
                page.events.append((answer["method"], answer["params"]))

    def _message(self, until: float) -> dict:
        while b"\0" not in self._buffer:
            readable, _, _ = select.select([self._read], [], [], max(0, until - time.monotonic()))
            data = os.read(self._read, 1 << 20) if readable else b""
            if not data:
                raise TimeoutError("the browser does not answer")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    @contextmanager
    def page(self, url: str = "about:blank", width: int = 1280, height: int = 800) -> Iterator["Page"]:
        """Open a page in a profile of its own; close it at the end."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            page.resize(width, height)
            page.goto(url)
            yield page
        finally:
            del self._pages[session]
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """One tab. ``events``: what the browser reported of it, in order."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.events: list[tuple[str, dict]] = []

    def call(self, method: str, **params: Any) -> dict:
        return self._browser.call(method, self._session, **params)

    def resize(self, width: int, height: int) -> None:
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def goto(self, url: str) -> None:
        """Load ``url``."""
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        wait_for(lambda: self.evaluate("document.readyState") == "complete")

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression, awaited when it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", result)["description"])
        return result["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Return the value of ``script`` once it is true."""
        return wait_for(lambda: self.evaluate(script), f"never true: {script}")

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def shoot(self, file: Path) -> None:
        """Take a picture."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _reported(self, method: str) -> list[dict]:
        self.evaluate("0")  # brings in what was reported up to now
        return [params for name, params in self.events if name == method]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the page's scripts and of the browser about the page."""
        said = [entry["entry"] for entry in self._reported("Log.entryAdded")]
        found = [f"{e['text']} {e.get('url', '')}" for e in said if e["level"] in ("error", "warning")]
        called = self._reported("Runtime.consoleAPICalled")
        found += [str(call["args"]) for call in called if call["type"] in ("error", "warning", "assert")]
        return found + [str(thrown) for thrown in self._reported("Runtime.exceptionThrown")]

    def statuses(self, part: str) -> list[int]:
        """The statuses of responses from URLs with ``part`` in them, in order."""
        received = [event["response"] for event in self._reported("Network.responseReceived")]
        return [response["status"] for response in received if part in response["url"]]


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Run a browser whose profile is in ``folder``."""
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    # The protocol is on the descriptors 3 and 4; a shell puts them there (dash cannot: ours may be above 9).
    move = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
    command = ["bash", "-c", move, shutil.which("chromium"), *FLAGS, f"--user-data-dir={folder}"]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            command, pass_fds=(to_browser, from_browser), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    os.close(to_browser)
    os.close(from_browser)
    try:
        browser = Browser(read, write)
        yield browser
        browser.call("Browser.close")
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(read)
        os.close(write)
