"""Content codings alone: any data, cut anywhere, in steps of any size."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import WireError
from penstock.upstream.inflate import Inflater


def pack(coding, data):
    if coding == "gzip":
        return gzip.compress(data)
    packer = zlib.compressobj(6, zlib.DEFLATED, 15 if coding == "deflate" else -15)
    return packer.compress(data) + packer.flush()


def unpack(inflater, pieces, step):
    out = []
    for piece in pieces:
        out.append(inflater.feed(piece))
        while inflater.pending:
            out.append(inflater.feed(b""))
    assert max(map(len, out), default=0) <= step
    return b"".join(out)


DATA = st.one_of(st.binary(max_size=300), st.integers(0, 5000).map(bytes))


@given(DATA, st.sampled_from(["gzip", "deflate", "bare"]), st.integers(1, 400), st.integers(1, 2000))
def test_whole_body_comes_back_in_bounded_steps(data, coding, size, step):
    packed = pack(coding, data)
    inflater = Inflater("gzip" if coding == "gzip" else "deflate", step)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert unpack(inflater, pieces, step) == data
    assert inflater.whole


@given(st.lists(DATA, min_size=2, max_size=4), st.integers(1, 60), st.integers(1, 500))
def test_members_of_gzip_follow_one_another(members, size, step):
    packed = b"".join(map(gzip.compress, members))
    inflater = Inflater("gzip", step)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert unpack(inflater, pieces, step) == b"".join(members)
    assert inflater.whole


@given(DATA, st.data())
def test_body_that_is_cut_is_not_whole(data, draw):
    packed = gzip.compress(data)
    inflater = Inflater("gzip", 100)
    unpack(inflater, [packed[: draw.draw(st.integers(1, len(packed) - 1))]], 100)
    assert not inflater.whole


def test_body_in_another_form_is_a_wire_error():
    with pytest.raises(WireError):
        Inflater("gzip", 100).feed(b"plain text")
