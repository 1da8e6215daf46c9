"""A browser's own EventSource: no library, no polyfill, and the page is ten lines."""

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.clients.browser import browsing
from tests.clients.gateway import wait_for
from tests.clients.relay import relaying

README = Path(__file__).parents[2] / "README.md"

# As bare as it gets: it knows nothing of an end.
BARE = """<!doctype html>
<pre id="answer"></pre>
<script>
  const sources = new URLSearchParams(location.search).getAll("content").map((content) => {
    const source = new EventSource("/stream?" + new URLSearchParams({ model: "paced", content }));
    source.text = "";
    source.steps = 0;
    source.onmessage = (event) => { source.text += event.data; source.steps += 1; };
    source.addEventListener("fail", (event) => { source.failure = JSON.parse(event.data); });
    return source;
  });
</script>
"""


def words(count, salt):
    return " ".join(f"{salt}{number}" for number in range(count))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def relay(gateway):
    """The gateway, with pages in front of it and a network that can break."""
    example = re.search(r"```html\n(.*?)```", README.read_text(), re.DOTALL)[1]
    pages = {
        "/bare.html": BARE,
        "/readme.html": example.replace("content=Hello", "content=one+two&model=paced"),
    }
    with relaying(gateway.url, pages) as relay:
        yield relay


@pytest.fixture
def generations(gateway):
    """How many generations have ended since the test began."""
    before = len(gateway.log("stream_closed"))
    return lambda: len(gateway.log("stream_closed")) - before


def bare(relay, *contents):
    return f"{relay.url}/bare.html?{urlencode({'content': contents}, doseq=True)}"


def test_the_readme_page_shows_the_answer(browser, relay, generations):
    with browser.page(f"{relay.url}/readme.html") as page:
        page.wait_for("source.readyState === 2")
        assert page.evaluate("answer.textContent") == "one two"
        assert [c for c in page.complaints if "favicon" not in c] == []
    assert relay.requests.count("/stream") == 1
    assert generations() == 1


def test_words_appear_as_they_are_made(browser, relay):
    said = words(60, "w")
    with browser.page(bare(relay, said)) as page:
        lengths = set()
        wait_for(lambda: lengths.add(page.evaluate("sources[0].text.length")) or len(said) in lengths)
        assert page.evaluate("sources[0].text") == said
        assert len(lengths) > 5
        assert page.evaluate("sources[0].steps") == 60


def test_a_page_that_knows_no_end_stops_at_the_end(browser, relay, generations):
    with browser.page(bare(relay, "one two three")) as page:
        page.wait_for("sources[0].readyState === 2")
        assert page.evaluate("sources[0].text") == "one two three"
        assert page.statuses("/stream?") == [200, 204]
    assert generations() == 1


def test_nothing_is_lost_or_repeated_when_the_connection_is_cut(browser, relay, generations):
    said = [words(120, salt) for salt in ("a", "é", "字", "🌊", "x y ")]
    # Bytes behind the head of a response. The first ones are behind the first event, which brings the
    # first id: a browser that has none must ask anew. The second ones are anywhere.
    relay.cuts += [300, 333, 391, 450, 517, 0, 1, 64, 173, 260]
    with browser.page(bare(relay, *said)) as page:
        page.wait_for("sources.every((source) => source.readyState === 2)")
        assert page.evaluate("sources.map((source) => source.text)") == said
        assert page.statuses("/stream?").count(204) == 5
    assert relay.cuts == []
    assert generations() == 5


def test_cancelling_ends_the_page_for_good(browser, relay, gateway, generations):
    with browser.page(bare(relay, words(500, "w"))) as page:
        page.wait_for("sources[0].steps > 3")
        stream = re.search(rb"\nstream-id: (\S+)\r\n", bytes(relay.down))[1].decode()
        cancel = f"fetch('/v1/streams/{stream}/cancel', {{method: 'POST'}}).then((r) => r.json())"
        assert page.evaluate(cancel)["status"] == "cancelled"
        page.wait_for("sources[0].readyState === 2")
        assert page.evaluate("sources[0].failure.code") == "cancelled"
        assert 3 < page.evaluate("sources[0].steps") < 500
    assert generations() == 1
    assert gateway.get(f"/v1/streams/{stream}")["status"] == "cancelled"


def test_a_refused_request_is_not_repeated(browser, relay, generations):
    with browser.page(bare(relay, "")) as page:
        page.wait_for("sources[0].readyState === 2")
        assert page.statuses("/stream?") == [400]
    assert generations() == 0
