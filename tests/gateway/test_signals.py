"""What observers are told: each attempt's beginning and end, in every ending, and nothing that was said."""

import asyncio

import msgspec
import pytest

from penstock.gateway.health import HealthSettings
from penstock.gateway.meter import Meter
from penstock.gateway.rescue import RetrySettings
from penstock.gateway.run import RunSettings
from penstock.types.buckets import Buckets
from penstock.types.errors import ClientError, upstream_reset
from penstock.types.events import Finished, Started, TextDelta, UsageReported
from penstock.types.principals import Principal
from penstock.types.signals import (
    AttemptBegan,
    AttemptEnded,
    BreakerChanged,
    CallAccepted,
    FirstOutput,
    ReaderJoined,
    ReaderLeft,
    StreamEnded,
)
from tests.gateway.hand import ME, HandSource, HandStore, House, call, turns
from tests.virtual_time import run_virtually

SECRET = "nobody else's business"
QUICK = RunSettings(retry=RetrySettings(tries=2, base_delay=0.001))


def told(scene, *, store=None, **settings):
    """Play ``scene``; return what an observer heard."""
    heard = []

    async def main():
        async with House(store or HandStore(), observe=heard.append, run=QUICK, **settings) as house:
            await asyncio.wait_for(scene(house), 1_000_000)

    run_virtually(main())
    return heard


def kinds(heard):
    return [type(signal) for signal in heard]


def only(heard, kind):
    return [signal for signal in heard if type(signal) is kind]


def test_an_answer_is_told_from_its_call_to_its_end():
    async def scene(house):
        stream, source = await house.begin(request_id="req_1")
        source.sink.feed([Started("m-2026", id="x"), TextDelta("hel"), TextDelta("lo")])
        await asyncio.sleep(2.0)
        source.sink.feed([UsageReported(3, 4), TextDelta("!"), Finished("stop")])
        source.sink.end()
        await stream.wait_closed()
        await turns()
        assert house.gaps["a/m"].count == 1
        assert house.gaps["a/m"].total == pytest.approx(2.0)

    heard = told(scene)
    assert kinds(heard) == [CallAccepted, AttemptBegan, FirstOutput, AttemptEnded, StreamEnded]
    accepted, began, _, ended, over = heard
    assert (accepted.subject.model, accepted.subject.principal) == ("m", "me")
    assert accepted.subject.request_id == "req_1"
    assert (began.number, began.reason, began.target, began.provider) == (1, "first", "a/m", "a")
    assert (ended.code, ended.led, ended.usage) == ("", True, UsageReported(3, 4))
    assert (ended.response_model, ended.response_id, ended.finish_reasons) == ("m-2026", "x", ("stop",))
    assert ended.total_ms == pytest.approx(2000, abs=1)
    assert (over.outcome.status, over.target, over.usage) == ("completed", "a/m", UsageReported(3, 4))
    assert over.timing.max_gap_ms == pytest.approx(2000, abs=1)
    assert len({id(signal.subject) for signal in heard}) == 1


def test_every_attempt_says_why_it_was_made_and_how_it_failed():
    async def scene(house):
        stream, source = await house.begin()
        source.sink.fail(upstream_reset("a"))  # nothing was shown: the other target
        await turns(20)
        house.b.sources[-1].say("hel")
        house.b.sources[-1].sink.fail(upstream_reset("b"))  # now something was
        await asyncio.sleep(10)
        again = house.a.sources[-1]
        again.say("lo")
        again.finish()
        await stream.wait_closed()

    heard = told(scene)
    began = [(one.number, one.reason, one.target) for one in only(heard, AttemptBegan)]
    assert began == [(1, "first", "a/m"), (2, "fallback", "b/m"), (3, "continuation", "a/m")]
    ended = [(one.number, one.code, one.led) for one in only(heard, AttemptEnded)]
    assert ended == [(1, "upstream_reset", False), (2, "upstream_reset", True), (3, "", True)]
    assert [one.number for one in only(heard, FirstOutput)] == [2]


def test_an_attempt_that_is_cut_off_by_a_stop_has_ended_before_its_run_has():
    async def scene(house):
        stream, source = await house.begin()
        source.say("hel")
        await house.cancel(stream.id, ME)

    heard = told(scene)
    assert kinds(heard)[-2:] == [AttemptEnded, StreamEnded]
    assert heard[-2].code == heard[-1].outcome.code == "cancelled"
    assert heard[-1].fault == "client"


def test_a_rival_and_the_one_that_was_slower_are_told_apart():
    async def scene(house):
        trial = house.health.of("a/m").begin()
        await asyncio.sleep(1)
        trial.output()
        trial.end()
        stream, slow = await house.begin()
        await asyncio.sleep(2)
        house.b.sources[-1].say("quick")
        house.b.sources[-1].finish()
        await stream.wait_closed()
        await turns()
        assert "abort" in slow.asked

    heard = told(scene, hedged=("m",))
    assert [one.reason for one in only(heard, AttemptBegan)] == ["first", "hedge"]
    assert {one.reason: one.code for one in only(heard, AttemptEnded)} == {"first": "superseded", "hedge": ""}


def test_a_refused_call_is_told_with_its_code():
    async def scene(house):
        with pytest.raises(ClientError):
            await house.start(
                msgspec.structs.replace(call(), request=msgspec.structs.replace(call().request, model="x"))
            )

    (refused,) = told(scene)
    assert (refused.code, refused.status, refused.fault) == ("model_not_found", 404, "client")
    assert (refused.subject.stream, refused.subject.model) == ("", "x")


def test_a_call_that_is_answered_by_a_stream_that_there_is_has_no_run():
    async def scene(house):
        stream, source = await house.begin(idempotency_key="k")
        again = await house.start(call(idempotency_key="k"))
        assert again.stream is stream
        source.say("x")
        source.finish()
        await stream.wait_closed()

    heard = told(scene)
    assert [one.existing for one in only(heard, CallAccepted)] == [False, True]
    assert len(only(heard, StreamEnded)) == 1


def test_readers_are_told_in_pairs_whosever_they_are():
    async def scene(house):
        stream, source = await house.begin()
        one = house.attach_reader(stream, ME)
        other = house.attach_reader(stream, Principal("admin", admin=True))
        one()
        source.say("x")
        source.finish()
        await stream.wait_closed()
        other()

    heard = told(scene)
    joined, left = only(heard, ReaderJoined), only(heard, ReaderLeft)
    assert [one.reader for one in joined] == [one.reader for one in left] == [1, 2]
    assert [one.principal for one in joined] == ["me", "admin"]


def test_a_breaker_that_opens_and_closes_is_told():
    async def scene(house):
        for good in (False, False, False, True):
            await asyncio.sleep(60)
            trial = house.health.of("a/m").begin()
            trial.output() if good else trial.fail()
            trial.end()

    heard = told(scene, health=HealthSettings(failures=2))
    assert heard == [BreakerChanged("a/m", "open"), BreakerChanged("a/m", "closed")]


def test_no_signal_holds_what_was_asked_or_said():
    async def scene(house):
        house.a.next = [HandSource(), HandSource()]
        stream, source = await house.begin(SECRET)
        source.say(SECRET)
        source.finish()
        await stream.wait_closed()

    heard = told(scene)
    assert len(heard) == 5
    assert SECRET not in msgspec.json.encode(heard).decode()


def test_two_outputs_in_one_instant_have_no_gap():
    meter = Meter(1.0)
    meter.gaps = Buckets()
    for now in (2.0, 2.0, 2.5):
        meter.output(now)
    assert (meter.gaps.count, meter.gaps.total) == (1, 0.5)


def test_without_an_observer_nothing_is_counted():
    async def main():
        async with House(HandStore()) as house:
            stream, source = await house.begin()
            source.say("a")
            await asyncio.sleep(1)
            source.say("b")
            source.finish()
            await stream.wait_closed()
            assert house.gaps == {}

    run_virtually(main())
