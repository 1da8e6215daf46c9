"""A real model server, and a gateway before it as people start one: `penstock serve --upstream …`."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.faults.process import PATIENCE, SERVE, Gateway, free_port

BUILT = Path(os.environ.get("PENSTOCK_LIVE", Path(__file__).parents[2] / ".venv-live"))
SLOT_TOKENS = 4096


class ModelServer:
    """A llama.cpp server with two slots."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.client = openai.OpenAI(base_url=self.url, api_key="none", max_retries=0)
        self._slots = f"http://127.0.0.1:{port}/slots"

    @property
    def busy(self) -> int:
        """How many slots generate."""
        return sum(slot["is_processing"] for slot in httpx.get(self._slots).raise_for_status().json())


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    program = BUILT / "bin" / "llama-server"
    assert program.is_file(), f"there is no {program}: `make test-live` builds it"
    port = free_port()
    log_file = tmp_path_factory.mktemp("model_server") / "log.txt"
    options = {"--model": BUILT / "tiny.gguf", "--alias": "tiny", "--host": "127.0.0.1", "--port": port}
    options |= {"--ctx-size": 2 * SLOT_TOKENS, "--parallel": 2, "--threads": 1, "--log-verbosity": 1}
    command = [program, *(str(word) for pair in options.items() for word in pair), "--slots"]
    with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(lambda: process.poll() is not None or _healthy(port), log_file)
            assert process.poll() is None, log_file.read_text()
            yield ModelServer(port)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def gateway(model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    program = (*SERVE, "--upstream", model_server.url, "--model", "tiny")
    with Gateway(tmp_path_factory.mktemp("gateway"), program=program) as made:
        asyncio.run(made.start())
        yield made


@pytest.fixture(scope="session")
def client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)


def wait_for(condition, what: object = "it did not come to pass") -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False
