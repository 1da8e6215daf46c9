"""The chat page for different people: by keyboard, in Chinese, in the dark, on a phone, by ear."""

import re

import pytest
from playwright.sync_api import expect

from tests.clients import node
from tests.clients.browser import until
from tests.clients.chat import Chat, prefer, violations

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SAID = " ".join(f"word{number}" for number in range(80))
RICH = (
    "# Heading\n\ntext with `code`, a [link](https://example.com)\n\n"
    + "| " + " | ".join(f"a wide column {number}" for number in range(9)) + " |\n"
    + "|" + " --- |" * 9 + "\n| " + " | ".join("cell" for _ in range(9)) + " |\n\n"
    + "```python\nprint(" + " + ".join(f"part{number}" for number in range(40)) + ")  # a comment\n```\n\n"
    + "> quote\n\n1. one\n2. two\n\n" + "W" * 300
)  # fmt: skip


# --- by keyboard -------------------------------------------------------------------------------------


def test_everything_can_be_done_by_keyboard(chat):
    page = chat.page
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    chat.ended()
    assert chat.questions == ["first line\nsecond line"]
    page.keyboard.press("Control+m")
    page.keyboard.type("endless")
    page.keyboard.press("Enter")
    page.locator("#message").focus()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_count(2)
    chat.shown(10)
    page.keyboard.press("Escape")
    chat.ended()
    expect(chat.ending).to_contain_text("Stopped")
    page.keyboard.press("ArrowUp")
    expect(page.locator(".editor textarea")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".editor")).to_have_count(0)
    page.keyboard.press("Control+k")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#message")).to_be_focused()


def test_tab_reaches_every_control_and_shows_where_it_is(chat):
    chat.ask("Hello", "demo-echo")
    chat.ended()
    page = chat.page
    page.locator("body").press("Tab")
    controls = """Array.from(document.querySelectorAll('button, a[href], input, textarea, summary'))
        .filter((one) => one.checkVisibility({checkVisibilityCSS: true}) && !one.disabled)
        .map((one) => one.id || one.getAttribute('aria-label') || one.textContent)"""
    focused = """(() => { const one = document.activeElement; const style = getComputedStyle(one);
        return [one.id || one.getAttribute('aria-label') || one.textContent, style.outlineStyle !== 'none'
          || one.id === 'message']; })()"""
    wanted, reached = set(page.evaluate(controls)), set()
    for _ in range(len(wanted) + 10):
        name, visible = page.evaluate(focused)
        if name in wanted:
            assert visible, f"{name} does not show its focus"
        reached.add(name)
        page.keyboard.press("Tab")
    assert wanted <= reached


def test_dialogs_keep_the_focus_and_give_it_back(chat):
    page = chat.page
    page.locator("#preset-button").focus()
    page.keyboard.press("Enter")
    inside = "!!document.activeElement.closest('#preset-dialog')"
    for _ in range(30):
        page.keyboard.press("Tab")
        # The browser's own controls come between the last and the first.
        assert page.evaluate(f"{inside} || document.activeElement === document.body")
    page.keyboard.press("Escape")
    expect(page.locator("#preset-button")).to_be_focused()


def test_menus_are_walked_with_arrows(chat):
    page = chat.page
    page.locator("#theme-button").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="As the system")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    until(page, "document.documentElement.dataset.theme === 'dark'")
    expect(page.locator("#theme-button")).to_be_focused()


def test_a_question_mark_shows_the_keys_unless_it_is_typed(chat):
    chat.page.keyboard.type("?")
    assert chat.page.input_value("#message") == "?"
    chat.page.locator("#title").click()
    chat.page.keyboard.press("?")
    expect(chat.page.locator("#small-dialog")).to_contain_text("new chat")


@pytest.mark.parametrize("composing", ["{isComposing: true}", "{keyCode: 229}"])
def test_an_input_method_that_still_composes_sends_nothing(chat, composing):
    page = chat.page
    page.fill("#message", "nihao")
    press = f"""document.querySelector('#message').dispatchEvent(
        new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true, cancelable: true, ...{composing}}}))"""
    assert page.evaluate(press)  # not prevented: the input method gets it
    assert page.locator(".question").count() == 0
    page.press("#message", "Enter")
    expect(page.locator(".question")).to_have_count(1)


# --- in words ----------------------------------------------------------------------------------------


def test_the_page_speaks_the_browser_s_language(new_context, gateway):
    context = new_context(locale="zh-CN")
    chat = Chat(context.new_page(), gateway.url).open()
    assert chat.page.locator("html").get_attribute("lang") == "zh"
    expect(chat.page.locator("#empty h2")).to_have_text("想了解什么？")
    chat.ask("你好", "demo-error")
    chat.ended()
    expect(chat.ending).to_contain_text("失败")
    chat.menu(chat.page.get_by_role("button", name="语言"), "English")
    expect(chat.ending).to_contain_text("Failed")
    chat.reload()
    assert chat.page.locator("html").get_attribute("lang") == "en"
    expect(chat.ending).to_contain_text("Failed")


def test_no_word_is_missing_in_any_language(chat):
    words = chat.page.evaluate('import("/ui/i18n.js").then(({ WORDS }) => WORDS)')
    assert len(words) >= 2
    english = words["en"]
    for language, others in words.items():
        assert others.keys() == english.keys(), language
        for name, text in others.items():
            places = [set(re.findall(r"\{\w+\}", str(one))) for one in (text, english[name])]
            assert places[0] == places[1], f"{language}: {name}"
            assert str(text).strip(), f"{language}: {name}"


# --- by eye ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(251, 250, 247)"), ("dark", "rgb(18, 24, 25)")])
def test_the_page_follows_the_system_until_it_is_told_otherwise(new_context, gateway, scheme, paper):
    context = new_context(color_scheme=scheme)
    prefer(context)
    chat = Chat(context.new_page(), gateway.url).open()
    colour = "getComputedStyle(document.body).backgroundColor"
    assert chat.page.evaluate(colour) == paper
    chat.menu(chat.page.get_by_role("button", name="Appearance"), "Dark" if scheme == "light" else "Light")
    other = chat.page.evaluate(colour)
    assert other != paper
    chat.reload()
    assert chat.page.evaluate(colour) == other


def test_the_newest_line_is_followed_only_while_it_is_looked_at(chat):
    page = chat.page
    at_end = """(() => {
      const { scrollHeight, scrollTop, clientHeight } = document.querySelector('#scroller');
      return scrollHeight - scrollTop - clientHeight < 60 })()"""
    chat.ask("Hello", "endless")
    chat.shown(4_000)
    assert page.evaluate(at_end)
    page.mouse.move(700, 300)
    page.mouse.wheel(0, -600)
    until(page, f"!{at_end}")
    top = page.evaluate("document.querySelector('#scroller').scrollTop")
    was = len(chat.text)
    chat.shown(was + 500)
    assert page.evaluate("document.querySelector('#scroller').scrollTop") == top
    chat.press("Jump to the newest")
    until(page, at_end)
    was = len(chat.text)
    chat.shown(was + 500)
    assert page.evaluate(at_end)
    page.keyboard.press("Escape")
    chat.ended()


def test_the_strip_draws_what_arrived(chat):
    chat.ask(SAID)
    chat.ended()
    drawn = """(() => { const canvas = document.querySelector('.strip');
      const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const colours = new Set();
      for (let i = 0; i < data.length; i += 4) colours.add(data.slice(i, i + 4).join());
      return colours.has('11,122,125,255') })()"""
    until(chat.page, drawn)
    assert re.match(r"80 chunks in \d", chat.answer.locator(".strip").get_attribute("aria-label"))


# --- on a phone --------------------------------------------------------------------------------------


@pytest.fixture
def phone(new_context, gateway):
    """The page on a small screen."""
    context = new_context(**PHONE)
    prefer(context, model="demo-echo")
    return Chat(context.new_page(), gateway.url).open()


def test_a_phone_needs_no_sideways_scrolling(phone):
    page = phone.page
    assert phone.fits()
    phone.ask(RICH)
    phone.ended()
    assert phone.fits()
    phone.ask("Hello", "demo-overloaded")
    phone.ended()
    assert phone.fits()
    phone.ask("Hello", "demo-tools")
    phone.ended()
    assert phone.fits()
    page.click("#lab-toggle")
    assert phone.fits()
    page.locator(".question").last.get_by_role("button", name="Edit").click()
    assert phone.fits()
    for button in ("#model-button", "#preset-button"):
        page.click(button)
        assert phone.fits()
        assert page.evaluate(
            "document.querySelector('dialog[open]').getBoundingClientRect().right <= innerWidth"
        )
        page.keyboard.press("Escape")


def test_on_a_phone_the_list_is_a_drawer(phone):
    phone.ask("Hello")
    phone.ended()
    expect(phone.page.locator("#drawer")).to_be_hidden()
    phone.page.get_by_role("button", name="Conversations").click()
    expect(phone.page.locator("#drawer")).to_be_in_viewport()
    assert phone.fits()
    phone.page.locator("#drawer").get_by_role("button", name="New chat").click()
    expect(phone.page.locator("#drawer")).to_be_hidden()
    expect(phone.page.locator("#empty")).to_be_visible()


# --- by ear ------------------------------------------------------------------------------------------


def test_an_answer_is_told_at_its_beginning_and_its_end_and_not_word_by_word(chat):
    script = """(() => { window.told = []; const place = document.querySelector('#announcements');
      new MutationObserver(() => told.push(place.textContent)).observe(place, {childList: true}); })()"""
    chat.page.evaluate(script)
    assert chat.page.locator("#column").get_attribute("aria-live") == "off"
    chat.ask("Hello there", "demo-echo")
    chat.ended()
    told = chat.page.evaluate("window.told")
    assert told == ["The answer begins.", "The answer is complete: Hello there"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(new_context, gateway, scheme):
    context = new_context(color_scheme=scheme, reduced_motion="reduce")
    prefer(context, model="demo-echo", lab=True)
    chat = Chat(context.new_page(), gateway.url).open()
    axe = node.modules() / "axe-core" / "axe.min.js"
    page = chat.page
    assert violations(page, axe) == []
    chat.ask(RICH)
    chat.ended()
    chat.ask("Which way?", "demo-reasoning")
    chat.ended()
    page.click(".reasoning summary")
    chat.ask("Weather?", "demo-tools")
    chat.ended()
    assert violations(page, axe) == []
    chat.ask("Hello", "demo-error")
    chat.ended()
    page.locator(".question").last.hover()
    assert violations(page, axe) == []
    chat.press("Answer again")
    chat.ended()
    page.locator("#title").click()
    for opener in ("#model-button", "#preset-button", "#help-button"):
        page.click(opener)
        assert violations(page, axe) == []
        page.keyboard.press("Escape")
    page.click("#theme-button")
    assert violations(page, axe) == []
