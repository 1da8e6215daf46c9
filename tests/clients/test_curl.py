"""curl, as the README has it and as scripts use it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving

README = Path(__file__).parents[2] / "README.md"
CURL = [shutil.which("curl"), "--silent", "--show-error", "--max-time", str(PATIENCE)]
JSON = ["-H", "Content-Type: application/json"]
TIMED_OUT, PARTIAL, REFUSED_STATUS = 28, 18, 22
"""Exit codes of curl (its manual page)."""


def curl(*arguments):
    return subprocess.run([*CURL, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


def chat(model, content="Hello", **more):
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **more})


def text_of(output):
    """The text of text events, as a page would join it."""
    events = [event.split("\n") for event in output.split("\n\n") if "event: " not in event]
    texts = [[line[6:] for line in lines if line.startswith("data: ")] for lines in events]
    return "".join("\n".join(lines) for lines in texts)


def stream_of(output):
    return re.search(r"s_00\w{26}", output)[0]


def test_the_line_in_the_readme_prints_words_as_they_are_made(tmp_path, upstream):
    line = re.search(r"^curl -N '(.*)'$", README.read_text(), re.MULTILINE)[1]
    with serving(tmp_path, settings(upstream, default_model="endless")) as gateway:
        url = line.replace("http://localhost:8080", gateway.url)
        with subprocess.Popen([*CURL, "-N", url], stdout=subprocess.PIPE, text=True) as process:
            seen = ""
            while not seen.endswith("data: 20 \n"):  # the answer never ends, so these were not held back
                seen += process.stdout.readline()
            process.terminate()
        assert text_of(seen).startswith("1 2 3 ")


@pytest.mark.parametrize("more", [[], ["--http1.0"]], ids=["1.1", "1.0"])
def test_an_answer_is_whole_in_either_version_of_http(gateway, more):
    done = curl("-N", *more, f"{gateway.url}/stream?content=one+two&model=demo-echo")
    assert done.returncode == 0
    assert text_of(done.stdout) == "one two"
    assert "\nevent: done\n" in done.stdout


def test_an_answer_can_be_had_as_plain_text(gateway):
    done = curl("-N", "-H", "Accept: text/plain", f"{gateway.url}/stream?content=one+two&model=demo-echo")
    assert (done.returncode, done.stdout) == (0, "one two")


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_plain_text_that_breaks_off_does_not_look_whole(gateway, version):
    url = f"{gateway.url}/stream?content=Hello&model=demo-cut"
    done = curl("-N", version, "-H", "Accept: text/plain", url)
    assert done.stdout
    assert done.returncode == PARTIAL


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/stream", "400", "missing_required_parameter"),
        ("/v1/streams/s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F", "404", "stream_not_found"),
        ("/nowhere", "404", "not_found"),
    ],
)
def test_errors_are_json_with_a_sentence_and_a_status_to_fail_by(gateway, path, status, code):
    done = curl("--fail-with-body", "-w", "\n%{http_code}", gateway.url + path)
    body, said = done.stdout.rsplit("\n", 1)
    assert (done.returncode, said) == (REFUSED_STATUS, status)
    error = json.loads(body)["error"]
    assert error["code"] == code
    assert error["message"].endswith(".") or "content=" in error["message"]


def test_a_body_without_its_content_type_says_how_to_send_it(gateway):
    done = curl(f"{gateway.url}/v1/chat/completions", "-d", chat("demo"))
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "unsupported_media_type"
    assert "Content-Type: application/json" in error["message"]


def test_a_generation_goes_on_without_the_curl_that_started_it(gateway, upstream):
    body = json.dumps({"request": json.loads(chat("endless"))})
    done = curl("-N", *JSON, "--max-time", "0.3", f"{gateway.url}/v1/streams", "-d", body)
    assert done.returncode == TIMED_OUT
    stream = stream_of(done.stdout)
    before = gateway.get(f"/v1/streams/{stream}")
    assert before["status"] == "open"
    last = re.findall(r"^id: (\S+)$", done.stdout, re.MULTILINE)[-1]
    on = curl(
        "-N", "--max-time", "0.3", "-H", f"Last-Event-ID: {last}", f"{gateway.url}/v1/streams/{stream}/events"
    )
    counted = [int(n) for n in re.findall(r'"delta":"(\d+) "', done.stdout + on.stdout)]
    assert counted == list(range(1, len(counted) + 1))
    assert len(counted) > len(re.findall(r'"delta":"\d+ "', done.stdout))
    assert (
        json.loads(curl("-X", "POST", f"{gateway.url}/v1/streams/{stream}/cancel").stdout)["status"]
        == "cancelled"
    )
    assert upstream.asked[-1].left.wait(PATIENCE)


def test_a_plain_chat_stops_with_the_curl_that_started_it(gateway, upstream):
    body = chat("endless", stream=True)
    done = curl("-N", "-i", *JSON, "--max-time", "0.3", f"{gateway.url}/v1/chat/completions", "-d", body)
    assert done.returncode == TIMED_OUT
    assert upstream.asked[-1].left.wait(PATIENCE)
    assert gateway.wait_closed(stream_of(done.stdout))["end"]["code"] == "client_disconnected"


def test_a_chat_that_breaks_off_does_not_look_whole(gateway):
    url = f"{gateway.url}/v1/chat/completions"
    done = curl("-N", *JSON, url, "-d", chat("demo-error", stream=True))
    assert done.returncode == PARTIAL
    assert json.loads(done.stdout.strip().rsplit("data: ", 1)[1])["error"]["code"] == "upstream_error"


def test_head_tells_what_a_stream_is_without_reading_it(gateway):
    stream = stream_of(curl(f"{gateway.url}/stream?content=one&model=demo-echo").stdout)
    done = curl("-I", f"{gateway.url}/v1/streams/{stream}")
    assert re.search(r"^stream-status: completed\r?$", done.stdout, re.MULTILINE)
