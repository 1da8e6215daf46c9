"""What to do after a failed attempt: every case of the decision."""

import pytest

from penstock.gateway.rescue import GiveUp, NextTarget, Situation, decide
from penstock.types.errors import ClientError, GatewayError, UpstreamError

DOWN = UpstreamError("down", code="upstream_reset")
REFUSED = UpstreamError("refused", code="content_filter", status=400, retryable=False)


def test_a_failure_before_output_goes_to_the_next_target():
    assert decide(Situation(DOWN, 1, 1, shown=False)) == NextTarget()


@pytest.mark.parametrize(
    "situation",
    [
        Situation(DOWN, 1, 0, shown=False),  # there is no next target
        Situation(DOWN, 1, 1, shown=True),  # somebody has read a part of the answer
        Situation(REFUSED, 1, 1, shown=False),  # the next would be asked to do what was refused
        Situation(ClientError("bad"), 1, 1, shown=False),
        Situation(GatewayError("bug", code="internal_error"), 1, 1, shown=False),
    ],
)
def test_everything_else_ends_with_the_error(situation):
    assert decide(situation) == GiveUp(situation.error)
