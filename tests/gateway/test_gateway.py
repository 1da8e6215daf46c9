"""The gateway: starting once, joining, who may read and stop, draining, what a lost reader means."""

import asyncio
import hashlib

import msgspec
import pytest
from structlog.testing import capture_logs

from penstock.streams.store import Record, StreamInfo
from penstock.types.errors import ClientError, GatewayError, StorageError, UpstreamError
from penstock.types.events import Closed, TextDelta, encode_line
from penstock.types.principals import Principal
from tests.gateway.hand import ME, HandStore, House, call, logged, turns
from tests.virtual_time import run_virtually

OTHER = Principal("other")


def played(scene, store=None, **settings):
    """Play ``scene`` with a house of its own, in virtual time."""

    async def main():
        kept = store or HandStore()
        async with House(kept, **settings) as house:
            await asyncio.wait_for(scene(house, kept), 1_000_000)

    run_virtually(main())


async def refused(awaitable):
    with pytest.raises(GatewayError) as caught:
        await awaitable
    return caught.value.code, caught.value.status


# --- idempotency -------------------------------------------------------------------------------------


def test_calls_with_one_key_at_the_same_time_are_one_run():
    async def scene(house, store):
        started = await asyncio.gather(*(house.start(call(idempotency_key="k")) for _ in range(5)))
        assert sorted(s.existing for s in started) == [False, True, True, True, True]
        await turns()
        assert len(house.a.sources) == 1
        # each of them must hear of what is committed
        source = house.a.sources[0]
        waiting = [asyncio.ensure_future(s.stream.wait_closed()) for s in started]
        source.say("hi")
        source.finish()
        await asyncio.gather(*waiting)
        assert {s.stream.state for s in started} == {"completed"}

    played(scene)


def test_a_call_that_finds_a_key_whose_stream_then_cannot_be_created_is_cut_off():
    async def scene(house, store):
        async def disk_full():
            raise StorageError

        store.creating = disk_full
        first = asyncio.ensure_future(house.start(call(idempotency_key="k")))
        await asyncio.sleep(0)
        second = await house.start(call(idempotency_key="k"))
        with pytest.raises(StorageError):
            await first
        await second.stream.wait_closed()
        assert second.stream.lost
        assert house._streams == {}

    played(scene)


def test_a_key_belongs_to_its_principal_and_its_request():
    async def scene(house, store):
        stream, source = await house.begin(idempotency_key="k")
        with pytest.raises(ClientError) as caught:
            await house.start(call("other content", idempotency_key="k"))
        assert (caught.value.code, caught.value.status) == ("idempotency_key_reused", 422)
        source.say("hi")
        source.finish()
        await stream.wait_closed()
        again = await house.start(call(idempotency_key="k"))
        assert (again.existing, again.stream.id, again.stream.state) == (True, stream.id, "completed")

    played(scene)


@pytest.mark.parametrize(("output", "kept"), [(False, False), (True, True)])
def test_a_failure_gives_the_key_back_only_when_nothing_was_shown(output, kept):
    async def scene(house, store):
        stream, source = await house.begin(idempotency_key="k")
        if output:
            source.say("hi")
        source.sink.fail(UpstreamError("no", code="content_filter", retryable=False))
        await stream.wait_closed()
        assert (await house.start(call(idempotency_key="k"))).existing is kept

    played(scene)


def test_a_creation_that_fails_leaves_nothing_behind():
    async def scene(house, store):
        store.fail(final=False)
        with pytest.raises(StorageError):
            await house.start(call())
        assert (house._streams, house._runs, house.open_streams) == ({}, {}, 0)

    played(scene)


# --- joining -----------------------------------------------------------------------------------------


def test_an_equal_call_joins_only_what_nobody_was_told_of():
    async def scene(house, store):
        first = await house.start_or_join(call())
        assert (await house.start_or_join(call())).stream is first.stream
        assert (await house.start_or_join(call("other"))).stream is not first.stream
        first.stream.holders = 1
        assert (await house.start_or_join(call())).stream is not first.stream

    played(scene)


def test_the_window_for_joining_closes():
    async def scene(house, store):
        first = await house.start_or_join(call())
        await asyncio.sleep(31)
        second = await house.start_or_join(call())
        assert second.stream is not first.stream
        assert len(house._unnamed) == 1
        await asyncio.sleep(29)
        assert (await house.start_or_join(call())).stream is second.stream

    played(scene)


def test_equal_calls_that_want_it_share_one_run_while_it_goes_on():
    async def scene(house, store):
        first, source = await house.begin(join=True)
        source.say("hi")
        joined = await house.start(call(join=True))
        assert (joined.stream, joined.existing) == (first, True)
        for alone in (call(), call("other", join=True), call(join=True, idempotency_key="k")):
            assert (await house.start(alone)).stream is not first
        source.finish()
        await first.wait_closed()
        await turns()
        assert (await house.start(call(join=True))).stream is not first

    played(scene)


def test_a_model_can_be_set_to_share_its_runs():
    async def scene(house, store):
        house.settings = msgspec.structs.replace(house.settings, join=("m*",))
        first, _ = await house.begin()
        assert (await house.start(call())).stream is first
        assert (await house.start(call(join=False))).stream is not first

    played(scene)


def test_a_call_that_joins_waits_until_the_stream_is_stored():
    async def scene(house, store):
        stored = asyncio.Event()
        store.creating = stored.wait
        first = asyncio.ensure_future(house.start(call(join=True)))
        await turns()
        second = asyncio.ensure_future(house.start(call(join=True)))
        await turns()
        assert not second.done()
        stored.set()
        assert (await second).stream is (await first).stream

    played(scene)


def test_a_call_does_not_join_a_stream_that_could_not_be_stored():
    async def scene(house, store):
        failed = asyncio.Event()

        async def disk_full():
            await failed.wait()
            store.creating = None
            raise StorageError

        store.creating = disk_full
        first = asyncio.ensure_future(house.start(call(join=True)))
        await turns()
        second = asyncio.ensure_future(house.start(call(join=True)))
        await turns()
        failed.set()
        with pytest.raises(StorageError):
            await first
        assert not (await second).existing
        assert len(house._joinable) == 1

    played(scene)


def test_a_stream_that_was_lost_is_not_joined():
    async def scene(house, store):
        first = await house.start_or_join(call())
        store.by_itself = False
        house.a.sources or await turns()
        house.a.sources[0].say("hi")
        store.fail(final=True)
        store.failing, store.by_itself = None, True
        assert (await house.start_or_join(call())).stream is not first.stream

    with capture_logs():
        played(scene)


# --- who may -----------------------------------------------------------------------------------------


def test_somebody_else_s_stream_looks_like_none_open_and_closed():
    async def scene(house, store):
        stream, source = await house.begin(idempotency_key="k")
        for end in (False, True):
            if end:
                source.say("hi")
                source.finish()
                await stream.wait_closed()
                await turns()
            for attempt in (house.find(stream.id, OTHER), house.cancel(stream.id, OTHER)):
                with pytest.raises(ClientError) as caught:
                    await attempt
                assert (caught.value.code, caught.value.status) == ("stream_not_found", 404)
            with pytest.raises(ClientError):
                await house.cancel_key("k", OTHER)
        assert (await house.find(stream.id, ME)).state == "completed"

    played(scene)


@pytest.mark.parametrize(("stream", "code"), [("gone", "stream_gone"), ("never", "stream_not_found")])
def test_what_is_gone_is_told_from_what_never_was(stream, code):
    async def scene(house, store):
        with pytest.raises(ClientError) as caught:
            await house.find(stream, ME)
        assert caught.value.code == code

    played(scene)


def test_an_open_stream_that_nobody_writes_is_not_waited_for():
    async def scene(house, store):
        store.infos["s"] = info("s")
        assert await refused(house.find("s", ME)) == ("storage_unavailable", 503)

    played(scene)


def test_cancel_is_idempotent_and_tells_how_the_stream_ended():
    async def scene(house, store):
        stream, source = await house.begin(idempotency_key="k")
        source.say("hi")
        first, second = await asyncio.gather(house.cancel(stream.id, ME), house.cancel_key("k", ME))
        assert first.state == second.state == "cancelled"
        assert source.asked.count("abort") == 1
        assert (await house.cancel(stream.id, ME)).state == "cancelled"

    played(scene)


# --- readers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "after", "open_"),
    [
        ("cancel", 0, False),
        ("continue", 3599, True),
        ("continue", 3601, False),
        (5.0, 4, True),
        (5.0, 6, False),
    ],
)
def test_what_a_lost_reader_means_is_the_call_s_setting(policy, after, open_):
    async def scene(house, store):
        stream, source = await house.begin(on_disconnect=policy)
        left = house.attach_reader(stream, ME)
        source.say("hi")
        await asyncio.sleep(100)
        assert stream.is_open
        left()
        await asyncio.sleep(after)
        await turns()
        assert stream.is_open is open_
        if not open_:
            end = logged(store, stream)[-1]
            assert (end.status, end.code) == ("cancelled", "client_disconnected")
            assert source.asked[-1] == "abort"

    played(scene)


def test_a_stranger_s_reading_does_not_keep_a_run_going():
    async def scene(house, store):
        stream, _ = await house.begin(on_disconnect="cancel")
        left = house.attach_reader(stream, ME)
        strange = house.attach_reader(stream, OTHER)
        left()
        await turns()
        assert stream.state == "cancelled"
        strange()

    played(scene)


def test_a_reader_of_a_stream_that_ended_is_not_counted():
    async def scene(house, store):
        stream, source = await house.begin(on_disconnect="cancel")
        source.say("hi")
        source.finish()
        await stream.wait_closed()
        await turns()
        house.attach_reader(stream, ME)()
        assert stream.state == "completed"

    played(scene)


# --- bounds, drain, shutdown -------------------------------------------------------------------------


def test_no_more_streams_than_allowed_are_open_at_once():
    async def scene(house, store):
        stream, _source = await house.begin()
        await house.start(call("second"))
        assert await refused(house.start(call("third"))) == ("overloaded", 503)
        await house.cancel(stream.id, ME)
        await turns()
        await house.start(call("third"))

    played(scene, max_open_streams=2)


def test_draining_refuses_what_is_new_and_interrupts_what_is_late():
    async def scene(house, store):
        early, quick = await house.begin("early", idempotency_key="k")
        late, slow = await house.begin("late")
        draining = asyncio.ensure_future(house.drain(10))
        await turns()
        assert await refused(house.start(call())) == ("draining", 503)
        assert (await house.start(call("early", idempotency_key="k"))).existing
        assert house.unready == "draining"
        quick.say("hi")
        quick.finish()
        await early.wait_closed()
        assert not draining.done()
        await draining
        await late.wait_closed()
        assert asyncio.get_running_loop().time() == 10
        end = logged(store, late)[-1]
        assert (early.state, end.status, end.code, end.retryable) == (
            "completed",
            "interrupted",
            "gateway_shutdown",
            True,
        )
        assert slow.asked == ["open", "abort"]

    played(scene)


def test_draining_ends_as_soon_as_the_last_run_does():
    async def scene(house, store):
        _stream, source = await house.begin()
        asyncio.get_running_loop().call_later(3, lambda: (source.say("hi"), source.finish()))
        await house.drain(1000)
        assert asyncio.get_running_loop().time() == 3

    played(scene)


def test_leaving_the_gateway_interrupts_and_stores_what_is_open():
    store = HandStore()
    kept = []

    async def scene(house, _):
        stream, source = await house.begin()
        source.say("hi")
        kept.append((stream, source))

    played(scene, store)
    ((stream, source),) = kept
    assert source.asked == ["open", "abort"]
    assert logged(store, stream)[-1].status == "interrupted"


# --- what the last process left ----------------------------------------------------------------------


def info(stream, **more):
    return StreamInfo(id=stream, principal="me", created_at=0.0, retention=60.0, **more)


def test_streams_that_were_left_open_are_closed_with_true_digests():
    lines = [encode_line(n, TextDelta(f"word{n} é")) for n in range(1, 601)]
    orphan = info("s", tail=len(lines))
    store = HandStore([orphan, info("empty")])
    store.records["s"] += [Record(n, 0, line) for n, line in enumerate(lines, 1)]

    async def scene(house, _):
        stream = await house.find("s", ME)
        entries = await stream.read(600)
        end = entries[0].event
        assert type(end) is Closed
        assert (end.status, end.code, end.entries, end.retryable) == (
            "interrupted",
            "gateway_restarted",
            600,
            True,
        )
        assert end.sha256 == hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
        text = "".join(f"word{n} é" for n in range(1, 601))
        assert end.text_sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert (await house.find("empty", ME)).state == "interrupted"

    with capture_logs():
        played(scene, store)
