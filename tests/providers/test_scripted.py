"""How scripts are played: steps, pauses, aborts, endings."""

import asyncio

import pytest

from penstock.providers.scripted import DESCRIPTIONS, INSTANT_STEP_EVENTS, MAX_STEP_EVENTS, ScriptedProvider
from penstock.types.errors import UpstreamError
from penstock.types.events import Finished, Started, TextDelta, UsageReported
from penstock.types.requests import GenerationRequest, Message
from tests.providers.recorder import Recorder, turns

LOOP_TURNS = 2_000
"""More than any of these scripts needs."""


def request(said="Tell me", **fields):
    script = fields.pop("script", None)
    return GenerationRequest(
        "any", (Message("user", said),), extra={"penstock_script": script} if script else None, **fields
    )


INSTANT = ScriptedProvider(speed=0)
"""Made outside the loop, since making one reads files."""


def record(model="demo", *, provider=INSTANT, **fields):
    return Recorder(provider.converse(request(**fields), model))


class Clock:
    def __init__(self):
        self.now = 100.0
        self.provider = ScriptedProvider(clock=lambda: self.now)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=[0, float("inf")])
def instant_provider(request):
    return ScriptedProvider(speed=request.param)


@pytest.fixture
def double_speed():
    return ScriptedProvider(speed=2)


async def test_an_instant_answer_comes_whole_in_several_steps(instant_provider):
    sink = record(provider=instant_provider)
    assert await sink.play() is None
    assert isinstance(sink.events[0], Started)
    assert isinstance(sink.events[-1], UsageReported)
    assert len(sink.steps) > 5
    assert max(map(len, sink.steps)) <= INSTANT_STEP_EVENTS
    assert sink.decoder.finished


async def test_nothing_is_delivered_before_open_returns():
    sink = record()
    await sink.source.open(sink)
    assert sink.steps == []


async def test_a_paced_answer_really_waits(double_speed):
    loop = asyncio.get_running_loop()
    script = {"first_token_delay": 0.05, "jitter": 0, "tokens_per_second": 100}
    instant = record("demo-echo", said="a b c d", script=script)
    paced = record("demo-echo", said="a b c d", script=script, provider=double_speed)
    assert await instant.play() is None
    started = loop.time()
    assert await paced.play() is None
    # One delay and four gaps at double speed: 25 ms + 4 × 5 ms. Only a lower bound can be relied on.
    assert loop.time() - started >= 0.044
    assert paced.events == instant.events


async def test_a_paused_source_delivers_nothing_and_then_everything_in_order():
    whole = record()
    await whole.play()
    sink = record()
    await sink.source.open(sink)
    await turns(3)
    before = len(sink.events)
    assert before
    sink.source.pause()
    await turns(LOOP_TURNS)
    assert len(sink.events) == before
    sink.source.resume()
    assert len(sink.events) == before, "resume itself delivers nothing"
    assert await sink.outcome() is None
    assert sink.events == whole.events


async def test_the_model_goes_on_while_its_reader_is_paused(clock):
    sink = record("demo-long", provider=clock.provider)
    await sink.source.open(sink)
    sink.source.pause()
    clock.now += 1_000
    sink.source.resume()
    assert await sink.outcome() is None
    assert sum(isinstance(event, TextDelta) for event in sink.events) == 4_000
    assert max(map(len, sink.steps)) == MAX_STEP_EVENTS


async def test_only_what_is_due_is_delivered(clock):
    script = {"first_token_delay": 1, "tokens_per_second": 10, "jitter": 0}
    sink = record("demo-long", provider=clock.provider, script=script)
    await sink.source.open(sink)
    sink.source.pause()
    clock.now += 2.05
    sink.source.resume()
    await turns(5)
    assert sum(isinstance(event, TextDelta) for event in sink.events) == 11
    sink.source.abort()


async def test_a_pause_within_a_step_holds_the_next():
    sink = record()
    sink.after_each = sink.source.pause
    await sink.source.open(sink)
    await turns(LOOP_TURNS)
    assert len(sink.steps) == 1
    for expected in (2, 3):
        sink.source.resume()
        await turns(10)
        assert len(sink.steps) == expected
    sink.source.abort()


async def test_the_end_waits_for_a_paused_sink():
    sink = record("demo-empty")
    sink.after_each = sink.source.pause
    await sink.source.open(sink)
    await turns(10)
    assert sink.decoder.finished
    assert not sink.ended
    sink.source.resume()
    assert await sink.outcome() is None


async def test_nothing_comes_after_an_abort_and_no_timer_stays():
    sink = record()
    await sink.source.open(sink)
    await turns(3)
    steps = len(sink.steps)
    sink.source.abort()
    sink.source.abort()
    sink.source.resume()
    await turns(LOOP_TURNS)
    assert len(sink.steps) == steps
    assert not sink.ended
    assert pending_timers() == []


async def test_an_abort_within_a_step_is_the_last_that_happens():
    sink = record()
    sink.after_each = sink.source.abort
    await sink.source.open(sink)
    await turns(LOOP_TURNS)
    assert len(sink.steps) == 1
    assert not sink.ended


async def test_an_abort_before_open_keeps_it_silent():
    sink = record()
    sink.source.abort()
    await sink.source.open(sink)
    await turns(10)
    assert sink.steps == []


async def test_a_source_may_be_paused_before_it_is_opened():
    sink = record()
    sink.source.pause()
    await sink.source.open(sink)
    await turns(10)
    assert sink.steps == []
    sink.source.resume()
    assert await sink.outcome() is None


def pending_timers():
    return [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]


async def test_a_stalled_answer_is_silent_until_it_is_aborted():
    sink = record("demo-stall")
    await sink.source.open(sink)
    await turns(LOOP_TURNS)
    assert sum(isinstance(event, TextDelta) for event in sink.events) == 20
    assert not sink.ended
    assert pending_timers() == []
    sink.source.abort()


@pytest.mark.parametrize(
    ("model", "code", "tokens"),
    [
        ("demo-cut", "upstream_reset", 20),
        ("demo-error", "upstream_error", 20),
        ("demo-truncated", "upstream_truncated", 20),
        ("demo-rate-limited", "rate_limit_exceeded", 0),
        ("demo-overloaded", "overloaded", 0),
    ],
)
async def test_a_misbehaving_model_fails_as_it_says_and_then_is_silent(model, code, tokens):
    sink = record(model)
    error = await sink.play()
    assert isinstance(error, UpstreamError)
    assert error.code == code
    assert sum(isinstance(event, TextDelta) for event in sink.events) == tokens
    await turns(LOOP_TURNS)
    assert sink.after_the_end == 0


async def test_the_decoder_waits_for_every_choice():
    sink = record(n=2, script={"failure": "truncated", "fail_after": 30})
    error = await sink.play()
    assert error is not None
    assert error.code == "upstream_truncated"
    sink = record(n=2, max_output_tokens=3)
    assert await sink.play() is None
    assert sorted(event.index for event in sink.events if isinstance(event, Finished)) == [0, 1]


async def test_every_model_is_listed_with_a_line_for_people():
    models = await INSTANT.models()
    assert [model.name for model in models] == list(DESCRIPTIONS)
    assert all(model.description.endswith(".") and "\n" not in model.description for model in models)
    await INSTANT.aclose()


@pytest.mark.parametrize("speed", [-1, float("nan")])
def test_a_speed_that_makes_no_sense_is_refused(speed):
    with pytest.raises(ValueError, match="speed"):
        ScriptedProvider(speed=speed)


async def test_a_repr_tells_the_state_and_nothing_that_was_said():
    sink = record(said="a secret")
    assert repr(sink.source) == "<ScriptedSource idle>"
    await sink.source.open(sink)
    sink.source.pause()
    assert repr(sink.source) == "<ScriptedSource open, paused>"
    sink.source.abort()
    assert "aborted" in repr(sink.source)
