"""One JSON array: the shared vectors, what a parser of the whole reads, and limits."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import WireError
from penstock.wire.json_array import JsonArrayDecoder
from tests.vectors import Vector, bytewise, cut_at, cuttings, each_vector, feed_all, octets


def read(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    decoder = JsonArrayDecoder()
    return feed_all(decoder.feed, pieces) + decoder.flush(), decoder.closed


@each_vector("json_array")
def test_vector_reads_the_same_however_it_is_cut(vector: Vector) -> None:
    wanted = [element.encode() for element in vector.content["elements"]], vector.content["closed"]
    for pieces in cuttings(octets(vector.content, "input")):
        assert read(pieces) == wanted, pieces


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=6), st.sampled_from([None, 1]), st.booleans(), st.data())
def test_elements_are_what_a_parser_of_the_whole_reads(value, indent, ascii_only, data) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=10))
    elements, closed = read(cut_at(body, cuts))
    assert closed
    assert [json.loads(element.decode("utf-8", "surrogatepass")) for element in elements] == value


TOKENS = [b"[", b"]", b"{", b"}", b",", b'"', b"\\", b'\\"', b"1", b" ", "é".encode(), b"\xc3"]


@given(st.lists(st.sampled_from(TOKENS), max_size=30), st.data())
def test_no_cut_changes_what_is_read_of_anything(tokens, data) -> None:
    body = b"".join(tokens)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=10))
    assert read(cut_at(body, cuts)) == read([body]) == read(bytewise(body))


def test_an_object_is_there_with_its_bracket() -> None:
    decoder = JsonArrayDecoder()
    assert decoder.feed(b'[{"a":1}') == [b'{"a":1}']
    assert not decoder.closed


@pytest.mark.parametrize("pieces", [[b'[{},"aaaaaaaaaaaa"]'], bytewise(b'[{},"aaaaaaaaaaaa"]')])
def test_over_the_limit_what_came_before_counts_and_nothing_after(pieces) -> None:
    decoder = JsonArrayDecoder(max_element=8)
    elements: list[bytes] = []
    with suppress(WireError):
        for piece in pieces:
            elements += decoder.feed(piece)
    assert elements == [b"{}"]
    with pytest.raises(WireError) as caught:
        decoder.feed(b"[")
    assert caught.value.code == "upstream_frame_too_large"
    with pytest.raises(WireError):
        decoder.flush()
