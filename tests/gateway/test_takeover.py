"""What is kept of a call, what a log says to the process after, and what that one does."""

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from penstock.gateway.gateway import Gateway
from penstock.gateway.takeover import (
    MAX_KEPT_BYTES,
    MAX_RESTARTS,
    Step,
    inherit,
    keep,
    next_step,
    recall,
)
from penstock.policies.policy import Admission
from penstock.streams.store import ENTRY, Record
from penstock.types.calls import Call
from penstock.types.errors import ClientError
from penstock.types.events import (
    Closed,
    Finished,
    ReasoningDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    encode_line,
)
from penstock.types.requests import (
    FilePart,
    GenerationRequest,
    ImagePart,
    Message,
    OpaquePart,
    TextPart,
    Tool,
    ToolCall,
)
from penstock.types.timers import Timers
from penstock.types.usage import Payer, payer_of
from tests.gateway.hand import ME, HandStore, House, call, logged, texts, turns
from tests.streams.storing import new_info
from tests.virtual_time import run_virtually

RESUMED = Seam("", "resumed", "gateway_restarted")
STARTED = Started("m", provider="a")

FULL = GenerationRequest(
    "m",
    (
        Message("system", "be brief"),
        Message(
            "user",
            (
                TextPart("水", extra={"cache_control": {"type": "ephemeral"}}),
                ImagePart(data="aGk=", media_type="image/png"),
                FilePart(id="f", name="a.pdf"),
                OpaquePart("anthropic_messages", {"type": "thinking", "n": 1.5}),
            ),
        ),
        Message("assistant", None, tool_calls=(ToolCall("c1", "f", '{"a": 1}'),)),
        Message("tool", "done", tool_call_id="c1"),
    ),
    dialect="anthropic_messages",
    stream=True,
    max_output_tokens=100,
    temperature=0.5,
    stop=("END",),
    tools=(Tool("f", parameters={"type": "object"}, strict=True),),
    tool_choice={"type": "any"},
    reasoning_effort="high",
    extra={"thinking": {"type": "enabled", "budget_tokens": 1024}},
)


# --- what is kept --------------------------------------------------------------------------------------


def test_a_call_comes_back_as_it_was():
    before = Call(
        ME, "streams", FULL, "req_1", "hash", "key", on_disconnect=30.0, ttl=60.0, at_rest="process"
    )
    info = new_info(
        ME.id, key="key", retention=60.0, route="streams", body_sha256="hash", at_rest="process",
        kept=keep(before),
    )  # fmt: skip
    after = recall(info)
    assert after == msgspec.structs.replace(before, join=False, metadata=info.metadata, stream=info.id)


def test_who_pays_comes_back_too():
    payer = Payer("k", "team", "token:1", "preset", 17)
    info = msgspec.structs.replace(new_info(ME.id, kept=keep(Call(ME, "streams", FULL))), payer=payer)
    assert payer_of(recall(info)) == payer


@pytest.mark.parametrize(
    "changes",
    [
        {"at_rest": "none"},
        {"at_rest": "memory"},
        {"on_disconnect": "cancel"},
        {"request": GenerationRequest("m", (Message("user", "x" * MAX_KEPT_BYTES),))},
        {"request": GenerationRequest("m", (Message("user", "lone \ud800"),))},
    ],
)
def test_what_must_not_or_cannot_be_kept_is_not(changes):
    assert keep(Call(ME, "streams", FULL))
    assert keep(msgspec.structs.replace(Call(ME, "streams", FULL), **changes)) == ""


# --- what a log says -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "step"),
    [
        ([], Step.ANEW),
        ([STARTED, UsageReported(3, 0)], Step.ANEW),
        ([RESUMED, RESUMED], Step.ANEW),
        ([RESUMED] * MAX_RESTARTS, Step.END),
        ([STARTED, TextDelta("one")], Step.GO_ON),
        ([STARTED, ReasoningDelta("hm")], Step.GO_ON),
        ([STARTED, ReasoningDelta("hm"), TextDelta("one"), RESUMED, TextDelta(" two")], Step.GO_ON),
        ([STARTED, TextDelta("one"), ToolCallDelta(0, '{"a', "c", "f")], Step.END),
        ([STARTED, TextDelta("one", index=1)], Step.END),
        ([STARTED, TextDelta("one"), Finished("stop")], Step.WHOLE),
        ([STARTED, ToolCallDelta(0, "{}", "c", "f"), Finished("tool_calls")], Step.WHOLE),
    ],
)
def test_what_is_done_with_an_answer_follows_from_its_log(events, step):
    assert next_step(inherit(events), GenerationRequest("m", ())) is step


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest("m", (), n=2),
        GenerationRequest("m", (), logprobs=True),
        GenerationRequest("m", (), response_format={"type": "json_schema"}),
    ],
)
def test_an_answer_that_cannot_be_sewn_is_not_gone_on_with(request_):
    assert next_step(inherit([STARTED, TextDelta("one")]), request_) is Step.END


def test_what_lives_before_have_used_is_told_apart():
    events = [
        Started("big", provider="a", input_tokens=7, target="a/m"),
        TextDelta("x" * 40),
        Seam("b/m", "prompt", "upstream_reset"),
        TextDelta("y" * 8),
        UsageReported(20, 2),
        RESUMED,
        Seam("c/m", "prefill", "gateway_restarted"),
        TextDelta("z" * 4),
    ]
    uses = inherit(events).uses
    assert [(use.target, use.code) for use in uses] == [
        ("a/m", "upstream_reset"),
        ("b/m", "gateway_restarted"),
        ("c/m", "gateway_restarted"),
    ]
    assert [use.usage for use in uses] == [
        UsageReported(7, 10, estimated=True),
        UsageReported(20, 2),
        UsageReported(0, 1, estimated=True),
    ]


# --- what the next process does ------------------------------------------------------------------------


def left(*events, **more):
    """A store with a stream that was left open, and its info."""
    kept = keep(msgspec.structs.replace(call(), **more))
    info = msgspec.structs.replace(new_info(ME.id, kept=kept, model="m"), tail=len(events))
    store = HandStore([info])
    store.records[info.id] = [
        Record(seq, ENTRY, encode_line(seq, event)) for seq, event in enumerate(events, 1)
    ]
    return store, info


def played(scene, store, **settings):
    async def main():
        house = House(store, resumed={"m"}, wall=lambda: 1_700_000_060.0, **settings)
        async with house:
            await asyncio.wait_for(scene(house, store), 1_000_000)

    with capture_logs():
        run_virtually(main())


async def source_of(house):
    await turns(20)
    return house.a.sources[-1]


def end_of(store, info):
    end = logged(store, info)[-1]
    assert type(end) is Closed
    return end


def test_the_text_so_far_is_gone_on_with_and_the_pause_noted():
    store, info = left(STARTED, TextDelta("one"))

    async def scene(house, store):
        source = await source_of(house)
        assert house.a.requests[-1].messages[1] == Message("assistant", "one")
        stream = await house.find(info.id, ME)
        assert logged(store, info)[-1] == RESUMED  # readers see it before anything else happens
        source.say(" two")
        source.finish()
        await stream.wait_closed()
        assert texts(store, info) == ["one", " two"]
        end = end_of(store, info)
        assert (end.status, end.attempts, [report.code for report in end.history]) == (
            "completed", 1, ["gateway_restarted", ""],
        )  # fmt: skip
        assert end.timing.total_ms == 60_000

    played(scene, store)


def test_an_answer_that_had_not_begun_is_asked_for_anew_and_begins_once():
    store, info = left(STARTED)

    async def scene(house, store):
        source = await source_of(house)
        assert len(house.a.requests[-1].messages) == 1
        source.sink.feed([STARTED, TextDelta("hi")])
        source.finish()
        await (await house.find(info.id, ME)).wait_closed()
        kinds = [type(event) for event in logged(store, info)]
        assert kinds == [Started, Seam, TextDelta, Finished, Closed]

    played(scene, store)


def test_an_answer_whose_end_was_missing_gets_it():
    store, info = left(STARTED, TextDelta("one"), UsageReported(3, 1), Finished("stop"))

    async def scene(house, store):
        await turns(20)
        end = end_of(store, info)
        assert (end.status, end.usage, end.attempts) == ("completed", UsageReported(3, 1), 1)
        assert not house.a.sources

    played(scene, store)


def test_when_no_target_goes_on_the_end_is_that_of_a_restart():
    store, info = left(STARTED, TextDelta("one"))

    async def scene(house, store):
        source = await source_of(house)
        source.sink.fail(ClientError("bad"))
        await (await house.find(info.id, ME)).wait_closed()
        end = end_of(store, info)
        assert (end.status, end.code) == ("interrupted", "gateway_restarted")

    played(scene, store)


def test_a_total_time_goes_on_over_the_restart():
    store, info = left(STARTED, TextDelta("one"))

    async def scene(house, store):
        await source_of(house)
        await asyncio.sleep(39)
        assert (await house.find(info.id, ME)).is_open
        await asyncio.sleep(2)
        assert end_of(store, info).code == "generation_timeout"

    played(scene, store, timers=Timers(first_output=0, stall=0, total=100))


def test_where_the_setting_is_gone_the_answer_is_interrupted():
    store, info = left(STARTED, TextDelta("one"))

    async def main():
        async with House(store):
            assert end_of(store, info).status == "interrupted"

    with capture_logs():
        run_virtually(main())


@pytest.mark.parametrize("kept", ["{", '{"request": {"model": 1}}', "null"])
def test_what_cannot_be_understood_is_interrupted(kept):
    store, info = left(STARTED, TextDelta("one"))
    broken = msgspec.structs.replace(info, kept=kept)
    store.orphans = [broken]

    async def scene(house, store):
        await turns(20)
        assert end_of(store, info).status == "interrupted"

    played(scene, store)


class Doorkeeper:
    """A policy that lets in whom it is told to, when it is told to."""

    def __init__(self, refuses=False):
        self.refuses = refuses
        self.open = asyncio.Event()
        self.settled = []

    async def admit(self, call):
        await self.open.wait()
        if self.refuses:
            raise ClientError("no money", code="insufficient_quota", status=402)
        return Admission(call, self.settled.append)

    def filter(self, call):
        return None


def test_policies_are_asked_anew_and_settled_with_what_all_attempts_used():
    store, info = left(STARTED, TextDelta("x" * 40))

    async def main():
        door = Doorkeeper()
        async with House(store, resumed={"m"}, policy=door, recovery_patience=1.0) as house:
            await asyncio.sleep(10)
            assert not house.a.sources
            door.open.set()
            source = await source_of(house)
            source.finish()
            await (await house.find(info.id, ME)).wait_closed()
            (outcome,) = door.settled
            assert [use.code for use in outcome.attempts] == ["gateway_restarted", ""]
            assert outcome.output_tokens >= 10

    with capture_logs():
        run_virtually(main())


def test_a_policy_that_refuses_ends_the_answer():
    store, info = left(STARTED, TextDelta("one"))

    async def main():
        door = Doorkeeper(refuses=True)
        door.open.set()
        async with House(store, resumed={"m"}, policy=door):
            await turns(20)
            assert end_of(store, info).status == "interrupted"

    with capture_logs():
        run_virtually(main())


def test_a_stop_while_a_policy_lets_it_wait_leaves_it_to_the_next_process():
    store, info = left(STARTED, TextDelta("one"))

    async def main():
        async with House(store, resumed={"m"}, policy=Doorkeeper(), recovery_patience=1.0):
            await turns(20)
        assert len(logged(store, info)) == 2

    with capture_logs():
        run_virtually(main())


# --- handing over --------------------------------------------------------------------------------------


def test_a_drain_leaves_what_can_be_gone_on_with_and_ends_the_rest():
    async def scene(house, store):
        stream, source = await house.begin()
        source.say("one")
        other = (await house.start(call("other", on_disconnect="cancel"))).stream
        await turns()
        house.a.sources[-1].say("one")
        await turns()
        draining = asyncio.get_running_loop().create_task(house.drain(5.0))
        await asyncio.sleep(4)
        source.say(" two")
        await draining
        await turns()
        assert "abort" in source.asked
        assert stream.lost
        assert texts(store, stream) == ["one", " two"]
        assert not any(type(event) is Closed for event in logged(store, stream))
        assert end_of(store, other).code == "gateway_shutdown"
        assert house.open_streams == 0

    played(scene, HandStore())


def test_nothing_is_kept_for_models_that_are_not_to_be_gone_on_with():
    async def main():
        store = HandStore()
        async with House(store) as house:
            stream, source = await house.begin()
            assert store.infos[stream.id].kept == ""
            source.say("one")
            await house.drain(1.0)
            await turns()
            assert end_of(store, stream).status == "interrupted"
        assert isinstance(house, Gateway)

    with capture_logs():
        run_virtually(main())
