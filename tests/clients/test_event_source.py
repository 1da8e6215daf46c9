"""A browser's own EventSource: no library, no polyfill, and the page is ten lines."""

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import serving, wait_for
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


@pytest.fixture
def statuses(page):
    """The statuses of the answers to `page`'s sources, in order."""
    found = []
    page.on(
        "response", lambda response: found.append(response.status) if "/stream?" in response.url else None
    )
    return found


def bare(relay, *contents):
    return f"{relay.url}/bare.html?{urlencode({'content': contents}, doseq=True)}"


def test_the_readme_page_shows_the_answer(page, relay, generations):
    page.goto(f"{relay.url}/readme.html")
    page.wait_for_function("source.readyState === 2")
    assert page.text_content("#answer") == "one two"
    assert relay.requests.count("/stream") == 1
    assert generations() == 1


def test_words_appear_as_they_are_made(page, relay):
    said = words(60, "w")
    page.goto(bare(relay, said))
    lengths = set()
    wait_for(lambda: lengths.add(page.evaluate("sources[0].text.length")) or len(said) in lengths)
    assert page.evaluate("sources[0].text") == said
    assert len(lengths) > 5
    assert page.evaluate("sources[0].steps") == 60


def test_a_page_that_knows_no_end_stops_at_the_end(page, relay, generations, statuses):
    page.goto(bare(relay, "one two three"))
    page.wait_for_function("sources[0].readyState === 2")
    assert page.evaluate("sources[0].text") == "one two three"
    assert statuses == [200, 204]
    assert generations() == 1


def test_nothing_is_lost_or_repeated_when_the_connection_is_cut(
    page, relay, generations, statuses, complaints
):
    said = [words(120, salt) for salt in ("a", "é", "字", "🌊", "x y ")]
    # Bytes behind the head of a response. The first ones are behind the first event, which brings the
    # first id: a browser that has none must ask anew. The second ones are anywhere.
    relay.cuts += [300, 333, 391, 450, 517, 0, 1, 64, 173, 260]
    page.goto(bare(relay, *said))
    page.wait_for_function("sources.every((source) => source.readyState === 2)")
    assert page.evaluate("sources.map((source) => source.text)") == said
    assert statuses.count(204) == 5
    assert relay.cuts == []
    assert generations() == 5
    assert all("net::ERR_" in complaint for complaint in complaints.settle())  # the cuts, and nothing else
    complaints.clear()


def test_cancelling_ends_the_page_for_good(page, relay, gateway, generations):
    page.goto(bare(relay, words(500, "w")))
    page.wait_for_function("sources[0].steps > 3")
    stream = re.search(rb"\nstream-id: (\S+)\r\n", bytes(relay.down))[1].decode()
    cancel = f"fetch('/v1/streams/{stream}/cancel', {{method: 'POST'}}).then((r) => r.json())"
    assert page.evaluate(cancel)["status"] == "cancelled"
    page.wait_for_function("sources[0].readyState === 2")
    assert page.evaluate("sources[0].failure.code") == "cancelled"
    assert 3 < page.evaluate("sources[0].steps") < 500
    assert generations() == 1
    assert gateway.get(f"/v1/streams/{stream}")["status"] == "cancelled"


def test_a_refused_request_is_not_repeated(page, relay, generations, statuses, complaints):
    page.goto(bare(relay, ""))
    page.wait_for_function("sources[0].readyState === 2")
    assert statuses == [400]
    assert generations() == 0
    assert ["400 (Bad Request)" in complaint for complaint in complaints.settle()] == [True]
    complaints.clear()


def test_a_page_outlives_a_gateway_that_is_killed(page, tmp_path, upstream, complaints):
    said = words(500, "w")
    with (
        serving(tmp_path, settings(upstream)) as gateway,
        relaying(gateway.url, {"/bare.html": BARE}) as relay,
    ):
        page.goto(bare(relay, said))
        page.wait_for_function("sources[0].steps > 3")
        gateway.restart()
        page.wait_for_function("sources[0].readyState === 2")
        assert page.evaluate("sources[0].failure.code") == "gateway_restarted"
        shown = page.evaluate("sources[0].text")
        assert said.startswith(shown)
        assert page.evaluate("sources[0].steps") == len(shown.split())
    assert all("net::ERR_" in complaint for complaint in complaints.settle())
    complaints.clear()
