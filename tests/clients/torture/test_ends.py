"""What stops a reader that nobody closes, and what does not: docs/guide/clients.md says it as it is here.

Each is cut behind the last event, so it comes back with the last id and is answered 204; or finds that
its stream is gone, unknown, ahead. Requests are counted.
"""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from httpx_sse import SSEError, connect_sse

from tests.clients import node
from tests.clients.browser import until
from tests.clients.gateway import PATIENCE, wait_for
from tests.clients.torture.answer import PIECES, compare, shown
from tests.clients.torture.cuts import shape_of
from tests.clients.torture.network import HEAD, Cut
from tests.clients.torture.readers import FOREIGN, by_node

AWAY = 2.0
"""Seconds for one that stays away to come back; it was told to come back after a tenth of one."""
numbers = itertools.count(2_000_000)
STOPPED = {"eventsource"}
"""What a 204 stops in Node.js. The others are closed at ``done``, or ask for ever: the polyfill wants a body
to read, which a 204 has in Chromium only."""


@pytest.fixture(scope="module")
def stream(torn, network):
    """A stream that has ended, and the shape of its native events."""
    messages = [{"role": "user", "content": "once"}]
    body = {"request": {"model": "torture", "messages": messages}}
    made = httpx.post(f"{torn.url}/v1/streams", json=body, headers={"prefer": "respond-async"})
    found = made.raise_for_status().json()["stream"]
    torn.wait_closed(found)
    return found


@pytest.fixture(scope="module")
def shape(network, stream):
    number = next(numbers)
    run = network.plan(number, [])
    httpx.get(f"{network.url}/{number}/v1/streams/{stream}/events", timeout=PATIENCE).raise_for_status()
    return shape_of(bytes(run.answers[0].data))


BEFORE = (Cut(HEAD, 0, "rst"),)
REFUSALS = {
    "/v1/streams/s_0000000000000000000000000000/events": 404,
    "/v1/streams/{stream}/events?after=999": 416,
    "/v1/streams/{stream}/events?after=nonsense": 400,
}


@pytest.fixture(scope="module")
def left_alone(network, stream, shape):
    """Each reader with a whole body, with one that was cut at its end, and one that is refused; all at once,
    by what it was given: the run, and what its page saw."""

    def watch(case):
        name, path, cuts = case
        number = next(numbers)
        run = network.plan(number, list(cuts))
        url = f"{network.url}/{number}{path.format(stream=stream)}"
        seconds = PATIENCE if cuts is not BEFORE else AWAY
        return run, json.loads(node.run("ends.mjs", name, url, str(seconds)))

    events = "/v1/streams/{stream}/events"
    at_the_end = (Cut(len(shape.events), 0, "rst"),)
    cases = [(name, events, cuts) for name in FOREIGN for cuts in ((), at_the_end)]
    cases += [("eventsource", path, ()) for path in REFUSALS]
    cases += [("react-native-sse", events, BEFORE)]
    with ThreadPoolExecutor(len(cases)) as threads:
        watched = dict(zip(cases, threads.map(watch, cases), strict=True))
    cuts = {"": (), "end": at_the_end, "before": BEFORE}
    return lambda name, path=events, *, cut="": watched[name, path, cuts[cut]]


@pytest.mark.parametrize("name", FOREIGN)
def test_204_at_the_end_stops_who_heeds_it(left_alone, name):
    run, seen = left_alone(name, cut="end")
    assert seen.count("done") == 1
    assert run.statuses[0] == 200
    assert set(run.statuses[1:]) == {204}
    assert (len(run.requests) == 2) == (name in STOPPED), run.statuses


@pytest.mark.parametrize("name", FOREIGN)
def test_a_whole_body_is_the_end_for_fetch_event_source_alone(left_alone, name):
    run, seen = left_alone(name)
    if name == "fetch-event-source":
        assert (seen[-1], run.statuses) == ("resolved", [200])
    else:
        assert run.statuses[:2] == [200, 204]


@pytest.mark.parametrize("path", REFUSALS)
def test_a_refusal_stops_an_event_source(left_alone, path):
    run, seen = left_alone("eventsource", path)
    assert run.statuses == [REFUSALS[path]]
    assert seen == ["error"]


def test_react_native_sse_does_not_come_back_where_no_answer_began(left_alone):
    run, seen = left_alone("react-native-sse", cut="before")
    assert (len(run.requests), seen) == (1, ["error"])


def left_alone_in_a_browser(network, stream, page, made):
    number = next(numbers)
    run = network.plan(number, [])
    page.goto(f"{network.url}/torture.html")
    page.evaluate(
        """async ([url, made]) => {
            const { SSE } = await import("sse.js");
            await import("event-source-polyfill");
            window.source = new Function("url", "SSE", `return ${made}`)(url, SSE);
        }""",
        [f"{network.url}/{number}/v1/streams/{stream}/events", made],
    )
    return run


@pytest.mark.parametrize("made", ["new EventSource(url)", "new EventSourcePolyfill(url)"])
def test_204_stops_these_in_a_browser(network, stream, browser, made):
    with browser.new_context() as context:
        page = context.new_page()
        run = left_alone_in_a_browser(network, stream, page, made)
        until(page, "source.readyState === 2")
    assert run.statuses == [200, 204]


def test_204_does_not_stop_sse_js(network, stream, browser):
    with browser.new_context() as context:
        made = "new SSE(url, { autoReconnect: true })"
        run = left_alone_in_a_browser(network, stream, context.new_page(), made)
        wait_for(lambda: run.statuses[:3] == [200, 204, 204])


@pytest.mark.parametrize(("secure", "state"), [(True, "CONNECTING"), (False, "CLOSED")])
def test_a_browser_takes_a_head_that_ends_early_for_a_whole_one_without_tls(
    network, stream, browser, secure, state
):
    number = next(numbers)
    run = network.plan(number, [Cut(HEAD, 40, "fin")])
    base = network.secure_urls[0] if secure else network.url
    with browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.goto(f"{base}/torture.html")
        script = """(url) => new Promise((resolve) => {
            const source = new EventSource(url);
            source.onerror = () => resolve(["CONNECTING", "OPEN", "CLOSED"][source.readyState]);
        })"""
        assert page.evaluate(script, f"{base}/{number}/v1/streams/{stream}/events") == state
    assert len(run.made) == 1


@pytest.mark.parametrize(("kind", "error"), [("rst", httpx.ReadError), ("fin", httpx.RemoteProtocolError)])
def test_httpx_raises_one_error_for_a_reset_and_another_for_an_early_end(network, stream, shape, kind, error):
    number = next(numbers)
    network.plan(number, [Cut(3, 0, kind)])
    url = f"{network.url}/{number}/v1/streams/{stream}/events"
    with httpx.Client() as client, pytest.raises(error), connect_sse(client, "GET", url) as source:
        list(source.iter_sse())


def test_httpx_sse_raises_at_a_204(torn, stream):
    after = torn.get(f"/v1/streams/{stream}")["cursor"]
    with httpx.Client() as client:
        url = f"{torn.url}/v1/streams/{stream}/events"
        with connect_sse(client, "GET", url, headers={"Last-Event-ID": after}) as source:
            assert source.response.status_code == 204
            with pytest.raises(SSEError):
                list(source.iter_sse())


def test_a_post_at_the_end_gets_the_last_event_again_and_a_whole_body(torn):
    messages = [{"role": "user", "content": "a post at the end"}]
    content = json.dumps({"request": {"model": "torture", "messages": messages}})
    headers = {"content-type": "application/json"}
    with httpx.Client(timeout=PATIENCE) as client:
        with connect_sse(
            client, "POST", f"{torn.url}/v1/streams", content=content, headers=dict(headers)
        ) as source:
            last = list(source.iter_sse())[-1]
        headers["Last-Event-ID"] = last.id
        with connect_sse(
            client, "POST", f"{torn.url}/v1/streams", content=content, headers=headers
        ) as source:
            again = list(source.iter_sse())
    assert [event.event for event in again] == ["stream", "done"]
    assert (again[-1].id, again[-1].data) == (last.id, last.data)


def bare(texts):
    return "".join("".join(texts).replace("\ufeff", "").split())


@pytest.mark.parametrize("name", ["fetch-event-source", "react-native-sse"])
def test_text_events_lose_space_where_the_reader_takes_it_off(network, torn, tmp_path, name):
    """So these two want JSON events. Nothing but spaces and line breaks is lost."""
    number = next(numbers)
    network.plan(number, [])
    job = {"run": number, "url": f"{network.url}/{number}/stream?content={number}", "format": "text"}
    expected = shown(PIECES, "text")
    (result,) = by_node(name, [job], {"text": expected, "json": PIECES}, tmp_path)
    assert compare(expected, result["texts"]) != (0, 0)
    assert bare(result["texts"]) == bare(expected)
