"""`penstock` as people and scripts run it: real processes, against the gateway with slower models besides."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import running
from tests.clients.conftest import relay, settings, upstream  # noqa: F401
from tests.clients.gateway import PATIENCE, Gateway, serving

Run = Callable[..., subprocess.CompletedProcess]


def with_models(settings: dict) -> dict:
    """Add models for people who wait and watch, at a pace that a screen can follow."""
    played = {
        "patient": "demo-slow-start?first_token_delay=20",
        "long": "demo-long?tokens_per_second=300&first_token_delay=0.05",
        "talkative": "demo?tokens_per_second=150&first_token_delay=0.05",
        "thinking": "demo-reasoning?tokens_per_second=150&first_token_delay=0.05",
    }
    models = {name: [{"provider": "paced", "model": model}] for name, model in played.items()}
    return {**settings, "models": {**settings["models"], **models}}


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, upstream) -> Iterator[Gateway]:  # noqa: F811
    """A running gateway without keys."""
    with serving(tmp_path_factory.mktemp("gateway"), with_models(settings(upstream))) as gateway:
        yield gateway


@pytest.fixture
def own(tmp_path, upstream) -> Iterator[Gateway]:  # noqa: F811
    """A gateway of the test's own, to be killed."""
    with serving(tmp_path / "own", with_models(settings(upstream))) as gateway:
        yield gateway


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    """An environment of nobody: a home of its own, no settings."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONPATH") or k.startswith("COV")}
    source = str(Path(__file__).parents[2] / "src")
    path = os.pathsep.join(part for part in (source, kept.get("PYTHONPATH", "")) if part)
    return {**kept, "PYTHONPATH": path, "HOME": str(home), "LANG": "C.UTF-8"}


@pytest.fixture
def run(environ, tmp_path) -> Run:
    """Run ``penstock <words>`` to its end; ``stdin`` is its input, other names are variables."""

    def run(*words: str, stdin: str | bytes = "", **variables: str) -> subprocess.CompletedProcess:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *map(str, words)],
            input=data,
            capture_output=True,
            env={**environ, **variables},
            cwd=tmp_path,
            timeout=PATIENCE,
        )
        said = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        assert "Traceback" not in said.stderr
        return said

    return run


@pytest.fixture
def terminal(environ, request):
    """Run ``penstock <words>`` in a terminal; it is gone when the test ends."""
    opened = []

    def open_terminal(*words: str, columns: int = 80, lines: int = 24, **variables: str):
        context = running(*words, environ={**environ, **variables}, columns=columns, lines=lines)
        opened.append(context)
        return context.__enter__()

    yield open_terminal
    for context in reversed(opened):
        context.__exit__(None, None, None)


@pytest.fixture
def at(gateway) -> dict[str, str]:
    """The variable that leads to the gateway."""
    return {"PENSTOCK_URL": gateway.url}
