"""The table of a stream's states."""

import pytest

from penstock.streams.state import TRANSITIONS, IllegalTransition, advance


@pytest.mark.parametrize("end", sorted(TRANSITIONS["open"]))
def test_an_open_stream_may_end_in_any_way(end):
    assert advance("open", end) == end


@pytest.mark.parametrize("end", sorted(set(TRANSITIONS) - {"open"}))
@pytest.mark.parametrize("to", sorted(TRANSITIONS))
def test_an_end_is_final(end, to):
    with pytest.raises(IllegalTransition):
        advance(end, to)
