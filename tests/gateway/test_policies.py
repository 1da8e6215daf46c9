"""What the gateway owes to policies: asked before a stream is made, settled in every ending."""

import asyncio

import pytest
from structlog.testing import capture_logs

from penstock.policies.policy import Admission, FilterStop
from penstock.streams.store import StoreFailure
from penstock.types.errors import ClientError, StorageError, UpstreamError
from penstock.types.events import Closed, Finished, TextDelta, UsageReported
from penstock.types.outcomes import UNSTARTED
from penstock.types.timers import Timers
from tests.gateway.hand import BROKEN, ME, STARTED, HandStore, House, call, logged, texts, turns
from tests.policies.test_chain import REFUSAL, Replacing
from tests.virtual_time import run_virtually


class Recording:
    """A policy that keeps outcomes, and whose door can be shut."""

    def __init__(self, filter=None):
        self.outcomes = []
        self.open = asyncio.Event()
        self.open.set()
        self.refusal = None
        self.own = filter
        self.admitted = 0

    async def admit(self, call):
        await self.open.wait()
        if self.refusal is not None:
            raise self.refusal
        self.admitted += 1
        return Admission(call, self.outcomes.append)

    def filter(self, call):
        return self.own


@pytest.fixture(autouse=True)
def _quiet():
    """A trace on a terminal reads files, which may not be done in a loop."""
    with capture_logs():
        yield


@pytest.fixture
def policy():
    return Recording()


@pytest.fixture
async def house(policy):
    async with House(policy=policy) as house:
        yield house


async def test_a_whole_answer_is_settled_with_what_was_reported(house, policy):
    stream, source = await house.begin()
    source.sink.feed([STARTED])
    source.say("hello")
    assert not policy.outcomes
    source.sink.feed([UsageReported(input_tokens=3, output_tokens=2)])
    source.finish()
    await stream.wait_closed()
    (outcome,) = policy.outcomes
    assert (outcome.status, outcome.stream, outcome.code) == ("completed", stream.id, "")
    (use,) = outcome.attempts
    assert (use.target, use.usage) == ("a/m", UsageReported(input_tokens=3, output_tokens=2))


async def test_what_nobody_reported_is_estimated_and_marked(house, policy):
    stream, source = await house.begin("x" * 400)
    source.say("y" * 80)
    await house.cancel(stream.id, ME)
    (outcome,) = policy.outcomes
    assert (outcome.status, outcome.code) == ("cancelled", "cancelled")
    usage = outcome.attempts[0].usage
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (104, 20, True)


async def test_an_attempt_that_was_refused_is_free_and_stands_beside_the_one_that_was_not(house, policy):
    stream, source = await house.begin()
    refusal = UpstreamError("No.", code="upstream_error", retryable=False, upstream_status=500)
    source.sink.fail(refusal)
    await turns()
    other = house.b.sources[-1]
    other.say("hello")
    other.finish()
    await stream.wait_closed()
    first, second = policy.outcomes[0].attempts
    assert (first.target, first.code, first.usage) == ("a/m", "upstream_error", UsageReported())
    assert (second.target, second.usage.estimated, second.usage.output_tokens) == ("b/m", True, 2)


async def test_a_slot_is_free_in_the_step_in_which_the_answer_ends(house, policy):
    _, source = await house.begin()
    source.say("hello")
    source.finish()
    await asyncio.sleep(0)  # the run's own step; nothing is committed yet
    assert len(policy.outcomes) == 1


@pytest.mark.parametrize("ending", ["fails", "expires", "shut down", "deserted", "lost", "crashed"])
async def test_every_other_ending_is_settled_too(ending, loop_errors):
    policy = Recording()
    store = HandStore()
    async with House(store, policy=policy, target={"continuation": "none"}) as house:
        stream, source = await house.begin(on_disconnect="cancel")
        source.say("hello")
        match ending:
            case "fails":
                source.sink.fail(BROKEN)
            case "expires":
                house._runs[stream.id]._expire(1.0)
            case "deserted":
                house.attach_reader(stream, ME)()
            case "lost":
                store.failing = StoreFailure("gone", True)
                store.commit()
                store.failing = None
            case "crashed":
                source.sink.feed(ValueError("a bug of ours"))
        await turns(10)
        assert len(policy.outcomes) == (ending != "shut down")
    expected = {"fails": "failed", "expires": "expired", "shut down": "interrupted", "deserted": "cancelled"}
    expected |= {"lost": "lost", "crashed": "failed"}
    assert [outcome.status for outcome in policy.outcomes] == [expected[ending]]


async def test_a_refused_call_makes_no_stream(house, policy):
    policy.refusal = REFUSAL
    with pytest.raises(ClientError):
        await house.start(call())
    assert (house.open_streams, house.store.infos, policy.outcomes) == (0, {}, [])


async def test_a_call_that_is_let_in_and_cannot_be_stored_is_settled(house, policy):
    house.store.failing = StoreFailure("disk full", True)
    with pytest.raises(StorageError):
        await house.start(call())
    assert policy.outcomes == [UNSTARTED]


async def test_a_repeated_call_is_not_admitted_again(house, policy):
    first = await house.start(call(idempotency_key="k"))
    again = await house.start(call(idempotency_key="k"))
    assert again.existing
    assert again.stream is first.stream
    assert policy.admitted == 1


async def test_of_two_equal_calls_that_wait_at_the_door_one_is_let_in(house, policy):
    policy.open.clear()
    async with asyncio.TaskGroup() as group:
        one = group.create_task(house.start(call(join=True)))
        await turns()
        other = group.create_task(house.start(call(join=True)))
        await turns()
        policy.open.set()
    assert policy.admitted == 1
    assert one.result().stream is other.result().stream


async def test_who_waits_at_the_door_while_it_is_shut_for_good_is_told(house, policy):
    policy.open.clear()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(house.start(call()))
        await turns()
        waiting.cancel()
    assert house._streams == {}


# --- filters -----------------------------------------------------------------------------------------


async def test_what_is_stored_has_passed_the_filter():
    async with House(policy=Recording(Replacing("a", "b"))) as house:
        stream, source = await house.begin()
        source.say("aa", "x")
        await turns()
        assert texts(house.store, stream) == ["bb"]  # the last one is held back
        source.finish()
        await stream.wait_closed()
        assert texts(house.store, stream) == ["bb", "x"]
        assert type(logged(house.store, stream)[-2]) is Finished


async def test_what_is_held_back_is_shown_when_the_answer_is_cancelled():
    async with House(policy=Recording(Replacing("a", "b"))) as house:
        stream, source = await house.begin()
        source.say("a", "a")
        await house.cancel(stream.id, ME)
        assert texts(house.store, stream) == ["b", "b"]


@pytest.mark.parametrize("error", [None, REFUSAL])
async def test_a_filter_ends_the_answer_and_the_provider_is_left_at_once(error):
    policy = Recording(Replacing("a", "b", stop_at="!", error=error))
    async with House(policy=policy) as house:
        stream, source = await house.begin()
        source.say("a", "!", "never")
        assert source.asked[-1] == "abort"
        await stream.wait_closed()
        events = logged(house.store, stream)
        assert [type(event) for event in events] == [TextDelta, Finished, Closed]
        assert events[1].reason == "content_filter"
        assert (events[2].status, events[2].code) == (
            ("failed", "permission_denied") if error else ("completed", "")
        )
        assert [outcome.status for outcome in policy.outcomes] == [events[2].status]


async def test_a_filter_that_stops_with_the_last_words_is_heard(loop_errors):
    class Late(Replacing):
        def flush(self):
            raise FilterStop((), REFUSAL)

    async with House(policy=Recording(Late("a", "b"))) as house:
        stream, source = await house.begin()
        source.say("a")
        source.finish()
        await stream.wait_closed()
        assert stream.closing.code == "permission_denied"


async def test_a_bug_in_a_filter_shows_nothing_more_and_ends_the_stream():
    class Broken(Replacing):
        def feed(self, events):
            raise ZeroDivisionError

        def flush(self):
            raise ZeroDivisionError

    async with House(policy=Recording(Broken("a", "b"))) as house:
        stream, source = await house.begin()
        source.say("secret")
        await stream.wait_closed()
        assert [type(event) for event in logged(house.store, stream)] == [Closed]
        assert stream.closing.code == "internal_error"


class Masking:
    """A filter that blackens a word, and holds back a tail."""

    def __init__(self):
        self.held = ""

    def feed(self, events):
        shown = []
        for event in events:
            if type(event) is TextDelta:
                text = (self.held + event.delta).replace("secret", "******")
                at = max(0, len(text) - 6)
                self.held = text[at:]
                shown.append(TextDelta(text[:at]))
            else:
                shown.append(event)
        return shown

    def flush(self):
        held, self.held = self.held, ""
        return [TextDelta(held)] if held else []


async def test_another_model_goes_on_from_what_the_first_one_wrote_and_not_from_the_mask(house, policy):
    policy.own = Masking()
    stream, source = await house.begin()
    source.sink.feed([STARTED])
    source.say("the secret ", "is out")
    source.sink.fail(BROKEN)
    await turns(20)
    assert house.b.requests[-1].messages[1].content == "the secret is out"
    (other,) = house.b.sources
    other.say(" and about")
    other.finish()
    await stream.wait_closed()
    assert "".join(texts(house.store, stream)) == "the ****** is out and about"


class Holding:
    """A filter that shows nothing before the end."""

    def __init__(self):
        self.held = []

    def feed(self, events):
        self.held += events
        return ()

    def flush(self):
        held, self.held = self.held, []
        return held


def test_what_a_filter_holds_back_is_no_stall_of_the_provider():
    async def main():
        policy = Recording(Holding())
        timers = Timers(first_output=10, stall=10, total=0)
        async with House(policy=policy, timers=timers) as house:
            stream, source = await house.begin()
            for _ in range(12):
                await asyncio.sleep(8)
                source.say("word ")
            assert stream.committed == 0
            source.finish()
            await stream.wait_closed()
            assert "".join(texts(house.store, stream)) == "word " * 12
            stream, source = await house.begin("again")
            source.say("word ")
            await asyncio.sleep(11)  # this is one
            assert len(house.b.sources) == 1
            house.b.sources[0].finish()
            await stream.wait_closed()

    run_virtually(main())
