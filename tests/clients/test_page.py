"""The page at `/`, in a browser."""

import pytest

from tests.clients.browser import browsing
from tests.clients.conftest import settings
from tests.clients.gateway import serving

SAID = " ".join(f"word{number}" for number in range(80))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(browser, gateway):
    """The page, ready to be used; at the end it must have nothing to complain about."""
    with browser.page(f"{gateway.url}/") as page:
        page.wait_for("document.querySelector('#model').length > 0")
        yield page
        assert page.complaints == []


def ask(page, content, model):
    page.evaluate(f"document.querySelector('#content').value = '{content}'")
    page.evaluate(f"document.querySelector('#model').value = '{model}'")
    page.click("#send")


def answer(page):
    return page.evaluate("document.querySelector('#answer').textContent")


def status(page):
    return page.evaluate("document.querySelector('#status').textContent")


def shown(page, length=1):
    page.wait_for(f"document.querySelector('#answer').textContent.length >= {length}")


def ended(page):
    page.wait_for("!document.querySelector('#send').disabled")


def disabled(page):
    return page.evaluate("['send', 'stop', 'cut'].filter((id) => document.getElementById(id).disabled)")


def test_an_answer_arrives_word_by_word(page):
    assert disabled(page) == ["stop", "cut"]
    ask(page, SAID, "paced")
    shown(page)
    assert len(answer(page)) < len(SAID)
    assert disabled(page) == ["send"]
    ended(page)
    assert answer(page) == SAID
    assert "complete" in status(page)
    assert "80 chunks" in status(page)
    assert disabled(page) == ["stop", "cut"]


def test_a_second_answer_replaces_the_first(page):
    for said in ("one", "two"):
        ask(page, said, "demo-echo")
        ended(page)
        assert answer(page) == said


def test_a_cut_connection_is_taken_up_where_it_was(page):
    ask(page, SAID, "paced")
    shown(page, 30)
    page.click("#cut")
    page.click("#cut")
    assert "connection cut" in status(page)
    ended(page)
    assert answer(page) == SAID
    assert "80 chunks" in status(page)


def test_a_page_that_is_reloaded_shows_the_same_answer(page, gateway):
    before = len(gateway.log("stream_closed"))
    ask(page, SAID, "paced")
    shown(page, 30)
    page.evaluate("location.reload()")
    page.wait_for("document.readyState === 'complete' && document.querySelector('#send').disabled === false")
    assert answer(page) == SAID
    assert len(gateway.log("stream_closed")) == before + 1


def test_stop_stops_the_model(page, upstream):
    ask(page, "Hello", "endless")
    shown(page, 10)
    page.click("#stop")
    ended(page)
    assert upstream.asked[-1].left.wait(10)
    assert "(cancelled)" in status(page)
    assert not page.evaluate("!!document.querySelector('#status .bad')")


def test_a_failed_answer_keeps_what_came_and_says_why(page):
    ask(page, "Hello", "demo-error")
    ended(page)
    assert answer(page)
    assert "(upstream_error)" in page.evaluate("document.querySelector('#status .bad').textContent")


def test_an_answer_that_is_gone_says_so(browser, gateway):
    with browser.page(f"{gateway.url}/#s_00{'0' * 26}") as page:
        ended(page)
        assert "cannot be read any more" in status(page)


def test_a_gateway_that_wants_a_key_says_so(browser, tmp_path, upstream):
    with (
        serving(tmp_path, settings(upstream, keys={"app": "a-secret-key"})) as gateway,
        browser.page(f"{gateway.url}/") as page,
    ):
        page.wait_for("document.querySelector('#status').textContent.includes('wants an API key')")


def test_a_phone_needs_no_sideways_scrolling(browser, gateway):
    with browser.page(f"{gateway.url}/", 390, 844) as page:
        page.wait_for("document.querySelector('#model').length > 0")
        ask(page, "W" * 300, "demo-echo")
        ended(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
