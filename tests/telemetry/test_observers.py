"""Several observers as one."""

from structlog.testing import capture_logs

from penstock.telemetry.observers import Observers
from penstock.types.events import UsageReported
from penstock.types.outcomes import AttemptUse, Outcome
from penstock.types.signals import BreakerChanged, StreamEnded, Subject

OPENED = BreakerChanged("a/m", "open")


def test_all_are_told_in_their_order():
    told = []
    Observers([lambda s: told.append((1, s)), lambda s: told.append((2, s))])(OPENED)
    assert told == [(1, OPENED), (2, OPENED)]


def test_an_observer_that_fails_costs_the_others_nothing():
    def broken(signal):
        raise ValueError("no")

    told = []
    with capture_logs() as logs:
        Observers([broken, told.append])(OPENED)
    assert told == [OPENED]
    assert [entry["event"] for entry in logs] == ["observer_failed"]


def test_the_end_of_a_stream_is_told_with_what_each_attempt_cost():
    told = []
    observers = Observers([told.append], lambda provider, model, usage: usage.output_tokens or None)
    uses = (AttemptUse("a/m", "a", "m", UsageReported(1, 7)), AttemptUse("b/m", "b", "m", UsageReported()))
    observers(StreamEnded(Subject("s", "me", "r", "m"), Outcome("completed", "s", attempts=uses)))
    assert told[0].costs == (7, None)
