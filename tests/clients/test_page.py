"""The chat page, in a browser."""

import pytest
from playwright.sync_api import expect

from tests.clients.chat import Chat, prefer
from tests.clients.conftest import settings
from tests.clients.gateway import serving, wait_for

SAID = " ".join(f"word{number}" for number in range(80))


@pytest.fixture
def chat(context, gateway) -> Chat:
    """The page in a fresh profile, asking `paced`."""
    prefer(context, model="paced")
    return Chat(context.new_page(), gateway.url).open()


def created(gateway) -> int:
    return len(gateway.log("stream_closed"))


# --- an answer ---------------------------------------------------------------------------------------


def test_an_answer_arrives_word_by_word(chat):
    chat.ask(SAID)
    chat.shown()
    assert len(chat.text) < len(SAID)
    chat.ended()
    assert chat.text == SAID
    assert "Complete" in chat.figures
    assert "80 chunks" in chat.figures
    assert "first chunk after" in chat.figures


def test_what_was_asked_goes_along_with_the_next_question(chat, upstream):
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


def test_reloading_in_mid_answer_loses_and_doubles_nothing(chat, gateway):
    before = created(gateway)
    chat.ask(SAID)
    chat.shown(60)
    chat.reload()
    chat.shown(100)
    chat.ended()
    assert chat.text == SAID
    assert "80 chunks" in chat.figures
    assert "first chunk after" not in chat.figures
    assert created(gateway) == before + 1


def test_a_second_tab_follows_the_same_answer(chat, gateway):
    chat.ask("Hello", "endless")
    chat.shown(20)
    other = chat.tab()
    other.shown(20)
    was = len(other.text)
    other.shown(was + 20)
    other.press("Stop the answer")
    chat.ended()
    other.ended()
    assert chat.text == other.text == gateway.get(f"/v1/streams/{chat.stream}")["text"].strip()


def test_a_connection_that_is_cut_is_taken_up_where_it_was(chat):
    chat.press("Lab")
    chat.ask(SAID)
    chat.shown(60)
    chat.press("Cut the connection")
    expect(chat.answer).to_contain_text("Connection cut")
    chat.ended()
    assert chat.text == SAID
    assert "80 chunks" in chat.figures


def test_a_gateway_that_is_killed_in_mid_answer_breaks_nothing(context, complaints, tmp_path, upstream):
    prefer(context, model="paced")
    with serving(tmp_path, settings(upstream)) as gateway:
        chat = Chat(context.new_page(), gateway.url).open()
        chat.ask(" ".join([SAID] * 10))
        chat.shown(200)
        gateway.kill()
        expect(chat.answer).to_contain_text("The gateway cannot be reached.")
        shown = chat.text
        gateway.start()
        chat.ended()
        assert chat.text.startswith(shown)
        expect(chat.ending).to_contain_text("Interrupted")
        expect(chat.ending).to_contain_text("gateway_restarted")
        chat.press("Try again")
        wait_for(lambda: len(chat.text) > 0 and chat.answer.get_attribute("aria-busy") == "true")
        expect(chat.answer).to_contain_text("2/2")
        chat.press("Stop the answer")
        chat.ended()
    assert all("ERR_" in complaint for complaint in complaints.settle())
    complaints.clear()
