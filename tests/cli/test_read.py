"""`penstock read`: any stream, from anywhere, in every form."""

import json
import signal
import subprocess
import sys

import httpx
import pytest

from tests.cli.terminal import CTRL_C
from tests.clients.gateway import PATIENCE, wait_for

SAID = " ".join(f"word{number}" for number in range(60))


def create(gateway, model: str, content: str = "go") -> str:
    request = {"model": model, "messages": [{"role": "user", "content": content}]}
    headers = {"prefer": "respond-async"}
    return httpx.post(f"{gateway.url}/v1/streams", json={"request": request}, headers=headers).json()[
        "stream"
    ]


@pytest.fixture
def stream(gateway) -> str:
    """A stream that has ended."""
    stream = create(gateway, "demo-echo", "one two **three**")
    gateway.wait_closed(stream)
    return stream


@pytest.fixture
def live(gateway):
    """A stream that goes on."""
    stream = create(gateway, "endless")
    wait_for(lambda: gateway.get(f"/v1/streams/{stream}")["entries"] > 20)
    yield stream
    httpx.post(f"{gateway.url}/v1/streams/{stream}/cancel")


def raw(gateway, stream: str, **query) -> str:
    return httpx.get(f"{gateway.url}/v1/streams/{stream}/events", params=query).text


def test_the_words_are_the_default_away_from_a_terminal(run, at, stream):
    said = run("read", stream, **at)
    assert (said.stdout, said.stderr, said.returncode) == ("one two **three**\n", "", 0)


def test_a_stream_is_named_by_its_id_a_dialects_id_a_cursor_or_a_url(run, gateway, at, stream):
    base = f"{gateway.url}/v1/streams/{stream}"
    names = [
        stream,
        f"chatcmpl-{stream[2:]}",
        base,
        f"{base}/events",
        f"{gateway.url}/v1/chat/completions/chatcmpl-{stream[2:]}",
    ]
    assert {run("read", name, **at).stdout for name in names} == {"one two **three**\n"}
    assert run("read", base).stdout == "one two **three**\n", "the URL says which gateway"


@pytest.mark.parametrize("start", ["{stream}~0000000000000003", "3", "0000000000000003"])
def test_reading_begins_after_the_cursor(run, at, stream, start):
    said = run("read", stream, "--from", start.format(stream=stream), "--format", "events", **at)
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [line["d"].get("n") for line in lines[1:]] == list(range(4, 4 + len(lines) - 1))


def test_a_cursor_is_both_the_name_and_the_place(run, at, stream):
    assert run("read", f"{stream}~0000000000000003", **at).stdout == " **three**\n"


@pytest.mark.parametrize("start", ["now", "{end}"])
def test_from_the_end_of_an_ended_stream_only_the_end_comes(run, gateway, at, stream, start):
    end = gateway.get(f"/v1/streams/{stream}")["cursor"]
    said = run("read", stream, "--from", start.format(end=end), **at)
    assert (said.stdout, said.returncode) == ("", 0)


def test_events_are_the_gateways_ndjson(run, gateway, at, stream):
    headers = {"accept": "application/x-ndjson"}
    lines = httpx.get(f"{gateway.url}/v1/streams/{stream}/events", headers=headers).text.splitlines()
    said = run("read", stream, "--format", "events", **at).stdout.splitlines()
    assert [json.loads(line) for line in said[1:]] == [json.loads(line) for line in lines]


def test_json_is_the_whole_answer(run, gateway, at, stream):
    answer = json.loads(run("read", stream, "--json", **at).stdout)
    assert (answer["status"], answer["text"]) == ("completed", "one two **three**")
    assert answer["cursor"] == gateway.get(f"/v1/streams/{stream}")["cursor"]


def test_openai_is_the_chunks_of_that_dialect(run, gateway, at, stream):
    said = run("read", stream, "--format", "openai", **at)
    chunks = [json.loads(line) for line in said.stdout.splitlines()]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == "one two **three**"
    assert f"data: {said.stdout.splitlines()[0]}\n" in raw(gateway, stream, dialect="openai_chat")


@pytest.mark.parametrize(
    ("format", "dialect"), [("sse", "native"), ("sse-text", "text"), ("sse-openai", "openai_chat")]
)
def test_server_sent_events_are_those_of_the_gateway(run, gateway, at, stream, format, dialect):
    said = run("read", stream, "--format", format, **at)
    assert said.stdout == raw(gateway, stream, dialect=dialect).replace("retry: 1000\n", "")
    assert said.returncode == 0


@pytest.mark.parametrize("format", ["text", "events", "json", "openai", "sse", "sse-text", "sse-openai"])
def test_every_form_comes_whole_through_a_network_that_cuts(run, gateway, relay, format):
    stream = create(gateway, "paced", SAID)
    whole = None
    if format not in ("json", "events", "sse", "sse-text", "sse-openai"):
        gateway.wait_closed(stream)
    relay.cuts = [900, 70, 400]
    said = run("read", stream, "--format", format, PENSTOCK_URL=relay.url)
    whole = run("read", stream, "--format", format, PENSTOCK_URL=gateway.url)
    assert (said.returncode, relay.cuts) == (0, [])
    if format in ("events", "sse", "sse-text"):  # the opening says how far the log was then
        cut = 1 if format == "events" else 4
        assert said.stdout.split("\n")[cut:] == whole.stdout.split("\n")[cut:]
    else:
        assert said.stdout == whole.stdout


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [("demo-error", 1, "Failed: "), ("demo-cut", 1, "Failed: "), ("demo-echo", 0, "")],
)
def test_the_exit_code_says_how_it_ended(run, gateway, at, model, code, said):
    stream = create(gateway, model)
    gateway.wait_closed(stream)
    for format in ("text", "openai"):
        done = run("read", stream, "--format", format, **at)
        assert done.returncode == code
    assert said in run("read", stream, **at).stderr


def test_a_cancelled_stream_has_an_exit_code_of_its_own(run, gateway, at, live):
    httpx.post(f"{gateway.url}/v1/streams/{live}/cancel")
    said = run("read", live, **at)
    assert (said.returncode, said.stderr) == (3, "penstock: Stopped.\n")


def test_without_following_what_is_there_is_all(run, at, live):
    said = run("read", live, "--no-follow", **at)
    assert said.returncode == 0
    assert said.stdout.split()[:3] == ["1", "2", "3"]
    cursor = said.stderr.partition("penstock read '")[2].partition("'")[0]
    more = run("read", cursor, "--no-follow", **at)
    assert more.stdout.split()[0] == str(int(said.stdout.split()[-1]) + 1)


def test_ctrl_c_stops_reading_and_not_the_answer(environ, gateway, at, live):
    with subprocess.Popen(
        [sys.executable, "-m", "penstock", "read", live],
        env={**environ, **at},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert f"penstock read '{live}~" in errors.decode()
    assert f"--url {gateway.url}" in errors.decode()
    assert gateway.get(f"/v1/streams/{live}")["status"] == "open"


def test_on_a_terminal_markdown_is_drawn(terminal, at, stream):
    seen = terminal("read", stream, **at)
    seen.shows("one two three")
    assert seen.style_of("three").bold
    assert seen.ends() == 0


def test_reading_on_a_terminal_is_left_with_ctrl_c(terminal, at, live):
    seen = terminal("read", live, "--from", "now", **at)
    seen.shows("0 ")
    seen.type(CTRL_C)
    assert seen.ends() == 130
    seen.shows("stopped reading. Read on with: penstock read 's_")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["s_00" + "0" * 26], 66, "There is no such stream."),
        (["nonsense"], 66, "There is no such stream."),
        (["nonsense~1"], 2, "a stream is named by its id"),
        (["s_00" + "0" * 26 + "~x"], 2, "the cursor cannot be read"),
        (["http://localhost/other"], 2, "a stream's URL is"),
        (["s_00" + "0" * 26, "--from", "yesterday"], 2, "--from takes"),
        (["s_00" + "0" * 26, "--format", "morse"], 2, "morse"),
        (["s_00" + "0" * 26, "--no-follow", "--format", "openai"], 2, "--no-follow"),
        ([], 2, "STREAM"),
    ],
)
def test_what_cannot_be_read_is_said(run, at, words, code, said):
    done = run("read", *words, **at)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_cursor_beyond_the_end_is_refused_with_a_way_out(run, at, stream):
    said = run("read", stream, "--from", "5000", **at)
    assert said.returncode == 1
    assert "--from start" in said.stderr
