"""Proxies through which no WebSocket passes: nginx in all the ways that it can be in the way of one.

The JavaScript client finds its way back to HTTP by itself, in Node.js and in Chromium; and all tabs of a
browser are told what their answers say, however many there are, over HTTP/1.1 alone.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from penstock.client import AsyncClient
from tests.clients import node
from tests.clients.gateway import wait_for
from tests.clients.test_shared_socket import SAID, TAB, whole
from tests.faults.process import accepts, free_port

MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    access_log off;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    {servers}
}}
"""
SERVER = """
    server {{
        listen 127.0.0.1:{port};
        location = /tab.html {{ root {folder}; }}
        location = /v1/ws {{ {socket} }}
        location / {{ proxy_pass http://127.0.0.1:{gateway}; }}
    }}
"""
UPGRADE = 'proxy_set_header Upgrade websocket; proxy_set_header Connection "upgrade";'
WAYS = {
    "passed": f"proxy_pass http://127.0.0.1:{{gateway}}; proxy_set_header Host $http_host; {UPGRADE}",
    "stripped": "proxy_pass http://127.0.0.1:{gateway};",
    "400": "return 400;",
    "404": "return 404;",
    "426": "return 426;",
    "502": "return 502;",
    "closed": "return 444;",
    "mute": f"proxy_pass http://127.0.0.1:{{mute}}; proxy_set_header Host $http_host; {UPGRADE}",
    "unanswered": f"proxy_pass http://127.0.0.1:{{unanswered}}; {UPGRADE}",
}
"""What becomes of the request for a WebSocket."""


def says_nothing(connection: ServerConnection) -> None:
    for _ in connection:
        pass


@contextmanager
def mute() -> Iterator[int]:
    """Open every WebSocket, and hand nothing on."""
    with serve(says_nothing, "127.0.0.1", 0, subprotocols=["penstock.v1+json"]) as server:
        yield _served(server)
        server.shutdown()


def _served(server: Server) -> int:
    Thread(target=server.serve_forever).start()
    return server.socket.getsockname()[1]


@pytest.fixture(scope="module")
def proxies(tmp_path_factory, gateway):
    """The addresses of nginx, by what it does with WebSockets."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "tab.html").write_text(TAB)
    ports = {way: free_port() for way in WAYS}
    with mute() as muted, socket.create_server(("127.0.0.1", 0)) as unanswered:
        there = {"gateway": gateway.port, "mute": muted, "unanswered": unanswered.getsockname()[1]}
        servers = [
            SERVER.format(port=ports[way], folder=folder, socket=what.format(**there), gateway=gateway.port)
            for way, what in WAYS.items()
        ]
        user = "user root;" if os.geteuid() == 0 else ""
        main = MAIN.format(folder=folder, user=user, servers="".join(servers))
        (folder / "nginx.conf").write_text(main)
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        command = [program, "-p", folder, "-c", folder / "nginx.conf"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                wait_for(lambda: process.poll() is not None or all(map(accepts, ports.values())))
                assert process.poll() is None, process.stderr.read().decode()
                yield {way: f"http://127.0.0.1:{port}" for way, port in ports.items()}
            finally:
                process.terminate()


def test_in_node_each_answer_is_whole_whatever_becomes_of_its_socket(proxies):
    node.client()
    jobs = [{"url": url, "text": f"{way} ", "times": 3} for way, url in proxies.items()]
    printed = node.run("--experimental-websocket", "auto.mjs", json.dumps(jobs))
    for way, found in zip(proxies, json.loads(printed), strict=True):
        assert [answer["text"] for answer in found["answers"]] == [f"{way} {n}" for n in range(3)]
        assert all(answer["ordered"] and answer["verified"] for answer in found["answers"])
        assert sum(answer["losses"] for answer in found["answers"]) == 0
        # Of one trial all three learn; only where it goes on does each wait a moment for it.
        assert (found["sockets"], found["requests"]) == (1, 0 if way == "passed" else 3), way


async def test_in_python_each_answer_is_whole_whatever_becomes_of_its_socket(proxies):
    async def ask(way, url):
        async with AsyncClient(url, transport="auto") as client:
            said = [f"{way} {n}" for n in range(3)]
            answers = [client.ask(text, model="demo-echo") for text in said]
            ends = [await answer.end() for answer in answers]  # raises where one is not whole
            return said, [answer.so_far for answer in answers], {end.status for end in ends}, repr(client)

    for said, texts, ends, shown in await asyncio.gather(*(ask(way, url) for way, url in proxies.items())):
        assert (texts, ends) == (said, {"completed"})
        assert ("SSE for now" in shown) == (not said[0].startswith("passed"))


@pytest.fixture
def new_tab(context, proxies):
    """Open a tab behind a proxy and let it ask something."""

    def new(way, transport, model="paced", said=SAID):
        page = context.new_page()
        page.goto(f"{proxies[way]}/tab.html")
        page.wait_for_function("typeof begin === 'function'")
        page.evaluate(
            "([model, said, transport]) => begin(model, said, { transport })", [model, said, transport]
        )
        return page

    return new


def forgive(complaints):
    """A browser tells of each socket that cannot be opened, and of nothing else here."""
    assert all("WebSocket" in complaint for complaint in complaints.settle())
    complaints.clear()


@pytest.mark.parametrize("way", ["stripped", "mute"])
def test_in_a_browser_too(new_tab, complaints, way):
    page = new_tab(way, "auto", said="one two three")
    assert whole(page, "one two three")["losses"] == 0
    forgive(complaints)


@pytest.mark.timeout(180)
def test_without_sockets_eight_tabs_are_served_in_turns(new_tab, complaints):
    """None waits for another one's end: none of them ever ends."""
    tabs = [new_tab("stripped", "shared", "endless") for _ in range(8)]
    for shown in (3, 40):
        for page in tabs:
            page.wait_for_function(f"numbers.length > {shown}")
    for page in tabs:
        page.evaluate("stream.stop()")
    for page in tabs:
        page.wait_for_function("window.over")
        over = page.evaluate("over")
        assert (over["status"], over["verified"], over["losses"]) == ("cancelled", True, 0)
        assert over["numbers"] == list(range(1, len(over["numbers"]) + 1))
    forgive(complaints)
