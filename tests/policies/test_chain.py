"""Several policies as one: order, what a refusal gives back, and what filters see of each other."""

import asyncio

import pytest
from structlog.testing import capture_logs

from penstock.policies.chain import Chain, Filters, Settlement
from penstock.policies.policy import Admission, FilterStop
from penstock.types.errors import ClientError
from penstock.types.events import Finished, TextDelta
from penstock.types.outcomes import UNSTARTED, Outcome
from tests.gateway.hand import call

ENDED = Outcome("completed")


class Noting:
    """A policy that notes what it is asked, and may wait, refuse or change the call."""

    def __init__(self, name, notes, *, refuse=None, wait=None, filter=None, change=None):
        self.name, self.notes = name, notes
        self.refuse, self.wait, self.change = refuse, wait, change
        self.own = filter

    async def admit(self, call):
        if self.wait is not None:
            await self.wait.wait()
        if self.refuse is not None:
            raise self.refuse
        self.notes.append(f"admit {self.name}")
        if self.change is not None:
            call = self.change(call)
        return Admission(call, lambda outcome: self.notes.append(f"settle {self.name} {outcome.status}"))

    def filter(self, call):
        return self.own


REFUSAL = ClientError("No.", code="permission_denied", status=403)


async def test_settles_in_the_reverse_of_the_order_of_admission_and_once():
    notes = []
    admission = await Chain([Noting("a", notes), Noting("b", notes)]).admit(call())
    admission.settle(ENDED)
    admission.settle(ENDED)
    assert notes == ["admit a", "admit b", "settle b completed", "settle a completed"]


async def test_a_refusal_settles_those_that_had_let_the_call_in():
    notes = []
    chain = Chain([Noting("a", notes), Noting("b", notes, refuse=REFUSAL), Noting("c", notes)])
    with pytest.raises(ClientError):
        await chain.admit(call())
    assert notes == ["admit a", "settle a unstarted"]


async def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing_behind():
    notes, never = [], asyncio.Event()
    chain = Chain([Noting("a", notes), Noting("b", notes, wait=never)])
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(chain.admit(call()))
        await asyncio.sleep(0)
        waiting.cancel()
    assert notes == ["admit a", "settle a unstarted"]


async def test_what_one_policy_makes_of_a_call_is_what_the_next_is_asked_about():
    notes = []
    first = Noting("a", notes, change=lambda _: call("changed"))
    admission = await Chain([first, Noting("b", notes)]).admit(call("as it came"))
    assert admission.call.request.messages[0].content == "changed"


def test_one_that_fails_to_settle_costs_the_others_nothing():
    told = []
    settlement = Settlement()
    settlement.add(told.append)
    settlement.add(lambda outcome: 1 / 0)
    settlement.add(told.append)
    with capture_logs() as logs:
        settlement.settle(UNSTARTED)
    assert [log["event"] for log in logs] == ["settlement_failed"]
    assert told == [UNSTARTED, UNSTARTED]


class Replacing:
    """A filter that replaces a letter, holds the last event back, and may stop at a letter."""

    def __init__(self, old, new, *, stop_at=None, error=None):
        self.old, self.new, self.stop_at, self.error = old, new, stop_at, error
        self.held = []

    def feed(self, events):
        shown = []
        for event in events:
            if type(event) is TextDelta:
                if self.stop_at and self.stop_at in event.delta:
                    raise FilterStop([*self.flush(), *shown, Finished("content_filter")], self.error)
                event = TextDelta(event.delta.replace(self.old, self.new))
            shown.append(event)
        shown, self.held = [*self.held, *shown[:-1]], shown[-1:]
        return shown

    def flush(self):
        held, self.held = self.held, []
        return held


def said(events):
    return "".join(event.delta if type(event) is TextDelta else "." for event in events)


def test_each_filter_sees_what_the_one_before_lets_through():
    filters = Filters([Replacing("a", "b"), Replacing("b", "c")])
    shown = [*filters.feed([TextDelta("a"), TextDelta("xa")]), *filters.feed([TextDelta("y")])]
    assert said(shown) == "c"
    assert said(filters.flush()) == "xcy"


def test_what_is_shown_last_passes_those_behind_whole():
    filters = Filters([Replacing("-", "-", stop_at="!", error=REFUSAL), Replacing("a", "b")])
    shown = [*filters.feed([TextDelta("a"), TextDelta("aa")])]
    with pytest.raises(FilterStop) as stopped:
        filters.feed([TextDelta("!")])
    assert said([*shown, *stopped.value.events]) == "bbb."
    assert stopped.value.error is REFUSAL


def test_a_chain_without_filters_has_none():
    assert Chain([Noting("a", [])]).filter(call()) is None
    own = Replacing("a", "b")
    assert Chain([Noting("a", []), Noting("b", [], filter=own)]).filter(call()) is own
