"""A page of another origin, in this machine's browser: it can neither spend nor read unless it is allowed."""

import json
import re
from urllib.parse import urlsplit

import httpx
import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import serving, wait_for
from tests.clients.relay import relaying

# What a page tries, each with what the gateway answers: 405 to a preflight, after which the browser does
# not make the request itself.
ATTEMPTS = {
    "a simple POST": ("fetch(url + '/v1/chat/completions', {method: 'POST', body: chat})", 403),
    "a POST that hides its answer": (
        "fetch(url + '/v1/chat/completions', {method: 'POST', mode: 'no-cors', body: chat})",
        403,
    ),
    "a POST of JSON": (
        "fetch(url + '/v1/chat/completions', {method: 'POST', body: chat, headers: {'Content-Type': json}})",
        405,
    ),
    "a GET": ("fetch(url + '/stream?content=Hello')", 403),
    "a GET that hides its answer": ("fetch(url + '/stream?content=Hello', {mode: 'no-cors'})", 403),
    "an EventSource": (
        "new Promise((done) => { new EventSource(url + '/stream?content=Hello').onerror = done; })",
        403,
    ),
    "an image": ("loaded('img', {src: url + '/stream?content=Hello'})", 403),
    "a script": ("loaded('script', {src: url + '/stream?content=Hello'})", 403),
    "a frame": ("loaded('iframe', {src: url + '/stream?content=Hello'})", 403),
    "a form": (
        "submitted({action: url + '/v1/chat/completions', method: 'POST', enctype: 'text/plain'})",
        403,
    ),
    "a beacon": ("Promise.resolve(navigator.sendBeacon(url + '/v1/streams/cancel?key=x', chat))", 403),
}

PAGE = """<!doctype html>
<title>Elsewhere</title>
<body>
<script>
  const json = "application/json";
  const chat = '{"model": "demo-echo", "messages": [{"role": "user", "content": "Hello"}]}';
  const loaded = (name, properties) => new Promise((done) => {
    const element = Object.assign(document.createElement(name), properties, { onload: done, onerror: done });
    document.body.append(element);
  });
  const submitted = (properties) => {
    const form = Object.assign(document.createElement("form"), properties, { target: "into" });
    form.append(Object.assign(document.createElement("input"), { name: chat }));
    const done = loaded("iframe", { name: "into" });
    document.body.append(form);
    form.submit();
    return done;
  };
</script>
"""


@pytest.fixture(scope="module")
def elsewhere(gateway):
    """Another origin on this machine, whose page may try what it likes."""
    with relaying(gateway.url, {"/page.html": PAGE}) as relay:
        yield relay.url


@pytest.fixture
def page(browser):
    """An empty page; what it is refused is all over its console."""
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture(params=["127.0.0.1", "localhost"], ids=["same-site", "cross-site"])
def stranger(page, elsewhere, request):
    """A page from ``elsewhere``; a browser takes two names of one machine for two sites."""
    page.goto(f"http://{request.param}:{urlsplit(elsewhere).port}/page.html")
    return page


def attempt(page, url, script):
    """Return what the page sees of it: the type of the response, or the error."""
    page.evaluate(f"globalThis.url = {json.dumps(url)}")
    return page.evaluate(f"({script}).then((r) => r?.type, (error) => String(error))")


def statuses(relay):
    return [int(found) for found in re.findall(rb"^HTTP/1.1 (\d+) ", bytes(relay.down), re.MULTILINE)]


@pytest.mark.parametrize("way", ATTEMPTS)
def test_a_page_of_another_origin_cannot_spend(stranger, gateway, relay, way):
    script, status = ATTEMPTS[way]
    before = len(gateway.log("stream_closed"))
    attempt(stranger, relay.url, script)
    assert wait_for(lambda: statuses(relay)) == [status]
    assert len(gateway.log("stream_closed")) == before


@pytest.mark.parametrize("path", ["/v1/models", "/v1/streams/{stream}", "/v1/streams/{stream}/events", "/"])
def test_a_page_of_another_origin_cannot_read(stranger, gateway, relay, path):
    script = f"fetch(url + {json.dumps(path.format(stream=created(gateway)))})"
    assert attempt(stranger, relay.url, script) == "TypeError: Failed to fetch"


def test_an_origin_that_is_allowed_can_spend_read_resume_and_cancel(page, tmp_path, upstream, elsewhere):
    said = " ".join(f"w{number}" for number in range(100))
    with (
        serving(tmp_path, settings(upstream), "--allow-origin", elsewhere) as gateway,
        relaying(gateway.url) as relay,
    ):
        page.goto(f"{elsewhere}/page.html")
        page.evaluate(f"globalThis.url = {json.dumps(relay.url)}")
        headers = "{method: 'POST', body: chat, headers: {'Content-Type': json, 'Idempotency-Key': 'k'}}"
        made = page.evaluate(
            f"fetch(url + '/v1/chat/completions', {headers})"
            ".then(async (r) => [await r.json(), r.headers.get('stream-id')])"
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
        assert attempt(page, gateway.url, ATTEMPTS["a GET"][0]) == "TypeError: Failed to fetch"
        assert gateway.log("stream_closed") == []


def created(gateway):
    return httpx.get(f"{gateway.url}/stream?content=secret&model=demo-echo").headers["stream-id"]
