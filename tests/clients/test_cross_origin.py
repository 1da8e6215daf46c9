"""A page of another origin, in this machine's browser: it can neither spend nor read unless it is allowed.

The page (stranger.html) makes requests in every way that a browser has, to every route that there is:
from another port, from another name of this machine, from nowhere (a sandboxed frame), and from a name of
its own that it has pointed at this machine.
"""

import json
import os
import re
import secrets
from html import escape
from itertools import product
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from penstock.server.app import routes
from tests.clients.browser import browsing
from tests.clients.conftest import settings
from tests.clients.gateway import serving, wait_for
from tests.clients.relay import REQUEST, relaying

STRANGER = Path(__file__).with_name("stranger.html").read_text()
SANDBOX = f"""<!doctype html>
<title>Around a page without an origin</title>
<iframe name="sandbox" sandbox="allow-scripts allow-forms allow-popups" srcdoc="{escape(STRANGER)}"></iframe>
"""

OPEN = {
    "/",
    "/ui/{file:path}",
    "/client/penstock.js",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/dashboard",
}
"""What holds nothing of anybody: other names of this machine may read it, other origins still may not."""

VALUES = {
    "{model:path}": "demo",
    "{file:path}": "index.html",
    "{chat:path}": "a-chat",
    "{path:path}": "logs/app",
    "{preset}": "a-preset",
    "{key}": "a-key",
    "{id}": "file-1",
}


def chat(said):
    """A body for any dialect."""
    return {"model": "endless", "messages": [{"role": "user", "content": said}], "prompt": said}


class Victim(NamedTuple):
    """A stream of this machine's user, and the key that it was created with."""

    stream: str
    key: str


@pytest.fixture(scope="module")
def browser():
    """As everywhere, in a world where evil.test is this machine."""
    with browsing("--host-resolver-rules=MAP evil.test 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def page(browser):
    """An empty page; what it is refused is all over its console."""
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture(scope="module")
def elsewhere(gateway):
    """Another origin on this machine, whose pages may try what they like."""
    with relaying(gateway.url, {"/page.html": STRANGER, "/sandbox.html": SANDBOX}) as relay:
        yield relay.url


@pytest.fixture
def relay(gateway):
    """The way to the gateway, on which a page that is of its origin can be reached as well."""
    with relaying(gateway.url, {"/page.html": STRANGER}) as relay:
        yield relay


@pytest.fixture
def victim(gateway):
    """What goes on for as long as nobody stops it."""
    key = secrets.token_hex(8)
    body = {"request": chat("victim"), "on_disconnect": "continue"}
    headers = {"Prefer": "respond-async", "Idempotency-Key": key}
    stream = (
        httpx.post(f"{gateway.api}/streams", json=body, headers=headers).raise_for_status().json()["stream"]
    )
    wait_for(lambda: gateway.get(f"/v1/streams/{stream}")["entries"])
    yield Victim(stream, key)
    httpx.post(f"{gateway.api}/streams/{stream}/cancel")


class Request(NamedTuple):
    """One that would work, if it came from here."""

    route: str
    way: str
    method: str
    target: str
    body: str | None


ALL = os.environ.get("PENSTOCK_STRANGERS") == "all"
"""Whether each origin tries each way at each route, in a few minutes (`make torture`). Else each way at each
route is tried by one of the origins, in turn."""


def every_request(ways, victim, origin):
    """Every route there is, with every method, in every way whose turn it is for ``origin``, a number; what
    each would start names its way."""
    for (number, route), (turn, way) in product(enumerate(routes()), enumerate(ways)):
        if not ALL and (number + turn) % len(ORIGINS) != origin:
            continue
        path = route.path
        for name, value in {**VALUES, "{stream}": victim.stream}.items():
            path = path.replace(name, value)
        assert "{" not in path, f"what to put into {route.path}?"
        query = urlencode(
            {"content": way, "model": "endless", "key": victim.key if "cancel" in path else way}
        )
        for method in sorted(route.methods - {"HEAD"}):
            body = {"request": chat(way)} if path == "/v1/streams" else chat(way)
            yield Request(
                route.path, way, method, f"{path}?{query}", json.dumps(body) if method == "POST" else None
            )


ANSWER = re.compile(rb"HTTP/1\.1 \d+ ")
REFUSALS = ('{"error":', '[{"error":', '{"type":"error","error":')

ORIGINS = {
    "another-port": "http://127.0.0.1:{other}/page.html",
    "another-name": "http://localhost:{other}/page.html",
    "none": "http://127.0.0.1:{other}/sandbox.html",
    "a-name-pointed-at-us": "http://evil.test:{ours}/page.html",
}


@pytest.mark.timeout(300 if ALL else 60)
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_page_of_another_origin_can_do_nothing(page, gateway, upstream, elsewhere, relay, victim, origin):
    page.goto(ORIGINS[origin].format(other=urlsplit(elsewhere).port, ours=urlsplit(relay.url).port))
    # A sandboxed frame is in another process, and comes a little later.
    stranger = wait_for(lambda: (last := page.frames[-1]).evaluate("typeof collect") == "function" and last)
    rebound = origin == "a-name-pointed-at-us"
    gateway_url = relay.url.replace("127.0.0.1", "evil.test") if rebound else relay.url
    streams = gateway.get("/v1/streams")["data"]
    before = len(upstream.asked)

    ways = stranger.evaluate("Object.keys(WAYS)")
    requests = list(every_request(ways, victim, list(ORIGINS).index(origin)))
    assert {request.way for request in requests} == set(ways)
    calls = [[r.way, r.method, gateway_url + r.target, r.body] for r in requests]
    made = stranger.evaluate("(requests) => attempt(requests)", calls)
    tried = [request for request, able in zip(requests, made, strict=True) if able]
    passed = Passed(relay)
    wait_for(lambda: passed.answered(tried))
    read = stranger.evaluate("collect()")

    asked = [asked.body["messages"] for asked in upstream.asked[before:]]
    assert [messages for messages in asked if messages != chat("victim")["messages"]] == []
    assert {stream["id"] for stream in gateway.get("/v1/streams")["data"]} <= {s["id"] for s in streams}
    assert gateway.get(f"/v1/streams/{victim.stream}")["status"] == "open"
    for request, text in zip(requests, read, strict=True):
        # To a browser, a name that is pointed at us is one origin with its page: refusals can be read.
        harmless = rebound and (request.route in OPEN or text.startswith(REFUSALS))
        assert not text or harmless, f"{request} gave {text}"


class Passed:
    """What went through a relay, of which each byte is looked at once."""

    def __init__(self, relay):
        self._relay = relay
        self._up = self._down = 0
        self._targets, self._asked, self._answered = set(), 0, 0

    def answered(self, requests):
        """Say whether all ``requests``, or the questions before them, came through and were answered."""
        for found in REQUEST.finditer(bytes(self._relay.up[(begin := self._up) :])):
            self._up = begin + found.end()
            self._targets.add(found[1].decode())
            self._asked += 1
        for found in ANSWER.finditer(bytes(self._relay.down[(begin := self._down) :])):
            self._down = begin + found.end()
            self._answered += 1
        return {request.target for request in requests} <= self._targets and self._answered == self._asked


@pytest.mark.parametrize("way", ["fetch", "EventSource", "image", "frame", "form", "window", "link"])
def test_a_page_of_our_own_origin_can_do_all_that(page, gateway, relay, way):
    page.goto(f"{relay.url}/page.html")
    before = len(gateway.log("stream_closed"))
    call = [way, "GET", f"{relay.url}/stream?model=demo-echo&content={way}", None]
    assert page.evaluate("(call) => attempt([call])", call) == [True]
    wait_for(lambda: len(gateway.log("stream_closed")) == before + 1)


def test_a_link_elsewhere_opens_the_page(page, gateway, elsewhere):
    page.goto(f"{elsewhere.replace('127.0.0.1', 'localhost')}/page.html")
    before = len(gateway.get("/v1/streams")["data"])
    with page.context.expect_page() as opened:
        page.evaluate(f"window.open({json.dumps(gateway.url)}); 0")
    opened.value.wait_for_load_state()
    assert opened.value.evaluate("location.href") == f"{gateway.url}/"
    assert opened.value.locator("textarea, input").count() > 0
    assert len(gateway.get("/v1/streams")["data"]) == before


def test_what_a_browser_fetches_ahead_starts_nothing(page, gateway, elsewhere, relay):
    page.goto(f"{relay.url}/page.html")
    before = len(gateway.log("stream_closed"))
    read = page.evaluate("attempt([['prefetch', 'GET', '/stream?content=Hello']]), collect()")
    assert read == [""]
    assert b"HTTP/1.1 403" in relay.down
    assert len(gateway.log("stream_closed")) == before


def test_an_origin_that_is_allowed_can_spend_read_resume_and_cancel(page, tmp_path, upstream, elsewhere):
    said = " ".join(f"w{number}" for number in range(100))
    with (
        serving(tmp_path, settings(upstream), "--allow-origin", elsewhere) as gateway,
        relaying(gateway.url) as relay,
    ):
        page.goto(f"{elsewhere}/page.html")
        page.evaluate(f"globalThis.url = {json.dumps(relay.url)}")
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        made = page.evaluate(
            "(call) => fetch(url + '/v1/chat/completions', call)"
            ".then(async (r) => [await r.json(), r.headers.get('stream-id')])",
            {
                "method": "POST",
                "body": json.dumps({**chat("Hello"), "model": "demo-echo"}),
                "headers": headers,
            },
        )
        assert made[0]["choices"][0]["message"]["content"] == "Hello"
        relay.cuts += [400]
        page.evaluate(
            "globalThis.text = '';"
            f"globalThis.source = new EventSource(url + '/stream?model=paced&content={said}');"
            "source.onmessage = (event) => { text += event.data; }; 0"  # Playwright calls what is a function
        )
        page.wait_for_function("source.readyState === 2")
        assert page.evaluate("text") == said
        refused = page.evaluate("fetch(url + '/stream').then((r) => r.json())")
        assert refused["error"]["code"] == "missing_required_parameter"
        cancel = f"fetch(url + '/v1/streams/{made[1]}/cancel', {{method: 'POST'}}).then((r) => r.json())"
        assert page.evaluate(cancel)["status"] == "completed"


def test_allowing_one_origin_allows_no_other(page, tmp_path, upstream, elsewhere):
    other = elsewhere.replace("127.0.0.1", "localhost")
    with serving(tmp_path, settings(upstream), "--allow-origin", other) as gateway:
        page.goto(f"{elsewhere}/page.html")
        call = ["fetch", "GET", f"{gateway.url}/stream?content=Hello", None]
        assert page.evaluate("(call) => { attempt([call]); return collect(); }", call) == [""]
        assert gateway.log("stream_closed") == []
