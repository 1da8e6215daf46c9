"""Secrets taken out of text."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.telemetry.redaction import MASK, MIN_SECRET, WHOLE_WORD_BELOW, Redactor
from penstock.types.keys import hash_key

OF_OTHERS = [
    "pk_0123456789_" + "aB3-_" * 8 + "xyz",
    "pt_" + "Ab3" * 20 + "." + "c" * 22,
    "read.1790000000." + "d" * 43,
    "sk-proj-" + "e4" * 20,
    "sk-ant-api03-" + "F5" * 20,
    "AIza" + "g" * 35,
    "AKIA" + "H" * 16,
    "ghp_" + "j6" * 18,
    "gsk_" + "k7" * 20,
    "hf_" + "l" * 34,
    "xoxb-123456-" + "m" * 20,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ." + "n" * 43,
]


@pytest.mark.parametrize("secret", OF_OTHERS)
@pytest.mark.parametrize(
    "text", ["{}", "key {} was refused", '{{"error":"bad key \'{}\'."}}', "({})", "k={},"]
)
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(secret, text):
    assert Redactor()(text.format(secret)) == text.format(MASK)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://app:hunter2@db/x", "postgresql://app:***@db/x"),
        ("https://u:p%40ss@h:1/?a=1", "https://u:***@h:1/?a=1"),
        ("GET /stream?content=x&key=abc HTTP", "GET /stream?content=x&key=*** HTTP"),
        ("?token=read.1.x&b=2", "?token=***&b=2"),
        ("Authorization: Bearer a1b2c3", "Authorization: Bearer ***"),
        ("authorization: basic dXNlcjpwdw1=", "authorization: basic ***"),
    ],
)
def test_what_a_word_before_it_calls_a_secret_is_masked(text, shown):
    assert Redactor()(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "bearer authentication is wanted",
        "http://127.0.0.1:8080/v1/streams",
        "task-sk-1",
        "s_0001M8CKGWEHT8D0ZDXKCMJ35P7G~000000000000007",
        "keyboard=azerty",
        hash_key("pk_x"),
    ],
)
def test_what_is_none_is_left(text):
    assert Redactor(["ollama", "none"])(text) == text


@given(st.text(min_size=MIN_SECRET, max_size=60), st.sampled_from(["plain", "json", "url", "base64", "repr"]))
def test_a_configured_secret_is_found_in_every_form(secret, form):
    assume(secret.strip(MASK))
    forms = {
        "plain": secret,
        "json": json.dumps(secret)[1:-1],
        "url": quote(secret, safe=""),
        "base64": base64.b64encode(secret.encode()).decode().rstrip("="),
        "repr": repr(secret)[1:-1],
    }
    shown = Redactor([secret])(f"said: <{forms[form]}>.")
    assert shown == f"said: <{MASK}>." or forms[form] not in shown


def test_a_short_secret_is_not_looked_for_within_words():
    assert MIN_SECRET <= len("postgres") < WHOLE_WORD_BELOW
    assert Redactor(["postgres"])("postgresql said postgres") == f"postgresql said {MASK}"


def test_no_repr_tells_one():
    assert "planted" not in repr(Redactor(["planted-secret-1"]))
