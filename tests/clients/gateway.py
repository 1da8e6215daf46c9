"""The gateway as people start it: `penstock serve` in a process of its own, with a file of settings."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE = 30.0
"""Seconds that anything here may take; a broken gateway fails the test and does not hang it."""


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    log_file: Path

    @property
    def api(self) -> str:
        """The base URL for SDKs."""
        return f"{self.url}/v1"

    def log(self, event: str = "") -> list[dict]:
        """What it logged so far; only ``event`` if given. A line that is no JSON object raises."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def get(self, path: str) -> dict:
        """Return a JSON answer."""
        return httpx.get(self.url + path, timeout=PATIENCE).raise_for_status().json()

    def wait_closed(self, stream: str) -> dict:
        """Return the stream's snapshot once it has ended."""
        return wait_for(lambda: (found := self.get(f"/v1/streams/{stream}"))["status"] != "open" and found)


def wait_for(condition, what: str = "nothing happened"):
    """Call ``condition`` until it gives something, and return that."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.01)
    raise TimeoutError(f"{what} within {PATIENCE} s")


@contextmanager
def serving(folder: Path, settings: dict, *options: str) -> Iterator[Gateway]:
    """Serve with ``settings``; stop by SIGTERM, which must end well and leave no error in the log."""
    folder.mkdir(exist_ok=True)
    listen = {"port": 0, "drain": 0.2, **settings.get("listen", {})}
    settings = {"store": {"path": str(folder / "data")}, **settings, "listen": listen}
    file = folder / "penstock.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "OPENAI_"))}
    greeting, log_file = folder / "greeting.txt", folder / "log.jsonl"
    with greeting.open("wb") as out, log_file.open("wb") as err:
        command = [sys.executable, "-m", "penstock", "serve", "--config", file, *options]
        process = subprocess.Popen(command, env=inherited, stdout=out, stderr=err)
    try:
        gateway = Gateway(_address(process, greeting, log_file), log_file)
        wait_for(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 200)
        yield gateway
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log_file.read_text()
    finally:
        process.kill()
        process.wait()
    loud = [line for line in gateway.log() if line["level"] not in ("debug", "info")]
    assert not loud


def _address(process: subprocess.Popen, greeting: Path, log_file: Path) -> str:
    def greeted() -> re.Match | None:
        assert process.poll() is None, log_file.read_text()
        return re.search(r"page +http://localhost:(\d+)/\n(?s:.*)Ctrl-C stops it", greeting.read_text())

    return f"http://127.0.0.1:{wait_for(greeted)[1]}"
