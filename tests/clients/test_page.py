"""The chat page, in a browser: asking, answers and how they end, conversations, settings, keys."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.clients.browser import until
from tests.clients.chat import Chat, prefer
from tests.clients.conftest import settings
from tests.clients.gateway import serving, wait_for

SAID = " ".join(f"word{number}" for number in range(80))


def refused(complaints) -> None:
    """A browser reports every response of 400 and above; these were provoked."""
    assert [one for one in complaints.settle() if "the server responded with a status of" not in one] == []
    complaints.clear()


# --- an answer ---------------------------------------------------------------------------------------


def test_an_answer_arrives_word_by_word(chat):
    chat.ask(SAID)
    chat.shown()
    assert len(chat.text) < len(SAID)
    chat.ended()
    assert chat.text == SAID
    for figure in ("Complete", "first chunk after 0.", "tokens/s", "80 chunks", "80 out"):
        assert figure in chat.figures


def test_what_was_said_goes_along_with_the_next_question(chat, upstream):
    chat.ask("first", "demo-echo")
    chat.ended()
    chat.ask("second", "pausing")
    chat.ended()
    said = [(message["role"], message["content"]) for message in upstream.asked[-1].body["messages"]]
    assert said == [("user", "first"), ("assistant", "first"), ("user", "second")]


def test_stop_stops_the_model(chat, upstream):
    chat.ask("Hello", "endless")
    chat.shown(10)
    chat.press("Stop the answer")
    chat.ended()
    assert upstream.asked[-1].left.wait(10)
    expect(chat.ending).to_contain_text("Stopped")
    assert chat.text.startswith("1 2 3")


def test_another_answer_keeps_the_first_as_a_version(chat):
    chat.ask("one two three", "demo-echo")
    chat.ended()
    chat.choose("demo-refusal")
    chat.press("Answer again")
    expect(chat.answer).to_contain_text("2/2")
    chat.ended()
    assert chat.answer.locator(".refusal").text_content()
    chat.press("Version before")
    expect(chat.answer).to_contain_text("1/2")
    assert chat.text == "one two three"
    chat.reload()
    expect(chat.answer).to_contain_text("1/2")
    assert chat.text == "one two three"


def test_a_question_that_is_asked_anew_begins_a_branch(chat):
    for said in ("one", "two"):
        chat.ask(said, "demo-echo")
        chat.ended()
    chat.page.locator(".question").first.hover()
    chat.page.locator(".question").first.get_by_role("button", name="Edit").click()
    chat.page.fill(".editor textarea", "other")
    chat.page.press(".editor textarea", "Enter")
    expect(chat.page.locator(".question")).to_have_count(1)
    chat.ended()
    assert (chat.questions, chat.texts) == (["other"], ["other"])
    chat.press("Version before")
    expect(chat.page.locator(".question")).to_have_count(2)
    assert (chat.questions, chat.texts) == (["one", "two"], ["one", "two"])


def test_reasoning_is_folded_once_the_answer_begins(chat):
    chat.ask("Which way?", "demo-reasoning")
    chat.ended()
    reasoning = chat.answer.locator(".reasoning")
    assert reasoning.get_attribute("open") is None
    assert "Reason" in reasoning.locator("summary").text_content()
    reasoning.locator("summary").click()
    expect(reasoning).to_contain_text("The user says")
    assert "In short" in chat.text
    assert "The user says" not in chat.text


def test_tools_are_shown_and_their_results_can_be_given(chat):
    chat.ask("What is the weather like?", "demo-tools")
    chat.ended()
    expect(chat.answer.locator(".tool .name").first).to_have_text("get_weather")
    arguments = chat.answer.locator(".tool pre").first.text_content()
    assert json.loads(arguments) == {"city": "Paris"}
    for field in chat.answer.locator(".results textarea").all():
        field.fill("12 degrees")
    chat.press("Send the results")
    expect(chat.page.locator(".answer")).to_have_count(2)
    chat.ended()
    assert "get_weather says: 12 degrees" in chat.text


@pytest.mark.parametrize(
    ("model", "title", "code", "kept"),
    [
        ("demo-cut", "Failed", "upstream_reset", True),
        ("demo-error", "Failed", "upstream_error", True),
        ("demo-truncated", "Failed", "upstream_truncated", True),
        ("demo-rate-limited", "Failed", "rate_limit_exceeded", False),
        ("demo-overloaded", "Failed", "overloaded", False),
        ("demo-empty", "An empty answer", "", False),
    ],
)
def test_an_answer_that_goes_wrong_says_how(chat, model, title, code, kept):
    chat.ask("Hello", model)
    chat.ended()
    expect(chat.ending).to_contain_text(title)
    assert bool(chat.text) == kept
    if code:
        expect(chat.ending.locator("code")).to_have_text(code)
        expect(chat.ending).to_contain_text("the provider is at fault")
        expect(chat.ending.get_by_role("button", name=re.compile("Try again"))).to_be_enabled()
    if "limited" in model:
        expect(chat.ending).to_contain_text("HTTP 429")


def test_the_length_limit_is_told_and_the_answer_can_go_on(chat):
    chat.page.click("#preset-button")
    chat.page.get_by_label("Most tokens").fill("5")
    chat.page.keyboard.press("Escape")
    chat.ask(SAID, "demo-echo")
    chat.ended()
    expect(chat.ending).to_contain_text("Cut at the length limit")
    chat.press("Keep it and go on")
    expect(chat.page.locator(".question")).to_have_count(2)
    assert chat.questions[-1].startswith("Please go on")


def test_a_model_that_falls_silent_is_waited_for_and_can_be_stopped(chat):
    chat.ask("Hello", "demo-stall")
    chat.shown(20)
    expect(chat.answer).to_contain_text("Silent for 4 s")
    chat.page.keyboard.press("Escape")
    chat.ended()
    expect(chat.ending).to_contain_text("Stopped")


def test_a_request_that_is_refused_says_why_and_can_be_made_again(chat, complaints):
    chat.ask("My long question", "no-such-model")
    chat.ended()
    expect(chat.ending).to_contain_text("Not accepted")
    expect(chat.ending.locator("code")).to_have_text("model_not_found")
    expect(chat.ending).to_contain_text("the request is at fault")
    assert chat.questions == ["My long question"]
    chat.choose("demo-echo")
    chat.press("Try again")
    expect(chat.answer).to_contain_text("My long question")
    refused(complaints)


def test_settings_that_do_not_fit_are_refused_in_words(chat, complaints):
    chat.page.click("#preset-button")
    chat.page.click("summary >> text=How the demo models play")
    chat.page.get_by_label("Tokens per second").fill("0.5")
    expect(chat.page.locator("#preset-dialog .problem")).to_contain_text("Tokens per second")
    chat.page.get_by_label("Tokens per second").fill("50")
    expect(chat.page.locator("#preset-dialog .problem")).to_be_hidden()
    chat.page.get_by_label("Length in tokens").fill("3")
    chat.page.keyboard.press("Escape")
    chat.ask("one two three four five", "demo-echo")
    chat.ended()
    assert chat.text == "one two three"


# --- settings and models -----------------------------------------------------------------------------


def test_settings_are_sent_and_the_defaults_are_not(chat, upstream):
    chat.ask("one", "pausing")
    chat.ended()
    assert upstream.asked[-1].body.keys() <= {"model", "messages", "stream", "stream_options"}
    chat.page.click("#preset-button")
    chat.page.get_by_label("Creative").check()
    chat.page.get_by_label("Seed").fill("7")
    chat.page.get_by_label("System prompt").fill("Be brief.")
    chat.page.get_by_label("Stop sequences").fill("END\nSTOP")
    chat.page.keyboard.press("Escape")
    chat.ask("two")
    chat.ended()
    body = upstream.asked[-1].body
    assert (body["temperature"], body["top_p"], body["seed"]) == (1.1, 0.95, 7)
    assert body["stop"] == ["END", "STOP"]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_presets_are_saved_renamed_and_deleted(chat):
    page = chat.page
    page.click("#preset-button")
    page.get_by_label("Temperature").fill("0.33")
    page.get_by_label("Name of the preset").fill("Mine")
    chat.press("Save as new")
    expect(page.get_by_label("Mine", exact=True)).to_be_checked()
    chat.reload()
    expect(page.locator("#preset-name")).to_have_text("Mine")
    page.click("#preset-button")
    assert page.get_by_label("Temperature").input_value() == "0.33"
    page.get_by_label("Name of the preset").fill("Ours")
    chat.press("Save changes")
    expect(page.get_by_label("Ours", exact=True)).to_be_checked()
    chat.press("Delete")
    expect(page.get_by_label("Provider's defaults")).to_be_checked()
    page.keyboard.press("Escape")
    expect(page.locator("#preset-name")).to_have_text("Provider's defaults")


def test_the_picker_groups_searches_and_takes_any_name(chat):
    page = chat.page
    page.click("#model-button")
    expect(page.locator("#model-dialog .heading").last).to_have_text("Demo: misbehaving")
    groups = page.locator("#model-dialog .heading").all_text_contents()
    assert groups[-2:] == ["Demo", "Demo: misbehaving"]
    assert {"paced", "upstream"} <= set(groups[:-2])
    page.fill("#model-dialog input", "rate limit")
    expect(page.locator("[role=option]")).to_have_count(1 + 1)  # and the name that was typed
    page.fill("#model-dialog input", "silent ten")
    expect(page.locator("[role=option]").first).to_contain_text("demo-slow-start")
    page.keyboard.press("Enter")
    expect(page.locator("#model-name")).to_have_text("demo-slow-start")
    chat.choose("somebody/else")
    chat.reload()
    expect(page.locator("#model-name")).to_have_text("somebody/else")


def test_a_list_of_hundreds_stays_usable(context, gateway):
    models = [{"id": f"maker/model-{n}", "object": "model", "owned_by": f"maker{n % 9}"} for n in range(700)]
    context.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": models}))
    chat = Chat(context.new_page(), gateway.url).open()
    chat.page.click("#model-button")
    expect(chat.page.locator("[role=option]")).to_have_count(300)
    expect(chat.page.locator("#model-dialog .note")).to_contain_text("400")
    chat.page.fill("#model-dialog input", "model-699")
    expect(chat.page.locator("[role=option]").first).to_have_text("maker/model-699")


# --- conversations -----------------------------------------------------------------------------------


def test_conversations_are_kept_renamed_and_deleted(chat):
    page = chat.page
    for said in ("The first of them", "The second of them"):
        chat.press("New chat", page.locator("#drawer"))
        chat.ask(said, "demo-echo")
        chat.ended()
    chat.reload()
    assert chat.titles == ["The second of them", "The first of them"]
    page.click("text=The first of them >> nth=0")
    expect(page.locator(".question .said")).to_have_text("The first of them")
    chat.menu(page.get_by_label("More about “The first of them”"), "Rename")
    page.fill("#small-text", "Another name")
    chat.press("Save")
    expect(page.locator("#title")).to_have_text("Another name")
    chat.menu(page.get_by_label("More about “Another name”"), "Delete")
    chat.press("Delete", page.locator("#small-dialog"))
    expect(page.locator("#conversations a")).to_have_count(1)
    chat.reload()
    assert chat.titles == ["The second of them"]
    assert chat.questions == []


def test_a_conversation_can_be_taken_along(chat):
    chat.ask("one two", "demo-echo")
    chat.ended()
    files = {}
    for item in ("Export as Markdown", "Export as JSON"):
        with chat.page.expect_download() as download:
            chat.menu(chat.page.get_by_label("More about “one two”"), item)
        files[download.value.suggested_filename] = download.value.path().read_text()
    assert files["one two.md"] == "# one two\n\n## You\n\none two\n\n## demo-echo\n\none two\n"
    exported = json.loads(files["one two.json"])
    assert [node["role"] for node in exported["nodes"]] == ["user", "answer"]


def test_what_was_typed_survives_a_reload(chat):
    chat.page.fill("#message", "not sent yet")
    chat.reload()
    assert chat.page.input_value("#message") == "not sent yet"
    chat.page.press("#message", "Enter")
    chat.ended()
    chat.reload()
    assert chat.page.input_value("#message") == ""


def test_tabs_add_to_one_conversation_without_undoing_each_other(chat):
    chat.ask("one", "demo-echo")
    chat.ended()
    other = chat.tab()
    other.ask("two", "demo-echo")
    expect(chat.page.locator(".question")).to_have_count(2)
    expect(chat.answer).to_contain_text("two")
    chat.ask("three", "demo-echo")
    expect(other.page.locator(".question")).to_have_count(3)
    other.ended()
    chat.ended()
    assert chat.texts == other.texts == ["one", "two", "three"]
    chat.reload()
    assert chat.texts == ["one", "two", "three"]


def test_a_conversation_that_another_tab_deletes_is_left(chat):
    chat.ask("one", "demo-echo")
    chat.ended()
    other = chat.tab("")
    other.menu(other.page.get_by_label("More about “one”"), "Delete")
    other.press("Delete", other.page.locator("#small-dialog"))
    expect(chat.page.locator("#empty")).to_be_visible()
    assert chat.titles == other.titles == []


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        ("Object.defineProperty(window, 'indexedDB', {get: () => undefined})", "keeps nothing"),
        (
            "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError') }",
            "storage is full",
        ),
    ],
)
def test_a_browser_that_keeps_nothing_is_no_obstacle(context, gateway, break_it, words):
    prefer(context, model="demo-echo")
    context.add_init_script(break_it)
    chat = Chat(context.new_page(), gateway.url).open()
    for said in ("one", "two"):
        chat.ask(said)
        chat.ended()
    expect(chat.page.locator("#notices")).to_contain_text(words)
    assert chat.texts == ["one", "two"]


def test_an_answer_has_a_link_that_another_device_can_follow(chat, new_context, gateway):
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.ask("Hello", "endless")
    chat.shown(20)
    chat.menu(chat.answer.get_by_role("button", name="More"), "Copy link to this answer")
    link = chat.page.evaluate("navigator.clipboard.readText()")
    elsewhere = new_context()
    prefer(elsewhere)
    other = Chat(elsewhere.new_page(), gateway.url)
    other.page.goto(link)
    other.ready().shown(20)
    expect(other.page.locator("#read-only")).to_be_visible()
    expect(other.page.locator("#composer")).to_be_hidden()
    chat.press("Stop the answer")
    chat.ended()
    other.ended()
    assert other.text == chat.text
    other.press("Begin a chat of your own")
    expect(other.page.locator("#composer")).to_be_visible()


def test_the_same_request_can_be_made_from_a_shell(chat):
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.ask("it's me", "demo-echo")
    chat.ended()
    chat.menu(chat.answer.get_by_role("button", name="More"), "Copy as curl")
    line = chat.page.evaluate("navigator.clipboard.readText()")
    assert line.startswith("curl -N 'http://127.0.0.1:")
    assert "it'\\''s me" in line
    chat.answer.get_by_role("button", name="Copy as Markdown").click()
    until(chat.page, 'navigator.clipboard.readText().then((text) => text === "it\'s me")')


# --- the key -----------------------------------------------------------------------------------------

KEY = "a-secret-key-of-the-tests"


@pytest.fixture
def locked(context, tmp_path, upstream):
    """The page of a gateway that wants a key."""
    prefer(context, model="demo-echo")
    with serving(tmp_path, settings(upstream, keys={"app": KEY})) as gateway:
        yield Chat(context.new_page(), gateway.url).open()
        context.close()


def kept(chat, place):
    return chat.page.evaluate(f"JSON.stringify({place})").count(KEY)


def give(chat, key, *, remember=False):
    chat.page.fill("#key", key)
    chat.page.get_by_label("Remember it on this device").set_checked(remember)
    chat.press("Use this key")


def decline(chat):
    """Close the dialog, once it is there: before that, Escape means something else."""
    chat.page.locator("#key").wait_for()
    chat.page.keyboard.press("Escape")
    expect(chat.page.locator("#key-dialog")).to_be_hidden()


def test_a_gateway_that_wants_a_key_is_given_one(locked, complaints):
    expect(locked.page.locator("#key-dialog")).to_contain_text("This gateway wants an API key.")
    give(locked, "wrong")
    expect(locked.page.locator("#key-dialog")).to_contain_text("does not know that key")
    give(locked, KEY)
    expect(locked.page.locator("#key-dialog")).to_be_hidden()
    locked.ask("hello")
    locked.ended()
    assert locked.text == "hello"
    assert (kept(locked, "localStorage"), kept(locked, "sessionStorage")) == (0, 1)
    assert KEY not in locked.page.url
    refused(complaints)


def test_a_key_is_remembered_only_when_that_is_wanted_and_can_be_forgotten(locked, complaints):
    give(locked, KEY, remember=True)
    expect(locked.page.locator("#key-dialog")).to_be_hidden()
    assert (kept(locked, "localStorage"), kept(locked, "sessionStorage")) == (1, 0)
    locked.press("Forget the API key")
    assert (kept(locked, "localStorage"), kept(locked, "sessionStorage")) == (0, 0)
    locked.ask("hello")
    give(locked, KEY)
    locked.ended()
    assert locked.text == "hello"
    refused(complaints)


def test_who_gives_no_key_is_told_and_keeps_what_they_typed(locked, complaints):
    decline(locked)
    locked.ask("hello")
    decline(locked)
    locked.ended()
    expect(locked.ending.locator("code")).to_have_text("missing_api_key")
    assert locked.questions == ["hello"]
    locked.press("Try again")
    give(locked, KEY)
    wait_for(lambda: locked.text == "hello")
    refused(complaints)
