"""The example pages with the JavaScript client, in Chromium; among them `useStream` under real React."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.clients import node
from tests.clients.conftest import settings
from tests.clients.gateway import serving, wait_for
from tests.clients.relay import relaying

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = " ".join(f"word{number}" for number in range(150))
COUNT = " ".join(str(number) for number in range(1, 1001))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The React page with everything in it."""
    modules = node.modules()
    out = tmp_path_factory.mktemp("bundle") / "page.js"
    folder = out.parent / "node_modules"
    folder.mkdir()
    for name in ("react", "react-dom", "scheduler"):
        (folder / name).symlink_to(modules / name)
    (folder / "penstock").symlink_to(node.client())
    (out.parent / "page.mjs").write_text((EXAMPLES / "react_stream.mjs").read_text())
    options = ["--bundle", "--preserve-symlinks", f"--outfile={out}", "--log-level=error"]
    # One React: the client's own copy is for its types.
    options.append(f"--alias:react={modules / 'react'}")
    node.run(str(modules / "esbuild" / "bin" / "esbuild"), "page.mjs", *options, cwd=out.parent)
    return out.read_text().replace("</script", r"<\/script")


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory, upstream, bundle):
    """The pages, in an origin of their own, and the gateway behind a network that can be cut."""
    with relaying("http://127.0.0.1:9") as pages:
        options = ("--allow-origin", pages.url)
        with (
            serving(tmp_path_factory.mktemp("pages"), settings(upstream), *options) as gateway,
            relaying(gateway.url) as relay,
        ):
            for name in ("fetch_reader.html", "react_native_style.html", "seven_tabs.html"):
                text = (EXAMPLES / name).read_text()
                assert "http://localhost:8080" in text
                pages.pages[f"/{name}"] = text.replace("http://localhost:8080", relay.url)
            html = (EXAMPLES / "react_stream.html").read_text()
            script = '<script src="react_stream.bundle.js"></script>'
            assert script in html
            pages.pages["/react_stream.html"] = html.replace(script, f"<script>{bundle}</script>")
            yield pages.url, gateway, relay


def lost(complaints):
    """A browser reports each connection that was lost; these were provoked."""
    assert [one for one in complaints.settle() if "net::ERR_" not in one] == []
    complaints.clear()


def last_text(gateway):
    stream = gateway.get("/v1/streams?limit=1")["data"][0]["id"]
    return gateway.wait_closed(stream)["text"]


@pytest.mark.parametrize(("name", "end"), [("fetch_reader", "done"), ("react_native_style", "completed")])
def test_a_page_shows_the_whole_answer_though_its_connection_is_cut(somewhere, page, complaints, name, end):
    pages, gateway, relay = somewhere
    relay.cuts = [700, 1200]
    page.goto(f"{pages}/{name}.html")
    expect(page.locator("#state")).to_have_text(end)
    assert page.text_content("#answer") == last_text(gateway)
    assert relay.cuts == []
    lost(complaints)


def test_seven_tabs_have_one_connection(somewhere, context):
    pages, _, relay = somewhere
    before = relay.requests.count("/v1/ws")
    tabs = [context.new_page() for _ in range(7)]
    for tab in tabs:
        tab.goto(f"{pages}/seven_tabs.html")
    for tab in tabs:
        expect(tab.locator("#state")).to_have_text("completed")
        assert tab.text_content("#answer") == COUNT
    assert relay.requests.count("/v1/ws") == before + 1


@pytest.fixture
def react(somewhere, page):
    """Open the React page."""
    pages, _, relay = somewhere

    def opened(model, said="Hello"):
        page.goto(f"{pages}/react_stream.html?gateway={relay.url}&model={model}&say={said}")
        return page

    return opened


def shown(page, length):
    page.wait_for_function(f"document.querySelector('pre')?.textContent.length >= {length}")


def test_a_react_component_goes_on_after_a_reload_and_over_cuts(somewhere, react, complaints):
    relay = somewhere[2]
    page = react("paced", SAID)
    relay.cuts = [3000]
    page.get_by_role("button", name="Ask").click()
    shown(page, 60)
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("completed")
    assert page.text_content("pre") == SAID
    relay.cuts = [500, 2000]
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("status")).to_have_text("completed (2 connections lost)")
    assert page.text_content("pre") == SAID
    lost(complaints)


def test_a_react_component_stops_the_model_and_leaves_nothing_behind(somewhere, react, upstream, complaints):
    gateway = somewhere[1]
    page = react("endless")
    page.get_by_role("button", name="Ask").click()
    shown(page, 40)
    stream = page.evaluate("sessionStorage.stream")
    reading = f"/v1/streams/{stream}/explanation"
    assert len(gateway.get(reading)["readers"]) == 1
    page.get_by_role("button", name="Hide").click()
    expect(page.locator("pre")).to_have_count(0)
    # Nobody reads on, and the answer does not mind.
    wait_for(lambda: not gateway.get(reading).get("readers"))
    assert gateway.get(f"/v1/streams/{stream}")["status"] == "open"
    page.get_by_role("button", name="Show").click()
    shown(page, 200)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("cancelled")
    assert upstream.asked[-1].left.wait(30)
    assert re.match("1 2 3 4 ", page.text_content("pre"))
    lost(complaints)
