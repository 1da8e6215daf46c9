"""`penstock verify`: what is whole is called so, and nothing else is."""

import json
import re
import sqlite3
import zlib

import httpx
import pytest

from tests.clients.gateway import PATIENCE


def created(gateway, model="demo-echo", content="one two three"):
    """Start a generation and return its stream once it has ended."""
    body = {"request": {"model": model, "messages": [{"role": "user", "content": content}]}}
    answer = httpx.post(
        f"{gateway.api}/streams", json=body, headers={"prefer": "respond-async"}, timeout=PATIENCE
    )
    stream = answer.raise_for_status().json()["stream"]
    gateway.wait_closed(stream)
    return stream


@pytest.mark.parametrize(
    ("model", "status"), [("demo-echo", "completed"), ("demo-error", "failed"), ("demo-empty", "completed")]
)
def test_whole_stream_is_good_however_it_ended(gateway, run, model, status):
    done = run("verify", created(gateway, model), "--url", gateway.url)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"good: {status}, \d+ entries, \d+ characters\n", done.stdout)


def test_scripts_get_json(gateway, run):
    stream = created(gateway)
    done = run("verify", stream, "--json", "--url", gateway.url)
    found = json.loads(done.stdout)
    assert (found["stream"], found["good"], found["characters"]) == (stream, True, len("one two three"))


def test_changed_word_is_found(own, run):
    stream = created(own)
    own.stop()
    change_a_word(own.log_file.parent / "data" / "catalogue.db", stream)
    own.start()
    done = run("verify", stream, "--url", own.url)
    assert done.returncode == 1
    assert "sha256 differs" in done.stderr


def change_a_word(catalogue, stream):
    """Do what a checksum does not notice: change the text and its segment's CRC with it."""
    with sqlite3.connect(catalogue) as database:
        (data,) = database.execute("SELECT data FROM segments WHERE stream = ?", (stream,)).fetchone()
        changed = data[4:].replace(b'"delta":"one', b'"delta":"uno')
        assert changed != data[4:]
        whole = zlib.crc32(changed).to_bytes(4, "little") + changed
        database.execute("UPDATE segments SET data = ? WHERE stream = ?", (whole, stream))


@pytest.mark.parametrize(
    ("stream", "code", "said"),
    [
        ("s_0001ARZ3NDEKTSV4RRFFQ69G5FAV", 66, "no such stream"),
        ("nonsense", 2, ""),
    ],
)
def test_what_cannot_be_verified_says_why(gateway, run, stream, code, said):
    done = run("verify", stream, "--url", gateway.url)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
