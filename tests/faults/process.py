"""A gateway that can be killed: `penstock serve` on one folder and one port, in one life after another."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from tests.server.raw import request, unchunked

PATIENCE = 30.0
"""Seconds that anything here may take; a broken gateway fails the test and does not hang it."""

SERVE = ("-m", "penstock", "serve")


class Answer(NamedTuple):
    """A whole answer that is no stream."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Gateway:
    """One data folder, and the processes that serve from it, one at a time."""

    def __init__(
        self, folder: Path, *, program: tuple[str, ...] = SERVE, data: Path | None = None, **settings
    ):
        """``settings`` are the file's; ``program`` what Python is to run, which gets ``--config``."""
        self.data = data or folder / "data"
        self.port = free_port()
        self._program = program
        self._log = folder / "log.jsonl"
        self._file = folder / "penstock.yaml"
        listen = {"port": self.port, "drain": 0.2, **settings.pop("listen", {})}
        store = {"path": str(self.data), **settings.pop("store", {})}
        self._file.write_text(json.dumps({"listen": listen, "store": store, **settings}))  # JSON is YAML
        self.process: subprocess.Popen | None = None
        self.environ: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def start(self, **environ: str) -> bool:
        """Start a process and wait until it serves; False when it was killed on the way there."""
        assert not self.alive
        self.environ = environ
        self.process = self.spawn(environ)
        async with asyncio.timeout(PATIENCE):
            while True:
                if (code := self.process.poll()) is not None:
                    assert code == -signal.SIGKILL, self._log.read_text()
                    return False
                try:
                    if (await self.call("GET", "/readyz")).status == 200:
                        return True
                except OSError:
                    pass
                await asyncio.sleep(0.02)

    async def keep_alive(self, **environ: str) -> None:
        """Start a process whenever there is none, until cancelled; the first one with ``environ``."""
        while True:
            if not self.alive:
                await self.start(**environ)
                environ = {}
            await asyncio.sleep(0.02)

    def spawn(self, environ: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start a process and wait for nothing."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "OPENAI_"))}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *self._program, "--config", self._file],
                env={**inherited, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL, unless it is dead."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, which must end well."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while self.process.poll() is None:  # noqa: ASYNC110  another process's doing
                await asyncio.sleep(0.01)
        assert self.process.returncode == 0, self._log.read_text()

    def log(self, event: str = "") -> list[dict]:
        """What all lives logged so far; only ``event`` if given."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if event in ("", line["event"])]

    @property
    def memory(self) -> int:
        """Bytes that the process holds in RAM, files aside."""
        return int(self._status("RssAnon")) * 1024

    @property
    def connections(self) -> int:
        """How many sockets the process has."""
        assert self.process is not None
        count = 0
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                count += os.readlink(fd).startswith("socket:")
            except FileNotFoundError:  # closed since
                continue
        return count

    def _status(self, name: str) -> str:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
        assert found
        return found[1]

    async def call(self, method: str, path: str, body: dict | None = None, **headers: str) -> Answer:
        """Make a request and return the whole answer. Raises `OSError` when it is not whole."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request(method, path, body, connection="close", **headers))
            async with asyncio.timeout(PATIENCE):
                raw = await reader.read()
        finally:
            writer.close()
        head, found, rest = raw.partition(b"\r\n\r\n")
        if not found:
            raise ConnectionError("no answer")
        status, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        named = {name.lower(): value for name, value in pairs}
        if "transfer-encoding" in named:
            rest, whole = unchunked(raw)
            if not whole:
                raise ConnectionError("the answer was cut")
        elif len(rest) < int(named.get("content-length", 0)):
            raise ConnectionError("the answer was cut")
        return Answer(int(status.split()[1]), named, rest)

    async def insist(self, method: str, path: str, body: dict | None = None, **headers: str) -> Answer:
        """As `call`, again and again until there is an answer."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await self.call(method, path, body, **headers)
                except OSError:
                    await asyncio.sleep(0.02)


def accepts(port: int) -> bool:
    """Say whether somebody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def eventually(condition, what: str = "it did not come to pass"):
    """Wait until ``condition`` gives something, and return that."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := condition()):  # noqa: ASYNC110  another process's doing
                await asyncio.sleep(0.01)
            return found
    except TimeoutError:
        raise AssertionError(what) from None
