"""The real process: it starts, says where it is, leaves when told to, and leaves nothing behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import penstock
from tests.server.raw import request, unchunked
from tests.server.sse import parse

DEADLINE = 20.0
HELLO = {"model": "demo-echo", "messages": [{"role": "user", "content": "one two three"}]}
QUICK = {"first_token_delay": 0, "jitter": 0, "tokens_per_second": 1000}
STALL = {**HELLO, "model": "demo-stall", "penstock_script": QUICK}
SHORT = {**HELLO, "model": "demo", "penstock_script": {**QUICK, "tokens": 40, "tokens_per_second": 40}}


SOURCES = str(Path(penstock.__file__).parents[1])


def environment(folder, **more):
    """An environment without any setting of ours."""
    kept = {
        name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE")
    }
    return {**kept, "PYTHONPATH": SOURCES, "PYTHONUNBUFFERED": "1", "HOME": str(folder), **more}


class Process:
    """A running gateway; ``banner`` is what it said when it was ready."""

    def __init__(self, popen):
        self.popen = popen
        self.banner = ""
        while "Ctrl-C" not in self.banner:
            line = popen.stdout.readline()
            assert line, f"it ended: {popen.wait()}, {popen.stderr.read()}"
            self.banner += line
        self.port = int(re.search(r":(\d+)/\n", self.banner)[1])

    def signal(self, number):
        self.popen.send_signal(number)

    def left(self):
        """Wait until it has ended; return its exit code, and what it said on stderr."""
        _, said = self.popen.communicate(timeout=DEADLINE)
        return self.popen.returncode, said


@pytest.fixture
def serve(tmp_path):
    """Start gateways in a folder of their own; whatever is left is killed, which a test should not need."""
    started = []

    def start(*args, store="memory", **environ):
        popen = subprocess.Popen(
            [sys.executable, "-m", "penstock", "serve", "--port", "0", "--store", store, *args],
            cwd=tmp_path,
            env=environment(tmp_path, **environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(popen)
        return Process(popen)

    yield start
    for popen in started:
        if popen.poll() is None:
            popen.kill()
        popen.communicate()


def command(folder, *args, **environ):
    """Run ``penstock`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", *args],
        cwd=folder,
        env=environment(folder, **environ),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


@contextmanager
def asking(process, data):
    with socket.create_connection(("127.0.0.1", process.port), timeout=DEADLINE) as sock:
        sock.sendall(data)
        yield sock


def until(sock, mark):
    got = b""
    while mark not in got:
        data = sock.recv(65536)
        assert data, got
        got += data
    return got


def rest(sock):
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def eventually(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- starting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory", "embedded"])
def test_what_the_banner_says_works(serve, store):
    process = serve(store=store)
    urls = re.findall(r"http://\S+?(?='|\s|$)", process.banner)
    page, api, example, models = urls
    assert httpx.get(page).headers["content-type"].startswith("text/html")
    assert httpx.get(f"{api}/models").json()["data"]
    assert "event: done" in httpx.get(example, params={"model": "demo-echo", "content": "Hello"}).text
    assert httpx.get(models).json()["object"] == "list"
    assert ("memory" in process.banner) is (store == "memory")
    process.signal(signal.SIGINT)
    assert process.left()[0] == 0


def test_a_port_that_is_taken_is_said_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(tmp_path, "serve", "--store", "memory", "--port", str(port))
    assert done.returncode == 69
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_not_ours_is_said_so(tmp_path):
    done = command(tmp_path, "serve", "--store", "memory", "--host", "192.0.2.1", "--key", "k" * 20)
    assert (done.returncode, "192.0.2.1" in done.stderr, "Traceback" in done.stderr) == (69, True, False)


def test_a_folder_that_cannot_be_used_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    done = command(tmp_path, "serve", "--port", "0", "--data", str(tmp_path / "file"))
    assert (done.returncode, "Traceback" in done.stderr) == (69, False)
    assert str(tmp_path / "file") in done.stderr
    assert "listen" not in done.stderr


def test_a_folder_in_use_is_said_so(serve, tmp_path):
    first = serve("--data", str(tmp_path / "data"), store="embedded")
    done = command(tmp_path, "serve", "--port", "0", "--data", str(tmp_path / "data"))
    assert (done.returncode, "Traceback" in done.stderr) == (69, False)
    assert str(first.popen.pid) in done.stderr


def test_others_are_let_in_only_with_a_key(tmp_path, serve):
    done = command(tmp_path, "serve", "--store", "memory", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 78
    assert "--key" in done.stderr
    process = serve("--host", "0.0.0.0", "--key", "k" * 20)
    assert httpx.get(f"http://127.0.0.1:{process.port}/v1/models").status_code == 401
    assert "k" * 20 not in process.banner


@pytest.mark.parametrize("words", [("serve", "--port", "0"), ("check-config",)])
def test_each_problem_of_a_configuration_is_listed(tmp_path, words):
    (tmp_path / "penstock.yaml").write_text("listen: {port: 99999}\nkeys: {a: short, b: tiny}\n")
    done = command(tmp_path, *words)
    expected = {"keys.a", "keys.b"} | ({"listen.port"} if words[0] == "check-config" else set())
    assert done.returncode == 78
    assert set(re.findall(r"^  \S+:\d+: (\S+?):", done.stderr, re.MULTILINE)) == expected
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_no_yaml_is_said_so(tmp_path):
    (tmp_path / "other.yaml").write_text("listen: [")
    done = command(tmp_path, "serve", "-c", "other.yaml")
    assert (done.returncode, "other.yaml" in done.stderr) == (78, True)


def test_a_good_configuration_is_called_good(tmp_path):
    assert command(tmp_path, "check-config").returncode == 0


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path, serve):
    (tmp_path / "penstock.yaml").write_text("keys: {default: key-of-the-file}\nlisten: {port: 1}\n")
    process = serve("--key", "key-of-the-option", PENSTOCK_KEY="key-of-the-env", PENSTOCK_PORT="2")
    url = f"http://127.0.0.1:{process.port}/v1/models"
    keys = ("key-of-the-option", "key-of-the-env", "key-of-the-file")
    assert [httpx.get(url, headers={"x-api-key": key}).status_code for key in keys] == [200, 401, 401]


# --- leaving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory", "embedded"])
def test_sigterm_lets_streams_end_and_tells_those_that_cannot(serve, store, tmp_path):
    (tmp_path / "penstock.yaml").write_text("listen: {drain: 2.5}\n")
    process = serve(store=store)
    chat = request("POST", "/v1/chat/completions", {**STALL, "stream": True})
    with (
        asking(process, request("POST", "/v1/streams", {"request": SHORT})) as short,
        asking(process, request("POST", "/v1/streams", {"request": STALL})) as native,
        asking(process, chat) as dialect,
        asking(process, request("GET", "/healthz")) as idle,
    ):
        until(short, b"event: delta"), until(native, b"event: delta"), until(dialect, b"data: ")
        until(idle, b'"ok"}')
        begun = time.monotonic()
        process.signal(signal.SIGTERM)
        eventually(lambda: refuses(process.port))
        assert time.monotonic() - begun < 2
        assert rest(idle) == b""
        ended = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + rest(short)[-4000:]
        assert b"event: done" in ended
        told = rest(native)
        assert b"event: fail" in told
        assert b'"status":"interrupted"' in told
        assert told.endswith(b"0\r\n\r\n")
        told = rest(dialect)
        assert b'data: {"error":' in told
        assert b"gateway_shutdown" in told
        assert not told.endswith(b"0\r\n\r\n")
        assert b"[DONE]" not in told
    code, said = process.left()
    assert code == 0
    assert "Traceback" not in said
    assert "rror" not in said, said


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_hurries(serve, first):
    process = serve()
    with asking(process, request("POST", "/v1/streams", {"request": STALL})) as reader:
        until(reader, b"event: delta")
        process.signal(first)
        eventually(lambda: refuses(process.port))
        begun = time.monotonic()
        process.signal(signal.SIGINT)
        assert b"interrupted" in rest(reader)
        code, said = process.left()
    assert time.monotonic() - begun < 10  # not the 20 seconds of the drain
    assert (code, "Traceback" in said) == (0, False)


def test_ctrl_c_leaves_soon_whatever_clients_do(serve):
    process = serve()
    upload = request("POST", "/v1/streams", b"{", Content_Length=1000)
    with (
        asking(process, request("POST", "/v1/streams", {"request": STALL})) as reader,
        asking(process, request("POST", "/v1/chat/completions", STALL)),
        asking(process, upload),
        asking(process, b"GET /"),
        asking(process, b""),
    ):
        until(reader, b"event: delta")
        begun = time.monotonic()
        process.signal(signal.SIGINT)
        code, said = process.left()
    assert time.monotonic() - begun < 10
    assert code == 0
    assert "Traceback" not in said
    assert "rror" not in said, said


def test_nothing_is_left_running(serve):
    process = serve(store="embedded")
    group = process.popen.pid  # it leads a session of its own
    process.signal(signal.SIGTERM)
    assert process.left()[0] == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_an_answer_survives_the_process(serve, tmp_path):
    process = serve("--data", "data", store="embedded")
    url = f"http://127.0.0.1:{process.port}/v1/streams"
    first = httpx.post(url, json={"request": HELLO}, headers={"idempotency-key": "k"})
    with asking(process, request("POST", "/v1/streams", {"request": STALL})) as reader:
        got = until(reader, b"event: delta")
        process.popen.kill()
        got += rest(reader)
    process.left()
    seen = parse(unchunked(got[: got.rindex(b"\n\n\r\n") + 4])[0])
    process = serve("--data", "data", store="embedded")
    url = f"http://127.0.0.1:{process.port}/v1/streams"
    again = httpx.post(url, json={"request": HELLO}, headers={"idempotency-key": "k"})
    assert parse(again.content)[1:] == parse(first.content)[1:]
    stream = seen[0].id.partition("~")[0]
    resumed = parse(httpx.get(f"{url}/{stream}/events", headers={"last-event-id": seen[-1].id}).content)
    numbers = [event.data["n"] for event in seen[1:] + resumed[1:]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert resumed[-1].data["code"] == "gateway_restarted"


def test_a_client_that_ends_its_side_is_answered_on_this_loop_too(serve):
    process = serve()
    with asking(process, request("POST", "/v1/chat/completions", {**HELLO, "stream": True})) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert b"[DONE]" in rest(sock)
    with asking(process, request("POST", "/v1/chat/completions", {**STALL, "stream": True})) as sock:
        got = until(sock, b"data: {")
        stream = re.search(rb"stream-id: (\S+)", got)[1].decode()
    url = f"http://127.0.0.1:{process.port}/v1/streams/{stream}"
    eventually(lambda: httpx.get(url).json()["status"] == "cancelled")


def test_logs_hold_no_content_and_no_key(serve):
    process = serve("--key", "key-of-a-client", OPENAI_API_KEY="key-of-a-provider")
    url = f"http://127.0.0.1:{process.port}"
    headers = {"x-api-key": "key-of-a-client"}
    httpx.get(f"{url}/stream", params={"content": "private words", "model": "demo-echo"}, headers=headers)
    httpx.get(
        f"{url}/stream", params={"content": "private words"}, headers={"x-api-key": "key-that-is-wrong"}
    )
    process.signal(signal.SIGINT)
    _, said = process.left()
    assert json.loads(said.splitlines()[0])["event"]
    for secret in ("private", "key-of-a-client", "key-of-a-provider", "key-that-is-wrong"):
        assert secret not in said
