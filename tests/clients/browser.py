"""A real browser: Debian's Chromium, driven by Playwright; nothing is downloaded.

Playwright's own pages and contexts are used as they are. What is added: what a browser complains of is
kept, so that a test can fail for it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    WebError,
    expect,
    sync_playwright,
)

from tests.clients.gateway import PATIENCE, wait_for

FLAGS = ["--disable-gpu", "--disable-quic", "--no-proxy-server"]

LOUD = ("error", "warning", "assert")


@contextmanager
def browsing(*flags: str) -> Iterator[Browser]:
    """Run a browser without a window, with more ``flags``.

    While it runs, the thread counts as one with a running event loop: no coroutine can be run in it.
    """
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


class Complaints(list[str]):
    """Errors and warnings of pages' scripts, and of the browser about them, up to now.

    A page's exceptions, what it blocked by policy, requests that failed or were refused: all of these stand
    in a browser's console.
    """

    def __init__(self) -> None:
        """Nothing is watched yet."""
        super().__init__()
        self._contexts: list[BrowserContext] = []

    def watch(self, context: BrowserContext) -> None:
        """Collect from all pages of ``context``, those that are opened later too."""
        self._contexts.append(context)
        context.on("console", self._said)
        context.on("weberror", self._thrown)

    def settle(self) -> "Complaints":
        """Wait for what was reported up to now."""
        for context in self._contexts:
            for page in context.pages:
                page.evaluate("0")
        return self

    def _said(self, message: ConsoleMessage) -> None:
        url = message.location["url"]
        if message.type in LOUD and not url.endswith("/favicon.ico"):  # every browser asks for one
            self.append(f"{message.type}: {message.text} ({url[:200]})")

    def _thrown(self, error: WebError) -> None:
        self.append(f"thrown: {error.error}")


def until(page: Page, script: str) -> Any:
    """Return the value of ``script`` once it is true.

    `Page.wait_for_function` does not work on a page whose policy forbids eval, as ours does.
    """
    return wait_for(lambda: page.evaluate(script), f"never true: {script}")
