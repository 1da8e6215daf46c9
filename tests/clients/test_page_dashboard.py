"""The dashboard in a browser: live without polling, a stream's own page, its verbs, and who may."""

import json
import re
import time

import httpx
import pytest
from playwright.sync_api import expect

from tests.clients import node
from tests.clients.browser import until
from tests.clients.chat import prefer, violations
from tests.clients.gateway import PATIENCE, Gateway, serving

ADMIN, APP = "the-key-of-an-administrator", "the-key-of-an-application"
SECRET = "an unheard-of prompt"
BREAKS = "demo?failure=cut&fail_after=9&tokens_per_second=200&first_token_delay=0.05"
GOES_ON = "demo?tokens_per_second=300&first_token_delay=0.05"

SETTINGS = {
    "providers": {"demo": {"kind": "scripted", "speed": 0}, "paced": {"kind": "scripted"}},
    "models": {
        "rescued": [{"provider": "paced", "model": BREAKS}, {"provider": "paced", "model": GOES_ON}],
        "lost": [{"provider": "demo", "model": "demo-echo?failure=error&fail_after=0"}],
        "long": [{"provider": "paced", "model": "demo-long?tokens_per_second=60&first_token_delay=0.05"}],
    },
    "keys": {"root": {"key": ADMIN, "admin": True}, "app": {"key": APP, "team": "shop"}},
    "prices": {"*/*": {"input": 1000, "output": 2000}},
    "limits": [{"by": "key", "concurrent": 50}],
    "retry": {"base_delay": 0.05},
    "default_model": "demo-echo",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway with keys, and models that are rescued, lost and long."""
    with serving(tmp_path_factory.mktemp("dashboard"), SETTINGS) as gateway:
        yield gateway


def ask(gateway: Gateway, model="demo-echo", key=APP, wait=True) -> str:
    """Start a generation; return its stream, once it has ended if that is wanted."""
    body = {"request": {"model": model, "messages": [{"role": "user", "content": SECRET}]}}
    headers = {"authorization": f"Bearer {key}", "prefer": "respond-async"}
    made = httpx.post(f"{gateway.api}/streams", json=body, headers=headers, timeout=PATIENCE)
    stream = made.raise_for_status().json()["stream"]
    if wait:
        url, by = f"{gateway.api}/streams/{stream}", {"authorization": f"Bearer {key}"}
        deadline = time.monotonic() + PATIENCE
        while httpx.get(url, headers=by).json()["status"] == "open":
            assert time.monotonic() < deadline
            time.sleep(0.02)
    return stream


def opened(new_context, gateway, key=ADMIN, where="", language="en", **options):
    """Open the dashboard in a profile that has ``key``; wait until it draws what comes."""
    context = new_context(**options)
    prefer(context, language=language)
    if key:
        put = f"sessionStorage.setItem('penstock.key', {json.dumps(key)})"
        context.add_init_script(f"if (location.protocol === 'http:') {put}")
    page = context.new_page()
    page.goto(f"{gateway.url}/dashboard{where}")
    until(page, "document.documentElement.dataset.ready")
    return page


def test_what_goes_on_is_shown_live_and_without_polling(new_context, gateway):
    ask(gateway, "rescued")
    page = opened(new_context, gateway)
    expect(page.locator("#live")).to_have_text("live")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    stream = ask(gateway, "long", wait=False)
    row = page.locator("#streams tbody tr").filter(has=page.locator(f"a[href='#/s/{stream}']"))
    expect(row).to_contain_text("long")
    expect(row).to_contain_text("app")
    expect(row).to_contain_text("streams")
    until(page, "document.querySelector('.row-strip')?.getAttribute('aria-label').match(/^[1-9]/)")
    expect(page.locator("#figures")).to_contain_text("Open streams1")
    charted = page.locator("#charts .chart").first
    expect(charted).to_have_attribute("aria-label", re.compile("Open at the moment: open 1, readers"))
    for place, said in {
        "#attempts": "went on with an answer1",
        "#endings": "completed",
        "#targets": "1 of 1 failed",
        "#happened": "went on at",
        "#spend": "rescued",
        "#ended": "2 attempts",
    }.items():
        expect(page.locator(place)).to_contain_text(said)
    httpx.post(f"{gateway.api}/streams/{stream}/cancel", headers={"authorization": f"Bearer {APP}"})
    expect(page.locator("#streams")).to_contain_text("Nothing goes on at the moment.")
    expect(page.locator("#endings")).to_contain_text("cancelled")
    assert asked == []
    assert SECRET not in page.content()


def test_a_stream_has_a_page_that_explains_it(new_context, gateway):
    stream = ask(gateway, "rescued")
    page = opened(new_context, gateway, where=f"#/s/{stream}")
    article = page.locator("#stream")
    for said in (
        "app asked for rescued",
        "completed",
        "streams at once for the key 'app'",
        "upstream_reset",
        "went on from the text",
        "Where the time went",
        "Nobody reads it now.",
    ):
        expect(article).to_contain_text(said)
    expect(article.locator(".lanes li")).to_have_count(2)
    cells = article.locator("canvas.cells")
    until(page, "document.querySelector('canvas.cells').getAttribute('aria-label').includes('seam 1')")
    assert "text" in cells.get_attribute("aria-label")
    text = httpx.get(f"{gateway.api}/streams/{stream}", headers={"authorization": f"Bearer {APP}"}).json()[
        "text"
    ]
    assert text[:40] not in article.text_content()  # words are shown when they are asked for
    article.get_by_text("The words").click()
    expect(article.locator("pre.words")).to_have_text(text)
    article.get_by_text("Entries, one by one").click()
    expect(article.locator(".table-place tr").first).to_contain_text("started")
    page.keyboard.press("Escape")
    expect(page.locator("#overview")).to_be_visible()


def test_an_open_stream_is_watched_stopped_and_given_away(new_context, gateway):
    stream = ask(gateway, "long", wait=False)
    page = opened(new_context, gateway, where=f"#/s/{stream}")
    expect(page.locator("#stream canvas.strip")).to_be_visible()
    expect(page.locator("#stream")).to_contain_text("root · websocket")  # the page reads it itself
    page.click("#share-stream")
    page.get_by_role("button", name="Make the link").click()
    link = page.input_value("#share-url")
    page.keyboard.press("Escape")
    page.click("#stop-stream")
    page.locator("#small-dialog").get_by_role("button", name="Stop it").click()
    expect(page.locator("#stream .status").first).to_contain_text("cancelled")
    expect(page.locator("#stop-stream")).to_have_count(0)
    shared = httpx.get(link)  # without a key
    assert '"status":"cancelled"' in shared.text
    assert stream in shared.headers["location"]


def rows(page):
    return page.locator("#streams tbody tr")


def test_streams_are_found_and_what_is_looked_at_stands_in_the_address(new_context, gateway):
    long, other = ask(gateway, "long", wait=False), ask(gateway, "long", ADMIN, wait=False)
    ask(gateway, "lost")
    page = opened(new_context, gateway)
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("f")
    page.keyboard.type("principal:root")
    expect(page.locator("#streams-count")).to_have_text("1 of 2")
    expect(rows(page)).to_contain_text(other[-8:])
    page.locator(".windows").get_by_text("15 minutes").click()
    page.select_option("#sort", "silent")
    expect(page).to_have_url(re.compile(r"#/\?minutes=15&q=principal%3Aroot&sort=silent$"))
    page.reload()
    expect(rows(page)).to_have_count(1)
    assert page.input_value("#filter") == "principal:root"
    expect(page.locator(".windows [aria-current]")).to_have_text("15 minutes")
    page.locator("#streams a.mono").click()
    expect(page.locator("#stream .lead")).to_have_text("root asked for long")
    page.keyboard.press("Escape")  # back to what was looked at
    expect(page.locator("#streams-count")).to_have_text("1 of 2")
    page.fill("#filter", "")
    expect(rows(page)).to_have_count(2)
    page.locator("#ended").get_by_role("link", name="lost", exact=True).first.click()
    expect(page.locator("#streams")).to_contain_text("None fits.")
    expect(page.locator("#ended tbody tr .status.completed")).to_have_count(0)
    expect(page.locator("#ended tbody tr .status.failed").first).to_be_visible()
    for stream in (long, other):
        httpx.post(f"{gateway.api}/streams/{stream}/cancel", headers={"authorization": f"Bearer {ADMIN}"})


def test_it_can_be_held_still_and_read_point_by_point(new_context, gateway):
    page = opened(new_context, gateway)
    expect(page.locator("#figures")).to_contain_text("Open streams0")
    until(page, "Number(document.documentElement.dataset.frames) > 2")
    page.keyboard.press("p")
    expect(page.locator("#live")).to_have_text("paused")
    stream = ask(gateway, "long", wait=False)
    chart = page.locator("#charts .chart").first
    chart.focus()
    page.keyboard.press("Home")
    expect(page.locator("#announcements")).to_have_text(
        re.compile(r"Open at the moment, \d\d:\d\d:\d\d: open")
    )
    expect(chart.locator("time")).to_be_visible()
    expect(page.locator("#charts .chart time")).to_have_count(6)  # all charts show that moment
    seen = page.locator("#announcements").text_content()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#announcements")).not_to_have_text(seen)
    expect(page.locator("#figures")).to_contain_text("Open streams0")
    page.click("#pause")
    expect(page.locator("#figures")).to_contain_text("Open streams1")
    expect(page.locator("#live")).to_have_text("live")
    httpx.post(f"{gateway.api}/streams/{stream}/cancel", headers={"authorization": f"Bearer {ADMIN}"})


def test_what_was_drawn_outlives_the_next_drawing(new_context, gateway):
    """A focus, a selection, a tooltip must not be lost each second."""
    stream = ask(gateway, "long", wait=False)
    page = opened(new_context, gateway)
    link = page.locator("#streams a.mono")
    link.focus()
    page.evaluate("window.kept = document.activeElement")
    frames = int(page.evaluate("document.documentElement.dataset.frames"))
    until(page, f"Number(document.documentElement.dataset.frames) > {frames + 2}")
    assert page.evaluate("document.activeElement === kept && kept.isConnected")
    httpx.post(f"{gateway.api}/streams/{stream}/cancel", headers={"authorization": f"Bearer {ADMIN}"})


def test_theme_and_language_are_chosen_on_the_page(new_context, gateway):
    page = opened(new_context, gateway)
    page.click("#theme-button")
    page.get_by_role("menuitem", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.click("#language-button")
    page.get_by_role("menuitem", name="中文").click()
    expect(page.locator("#figures")).to_contain_text("首次输出")
    expect(page.locator("#charts .chart").first).to_have_attribute("aria-label", re.compile("当前打开"))


def test_many_points_become_few_and_scales_are_round(new_context, gateway):
    page = opened(new_context, gateway)
    script = """async () => {
      const { condensed, round } = await import(new URL("ui/dashboard_charts.js", location.href));
      const slow = (at) => at === 1234 ? 777 : at % 2 ? null : 5;
      const points = [...Array(3600)].map((_, at) => ({ t: at, open: 4, first95: slow(at) }));
      const few = condensed(points, 0, 3599);
      return [few.length, Math.max(...few.map((one) => one.first95)), few.every((one) => one.open === 4),
        [0.8, 1, 7, 11, 260, 9999].map(round)];
    }"""
    count, worst, same, tops = page.evaluate(script)
    assert 200 < count <= 300
    assert (worst, same) == (777, True)
    assert tops == pytest.approx([0.8, 1, 8, 15, 300, 10_000])


def test_whoever_is_no_administrator_is_told_so_and_can_use_another_key(new_context, gateway, complaints):
    page = opened(new_context, gateway, key=APP)
    expect(page.locator("#refused")).to_contain_text("For administrators")
    expect(page.locator("#overview")).to_be_hidden()
    page.locator("#refused").get_by_role("button", name="Use another key").click()
    page.fill("#key", ADMIN)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#figures")).to_contain_text("Open streams")
    complaints.settle()
    assert all("status of 403" in one for one in complaints)
    complaints.clear()


def test_a_wrong_key_is_asked_for_again(new_context, gateway, complaints):
    page = opened(new_context, gateway, key="a-key-that-was-ended")
    expect(page.locator("#key-dialog")).to_be_visible()
    page.fill("#key", ADMIN)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#figures")).to_contain_text("Open streams")
    complaints.settle()
    assert all("status of 401" in one for one in complaints)
    complaints.clear()


def test_a_gateway_that_is_killed_is_looked_for_until_it_is_back(new_context, tmp_path, complaints):
    with serving(tmp_path / "own", SETTINGS) as own:
        ask(own)
        page = opened(new_context, own)
        expect(page.locator("#endings")).to_contain_text("completed")
        own.restart()
        expect(page.locator("#endings")).to_contain_text("None yet.")  # another process, which counts anew
        expect(page.locator("#live")).to_have_text("live")
        ask(own, "lost")
        expect(page.locator("#endings")).to_contain_text("failed · upstream_error")
        complaints.settle()
        complaints.clear()
        page.close()


@pytest.mark.parametrize(("scheme", "width", "language"), [("light", 1280, "en"), ("dark", 390, "zh")])
def test_axe_finds_nothing_to_complain_about_and_it_fits(new_context, gateway, scheme, width, language):
    axe = node.modules() / "axe-core" / "axe.min.js"
    stream = ask(gateway, "long", wait=False)
    ask(gateway, "lost")
    size = {"width": width, "height": 844}
    page = opened(
        new_context, gateway, language=language, color_scheme=scheme, viewport=size, reduced_motion="reduce"
    )
    expect(page.locator(f"#streams a[href='#/s/{stream}']")).to_be_visible()
    until(page, "document.querySelectorAll('#spend li').length")
    words = {"en": "First output", "zh": "首次输出"}[language]
    expect(page.locator("#figures")).to_contain_text(words)
    assert violations(page, axe) == []
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.keyboard.press("/")
    page.keyboard.type(stream)
    page.keyboard.press("Enter")
    expect(page.locator("#stream .lanes li")).to_have_count(1)
    assert violations(page, axe) == []
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    httpx.post(f"{gateway.api}/streams/{stream}/cancel", headers={"authorization": f"Bearer {APP}"})
    expect(page.locator("#stop-stream")).to_have_count(0)


def test_both_languages_have_every_word(new_context, gateway):
    page = opened(new_context, gateway)
    script = """async () => {
      const { DASHBOARD_WORDS: words } = await import(new URL("ui/dashboard_words.js", location.href));
      return Object.fromEntries(Object.entries(words).map(([name, all]) => [name, Object.keys(all)]));
    }"""
    words = page.evaluate(script)
    assert words["en"] == words["zh"]
