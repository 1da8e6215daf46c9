"""Runs: the gate, fallback, who may append, ending once, pressure and the store's trouble."""

import asyncio

import pytest
from structlog.testing import capture_logs

from penstock.gateway.attempt import LINGER, TAIL
from penstock.gateway.run import RunSettings
from penstock.types.errors import ClientError, UpstreamError, WireError, upstream_reset
from penstock.types.events import (
    Closed,
    Finished,
    ReasoningDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from penstock.types.timers import Timers
from tests.gateway.hand import (
    BROKEN,
    ME,
    STARTED,
    HandSource,
    HandStore,
    House,
    PatientDecoder,
    call,
    logged,
    texts,
    turns,
)
from tests.virtual_time import run_virtually


def played(scene, **settings):
    """Play ``scene`` with a house of its own, in virtual time."""

    async def main():
        store = HandStore()
        async with House(store, **settings) as house:
            await asyncio.wait_for(scene(house, store), 1_000_000)

    run_virtually(main())


def closing(store, stream):
    end = logged(store, stream)[-1]
    assert type(end) is Closed
    return end


# --- the gate ----------------------------------------------------------------------------------------


def test_nothing_is_in_the_log_before_there_is_output():
    async def scene(house, store):
        stream, source = await house.begin()
        source.sink.feed([STARTED])
        source.sink.feed([TextDelta(""), ReasoningDelta("")])
        source.sink.feed([UsageReported(1, 1)])
        await turns()
        assert stream.appended == 0
        source.say("now")
        await turns()
        assert [type(e) for e in logged(store, stream)][:2] == [Started, TextDelta]
        assert logged(store, stream)[0].provider == "a"
        source.finish()

    played(scene)


@pytest.mark.parametrize(
    "failure",
    [
        lambda s: s.sink.fail(upstream_reset("a")),
        lambda s: s.sink.end(),
        lambda s: s.sink.feed(BROKEN),
        lambda s: s.sink.feed(WireError("bad")),
        lambda s: [s.sink.feed([STARTED]) for _ in range(2000)],
    ],
    ids=["reset", "truncated", "in band", "malformed", "much and nothing"],
)
def test_a_failure_before_output_goes_to_the_next_target_unseen(failure):
    async def scene(house, store):
        stream, source = await house.begin()
        source.sink.feed([Started("first")])
        failure(source)
        await turns()
        assert source.asked == ["open", "abort"]
        second = house.b.sources[0]
        second.sink.feed([Started("second")])
        second.say("hi")
        second.finish()
        await stream.wait_closed()
        started, *_, end = logged(store, stream)
        assert (started.model, started.provider) == ("second", "b")
        assert (end.status, end.attempts, end.target) == ("completed", 2, "b/m")

    played(scene)


def test_a_failure_to_open_goes_to_the_next_target():
    async def scene(house, store):
        async def refuse(source):
            raise BROKEN

        house.a.next = [HandSource(refuse)]
        stream, source = await house.begin()
        assert source.asked == ["open", "abort"]
        house.b.sources[0].say("hi")
        house.b.sources[0].finish()
        await stream.wait_closed()
        assert closing(store, stream).status == "completed"

    played(scene)


@pytest.mark.parametrize(
    "error", [ClientError("no"), UpstreamError("no", code="content_filter", retryable=False)]
)
def test_a_refusal_of_the_request_itself_is_not_tried_elsewhere(error):
    async def scene(house, store):
        house.a.next = [error] if isinstance(error, ClientError) else []
        stream = (await house.start(call())).stream
        await turns()
        if house.a.sources:
            house.a.sources[0].sink.fail(error)
        await stream.wait_closed()
        assert house.b.sources == []
        assert closing(store, stream).code == error.code

    played(scene)


def test_a_failure_after_output_that_nobody_can_continue_ends_with_all_that_was_shown():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("one", "two")
        source.sink.fail(upstream_reset("a"))
        source.say("never")
        await stream.wait_closed()
        assert texts(store, stream) == ["one", "two"]
        end = closing(store, stream)
        assert (end.status, end.code, end.fault, end.entries) == ("failed", "upstream_reset", "upstream", 2)
        assert house.b.sources == []

    played(scene, target={"continuation": "none"})


def test_the_client_is_told_the_failure_of_the_target_that_was_meant_to_answer():
    async def scene(house, store):
        stream, source = await house.begin()
        source.sink.fail(UpstreamError("busy", code="rate_limit_exceeded", status=429, retry_after=60))
        await turns()
        house.b.sources[0].sink.fail(UpstreamError("key", code="invalid_api_key", retryable=False))
        await stream.wait_closed()
        end = closing(store, stream)
        assert (end.code, end.http_status, end.retry_after, end.attempts) == (
            "rate_limit_exceeded",
            429,
            60.0,
            2,
        )

    played(scene)


# --- retry -------------------------------------------------------------------------------------------


def test_targets_are_tried_again_after_pauses_and_not_for_ever():
    async def scene(house, store):
        loop = asyncio.get_running_loop()
        tried = []

        async def refuse(source):
            tried.append(loop.time())
            raise BROKEN

        house.a.next = [HandSource(refuse) for _ in range(9)]
        house.b.next = [HandSource(refuse) for _ in range(9)]
        stream = (await house.start(call())).stream
        await stream.wait_closed()
        assert len(tried) == 6
        assert tried[1] == tried[0]
        assert sum(at < 1.5 for at in tried) <= 4
        assert tried[-1] < 30
        assert closing(store, stream).attempts == 6

    played(scene)


def test_a_provider_s_wish_for_a_pause_is_heeded():
    async def scene(house, store):
        house.b.next = [UpstreamError("key", code="invalid_api_key", retryable=False)]
        stream, source = await house.begin()
        source.sink.fail(UpstreamError("busy", code="overloaded", status=503, retry_after=4))
        await asyncio.sleep(3.9)
        assert len(house.a.sources) == 1
        await asyncio.sleep(0.2)
        house.a.sources[1].say("hi")
        house.a.sources[1].finish()
        await stream.wait_closed()
        assert closing(store, stream).status == "completed"

    played(scene)


def test_a_run_that_is_cancelled_while_it_waits_tries_no_more():
    async def scene(house, store):
        house.b.next = [UpstreamError("key", code="invalid_api_key", retryable=False)]
        stream, source = await house.begin()
        source.sink.fail(UpstreamError("busy", code="overloaded", status=503, retry_after=4))
        await turns()
        await house.cancel(stream.id, ME)
        await asyncio.sleep(10)
        assert len(house.a.sources) == 1
        assert stream.state == "cancelled"

    played(scene)


def test_the_end_tells_where_the_time_went():
    async def scene(house, store):
        async def connect(source):
            await asyncio.sleep(0.5)

        house.b.next = [HandSource(connect)]
        stream, source = await house.begin()
        await asyncio.sleep(2)
        source.sink.fail(upstream_reset("a"))
        await asyncio.sleep(1.5)
        house.b.sources[0].say("hi")
        await asyncio.sleep(4)
        house.b.sources[0].finish()
        await stream.wait_closed()
        timing = closing(store, stream).timing
        assert (timing.failed_ms, timing.connect_ms, timing.wait_ms) == (2000, 500, 1000)
        assert (timing.first_output_ms, timing.total_ms) == (3500, 7500)

    played(scene)


def test_a_model_that_broke_off_while_it_thought_is_followed_by_another_s_answer():
    async def scene(house, store):
        stream, source = await house.begin()
        source.sink.feed([STARTED, ReasoningDelta("let me")])
        source.sink.fail(upstream_reset("a"))
        await turns(10)
        assert house.b.requests == house.a.requests
        (other,) = house.b.sources
        other.sink.feed([STARTED, ReasoningDelta("other thoughts"), TextDelta("4")])
        other.finish()
        await stream.wait_closed()
        kinds = [type(event) for event in logged(store, stream)]
        assert kinds == [Started, ReasoningDelta, Seam, TextDelta, Finished, Closed]

    played(scene)


@pytest.mark.parametrize("fault", ["reset", "error", "silence", "end"])
def test_nothing_that_happens_after_the_finish_takes_the_answer_back(fault):
    async def scene(house, store):
        house.a.decoder = PatientDecoder
        stream, source = await house.begin()
        source.sink.feed([STARTED, TextDelta("hi"), Finished("stop")])
        await turns()
        assert stream.is_open
        match fault:
            case "reset":
                source.sink.fail(upstream_reset("a"))
            case "error":
                source.sink.feed(BROKEN)
            case "end":
                source.sink.end()
            case "silence":
                await asyncio.sleep(TAIL + 0.1)
        await stream.wait_closed()
        end = closing(store, stream)
        assert (end.status, end.code, end.attempts) == ("completed", "", 1)
        assert "abort" in source.asked or fault == "end"
        assert not house.b.sources

    played(scene)


def test_one_choice_of_two_is_not_the_whole_answer():
    async def scene(house, store):
        house.a.decoder = PatientDecoder
        stream = (await house.start(call(n=2))).stream
        await turns()
        source = house.a.sources[-1]
        source.sink.feed([STARTED, TextDelta("a"), TextDelta("b", index=1), Finished("stop")])
        source.sink.fail(upstream_reset("a"))
        await stream.wait_closed()
        assert closing(store, stream).code == "upstream_reset"

    played(scene)


def test_several_attempts_are_told_apart_in_the_end():
    async def scene(house, store):
        stream, source = await house.begin()
        await asyncio.sleep(1)
        source.sink.feed([STARTED, UsageReported(5, 0), TextDelta("x" * 40)])
        await asyncio.sleep(1)
        source.sink.fail(upstream_reset("a"))
        await asyncio.sleep(2)
        house.b.sources[0].sink.feed([TextDelta("y"), UsageReported(15, 1)])
        house.b.sources[0].finish()
        await stream.wait_closed()
        end = closing(store, stream)
        assert end.usage == UsageReported(15, 1)
        one, two = end.history
        assert (one.target, one.code, one.began_ms, one.wait_ms, one.ended_ms) == (
            "a/m", "upstream_reset", 0, 1000, 2000,
        )  # fmt: skip
        assert one.usage == UsageReported(5, 10, estimated=True)
        assert (two.target, two.code, two.began_ms, two.wait_ms, two.ended_ms) == (
            "b/m", "", 2000, 2000, 4000,
        )  # fmt: skip
        assert two.usage == UsageReported(15, 1)

    played(scene)


def test_a_single_attempt_has_no_history_and_one_that_was_cancelled_says_so():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("hi")
        source.finish()
        await stream.wait_closed()
        assert closing(store, stream).history == ()
        stream, source = await house.begin()
        source.sink.fail(upstream_reset("a"))
        await turns(10)
        await house.cancel(stream.id, ME)
        assert [report.code for report in closing(store, stream).history] == ["upstream_reset", "cancelled"]

    played(scene)


# --- timers ------------------------------------------------------------------------------------------


def timed(**timers):
    return Timers(**{"first_output": 0, "stall": 0, "total": 0, **timers})


def test_a_provider_that_begins_no_answer_is_left_for_the_next():
    async def scene(house, store):
        stream, source = await house.begin()
        await asyncio.sleep(5)
        source.sink.feed([STARTED])  # a role is no output
        await asyncio.sleep(4.9)
        assert not house.b.sources
        await asyncio.sleep(0.2)
        assert "abort" in source.asked
        house.b.sources[0].say("hi")
        house.b.sources[0].finish()
        await stream.wait_closed()
        assert closing(store, stream).status == "completed"

    played(scene, timers=timed(first_output=10))


@pytest.mark.parametrize("idle", [STARTED, TextDelta(""), UsageReported(1, 1)])
def test_a_provider_that_falls_silent_has_stalled_whatever_else_it_sends(idle):
    async def scene(house, store):
        stream, source = await house.begin()
        for _ in range(3):
            await asyncio.sleep(9)
            source.say("word ")
        for _ in range(9):
            await asyncio.sleep(1)
            source.sink.feed([idle])
        assert "abort" not in source.asked
        await asyncio.sleep(1.1)
        await stream.wait_closed()
        end = closing(store, stream)
        assert (end.code, end.http_status, end.status) == ("upstream_stalled", 504, "failed")

    played(scene, timers=timed(stall=10), target={"continuation": "none"})


def test_a_provider_that_we_hold_back_is_not_blamed():
    async def scene(house, store):
        _, source = await house.begin()
        store.by_itself = False
        source.say("x" * 2000)
        await asyncio.sleep(60)
        assert "abort" not in source.asked
        store.by_itself = True
        store.commit()
        await asyncio.sleep(9)
        assert "abort" not in source.asked
        await asyncio.sleep(12)
        assert "abort" in source.asked

    settings = RunSettings(high_water=1000, low_water=100)
    played(scene, timers=timed(stall=10), run=settings, target={"continuation": "none"})


def test_a_provider_that_trickles_is_too_slow():
    async def scene(house, store):
        stream, source = await house.begin()
        for _ in range(20):
            source.say("x" * 50)
            await asyncio.sleep(1)
        assert "abort" not in source.asked
        for _ in range(25):
            source.say("x")
            await asyncio.sleep(1)
        assert closing(store, stream).code == "upstream_slow"

    played(scene, timers=timed(min_rate=10, window=10), target={"continuation": "none"})


def test_a_generation_whose_time_is_up_expires():
    async def scene(house, store):
        stream, source = await house.begin()
        for _ in range(10):
            source.say("word ")
            await asyncio.sleep(5.9)
        assert stream.is_open
        await asyncio.sleep(1.1)
        assert "abort" in source.asked
        end = closing(store, stream)
        assert (end.status, end.code) == ("expired", "generation_timeout")

    played(scene, timers=timed(total=60))


def test_timers_are_gone_with_their_run():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("hi")
        source.finish()
        await stream.wait_closed()
        await asyncio.sleep(10_000)
        assert stream.state == "completed"

    played(scene, timers=Timers())


# --- continuation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["prefill", "prompt"])
def test_an_answer_that_broke_off_is_continued_by_the_next_target(mode):
    async def scene(house, store):
        stream, source = await house.begin()
        source.sink.feed([Started("first")])
        source.say("one ", "two ")
        source.sink.fail(upstream_reset("a"))
        await asyncio.sleep(0.1)
        second = house.b.sources[0]
        asked = house.b.requests[0].messages
        assert [message.role for message in asked] == ["user", "assistant", "user"][
            : 2 if mode == "prefill" else 3
        ]
        assert asked[1].content.strip() == "one two"
        second.sink.feed([Started("second"), ReasoningDelta("how to go on")])
        second.say("three")
        second.finish()
        await stream.wait_closed()
        assert "".join(texts(store, stream)) == "one two three"
        end = closing(store, stream)
        assert (end.status, end.attempts, end.target) == ("completed", 2, "b/m")
        seams = [event for event in logged(store, stream) if type(event) is Seam]
        assert seams == [Seam("b/m", mode, "upstream_reset")]

    played(scene, target={"continuation": mode})


@pytest.mark.parametrize(
    "event", [ToolCallDelta(0, "{", "id", "name"), TextDelta("x", 1), TextDelta("x", logprobs=[1])]
)
def test_what_cannot_be_sewn_ends_honestly(event):
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("one ")
        source.sink.feed([event])
        source.sink.fail(upstream_reset("a"))
        await stream.wait_closed()
        assert closing(store, stream).code == "upstream_reset"
        assert house.b.sources == []

    played(scene)


def test_when_nobody_can_go_on_the_client_is_told_what_broke_the_answer():
    async def scene(house, store):
        house.b.next = [ClientError("a prefill is not possible here")]
        stream, source = await house.begin()
        source.say("one ")
        source.sink.fail(upstream_reset("a"))
        await stream.wait_closed()
        end = closing(store, stream)
        assert (end.code, end.message) == ("upstream_reset", upstream_reset("a").message)

    played(scene)


def test_a_continuation_may_break_and_be_continued():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("one ")
        source.sink.fail(upstream_reset("a"))
        await asyncio.sleep(0.1)
        house.b.sources[0].say("two ", "and ")
        house.b.sources[0].sink.fail(upstream_reset("b"))
        await asyncio.sleep(0.1)
        assert house.a.requests[1].messages[1].content == "one two and "
        house.a.sources[1].say("three")
        house.a.sources[1].finish()
        await stream.wait_closed()
        assert "".join(texts(store, stream)) == "one two and three"

    played(scene)


# --- health ------------------------------------------------------------------------------------------


def test_a_target_that_keeps_failing_is_passed_over_and_taken_back():
    async def scene(house, store):
        async def refuse(source):
            raise BROKEN

        async def one():
            before = len(house.a.sources)
            stream = (await house.start(call(str(asyncio.get_running_loop().time())))).stream
            await asyncio.sleep(0.1)
            primary = len(house.a.sources) > before
            source = next(source for source in [*house.b.sources, *house.a.sources] if source.talks)
            source.say("hi")
            source.finish()
            await stream.wait_closed()
            return primary

        house.a.next = [HandSource(refuse) for _ in range(5)]
        assert [await one() for _ in range(5)] == [True] * 5
        assert not await one()
        await asyncio.sleep(2)
        assert await one()
        assert await one()

    played(scene)


def test_an_attempt_that_was_given_up_appends_nothing_more():
    async def scene(house, store):
        stream, first = await house.begin()
        first.sink.fail(upstream_reset("a"))
        await turns()
        house.b.sources[0].say("b")
        first.say("late")
        first.sink.end()
        house.b.sources[0].finish()
        await stream.wait_closed()
        assert texts(store, stream) == ["b"]

    played(scene)


def test_an_answer_without_a_word_is_whole():
    async def scene(house, store):
        stream, source = await house.begin()
        source.sink.feed([STARTED, Finished("stop")])
        source.sink.end()
        await stream.wait_closed()
        assert [type(e) for e in logged(store, stream)] == [Started, Finished, Closed]

    played(scene)


@pytest.mark.parametrize("outage", [5, 90])
def test_calls_are_served_all_through_an_outage_and_the_primary_is_back_soon_after_it(outage):
    async def scene(house, store):
        loop = asyncio.get_running_loop()
        back_at = loop.time() + outage

        async def refuse_or_answer(source):
            if loop.time() < back_at:
                raise BROKEN
            loop.call_soon(source.say, "a")
            loop.call_soon(source.finish)

        async def answer(source):
            loop.call_soon(source.say, "b")
            loop.call_soon(source.finish)

        house.a.next = [HandSource(refuse_or_answer) for _ in range(10_000)]
        house.b.next = [HandSource(answer) for _ in range(10_000)]
        served = []
        while loop.time() < back_at + 60:
            stream = (await house.start(call(str(loop.time())))).stream
            await stream.wait_closed()
            assert stream.state == "completed"
            served.append((loop.time(), texts(store, stream)[0]))
            await asyncio.sleep(0.5)
        assert {by for at, by in served if at < back_at} == {"b"}
        assert {by for at, by in served if at > back_at + 30} == {"a"}
        refused = sum(source.asked[:1] == ["open"] for source in house.a.sources) - [
            by for _, by in served
        ].count("a")
        assert refused <= 5 + 5 + outage / 15  # the primary is not hammered while it is down

    played(scene)


def test_a_primary_that_comes_and_goes_is_used_while_it_is_there():
    """Up for 40 s, down for 20 s, five times: nobody notices, and it is back within 30 s each time."""

    async def scene(house, store):
        loop = asyncio.get_running_loop()
        start = loop.time()

        def up(at):
            return (at - start) % 60 < 40

        async def refuse_or_answer(source):
            if not up(loop.time()):
                raise BROKEN
            loop.call_soon(source.say, "a")
            loop.call_soon(source.finish)

        async def answer(source):
            loop.call_soon(source.say, "b")
            loop.call_soon(source.finish)

        house.a.next = [HandSource(refuse_or_answer) for _ in range(10_000)]
        house.b.next = [HandSource(answer) for _ in range(10_000)]
        while loop.time() < start + 300:
            at = loop.time()
            stream = (await house.start(call(str(at)))).stream
            await stream.wait_closed()
            assert stream.state == "completed"
            if not up(at):
                assert texts(store, stream) == ["b"]
            elif (at - start) % 60 > 30:
                assert texts(store, stream) == ["a"]
            await asyncio.sleep(0.5)

    played(scene)


# --- hedging -----------------------------------------------------------------------------------------


async def usual(house, seconds=1.0):
    """Let target ``a`` have begun all its answers after so many seconds."""
    stream, source = await house.begin()
    await asyncio.sleep(seconds)
    source.say("hi")
    source.finish()
    await stream.wait_closed()


@pytest.mark.parametrize("winner", ["a", "b"])
def test_a_target_that_is_slower_than_mostly_gets_a_rival_and_the_first_with_output_leads(winner):
    async def scene(house, store):
        await usual(house)
        stream, source = await house.begin("again")
        await asyncio.sleep(0.9)
        assert not house.b.sources
        await asyncio.sleep(0.2)
        rivals = {"a": source, "b": house.b.sources[0]}
        loser = rivals[{"a": "b", "b": "a"}[winner]]
        rivals[winner].say("won")
        await turns()
        assert "abort" in loser.asked
        loser.say("late")
        rivals[winner].finish()
        await stream.wait_closed()
        assert texts(store, stream) == ["won"]
        end = closing(store, stream)
        assert (end.status, end.attempts, end.target) == ("completed", 2, f"{winner}/m")

    played(scene, hedged=["m"])


def test_a_rival_that_fails_costs_nothing():
    async def scene(house, store):
        await usual(house)
        stream, source = await house.begin("again")
        await asyncio.sleep(1.1)
        house.b.sources[0].sink.fail(upstream_reset("b"))
        await asyncio.sleep(5)
        source.say("slow")
        source.finish()
        await stream.wait_closed()
        assert texts(store, stream) == ["slow"]

    played(scene, hedged=["m"])


def test_when_both_fail_the_call_goes_on_as_usual():
    async def scene(house, store):
        await usual(house)
        stream, source = await house.begin("again")
        await asyncio.sleep(1.1)
        source.sink.fail(upstream_reset("a"))
        house.b.sources[0].sink.fail(upstream_reset("b"))
        await asyncio.sleep(1)
        source = next(source for source in [*house.a.sources, *house.b.sources] if source.talks)
        source.say("hi")
        source.finish()
        await stream.wait_closed()
        assert closing(store, stream).status == "completed"

    played(scene, hedged=["m"])


def test_cancelling_a_race_leaves_nobody_running():
    async def scene(house, store):
        await usual(house)
        stream, source = await house.begin("again")
        await asyncio.sleep(1.1)
        await house.cancel(stream.id, ME)
        await turns()
        assert "abort" in source.asked
        assert "abort" in house.b.sources[0].asked
        assert house.open_streams == 0
        assert [house.health.of(name).running for name in ("a/m", "b/m")] == [0, 0]

    played(scene, hedged=["m"])


def test_without_the_setting_or_without_experience_there_is_no_rival():
    async def scene(house, store):
        _, source = await house.begin()
        await asyncio.sleep(100)
        assert not house.b.sources
        source.say("hi")
        source.finish()

    played(scene, hedged=["m"])
    played(scene)


# --- what goes wrong inside --------------------------------------------------------------------------


def test_malformed_bytes_after_events_do_not_take_them_back():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("shown")
        source.sink.feed(WireError("bad"))
        await stream.wait_closed()
        assert texts(store, stream) == ["shown"]
        assert closing(store, stream).code == "upstream_malformed"

    played(scene, target={"continuation": "none"})


def test_a_bug_in_decoding_ends_its_run_alone_and_tells_nothing_of_itself():
    async def scene(house, store):
        stream, source = await house.begin()
        other, unharmed = await house.begin(content="other")
        source.sink.feed(RuntimeError("secret detail"))
        await stream.wait_closed()
        end = closing(store, stream)
        assert (end.status, end.code, end.fault) == ("failed", "internal_error", "gateway")
        assert "secret" not in end.message
        assert "abort" in source.asked
        unharmed.say("fine")
        unharmed.finish()
        await other.wait_closed()
        assert other.state == "completed"

    with capture_logs() as logs:
        played(scene)
    assert "run_crashed" in {entry["event"] for entry in logs}


def test_a_bug_in_opening_is_not_tried_elsewhere():
    async def scene(house, store):
        async def crash(source):
            raise RuntimeError("bug")

        house.a.next = [HandSource(crash)]
        stream, source = await house.begin()
        await stream.wait_closed()
        assert closing(store, stream).code == "internal_error"
        assert source.asked == ["open", "abort"]
        assert house.b.sources == []

    with capture_logs():
        played(scene)


def test_a_source_may_deliver_everything_while_it_is_opened():
    async def scene(house, store):
        async def at_once(source):
            source.say("all")
            source.finish()

        house.a.next = [HandSource(at_once)]
        stream, _source = await house.begin()
        await stream.wait_closed()
        assert texts(store, stream) == ["all"]
        assert closing(store, stream).status == "completed"

    played(scene)


def test_an_end_that_comes_twice_and_events_after_it_change_nothing():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("one")
        source.finish()
        source.sink.end()
        source.sink.fail(BROKEN)
        source.say("late")
        await stream.wait_closed()
        source.say("later")
        source.sink.end()
        assert texts(store, stream) == ["one"]
        assert closing(store, stream).status == "completed"
        assert stream.appended == 3

    played(scene)


# --- stopping ----------------------------------------------------------------------------------------


def test_cancel_closes_the_provider_s_socket_before_it_waits_for_anything():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("one")
        store.by_itself = False
        run = house._runs[stream.id]
        run.cancel()
        assert source.asked == ["open", "abort"]
        source.say("late")
        store.by_itself = True
        store.commit()
        await stream.wait_closed()
        end = closing(store, stream)
        assert (texts(store, stream), end.status, end.code) == (["one"], "cancelled", "cancelled")
        await turns()
        assert source.asked == ["open", "abort"]

    played(scene)


def test_cancel_before_the_task_s_first_step_leaves_nothing_behind():
    async def scene(house, store):
        from_start = await house.start(call())
        stream = from_start.stream
        house._runs[stream.id].cancel()
        await stream.wait_closed()
        await turns()
        assert stream.state == "cancelled"
        assert house.a.sources == []
        assert house.open_streams == 0
        assert house._streams == {}

    played(scene)


def test_cancel_while_connecting_aborts_the_connection():
    async def scene(house, store):
        async def never(source):
            await asyncio.Event().wait()

        house.a.next = [HandSource(never)]
        stream, source = await house.begin()
        house._runs[stream.id].cancel()
        assert source.asked == ["open", "abort"]
        await stream.wait_closed()
        await turns()
        assert house.b.sources == []
        assert house.open_streams == 0

    played(scene)


def test_a_finished_answer_s_connection_may_linger_and_is_then_aborted():
    async def scene(house, store):
        stream, source = await house.begin()
        source.sink.feed([TextDelta("hi"), Finished("stop")])
        await stream.wait_closed()
        assert stream.state == "completed"
        assert source.asked == ["open"]
        await asyncio.sleep(LINGER + 0.1)
        assert source.asked == ["open", "abort"]

    played(scene)


def test_a_connection_that_ends_in_time_is_left_to_be_used_again():
    async def scene(house, store):
        _stream, source = await house.begin()
        source.sink.feed([TextDelta("hi"), Finished("stop")])
        source.sink.end()
        await asyncio.sleep(10 * LINGER)
        assert source.asked == ["open"]

    played(scene)


# --- bounds and pressure -----------------------------------------------------------------------------


def test_a_long_delta_is_split_and_loses_nothing():
    async def scene(house, store):
        stream, source = await house.begin()
        text = "x" * 100_000 + "é"
        source.say(text)
        source.finish()
        await stream.wait_closed()
        assert len(texts(store, stream)) == 3
        assert "".join(texts(store, stream)) == text

    played(scene)


def test_an_answer_beyond_the_bound_is_ended_honestly():
    async def scene(house, store):
        stream, source = await house.begin()
        for _ in range(20):
            source.say("x" * 1000)
        await stream.wait_closed()
        assert closing(store, stream).code == "stream_too_large"
        assert len(texts(store, stream)) < 12
        assert "abort" in source.asked

    played(scene, run=RunSettings(max_stream_bytes=10_000))


def test_the_provider_is_paused_while_much_waits_to_be_committed():
    async def scene(house, store):
        stream, source = await house.begin()
        store.by_itself = False
        for _ in range(10):
            source.say("x" * 300)
        assert source.asked == ["open", "pause"]
        store.commit()
        assert source.asked == ["open", "pause", "resume"]
        for _ in range(10):
            source.say("x" * 300)
        assert source.asked[3:] == ["pause"]
        store.commit()
        assert source.asked[3:] == ["pause", "resume"]
        store.by_itself = True
        source.finish()
        await stream.wait_closed()
        assert len(texts(store, stream)) == 20

    played(scene, run=RunSettings(high_water=2000, low_water=1000))


def test_the_store_s_trouble_pauses_the_provider_until_it_is_over():
    async def scene(house, store):
        stream, source = await house.begin()
        store.by_itself = False
        source.say("one")
        store.fail(final=False)
        assert source.asked == ["open", "pause"]
        store.fail(final=False)
        assert source.asked == ["open", "pause"]
        assert stream.committed == 0
        store.recover()
        assert source.asked == ["open", "pause", "resume"]
        store.by_itself = True
        source.finish()
        await stream.wait_closed()
        assert stream.state == "completed"

    played(scene)


def test_a_store_that_gave_up_loses_the_stream_without_an_end():
    async def scene(house, store):
        stream, source = await house.begin()
        store.by_itself = False
        source.say("one")
        seen = []
        stream.follow(seen.append)
        store.fail(final=True)
        assert source.asked == ["open", "abort"]
        assert stream.lost
        assert [list(batch) for batch in seen] == [[]]
        source.say("late")
        await turns()
        assert stream.committed == 0
        assert house.open_streams == 0
        assert house._streams == {}

    played(scene)


def test_a_store_that_gives_up_after_the_end_was_written_loses_the_stream_too():
    async def scene(house, store):
        stream, source = await house.begin()
        store.by_itself = False
        source.say("one")
        source.finish()
        await turns()
        assert house.open_streams == 0
        assert stream.id in house._streams
        store.fail(final=True)
        assert stream.lost
        assert house._streams == {}

    played(scene)
