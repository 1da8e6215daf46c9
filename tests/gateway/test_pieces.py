"""What is appended comes back as it was, however it is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.pieces import beginning, joined, mode_of, pieces_of
from penstock.streams.parcels import FIRST, LAST, MAX_PARCEL
from penstock.types.errors import ClientError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def flagged(pieces):
    return [(piece.flags, piece.content) for piece in pieces]


@given(st.binary(min_size=1, max_size=500), st.integers(1, 1500))
def test_bytes_come_back(seed, times):
    body = seed * times
    pieces = pieces_of(body, "bytes")
    assert b"".join(piece.content for piece in pieces) == body
    assert max(len(piece.content) for piece in pieces) <= MAX_PARCEL


@given(st.text(min_size=1, max_size=5), st.integers(MAX_PARCEL // 4, MAX_PARCEL))
def test_no_character_is_cut(seed, times):
    for piece in pieces_of((seed * times).encode(), "text"):
        piece.content.decode()


def test_text_that_is_none_is_cut_all_the_same():
    body = b"\x80" * (MAX_PARCEL * 2 + 10)
    assert b"".join(piece.content for piece in pieces_of(body, "text")) == body


@given(st.lists(JSON, min_size=1, max_size=20), st.booleans())
def test_messages_come_back(messages, pretty):
    body = json.dumps(messages, indent=2 if pretty else None, ensure_ascii=not pretty).encode()
    pieces = pieces_of(body, "json")
    assert json.loads(b"[" + joined(flagged(pieces)) + b"]") == messages
    for count in {0, 1, len(messages)}:
        begun = beginning(flagged(pieces), "json", count)
        assert json.loads(b"[" + joined(flagged(begun)) + b"]") == messages[:count]
    assert beginning(flagged(pieces), "json", len(messages) + 1) is None


def test_a_large_message_goes_over_several_and_its_neighbours_do_not():
    messages = ["small", "x" * (3 * MAX_PARCEL), "small again", "y" * MAX_PARCEL]
    pieces = pieces_of(json.dumps(messages).encode(), "json")
    assert json.loads(b"[" + joined(flagged(pieces)) + b"]") == messages
    assert [piece.flags for piece in pieces] == [
        FIRST | LAST,
        FIRST,
        0,
        0,
        LAST,
        FIRST | LAST,
        FIRST,
        LAST,
    ]


def test_line_ends_that_only_some_readers_know_are_escaped():
    (piece,) = pieces_of('{"a":"\u2028\u0085"}'.encode(), "json")
    assert piece.content == b'{"a":"\\u2028\\u0085"}'


@pytest.mark.parametrize("body", [b"{", b"[1,]", b"nan", b"[1] 2", b'"\xff"', b"[" * 5000, b" "])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(ClientError) as refused:
        pieces_of(body, "json")
    assert refused.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        ("text/plain; charset=utf-8", "text"),
        ("Application/JSON", "json"),
        ("application/x-ndjson", "bytes"),
        ("image/png", "bytes"),
    ],
)
def test_the_content_type_says_what_content_is(content_type, mode):
    assert mode_of(content_type) == mode
