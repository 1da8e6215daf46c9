"""How late the event loop is."""

import asyncio

from penstock.telemetry.lag import INTERVAL, LoopLag
from tests.virtual_time import run_virtually


def test_a_loop_that_is_busy_is_seen_to_be_late():
    async def main():
        loop = asyncio.get_running_loop()
        late = [0.0]
        lag = LoopLag(lambda: loop.time() + late[0])
        await lag.open()
        await asyncio.sleep(INTERVAL * 4.5)
        assert lag.seconds.count == 4
        assert lag.seconds.share_within(0.001) == 1.0
        late[0] = 0.3  # as if somebody had held the loop for so long
        await asyncio.sleep(INTERVAL)
        assert lag.seconds.share_within(0.2) == 0.8
        await lag.aclose()
        before = lag.seconds.count
        await asyncio.sleep(10)
        assert lag.seconds.count == before

    run_virtually(main())
