"""A conversation in a terminal, as a person sees it."""

import json
import re
import stat

import pytest

from tests.cli.terminal import ALT_ENTER, CTRL_C, CTRL_D, TAB
from tests.clients.gateway import PATIENCE, wait_for

SAID = " ".join(f"word{number}" for number in range(200))


@pytest.fixture
def chat(terminal, at):
    """A chat that waits for its first question."""

    def chat(*words: str, **variables):
        seen = terminal("chat", *words, **{**at, **variables})
        seen.shows("/help says more")
        seen.prompts()
        return seen

    return chat


def asked(upstream) -> list[dict]:
    return upstream.asked[-1].body["messages"]


def test_questions_and_answers_follow_each_other_and_the_model_sees_all_of_them(chat, upstream):
    seen = chat("-m", "pausing", "--system", "Be brief")
    for question in ("one", "two"):
        seen.type(question + "\r")
        seen.shows(f"> {question}")
        seen.prompts()
    assert [(one["role"], one["content"]) for one in asked(upstream)] == [
        ("system", "Be brief"),
        ("user", "one"),
        ("assistant", "before after"),
        ("user", "two"),
    ]
    assert seen.all.count("before after") == 2


@pytest.mark.parametrize("leave", [CTRL_C, CTRL_D, "/quit\r", "/exit\r"])
def test_the_chat_is_left(chat, leave):
    seen = chat()
    seen.type(leave)
    assert seen.ends() == 0


def test_ctrl_c_empties_the_line_before_it_leaves(chat):
    seen = chat()
    seen.type("something")
    seen.shows("> something")
    seen.type(CTRL_C)
    seen.prompts()
    seen.type(CTRL_C)
    assert seen.ends() == 0


def test_a_question_has_several_lines_by_alt_enter_backslash_and_paste(chat, upstream):
    seen = chat("-m", "pausing")
    seen.type(f"one{ALT_ENTER}two\\\r")
    seen.paste("three\r\nfour\n\nsix")
    seen.type("!\r")
    seen.shows("before after")
    assert asked(upstream)[0]["content"] == "one\ntwo\nthree\nfour\n\nsix!"


def test_ctrl_c_in_mid_answer_stops_it_at_the_provider_and_goes_on_talking(chat, upstream):
    seen = chat("-m", "endless")
    seen.type("go\r")
    seen.shows("1 2 3")
    seen.type(CTRL_C)
    seen.shows("Stopped.")
    assert upstream.asked[-1].left.wait(PATIENCE)
    seen.prompts()
    seen.type("/model pausing\r")
    seen.shows("pausing answers from now on.")
    seen.type("again\r")
    seen.shows("before after")
    kept = asked(upstream)[1]["content"]
    assert kept.startswith("1 2 3")
    assert kept.split()[-1] in seen.all


def test_what_is_typed_while_an_answer_comes_waits_for_the_prompt(chat, upstream):
    seen = chat("-m", "paced")
    seen.type(SAID[:400] + "\r")
    seen.shows("word20")
    seen.type("/model pausing\rnext\r")
    seen.shows("pausing answers from now on.", "before after")
    assert asked(upstream)[-1]["content"] == "next"
    assert "^" not in seen.all


def test_an_answer_higher_than_the_screen_is_drawn_whole_and_once(chat, gateway):
    seen = chat("-m", "long", "--max-tokens", "900")
    seen.type("story\r")
    seen.shows("Cut off: the answer reached its maximum of tokens.")
    seen.prompts()
    seen.type("/info\r")
    found = seen.shows("last stream: s_")
    said = gateway.get(f"/v1/streams/{found.partition('last stream: ')[2].split()[0]}")["text"]
    drawn = found.partition("> story")[2].partition("Cut off:")[0]
    assert letters(drawn) == letters(said)


def letters(text: str) -> str:
    """Return what stays the same whether Markdown is rendered or not."""
    return re.sub(r"[^\w.:;?]", "", text.replace("```text", ""))


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 20)])
def test_markdown_is_drawn_while_it_comes(terminal, at, columns, lines):
    seen = terminal("chat", "-m", "talkative", columns=columns, lines=lines, **at)
    seen.prompts()
    seen.type("tell me\r")
    seen.shows("What it promises", "1 Nothing shown is lost.", "• demo-cut loses its connection", "tokens ·")
    assert "**" not in seen.all
    assert "| --- |" not in seen.all
    assert all(len(line) <= columns for line in seen.all.split("\n"))
    seen.prompts()


def test_the_window_may_change_its_size_in_mid_answer(chat):
    seen = chat("-m", "talkative")
    seen.type("tell me\r")
    seen.shows("Penstock is a streaming")
    seen.resize(60, 20)
    seen.shows("That is all.", "tokens ·")
    seen.prompts()


def test_reasoning_is_dimmed_and_the_answer_is_not(chat):
    seen = chat("-m", "thinking")
    seen.type("why\r")
    seen.shows("The user says")
    wait_for(lambda: b"\x1b[2mThe user says" in seen.raw)
    seen.shows("tokens ·")
    assert "The user says" in seen.all


def test_tool_calls_are_shown(chat):
    seen = chat("-m", "demo-tools")
    seen.type("weather?\r")
    seen.shows('→ get_weather {"city": "Paris"}', '→ get_weather {"city": "上', "waits for its tool calls")


def test_an_answer_that_fails_says_so_and_can_be_asked_for_again(chat):
    seen = chat("-m", "demo-error")
    seen.type("hello\r")
    seen.shows("Failed: ", "/retry asks again.")
    seen.type("/model demo-echo\r")
    seen.shows("demo-echo answers from now on.")
    seen.prompts()
    seen.type("/retry\r")
    seen.shows("\n\nhello\n")
    seen.prompts()


def test_a_question_that_is_refused_is_not_lost(chat, upstream):
    seen = chat("-m", "nobody")
    seen.type("precious\r")
    seen.shows("/retry asks again.")
    seen.prompts()
    seen.type("/model pausing\r/retry\r")
    seen.shows("before after")
    assert [one["content"] for one in asked(upstream)] == ["precious"]


def test_a_connection_that_is_cut_is_taken_up_again(terminal, relay):
    relay.cuts = [400, 300, 600]
    seen = terminal("chat", "-m", "paced", PENSTOCK_URL=relay.url)
    seen.prompts()
    seen.type(SAID + "\r")
    seen.shows("word199\n\n", "connected again 3×")
    drawn = seen.all.rpartition("word199\n")[0].rpartition("\n\n")[2] + "word199"
    assert drawn.split() == SAID.split()
    assert "connection lost" not in seen.all


def test_a_gateway_that_is_killed_and_started_again_is_talked_to_again(terminal, own):
    seen = terminal("chat", "-m", "endless", PENSTOCK_URL=own.url)
    seen.prompts()
    seen.type("go\r")
    seen.shows("1 2 3")
    own.kill()
    seen.shows("connection lost")
    own.start()
    seen.shows("Interrupted: ", "/retry asks again.")
    seen.prompts()
    seen.type("/model pausing\rhello\r")
    seen.shows("before after")


def test_commands_are_listed_completed_and_may_be_cut_short(chat):
    seen = chat()
    seen.type("/help\r")
    seen.shows("/retry", "ask the last question again")
    seen.type("/sys" + TAB)
    seen.shows("> /system")
    seen.type(" Be brief\r")
    seen.shows("Be brief\n\n>")
    seen.type("/inf\r")
    seen.shows("system: Be brief")
    seen.type("/nonsense\r")
    seen.shows("There is no command /nonsense")
    seen.type("/set temperature 0.5\r/set colour red\r")
    seen.shows("temperature 0.5", "/set takes one of temperature, top_p, max_tokens, and a number.")


def test_models_are_listed_and_their_names_completed(chat):
    seen = chat()
    seen.type("/model\r")
    seen.shows("demo-truncated", "Finishes without a word.")
    seen.type("/model paus" + TAB)
    seen.shows("> /model pausing")
    seen.type("\r")
    seen.shows("pausing answers from now on.")


def test_a_chat_is_saved_as_markdown_and_as_json_and_never_over_a_file(chat, tmp_path):
    seen = chat("-m", "demo-echo", "--system", "S")
    seen.type("hello\r")
    seen.shows("\n\nhello\n")
    seen.prompts()
    page, data = tmp_path / "chat.md", tmp_path / "chat.json"
    seen.type(f"/save {page}\r/save {data}\r/save {page}\r")
    seen.shows("choose another name")
    assert (
        page.read_text()
        == "# Chat with demo-echo\n\n## System\n\nS\n\n## You\n\nhello\n\n## demo-echo\n\nhello\n"
    )
    assert [one["role"] for one in json.loads(data.read_text())["messages"]] == [
        "system",
        "user",
        "assistant",
    ]


def test_clear_forgets_the_turns(chat, upstream):
    seen = chat("-m", "pausing")
    seen.type("one\r")
    seen.shows("before after")
    seen.prompts()
    seen.type("/clear\r")
    seen.shows("A new chat.")
    seen.prompts()
    seen.type("two\r")
    wait_for(lambda: seen.all.count("before after") == 2)
    assert [one["content"] for one in asked(upstream)] == ["two"]


def test_a_file_goes_with_the_next_question_only(chat, upstream, tmp_path):
    (tmp_path / "notes.txt").write_text("the notes")
    seen = chat("-m", "pausing", columns=250)  # a long path breaks no sentence
    seen.type(f"/file {tmp_path}/nothing\r")
    seen.shows("cannot be read")
    seen.prompts()
    seen.type(f"/file {tmp_path}/notes.txt\r")
    seen.shows("goes with the next")
    seen.prompts()
    seen.type("one\r")
    seen.shows("before after")
    seen.prompts()
    seen.type("two\r")
    wait_for(lambda: seen.all.count("before after") == 2)
    contents = [one["content"] for one in asked(upstream)]
    assert contents == ['<file name="notes.txt">\nthe notes\n</file>\n\none', "before after", "two"]


def test_history_comes_back_in_the_next_chat_and_is_its_owners_alone(chat, environ, tmp_path):
    seen = chat("-m", "demo-echo")
    seen.type(f"first{ALT_ENTER}line\r")
    seen.shows("first\nline")
    seen.prompts()
    seen.type(CTRL_D)
    assert seen.ends() == 0
    file = tmp_path / "home/.local/state/penstock/chat_history"
    assert file.read_text() == '"first\\nline"\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    seen = chat("-m", "demo-echo")
    seen.type("\x1b[A")
    seen.shows("> first\n· line")


@pytest.mark.parametrize("words", [[], ["-m", "demo"]])
def test_a_gateway_that_is_not_there_is_said_before_a_prompt(terminal, words):
    seen = terminal("chat", "--url", "http://127.0.0.1:1", *words)
    assert seen.ends() == 69
    seen.shows("no gateway at http://127.0.0.1:1", "`penstock serve` starts one")
