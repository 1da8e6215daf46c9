"""What sockets and files a process may have: the limit is raised, and clients never take what others need."""

import resource
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from penstock.server.descriptors import OTHERS, affordable, share
from penstock.server.http import HttpSettings
from tests.server.test_serving import DEADLINE, Process, environment

ASKED = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}


@contextmanager
def limited(soft):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@given(st.integers(2, 1 << 40))
def test_clients_get_most_of_it_and_others_enough(limit):
    clients = share(limit)
    assert 1 <= clients < limit
    assert limit - clients >= min(OTHERS, limit - 1)
    assert limit - clients >= limit // 4


def test_the_soft_limit_is_raised_to_what_connections_may_need():
    settings = HttpSettings(max_connections=500)
    with limited(900), capture_logs() as said:
        assert affordable(settings) is settings
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2 * 500 + OTHERS
    assert said == []


def test_a_limit_that_is_high_enough_is_left_alone():
    with limited(1_500):
        affordable(HttpSettings(max_connections=500))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1_500


@pytest.mark.parametrize(("hard", "level"), [(4_000, "info"), (1_200, "warning")])
def test_a_hard_limit_that_is_too_low_is_said_and_is_a_warning_where_few_get_in(monkeypatch, hard, level):
    # A hard limit that was lowered is never raised again, so this process only hears of one.
    monkeypatch.setattr("penstock.server.descriptors.raise_limit", lambda wanted: min(wanted, hard))
    with capture_logs() as said:
        settings = affordable(HttpSettings(max_connections=20_000))
    assert settings.max_connections == share(hard)
    assert [(line["event"], line["log_level"]) for line in said] == [("few_descriptors", level)]


@pytest.fixture
def poor(tmp_path):
    """A gateway with 160 descriptors, on disk."""
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    code = (
        "import os, resource, sys; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    popen = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Process(popen)
    finally:
        popen.kill()
        popen.communicate()


def test_a_flood_of_connections_keeps_nobody_from_an_answer_that_is_stored(poor):
    url = f"http://127.0.0.1:{poor.port}"
    with httpx.Client(base_url=url, timeout=DEADLINE) as client, ExitStack() as flood:
        assert client.get("/healthz").status_code == 200
        for _ in range(300):
            flood.enter_context(socket.create_connection(("127.0.0.1", poor.port), DEADLINE))
        for _ in range(3):
            answer = client.post("/v1/chat/completions", json=ASKED)
            assert answer.json()["choices"][0]["message"]["content"] == "one two three"
        refused = next(
            float(line.split()[-1])
            for line in client.get("/metrics").text.splitlines()
            if line.startswith('penstock_connections_refused_total{bound="total"}')
        )
        assert refused >= 300 - share(160)
        flood.close()
        assert client.post("/v1/chat/completions", json=ASKED).status_code == 200
    with httpx.Client(base_url=url, timeout=DEADLINE) as another:
        assert another.get("/healthz").status_code == 200
    poor.popen.terminate()
    code, said = poor.left()
    assert code == 0
    assert "few_descriptors" in said
    assert said.count("no_connection_left") <= 2
    assert "Traceback" not in said
