"""The page at `/`, in a browser."""

import pytest
from playwright.sync_api import expect

from tests.clients.browser import until
from tests.clients.conftest import settings
from tests.clients.gateway import serving

SAID = " ".join(f"word{number}" for number in range(80))


@pytest.fixture
def page(page, gateway):
    """The page, ready to be used."""
    page.goto(gateway.url)
    ready(page)
    return page


def ready(page):
    until(page, "document.querySelector('#model').length > 0")


def ask(page, content, model):
    page.fill("#content", content)
    page.select_option("#model", model)
    page.click("#send")


def answer(page):
    return page.text_content("#answer")


def status(page):
    return page.text_content("#status")


def shown(page, length=1):
    until(page, f"document.querySelector('#answer').textContent.length >= {length}")


def ended(page):
    until(page, "!document.querySelector('#send').disabled")


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
    page.evaluate("for (const _ of [1, 2]) document.querySelector('#cut').click()")
    assert "connection cut" in status(page)
    ended(page)
    assert answer(page) == SAID
    assert "80 chunks" in status(page)


def test_a_page_that_is_reloaded_shows_the_same_answer(page, gateway):
    before = len(gateway.log("stream_closed"))
    ask(page, SAID, "paced")
    shown(page, 30)
    page.reload()
    ended(page)
    assert answer(page) == SAID
    assert len(gateway.log("stream_closed")) == before + 1


def test_stop_stops_the_model(page, upstream):
    ask(page, "Hello", "endless")
    shown(page, 10)
    page.click("#stop")
    ended(page)
    assert upstream.asked[-1].left.wait(10)
    assert "(cancelled)" in status(page)
    assert page.locator("#status .bad").count() == 0


def test_a_failed_answer_keeps_what_came_and_says_why(page):
    ask(page, "Hello", "demo-error")
    ended(page)
    assert answer(page)
    assert "(upstream_error)" in page.text_content("#status .bad")


def test_an_answer_that_is_gone_says_so(context, gateway, complaints):
    page = context.new_page()
    page.goto(f"{gateway.url}/#s_00{'0' * 26}")
    expect(page.locator("#status")).to_contain_text("cannot be read any more")
    assert all("404" in complaint for complaint in complaints.settle())
    complaints.clear()


def test_a_gateway_that_wants_a_key_says_so(context, tmp_path, upstream, complaints):
    page = context.new_page()
    with serving(tmp_path, settings(upstream, keys={"app": "a-secret-key"})) as gateway:
        page.goto(gateway.url)
        expect(page.locator("#status")).to_contain_text("wants an API key")
        assert all("401" in complaint for complaint in complaints.settle())
        complaints.clear()


def test_a_phone_needs_no_sideways_scrolling(new_context, gateway):
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    page = new_context(**phone).new_page()
    page.goto(gateway.url)
    ready(page)
    ask(page, "W" * 300, "demo-echo")
    ended(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
