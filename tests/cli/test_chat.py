"""`penstock chat`: one question, for people and for scripts."""

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.terminal import CTRL_C
from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving

SAID = " ".join(f"word{number}" for number in range(60))
KEY = "a-key-of-the-tests"


def test_a_question_is_answered_in_plain_words(run, at):
    said = run("chat", "-m", "demo-echo", "one", "two", **at)
    assert (said.stdout, said.stderr, said.returncode) == ("one two\n", "", 0)


def test_the_models_own_markdown_and_control_characters_reach_a_pipe_as_they_are(run, at):
    said = run("chat", "-m", "demo-echo", "# a **b** \x1b[31mc", **at)
    assert said.stdout == "# a **b** \x1b[31mc\n"


def test_the_question_may_come_from_standard_input(run, at):
    assert run("chat", "-m", "demo-echo", stdin="from a pipe\n", **at).stdout == "from a pipe\n"


def test_standard_input_comes_before_the_prompt(run, at):
    said = run("chat", "-m", "demo-echo", "Summarise", stdin="The text.\n", **at)
    assert said.stdout == "The text.\n\nSummarise\n"


def test_files_are_sent_along(run, at, tmp_path):
    (tmp_path / "notes.md").write_text("# Notes\n")
    said = run("chat", "-m", "demo-echo", "--file", "notes.md", "Summarise", **at)
    assert said.stdout == '<file name="notes.md">\n# Notes\n</file>\n\nSummarise\n'


def test_a_picture_is_sent_as_one(run, gateway, upstream, at, tmp_path):
    (tmp_path / "dot.png").write_bytes(b"\x89PNG\r\n")
    said = run("chat", "-m", "pausing", "--file", "dot.png", "What is it?", **at)
    assert said.returncode == 0
    (message,) = upstream.asked[-1].body["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]
    assert message["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw0K"


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\xff\xfe\x00", "neither UTF-8 text nor a picture"), (None, "cannot be read: No such")],
)
def test_a_file_that_cannot_be_sent_is_named(run, at, tmp_path, data, said):
    if data is not None:
        (tmp_path / "thing").write_bytes(data)
    done = run("chat", "--file", "thing", "x", **at)
    assert done.returncode == 66
    assert said in done.stderr


def test_settings_reach_the_provider(run, upstream, at):
    options = ["--system", "Be brief", "--temperature", "0.5", "--top-p", "0.9", "--max-tokens", "7"]
    assert run("chat", "-m", "pausing", *options, "Hi", **at).stdout == "before after\n"
    body = upstream.asked[-1].body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.9, 7)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_the_first_model_answers_when_none_is_named(run, at, gateway):
    first = gateway.get("/v1/models")["data"][0]["id"]
    said = run("chat", "--json", "hello", **at)
    assert gateway.get(f"/v1/streams/{json.loads(said.stdout)['stream']}")["model"] == first


def test_json_is_the_whole_answer(run, at, gateway):
    said = run("chat", "-m", "demo-reasoning", "--json", "why?", **at)
    answer = json.loads(said.stdout)
    snapshot = gateway.get(f"/v1/streams/{answer['stream']}")
    assert (answer["text"], answer["cursor"]) == (snapshot["text"], snapshot["cursor"])
    assert (answer["status"], answer["finish_reason"]) == ("completed", "stop")
    assert answer["reasoning"]
    assert answer["usage"]["output_tokens"] > 0


def test_json_has_tool_calls(run, at):
    answer = json.loads(run("chat", "-m", "demo-tools", "--json", "weather?", **at).stdout)
    assert [call["name"] for call in answer["tool_calls"]] == ["get_weather", "get_weather"]
    assert json.loads(answer["tool_calls"][0]["arguments"]) == {"city": "Paris"}


def test_json_of_a_failed_answer_says_why(run, at):
    said = run("chat", "-m", "demo-error", "--json", "x", **at)
    answer = json.loads(said.stdout)
    assert (said.returncode, answer["status"], answer["error"]["code"]) == (1, "failed", "upstream_error")
    assert answer["text"]


def test_events_are_those_of_the_gateway(run, at, gateway):
    lines = [
        json.loads(line)
        for line in run("chat", "-m", "demo-echo", "--events", "a b", **at).stdout.splitlines()
    ]
    assert [line["ev"] for line in lines] == ["stream", "start", "delta", "delta", "finish", "usage", "done"]
    assert lines[-1]["c"] == gateway.get(f"/v1/streams/{lines[0]['c'].partition('~')[0]}")["cursor"]


def test_what_goes_wrong_is_said_on_standard_error_and_by_the_exit_code(run, at):
    said = run("chat", "-m", "demo-error", "x", **at)
    assert said.returncode == 1
    assert said.stderr.startswith("penstock: Failed: ")
    assert said.stdout.endswith("\n")


def test_a_model_that_is_not_known_is_answered_with_those_that_are_near(run, at):
    said = run("chat", "-m", "demo-ecko", "x", **at)
    assert said.returncode == 66
    assert "demo-echo" in said.stderr


def test_a_gateway_that_is_not_there_is_named(run):
    said = run("chat", "--url", "localhost:1", "x")
    assert (said.returncode, said.stdout) == (69, "")
    assert said.stderr.splitlines() == [
        "penstock: no gateway at http://localhost:1: nobody listens there.",
        "Is it running? `penstock serve` starts one; --url or PENSTOCK_URL names another.",
    ]


def test_a_server_that_is_no_gateway_is_told_from_one(run, upstream):
    said = run("chat", "--url", upstream.url, "y")
    assert said.returncode == 69
    assert said.stderr.splitlines()[1] == f"Is {upstream.url} the address of a Penstock gateway?"


@pytest.mark.parametrize(
    "words",
    [["--url", "ftp://x", "y"], ["--json", "--events", "y"], ["--max-tokens", "0", "y"], ["--what"], []],
)
def test_what_is_typed_wrongly_is_said(run, words):
    said = run("chat", *words)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr


def test_a_gateway_with_keys_wants_one(run, tmp_path, upstream):
    with serving(tmp_path / "gateway", settings(upstream, keys={"app": KEY})) as gateway:
        for key, code, hint in [
            ("", 77, "Set PENSTOCK_KEY"),
            ("another-key", 77, "Check PENSTOCK_KEY"),
            (KEY, 0, ""),
        ]:
            said = run("chat", "-m", "demo-echo", "x", PENSTOCK_URL=gateway.url, PENSTOCK_KEY=key)
            assert said.returncode == code
            assert hint in said.stderr
            assert KEY not in said.stderr


# --- stopping ----------------------------------------------------------------------------------------


def started(command, env):
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    # Unbuffered here, or what `read` takes ahead would be lost to `communicate`.
    return subprocess.Popen(command, env=env, stdin=nothing, stdout=pipe, stderr=pipe, bufsize=0)


@pytest.fixture
def endless(environ, at, tmp_path):
    """`penstock chat` in mid-answer, its output on a pipe."""
    command = [sys.executable, "-m", "penstock", "chat", "-m", "endless", "go"]
    process = started(command, {**environ, **at})
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def test_ctrl_c_stops_the_answer_at_the_provider_and_keeps_what_came(endless, upstream):
    begun = b""
    while b"3" not in begun:
        begun += endless.stdout.read(5)
    endless.send_signal(signal.SIGINT)
    rest, errors = endless.communicate(timeout=PATIENCE)
    assert (begun + rest).decode().split()[:3] == ["1", "2", "3"]
    assert (endless.returncode, errors.decode()) == (130, "penstock: Stopped.\n")
    assert upstream.asked[-1].left.wait(PATIENCE)


def test_a_program_that_is_told_to_end_stops_the_answer_first(endless, upstream):
    endless.stdout.read(5)
    endless.send_signal(signal.SIGTERM)
    assert endless.wait(PATIENCE) == 130
    assert upstream.asked[-1].left.wait(PATIENCE)


def test_a_reader_of_the_output_that_leaves_stops_the_answer_in_silence(endless, upstream):
    endless.stdout.read(5)
    endless.stdout.close()
    assert endless.wait(PATIENCE) == 141
    assert endless.stderr.read() == b""
    assert upstream.asked[-1].left.wait(PATIENCE)


# --- a network that breaks ---------------------------------------------------------------------------


def test_an_answer_that_is_cut_again_and_again_comes_whole(run, relay):
    relay.cuts = [150, 0, 700, 333, 512]
    said = run("chat", "-m", "paced", SAID, PENSTOCK_URL=relay.url)
    assert (said.stdout, said.returncode) == (SAID + "\n", 0)
    assert relay.cuts == []
    assert said.stderr.count("the connection was lost") >= 1
    assert relay.requests.count("/v1/streams/" + relay.requests[-1].split("/")[3] + "/events") >= 3


def test_a_request_whose_answer_never_came_is_not_paid_for_twice(run, relay, gateway):
    relay.cuts = [0]
    said = run("chat", "-m", "paced", "--json", SAID, PENSTOCK_URL=relay.url)
    assert json.loads(said.stdout)["text"] == SAID
    assert relay.requests.count("/v1/streams") == 2
    assert (
        len({line for line in bytes(relay.up).lower().split(b"\r\n") if line.startswith(b"idempotency-key")})
        == 1
    )


def test_a_gateway_that_was_killed_and_came_back_says_how_the_answer_ended(own, environ, tmp_path):
    command = [sys.executable, "-m", "penstock", "chat", "-m", "endless", "go"]
    with started(command, {**environ, "PENSTOCK_URL": own.url}) as process:
        process.stdout.read(20)
        own.restart()
        text, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4
    assert "Interrupted: " in errors.decode()
    assert text


def test_a_gateway_that_never_comes_back_is_given_up_with_a_way_on(own, environ):
    command = [sys.executable, "-m", "penstock", "chat", "-m", "endless", "--patience", "0.5", "go"]
    with started(command, {**environ, "PENSTOCK_URL": own.url}) as process:
        process.stdout.read(20)
        own.kill()
        _, errors = process.communicate(timeout=PATIENCE)
    own.start()
    assert process.returncode == 69
    assert "did not come back" in errors.decode()
    assert "Read on with: penstock read 's_" in errors.decode()


# --- on a terminal -----------------------------------------------------------------------------------


def test_a_question_on_a_terminal_is_answered_in_rendered_markdown(terminal, at):
    seen = terminal("chat", "-m", "demo-echo", "some **bold** and `code`", **at)
    seen.shows("some bold and code")
    assert seen.style_of("bold").bold
    assert seen.ends() == 0


def test_no_color_means_no_colour(terminal, at):
    seen = terminal("chat", "-m", "demo-echo", "some `code`", NO_COLOR="1", **at)
    seen.shows("some code")
    assert seen.style_of("code").fg == "default"
    assert seen.ends() == 0


def test_bytes_that_are_no_text_are_no_defect(run, at):
    assert run("chat", "-m", "demo-echo", "a\udcffb", **at).stdout == "a?b\n"


def test_what_a_model_says_cannot_steer_the_terminal(terminal, at):
    seen = terminal("chat", "-m", "demo-echo", "safe \x1b]0;title\x07 \x1b[2J words \x9b31m", **at)
    seen.shows("safe", "words")
    assert b"\x1b]0;" not in seen.raw
    assert b"\x1b[2J" not in seen.raw
    assert seen.ends() == 0


def test_ctrl_c_on_a_terminal_stops_the_answer_and_leaves_the_terminal_as_it_was(terminal, at, upstream):
    seen = terminal("chat", "-m", "endless", "go", **at)
    seen.shows("1 2 3")
    seen.type(CTRL_C)
    assert seen.ends() == 130
    seen.shows("penstock: Stopped.")
    assert bytes(seen.raw).rstrip().endswith(b"Stopped.")
    assert bytes(seen.raw).rfind(b"\x1b[?25h") > bytes(seen.raw).rfind(b"\x1b[?25l")
    assert upstream.asked[-1].left.wait(PATIENCE)


def test_plain_is_plain_on_a_terminal_too(terminal, at):
    seen = terminal("chat", "-m", "demo-echo", "--plain", "some **bold**", **at)
    assert seen.ends() == 0
    assert bytes(seen.raw) == b"some **bold**\r\n"


def test_a_long_silence_is_not_a_blank_screen(terminal, at):
    seen = terminal("chat", "-m", "patient", "x", **at)
    seen.shows("waiting for patient … 1 s")
    seen.type(CTRL_C)
    assert seen.ends() == 130
    assert "waiting" not in seen.screen
