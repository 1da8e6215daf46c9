"""An answer under review: what is shown before a word is said, what after, and how it ends."""

import asyncio

import pytest
from structlog.testing import capture_logs

from penstock.policies.policy import FilterStop
from penstock.policies.review import MAX_WINDOW, ModerationFailed, Review, ReviewSettings, Verdict
from penstock.types.events import Closed, Finished, TextDelta, UsageReported
from penstock.types.signals import ContentMatched
from penstock.types.timers import Timers
from tests.gateway.hand import BROKEN, ME, STARTED, House, logged, texts, turns
from tests.gateway.test_policies import Recording
from tests.virtual_time import run_virtually

GOOD, BAD = Verdict(flagged=False), Verdict(flagged=True, reason="violence")


class Asked:
    """A moderator whose word comes when the test says so; each question waits for one."""

    def __init__(self):
        self.passages = []
        self.words = asyncio.Queue()
        self.by_itself = None
        self.seen = []

    async def __call__(self, passage):
        self.passages.append(passage)
        word = self.by_itself or await self.words.get()
        if isinstance(word, Exception):
            raise word
        return word

    @property
    def texts(self):
        return [passage.text for passage in self.passages]


@pytest.fixture(autouse=True)
def _quiet():
    with capture_logs() as logs:
        yield logs


def reviewed(test, *, policy=None, timers=None, target=None, **settings):
    """Run ``test(house, asked)`` in virtual time, with every answer under review."""
    settings = ReviewSettings(**{"window": 10, "overlap": 4, **settings})

    async def main():
        asked = Asked()

        def review(call):
            seen = asked.seen.append
            return Review(
                "house", asked, settings, model=call.request.model, ids={"request_id": "r1"}, observe=seen
            )

        more = {"target": target or {}} if timers is None else {"timers": timers}
        async with House(policy=policy, review=review, **more) as house:
            await test(house, asked)
            if asked.by_itself is None:
                asked.by_itself = GOOD

    run_virtually(main())


def end(house, stream):
    closed = logged(house.store, stream)[-1]
    assert type(closed) is Closed
    return closed.status, closed.code


def finishes(house, stream):
    return [(event.reason, event.raw) for event in logged(house.store, stream) if type(event) is Finished]


def test_nothing_is_shown_before_it_was_found_good():
    async def test(house, asked):
        stream, source = await house.begin()
        source.sink.feed([STARTED])
        source.say("hello ", "world")
        await turns()
        assert texts(house.store, stream) == []
        assert asked.texts == ["hello world"]
        source.say(", and you")
        asked.words.put_nowait(GOOD)
        await turns()
        assert texts(house.store, stream) == ["hello ", "world"]
        asked.words.put_nowait(GOOD)
        source.finish()
        await stream.wait_closed()
        assert [(p.context, p.text) for p in asked.passages[1:]] == [("orld", ", and you")]
        assert end(house, stream) == ("completed", "")
        assert finishes(house, stream) == [("stop", "")]

    reviewed(test)


def test_text_that_fills_no_window_does_not_wait_for_ever():
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("a")
        await asyncio.sleep(0.9)
        assert asked.texts == []
        await asyncio.sleep(0.2)
        assert asked.texts == ["a"]
        asked.words.put_nowait(GOOD)
        await turns()
        assert texts(house.store, stream) == ["a"]
        asked.by_itself = GOOD
        source.finish()
        await stream.wait_closed()

    reviewed(test)


def test_a_block_ends_the_answer_before_what_was_found():
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("all is well")
        asked.words.put_nowait(GOOD)
        await turns()
        source.say("and then: violence")
        asked.words.put_nowait(BAD)
        await stream.wait_closed()
        assert texts(house.store, stream) == ["all is well"]
        assert finishes(house, stream) == [("content_filter", "penstock:house")]
        assert end(house, stream) == ("completed", "")
        assert source.asked[-1] == "abort"
        assert asked.seen == [ContentMatched("house", "moderator", "block", "output", 1, "r1")]

    reviewed(test)


def test_a_whole_answer_waits_for_the_last_word():
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("violence")
        source.finish()
        await turns()
        assert stream.is_open
        asked.words.put_nowait(BAD)
        await stream.wait_closed()
        assert texts(house.store, stream) == []
        assert finishes(house, stream) == [("content_filter", "penstock:house")]

    reviewed(test)


def test_open_shows_at_once_and_its_finish_waits():
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("violence")
        source.sink.feed([UsageReported(input_tokens=3, output_tokens=2)])
        await turns()
        assert texts(house.store, stream) == ["violence"]
        source.finish()
        await turns()
        assert stream.is_open
        assert finishes(house, stream) == []
        asked.words.put_nowait(BAD)
        await stream.wait_closed()
        assert finishes(house, stream) == [("content_filter", "penstock:house")]

    reviewed(test, closed=False)


@pytest.mark.parametrize(
    ("closed", "ending"), [(True, ("failed", "moderation_unavailable")), (False, ("completed", ""))]
)
def test_a_moderator_that_does_not_answer(closed, ending):
    async def test(house, asked):
        asked.by_itself = ModerationFailed("away")
        stream, source = await house.begin()
        source.say("hello world")
        source.finish()
        await stream.wait_closed()
        assert texts(house.store, stream) == ([] if closed else ["hello world"])
        assert end(house, stream) == ending
        assert len(finishes(house, stream)) == (not closed)

    reviewed(test, closed=closed)


def test_the_provider_is_paused_while_too_much_waits_and_is_not_blamed_for_it():
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("x" * 30)
        assert source.asked == ["open", "pause"]
        await asyncio.sleep(100)
        assert stream.is_open
        asked.words.put_nowait(GOOD)
        await turns()
        assert source.asked == ["open", "pause", "resume"]
        asked.by_itself = GOOD
        source.finish()
        await stream.wait_closed()
        assert end(house, stream) == ("completed", "")

    reviewed(test, max_held=20, timers=Timers(first_output=50, stall=50))


@pytest.mark.parametrize("closed", [True, False])
def test_who_stops_an_answer_does_not_wait_and_sees_nothing_that_was_not_found_good(closed):
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("hello world")
        await turns()
        await house.cancel(stream.id, ME)
        await stream.wait_closed()
        assert texts(house.store, stream) == ([] if closed else ["hello world"])
        assert end(house, stream) == ("cancelled", "cancelled")
        assert not asked.words.qsize()

    reviewed(test, closed=closed)


def test_another_model_goes_on_from_what_was_found_good():
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("hello wor")
        source.sink.feed(BROKEN)
        await turns()
        assert not house.b.requests  # it waits for the word, too
        asked.words.put_nowait(GOOD)
        await asyncio.sleep(5)
        assert house.b.requests[0].messages[-1].content == "hello wor"
        house.b.sources[-1].say("ld")
        house.b.sources[-1].finish()
        asked.words.put_nowait(GOOD)
        await stream.wait_closed()
        assert "".join(texts(house.store, stream)) == "hello world"
        assert end(house, stream) == ("completed", "")

    reviewed(test, target={"continuation": "prefill"})


def test_what_a_filter_masks_is_reviewed_masked_and_what_it_blocks_ends_after_the_last_word():
    class Stopping:
        def feed(self, events):
            if any(getattr(event, "delta", "") == "bad" for event in events):
                raise FilterStop([TextDelta("last"), Finished("content_filter", 0, "rule")])
            return events

        def flush(self):
            return ()

    async def test(house, asked):
        stream, source = await house.begin()
        source.say("first")
        source.say("bad")
        await turns()
        assert texts(house.store, stream) == []
        asked.words.put_nowait(GOOD)
        await stream.wait_closed()
        assert asked.texts == ["firstlast"]
        assert finishes(house, stream) == [("content_filter", "rule")]
        assert end(house, stream) == ("completed", "")
        assert source.asked[-1] == "abort"

    reviewed(test, policy=Recording(filter=Stopping()))


def test_questions_are_bounded_whatever_a_provider_sends():
    async def test(house, asked):
        asked.by_itself = GOOD
        stream, source = await house.begin()
        source.say(*["y" * 3_000] * 7)
        source.finish()
        await stream.wait_closed()
        assert max(map(len, asked.texts)) < MAX_WINDOW + 3_000
        assert "".join(texts(house.store, stream)) == "y" * 21_000

    reviewed(test, max_held=1 << 20)


def test_what_was_not_shown_was_used_all_the_same():
    async def test(house, asked):
        stream, source = await house.begin()
        source.say("violence " * 8)
        source.sink.feed([UsageReported(input_tokens=3, output_tokens=20)])
        asked.words.put_nowait(BAD)
        await stream.wait_closed()
        closed = logged(house.store, stream)[-1]
        assert closed.usage == UsageReported(input_tokens=3, output_tokens=20)

    reviewed(test)
