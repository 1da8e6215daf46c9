"""The gateway as people start it: `penstock serve` in a process of its own, with a file of settings.

It can be killed and started again: on the same folder and at the same address, in one life after another.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.planted import SEARCH

NOBODY = "127.0.0.1:1"
"""Where nobody answers: a gateway of a test finds no model server that happens to run here."""

PATIENCE = 30.0
"""Seconds that anything here may take; a broken gateway fails the test and does not hang it."""


class Gateway:
    """One data folder and one address, and the processes that serve there, one at a time."""

    def __init__(self, folder: Path, settings: dict, *options: str, **environ: str) -> None:
        """``settings`` are the file's, ``options`` the command line's, ``environ`` are variables beyond our
        own. Nothing runs before `start`."""
        folder.mkdir(exist_ok=True)
        listen = {"port": 0, "drain": 0.2, **settings.get("listen", {})}
        settings = {"store": {"path": str(folder / "data")}, **settings, "listen": listen}
        self.log_file = folder / "log.jsonl"
        self._greeting = folder / "greeting.txt"
        self._settings = folder / "penstock.yaml"
        self._settings.write_text(json.dumps(settings))  # JSON is YAML
        self._options = options
        self._environ = {"OLLAMA_HOST": NOBODY, **environ}
        self._process: subprocess.Popen | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Path:
        """The file of settings."""
        return self._settings

    @property
    def api(self) -> str:
        """The base URL for SDKs."""
        return f"{self.url}/v1"

    def start(self, **how) -> None:
        """Start a process and wait until it serves: at any free port the first time, then at the same one.
        ``how`` is for `subprocess.Popen`."""
        assert self._process is None
        command = [sys.executable, "-m", "penstock", "serve", "--config", self._settings, *self._options]
        if self.port:
            command += ["--port", str(self.port)]
        with self._greeting.open("wb") as out, self.log_file.open("ab") as err:
            self._process = subprocess.Popen(command, env=self._inherited(), stdout=out, stderr=err, **how)
        self.port = int(wait_for(self._greeted)[1])
        wait_for(lambda: httpx.get(f"{self.url}/readyz").status_code == 200)

    def command(self, *words: str) -> subprocess.CompletedProcess:
        """Run another command of the program to its end, in the same surroundings."""
        command = [sys.executable, "-m", "penstock", *words]
        return subprocess.run(
            command, env=self._inherited(), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def _inherited(self) -> dict[str, str]:
        foreign = ("PENSTOCK_", "OPENAI_", "ANTHROPIC_")
        keys = ("_API_KEY", "_BASE_URL")  # with which providers would join
        inherited = {k: v for k, v in os.environ.items() if not (k.startswith(foreign) or k.endswith(keys))}
        return inherited | self._environ

    def stop(self) -> None:
        """SIGTERM, which must end well; nothing is done after `kill`."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) == 0, self.log_file.read_text()
        self._process = None
        self._search()

    def kill(self) -> None:
        """SIGKILL: no chance to say or store anything. Nothing is done when nothing runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._search()

    def _search(self) -> None:
        """What is planted stands in nothing that it has said (`tests.planted`)."""
        SEARCH.file(self.log_file)
        SEARCH.file(self._greeting)

    def restart(self) -> None:
        """Kill it and start it again, at the same address and on the same data."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing comes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log(self, event: str = "") -> list[dict]:
        """What all lives logged so far; only ``event`` if given. A line that is no JSON object raises."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def get(self, path: str) -> dict:
        """Return a JSON answer."""
        return httpx.get(self.url + path, timeout=PATIENCE).raise_for_status().json()

    def wait_closed(self, stream: str) -> dict:
        """Return the stream's snapshot once it has ended."""
        return wait_for(lambda: (found := self.get(f"/v1/streams/{stream}"))["status"] != "open" and found)

    def _greeted(self) -> re.Match | None:
        assert self._process is not None
        assert self._process.poll() is None, self.log_file.read_text()
        pattern = r"page +http://localhost:(\d+)/\n(?s:.*)Ctrl-C stops it"
        return re.search(pattern, self._greeting.read_text())


def wait_for(condition, what: str = "nothing happened"):
    """Call ``condition`` until it gives something, and return that."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.01)
    raise TimeoutError(f"{what} within {PATIENCE} s")


@contextmanager
def serving(
    folder: Path, settings: dict, *options: str, allow: Sequence[str] = (), **environ: str
) -> Iterator[Gateway]:
    """Serve with ``settings``; stop by SIGTERM, which must end well and leave no error in the log, nor any
    warning but those in ``allow``."""
    gateway = Gateway(folder, settings, *options, **environ)
    try:
        gateway.start()
        yield gateway
        gateway.stop()
    finally:
        gateway.kill()
    loud = [line for line in gateway.log() if line["level"] not in ("debug", "info")]
    expected = ("orphans_closed", "breaker_opened", *allow)  # said after a kill, and of a broken provider
    assert [line for line in loud if line["event"] not in expected] == []
