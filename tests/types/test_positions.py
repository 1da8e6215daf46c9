"""Cursors, as printed and as read."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.positions import (
    START,
    Cursor,
    Position,
    dialect_id,
    is_stream_id,
    new_stream_id,
    parse_cursor,
    stream_of,
)

STREAM = "s_0001ARZ3NDEKTSV4RRFFQ69G5FAV"


def test_a_full_cursor_is_47_bytes_that_need_no_escaping_anywhere():
    printed = str(Cursor(STREAM, Position(0, 42)))
    assert printed == f"{STREAM}~0000000000000042"
    assert len(printed) == 47
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", printed)


@given(st.integers(0, 9999), st.integers(0, 10**12 - 1), st.integers(0, 9999))
def test_a_printed_cursor_reads_back(epoch, entries, part):
    cursor = Cursor(STREAM, Position(epoch, entries, part))
    assert parse_cursor(str(cursor)) == cursor
    assert len(str(cursor)) <= 52


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("0", Cursor("", START)),
        ("-1", Cursor("", START)),
        ("now", Cursor("", None)),
        ("42", Cursor("", Position(0, 42))),
        ("0001000000000042", Cursor("", Position(1, 42))),
        ("0001000000000042.2", Cursor("", Position(1, 42, 2))),
        (f"{STREAM}~now", Cursor(STREAM, None)),
    ],
)
def test_every_written_form_is_understood(text, cursor):
    assert parse_cursor(text) == cursor


@pytest.mark.parametrize(
    "text",
    ["", "x", "-2", "1.5", "~", f"{STREAM}~", f"{STREAM}~42", "s_short~0000000000000042", "٤٢", "1" * 40],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"cursor|stream id"):
        parse_cursor(text)


@given(st.text(max_size=80))
def test_no_text_does_worse_than_a_value_error(text):
    with contextlib.suppress(ValueError):
        parse_cursor(text)


def test_stream_ids_are_ulids_that_sort_by_time():
    first, second = new_stream_id(now=1000.0), new_stream_id(now=1000.001)
    assert is_stream_id(first)
    assert first < second
    assert new_stream_id() != new_stream_id()


@pytest.mark.parametrize("prefix", ["chatcmpl-", "cmpl-", "resp_", "msg_"])
def test_a_dialects_id_names_the_stream_behind_it(prefix):
    assert stream_of(dialect_id(prefix, STREAM)) == STREAM


def test_a_stream_id_names_itself_and_others_name_nothing():
    assert stream_of(STREAM) == STREAM
    assert stream_of("chatcmpl-9x") == ""
    assert stream_of("../etc/passwd") == ""
