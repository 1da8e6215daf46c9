"""A model that is silent for long loses nobody: not the SDKs, not the readers, not the proxy in between.

PENSTOCK_SILENCE=300 makes it five minutes, twice, with the default heartbeat and the minute after which
nginx by itself gives up (`make soak`).
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.clients import node
from tests.clients.gateway import PATIENCE, serving, wait_for
from tests.clients.torture.answer import PIECES, shown
from tests.clients.torture.readers import follow
from tests.deploy.test_nginx import Front

SILENCE = float(os.environ.get("PENSTOCK_SILENCE", "5"))
"""Seconds, before the first word and again in the middle."""
SHORT = SILENCE < 60
HEARTBEAT, READ_TIMEOUT = (1.0, "3s") if SHORT else (15.0, "60s")
TEXT = "".join(PIECES)
WAYS = {
    "no ids": {},
    "ids by Accept": {"extra_headers": {"Accept": "text/event-stream"}},
    "ids by query": {"extra_query": {"ids": "1"}},
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, network):
    """nginx before a gateway of its own, which leads to the network's provider."""
    listen = {"heartbeat": HEARTBEAT, "commit_after": 1.0} if SHORT else {}
    settings = {
        "listen": listen,
        # This provider may be silent for longer than most are given: it is the readers who are tried.
        "timers": {"first_output": 2 * SILENCE, "stall": 2 * SILENCE},
        "providers": {"upstream": {"base_url": network.provider.url, "api_key": "unused"}},
        "models": {"torture": [{"provider": "upstream", "model": "torture"}]},
    }
    folder = tmp_path_factory.mktemp("silence")
    with (
        serving(folder, settings) as gateway,
        Front(folder / "nginx", gateway.port, proxy_read_timeout=READ_TIMEOUT).running() as front,
    ):
        yield front


def insecure():
    return httpx.Client(verify=False, timeout=SILENCE + PATIENCE)


def by_sdk(url, asked, options):
    with insecure() as http:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, http_client=http)
        messages = [{"role": "user", "content": asked}]
        stream = client.chat.completions.create(model="torture", messages=messages, stream=True, **options)
        return "".join(c.delta.content or "" for chunk in stream for c in chunk.choices)


def by_node_sdk(url, *asked):
    printed = node.run(
        "silence.mjs", f"{url}/v1", *asked, patience=2 * SILENCE + 100, NODE_TLS_REJECT_UNAUTHORIZED="0"
    )
    return json.loads(printed)


def by_events(url, asked, format):
    path = httpx.URL("/stream", params={"content": asked, "format": format, "model": "torture"})
    with insecure() as client:
        return follow(client, {"url": f"{url}{path}", "format": format})


def by_lines(url, asked):
    params = {"content": asked, "model": "torture"}
    with insecure() as client:
        got = client.get(f"{url}/stream", params=params, headers={"Accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in got.content.split(b"\n") if line]
    deltas = [line["d"] for line in lines if line["ev"] == "delta"]
    return "".join(d["delta"] for d in deltas if d["type"] == "text"), [line["ev"] for line in lines]


@pytest.mark.timeout(2 * SILENCE + 120)
def test_a_silence_longer_than_the_proxys_patience_loses_nobody(network, proxy):
    asked = [f"silent {n}" for n in range(9)]
    network.provider.silences.update(dict.fromkeys(asked, SILENCE))
    with ThreadPoolExecutor(9) as threads:
        python = [
            threads.submit(by_sdk, proxy.url, *both) for both in zip(asked, WAYS.values(), strict=False)
        ]
        javascript = threads.submit(by_node_sdk, proxy.url, *asked[3:6])
        text = threads.submit(by_events, proxy.url, asked[6], "text")
        native = threads.submit(by_events, proxy.url, asked[7], "json")
        lines = threads.submit(by_lines, proxy.url, asked[8])
    assert dict(zip(WAYS, [read.result() for read in python], strict=True)) == dict.fromkeys(WAYS, TEXT)
    assert javascript.result() == [TEXT] * 3
    assert text.result() == (shown(PIECES, "text"), "done")
    assert native.result() == (PIECES, "done")
    words, events = lines.result()
    assert words == TEXT
    assert events.count("heartbeat") >= 2 * (SILENCE // HEARTBEAT - 2)
    # Nobody had to come back: one request each, and all of them went well.
    wait_for(lambda: len(proxy.log("access").splitlines()) >= 9)
    requests = [line.split('"')[1:] for line in proxy.log("access").splitlines()]
    assert sorted(path for path, _ in requests) == ["GET /stream"] * 3 + ["POST /v1/chat/completions"] * 6
    assert {rest.split()[0] for _, rest in requests} == {"200"}
    assert [network.provider.calls[question] for question in asked] == [1] * 9
