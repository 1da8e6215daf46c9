"""Whose turn it is after many failed at once."""

import asyncio
from itertools import pairwise

from penstock.gateway.turnstile import Turnstile
from tests.gateway.hand import BROKEN, House, call, turns
from tests.virtual_time import run_virtually


def test_one_goes_on_at_once_and_many_one_after_the_other():
    async def main():
        loop = asyncio.get_running_loop()
        turnstile = Turnstile(loop.time, 0.01)
        passed = []

        async def come():
            await turnstile.turn()
            passed.append(round(loop.time() - start, 6))

        start = loop.time()
        await asyncio.gather(*(come() for _ in range(4)))
        assert passed == [0, 0.01, 0.02, 0.03]
        await asyncio.sleep(1)
        start = loop.time()
        await come()
        assert passed[-1] == 0

    run_virtually(main())


def test_a_loop_that_was_late_lets_nobody_catch_up():
    async def main():
        loop = asyncio.get_running_loop()
        late = 0.0
        turnstile = Turnstile(lambda: loop.time() + late, 0.01)
        passed = []

        async def come():
            await turnstile.turn()
            passed.append(loop.time())

        waiting = [asyncio.ensure_future(come()) for _ in range(5)]
        await turns()
        late = 100.0
        await asyncio.gather(*waiting)
        assert all(b - a >= 0.0099 for a, b in pairwise(passed))

    run_virtually(main())


def test_who_is_cancelled_is_passed_over():
    async def main():
        loop = asyncio.get_running_loop()
        turnstile = Turnstile(loop.time, 0.01)
        await turnstile.turn()
        gone, stays = (asyncio.ensure_future(turnstile.turn()) for _ in range(2))
        await turns()
        gone.cancel()
        start = loop.time()
        await stays
        assert loop.time() - start < 0.011

    run_virtually(main())


def test_streams_of_a_target_that_dies_do_not_all_go_on_in_one_moment():
    async def main():
        loop = asyncio.get_running_loop()
        async with House() as house:
            streams = [(await house.start(call(str(n)))).stream for n in range(50)]
            await turns()
            for source in house.a.sources:
                source.say("a")
            died = loop.time()
            for source in house.a.sources:
                source.sink.fail(BROKEN)
            await turns(20)
            assert len(house.b.sources) == 1
            await asyncio.sleep(0.05)
            assert 20 <= len(house.b.sources) <= 30
            await asyncio.sleep(0.1)
            for source in house.b.sources:
                source.finish()
            await asyncio.gather(*(stream.wait_closed() for stream in streams))
            assert {stream.state for stream in streams} == {"completed"}
            assert loop.time() - died < 1

    run_virtually(main())
