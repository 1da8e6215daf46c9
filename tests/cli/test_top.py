"""`penstock top`, against a gateway that answers."""

import json
import threading
from contextlib import contextmanager
from typing import get_args

import httpx
import pytest

from penstock.cli.top import Order
from penstock.server.roster import ORDERS
from tests.cli.terminal import CTRL_C
from tests.clients.gateway import PATIENCE, serving, wait_for

APP_KEY = "planted-app-key-1"


@contextmanager
def streaming(gateway, model: str = "patient"):
    """A stream that goes on meanwhile."""
    with (
        httpx.Client(timeout=PATIENCE) as client,
        client.stream("GET", f"{gateway.url}/stream?model={model}&content=x") as response,
    ):
        yield response.headers["stream-id"]


def test_once_and_as_json_it_is_for_scripts(run, at, gateway):
    with streaming(gateway) as stream:
        text = run("top", "--once", **at).stdout
        frame = json.loads(run("top", "--json", "--once", **at).stdout)
        found = run("top", "--json", "--once", "--find", f"id:{stream[-8:]}", "--sort", "silent", **at)
        others = run("top", "--json", "--once", "--find", "model:unheard-of", **at)
    assert [row["id"] for row in json.loads(found.stdout)["streams"]] == [stream]
    assert json.loads(others.stdout)["streams"] == []
    assert f"…{stream[-8:]}" in text
    assert "\x1b" not in text
    assert stream in [row["id"] for row in frame["streams"]]
    assert frame["point"]["open"] >= 1


def test_streams_come_in_the_orders_that_the_gateway_knows():
    assert list(get_args(Order)) == list(ORDERS)


def test_on_a_terminal_it_is_live_and_waits_for_a_gateway_that_goes(terminal, own):
    seen = terminal("top", "--url", own.url, columns=120, lines=30)
    seen.shows("ready", "streams 0")
    reading = threading.Event()

    def read() -> None:
        with streaming(own):
            reading.wait(PATIENCE)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        seen.shows("streams 1", "patient", "waiting")
    finally:
        reading.set()
        thread.join()
    own.kill()
    seen.shows("lost:")
    own.start()
    seen.shows("ready")
    seen.type(CTRL_C)
    assert seen.ends() == 0
    wait_for(lambda: b"\x1b[?1049l" in seen.raw)  # the screen as it was before


@pytest.fixture
def own_with_keys(tmp_path):
    """A gateway with a key that is no administrator's."""
    with serving(tmp_path / "locked", {"store": {"kind": "memory"}, "keys": {"app": APP_KEY}}) as gateway:
        yield gateway


def test_it_says_who_may_and_where_nobody_is(run, own_with_keys):
    refused = run("top", "--once", "--url", own_with_keys.url, "--key", APP_KEY)
    assert (refused.returncode, refused.stdout) == (77, "")
    assert "administrators" in refused.stderr
    nobody = run("top", "--once", "--url", "http://127.0.0.1:1")
    assert nobody.returncode == 69
