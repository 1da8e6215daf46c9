"""Streams without a writer get their end as soon as the store takes it, and nobody waits on them before."""

import asyncio
import hashlib

import pytest
from structlog.testing import capture_logs

from penstock.gateway.recovery import RETRY
from penstock.types.errors import StorageError
from penstock.types.events import Closed, TextDelta
from tests.gateway.hand import ME, STARTED, HandStore, House, logged, turns
from tests.streams.storing import new_info
from tests.virtual_time import run_virtually


def played(scene, store=None):
    """Play ``scene(house, store)`` in virtual time."""

    async def main():
        house = House(store or HandStore())
        async with house:
            await scene(house, house.store)

    with capture_logs():
        run_virtually(main())


async def lose(house, store):
    """Start a stream, show ``seen``, and let the store fail for good with more on its way."""
    stream, source = await house.begin(idempotency_key="k")
    source.sink.feed([STARTED, TextDelta("seen")])
    await turns()
    store.by_itself = False
    source.say("never seen")
    store.fail(final=True)
    store.logs[stream.id].waiting.clear()
    assert stream.lost
    await turns()
    return stream


def test_a_stream_that_its_run_gave_up_is_interrupted_once_the_store_is_back():
    async def scene(house, store):
        stream = await lose(house, store)
        with pytest.raises(StorageError):
            await house.find(stream.id, ME)
        store.recover()
        await turns()
        found = await house.find(stream.id, ME)
        assert found.state == "interrupted"
        *shown, end = logged(store, stream)
        assert [type(event) for event in shown] == [type(STARTED), TextDelta]
        assert (end.code, end.fault, end.retryable) == ("storage_unavailable", "gateway", True)
        lines = [record.data for record in store.records[stream.id][:-1]]
        assert (end.entries, end.sha256) == (
            2,
            hashlib.sha256(b"".join(n + b"\n" for n in lines)).hexdigest(),
        )
        assert end.text_sha256 == hashlib.sha256(b"seen").hexdigest()

    played(scene)


def test_a_call_with_the_key_of_a_lost_stream_is_refused_and_later_gets_that_stream():
    async def scene(house, store):
        stream = await lose(house, store)
        with pytest.raises(StorageError):
            await house.begin(idempotency_key="k")
        store.recover()
        await turns()
        again, _ = await house.begin(idempotency_key="k")
        assert (again.id, again.state) == (stream.id, "interrupted")

    played(scene)


def test_what_the_store_refuses_is_tried_again():
    class Refusing(HandStore):
        refusals = 3

        async def reopen(self, info, on_commit):
            if self.refusals:
                self.refusals -= 1
                raise StorageError
            return await super().reopen(info, on_commit)

    async def scene(house, store):
        stream = await lose(house, store)
        store.failing = None
        store.by_itself = True
        await asyncio.sleep(2.5 * RETRY)
        assert store.infos[stream.id].status is None
        await asyncio.sleep(RETRY)
        assert store.infos[stream.id].status == "interrupted"

    played(scene, Refusing())


def test_an_end_that_the_store_gives_up_is_appended_anew():
    async def scene(house, store):
        stream = await lose(house, store)
        store.fail(final=True)  # and the end with it
        await turns()
        store.failing = None
        store.by_itself = True
        await asyncio.sleep(1.5 * RETRY)
        assert [event.status for event in logged(store, stream) if type(event) is Closed] == ["interrupted"]

    played(scene)


def test_a_start_does_not_wait_for_ever_on_a_store_that_takes_nothing():
    info = new_info("me")
    store = HandStore([info])
    store.records[info.id] = []
    store.by_itself = False

    async def scene(house, store):
        assert asyncio.get_running_loop().time() == house.settings.recovery_patience
        with pytest.raises(StorageError):
            await house.find(info.id, ME)
        store.commit()
        await turns()
        assert (await house.find(info.id, ME)).state == "interrupted"

    played(scene, store)


def test_an_orphan_that_cannot_be_read_is_left_and_the_others_are_closed():
    bad, good = new_info("me"), new_info("me")
    store = HandStore([bad, good])
    store.records = {bad.id: [], good.id: []}

    async def read(stream, after, limit):
        if stream == bad.id:
            raise ValueError("no such event")
        return []

    store.read = read

    async def scene(house, store):
        assert (await house.find(good.id, ME)).state == "interrupted"
        assert store.infos[bad.id].status is None

    played(scene, store)
